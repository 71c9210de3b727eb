/* The rest of a start: replay what the journal has behind the mark that open.c has checked, cut a torn tail. */
#include "engine.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lfs_json.h"

#define LFS_SEAL_BYTES_MAX 1023 /* about 500, and its largest numbers make it no longer than this */

typedef struct {
    uint32_t segment;
    uint64_t at, size; /* place in the segment, and its file size */
} cursor;

static int cursor_at(lfs_engine *e, cursor *c, uint32_t segment, uint64_t at) {
    struct stat st;
    if (fstat(e->segments[segment].fd, &st)) return lfs_fail_api(e, "cannot stat a segment: %s", strerror(errno));
    *c = (cursor){segment, at, (uint64_t)st.st_size};
    return 0;
}

/* The next entry, or 0 at the end of the stream, or -1 with `why`. index: the one it must have. */
static int next_entry(lfs_engine *e, cursor *c, uint64_t index, const uint8_t **bytes, uint32_t *len, const char **why) {
    uint64_t base = e->segments[c->segment].base;
    int ended = c->at + 2 > c->size || !(e->segments[c->segment].map[c->at] | e->segments[c->segment].map[c->at + 1]);
    if (ended && c->segment + 1 < e->n_segments && e->segments[c->segment + 1].first_index == index) {
        e->segments[c->segment + 1].base = base + c->at;
        if (cursor_at(e, c, c->segment + 1, 0)) return -1;
        ended = c->at + 2 > c->size || !(e->segments[c->segment].map[0] | e->segments[c->segment].map[1]);
    }
    if (ended) return 0;
    const uint8_t *at = e->segments[c->segment].map + c->at;
    *len = (uint32_t)at[0] << 8 | at[1];
    *why = "an entry is longer than its segment";
    if (c->at + 2 + *len > c->size) return -1;
    *bytes = at + 2;
    c->at += 2 + *len;
    return 1;
}

static const char *check_form(const uint8_t *bytes, uint32_t len, uint64_t index, uint64_t *time, int *is_seal,
                              lfs_entry *entry) {
    uint64_t own_index, own_time;
    int wrapped = lfs_text_is(lfs_entry_kind(bytes, len), "rejected/1"); /* it holds an intent */
    if (bytes[0] != '{' || !lfs_json_is_canonical(bytes, len, wrapped)) return "not a JSON object in canonical form";
    if (lfs_entry_read(bytes, len, entry) || !entry->t.p) return "not an entry";
    if (lfs_entry_u64(entry->index, &own_index) || own_index != index) return "it does not carry its index";
    if (!entry->time.p || entry->time.len != 30 || lfs_time_parse(entry->time.p, entry->time.len, &own_time))
        return "it does not carry its time";
    if (own_time <= *time) return "its time is not later than that of the entry before";
    *time = own_time;
    *is_seal = lfs_text_is(entry->t, "seal/1");
    return NULL;
}

/* The same for one that can be read quickly: then all of it is in e->replay_quick[n], and it is no seal and no policy. 0: it cannot, or its place in the
 * journal is wrong. */
static int form_quick(lfs_engine *e, const cursor *c, const uint8_t *bytes, uint32_t len, uint32_t n, uint64_t index, uint64_t *time) {
    if (n >= e->replay_quick_size) {
        e->replay_quick_size = n + n / 2 + 1024;
        e->replay_quick = lfs_grow(e->replay_quick, e->replay_quick_size * sizeof *e->replay_quick);
    }
    lfs_quick *entry = &e->replay_quick[n];
    if (c->at + LFS_QUICK_BEYOND <= c->size && lfs_quick_read(&e->ledger, bytes, len, entry) && entry->tx && entry->index == index && entry->time > *time) {
        *time = entry->time;
        return 1;
    }
    *entry = (lfs_quick){0};
    return 0;
}

static int number_is(lfs_text token, uint64_t expected) {
    uint64_t value;
    return lfs_entry_u64(token, &value) == 0 && value == expected;
}

