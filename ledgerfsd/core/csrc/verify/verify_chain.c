/* The chain of seals, in order: which batches count, and what is wrong when one does not (docs/FORMAT.md, section 3). A batch that counts is judged, entry by
 * entry, and then the state root that its seal carries. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "verify.h"

#define SEAL_BYTES_MAX 1023 /* about 500, and its largest numbers make it no longer than this */

/* -- trees */

/* A hash of `level` is complete: compare it, and go on to the next level. NULL: it is taken on trust, from the file. */
static void level_up(lfs_verify *v, unsigned level, uint64_t number, const uint8_t *root) {
    uint8_t above[32], scratch[128 * 32], *roots;
    lfs_projection *p = &v->projections[LFS_V_HASHES + level];
    if (LFS_V_HASHES + level >= LFS_V_FILES) return;
    if (!v->level_roots[level]) v->level_roots[level] = lfs_grow(NULL, LFS_BUNDLE * 32);
    roots = v->level_roots[level];
    if (root) {
        memcpy(roots + number % LFS_BUNDLE * 32, root, 32);
        lfs_projection_compare(v, LFS_V_HASHES + level, number, 1, roots + number % LFS_BUNDLE * 32, scratch);
    } else if (p->fd < 0 || lfs_read_fully(p->fd, roots + number % LFS_BUNDLE * 32, 32, number * 32) != 32) {
        memset(roots + number % LFS_BUNDLE * 32, 0, 32);
    }
    if (number % LFS_BUNDLE != LFS_BUNDLE - 1) return;
    int trusted = (number / LFS_BUNDLE) << (8 * (level + 1)) < v->task.trusted;
    if (!trusted) lfs_mth(roots, LFS_BUNDLE, scratch, above);
    level_up(v, level + 1, number / LFS_BUNDLE, trusted ? NULL : above);
}

static void log_append(lfs_verify *v, const lfs_piece *piece, uint32_t from, uint32_t to) {
    for (uint32_t at = from; at < to;) {
        uint32_t next = (at / LFS_BUNDLE + 1) * LFS_BUNDLE, end = next < to ? next : to;
        if (at % LFS_BUNDLE == 0 && end == next && piece->first + at >= v->task.trusted) {
            lfs_frontier_append_subtree(&v->log, 8, piece->bundles + 32ull * (at / LFS_BUNDLE));
        } else {
            lfs_frontier_append(&v->log, piece->leaves + 32ull * at, end - at);
        }
        at = end;
    }
}

/* The same of the tree of the batch. Nearly all batches begin where 64 entries do in the log: their trees have the low levels in common. */
static void batch_append(lfs_verify *v, const lfs_piece *piece, uint32_t from, uint32_t to) {
    uint32_t whole = piece->good / LFS_BUNDLE * LFS_BUNDLE, end = to < whole ? to : whole;
    uint32_t first = (from + LFS_QUARTER - 1) / LFS_QUARTER * LFS_QUARTER, last = end / LFS_QUARTER * LFS_QUARTER;
    if (v->batch_first % LFS_QUARTER || piece->first % LFS_QUARTER || first >= last) first = last = to;
    lfs_frontier_append(&v->batch, piece->leaves + 32ull * from, first - from);
    for (uint32_t at = first; at < last; at += LFS_QUARTER) lfs_frontier_append_subtree(&v->batch, 6, piece->quarters + 32ull * (at / LFS_QUARTER));
    lfs_frontier_append(&v->batch, piece->leaves + 32ull * last, to - last);
}

