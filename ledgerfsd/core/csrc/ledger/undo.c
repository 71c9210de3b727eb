/* Taking back: a dry run and an atomic batch that fails leave no trace. Records are undone in reverse order, which is what makes taking
 * slots out of open-addressing tables exact. */
#include <stdlib.h>
#include "ledger.h"

lfs_undo *lfs_undo_push(lfs_ledger *l, enum lfs_undo_kind kind, uint32_t which) {
    if (!l->scoped) return NULL;
    if (l->n_undo == l->undo_size) {
        l->undo_size = l->undo_size ? 2 * l->undo_size : 1024;
        l->undo = lfs_grow(l->undo, l->undo_size * sizeof *l->undo);
    }
    lfs_undo *undo = &l->undo[l->n_undo++];
    undo->kind = (uint8_t)kind;
    undo->which = which;
    return undo;
}

void lfs_scope_begin(lfs_ledger *l, lfs_mark *mark) {
    const lfs_group *g = l->group;
    *mark = (lfs_mark){g->entries, g->n_txs, g->n_updates, g->used, l->next_index, l->next_tx, l->last_time};
    l->scoped = 1;
    l->n_undo = 0;
}

void lfs_scope_keep(lfs_ledger *l) { l->scoped = 0; }

void lfs_scope_drop(lfs_ledger *l, const lfs_mark *mark) {
    l->scoped = 0;
    while (l->n_undo) {
        const lfs_undo *undo = &l->undo[--l->n_undo];
        lfs_hold *hold;
        switch (undo->kind) {
        case U_STATE: l->state[undo->which] = undo->old.state; break;
        case U_SLOT:
            *undo->slot = 0;
            undo->table->used--;
            break;
        case U_ACCOUNT: l->n_accounts--; break;
        case U_HOLD:
            hold = lfs_hold_find(l, undo->which);
            *hold = undo->old.hold;
            if (hold->status == H_OPEN && hold->expires_ns) lfs_due_push(l, hold->expires_ns, hold->index);
            break;
        case U_HOLD_NEW:
            lfs_hold_find(l, undo->which)->index = LFS_NONE;
            l->n_holds--;
            break;
        case U_REVERSED:
            *undo->slot = 0;
            l->n_reversed--;
            break;
        case U_CURRENCY: l->n_currencies--; break;
        case U_CLOSED: l->closed_through = undo->old.day; break;
        case U_SYSTEM:
            l->n_system--;
            l->incarnation = undo->which;
            break;
        case U_POLICY: memcpy(l->policy_leaf, undo->old.leaf, 32); break;
        }
    }
    lfs_group *g = l->group;
    g->entries = mark->entries;
    g->n_txs = mark->n_txs;
    g->n_updates = mark->n_updates;
    g->used = mark->used;
    l->next_index = mark->next_index;
    l->next_tx = mark->next_tx;
    l->last_time = mark->last_time;
}