/* Does the seal fit the chain and the n entries before it? The frontier goes forward over them. policy: the leaf of the newest policy entry.
 * early: the batch begins before the one before it ended. history: set when the seal fits its own batch, but not what stands before: then
 * that is damaged, for no torn write makes such a batch. */
static const char *check_seal(lfs_engine *e, const lfs_entry *seal, uint64_t first, uint32_t n, const uint8_t *policy, int early,
                              lfs_frontier *after, int *history) {
    uint8_t tx_root[32], log_root[32], state_root[32]; /* whether that is right is seen when the state tree is made */
    *after = e->frontier;
    e->n_tiles = lfs_frontier_append_batch(after, e->leaf_room, n, e->mth_room, e->tile_room, tx_root);
    lfs_frontier_root(after, log_root);
    int chained = lfs_hash_is(seal->prev, e->prev_seal), logged = lfs_hash_is(seal->log_root, log_root);
    if (!number_is(seal->height, e->ledger.height) || !number_is(seal->first, first) || !number_is(seal->count, n) || (!n && (!first || !seal->state_root.p)))
        return "its seal does not continue the chain (height, first, count)";
    if (seal->state_root.p && (seal->state_root.len != 64 || lfs_hex_get(seal->state_root.p, 32, state_root))) return "its state root is not a hash";
    if (!lfs_hash_is(seal->tx_root, tx_root)) return "the bytes of the batch are not those that were sealed (tx_root)";
    *history = early || (!chained && !logged);
    if (early) return "its time is not later than that of the entry before";
    if (!chained) return "its seal does not name the seal before (prev)";
    if (!logged) return "the history is not the one that was sealed (log_root)";
    if (!lfs_hash_is(seal->policy, policy)) return "its seal names another policy than the one in force";
    /* Written anew it must be the same: so it has no other members. */
    uint8_t again[LFS_SEAL_BYTES_MAX + 1];
    uint64_t time;
    lfs_time_parse(seal->time.p, seal->time.len, &time);
    uint32_t len = lfs_render_seal(again, first + n, time, e->ledger.height, first, n, log_root, policy, e->prev_seal,
                                   seal->state_root.p ? state_root : NULL, tx_root);
    if (len != e->replay_len[n] || memcmp(again, e->replay_bytes[n], len)) return "its seal has members that a seal does not have";
    return NULL;
}

static void publish_replayed(lfs_engine *e, uint64_t time) {
    lfs_ledger *l = &e->ledger;
    e->counts = (lfs_counts){l->next_index, l->next_tx - 1, l->height - 1, l->n_accounts, e->stream_end, time, l->incarnation};
    atomic_store(&e->entries, l->next_index);
}

/* Apply the n entries at e->replay_bytes, the last of which is the seal. NULL, or what does not follow from the entries before (*bad). */
static const char *apply_batch(lfs_engine *e, uint32_t n, uint64_t *tags, uint64_t *txs, uint64_t *bad) {
    static __thread char reason[256];
    lfs_ledger *l = &e->ledger;
    uint64_t first = e->replay_first, tx_before = l->next_tx, tx;
    for (uint32_t i = 0; i + 1 < n; i++) {
        e->replay_n = i;
        *bad = first + i;
        const lfs_quick *quick = &e->replay_quick[i];
        lfs_quick_prefetch(l, quick, n - 1 - i);
        if (quick->tx ? lfs_replay_quick(l, quick, e->replay_len[i], &tags[i], &tx, reason)
                      : lfs_replay_entry(l, first + i, e->replay_bytes[i], e->replay_len[i], &tags[i], &tx, reason)) return reason;
        if (tags[i]) lfs_table_load(&l->ids, tags[i], (uint32_t)(first + i));
        if (tx) txs[tx - tx_before] = first + i;
    }
    tags[n - 1] = 0;
    return NULL;
}

