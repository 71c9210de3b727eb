/* Sieves: filters of the ids of many runs, in memory, made by whoever builds (T6). Every intent looks at them, and goes on to the runs with what one of them
 * may know. While T1 looks at one, only bits are set in it: that says at most "perhaps" too early.
 *
 * A line has eight words, in each of which an id sets one bit; so all eight are worked out at once. At 16 bits an id, one stranger in a thousand passes.
 *
 * What an intent pays is lines that are in no cache of the processor, so there is one sieve of all ids as long as that can be: when it is full, T6 makes one of
 * four times the size from the runs, a few nanoseconds an id in all. Behind 64 million ids comes another of that size. */
#include "engine.h"
#include <sys/mman.h>

#define SIEVE_BITS 16 /* for each id */
#define LEAST_RUNS 4 /* ids of so many runs are in the smallest */
#define MOST_RUNS 64
#define BETWEEN_BLOCKS 512 /* between two looks at what has come meanwhile */

static inline uint64_t hash_of(uint64_t key) { return key * 0x9e3779b97f4a7c15ull >> 16; }
static inline uint64_t bit_of(uint64_t hash, int word) { return 1ull << (hash >> 6 * word & 63); }

LFS_FAST int lfs_sieves_have(const lfs_sieve *sieves, uint32_t n, uint64_t key) {
    uint64_t hash = hash_of(key);
    int found = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t *line = lfs_sieve_line(&sieves[i], key);
        uint64_t missing = 0;
        for (int word = 0; word < 8; word++) missing |= bit_of(hash, word) & ~line[word];
        found |= !missing;
    }
    return found;
}

#define FETCH_AHEAD 16 /* records: they are sorted, but not each line has one */

static LFS_FAST void fill(const lfs_sieve *s, const lfs_record *records, int n) {
    for (int i = 0; i < n && i < FETCH_AHEAD; i++) __builtin_prefetch(lfs_sieve_line(s, records[i].key), 1);
    for (int i = 0; i < n; i++) {
        if (i + FETCH_AHEAD < n) __builtin_prefetch(lfs_sieve_line(s, records[i + FETCH_AHEAD].key), 1);
        uint64_t *line = lfs_sieve_line(s, records[i].key), hash = hash_of(records[i].key);
        for (int word = 0; word < 8; word++) line[word] |= bit_of(hash, word);
    }
}

static lfs_sieve sieve_of(uint64_t most) {
    lfs_sieve s = {.most = most, .lines = (most * SIEVE_BITS + 511) / 512};
    size_t bytes = s.lines * LFS_FILTER_LINE;
    s.filter = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s.filter == MAP_FAILED) lfs_grow(NULL, (size_t)-1 / 2);
    madvise(s.filter, bytes, MADV_HUGEPAGE);
    return s;
}

void lfs_sieve_free(const lfs_sieve *s) {
    if (s->filter) munmap(s->filter, s->lines * LFS_FILTER_LINE);
}

/* How many ids of a run are those of entries from `from` on, at most. A run that was merged may have some of before. */
static uint64_t ids_from(const lfs_run *run, uint64_t from) {
    if (run->is.first > from) from = run->is.first;
    if (run->is.end <= from) return 0;
    return run->is.records < run->is.end - from ? run->is.records : run->is.end - from;
}

/* Add the ids of the run's entries from `from` on. Returns 0, an errno, or -1 to stop for now. */
static int add_run(lfs_engine *e, lfs_sieve *s, const lfs_run *run, uint64_t from) {
    lfs_record records[LFS_RUN_BLOCK];
    for (uint64_t block = 0; block < run->blocks; block++) {
        int n = lfs_run_block(run, block, records), fresh = 0, failed;
        if (n < 0) {
            atomic_store(&e->runs.damaged, 1);
            return -1;
        }
        for (int i = 0; i < n; i++)
            if (records[i].index >= from) records[fresh++] = records[i];
        fill(s, records, fresh);
        s->records += (uint64_t)fresh;
        if (block % BETWEEN_BLOCKS == 0 && (failed = lfs_runs_between(e))) return failed;
    }
    return 0;
}

/* The same for all runs, oldest first, until the sieve is full; *from comes up. */
static int add_runs(lfs_engine *e, lfs_sieve *s, uint64_t *from) {
    const lfs_run_list *list = &e->runs.list[LFS_IDS];
    int failed = 0;
    for (uint32_t i = 0; i < list->n && !failed; i++) {
        const lfs_run *run = &list->runs[i];
        uint64_t more = ids_from(run, *from);
        if (!more) continue;
        if (s->records && s->records + more > s->most) break;
        failed = add_run(e, s, run, *from);
        if (!failed) *from = run->is.end;
    }
    return failed;
}

/* Another, for so many ids: in the place of the only one there is, if that is a small one, and then of all ids. Nobody sees it before it is made. */
static int grow(lfs_engine *e, uint64_t ids) {
    lfs_runs *r = &e->runs;
    int replaces = r->n_sieves == 1 && r->sieves[0].most < r->ids_run * MOST_RUNS;
    uint64_t from = r->sifted, most = r->ids_run * MOST_RUNS;
    if (replaces) {
        from = 0;
        ids += r->sieves[0].records;
    }
    if (replaces || !r->n_sieves) most = r->ids_run * LEAST_RUNS;
    while (most < ids && most < r->ids_run * MOST_RUNS) most *= 4;
    lfs_sieve made = sieve_of(most);
    int failed = add_runs(e, &made, &from);
    if (failed) {
        lfs_sieve_free(&made);
        return failed;
    }
    pthread_rwlock_wrlock(&r->lock);
    if (replaces) r->ending = r->sieves[0];
    r->sieves[replaces ? 0 : r->n_sieves++] = made;
    r->sifted = from;
    pthread_rwlock_unlock(&r->lock);
    lfs_ids_publish(r, NULL, 0);
    return 0;
}

int lfs_ids_sift(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    const lfs_run_list *list = &r->list[LFS_IDS];
    for (;;) {
        uint64_t before = r->sifted, ids = 0;
        for (uint32_t i = list->n; i-- > 0 && list->runs[i].is.end > before;) ids += ids_from(&list->runs[i], before);
        if (!ids || (!r->n_sieves && ids < r->ids_run / 2) || atomic_load(&r->damaged)) return 0; /* a small ledger needs no sieve */
        int failed = r->n_sieves ? add_runs(e, &r->sieves[r->n_sieves - 1], &r->sifted) : 0;
        if (r->sifted > before) lfs_ids_publish(r, NULL, 0);
        if (failed) return atomic_load(&r->damaged) ? 0 : failed;
        if (r->sifted > before) continue;
        if (r->n_sieves == LFS_SIEVES_MAX) return 0; /* what is in none is looked for in the filters of runs */
        failed = grow(e, ids);
        if (failed) return atomic_load(&r->damaged) ? 0 : failed;
    }
}
