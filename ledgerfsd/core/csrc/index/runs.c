/* The list of runs, what LMDB keeps of it, and the tail: postings that are in no run yet. */
#include "engine.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void lfs_runs_init(lfs_runs *r, uint32_t accounts_max) {
    pthread_rwlock_init(&r->lock, NULL);
    pthread_mutex_init(&r->turn, NULL);
    pthread_cond_init(&r->wanted, NULL);
    pthread_cond_init(&r->done, NULL);
    r->dir = -1;
    r->accounts_max = accounts_max;
    r->ids_run = LFS_IDS_RUN;
    r->words_kept = LFS_WORDS_KEPT;
    r->heads = mmap(NULL, (size_t)accounts_max * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->heads == MAP_FAILED) lfs_grow(NULL, (size_t)-1 / 2);
    madvise(r->heads, (size_t)accounts_max * 8, MADV_HUGEPAGE); /* read and written by account at random */
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) { /* nothing moves: who merges looks at it without the lock */
        r->list[kind].runs = calloc(LFS_RUNS_MAX, sizeof(lfs_run));
        if (!r->list[kind].runs) lfs_grow(NULL, (size_t)-1 / 2);
    }
}

void lfs_runs_free(lfs_runs *r) {
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) {
        for (uint32_t i = 0; i < r->list[kind].n; i++) lfs_run_close(&r->list[kind].runs[i]);
        free(r->list[kind].runs);
    }
    for (uint32_t i = 0; i < LFS_TAIL_CHUNKS; i++) free(r->chunks[i]);
    lfs_ids_free(r);
    lfs_runs_idle(r);
    lfs_words_free(r);
    munmap(r->heads, (size_t)r->accounts_max * 8);
    if (r->dir >= 0) close(r->dir);
}

/* -- the folder */

static int known(const lfs_runs *r, const char *name) {
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++)
        for (uint32_t i = 0; i < r->list[kind].n; i++)
            if (strcmp(r->list[kind].runs[i].name, name) == 0) return 1;
    return 0;
}

/* Files that are not listed: they were being made when the process ended, or were merged away. */
static int sweep(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    int copy = dup(r->dir);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) return lfs_fail_api(e, "cannot list indexes/: %s", strerror(errno));
    rewinddir(dir);
    int failed = 0;
    for (struct dirent *entry; (entry = readdir(dir)) && !failed;)
        if (strstr(entry->d_name, ".run") && !known(r, entry->d_name) && unlinkat(r->dir, entry->d_name, 0))
            failed = lfs_fail_api(e, "cannot remove indexes/%s: %s", entry->d_name, strerror(errno));
    closedir(dir);
    return failed;
}

int lfs_runs_open(lfs_engine *e, int store, int empty) {
    lfs_runs *r = &e->runs;
    if (mkdirat(store, "indexes", 0750) && errno != EEXIST) return lfs_fail_api(e, "cannot make indexes/: %s", strerror(errno));
    r->dir = openat(store, "indexes", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir < 0) return lfs_fail_api(e, "cannot open indexes/: %s", strerror(errno));
    return empty ? sweep(e) : 0;
}

/* -- what LMDB keeps: for each kind the number of entries covered and of runs, then their names */

size_t lfs_runs_dump(lfs_runs *r, uint8_t **out) {
    size_t len = 0;
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) len += 16 + r->list[kind].n * sizeof r->list[kind].runs->name;
    uint8_t *p = *out = lfs_grow(NULL, len);
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) {
        const lfs_run_list *list = &r->list[kind];
        uint64_t head[2] = {list->covered, list->n};
        memcpy(p, head, sizeof head);
        p += sizeof head;
        for (uint32_t i = 0; i < list->n; i++) {
            memcpy(p, list->runs[i].name, sizeof list->runs[i].name);
            p += sizeof list->runs[i].name;
        }
    }
    return r->damaged ? 0 : len; /* nothing is listed: then the next start makes all projections anew */
}

static int load_list(lfs_engine *e, lfs_run_list *list, int kind, const uint8_t **p, const uint8_t *end) {
    uint64_t head[2], from = 0;
    if ((size_t)(end - *p) < sizeof head) return lfs_fail_api(e, "the saved list of indexes/ is cut short");
    memcpy(head, *p, sizeof head);
    *p += sizeof head;
    if (head[0] != e->counts.entries || head[1] > LFS_RUNS_MAX || (size_t)(end - *p) < head[1] * sizeof list->runs->name)
        return lfs_fail_api(e, "the saved list of indexes/ is not that of the mark");
    for (; list->n < head[1]; *p += sizeof list->runs->name) {
        char name[sizeof list->runs->name];
        memcpy(name, *p, sizeof name);
        name[sizeof name - 1] = 0;
        lfs_run *run = &list->runs[list->n];
        const char *wrong = lfs_run_open(run, e->runs.dir, name);
        if (wrong) return lfs_fail_api(e, "indexes/%s %s", name, wrong);
        list->n++;
        run->synced = run->listed = 1;
        if (run->is.kind != (uint32_t)kind || run->is.first < from || run->is.end < run->is.first || run->is.end > head[0])
            return lfs_fail_api(e, "indexes/%s has the records of another part", name);
        from = run->is.end;
    }
    list->covered = head[0];
    return 0;
}

int lfs_runs_list(lfs_engine *e, const uint8_t *bytes, size_t len) {
    const uint8_t *p = bytes, *end = bytes + len;
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++)
        if (load_list(e, &e->runs.list[kind], kind, &p, end)) return -1;
    return 0;
}

int lfs_runs_load(lfs_engine *e, const uint8_t *bytes, size_t len) {
    if (lfs_runs_list(e, bytes, len)) return -1;
    lfs_ids_tail_begin(&e->runs, e->counts.entries);
    e->runs.words_to = e->counts.entries;
    lfs_ids_publish(&e->runs, NULL, 0);
    return sweep(e);
}

