/* The judge of a store that is verified: does each entry follow from those before it? The rules are those of docs/FORMAT.md, sections 6.1 and 7, written a
 * second time: nothing here calls what judged the intents when they were committed (apply.c), or replays at a start (replay.c). */
#include <stdlib.h>
#include "lfs_json.h"
#include "verify.h"

#define FAIL(...) return (snprintf(v->why, sizeof v->why, __VA_ARGS__), -1)
#define TRY(check) do { if (check) return -1; } while (0)

const uint8_t *lfs_verify_entry(lfs_verify *v, uint64_t index, uint32_t *len, int whole) {
    uint32_t low = 0, high = v->n_files;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (v->files[middle].first <= index) low = middle;
        else high = middle;
    }
    uint64_t at = v->bundle_offset[index / LFS_BUNDLE] + v->delta[index] - v->files[low].base;
    uint8_t *bytes = v->entry_room;
    *len = 0;
    int got = lfs_read_fully(v->files[low].fd, bytes, 2 + 1024, at);
    if (got < 2) return NULL;
    *len = (uint32_t)bytes[0] << 8 | bytes[1];
    if (!whole && *len > 1024) *len = 1024;
    if (*len > 1024) got = lfs_read_fully(v->files[low].fd, bytes, 2 + *len, at);
    return got >= 2 + (int)*len ? bytes + 2 : NULL;
}

/* -- what is needed soon is fetched from memory meanwhile: the entry as another thread has read it, the slots of the tables, then the accounts that they name */

void lfs_judge_far(const lfs_seen *s, const lfs_seen_posting *postings) {
    for (int line = 0; line < 3; line++) __builtin_prefetch((const uint8_t *)s + 64 * line);
    for (int line = 0; line < 3; line++) __builtin_prefetch((const uint8_t *)postings + 64 * line, 1);
}

void lfs_judge_ahead(lfs_verify *v, const lfs_seen *s, const lfs_seen_posting *postings) {
    const lfs_ledger *l = &v->ledger;
    if (s->id.p) __builtin_prefetch(lfs_table_line(&l->ids, (uint32_t)s->id_hash), 1);
    for (uint32_t i = 0; i < s->n_postings && i < 8; i++) {
        const lfs_seen_posting *p = &postings[s->first_posting + i];
        __builtin_prefetch(lfs_table_line(&l->names, p->name_hash));
        __builtin_prefetch(p->account); /* the text is in the cache of the processor that checked it */
        __builtin_prefetch(p->account + p->currency);
    }
}

void lfs_judge_near(lfs_verify *v, const lfs_seen *s, lfs_seen_posting *postings) {
    const lfs_ledger *l = &v->ledger;
    for (uint32_t i = 0; i < s->n_postings && i < 8; i++) {
        lfs_seen_posting *p = &postings[s->first_posting + i];
        uint32_t ordinal = lfs_table_likely(&l->names, p->name_hash) - 1;
        if (ordinal >= l->n_accounts) continue;
        p->ordinal = ordinal; /* a guess: its name is compared when the entry is judged */
        lfs_prefetch_judged(&v->accounts[ordinal]);
    }
}

/* -- accounts */

/* The state tree is told of each account that an entry names once: the first time since it was told last. */
static void touch(lfs_verify *v, uint32_t ordinal, const lfs_judged *a) {
    if (v->n_touched == v->touched_size) {
        v->touched_size = v->touched_size ? 2 * v->touched_size : 1024;
        v->touched = lfs_grow(v->touched, v->touched_size * sizeof *v->touched);
    }
    v->touched[v->n_touched] = ordinal; /* no branch: whether it was named before is anybody's guess */
    v->n_touched += !a->entries | (a->last_index < v->root_end);
}

static uint32_t account_of(const lfs_ledger *l, const uint8_t *name, uint32_t len) {
    return lfs_name_find(l, lfs_hash(l, name, len), name, len);
}

static int is_account(const lfs_verify *v, uint32_t ordinal, const uint8_t *name, uint32_t len) {
    return ordinal < v->ledger.n_accounts && lfs_judged_is(&v->accounts[ordinal], &v->ledger.info[ordinal], name, len);
}

