/* Accounts: opened, frozen, closed; and the policy (docs/FORMAT.md, section 6.1). As in apply.c: checks in the order of the code numbers, nothing changed before the entry is written. */
#include "apply.h"

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

int lfs_apply_open(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
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
        TRY(lfs_status_check(l, &side, 1));
    }
    if (in->limit == L_OVERDRAFT && in->overdraft.value >= LFS_TOTAL_LIMIT) return LFS_BALANCE_OVERFLOW;
    lfs_posting postings[2] = {{.amount = in->second, .side = in->normal}, {.amount = in->second, .side = !in->normal}};
    if (funded) {
        lfs_state after = {0};
        TRY(add_total(&after.debits, in->second.value));
        if (equity_ordinal != LFS_NONE) {
            lfs_effect effect;
            postings[1].ordinal = equity_ordinal;
            TRY(lfs_effects_make(l, &postings[1], &effect, 1));
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
    lfs_effects_make(l, postings, effects, 2);
    return lfs_txn_write(l, in, id, LFS_WORD("opening"), 0, 1, postings, effects, 2);
}

int lfs_apply_update(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
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

int lfs_apply_policy(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
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
