/* Reading a txn/1 as the ledger writes nearly all of them, quickly: from its first byte to its last there is one way to go, and values are looked at 16 bytes
 * at a time.
 *
 * It accepts less than lfs_see_any, and gives the same for what it accepts (tests/verify/test_quick.py says so of every byte of an entry): a txn/1 without
 * effective, metadata and reverses, its reference of printable ASCII without escapes, amounts of at most 18 digits. What it declines is read the other way. */
#include "verify_read.h"
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>

#define EAT(p, literal) (memcmp(p, literal, sizeof literal - 1) == 0 ? ((p) += sizeof literal - 1, 1) : 0)

static inline __m128i load(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }

/* Bytes from low to high, which are below 0x80 or not: all are taken as they are, without sign. */
static inline __m128i between(__m128i v, uint8_t low, uint8_t high) {
    __m128i from = _mm_sub_epi8(v, _mm_set1_epi8((char)low));
    return _mm_cmpeq_epi8(_mm_min_epu8(from, _mm_set1_epi8((char)(high - low))), from);
}

static inline uint32_t mask(__m128i v) { return (uint32_t)_mm_movemask_epi8(v); }

/* A bit for each of 16 bytes that is no digit. */
static inline uint32_t no_digits(const uint8_t *p) { return ~mask(between(load(p), '0', '9')) & 0xffff; }

/* n digits, 1 to 8 of them: those that lack in front count as 0. */
static inline uint64_t number8(const uint8_t *p, uint32_t n) {
    uint64_t word;
    memcpy(&word, p, 8);
    word = (word - 0x3030303030303030) << (64 - 8 * n);
    word = (word * 10 + (word >> 8)) & 0x00ff00ff00ff00ff;
    word = (word * 100 + (word >> 16)) & 0x0000ffff0000ffff;
    return (uint32_t)(word * 10000 + (word >> 32));
}

static inline uint64_t number16(const uint8_t *p, uint32_t n) {
    return n <= 8 ? number8(p, n) : number8(p, n - 8) * 100000000 + number8(p + n - 8, 8);
}

/* Each of these returns where the value ends, or NULL for what is to be read the other way. */

static inline const uint8_t *quick_integer(const uint8_t *p, uint64_t *out) {
    uint32_t n = (uint32_t)__builtin_ctz(no_digits(p) | 0x10000);
    if (n < 1 || n > 15 || (*p == '0' && n > 1)) return NULL; /* 15 digits are less than 2^53 */
    *out = number16(p, n);
    return p + n;
}

/* p stands behind the opening quote; returns the closing one. */
static inline const uint8_t *quick_amount(const uint8_t *p, u128 *value, uint8_t *decimals) {
    static const uint64_t tens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    uint64_t stops = no_digits(p) | no_digits(p + 16) << 16 | 1ull << 32;
    uint32_t n = (uint32_t)__builtin_ctzll(stops), whole_and_point = n + 1;
    if (n < 1 || n > 16 || (*p == '0' && n > 1)) return NULL;
    *value = number16(p, n);
    *decimals = 0;
    if (p[n] == '"') return p + n;
    stops &= stops - 1;
    uint32_t end = stops ? (uint32_t)__builtin_ctzll(stops) : 0, fraction = end - whole_and_point;
    if (p[n] != '.' || end <= whole_and_point || end > 19 || fraction > 8 || p[end] != '"') return NULL;
    *value = (uint64_t)*value * tens[fraction] + number8(p + whole_and_point, fraction);
    *decimals = (uint8_t)fraction;
    return p + end;
}

static inline const uint8_t *quick_hex(const uint8_t *p) {
    __m128i all = _mm_set1_epi8(-1);
    for (int at = 0; at < 64; at += 16) all = _mm_and_si128(all, _mm_or_si128(between(load(p + at), '0', '9'), between(load(p + at), 'a', 'f')));
    return mask(all) == 0xffff ? p + 64 : NULL;
}

