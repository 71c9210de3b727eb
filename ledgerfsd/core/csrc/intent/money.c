/* Amounts, dates and times as text. Nothing here rounds: what does not fit is refused. */
#include "money.h"
#include "lfs_codes.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static inline int digit(uint8_t c) { return c >= '0' && c <= '9'; }

#define QUICK_DIGITS 19 /* so many fit 64 bits */

/* The usual amount: not zero digits, a point, not zero digits, and not many of both. Returns 0 when it is another. */
static int quick_amount(const uint8_t *p, size_t len, lfs_amount *out) {
    const uint8_t *end = p + len, *point = NULL;
    uint64_t value = 0;
    if (len < 1 || len > QUICK_DIGITS || !digit(*p) || (*p == '0' && len > 1 && p[1] != '.')) return 0;
    for (; p < end; p++) {
        if (digit(*p)) value = value * 10 + (uint64_t)(*p - '0');
        else if (*p == '.' && !point && p + 1 < end) point = p;
        else return 0;
    }
    out->value = value;
    out->decimals = point ? (uint8_t)(end - point - 1) : 0;
    return 1;
}

int lfs_amount_parse(const uint8_t *p, size_t len, lfs_amount *out) {
    const uint8_t *end = p + len;
    u128 value = 0;
    int overflow = 0;
    unsigned decimals = 0;
    if (quick_amount(p, len, out)) return 0;
    if (p == end || !digit(*p) || (*p == '0' && p + 1 < end && p[1] != '.')) return LFS_BAD_AMOUNT;
    for (; p < end && digit(*p); p++) {
        overflow |= __builtin_mul_overflow(value, (u128)10, &value);
        overflow |= __builtin_add_overflow(value, (u128)(*p - '0'), &value);
    }
    if (p < end) {
        if (*p++ != '.' || p == end) return LFS_BAD_AMOUNT;
        for (; p < end && digit(*p); p++) {
            overflow |= __builtin_mul_overflow(value, (u128)10, &value);
            overflow |= __builtin_add_overflow(value, (u128)(*p - '0'), &value);
            if (decimals < 255) decimals++;
        }
        if (p < end) return LFS_BAD_AMOUNT;
    }
    out->value = overflow ? 0 : value;
    out->decimals = (uint8_t)decimals;
    return overflow ? LFS_AMOUNT_OVERFLOW : 0;
}

__attribute__((noinline)) uint8_t *lfs_copy_long(uint8_t *to, const uint8_t *from, size_t len) { return (uint8_t *)memcpy(to, from, len) + len; }

#define PAIRS(tens) #tens "0" #tens "1" #tens "2" #tens "3" #tens "4" #tens "5" #tens "6" #tens "7" #tens "8" #tens "9"
const char LFS_PAIRS[201] = PAIRS(0) PAIRS(1) PAIRS(2) PAIRS(3) PAIRS(4) PAIRS(5) PAIRS(6) PAIRS(7) PAIRS(8) PAIRS(9);

static const uint64_t POWERS[20] = {
    1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000, 1000000000000, 10000000000000,
    100000000000000, 1000000000000000, 10000000000000000, 100000000000000000, 1000000000000000000, 10000000000000000000u};

static inline unsigned digits_of(uint64_t value) {
    unsigned about = (64u - (unsigned)__builtin_clzll(value | 1)) * 1233 >> 12; /* log 2 is 1233 / 4096, nearly */
    return about + 1 - (value < POWERS[about]) + (value == 0);
}

/* The last n digits of value, zeros in front. */
static inline void put_padded(uint8_t *out, uint64_t value, unsigned n) {
    uint8_t *at = out + n;
    for (; n >= 2; n -= 2, value /= 100) memcpy(at -= 2, LFS_PAIRS + 2 * (value % 100), 2);
    if (n) *--at = (uint8_t)('0' + value % 10);
}

uint8_t *lfs_u64_put(uint8_t *out, uint64_t value) {
    unsigned n = digits_of(value);
    if (n > 8) {
        put_padded(out, value, n);
        return out + n;
    }
    uint64_t digits = (lfs_eight_digits((uint32_t)value) | LFS_EIGHT_ZEROS) >> (64 - 8 * n);
    uint8_t bytes[8];
    memcpy(bytes, &digits, 8);
    return lfs_copy(out, bytes, n);
}

/* More than 64 bits: seldom. */
static uint8_t *put_large(uint8_t *out, u128 value, unsigned decimals) {
    uint8_t digits[64], *end = digits + sizeof digits, *first = end;
    for (; value; value /= 10) *--first = (uint8_t)('0' + (unsigned)(value % 10));
    out = lfs_copy(out, first, (size_t)(end - first) - decimals); /* decimals are at most 18, and there are at least 20 digits */
    if (!decimals) return out;
    *out++ = '.';
    return lfs_copy(out, end - decimals, decimals);
}

uint8_t *lfs_amount_put(uint8_t *out, u128 value, unsigned decimals) {
    if (value >> 64) return put_large(out, value, decimals);
    uint64_t small = (uint64_t)value, whole = decimals == 2 ? small / 100 : small / POWERS[decimals];
    out = lfs_u64_put(out, whole);
    if (!decimals) return out;
    *out++ = '.';
    put_padded(out, small - whole * POWERS[decimals], decimals);
    return out + decimals;
}

/* Days from civil and back, after the proleptic Gregorian calendar with years that begin in March. */
static int32_t days_from_civil(int year, unsigned month, unsigned day) {
    year -= month <= 2;
    int era = (year >= 0 ? year : year - 399) / 400;
    unsigned year_of_era = (unsigned)(year - era * 400);
    unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + (int32_t)day_of_era - 719468;
}

