/* Transfers of the shape of one before: programs write the same members in the same order, line after line.
 *
 * What stands between the values of such a line is known then, and is compared at once, up to 64 bytes at a time; so is each value, against
 * what may stand in it, and the canonical form is put together from ready-made pieces. It takes less than the other ways (intent.c, judge.c)
 * and gives the same for what it takes: only transfers, and only those without fault. tests/property/test_intent_shape.py says so, of every
 * byte of a line. Needs AVX-512 (F, VL, BW, DQ), and says "not taken" without it. */
#include "intent.h"
#ifdef __x86_64__
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,bmi,bmi2,popcnt")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define LINE_BYTES_MAX 256 /* numbers of quotes fit a byte */
#define LEARN_EVERY 8      /* lines that were not taken: where lines differ, learning each would cost more than it brings */

/* What a byte of ASCII may stand in. */
enum { IN_NAME = 1, FIRST_OF_NAME = 2, IN_ID = 4, FIRST_OF_ID = 8, IN_TEXT = 16, IN_CURRENCY = 32, FIRST_OF_CURRENCY = 64, IN_AMOUNT = 128 };
#define MARK (IN_ID | FIRST_OF_ID | IN_TEXT)
#define LETTER (MARK | IN_NAME | FIRST_OF_NAME)
static const uint8_t KINDS[128] = {
    [' '] = IN_TEXT, ['!'] = MARK, ['#' ... ','] = MARK, ['-'] = MARK | IN_NAME, ['.'] = MARK | IN_NAME | IN_AMOUNT, ['/'] = MARK,
    ['0' ... '9'] = LETTER | IN_CURRENCY | IN_AMOUNT, [':'] = MARK | IN_NAME, [';' ... '@'] = MARK,
    ['A' ... 'Z'] = LETTER | IN_CURRENCY | FIRST_OF_CURRENCY, ['['] = MARK, [']' ... '^'] = MARK, ['_'] = MARK | IN_NAME, ['`'] = MARK,
    ['a' ... 'z'] = LETTER, ['{' ... '}'] = MARK, ['~'] = IN_ID | IN_TEXT};

/* Of each member of a transfer that may be written quickly: what its bytes and the first of them must be, and how long it may be here. */
static const struct { uint8_t each, first, least, most; } RULES[F_COUNT] = {
    [F_AMOUNT] = {IN_AMOUNT, IN_AMOUNT, 1, 16},
    [F_CREDIT] = {IN_NAME, FIRST_OF_NAME, 1, 64},
    [F_CURRENCY] = {IN_CURRENCY, FIRST_OF_CURRENCY, 3, 12},
    [F_DEBIT] = {IN_NAME, FIRST_OF_NAME, 1, 64},
    [F_ID] = {IN_ID, FIRST_OF_ID, 1, 64},
    [F_REFERENCE] = {IN_TEXT, IN_TEXT, 1, 64},
};
#define REQUIRED (BIT(F_AMOUNT) | BIT(F_CREDIT) | BIT(F_DEBIT) | BIT(F_ID))
#define KNOWN (REQUIRED | BIT(F_CURRENCY) | BIT(F_REFERENCE) | BIT(F_TYPE))

static int processor_can(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt");
}

/* -- learning */

static int literal_set(lfs_literal *literal, const uint8_t *bytes, size_t len) {
    if (len < 1 || len > sizeof literal->bytes) return -1;
    memset(literal, 0, sizeof *literal);
    memcpy(literal->bytes, bytes, len);
    literal->len = (uint32_t)len;
    literal->mask = ~(uint64_t)0 >> (64 - len);
    return 0;
}

/* The bytes of ASCII that one of these kinds has: bit h of bytes[l] is the byte 16 * h + l. */
static void learn_bytes(lfs_bytes *set, uint8_t kind) {
    memset(set, 0, sizeof *set);
    for (unsigned byte = 0; byte < sizeof KINDS; byte++)
        if (KINDS[byte] & kind) set->bytes[byte & 15] |= (uint8_t)(1 << (byte >> 4));
}

