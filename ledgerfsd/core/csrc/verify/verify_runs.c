/* The runs of a store that is verified, read by code of their own (run_file.c writes and reads them in normal life): the list and the frame of each file at
 * once, then their blocks, some at a time, by any job. Everything that the format says of a run is looked at: checksums, order, bounds, fences. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "verify.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

#define SCAN_BLOCKS 2048 /* at a time: 262,144 records, some 600 KB */

/* has_len: a record has the entry's length. */
static const struct { const char *prefix; int has_len; } KINDS[LFS_RUN_KINDS] = {[LFS_POSTINGS] = {"postings", 1}, [LFS_WORDS] = {"words", 0}, [LFS_IDS] = {"ids", 0}};

/* -- the list, and the frames */

static void wrong(lfs_verify *v, const char *name, const char *why) {
    if (v->sums.why[0]) return;
    snprintf(v->sums.file, sizeof v->sums.file, "indexes%s%.48s", *name ? "/" : "", name);
    snprintf(v->sums.why, sizeof v->sums.why, "%s", why);
}

/* Footer, fences and filter. NULL, or what is wrong. */
static const char *read_frame(lfs_kept_run *run) {
    struct stat st;
    lfs_run_footer *is = &run->is;
    uint8_t zeros[8] = {0}, pad[8] = {0};
    if (fstat(run->fd, &st) || (uint64_t)st.st_size < sizeof *is) return "is too short";
    uint64_t size = (uint64_t)st.st_size;
    if (lfs_read_fully(run->fd, is, sizeof *is, size - sizeof *is) != sizeof *is) return "cannot be read";
    if (memcmp(is->magic, "lfsrun1\n", 8) || is->block != LFS_RUN_BLOCK) return "is not a run of this format";
    if (is->check != XXH3_64bits(is, offsetof(lfs_run_footer, check))) return "has a footer that is not what was written";
    run->blocks = is->records / LFS_RUN_BLOCK + (is->records % LFS_RUN_BLOCK != 0);
    if (is->bytes > size || run->blocks > size / sizeof *run->fences) return "has the wrong size";
    run->lines = run->kind == LFS_IDS ? lfs_filter_lines(is->records) : 0;
    uint64_t padded = (is->bytes + 7) & ~7ull, bytes = run->blocks * sizeof *run->fences + run->lines * 64;
    if (padded + bytes + sizeof *is != size) return "has the wrong size";
    run->fences = lfs_grow(NULL, bytes + 1);
    if (lfs_read_fully(run->fd, run->fences, bytes, padded) != (int64_t)bytes) return "cannot be read";
    if (is->fences_check != XXH3_64bits(run->fences, bytes)) return run->lines ? "has fences or a filter that are not what was written" : "has fences that are not what was written";
    run->filter = (uint64_t *)(run->fences + run->blocks);
    run->remade = lfs_grow(NULL, run->lines * 64 + 1);
    memset(run->remade, 0, run->lines * 64);
    if (lfs_read_fully(run->fd, pad, padded - is->bytes, is->bytes) < 0 || memcmp(pad, zeros, sizeof pad)) return "has other bytes than zeros before its fences";
    return NULL;
}

static void open_run(lfs_verify *v, int dir, int kind, const uint8_t saved[48], uint64_t *from) {
    lfs_sums *sums = &v->sums;
    sums->runs = lfs_grow(sums->runs, (sums->n_runs + 1ull) * sizeof *sums->runs);
    lfs_kept_run *run = &sums->runs[sums->n_runs++];
    *run = (lfs_kept_run){.kind = kind, .fd = -1, .wrong_at = UINT64_MAX, .wrong_entry = -1};
    memcpy(run->name, saved, sizeof run->name);
    run->name[sizeof run->name - 1] = 0;
    run->fd = strchr(run->name, '/') ? -1 : openat(dir, run->name, O_RDONLY | O_CLOEXEC);
    const char *why = run->fd < 0 ? "cannot be opened" : read_frame(run);
    if (why) {
        wrong(v, run->name, why);
        return;
    }
    const lfs_run_footer *is = &run->is;
    char name[48] = {0};
    snprintf(name, sizeof name, "%s-%010llu-%010llu.run", KINDS[kind].prefix, (unsigned long long)is->first, (unsigned long long)is->end);
    if (is->kind != (uint32_t)kind || is->first < *from || is->end <= is->first || is->end > sums->entries || memcmp(name, saved, sizeof name))
        wrong(v, run->name, "has the records of another part");
    *from = is->end;
}

