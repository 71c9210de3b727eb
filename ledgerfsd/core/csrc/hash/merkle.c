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

/* So many nodes at a time: enough to fill the lanes of the hash on the lower levels; 32 KiB of stack. */
#define CHUNK 1024
#define TILE_HEIGHT 8

/* Append n perfect subtrees of 2^height leaves; size is a multiple of that. */
static size_t append_chunk(lfs_frontier *f, unsigned height, const uint8_t *subtrees, size_t n, uint8_t *tiles) {
    uint8_t nodes[CHUNK + 1][32]; /* nodes[0] is kept for the subtree that waits for a right neighbour */
    uint64_t size = f->size;
    size_t n_tiles = 0;
    f->size += (uint64_t)n << height;
    memcpy(nodes[1], subtrees, 32 * n);
    for (unsigned h = height; n > 0; h++) {
        size_t first = 1;
        if (h == TILE_HEIGHT) {
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

static size_t append(lfs_frontier *f, unsigned height, const uint8_t *subtrees, size_t n, uint8_t *tiles) {
    size_t n_tiles = 0;
    while (n > 0) {
        size_t part = n < CHUNK ? n : CHUNK;
        n_tiles += append_chunk(f, height, subtrees, part, tiles ? tiles + 32 * n_tiles : NULL);
        subtrees += 32 * part;
        n -= part;
    }
    return n_tiles;
}

size_t lfs_frontier_append_tiles(lfs_frontier *f, const uint8_t *leaves32n, size_t n, uint8_t *tiles) { return append(f, 0, leaves32n, n, tiles); }

/* Of a tree whose size is a multiple of 2^k, the k levels above the leaves are those of a tree of the new leaves alone. */
size_t lfs_frontier_append_batch(lfs_frontier *f, const uint8_t *leaves32n, size_t n, uint8_t *scratch, uint8_t *tiles, uint8_t root[32]) {
    unsigned height = 0, shared = f->size & 255 ? (unsigned)__builtin_ctzll(f->size) : TILE_HEIGHT;
    const uint8_t *level = leaves32n;
    size_t whole = n, all = n; /* perfect subtrees; and with what is left at the right end */
    for (; height < shared && all > 1; height++) {
        if (whole % 2) memcpy(f->node[height], level + 32 * (whole - 1), 32);
        lfs_node_hashes(level, all / 2, scratch);
        if (all % 2) memmove(scratch + 32 * (all / 2), level + 32 * (all - 1), 32);
        whole /= 2;
        all = (all + 1) / 2;
        level = scratch;
    }
    size_t n_tiles = append(f, height, level, whole, tiles);
    f->size += n & (((uint64_t)1 << height) - 1);
    lfs_mth(level, all, scratch, root);
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
