/* Life of the engine: made, started, asked, stopped. What its threads do with submissions begins in groups.c. */
#include "engine.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

int lfs_fail_api(lfs_engine *e, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(e->error, sizeof e->error, format, args);
    va_end(args);
    return -1;
}

const char *lfs_engine_error(lfs_engine *e) { return e->error; }

uint64_t lfs_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * LFS_NS_PER_S + (uint64_t)now.tv_nsec;
}

static void *reserved(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* What is read by account at random: with small pages most of its time would be the search for the page. */
static void *reserved_huge(size_t bytes) {
    void *p = reserved(bytes);
    if (p) madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

lfs_engine *lfs_engine_new(const char *store, uint64_t segment_bytes, uint32_t accounts_max) {
    lfs_engine *e = lfs_grow(NULL, sizeof *e);
    memset(e, 0, sizeof *e);
    snprintf(e->store, sizeof e->store, "%s", store);
    e->journal_dir = e->hashes_dir = e->runs_dir = -1;
    e->segment_bytes = segment_bytes;
    lfs_ledger_init(&e->ledger, accounts_max);
    e->ledger.reader = lfs_reader;
    e->ledger.tx_reader = lfs_tx_reader;
    e->ledger.block_reader = lfs_block_reader;
    e->ledger.reader_context = e;
    lfs_frontier_init(&e->frontier);
    e->published = reserved_huge((size_t)accounts_max * sizeof *e->published);
    e->watched = reserved_huge(accounts_max);
    e->kernel = lfs_kernel_new(accounts_max);
    e->dirty = reserved((accounts_max >> 12) * 8 + 8);
    e->catch_up_each_ns = 1000; /* until the first catch-up tells */
    lfs_ordinals_init(&e->pending, accounts_max);
    lfs_ordinals_init(&e->in_group, accounts_max);
    lfs_state_tree_init(&e->tree, accounts_max);
    lfs_runs_init(&e->runs, accounts_max);
    e->ledger.runs = &e->runs;
    e->ledger.ids_most = LFS_IDS_RECENT;
    e->segments = reserved(LFS_SEGMENTS_MAX * sizeof *e->segments);
    e->replay_bytes = reserved((size_t)LFS_REPLAY_BATCH_MAX * sizeof *e->replay_bytes);
    e->replay_len = reserved((size_t)LFS_REPLAY_BATCH_MAX * sizeof *e->replay_len);
    pthread_mutex_init(&e->publish, NULL);
    pthread_mutex_init(&e->names_lock, NULL);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->to_apply, NULL);
    pthread_cond_init(&e->handed, NULL);
    pthread_cond_init(&e->to_write, NULL);
    pthread_cond_init(&e->to_zero, NULL);
    pthread_cond_init(&e->to_hash, NULL);
    pthread_cond_init(&e->hashed, NULL);
    pthread_cond_init(&e->to_sync, NULL);
    pthread_cond_init(&e->quiet, NULL);
    lfs_saver_init(e);
    e->queue_tail = &e->queue;
    e->done_tail = &e->done;
    e->wakeup = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return e;
}

void lfs_engine_free(lfs_engine *e) {
    if (!e) return;
    lfs_engine_stop(e);
    size_t accounts = e->ledger.accounts_max;
    for (uint32_t i = 0; i < e->n_segments; i++) {
        munmap((void *)e->segments[i].map, e->segments[i].map_len);
        close(e->segments[i].fd);
    }
    lfs_dense *files[] = {&e->offsets, &e->transactions, &e->blocks};
    for (int i = 0; i < 3; i++) lfs_dense_close(files[i]);
    for (int i = 0; i < LFS_LEVELS; i++) lfs_dense_close(&e->hashes[i]);
    for (int i = 0; i < LFS_GROUPS; i++)
        if (e->groups[i]) lfs_group_free(e->groups[i]);
    for (lfs_ticket *t; (t = lfs_take(e));) lfs_ticket_free(t);
    lfs_texts_free(e);
    munmap(e->published, accounts * sizeof *e->published);
    munmap(e->watched, accounts);
    lfs_kernel_free(e->kernel);
    lfs_ordinals_free(&e->pending);
    lfs_ordinals_free(&e->in_group);
    lfs_state_tree_free(&e->tree);
    for (lfs_proof *p; (p = e->proofs ? e->proofs : e->proven);) {
        *(e->proofs ? &e->proofs : &e->proven) = p->next;
        lfs_proof_free(p);
    }
    munmap(e->dirty, (accounts >> 12) * 8 + 8);
    munmap(e->segments, LFS_SEGMENTS_MAX * sizeof *e->segments);
    munmap(e->replay_bytes, (size_t)LFS_REPLAY_BATCH_MAX * sizeof *e->replay_bytes);
    munmap(e->replay_len, (size_t)LFS_REPLAY_BATCH_MAX * sizeof *e->replay_len);
    lfs_runs_free(&e->runs);
    lfs_ledger_free(&e->ledger);
    lfs_arena_free(&e->arena);
    void *rooms[] = {e->touched, e->offset_room, e->leaf_room, e->mth_room, e->tile_room, e->saved_table, e->saved_runs, e->replay_quick};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) free(rooms[i]);
    int fds[] = {e->journal_dir, e->hashes_dir, e->runs_dir, e->wakeup};
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0) close(fds[i]);
    free(e);
}

