/* SHA-256 of 16 messages at once with AVX-512: messages where they stand, and what is constant in them not worked out again. */
#include "sha256.h"

#ifdef __x86_64__
#include <immintrin.h>
#include <string.h>

/* Here too, so that the compiler knows them. */
static const uint32_t K[64] = {LFS_SHA256_K_WORDS}, START[8] = {LFS_SHA256_START_WORDS};

#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw")))
#define ALWAYS static inline __attribute__((always_inline)) TARGET

/* A vector holds the same word of every message. In GCC's vector extensions, so that what is constant is worked out by the compiler. */
typedef uint32_t vec __attribute__((vector_size(64), may_alias));

#define ROTATE(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define EACH(x) ((vec)_mm512_set1_epi32((int)(x)))

/* Of one instruction each, given as tables of their eight results; GCC makes two of what is written out. */
#define TERNARY(a, b, c, results) ((vec)_mm512_ternarylogic_epi32((__m512i)(a), (__m512i)(b), (__m512i)(c), results))
#define XOR(a, b, c) TERNARY(a, b, c, 0x96)
#define CHOOSE(e, f, g) TERNARY(e, f, g, 0xca)
#define MAJORITY(a, b, c) TERNARY(a, b, c, 0xe8)

ALWAYS vec schedule_low(vec x) { return ROTATE(x, 7) ^ ROTATE(x, 18) ^ (x >> 3); }
ALWAYS vec schedule_high(vec x) { return ROTATE(x, 17) ^ ROTATE(x, 19) ^ (x >> 10); }

/* Round i of the state s, of which nothing moves: its words change their places. */
ALWAYS void round_of(vec s[8], int i, vec word) {
    vec a = s[-i & 7], b = s[(1 - i) & 7], c = s[(2 - i) & 7], e = s[(4 - i) & 7], f = s[(5 - i) & 7], g = s[(6 - i) & 7];
    vec t = (s[(7 - i) & 7] + word) + ((ROTATE(e, 6) ^ ROTATE(e, 11) ^ ROTATE(e, 25)) + CHOOSE(e, f, g));
    s[(3 - i) & 7] += t;
    s[(7 - i) & 7] = t + ((ROTATE(a, 2) ^ ROTATE(a, 13) ^ ROTATE(a, 22)) + MAJORITY(a, b, c));
}

ALWAYS void extend(vec w[16], int i) {
    w[i & 15] = (w[i & 15] + schedule_low(w[(i + 1) & 15])) + (w[(i + 9) & 15] + schedule_high(w[(i + 14) & 15]));
}

/* One block of every message. */
ALWAYS void compress(vec s[8], vec w[16]) {
    vec before[8];
    memcpy(before, s, sizeof before);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) round_of(s, i, EACH(K[i]) + w[i]);
