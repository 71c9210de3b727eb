/* Reading a txn/1 as the ledger writes nearly all of them, quickly: from its first byte to its last there is one way to go, and values are looked at 16 bytes
 * at a time.
 *
 * It accepts less than lfs_see_any, and gives the same for what it accepts (tests/verify/test_quick.py says so of every byte of an entry): a txn/1 without
 * effective, metadata and reverses, its reference of printable ASCII without escapes, amounts of at most 18 digits. What it declines is read the other way. */
#include "verify_read.h"
#include <stdlib.h>
#include "quick_text.h"
#ifdef __SSE2__

static const uint8_t *quick_posting(const lfs_reading *r, lfs_seen_posting *out, const uint8_t *p) {
    uint64_t prev;
    if (!EAT(p, "{\"account\":\"")) return NULL;
    out->account = p;
    if (!(p = quick_name(p))) return NULL;
    out->account_len = (uint8_t)(p - out->account);
    if (!EAT(p, "\",\"amount\":\"") || !(p = quick_amount(p, &out->value[P_AMOUNT], &out->decimals[P_AMOUNT]))) return NULL;
    if (!EAT(p, "\",\"credits\":\"") || !(p = quick_amount(p, &out->value[P_CREDITS], &out->decimals[P_CREDITS]))) return NULL;
    if (!EAT(p, "\",\"currency\":\"")) return NULL;
    out->currency = (uint16_t)(p - out->account);
    if (!(p = quick_currency(p))) return NULL;
    out->currency_len = 3;
    if (!EAT(p, "\",\"debits\":\"") || !(p = quick_amount(p, &out->value[P_DEBITS], &out->decimals[P_DEBITS]))) return NULL;
    if (!EAT(p, "\",\"prev\":") || !(p = quick_integer(p, &prev))) return NULL;
    out->prev = lfs_seen_prev(prev);
    if (EAT(p, ",\"side\":\"debit\"}")) out->side = S_DEBIT;
    else if (EAT(p, ",\"side\":\"credit\"}")) out->side = S_CREDIT;
    else return NULL;
    out->name_hash = (uint32_t)lfs_hash(r->ledger, out->account, out->account_len);
    out->ordinal = LFS_NONE;
    return p;
}

/* p stands behind the bracket; returns the closing one. */
static inline const uint8_t *quick_postings(lfs_reading *r, const uint8_t *p, const uint8_t *end) {
    uint32_t n = 0;
    for (;; n++) {
        if (n == LFS_POSTINGS_MAX) return NULL;
        lfs_reading_room(r);
        if (!(p = quick_posting(r, &r->postings[r->n_postings], p)) || p >= end) return NULL;
        r->n_postings++;
        if (*p == ']') return n >= 1 ? p : NULL;
        if (*p++ != ',') return NULL;
    }
}

static inline const uint8_t *quick_type(const uint8_t *p, uint8_t *type) {
    if (EAT(p, "transfer\"}")) *type = T_TRANSFER;
    else if (EAT(p, "transaction\"}")) *type = T_TRANSACTION;
    else if (EAT(p, "opening\"}")) *type = T_OPENING;
    else return NULL;
    return p;
}

#define B(member) (1ull << V_##member)

static inline int quick(lfs_reading *r, const uint8_t *bytes, const uint8_t *end, lfs_seen *out) {
    const uint8_t *p = bytes;
    r->present = B(ID) | B(INDEX) | B(INTENT) | B(POSTINGS) | B(T) | B(TIME) | B(TX) | B(TYPE);
    if (!EAT(p, "{\"id\":\"")) return 0;
    out->id.p = p;
    if (!(p = quick_text(p, end, 0x21, 128))) return 0;
    out->id.len = (uint32_t)(p - out->id.p);
    if (!EAT(p, "\",\"index\":") || !(p = quick_integer(p, &out->index)) || !EAT(p, ",\"intent\":\"")) return 0;
    out->intent = (lfs_text){p, 64};
    if (p >= end || !(p = quick_hex(p)) || !EAT(p, "\",\"postings\":[") || p >= end) return 0;
    if (!(p = quick_postings(r, p, end)) || !EAT(p, "],")) return 0;
    if (EAT(p, "\"reference\":\"")) {
        r->present |= B(REFERENCE);
        r->f[V_REFERENCE].p = p;
        if (!(p = quick_text(p, end, 0x20, 256))) return 0;
        r->f[V_REFERENCE].len = (uint32_t)(p - r->f[V_REFERENCE].p);
        if (!EAT(p, "\",")) return 0;
    }
    if (!EAT(p, "\"t\":\"txn/1\",\"time\":\"") || p >= end || !(p = quick_time(&r->quick_second, p, &out->time))) return 0;
    if (!EAT(p, "\",\"tx\":") || !(p = quick_integer(p, &out->tx)) || !EAT(p, ",\"type\":\"") || !(p = quick_type(p, &out->type))) return 0;
    return p == end;
}

