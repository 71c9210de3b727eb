/* T6: building runs of what is published, and merging them. While no thread runs (replay, rebuild) the same is done by whoever calls.
 *
 * A crash leaves a file that no list names: the next start removes it. A file that was merged away stays until LMDB has a list without it. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BUILD_RECORDS_MAX (1u << 20) /* 16 MiB, and as much again to sort them */
#define REPLAY_POSTINGS BUILD_RECORDS_MAX
#define FANOUT 4
#define WINDOW_MAX 16
#define MERGE_PIECE 65536 /* records between two looks at what has come meanwhile */

/* Room for records, given back to the kernel at once: malloc would keep it. Memory comes as it is used. */
static lfs_record *room_for(uint64_t records) {
    void *room = mmap(NULL, (records + 1) * sizeof(lfs_record), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return room == MAP_FAILED ? lfs_grow(NULL, (size_t)-1 / 2) : room;
}

static void room_free(lfs_record *room, uint64_t records) { munmap(room, (records + 1) * sizeof *room); }

/* -- sorting: by key, keeping the order of the log; 11 bits at a time */

static void sort_records(lfs_record *records, uint64_t n, unsigned from_bit) {
    lfs_record *from = records, *to = room_for(n), *spare = to;
    uint64_t all = 0;
    for (uint64_t i = 0; i < n; i++) all |= records[i].key;
    for (unsigned shift = from_bit; shift < 64 && all >> shift; shift += 11) {
        uint32_t place[2048] = {0}, sum = 0;
        for (uint64_t i = 0; i < n; i++) place[from[i].key >> shift & 2047]++;
        for (unsigned i = 0; i < 2048; i++) {
            uint32_t count = place[i];
            place[i] = sum;
            sum += count;
        }
        for (uint64_t i = 0; i < n; i++) to[place[from[i].key >> shift & 2047]++] = from[i];
        lfs_record *swap = from;
        from = to;
        to = swap;
    }
    if (from != records) memcpy(records, from, n * sizeof *records);
    room_free(spare, n);
    for (uint64_t i = 1; from_bit && i < n; i++) { /* hardly any are equal in their upper bits */
        lfs_record record = records[i];
        uint64_t at = i;
        for (; at && records[at - 1].key > record.key; at--) records[at] = records[at - 1];
        records[at] = record;
    }
}

/* -- gathering: the records of entries covered..*end; *end comes down when they are too many */

static uint64_t gather_postings(lfs_runs *r, uint64_t *end, lfs_record *out) {
    uint64_t n = 0, at = r->begin, stop = atomic_load_explicit(&r->end, memory_order_acquire);
    for (; at < stop; at++) {
        const lfs_tail_posting *p = lfs_tail_at(r, at);
        if (p->index >= *end) break;
        if (n == BUILD_RECORDS_MAX) {
            *end = p->index;
            break;
        }
        out[n++] = (lfs_record){p->ordinal, p->index, p->len, p->states};
    }
    while (n && out[n - 1].index >= *end) n--; /* an entry has all of its postings in one run */
    return n;
}

static uint64_t gather_words(lfs_engine *e, uint64_t first, uint64_t *end, lfs_record *out) {
    uint64_t n = 0;
    for (uint64_t index = first; index < *end; index++) {
        uint64_t words[LFS_WORDS_MAX];
        uint32_t len, found;
        const uint8_t *bytes = lfs_entry_at(e, index, &len);
        found = lfs_entry_words(e, bytes, len, words);
        if (n + found > BUILD_RECORDS_MAX) {
            *end = index;
            break;
        }
        for (uint32_t i = 0; i < found; i++) out[n++] = (lfs_record){words[i], (uint32_t)index, 0, 0};
    }
    return n;
}

/* -- files */

static const char *const PREFIX[LFS_RUN_KINDS] = {"postings", "words", "ids"};

static void file_name(char name[48], int kind, uint64_t first, uint64_t end) {
    snprintf(name, 48, "%s-%010llu-%010llu.run", PREFIX[kind], (unsigned long long)first, (unsigned long long)end);
}

/* Open what was written. Returns 0 or an errno. */
static int finish(lfs_runs *r, lfs_run_writer *w, const char *name, lfs_run *made) {
    int failed = lfs_run_write_end(w);
    if (!failed && lfs_run_open(made, r->dir, name)) failed = EIO;
    if (failed) unlinkat(r->dir, name, 0);
    return failed;
}

int lfs_run_write_all(lfs_runs *r, int kind, uint64_t first, uint64_t end, lfs_record *records, uint64_t n, lfs_run *made) {
    char name[48];
    lfs_run_writer w;
    file_name(name, kind, first, end);
    sort_records(records, n, kind == LFS_IDS ? 31 : 0);
    int failed = lfs_run_write_begin(&w, r->dir, name, kind, first, end, n);
    if (failed) return failed;
    for (uint64_t i = 0; i < n; i++) lfs_run_write(&w, &records[i]);
    return finish(r, &w, name, made);
}

/* Make a run of the next entries up to `until`, or of fewer when their records are many. */
static int build(lfs_engine *e, int kind, uint64_t until) {
    lfs_runs *r = &e->runs;
    lfs_run_list *list = &r->list[kind];
    lfs_run made;
    if (list->n == LFS_RUNS_MAX) return ENOSPC;
    lfs_record *records = room_for(BUILD_RECORDS_MAX);
    uint64_t n = kind == LFS_POSTINGS ? gather_postings(r, &until, records)
                 : kind == LFS_WORDS ? gather_words(e, list->covered, &until, records)
                                     : lfs_ids_gather(r, &until, records, BUILD_RECORDS_MAX);
    int failed = n ? lfs_run_write_all(r, kind, list->covered, until, records, n, &made) : 0;
    room_free(records, BUILD_RECORDS_MAX);
    if (failed) return failed;
    pthread_rwlock_wrlock(&r->lock);
    if (n) list->runs[list->n++] = made;
    list->covered = until;
    if (kind == LFS_POSTINGS) lfs_tail_forget(r, r->begin + n);
    pthread_rwlock_unlock(&r->lock);
    if (kind == LFS_IDS) {
        lfs_ids_publish(r, NULL, 0);
        lfs_ids_tail_forget(r, until);
    }
    return 0;
}

/* -- merging */

static unsigned level_of(uint64_t records) {
    unsigned level = 0;
    for (uint64_t most = LFS_TAIL_CHUNK; records > most; most *= FANOUT) level++;
    return level;
}

/* Neighbours of no higher level than the one looked at, counted from the newest; enough of them are to become one. */
static int find_window(const lfs_run_list *list, uint32_t *from, uint32_t *count) {
    for (unsigned level = 0; level <= level_of(LFS_RUN_RECORDS_MAX); level++) {
        uint64_t records = 0;
        uint32_t n = 0;
        for (uint32_t i = list->n; i-- > 0 && n < WINDOW_MAX;) {
            const lfs_run *run = &list->runs[i];
            if (level_of(run->is.records) > level || records + run->is.records > LFS_RUN_RECORDS_MAX) break;
            records += run->is.records;
            *from = i;
            *count = ++n;
        }
        if (n >= FANOUT) return 1;
    }
    return 0;
}

/* The smallest record under the cursors; of equal keys the oldest run's, whose entries are all before. -1: damage. */
int lfs_merge_step(const lfs_run *runs, uint32_t n, lfs_run_cursor *cursors, const lfs_record **record, uint32_t *which) {
    int damaged = 0;
    *record = NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (!cursors[i].run) { /* not begun */
            lfs_past unused;
            damaged |= lfs_run_seek(&cursors[i], &runs[i], 0, LFS_BY_INDEX, 0, &unused) != 0;
        }
        const lfs_record *here = lfs_run_record(&cursors[i], &damaged);
        if (damaged) return -1;
        if (!here || (*record && here->key >= (*record)->key)) continue;
        *record = here;
        *which = i;
    }
    return *record != NULL;
}