/* The entry is the account's newest. */
static void follow(lfs_verify *v, uint32_t ordinal, const lfs_seen *s) {
    lfs_judged *state = &v->accounts[ordinal];
    touch(v, ordinal, state);
    state->entries++;
    state->log_bytes += (uint64_t)s->len + 1;
    state->last_index = (uint32_t)s->index;
    if (s->tx) state->last_tx = (uint32_t)s->tx;
    lfs_tally_add(v, &v->sums, &v->tally, LFS_POSTINGS, (lfs_record){ordinal, (uint32_t)s->index, (uint16_t)s->len, lfs_seen_states(s)});
}

/* Would it be below its floor? (Section 6.1, 150.) Totals stay below 2^127, so no sum here overflows. */
static int short_of_funds(const lfs_verify *v, uint32_t ordinal) {
    const lfs_judged *a = &v->accounts[ordinal];
    if (a->limit == L_NONE) return 0;
    u128 overdraft = a->limit == L_OVERDRAFT ? v->ledger.info[ordinal].overdraft : 0;
    if (a->normal == S_CREDIT) return a->credits + overdraft < a->debits + a->held_debits;
    return a->debits + overdraft < a->credits + a->held_credits;
}

static int check_status(lfs_verify *v, uint32_t ordinal) {
    uint8_t status = v->accounts[ordinal].status;
    if (status == A_CLOSED) FAIL("an account that it touches is closed");
    if (status == A_FROZEN) FAIL("an account that it touches is frozen");
    return 0;
}

static int32_t booking_day(const lfs_seen *s) { return (int32_t)(s->time / (86400 * LFS_NS_PER_S)); }

static int check_period(lfs_verify *v, const lfs_seen *s) {
    int32_t day = s->day != LFS_NO_DAY ? s->day : booking_day(s);
    if (v->ledger.closed_through != LFS_NO_DAY && day <= v->ledger.closed_through) FAIL("it is booked into a closed period");
    return 0;
}

/* -- postings */

/* What is held is stated by a hold, which reserves the amount, and by what ends one, which releases `released`. */
static int post(lfs_verify *v, const lfs_seen *s, lfs_seen_posting *all, const lfs_seen_held *held, uint32_t i, u128 released) {
    lfs_ledger *l = &v->ledger;
    lfs_seen_posting *p = &all[i];
    if (!is_account(v, p->ordinal, p->account, p->account_len)) p->ordinal = lfs_name_find(l, p->name_hash, p->account, p->account_len);
    if (p->ordinal == LFS_NONE) FAIL("a posting names an account that does not exist");
    lfs_judged *state = &v->accounts[p->ordinal];
    const lfs_currency *unit = &l->currencies[state->currency];
    if (p->currency_len != unit->len || !lfs_same(p->account + p->currency, (const uint8_t *)unit->code, unit->len) ||
        p->decimals[P_AMOUNT] != unit->decimals || !p->value[P_AMOUNT])
        FAIL("a posting's amount or currency does not fit its account");
    if (state->last_index == s->index) { /* the second posting of the account in this entry */
        uint32_t k = i;
        while (all[--k].ordinal != p->ordinal) {}
        if (p->prev != all[k].prev) FAIL("prev of a posting is not the account's previous entry");
    } else {
        if (p->prev != state->last_index) FAIL("prev of a posting is not the account's previous entry");
        if (s->kind != K_VOID) TRY(check_status(v, p->ordinal)); /* what is held goes back whatever has become of the account */
        follow(v, p->ordinal, s);
    }
    int debit = p->side == S_DEBIT, wrong = 0, states = lfs_seen_states(s);
    if (states & 1) {
        u128 *total = debit ? &state->debits : &state->credits;
        wrong |= __builtin_add_overflow(*total, p->value[P_AMOUNT], total) || *total >= LFS_TOTAL_LIMIT;
        wrong |= p->value[P_DEBITS] != state->debits || p->decimals[P_DEBITS] != unit->decimals;
        wrong |= p->value[P_CREDITS] != state->credits || p->decimals[P_CREDITS] != unit->decimals;
    }
    if (states & 2) {
        const lfs_seen_held *h = &held[i];
        u128 *total = debit ? &state->held_debits : &state->held_credits;
        if (s->kind == K_HOLD) wrong |= __builtin_add_overflow(*total, p->value[P_AMOUNT], total) || *total >= LFS_TOTAL_LIMIT;
        else wrong |= __builtin_sub_overflow(*total, released, total);
        wrong |= h->value[P_HELD_DEBITS - P_TOTALS] != state->held_debits || h->decimals[P_HELD_DEBITS - P_TOTALS] != unit->decimals;
        wrong |= h->value[P_HELD_CREDITS - P_TOTALS] != state->held_credits || h->decimals[P_HELD_CREDITS - P_TOTALS] != unit->decimals;
    }
    if (wrong) FAIL("the totals after a posting do not follow from those before");
    return 0;
}