/* Entries from..to of the piece go into the log; on the way, the roots that are wanted. */
static void log_take(lfs_verify *v, const lfs_piece *piece, uint32_t from, uint32_t to) {
    uint32_t first = from;
    while (first < to && piece->first + first < v->task.trusted) first++;
    for (uint32_t i = 0; i < v->n_wanted; i++) {
        uint64_t size = v->wanted[i].size;
        if (size <= piece->first + first || size > piece->first + to) continue;
        log_append(v, piece, first, (uint32_t)(size - piece->first));
        first = (uint32_t)(size - piece->first);
        lfs_frontier_root(&v->log, v->wanted[i].root);
        v->wanted[i].known = 1;
    }
    log_append(v, piece, first, to);
    for (uint32_t at = (from + LFS_BUNDLE) / LFS_BUNDLE * LFS_BUNDLE; at <= to; at += LFS_BUNDLE) {
        uint64_t bundle = (piece->first + at) / LFS_BUNDLE - 1;
        level_up(v, 1, bundle, bundle * LFS_BUNDLE < v->task.trusted ? NULL : piece->bundles + 32ull * (at / LFS_BUNDLE - 1));
    }
}

/* The trees of what is taken on trust, from hashes/: they must give the root that the next seals build upon. */
static void trust(lfs_verify *v, const uint8_t *seal_leaf) {
    uint64_t done = 0, size = v->task.trusted - 1;
    uint8_t node[32];
    for (int level = LFS_V_FILES - LFS_V_HASHES - 1; level >= 0; level--) {
        uint64_t until = size >> (8 * level);
        for (uint64_t i = done; i < until; i++) {
            int fd = v->projections[LFS_V_HASHES + level].fd;
            if (fd < 0 || lfs_read_fully(fd, node, 32, i * 32) != 32) memset(node, 0, 32);
            lfs_frontier_append_subtree(&v->log, (unsigned)(8 * level), node);
        }
        done = level ? until * LFS_BUNDLE : until;
    }
    lfs_frontier_append(&v->log, seal_leaf, 1);
    v->trusting = 1;
    for (uint32_t i = 0; i < v->n_wanted; i++) {
        if (v->wanted[i].size != v->task.trusted) continue;
        lfs_frontier_root(&v->log, v->wanted[i].root);
        v->wanted[i].known = 1;
    }
}

/* -- state roots */

void lfs_root_job_free(lfs_root_job *job) {
    if (job->size) munmap(job->states, job->size * sizeof *job->states);
    free(job->ordinals);
    free(job->currencies);
    free(job);
}

/* One that has done its work has memory that is mapped already: the system clears each page that it gives. */
static lfs_root_job *root_job_take(lfs_verify *v, uint32_t n) {
    pthread_mutex_lock(&v->lock);
    lfs_root_job *job = v->spare_roots;
    if (job) v->spare_roots = job->next;
    pthread_mutex_unlock(&v->lock);
    if (!job) {
        job = lfs_grow(NULL, sizeof *job);
        memset(job, 0, sizeof *job);
    }
    job->next = NULL;
    job->n = n;
    if (n < job->size) return job;
    uint32_t before = job->size;
    job->size = n + n / 4 + 1;
    job->ordinals = lfs_grow(job->ordinals, job->size * sizeof *job->ordinals);
    job->states = lfs_verify_reserved(job->states, before * sizeof *job->states, job->size * sizeof *job->states);
    return job;
}

/* In rising order where there are many: memory and tree are then gone through once. */
static void take_touched(lfs_verify *v, uint32_t *out) {
    uint32_t n = v->n_touched, accounts = v->ledger.n_accounts;
    if (n < accounts / 64) {
        memcpy(out, v->touched, n * sizeof *out);
        return;
    }
    for (uint32_t i = 0; i < n; i++) v->marks[v->touched[i] / 64] |= 1ull << v->touched[i] % 64;
    for (uint32_t word = 0; word <= accounts / 64; v->marks[word++] = 0)
        for (uint64_t left = v->marks[word]; left; left &= left - 1) *out++ = 64 * word + (uint32_t)__builtin_ctzll(left);
}