static int between(lfs_engine *e);

/* Write the merged run. Returns 0, an errno, or -1 to stop for now. */
static int write_merged(lfs_engine *e, int kind, uint32_t from, uint32_t count, lfs_run *made) {
    lfs_runs *r = &e->runs;
    const lfs_run *runs = r->list[kind].runs + from;
    char name[48];
    lfs_run_writer w;
    uint64_t records = 0;
    for (uint32_t i = 0; i < count; i++) records += runs[i].is.records;
    file_name(name, kind, runs[0].is.first, runs[count - 1].is.end);
    int failed = lfs_run_write_begin(&w, r->dir, name, kind, runs[0].is.first, runs[count - 1].is.end, records), more = 0;
    if (failed) return failed;
    lfs_run_cursor *cursors = lfs_grow(NULL, count * sizeof *cursors);
    memset(cursors, 0, count * sizeof *cursors);
    const lfs_record *record;
    uint32_t which = 0;
    while (!failed && (more = lfs_merge_step(runs, count, cursors, &record, &which)) > 0) {
        lfs_run_write(&w, record);
        lfs_run_next(&cursors[which]);
        if (w.records % MERGE_PIECE == 0) failed = between(e);
    }
    free(cursors);
    if (more < 0) atomic_store(&r->damaged, 1);
    if (!failed && more == 0) return finish(r, &w, name, made);
    lfs_run_write_end(&w);
    unlinkat(r->dir, name, 0);
    return failed ? failed : EIO;
}