/* Read one batch at the cursor and apply it. 1: done; 0: nothing whole follows (`why`, if bytes are there); -1: damage. */
static int replay_batch(lfs_engine *e, cursor *c, const char **why, uint64_t *bad) {
    lfs_ledger *l = &e->ledger;
    uint64_t first = l->next_index, time = 0, begin = e->stream_end;
    uint32_t n = 0, len, policies = 0; /* policies: entries up to the newest policy/1 of the batch */
    const uint8_t *bytes, *policy = l->policy_leaf;
    lfs_entry entry;
    int is_seal = 0, early = 0, history = 0;
    *why = NULL;
    while (!is_seal) {
        *bad = first + n;
        int more = next_entry(e, c, first + n, &bytes, &len, why);
        if (more < 0 || (more == 0 && n)) {
            if (!*why || more == 0) *why = "the last batch has no seal";
            return 0;
        }
        if (more == 0) return 0;
        if (n == LFS_REPLAY_BATCH_MAX) {
            *why = "a batch is larger than any";
            return 0;
        }
        int quick = form_quick(e, c, bytes, len, n, first + n, &time);
        if (!quick && (*why = check_form(bytes, len, first + n, &time, &is_seal, &entry))) return 0;
        if (!n) early = time <= l->last_time && first;
        lfs_rooms(e, n + 1);
        e->offset_room[n] = begin;
        begin += 2 + len;
        e->replay_bytes[n] = bytes;
        e->replay_len[n++] = len;
        if (!quick && lfs_text_is(entry.t, "policy/1")) policies = n;
    }
    lfs_frontier after;
    lfs_leaf_hashes(e->replay_bytes, e->replay_len, n, e->leaf_room);
    if (policies) policy = e->leaf_room + 32ull * (policies - 1);
    if ((*why = check_seal(e, &entry, first, n - 1, policy, early, &after, &history))) {
        if (history && first) *bad = first - 1;
        return history ? -1 : 0;
    }

    /* The batch counts. What is wrong in it now was sealed wrong: damage, never a torn write. */
    uint64_t tx_before = l->next_tx;
    uint64_t *txs = lfs_grow(NULL, 2 * n * sizeof *txs), *tags = txs + n;
    e->replay_first = first;
    l->n_posted = 0;
    lfs_ids_settle(l);
    lfs_table_reserve(&l->ids, n);
    *why = apply_batch(e, n, tags, txs, bad);
    e->replay_n = 0;
    if (*why) {
        free(txs);
        return -1;
    }
    if (policies) memcpy(l->policy_leaf, policy, 32);
    memcpy(e->prev_seal, e->leaf_room + 32ull * (n - 1), 32);
    e->n_tiles += lfs_frontier_append_tiles(&after, e->prev_seal, 1, e->tile_room + 32 * e->n_tiles);
    e->frontier = after;
    lfs_batch batch = {first, n, e->offset_room, e->leaf_room, txs, (uint32_t)(l->next_tx - tx_before), e->tile_room, e->n_tiles};
    int failed = lfs_project(e, &batch);
    if (!failed) lfs_ids_tail_add(&e->runs, tags, n);
    free(txs);
    if (failed) {
        lfs_fail_api(e, "runs/ or hashes/ cannot be written: %s", strerror(errno));
        return -2;
    }
    e->stream_end = begin;
    l->next_index = first + n;
    l->last_time = time;
    l->height++;
    e->replayed += n;
    publish_replayed(e, time);
    for (uint32_t i = 0; i < l->n_posted; i++) {
        if (i + LFS_QUICK_AHEAD < l->n_posted) __builtin_prefetch(&e->runs.heads[l->posted[i + LFS_QUICK_AHEAD].ordinal], 1);
        lfs_tail_add(&e->runs, l->posted[i].ordinal, l->posted[i].index, l->posted[i].len, l->posted[i].states);
    }
    failed = lfs_runs_step(e);
    if (failed) lfs_fail_api(e, "indexes/ cannot be written: %s", strerror(failed));
    return failed ? -2 : 1;
}