/* What has changed since the last seal that carried the root, as it is now. */
static void root_later(lfs_verify *v, uint64_t seal, const lfs_text *carried) {
    lfs_ledger *l = &v->ledger;
    lfs_root_job *job = root_job_take(v, v->n_touched);
    job->seal = seal;
    job->accounts = l->n_accounts;
    job->n_currencies = l->n_currencies;
    lfs_hex_get(carried->p, 32, job->root);
    job->currencies = lfs_grow(job->currencies, job->n_currencies * sizeof *job->currencies);
    memcpy(job->currencies, l->currencies, job->n_currencies * sizeof *job->currencies);
    take_touched(v, job->ordinals);
    for (uint32_t i = 0; i < job->n; i++) {
        if (i + 16 < job->n) lfs_prefetch_judged(&v->accounts[job->ordinals[i + 16]]);
        job->states[i] = lfs_judged_state(&v->accounts[job->ordinals[i]]);
    }
    v->n_touched = 0;
    v->root_end = seal + 1;
    pthread_mutex_lock(&v->lock);
    *v->roots_tail = job;
    v->roots_tail = &job->next;
    v->n_roots++;
    pthread_cond_broadcast(&v->work);
    pthread_mutex_unlock(&v->lock);
}

void lfs_root_work(lfs_verify *v, lfs_root_job *job) {
    const lfs_ledger *l = &v->ledger; /* of which only what never changes is looked at */
    uint8_t root[32];
    for (uint32_t i = v->tree.n_accounts; i < job->accounts; i++) lfs_state_tree_open(&v->tree, &l->info[i], &job->currencies[l->info[i].currency]);
    for (uint32_t i = 0; i < job->n; i++) {
        if (i + 16 < job->n) __builtin_prefetch(&l->info[job->ordinals[i + 16]]);
        lfs_state_tree_set(&v->tree, job->ordinals[i], &l->info[job->ordinals[i]], &job->states[i]);
    }
    lfs_state_tree_root(&v->tree, root);
    if (memcmp(root, job->root, 32) != 0) lfs_verify_found(v, job->seal, "its state_root is not that of the accounts");
}

/* -- a batch that does not count */

static uint8_t *file_bytes(const lfs_journal_file *file, uint64_t from, uint64_t *len) {
    uint64_t size = lfs_journal_file_end(file, from) - from;
    uint8_t *bytes = lfs_grow(NULL, size + 1);
    int got = lfs_read_fully(file->fd, bytes, size, from);
    *len = got < 0 ? 0 : (uint64_t)got;
    return bytes;
}

/* Where the last batch that counts ends: which file, and the place in it. */
static uint32_t good_end(const lfs_verify *v, uint64_t *at) {
    uint32_t which = 0;
    while (which + 1 < v->n_files && v->files[which + 1].first < v->batch_first) which++;
    *at = v->stream_end - v->files[which].base;
    return which;
}

/* Bytes behind the end that are not zeros; *later: a seal of a block after the next one stands there, or anything behind the seal of the next one. Then the
 * next one was durable when that was written, and no crash explains it. (Two members are looked at, so that one bad bit in the seal of a torn batch
 * does not make it a later one. Text of users cannot pass for a seal: the first byte of a seal's length is a control character, which JSON escapes.) */
static uint64_t written_after(const lfs_verify *v, int *later) {
    static const char head[] = "{\"count\":";
    uint64_t at, total = 0, len;
    int next_seen = 0;
    *later = 0;
    for (uint32_t i = good_end(v, &at); i < v->n_files; i++, at = 0) {
        uint8_t *bytes = file_bytes(&v->files[i], at, &len), *p = bytes, *end = bytes + len;
        total += len;
        if (next_seen && len) *later = 1;
        for (; p < end && (p = memmem(p, (size_t)(end - p), head, sizeof head - 1)); p++) {
            lfs_entry entry;
            uint64_t height, first;
            uint32_t length = p - bytes >= 2 ? (uint32_t)p[-2] << 8 | p[-1] : 0;
            if (!length || length > SEAL_BYTES_MAX || p + length > end || lfs_entry_read(p, length, &entry) || !lfs_text_is(entry.t, "seal/1") ||
                lfs_entry_u64(entry.height, &height) || lfs_entry_u64(entry.first, &first)) continue;
            if (height > v->blocks + 1 && first > v->batch_first) *later = 1;
            if (height != v->blocks + 1 || first != v->batch_first) continue;
            next_seen = 1;
            if (p + length < end) *later = 1;
        }
        free(bytes);
        if (*later) break;
    }
    return total;
}