/* Debits equal credits in each currency. 200 amounts of 128 bits: the carries are counted. */
static int check_balanced(lfs_verify *v, const lfs_seen_posting *p, uint32_t n) {
    const lfs_judged *of = v->accounts;
    if (n == 2 && p[0].side != p[1].side && p[0].value[P_AMOUNT] == p[1].value[P_AMOUNT] &&
        of[p[0].ordinal].currency == of[p[1].ordinal].currency) return 0;
    for (uint32_t i = 0; i < n; i++) {
        u128 low[2] = {0, 0};
        uint32_t high[2] = {0, 0};
        for (uint32_t k = 0; k < n; k++)
            if (of[p[k].ordinal].currency == of[p[i].ordinal].currency)
                high[p[k].side] += __builtin_add_overflow(low[p[k].side], p[k].value[P_AMOUNT], &low[p[k].side]);
        if (low[0] != low[1] || high[0] != high[1]) FAIL("its debits and credits differ");
    }
    return 0;
}

/* A debit and a credit of two accounts. */
static int check_pair(lfs_verify *v, const lfs_seen_posting *p, uint32_t n) {
    if (n != 2 || p[0].side != S_DEBIT || p[1].side != S_CREDIT || p[0].ordinal == p[1].ordinal)
        FAIL("its postings are not a debit and a credit of two accounts");
    return 0;
}

static int check_funds(lfs_verify *v, const lfs_seen_posting *p, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (p[i].side != v->accounts[p[i].ordinal].normal && short_of_funds(v, p[i].ordinal))
            FAIL("an account with a limit ends below it");
    return 0;
}

/* The postings of the transaction that it reverses, with sides exchanged. */
static int check_reversal(lfs_verify *v, const lfs_seen *s, const lfs_seen_posting *p) {
    lfs_reading *r = &v->reading;
    lfs_seen original;
    uint32_t len;
    if (s->reverses < 1 || s->reverses >= s->tx) FAIL("the transaction that it reverses does not exist");
    if (lfs_reversed(&v->ledger, s->reverses)) FAIL("the transaction that it reverses has been reversed already");
    const uint8_t *bytes = lfs_verify_entry(v, v->txs[s->reverses - 1], &len, 1);
    r->n_postings = 0;
    if (!bytes || lfs_see(r, bytes, len, &original)) FAIL("the transaction that it reverses cannot be read");
    int same = original.n_postings == s->n_postings;
    for (uint32_t i = 0; i < s->n_postings && same; i++) {
        const lfs_seen_posting *theirs = &r->postings[i];
        same = theirs->side != p[i].side && theirs->value[P_AMOUNT] == p[i].value[P_AMOUNT] && theirs->account_len == p[i].account_len &&
               memcmp(theirs->account, p[i].account, p[i].account_len) == 0;
    }
    if (!same) FAIL("its postings are not those of the transaction that it reverses with sides exchanged");
    lfs_reversed_put(&v->ledger, s->reverses);
    return 0;
}

/* -- transactions */

static int id_is(const lfs_seen *s, const char *prefix, const uint8_t *rest, uint32_t len) {
    uint32_t head = (uint32_t)strlen(prefix);
    return s->id.len == head + len && memcmp(s->id.p, prefix, head) == 0 && memcmp(s->id.p + head, rest, len) == 0;
}

static int same_intent(lfs_text a, lfs_text b) { return a.len == 64 && b.len == 64 && memcmp(a.p, b.p, 64) == 0; }

/* The transaction of an initial balance: behind the account/1 of the same intent, from equity:opening:<CUR>. */
static int check_opening(lfs_verify *v, const lfs_seen *s, const lfs_seen_posting *p) {
    lfs_ledger *l = &v->ledger;
    static const char equity[] = "equity:opening:"; /* and the code of its currency */
    enum { HEAD = sizeof equity - 1 };
    const lfs_info *info = &l->info[p[0].ordinal];
    const lfs_currency *unit = &l->currencies[info->currency];
    if (s->n_postings != 2 || p[0].ordinal == p[1].ordinal || !id_is(s, "~opening:", p[0].account, p[0].account_len) || p[0].side != info->normal ||
        p[1].side == p[0].side || p[1].account_len != HEAD + unit->len || memcmp(p[1].account, equity, HEAD) != 0 ||
        memcmp(p[1].account + HEAD, unit->code, unit->len) != 0 || info->open_index + 1 != s->index ||
        memcmp(v->intent, s->intent.p, 64) != 0) FAIL("it is not the opening of the account before it");
    return 0;
}

