/* Shared by the sha256*.c files only. */
#ifndef LFS_SHA256_H
#define LFS_SHA256_H
#include "lfs_hash.h"

#define LFS_SHA256_K_WORDS \
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, \
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, \
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, \
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, \
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, \
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, \
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, \
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
#define LFS_SHA256_START_WORDS 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
extern const uint32_t LFS_SHA256_K[64];
extern const uint32_t LFS_SHA256_START[8];

/* A compression function: whole 64-byte blocks into the state of one message. */
typedef void lfs_sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks);
lfs_sha256_blocks lfs_sha256_blocks_ni; /* needs SHA-NI, SSSE3 and SSE4.1 */

/* A message cut into blocks: a head that holds the prefix byte, what can be read in place, and the padded tail. The
 * prefix shifts everything by one byte, so only the first and the last block are copied. */
enum { LFS_HEAD, LFS_BODY, LFS_TAIL, LFS_PIECES };
typedef struct {
    struct {
        const uint8_t *at;
        size_t blocks;
    } piece[LFS_PIECES];
    uint8_t head[64], tail[128];
} lfs_message;
#define LFS_NO_PREFIX (-1)
/* `data` must stay until the body is hashed. */
void lfs_message_cut(lfs_message *m, int prefix, const uint8_t *data, size_t len);
void lfs_digest_write(const uint32_t state[8], uint8_t out[32]);

/* What is to be hashed: byte strings given by pointer and length. */
typedef struct {
    const uint8_t *const *entries;
    const uint32_t *lens;
} lfs_strings;

/* A compression function for `lanes` messages at once. state[word * lanes + lane] is aligned to 64 bytes. */
#define LFS_LANES_MAX 16
#define LFS_SUM_NODE_TAG 0x11
typedef struct {
    void (*blocks)(uint32_t *state, const uint8_t *const *data, size_t blocks);
    unsigned lanes;
    /* One message in each lane, start to end; out: where each digest goes. NULL: `blocks` serves. */
    void (*padded)(const uint8_t *const *messages, size_t blocks, uint8_t *const *out);
    /* Texts that come to the same number of blocks. soon: what is hashed next, to be fetched meanwhile; or NULL. */
    void (*texts)(int prefix, const uint8_t *const *texts, const uint32_t *lens, unsigned blocks, const uint8_t *const *soon, uint8_t *const *out);
    /* Nodes of neighbouring pairs; out may be pairs. */
    void (*nodes)(const uint8_t *pairs, uint8_t *out);
    void (*sum_nodes)(uint8_t height, const uint8_t *const *pairs, uint8_t *const *out);
} lfs_lanes;
extern const lfs_lanes LFS_AVX2_X8, LFS_AVX2_X16, LFS_AVX512_X16;

/* Hash n strings in parallel lanes. `one` finishes what is too little for the lanes. */
void lfs_sha256_many(const lfs_lanes *lanes, lfs_sha256_blocks *one, int prefix, const lfs_strings *in, size_t n, uint8_t *out);
/* The same of n messages that are padded already. */
void lfs_sha256_many_padded(const lfs_lanes *lanes, const uint8_t *const *messages, size_t blocks, size_t n, uint8_t *out);
#endif
