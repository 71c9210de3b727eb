/* Judging and applying intents (docs/FORMAT.md, section 6.1). Every function checks in the order of the code numbers, so that the lowest that
 * applies is the answer; it changes nothing before its entry is written. */
#include "ledger.h"

static uint64_t entry_time(const lfs_ledger *l) { return l->now_ns > l->last_time ? l->now_ns : l->last_time + 1; }
static int32_t booking_day(const lfs_ledger *l) { return (int32_t)(entry_time(l) / (86400 * LFS_NS_PER_S)); }
static const lfs_currency *unit_of(const lfs_ledger *l, uint32_t ordinal) { return &l->currencies[l->info[ordinal].currency]; }
static int given(const lfs_intent *in, int field) { return in->present >> field & 1; }
#define TRY(check) do { int code_ = (check); if (code_) return code_; } while (0)

static uint32_t account_of(const lfs_ledger *l, lfs_text name) {
    return lfs_name_find(l, lfs_hash(l, name.p, name.len), name.p, name.len);
}

/* Place for a state that T2 is to publish. */
static lfs_state *publish_later(lfs_ledger *l, uint32_t ordinal, int states) {
    lfs_group *g = l->group;
    if (g->n_updates == g->updates_size) {
        g->updates_size *= 2;
        g->updates = lfs_grow(g->updates, g->updates_size * sizeof *g->updates);
    }
    lfs_update *update = &g->updates[g->n_updates++];
    lfs_fetch_to_write(update + 8); /* T2 on another core read it last */
    lfs_fetch_to_write((const uint8_t *)(update + 8) + 64);
    update->ordinal = ordinal;
    update->states = (uint8_t)states;
    return &update->state;
}

static void state_write(lfs_ledger *l, uint32_t ordinal, const lfs_state *after, int states) {
    lfs_undo *undo = lfs_undo_push(l, U_STATE, ordinal);
    if (undo) undo->old.state = l->state[ordinal];
    l->state[ordinal] = *after;
    *publish_later(l, ordinal, states) = *after;
}

static void account_insert(lfs_ledger *l, lfs_text name, const lfs_info *info, const lfs_state *state) {
    uint32_t ordinal = l->n_accounts++;
    l->info[ordinal] = *info;
    l->state[ordinal] = *state;
    lfs_undo_push(l, U_ACCOUNT, ordinal);
    *publish_later(l, ordinal, 0) = *state;
    lfs_table_insert(l, &l->names, lfs_tag(l, name.p, name.len), ordinal);
}

static void tx_written(lfs_ledger *l) {
    lfs_group *g = l->group;
    if (g->n_txs == g->txs_size) {
        g->txs_size *= 2;
        g->txs = lfs_grow(g->txs, g->txs_size * sizeof *g->txs);
    }
    g->txs[g->n_txs++] = l->next_index - 1;
    l->next_tx++;
}

static void id_written(lfs_ledger *l, const lfs_intent *in, lfs_text id) {
    lfs_table_insert(l, &l->ids, lfs_tag_of(l, in, id), (uint32_t)(l->next_index - 1));
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

static int find_accounts(const lfs_ledger *l, lfs_posting *postings, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        lfs_posting *posting = &postings[i];
        if (posting->ordinal != LFS_NONE) continue; /* found while prefetching */
        posting->ordinal = lfs_name_find(l, posting->name_hash, posting->account.p, posting->account.len);
        if (posting->ordinal == LFS_NONE) return LFS_UNKNOWN_ACCOUNT;
    }
    return 0;
}

static int check_status(const lfs_ledger *l, const lfs_posting *postings, uint32_t n) {
    int frozen = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t status = l->state[postings[i].ordinal].status;
        if (status == A_CLOSED) return LFS_ACCOUNT_CLOSED;
        frozen |= status == A_FROZEN;
    }
    return frozen ? LFS_ACCOUNT_FROZEN : 0;
}

