/* Applying entries of the journal again. Each carries the totals after it: they are compared with our own arithmetic, so replay is also the
 * audit of every balance. An account whose saved state already contains an entry (the saved pages may be newer than the mark) is left alone. */
#include "ledger.h"

#define FAIL(...) return (snprintf(why, 256, __VA_ARGS__), -1)

typedef struct {
    uint64_t index;
    uint32_t len;
    uint64_t tx;
    uint32_t ordinals[LFS_POSTINGS_MAX]; /* accounts of the postings seen, */
    uint8_t applied[LFS_POSTINGS_MAX];   /* and whether they were applied */
    uint32_t n;
} place;

/* Did an earlier posting of this entry change the account? */
static int applied_here(const place *at, uint32_t ordinal) {
    for (uint32_t i = 0; i < at->n; i++)
        if (at->ordinals[i] == ordinal) return at->applied[i];
    return 0;
}

/* What a member of a posting says. decimals: NO_FIGURE when it is not there, BAD_FIGURE when it is no amount; no currency has so many. */
typedef lfs_amount figure;
enum { NO_FIGURE = 254, BAD_FIGURE };

typedef struct {
    lfs_text account, currency;
    uint64_t hash, prev;
    figure amount, debits, credits, held_debits, held_credits;
    int debit, prev_bad;
} leg;

static figure figure_of(lfs_text text) {
    figure found = {0, NO_FIGURE};
    if (!text.p) return found;
    return lfs_amount_parse(text.p, text.len, &found) ? (figure){0, BAD_FIGURE} : found;
}

/* Number of a canonical amount with the unit's decimals; -1 when it is none. */
static int amount_of(lfs_text text, unsigned decimals, u128 *out) {
    figure found = figure_of(text);
    *out = found.value;
    return found.decimals == decimals ? 0 : -1;
}

static int apply_total(figure said, unsigned decimals, u128 expected, u128 *total) {
    if (said.decimals == NO_FIGURE) return 0;
    if (said.decimals != decimals || said.value != expected) return -1;
    *total = said.value;
    return 0;
}

/* One posting. held: +1 reserves, -1 releases `released`, 0 does neither. */
static int apply_posting(lfs_ledger *l, place *at, const leg *posting, int totals, int held, u128 released, char *why) {
    uint32_t ordinal = lfs_name_find(l, posting->hash, posting->account.p, posting->account.len);
    if (ordinal == LFS_NONE) FAIL("a posting names an account that does not exist");
    lfs_state *state = &l->state[ordinal];
    const lfs_currency *unit = &l->currencies[l->info[ordinal].currency];
    int again = applied_here(at, ordinal); /* the second posting of the account in this entry */
    at->ordinals[at->n] = ordinal;
    at->applied[at->n++] = again;
    if (!lfs_text_is(posting->currency, unit->code) || posting->amount.decimals != unit->decimals)
        FAIL("a posting's amount or currency does not fit its account");
    int is_new = 1;
    for (uint32_t i = 0; i + 1 < at->n && is_new; i++) is_new = at->ordinals[i] != ordinal;
    if (is_new) lfs_posting_note(l, ordinal, at->index, at->len, (totals ? 1 : 0) | (held ? 2 : 0));
    if (!again && state->last_index >= at->index) return 0; /* the saved state is newer */
    if (posting->prev_bad || (!again && posting->prev != state->last_index)) FAIL("prev of a posting is not the account's previous entry");
    int debit = posting->debit;
    lfs_state after = *state;
    u128 amount = posting->amount.value, hold = held > 0 ? amount : released;
    u128 held_debits = after.held_debits + (debit && held ? (held > 0 ? hold : -hold) : 0);
    u128 held_credits = after.held_credits + (!debit && held ? (held > 0 ? hold : -hold) : 0);
    if (totals && (posting->debits.decimals == NO_FIGURE || posting->credits.decimals == NO_FIGURE)) FAIL("a posting lacks its totals");
    if (apply_total(posting->debits, unit->decimals, after.debits + (debit && totals ? amount : 0), &after.debits) ||
        apply_total(posting->credits, unit->decimals, after.credits + (!debit && totals ? amount : 0), &after.credits) ||
        apply_total(posting->held_debits, unit->decimals, held_debits, &after.held_debits) ||
        apply_total(posting->held_credits, unit->decimals, held_credits, &after.held_credits))
        FAIL("the totals after a posting do not follow from those before");
    if (!again) {
        after.entries++;
        after.log_bytes += (uint64_t)at->len + 1;
    }
    after.last_index = at->index;
    if (at->tx) after.last_tx = at->tx;
    *state = after;
    at->applied[at->n - 1] = 1;
    return 0;
}

