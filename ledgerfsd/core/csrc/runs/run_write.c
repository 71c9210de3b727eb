/* Writing one run. Records come in their order, many at a time. The twin is ledgerfsd/core/pure/runs.py. */
#include "runs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "intent.h"

#define ROOM (1u << 20)
#define RECORD_BYTES_MAX 32 /* and what put_short writes behind the last */
#define HUGE_PAGE (2u << 20)

_Static_assert(sizeof(lfs_fence) == 48 && sizeof(lfs_run_footer) == 64, "FORMAT, section 16");

/* Room for a filter: a look touches one line of it, and with huge pages it costs half as much. */
uint64_t *lfs_filter_room(uint64_t lines) {
    size_t bytes = lines * LFS_FILTER_LINE;
    void *room = NULL;
    if (!bytes) return NULL;
    if (posix_memalign(&room, bytes < HUGE_PAGE ? LFS_FILTER_LINE : HUGE_PAGE, bytes)) lfs_grow(NULL, (size_t)-1 / 2);
    if (bytes >= HUGE_PAGE) madvise(room, bytes, MADV_HUGEPAGE);
    return room;
}

uint64_t lfs_run_check(const lfs_fence *fences, uint64_t n, const uint64_t *filter, uint64_t lines) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, fences, n * sizeof *fences);
    if (lines) XXH3_64bits_update(&state, filter, lines * LFS_FILTER_LINE);
    return XXH3_64bits_digest(&state);
}

/* -- numbers */

/* Below 2^56. Seven bits go to each byte at once: lengths change from record to record, and a loop would be guessed wrongly each time. */
static inline uint8_t *put_short(uint8_t *p, uint64_t value) {
    unsigned more = (unsigned)(63 - __builtin_clzll(value | 1)) * 37 >> 8; /* bytes behind the first: highest bit / 7 */
    value = (value & 0x0fffffff) | (value & 0x00fffffff0000000) << 4;
    value = (value & 0x00003fff00003fff) | (value & 0x0fffc0000fffc000) << 2;
    value = (value & 0x007f007f007f007f) | (value & 0x3f803f803f803f80) << 1;
    value |= 0x8080808080808080 & ((1ull << 8 * more) - 1);
    memcpy(p, &value, sizeof value);
    return p + more + 1;
}

static inline uint8_t *put_varint(uint8_t *p, uint64_t value) {
    if (value >> 56) {
        for (; value >= 128; value >>= 7) *p++ = (uint8_t)(value | 128);
        *p++ = (uint8_t)value;
        return p;
    }
    return put_short(p, value);
}

/* -- the file */

int lfs_run_write_begin(lfs_run_writer *w, int dir, const char *name, int kind, uint64_t first, uint64_t end, uint64_t records) {
    memset(w, 0, sizeof *w);
    w->fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (w->fd < 0) return errno;
    w->kind = kind;
    w->first = first;
    w->end = end;
    w->room = lfs_grow(NULL, ROOM);
    w->fences_size = records / LFS_RUN_BLOCK + 1;
    w->fences = lfs_grow(NULL, w->fences_size * sizeof *w->fences);
    w->lines = kind == LFS_IDS ? lfs_filter_lines(records) : 0;
    w->filter = lfs_filter_room(w->lines);
    if (w->lines) memset(w->filter, 0, w->lines * LFS_FILTER_LINE);
    return 0;
}

/* The disk is told of each piece at once. A save syncs runs, and would otherwise find hundreds of megabytes to write, behind which the sync of a
 * commit waits. */
static void put_bytes(lfs_run_writer *w, const void *bytes, size_t len) {
    if (w->failed || !len) return;
    if (lfs_write_all(w->fd, bytes, len, w->written)) w->failed = errno;
    if (len >= ROOM / 2) sync_file_range(w->fd, (off64_t)w->written, (off64_t)len, SYNC_FILE_RANGE_WRITE); /* only a hint */
    w->written += len;
}

static void block_end(lfs_run_writer *w) {
    if (!w->n_fences) return;
    w->fences[w->n_fences - 1].check = (uint32_t)XXH3_64bits(w->room + w->block_at, w->used - w->block_at);
    if (w->used + (size_t)LFS_RUN_BLOCK * RECORD_BYTES_MAX > ROOM) {
        put_bytes(w, w->room, w->used);
        w->at += w->used;
        w->used = 0;
    }
    w->block_at = w->used;
}

static void block_begin(lfs_run_writer *w, const lfs_record *record) {
    if (w->n_fences == w->fences_size) w->fences = lfs_grow(w->fences, (w->fences_size *= 2) * sizeof *w->fences);
    lfs_fence *f = &w->fences[w->n_fences++];
    *f = (lfs_fence){record->key, w->at + w->used, w->sum.log, record->index, (uint32_t)w->sum.count, {0}, 0};
    memcpy(f->newest, w->sum.newest, sizeof f->newest);
    w->key = record->key;
    w->len = 0;
}

