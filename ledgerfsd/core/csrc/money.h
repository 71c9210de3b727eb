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
    } else {
        for (size_t i = 0; i < len; i++) to[i] = from[i];
    }
    return to + len;
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
/* Writes 30 bytes: 2026-11-23T08:08:53.123456789Z. */
uint8_t *lfs_time_put(uint8_t *out, uint64_t ns);
uint8_t *lfs_u64_put(uint8_t *out, uint64_t value);
uint8_t *lfs_hex_put(uint8_t *out, const uint8_t *bytes, size_t len);
/* 0, or -1 when it is not len * 2 lower-case hex digits. */
int lfs_hex_get(const uint8_t *hex, size_t len, uint8_t *out);
#endif
