/* RFC 6962 trees: the root of a list of leaf hashes, and the frontier of a growing tree. */
#include <string.h>

#include "lfs_hash.h"

static void empty_root(uint8_t out[32]) { lfs_sha256((const uint8_t *)"", 0, out); }

/* Level by level: a node without a right neighbour rises as it is, which gives the same tree as RFC 6962's recursive
 * split at the largest power of two. */
void lfs_mth(const uint8_t *leaves32n, size_t n, uint8_t *scratch, uint8_t out[32]) {
    const uint8_t *level = leaves32n;
    if (n == 0) {
        empty_root(out);
        return;
    }
    while (n > 1) {
        lfs_node_hashes(level, n / 2, scratch);
        if (n % 2) memmove(scratch + 32 * (n / 2), level + 32 * (n - 1), 32);
        n = (n + 1) / 2;
        level = scratch;
    }
    memmove(out, level, 32);
}

void lfs_frontier_init(lfs_frontier *f) { memset(f, 0, sizeof *f); }

/* So many leaves at a time: enough to fill the lanes of the hash on the lower levels; 32 KiB of stack. */
#define CHUNK 1024

static size_t append_chunk(lfs_frontier *f, const uint8_t *leaves, size_t n, uint8_t *tiles) {
    uint8_t nodes[CHUNK + 1][32]; /* nodes[0] is kept for the subtree that waits for a right neighbour */
    uint64_t size = f->size;
    size_t n_tiles = 0;
    f->size += n;
    memcpy(nodes[1], leaves, 32 * n);
    for (unsigned h = 0; n > 0; h++) {
        size_t first = 1;
        if (h == 8) {
            if (tiles) memcpy(tiles, nodes[1], 32 * n);
            n_tiles = n;
        }
        if (size >> h & 1) {
            memcpy(nodes[0], f->node[h], 32);
            first = 0;
            n++;
        }
        if (n % 2) memcpy(f->node[h], nodes[first + n - 1], 32);
        n /= 2;
        lfs_node_hashes(nodes[first], n, nodes[1]);
    }
    return n_tiles;
}

size_t lfs_frontier_append_tiles(lfs_frontier *f, const uint8_t *leaves32n, size_t n, uint8_t *tiles) {
    size_t n_tiles = 0;
    while (n > 0) {
        size_t part = n < CHUNK ? n : CHUNK;
        n_tiles += append_chunk(f, leaves32n, part, tiles ? tiles + 32 * n_tiles : NULL);
        leaves32n += 32 * part;
        n -= part;
    }
    return n_tiles;
}

void lfs_frontier_append(lfs_frontier *f, const uint8_t *leaves32n, size_t n) { lfs_frontier_append_tiles(f, leaves32n, n, NULL); }

int lfs_frontier_append_subtree(lfs_frontier *f, unsigned height, const uint8_t hash[32]) {
    if (height > 63 || (f->size & (((uint64_t)1 << height) - 1))) return -1;
    uint8_t node[32];
    unsigned h = height;
    memcpy(node, hash, 32);
    for (; h < 63 && (f->size >> h & 1); h++) lfs_node_hash(f->node[h], node, node);
    memcpy(f->node[h], node, 32);
    f->size += (uint64_t)1 << height;
    return 0;
}

void lfs_frontier_root(const lfs_frontier *f, uint8_t out[32]) {
    if (f->size == 0) {
        empty_root(out);
        return;
    }
    unsigned h = (unsigned)__builtin_ctzll(f->size);
    memcpy(out, f->node[h], 32);
    for (h++; h < 64; h++) {
        if (f->size >> h & 1) lfs_node_hash(f->node[h], out, out);
    }
}
