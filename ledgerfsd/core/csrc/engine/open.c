/* Opening a store, and making one: what was saved must belong to the journal (the mark). What is behind it in the journal is replayed in recover.c. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lfs_json.h"

static int open_dirs(lfs_engine *e, int empty) {
    const char *names[] = {"journal", "hashes", "runs"};
    int *fds[] = {&e->journal_dir, &e->hashes_dir, &e->runs_dir};
    int store = open(e->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store < 0) return lfs_fail_api(e, "cannot open the store %s: %s", e->store, strerror(errno));
    for (int i = 0; i < 3; i++) {
        if (mkdirat(store, names[i], 0750) && errno != EEXIST) break;
        *fds[i] = openat(store, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (*fds[i] < 0) break;
    }
    int failed = e->runs_dir >= 0 && lfs_runs_open(e, store, empty);
    close(store);
    if (failed) return -1;
    return e->journal_dir < 0 || e->runs_dir < 0 ? lfs_fail_api(e, "cannot open the folders of the store: %s", strerror(errno)) : 0;
}

void lfs_engine_ids(lfs_engine *e, uint64_t recent) {
    e->ledger.ids_most = recent;
    e->runs.ids_run = recent / 2 + 1;
    while (e->runs.words_kept > 64 && e->runs.words_kept > recent) e->runs.words_kept /= 2;
}

int lfs_engine_create(lfs_engine *e, const char *ledger, const char *currencies_hash, uint64_t now_ns) {
    uint8_t bytes[4096], leaf[32], root[32];
    static const uint8_t none[32];
    if (open_dirs(e, 1)) return -1;
    if (lfs_segment_begin(e, 0, 0)) return lfs_fail_api(e, "cannot make the first segment: %s", strerror(errno));
    uint32_t len = lfs_render_genesis(bytes + 2, now_ns, ledger, currencies_hash);
    const uint8_t *entry = bytes + 2;
    bytes[0] = (uint8_t)(len >> 8);
    bytes[1] = (uint8_t)len;
    lfs_leaf_hashes(&entry, &len, 1, leaf);
    lfs_mth(leaf, 1, root, root);
    uint8_t *seal = bytes + 2 + len;
    uint32_t seal_len = lfs_render_seal(seal + 2, 1, now_ns + 1, 1, 0, 1, root, leaf, none, NULL, root);
    seal[0] = (uint8_t)(seal_len >> 8);
    seal[1] = (uint8_t)seal_len;
    if (lfs_write_all(e->segments[0].fd, bytes, len + seal_len + 4, 0) || fdatasync(e->segments[0].fd))
        return lfs_fail_api(e, "cannot write genesis: %s", strerror(errno));
    return 0;
}

/* -- the mark */

enum { M_FINGERPRINT, M_ENTRIES, M_STREAM, M_TRANSACTIONS, M_BLOCKS, M_ACCOUNTS, M_TIME, M_RUNS, M_COUNT = 10 };

/* Saved pages are memory of this very build's layout and currency table: another build must rebuild them. */
static uint64_t fingerprint(const lfs_ledger *l) {
    uint8_t digest[32];
    uint64_t sizes[] = {4, sizeof(lfs_info), sizeof(lfs_state), sizeof(lfs_hold), l->n_iso};
    uint64_t value;
    lfs_sha256((const uint8_t *)l->currencies, l->n_iso * sizeof *l->currencies, digest);
    memcpy(&value, digest, 8);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) value = value * 1000003 + sizes[i];
    return value;
}

/* For lfs_save_begin. */
int lfs_mark_write(lfs_engine *e, uint8_t *mark) {
    uint64_t fields[M_COUNT] = {fingerprint(&e->ledger), e->counts.entries, e->counts.stream_bytes, e->counts.transactions,
                                e->counts.blocks, e->counts.accounts, e->counts.time_ns, lfs_runs_digest(e)};
    memcpy(mark, fields, sizeof fields);
    return 0;
}

static int open_projections(lfs_engine *e, const uint64_t *mark) {
    uint64_t entries = mark[M_ENTRIES];
    if (lfs_dense_open(e, &e->offsets, e->runs_dir, "offsets", entries * 8, LFS_ENTRIES_MAX * 8) ||
        lfs_dense_open(e, &e->transactions, e->runs_dir, "transactions", mark[M_TRANSACTIONS] * 8, LFS_ENTRIES_MAX * 8) ||
        lfs_dense_open(e, &e->blocks, e->runs_dir, "blocks", mark[M_BLOCKS] * 8, LFS_ENTRIES_MAX * 8)) return -1;
    for (int level = 0; level < LFS_LEVELS; level++) {
        char name[8];
        snprintf(name, sizeof name, "%d", level);
        uint64_t size = entries >> (8 * level);
        if (level && !size) {
            if (unlinkat(e->hashes_dir, name, 0) && errno != ENOENT) return lfs_fail_api(e, "cannot remove hashes/%s", name);
            continue;
        }
        if (lfs_dense_open(e, &e->hashes[level], e->hashes_dir, name, size * 32, (LFS_ENTRIES_MAX * 32) >> (8 * level))) return -1;
    }
    return 0;
}

/* The frontier from the hash files: whole tiles of the higher levels first. */
static void load_frontier(lfs_engine *e, uint64_t entries) {
    lfs_frontier_init(&e->frontier);
    uint64_t done = 0;
    for (int level = LFS_LEVELS - 1; level >= 0; level--) {
        uint64_t until = entries >> (8 * level);
        for (uint64_t i = done; i < until; i++)
            lfs_frontier_append_subtree(&e->frontier, (unsigned)(8 * level), e->hashes[level].map + i * 32);
        done = level ? until * 256 : until;
    }
}

