/* One run: opening it, and finding records in it; run_write.c writes it. The twin is ledgerfsd/core/pure/runs.py. */
#include "runs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* -- opening */

static const char *run_form(lfs_run *run) {
    if (run->map_len < sizeof run->is) return "is too short";
    memcpy(&run->is, run->map + run->map_len - sizeof run->is, sizeof run->is);
    const lfs_run_footer *f = &run->is;
    if (memcmp(f->magic, LFS_RUN_MAGIC, sizeof f->magic) || f->block != LFS_RUN_BLOCK) return "is not a run of this format";
    if (f->check != XXH3_64bits(f, offsetof(lfs_run_footer, check))) return "has a footer that is not what was written";
    run->blocks = (f->records + LFS_RUN_BLOCK - 1) / LFS_RUN_BLOCK;
    uint64_t padded = (f->bytes + 7) & ~7ull;
    uint64_t lines = f->kind == LFS_IDS ? lfs_filter_lines(f->records) : 0, behind = padded + run->blocks * sizeof(lfs_fence);
    if (f->bytes > run->map_len || f->records > LFS_RUN_RECORDS_MAX || behind + lines * LFS_FILTER_LINE + sizeof run->is != run->map_len) return "has the wrong size";
    run->fences = (const lfs_fence *)(run->map + padded);
    run->lines = lines;
    run->filter = (const uint64_t *)(run->map + behind);
    if (f->fences_check != lfs_run_check(run->fences, run->blocks, run->filter, lines)) return "has fences or a filter that are not what was written";
    return NULL;
}

const char *lfs_run_open(lfs_run *run, int dir, const char *name) {
    struct stat st;
    memset(run, 0, sizeof *run);
    snprintf(run->name, sizeof run->name, "%s", name);
    run->fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (run->fd < 0) return "cannot be opened";
    run->map_len = fstat(run->fd, &st) ? 0 : (size_t)st.st_size;
    run->map = run->map_len ? mmap(NULL, run->map_len, PROT_READ, MAP_SHARED, run->fd, 0) : MAP_FAILED;
    const char *wrong = run->map == MAP_FAILED ? "cannot be mapped" : run_form(run);
    if (run->map == MAP_FAILED) run->map = NULL;
    if (wrong) lfs_run_close(run);
    return wrong;
}

void lfs_run_close(lfs_run *run) {
    if (run->map) munmap((void *)run->map, run->map_len);
    if (run->fd >= 0) close(run->fd);
    run->map = NULL;
    run->fd = -1;
}

/* -- reading */

/* The number at p; *p then is behind it. All bits of up to eight bytes at once: see put_short. Behind the blocks of a run stands its footer at
 * least, so a few bytes too many may be looked at. */
static inline uint64_t get_varint(const uint8_t **p) {
    uint64_t bytes, value = 0;
    memcpy(&bytes, *p, sizeof bytes);
    uint64_t last = ~bytes & 0x8080808080808080;
    if (!last) {
        for (unsigned shift = 0; shift < 64; shift += 7) {
            uint8_t byte = *(*p)++;
            value |= (uint64_t)(byte & 127) << shift;
            if (byte < 128) break;
        }
        return value;
    }
    *p += (__builtin_ctzll(last) >> 3) + 1;
    value = bytes & (last ^ (last - 1)) & 0x7f7f7f7f7f7f7f7f;
    value = (value & 0x007f007f007f007f) | (value & 0x7f007f007f007f00) >> 1;
    value = (value & 0x00003fff00003fff) | (value & 0x3fff00003fff0000) >> 2;
    return (value & 0x0fffffff) | (value & 0x0fffffff00000000) >> 4;
}

_Static_assert(sizeof(lfs_run_footer) >= 3 * 10 + sizeof(uint64_t), "a block's reader looks at one record behind the end");

typedef struct { /* where the reading of a block is, and what its next record is told against */
    const uint8_t *p, *end;
    uint64_t key, index, len;
} block_reading;

/* Returns -1 for damage. */
static inline int block_begin(const lfs_run *run, uint64_t block, block_reading *r) {
    const lfs_fence *f = &run->fences[block];
    uint64_t until = block + 1 < run->blocks ? f[1].offset : run->is.bytes;
    if (f->offset > until || until > run->is.bytes || f->check != (uint32_t)XXH3_64bits(run->map + f->offset, until - f->offset)) return -1;
    *r = (block_reading){run->map + f->offset, run->map + until, f->key, 0, 0};
    return 0;
}

static inline void record_read(block_reading *r, uint64_t first, lfs_record *out, int has_len) {
    uint64_t head = get_varint(&r->p);
    r->index = (head & 1 ? first : r->index) + (head >> 3);
    if (head & 1) r->key += get_varint(&r->p);
    if (has_len) {
        uint64_t more = get_varint(&r->p);
        r->len += (more >> 1) ^ -(more & 1);
    }
    *out = (lfs_record){r->key, (uint32_t)r->index, (uint16_t)r->len, (uint8_t)(head >> 1 & 3)};
}

static inline int records_read(const lfs_run *run, block_reading r, lfs_record *out, uint32_t n, int has_len) {
    for (uint32_t i = 0; i < n; i++) {
        if (r.p >= r.end) return -1;
        record_read(&r, run->is.first, &out[i], has_len);
    }
    return r.p == r.end ? (int)n : -1;
}