/* The first entry of the open batch, before `until`, that is not the one in hashes/0, or that does not follow; `until` when none is. */
static uint64_t first_wrong(lfs_verify *v, lfs_piece *last, uint64_t until) {
    for (lfs_piece *piece = v->oldest; piece; piece = piece == last ? NULL : piece->next)
        for (uint32_t i = piece->judged; i < piece->good && piece->first + i < until; i++) {
            uint8_t leaf[32];
            uint64_t index = piece->first + i;
            int fd = v->projections[LFS_V_HASHES].fd;
            snprintf(v->why, sizeof v->why, "its hash is not the one in hashes/0");
            if (fd >= 0 && index >= v->task.trusted && lfs_read_fully(fd, leaf, 32, index * 32) == 32 &&
                memcmp(leaf, piece->leaves + 32ull * i, 32) != 0) return index;
            snprintf(v->why, sizeof v->why, "%s", piece->wrong_why);
            if (i >= piece->wrong) return index;
            if (piece->seen[i].kind != K_SEAL && lfs_verify_judge(v, piece, i)) return index;
        }
    return until;
}

/* The batch does not count. Is that the torn write of a crash, or damage? history: the seal fits its own batch, but not what stands before. */
static int batch_ends(lfs_verify *v, lfs_piece *last, uint64_t bad, const char *why, int history) {
    char reason[400];
    int later = 1;
    uint64_t behind = v->task.limit == UINT64_MAX ? written_after(v, &later) : 0;
    if (history && v->batch_first) {
        lfs_verify_found(v, v->batch_first - 1, why);
    } else if (history || later || !v->blocks) {
        uint64_t first = first_wrong(v, last, bad);
        if (first < bad) snprintf(reason, sizeof reason, "%.120s; and from there on %.160s", v->why, why);
        else snprintf(reason, sizeof reason, "%.160s", why);
        if (v->task.limit == UINT64_MAX && v->blocks) strncat(reason, ", and later batches follow", sizeof reason - strlen(reason) - 1);
        lfs_verify_found(v, first, reason);
    } else if (behind) {
        for (const lfs_piece *piece = v->oldest; piece; piece = piece == last ? NULL : piece->next) {
            if (piece->wrong < piece->judged || piece->wrong >= piece->good || piece->first + piece->wrong >= bad) continue;
            bad = piece->first + piece->wrong;
            why = piece->wrong_why;
        }
        pthread_mutex_lock(&v->lock);
        if (!v->verdict.damage) {
            v->verdict = (lfs_verdict){.entry = bad, .segment = v->files[last->segment].first, .cut_bytes = behind};
            snprintf(v->verdict.why, sizeof v->verdict.why, "%s", why);
        }
        pthread_mutex_unlock(&v->lock);
    }
    return 1;
}

/* -- seals */

static int is_hash(lfs_text hex, const uint8_t hash[32]) {
    uint8_t value[32];
    return lfs_hex_get(hex.p, 32, value) == 0 && memcmp(value, hash, 32) == 0;
}

/* NULL when the seal fits. *history: it fits its own batch, but not what stands before. */
static const char *check_seal(lfs_verify *v, const lfs_seen *s, int *history) {
    const lfs_reading *r = &v->reading;
    uint8_t tx_root[32], log_root[32];
    uint64_t n = s->index - v->batch_first;
    int early = v->batch_time <= v->seal_time && v->batch_first;
    int trusted = s->index < v->task.trusted;
    if (r->number[V_HEIGHT] != v->blocks + 1 || r->number[V_FIRST] != v->batch_first || r->number[V_COUNT] != n ||
        (!n && (!v->batch_first || !lfs_has(r, V_STATE_ROOT)))) return "its seal does not continue the chain (height, first, count)";
    if (!trusted) {
        lfs_frontier_root(&v->batch, tx_root);
        lfs_frontier_root(&v->log, log_root);
        int chained = is_hash(r->f[V_PREV], v->prev_seal), logged = is_hash(r->f[V_LOG_ROOT], log_root);
        if (!is_hash(r->f[V_TX_ROOT], tx_root)) return "the bytes of the batch are not those that were sealed (tx_root)";
        *history = early || (!chained && !logged);
        if (!early && !chained) return "its seal does not name the seal before (prev)";
        if (!early && !logged) return "the history is not the one that was sealed (log_root)";
    }
    if (early) return "its time is not later than that of the entry before";
    if (!is_hash(r->f[V_POLICY], v->batch_policy)) return "its seal names another policy than the one in force";
    return NULL;
}

