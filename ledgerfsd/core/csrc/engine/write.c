/* T2: from a closed group to durable, published state. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

lfs_group *lfs_group_new(void) {
    lfs_group *g = lfs_grow(NULL, sizeof *g);
    memset(g, 0, sizeof *g);
    g->entries_size = g->txs_size = LFS_BATCH_INTENTS_MAX + 1024;
    g->updates_size = 2 * g->entries_size;
    g->size = LFS_GROUP_BYTES / 2;
    g->bytes = lfs_grow(NULL, g->size);
    g->start = lfs_grow(NULL, g->entries_size * sizeof *g->start);
    g->tag = lfs_grow(NULL, g->entries_size * sizeof *g->tag);
    g->word = lfs_grow(NULL, g->entries_size * sizeof *g->word);
    g->leaves_size = g->entries_size;
    g->leaves = lfs_grow(NULL, g->leaves_size * 32ull);
    g->txs = lfs_grow(NULL, g->txs_size * sizeof *g->txs);
    g->updates = lfs_grow(NULL, g->updates_size * sizeof *g->updates);
    g->tickets_tail = &g->tickets;
    return g;
}

void lfs_group_free(lfs_group *g) {
    free(g->bytes);
    free(g->start);
    free(g->tag);
    free(g->word);
    free(g->leaves);
    free(g->txs);
    free(g->updates);
    free(g);
}

/* Where in the group a new segment begins: the first bundle boundary at or after the current one's target; n when nowhere. */
static uint32_t segment_cut(lfs_engine *e, const lfs_group *g, uint32_t from, uint32_t n) {
    const lfs_segment *s = &e->segments[e->n_segments - 1];
    uint64_t index = g->first_index + from, to_boundary = (256 - index % 256) % 256;
    for (uint64_t i = from + to_boundary; i < n; i += 256)
        if (e->stream_end + g->start[i] - s->base >= e->segment_bytes) return (uint32_t)i;
    return n;
}

/* Write what there is of the group before `end`, in whole blocks of the file: the kernel would read the rest of a block first. */
static int write_ahead(lfs_engine *e, const lfs_group *g, uint64_t end, uint64_t *written) {
    const lfs_segment *s = &e->segments[e->n_segments - 1];
    uint64_t at = e->stream_end - s->base, whole = (at + end) & ~(uint64_t)(LFS_BLOCK - 1);
    if (whole <= at + *written) return 0;
    uint64_t begin = *written, len = whole - at - begin;
    *written = whole - at;
    if (lfs_write_all(s->fd, g->bytes + begin, len, at + begin)) return -1;
    sync_file_range(s->fd, (off_t)(at + begin), (off_t)len, SYNC_FILE_RANGE_WRITE); /* a hint: the disk begins while the next piece is hashed. What counts is the fdatasync */
    return 0;
}

#define PIECE 1024
static uint32_t piece_end(const lfs_group *g, uint32_t from) { return g->entries - from < 2 * PIECE ? g->entries : from + PIECE; }

static inline uint32_t entry_len(const lfs_group *g, uint32_t i) { return g->start[i + 1] - g->start[i] - 2; } /* the bytes themselves are on their way from T1's core */

int lfs_group_hash(lfs_group *g) {
    const uint8_t *entries[2 * PIECE];
    uint32_t lengths[2 * PIECE], from = g->hashed, to = piece_end(g, from);
    if (g->entries >= g->leaves_size) g->leaves = lfs_grow(g->leaves, (g->leaves_size = g->entries + g->entries / 2) * 32ull);
    for (uint32_t i = from; i < to; i++) {
        entries[i - from] = g->bytes + g->start[i] + 2;
        lengths[i - from] = entry_len(g, i);
    }
    lfs_leaf_hashes(entries, lengths, to - from, g->leaves + 32ull * from);
    g->hashed = to;
    return to < g->entries;
}

/* Hash what is not hashed yet, and write each piece while it is in the processor's cache; a batch is too large for it. Without its seal nothing of it counts. */
static int hash_and_write(lfs_engine *e, lfs_group *g, uint64_t *written) {
    uint32_t n = g->entries, cut = segment_cut(e, g, 0, n + 1);
    lfs_rooms(e, n + 1);
    for (uint32_t from = 0, to; from < n; from = to) {
        to = piece_end(g, from);
        if (g->hashed < to) lfs_group_hash(g);
        if (to < n && write_ahead(e, g, g->start[to < cut ? to : cut], written)) return -1; /* the last goes out with its seal */
    }
    return 0;
}