/* -- threads */

void lfs_turn_read_only(lfs_engine *e, int code, const char *why) {
    pthread_mutex_lock(&e->lock);
    if (!e->failure_code) {
        snprintf(e->failure, sizeof e->failure, "%s", why);
        e->failure_code = code;
    }
    pthread_mutex_unlock(&e->lock);
}

int lfs_engine_start(lfs_engine *e) {
    for (int i = 0; i < LFS_GROUPS; i++)
        if (!e->groups[i]) e->groups[i] = lfs_group_new();
    lfs_group_take(e, e->groups[0]);
    if (pthread_create(&e->apply_thread, NULL, lfs_apply_loop, e) || pthread_create(&e->write_thread, NULL, lfs_write_loop, e) ||
        pthread_create(&e->zero_thread, NULL, lfs_zero_loop, e) || pthread_create(&e->tree_thread, NULL, lfs_tree_loop, e) ||
        pthread_create(&e->sync_thread, NULL, lfs_sync_loop, e) || lfs_runs_start(e)) return lfs_fail_api(e, "cannot start threads: %s", strerror(errno));
    pthread_t threads[] = {e->apply_thread, e->write_thread, e->zero_thread, e->tree_thread, e->sync_thread};
    static const char *const names[] = {"lfs-apply", "lfs-write", "lfs-zero", "lfs-tree", "lfs-sync"}; /* for top, perf and bench/macro/direct.py */
    for (int i = 0; i < 5; i++) pthread_setname_np(threads[i], names[i]);
    e->running = 1;
    return 0;
}

void lfs_engine_stop(lfs_engine *e) {
    if (!e->running) return;
    lfs_socket_stop(e);
    pthread_mutex_lock(&e->lock);
    e->stopping = 1;
    pthread_cond_broadcast(&e->to_apply);
    pthread_cond_broadcast(&e->to_zero);
    pthread_cond_broadcast(&e->to_hash);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->apply_thread, NULL);
    pthread_join(e->write_thread, NULL);
    pthread_join(e->zero_thread, NULL);
    pthread_join(e->tree_thread, NULL);
    pthread_join(e->sync_thread, NULL);
    lfs_socket_end(e);
    lfs_front_end(e);
    lfs_runs_stop(e);
    e->running = 0;
}

/* -- submissions */

uint64_t lfs_submit(lfs_engine *e, const uint8_t *data, size_t len, const char *source, uint32_t first_line, int mode,
                    uint64_t now_ns) {
    lfs_ticket *t = lfs_ticket_take(e, data, len, source, first_line);
    t->mode = mode & 15;
    t->dry_run = mode >> 4 & 1;
    t->system = mode >> 5 & 1;
    t->now_ns = now_ns;
    return lfs_enqueue(e, t);
}

void lfs_tick(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->tick_wanted = 1;
    if (++e->texts_idle > 1) lfs_texts_free(e); /* none was taken for a second */
    /* While groups follow each other they see to it (is_due); a root for each tick besides would be twice the work. */
    if (atomic_load(&e->state_stale) && (!e->inflight_tickets || lfs_state_is_old(e))) e->state_due = 1;
    pthread_cond_broadcast(&e->to_apply);
    pthread_cond_signal(&e->to_write);
    pthread_mutex_unlock(&e->lock);
}

void lfs_drain(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    while (e->inflight_tickets) pthread_cond_wait(&e->quiet, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

int lfs_wakeup_fd(lfs_engine *e) { return e->wakeup; }

const char *lfs_failure(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    const char *failure = e->failure; /* written once */
    pthread_mutex_unlock(&e->lock);
    return failure;
}

uint64_t lfs_inflight_bytes(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    uint64_t bytes = e->inflight_bytes;
    pthread_mutex_unlock(&e->lock);
    return bytes;
}

lfs_ticket *lfs_take(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    lfs_ticket *t = e->done;
    if (t) {
        e->done = t->next;
        if (!e->done) e->done_tail = &e->done;
    }
    pthread_mutex_unlock(&e->lock);
    return t;
}