static int transaction(lfs_verify *v, const lfs_seen *s, lfs_seen_posting *p) {
    for (uint32_t i = 0; i < s->n_postings; i++) TRY(post(v, s, p, NULL, i, 0));
    TRY(check_balanced(v, p, s->n_postings));
    if (s->type == T_TRANSFER) TRY(check_pair(v, p, s->n_postings));
    if (s->type == T_REVERSAL) TRY(check_reversal(v, s, p));
    if (s->type == T_OPENING) TRY(check_opening(v, s, p));
    else TRY(check_period(v, s));
    return check_funds(v, p, s->n_postings);
}

static int hold(lfs_verify *v, const lfs_seen *s, lfs_seen_posting *p, const lfs_seen_held *held) {
    for (uint32_t i = 0; i < s->n_postings; i++) TRY(post(v, s, p, held, i, 0));
    TRY(check_pair(v, p, s->n_postings));
    TRY(check_balanced(v, p, 2));
    TRY(check_funds(v, p, 2));
    if (s->expires && s->expires <= s->time) FAIL("the hold expires before it begins");
    lfs_hold record = {p[0].value[P_AMOUNT], s->expires, (uint32_t)s->index, p[0].ordinal, p[1].ordinal, H_OPEN};
    lfs_hold_put(&v->ledger, &record);
    if (s->expires) lfs_due_push(&v->ledger, s->expires, record.index);
    return 0;
}

/* The hold that is due first, LFS_NONE when none is at that time. Those that have ended are dropped on the way. */
static uint32_t due_at(lfs_ledger *l, uint64_t time) {
    while (l->n_due && l->due[0].expires_ns <= time) {
        const lfs_hold *h = lfs_hold_find(l, l->due[0].index);
        if (h && h->status == H_OPEN) return h->index;
        lfs_due_pop(l);
    }
    return LFS_NONE;
}

static int end_of_hold(lfs_verify *v, const lfs_seen *s, lfs_seen_posting *p, const lfs_seen_held *held) {
    lfs_ledger *l = &v->ledger;
    int posted = s->kind == K_POST;
    int64_t index = lfs_id_find(l, s->hold_hash, s->hold.p, s->hold.len);
    lfs_hold *h = index < 0 ? NULL : lfs_hold_find(l, (uint32_t)index);
    if (!h) FAIL("the hold does not exist");
    if (h->status != H_OPEN) FAIL("the hold has ended already");
    for (uint32_t i = 0; i < s->n_postings; i++) TRY(post(v, s, p, held, i, h->amount));
    TRY(check_pair(v, p, s->n_postings));
    TRY(check_balanced(v, p, 2));
    if (p[0].ordinal != h->debit || p[1].ordinal != h->credit) FAIL("its postings are not those of the hold");
    if (posted ? p[0].value[P_AMOUNT] > h->amount : p[0].value[P_AMOUNT] != h->amount)
        FAIL(posted ? "it posts more than was held" : "it does not release what was held");
    if (posted) TRY(check_period(v, s));
    if (s->expired) {
        char number[24];
        int n = snprintf(number, sizeof number, "%u", h->index);
        if (due_at(l, s->time) != h->index || !id_is(s, "~expire:", (const uint8_t *)number, (uint32_t)n)) FAIL("the hold is not the one that is due");
    }
    h->status = posted ? H_POSTED : s->expired ? H_EXPIRED : H_VOIDED;
    return 0;
}

/* -- other kinds. Their members are read again: they are few. */

