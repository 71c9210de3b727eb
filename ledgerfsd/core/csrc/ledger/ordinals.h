/* A set of account ordinals as a bit map, which gives them back in rising order: sorted and without repeats for nothing. A second map has a bit for each
 * word that is not zero, so that a set of few among millions is found as quickly as it is small. One thread at a time. */
#ifndef LFS_ORDINALS_H
#define LFS_ORDINALS_H
#include <stdint.h>

typedef struct {
    uint64_t *words, *over; /* over: bit i of word k says that words[64 * k + i] is not zero */
    uint32_t n, over_words;
} lfs_ordinals;

int lfs_ordinals_init(lfs_ordinals *o, uint32_t most); /* address space only; memory comes as it is used */
void lfs_ordinals_free(lfs_ordinals *o);

static inline int lfs_ordinals_has(const lfs_ordinals *o, uint32_t ordinal) { return o->words[ordinal >> 6] >> (ordinal & 63) & 1; }

/* Returns whether it is new. */
static inline int lfs_ordinals_add(lfs_ordinals *o, uint32_t ordinal) {
    uint64_t bit = 1ull << (ordinal & 63), *word = &o->words[ordinal >> 6];
    if (*word & bit) return 0;
    *word |= bit;
    o->over[ordinal >> 12] |= 1ull << (ordinal >> 6 & 63);
    o->n++;
    return 1;
}

/* The next one at or after `from`, or UINT32_MAX. */
uint32_t lfs_ordinals_next(const lfs_ordinals *o, uint32_t from);
/* Takes up to `most` of them out of the set, the least first, from *from on; returns how many. *from is then behind the last. */
uint32_t lfs_ordinals_take(lfs_ordinals *o, uint32_t *from, uint32_t *out, uint32_t most);
void lfs_ordinals_clear(lfs_ordinals *o);
#endif