static int check_period(const lfs_ledger *l, const lfs_intent *in) {
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

static int add_total(u128 *total, u128 amount) {
    return __builtin_add_overflow(*total, amount, total) || *total >= LFS_TOTAL_LIMIT ? LFS_BALANCE_OVERFLOW : 0;
}

/* Would the account end below its floor? Totals stay below 2^127, so no sum here overflows. */
static int below_floor(const lfs_info *info, const lfs_state *after) {
    if (info->limit == L_NONE) return 0;
    int credit = info->normal == S_CREDIT;
    u128 raised = credit ? after->credits : after->debits;
    u128 lowered = credit ? after->debits : after->credits;
    u128 held = credit ? after->held_debits : after->held_credits;
    return raised + info->overdraft < lowered + held;
}

/* Where the effect of posting i on its account begins: at the effect of an earlier posting on it, or at its state. */
static void effect_begin(const lfs_ledger *l, uint32_t ordinal, lfs_effect *effects, uint32_t i) {
    lfs_effect *effect = &effects[i];
    const lfs_state *state = &l->state[ordinal];
    effect->ordinal = ordinal;
    effect->prev = state->last_index;
    effect->after = *state;
    effect->after.entries++;
    for (uint32_t k = i; k-- > 0;) {
        if (effects[k].ordinal != ordinal) continue;
        effect->after = effects[k].after;
        break;
    }
}

static int post_effects(const lfs_ledger *l, const lfs_posting *postings, lfs_effect *effects, uint32_t n) {
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
static void effects_written(lfs_ledger *l, lfs_effect *effects, uint32_t n, int len, int states) {
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

static int write_txn(lfs_ledger *l, lfs_intent *in, lfs_text id, lfs_text type, uint64_t reverses, int plain,
                     const lfs_posting *postings, lfs_effect *effects, uint32_t n) {
    int len = lfs_render_txn(l, in, id, type, reverses, plain, postings, effects, n);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    effects_written(l, effects, n, len, 1);
    id_written(l, in, id);
    return 0;
}

/* -- the intents; each returns a code, and fills index and tx of the result */

static int open_account(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_text name = in->f[F_ACCOUNT], code = in->f[F_CURRENCY], none = {(const uint8_t *)"none", 4};
    uint32_t currency = lfs_currency_find(l, code);
    if (currency == LFS_NONE) return LFS_UNKNOWN_CURRENCY;
    if (account_of(l, name) != LFS_NONE) return LFS_ACCOUNT_EXISTS;
    unsigned decimals = l->currencies[currency].decimals;
    int funded = given(in, F_INITIAL_BALANCE) && in->second.value != 0;
    uint8_t equity_name[64], opening_id[80], equity_id[80];
    lfs_text equity = {equity_name, (uint32_t)snprintf((char *)equity_name, 64, "equity:opening:%.*s", (int)code.len, (const char *)code.p)};
    uint32_t equity_ordinal = funded ? account_of(l, equity) : LFS_NONE;
    if (equity_ordinal != LFS_NONE && l->info[equity_ordinal].currency != currency) return LFS_CURRENCY_MISMATCH;
    if ((given(in, F_INITIAL_BALANCE) && in->second.decimals != decimals) ||
        (in->limit == L_OVERDRAFT && in->overdraft.decimals != decimals)) return LFS_WRONG_DECIMALS;
    if (equity_ordinal != LFS_NONE) {
        lfs_posting side = {.ordinal = equity_ordinal};
        TRY(check_status(l, &side, 1));
    }
    if (in->limit == L_OVERDRAFT && in->overdraft.value >= LFS_TOTAL_LIMIT) return LFS_BALANCE_OVERFLOW;
    lfs_posting postings[2] = {{.amount = in->second, .side = in->normal}, {.amount = in->second, .side = !in->normal}};
    if (funded) {
        lfs_state after = {0};
        TRY(add_total(&after.debits, in->second.value));
        if (equity_ordinal != LFS_NONE) {
            lfs_effect effect;
            postings[1].ordinal = equity_ordinal;
            TRY(post_effects(l, &postings[1], &effect, 1));
        }
    }
    if (l->n_accounts + 2 > l->accounts_max) return LFS_TOO_MANY_ACCOUNTS;

    if (funded && equity_ordinal == LFS_NONE) {
        lfs_text id = {equity_id, (uint32_t)snprintf((char *)equity_id, 80, "~open:equity:opening:%.*s", (int)code.len, (const char *)code.p)};
        lfs_info info = {.open_index = l->next_index, .currency = (uint16_t)currency, .class_ = C_EQUITY, .normal = S_CREDIT,
                         .limit = L_NONE, .name_len = (uint8_t)equity.len};
        memcpy(info.name, equity.p, equity.len);
        int len = lfs_render_account(l, in, id, equity, code, C_EQUITY, S_CREDIT, none, 1);
        lfs_state state = {.last_index = l->next_index - 1, .entries = 1, .log_bytes = (uint64_t)len + 1};
        equity_ordinal = l->n_accounts;
        account_insert(l, equity, &info, &state);
        id_written(l, in, id);
    }
    lfs_text limit = given(in, F_LIMIT) ? in->f[F_LIMIT]
                     : in->limit == L_NONE ? none : (lfs_text){(const uint8_t *)"no_overdraft", 12};
    lfs_info info = {.overdraft = in->overdraft.value, .open_index = l->next_index, .currency = (uint16_t)currency,
                     .class_ = in->class_, .normal = in->normal, .limit = in->limit, .name_len = (uint8_t)name.len};
    memcpy(info.name, name.p, name.len);
    int len = lfs_render_account(l, in, in->id, name, code, in->class_, in->normal, limit, 0);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    out->index = (int64_t)l->next_index - 1;
    lfs_state state = {.last_index = l->next_index - 1, .entries = 1, .log_bytes = (uint64_t)len + 1};
    postings[0].ordinal = l->n_accounts;
    postings[1].ordinal = equity_ordinal;
    account_insert(l, name, &info, &state);
    id_written(l, in, in->id);
    if (!funded) return 0;
    lfs_effect effects[2];
    lfs_text id = {opening_id, (uint32_t)snprintf((char *)opening_id, 80, "~opening:%.*s", (int)name.len, (const char *)name.p)};
    post_effects(l, postings, effects, 2);
    return write_txn(l, in, id, LFS_WORD("opening"), 0, 1, postings, effects, 2);
}

static int transaction(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_posting *postings = in->postings;
    lfs_effect effects[LFS_POSTINGS_MAX];
    uint32_t n = in->n_postings;
    int simple = in->type == I_TRANSFER;
    TRY(find_units(l, postings, n));
    TRY(find_accounts(l, postings, n));
    for (uint32_t i = 0; i < n; i++)
        if (postings[i].unit && postings[i].unit != l->info[postings[i].ordinal].currency + 1) return LFS_CURRENCY_MISMATCH;
    if (simple && l->info[postings[0].ordinal].currency != l->info[postings[1].ordinal].currency) return LFS_CURRENCY_MISMATCH;
    for (uint32_t i = 0; i < n; i++)
        if (postings[i].amount.decimals != unit_of(l, postings[i].ordinal)->decimals) return LFS_WRONG_DECIMALS;
    if (!simple) TRY(check_balanced(l, postings, n));
    TRY(check_status(l, postings, n));
    TRY(check_period(l, in));
    TRY(post_effects(l, postings, effects, n));
    out->tx = l->next_tx;
    return write_txn(l, in, in->id, simple ? LFS_WORD("transfer") : LFS_WORD("transaction"), 0, 0, postings, effects, n);
}

static int hold(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_posting *pair = in->postings;
    if (given(in, F_CURRENCY) && lfs_currency_find(l, in->f[F_CURRENCY]) == LFS_NONE) return LFS_UNKNOWN_CURRENCY;
    TRY(find_accounts(l, pair, 2));
    const lfs_currency *unit = unit_of(l, pair[0].ordinal);
    if (unit != unit_of(l, pair[1].ordinal) || (given(in, F_CURRENCY) && !lfs_text_is(in->f[F_CURRENCY], unit->code)))
        return LFS_CURRENCY_MISMATCH;
    if (in->amount.decimals != unit->decimals) return LFS_WRONG_DECIMALS;
    TRY(check_status(l, pair, 2));
    if (given(in, F_EXPIRES) && in->expires_ns <= entry_time(l)) return LFS_EXPIRES_IN_PAST;
    lfs_effect effects[2];
    effect_begin(l, pair[0].ordinal, effects, 0);
    effect_begin(l, pair[1].ordinal, effects, 1);
    TRY(add_total(&effects[0].after.held_debits, in->amount.value));
    TRY(add_total(&effects[1].after.held_credits, in->amount.value));
    for (int i = 0; i < 2; i++) {
        const lfs_info *info = &l->info[pair[i].ordinal];
        if (info->normal != pair[i].side && below_floor(info, &effects[i].after)) return LFS_INSUFFICIENT_FUNDS;
    }
    int len = lfs_render_hold(l, in, pair, effects);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    effects_written(l, effects, 2, len, 2);
    id_written(l, in, in->id);
    out->index = (int64_t)l->next_index - 1;
    lfs_hold record = {in->amount.value, in->expires_ns, (uint32_t)out->index, pair[0].ordinal, pair[1].ordinal, H_OPEN};
    lfs_hold_put(l, &record);
    if (in->expires_ns) lfs_due_push(l, in->expires_ns, record.index);
    return 0;
}

static lfs_hold *find_hold(lfs_ledger *l, lfs_text id) {
    int64_t index = lfs_id_find(l, lfs_hash(l, id.p, id.len), id.p, id.len);
    return index < 0 ? NULL : lfs_hold_find(l, (uint32_t)index);
}

static int check_hold_open(const lfs_hold *h) {
    static const int codes[] = {0, LFS_HOLD_POSTED, LFS_HOLD_VOIDED, LFS_HOLD_EXPIRED};
    return codes[h->status];
}

static void hold_end(lfs_ledger *l, lfs_hold *h, enum lfs_hold_status status) {
    lfs_undo *undo = lfs_undo_push(l, U_HOLD, h->index);
    if (undo) undo->old.hold = *h;
    h->status = status;
}

static void release_effects(const lfs_ledger *l, const lfs_hold *h, lfs_effect effects[2]) {
    effect_begin(l, h->debit, effects, 0);
    effect_begin(l, h->credit, effects, 1);
    effects[0].after.held_debits -= h->amount;
    effects[1].after.held_credits -= h->amount;
}

static int post(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_hold *h = find_hold(l, in->f[F_HOLD]);
    if (!h) return LFS_UNKNOWN_HOLD;
    lfs_posting pair[2] = {{.ordinal = h->debit}, {.ordinal = h->credit}};
    if (in->has_amount && in->amount.decimals != unit_of(l, h->debit)->decimals) return LFS_WRONG_DECIMALS;
    TRY(check_status(l, pair, 2));
    TRY(check_hold_open(h));
    u128 amount = in->has_amount ? in->amount.value : h->amount;
    if (amount > h->amount) return LFS_HOLD_EXCEEDED;
    TRY(check_period(l, in));
    lfs_effect effects[2];
    release_effects(l, h, effects);
    TRY(add_total(&effects[0].after.debits, amount));
    TRY(add_total(&effects[1].after.credits, amount));
    int len = lfs_render_post(l, in, amount, effects);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    out->tx = l->next_tx;
    effects_written(l, effects, 2, len, 3);
    id_written(l, in, in->id);
    hold_end(l, h, H_POSTED);
    return 0;
}

static int void_(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    (void)out;
    lfs_hold *h = find_hold(l, in->f[F_HOLD]);
    if (!h) return LFS_UNKNOWN_HOLD;
    TRY(check_hold_open(h));
    lfs_effect effects[2];
    release_effects(l, h, effects);
    int len = lfs_render_void(l, in, in->id, in->f[F_HOLD], h->amount, effects);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    effects_written(l, effects, 2, len, 2);
    id_written(l, in, in->id);
    hold_end(l, h, H_VOIDED);
    return 0;
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
    TRY(check_status(l, postings, n));
    if (lfs_reversed(l, in->of_tx)) return LFS_ALREADY_REVERSED;
    TRY(check_period(l, in));
    TRY(post_effects(l, postings, effects, n));
    out->tx = l->next_tx;
    TRY(write_txn(l, in, in->id, LFS_WORD("reversal"), in->of_tx, 0, postings, effects, n));
    lfs_reversed_put(l, in->of_tx);
    return 0;
}

static int update_account(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    (void)out;
    uint32_t ordinal = account_of(l, in->f[F_ACCOUNT]);
    if (ordinal == LFS_NONE) return LFS_UNKNOWN_ACCOUNT;
    lfs_state after = l->state[ordinal];
    if (after.status == A_CLOSED) return LFS_ACCOUNT_CLOSED;
    if (after.status == A_FROZEN && in->type != I_UNFREEZE) return LFS_ACCOUNT_FROZEN;
    if (after.status != A_FROZEN && in->type == I_UNFREEZE) return LFS_ACCOUNT_NOT_FROZEN;
    if (in->type == I_CLOSE_ACCOUNT && (after.debits != after.credits || after.held_debits || after.held_credits))
        return LFS_ACCOUNT_NOT_EMPTY;
    static const char *const actions[] = {"freeze", "unfreeze", "close"}, *const statuses[] = {"frozen", "open", "closed"};
    static const uint8_t status[] = {A_FROZEN, A_OPEN, A_CLOSED};
    int which = in->type - I_FREEZE;
    int len = lfs_render_update(l, in, actions[which], statuses[which], after.last_index);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    after.status = status[which];
    after.last_index = l->next_index - 1;
    after.entries++;
    after.log_bytes += (uint64_t)len + 1;
    state_write(l, ordinal, &after, 0);
    id_written(l, in, in->id);
    return 0;
}

static int change_policy(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    (void)out;
    int currency = in->type == I_REGISTER_CURRENCY;
    if (currency && lfs_currency_find(l, in->f[F_CURRENCY]) != LFS_NONE) return LFS_CURRENCY_EXISTS;
    if (currency && l->n_currencies >= UINT16_MAX) return LFS_TOO_MANY_ACCOUNTS;
    if (!currency && (in->day >= booking_day(l) || (l->closed_through != LFS_NO_DAY && in->day <= l->closed_through)))
        return LFS_BAD_PERIOD;
    if (lfs_render_policy(l, in) < 0) return LFS_ENTRY_TOO_LARGE;
    id_written(l, in, in->id);
    if (currency) {
        lfs_currency_add(l, in->f[F_CURRENCY], in->decimals);
    } else {
        lfs_undo *undo = lfs_undo_push(l, U_CLOSED, 0);
        if (undo) undo->old.day = l->closed_through;
        l->closed_through = in->day;
    }
    return 0;
}

static int (*const APPLY[I_ALL])(lfs_ledger *, lfs_intent *, lfs_result *) = {
    open_account, transaction, transaction, hold, post, void_, reverse, update_account, update_account, update_account,
    change_policy, change_policy, lfs_system_apply, lfs_system_apply, lfs_system_apply};

/* -- expiry */

lfs_due lfs_due_pop(lfs_ledger *l) {
    lfs_due top = l->due[0], last = l->due[--l->n_due];
    uint32_t at = 0, child;
    while ((child = 2 * at + 1) < l->n_due) { /* sift down */
        const lfs_due *a = &l->due[child], *b = &l->due[child + 1];
        if (child + 1 < l->n_due && (b->expires_ns < a->expires_ns || (b->expires_ns == a->expires_ns && b->index < a->index))) {
            child++;
            a = b;
        }
        if (last.expires_ns < a->expires_ns || (last.expires_ns == a->expires_ns && last.index < a->index)) break;
        l->due[at] = *a;
        at = child;
    }
    l->due[at] = last;
    return top;
}

int lfs_due_now(const lfs_ledger *l, uint64_t now_ns) {
    uint64_t now = now_ns > l->last_time ? now_ns : l->last_time + 1;
    return l->n_due && l->due[0].expires_ns <= now;
}

void lfs_expire(lfs_ledger *l, uint64_t now_ns) {
    l->now_ns = now_ns;
    while (lfs_due_now(l, now_ns)) {
        lfs_due due = lfs_due_pop(l);
        lfs_hold *h = lfs_hold_find(l, due.index);
        if (!h || h->status != H_OPEN || h->expires_ns != due.expires_ns) continue; /* ended before it was due */
        uint32_t len;
        uint8_t id[40], hold_id[130];
        const uint8_t *bytes = l->reader(l->reader_context, h->index, &len);
        lfs_text name = lfs_entry_id(bytes, len), hold_name = {hold_id, name.len};
        memcpy(hold_id, name.p, name.len); /* the bytes may move while the entry is written */
        lfs_effect effects[2];
        if (!l->scoped) lfs_table_reserve(&l->ids, 1);
        release_effects(l, h, effects);
        lfs_text void_id = {id, (uint32_t)snprintf((char *)id, sizeof id, "~expire:%u", h->index)};
        int void_len = lfs_render_void(l, NULL, void_id, hold_name, h->amount, effects);
        effects_written(l, effects, 2, void_len, 2);
        id_written(l, NULL, void_id);
        hold_end(l, h, H_EXPIRED);
    }
}

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
