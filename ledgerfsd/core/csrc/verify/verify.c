/* Verifying a store: its life and its threads. See verify.h for who does what. */
#include "verify.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MARKS_BYTES(task) ((task)->accounts_max / 64 * 8ul + 8)

int lfs_read_fully(int fd, void *out, size_t len, uint64_t at) {
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (uint8_t *)out + got, len - got, (off_t)(at + got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        got += (size_t)n;
    }
    return (int)got;
}

void lfs_verify_fails(lfs_verify *v, const char *what, const char *file) {
    int number = errno;
    pthread_mutex_lock(&v->lock);
    if (!v->verdict.failure[0] && *file) snprintf(v->verdict.failure, sizeof v->verdict.failure, "%s %s: %s", file, what, strerror(number));
    else if (!v->verdict.failure[0]) snprintf(v->verdict.failure, sizeof v->verdict.failure, "%s", what);
    v->stop = 1;
    pthread_cond_broadcast(&v->work);
    pthread_cond_broadcast(&v->room);
    pthread_mutex_unlock(&v->lock);
}

void lfs_verify_found(lfs_verify *v, uint64_t entry, const char *why) {
    lfs_verdict *verdict = &v->verdict;
    pthread_mutex_lock(&v->lock);
    /* Two threads may find the same entry at fault: which reason is given must not depend on which is the faster. */
    if (!verdict->damage || verdict->cut_bytes || entry < verdict->entry || (entry == verdict->entry && strcmp(why, verdict->why) < 0)) {
        verdict->damage = 1;
        verdict->cut_bytes = 0;
        verdict->entry = entry;
        snprintf(verdict->why, sizeof verdict->why, "%s", why);
        for (uint32_t i = 0; i < v->n_files && v->files[i].first <= entry; i++) verdict->segment = v->files[i].first;
    }
    pthread_mutex_unlock(&v->lock);
}

void lfs_verify_item(lfs_verify *v, unsigned file, uint64_t item, int ended) {
    lfs_projection *p = &v->projections[file];
    pthread_mutex_lock(&v->lock);
    if (p->differs < 0 || (int64_t)item < p->differs) {
        p->differs = (int64_t)item;
        p->ended = ended;
    }
    pthread_mutex_unlock(&v->lock);
}

/* -- the jobs */

static int indexes_left(const lfs_verify *v) { return !v->verdict.damage && (lfs_kept_more(&v->sums) || v->sums.scanning); }

/* What there is to do, the most urgent first: the next piece of the chain, a root of the state, a piece to check, a part of the indexes. */
static int work_once(lfs_verify *v) {
    lfs_piece *piece = v->to_judge;
    if (!v->judging && !v->ended && !v->stop && piece && piece->state == PIECE_CHECKED && v->n_roots < LFS_ROOTS_WAITING) {
        v->judging = 1;
        v->to_judge = piece->next;
        v->ahead--;
        pthread_cond_signal(&v->room);
        pthread_mutex_unlock(&v->lock);
        int ended = lfs_piece_chain(v, piece);
        pthread_mutex_lock(&v->lock);
        v->judging = 0;
        v->ended |= ended;
        return 1;
    }
    if (!v->rooting && v->roots) {
        lfs_root_job *job = v->roots;
        v->rooting = 1;
        pthread_mutex_unlock(&v->lock);
        lfs_root_work(v, job);
        pthread_mutex_lock(&v->lock);
        v->rooting = 0;
        v->roots = job->next;
        if (!v->roots) v->roots_tail = &v->roots;
        v->n_roots--;
        job->next = v->spare_roots;
        v->spare_roots = job;
        return 1;
    }
    if (v->to_check && !v->ended && !v->stop) {
        piece = v->to_check;
        piece->state = PIECE_CHECKING;
        v->to_check = piece->next;
        pthread_mutex_unlock(&v->lock);
        lfs_piece_check(v, piece);
        pthread_mutex_lock(&v->lock);
        piece->state = PIECE_CHECKED;
        return 1;
    }
    if (indexes_left(v) && lfs_kept_more(&v->sums) && !v->stop) {
        lfs_kept_scan(v);
        return 1;
    }
    return 0;
}