#pragma GCC unroll 1
    for (int from = 16; from < 64; from += 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            extend(w, i);
            round_of(s, i, EACH(K[from + i]) + w[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) s[i] += before[i];
}

/* The same, unrolled, of a block of which most words are constant. */
ALWAYS void compress_known(vec s[8], vec w[16]) {
    vec before[8];
    memcpy(before, s, sizeof before);
#pragma GCC unroll 64
    for (int i = 0; i < 64; i++) {
        if (i >= 16) extend(w, i);
        round_of(s, i, EACH(K[i]) + w[i & 15]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) s[i] += before[i];
}

/* -- in and out */

/* Neighbouring rows are riffled, then neighbouring pairs: row 4q + c then has, in its quarter L, column 4L + c of the rows 4q to 4q + 3. */
ALWAYS void quarters(vec *r, int rows) {
    vec t[16];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i += 4) {
        t[i] = (vec)_mm512_unpacklo_epi32((__m512i)r[i], (__m512i)r[i + 1]);
        t[i + 1] = (vec)_mm512_unpackhi_epi32((__m512i)r[i], (__m512i)r[i + 1]);
        t[i + 2] = (vec)_mm512_unpacklo_epi32((__m512i)r[i + 2], (__m512i)r[i + 3]);
        t[i + 3] = (vec)_mm512_unpackhi_epi32((__m512i)r[i + 2], (__m512i)r[i + 3]);
        r[i] = (vec)_mm512_unpacklo_epi64((__m512i)t[i], (__m512i)t[i + 2]);
        r[i + 1] = (vec)_mm512_unpackhi_epi64((__m512i)t[i], (__m512i)t[i + 2]);
        r[i + 2] = (vec)_mm512_unpacklo_epi64((__m512i)t[i + 1], (__m512i)t[i + 3]);
        r[i + 3] = (vec)_mm512_unpackhi_epi64((__m512i)t[i + 1], (__m512i)t[i + 3]);
    }
}

#define SHUFFLE(a, b, which) ((vec)_mm512_shuffle_i32x4((__m512i)(a), (__m512i)(b), which))

/* Rows of messages, as they stand in memory, to words. */
ALWAYS void words_of(vec r[16]) {
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    vec t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) t[i] = (vec)_mm512_shuffle_epi8((__m512i)r[i], swap);
    quarters(t, 16);
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        vec a = SHUFFLE(t[c], t[4 + c], 0x88), b = SHUFFLE(t[c], t[4 + c], 0xdd);
        vec d = SHUFFLE(t[8 + c], t[12 + c], 0x88), e = SHUFFLE(t[8 + c], t[12 + c], 0xdd);
        r[c] = SHUFFLE(a, d, 0x88), r[8 + c] = SHUFFLE(a, d, 0xdd);
        r[4 + c] = SHUFFLE(b, e, 0x88), r[12 + c] = SHUFFLE(b, e, 0xdd);
    }
}

ALWAYS void start(vec s[8]) {
    for (int i = 0; i < 8; i++) s[i] = EACH(START[i]);
}

ALWAYS void digests_out(vec s[8], uint8_t *const *out) {
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    for (int i = 0; i < 8; i++) s[i] = (vec)_mm512_shuffle_epi8((__m512i)s[i], swap);
    quarters(s, 8);
    for (int c = 0; c < 4; c++) { /* message 4L + c has its halves in the quarters L of s[c] and s[4 + c] */
        __m512i low = _mm512_permutex2var_epi64((__m512i)s[c], first, (__m512i)s[4 + c]);
        __m512i high = _mm512_permutex2var_epi64((__m512i)s[c], second, (__m512i)s[4 + c]);
        _mm256_storeu_si256((__m256i *)out[c], _mm512_castsi512_si256(low));
        _mm256_storeu_si256((__m256i *)out[4 + c], _mm512_extracti64x4_epi64(low, 1));
        _mm256_storeu_si256((__m256i *)out[8 + c], _mm512_castsi512_si256(high));
        _mm256_storeu_si256((__m256i *)out[12 + c], _mm512_extracti64x4_epi64(high, 1));
    }
}

/* -- blocks that are padded already */

TARGET static void blocks_of(uint32_t *state, const uint8_t *const *data, size_t blocks) {
    vec s[8], w[16];
    memcpy(s, state, sizeof s);
    for (size_t block = 0; block < blocks; block++) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) w[i] = (vec)_mm512_loadu_si512(data[i] + 64 * block);
        words_of(w);
        compress(s, w);
    }
    memcpy(state, s, sizeof s);
}

TARGET static void padded(const uint8_t *const *messages, size_t blocks, uint8_t *const *out) {
    vec s[8], w[16];
    start(s);
    for (size_t block = 0; block < blocks; block++) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) w[i] = (vec)_mm512_loadu_si512(messages[i] + 64 * block);
        words_of(w);
        compress(s, w);
    }
    digests_out(s, out);
}

/* -- texts of one number of blocks */

/* A row with an end of the message in it: only what is of the text is read. left: bytes from the beginning of the row to the end of the message. */
ALWAYS vec end_row(const uint8_t *at, int64_t left, uint64_t skip, uint8_t prefix) {
    uint64_t all = left >= 64 ? ~0ull : left <= 0 ? 0 : (1ull << left) - 1, mark = left >= 0 && left < 64 ? 1ull << left : 0;
    __m512i row = _mm512_maskz_loadu_epi8(all & ~skip, at);
    row = _mm512_mask_mov_epi8(row, skip, _mm512_set1_epi8((char)prefix));
    return (vec)_mm512_mask_mov_epi8(row, mark, _mm512_set1_epi8((char)0x80));
}