/* Where the bytes that are not zero end. */
#define SCAN_BYTES (1u << 20)
static uint64_t content_end(const uint8_t *map, uint64_t from, uint64_t end) {
    for (uint64_t begin; end > from; end = begin) {
        uint64_t word = 0;
        begin = end - from > SCAN_BYTES ? end - SCAN_BYTES : from;
        madvise((void *)((uintptr_t)(map + begin) & ~(uintptr_t)(LFS_BLOCK - 1)), end - begin, MADV_POPULATE_READ); /* in one piece, if it can */
        uint64_t at = begin;
        for (; at + 8 <= end; at += 8) {
            uint64_t some;
            memcpy(&some, map + at, 8);
            word |= some;
        }
        for (; at < end; at++) word |= map[at];
        if (!word) continue;
        while (!map[end - 1]) end--;
        return end;
    }
    return end;
}

/* Does a seal of a block after the next one stand in the bytes that do not count, or anything behind the seal of the next one? Then the next one
 * was durable when that was written: no torn write. (Two members are looked at, so that one bad bit in the seal of a torn batch does not make it a
 * later one. User text cannot pass for a seal: the first byte of a seal's length is a control character, which JSON escapes.) */
static int written_after(lfs_engine *e, uint32_t segment, uint64_t from) {
    static const char head[] = "{\"count\":";
    int next_seen = 0;
    for (uint32_t i = segment; i < e->n_segments; i++, from = 0) {
        struct stat st;
        const uint8_t *map = e->segments[i].map;
        if (fstat(e->segments[i].fd, &st)) continue;
        const uint8_t *p = map + from, *end = map + content_end(map, from, (uint64_t)st.st_size);
        if (next_seen && end > p) return 1;
        for (; p < end && (p = memmem(p, (size_t)(end - p), head, sizeof head - 1)); p++) {
            lfs_entry entry;
            uint64_t height, first;
            uint32_t len = p - map >= 2 ? (uint32_t)p[-2] << 8 | p[-1] : 0;
            if (!len || len > LFS_SEAL_BYTES_MAX || p + len > end || lfs_entry_read(p, len, &entry) || !lfs_text_is(entry.t, "seal/1") ||
                lfs_entry_u64(entry.height, &height) || lfs_entry_u64(entry.first, &first)) continue;
            if (height > e->ledger.height && first > e->ledger.next_index) return 1;
            if (height != e->ledger.height || first != e->ledger.next_index) continue;
            next_seen = 1;
            if (p + len < end) return 1;
        }
    }
    return 0;
}

#define UNTOUCHED "; nothing was changed; restore journal/ from a backup"

/* Zero what follows the last good seal, so that it can never be read as entries. */
static int cut_tail(lfs_engine *e, uint32_t segment, uint64_t from) {
    for (uint32_t i = segment; i < e->n_segments; i++, from = 0) {
        struct stat st;
        const uint8_t *map = e->segments[i].map;
        if (fstat(e->segments[i].fd, &st)) return lfs_fail_api(e, "cannot stat a segment: %s", strerror(errno));
        uint64_t end = content_end(map, from, (uint64_t)st.st_size);
        if (end <= from) continue;
        uint8_t *zeros = calloc(1, end - from);
        int failed = !zeros || lfs_write_all(e->segments[i].fd, zeros, end - from, from) || fdatasync(e->segments[i].fd);
        free(zeros);
        if (failed) return lfs_fail_api(e, "cannot cut the unfinished batch at the end of the journal: %s", strerror(errno));
        e->cut_bytes += end - from;
    }
    /* Segments behind the one that ends are empty now: they were begun for the batch that is gone. */
    while (e->n_segments > segment + 1) {
        char name[40];
        lfs_segment *s = &e->segments[e->n_segments - 1];
        snprintf(name, sizeof name, "%020llu.seg", (unsigned long long)s->first_index);
        if (unlinkat(e->journal_dir, name, 0)) return lfs_fail_api(e, "cannot remove journal/%s: %s", name, strerror(errno));
        close(s->fd);
        e->n_segments--;
    }
    return fsync(e->journal_dir) ? lfs_fail_api(e, "cannot sync journal/: %s", strerror(errno)) : 0;
}