/* What stands before each value in canonical form, and behind the last. */
static int learn_canonical(lfs_shape *s, uint32_t present) {
    uint8_t text[2 * sizeof s->form[0].bytes];
    size_t len = 0;
    uint32_t n = 0;
    for (uint32_t rest = present; rest; rest &= rest - 1) {
        int field = __builtin_ctz(rest);
        text[len++] = rest == present ? '{' : ',';
        text[len++] = '"';
        memcpy(text + len, LFS_FIELD_NAMES[field], LFS_FIELD_LENGTHS[field]);
        len += LFS_FIELD_LENGTHS[field];
        memcpy(text + len, "\":\"", 3);
        len += 3;
        if (field == F_TYPE) { /* sorts last, behind another value */
            memcpy(text + len, "transfer\"", 9);
            len += 9;
            break;
        }
        if (literal_set(&s->form[n], text, len)) return -1;
        for (uint32_t i = 0; i < s->n; i++)
            if (s->field[i] == field) s->order[n] = (uint8_t)i;
        n++;
        len = 0;
        text[len++] = '"';
    }
    text[len++] = '}';
    return literal_set(&s->form[n], text, len);
}

static int learn(lfs_shape *s, const uint8_t *text, const uint8_t *end, const lfs_intent *in) {
    uint32_t rest = in->present & ~BIT(F_TYPE), n = 0;
    const uint8_t *from = text;
    s->n = (uint8_t)__builtin_popcount(rest);
    s->quotes = 0;
    s->present = in->present;
    while (rest) {
        int next = __builtin_ctz(rest);
        for (uint32_t others = rest; others; others &= others - 1)
            if (in->f[__builtin_ctz(others)].p < in->f[next].p) next = __builtin_ctz(others);
        lfs_text value = in->f[next];
        if (value.p <= from || value.p + value.len >= end || literal_set(&s->before[n], from, (size_t)(value.p - from))) return -1;
        for (const uint8_t *p = from; p < value.p; p++) s->quotes += *p == '"';
        s->quote[n] = (uint8_t)(s->quotes - 1);
        learn_bytes(&s->each[n], RULES[next].each);
        learn_bytes(&s->first[n], RULES[next].first);
        s->field[n++] = (uint8_t)next;
        from = value.p + value.len;
        rest &= ~BIT(next);
    }
    for (const uint8_t *p = from; p < end; p++) s->quotes += *p == '"';
    return literal_set(&s->before[n], from, (size_t)(end - from)) || learn_canonical(s, in->present) ? -1 : 0;
}

void lfs_shape_learn(lfs_shapes *shapes, const uint8_t *text, const uint8_t *end, const lfs_intent *in) {
    if (!shapes->way) shapes->way = processor_can() ? LFS_SHAPES_READ : LFS_SHAPES_OFF;
    if (shapes->way == LFS_SHAPES_OFF || shapes->missed++ % LEARN_EVERY) return;
    size_t len = (size_t)(end - text);
    if (in->code || in->type != I_TRANSFER || (in->present & REQUIRED) != REQUIRED || in->present & ~KNOWN || len > LINE_BYTES_MAX) return;
    lfs_shape *s = &shapes->shape[__builtin_popcount(in->present) % LFS_SHAPES];
    if (learn(s, text, end, in)) s->quotes = 0;
}

/* -- reading */

/* Places of the quotes; how many there are, or -1 when a byte is a backslash, a control character or no ASCII. */
INLINE int find_quotes(const uint8_t *text, size_t len, uint32_t *places) {
    __m512i at = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    uint64_t odd = 0;
    uint32_t n = 0;
    for (; len; text += 64) {
        __mmask64 some = len >= 64 ? ~(__mmask64)0 : _bzhi_u64(~(uint64_t)0, (uint32_t)len);
        __m512i v = _mm512_maskz_loadu_epi8(some, text);
        uint64_t quotes = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('"'));
        odd |= _mm512_mask_cmplt_epi8_mask(some, v, _mm512_set1_epi8(' ')) | _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\\'));
        for (int i = 0; i < 4; i++) {
            _mm512_storeu_si512(places + n, _mm512_maskz_compress_epi32((__mmask16)(quotes >> 16 * i), at));
            n += (uint32_t)_mm_popcnt_u32(quotes >> 16 * i & 0xffff);
            at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
        }
        if (len < 64) break;
        len -= 64;
    }
    return odd ? -1 : (int)n;
}