/* Entries from..to of a piece follow from those before? */
static int judge_piece(lfs_verify *v, lfs_piece *piece, uint32_t to) {
    lfs_seen_posting *postings = piece->reading.postings;
    for (uint32_t i = piece->judged; i < to; i++) {
        /* A transfer has two postings; where the guess is wrong, other lines come early. */
        if (i + 60 < to) lfs_judge_far(&piece->seen[i + 60], postings + piece->seen[i].first_posting + 100);
        if (i + 28 < to) lfs_judge_ahead(v, &piece->seen[i + 28], postings);
        if (i + 14 < to) lfs_judge_near(v, &piece->seen[i + 14], postings);
        if (piece->seen[i].kind == K_SEAL) continue;
        const char *why = i >= piece->wrong && piece->seen[i].kind == K_WRONG ? piece->wrong_why : v->why;
        if (why == v->why && lfs_verify_judge(v, piece, i) == 0) continue;
        lfs_verify_found(v, piece->first + i, why);
        return 1;
    }
    piece->judged = to;
    return 0;
}

/* The pieces that hold the batch; those that nothing more is wanted of are given back. Returns 1 at damage. */
static int judge_batch(lfs_verify *v, lfs_piece *last, uint32_t to) {
    uint64_t txs = v->ledger.next_tx - 1;
    while (v->oldest != last) {
        lfs_piece *piece = v->oldest;
        if (judge_piece(v, piece, piece->good)) return 1;
        pthread_mutex_lock(&v->lock);
        v->oldest = piece->next;
        piece->next = v->spare;
        v->spare = piece;
        pthread_mutex_unlock(&v->lock);
    }
    if (judge_piece(v, last, to)) return 1;
    for (uint64_t tx = txs; tx < v->ledger.next_tx - 1;) {
        uint64_t expected[512], room[512], n = 0;
        for (; n < 512 && tx + n < v->ledger.next_tx - 1; n++) expected[n] = v->txs[tx + n];
        lfs_projection_compare(v, LFS_V_TRANSACTIONS, tx, n, (uint8_t *)expected, (uint8_t *)room);
        tx += n;
    }
    return 0;
}

/* Checkpoints are of seals: any of them may be asked for. */
static void seal_keep(lfs_verify *v, uint64_t index) {
    if (v->blocks > v->seals_size) {
        v->seals_size = 2 * v->blocks + 1024;
        v->seals = lfs_grow(v->seals, v->seals_size * sizeof *v->seals);
        v->seal_roots = lfs_grow(v->seal_roots, v->seals_size * 32);
    }
    v->seals[v->blocks - 1] = (uint32_t)index;
    lfs_frontier_root(&v->log, v->seal_roots + 32 * (v->blocks - 1));
}

