/* Amounts, dates and times as text (docs/FORMAT.md, section 5). */
#ifndef LFS_MONEY_H
#define LFS_MONEY_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef unsigned __int128 u128;

uint8_t *lfs_copy_long(uint8_t *to, const uint8_t *from, size_t len);
/* Copies len bytes and returns the end in `to`. For short texts of any length: what compilers make of memcpy for them takes longer to begin. */
static inline uint8_t *lfs_copy(uint8_t *to, const uint8_t *from, size_t len) {
    if (len > 64) return lfs_copy_long(to, from, len);
    if (len > 32) {
        memcpy(to, from, 32);
        memcpy(to + len - 32, from + len - 32, 32);
    } else if (len > 16) {
        memcpy(to, from, 16);
        memcpy(to + len - 16, from + len - 16, 16);
    } else if (len >= 8) {
        memcpy(to, from, 8);
        memcpy(to + len - 8, from + len - 8, 8);
    } else if (len >= 4) {
        memcpy(to, from, 4);
        memcpy(to + len - 4, from + len - 4, 4);
    } else {
        for (size_t i = 0; i < len; i++) to[i] = from[i];
    }
    return to + len;
}

/* All zeros, by the library. Of a size that it knows GCC makes `rep stos`, which takes some 30 cycles to begin: too long for what each intent or entry needs. */
static inline void lfs_clear(void *p, size_t bytes) {
    __asm__("" : "+r"(bytes));
    memset(p, 0, bytes);
}

/* Are the len bytes the same? The same thought: a call of memcmp takes longer than comparing what is short. */
static inline int lfs_same(const uint8_t *a, const uint8_t *b, size_t len) {
    uint64_t a8[2], b8[2];
    if (len > 16) return memcmp(a, b, len) == 0;
    if (len >= 8) {
        memcpy(&a8[0], a, 8), memcpy(&a8[1], a + len - 8, 8);
        memcpy(&b8[0], b, 8), memcpy(&b8[1], b + len - 8, 8);
        return ((a8[0] ^ b8[0]) | (a8[1] ^ b8[1])) == 0;
    }
    if (len >= 4) {
        uint32_t a4[2], b4[2];
        memcpy(&a4[0], a, 4), memcpy(&a4[1], a + len - 4, 4);
        memcpy(&b4[0], b, 4), memcpy(&b4[1], b + len - 4, 4);
        return ((a4[0] ^ b4[0]) | (a4[1] ^ b4[1])) == 0;
    }
    for (size_t i = 0; i < len; i++)
        if (a[i] != b[i]) return 0;
    return 1;
}

#define LFS_TOTAL_LIMIT ((u128)1 << 127) /* totals stay below it, so that a sum of two never overflows */
#define LFS_NS_PER_S 1000000000ull
#define LFS_NO_DAY INT32_MIN

typedef struct {
    u128 value;       /* the digits without the point */
    uint8_t decimals; /* digits after the point, saturated at 255 */
} lfs_amount;

/* 0, LFS_BAD_AMOUNT or LFS_AMOUNT_OVERFLOW. */
int lfs_amount_parse(const uint8_t *p, size_t len, lfs_amount *out);
/* Writes value with its decimals (at most 18); returns the end (at most 41 bytes). */
uint8_t *lfs_amount_put(uint8_t *out, u128 value, unsigned decimals);
/* Days since 1970-01-01 of YYYY-MM-DD, or LFS_NO_DAY. */
int32_t lfs_date_parse(const uint8_t *p, size_t len);
/* Nanoseconds since 1970 of YYYY-MM-DDThh:mm:ss[.d{1,9}]Z; returns 0, or -1. */
int lfs_time_parse(const uint8_t *p, size_t len, uint64_t *out);
#define LFS_TIME_BYTES 30 /* of an entry's time */
/* Writes 30 bytes: 2026-11-23T08:08:53.123456789Z. */
uint8_t *lfs_time_put(uint8_t *out, uint64_t ns);
/* Thousands of entries share a second: the calendar is worked out once for each. Begin with all zeros. */
typedef struct {
    uint64_t next; /* the second after it; 0: none is known */
    uint8_t text[20];
} lfs_second;
uint8_t *lfs_time_put_knowing(lfs_second *known, uint8_t *out, uint64_t ns);
uint8_t *lfs_u64_put(uint8_t *out, uint64_t value);
uint8_t *lfs_hex_put(uint8_t *out, const uint8_t *bytes, size_t len);
/* 0, or -1 when it is not len * 2 lower-case hex digits. */
int lfs_hex_get(const uint8_t *hex, size_t len, uint8_t *out);

extern const char LFS_PAIRS[201]; /* "00" to "99" */

/* The eight digits of a value below 10^8 in a word, as numbers, the first one in its lowest byte: two numbers of four digits are taken apart side by side,
 * then four of two, then eight of one. */
static inline uint64_t lfs_eight_digits(uint32_t value) {
    uint64_t fours = value / 10000 | (uint64_t)(value % 10000) << 32;
    uint64_t hundreds = (fours * 10486 >> 20) & 0x0000007f0000007f, twos = hundreds | (fours - 100 * hundreds) << 16;
    uint64_t tens = (twos * 103 >> 10) & 0x000f000f000f000f;
    return tens | (twos - 10 * tens) << 8;
}
#define LFS_EIGHT_ZEROS 0x3030303030303030u /* as text */

/* lfs_u64_put for a place where 8 bytes are written whatever is needed, as in an entry that is being rendered: how many digits there are decides nothing
 * but where the text ends, so the processor need not guess. */
static inline uint8_t *lfs_u64_put_loose(uint8_t *out, uint64_t value) {
    uint64_t low = value;
    int long_ = value >= 100000000;
    if (long_) {
        if (value >= 10000000000000000) return lfs_u64_put(out, value);
        low = value % 100000000;
        value /= 100000000;
    }
    uint64_t digits = lfs_eight_digits((uint32_t)value);
    unsigned unused = (unsigned)__builtin_ctzll(digits | (uint64_t)1 << 56) & ~7u; /* bits of the zeros in front of it; the last digit stays */
    digits = (digits | LFS_EIGHT_ZEROS) >> unused;
    memcpy(out, &digits, 8);
    out += 8 - unused / 8;
    if (!long_) return out;
    digits = lfs_eight_digits((uint32_t)low) | LFS_EIGHT_ZEROS;
    memcpy(out, &digits, 8);
    return out + 8;
}

/* lfs_amount_put for such a place. */
static inline uint8_t *lfs_amount_put_loose(uint8_t *out, u128 value, unsigned decimals) {
    if (decimals != 2 || value >> 64) return lfs_amount_put(out, value, decimals);
    uint64_t small = (uint64_t)value, whole = small / 100;
    out = lfs_u64_put_loose(out, whole);
    *out = '.';
    memcpy(out + 1, LFS_PAIRS + 2 * (small - 100 * whole), 2);
    return out + 3;
}
#endif
