/* Judging and applying intents (docs/FORMAT.md, section 6.1). Every function checks in the order of the code numbers, so that the lowest that
 * applies is the answer; it changes nothing before its entry is written. */
#include "apply.h"

static void tx_written(lfs_ledger *l) {
    lfs_group *g = l->group;
    if (g->n_txs == g->txs_size) {
        g->txs_size *= 2;
        g->txs = lfs_grow(g->txs, g->txs_size * sizeof *g->txs);
    }
    g->txs[g->n_txs++] = l->next_index - 1;
    l->next_tx++;
}

/* -- checks that several intents share */

/* Is the account known already, and this its currency? Nearly always, and then nothing need be looked up. */
static inline int unit_is(const lfs_ledger *l, uint32_t ordinal, lfs_text code) {
    if (ordinal == LFS_NONE) return 0;
    const lfs_currency *unit = unit_of(l, ordinal);
    return unit->len == code.len && lfs_same((const uint8_t *)unit->code, code.p, code.len);
}

static int find_units(const lfs_ledger *l, lfs_posting *postings, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        lfs_posting *posting = &postings[i];
        posting->unit = 0;
        if (!posting->currency.p) continue;
        if (i && posting->currency.p == postings[i - 1].currency.p) { /* both sides of a transfer */
            posting->unit = postings[i - 1].unit;
            continue;
        }
        uint32_t place = unit_is(l, posting->ordinal, posting->currency) ? l->info[posting->ordinal].currency : lfs_currency_find(l, posting->currency);
        if (place == LFS_NONE) return LFS_UNKNOWN_CURRENCY;
        posting->unit = (uint16_t)(place + 1);
    }
    return 0;
}

int lfs_accounts_find(const lfs_ledger *l, lfs_posting *postings, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        lfs_posting *posting = &postings[i];
        if (posting->ordinal != LFS_NONE) continue; /* found while prefetching */
        posting->ordinal = lfs_name_find(l, posting->name_hash, posting->account.p, posting->account.len);
        if (posting->ordinal == LFS_NONE) return LFS_UNKNOWN_ACCOUNT;
    }
    return 0;
}

int lfs_status_check(const lfs_ledger *l, const lfs_posting *postings, uint32_t n) {
    int frozen = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t status = l->state[postings[i].ordinal].status;
        if (status == A_CLOSED) return LFS_ACCOUNT_CLOSED;
        frozen |= status == A_FROZEN;
    }
    return frozen ? LFS_ACCOUNT_FROZEN : 0;
}

int lfs_period_check(const lfs_ledger *l, const lfs_intent *in) {
    int32_t day = given(in, F_EFFECTIVE) ? in->day : booking_day(l);
    return l->closed_through != LFS_NO_DAY && day <= l->closed_through ? LFS_PERIOD_CLOSED : 0;
}

static int check_balanced(const lfs_ledger *l, const lfs_posting *postings, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t currency = l->info[postings[i].ordinal].currency;
        u128 low[2] = {0, 0};
        uint32_t high[2] = {0, 0}; /* carries: 200 amounts of 128 bits */
        for (uint32_t k = 0; k < n; k++) {
            const lfs_posting *posting = &postings[k];
            if (l->info[posting->ordinal].currency != currency) continue;
            high[posting->side] += __builtin_add_overflow(low[posting->side], posting->amount.value, &low[posting->side]);
        }
        if (low[0] != low[1] || high[0] != high[1]) return LFS_UNBALANCED;
    }
    return 0;
}

int lfs_effects_make(const lfs_ledger *l, const lfs_posting *postings, lfs_effect *effects, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        effect_begin(l, postings[i].ordinal, effects, i);
        lfs_state *after = &effects[i].after;
        TRY(add_total(postings[i].side == S_DEBIT ? &after->debits : &after->credits, postings[i].amount.value));
    }
    for (uint32_t i = 0; i < n; i++) { /* the last effect on an account is its end */
        const lfs_info *info = &l->info[postings[i].ordinal];
        if (postings[i].side == info->normal || info->limit == L_NONE) continue;
        uint32_t last = n - 1;
        while (effects[last].ordinal != postings[i].ordinal) last--;
        if (below_floor(info, &effects[last].after)) return LFS_INSUFFICIENT_FUNDS;
    }
    return 0;
}

typedef struct { uint64_t last_index, entries, log_bytes, last_tx; } counters;

/* Not one copy of `after` with its counters set: whole words just written cannot be read in pairs before they reach the cache. */
static inline void state_set(lfs_state *to, const lfs_state *after, counters c) {
    to->debits = after->debits;
    to->credits = after->credits;
    to->held_debits = after->held_debits;
    to->held_credits = after->held_credits;
    to->last_index = c.last_index;
    to->entries = c.entries;
    to->log_bytes = c.log_bytes;
    to->last_tx = c.last_tx;
    to->status = after->status;
    to->pad = after->pad;
}

