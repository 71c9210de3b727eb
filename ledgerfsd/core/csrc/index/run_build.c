/* T6: building runs of what is published; run_merge.c merges them. While no thread runs (replay, rebuild) the same is done by whoever calls.
 *
 * A crash leaves a file that no list names: the next start removes it. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define STEP_MERGES (4u << 20) /* entries: who replays more than so many, merges too, for it looks into the runs of ids */
#define BUILD_RECORDS_MAX (1u << 20) /* 16 MiB, and as much again to sort them */

/* Room for records, given back to the kernel at once: malloc would keep it. Memory comes as it is used. */
static lfs_record *room_for(uint64_t records) {
    size_t bytes = (records + 1) * sizeof(lfs_record);
    void *room = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return lfs_grow(NULL, (size_t)-1 / 2);
    madvise(room, bytes, MADV_HUGEPAGE); /* sorting writes to two thousand places in turn */
    return room;
}

static void room_free(lfs_record *room, uint64_t records) { munmap(room, (records + 1) * sizeof *room); }

/* The rooms for building are kept until there is nothing to build for a second: the kernel would clear them each time. */
static lfs_record *room_of(lfs_runs *r, int which) {
    if (!r->rooms[which]) r->rooms[which] = room_for(BUILD_RECORDS_MAX);
    return r->rooms[which];
}

void lfs_runs_idle(lfs_runs *r) {
    for (int i = 0; i < 2; i++) {
        if (r->rooms[i]) room_free(r->rooms[i], BUILD_RECORDS_MAX);
        r->rooms[i] = NULL;
    }
    lfs_words_idle(r);
}

/* -- sorting: by key, keeping the order of the log; 11 bits at a time */

#define DIGITS 3 /* counted in one look at the records */