static void civil_from_days(int32_t days, int *year, unsigned *month, unsigned *day) {
    days += 719468;
    int era = (days >= 0 ? days : days - 146096) / 146097;
    unsigned day_of_era = (unsigned)(days - era * 146097);
    unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned m = (5 * day_of_year + 2) / 153;
    *day = day_of_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = (int)year_of_era + era * 400 + (*month <= 2);
}

static int number(const uint8_t *p, int n) {
    int value = 0;
    for (int i = 0; i < n; i++) {
        if (!digit(p[i])) return -1;
        value = value * 10 + (p[i] - '0');
    }
    return value;
}

int32_t lfs_date_parse(const uint8_t *p, size_t len) {
    static const uint8_t month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (len != 10 || p[4] != '-' || p[7] != '-') return LFS_NO_DAY;
    int year = number(p, 4), month = number(p + 5, 2), day = number(p + 8, 2);
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > month_days[month - 1]) return LFS_NO_DAY;
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (month == 2 && day == 29 && !leap) return LFS_NO_DAY;
    return days_from_civil(year, (unsigned)month, (unsigned)day);
}

int lfs_time_parse(const uint8_t *p, size_t len, uint64_t *out) {
    if (len < 20 || p[10] != 'T' || p[13] != ':' || p[16] != ':' || p[len - 1] != 'Z') return -1;
    int32_t day = lfs_date_parse(p, 10);
    int hour = number(p + 11, 2), minute = number(p + 14, 2), second = number(p + 17, 2);
    if (day == LFS_NO_DAY || day < 0 || number(p, 4) > 2199) return -1;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return -1;
    uint64_t ns = 0;
    if (len > 20) {
        if (p[19] != '.' || len < 22 || len > 30) return -1;
        int fraction = number(p + 20, (int)len - 21);
        if (fraction < 0) return -1;
        ns = (uint64_t)fraction;
        for (size_t i = len - 21; i < 9; i++) ns *= 10;
    }
    *out = ((uint64_t)day * 86400 + (uint64_t)(hour * 3600 + minute * 60 + second)) * LFS_NS_PER_S + ns;
    return 0;
}

static uint8_t *put_digits(uint8_t *out, uint32_t value, unsigned n) {
    put_padded(out, value, n);
    return out + n;
}

static void second_put(lfs_second *known, uint64_t second) {
    int year;
    unsigned month, day;
    uint32_t rest = (uint32_t)(second % 86400);
    civil_from_days((int32_t)(second / 86400), &year, &month, &day);
    uint8_t *p = put_digits(known->text, (uint32_t)year, 4);
    *p++ = '-', p = put_digits(p, month, 2);
    *p++ = '-', p = put_digits(p, day, 2);
    *p++ = 'T', p = put_digits(p, rest / 3600, 2);
    *p++ = ':', p = put_digits(p, rest / 60 % 60, 2);
    *p++ = ':', p = put_digits(p, rest % 60, 2);
    *p = '.';
    known->next = second + 1;
}

uint8_t *lfs_time_put_knowing(lfs_second *known, uint8_t *out, uint64_t ns) {
    uint64_t second = ns / LFS_NS_PER_S;
    uint32_t rest = (uint32_t)(ns - second * LFS_NS_PER_S);
    uint64_t digits = lfs_eight_digits(rest % 100000000) | LFS_EIGHT_ZEROS;
    if (second + 1 != known->next) second_put(known, second);
    memcpy(out, known->text, 20);
    out[20] = (uint8_t)('0' + rest / 100000000);
    memcpy(out + 21, &digits, 8);
    out[29] = 'Z';
    return out + 30;
}

uint8_t *lfs_time_put(uint8_t *out, uint64_t ns) {
    static __thread lfs_second known;
    return lfs_time_put_knowing(&known, out, ns);
}

uint8_t *lfs_hex_put(uint8_t *out, const uint8_t *bytes, size_t len) {
    static const char digits[] = "0123456789abcdef";
#ifdef __SSE2__
    const __m128i low = _mm_set1_epi8(15), nine = _mm_set1_epi8(9), zero = _mm_set1_epi8('0'), letter = _mm_set1_epi8('a' - '0' - 10);
    for (; len >= 16; len -= 16, bytes += 16, out += 32) {
        __m128i v = _mm_loadu_si128((const __m128i *)bytes), high = _mm_and_si128(_mm_srli_epi16(v, 4), low);
        v = _mm_and_si128(v, low);
        __m128i pairs[2] = {_mm_unpacklo_epi8(high, v), _mm_unpackhi_epi8(high, v)};
        for (int i = 0; i < 2; i++) {
            __m128i more = _mm_and_si128(_mm_cmpgt_epi8(pairs[i], nine), letter);
            _mm_storeu_si128((__m128i *)(out + 16 * i), _mm_add_epi8(_mm_add_epi8(pairs[i], zero), more));
        }
    }
#endif
    for (size_t i = 0; i < len; i++) {
        *out++ = (uint8_t)digits[bytes[i] >> 4];
        *out++ = (uint8_t)digits[bytes[i] & 15];
    }
    return out;
}

static int nibble(uint8_t c) {
    if (digit(c)) return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int lfs_hex_get(const uint8_t *hex, size_t len, uint8_t *out) {
    for (size_t i = 0; i < len; i++) {
        int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
        if (high < 0 || low < 0) return -1;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
