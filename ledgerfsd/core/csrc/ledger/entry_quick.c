/* Reading a txn/1 as the ledger writes nearly all of them, quickly, for replay: two postings of one currency each with three letters, from the first byte to
 * the last in one way. (verify has a reader of its own for the same, since it judges by itself.)
 *
 * What it accepts is canonical, and entry.c reads the same of it (tests/unit/test_replay_quick.py says so of every byte of an entry as every other): no
 * effective, metadata and reverses, a reference of printable ASCII without escapes, amounts of at most 18 digits. */
#include "ledger.h"
#include "lfs_json.h"
#include "lfs_quick.h"
#include <stdlib.h>
#ifdef __SSE2__

static const uint8_t *figure(const uint8_t *p, uint8_t decimals, uint64_t *out) {
    u128 value;
    uint8_t found;
    p = quick_amount(p, &value, &found);
    *out = p ? (uint64_t)value : 0; /* of 18 digits at most */
    return p && found == decimals ? p : NULL;
}

static const uint8_t *posting(const lfs_ledger *l, const uint8_t *p, lfs_quick_posting *out) {
    u128 amount;
    if (!EAT(p, "{\"account\":\"")) return NULL;
    out->account = p;
    if (!(p = quick_name(p))) return NULL;
    out->account_len = (uint8_t)(p - out->account);
    if (!EAT(p, "\",\"amount\":\"") || !(p = quick_amount(p, &amount, &out->decimals))) return NULL;
    out->amount = (uint64_t)amount;
    if (!EAT(p, "\",\"credits\":\"") || !(p = figure(p, out->decimals, &out->credits))) return NULL;
    if (!EAT(p, "\",\"currency\":\"")) return NULL;
    out->currency = p;
    if (!(p = quick_currency(p))) return NULL;
    if (!EAT(p, "\",\"debits\":\"") || !(p = figure(p, out->decimals, &out->debits))) return NULL;
    if (!EAT(p, "\",\"prev\":") || !(p = quick_integer(p, &out->prev))) return NULL;
    if (EAT(p, ",\"side\":\"debit\"}")) out->debit = 1;
    else if (EAT(p, ",\"side\":\"credit\"}")) out->debit = 0;
    else return NULL;
    out->hash = lfs_hash(l, out->account, out->account_len);
    return p;
}

int lfs_quick_read(lfs_ledger *l, const uint8_t *bytes, uint32_t len, lfs_quick *out) {
    const uint8_t *p = bytes, *end = bytes + len, *id;
    if (!EAT(p, "{\"id\":\"")) return 0;
    id = p;
    if (!(p = quick_text(p, end, 0x21, 128))) return 0;
    out->tag = lfs_tag(l, id, (size_t)(p - id));
    if (!EAT(p, "\",\"index\":") || !(p = quick_integer(p, &out->index)) || !EAT(p, ",\"intent\":\"")) return 0;
    if (p >= end || !(p = quick_hex(p)) || !EAT(p, "\",\"postings\":[") || p >= end) return 0;
    if (!(p = posting(l, p, &out->of[0])) || *p++ != ',' || p >= end || !(p = posting(l, p, &out->of[1]))) return 0;
    if (p >= end || !EAT(p, "],")) return 0;
    if (EAT(p, "\"reference\":\"") && (!(p = quick_text(p, end, 0x20, 256)) || !EAT(p, "\","))) return 0;
    if (!EAT(p, "\"t\":\"txn/1\",\"time\":\"") || p >= end || !(p = quick_time(&l->read_second, p, &out->time))) return 0;
    if (!EAT(p, "\",\"tx\":") || !(p = quick_integer(p, &out->tx)) || !EAT(p, ",\"type\":\"")) return 0;
    return (p = quick_text(p, end, 'a', 32)) && EAT(p, "\"}") && p == end;
}
#else
int lfs_quick_read(lfs_ledger *l, const uint8_t *bytes, uint32_t len, lfs_quick *out) {
    (void)l, (void)bytes, (void)len, (void)out;
    return 0;
}
#endif

/* -- for tests: is the entry read the quick way, and does entry.c read the same? */

static int same_figure(lfs_text text, uint64_t value, uint8_t decimals) {
    lfs_amount amount;
    return text.p && !lfs_amount_parse(text.p, text.len, &amount) && amount.value == value && amount.decimals == decimals;
}

static int same_number(lfs_text text, uint64_t value) {
    uint64_t number;
    return !lfs_entry_u64(text, &number) && number == value;
}

static int same_posting(const lfs_entry_posting *a, const lfs_quick_posting *b) {
    return a->account.p == b->account && a->account.len == b->account_len && a->currency.p == b->currency && a->currency.len == 3 &&
           lfs_text_is(a->side, b->debit ? "debit" : "credit") && same_number(a->prev, b->prev) && same_figure(a->amount, b->amount, b->decimals) &&
           same_figure(a->credits, b->credits, b->decimals) && same_figure(a->debits, b->debits, b->decimals) && !a->held_debits.p && !a->held_credits.p;
}

static int agrees(const lfs_ledger *l, const uint8_t *bytes, uint32_t len, const lfs_quick *quick) {
    lfs_entry entry;
    lfs_entry_posting posting;
    const uint8_t *p = NULL;
    uint64_t time;
    if (!lfs_json_is_canonical(bytes, len, 0) || lfs_entry_read(bytes, len, &entry) || !lfs_text_is(entry.t, "txn/1") || entry.reverses.p) return 0;
    if (!same_number(entry.index, quick->index) || !same_number(entry.tx, quick->tx) || lfs_tag(l, entry.id.p, entry.id.len) != quick->tag) return 0;
    if (entry.time.len != LFS_TIME_BYTES || lfs_time_parse(entry.time.p, entry.time.len, &time) || time != quick->time) return 0;
    for (int i = 0; i < 2; i++)
        if (lfs_entry_posting_next(entry.postings, &p, &posting) != 1 || !same_posting(&posting, &quick->of[i])) return 0;
    return lfs_entry_posting_next(entry.postings, &p, &posting) == 0;
}

int lfs_quick_agrees(const uint8_t *bytes, uint32_t len) {
    static __thread lfs_ledger none;
    lfs_quick quick;
    uint8_t *copy = lfs_grow(NULL, len + (size_t)LFS_QUICK_BEYOND);
    memcpy(copy, bytes, len);
    memset(copy + len, 0, LFS_QUICK_BEYOND);
    int result = lfs_quick_read(&none, copy, len, &quick);
    if (result && !agrees(&none, copy, len, &quick)) result = -1;
    free(copy);
    return result;
}
