/* An account as it is judged (verify_judge.c): what an entry asks of it in two lines of the cache. Which accounts the next entry names is anybody's guess, so that
 * each line is waited for. What never changes is in lfs_info besides, for what asks seldom, or in order. */
#ifndef LFS_VERIFY_ACCOUNT_H
#define LFS_VERIFY_ACCOUNT_H
#include "ledger.h"

typedef struct {
    u128 debits, credits, held_debits, held_credits;
    uint64_t log_bytes;
    uint32_t last_index, entries, last_tx; /* there are less than 2^32 entries */
    uint16_t currency;
    uint8_t status, normal, limit, name_len;
    uint8_t name[38]; /* the head of it */
} lfs_judged;
_Static_assert(sizeof(lfs_judged) == 128, "two lines");

static inline void lfs_prefetch_judged(const lfs_judged *a) {
    __builtin_prefetch(a, 1);
    __builtin_prefetch((const uint8_t *)a + 64, 1);
}

static inline lfs_judged lfs_judged_new(const lfs_info *info) {
    lfs_judged a = {.currency = info->currency, .normal = info->normal, .limit = info->limit, .name_len = info->name_len};
    memcpy(a.name, info->name, sizeof a.name);
    return a;
}

static inline int lfs_judged_is(const lfs_judged *a, const lfs_info *info, const uint8_t *name, uint32_t len) {
    if (a->name_len != len) return 0;
    return len <= sizeof a->name ? lfs_same(a->name, name, len) : memcmp(info->name, name, len) == 0;
}

/* As the state tree and index.lmdb have it. */
static inline lfs_state lfs_judged_state(const lfs_judged *a) {
    return (lfs_state){a->debits, a->credits, a->held_debits, a->held_credits, a->last_index, a->entries, a->log_bytes, a->last_tx, a->status, 0};
}
#endif