/* Nonzero when the text at p is not the literal. */
INLINE uint64_t differs(const lfs_literal *literal, const uint8_t *p) {
    return _mm512_mask_cmpneq_epi8_mask(literal->mask, _mm512_maskz_loadu_epi8(literal->mask, p), _mm512_loadu_si512(literal->bytes));
}

/* The values of the line in hand, in its own order; nonzero when it has another shape. */
INLINE uint64_t take_values(const lfs_shape *s, const uint8_t *text, size_t len, const uint32_t *places, lfs_text *values) {
    uint64_t bad = 0;
    uint32_t from = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t begin = places[s->quote[i]] + 1u, end = places[s->quote[i] + 1u];
        if (begin - from != s->before[i].len) return 1; /* so nothing behind the line is read */
        bad |= differs(&s->before[i], text + from);
        values[i] = (lfs_text){text + begin, end - begin};
        from = end;
    }
    if (len - from != s->before[s->n].len) return 1;
    return bad | differs(&s->before[s->n], text + from);
}

INLINE __m512i text_of(lfs_text value, __mmask64 *mask) {
    *mask = _bzhi_u64(~(uint64_t)0, value.len);
    return _mm512_maskz_loadu_epi8(*mask, value.p);
}

/* Nonzero when a byte may not stand there, or too few or too many do. */
INLINE uint64_t offends(const lfs_shape *s, uint32_t which, lfs_text value, __m512i v, __mmask64 mask) {
    const __m512i powers = _mm512_broadcast_i32x4(_mm_set_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2, 1));
    __m512i each = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)s->each[which].bytes));
    __m512i first = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)s->first[which].bytes));
    __m512i allowed = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(each, v), 1, first, v); /* by the lower half of each byte */
    __m512i upper = _mm512_shuffle_epi8(powers, _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)));
    int field = s->field[which];
    return _mm512_mask_testn_epi8_mask(mask, allowed, upper) | (value.len - RULES[field].least > (uint32_t)(RULES[field].most - RULES[field].least));
}

/* Digits and points of 1 to 16 bytes, as offends() left them. Nonzero: it is no amount above zero, or an unusual one. */
INLINE uint64_t take_amount(lfs_text value, lfs_amount *out) {
    uint32_t len = value.len;
    __mmask16 some = (__mmask16)(0xffffu << (16 - len));
    uint32_t first = 16 - len;
    __m128i v = _mm_maskz_loadu_epi8(some, value.p - first); /* behind zeros */
    uint32_t point = _mm_cmpeq_epi8_mask(v, _mm_set1_epi8('.'));
    uint64_t bad = point & (point - 1); /* two of them */
    bad |= point & (1u << first | 1u << 15);
    uint32_t zero = _mm_cmpeq_epi8_mask(v, _mm_set1_epi8('0'));
    bad |= (zero >> first & 1) & (len > 1) & ~(point >> (first + 1) & 1);
    uint32_t before = point - 1; /* all, when there is none: then nothing moves */
    uint32_t moved = point ? before << 1 | 1 : 0;
    __m128i digits = _mm_mask_mov_epi8(v, (__mmask16)moved, _mm_slli_si128(v, 1));
    digits = _mm_mask_sub_epi8(_mm_setzero_si128(), (__mmask16)(some & ~(point ? 1u << first : 0)), digits, _mm_set1_epi8('0'));
    __m128i twos = _mm_maddubs_epi16(digits, _mm_set1_epi16(1 << 8 | 10));
    __m128i fours = _mm_madd_epi16(twos, _mm_set1_epi32(1 << 16 | 100));
    __m128i eights = _mm_madd_epi16(_mm_packus_epi32(fours, fours), _mm_set1_epi32(1 << 16 | 10000));
    uint64_t both = (uint64_t)_mm_cvtsi128_si64(eights), number = (uint32_t)both * 100000000ull + (both >> 32);
    out->value = number;
    out->decimals = point ? (uint8_t)(15 - (uint32_t)__builtin_ctz(point)) : 0;
    return bad | (number == 0);
}