/* Behind the last entry of a segment that another follows only zeros may stand: a crash can lose its cut, but nothing is ever written there. */
static int check_closed(lfs_engine *e, uint32_t until) {
    for (uint32_t i = 0; i < until; i++) {
        struct stat st;
        const lfs_segment *s = &e->segments[i];
        uint64_t length = s[1].base - s->base, size = fstat(s->fd, &st) ? length : (uint64_t)st.st_size;
        if (size <= length || (size <= s->map_len && content_end(s->map, length, size) <= length)) continue;
        return lfs_fail_api(e, "journal/%020llu.seg, entry %llu: bytes that are no entry stand behind it, the last of its segment%s",
                            (unsigned long long)s->first_index, (unsigned long long)s[1].first_index - 1, UNTOUCHED);
    }
    return 0;
}

/* A segment that another follows has its exact length, but a crash can lose the cut: others find their way by these lengths. */
static int close_segments(lfs_engine *e) {
    for (uint32_t i = 0; i + 1 < e->n_segments; i++) {
        struct stat st;
        const lfs_segment *s = &e->segments[i];
        uint64_t length = s[1].base - s->base;
        if (fstat(s->fd, &st) == 0 && (uint64_t)st.st_size == length) continue;
        if (ftruncate(s->fd, (off_t)length) || fsync(s->fd))
            return lfs_fail_api(e, "cannot cut journal/%020llu.seg: %s", (unsigned long long)s->first_index, strerror(errno));
    }
    return 0;
}

int lfs_replay(lfs_engine *e, uint64_t bytes, lfs_progress *progress) {
    uint64_t until = e->stream_end + bytes, bad = 0;
    uint32_t segment = (uint32_t)e->replay_segment;
    const char *why = NULL;
    cursor c = {0}, good;
    if (segment == 0 && e->stream_end) { /* the first call after a mark */
        while (segment + 1 < e->n_segments && e->segments[segment + 1].base <= e->stream_end) segment++;
    }
    if (cursor_at(e, &c, segment, e->stream_end - e->segments[segment].base)) return -1;
    int more = 1;
    do {
        good = c;
        more = replay_batch(e, &c, &why, &bad);
    } while (more == 1 && e->stream_end < until);
    e->replay_segment = more == 1 ? c.segment : good.segment;
    *progress = (lfs_progress){e->replayed, e->cut_bytes, e->stream_end, e->total_bytes};
    if (more == 1) return 1;
    free(e->replay_quick);
    e->replay_quick = NULL;
    e->replay_quick_size = 0;
    const char *advice = UNTOUCHED;
    if (more == -2) return -2;
    uint32_t damaged = good.segment;
    while (damaged + 1 < e->n_segments && e->segments[damaged + 1].first_index <= bad) damaged++;
    unsigned long long name = e->segments[damaged].first_index;
    if (more < 0) return lfs_fail_api(e, "journal/%020llu.seg, entry %llu: %s%s", name, (unsigned long long)bad, why, advice);
    if (written_after(e, good.segment, good.at))
        return lfs_fail_api(e, "journal/%020llu.seg, entry %llu: %s, and later batches follow: the journal is damaged%s", name,
                            (unsigned long long)bad, why ? why : "the stream ends here", advice);
    if (!e->counts.blocks) return lfs_fail_api(e, "journal/%020llu.seg, entry %llu: %s%s", name, (unsigned long long)bad, why ? why : "empty", advice);
    if (check_closed(e, good.segment)) return -1;
    if (cut_tail(e, good.segment, good.at) || close_segments(e)) return -2;
    /* A process that was killed before its sync may have left the last batch in the page cache only. It counts from now on: whoever sends one of
     * its intents again is told so. */
    if (fdatasync(e->segments[good.segment].fd)) {
        lfs_fail_api(e, "cannot sync journal/%020llu.seg: %s", (unsigned long long)e->segments[good.segment].first_index, strerror(errno));
        return -2;
    }
    memcpy(e->published, e->ledger.state, e->ledger.n_accounts * sizeof *e->published);
    for (uint64_t page = 0; e->replayed && page <= e->ledger.n_accounts / 64; page++) e->dirty[page >> 6] |= 1ull << (page & 63);
    progress->cut_bytes = e->cut_bytes;
    return 0;
}