/* By all bits from from_bit on. Returns whichever of the two rooms has the result. */
static lfs_record *sort_upper(lfs_record *from, lfs_record *to, uint64_t n, unsigned from_bit) {
    for (unsigned base = from_bit; base < 64 && n; base += 11 * DIGITS) {
        uint32_t places[DIGITS][2048] = {0};
        for (uint64_t i = 0; i < n; i++)
            for (unsigned digit = 0; digit < DIGITS; digit++)
                if (base + 11 * digit < 64) places[digit][from[i].key >> (base + 11 * digit) & 2047]++;
        for (unsigned shift = base, digit = 0; digit < DIGITS && shift < 64; shift += 11, digit++) {
            uint32_t *place = places[digit], sum = 0;
            if (place[from[0].key >> shift & 2047] == n) continue; /* it is the same in all */
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
    }
    return from;
}

/* Hashes are sorted by their upper 22 bits: hardly any two of a million are then in the wrong order, unless someone chose them so. */
static const unsigned FROM_BIT[LFS_RUN_KINDS] = {[LFS_POSTINGS] = 0, [LFS_WORDS] = 26, [LFS_IDS] = 42};

static lfs_record *sort_records(lfs_record *records, lfs_record *spare, uint64_t n, int kind) {
    lfs_record *sorted = sort_upper(records, spare, n, FROM_BIT[kind]);
    uint64_t moves = 0;
    for (uint64_t i = 1; FROM_BIT[kind] && i < n; i++) {
        if (sorted[i - 1].key <= sorted[i].key) continue;
        lfs_record record = sorted[i];
        uint64_t at = i;
        for (; at && sorted[at - 1].key > record.key; at--, moves++) sorted[at] = sorted[at - 1];
        sorted[at] = record;
        if (moves > 4 * n) return sort_upper(sorted, sorted == records ? spare : records, n, 0);
    }
    return sorted;
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

static uint64_t gather_words(lfs_engine *e, uint64_t *end, lfs_record *out) {
    lfs_runs *r = &e->runs;
    uint64_t n = lfs_words_note(e, *end);
    *end = r->words_to;
    if (n) memcpy(out, r->words, n * sizeof *out);
    return n;
}

/* -- files */

static const char *const PREFIX[LFS_RUN_KINDS] = {"postings", "words", "ids"};

void lfs_run_name(char name[48], int kind, uint64_t first, uint64_t end) {
    snprintf(name, 48, "%s-%010llu-%010llu.run", PREFIX[kind], (unsigned long long)first, (unsigned long long)end);
}

int lfs_run_finish(lfs_runs *r, lfs_run_writer *w, const char *name, lfs_run *made) {
    int failed = lfs_run_write_end(w);
    if (!failed && lfs_run_open(made, r->dir, name)) failed = EIO;
    if (failed) unlinkat(r->dir, name, 0);
    return failed;
}

int lfs_run_write_all(lfs_runs *r, int kind, uint64_t first, uint64_t end, lfs_record *records, uint64_t n, lfs_run *made) {
    char name[48];
    lfs_run_writer w;
    lfs_run_name(name, kind, first, end);
    int failed = lfs_run_write_begin(&w, r->dir, name, kind, first, end, n);
    if (failed) return failed;
    lfs_record *spare = n > BUILD_RECORDS_MAX ? room_for(n) : room_of(r, 1);
    lfs_run_write(&w, sort_records(records, spare, n, kind), n);
    if (n > BUILD_RECORDS_MAX) room_free(spare, n);
    return lfs_run_finish(r, &w, name, made);
}

/* Make a run of the next entries up to `until`, or of fewer when their records are many. */
static int build(lfs_engine *e, int kind, uint64_t until) {
    lfs_runs *r = &e->runs;
    lfs_run_list *list = &r->list[kind];
    lfs_run made;
    if (list->n == LFS_RUNS_MAX) return ENOSPC;
    lfs_record *records = room_of(r, 0);
    uint64_t n = kind == LFS_POSTINGS ? gather_postings(r, &until, records)
                 : kind == LFS_WORDS ? gather_words(e, &until, records)
                                     : lfs_ids_gather(r, &until, records, BUILD_RECORDS_MAX);
    int failed = n ? lfs_run_write_all(r, kind, list->covered, until, records, n, &made) : 0;
    if (failed) return failed;
    pthread_rwlock_wrlock(&r->lock);
    if (n) list->runs[list->n++] = made;
    list->covered = until;
    if (kind == LFS_POSTINGS) lfs_tail_forget(r, r->begin + n);
    if (kind == LFS_WORDS) lfs_words_forget(r);
    pthread_rwlock_unlock(&r->lock);
    if (kind == LFS_IDS) {
        lfs_ids_publish(r, NULL, 0);
        lfs_ids_tail_forget(r, until);
    }
    return 0;
}

/* -- the thread */

int lfs_runs_frozen(const lfs_runs *r) {
    int all = r->target != 0;
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) all &= r->list[kind].covered >= r->target;
    return all;
}

static int enough_postings(const lfs_runs *r) { return atomic_load(&r->end) - r->begin >= LFS_BUILD_RECORDS; }

static int enough(const lfs_engine *e) { return enough_postings(&e->runs) || lfs_ids_enough(&e->runs) || lfs_words_due(e); }

/* Build what there is to build now; with a target not beyond it. Returns 0 or an errno. */
static int build_now(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    for (;;) {
        pthread_mutex_lock(&r->turn);
        uint64_t target = r->target;
        int stand = lfs_runs_frozen(r);
        uint64_t until = target ? target : atomic_load_explicit(&e->entries, memory_order_acquire); /* never beyond a target set after this */
        pthread_mutex_unlock(&r->turn);
        if (stand || (!target && !enough(e))) return 0;
        const int wanted[LFS_RUN_KINDS] = {enough_postings(r), lfs_words_note(e, until) >= LFS_BUILD_RECORDS, lfs_ids_enough(r)};
        int failed = 0;
        for (int kind = LFS_RUN_KINDS; kind-- > 0 && !failed;)
            if ((target || wanted[kind]) && r->list[kind].covered < until) failed = build(e, kind, until);
        if (failed) return failed;
        pthread_mutex_lock(&r->turn);
        if (lfs_runs_frozen(r)) pthread_cond_broadcast(&r->done);
        pthread_mutex_unlock(&r->turn);
    }
}

static void account_time(lfs_runs *r) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    atomic_store(&r->spent, (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec);
}

int lfs_runs_between(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    if (!r->running) return 0;
    account_time(r);
    pthread_mutex_lock(&r->turn);
    int stopping = r->stopping;
    pthread_mutex_unlock(&r->turn);
    return stopping ? -1 : build_now(e);
}

/* Under `turn`. Until there is something to do, or the time is over: returns whether it is. */
static int rest(lfs_runs *r, unsigned milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += milliseconds % 1000 * 1000000l;
    if (until.tv_nsec >= 1000000000l) until.tv_sec++, until.tv_nsec -= 1000000000l;
    return pthread_cond_timedwait(&r->wanted, &r->turn, &until) == ETIMEDOUT;
}

void lfs_runs_rest(lfs_runs *r, unsigned milliseconds) {
    pthread_mutex_lock(&r->turn);
    if (r->running && !r->stopping && (!r->target || lfs_runs_frozen(r))) rest(r, milliseconds);
    pthread_mutex_unlock(&r->turn);
}

/* Under `turn`. Commits go before T6, but for what a save waits for: where all processors are busy that took seconds otherwise, and a start after a crash replays
 * what comes meanwhile. To come forward again wants a right (CAP_SYS_NICE or LimitNICE=); without it T6 stays where it is. */
#define BEHIND 10 /* niceness; on Linux each thread has its own */

static void come_forward(const lfs_runs *r, int on) {
    if (r->tid) setpriority(PRIO_PROCESS, (id_t)r->tid, on || r->niceness > BEHIND ? r->niceness : BEHIND);
}

static void *build_loop(void *context) {
    lfs_engine *e = context;
    lfs_runs *r = &e->runs;
    pthread_mutex_lock(&r->turn);
    r->tid = gettid();
    r->niceness = getpriority(PRIO_PROCESS, 0);
    come_forward(r, 0);
    while (!r->stopping) {
        pthread_mutex_unlock(&r->turn);
        int failed = build_now(e);
        if (!failed) failed = lfs_ids_sift(e);
        if (!failed) failed = lfs_runs_merge(e);
        lfs_ids_tidy(r);
        account_time(r);
        pthread_mutex_lock(&r->turn);
        if (failed != -1) r->trouble = failed;
        if (failed > 0) pthread_cond_broadcast(&r->done);
        if (r->stopping || (!failed && ((r->target && !lfs_runs_frozen(r)) || (!r->target && enough(e))))) continue;
        if (rest(r, 1000)) lfs_runs_idle(r);
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
    r->running = r->tid = 0;
}

void lfs_runs_wake(lfs_engine *e) {
    if (enough(e)) pthread_cond_signal(&e->runs.wanted); /* one that is lost is made up for: T6 looks once a second */
}

int lfs_runs_step(lfs_engine *e) {
    if (e->runs.running || !enough(e)) return 0;
    int failed = build_now(e);
    if (failed || e->replayed < STEP_MERGES) return failed; /* merging is left to T6, so that a start after a crash does not wait for it */
    failed = lfs_ids_sift(e);
    return failed ? failed : lfs_runs_merge(e);
}

/* -- saving */

/* While nothing more is published: runs are to go up to here, and no further before lfs_runs_flushed. */
void lfs_runs_target(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    pthread_mutex_lock(&r->turn);
    r->target = atomic_load(&e->entries);
    r->trouble = 0;
    come_forward(r, 1);
    pthread_cond_broadcast(&r->wanted);
    pthread_mutex_unlock(&r->turn);
}

/* Wait until the lists cover exactly the target, and keep them so. Returns 0 or an errno. */
int lfs_runs_flush(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    pthread_mutex_lock(&r->turn);
    while (r->running && !r->stopping && !lfs_runs_frozen(r) && !r->trouble) pthread_cond_wait(&r->done, &r->turn);
    int alone = !r->running, failed = lfs_runs_frozen(r) ? 0 : r->trouble ? r->trouble : EAGAIN;
    pthread_mutex_unlock(&r->turn);
    return alone ? build_now(e) : failed;
}

void lfs_runs_flushed(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    pthread_mutex_lock(&r->turn);
    r->target = 0;
    come_forward(r, 0);
    pthread_cond_broadcast(&r->wanted);
    pthread_mutex_unlock(&r->turn);
}
