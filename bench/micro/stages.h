/* The stages of the C core by themselves, timed inside C, in nanoseconds of processor time (typed face: stages.py). Built beside the core from its own objects: build.py. */
#ifndef LFS_STAGES_H
#define LFS_STAGES_H
#include <stddef.h>
#include <stdint.h>

/* cffi-begin */
typedef struct lfs_stages lfs_stages;
/* Sums over all that was fed. */
typedef struct {
    uint64_t intents, refused, bytes; /* bytes: of the entries */
    uint64_t parse_ns, hash_ns, apply_ns; /* apply: ids, names, effects and rendering */
} lfs_stage_times;
lfs_stages *lfs_stages_new(uint32_t accounts_max);
void lfs_stages_free(lfs_stages *s);
/* Lines of intents, as T1 takes them: parsed, hashed and applied to the ledger of s, whose entries are dropped when a batch is full. */
void lfs_stages_feed(lfs_stages *s, const uint8_t *lines, size_t len, lfs_stage_times *times);
/* The first of those lines, a transfer, rendered so many times; returns ns, or 0 when it is none. */
uint64_t lfs_stages_render(lfs_stages *s, const uint8_t *lines, size_t len, uint32_t rounds);
/* Of the entries in hand, which the last feed left: how many, */
uint32_t lfs_stages_entries(const lfs_stages *s);
/* and ns of: their leaf hashes; the root of the batch; appending them to a log of `before` entries and its root; a chain of SHA-256 over them. */
uint64_t lfs_stages_leaves(lfs_stages *s);
uint64_t lfs_stages_batch_root(lfs_stages *s);
uint64_t lfs_stages_log_root(lfs_stages *s, uint64_t before);
uint64_t lfs_stages_chain(lfs_stages *s, uint8_t head[32]);
/* The chain over the same entries again, against its head: 1 when it is that. */
int lfs_stages_chain_verify(lfs_stages *s, const uint8_t head[32], uint64_t *ns);
/* Accounts of the state tree of s. The first call makes the tree. Each: `touched` accounts by chance get a new state, and a root; ns. */
uint64_t lfs_stages_state_root(lfs_stages *s, uint32_t touched, uint64_t seed);
/* cffi-end */
#endif
