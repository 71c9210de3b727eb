/* One run: writing it, and finding records in it. The twin is ledgerfsd/core/pure/runs.py. */
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
#include "intent.h"

#define ROOM (1u << 20)
#define RECORD_BYTES_MAX 32
#define FILTER_LINE 64
#define HUGE_PAGE (2u << 20)
static const char MAGIC[8] = "lfsrun1\n";

_Static_assert(sizeof(lfs_fence) == 48 && sizeof(lfs_run_footer) == 64, "FORMAT, section 16");

/* Room for a filter: a look touches one line of it, and with huge pages it costs half as much. */
static uint64_t *filter_room(uint64_t lines) {
    size_t bytes = lines * FILTER_LINE;
    void *room = NULL;
    if (!bytes) return NULL;
    if (posix_memalign(&room, bytes < HUGE_PAGE ? FILTER_LINE : HUGE_PAGE, bytes)) lfs_grow(NULL, (size_t)-1 / 2);
    if (bytes >= HUGE_PAGE) madvise(room, bytes, MADV_HUGEPAGE);
    return room;
}

static uint64_t check_of(const lfs_fence *fences, uint64_t n, const uint64_t *filter, uint64_t lines) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, fences, n * sizeof *fences);
    if (lines) XXH3_64bits_update(&state, filter, lines * FILTER_LINE);
    return XXH3_64bits_digest(&state);
}

/* -- writing */

static uint8_t *put_varint(uint8_t *p, uint64_t value) {
    while (value >= 128) {
        *p++ = (uint8_t)(value | 128);
        value >>= 7;
    }
    *p++ = (uint8_t)value;
    return p;
}

int lfs_run_write_begin(lfs_run_writer *w, int dir, const char *name, int kind, uint64_t first, uint64_t end, uint64_t records) {
    memset(w, 0, sizeof *w);
    w->fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (w->fd < 0) return errno;
    w->kind = kind;
    w->first = first;
    w->end = end;
    w->room = lfs_grow(NULL, ROOM);
    w->lines = kind == LFS_IDS ? lfs_filter_lines(records) : 0;
    w->filter = filter_room(w->lines);
    if (w->lines) memset(w->filter, 0, w->lines * FILTER_LINE);
    return 0;
}

static void put_bytes(lfs_run_writer *w, const void *bytes, size_t len) {
    if (w->failed || !len) return;
    if (lfs_write_all(w->fd, bytes, len, w->written)) w->failed = errno;
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
    if (w->n_fences == w->fences_size) {
        w->fences_size = w->fences_size ? 2 * w->fences_size : 512;
        w->fences = lfs_grow(w->fences, w->fences_size * sizeof *w->fences);
    }
    lfs_fence *f = &w->fences[w->n_fences++];
    *f = (lfs_fence){record->key, w->at + w->used, w->sum.log, record->index, (uint32_t)w->sum.count, {0}, 0};
    memcpy(f->newest, w->sum.newest, sizeof f->newest);
    w->key = record->key;
    w->len = 0;
}

void lfs_past_add(lfs_past *sum, const lfs_record *record) {
    uint32_t at = record->index + 1;
    sum->count++;
    sum->log += (uint64_t)record->len + 1;
    sum->last = at;
    if (!record->states) sum->newest[LFS_STATUS] = at;
    if (record->states & 1) sum->newest[LFS_TOTALS] = at;
    if (record->states & 2) sum->newest[LFS_HELD] = at;
}

void lfs_run_write(lfs_run_writer *w, const lfs_record *record) {
    int begins = w->records % LFS_RUN_BLOCK == 0, other = !w->records || record->key != w->key;
    if (begins) block_end(w);
    if (other) memset(&w->sum, 0, sizeof w->sum);
    uint64_t key = w->key;
    if (begins) block_begin(w, record);
    other |= begins;
    uint8_t *p = w->room + w->used;
    uint64_t delta = other ? record->index - w->first : record->index - w->index;
    p = put_varint(p, delta << 3 | record->states << 1 | (uint64_t)other);
    if (other) p = put_varint(p, begins ? 0 : record->key - key);
    if (w->kind == LFS_POSTINGS) {
        int32_t more = (int32_t)record->len - (int32_t)w->len;
        p = put_varint(p, (uint32_t)(more << 1) ^ (uint32_t)(more >> 31));
    }
    w->used = (size_t)(p - w->room);
    w->key = record->key;
    w->index = record->index;
    w->len = record->len;
    w->records++;
    if (w->lines) lfs_filter_add(lfs_filter_line(w->filter, w->lines, record->key), record->key);
    lfs_past_add(&w->sum, record);
}