void lfs_kept_open(lfs_verify *v, const uint8_t *list, size_t len) {
    const uint8_t *p = list, *end = list + len;
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/indexes", v->store);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) wrong(v, "", "cannot be opened");
    for (int kind = 0; kind < LFS_RUN_KINDS && !v->sums.why[0]; kind++) {
        uint64_t head[2] = {0, 0}, from = 0;
        if ((size_t)(end - p) >= sizeof head) memcpy(head, p, sizeof head);
        p += sizeof head;
        if (head[0] != v->sums.entries || p > end || head[1] > (uint64_t)(end - p) / 48) wrong(v, "", "the saved list of its files is not that of the mark");
        for (uint64_t i = 0; i < head[1] && !v->sums.why[0]; i++, p += 48) open_run(v, dir, kind, p, &from);
    }
    if (p != end) wrong(v, "", "the saved list of its files is not that of the mark");
    if (dir >= 0) close(dir);
}

uint64_t lfs_kept_bytes(const lfs_sums *sums) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < sums->n_runs; i++) bytes += sums->runs[i].is.bytes;
    return bytes;
}

/* -- blocks */

static inline const uint8_t *get_varint(const uint8_t *p, const uint8_t *end, uint64_t *out) {
    uint64_t value = 0, last;
    if (end - p >= 8) { /* nearly always all of it is in eight bytes */
        memcpy(&value, p, 8);
        last = ~value & 0x8080808080808080;
        if (last) {
            value &= (last ^ (last - 1)) & 0x7f7f7f7f7f7f7f7f; /* the bytes up to the first whose high bit is not set, in groups of 7 bits, 14, 28 */
            value = (value & 0x007f007f007f007f) | (value & 0x7f007f007f007f00) >> 1;
            value = (value & 0x00003fff00003fff) | (value & 0x3fff00003fff0000) >> 2;
            *out = (value & 0x0fffffff) | (value & 0x0fffffff00000000) >> 4;
            return p + (__builtin_ctzll(last) + 1) / 8;
        }
        value = 0;
    }
    for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
        uint8_t byte = *p++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *out = value;
            return p;
        }
    }
    return NULL;
}

static uint32_t records_in(const lfs_kept_run *run, uint64_t block) {
    uint64_t left = run->is.records - block * LFS_RUN_BLOCK;
    return left < LFS_RUN_BLOCK ? (uint32_t)left : LFS_RUN_BLOCK;
}

static uint64_t block_end(const lfs_kept_run *run, uint64_t block) { return block + 1 < run->blocks ? run->fences[block + 1].offset : run->is.bytes; }

/* The records of a block, which is p..end. -1 when it is not what was written. */
static int block_read(const lfs_kept_run *run, uint64_t block, const uint8_t *p, const uint8_t *end, lfs_record *out) {
    uint32_t n = records_in(run, block);
    int has_len = KINDS[run->kind].has_len;
    uint64_t key = run->fences[block].key, index = 0, len = 0, head, more;
    if (run->fences[block].check != (uint32_t)XXH3_64bits(p, (size_t)(end - p))) return -1;
    for (uint32_t i = 0; i < n; i++) {
        if (!(p = get_varint(p, end, &head))) return -1;
        index = head & 1 ? run->is.first + (head >> 3) : index + (head >> 3);
        if (head & 1) {
            if (!(p = get_varint(p, end, &more))) return -1;
            key += more;
        }
        if (has_len) {
            if (!(p = get_varint(p, end, &more))) return -1;
            len += (more >> 1) ^ -(more & 1);
        }
        if (index > UINT32_MAX || len > UINT16_MAX) return -1;
        out[i] = (lfs_record){key, (uint32_t)index, (uint16_t)len, (uint8_t)(head >> 1 & 3)};
    }
    return p == end ? 0 : -1;
}

/* -- looking at some blocks */

typedef struct {
    lfs_kept_run *run;
    u128 *sums; /* of the parts of the run */
    uint64_t first_part, parts, n; /* n: the record in hand */
    lfs_record before;
    int known;     /* there is one before */
    lfs_past past; /* what the records of its key come to */
    int64_t entry; /* of the record that is wrong; -1: it is a fence or a block */
    uint64_t *line, bits[8]; /* of the filter: the line that the record in hand belongs to, and what of it was seen */
    char why[128];
} scan;

