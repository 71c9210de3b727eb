/* The state tree at work (docs/adr/0020): which seals carry the state root, and which thread hashes what for it.
 *
 * A seal's root is that of the state after all entries before the seal, so it has to be worked out between the closing of the batch and its writing, by
 * the thread that writes (T2). Under load that would be most of the tree. So T4, the tree's own thread, catches up before: it sweeps over the accounts that
 * have changed, in rising order, while T2 goes on committing; then T2 hashes what changed behind it, with the batch that it has in hand. What T4 reads may be
 * changed a moment later. Then the account is in the set `pending` again, and hashed again: only T2's last step need be exact. A second sweep would leave T2
 * little less (where both want the same processors, as many accounts change while it goes on), and be hashed for nothing.
 *
 * The tree belongs to T4 while `tree_busy` stands, else to T2; `pending` is under the lock `publish`. */
#include "engine.h"
#include <stdlib.h>
#include <time.h>

#define CHANGED_FEW 512                    /* so few changed accounts are hashed within a small part of a sync's time */
#define CHANGED_LEAST 16                   /* so few take less time than the seal itself */
#define FEW_INTERVAL_NS (LFS_NS_PER_S / 100) /* of roots of a few accounts, while one batch follows another */
#define LEFT_FEW 16384                     /* so few are left to T2 without a sweep (some 20 ms among a million accounts, once a second) */
#define LEAF_PASSES 3                      /* the third finds a few thousand */
#define STATE_INTERVAL_NS LFS_NS_PER_S     /* FORMAT, section 12 */
#define LEAD_MAX_NS (STATE_INTERVAL_NS * 3 / 4)
#define CHUNK 1024                         /* accounts copied under one lock: some 30 us */

uint64_t lfs_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * LFS_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* -- whoever has the tree */

/* Places for the accounts below `accounts` that have none. */
void lfs_state_open(lfs_engine *e, uint32_t accounts) {
    lfs_ledger *l = &e->ledger;
    while (e->tree.n_accounts < accounts) {
        uint32_t first = e->tree.n_accounts, end = accounts - first < CHUNK ? accounts : first + CHUNK;
        pthread_mutex_lock(&e->names_lock); /* the list of currencies may move */
        for (uint32_t i = first; i < end; i++) lfs_state_tree_open(&e->tree, &l->info[i], &l->currencies[l->info[i].currency]);
        pthread_mutex_unlock(&e->names_lock);
    }
}

/* The leaves of everything that is pending; what changes behind us is for the next time. Returns how many. */
static uint32_t renew_leaves(lfs_engine *e, lfs_state states[CHUNK]) {
    uint32_t ordinals[CHUNK], n, from = 0, all = 0;
    do {
        pthread_mutex_lock(&e->publish);
        n = lfs_ordinals_take(&e->pending, &from, ordinals, CHUNK);
        for (uint32_t i = 0; i < n; i++) states[i] = e->published[ordinals[i]];
        uint32_t accounts = (uint32_t)e->counts.accounts;
        pthread_mutex_unlock(&e->publish);
        if (n) lfs_state_open(e, accounts); /* accounts are opened while we sweep, and are pending at once */
        for (uint32_t i = 0; i < n; i++) lfs_state_tree_set(&e->tree, ordinals[i], &e->ledger.info[ordinals[i]], &states[i]);
        lfs_state_tree_make_leaves(&e->tree);
        all += n;
    } while (n);
    return all;
}

/* Leaves are quickly made, so few change meanwhile, and those are made again before any node above them is hashed: there are two for each leaf, if leaves
 * lie far apart, and a node is hashed once for all leaves below it. */
static void sweep(lfs_engine *e) {
    lfs_state *states = lfs_grow(NULL, CHUNK * sizeof *states);
    for (int pass = 0; pass < LEAF_PASSES && renew_leaves(e, states) > LEFT_FEW; pass++) continue;
    free(states);
    lfs_state_tree_hash(&e->tree);
}

/* The tree of what was recovered. If the newest seal carries its root they must agree. */
int lfs_state_begin(lfs_engine *e) {
    uint8_t root[32];
    uint32_t len, accounts = (uint32_t)e->counts.accounts;
    lfs_entry seal;
    lfs_state_open(e, accounts);
    for (uint32_t i = 0; i < accounts; i++) lfs_state_tree_set(&e->tree, i, &e->ledger.info[i], &e->published[i]);
    lfs_state_tree_root(&e->tree, root);
    const uint8_t *bytes = lfs_entry_at(e, e->counts.entries - 1, &len);
    if (lfs_entry_read(bytes, len, &seal) || !seal.state_root.p) return 0;
    e->state_height = e->counts.blocks;
    return lfs_hash_is(seal.state_root, root) ? 0 : -1;
}

/* -- T4 */

