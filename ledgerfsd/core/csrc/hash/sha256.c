/* SHA-256: the choice of the implementation, one message at a time, and OpenSSL's compression function for processors
 * without SHA-NI. Parallel lanes are in sha256_multi.c. */
#define OPENSSL_SUPPRESS_DEPRECATED /* the EVP interface costs 0.5 us a message */
#include "sha256.h"

#include <openssl/sha.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

const uint32_t LFS_SHA256_K[64] = {LFS_SHA256_K_WORDS};
const uint32_t LFS_SHA256_START[8] = {LFS_SHA256_START_WORDS};

static void blocks_openssl(uint32_t state[8], const uint8_t *data, size_t blocks) {
    SHA256_CTX context;
    SHA256_Init(&context);
    for (int i = 0; i < 8; i++) context.h[i] = state[i];
    SHA256_Update(&context, data, 64 * blocks); /* whole blocks are compressed at once, nothing stays behind */
    for (int i = 0; i < 8; i++) state[i] = (uint32_t)context.h[i];
}

/* ---- the implementations */

typedef struct {
    const char *name;
    int (*runs)(void); /* on this processor; NULL: everywhere */
    lfs_sha256_blocks *one;
    const lfs_lanes *lanes; /* for many messages; NULL: one at a time is faster */
    int for_tests;
} backend;

#ifdef __x86_64__
static int has_ni(void) {
    unsigned a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA) && __builtin_cpu_supports("ssse3") &&
           __builtin_cpu_supports("sse4.1");
}

static int has_avx2(void) { return __builtin_cpu_supports("avx2") != 0; }

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

static int has_avx512_ni(void) { return has_avx512() && has_ni(); }
#endif

/* The best first. AVX2 in 8 lanes is slower than SHA-NI but faster than OpenSSL without it. */
static const backend BACKENDS[] = {
#ifdef __x86_64__
    {"avx512x16+sha-ni", has_avx512_ni, lfs_sha256_blocks_ni, &LFS_AVX512_X16, 0},
    {"avx512x16+openssl", has_avx512, blocks_openssl, &LFS_AVX512_X16, 0},
    {"sha-ni", has_ni, lfs_sha256_blocks_ni, NULL, 0},
    {"avx2x8+openssl", has_avx2, blocks_openssl, &LFS_AVX2_X8, 0},
    {"avx2x16+openssl", has_avx2, blocks_openssl, &LFS_AVX2_X16, 1},
#endif
    {"openssl", NULL, blocks_openssl, NULL, 0},
};
#define BACKENDS_N (sizeof BACKENDS / sizeof BACKENDS[0])

static const backend *in_use = &BACKENDS[BACKENDS_N - 1];

static int runs(const backend *b) { return !b->runs || b->runs(); }

__attribute__((constructor)) static void choose(void) {
#ifdef __x86_64__
    __builtin_cpu_init();
#endif
    for (size_t i = 0; i < BACKENDS_N; i++) {
        if (BACKENDS[i].for_tests || !runs(&BACKENDS[i])) continue;
        in_use = &BACKENDS[i];
        return;
    }
}

const char *lfs_hash_backend(void) { return in_use->name; }

const char *lfs_hash_name(unsigned i) { return i < BACKENDS_N ? BACKENDS[i].name : NULL; }

int lfs_hash_select(const char *name) {
    for (size_t i = 0; i < BACKENDS_N; i++) {
        if (strcmp(BACKENDS[i].name, name) != 0 || !runs(&BACKENDS[i])) continue;
        in_use = &BACKENDS[i];
        return 0;
    }
    return -1;
}

/* ---- messages */

void lfs_message_cut(lfs_message *m, int prefix, const uint8_t *data, size_t len) {
    uint64_t bits = ((uint64_t)len + (prefix != LFS_NO_PREFIX)) * 8;
    size_t fill = 0, rest;
    m->piece[LFS_HEAD].at = m->head;
    m->piece[LFS_HEAD].blocks = 0;
    if (prefix != LFS_NO_PREFIX && len >= 63) {
        m->head[0] = (uint8_t)prefix;
        memcpy(m->head + 1, data, 63);
        m->piece[LFS_HEAD].blocks = 1;
        data += 63, len -= 63;
    } else if (prefix != LFS_NO_PREFIX) {
        m->tail[fill++] = (uint8_t)prefix;
    }
    rest = len % 64;
    m->piece[LFS_BODY].at = data;
    m->piece[LFS_BODY].blocks = len / 64;
    if (rest) memcpy(m->tail + fill, data + len - rest, rest);
    fill += rest;
    size_t size = fill < 56 ? 64 : 128; /* room for 0x80 and the length */
    m->piece[LFS_TAIL].at = m->tail;
    m->piece[LFS_TAIL].blocks = size / 64;
    m->tail[fill++] = 0x80;
    memset(m->tail + fill, 0, size - 8 - fill);
    bits = __builtin_bswap64(bits);
    memcpy(m->tail + size - 8, &bits, 8);
}

void lfs_digest_write(const uint32_t state[8], uint8_t out[32]) {
    for (int i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(state[i]);
        memcpy(out + 4 * i, &word, 4);
    }
}

static void hash_one(int prefix, const uint8_t *data, size_t len, uint8_t out[32]) {
    uint32_t state[8];
    lfs_message m;
    lfs_message_cut(&m, prefix, data, len);
    memcpy(state, LFS_SHA256_START, sizeof state);
    for (int i = 0; i < LFS_PIECES; i++) {
        if (m.piece[i].blocks) in_use->one(state, m.piece[i].at, m.piece[i].blocks);
    }
    lfs_digest_write(state, out);
}

