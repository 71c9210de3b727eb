/* The state tree (docs/FORMAT.md, section 12): for each currency and class a tree over what every account has, with sums. One thread at a time; no
 * I/O. The pure-Python twin is ledgerfsd/core/pure/state_tree.py. */
#ifndef LFS_STATE_TREE_H
#define LFS_STATE_TREE_H
#include "ledger.h"

#define LFS_TREE_LEVELS 33

typedef struct { uint64_t word[3]; } lfs_sum; /* low first: 2^32 accounts of less than 2^127 cannot overflow it */
typedef struct {
    uint8_t hash[32];
    lfs_sum debits, credits, liability;
} lfs_node;

typedef struct {
    char currency[13];
    uint8_t decimals, class_;
    unsigned levels;                 /* the root is level[levels - 1][0] */
    lfs_node *level[LFS_TREE_LEVELS]; /* level 0: the leaves. A node without a right neighbour rises as it is. */
    uint32_t size[LFS_TREE_LEVELS], room[LFS_TREE_LEVELS];
    uint32_t *changed, n_changed, changed_size; /* positions of leaves whose paths are to be hashed again; sorted by then */
} lfs_tree;

typedef struct { uint32_t tree, position; } lfs_place;

typedef struct {
    lfs_tree *trees; /* in the order in which they came to be: lfs_place points here */
    uint32_t *order; /* in the order of currency and class */
    uint32_t n_trees, trees_size;
    lfs_place *places; /* by ordinal, address space reserved */
    uint32_t n_accounts, accounts_max;
} lfs_state_tree;

int lfs_state_tree_init(lfs_state_tree *t, uint32_t accounts_max);
void lfs_state_tree_free(lfs_state_tree *t);
/* The next account; its state follows. */
void lfs_state_tree_open(lfs_state_tree *t, const lfs_info *info, const lfs_currency *currency);
void lfs_state_tree_set(lfs_state_tree *t, uint32_t ordinal, const lfs_info *info, const lfs_state *state);
/* Hash what has changed, and the root. */
void lfs_state_tree_root(lfs_state_tree *t, uint8_t out[32]);

/* Fixed forms: a node as hash and sums (104 bytes); the list of trees as it is hashed into the state root. Both return how many there are. */
#define LFS_NODE_BYTES 104
uint32_t lfs_state_tree_path(const lfs_state_tree *t, uint32_t ordinal, uint8_t out[LFS_TREE_LEVELS * LFS_NODE_BYTES]);
uint8_t *lfs_state_tree_list(const lfs_state_tree *t, size_t *len); /* to be freed */
#endif
