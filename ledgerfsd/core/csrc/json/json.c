/* The judge: strict JSON, one pass from left to right (docs/FORMAT.md, section 2).
 * Start at lfs_json_check; json_canonical.c rewrites what was accepted. */
#include "lfs_json.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "json_names.h"
#include "lfs_codes.h"

typedef struct {
    const uint8_t *base; /* offsets count from here */
    const uint8_t *end;
    lfs_json_error *err;
    uint32_t count;                 /* names of all objects that are open, the outermost first */
    uint32_t names[LFS_JSON_NAMES]; /* their offsets; not initialised */
} judge;

static const uint8_t *fail(lfs_json_error *err, const uint8_t *base, int code, const uint8_t *at) {
    err->code = code;
    err->offset = (uint32_t)(at - base);
    return NULL;
}

static const uint8_t *refuse(const judge *j, int code, const uint8_t *at) { return fail(j->err, j->base, code, at); }

/* ---- strings */

/* The first byte that is not plain: a quote, a backslash, a control character or not ASCII. */
static const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end) {
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        /* signed: bytes from 0x80 are negative, so one comparison finds them and the control characters */
        __m128i special = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash));
        special = _mm_or_si128(special, _mm_cmplt_epi8(v, space));
        unsigned mask = (unsigned)_mm_movemask_epi8(special);
        if (mask) return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') p++;
    return p;
}

/* One character of two to four bytes, by the table of RFC 3629, section 4. */
static const uint8_t *multibyte(const uint8_t *base, const uint8_t *p, const uint8_t *end, lfs_json_error *err) {
    uint8_t lead = *p, low = 0x80, high = 0xBF;
    if (lead < 0xC2 || lead > 0xF4) return fail(err, base, LFS_BAD_UTF8, p);
    int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    if (lead == 0xE0) low = 0xA0;  /* overlong */
    if (lead == 0xED) high = 0x9F; /* surrogates */
    if (lead == 0xF0) low = 0x90;  /* overlong */
    if (lead == 0xF4) high = 0x8F; /* above U+10FFFF */
    for (int i = 1; i <= more; i++) {
        if (p + i == end) return fail(err, base, LFS_INCOMPLETE, end);
        if (p[i] < low || p[i] > high) return fail(err, base, LFS_BAD_UTF8, p);
        low = 0x80, high = 0xBF;
    }
    return p + more + 1;
}

/* The four digits after `\u`; p points at the backslash. */
static const uint8_t *hex_escape(const uint8_t *base, const uint8_t *p, const uint8_t *end, uint32_t *unit, lfs_json_error *err) {
    *unit = 0;
    for (int i = 2; i < 6; i++) {
        if (p + i == end) return fail(err, base, LFS_INCOMPLETE, end);
        uint8_t c = p[i], letter = c | 0x20;
        if (c >= '0' && c <= '9') *unit = *unit << 4 | (uint32_t)(c - '0');
        else if (letter >= 'a' && letter <= 'f') *unit = *unit << 4 | (uint32_t)(letter - 'a' + 10);
        else return fail(err, base, LFS_BAD_JSON, p + i);
    }
    return p + 6;
}

