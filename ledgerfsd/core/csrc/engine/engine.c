/* Life of the engine, its threads and its queue. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SMALL_BYTES 4096 /* of a submission that a group waits for */
#define SMALL_GROUP 256 /* intents of a group that waits for one */
#define LONE_BYTES 1024 /* of a submission that T2 judges: it never fills a group, which T2 could not hand to itself */
#define GATHER_NS 50000 /* that T2 waits for more files of a crowd: a group costs the same, however many are in it */
#define GATHER_ENOUGH 16 /* submissions */

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

/* -- groups */

static void group_take(lfs_engine *e, lfs_group *g) {
    lfs_ledger *l = &e->ledger;
    g->used = g->entries = g->hashed = g->n_txs = g->n_updates = 0;
    g->intents = 0;
    g->first_index = l->next_index;
    g->first_tx = l->next_tx;
    g->height = l->height;
    g->tickets = NULL;
    g->tickets_tail = &g->tickets;
    l->group = g;
}

static lfs_group *free_group(lfs_engine *e) {
    for (int i = 0; i < LFS_GROUPS; i++)
        if (e->groups[i] != e->ready && e->groups[i] != e->next && e->groups[i] != e->writing && e->groups[i] != e->ledger.group) return e->groups[i];
    return NULL;
}

static int is_open(const lfs_engine *e) { return e->ledger.group->entries || e->ledger.group->tickets; }
static int writer_idle(const lfs_engine *e) { return !e->ready && !e->next && !e->writing; }

int lfs_writer_idle(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    int idle = writer_idle(e);
    pthread_mutex_unlock(&e->lock);
    return idle;
}

/* Under the lock, none being ready: close the open group, take another. By T1, or by T2 while T1 waits: what is T1's is nobody's then. */
static void close_group(lfs_engine *e) {
    lfs_ledger *l = &e->ledger;
    lfs_group *g = l->group;
    g->state_wanted = e->state_wanted && !e->failure_code;
    e->state_wanted = 0;
    g->sealed = g->entries || g->state_wanted;
    if (!g->sealed && !g->tickets) return;
    if (g->sealed) { /* the seal takes the next index and time; T2 writes it */
        l->last_time = l->now_ns > l->last_time ? l->now_ns : l->last_time + 1;
        g->seal_time = l->last_time;
        g->n_accounts = l->n_accounts;
        g->incarnation = l->incarnation;
        memcpy(g->policy_leaf, l->policy_leaf, 32);
        g->start[g->entries] = (uint32_t)g->used;
        l->next_index++;
        l->height++;
    }
    e->ready = g;
    group_take(e, free_group(e));
}

void lfs_hand_over(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    while (e->ready) pthread_cond_wait(&e->handed, &e->lock);
    close_group(e);
    pthread_cond_signal(&e->to_write);
    pthread_mutex_unlock(&e->lock);
}