/* A save looks at the lists from the moment they cover its target until it lets go. */
static int frozen(const lfs_runs *r) {
    int all = r->target != 0;
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) all &= r->list[kind].covered >= r->target;
    return all;
}

int lfs_run_merge(lfs_engine *e, int kind, uint32_t from, uint32_t count) {
    lfs_runs *r = &e->runs;
    lfs_run_list *list = &r->list[kind];
    lfs_run made, old[WINDOW_MAX];
    int failed = write_merged(e, kind, from, count, &made);
    if (failed) return failed;
    pthread_mutex_lock(&r->turn);
    while (frozen(r)) pthread_cond_wait(&r->wanted, &r->turn);
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

static int merge_all(lfs_engine *e) {
    int failed = 0;
    for (int kind = 0; kind < LFS_RUN_KINDS && !failed; kind++) {
        uint32_t from, count;
        while (!failed && !atomic_load(&e->runs.damaged) && e->runs.n_gone + WINDOW_MAX <= LFS_RUNS_MAX &&
               find_window(&e->runs.list[kind], &from, &count)) failed = lfs_run_merge(e, kind, from, count);
    }
    return failed;
}

/* -- the thread */

static int enough_postings(const lfs_runs *r) { return atomic_load(&r->end) - r->begin >= LFS_TAIL_CHUNK; }

static int enough(const lfs_runs *r) { return enough_postings(r) || lfs_ids_enough(r); }

/* Build what there is to build now; with a target not beyond it. Returns 0 or an errno. */
static int build_now(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    for (;;) {
        pthread_mutex_lock(&r->turn);
        uint64_t target = r->target;
        int stand = frozen(r);
        uint64_t until = target ? target : atomic_load_explicit(&e->entries, memory_order_acquire); /* never beyond a target set after this */
        pthread_mutex_unlock(&r->turn);
        int postings = target || enough_postings(r), ids = target || lfs_ids_enough(r), failed = 0;
        if (stand || (!postings && !ids)) return 0;
        if (ids && r->list[LFS_IDS].covered < until) failed = build(e, LFS_IDS, until);
        if (postings && !failed && r->list[LFS_POSTINGS].covered < until) failed = build(e, LFS_POSTINGS, until);
        if (postings && !target) until = r->list[LFS_POSTINGS].covered;
        if (postings && !failed && r->list[LFS_WORDS].covered < until) failed = build(e, LFS_WORDS, until);
        if (failed) return failed;
        pthread_mutex_lock(&r->turn);
        if (frozen(r)) pthread_cond_broadcast(&r->done);
        pthread_mutex_unlock(&r->turn);
    }
}

static void account_time(lfs_runs *r) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    atomic_store(&r->spent, (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec);
}

/* Called now and then by a merge, which may take seconds. */
static int between(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    if (!r->running) return 0;
    account_time(r);
    pthread_mutex_lock(&r->turn);
    int stopping = r->stopping;
    pthread_mutex_unlock(&r->turn);
    return stopping ? -1 : build_now(e);
}

static void *build_loop(void *context) {
    lfs_engine *e = context;
    lfs_runs *r = &e->runs;
    setpriority(PRIO_PROCESS, 0, 10); /* of this thread, on Linux: commits go first */
    pthread_mutex_lock(&r->turn);
    while (!r->stopping) {
        pthread_mutex_unlock(&r->turn);
        int failed = build_now(e);
        if (!failed) failed = merge_all(e);
        lfs_ids_tidy(r);
        account_time(r);
        pthread_mutex_lock(&r->turn);
        if (failed != -1) r->trouble = failed;
        if (failed > 0) pthread_cond_broadcast(&r->done);
        if (r->stopping || (!failed && ((r->target && !frozen(r)) || (!r->target && enough(r))))) continue;
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&r->wanted, &r->turn, &until);
    }
    pthread_mutex_unlock(&r->turn);
    return NULL;
}

