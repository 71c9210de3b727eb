/* Balance proofs while the ledger is read-only: of the newest state whose root is sealed. Memory may be ahead of that (batches without a root, a batch that
 * failed after its root was worked out), so the tree is made anew, once, of what every account had then. What changed since is read from the accounts'
 * chains: entries state totals, what is held, and the status. The tree must have the seal's root, or nothing is proved. */
#include "engine.h"

typedef struct { int totals, held, status, tx; } known;

/* What an entry says of the account after it; of what is known already, nothing. */
static void take(const lfs_engine *e, const lfs_info *info, const lfs_entry *entry, known *k, lfs_state *out) {
    lfs_entry_posting posting;
    const uint8_t *p = NULL;
    unsigned decimals = e->ledger.currencies[info->currency].decimals;
    known before = *k;
    while (lfs_entry_posting_next(entry->postings, &p, &posting) == 1) { /* the last one of the account holds */
        lfs_amount first = {0}, second = {0};
        if (posting.account.len != info->name_len || memcmp(posting.account.p, info->name, info->name_len)) continue;
        if (posting.debits.p && !before.totals && !lfs_amount_parse(posting.debits.p, posting.debits.len, &first) &&
            !lfs_amount_parse(posting.credits.p, posting.credits.len, &second) && first.decimals == decimals) {
            out->debits = first.value, out->credits = second.value;
            k->totals = 1;
        }
        if (posting.held_debits.p && !before.held && !lfs_amount_parse(posting.held_debits.p, posting.held_debits.len, &first) &&
            !lfs_amount_parse(posting.held_credits.p, posting.held_credits.len, &second) && first.decimals == decimals) {
            out->held_debits = first.value, out->held_credits = second.value;
            k->held = 1;
        }
    }
    if (entry->status.p && !before.status) {
        out->status = lfs_text_is(entry->status, "frozen") ? A_FROZEN : lfs_text_is(entry->status, "closed") ? A_CLOSED : A_OPEN;
        k->status = 1;
    }
    if (entry->tx.p && !before.tx) k->tx = !lfs_entry_u64(entry->tx, &out->last_tx);
}

/* The account after the first `size` entries; it was open by then. */
static void as_of(lfs_engine *e, uint32_t ordinal, uint64_t size, lfs_state *out) {
    const lfs_info *info = &e->ledger.info[ordinal];
    *out = e->published[ordinal];
    if (out->last_index < size) return;
    known k = {1, 1, 1, 1}; /* as it is published, but for what entries since have stated: that is to be found before them */
    int reached = 0;
    for (int64_t index = (int64_t)out->last_index; index >= 0;) {
        lfs_entry entry;
        uint32_t len;
        const uint8_t *bytes = lfs_entry_at(e, (uint64_t)index, &len);
        if (lfs_entry_read(bytes, len, &entry)) return; /* the root will tell */
        if ((uint64_t)index >= size) {
            out->entries--;
            out->log_bytes -= (uint64_t)len + 1;
            if (entry.tx.p) k.tx = 0;
            int post = lfs_text_is(entry.t, "post/1");
            if (post || lfs_text_is(entry.t, "txn/1")) k.totals = 0;
            if (post || lfs_text_is(entry.t, "hold/1") || lfs_text_is(entry.t, "void/1")) k.held = 0;
            if (lfs_text_is(entry.t, "account.update/1")) k.status = 0;
        } else {
            if (!reached) out->last_index = (uint64_t)index;
            reached = 1;
            take(e, info, &entry, &k, out);
            if (k.totals && k.held && k.status && k.tx) return;
        }
        if ((uint64_t)index <= info->open_index) break;
        index = lfs_previous_of(e, info, (uint64_t)index);
    }
    if (!k.totals) out->debits = out->credits = 0;
    if (!k.held) out->held_debits = out->held_credits = 0;
    if (!k.status) out->status = A_OPEN;
    if (!k.tx) out->last_tx = 0;
}

/* The newest seal that carries the root; its index, or -1. */
static int64_t find_seal(lfs_engine *e, lfs_entry *seal) {
    for (uint64_t height = e->counts.blocks; height; height--) {
        uint32_t len;
        int64_t index = lfs_read_block(e, height);
        const uint8_t *bytes = lfs_entry_at(e, (uint64_t)index, &len);
        if (lfs_entry_read(bytes, len, seal)) return -1;
        e->state_height = height;
        if (seal->state_root.p) return index;
    }
    return -1;
}

static int make(lfs_engine *e) {
    lfs_entry seal;
    uint8_t root[32];
    int64_t size = find_seal(e, &seal);
    if (size < 0) return -1;
    lfs_state_tree_free(&e->tree);
    if (lfs_state_tree_init(&e->tree, e->ledger.accounts_max)) return -1;
    uint32_t accounts = 0;
    while (accounts < e->counts.accounts && e->ledger.info[accounts].open_index < (uint64_t)size) accounts++;
    lfs_state_open(e, accounts);
    for (uint32_t i = 0; i < accounts; i++) {
        lfs_state state;
        as_of(e, i, (uint64_t)size, &state);
        lfs_state_tree_set(&e->tree, i, &e->ledger.info[i], &state);
        lfs_state_tree_make_leaves(&e->tree);
    }
    lfs_state_tree_root(&e->tree, root);
    e->sealed_size = (uint64_t)size;
    return lfs_hash_is(seal.state_root, root) ? 1 : -1;
}

int lfs_state_sealed(lfs_engine *e) {
    if (!e->sealed) e->sealed = make(e);
    return e->sealed > 0 ? 0 : -1;
}

int lfs_read_sealed(lfs_engine *e, uint64_t ordinal, lfs_account_view *out) {
    lfs_state state;
    if (ordinal >= e->tree.n_accounts) return -1;
    as_of(e, (uint32_t)ordinal, e->sealed_size, &state);
    lfs_account_fill(e, (uint32_t)ordinal, &state, out);
    return 0;
}