#define WRONG(...) return (snprintf(s->why, sizeof s->why, __VA_ARGS__), -1)

static void past_add(lfs_past *past, const lfs_record *r) {
    past->count++;
    past->log += (uint64_t)r->len + 1;
    if (!r->states) past->newest[LFS_STATUS] = r->index + 1;
    if (r->states & 1) past->newest[LFS_TOTALS] = r->index + 1;
    if (r->states & 2) past->newest[LFS_HELD] = r->index + 1;
}

/* Does the fence of a block say what comes before, up to and without record n? */
static int check_fence(scan *s, uint64_t block, const lfs_record *first) {
    const lfs_fence *f = &s->run->fences[block];
    static const lfs_past none;
    const lfs_past *past = block && f->key == s->before.key ? &s->past : &none;
    if ((first && (f->key != first->key || f->index != first->index)) || f->count != past->count || f->log != past->log ||
        memcmp(f->newest, past->newest, sizeof f->newest)) WRONG("fence %llu is not that of its records", (unsigned long long)block);
    return 0;
}

/* Records are sorted by key, then by entry; an entry has one of each account, while two of its words may have one key. */
static int in_order(const scan *s, uint64_t key, uint64_t index) {
    return key > s->before.key || (key == s->before.key && index + (s->run->kind != LFS_POSTINGS) > s->before.index);
}

/* Others may be at the records before, which can belong to the same line. */
static void line_end(scan *s) {
    for (int i = 0; s->line && i < 8; i++) __atomic_fetch_or(&s->line[i], s->bits[i], __ATOMIC_RELAXED);
    memset(s->bits, 0, sizeof s->bits);
}

static void filter_add(scan *s, uint64_t key) {
    uint64_t *line = lfs_filter_line(s->run->remade, s->run->lines, key);
    if (line != s->line) line_end(s);
    s->line = line;
    lfs_filter_add(s->bits, key);
}

static int scan_block(lfs_verify *v, scan *s, const lfs_record *records, uint32_t n) {
    const lfs_run_footer *is = &s->run->is;
    uint64_t words[2][LFS_RUN_BLOCK], hashes[2][LFS_RUN_BLOCK];
    for (uint32_t i = 0; i < n; i++, s->n++) {
        const lfs_record *r = &records[i];
        s->entry = r->index;
        if (s->known && !in_order(s, r->key, r->index)) WRONG("record %llu is out of order", (unsigned long long)s->n);
        if (r->index < is->first || r->index >= is->end) WRONG("record %llu is of another part of the log", (unsigned long long)s->n);
        if (i == 0 && check_fence(s, s->n / LFS_RUN_BLOCK, r)) return -1;
        if (r->key != s->before.key || !s->n) memset(&s->past, 0, sizeof s->past);
        past_add(&s->past, r);
        lfs_record_words(r, s->run->kind, &words[0][i], &words[1][i]);
        if (s->run->lines) filter_add(s, r->key);
        s->before = *r;
        s->known = 1;
    }
    lfs_record_hashes(&v->sums.key, words[0], words[1], hashes[0], hashes[1], n);
    for (uint32_t i = 0; i < n; i++) s->sums[(records[i].index >> LFS_PART_SHIFT) - s->first_part] += (u128)hashes[1][i] << 64 | hashes[0][i];
    s->entry = -1;
    return 0;
}

/* Blocks first..last (exclusive). What the first fence says is believed here: whoever looks at the blocks before it checks that. */
static int scan_blocks(lfs_verify *v, scan *s, uint64_t first, uint64_t last) {
    lfs_kept_run *run = s->run;
    const lfs_fence *f = &run->fences[first];
    uint64_t from = f->offset, until = block_end(run, last - 1), at = from;
    lfs_record records[LFS_RUN_BLOCK];
    s->n = first * LFS_RUN_BLOCK;
    if (first) {
        s->before = (lfs_record){.key = f->key};
        s->past = (lfs_past){.count = f->count, .log = f->log};
        memcpy(s->past.newest, f->newest, sizeof f->newest);
    }
    if (from > until || until > run->is.bytes || (!first && from)) WRONG("block %llu is not what was written", (unsigned long long)first);
    uint8_t *bytes = lfs_grow(NULL, until - from + 1);
    int failed = lfs_read_fully(run->fd, bytes, until - from, from) != (int64_t)(until - from);
    for (uint64_t block = first; block < last && !failed; block++) {
        uint64_t end = block_end(run, block);
        failed = end < at || end > until || block_read(run, block, bytes + (at - from), bytes + (end - from), records);
        if (!failed && scan_block(v, s, records, records_in(run, block))) break;
        at = end;
    }
    free(bytes);
    if (failed) WRONG("block %llu is not what was written", (unsigned long long)(s->n / LFS_RUN_BLOCK));
    if (s->why[0]) return -1;
    if (last < run->blocks && (!in_order(s, run->fences[last].key, run->fences[last].index) || check_fence(s, last, NULL))) {
        s->n = last * LFS_RUN_BLOCK;
        WRONG("fence %llu is not that of its records", (unsigned long long)last);
    }
    return 0;
}