/* The entry just written has len bytes: make its effects the state. states: 1 debits and credits (it is a transaction), 2 what is held. */
void lfs_effects_written(lfs_ledger *l, lfs_effect *effects, uint32_t n, int len, int states) {
    int has_tx = states & 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t ordinal = effects[i].ordinal;
        const lfs_state *after = &effects[i].after;
        counters c = {l->next_index - 1, after->entries, after->log_bytes + (uint64_t)len + 1, has_tx ? l->next_tx : after->last_tx};
        lfs_undo *undo = lfs_undo_push(l, U_STATE, ordinal);
        if (undo) undo->old.state = l->state[ordinal];
        state_set(&l->state[ordinal], after, c);
        state_set(publish_later(l, ordinal, states), after, c);
    }
    if (has_tx) tx_written(l);
}

int lfs_txn_write(lfs_ledger *l, lfs_intent *in, lfs_text id, lfs_text type, uint64_t reverses, int plain,
                     const lfs_posting *postings, lfs_effect *effects, uint32_t n) {
    int len = lfs_render_txn(l, in, id, type, reverses, plain, postings, effects, n);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    lfs_effects_written(l, effects, n, len, 1);
    id_written(l, in, id);
    return 0;
}

/* -- the intents; each returns a code, and fills index and tx of the result */

static int transaction(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_posting *postings = in->postings;
    lfs_effect effects[LFS_POSTINGS_MAX];
    uint32_t n = in->n_postings;
    int simple = in->type == I_TRANSFER;
    TRY(find_units(l, postings, n));
    TRY(lfs_accounts_find(l, postings, n));
    for (uint32_t i = 0; i < n; i++)
        if (postings[i].unit && postings[i].unit != l->info[postings[i].ordinal].currency + 1) return LFS_CURRENCY_MISMATCH;
    if (simple && l->info[postings[0].ordinal].currency != l->info[postings[1].ordinal].currency) return LFS_CURRENCY_MISMATCH;
    for (uint32_t i = 0; i < n; i++)
        if (postings[i].amount.decimals != unit_of(l, postings[i].ordinal)->decimals) return LFS_WRONG_DECIMALS;
    if (!simple) TRY(check_balanced(l, postings, n));
    TRY(lfs_status_check(l, postings, n));
    TRY(lfs_period_check(l, in));
    TRY(lfs_effects_make(l, postings, effects, n));
    out->tx = l->next_tx;
    return lfs_txn_write(l, in, in->id, simple ? LFS_WORD("transfer") : LFS_WORD("transaction"), 0, 0, postings, effects, n);
}

/* The postings of a transaction with sides exchanged. */
static uint32_t reversed_postings(const lfs_ledger *l, lfs_text array, lfs_posting *postings) {
    lfs_entry_posting item;
    const uint8_t *at = NULL;
    uint32_t n = 0;
    while (n < LFS_POSTINGS_MAX && lfs_entry_posting_next(array, &at, &item) == 1) {
        lfs_posting *posting = &postings[n++];
        posting->ordinal = account_of(l, item.account);
        posting->side = lfs_text_is(item.side, "debit") ? S_CREDIT : S_DEBIT;
        lfs_amount_parse(item.amount.p, item.amount.len, &posting->amount);
    }
    return n;
}

static int reverse(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_posting postings[LFS_POSTINGS_MAX];
    lfs_effect effects[LFS_POSTINGS_MAX];
    lfs_entry original;
    uint32_t len;
    if (in->of_tx == 0 || in->of_tx >= l->next_tx) return LFS_UNKNOWN_TRANSACTION;
    const uint8_t *bytes = l->reader(l->reader_context, l->tx_reader(l->reader_context, in->of_tx), &len);
    lfs_entry_read(bytes, len, &original);
    uint32_t n = reversed_postings(l, original.postings, postings);
    TRY(lfs_status_check(l, postings, n));
    if (lfs_reversed(l, in->of_tx)) return LFS_ALREADY_REVERSED;
    TRY(lfs_period_check(l, in));
    TRY(lfs_effects_make(l, postings, effects, n));
    out->tx = l->next_tx;
    TRY(lfs_txn_write(l, in, in->id, LFS_WORD("reversal"), in->of_tx, 0, postings, effects, n));
    lfs_reversed_put(l, in->of_tx);
    return 0;
}

