#include "ordinals.h"
#include <string.h>
#include <sys/mman.h>

static uint64_t *reserve(uint64_t words) {
    void *p = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int lfs_ordinals_init(lfs_ordinals *o, uint32_t most) {
    memset(o, 0, sizeof *o);
    o->over_words = (most >> 12) + 1;
    o->words = reserve(64ull * o->over_words);
    o->over = reserve(o->over_words);
    return o->words && o->over ? 0 : -1;
}

void lfs_ordinals_free(lfs_ordinals *o) {
    if (o->words) munmap(o->words, 64 * 8ull * o->over_words);
    if (o->over) munmap(o->over, 8ull * o->over_words);
    memset(o, 0, sizeof *o);
}

uint32_t lfs_ordinals_next(const lfs_ordinals *o, uint32_t from) {
    uint32_t place = from >> 6, k = place >> 6;
    if (!o->n || k >= o->over_words) return UINT32_MAX;
    uint64_t word = o->words[place] & ~0ull << (from & 63);
    if (word) return place * 64 + (uint32_t)__builtin_ctzll(word);
    uint64_t over = (place & 63) == 63 ? 0 : o->over[k] & ~0ull << ((place & 63) + 1);
    while (!over) {
        if (++k == o->over_words) return UINT32_MAX;
        over = o->over[k];
    }
    place = k * 64 + (uint32_t)__builtin_ctzll(over);
    return place * 64 + (uint32_t)__builtin_ctzll(o->words[place]);
}

static void remove_one(lfs_ordinals *o, uint32_t ordinal) {
    uint64_t *word = &o->words[ordinal >> 6];
    *word &= ~(1ull << (ordinal & 63));
    if (!*word) o->over[ordinal >> 12] &= ~(1ull << (ordinal >> 6 & 63));
    o->n--;
}

uint32_t lfs_ordinals_take(lfs_ordinals *o, uint32_t *from, uint32_t *out, uint32_t most) {
    uint32_t n = 0, next;
    for (; n < most && (next = lfs_ordinals_next(o, *from)) != UINT32_MAX; *from = next + 1) {
        remove_one(o, next);
        out[n++] = next;
    }
    return n;
}

void lfs_ordinals_clear(lfs_ordinals *o) {
    for (uint32_t next = 0; (next = lfs_ordinals_next(o, next)) != UINT32_MAX; next++) remove_one(o, next);
}