static int replay_account(lfs_ledger *l, const place *at, const lfs_entry *e, char *why) {
    uint32_t known = lfs_name_find(l, lfs_hash(l, e->account.p, e->account.len), e->account.p, e->account.len);
    if (known != LFS_NONE) {
        if (l->info[known].open_index == at->index) {
            lfs_posting_note(l, known, at->index, at->len, 0);
            return 0; /* the saved pages knew it */
        }
        FAIL("an account is opened twice");
    }
    lfs_info info = {.open_index = at->index, .name_len = (uint8_t)e->account.len};
    int class_ = 0;
    while (class_ < C_COUNT && !lfs_text_is(e->class_, LFS_CLASS_NAMES[class_])) class_++;
    uint32_t currency = lfs_currency_find(l, e->currency);
    if (class_ == C_COUNT || currency == LFS_NONE || !lfs_name_ok(e->account.p, e->account.len) || l->n_accounts == l->accounts_max)
        FAIL("an account has a class, currency or name that does not exist");
    memcpy(info.name, e->account.p, e->account.len);
    info.class_ = (uint8_t)class_;
    info.currency = (uint16_t)currency;
    info.normal = lfs_text_is(e->normal, "debit") ? S_DEBIT : S_CREDIT;
    if (lfs_text_is(e->limit, "no_overdraft")) info.limit = L_NO_OVERDRAFT;
    else if (!lfs_text_is(e->limit, "none")) {
        info.limit = L_OVERDRAFT;
        if (e->limit.len < 11 || amount_of((lfs_text){e->limit.p + 10, e->limit.len - 10}, l->currencies[currency].decimals, &info.overdraft))
            FAIL("an account has a limit that is none");
    }
    lfs_table_reserve(&l->names, 1);
    uint32_t ordinal = l->n_accounts++;
    l->info[ordinal] = info;
    l->state[ordinal] = (lfs_state){.last_index = at->index, .entries = 1, .log_bytes = (uint64_t)at->len + 1};
    lfs_table_load(&l->names, lfs_tag(l, e->account.p, e->account.len), ordinal);
    lfs_posting_note(l, ordinal, at->index, at->len, 0);
    return 0;
}

static int replay_update(lfs_ledger *l, const place *at, const lfs_entry *e, char *why) {
    uint64_t prev;
    uint32_t ordinal = lfs_name_find(l, lfs_hash(l, e->account.p, e->account.len), e->account.p, e->account.len);
    if (ordinal == LFS_NONE) FAIL("an update names an account that does not exist");
    lfs_state *state = &l->state[ordinal];
    lfs_posting_note(l, ordinal, at->index, at->len, 0);
    if (state->last_index >= at->index) return 0;
    if (lfs_entry_u64(e->prev, &prev) || prev != state->last_index) FAIL("prev is not the account's previous entry");
    state->status = lfs_text_is(e->status, "frozen") ? A_FROZEN : lfs_text_is(e->status, "closed") ? A_CLOSED : A_OPEN;
    state->last_index = at->index;
    state->entries++;
    state->log_bytes += (uint64_t)at->len + 1;
    return 0;
}

/* What the postings of one currency come to: debits less credits, in more bits than any list of them needs. */
typedef struct { uint16_t currency; u128 low; int64_t high; } difference;

typedef struct {
    difference of[LFS_POSTINGS_MAX];
    uint32_t n;
} balance;

static void balance_add(balance *b, uint16_t currency, int debit, u128 amount) {
    uint32_t i = 0;
    while (i < b->n && b->of[i].currency != currency) i++;
    if (i == b->n) b->of[b->n++] = (difference){currency, 0, 0};
    u128 before = b->of[i].low;
    b->of[i].low += debit ? amount : -amount;
    if (debit) b->of[i].high += b->of[i].low < before;
    else b->of[i].high -= b->of[i].low > before;
}

