/* Strict JSON (docs/FORMAT.md, section 2). No allocation; recursion is bounded by LFS_JSON_DEPTH_MAX.
 * The pure-Python twin is ledgerfsd/core/pure/canonical.py: it must give the same code and offset for every text.
 *
 * Offsets of offences, in bytes from the beginning of the text:
 *   empty, incomplete          the end of the text
 *   bad_utf8                   the first byte of the bad sequence, or the backslash of the unpaired surrogate
 *   bad_json                   the byte that may not stand there
 *   too_deep                   the bracket
 *   duplicate_key, bad_number  the byte after the second name (its closing quote included), or after the number
 *
 * Texts are judged at any length. Up to LFS_JSON_NAMES members in the objects that are open at once (no intent can
 * have more) sorting finds duplicates and the canonical order, in n log n; beyond that both are right but quadratic. */
#ifndef LFS_JSON_H
#define LFS_JSON_H
#include <stddef.h>
#include <stdint.h>

/* cffi-begin */
typedef struct {
    int32_t code;    /* a number of codes.tsv: 10..18, or 0 */
    uint32_t offset; /* byte offset of the offence from the beginning of the text */
} lfs_json_error;

/* Judge a whole text: one JSON value of any kind with white space around it. Returns 0 or the code (never not_an_object,
 * never too_large); *begin and *end delimit the value. */
int lfs_json_check(const uint8_t *text, size_t len, size_t *begin, size_t *end, lfs_json_error *err);
/* RFC 8785 form of a text that lfs_json_check accepted. Returns its length, or -1 when out_cap < len.
 * Nothing grows: a number or literal stays, white space goes, and an escape becomes at most as long as it was written
 * (the longest that stays is \u00xx). So the form is never longer than the text, and len bytes are always enough. */
long lfs_json_canonical(const uint8_t *value, size_t len, uint8_t *out, size_t out_cap);

/* 1 when the text is one value in canonical form, nothing before or after it; else 0. wrapped: 1 for a value that holds an intent
 * (a rejection), which may be one level deeper. */
int lfs_json_is_canonical(const uint8_t *text, size_t len, int wrapped);

/* Finds where the first top-level object or array of a stream ends, without judging it. Begin with all zeros. */
typedef struct {
    uint32_t depth;
    uint8_t in_string, escaped, begun, done;
} lfs_json_scan;
/* Feed len bytes. Returns the number of bytes consumed: all of them, or up to and including the closing bracket (then done = 1;
 * nothing more is consumed after that). Returns -1 when the first byte that is not white space is neither '{' nor '['. */
long lfs_json_scan_feed(lfs_json_scan *s, const uint8_t *bytes, size_t len);

/* Unescape a string token that lfs_json_string accepted (quotes included in [tok, tok_end)) into out (room for its token length);
 * returns the length. */
size_t lfs_json_unescape(const uint8_t *tok, const uint8_t *tok_end, uint8_t *out);
/* Write bytes (valid UTF-8) as a canonical JSON string, quotes included; returns the end (room for 6 * len + 2 needed). */
uint8_t *lfs_json_put_string(uint8_t *out, const uint8_t *bytes, size_t len);
/* Order of two member names (unescaped UTF-8) by UTF-16 code units: < 0, 0, > 0. */
int lfs_json_name_order(const uint8_t *a, size_t alen, const uint8_t *b, size_t blen);
/* How many bytes of a text are line feeds. */
size_t lfs_newlines(const uint8_t *text, size_t len);
/* cffi-end */

#define LFS_JSON_DEPTH_MAX 16
/* A member takes 5 bytes or more (`"":0,`), so an intent of 49,152 bytes has fewer. 64 KiB of stack. */
#define LFS_JSON_NAMES 16384

/* Parser pieces for the intent parser. All take p < end and return the first byte after what they read,
 * or NULL with *err filled (offset relative to `base`). `depth` is the level of the value about to be read (1 = outermost). */
const uint8_t *lfs_json_value(const uint8_t *base, const uint8_t *p, const uint8_t *end, int depth, lfs_json_error *err);
/* p points at the opening quote. *simple is set to 1 when the string has no escape and needs none in canonical form,
 * so that its raw bytes are its canonical bytes; else to 0. */
const uint8_t *lfs_json_string(const uint8_t *base, const uint8_t *p, const uint8_t *end, int *simple, lfs_json_error *err);
/* The byte after a value in canonical form, or NULL when it is none. */
const uint8_t *lfs_json_form(const uint8_t *p, const uint8_t *end, int depth);
static inline const uint8_t *lfs_json_space(const uint8_t *p, const uint8_t *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}
#endif