static void *job_loop(void *context) {
    lfs_verify *v = context;
    pthread_mutex_lock(&v->lock);
    while (!v->stop && !(v->ended && !v->roots && !v->rooting && !indexes_left(v))) {
        if (work_once(v)) pthread_cond_broadcast(&v->work);
        else pthread_cond_wait(&v->work, &v->lock);
    }
    v->stop = 1;
    v->running--;
    pthread_cond_broadcast(&v->work);
    pthread_cond_broadcast(&v->room);
    pthread_cond_broadcast(&v->over);
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

/* -- opening */

static int by_first(const void *a, const void *b) {
    const lfs_journal_file *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int open_journal(lfs_verify *v) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/journal", v->store);
    DIR *dir = opendir(path);
    if (!dir) return -1;
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st;
        if (strspn(entry->d_name, "0123456789") != 20 || strcmp(entry->d_name + 20, ".seg") != 0) continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st)) {
            closedir(dir);
            return -1;
        }
        v->files = lfs_grow(v->files, (v->n_files + 1) * sizeof *v->files);
        v->files[v->n_files++] = (lfs_journal_file){strtoull(entry->d_name, NULL, 10), 0, (uint64_t)st.st_size, fd};
        v->total_bytes += (uint64_t)st.st_size;
    }
    closedir(dir);
    if (v->n_files) qsort(v->files, v->n_files, sizeof *v->files, by_first);
    return 0;
}

static void open_projections(lfs_verify *v) {
    static const char *const names[] = {"runs/offsets", "runs/transactions", "runs/blocks", "hashes/0", "hashes/1", "hashes/2", "hashes/3"};
    static const uint32_t item_bytes[] = {8, 8, 8, 32, 32, 32, 32};
    const lfs_verify_task *task = &v->task;
    const uint64_t items[] = {task->mark_entries, task->mark_transactions, task->mark_blocks, task->mark_entries,
                              task->mark_entries >> 8, task->mark_entries >> 16, task->mark_entries >> 24};
    char path[PATH_MAX + 32];
    for (unsigned i = 0; i < LFS_V_FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", v->store, names[i]);
        v->projections[i] = (lfs_projection){open(path, O_RDONLY | O_CLOEXEC), items[i], item_bytes[i], -1, 0};
    }
}

/* Ids are looked up by hashes whose seed is in the leaf hash of genesis. Without one there is nothing to verify. */
static int read_seed(lfs_verify *v) {
    uint8_t *bytes = v->entry_room, leaf[32];
    const uint8_t *entry = bytes + 2;
    int got = v->n_files && !v->files[0].first ? lfs_read_fully(v->files[0].fd, bytes, 2 + 65535, 0) : 0;
    uint32_t len = got < 2 ? 0 : (uint32_t)bytes[0] << 8 | bytes[1];
    if (!len || got < 2 + (int)len) return -1;
    lfs_leaf_hashes(&entry, &len, 1, leaf);
    memcpy(&v->ledger.seed, leaf, 8);
    return 0;
}

static const uint8_t *reader(void *context, uint64_t index, uint32_t *len) {
    const uint8_t *bytes = lfs_verify_entry(context, index, len, 0);
    if (!bytes) *len = 0;
    return bytes ? bytes : (const uint8_t *)"";
}

void *lfs_verify_reserved(void *old, size_t before, size_t bytes) {
    void *p = before ? mremap(old, before, bytes, MREMAP_MAYMOVE)
                     : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) lfs_grow(NULL, (size_t)-1 / 2);
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

/* What lfs_ledger_init (without states), lfs_state_tree_init and we reserve, and some for what grows. Their pages come as accounts do, but where the system or a limit counts
 * what is reserved, it has to be there at once. */
uint64_t lfs_verify_room(uint32_t accounts_max) {
    uint64_t each = sizeof(lfs_info) + sizeof(lfs_judged) + sizeof *((lfs_state_tree *)0)->places + 1;
    uint64_t bytes = accounts_max * each + (256u << 20);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return bytes;
    munmap(p, bytes);
    return 0;
}

static void open_indexes(lfs_verify *v) {
    if (!v->task.indexes_len || !v->task.mark_entries) return;
    v->sums.entries = v->task.mark_entries;
    if (lfs_sums_begin(v)) lfs_verify_fails(v, "cannot be had", "a random key");
    else lfs_kept_open(v, v->task.indexes, v->task.indexes_len);
    v->total_bytes += lfs_kept_bytes(&v->sums);
}