static int balanced(const balance *b) {
    for (uint32_t i = 0; i < b->n; i++)
        if (b->of[i].low || b->of[i].high) return 0;
    return 1;
}

static leg leg_read(const lfs_ledger *l, const lfs_entry_posting *said) {
    leg found = {.account = said->account, .currency = said->currency, .hash = lfs_hash(l, said->account.p, said->account.len)};
    found.prev_bad = lfs_entry_u64(said->prev, &found.prev) != 0;
    found.debit = lfs_text_is(said->side, "debit");
    found.amount = figure_of(said->amount);
    found.debits = figure_of(said->debits);
    found.credits = figure_of(said->credits);
    found.held_debits = figure_of(said->held_debits);
    found.held_credits = figure_of(said->held_credits);
    return found;
}

/* txn/1, hold/1, post/1, void/1 */
static int replay_postings(lfs_ledger *l, place *at, const lfs_entry *e, char *why) {
    int is_hold = lfs_text_is(e->t, "hold/1"), is_post = lfs_text_is(e->t, "post/1"), is_void = lfs_text_is(e->t, "void/1");
    lfs_hold *h = NULL;
    if (is_post || is_void) {
        int64_t index = lfs_id_find(l, lfs_hash(l, e->hold.p, e->hold.len), e->hold.p, e->hold.len);
        h = index < 0 ? NULL : lfs_hold_find(l, (uint32_t)index);
        if (!h) FAIL("the hold does not exist");
        if (h->status != H_OPEN) FAIL("the hold has ended already");
    }
    lfs_entry_posting posting;
    const uint8_t *p = NULL;
    u128 amount = 0;
    balance sums;
    int more;
    sums.n = 0;
    while ((more = lfs_entry_posting_next(e->postings, &p, &posting)) == 1 && at->n < LFS_POSTINGS_MAX) {
        leg one = leg_read(l, &posting);
        if (apply_posting(l, at, &one, !is_hold && !is_void, is_hold ? 1 : h ? -1 : 0, h ? h->amount : 0, why)) return -1;
        amount = one.amount.value;
        balance_add(&sums, l->info[at->ordinals[at->n - 1]].currency, one.debit, amount);
    }
    if (more != 0 || at->n < 2) FAIL("the postings are not a list of at least two");
    if (!balanced(&sums)) FAIL("its debits and credits differ");
    if (is_hold) {
        lfs_hold record = {amount, 0, (uint32_t)at->index, at->ordinals[0], at->ordinals[1], H_OPEN};
        if (e->expires.p && lfs_time_parse(e->expires.p, e->expires.len, &record.expires_ns)) FAIL("expires is not a time");
        if (!lfs_hold_find(l, record.index)) lfs_hold_put(l, &record);
        if (record.expires_ns) lfs_due_push(l, record.expires_ns, record.index);
    }
    if (h) h->status = is_post ? H_POSTED : lfs_text_is(e->reason, "expired") ? H_EXPIRED : H_VOIDED;
    uint64_t reverses;
    if (e->reverses.p && lfs_entry_u64(e->reverses, &reverses) == 0) {
        if (lfs_reversed(l, reverses)) FAIL("the transaction that it reverses has been reversed already");
        lfs_reversed_put(l, reverses);
    }
    return 0;
}

static int replay_policy(lfs_ledger *l, const lfs_entry *e, char *why) {
    uint64_t decimals;
    if (lfs_text_is(e->policy, "currency")) {
        if (!lfs_currency_ok(e->currency.p, e->currency.len) || lfs_entry_u64(e->decimals, &decimals) || decimals > 18)
            FAIL("a registered currency is none");
        if (lfs_currency_find(l, e->currency) == LFS_NONE) lfs_currency_add(l, e->currency, (unsigned)decimals);
        return 0;
    }
    l->closed_through = lfs_date_parse(e->through.p, e->through.len);
    if (l->closed_through == LFS_NO_DAY) FAIL("a closed period has no date");
    return 0;
}

