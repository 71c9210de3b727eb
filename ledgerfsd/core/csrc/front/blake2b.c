/* BLAKE2b (RFC 7693) of short texts, as far as numbers of receipts need it: six bytes, no key, with a personalization. Its twin is hashlib's; see number_of in
 * ledgerfsd/service/receipts.py, and tests/unit/test_receipt_numbers.py. */
#include <string.h>
#include "lfs_core.h"

#define BLOCK 128
#define DIGEST 6

static const uint64_t IV[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                               0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
static const uint8_t SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static uint64_t right(uint64_t x, int by) { return x >> by | x << (64 - by); }

static void mix(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d, uint64_t x, uint64_t y) {
    *a += *b + x, *d = right(*d ^ *a, 32);
    *c += *d, *b = right(*b ^ *c, 24);
    *a += *b + y, *d = right(*d ^ *a, 16);
    *c += *d, *b = right(*b ^ *c, 63);
}

static void compress(uint64_t h[8], const uint8_t block[BLOCK], uint64_t counted, int last) {
    uint64_t v[16], m[16];
    memcpy(m, block, BLOCK); /* little-endian, as all processors that this is built for */
    memcpy(v, h, 64);
    memcpy(v + 8, IV, 64);
    v[12] ^= counted;
    if (last) v[14] = ~v[14];
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = SIGMA[round % 10];
        for (int i = 0; i < 4; i++) mix(v + i, v + 4 + i, v + 8 + i, v + 12 + i, m[s[2 * i]], m[s[2 * i + 1]]);
        for (int i = 0; i < 4; i++) mix(v + i, v + 4 + (i + 1) % 4, v + 8 + (i + 2) % 4, v + 12 + (i + 3) % 4, m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
    }
    for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

uint64_t lfs_receipt_number(const uint8_t *name, size_t len) {
    static const uint8_t person[16] = "receipt";
    uint64_t h[8], words[2], number = 0;
    uint8_t block[BLOCK];
    memcpy(h, IV, 64);
    memcpy(words, person, 16);
    h[0] ^= 0x01010000 ^ DIGEST; /* one leaf, no tree */
    h[6] ^= words[0];
    h[7] ^= words[1];
    for (size_t at = 0;; at += BLOCK) {
        size_t size = len - at < BLOCK ? len - at : BLOCK;
        int last = at + size == len;
        memset(block, 0, BLOCK);
        memcpy(block, name + at, size);
        compress(h, block, at + size, last);
        if (last) break;
    }
    for (int i = 0; i < DIGEST; i++) number = number << 8 | (h[0] >> 8 * i & 0xff);
    return number;
}