int lfs_runs_start(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    r->running = 1;
    if (!pthread_create(&r->thread, NULL, build_loop, e)) {
        pthread_setname_np(r->thread, "lfs-runs");
        return 0;
    }
    r->running = 0;
    return -1;
}

void lfs_runs_stop(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    if (!r->running) return;
    pthread_mutex_lock(&r->turn);
    r->stopping = 1;
    pthread_cond_broadcast(&r->wanted);
    pthread_cond_broadcast(&r->done);
    pthread_mutex_unlock(&r->turn);
    pthread_join(r->thread, NULL);
    r->running = 0;
}

void lfs_runs_wake(lfs_runs *r) {
    if (enough(r)) pthread_cond_signal(&r->wanted); /* one that is lost is made up for: T6 looks once a second */
}

int lfs_runs_step(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    if (r->running || (atomic_load(&r->end) - r->begin < REPLAY_POSTINGS && !lfs_ids_enough(r))) return 0;
    int failed = build_now(e);
    return failed ? failed : merge_all(e);
}

/* -- saving */

/* While nothing more is published: runs are to go up to here, and no further before lfs_runs_flushed. */
void lfs_runs_target(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    pthread_mutex_lock(&r->turn);
    r->target = atomic_load(&e->entries);
    r->trouble = 0;
    pthread_cond_broadcast(&r->wanted);
    pthread_mutex_unlock(&r->turn);
}

/* Wait until the lists cover exactly the target, and keep them so. Returns 0 or an errno. */
int lfs_runs_flush(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    pthread_mutex_lock(&r->turn);
    while (r->running && !r->stopping && !frozen(r) && !r->trouble) pthread_cond_wait(&r->done, &r->turn);
    int alone = !r->running, failed = frozen(r) ? 0 : r->trouble ? r->trouble : EAGAIN;
    pthread_mutex_unlock(&r->turn);
    return alone ? build_now(e) : failed;
}

void lfs_runs_flushed(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    pthread_mutex_lock(&r->turn);
    r->target = 0;
    pthread_cond_broadcast(&r->wanted);
    pthread_mutex_unlock(&r->turn);
}
