/* Merging runs: neighbours of one kind become one file. A file that was merged away stays until LMDB has a list without it. */
#include "engine.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define BETWEEN_RECORDS 65536 /* between two looks at what has come meanwhile */

/* Runs of one level become one of the next, so many at a time. Of a ledger under load, whose runs have half a million records, a record is so written
 * twice, however large the ledger becomes: into its run, and into one of sixteen million, which stays. The more neighbours become one, the fewer times a record
 * is written again, and the more runs there are to look into: seven small ones, some thirty of the next level, and the large ones. */
#define LEVEL_RECORDS 65536 /* of the lowest level, at most; of the next FANOUT times as many */
#define FANOUT 32
#define FANOUT_LOWEST 8 /* what a quiet ledger saves each second; writing it again costs nothing */
#define WINDOW_MAX 64
#define WINDOW_LEAST 8 /* neighbours that become one before they are FANOUT, because more of them would be too large */

static unsigned level_of(uint64_t records) {
    unsigned level = 0;
    for (uint64_t most = LEVEL_RECORDS; records > most; most *= FANOUT) level++;
    return level;
}

/* Neighbours of one level, counted from the newest, and what stands between them of lower ones: are they enough to become one? */
static int find_window_of(const lfs_run_list *list, unsigned level, uint32_t *from, uint32_t *count) {
    uint64_t records = 0;
    uint32_t n = 0, of_level = 0;
    for (uint32_t i = list->n; i-- > 0;) {
        uint64_t more = list->runs[i].is.records;
        unsigned its = level_of(more);
        if (!n && its < level) continue; /* newer than all of this level */
        int fits = records + more <= LFS_RUN_RECORDS_MAX;
        if (!fits && of_level >= WINDOW_LEAST) return 1;
        if (its > level || !fits) n = of_level = 0, records = 0;
        if (its != level && !n) continue;
        records += more;
        of_level += its == level;
        *from = i;
        *count = ++n;
        if (of_level == (level ? FANOUT : FANOUT_LOWEST) || n == WINDOW_MAX) return 1;
    }
    return 0;
}

int lfs_runs_window(const lfs_run_list *list, uint32_t *from, uint32_t *count) {
    for (unsigned level = 0; level <= level_of(LFS_RUN_RECORDS_MAX); level++)
        if (find_window_of(list, level, from, count)) return 1;
    return 0;
}

/* -- the records of some runs in their order: a tree of merges of two strands, whose steps have no branch */

#define ROOM_RECORDS (4 * LFS_RUN_BLOCK)

typedef struct strand { /* records in their order: those of one run, or of two strands */
    const lfs_record *at, *end;
    struct strand *older, *newer;
    const lfs_run *run; /* NULL: of two strands */
    uint64_t block;     /* of the run, the next */
    lfs_record room[ROOM_RECORDS + 1]; /* and one that merge_step may look at */
} strand;

typedef struct {
    int damaged;
    uint32_t n;
    strand strands[2 * WINDOW_MAX];
} merger;

static uint64_t left(const strand *s) { return (uint64_t)(s->end - s->at); }

static uint64_t take(strand *s, lfs_record *out, uint64_t n) {
    memcpy(out, s->at, n * sizeof *out);
    s->at += n;
    return n;
}

typedef uint64_t words __attribute__((vector_size(16), aligned(8), may_alias));
_Static_assert(sizeof(lfs_record) == sizeof(words), "a record is copied at once");

/* Of equal keys the older strand's come first, for its entries are all before. a, b: addresses of records. */
static inline void merge_step(uintptr_t *a, uintptr_t *b, lfs_record *out) {
    uint64_t newer_first = -(uint64_t)(((const lfs_record *)*b)->key < ((const lfs_record *)*a)->key);
    __asm__("" : "+r"(newer_first)); /* or the compiler works it out a second time below, or makes a branch of it, which is guessed wrongly */
    *(words *)out = *(const words *)(*a ^ ((*a ^ *b) & newer_first));
    newer_first &= sizeof *out;
    *b += newer_first;
    *a += sizeof *out - newer_first;
}

