/* SHA-256 and RFC 6962 trees. No allocation, no I/O, safe to call from any thread (lfs_hash_select excepted).
 * The pure-Python twin is ledgerfsd/core/pure/hashing.py. */
#ifndef LFS_HASH_H
#define LFS_HASH_H
#include <stddef.h>
#include <stdint.h>

#define LFS_SUM_PAIR_BYTES 208

/* cffi-begin */
/* Name of the implementation in use. By default the first of these that the processor can run: "avx512x16+sha-ni",
 * "avx512x16+openssl", "sha-ni", "avx2x8+openssl", "openssl". */
const char *lfs_hash_backend(void);
/* The names of all implementations that were built, "avx2x16+openssl" among them (the 16-lane algorithm for tests on
 * processors without AVX-512); NULL from the end of the list on. */
const char *lfs_hash_name(unsigned i);
/* Choose an implementation by name for tests; returns 0, or -1 when this processor lacks it. Not thread-safe. */
int lfs_hash_select(const char *name);
void lfs_sha256(const uint8_t *data, size_t len, uint8_t out[32]);
/* SHA-256 of n texts; texts[i] has lens[i] bytes. */
void lfs_sha256_texts(const uint8_t *const *texts, const uint32_t *lens, size_t n, uint8_t *out32n);
/* SHA-256 of n messages that are padded already, of so many blocks of 64 bytes each. */
void lfs_sha256_padded(const uint8_t *const *messages, size_t blocks, size_t n, uint8_t *out32n);
/* Leaf hash H(0x00 || entry) of n entries; entries[i] has lens[i] bytes. Multi-buffer where that is faster. */
void lfs_leaf_hashes(const uint8_t *const *entries, const uint32_t *lens, size_t n, uint8_t *out32n);
/* Node hash H(0x01 || left || right). */
void lfs_node_hash(const uint8_t left[32], const uint8_t right[32], uint8_t out[32]);
/* The node hashes of n neighbouring pairs, 64 bytes each; out may be pairs. */
void lfs_node_hashes(const uint8_t *pairs64n, size_t n, uint8_t *out32n);
/* Node hash of the state tree (docs/FORMAT.md, section 12): H(0x11 || height || a pair of LFS_SUM_PAIR_BYTES) of n pairs; out[i] gets that of pairs[i]. */
void lfs_sum_node_hashes(uint8_t height, const uint8_t *const *pairs, size_t n, uint8_t *const *out);
/* RFC 6962 MTH over n leaf hashes (n >= 0; the empty tree is H("")). scratch has room for (n + 1) / 2 * 32 bytes
 * and may be leaves32n itself. */
void lfs_mth(const uint8_t *leaves32n, size_t n, uint8_t *scratch, uint8_t out[32]);

/* The frontier: the perfect subtrees of a tree of `size` leaves, the largest first (as the bits of size say).
 * It is all that is needed to append and to compute the root. */
typedef struct {
    uint64_t size;
    uint8_t node[64][32]; /* node[h] is the perfect subtree of height h, valid when bit h of size is set */
} lfs_frontier;
void lfs_frontier_init(lfs_frontier *f);
/* Append n leaf hashes. */
void lfs_frontier_append(lfs_frontier *f, const uint8_t *leaves32n, size_t n);
/* The same; `tiles` gets the hash of each subtree of 256 leaves that they complete. Returns how many. */
size_t lfs_frontier_append_tiles(lfs_frontier *f, const uint8_t *leaves32n, size_t n, uint8_t *tiles);
/* The same, and root = MTH of these leaves alone, which costs little more when size is a multiple of 64 or so. scratch as for lfs_mth, but not leaves32n. */
size_t lfs_frontier_append_batch(lfs_frontier *f, const uint8_t *leaves32n, size_t n, uint8_t *scratch, uint8_t *tiles, uint8_t root[32]);
/* Append one perfect subtree of 2^height leaves; returns 0, or -1 when size is not a multiple of 2^height
 * (or height is above 63). */
int lfs_frontier_append_subtree(lfs_frontier *f, unsigned height, const uint8_t hash[32]);
void lfs_frontier_root(const lfs_frontier *f, uint8_t out[32]);
/* cffi-end */
#endif
