/* The canonical form (RFC 8785 as restricted by docs/FORMAT.md, section 2) of texts that json.c accepted, the order of
 * names, strings, and the scanner for streams. Nothing here judges: a text that was not accepted must not come here. */
#include "lfs_json.h"

#include <string.h>

#include "json_names.h"

/* ---- characters */

static uint32_t hex4(const uint8_t *p) {
    uint32_t n = 0;
    for (int i = 0; i < 4; i++) n = n << 4 | (uint32_t)(p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
    return n;
}

static uint32_t unescaped(uint8_t letter) {
    switch (letter) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return letter;
    }
}

/* The next character of a string token, escaped or not, and the byte after it; -1 at the closing quote. */
static int32_t next_char(const uint8_t **at) {
    const uint8_t *p = *at;
    uint32_t c = *p;
    if (c == '"') return -1;
    if (c == '\\' && p[1] != 'u') {
        c = unescaped(p[1]), p += 2;
    } else if (c == '\\') {
        c = hex4(p + 2), p += 6;
        if (c >= 0xD800 && c <= 0xDBFF) c = 0x10000 + ((c - 0xD800) << 10) + (hex4(p + 2) - 0xDC00), p += 6;
    } else if (c < 0x80) {
        p += 1;
    } else if (c < 0xE0) {
        c = (c & 0x1F) << 6 | (p[1] & 0x3F), p += 2;
    } else if (c < 0xF0) {
        c = (c & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F), p += 3;
    } else {
        c = (c & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F), p += 4;
    }
    *at = p;
    return (int32_t)c;
}

static uint8_t *put_utf8(uint8_t *out, uint32_t c) {
    if (c < 0x80) {
        *out++ = (uint8_t)c;
        return out;
    }
    if (c < 0x800) {
        *out++ = (uint8_t)(0xC0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *out++ = (uint8_t)(0xE0 | c >> 12);
        } else {
            *out++ = (uint8_t)(0xF0 | c >> 18);
            *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3F));
        }
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    }
    *out++ = (uint8_t)(0x80 | (c & 0x3F));
    return out;
}

/* One of the characters that RFC 8785 escapes. */
static uint8_t *put_escape(uint8_t *out, uint32_t c) {
    static const char hex[] = "0123456789abcdef";
    *out++ = '\\';
    switch (c) {
    case '"': case '\\': *out++ = (uint8_t)c; return out;
    case '\b': *out++ = 'b'; return out;
    case '\f': *out++ = 'f'; return out;
    case '\n': *out++ = 'n'; return out;
    case '\r': *out++ = 'r'; return out;
    case '\t': *out++ = 't'; return out;
    }
    memcpy(out, "u00", 3);
    out[3] = (uint8_t)hex[c >> 4];
    out[4] = (uint8_t)hex[c & 15];
    return out + 5;
}

