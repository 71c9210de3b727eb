/* SipHash-2-4 with 128 bits of result (Aumasson and Bernstein, 2012) of records of indexes, many side by side: a record is the two words of lfs_record_words,
 * and there is nothing in the hash but adding, turning and xor, so that a vector of eight is as quick as one. */
#include "verify_sums.h"

#define LANES 8
typedef uint64_t lanes __attribute__((vector_size(8 * LANES), aligned(8), may_alias));

#if defined __x86_64__ && defined __GLIBC__ /* what the processor has is asked for when the library is loaded */
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define TURN(x, n) ((x) << (n) | (x) >> (64 - (n)))
#define ROUND                                                  \
    v0 += v1, v1 = TURN(v1, 13) ^ v0, v0 = TURN(v0, 32);       \
    v2 += v3, v3 = TURN(v3, 16) ^ v2;                          \
    v0 += v3, v3 = TURN(v3, 21) ^ v0;                          \
    v2 += v1, v1 = TURN(v1, 17) ^ v2, v2 = TURN(v2, 32);

FOR_EACH_PROCESSOR void lfs_record_hashes(const lfs_sum_key *key, const uint64_t *first, const uint64_t *second, uint64_t *low, uint64_t *high, uint32_t n) {
    const lanes zero = {0};
    for (uint32_t at = 0; at < n; at += LANES) {
        lanes v0 = zero + (key->word[0] ^ 0x736f6d6570736575), v1 = zero + (key->word[1] ^ 0x646f72616e646f6d ^ 0xee);
        lanes v2 = zero + (key->word[0] ^ 0x6c7967656e657261), v3 = zero + (key->word[1] ^ 0x7465646279746573);
        const lanes words[3] = {*(const lanes *)(first + at), *(const lanes *)(second + at), zero + (16ull << 56)};
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++) {
            v3 ^= words[i];
            ROUND ROUND
            v0 ^= words[i];
        }
        v2 ^= 0xee;
        ROUND ROUND ROUND ROUND
        *(lanes *)(low + at) = v0 ^ v1 ^ v2 ^ v3;
        v1 ^= 0xdd;
        ROUND ROUND ROUND ROUND
        *(lanes *)(high + at) = v0 ^ v1 ^ v2 ^ v3;
    }
}