static int open_account(lfs_verify *v, const lfs_seen *s, const lfs_seen_account *a) {
    lfs_ledger *l = &v->ledger;
    uint64_t hash = lfs_hash(l, a->account.p, a->account.len);
    lfs_info info = {.open_index = s->index, .name_len = (uint8_t)a->account.len};
    int own = s->id.len > 6 && memcmp(s->id.p, "~open:", 6) == 0;
    if (lfs_name_find(l, hash, a->account.p, a->account.len) != LFS_NONE) FAIL("an account is opened twice");
    uint32_t currency = lfs_currency_find(l, a->currency);
    while (info.class_ < C_COUNT && !lfs_text_is(a->class_, LFS_CLASS_NAMES[info.class_])) info.class_++;
    info.normal = lfs_text_is(a->normal, "debit") ? S_DEBIT : S_CREDIT;
    if (info.class_ == C_COUNT || currency == LFS_NONE || (info.normal == S_CREDIT && !lfs_text_is(a->normal, "credit")))
        FAIL("an account has a class, currency or side that does not exist");
    if (l->n_accounts == l->accounts_max) FAIL("there are more accounts than there can be");
    info.currency = (uint16_t)currency;
    memcpy(info.name, a->account.p, a->account.len);
    info.limit = lfs_text_is(a->limit, "none") ? L_NONE : lfs_text_is(a->limit, "no_overdraft") ? L_NO_OVERDRAFT : L_OVERDRAFT;
    if (info.limit == L_OVERDRAFT) {
        lfs_amount most;
        if (a->limit.len < 11 || memcmp(a->limit.p, "overdraft:", 10) != 0 || lfs_amount_parse(a->limit.p + 10, a->limit.len - 10, &most) ||
            most.decimals != l->currencies[currency].decimals || most.value >= LFS_TOTAL_LIMIT) FAIL("an account has a limit that is none");
        info.overdraft = most.value;
    }
    if (own && (!id_is(s, "~open:", a->account.p, a->account.len) || info.class_ != C_EQUITY || info.limit != L_NONE || info.normal != S_CREDIT ||
                a->present >> V_OWNER & 1 || a->present >> V_TAGS & 1 || a->account.len != 15 + a->currency.len || memcmp(a->account.p, "equity:opening:", 15) != 0 ||
                memcmp(a->account.p + 15, a->currency.p, a->currency.len) != 0)) FAIL("it is not an account that the ledger opens by itself");
    lfs_table_reserve(&l->names, 1);
    uint32_t ordinal = l->n_accounts++;
    l->info[ordinal] = info;
    v->accounts[ordinal] = lfs_judged_new(&info);
    lfs_table_load(&l->names, hash, ordinal);
    follow(v, ordinal, s);
    if (own || v->expect == EXPECT_ACCOUNT) v->expect = own ? EXPECT_ACCOUNT : EXPECT_OPENING;
    return 0;
}

static int update_account(lfs_verify *v, const lfs_seen *s) {
    static const char *const actions[] = {"freeze", "unfreeze", "close"}, *const statuses[] = {"frozen", "open", "closed"};
    static const uint8_t before[] = {A_OPEN, A_FROZEN, A_OPEN}, after[] = {A_FROZEN, A_OPEN, A_CLOSED};
    const lfs_text *f = v->reading.f;
    uint32_t ordinal = account_of(&v->ledger, f[V_ACCOUNT].p, f[V_ACCOUNT].len);
    if (ordinal == LFS_NONE) FAIL("an update names an account that does not exist");
    lfs_judged *state = &v->accounts[ordinal];
    if (v->reading.number[V_PREV] != state->last_index) FAIL("prev is not the account's previous entry");
    int which = 0;
    while (which < 3 && !lfs_text_is(f[V_ACTION], actions[which])) which++;
    if (which == 3 || !lfs_text_is(f[V_STATUS], statuses[which])) FAIL("its action or status is none");
    if (state->status != before[which]) FAIL("its account has not the status for that (%s)", actions[which]);
    if (after[which] == A_CLOSED && (state->debits != state->credits || state->held_debits || state->held_credits))
        FAIL("an account is closed that is not empty");
    state->status = after[which];
    follow(v, ordinal, s);
    return 0;
}

static int change_policy(lfs_verify *v, const lfs_seen *s, const uint8_t leaf[32]) {
    lfs_ledger *l = &v->ledger;
    const lfs_reading *r = &v->reading;
    memcpy(l->policy_leaf, leaf, 32);
    if (lfs_text_is(r->f[V_POLICY], "currency")) {
        if (!lfs_has(r, V_CURRENCY) || !lfs_has(r, V_DECIMALS) || lfs_has(r, V_THROUGH))
            FAIL("a registered currency is none");
        if (lfs_currency_find(l, r->f[V_CURRENCY]) != LFS_NONE || l->n_currencies >= UINT16_MAX) FAIL("a currency is registered twice");
        lfs_currency_add(l, r->f[V_CURRENCY], (unsigned)r->number[V_DECIMALS]);
        return 0;
    }
    if (!lfs_text_is(r->f[V_POLICY], "close_period") || !lfs_has(r, V_THROUGH) || lfs_has(r, V_CURRENCY) || lfs_has(r, V_DECIMALS))
        FAIL("a policy is none");
    int32_t day = lfs_date_parse(r->f[V_THROUGH].p, 10);
    if (day >= booking_day(s) || (l->closed_through != LFS_NO_DAY && day <= l->closed_through)) FAIL("the period could not be closed");
    l->closed_through = day;
    return 0;
}