/* Seal the entries, and bring frontier and chain forward. */
static void seal(lfs_engine *e, lfs_group *g, const uint8_t *state_root) {
    uint32_t n = g->entries;
    uint8_t tx_root[32], log_root[32];
    e->n_tiles = lfs_frontier_append_batch(&e->frontier, g->leaves, n, e->mth_room, e->tile_room, tx_root);
    lfs_frontier_root(&e->frontier, log_root);

    uint8_t *at = g->bytes + g->used, *leaf = g->leaves + 32ull * n;
    const uint8_t *entry = at + 2;
    uint32_t len = lfs_render_seal(at + 2, g->first_index + n, g->seal_time, g->height, g->first_index, n, log_root,
                                   g->policy_leaf, e->prev_seal, state_root, tx_root);
    at[0] = (uint8_t)(len >> 8);
    at[1] = (uint8_t)len;
    lfs_leaf_hashes(&entry, &len, 1, leaf);
    e->n_tiles += lfs_frontier_append_tiles(&e->frontier, leaf, 1, e->tile_room + 32 * e->n_tiles);
    memcpy(e->prev_seal, leaf, 32);
    g->tag[n] = 0;
    g->word[n] = 0;
    g->used += len + 2;
}

/* Zeros behind the group, up to the end of the block in the file, where zeros stand: so the kernel need not read the block before it is written to in part.
 * There is room: rendering an entry leaves more. */
static uint64_t pad_block(const lfs_engine *e, lfs_group *g) {
    const lfs_segment *s = &e->segments[e->n_segments - 1];
    uint64_t pad = -(e->stream_end + g->used - s->base) % LFS_BLOCK;
    if (g->used + pad > g->size) return 0;
    memset(g->bytes + g->used, 0, pad);
    return pad;
}

/* Write what is not written of the group's bytes, and sync them. -1 with errno: nothing of it counts, as its seal is not durable or will be withdrawn. */
static int write_out(lfs_engine *e, lfs_group *g, uint32_t n, uint64_t written, int *begun) {
    for (uint32_t from = 0; from < n;) {
        uint32_t to = segment_cut(e, g, from, n);
        if (to > from) {
            const lfs_segment *s = &e->segments[e->n_segments - 1];
            uint64_t begin = g->start[from] > written ? g->start[from] : written, end = to < n ? g->start[to] : g->used + pad_block(e, g);
            *begun = 1;
            if (lfs_write_all(s->fd, g->bytes + begin, end - begin, e->stream_end + begin - s->base) ||
                lfs_sync_and_hash(e, s->fd, e->stream_end + begin - s->base, end - begin)) return -1;
            /* If we stop here: without its seal the batch does not count; with it, it is durable. */
        }
        if (to < n) {
            if (lfs_segment_begin(e, g->first_index + to, e->stream_end + g->start[to])) return -1;
            const lfs_segment *s = &e->segments[e->n_segments - 2];
            /* Synced, so that on disk nothing ever stands in a segment before the one before it has its length. */
            if (ftruncate(s->fd, (off_t)(e->segments[e->n_segments - 1].base - s->base)) || fsync(s->fd)) return -1;
        }
        from = to;
    }
    return 0;
}

/* A batch whose write or sync failed may lie whole in the page cache, or on the disk: overwrite it (or cut it off), so that a restart does not
 * find what close() refused. 0: it is gone for good; else recovery decides. */
static int withdraw(lfs_engine *e, const lfs_group *g) {
    uint8_t *zeros = calloc(1, g->used);
    int failed = 0;
    for (uint32_t i = e->n_segments; i-- > 0;) {
        const lfs_segment *s = &e->segments[i];
        uint64_t begin = e->stream_end > s->base ? e->stream_end : s->base, end = e->stream_end + g->used;
        if (i + 1 < e->n_segments && end > e->segments[i + 1].base) end = e->segments[i + 1].base;
        if (end > begin && (!zeros || lfs_write_all(s->fd, zeros, end - begin, begin - s->base)) &&
            ftruncate(s->fd, (off_t)(begin - s->base))) failed = 1;
        if (fdatasync(s->fd)) failed = 1;
        if (s->base <= e->stream_end) break;
    }
    free(zeros);
    return failed;
}

/* T1 on another core wrote it; behind the end there is nothing to lose. */
static inline void prefetch_update(const lfs_update *update) {
    __builtin_prefetch(update + 24);
    __builtin_prefetch((const uint8_t *)(update + 24) + 64);
}