static const uint8_t *escape(const uint8_t *base, const uint8_t *p, const uint8_t *end, lfs_json_error *err) {
    if (p + 1 == end) return fail(err, base, LFS_INCOMPLETE, end);
    switch (p[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't': return p + 2;
    case 'u': break;
    default: return fail(err, base, LFS_BAD_JSON, p + 1);
    }
    uint32_t unit;
    const uint8_t *next = hex_escape(base, p, end, &unit, err);
    if (!next || unit < 0xD800 || unit > 0xDFFF) return next;
    if (unit >= 0xDC00) return fail(err, base, LFS_BAD_UTF8, p);
    /* a high surrogate: only a whole low one may follow. An escape is judged when it is whole, hence this order */
    if (next == end) return fail(err, base, LFS_INCOMPLETE, end);
    if (*next != '\\') return fail(err, base, LFS_BAD_UTF8, p);
    if (next + 1 == end) return fail(err, base, LFS_INCOMPLETE, end);
    if (next[1] != 'u') return fail(err, base, LFS_BAD_UTF8, p);
    next = hex_escape(base, next, end, &unit, err);
    if (next && (unit < 0xDC00 || unit > 0xDFFF)) return fail(err, base, LFS_BAD_UTF8, p);
    return next;
}

const uint8_t *lfs_json_string(const uint8_t *base, const uint8_t *p, const uint8_t *end, int *simple, lfs_json_error *err) {
    *simple = 1;
    p++;
    while (p) {
        p = skip_plain(p, end);
        if (p == end) return fail(err, base, LFS_INCOMPLETE, end);
        if (*p == '"') return p + 1;
        if (*p == '\\') {
            *simple = 0;
            p = escape(base, p, end, err);
        } else if (*p < 0x20) {
            return fail(err, base, LFS_BAD_JSON, p);
        } else {
            p = multibyte(base, p, end, err);
        }
    }
    return NULL;
}

/* ---- numbers and literals */

static int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* One or more digits. */
static const uint8_t *digits(const judge *j, const uint8_t *p) {
    if (p == j->end) return refuse(j, LFS_INCOMPLETE, p);
    if (!is_digit(*p)) return refuse(j, LFS_BAD_JSON, p);
    while (p < j->end && is_digit(*p)) p++;
    return p;
}

/* No leading zeros, so 16 digits at most can be below 2^53. */
static int is_small_integer(const uint8_t *p, const uint8_t *end) {
    int negative = *p == '-';
    p += negative;
    if (end - p > 16 || (negative && *p == '0')) return 0;
    uint64_t n = 0;
    while (p < end) n = n * 10 + (uint64_t)(*p++ - '0');
    return n < (uint64_t)1 << 53;
}

static const uint8_t *number(const judge *j, const uint8_t *first, int depth) {
    const uint8_t *p = first;
    int integer = 1;
    if (*p == '-') p++;
    if (p < j->end && *p == '0') p++;
    else if (!(p = digits(j, p))) return NULL;
    if (p < j->end && *p == '.') {
        integer = 0;
        if (!(p = digits(j, p + 1))) return NULL;
    }
    if (p < j->end && (*p == 'e' || *p == 'E')) {
        integer = 0;
        p++;
        if (p < j->end && (*p == '+' || *p == '-')) p++;
        if (!(p = digits(j, p))) return NULL;
    }
    /* inside a bracket the number has not ended yet, and is judged at its end */
    if (p == j->end && depth > 1) return refuse(j, LFS_INCOMPLETE, p);
    if (!integer || !is_small_integer(first, p)) return refuse(j, LFS_BAD_NUMBER, p);
    return p;
}

static const uint8_t *literal(const judge *j, const uint8_t *p, const char *word) {
    for (; *word; word++, p++) {
        if (p == j->end) return refuse(j, LFS_INCOMPLETE, p);
        if (*p != (uint8_t)*word) return refuse(j, LFS_BAD_JSON, p);
    }
    return p;
}

/* ---- objects and arrays */

static const uint8_t *value(judge *j, const uint8_t *p, int depth);

/* White space, then a byte that must be there. */
static const uint8_t *token(const judge *j, const uint8_t *p) {
    p = lfs_json_space(p, j->end);
    return p == j->end ? refuse(j, LFS_INCOMPLETE, p) : p;
}

/* Does an object, whose first name is `first`, name this member before? For when there is no room left to note names. */
static int named_before(const uint8_t *first, const uint8_t *name) {
    for (const uint8_t *p = first; p && p < name; p = lfs_json_next_name(p, name)) {
        if (lfs_json_token_order(p, name) == 0) return 1;
    }
    return 0;
}

/* A member, from its name on; returns the byte after its value. */
static const uint8_t *member(judge *j, const uint8_t *first, const uint8_t *name, int depth) {
    int simple;
    if (*name != '"') return refuse(j, LFS_BAD_JSON, name);
    const uint8_t *p = lfs_json_string(j->base, name, j->end, &simple, j->err);
    if (!p) return NULL;
    if (j->count < LFS_JSON_NAMES) j->names[j->count++] = (uint32_t)(name - j->base);
    else if (named_before(first, name)) return refuse(j, LFS_DUPLICATE_KEY, p);
    if (!(p = token(j, p))) return NULL;
    if (*p != ':') return refuse(j, LFS_BAD_JSON, p);
    if (!(p = token(j, p + 1))) return NULL;
    return value(j, p, depth + 1);
}

static const uint8_t *members(judge *j, const uint8_t *p, int depth) {
    if (!(p = token(j, p + 1))) return NULL;
    if (*p == '}') return p + 1;
    const uint8_t *first = p;
    for (;;) {
        if (!(p = member(j, first, p, depth))) return NULL;
        if (!(p = token(j, p))) return NULL;
        if (*p == '}') return p + 1;
        if (*p != ',') return refuse(j, LFS_BAD_JSON, p);
        if (!(p = token(j, p + 1))) return NULL;
    }
}

/* Duplicate names are looked for when the object ends or fails. Every name noted here stands before the offence that
 * ended it, so a duplicate among them is the earlier offence and takes its place. */
static const uint8_t *object(judge *j, const uint8_t *p, int depth) {
    uint32_t before = j->count;
    p = members(j, p, depth);
    if (j->count - before > 1) {
        uint32_t second = lfs_json_sort_names(j->base, j->names + before, j->count - before);
        if (second != LFS_JSON_NO_NAME) p = refuse(j, LFS_DUPLICATE_KEY, lfs_json_skip_string(j->base + second));
    }
    j->count = before;
    return p;
}

static const uint8_t *array(judge *j, const uint8_t *p, int depth) {
    if (!(p = token(j, p + 1))) return NULL;
    if (*p == ']') return p + 1;
    for (;;) {
        if (!(p = value(j, p, depth + 1))) return NULL;
        if (!(p = token(j, p))) return NULL;
        if (*p == ']') return p + 1;
        if (*p != ',') return refuse(j, LFS_BAD_JSON, p);
        if (!(p = token(j, p + 1))) return NULL;
    }
}

static const uint8_t *value(judge *j, const uint8_t *p, int depth) {
    int simple;
    switch (*p) {
    case '"': return lfs_json_string(j->base, p, j->end, &simple, j->err);
    case '{':
    case '[':
        if (depth > LFS_JSON_DEPTH_MAX) return refuse(j, LFS_TOO_DEEP, p);
        return *p == '{' ? object(j, p, depth) : array(j, p, depth);
    case 't': return literal(j, p, "true");
    case 'f': return literal(j, p, "false");
    case 'n': return literal(j, p, "null");
    case '-': return number(j, p, depth);
    default: return is_digit(*p) ? number(j, p, depth) : refuse(j, LFS_BAD_JSON, p);
    }
}

const uint8_t *lfs_json_value(const uint8_t *base, const uint8_t *p, const uint8_t *end, int depth, lfs_json_error *err) {
    judge j; /* not `= {…}`, which would clear 64 KiB for every value */
    j.base = base, j.end = end, j.err = err, j.count = 0;
    return value(&j, p, depth);
}

int lfs_json_check(const uint8_t *text, size_t len, size_t *begin, size_t *end, lfs_json_error *err) {
    const uint8_t *limit = text + len, *first = lfs_json_space(text, limit), *p;
    err->code = 0, err->offset = 0;
    *begin = *end = (size_t)(first - text);
    if (first == limit) {
        fail(err, text, LFS_EMPTY, limit);
        return err->code;
    }
    p = lfs_json_value(text, first, limit, 1, err);
    if (!p) return err->code;
    *end = (size_t)(p - text);
    p = lfs_json_space(p, limit);
    if (p != limit) fail(err, text, LFS_BAD_JSON, p);
    return err->code;
}

#define NEWLINE_LANES 64 /* bytes side by side, each with a counter of its own, which is emptied before it runs over */

size_t lfs_newlines(const uint8_t *text, size_t len) {
    size_t n = 0, at = 0;
    while (len - at >= NEWLINE_LANES) {
        uint8_t lanes[NEWLINE_LANES] = {0};
        for (int round = 0; round < 255 && len - at >= NEWLINE_LANES; round++, at += NEWLINE_LANES)
            for (int i = 0; i < NEWLINE_LANES; i++) lanes[i] += text[at + (size_t)i] == '\n';
        for (int i = 0; i < NEWLINE_LANES; i++) n += lanes[i];
    }
    for (; at < len; at++) n += text[at] == '\n';
    return n;
}