int lfs_see_quick(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out) {
    uint32_t first = r->n_postings;
    lfs_clear(out, sizeof *out);
    out->bytes = bytes;
    out->len = len;
    out->kind = K_TXN;
    out->day = LFS_NO_DAY;
    out->first_posting = first;
    if (!quick(r, bytes, bytes + len, out)) {
        r->n_postings = first;
        return 0;
    }
    out->n_postings = r->n_postings - first;
    out->id_made = *out->id.p == '~';
    out->id_hash = lfs_hash(r->ledger, out->id.p, out->id.len);
    out->tag = (uint32_t)out->id_hash ? (uint32_t)out->id_hash : 1;
    return 1;
}
#else
int lfs_see_quick(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out) {
    (void)r, (void)bytes, (void)len, (void)out;
    return 0;
}
#endif

/* -- for tests: is the entry read the quick way, and is that the same as the other? */

static int same_text(lfs_text a, lfs_text b) { return a.p == b.p && a.len == b.len; }

static int same_posting(const lfs_seen_posting *a, const lfs_seen_posting *b) {
    int same = a->name_hash == b->name_hash && a->prev == b->prev && a->account == b->account && a->account_len == b->account_len;
    same = same && a->currency == b->currency && a->currency_len == b->currency_len && a->side == b->side && a->ordinal == b->ordinal;
    for (int i = P_AMOUNT; i <= P_DEBITS; i++) same = same && a->value[i] == b->value[i] && a->decimals[i] == b->decimals[i];
    return same;
}

static int same_seen(const lfs_seen *a, const lfs_seen *b) {
    return a->len == b->len && a->n_postings == b->n_postings && a->kind == b->kind && a->type == b->type && a->expired == b->expired && a->id_made == b->id_made &&
           a->day == b->day && a->index == b->index && a->time == b->time && a->tx == b->tx && a->reverses == b->reverses &&
           a->expires == b->expires && a->id_hash == b->id_hash && a->hold_hash == b->hold_hash && a->tag == b->tag &&
           same_text(a->id, b->id) && same_text(a->intent, b->intent) && same_text(a->hold, b->hold);
}

int lfs_verify_quick(const uint8_t *bytes, uint32_t len) {
    static const lfs_ledger none;
    lfs_reading quick, any;
    lfs_seen one, other;
    uint8_t *copy = lfs_grow(NULL, len + 128ul);
    memcpy(copy, bytes, len);
    memset(copy + len, 0, 128);
    lfs_reading_init(&quick, &none);
    lfs_reading_init(&any, &none);
    int result = lfs_see_quick(&quick, copy, len, &one);
    if (result && (lfs_see_any(&any, copy, len, &other) != LFS_SEEN || !same_seen(&one, &other) || quick.present != any.present)) result = -1;
    if (result == 1 && lfs_has(&any, V_REFERENCE) && !same_text(quick.f[V_REFERENCE], any.f[V_REFERENCE])) result = -1;
    for (uint32_t i = 0; result == 1 && i < one.n_postings; i++)
        if (!same_posting(&quick.postings[i], &any.postings[i])) result = -1;
    lfs_reading_free(&quick);
    lfs_reading_free(&any);
    free(copy);
    return result;
}