/* The seal at i of the piece ends a batch. Returns 1 when nothing may follow. */
static int seal_take(lfs_verify *v, lfs_piece *piece, uint32_t i) {
    const lfs_seen *s = &piece->seen[i];
    const uint8_t *leaf = piece->leaves + 32ull * i;
    lfs_seen seal;
    int history = 0;
    if (v->task.trusted && !v->trusting && s->index >= v->task.trusted) {
        lfs_verify_fails(v, "no seal ends the part that is to be trusted", "");
        return 1;
    }
    v->reading.n_postings = 0;
    lfs_see(&v->reading, s->bytes, s->len, &seal);
    const char *why = check_seal(v, s, &history);
    if (why) return batch_ends(v, piece, s->index, why, history);
    lfs_text carried = v->reading.f[V_STATE_ROOT];
    int carries = lfs_has(&v->reading, V_STATE_ROOT);
    if (judge_batch(v, piece, i + 1)) return 1;
    if (v->expect) {
        lfs_verify_found(v, s->index, "the opening that the entry before belongs to is not complete");
        return 1;
    }
    if (carries && s->index >= v->task.trusted) root_later(v, s->index, &carried);
    uint64_t index = s->index, room;
    lfs_projection_compare(v, LFS_V_BLOCKS, v->blocks, 1, (const uint8_t *)&index, (uint8_t *)&room);
    memcpy(v->prev_seal, leaf, 32);
    v->blocks++;
    v->batch_first = index + 1;
    v->seal_time = v->time;
    v->stream_end = piece->offset + piece->start[i + 1];
    lfs_frontier_init(&v->batch);
    if (index + 1 == v->task.trusted) trust(v, leaf);
    log_take(v, piece, i, i + 1);
    seal_keep(v, index);
    atomic_store(&v->done_bytes, v->stream_end);
    return 0;
}

/* -- pieces */

static void places_take(lfs_verify *v, const lfs_piece *piece) {
    uint64_t end = piece->first + piece->good + LFS_BUNDLE;
    if (end > v->entries_size) {
        v->entries_size = end + end / 2 + 65536;
        v->delta = lfs_grow(v->delta, v->entries_size * sizeof *v->delta);
        v->bundle_offset = lfs_grow(v->bundle_offset, (v->entries_size / LFS_BUNDLE + 1) * sizeof *v->bundle_offset);
    }
    for (uint32_t i = 0; i < piece->good; i++) {
        uint64_t index = piece->first + i;
        if (index % LFS_BUNDLE == 0) v->bundle_offset[index / LFS_BUNDLE] = piece->offset + piece->start[i];
        v->delta[index] = (uint32_t)(piece->offset + piece->start[i] - v->bundle_offset[index / LFS_BUNDLE]);
    }
}

/* Index and time of entry i; NULL when they go on from the one before. */
static const char *check_order(lfs_verify *v, const lfs_piece *piece, uint32_t i) {
    const lfs_seen *s = &piece->seen[i];
    uint64_t index = piece->first + i;
    if (s->index != index) return "it does not carry its index";
    if (index == v->batch_first) {
        v->batch_time = s->time;
        memcpy(v->batch_policy, v->policy, 32);
    } else if (s->time <= v->time) {
        return "its time is not later than that of the entry before";
    }
    v->time = s->time;
    if (s->kind == K_POLICY || s->kind == K_GENESIS) {
        memcpy(v->policy, piece->leaves + 32ull * i, 32);
        memcpy(v->batch_policy, v->policy, 32);
    }
    return NULL;
}

int lfs_piece_chain(lfs_verify *v, lfs_piece *piece) {
    places_take(v, piece);
    for (uint32_t i = 0, from = 0; i < piece->good; i++) {
        __builtin_prefetch((const uint8_t *)&piece->seen[i] + 2048); /* another core has written it */
        const char *why = check_order(v, piece, i);
        int sealed = piece->seen[i].kind == K_SEAL;
        if (why) return batch_ends(v, piece, piece->first + i, why, 0);
        if (!sealed && i + 1 < piece->good) continue;
        uint32_t to = sealed ? i : i + 1;
        log_take(v, piece, from, to);
        if (piece->first + from >= v->task.trusted) batch_append(v, piece, from, to); /* else its batch is not hashed */
        if (sealed && seal_take(v, piece, i)) return 1;
        from = i + 1;
    }
    if (piece->good < piece->n) return batch_ends(v, piece, piece->first + piece->good, piece->broken_why, 0);
    if (!piece->end) return 0;
    uint64_t next = piece->first + piece->n;
    if (next == v->task.limit && next == v->batch_first) return 1;
    const char *why = next == v->batch_first ? "the stream ends here" : "the last batch has no seal";
    if (next == v->task.limit) why = "what was signed does not end with a seal";
    return batch_ends(v, piece, piece->tail ? next - 1 : next, *piece->end ? piece->end : why, 0);
}
