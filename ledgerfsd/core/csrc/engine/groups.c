/* Groups: what is committed together. T1 judges submissions into the open one, which is closed when T2 can take it or it is full; T2 writes it and answers.
 *
 * Who wakes whom is what a commit of one small file costs most of. So T2 closes the group itself while T1 sleeps, judges a small submission in T1's place
 * (ADR 50), and in a crowd waits for more of them (ADR 59). All of that is decided here, under the engine's lock. */
#include "engine.h"
#include <time.h>
#include <unistd.h>

#define SMALL_BYTES 4096 /* of a submission that a group waits for */
#define SMALL_GROUP 256 /* intents of a group that waits for one */
#define LONE_BYTES 1024 /* of a submission that T2 judges: it never fills a group, which T2 could not hand to itself */
#define GATHER_NS 50000 /* that T2 waits for more files of a crowd: a group costs the same, however many are in it */
#define GATHER_ENOUGH 16 /* submissions */

void lfs_group_take(lfs_engine *e, lfs_group *g) {
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
    lfs_group_take(e, free_group(e));
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

/* -- T2, the writer */

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
    for (lfs_ticket *t = g->tickets, *next, *whole; t; t = next) {
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
        whole = t->head ? t->head : t;
        if (t->head && --whole->left) continue;
        ask = 1;
        whole->next = NULL;
        *e->done_tail = whole;
        e->done_tail = &whole->next;
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

void *lfs_write_loop(void *context) {
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

/* -- T1, the judge */

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

void *lfs_apply_loop(void *context) {
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

/* -- submissions */

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