static int (*const APPLY[I_ALL])(lfs_ledger *, lfs_intent *, lfs_result *) = {
    lfs_apply_open, transaction, transaction, lfs_apply_hold, lfs_apply_post, lfs_apply_void, reverse, lfs_apply_update, lfs_apply_update, lfs_apply_update,
    lfs_apply_policy, lfs_apply_policy, lfs_system_apply, lfs_system_apply, lfs_system_apply};

/* -- the whole */

static void answer_again(lfs_ledger *l, uint64_t index, const uint8_t *bytes, uint32_t len, lfs_result *out) {
    lfs_entry entry;
    lfs_entry_read(bytes, len, &entry);
    out->duplicate = 1;
    out->index = (int64_t)index;
    if (lfs_text_is(entry.t, "rejected/1"))
        for (size_t i = 0; i < sizeof LFS_CODE_NAMES / sizeof *LFS_CODE_NAMES; i++)
            if (lfs_text_is(entry.code, LFS_CODE_NAMES[i].name)) out->code = (int16_t)LFS_CODE_NAMES[i].number;
    if (entry.tx.p) lfs_entry_u64(entry.tx, &out->tx);
    out->block = l->block_reader(l->reader_context, index);
}

void lfs_reject(lfs_ledger *l, lfs_intent *in, int code, uint64_t now_ns, lfs_result *out) {
    if (code >= LFS_BUSY) return; /* it was not judged */
    l->now_ns = now_ns;
    lfs_render_rejected(l, in, code);
    if (code != LFS_ID_REUSED) id_written(l, in, in->id);
    out->index = (int64_t)l->next_index - 1;
    out->block = l->height;
}

void lfs_apply(lfs_ledger *l, lfs_intent *in, uint64_t now_ns, int write_rejected, lfs_result *out) {
    memset(out, 0, sizeof *out);
    out->line = in->line;
    out->index = -1;
    out->code = in->code;
    out->offset = in->offset;
    out->field = in->field;
    if (in->code) return;
    l->now_ns = now_ns;
    if (l->n_due) lfs_expire(l, now_ns);
    int code;
    l->unsettled = 0;
    int64_t known = lfs_id_find(l, in->id_hash, in->id.p, in->id.len);
    if (known >= 0) {
        uint32_t len;
        uint8_t hex[64];
        const uint8_t *bytes = l->reader(l->reader_context, (uint64_t)known, &len);
        lfs_text hash = lfs_entry_intent(bytes, len);
        lfs_hex_put(hex, in->hash, 32);
        if (hash.p && memcmp(hash.p, hex, 64) == 0) {
            answer_again(l, (uint64_t)known, bytes, len, out);
            return;
        }
        code = LFS_ID_REUSED;
    } else {
        code = l->unsettled ? LFS_STORAGE_ERROR : APPLY[in->type](l, in, out);
        if (l->unsettled) code = LFS_STORAGE_ERROR; /* of the hold that it names: then nothing was changed */
    }
    out->code = (int16_t)code;
    if (!code) {
        if (out->index < 0) out->index = (int64_t)l->next_index - 1;
        out->block = l->height;
        return;
    }
    out->tx = 0;
    out->index = -1;
    if (write_rejected) lfs_reject(l, in, code, now_ns, out);
}

void lfs_prefetch_tables(lfs_ledger *l, lfs_intent *in) {
    if (in->code) return;
    in->id_hash = lfs_hash(l, in->id.p, in->id.len);
    lfs_ids_prefetch(l, in->id_hash);
    for (uint32_t i = 0; i < in->n_postings; i++) {
        lfs_posting *posting = &in->postings[i];
        posting->name_hash = lfs_hash(l, posting->account.p, posting->account.len);
        posting->ordinal = LFS_NONE;
        __builtin_prefetch(lfs_table_line(&l->names, (uint32_t)posting->name_hash));
    }
}

void lfs_prefetch_names(lfs_ledger *l, lfs_intent *in) {
    if (in->code) return;
    for (uint32_t i = 0; i < in->n_postings; i++) {
        uint32_t value = lfs_table_likely(&l->names, in->postings[i].name_hash);
        if (!value) continue;
        const uint8_t *info = (const uint8_t *)&l->info[value - 1];
        __builtin_prefetch(info);
        __builtin_prefetch(info + 64);
    }
}

void lfs_prefetch_accounts(lfs_ledger *l, lfs_intent *in) {
    if (in->code) return;
    for (uint32_t i = 0; i < in->n_postings; i++) {
        lfs_posting *posting = &in->postings[i];
        posting->ordinal = lfs_name_find(l, posting->name_hash, posting->account.p, posting->account.len);
        if (posting->ordinal == LFS_NONE) continue;
        lfs_prefetch_state(&l->state[posting->ordinal]);
    }
}
