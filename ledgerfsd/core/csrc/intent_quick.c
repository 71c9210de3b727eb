/* Reading the members of an intent as programs write it, quickly: an index of the quotes first, then one step for each of them.
 *
 * It accepts less than intent.c's walk and gives the same for what it accepts (a property test says so): a short object whose
 * names are known and stand once, whose values are strings, all of printable ASCII without a backslash. */
#include "intent.h"
#ifdef __SSE2__
#include <emmintrin.h>

#define QUICK_BYTES_MAX 512
#define WORDS (QUICK_BYTES_MAX / 64 + 1)

typedef struct {
    uint64_t quotes[WORDS]; /* a bit per byte of the text */
    uint32_t word, n_words;
} quote_index;

/* -1: a byte that is not plain. len is 16 or more. */
static int find_quotes(const uint8_t *text, size_t len, quote_index *index) {
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');
    __m128i odd = _mm_setzero_si128();
    uint32_t n = 0;
    for (size_t at = 0; at < len; at += 64) {
        uint64_t bits = 0;
        for (size_t k = at; k < at + 64 && k < len; k += 16) {
            size_t from = k + 16 <= len ? k : len - 16; /* the last ones overlap */
            __m128i v = _mm_loadu_si128((const __m128i *)(text + from));
            odd = _mm_or_si128(odd, _mm_or_si128(_mm_cmpeq_epi8(v, backslash), _mm_cmplt_epi8(v, space))); /* signed: from 0x80 on they are negative */
            bits |= (uint64_t)((uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, quote)) >> (k - from)) << (k - at);
        }
        index->quotes[n++] = bits;
    }
    index->word = 0;
    index->n_words = n;
    return _mm_movemask_epi8(odd) ? -1 : 0;
}

/* Where the next quote stands; SIZE_MAX when there is none. */
static inline size_t next_quote(quote_index *index) {
    while (!index->quotes[index->word])
        if (++index->word == index->n_words) {
            index->word--;
            return SIZE_MAX;
        }
    uint64_t *bits = &index->quotes[index->word];
    size_t at = 64 * (size_t)index->word + (size_t)__builtin_ctzll(*bits);
    *bits &= *bits - 1;
    return at;
}

static inline size_t skip_spaces(const uint8_t *text, size_t at, size_t len) {
    while (at < len && text[at] == ' ') at++;
    return at;
}

int lfs_intent_quick(const uint8_t *text, const uint8_t *end, lfs_intent *in) {
    size_t len = (size_t)(end - text), at = 1;
    quote_index index;
    uint32_t present = 0;
    if (len < 16 || len > QUICK_BYTES_MAX || find_quotes(text, len, &index)) return -1;
    for (;;) {
        size_t name = next_quote(&index), name_end = next_quote(&index);
        if (name_end == SIZE_MAX || skip_spaces(text, at, len) != name || name_end - name < 2) return -1;
        int field = lfs_field_of(text + name + 1, name_end - name - 1);
        if (field == F_OTHER || present & BIT(field)) return -1;
        at = skip_spaces(text, name_end + 1, len);
        if (at == len || text[at] != ':') return -1;
        size_t value = next_quote(&index), value_end = next_quote(&index);
        if (value_end == SIZE_MAX || skip_spaces(text, at + 1, len) != value) return -1;
        in->f[field] = (lfs_text){text + value, (uint32_t)(value_end + 1 - value)};
        present |= BIT(field);
        at = skip_spaces(text, value_end + 1, len);
        if (at == len) return -1;
        if (text[at] == '}') break;
        if (text[at++] != ',') return -1;
    }
    in->present = present;
    return skip_spaces(text, at + 1, len) == len ? 0 : -1;
}
#else
int lfs_intent_quick(const uint8_t *text, const uint8_t *end, lfs_intent *in) {
    (void)text, (void)end, (void)in;
    return -1;
}
#endif