int lfs_kept_more(const lfs_sums *sums) { return !sums->why[0] && sums->next_run < sums->n_runs; }

void lfs_kept_scan(lfs_verify *v) {
    lfs_sums *sums = &v->sums;
    lfs_kept_run *run = &sums->runs[sums->next_run];
    uint64_t first = sums->next_block, last = run->blocks - first > SCAN_BLOCKS ? first + SCAN_BLOCKS : run->blocks;
    sums->next_block = last == run->blocks ? 0 : last;
    sums->next_run += last == run->blocks;
    if (first == last) return; /* it has no records */
    sums->scanning++;
    pthread_mutex_unlock(&v->lock);
    scan s = {.run = run, .entry = -1, .first_part = run->is.first >> LFS_PART_SHIFT};
    s.parts = ((run->is.end - 1) >> LFS_PART_SHIFT) - s.first_part + 1;
    s.sums = lfs_grow(NULL, s.parts * sizeof *s.sums);
    memset(s.sums, 0, s.parts * sizeof *s.sums);
    int wrong = scan_blocks(v, &s, first, last);
    line_end(&s);
    atomic_fetch_add(&sums->done_bytes, block_end(run, last - 1) - run->fences[first].offset);
    pthread_mutex_lock(&v->lock);
    u128 *of_kind = sums->sums + (uint64_t)run->kind * ((sums->entries >> LFS_PART_SHIFT) + 1) + s.first_part;
    for (uint64_t i = 0; i < s.parts; i++) of_kind[i] -= s.sums[i];
    if (wrong && s.n < run->wrong_at) {
        run->wrong_at = s.n;
        run->wrong_entry = s.entry >= 0 ? s.entry : run->fences[s.n / LFS_RUN_BLOCK].index;
        snprintf(run->why, sizeof run->why, "%s", s.why);
    }
    sums->scanning--;
    free(s.sums);
}

/* -- the records of some entries */

const char *lfs_kept_file(const lfs_sums *sums, int kind, uint64_t index) {
    for (uint32_t i = 0; i < sums->n_runs; i++)
        if (sums->runs[i].kind == kind && sums->runs[i].is.first <= index && index < sums->runs[i].is.end) return sums->runs[i].name;
    return NULL;
}

int64_t lfs_kept_records(const lfs_sums *sums, int kind, uint64_t from, uint64_t to, lfs_record **out) {
    uint64_t n = 0, size = 0;
    lfs_record records[LFS_RUN_BLOCK];
    *out = NULL;
    for (uint32_t i = 0; i < sums->n_runs; i++) {
        const lfs_kept_run *run = &sums->runs[i];
        if (run->kind != kind || run->is.first >= to || run->is.end <= from) continue;
        uint8_t *bytes = lfs_grow(NULL, run->is.bytes + 1);
        int failed = lfs_read_fully(run->fd, bytes, run->is.bytes, 0) != (int64_t)run->is.bytes;
        for (uint64_t block = 0; block < run->blocks && !failed; block++) {
            failed = block_read(run, block, bytes + run->fences[block].offset, bytes + block_end(run, block), records);
            for (uint32_t k = 0; k < records_in(run, block) && !failed; k++) {
                if (records[k].index < from || records[k].index >= to) continue;
                if (n == size) *out = lfs_grow(*out, (size = size ? 2 * size : 4096) * sizeof **out);
                (*out)[n++] = records[k];
            }
        }
        free(bytes);
        if (failed) return -1;
    }
    return (int64_t)n;
}
