/* Is a text in canonical form already? One pass, for replay: names must rise, so there is nothing to remember and nothing to rewrite. The
 * same answer as judging the text, writing its canonical form and comparing (a property test says so). */
#include "lfs_json.h"
#include "json_names.h"
#include <string.h>

/* A string as RFC 8785 writes it: only the escapes that must be, in the form that must be. */
static const uint8_t *string(const uint8_t *p, const uint8_t *end) {
    lfs_json_error err;
    int simple;
    const uint8_t *after = p < end && *p == '"' ? lfs_json_string(p, p, end, &simple, &err) : NULL;
    if (!after || simple) return after;
    for (const uint8_t *q = p + 1; q < after - 1; q++) {
        if (*q != '\\') continue;
        q++;
        if (strchr("\"\\bfnrt", *q)) continue;
        /* \u00xx, lower case, for control characters that have no short form */
        if (*q != 'u' || memcmp(q + 1, "00", 2) != 0 || (q[3] != '0' && q[3] != '1')) return NULL;
        if (!(q[4] >= '0' && q[4] <= '9') && !(q[4] >= 'a' && q[4] <= 'f')) return NULL;
        if (q[3] == '0' && strchr("89acd", q[4])) return NULL;
        q += 4;
    }
    return after;
}

static const uint8_t *value(const uint8_t *p, const uint8_t *end, int depth);

static const uint8_t *object(const uint8_t *p, const uint8_t *end, int depth) {
    const uint8_t *before = NULL;
    if (++p < end && *p == '}') return p + 1;
    for (;;) {
        const uint8_t *name = p;
        if (!(p = string(p, end)) || p >= end || *p != ':') return NULL;
        if (before && lfs_json_token_order(before, name) >= 0) return NULL;
        before = name;
        if (!(p = value(p + 1, end, depth + 1)) || p >= end) return NULL;
        if (*p == '}') return p + 1;
        if (*p++ != ',') return NULL;
    }
}

static const uint8_t *array(const uint8_t *p, const uint8_t *end, int depth) {
    if (++p < end && *p == ']') return p + 1;
    for (;;) {
        if (!(p = value(p, end, depth + 1)) || p >= end) return NULL;
        if (*p == ']') return p + 1;
        if (*p++ != ',') return NULL;
    }
}

static const uint8_t *value(const uint8_t *p, const uint8_t *end, int depth) {
    lfs_json_error err;
    if (p >= end) return NULL;
    if (*p == '"') return string(p, end);
    if ((*p == '{' || *p == '[') && depth > LFS_JSON_DEPTH_MAX) return NULL;
    if (*p == '{') return object(p, end, depth);
    if (*p == '[') return array(p, end, depth);
    return lfs_json_value(p, p, end, depth, &err); /* numbers and literals have one form each */
}

const uint8_t *lfs_json_form(const uint8_t *p, const uint8_t *end, int depth) { return value(p, end, depth); }

int lfs_json_is_canonical(const uint8_t *text, size_t len, int wrapped) { return value(text, text + len, 1 - wrapped) == text + len; }
