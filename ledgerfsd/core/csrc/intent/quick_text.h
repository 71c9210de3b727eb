/* Reading the text of a txn/1 quickly: what its values may be, looked at 16 bytes at a time. For those who read many entries (replay, verify); each
 * has a strict reader besides, for what is declined here. Nothing is judged here but the form of a text.
 *
 * Each of the quick_ functions returns where the value ends, or NULL for what is to be read the other way. They read up to LFS_QUICK_BEYOND bytes behind the
 * end of an entry, which must be readable. */
#ifndef LFS_QUICK_TEXT_H
#define LFS_QUICK_TEXT_H
#include "money.h"

#define LFS_QUICK_BEYOND 512
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

/* Where printable ASCII from `low` on ends, quotes and backslashes excepted; at most `end`. */
static inline const uint8_t *quick_plain_end(const uint8_t *p, const uint8_t *end, uint8_t low) {
    for (; p < end; p += 16) {
        __m128i v = load(p), odd = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
        uint32_t stops = mask(odd) | (~mask(between(v, low, 0x7e)) & 0xffff);
        if (!stops) continue;
        p += __builtin_ctz(stops);
        break;
    }
    return p < end ? p : end;
}

/* The same up to a quote, of which it is at most `most`, and at least one. */
static inline const uint8_t *quick_text(const uint8_t *p, const uint8_t *end, uint8_t low, uint32_t most) {
    const uint8_t *after = quick_plain_end(p, end, low);
    return after < end && *after == '"' && after > p && after - p <= most ? after : NULL;
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

/* Thousands of entries share a second: the calendar is asked once for each. Begin with all zeros. */
typedef struct {
    uint64_t ns;
    uint8_t text[20];
} lfs_quick_second;

/* p stands behind the opening quote; returns the closing one. A time of an entry: 30 bytes. */
static inline const uint8_t *quick_time(lfs_quick_second *known, const uint8_t *p, uint64_t *out) {
    uint64_t at;
    if (memcmp(p, known->text, 20) != 0) {
        if (p[19] != '.' || lfs_time_parse(p, LFS_TIME_BYTES, &at)) return NULL;
        memcpy(known->text, p, 20);
        known->ns = at - at % LFS_NS_PER_S;
    }
    if ((no_digits(p + 20) & 0x1ff) || p[29] != 'Z' || p[30] != '"') return NULL;
    *out = known->ns + number16(p + 20, 9);
    return p + 30;
}
#else
typedef struct { uint64_t ns; } lfs_quick_second;
#endif
#endif