/* How many of the first n records of both come from the older strand ("merge path", Odeh and others, 2012). */
static uint64_t of_older(const strand *older, const strand *newer, uint64_t n) {
    uint64_t low = n > left(newer) ? n - left(newer) : 0, high = n < left(older) ? n : left(older);
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (older->at[middle].key <= newer->at[n - 1 - middle].key) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* How many come out until one of them has none left. */
static uint64_t until_end(const strand *older, const strand *newer) {
    uint64_t older_last = older->end[-1].key, newer_last = newer->end[-1].key;
    int older_ends = older_last <= newer_last;
    const strand *other = older_ends ? newer : older;
    uint64_t low = 0, high = left(other);
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (older_ends ? other->at[middle].key < older_last : other->at[middle].key <= newer_last) low = middle + 1;
        else high = middle;
    }
    return low + left(older_ends ? older : newer);
}

/* So many steps, before each of which both have some left. */
static void merge_steps(strand *older, strand *newer, lfs_record *out, uint64_t steps) {
    uintptr_t a = (uintptr_t)older->at, b = (uintptr_t)newer->at;
    for (uint64_t i = 0; i < steps; i++) merge_step(&a, &b, &out[i]);
    older->at = (const lfs_record *)a;
    newer->at = (const lfs_record *)b;
}

/* Until one has none left, or `most` have come out. Each step waits for the one before; so four parts are merged side by side. Returns how many. */
static uint64_t merge_parts(strand *older, strand *newer, lfs_record *out, uint64_t most) {
    uint64_t end = until_end(older, newer), steps = end < most ? end : most, part = steps / 4;
    uintptr_t a[4], b[4];
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t before = of_older(older, newer, i * part);
        a[i] = (uintptr_t)(older->at + before);
        b[i] = (uintptr_t)(newer->at + i * part - before);
    }
    for (uint64_t i = 0; i < part; i++) {
        merge_step(&a[0], &b[0], &out[i]);
        merge_step(&a[1], &b[1], &out[i + part]);
        merge_step(&a[2], &b[2], &out[i + 2 * part]);
        merge_step(&a[3], &b[3], &out[i + 3 * part]);
    }
    older->at = (const lfs_record *)a[3];
    newer->at = (const lfs_record *)b[3];
    merge_steps(older, newer, out + 4 * part, steps - 4 * part);
    return steps;
}

/* So many steps at most, which neither has fewer records than. What follows in one strand without one of the other between goes at once: an account's
 * postings in a run, and in many. Returns how many. */
#define TOGETHER 16
static uint64_t merge_many(strand *older, strand *newer, lfs_record *out, uint64_t steps) {
    uint64_t n = 0;
    while (steps - n >= TOGETHER) {
        if (older->at[TOGETHER - 1].key <= newer->at->key) n += take(older, out + n, TOGETHER);
        else if (newer->at[TOGETHER - 1].key < older->at->key) n += take(newer, out + n, TOGETHER);
        else merge_steps(older, newer, out + n, TOGETHER), n += TOGETHER;
    }
    return n;
}

static int has_many_of_each(const strand *s) { return (s->end[-1].key - s->at->key) * TOGETHER <= left(s); }

static void read_on(merger *m, strand *s) {
    uint64_t n = 0;
    while (n < ROOM_RECORDS && s->block < s->run->blocks && !m->damaged) {
        int some = lfs_run_two_blocks(s->run, s->block, s->room + n);
        if (some < 0) m->damaged = 1;
        else n += (uint64_t)some, s->block += (some + LFS_RUN_BLOCK - 1) / LFS_RUN_BLOCK;
    }
    s->end = s->room + n;
}

/* The strand's next records, when all before were taken; none at its end, or when something is not what was written. */
static void go_on(merger *m, strand *s) {
    uint64_t n = 0;
    strand *older = s->older, *newer = s->newer;
    s->at = s->room;
    if (s->run) {
        read_on(m, s);
        return;
    }
    for (uint64_t some = 1; n < ROOM_RECORDS && some;) {
        if (!left(older)) go_on(m, older);
        if (!left(newer)) go_on(m, newer);
        uint64_t a = left(older), b = left(newer), least = a < b ? a : b, room = ROOM_RECORDS - n;
        if (!least) n += some = take(a ? older : newer, s->room + n, a + b < room ? a + b : room);
        else if (least >= TOGETHER && room >= TOGETHER && has_many_of_each(older)) n += some = merge_many(older, newer, s->room + n, least < room ? least : room);
        else n += some = merge_parts(older, newer, s->room + n, room);
    }
    s->end = s->room + n;
}

