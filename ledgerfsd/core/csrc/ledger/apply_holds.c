/* Holds: made, posted, voided, expired (docs/FORMAT.md, section 6.1). As in apply.c: checks in the order of the code numbers, nothing changed before the entry is written. */
#include "apply.h"

int lfs_apply_hold(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_posting *pair = in->postings;
    if (given(in, F_CURRENCY) && lfs_currency_find(l, in->f[F_CURRENCY]) == LFS_NONE) return LFS_UNKNOWN_CURRENCY;
    TRY(lfs_accounts_find(l, pair, 2));
    const lfs_currency *unit = unit_of(l, pair[0].ordinal);
    if (unit != unit_of(l, pair[1].ordinal) || (given(in, F_CURRENCY) && !lfs_text_is(in->f[F_CURRENCY], unit->code)))
        return LFS_CURRENCY_MISMATCH;
    if (in->amount.decimals != unit->decimals) return LFS_WRONG_DECIMALS;
    TRY(lfs_status_check(l, pair, 2));
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
    lfs_effects_written(l, effects, 2, len, 2);
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

int lfs_apply_post(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    lfs_hold *h = find_hold(l, in->f[F_HOLD]);
    if (!h) return LFS_UNKNOWN_HOLD;
    lfs_posting pair[2] = {{.ordinal = h->debit}, {.ordinal = h->credit}};
    if (in->has_amount && in->amount.decimals != unit_of(l, h->debit)->decimals) return LFS_WRONG_DECIMALS;
    TRY(lfs_status_check(l, pair, 2));
    TRY(check_hold_open(h));
    u128 amount = in->has_amount ? in->amount.value : h->amount;
    if (amount > h->amount) return LFS_HOLD_EXCEEDED;
    TRY(lfs_period_check(l, in));
    lfs_effect effects[2];
    release_effects(l, h, effects);
    TRY(add_total(&effects[0].after.debits, amount));
    TRY(add_total(&effects[1].after.credits, amount));
    int len = lfs_render_post(l, in, amount, effects);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    out->tx = l->next_tx;
    lfs_effects_written(l, effects, 2, len, 3);
    id_written(l, in, in->id);
    hold_end(l, h, H_POSTED);
    return 0;
}

int lfs_apply_void(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    (void)out;
    lfs_hold *h = find_hold(l, in->f[F_HOLD]);
    if (!h) return LFS_UNKNOWN_HOLD;
    TRY(check_hold_open(h));
    lfs_effect effects[2];
    release_effects(l, h, effects);
    int len = lfs_render_void(l, in, in->id, in->f[F_HOLD], h->amount, effects);
    if (len < 0) return LFS_ENTRY_TOO_LARGE;
    lfs_effects_written(l, effects, 2, len, 2);
    id_written(l, in, in->id);
    hold_end(l, h, H_VOIDED);
    return 0;
}

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
        lfs_effects_written(l, effects, 2, void_len, 2);
        id_written(l, NULL, void_id);
        hold_end(l, h, H_EXPIRED);
    }
}
