/* Balance proofs: T2 answers requests when a seal that carries the state root has just become durable, for then tree, published state and journal
 * agree. When that is so is roots.c's. */
#include "engine.h"
#include <stdlib.h>
#include <unistd.h>

static void answer(lfs_engine *e, lfs_proof *p) {
    uint8_t path[LFS_TREE_LEVELS * LFS_NODE_BYTES];
    if (e->sealed ? lfs_read_sealed(e, p->ordinal, &p->account) : lfs_read_account(e, p->ordinal, &p->account)) {
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

/* T2, holding the lock. Answer, if the newest seal with the state is that of what is published; else see to it that there is one. */
void lfs_proofs_answer(lfs_engine *e) {
    int failed = e->failure_code;
    uint64_t one = 1;
    if (!e->proofs && !e->state_due) return;
    if (!failed && !lfs_state_current(e)) return;
    e->state_due = 0;
    lfs_proof *p = e->proofs;
    if (!p) return;
    e->proofs = NULL;
    while (failed && e->tree_busy) pthread_cond_wait(&e->hashed, &e->lock);
    pthread_mutex_unlock(&e->lock);
    if (failed && !lfs_state_sealed(e)) failed = 0;
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

uint64_t lfs_state_spent(lfs_engine *e, int beside) { return atomic_load(beside ? &e->tree_spent : &e->state_spent); }

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
