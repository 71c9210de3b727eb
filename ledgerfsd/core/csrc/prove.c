/* The state tree at work: T2 brings it up to date for the seals that carry its root, and answers requests for balance proofs when such a seal has
 * just become durable, for then tree, published state and journal agree. */
#include "engine.h"
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CHANGED_FEW 512                         /* so few changed accounts are hashed within a small part of a sync's time */
#define STATE_INTERVAL_NS LFS_NS_PER_S          /* FORMAT, section 12 */
enum { M_PENDING = 1, M_IN_GROUP = 2 };         /* in state_mark */

static uint64_t monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * LFS_NS_PER_S + (uint64_t)now.tv_nsec;
}

static void pend(lfs_engine *e, uint32_t ordinal) {
    if (e->state_mark[ordinal] & M_PENDING) return;
    e->state_mark[ordinal] |= M_PENDING;
    if (e->n_pending == e->pending_size) {
        e->pending_size = e->pending_size ? 2 * e->pending_size : 1024;
        e->pending = lfs_grow(e->pending, e->pending_size * sizeof *e->pending);
    }
    e->pending[e->n_pending++] = ordinal;
}

/* Places for the accounts below `accounts` that have none. */
void lfs_state_open(lfs_engine *e, uint32_t accounts) {
    lfs_ledger *l = &e->ledger;
    if (e->tree.n_accounts == accounts) return;
    pthread_mutex_lock(&e->names_lock); /* the list of currencies may move */
    for (uint32_t i = e->tree.n_accounts; i < accounts; i++) lfs_state_tree_open(&e->tree, &l->info[i], &l->currencies[l->info[i].currency]);
    pthread_mutex_unlock(&e->names_lock);
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

/* The accounts that replay has changed since the last seal that carried the root; that tree must have the seal's root. */
int lfs_state_replayed(lfs_engine *e, const lfs_entry *seal) {
    lfs_ledger *l = &e->ledger;
    uint8_t root[32];
    lfs_state_open(e, l->n_accounts);
    for (uint32_t i = 0; i < l->n_touched; i++) {
        uint32_t ordinal = l->touched[i];
        lfs_state_tree_set(&e->tree, ordinal, &l->info[ordinal], &l->state[ordinal]);
        l->touched_mark[ordinal] = 0;
    }
    l->n_touched = 0;
    lfs_state_tree_root(&e->tree, root);
    return lfs_hash_is(seal->state_root, root) ? 0 : -1;
}

/* Does the group's seal carry the state root? If so, work it out. */
const uint8_t *lfs_state_carry(lfs_engine *e, const lfs_group *g, uint8_t root[32]) {
    lfs_ledger *l = &e->ledger;
    uint64_t now = monotonic();
    if (!g->state_wanted && e->n_pending + g->n_updates > CHANGED_FEW && now - e->state_ns < STATE_INTERVAL_NS) return NULL;
    e->state_ns = now;
    lfs_state_open(e, g->n_accounts);
    for (uint32_t i = g->n_updates; i-- > 0;) { /* the last update of an account is the one that holds */
        uint32_t ordinal = g->updates[i].ordinal;
        if (e->state_mark[ordinal] & M_IN_GROUP) continue;
        e->state_mark[ordinal] |= M_IN_GROUP;
        lfs_state_tree_set(&e->tree, ordinal, &l->info[ordinal], &g->updates[i].state);
    }
    for (uint32_t i = 0; i < e->n_pending; i++) {
        uint32_t ordinal = e->pending[i];
        if (!(e->state_mark[ordinal] & M_IN_GROUP)) lfs_state_tree_set(&e->tree, ordinal, &l->info[ordinal], &e->published[ordinal]);
    }
    for (uint32_t i = 0; i < g->n_updates; i++) e->state_mark[g->updates[i].ordinal] &= M_PENDING;
    lfs_state_tree_root(&e->tree, root);
    atomic_fetch_add(&e->state_spent, monotonic() - now);
    return root;
}

/* The group is published. */
void lfs_state_published(lfs_engine *e, const lfs_group *g, int carried) {
    if (carried) {
        for (uint32_t i = 0; i < e->n_pending; i++) e->state_mark[e->pending[i]] = 0;
        e->n_pending = 0;
        e->state_height = g->height;
    } else {
        for (uint32_t i = 0; i < g->n_updates; i++) pend(e, g->updates[i].ordinal);
    }
    atomic_store(&e->state_stale, e->n_pending > 0);
}

/* -- requests */

static void answer(lfs_engine *e, lfs_proof *p) {
    uint8_t path[LFS_TREE_LEVELS * LFS_NODE_BYTES];
    if (lfs_read_account(e, p->ordinal, &p->account)) {
        p->code = LFS_UNKNOWN_ACCOUNT;
        return;
    }
    uint32_t ordinal = (uint32_t)p->ordinal;
    p->siblings = lfs_state_tree_path(&e->tree, ordinal, path);
    p->path = lfs_grow(NULL, p->siblings * (size_t)LFS_NODE_BYTES + 1);
    memcpy(p->path, path, p->siblings * (size_t)LFS_NODE_BYTES);
    p->list = lfs_state_tree_list(&e->tree, &p->list_len);
    p->position = e->tree.places[ordinal].position;
    p->block = e->state_height;
}

/* T2, holding the lock. Answer, if the newest seal with the state is that of what is published; else ask for one. */
void lfs_proofs_answer(lfs_engine *e) {
    int failed = e->failure_code;
    uint64_t one = 1;
    if (!e->proofs) return;
    if (!failed && (!e->state_height || e->n_pending)) {
        e->state_wanted = 1;
        pthread_cond_broadcast(&e->to_apply);
        return;
    }
    lfs_proof *p = e->proofs;
    e->proofs = NULL;
    pthread_mutex_unlock(&e->lock);
    lfs_proof **tail = &p;
    for (; *tail; tail = &(*tail)->next) {
        if (failed) (*tail)->code = failed;
        else answer(e, *tail);
    }
    pthread_mutex_lock(&e->lock);
    *tail = e->proven;
    e->proven = p;
    if (write(e->wakeup, &one, sizeof one) < 0) return; /* made up for once a second, as for submissions */
}

uint64_t lfs_state_spent(lfs_engine *e) { return atomic_load(&e->state_spent); }

uint64_t lfs_prove(lfs_engine *e, uint64_t ordinal) {
    lfs_proof *p = lfs_grow(NULL, sizeof *p);
    memset(p, 0, sizeof *p);
    p->ordinal = ordinal;
    pthread_mutex_lock(&e->lock);
    uint64_t number = p->number = ++e->next_ticket;
    p->next = e->proofs;
    e->proofs = p;
    pthread_cond_signal(&e->to_write);
    pthread_mutex_unlock(&e->lock);
    return number;
}

lfs_proof *lfs_take_proof(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    lfs_proof *p = e->proven;
    if (p) e->proven = p->next;
    pthread_mutex_unlock(&e->lock);
    return p;
}

void lfs_proof_free(lfs_proof *p) {
    free(p->path);
    free(p->list);
    free(p);
}