/* Printable ASCII from `low` on up to a quote, of which it is at most `most`, and at least one. */
static inline const uint8_t *quick_text(const uint8_t *p, const uint8_t *end, uint8_t low, uint32_t most) {
    const uint8_t *begin = p;
    for (; p < end; p += 16) {
        __m128i v = load(p), odd = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
        uint32_t stops = mask(odd) | (~mask(between(v, low, 0x7e)) & 0xffff);
        if (!stops) continue;
        p += __builtin_ctz(stops);
        return *p == '"' && p > begin && p - begin <= most ? p : NULL;
    }
    return NULL;
}

static inline const uint8_t *quick_name(const uint8_t *p) {
    const uint8_t *begin = p;
    if (*p == '-' || *p == '.' || *p == ':' || *p == '_') return NULL;
    for (; p - begin <= 64; p += 16) {
        __m128i v = load(p), letters = between(_mm_or_si128(v, _mm_set1_epi8(0x20)), 'a', 'z');
        __m128i others = _mm_or_si128(between(v, '0', ':'), _mm_or_si128(between(v, '-', '.'), _mm_cmpeq_epi8(v, _mm_set1_epi8('_'))));
        uint32_t stops = ~mask(_mm_or_si128(letters, others)) & 0xffff;
        if (!stops) continue;
        p += __builtin_ctz(stops);
        return *p == '"' && p > begin && p - begin <= 64 ? p : NULL;
    }
    return NULL;
}

/* Three capitals; what is longer, or has digits, is none of ISO 4217. */
static inline const uint8_t *quick_currency(const uint8_t *p) {
    int capitals = (uint8_t)(p[0] - 'A') < 26 && (uint8_t)(p[1] - 'A') < 26 && (uint8_t)(p[2] - 'A') < 26;
    return capitals && p[3] == '"' ? p + 3 : NULL;
}

static const uint8_t *quick_posting(const lfs_reading *r, lfs_seen_posting *out, const uint8_t *p) {
    if (!EAT(p, "{\"account\":\"")) return NULL;
    out->account = p;
    if (!(p = quick_name(p))) return NULL;
    out->account_len = (uint8_t)(p - out->account);
    if (!EAT(p, "\",\"amount\":\"") || !(p = quick_amount(p, &out->value[P_AMOUNT], &out->decimals[P_AMOUNT]))) return NULL;
    if (!EAT(p, "\",\"credits\":\"") || !(p = quick_amount(p, &out->value[P_CREDITS], &out->decimals[P_CREDITS]))) return NULL;
    if (!EAT(p, "\",\"currency\":\"")) return NULL;
    out->currency = p;
    if (!(p = quick_currency(p))) return NULL;
    out->currency_len = 3;
    if (!EAT(p, "\",\"debits\":\"") || !(p = quick_amount(p, &out->value[P_DEBITS], &out->decimals[P_DEBITS]))) return NULL;
    if (!EAT(p, "\",\"prev\":") || !(p = quick_integer(p, &out->prev))) return NULL;
    if (EAT(p, ",\"side\":\"debit\"}")) out->side = S_DEBIT;
    else if (EAT(p, ",\"side\":\"credit\"}")) out->side = S_CREDIT;
    else return NULL;
    out->name_hash = lfs_hash(r->ledger, out->account, out->account_len);
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
    if (!EAT(p, "\"t\":\"txn/1\",\"time\":") || p >= end || !(p = lfs_read_time(r, p, &out->time))) return 0;
    if (!EAT(p, ",\"tx\":") || !(p = quick_integer(p, &out->tx)) || !EAT(p, ",\"type\":\"") || !(p = quick_type(p, &out->type))) return 0;
    return p == end;
}

int lfs_see_quick(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out) {
    uint32_t first = r->n_postings;
    *out = (lfs_seen){.bytes = bytes, .len = len, .kind = K_TXN, .day = LFS_NO_DAY, .first_posting = first};
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