static int made_id(lfs_text id) {
    uint8_t bad = 0;
    if (id.len != 38 || memcmp(id.p, "~auto:", 6) != 0) return 0;
    for (int i = 6; i < 38; i++) bad |= (uint8_t)(((uint8_t)(id.p[i] - '0') > 9) & ((uint8_t)(id.p[i] - 'a') > 5));
    return !bad;
}

/* What the ledger records by itself: the entry is its intent. Whether an anchor has the root of the log is seen in the end. */
static int system_entry(lfs_verify *v, const lfs_seen *s) {
    lfs_entry entry;
    if (lfs_entry_read(s->bytes, s->len, &entry) || lfs_system_replay(&v->ledger, s->index, s->bytes, s->len, &entry, v->why)) return -1;
    if (!lfs_text_is(entry.t, "anchor/1")) return 0;
    v->recorded = lfs_grow(v->recorded, (v->n_recorded + 1ull) * sizeof *v->recorded);
    v->recorded[v->n_recorded++] = (uint32_t)s->index;
    return 0;
}

/* The intent is inside: its hash and its id are worked out again, and that it was well formed. Whether the ledger had to refuse it cannot be: an intent
 * of an atomic batch was judged behind others that were taken back with it. */
static int rejected(lfs_verify *v, const lfs_seen *s) {
    const lfs_text *f = v->reading.f, none = {(const uint8_t *)"", 0};
    uint8_t hash[32], hex[64];
    size_t i = 0, n = sizeof LFS_CODE_NAMES / sizeof *LFS_CODE_NAMES;
    while (i < n && !lfs_text_is(f[V_CODE], LFS_CODE_NAMES[i].name)) i++;
    if (i == n || LFS_CODE_NAMES[i].number < LFS_ID_REUSED || LFS_CODE_NAMES[i].number >= LFS_BATCH_ABORTED) FAIL("its code is never in the log");
    lfs_sha256(f[V_REQUEST].p, f[V_REQUEST].len, hash);
    lfs_hex_put(hex, hash, 32);
    if (memcmp(hex, f[V_INTENT_HASH].p, 64) != 0) FAIL("its intent_hash is not that of its request");
    lfs_intent in = {0};
    lfs_arena_reset(&v->arena);
    lfs_arena_ready(&v->arena);
    lfs_intent_parse(f[V_REQUEST].p, f[V_REQUEST].len, none, 1, &v->arena, &in);
    int own = in.present >> F_ID & 1;
    if (in.code) { /* or is it one of the ledger's own? */
        own = 1;
        lfs_arena_reset(&v->arena);
        lfs_arena_ready(&v->arena);
        lfs_system_parse(f[V_REQUEST].p, f[V_REQUEST].len, 1, &v->arena, &in);
    }
    if (in.code) FAIL("its request is not a well-formed intent");
    if (own ? in.id.len != s->id.len || memcmp(in.id.p, s->id.p, s->id.len) != 0 : !made_id(s->id)) FAIL("its id is not that of its request");
    if (s->tag) return 0; /* it owns its id: that no entry before does is seen with all other ids */
    uint32_t len;
    int64_t known = lfs_id_find(&v->ledger, s->id_hash, s->id.p, s->id.len);
    const uint8_t *first = known < 0 ? NULL : lfs_verify_entry(v, (uint64_t)known, &len, 0);
    if (!first || same_intent(lfs_entry_intent(first, len), f[V_INTENT_HASH])) FAIL("its id belongs to no entry before, or to the same intent");
    return 0;
}

/* -- the whole */

