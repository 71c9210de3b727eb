/* The state tree (docs/FORMAT.md, section 12): for each currency and class a tree over what every account has, with sums. One thread at a time; no
 * I/O. The pure-Python twin is ledgerfsd/core/pure/state_tree.py. */
#ifndef LFS_STATE_TREE_H
#define LFS_STATE_TREE_H
#include "ledger.h"

#define LFS_TREE_LEVELS 33
#define LFS_LOW_LEVELS 12

/* As it is hashed into its parent, and as a path shows it: the hash, then debits, credits and liability as u192, big-endian (2^32 accounts of less than
 * 2^127 cannot overflow them). Neighbours in memory are then two thirds of the parent's message. */
#define LFS_NODE_BYTES 104
typedef struct { uint8_t bytes[LFS_NODE_BYTES]; } lfs_node;

typedef struct {
    char currency[13];
    uint8_t decimals, class_;
    uint8_t unit[40], unit_len; /* what is the same in all its leaves: currency, decimals, class */
    unsigned levels;                 /* the root is level[levels - 1][0] */
    lfs_node *level[LFS_TREE_LEVELS]; /* level 0: the leaves. A node without a right neighbour rises as it is. */
    uint32_t size[LFS_TREE_LEVELS], room[LFS_TREE_LEVELS];
    uint32_t *changed, n_changed, changed_size; /* positions of leaves whose paths are to be hashed again, */
    uint32_t *risen, n_risen, risen_size;       /* and of nodes of level LFS_LOW_LEVELS, below which that is done */
} lfs_tree;

#define LFS_LEAVES_STAGED 128
#define LFS_LEAF_ROW_BYTES 256 /* the longest leaf has 192 bytes; padded as SHA-256 pads it, that is four blocks */
typedef struct {
    uint32_t ordinal;
    const lfs_info *info;
    const lfs_state *state;
} lfs_staged;

typedef struct { uint32_t tree, position; } lfs_place;

typedef struct {
    lfs_tree *trees; /* in the order in which they came to be: lfs_place points here */
    uint32_t *order; /* in the order of currency and class */
    uint32_t n_trees, trees_size;
    lfs_place *places; /* by ordinal, address space reserved */
    uint32_t n_accounts, accounts_max;
    /* Leaves that are set, but not made yet: many at once fill the lanes of the hash, and their memory arrives meanwhile. */
    lfs_staged *staged;
    uint8_t (*rows)[LFS_LEAF_ROW_BYTES];
    uint32_t n_staged;
} lfs_state_tree;

int lfs_state_tree_init(lfs_state_tree *t, uint32_t accounts_max);
void lfs_state_tree_free(lfs_state_tree *t);
/* The next account; its state follows. */
void lfs_state_tree_open(lfs_state_tree *t, const lfs_info *info, const lfs_currency *currency);
/* What the account has now; `info` and `state` must stay until lfs_state_tree_make_leaves or later. Quickest in rising order of accounts. */
void lfs_state_tree_set(lfs_state_tree *t, uint32_t ordinal, const lfs_info *info, const lfs_state *state);
void lfs_state_tree_make_leaves(lfs_state_tree *t);
/* Hash all that has changed. */
void lfs_state_tree_hash(lfs_state_tree *t);
/* The same, and the root of all. */
void lfs_state_tree_root(lfs_state_tree *t, uint8_t out[32]);

/* After lfs_state_tree_root. The siblings of an account's leaf, from the leaf upwards; returns how many there are. */
uint32_t lfs_state_tree_path(const lfs_state_tree *t, uint32_t ordinal, uint8_t out[LFS_TREE_LEVELS * LFS_NODE_BYTES]);
/* The list of trees as it is hashed into the state root. */
uint8_t *lfs_state_tree_list(const lfs_state_tree *t, size_t *len); /* to be freed */
#endif