/* Two full blocks side by side: where a number begins is known when the one before has been read, and that is most of the time. */
static inline int pairs_read(const lfs_run *run, block_reading a, block_reading b, lfs_record *out, int has_len) {
    for (uint32_t i = 0; i < LFS_RUN_BLOCK; i++) {
        if (a.p >= a.end || b.p >= b.end) return -1;
        record_read(&a, run->is.first, &out[i], has_len);
        record_read(&b, run->is.first, &out[LFS_RUN_BLOCK + i], has_len);
    }
    return a.p == a.end && b.p == b.end ? 2 * LFS_RUN_BLOCK : -1;
}

int lfs_run_block(const lfs_run *run, uint64_t block, lfs_record *out) {
    block_reading r;
    uint64_t left = run->is.records - block * LFS_RUN_BLOCK;
    uint32_t n = left < LFS_RUN_BLOCK ? (uint32_t)left : LFS_RUN_BLOCK;
    if (block_begin(run, block, &r)) return -1;
    return run->is.kind == LFS_POSTINGS ? records_read(run, r, out, n, 1) : records_read(run, r, out, n, 0);
}

int lfs_run_two_blocks(const lfs_run *run, uint64_t block, lfs_record *out) {
    block_reading a, b;
    if (run->is.records - block * LFS_RUN_BLOCK < 2 * LFS_RUN_BLOCK) return lfs_run_block(run, block, out);
    if (block_begin(run, block, &a) || block_begin(run, block + 1, &b)) return -1;
    return run->is.kind == LFS_POSTINGS ? pairs_read(run, a, b, out, 1) : pairs_read(run, a, b, out, 0);
}

static int load_block(lfs_run_cursor *c, const lfs_run *run, uint64_t block) {
    int n = block < run->blocks ? lfs_run_block(run, block, c->room) : 0;
    c->run = run;
    c->block = block;
    c->at = 0;
    c->n = n > 0 ? (uint32_t)n : 0;
    return n < 0 ? -1 : 0;
}

/* Does the block begin at or before what is looked for, so that this is in it or behind? */
static int begins_before(const lfs_fence *f, uint64_t key, int by, uint64_t value) {
    if (f->key != key) return f->key < key;
    return by == LFS_BY_RANK ? f->count <= value : by == LFS_BY_LOG ? f->log <= value : f->index <= value;
}

/* Keys of ids are spread evenly, so the place of one follows from itself, nearly: bounds for the first block that begins behind it. */
static void narrow(const lfs_run *run, uint64_t key, uint64_t *low, uint64_t *high) {
    uint64_t guess = (uint64_t)((unsigned __int128)key * run->blocks >> 64);
    uint64_t step = 4;
    *high = guess;
    while (*high < run->blocks && run->fences[*high].key <= key) *high = run->blocks - *high < step ? run->blocks : *high + step, step *= 4;
    step = 4;
    *low = guess;
    while (*low && run->fences[*low - 1].key >= key) *low = *low < step ? 0 : *low - step, step *= 4;
}

int lfs_run_seek(lfs_run_cursor *c, const lfs_run *run, uint64_t key, int by, uint64_t value, lfs_past *sum) {
    uint64_t low = 0, high = run->blocks;
    if (run->lines) narrow(run, key, &low, &high);
    while (low < high) { /* the first block that does not */
        uint64_t middle = (low + high) / 2;
        if (begins_before(&run->fences[middle], key, by, value)) low = middle + 1;
        else high = middle;
    }
    uint64_t block = low ? low - 1 : 0;
    memset(sum, 0, sizeof *sum);
    if (load_block(c, run, block)) return -1;
    if (!run->blocks) return 0;
    const lfs_fence *f = &run->fences[block];
    if (f->key == key) {
        sum->count = f->count;
        sum->log = f->log;
        memcpy(sum->newest, f->newest, sizeof sum->newest);
        for (int i = 0; i < LFS_FACETS; i++)
            if (f->newest[i] > sum->last) sum->last = f->newest[i];
    }
    for (;; c->at++) {
        if (c->at == c->n) { /* the key's records may go on in the next block, which then begins beyond what is looked for */
            if (c->block + 1 < run->blocks && load_block(c, run, c->block + 1)) return -1;
            return 0;
        }
        const lfs_record *record = &c->room[c->at];
        if (record->key < key) continue;
        if (record->key > key) return 0;
        uint64_t here = by == LFS_BY_RANK ? sum->count : by == LFS_BY_LOG ? sum->log + record->len : record->index;
        if (here >= value) return 0;
        lfs_past_add(sum, record);
    }
}

const lfs_record *lfs_run_record(lfs_run_cursor *c, int *damaged) {
    if (c->at < c->n) return &c->room[c->at];
    if (!c->run || c->block + 1 >= c->run->blocks) return NULL;
    if (load_block(c, c->run, c->block + 1)) *damaged = 1;
    return c->n ? &c->room[0] : NULL;
}

int lfs_run_before(const lfs_run *run, uint64_t key, uint64_t bound, lfs_past *sum) {
    lfs_run_cursor c;
    lfs_past here;
    if (bound <= run->is.first) return 0;
    if (lfs_run_seek(&c, run, key, LFS_BY_INDEX, bound, &here)) return -1;
    if (!here.count) return 0;
    sum->count += here.count;
    sum->log += here.log;
    sum->last = here.last;
    for (int i = 0; i < LFS_FACETS; i++)
        if (here.newest[i]) sum->newest[i] = here.newest[i];
    return 0;
}
