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
    lfs_record room[ROOM_RECORDS + 1]; /* and one that merge_steps may look at */
} strand;

typedef struct {
    int damaged;
    uint32_t n;
    strand strands[2 * WINDOW_MAX];
} merger;

static uint64_t left(const strand *s) { return (uint64_t)(s->end - s->at); }

/* So many steps, for none of which a strand comes to its end. Of equal keys the older strand's come first, for its entries are all before. A key is
 * loaded a step before it is known whether it is wanted: so a step waits for a comparison, and not for memory as well. */
static inline void merge_steps(strand *older, strand *newer, lfs_record *out, uint64_t steps) {
    const lfs_record *a = older->at, *b = newer->at;
    uint64_t a_key = a->key, b_key = b->key;
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t a_next = a[1].key, b_next = b[1].key, newer_first = -(uint64_t)(b_key < a_key);
        out[i] = *(const lfs_record *)((uintptr_t)a ^ (((uintptr_t)a ^ (uintptr_t)b) & newer_first)); /* of ?: a branch would be made */
        b -= (int64_t)newer_first;
        a += 1 + (int64_t)newer_first;
        b_key ^= (b_key ^ b_next) & newer_first;
        a_key ^= (a_key ^ a_next) & ~newer_first;
    }
    older->at = a;
    newer->at = b;
}

static uint64_t take(strand *s, lfs_record *out, uint64_t n) {
    memcpy(out, s->at, n * sizeof *out);
    s->at += n;
    return n;
}

/* The same, but what follows in one strand without one of the other between goes at once: an account's postings in a run, and in many. Returns how many. */
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

static void read_on(merger *m, strand *s) {
    uint64_t n = 0;
    for (int some = 1; n < ROOM_RECORDS && s->block < s->run->blocks && some > 0; n += some > 0 ? (uint64_t)some : 0)
        if ((some = lfs_run_block(s->run, s->block++, s->room + n)) < 0) m->damaged = 1;
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
    for (uint64_t some = 1; n < ROOM_RECORDS && some; n += some) {
        if (!left(older)) go_on(m, older);
        if (!left(newer)) go_on(m, newer);
        uint64_t a = left(older), b = left(newer);
        some = a && (a < b || !b) ? a : b;
        if (some > ROOM_RECORDS - n) some = ROOM_RECORDS - n;
        if (!a || !b) take(a ? older : newer, s->room + n, some);
        else if (some > TOGETHER) some = merge_many(older, newer, s->room + n, some);
        else merge_steps(older, newer, s->room + n, some);
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
