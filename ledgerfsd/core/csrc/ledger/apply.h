/* What judging has in common: for apply.c, apply_accounts.c and apply_holds.c. A check returns 0 or the code of the refusal. */
#ifndef LFS_APPLY_H
#define LFS_APPLY_H
#include "ledger.h"

static inline uint64_t entry_time(const lfs_ledger *l) { return l->now_ns > l->last_time ? l->now_ns : l->last_time + 1; }
static inline int32_t booking_day(const lfs_ledger *l) { return (int32_t)(entry_time(l) / (86400 * LFS_NS_PER_S)); }
static inline const lfs_currency *unit_of(const lfs_ledger *l, uint32_t ordinal) { return &l->currencies[l->info[ordinal].currency]; }
static inline int given(const lfs_intent *in, int field) { return in->present >> field & 1; }
#define TRY(check) do { int code_ = (check); if (code_) return code_; } while (0)

static inline uint32_t account_of(const lfs_ledger *l, lfs_text name) {
    return lfs_name_find(l, lfs_hash(l, name.p, name.len), name.p, name.len);
}

/* Place for a state that T2 is to publish. */
static inline lfs_state *publish_later(lfs_ledger *l, uint32_t ordinal, int states) {
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

static inline void id_written(lfs_ledger *l, const lfs_intent *in, lfs_text id) {
    lfs_table_insert(l, &l->ids, lfs_tag_of(l, in, id), (uint32_t)(l->next_index - 1));
}

static inline int add_total(u128 *total, u128 amount) {
    return __builtin_add_overflow(*total, amount, total) || *total >= LFS_TOTAL_LIMIT ? LFS_BALANCE_OVERFLOW : 0;
}

/* Would the account end below its floor? Totals stay below 2^127, so no sum here overflows. */
static inline int below_floor(const lfs_info *info, const lfs_state *after) {
    if (info->limit == L_NONE) return 0;
    int credit = info->normal == S_CREDIT;
    u128 raised = credit ? after->credits : after->debits;
    u128 lowered = credit ? after->debits : after->credits;
    u128 held = credit ? after->held_debits : after->held_credits;
    return raised + info->overdraft < lowered + held;
}

/* Where the effect of posting i on its account begins: at the effect of an earlier posting on it, or at its state. */
static inline void effect_begin(const lfs_ledger *l, uint32_t ordinal, lfs_effect *effects, uint32_t i) {
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

/* apply.c */
int lfs_accounts_find(const lfs_ledger *l, lfs_posting *postings, uint32_t n);
int lfs_status_check(const lfs_ledger *l, const lfs_posting *postings, uint32_t n);
int lfs_period_check(const lfs_ledger *l, const lfs_intent *in);
int lfs_effects_make(const lfs_ledger *l, const lfs_posting *postings, lfs_effect *effects, uint32_t n); /* the funds are checked */
void lfs_effects_written(lfs_ledger *l, lfs_effect *effects, uint32_t n, int len, int states); /* len: of the entry just written; states: see lfs_update */
int lfs_txn_write(lfs_ledger *l, lfs_intent *in, lfs_text id, lfs_text type, uint64_t reverses, int plain, const lfs_posting *postings,
                  lfs_effect *effects, uint32_t n);

/* The intents; each returns a code, and fills index and tx of the result. */
int lfs_apply_open(lfs_ledger *l, lfs_intent *in, lfs_result *out);
int lfs_apply_update(lfs_ledger *l, lfs_intent *in, lfs_result *out); /* freeze, unfreeze, close */
int lfs_apply_policy(lfs_ledger *l, lfs_intent *in, lfs_result *out);
int lfs_apply_hold(lfs_ledger *l, lfs_intent *in, lfs_result *out);
int lfs_apply_post(lfs_ledger *l, lfs_intent *in, lfs_result *out);
int lfs_apply_void(lfs_ledger *l, lfs_intent *in, lfs_result *out);
#endif