INLINE uint64_t same_account(const lfs_text *f) {
    __mmask64 mask, other;
    __m512i debit = text_of(f[F_DEBIT], &mask), credit = text_of(f[F_CREDIT], &other);
    return (mask == other) & (_mm512_cmpneq_epi8_mask(debit, credit) == 0);
}

INLINE void fill(const lfs_shape *s, lfs_arena *arena, lfs_intent *in, const lfs_amount *amount) {
    static const lfs_text TRANSFER = {(const uint8_t *)"\"transfer\"", 10};
    in->type = I_TRANSFER;
    in->has_amount = 1;
    in->present = s->present;
    in->amount = *amount;
    in->day = LFS_NO_DAY;
    in->id = in->f[F_ID];
    in->f[F_TYPE] = TRANSFER;
    in->postings = (lfs_posting *)lfs_arena_take(arena, 2 * sizeof(lfs_posting));
    in->n_postings = 2;
    lfs_text currency = s->present & BIT(F_CURRENCY) ? in->f[F_CURRENCY] : (lfs_text){NULL, 0};
    in->postings[S_DEBIT] = (lfs_posting){.account = in->f[F_DEBIT], .currency = currency, .amount = *amount, .side = S_DEBIT};
    in->postings[S_CREDIT] = (lfs_posting){.account = in->f[F_CREDIT], .currency = currency, .amount = *amount, .side = S_CREDIT};
}

TARGET static int read_shape(lfs_shapes *shapes, const uint8_t *text, size_t len, lfs_arena *arena, lfs_intent *in) {
    uint32_t places[LINE_BYTES_MAX + 16];
    lfs_text values[LFS_SHAPE_VALUES];
    lfs_amount amount;
    int n = find_quotes(text, len, places);
    const lfs_shape *s = &shapes->shape[(uint32_t)n / 4 % LFS_SHAPES];
    if (n < 1 || n != s->quotes || take_values(s, text, len, places, values)) return 0;
    uint8_t *out = arena->base + arena->used, *p = out; /* behind it there is more room than a line of 256 bytes needs: lfs_arena_ready */
    uint64_t bad = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        __mmask64 mask;
        lfs_text value = values[s->order[i]];
        __m512i v = text_of(value, &mask);
        bad |= offends(s, s->order[i], value, v, mask);
        in->f[s->field[s->order[i]]] = value;
        _mm512_storeu_si512(p, _mm512_loadu_si512(s->form[i].bytes));
        p += s->form[i].len;
        _mm512_storeu_si512(p, v);
        p += value.len < 64 ? value.len : 64;
    }
    if (bad || take_amount(in->f[F_AMOUNT], &amount) || same_account(in->f)) return 0;
    _mm512_storeu_si512(p, _mm512_loadu_si512(s->form[s->n].bytes));
    p += s->form[s->n].len;
    in->canonical = (lfs_text){out, (uint32_t)(p - out)};
    arena->used += ((size_t)(p - out) + 15) & ~(size_t)15;
    fill(s, arena, in, &amount);
    shapes->taken++;
    return 1;
}

int lfs_shape_read(const uint8_t *text, const uint8_t *end, lfs_arena *arena, lfs_intent *in) {
    size_t len = (size_t)(end - text);
    if (arena->shapes.way != LFS_SHAPES_READ || len > LINE_BYTES_MAX) return 0;
    return read_shape(&arena->shapes, text, len, arena, in);
}
#else
void lfs_shape_learn(lfs_shapes *shapes, const uint8_t *text, const uint8_t *end, const lfs_intent *in) {
    (void)shapes, (void)text, (void)end, (void)in;
}

int lfs_shape_read(const uint8_t *text, const uint8_t *end, lfs_arena *arena, lfs_intent *in) {
    (void)text, (void)end, (void)arena, (void)in;
    return 0;
}
#endif