/* T2, under the lock: the group that is written next, taken from T1 if it was not yet; NULL: none is ready. */
lfs_group *lfs_next_group(lfs_engine *e) {
    if (e->next || !e->ready) return e->next;
    e->next = e->ready;
    e->ready = NULL;
    pthread_cond_signal(&e->handed);
    return e->next;
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

/* What the group should have committed is not: say so in every result that points into it or behind it. */
static void refuse_group(lfs_engine *e, lfs_group *g, int code) {
    for (lfs_ticket *t = g->tickets; t; t = t->next)
        for (uint32_t i = 0; i < t->n; i++) {
            lfs_result *result = &t->results[i];
            if (result->block <= e->counts.blocks) continue;
            *result = (lfs_result){.index = -1, .line = result->line, .code = (int16_t)code};
        }
}

/* Under the lock. Those of the socket and of the front are answered at once where nobody has to be told first; see socket.c, front_told.c. */
static void complete(lfs_engine *e, lfs_group *g, int unattended, int files_unattended) {
    uint64_t one = 1;
    int ask = !unattended;
    for (lfs_ticket *t = g->tickets; t; t = t->next) {
        e->inflight_tickets--;
        e->inflight_bytes -= t->len;
    }
    for (lfs_ticket *t = g->tickets, *next; t; t = next) {
        next = t->next;
        if (t->connection) {
            ask |= lfs_socket_finished(e, t, unattended);
            continue;
        }
        if (t->front) {
            ask |= lfs_front_finished(e, t, files_unattended);
            continue;
        }
        if (t->lines_of) {
            lfs_front_lines_finished(t);
            continue;
        }
        ask = 1;
        t->next = NULL;
        *e->done_tail = t;
        e->done_tail = &t->next;
    }
    if (!e->inflight_tickets) pthread_cond_broadcast(&e->quiet);
    if (!ask) return;
    /* A wake-up that cannot be written (never seen) is made up for: completions are also looked for once a second. */
    if (write(e->wakeup, &one, sizeof one) < 0) return;
}

/* T1 has nothing to do: T2 may close the group. */
static void park(lfs_engine *e) {
    e->parked = 1;
    pthread_cond_wait(&e->to_apply, &e->lock);
    e->parked = 0;
}

/* Under the lock. The writer waits and there is something for it; but a few small submissions that are queued already come along: judging one costs a
 * fiftieth of what a group of its own does. */
static int is_due(const lfs_engine *e) {
    if (e->lent || e->gathering || !writer_idle(e)) return 0;
    if (!is_open(e)) return e->state_wanted && !e->pause_wanted;
    return e->pause_wanted || !e->queue || e->queue->len > SMALL_BYTES || e->ledger.group->intents >= SMALL_GROUP;
}

/* The same. Is there anything that T1 has to wake for? */
static int has_to_apply(const lfs_engine *e) { return e->queue || e->tick_wanted || e->pause_wanted || e->state_wanted || e->stopping; }

static lfs_ticket *take_queued(lfs_engine *e) {
    lfs_ticket *t = e->queue;
    e->queue = t->next;
    if (!e->queue) e->queue_tail = &e->queue;
    t->next = NULL;
    return t;
}

static void judge(lfs_engine *e, lfs_ticket *t) {
    lfs_process(e, t);
    lfs_text_return(e, t);
    lfs_group *g = e->ledger.group;
    *g->tickets_tail = t;
    g->tickets_tail = &t->next;
}

/* What is open leaves T2 room for small submissions. */
static int is_small(const lfs_group *g) { return g->intents < SMALL_GROUP && g->used < LFS_GROUP_BYTES / 8; }

/* The same. T1 sleeps, T2 has nothing to write, and a small submission comes: T2 wakes for it, not T1, and judges it in T1's place. */
static int is_lone(const lfs_engine *e) {
    if (!e->parked || e->lent || !writer_idle(e) || !is_small(e->ledger.group)) return 0;
    return e->queue && e->queue->len <= LONE_BYTES && !e->pause_wanted && !e->tick_wanted;
}

/* The same, which is let go meanwhile. T2: what is T1's is lent to us. */
static void judge_lone(lfs_engine *e) {
    e->lent = 1;
    while (e->queue && e->queue->len <= LONE_BYTES && e->ledger.group->intents < SMALL_GROUP) {
        lfs_ticket *t = take_queued(e);
        pthread_mutex_unlock(&e->lock);
        judge(e, t);
        pthread_mutex_lock(&e->lock);
    }
    e->lent = 0;
    close_group(e);
    if (has_to_apply(e)) pthread_cond_signal(&e->to_apply);
}

/* The same. A group was written, and the next is closed at once, but when a crowd writes small files: of what that costs T2 most is the same for one and for ten. */
static int is_worth_waiting(lfs_engine *e) {
    return e->inflight_tickets < GATHER_ENOUGH && e->inflight_bytes <= GATHER_ENOUGH * LONE_BYTES && lfs_front_crowded(e);
}

/* The same; who waited for the group before has been answered. Nobody is woken for what comes meanwhile. */
static void gather(lfs_engine *e) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += GATHER_NS;
    if (until.tv_nsec >= (long)LFS_NS_PER_S) until.tv_sec++, until.tv_nsec -= (long)LFS_NS_PER_S;
    while (e->inflight_tickets < GATHER_ENOUGH && !e->stopping && !pthread_cond_clockwait(&e->to_write, &e->lock, CLOCK_MONOTONIC, &until)) continue;
    e->gathering = 0;
    if (is_lone(e)) {
        judge_lone(e);
        return;
    }
    if (e->parked && is_due(e)) close_group(e);
    if (has_to_apply(e)) pthread_cond_signal(&e->to_apply);
}