void *lfs_tree_loop(void *context) {
    lfs_engine *e = context;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (!e->tree_busy && !e->stopping) pthread_cond_wait(&e->to_hash, &e->lock);
        if (!e->tree_busy) break;
        pthread_mutex_unlock(&e->lock);
        uint64_t began = lfs_monotonic();
        sweep(e);
        atomic_fetch_add(&e->tree_spent, lfs_monotonic() - began);
        pthread_mutex_lock(&e->lock);
        e->tree_busy = 0;
        pthread_cond_broadcast(&e->hashed);
        pthread_cond_signal(&e->to_write); /* somebody may be waiting for a root */
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

/* -- T2 */

static uint32_t pending(lfs_engine *e) {
    pthread_mutex_lock(&e->publish);
    uint32_t n = e->pending.n;
    pthread_mutex_unlock(&e->publish);
    return n;
}

/* Holding the lock, T4 idle. left: so many accounts are pending. */
static void sweep_begin(lfs_engine *e, uint32_t left) {
    e->swept = left;
    e->catch_up_ns = lfs_monotonic();
    e->tree_busy = 1;
    pthread_cond_signal(&e->to_hash);
}

static int is_due(lfs_engine *e, const lfs_group *g, uint64_t now) {
    pthread_mutex_lock(&e->lock);
    int busy = e->tree_busy;
    pthread_mutex_unlock(&e->lock);
    uint32_t left = pending(e) + g->n_updates;
    if (g->state_wanted || now - e->state_ns >= STATE_INTERVAL_NS) return 1;
    if (busy) return 0;
    return e->swept || left <= CHANGED_LEAST || (left <= CHANGED_FEW && now - e->state_ns >= FEW_INTERVAL_NS);
}

/* Does the group's seal carry the state root? If so, work it out. */
const uint8_t *lfs_state_carry(lfs_engine *e, const lfs_group *g, uint8_t root[32]) {
    uint64_t began = lfs_monotonic();
    if (!is_due(e, g, began)) return NULL;
    pthread_mutex_lock(&e->lock);
    while (e->tree_busy) pthread_cond_wait(&e->hashed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    lfs_state_open(e, g->n_accounts);
    for (uint32_t i = g->n_updates; i-- > 0;) { /* the last update of an account is the one that holds */
        uint32_t ordinal = g->updates[i].ordinal;
        if (lfs_ordinals_add(&e->in_group, ordinal)) lfs_state_tree_set(&e->tree, ordinal, &e->ledger.info[ordinal], &g->updates[i].state);
    }
    for (uint32_t i = 0; (i = lfs_ordinals_next(&e->pending, i)) != UINT32_MAX; i++)
        if (!lfs_ordinals_has(&e->in_group, i)) lfs_state_tree_set(&e->tree, i, &e->ledger.info[i], &e->published[i]);
    lfs_state_tree_root(&e->tree, root);
    lfs_ordinals_clear(&e->in_group);
    uint64_t now = lfs_monotonic();
    if (e->swept) e->catch_up_each_ns = (now - e->catch_up_ns) / e->swept;
    e->state_ns = now;
    atomic_fetch_add(&e->state_spent, now - began);
    return root;
}

/* How long before the next root T4 is to begin, with so many accounts pending: half as long again as it should take. */
static uint64_t lead_ns(const lfs_engine *e, uint32_t left) {
    uint64_t expected = left * e->catch_up_each_ns * 3 / 2;
    return expected < LEAD_MAX_NS ? expected : LEAD_MAX_NS;
}

/* The group is published. */
void lfs_state_published(lfs_engine *e, const lfs_group *g, int carried) {
    if (carried) {
        e->swept = 0;
        e->state_height = g->height;
    }
    uint32_t left = pending(e);
    if (left > LEFT_FEW / 2 && !e->swept && lfs_monotonic() - e->state_ns >= STATE_INTERVAL_NS - lead_ns(e, left)) {
        pthread_mutex_lock(&e->lock);
        if (!e->tree_busy) sweep_begin(e, left);
        pthread_mutex_unlock(&e->lock);
    }
    atomic_store(&e->state_stale, left || e->swept);
}

int lfs_state_is_old(lfs_engine *e) { return lfs_monotonic() - atomic_load(&e->state_ns) >= STATE_INTERVAL_NS; }

/* Holding the lock. Is the newest sealed root that of what is published? If not, bring that about: 0, and this is to be asked again whenever T2 wakes. */
int lfs_state_current(lfs_engine *e) {
    if (e->tree_busy) return 0;
    uint32_t left = pending(e);
    if (e->state_height && !left && !e->swept) return 1;
    if (left > LEFT_FEW && !e->swept) {
        sweep_begin(e, left);
        return 0;
    }
    e->state_wanted = 1;
    pthread_cond_broadcast(&e->to_apply);
    return 0;
}