int lfs_run_write_end(lfs_run_writer *w) {
    block_end(w);
    put_bytes(w, w->room, w->used);
    static const uint8_t zeros[8];
    uint64_t bytes = w->at + w->used, pad = -bytes & 7; /* the fences are read in place */
    put_bytes(w, zeros, pad);
    put_bytes(w, w->fences, w->n_fences * sizeof *w->fences);
    put_bytes(w, w->filter, w->lines * FILTER_LINE);
    lfs_run_footer footer = {.kind = (uint32_t)w->kind, .block = LFS_RUN_BLOCK, .first = w->first, .end = w->end, .records = w->records, .bytes = bytes,
                             .fences_check = check_of(w->fences, w->n_fences, w->filter, w->lines)};
    memcpy(footer.magic, MAGIC, sizeof MAGIC);
    footer.check = XXH3_64bits(&footer, offsetof(lfs_run_footer, check));
    put_bytes(w, &footer, sizeof footer);
    if (close(w->fd) && !w->failed) w->failed = errno;
    free(w->room);
    free(w->fences);
    free(w->filter);
    return w->failed;
}

/* -- opening */

static int read_all(int fd, void *out, size_t len, uint64_t at) {
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(fd, (uint8_t *)out + done, len - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        done += (size_t)n;
    }
    return 0;
}

static const char *run_form(lfs_run *run) {
    if (run->map_len < sizeof run->is) return "is too short";
    memcpy(&run->is, run->map + run->map_len - sizeof run->is, sizeof run->is);
    const lfs_run_footer *f = &run->is;
    if (memcmp(f->magic, MAGIC, sizeof MAGIC) || f->block != LFS_RUN_BLOCK) return "is not a run of this format";
    if (f->check != XXH3_64bits(f, offsetof(lfs_run_footer, check))) return "has a footer that is not what was written";
    run->blocks = (f->records + LFS_RUN_BLOCK - 1) / LFS_RUN_BLOCK;
    uint64_t padded = (f->bytes + 7) & ~7ull;
    uint64_t lines = f->kind == LFS_IDS ? lfs_filter_lines(f->records) : 0, behind = padded + run->blocks * sizeof(lfs_fence);
    if (f->bytes > run->map_len || f->records > LFS_RUN_RECORDS_MAX || behind + lines * FILTER_LINE + sizeof run->is != run->map_len) return "has the wrong size";
    run->fences = (const lfs_fence *)(run->map + padded);
    run->lines = lines;
    run->filter = filter_room(lines);
    if (read_all(run->fd, run->filter, lines * FILTER_LINE, behind)) return "cannot be read";
    if (f->fences_check != check_of(run->fences, run->blocks, run->filter, lines)) return "has fences or a filter that are not what was written";
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
    free(run->filter);
    run->map = NULL;
    run->filter = NULL;
    run->fd = -1;
}

/* -- reading */

static int get_varint(const uint8_t **p, const uint8_t *end, uint64_t *out) {
    uint64_t value = 0;
    for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
        uint8_t byte = *(*p)++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *out = value;
            return 0;
        }
    }
    return -1;
}

/* The records of a block; -1 when it is not what was written. */
static int block_read(const lfs_run *run, uint64_t block, lfs_record *out) {
    const lfs_fence *f = &run->fences[block];
    uint64_t until = block + 1 < run->blocks ? f[1].offset : run->is.bytes, left = run->is.records - block * LFS_RUN_BLOCK;
    uint32_t n = left < LFS_RUN_BLOCK ? (uint32_t)left : LFS_RUN_BLOCK;
    if (f->offset > until || until > run->is.bytes || f->check != (uint32_t)XXH3_64bits(run->map + f->offset, until - f->offset)) return -1;
    const uint8_t *p = run->map + f->offset, *end = run->map + until;
    uint64_t key = f->key, index = 0, len = 0, head, more;
    for (uint32_t i = 0; i < n; i++) {
        if (get_varint(&p, end, &head)) return -1;
        index = head & 1 ? run->is.first + (head >> 3) : index + (head >> 3);
        if (head & 1) {
            if (get_varint(&p, end, &more)) return -1;
            key += more;
        }
        if (run->is.kind == LFS_POSTINGS) {
            if (get_varint(&p, end, &more)) return -1;
            len += (more >> 1) ^ -(more & 1);
        }
        out[i] = (lfs_record){key, (uint32_t)index, (uint16_t)len, (uint8_t)(head >> 1 & 3)};
    }
    return p == end ? (int)n : -1;
}

static int load_block(lfs_run_cursor *c, const lfs_run *run, uint64_t block) {
    int n = block < run->blocks ? block_read(run, block, c->room) : 0;
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
