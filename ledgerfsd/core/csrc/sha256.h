/* Shared by the sha256*.c files only. */
#ifndef LFS_SHA256_H
#define LFS_SHA256_H
#include "lfs_hash.h"

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
typedef struct {
    void (*blocks)(uint32_t *state, const uint8_t *const *data, size_t blocks);
    unsigned lanes;
} lfs_lanes;
extern const lfs_lanes LFS_AVX2_X8, LFS_AVX2_X16, LFS_AVX512_X16;

/* Hash n strings in parallel lanes. `one` finishes what is too little for the lanes. */
void lfs_sha256_many(const lfs_lanes *lanes, lfs_sha256_blocks *one, int prefix, const lfs_strings *in, size_t n, uint8_t *out);
/* The same of n messages that are padded already. */
void lfs_sha256_many_padded(const lfs_lanes *lanes, const uint8_t *const *messages, size_t blocks, size_t n, uint8_t *out);
#endif