int lfs_hash_is(lfs_text hex, const uint8_t hash[32]) {
    uint8_t value[32];
    return hex.p && hex.len == 64 && lfs_hex_get(hex.p, 32, value) == 0 && memcmp(value, hash, 32) == 0;
}

/* Does the mark belong to this journal and these projections? Its last entry must be the seal that they say. */
static int check_mark(lfs_engine *e, const uint64_t *mark) {
    lfs_entry entry;
    uint64_t height, index;
    uint32_t len;
    uint8_t leaf[32];
    if (mark[M_RUNS] != lfs_runs_digest(e)) return lfs_fail_api(e, "runs/ is not what was saved");
    for (uint32_t i = 1; i < e->n_segments; i++)
        if (e->segments[i].first_index < mark[M_ENTRIES]) {
            memcpy(&e->segments[i].base, e->offsets.map + e->segments[i].first_index * 8, 8);
        } else {
            e->segments[i].base = UINT64_MAX; /* replay will tell */
        }
    uint64_t at;
    memcpy(&at, e->offsets.map + (mark[M_ENTRIES] - 1) * 8, 8);
    const lfs_segment *s = lfs_segment_at(e, at);
    struct stat st;
    if (fstat(s->fd, &st) || at - s->base + 2 > (uint64_t)st.st_size) return lfs_fail_api(e, "the journal is shorter than the mark");
    const uint8_t *bytes = lfs_entry_at(e, mark[M_ENTRIES] - 1, &len);
    if (at - s->base + 2 + len > (uint64_t)st.st_size) return lfs_fail_api(e, "the journal is shorter than the mark");
    lfs_leaf_hashes(&bytes, &len, 1, leaf);
    if (memcmp(leaf, e->hashes[0].map + (mark[M_ENTRIES] - 1) * 32, 32) || lfs_entry_read(bytes, len, &entry) ||
        !lfs_text_is(entry.t, "seal/1") || lfs_entry_u64(entry.height, &height) || lfs_entry_u64(entry.index, &index) ||
        height != mark[M_BLOCKS] || index != mark[M_ENTRIES] - 1 || at + 2 + len != mark[M_STREAM])
        return lfs_fail_api(e, "the saved mark does not belong to this journal");
    memcpy(e->prev_seal, leaf, 32);
    /* All that later roots depend on is proven by the seal: a bad bit here would be sealed for ever. */
    uint8_t root[32];
    load_frontier(e, mark[M_ENTRIES] - 1);
    lfs_frontier_root(&e->frontier, root);
    if (!lfs_hash_is(entry.log_root, root)) return lfs_fail_api(e, "hashes/ is not what was sealed");
    lfs_frontier_append(&e->frontier, leaf, 1);
    return 0;
}

static int read_seed(lfs_engine *e) {
    const uint8_t *at = e->segments[0].map, *entry = at + 2;
    struct stat st;
    uint8_t leaf[32];
    lfs_entry genesis;
    uint32_t len;
    if (fstat(e->segments[0].fd, &st) || st.st_size < 2 || (len = (uint32_t)at[0] << 8 | at[1]) + 2 > st.st_size ||
        lfs_entry_read(entry, len, &genesis) || !lfs_text_is(genesis.t, "genesis/1"))
        return lfs_fail_api(e, "journal/%020d.seg, entry 0: not a genesis entry", 0);
    lfs_leaf_hashes(&entry, &len, 1, leaf);
    memcpy(&e->ledger.seed, leaf, 8);
    memcpy(e->ledger.policy_leaf, leaf, 32);
    return 0;
}

int lfs_engine_open(lfs_engine *e, const uint8_t *mark) {
    uint64_t fields[M_COUNT] = {0};
    struct stat st;
    if (mark) memcpy(fields, mark, sizeof fields);
    if (mark && fields[M_FINGERPRINT] != fingerprint(&e->ledger)) return lfs_fail_api(e, "index.lmdb was saved by another build");
    if (open_dirs(e, !mark) || lfs_segments_open(e) || read_seed(e) || open_projections(e, fields)) return -1;
    if (!mark && unlinkat(e->runs_dir, "ids", 0) && errno != ENOENT) /* of builds that had all ids in memory, and kept them there */
        return lfs_fail_api(e, "cannot remove runs/ids: %s", strerror(errno));
    for (uint32_t i = 0; i < e->n_segments; i++)
        if (fstat(e->segments[i].fd, &st) == 0) e->total_bytes += (uint64_t)st.st_size;
    for (uint32_t i = 1; i < e->n_segments; i++) e->segments[i].base = UINT64_MAX;
    if (!mark) return 0;
    if (fields[M_ENTRIES] < 2 || check_mark(e, fields)) return fields[M_ENTRIES] < 2 ? lfs_fail_api(e, "the mark is empty") : -1;
    e->stream_end = fields[M_STREAM];
    e->done_bytes = fields[M_STREAM];
    e->ledger.next_index = fields[M_ENTRIES];
    e->ledger.next_tx = fields[M_TRANSACTIONS] + 1;
    e->ledger.height = fields[M_BLOCKS] + 1;
    e->ledger.last_time = fields[M_TIME];
    e->ledger.n_accounts = (uint32_t)fields[M_ACCOUNTS];
    e->counts = (lfs_counts){fields[M_ENTRIES], fields[M_TRANSACTIONS], fields[M_BLOCKS], fields[M_ACCOUNTS], fields[M_STREAM],
                             fields[M_TIME], 1}; /* the incarnation comes with the policy */
    atomic_store(&e->entries, fields[M_ENTRIES]);
    return 0;
}