#define UPDATES_AHEAD 8
static void publish(lfs_engine *e, const lfs_group *g, uint32_t n, int carried) {
    pthread_mutex_lock(&e->publish);
    if (carried) lfs_ordinals_clear(&e->pending);
    for (uint32_t i = 0; i < g->n_updates; i++) {
        uint32_t ordinal = g->updates[i].ordinal;
        prefetch_update(&g->updates[i]);
        if (i + UPDATES_AHEAD < g->n_updates) lfs_prefetch_state(&e->published[g->updates[i + UPDATES_AHEAD].ordinal]);
        e->published[ordinal] = g->updates[i].state;
        e->dirty[ordinal >> 12] |= 1ull << (ordinal >> 6 & 63);
        if (!carried) lfs_ordinals_add(&e->pending, ordinal);
        if (e->watched[ordinal] != 1) continue;
        if (e->n_touched == e->touched_size) {
            e->touched_size = e->touched_size ? 2 * e->touched_size : 256;
            e->touched = lfs_grow(e->touched, e->touched_size * sizeof *e->touched);
        }
        e->touched[e->n_touched++] = ordinal;
        e->watched[ordinal] = 3;
    }
    e->counts.entries = g->first_index + n;
    e->counts.transactions += g->n_txs;
    e->counts.blocks = g->height;
    e->counts.accounts = g->n_accounts;
    e->counts.stream_bytes = e->stream_end;
    e->counts.time_ns = g->seal_time;
    e->counts.incarnation = g->incarnation;
    atomic_store_explicit(&e->entries, e->counts.entries, memory_order_release);
    pthread_mutex_unlock(&e->publish);
}

/* Before anything of the group can be asked for: the postings are in the tail of the indexes. */
static void index_group(lfs_engine *e, const lfs_group *g) {
    const lfs_update *updates = g->updates;
    for (uint32_t i = 0; i < g->n_updates; i++) {
        uint32_t ordinal = updates[i].ordinal, k = i;
        uint64_t index = updates[i].state.last_index;
        prefetch_update(&updates[i]);
        if (i + 8 < g->n_updates) __builtin_prefetch(&e->runs.heads[updates[i + 8].ordinal], 1);
        while (k > 0 && updates[k - 1].state.last_index == index && updates[k - 1].ordinal != ordinal) k--;
        if (k > 0 && updates[k - 1].state.last_index == index) continue; /* a second posting of the account in this entry */
        lfs_tail_add(&e->runs, ordinal, (uint32_t)index, entry_len(g, (uint32_t)(index - g->first_index)), updates[i].states);
    }
    lfs_ids_tail_add(&e->runs, g->tag, g->entries + 1);
    lfs_words_tail_add(&e->runs, g->first_index, g->word, g->entries + 1);
    lfs_runs_wake(e);
}

int lfs_group_commit(lfs_engine *e, lfs_group *g, char why[256]) {
    int begun = 0, failed;
    uint32_t n = g->entries + 1;
    uint64_t written = 0;
    uint8_t state_room[32];
    if (lfs_tail_full(&e->runs)) {
        snprintf(why, 256, "indexes/ cannot be written: %s", strerror(e->runs.trouble));
        return LFS_READ_ONLY;
    }
    if (lfs_project_reserve(e, n, g->n_txs)) {
        snprintf(why, 256, "no space for runs/ and hashes/: %s", strerror(errno));
        return LFS_READ_ONLY;
    }
    const uint8_t *state_root = lfs_state_carry(e, g, state_room);
    failed = hash_and_write(e, g, &written);
    begun = written > 0;
    if (!failed) {
        seal(e, g, state_root);
        failed = write_out(e, g, n, written, &begun);
    }
    if (failed) {
        int full = errno == ENOSPC;
        snprintf(why, 256, "journal/ cannot be written: %s", strerror(errno));
        int uncertain = begun && withdraw(e, g);
        return uncertain || (begun && !full) ? LFS_STORAGE_ERROR : LFS_READ_ONLY;
    }
    /* Durable. If we stop here: the next start finds the batch and projects it. */
    for (uint32_t i = 0; i < n; i++) e->offset_room[i] = e->stream_end + g->start[i];
    lfs_batch batch = {g->first_index, n, e->offset_room, g->leaves, g->txs, g->n_txs, e->tile_room, e->n_tiles};
    if (lfs_project(e, &batch)) {
        snprintf(why, 256, "runs/ or hashes/ cannot be written: %s", strerror(errno));
        withdraw(e, g); /* it cannot be read, so it is refused: then it must not come back either */
        lfs_project_undo(e, &batch);
        return LFS_STORAGE_ERROR;
    }
    index_group(e, g);
    e->stream_end += g->used;
    publish(e, g, n, state_root != NULL);
    lfs_state_published(e, g, state_root != NULL);
    lfs_saver_tell(e);
    return 0;
}