void lfs_sha256(const uint8_t *data, size_t len, uint8_t out[32]) { hash_one(LFS_NO_PREFIX, data, len, out); }

void lfs_sha256_padded(const uint8_t *const *messages, size_t blocks, size_t n, uint8_t *out32n) {
    size_t wide = in_use->lanes ? in_use->lanes->lanes : 0, many = wide ? n / wide * wide : 0;
    if (wide && n - many > wide / 2) many = n; /* half-empty lanes are no faster than one message after another */
    if (many) lfs_sha256_many_padded(in_use->lanes, messages, blocks, many, out32n);
    for (size_t i = many; i < n; i++) {
        uint32_t state[8];
        memcpy(state, LFS_SHA256_START, sizeof state);
        in_use->one(state, messages[i], blocks);
        lfs_digest_write(state, out32n + 32 * i);
    }
}

static void hash_texts(int prefix, const uint8_t *const *texts, const uint32_t *lens, size_t n, uint8_t *out32n) {
    if (in_use->lanes && n > 1) {
        lfs_strings in = {texts, lens};
        lfs_sha256_many(in_use->lanes, in_use->one, prefix, &in, n, out32n);
        return;
    }
    for (size_t i = 0; i < n; i++) hash_one(prefix, texts[i], lens[i], out32n + 32 * i);
}

void lfs_sha256_texts(const uint8_t *const *texts, const uint32_t *lens, size_t n, uint8_t *out32n) {
    hash_texts(LFS_NO_PREFIX, texts, lens, n, out32n);
}

void lfs_leaf_hashes(const uint8_t *const *entries, const uint32_t *lens, size_t n, uint8_t *out32n) {
    hash_texts(0, entries, lens, n, out32n);
}

void lfs_node_hash(const uint8_t left[32], const uint8_t right[32], uint8_t out[32]) {
    uint8_t pair[64];
    memcpy(pair, left, 32);
    memcpy(pair + 32, right, 32);
    hash_one(1, pair, 64, out);
}

#define NODES_TOGETHER 64
static void nodes_from_rows(const uint8_t *pairs64n, size_t n, uint8_t *out32n) {
    uint8_t rows[NODES_TOGETHER][128];
    const uint8_t *messages[NODES_TOGETHER];
    size_t most = n < NODES_TOGETHER ? n : NODES_TOGETHER;
    for (size_t i = 0; i < most; i++) { /* 65 bytes are two blocks: padded once, filled again and again */
        memset(rows[i], 0, 128);
        rows[i][0] = 1;
        rows[i][65] = 0x80;
        rows[i][126] = 65 * 8 >> 8;
        rows[i][127] = 65 * 8 & 255;
        messages[i] = rows[i];
    }
    for (size_t first = 0; first < n; first += NODES_TOGETHER) { /* read before a digest is written over them */
        size_t together = n - first < NODES_TOGETHER ? n - first : NODES_TOGETHER;
        for (size_t i = 0; i < together; i++) memcpy(rows[i] + 1, pairs64n + 64 * (first + i), 64);
        lfs_sha256_padded(messages, 2, together, out32n + 32 * first);
    }
}

#define NODES_FEW 6 /* so few are done sooner one after another than in lanes that are mostly empty */
void lfs_node_hashes(const uint8_t *pairs64n, size_t n, uint8_t *out32n) {
    const lfs_lanes *lanes = in_use->lanes && in_use->lanes->nodes ? in_use->lanes : NULL;
    size_t wide = lanes ? lanes->lanes : 1, done = lanes ? n / wide * wide : 0;
    for (size_t i = 0; i < done; i += wide) lanes->nodes(pairs64n + 64 * i, out32n + 32 * i);
    if (lanes && n - done > NODES_FEW) {
        uint8_t pairs[64 * LFS_LANES_MAX] = {0}, nodes[32 * LFS_LANES_MAX];
        memcpy(pairs, pairs64n + 64 * done, 64 * (n - done));
        lanes->nodes(pairs, nodes);
        memcpy(out32n + 32 * done, nodes, 32 * (n - done));
    } else if (n > done) {
        nodes_from_rows(pairs64n + 64 * done, n - done, out32n + 32 * done);
    }
}

/* Two bytes more, and padding: four blocks. */
static void sum_node_row(uint8_t row[256], uint8_t height, const uint8_t *pair) {
    enum { LEN = 2 + LFS_SUM_PAIR_BYTES };
    row[0] = LFS_SUM_NODE_TAG;
    row[1] = height;
    memcpy(row + 2, pair, LFS_SUM_PAIR_BYTES);
    memset(row + LEN, 0, 256 - LEN);
    row[LEN] = 0x80;
    row[254] = 8 * LEN >> 8;
    row[255] = 8 * LEN & 255;
}

void lfs_sum_node_hashes(uint8_t height, const uint8_t *const *pairs, size_t n, uint8_t *const *out) {
    const lfs_lanes *lanes = in_use->lanes;
    size_t wide = lanes ? lanes->lanes : 1, done = 0;
    if (lanes && lanes->sum_nodes)
        for (; done + wide <= n; done += wide) lanes->sum_nodes(height, pairs + done, out + done);
    while (done < n) {
        uint8_t rows[LFS_LANES_MAX][256], digests[LFS_LANES_MAX][32];
        const uint8_t *messages[LFS_LANES_MAX];
        size_t together = n - done < LFS_LANES_MAX ? n - done : LFS_LANES_MAX;
        for (size_t i = 0; i < together; i++) {
            sum_node_row(rows[i], height, pairs[done + i]);
            messages[i] = rows[i];
        }
        lfs_sha256_padded(messages, 4, together, digests[0]);
        for (size_t i = 0; i < together; i++) memcpy(out[done + i], digests[i], 32);
        done += together;
    }
}