lfs_verify *lfs_verify_begin(const lfs_verify_task *task, const uint64_t *wanted, uint32_t n_wanted) {
    lfs_verify *v = lfs_grow(NULL, sizeof *v);
    memset(v, 0, sizeof *v);
    v->task = *task;
    snprintf(v->store, sizeof v->store, "%s", task->store);
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->work, NULL);
    pthread_cond_init(&v->room, NULL);
    pthread_cond_init(&v->over, NULL);
    v->roots_tail = &v->roots;
    lfs_ledger_init(&v->ledger, task->accounts_max);
    lfs_ledger_without_states(&v->ledger);
    v->ledger.reader = reader;
    v->ledger.reader_context = v;
    v->accounts = lfs_verify_reserved(NULL, 0, task->accounts_max * sizeof *v->accounts);
    v->marks = lfs_verify_reserved(NULL, 0, MARKS_BYTES(task));
    lfs_state_tree_init(&v->tree, task->accounts_max);
    lfs_reading_init(&v->reading, &v->ledger);
    v->entry_room = lfs_grow(NULL, 2 + 65536 + LFS_PIECE_SLACK);
    memset(v->entry_room, 0, 2 + 65536 + LFS_PIECE_SLACK);
    v->n_wanted = n_wanted;
    v->wanted = lfs_grow(NULL, (n_wanted + 1) * sizeof *v->wanted);
    for (uint32_t i = 0; i < n_wanted; i++) v->wanted[i] = (lfs_wanted){.size = wanted[i]};
    if (!v->tree.places) lfs_grow(NULL, (size_t)-1 / 2);
    lfs_frontier_init(&v->log);
    lfs_frontier_init(&v->batch);
    open_projections(v);
    if (open_journal(v)) lfs_verify_fails(v, "cannot be opened", "journal/");
    else if (read_seed(v)) lfs_verify_found(v, 0, "the journal does not begin with an entry");
    if (v->verdict.damage || v->stop) return v;
    lfs_table_reserve(&v->ledger.ids, task->mark_entries);
    open_indexes(v);
    v->n_jobs = task->jobs < 1 ? 1 : task->jobs > LFS_JOBS_MAX ? LFS_JOBS_MAX : task->jobs;
    if (pthread_create(&v->reader, NULL, lfs_verify_read_loop, v)) {
        v->n_jobs = 0;
        lfs_verify_fails(v, "cannot be started", "a thread");
        return v;
    }
    for (uint32_t i = 0; i < v->n_jobs; i++) {
        pthread_mutex_lock(&v->lock);
        int failed = pthread_create(&v->jobs[i], NULL, job_loop, v);
        if (!failed) v->running++;
        pthread_mutex_unlock(&v->lock);
        if (!failed) continue;
        v->n_jobs = i;
        lfs_verify_fails(v, "cannot be started", "a thread");
    }
    v->reading_ahead = 1;
    return v;
}

int lfs_verify_wait(lfs_verify *v, uint32_t milliseconds, lfs_progress *progress) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + milliseconds * 1000000ull;
    until.tv_sec += (time_t)(ns / LFS_NS_PER_S);
    until.tv_nsec = (long)(ns % LFS_NS_PER_S);
    pthread_mutex_lock(&v->lock);
    while (v->running && pthread_cond_timedwait(&v->over, &v->lock, &until) != ETIMEDOUT) {}
    int more = v->running > 0;
    pthread_mutex_unlock(&v->lock);
    *progress = (lfs_progress){.done_bytes = atomic_load(&v->done_bytes) + atomic_load(&v->sums.done_bytes), .total_bytes = v->total_bytes};
    return more;
}

static void join(lfs_verify *v) {
    if (!v->reading_ahead) return;
    pthread_mutex_lock(&v->lock);
    v->stop = 1;
    pthread_cond_broadcast(&v->work);
    pthread_cond_broadcast(&v->room);
    pthread_mutex_unlock(&v->lock);
    pthread_join(v->reader, NULL);
    for (uint32_t i = 0; i < v->n_jobs; i++) pthread_join(v->jobs[i], NULL);
    v->reading_ahead = 0;
}

void lfs_verify_free(lfs_verify *v) {
    if (!v) return;
    join(v);
    for (lfs_piece *piece; (piece = v->oldest ? v->oldest : v->spare);) {
        *(v->oldest ? &v->oldest : &v->spare) = piece->next;
        lfs_piece_free(piece);
    }
    for (lfs_root_job *job; (job = v->roots ? v->roots : v->spare_roots);) {
        *(v->roots ? &v->roots : &v->spare_roots) = job->next;
        lfs_root_job_free(job);
    }
    for (uint32_t i = 0; i < v->n_files; i++) close(v->files[i].fd);
    lfs_sums_free(&v->sums);
    for (unsigned i = 0; i < LFS_V_FILES; i++)
        if (v->projections[i].fd >= 0) close(v->projections[i].fd);
    munmap(v->accounts, v->task.accounts_max * sizeof *v->accounts);
    munmap(v->marks, MARKS_BYTES(&v->task));
    lfs_ledger_free(&v->ledger);
    lfs_state_tree_free(&v->tree);
    lfs_arena_free(&v->arena);
    lfs_reading_free(&v->reading);
    void *rooms[] = {v->files, v->touched, v->bundle_offset, v->delta, v->txs, v->wanted, v->entry_room, v->recorded, v->seals, v->seal_roots};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) free(rooms[i]);
    for (int i = 0; i < 8; i++) free(v->level_roots[i]);
    free(v);
}