/* Of `count` runs, oldest first. */
static strand *strand_of(merger *m, const lfs_run *runs, uint32_t count) {
    strand *s = &m->strands[m->n++];
    s->at = s->end = s->room;
    s->older = s->newer = NULL;
    s->run = count == 1 ? runs : NULL;
    s->block = 0;
    if (count == 1) return s;
    s->older = strand_of(m, runs, count / 2);
    s->newer = strand_of(m, runs + count / 2, count - count / 2);
    return s;
}

/* A large merge is not done in one go, while commits wait for a processor, but some times as quickly as its entries came: PACE merges take their turns until
 * as many entries have come again (there are three kinds). When none come it waits all the same, a little for each piece, and is done in seconds. */
#define PACE 4
#define PACE_MILLISECONDS 20

static int is_ahead(const lfs_engine *e, const lfs_run_writer *w, uint64_t records, uint64_t since) {
    uint64_t come = atomic_load_explicit(&e->entries, memory_order_relaxed) - since;
    return w->records * (w->end - w->first) > PACE * come * records;
}

/* Write the merged run. Returns 0, an errno, or -1 to stop for now. */
static int write_merged(lfs_engine *e, int kind, uint32_t from, uint32_t count, lfs_run *made) {
    lfs_runs *r = &e->runs;
    const lfs_run *runs = r->list[kind].runs + from;
    char name[48];
    lfs_run_writer w;
    uint64_t records = 0, since = atomic_load(&e->entries);
    for (uint32_t i = 0; i < count; i++) records += runs[i].is.records;
    lfs_run_name(name, kind, runs[0].is.first, runs[count - 1].is.end);
    int failed = lfs_run_write_begin(&w, r->dir, name, kind, runs[0].is.first, runs[count - 1].is.end, records);
    if (failed) return failed;
    merger *m = lfs_grow(NULL, sizeof *m);
    m->n = 0;
    m->damaged = 0;
    strand *all = strand_of(m, runs, count);
    for (go_on(m, all); !failed && !m->damaged && left(all); go_on(m, all)) {
        lfs_run_write(&w, all->at, left(all));
        if (w.records % BETWEEN_RECORDS >= ROOM_RECORDS) continue;
        if (is_ahead(e, &w, records, since)) lfs_runs_rest(r, PACE_MILLISECONDS);
        failed = lfs_runs_between(e);
        if (!failed && r->running) failed = lfs_ids_sift(e); /* T1 looks into each run of ids that is in no sieve */
    }
    int damaged = m->damaged;
    free(m);
    if (damaged) atomic_store(&r->damaged, 1);
    if (!failed && !damaged) return lfs_run_finish(r, &w, name, made);
    lfs_run_write_end(&w);
    unlinkat(r->dir, name, 0);
    return failed ? failed : EIO;
}

int lfs_run_merge(lfs_engine *e, int kind, uint32_t from, uint32_t count) {
    lfs_runs *r = &e->runs;
    lfs_run_list *list = &r->list[kind];
    lfs_run made, old[WINDOW_MAX];
    if (count > WINDOW_MAX) return EINVAL;
    int failed = write_merged(e, kind, from, count, &made);
    if (failed) return failed;
    pthread_mutex_lock(&r->turn);
    while (lfs_runs_frozen(r)) pthread_cond_wait(&r->wanted, &r->turn);
    pthread_rwlock_wrlock(&r->lock);
    memcpy(old, list->runs + from, count * sizeof *old);
    list->runs[from] = made;
    memmove(list->runs + from + 1, list->runs + from + count, (list->n - from - count) * sizeof *list->runs);
    list->n -= count - 1;
    pthread_rwlock_unlock(&r->lock);
    if (kind == LFS_IDS) lfs_ids_publish(r, old, count);
    for (uint32_t i = 0; i < count; i++) {
        if (kind != LFS_IDS) lfs_run_close(&old[i]);
        if (old[i].listed) memcpy(r->gone[r->n_gone++], old[i].name, sizeof old[i].name);
        else unlinkat(r->dir, old[i].name, 0);
    }
    pthread_mutex_unlock(&r->turn);
    return 0;
}

int lfs_runs_merge(lfs_engine *e) {
    int failed = 0;
    for (int kind = 0; kind < LFS_RUN_KINDS && !failed; kind++) {
        uint32_t from = 0, count = 0;
        while (!failed && !atomic_load(&e->runs.damaged) && e->runs.n_gone + WINDOW_MAX <= LFS_RUNS_MAX &&
               lfs_runs_window(&e->runs.list[kind], &from, &count)) failed = lfs_run_merge(e, kind, from, count);
    }
    return failed;
}