static int needs_escape(uint32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

/* ---- strings */

size_t lfs_json_unescape(const uint8_t *tok, const uint8_t *tok_end, uint8_t *out) {
    const uint8_t *p = tok + 1, *end = tok_end - 1;
    uint8_t *o = out;
    while (p < end) {
        if (*p == '\\') o = put_utf8(o, (uint32_t)next_char(&p));
        else *o++ = *p++;
    }
    return (size_t)(o - out);
}

uint8_t *lfs_json_put_string(uint8_t *out, const uint8_t *bytes, size_t len) {
    *out++ = '"';
    for (size_t i = 0; i < len; i++) {
        if (needs_escape(bytes[i])) out = put_escape(out, bytes[i]);
        else *out++ = bytes[i];
    }
    *out++ = '"';
    return out;
}

const uint8_t *lfs_json_skip_string(const uint8_t *token) {
    const uint8_t *p = token + 1;
    while (*p != '"') p += *p == '\\' ? 2 : 1;
    return p + 1;
}

/* A string token in canonical form; returns the byte after the token. */
static const uint8_t *write_string(const uint8_t *token, uint8_t **out) {
    const uint8_t *p = token + 1;
    uint8_t *o = *out;
    *o++ = '"';
    while (*p != '"') {
        if (*p != '\\') {
            *o++ = *p++;
            continue;
        }
        uint32_t c = (uint32_t)next_char(&p);
        o = needs_escape(c) ? put_escape(o, c) : put_utf8(o, c);
    }
    *o++ = '"';
    *out = o;
    return p + 1;
}

/* ---- the order of names */

/* Code points are in the order of UTF-16 code units, but U+E000 to U+FFFF come after all that need surrogates. */
static int32_t rank(int32_t c) { return c >= 0xE000 && c <= 0xFFFF ? c + 0x200000 : c; }

int lfs_json_token_order(const uint8_t *a, const uint8_t *b) {
    a++, b++;
    for (;;) {
        int32_t x = next_char(&a), y = next_char(&b);
        if (x != y) return rank(x) < rank(y) ? -1 : 1;
        if (x < 0) return 0;
    }
}

int lfs_json_name_order(const uint8_t *a, size_t alen, const uint8_t *b, size_t blen) {
    size_t common = alen < blen ? alen : blen;
    for (size_t i = 0; i < common; i++) {
        int x = a[i], y = b[i];
        if (x == y) continue;
        /* lead bytes EE and EF begin U+E000 to U+FFFF: after the F0 to F4 of those that need surrogates */
        x += (x == 0xEE || x == 0xEF) ? 0x10 : 0;
        y += (y == 0xEE || y == 0xEF) ? 0x10 : 0;
        return x - y;
    }
    return alen < blen ? -1 : alen > blen;
}

/* Equal names stay in the order in which they were written. */
static int before(const uint8_t *base, uint32_t a, uint32_t b) {
    int order = lfs_json_token_order(base + a, base + b);
    return order < 0 || (order == 0 && a < b);
}

static void sift_down(const uint8_t *base, uint32_t *names, uint32_t root, uint32_t n) {
    uint32_t moving = names[root];
    for (;;) {
        uint32_t child = 2 * root + 1;
        if (child >= n) break;
        if (child + 1 < n && before(base, names[child], names[child + 1])) child++;
        if (!before(base, moving, names[child])) break;
        names[root] = names[child];
        root = child;
    }
    names[root] = moving;
}

/* Heap sort: whoever chooses the names cannot make it quadratic. */
static void heap_sort(const uint8_t *base, uint32_t *names, uint32_t n) {
    for (uint32_t i = n / 2; i-- > 0;) sift_down(base, names, i, n);
    for (uint32_t last = n - 1; last > 0; last--) {
        uint32_t largest = names[0];
        names[0] = names[last];
        names[last] = largest;
        sift_down(base, names, 0, last);
    }
}

/* For few names, and those that are in order already. */
static void insertion_sort(const uint8_t *base, uint32_t *names, uint32_t n) {
    for (uint32_t i = 1; i < n; i++) {
        uint32_t moving = names[i], k = i;
        for (; k > 0 && before(base, moving, names[k - 1]); k--) names[k] = names[k - 1];
        names[k] = moving;
    }
}

uint32_t lfs_json_sort_names(const uint8_t *base, uint32_t *names, uint32_t n) {
    uint32_t repeated = LFS_JSON_NO_NAME;
    if (n <= 16) insertion_sort(base, names, n);
    else heap_sort(base, names, n);
    for (uint32_t i = 1; i < n; i++) {
        if (names[i] < repeated && lfs_json_token_order(base + names[i - 1], base + names[i]) == 0) repeated = names[i];
    }
    return repeated;
}

/* ---- walking */

/* The byte after a value. */
static const uint8_t *skip_value(const uint8_t *p, const uint8_t *end) {
    int depth = 0;
    if (*p != '"' && *p != '{' && *p != '[') {
        while (p < end && *p != ',' && *p != '}' && *p != ']' && *p > ' ') p++;
        return p;
    }
    do {
        switch (*p) {
        case '"': p = lfs_json_skip_string(p); continue;
        case '{': case '[': depth++; break;
        case '}': case ']': depth--; break;
        }
        p++;
    } while (depth > 0);
    return p;
}

/* From the name of a member to its value. */
static const uint8_t *value_of(const uint8_t *name, const uint8_t *end) {
    return lfs_json_space(lfs_json_space(lfs_json_skip_string(name), end) + 1, end);
}

const uint8_t *lfs_json_next_name(const uint8_t *name, const uint8_t *end) {
    const uint8_t *p = lfs_json_space(skip_value(value_of(name, end), end), end);
    return *p == ',' ? lfs_json_space(p + 1, end) : NULL;
}

/* ---- the canonical form */

typedef struct {
    const uint8_t *base;
    const uint8_t *end;
    uint8_t *out;
    uint32_t count; /* names of all objects that are open */
    uint32_t names[LFS_JSON_NAMES];
} writer;

static const uint8_t *write_value(writer *w, const uint8_t *p);

/* Returns the byte after the member. */
static const uint8_t *write_member(writer *w, const uint8_t *name, int first) {
    if (!first) *w->out++ = ',';
    write_string(name, &w->out);
    *w->out++ = ':';
    return write_value(w, value_of(name, w->end));
}

/* When there is no room to note the names: each time the smallest that is greater than the last one written. */
static void write_by_selection(writer *w, const uint8_t *first) {
    const uint8_t *last = NULL;
    for (;;) {
        const uint8_t *best = NULL;
        for (const uint8_t *name = first; name; name = lfs_json_next_name(name, w->end)) {
            if (last && lfs_json_token_order(name, last) <= 0) continue;
            if (!best || lfs_json_token_order(name, best) < 0) best = name;
        }
        if (!best) return;
        write_member(w, best, last == NULL);
        last = best;
    }
}

static void write_object(writer *w, const uint8_t *first) {
    uint32_t before = w->count;
    const uint8_t *name = first;
    for (; name && w->count < LFS_JSON_NAMES; name = lfs_json_next_name(name, w->end)) {
        w->names[w->count++] = (uint32_t)(name - w->base);
    }
    if (name) {
        w->count = before;
        write_by_selection(w, first);
        return;
    }
    uint32_t n = w->count - before;
    lfs_json_sort_names(w->base, w->names + before, n);
    for (uint32_t i = 0; i < n; i++) write_member(w, w->base + w->names[before + i], i == 0);
    w->count = before;
}

static const uint8_t *write_array(writer *w, const uint8_t *p) {
    *w->out++ = '[';
    p = lfs_json_space(p + 1, w->end);
    while (*p != ']') {
        p = lfs_json_space(write_value(w, p), w->end);
        if (*p == ',') {
            *w->out++ = ',';
            p = lfs_json_space(p + 1, w->end);
        }
    }
    *w->out++ = ']';
    return p + 1;
}

static const uint8_t *write_value(writer *w, const uint8_t *p) {
    const uint8_t *after;
    switch (*p) {
    case '"': return write_string(p, &w->out);
    case '[': return write_array(w, p);
    case '{':
        after = lfs_json_space(p + 1, w->end);
        *w->out++ = '{';
        if (*after != '}') write_object(w, after);
        *w->out++ = '}';
        return skip_value(p, w->end);
    default:
        after = skip_value(p, w->end);
        memcpy(w->out, p, (size_t)(after - p));
        w->out += after - p;
        return after;
    }
}

long lfs_json_canonical(const uint8_t *value, size_t len, uint8_t *out, size_t out_cap) {
    if (out_cap < len) return -1;
    writer w; /* not `= {…}`, which would clear 64 KiB */
    w.base = value, w.end = value + len, w.out = out, w.count = 0;
    write_value(&w, lfs_json_space(value, w.end));
    return (long)(w.out - out);
}

/* ---- streams */

long lfs_json_scan_feed(lfs_json_scan *s, const uint8_t *bytes, size_t len) {
    const uint8_t *p = bytes, *end = bytes + len;
    if (s->done) return 0;
    if (!s->begun) {
        p = lfs_json_space(p, end);
        if (p < end && *p != '{' && *p != '[') return -1;
        s->begun = p < end;
    }
    for (; p < end; p++) {
        uint8_t c = *p;
        if (s->in_string) {
            if (s->escaped) s->escaped = 0;
            else if (c == '\\') s->escaped = 1;
            else if (c == '"') s->in_string = 0;
        } else if (c == '"') {
            s->in_string = 1;
        } else if (c == '{' || c == '[') {
            s->depth++;
        } else if ((c == '}' || c == ']') && --s->depth == 0) {
            s->done = 1;
            return (long)(p + 1 - bytes);
        }
    }
    return (long)len;
}
