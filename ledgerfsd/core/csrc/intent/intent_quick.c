/* Reading the members of an intent as programs write it, quickly: an index of the quotes first, then one step for each of them.
 *
 * It accepts less than intent.c's walk and gives the same for what it accepts (a property test says so): a short object whose
 * names are known and stand once, whose values are strings, all of printable ASCII without a backslash. */
#include "intent.h"
#ifdef __SSE2__
#include <emmintrin.h>

#define QUICK_BYTES_MAX 512

/* Where the quotes stand: how many, or -1 when a byte is not plain. len is 16 or more. */
static int find_quotes(const uint8_t *text, size_t len, uint16_t places[QUICK_BYTES_MAX]) {
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');
    __m128i odd = _mm_setzero_si128();
    int n = 0;
    for (size_t at = 0; at < len; at += 64) {
        uint64_t bits = 0;
        for (size_t k = at; k < at + 64 && k < len; k += 16) {
            size_t from = k + 16 <= len ? k : len - 16; /* the last ones overlap */
            __m128i v = _mm_loadu_si128((const __m128i *)(text + from));
            odd = _mm_or_si128(odd, _mm_or_si128(_mm_cmpeq_epi8(v, backslash), _mm_cmplt_epi8(v, space))); /* signed: from 0x80 on they are negative */
            bits |= (uint64_t)((uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, quote)) >> (k - from)) << (k - at);
        }
        for (; bits; bits &= bits - 1) places[n++] = (uint16_t)(at + (size_t)__builtin_ctzll(bits));
    }
    return _mm_movemask_epi8(odd) ? -1 : n;
}

static inline size_t skip_spaces(const uint8_t *text, size_t at, size_t len) {
    while (at < len && text[at] == ' ') at++;
    return at;
}

int lfs_intent_quick(const uint8_t *text, const uint8_t *end, lfs_intent *in) {
    size_t len = (size_t)(end - text), at = 1;
    uint16_t places[QUICK_BYTES_MAX];
    uint32_t present = 0;
    if (len < 16 || len > QUICK_BYTES_MAX) return -1;
    int n = find_quotes(text, len, places);
    for (int i = 0; i + 4 <= n; i += 4) { /* a member has four */
        size_t name = places[i], name_end = places[i + 1], value = places[i + 2], value_end = places[i + 3];
        if (skip_spaces(text, at, len) != name || name_end - name < 2) return -1;
        int field = lfs_field_of(text + name + 1, name_end - name - 1);
        if (field == F_OTHER || present & BIT(field)) return -1;
        at = skip_spaces(text, name_end + 1, len);
        if (at == len || text[at] != ':' || skip_spaces(text, at + 1, len) != value) return -1;
        in->f[field] = (lfs_text){text + value, (uint32_t)(value_end + 1 - value)};
        present |= BIT(field);
        at = skip_spaces(text, value_end + 1, len);
        if (at == len) return -1;
        if (text[at] == '}') {
            in->present = present;
            return i + 4 == n && skip_spaces(text, at + 1, len) == len ? 0 : -1;
        }
        if (text[at++] != ',') return -1;
    }
    return -1;
}
#else
int lfs_intent_quick(const uint8_t *text, const uint8_t *end, lfs_intent *in) {
    (void)text, (void)end, (void)in;
    return -1;
}
#endif