/* The files that are listed now, durable. (Called while nothing is built: see lfs_runs_flush.) */
int lfs_runs_sync(lfs_engine *e) {
    lfs_runs *r = &e->runs;
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++)
        for (uint32_t i = 0; i < r->list[kind].n; i++) {
            lfs_run *run = &r->list[kind].runs[i];
            if (!run->synced && fdatasync(run->fd)) return lfs_fail_api(e, "cannot sync indexes/%s: %s", run->name, strerror(errno));
            run->synced = run->listed = 1;
        }
    r->n_unnamed = r->n_gone;
    return fsync(r->dir) ? lfs_fail_api(e, "cannot sync indexes/: %s", strerror(errno)) : 0;
}

/* LMDB has the list of the last lfs_runs_sync: what was merged away before it is named nowhere any more. */
void lfs_runs_saved(lfs_runs *r) {
    pthread_mutex_lock(&r->turn);
    for (uint32_t i = 0; i < r->n_unnamed; i++) unlinkat(r->dir, r->gone[i], 0); /* if not: the next start does */
    r->n_gone -= r->n_unnamed;
    memmove(r->gone, r->gone + r->n_unnamed, r->n_gone * sizeof *r->gone);
    r->n_unnamed = 0;
    pthread_mutex_unlock(&r->turn);
}

/* -- the tail */

void lfs_tail_add(lfs_runs *r, uint32_t ordinal, uint32_t index, uint32_t len, uint8_t states) {
    uint64_t end = atomic_load_explicit(&r->end, memory_order_relaxed), head = r->heads[ordinal], begin = r->begin;
    lfs_tail_posting **chunk = &r->chunks[end / LFS_TAIL_CHUNK % LFS_TAIL_CHUNKS];
    if (!*chunk) *chunk = lfs_grow(NULL, LFS_TAIL_CHUNK * sizeof **chunk);
    uint32_t back = head > begin && end + 1 - head <= UINT32_MAX ? (uint32_t)(end + 1 - head) : 0;
    (*chunk)[end % LFS_TAIL_CHUNK] = (lfs_tail_posting){ordinal, index, back, (uint16_t)len, states};
    __atomic_store_n(&r->heads[ordinal], end + 1, __ATOMIC_RELEASE);
    atomic_store_explicit(&r->end, end + 1, memory_order_release);
}

/* Is there more than memory should be spent on, because the disk takes nothing? */
int lfs_tail_full(const lfs_runs *r) {
    uint64_t postings = r->end - r->begin, ids = r->id_end - r->id_begin, n = postings > ids ? postings : ids;
    return (r->trouble && n > LFS_TAIL_MAX) || n > (uint64_t)LFS_TAIL_CHUNK * (LFS_TAIL_CHUNKS / 2);
}

/* Under lock for writing, or while no thread runs. */
void lfs_tail_forget(lfs_runs *r, uint64_t begin) {
    uint64_t old = r->begin / LFS_TAIL_CHUNK;
    for (uint64_t i = old; i < begin / LFS_TAIL_CHUNK; i++) {
        free(r->chunks[i % LFS_TAIL_CHUNKS]);
        r->chunks[i % LFS_TAIL_CHUNKS] = NULL;
    }
    r->begin = begin;
}

/* Position + 1 of the account's newest posting in the tail, 0 when there is none; then of the one before. */
static uint64_t newest(lfs_runs *r, uint64_t ordinal) {
    uint64_t at = __atomic_load_n(&r->heads[ordinal], __ATOMIC_ACQUIRE);
    return at > r->begin ? at : 0;
}

static uint64_t before(lfs_runs *r, uint64_t at) {
    uint32_t back = lfs_tail_at(r, at - 1)->back;
    return back && at > r->begin + back ? at - back : 0;
}

static lfs_record record_of(const lfs_tail_posting *p) { return (lfs_record){p->ordinal, p->index, p->len, p->states}; }

uint64_t lfs_tail_of(lfs_runs *r, uint64_t ordinal, uint64_t bound, lfs_record **out) {
    uint64_t n = 0;
    for (uint64_t at = newest(r, ordinal); at; at = before(r, at)) n += lfs_tail_at(r, at - 1)->index < bound;
    *out = n ? lfs_grow(NULL, n * sizeof **out) : NULL;
    uint64_t left = n;
    for (uint64_t at = newest(r, ordinal); at && left; at = before(r, at)) {
        const lfs_tail_posting *p = lfs_tail_at(r, at - 1);
        if (p->index < bound) (*out)[--left] = record_of(p);
    }
    return n;
}

void lfs_tail_before(lfs_runs *r, uint64_t ordinal, uint64_t bound, lfs_past *sum) {
    lfs_past here = {0};
    for (uint64_t at = newest(r, ordinal); at; at = before(r, at)) { /* newest first */
        const lfs_tail_posting *p = lfs_tail_at(r, at - 1);
        if (p->index >= bound) continue;
        here.count++;
        here.log += (uint64_t)p->len + 1;
        if (!here.last) here.last = p->index + 1;
        if (!p->states && !here.newest[LFS_STATUS]) here.newest[LFS_STATUS] = p->index + 1;
        if (p->states & 1 && !here.newest[LFS_TOTALS]) here.newest[LFS_TOTALS] = p->index + 1;
        if (p->states & 2 && !here.newest[LFS_HELD]) here.newest[LFS_HELD] = p->index + 1;
    }
    sum->count += here.count;
    sum->log += here.log;
    if (here.last) sum->last = here.last;
    for (int i = 0; i < LFS_FACETS; i++)
        if (here.newest[i]) sum->newest[i] = here.newest[i];
}
