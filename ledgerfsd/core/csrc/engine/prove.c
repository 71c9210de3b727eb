/* Proofs of entries, as ledgerfsd/merkle/proof.py makes them; and balance proofs: T2 answers requests when a seal that carries the state root has just become durable, for then tree, published state and journal
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

/* -- of entries */

/* The perfect subtree of 2^height leaves: at most 128 hashes of the tile level below it. */
static void subtree(lfs_engine *e, unsigned height, uint64_t position, uint8_t out[32]) {
    uint8_t hashes[128 * 32], scratch[64 * 32];
    unsigned steps = height % 8;
    lfs_read_hashes(e, height / 8, position << steps, 1u << steps, hashes);
    lfs_mth(hashes, 1u << steps, scratch, out);
}

/* MTH of the leaves begin..end-1, a node of the tree: its perfect subtrees, joined from the right. */
static void range(lfs_engine *e, uint64_t begin, uint64_t end, uint8_t out[32]) {
    uint8_t nodes[LFS_PATH_MAX][32];
    uint32_t n = 0;
    for (; begin < end; n++) {
        unsigned height = 63u - (unsigned)__builtin_clzll(end - begin);
        subtree(e, height, begin >> height, nodes[n]);
        begin += 1ull << height;
    }
    if (n) memcpy(out, nodes[--n], 32);
    while (n--) lfs_node_hash(nodes[n], out, out);
}

/* The way down: what it leaves aside, from the root. */
typedef struct { uint64_t begin, end, aside[LFS_PATH_MAX][2]; uint32_t n; } way;

/* RFC 6962's k leaves go left. */
static void step(way *w, uint64_t until) {
    uint64_t middle = w->begin + (1ull << (63 - __builtin_clzll(w->end - w->begin - 1)));
    int left = until <= middle;
    w->aside[w->n][0] = left ? middle : w->begin;
    w->aside[w->n++][1] = left ? w->end : middle;
    if (left) w->end = middle;
    else w->begin = middle;
}

static uint32_t put_path(lfs_engine *e, const way *w, uint8_t *path) {
    for (uint32_t i = 0; path && i < w->n; i++) range(e, w->aside[w->n - 1 - i][0], w->aside[w->n - 1 - i][1], path + 32 * i);
    return w->n;
}

void lfs_root(lfs_engine *e, uint64_t size, uint8_t *out) { range(e, 0, size, out); }

uint32_t lfs_inclusion(lfs_engine *e, uint64_t index, uint64_t size, uint8_t *path) {
    way w = {.end = size};
    while (w.end - w.begin > 1) step(&w, index + 1);
    return put_path(e, &w, path);
}

uint32_t lfs_consistency(lfs_engine *e, uint64_t old, uint64_t size, uint8_t *path) {
    way w = {.end = size};
    while (old != w.end) step(&w, old);
    if (w.begin) { /* else the old root is known to whoever verifies */
        w.aside[w.n][0] = w.begin;
        w.aside[w.n++][1] = w.end;
    }
    return put_path(e, &w, path);
}

void lfs_proof_read(lfs_engine *e, uint64_t index, uint64_t size) {
    uint64_t one = 1;
    int missed = 0;
    pthread_mutex_lock(&e->publish);
    if (index >= e->covered) {
        missed = e->counts.entries > size && !(e->attended & LFS_ATTEND_PROOFS);
        e->covered = size;
        e->attended |= LFS_ATTEND_PROOFS;
    }
    pthread_mutex_unlock(&e->publish);
    if (missed && write(e->wakeup, &one, sizeof one) < 0) return; /* heard of a second later */
}

int lfs_proofs_expected(lfs_engine *e) {
    pthread_mutex_lock(&e->publish);
    int expected = (e->attended & LFS_ATTEND_PROOFS) != 0;
    e->attended &= ~(unsigned)LFS_ATTEND_PROOFS;
    pthread_mutex_unlock(&e->publish);
    return expected;
}
