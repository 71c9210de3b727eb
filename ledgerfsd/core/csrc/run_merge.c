/* Merging runs: neighbours of one kind become one file. A file that was merged away stays until LMDB has a list without it. */
#include "engine.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define LEVEL_RECORDS 65536 /* of the lowest level, at most */
#define WINDOW_MAX 16
#define BETWEEN_RECORDS 65536 /* between two looks at what has come meanwhile */
#define OUT_RECORDS 1024

/* So many neighbours become one. The more, the fewer times a record is written again, and the more runs there are to look into: every intent looks into
 * those of ids, reads alone look into others. */
static const uint32_t FANOUT[LFS_RUN_KINDS] = {[LFS_POSTINGS] = 8, [LFS_WORDS] = 8, [LFS_IDS] = 4};

static unsigned level_of(uint64_t records, uint32_t fanout) {
    unsigned level = 0;
    for (uint64_t most = LEVEL_RECORDS; records > most; most *= fanout) level++;
    return level;
}

/* Neighbours of no higher level than the one looked at, counted from the newest; enough of them are to become one. */
static int find_window(const lfs_run_list *list, uint32_t fanout, uint32_t *from, uint32_t *count) {
    for (unsigned level = 0; level <= level_of(LFS_RUN_RECORDS_MAX, fanout); level++) {
        uint64_t records = 0;
        uint32_t n = 0;
        for (uint32_t i = list->n; i-- > 0 && n < WINDOW_MAX;) {
            const lfs_run *run = &list->runs[i];
            if (level_of(run->is.records, fanout) > level || records + run->is.records > LFS_RUN_RECORDS_MAX) break;
            records += run->is.records;
            *from = i;
            *count = ++n;
        }
        if (n >= fanout) return 1;
    }
    return 0;
}

/* -- the records of some runs in their order */

typedef struct {
    uint32_t n; /* runs that are not at their end, oldest first */
    lfs_run_cursor *at[WINDOW_MAX];
    uint64_t key[WINDOW_MAX]; /* of the record under each cursor */
    lfs_run_cursor cursors[WINDOW_MAX];
} merger;

/* Cursor i was moved. Returns -1 for damage. */
static int settle(merger *m, uint32_t i) {
    int damaged = 0;
    const lfs_record *record = lfs_run_record(m->at[i], &damaged);
    if (damaged) return -1;
    if (record) {
        m->key[i] = record->key;
        return 0;
    }
    m->n--;
    memmove(&m->at[i], &m->at[i + 1], (m->n - i) * sizeof *m->at);
    memmove(&m->key[i], &m->key[i + 1], (m->n - i) * sizeof *m->key);
    return 0;
}

static int merger_begin(merger *m, const lfs_run *runs, uint32_t count) {
    lfs_past unused;
    for (uint32_t i = 0; i < count; i++) {
        if (lfs_run_seek(&m->cursors[i], &runs[i], 0, LFS_BY_INDEX, 0, &unused)) return -1;
        m->at[m->n++] = &m->cursors[i];
        if (settle(m, m->n - 1)) return -1;
    }
    return 0;
}

/* The next records, at most `most`: by key; of equal keys the oldest run's come first, for its entries are all before. Returns their number, 0 at the end,
 * -1 for damage. */
static int64_t merger_next(merger *m, lfs_record *out, uint64_t most) {
    uint64_t have = 0;
    while (m->n && have < most) {
        uint32_t which = 0;
        uint64_t key = m->key[0];
        for (uint32_t i = 1; i < m->n; i++) {
            which = m->key[i] < key ? i : which;
            key = m->key[i] < key ? m->key[i] : key;
        }
        lfs_run_cursor *c = m->at[which];
        uint64_t upto = m->n == 1 ? UINT64_MAX : key;
        do out[have++] = c->room[c->at++];
        while (have < most && c->at < c->n && c->room[c->at].key <= upto);
        if (c->at < c->n) m->key[which] = c->room[c->at].key;
        else if (settle(m, which)) return -1;
    }
    return (int64_t)have;
}

/* Write the merged run. Returns 0, an errno, or -1 to stop for now. */
static int write_merged(lfs_engine *e, int kind, uint32_t from, uint32_t count, lfs_run *made) {
    lfs_runs *r = &e->runs;
    const lfs_run *runs = r->list[kind].runs + from;
    char name[48];
    lfs_run_writer w;
    lfs_record out[OUT_RECORDS];
    uint64_t records = 0;
    for (uint32_t i = 0; i < count; i++) records += runs[i].is.records;
    lfs_run_name(name, kind, runs[0].is.first, runs[count - 1].is.end);
    int failed = lfs_run_write_begin(&w, r->dir, name, kind, runs[0].is.first, runs[count - 1].is.end, records);
    if (failed) return failed;
    merger *m = lfs_grow(NULL, sizeof *m);
    m->n = 0;
    int64_t n = merger_begin(m, runs, count) ? -1 : 1;
    while (!failed && n > 0 && (n = merger_next(m, out, OUT_RECORDS)) > 0) {
        lfs_run_write(&w, out, (uint64_t)n);
        if (w.records % BETWEEN_RECORDS < OUT_RECORDS) failed = lfs_runs_between(e);
    }
    free(m);
    if (n < 0) atomic_store(&r->damaged, 1);
    if (!failed && n == 0) return lfs_run_finish(r, &w, name, made);
    lfs_run_write_end(&w);
    unlinkat(r->dir, name, 0);
    return failed ? failed : EIO;
}

int lfs_run_merge(lfs_engine *e, int kind, uint32_t from, uint32_t count) {
    lfs_runs *r = &e->runs;
    lfs_run_list *list = &r->list[kind];
    lfs_run made, old[WINDOW_MAX];
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
               find_window(&e->runs.list[kind], FANOUT[kind], &from, &count)) failed = lfs_run_merge(e, kind, from, count);
    }
    return failed;
}