int lfs_replay_entry(lfs_ledger *l, uint64_t index, const uint8_t *bytes, uint32_t len, uint64_t *tag, uint64_t *tx, char *why) {
    lfs_entry e;
    place at;
    at.index = index, at.len = len, at.tx = 0, at.n = 0;
    *tag = 0;
    *tx = 0;
    if (lfs_entry_read(bytes, len, &e) || !e.t.p) FAIL("not a canonical entry");
    if (e.id.p && !(lfs_text_is(e.t, "rejected/1") && lfs_text_is(e.code, "id_reused"))) *tag = lfs_tag(l, e.id.p, e.id.len);
    if (e.tx.p) {
        if (lfs_entry_u64(e.tx, &at.tx) || at.tx != l->next_tx) FAIL("the transaction number does not follow");
        *tx = at.tx;
        l->next_tx++;
    }
    if (lfs_text_is(e.t, "account/1")) return replay_account(l, &at, &e, why);
    if (lfs_text_is(e.t, "account.update/1")) return replay_update(l, &at, &e, why);
    if (lfs_text_is(e.t, "policy/1")) return replay_policy(l, &e, why);
    if (lfs_text_is(e.t, "rejected/1")) return 0;
    if (lfs_text_is(e.t, "txn/1") || lfs_text_is(e.t, "post/1")) {
        if (!at.tx) FAIL("a transaction has no number");
        return replay_postings(l, &at, &e, why);
    }
    if (lfs_text_is(e.t, "hold/1") || lfs_text_is(e.t, "void/1")) return replay_postings(l, &at, &e, why);
    if (lfs_text_is(e.t, "genesis/1") && index == 0) return 0;
    int own = lfs_system_replay(l, index, bytes, len, &e, why);
    if (own <= 0) return own;
    FAIL("an entry of kind %.*s stands where it cannot", (int)(e.t.len < 40 ? e.t.len : 40), (const char *)e.t.p);
}

/* -- what was read quickly */

static leg leg_quick(const lfs_quick_posting *said) {
    const figure none = {0, NO_FIGURE};
    return (leg){.account = {said->account, said->account_len}, .currency = {said->currency, 3}, .hash = said->hash, .prev = said->prev,
                 .amount = {said->amount, said->decimals}, .debits = {said->debits, said->decimals}, .credits = {said->credits, said->decimals},
                 .held_debits = none, .held_credits = none, .debit = said->debit};
}

int lfs_replay_quick(lfs_ledger *l, const lfs_quick *entry, uint32_t len, uint64_t *tag, uint64_t *tx, char *why) {
    place at;
    balance sums;
    at.index = entry->index, at.len = len, at.tx = entry->tx, at.n = 0;
    sums.n = 0;
    *tag = entry->tag;
    *tx = entry->tx;
    if (entry->tx != l->next_tx) FAIL("the transaction number does not follow");
    l->next_tx++;
    for (int i = 0; i < 2; i++) {
        leg one = leg_quick(&entry->of[i]);
        if (apply_posting(l, &at, &one, 1, 0, 0, why)) return -1;
        balance_add(&sums, l->info[at.ordinals[i]].currency, one.debit, one.amount.value);
    }
    if (!balanced(&sums)) FAIL("its debits and credits differ");
    return 0;
}

void lfs_quick_prefetch(lfs_ledger *l, const lfs_quick *entry, uint32_t n) {
    if (n > LFS_QUICK_AHEAD) {
        const lfs_quick *far = entry + LFS_QUICK_AHEAD;
        __builtin_prefetch(lfs_table_line(&l->ids, (uint32_t)far->tag), 1);
        for (int i = 0; i < 2; i++) __builtin_prefetch(lfs_table_line(&l->names, (uint32_t)far->of[i].hash));
    }
    if (n <= LFS_QUICK_AHEAD / 2) return;
    const lfs_quick *near = entry + LFS_QUICK_AHEAD / 2;
    for (int i = 0; i < 2; i++) {
        uint32_t found = lfs_table_likely(&l->names, near->of[i].hash);
        if (!found) continue;
        const lfs_info *info = &l->info[found - 1];
        __builtin_prefetch(info);
        __builtin_prefetch((const uint8_t *)(info + 1) - 1);
        lfs_prefetch_state(&l->state[found - 1]);
    }
}