TARGET static void texts(int prefix, const uint8_t *const *texts, const uint32_t *lens, unsigned blocks, const uint8_t *const *soon, uint8_t *const *out) {
    vec s[8], w[16], ends[16];
    int shift = prefix != LFS_NO_PREFIX;
    start(s);
    for (unsigned block = 0; block < blocks; block++) {
        int64_t at = 64 * (int64_t)block - shift;
        if ((block > 0 || !shift) && block + 2 < blocks) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) w[i] = (vec)_mm512_loadu_si512(texts[i] + at);
        } else {
            uint64_t skip = shift && block == 0;
            for (int i = 0; i < 16; i++) ends[i] = end_row(texts[i] + at, (int64_t)lens[i] - at, skip, (uint8_t)prefix);
            memcpy(w, ends, sizeof w);
        }
        if (soon)
            for (int i = 0; i < 16; i++) __builtin_prefetch(soon[i] + 64 * block);
        words_of(w);
        if (block + 1 == blocks) { /* the length in bits: what stands there is zero */
            vec bytes = (vec)_mm512_loadu_si512(lens) + (uint32_t)shift;
            w[14] = bytes >> 29, w[15] = bytes << 3;
        }
        compress(s, w);
    }
    digests_out(s, out);
}

/* -- nodes */

#define NODE_BITS (65 * 8)

TARGET static void nodes(const uint8_t *pairs, uint8_t *out) {
    uint8_t *outs[16];
    vec s[8], w[16], last = (vec)_mm512_i32gather_epi32(_mm512_set_epi32(960, 896, 832, 768, 704, 640, 576, 512, 448, 384, 320, 256, 192, 128, 64, 0), pairs + 60, 1);
    start(s);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) w[i] = (vec)_mm512_mask_loadu_epi8(_mm512_set1_epi8(1), ~1ull, pairs + 64 * i - 1);
    words_of(w);
    compress(s, w);
    for (int i = 1; i < 15; i++) w[i] = EACH(0);
    w[0] = (last & 0xff000000u) | 0x00800000u; /* the last byte, and the mark behind it */
    w[15] = EACH(NODE_BITS);
    compress_known(s, w);
    for (int i = 0; i < 16; i++) outs[i] = out + 32 * i;
    digests_out(s, outs);
}

/* Of the state tree. Its two first bytes shift the pair, so the fourth block has 18 bytes of it, in not quite five words. */
TARGET static void sum_nodes(uint8_t height, const uint8_t *const *pairs, uint8_t *const *out) {
    enum { LEN = 2 + LFS_SUM_PAIR_BYTES, LEFT = LEN - 192 };
    const __m512i head = _mm512_set1_epi16((short)(LFS_SUM_NODE_TAG | height << 8)), mark = _mm512_set1_epi8((char)0x80);
    vec s[8], w[16];
    start(s);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) w[i] = (vec)_mm512_mask_loadu_epi8(head, ~3ull, pairs[i] - 2);
    words_of(w);
    compress(s, w);
    for (int block = 1; block < 3; block++) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) w[i] = (vec)_mm512_loadu_si512(pairs[i] + 64 * block - 2);
        words_of(w);
        compress(s, w);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) w[i] = (vec)_mm512_mask_mov_epi8(_mm512_maskz_loadu_epi8((1ull << LEFT) - 1, pairs[i] + 190), 1ull << LEFT, mark);
    words_of(w);
    for (int i = 5; i < 15; i++) w[i] = EACH(0);
    w[15] = EACH(8 * LEN);
    compress_known(s, w);
    digests_out(s, out);
}

const lfs_lanes LFS_AVX512_X16 = {blocks_of, 16, padded, texts, nodes, sum_nodes};
#endif