static void *write_loop(void *context) {
    lfs_engine *e = context;
    if (lfs_state_begin(e)) lfs_turn_read_only(e, LFS_STORAGE_ERROR, "the accounts do not have the state root of the newest seal: run ledgerfs fsck");
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (!e->next && !e->ready && !(e->stopping > 1)) {
            lfs_proofs_answer(e);
            if (is_lone(e)) judge_lone(e);
            else if (!e->ready && !(e->stopping > 1)) pthread_cond_wait(&e->to_write, &e->lock);
        }
        if (!lfs_next_group(e)) break;
        lfs_group *g = e->writing = e->next;
        e->next = NULL;
        int failed = e->failure_code;
        pthread_mutex_unlock(&e->lock);
        if (failed) {
            refuse_group(e, g, LFS_READ_ONLY);
        } else if (g->sealed) {
            char why[256];
            int code = lfs_group_commit(e, g, why);
            if (code) {
                lfs_turn_read_only(e, code, why);
                refuse_group(e, g, code);
            }
        }
        const lfs_segment *last = &e->segments[e->n_segments - 1];
        if (e->front) lfs_front_record(e, g->tickets), lfs_front_tell(e);
        int soon = e->stream_end - last->base > e->segment_bytes / 4, unattended = lfs_unattended(e, ~LFS_ATTEND_RECEIPTS);
        int files_unattended = unattended && lfs_unattended(e, LFS_ATTEND_RECEIPTS);
        pthread_mutex_lock(&e->lock);
        complete(e, g, unattended, files_unattended);
        e->writing = NULL;
        lfs_proofs_answer(e);
        e->gathering = is_worth_waiting(e);
        if (e->parked && is_due(e)) close_group(e); /* T1 need not be woken, to wake us */
        else if (!e->gathering && has_to_apply(e)) pthread_cond_signal(&e->to_apply);
        if (soon && !e->spare_ready && !e->zero_wanted && !e->failure_code) {
            e->zero_wanted = 1;
            pthread_cond_signal(&e->to_zero);
        }
        if (e->front) lfs_front_answer_ready(e);
        if (e->socket && lfs_socket_due(e)) {
            pthread_mutex_unlock(&e->lock);
            lfs_socket_wake(e);
            pthread_mutex_lock(&e->lock);
        }
        if (e->gathering) gather(e);
    }
    e->stopping = 3;
    pthread_cond_signal(&e->to_sync);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static void *zero_loop(void *context) {
    lfs_engine *e = context;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (!e->zero_wanted && !e->stopping) pthread_cond_wait(&e->to_zero, &e->lock);
        if (e->stopping) break;
        pthread_mutex_unlock(&e->lock);
        int made = lfs_spare_make(e) == 0; /* if not, the writer tries for itself when it needs one, and reports why not */
        pthread_mutex_lock(&e->lock);
        e->spare_ready = made;
        e->zero_wanted = !made ? -1 : 0; /* -1: do not try again in this life */
        while (e->zero_wanted < 0 && !e->stopping) pthread_cond_wait(&e->to_zero, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static lfs_ticket *next_ticket(lfs_engine *e, int *tick) {
    pthread_mutex_lock(&e->lock);
    while (!is_due(e)) {
        int nothing = !e->lent && !is_open(e) && writer_idle(e);
        if (e->pause_wanted && nothing) {
            e->paused = 1;
            pthread_cond_broadcast(&e->quiet);
            while (e->pause_wanted) pthread_cond_wait(&e->to_apply, &e->lock);
            e->paused = 0;
            continue;
        }
        if (!e->lent && !e->pause_wanted && (e->queue || e->tick_wanted)) break;
        if (e->stopping && nothing) break;
        park(e);
    }
    lfs_ticket *t = NULL;
    *tick = 0;
    if (!is_due(e)) {
        *tick = e->tick_wanted;
        e->tick_wanted = 0;
        if (!e->pause_wanted && e->queue) t = take_queued(e);
    }
    pthread_mutex_unlock(&e->lock);
    return t;
}

static void *apply_loop(void *context) {
    lfs_engine *e = context;
    for (;;) {
        int tick;
        lfs_ticket *t = next_ticket(e, &tick);
        if (t) {
            judge(e, t);
        } else if (tick) {
            lfs_ids_settle(&e->ledger); /* so that runs which were merged away can be let go */
            if (!e->failure_code) lfs_expire(&e->ledger, lfs_clock());
        } else if (e->ledger.group->entries || e->ledger.group->tickets || e->state_wanted) {
            lfs_hand_over(e);
        } else {
            break; /* stopping, and nothing is left */
        }
        if (e->ledger.group->intents >= LFS_BATCH_INTENTS_MAX) lfs_hand_over(e);
    }
    pthread_mutex_lock(&e->lock);
    e->stopping = 2;
    pthread_cond_broadcast(&e->to_write);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

int lfs_engine_start(lfs_engine *e) {
    for (int i = 0; i < LFS_GROUPS; i++)
        if (!e->groups[i]) e->groups[i] = lfs_group_new();
    group_take(e, e->groups[0]);
    if (pthread_create(&e->apply_thread, NULL, apply_loop, e) || pthread_create(&e->write_thread, NULL, write_loop, e) ||
        pthread_create(&e->zero_thread, NULL, zero_loop, e) || pthread_create(&e->tree_thread, NULL, lfs_tree_loop, e) ||
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

uint64_t lfs_enqueue(lfs_engine *e, lfs_ticket *t) {
    pthread_mutex_lock(&e->lock);
    uint64_t number = e->next_ticket + 1;
    *e->queue_tail = t;
    for (; t; t = t->next) {
        t->number = ++e->next_ticket;
        e->queue_tail = &t->next;
        e->inflight_tickets++;
        e->inflight_bytes += t->len;
    }
    pthread_cond_t *idle = is_lone(e) ? &e->to_write : e->lent ? NULL : &e->to_apply;
    if (e->gathering) idle = e->inflight_tickets < GATHER_ENOUGH ? NULL : &e->to_write;
    pthread_mutex_unlock(&e->lock);
    if (idle) pthread_cond_signal(idle); /* who wakes shall find the lock free */
    return number;
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