/* The ledger makes ids of its own: `~auto:` and 32 hex digits for what came without, and those that only it writes. */
static int check_id(lfs_verify *v, const lfs_seen *s) {
    if (!s->id_made || s->expired || (s->kind == K_TXN && s->type == T_OPENING) || s->kind == K_REJECTED || s->kind == K_SYSTEM) return 0;
    int named = s->kind == K_ACCOUNT && s->id.len > 6 && memcmp(s->id.p, "~open:", 6) == 0;
    if (!named && !made_id(s->id)) FAIL("its id is none that an entry of its kind can have");
    return 0;
}

/* Before an intent is judged, every hold that is due has ended. What belongs to the intent of the entry before was judged with that. */
static int check_due(lfs_verify *v, const lfs_seen *s) {
    lfs_ledger *l = &v->ledger;
    int follows = (s->kind == K_TXN && s->type == T_OPENING) || v->expect;
    if (!l->n_due || s->expired || follows || s->kind == K_GENESIS) return 0;
    uint32_t due = due_at(l, s->time);
    if (due != LFS_NONE) FAIL("the hold of entry %u had to expire before", due);
    return 0;
}

/* An equity account that the ledger opens by itself, the account that it is for, and its opening belong to one intent. */
static int check_expected(lfs_verify *v, const lfs_seen *s) {
    int right = v->expect == EXPECT_ACCOUNT ? s->kind == K_ACCOUNT && s->id.p[0] != '~' : s->kind == K_TXN && s->type == T_OPENING;
    if (v->expect == EXPECT_ACCOUNT && s->kind == K_ACCOUNT && s->id.len == 38) right = 1; /* ~auto: */
    if (!right || memcmp(v->intent, s->intent.p, 64) != 0) FAIL("it does not go on with the opening that the entry before belongs to");
    return 0;
}

static int judge_other(lfs_verify *v, const lfs_seen *s, const uint8_t leaf[32]) {
    lfs_seen again;
    v->reading.n_postings = 0;
    if (lfs_see(&v->reading, s->bytes, s->len, &again)) FAIL("%s", v->reading.why);
    switch (s->kind) {
    case K_UPDATE: return update_account(v, s);
    case K_POLICY: return change_policy(v, s, leaf);
    case K_REJECTED: return rejected(v, s);
    default:
        if (s->index) FAIL("an entry of kind genesis/1 stands where it cannot");
        memcpy(v->ledger.policy_leaf, leaf, 32);
        return 0;
    }
}

int lfs_verify_judge(lfs_verify *v, lfs_piece *piece, uint32_t i) {
    lfs_ledger *l = &v->ledger;
    const lfs_seen *s = &piece->seen[i];
    if (s->tx && s->tx != l->next_tx) FAIL("the transaction number does not follow");
    if (!s->index != (s->kind == K_GENESIS)) FAIL("the ledger does not begin with a genesis/1, or has two");
    if (v->expect) TRY(check_expected(v, s));
    if (s->id.p) TRY(check_id(v, s));
    TRY(check_due(v, s));
    if (s->tag && lfs_id_find(l, s->id_hash, s->id.p, s->id.len) >= 0) FAIL("its id belongs to an entry before");
    uint32_t first = s->n_postings ? s->first_posting : 0;
    lfs_seen_posting *p = piece->reading.postings + first;
    const lfs_seen_held *held = piece->reading.held + first;
    switch (s->kind) {
    case K_ACCOUNT: TRY(open_account(v, s, &piece->accounts[s->first_posting])); break;
    case K_TXN: TRY(transaction(v, s, p)); break;
    case K_HOLD: TRY(hold(v, s, p, held)); break;
    case K_POST: case K_VOID: TRY(end_of_hold(v, s, p, held)); break;
    case K_SYSTEM: TRY(system_entry(v, s)); break;
    default: TRY(judge_other(v, s, piece->leaves + 32ull * i));
    }
    if (s->kind != K_ACCOUNT) v->expect = EXPECT_ANY;
    if (s->kind == K_ACCOUNT) memcpy(v->intent, s->intent.p, 64);
    if (s->tag) {
        lfs_table_reserve(&l->ids, 1);
        lfs_table_load(&l->ids, s->tag, (uint32_t)s->index);
    }
    if (s->tx) {
        if (l->next_tx > v->txs_size) {
            v->txs_size = v->txs_size ? 2 * v->txs_size : 1u << 16;
            v->txs = lfs_grow(v->txs, v->txs_size * sizeof *v->txs);
        }
        v->txs[l->next_tx++ - 1] = (uint32_t)s->index;
    }
    return 0;
}