/* The first of a block. */
static void put_first(lfs_run_writer *w, const lfs_record *record, int has_len) {
    block_end(w);
    if (!w->records || record->key != w->key) memset(&w->sum, 0, sizeof w->sum);
    block_begin(w, record);
    uint8_t *p = put_short(w->room + w->used, (record->index - w->first) << 3 | record->states << 1 | 1);
    *p++ = 0; /* the key stands in the fence */
    if (has_len) p = put_short(p, (uint32_t)record->len << 1);
    w->used = (size_t)(p - w->room);
    w->index = record->index;
    w->len = record->len;
    lfs_past_add(&w->sum, record);
}

/* Others of postings, which all go into the block that was begun. */
static inline void put_others(lfs_run_writer *w, const lfs_record *records, uint64_t n) {
    uint8_t *p = w->room + w->used;
    uint64_t key = w->key, first = w->first;
    uint32_t index = w->index, len = w->len;
    lfs_past sum = w->sum;
    for (uint64_t i = 0; i < n; i++) {
        const lfs_record *record = &records[i];
        if (record->key != key) {
            p = put_short(p, (record->index - first) << 3 | record->states << 1 | 1);
            p = put_varint(p, record->key - key);
            key = record->key;
            sum = (lfs_past){0};
        } else {
            p = put_short(p, (uint64_t)(record->index - index) << 3 | record->states << 1);
        }
        int32_t more = (int32_t)record->len - (int32_t)len;
        p = put_short(p, (uint32_t)(more << 1) ^ (uint32_t)(more >> 31));
        len = record->len;
        index = record->index;
        lfs_past_add(&sum, record);
    }
    w->used = (size_t)(p - w->room);
    w->key = key;
    w->index = index;
    w->len = len;
    w->sum = sum;
}

/* The same of words and ids, whose keys are nearly always new, and of which nothing is summed up. */
static inline void put_hashes(lfs_run_writer *w, const lfs_record *records, uint64_t n) {
    if (!n) return;
    uint8_t *p = w->room + w->used;
    uint64_t key = w->key, first = w->first, count = w->sum.count;
    for (uint64_t i = 0; i < n; i++) {
        const lfs_record *record = &records[i];
        if (record->key != key) {
            p = put_short(p, (record->index - first) << 3 | 1);
            p = put_varint(p, record->key - key);
            key = record->key;
            count = 1;
        } else {
            p = put_short(p, (uint64_t)(record->index - (i ? records[i - 1].index : w->index)) << 3);
            count++;
        }
    }
    w->used = (size_t)(p - w->room);
    w->key = key;
    w->index = records[n - 1].index;
    w->sum = (lfs_past){.count = count, .log = count, .last = w->index + 1, .newest = {[LFS_STATUS] = w->index + 1}};
}

LFS_FAST void lfs_filter_fill(uint64_t *filter, uint64_t lines, const lfs_record *records, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) lfs_filter_add(filter + lfs_filter_place(lines, records[i].key), records[i].key);
}

LFS_FAST void lfs_run_write(lfs_run_writer *w, const lfs_record *records, uint64_t n) {
    if (w->lines) lfs_filter_fill(w->filter, w->lines, records, n);
    for (uint64_t some; n; records += some, n -= some, w->records += some) {
        uint64_t in_block = w->records % LFS_RUN_BLOCK;
        some = LFS_RUN_BLOCK - in_block < n ? LFS_RUN_BLOCK - in_block : n;
        if (!in_block) put_first(w, records, w->kind == LFS_POSTINGS);
        if (w->kind == LFS_POSTINGS) put_others(w, records + !in_block, some - !in_block);
        else put_hashes(w, records + !in_block, some - !in_block);
    }
}

int lfs_run_write_end(lfs_run_writer *w) {
    block_end(w);
    put_bytes(w, w->room, w->used);
    static const uint8_t zeros[8];
    uint64_t bytes = w->at + w->used, pad = -bytes & 7; /* the fences are read in place */
    put_bytes(w, zeros, pad);
    put_bytes(w, w->fences, w->n_fences * sizeof *w->fences);
    put_bytes(w, w->filter, w->lines * LFS_FILTER_LINE);
    lfs_run_footer footer = {.kind = (uint32_t)w->kind, .block = LFS_RUN_BLOCK, .first = w->first, .end = w->end, .records = w->records, .bytes = bytes,
                             .fences_check = lfs_run_check(w->fences, w->n_fences, w->filter, w->lines)};
    memcpy(footer.magic, LFS_RUN_MAGIC, sizeof footer.magic);
    footer.check = XXH3_64bits(&footer, offsetof(lfs_run_footer, check));
    put_bytes(w, &footer, sizeof footer);
    if (close(w->fd) && !w->failed) w->failed = errno;
    free(w->room);
    free(w->fences);
    free(w->filter);
    return w->failed;
}
