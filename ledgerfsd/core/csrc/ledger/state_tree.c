#include "state_tree.h"
#include <stdlib.h>
#include <sys/mman.h>
#include "lfs_hash.h"

#define TAG_LEAF 0x10
#define TAG_STATE 0x12
#define SUM_BYTES 24
_Static_assert(2 * LFS_NODE_BYTES == LFS_SUM_PAIR_BYTES, "as sha256.c hashes them");

/* -- bytes */

static uint8_t *put(uint8_t *p, const void *bytes, size_t len) { return (uint8_t *)memcpy(p, bytes, len) + len; }

static uint8_t *put_u64(uint8_t *p, uint64_t value) {
    value = __builtin_bswap64(value);
    return put(p, &value, 8);
}

static uint8_t *put_u128(uint8_t *p, u128 value) { return put_u64(put_u64(p, (uint64_t)(value >> 64)), (uint64_t)value); }

static uint8_t *put_text(uint8_t *p, const void *text, size_t len) {
    *p++ = (uint8_t)(len >> 8);
    *p++ = (uint8_t)len;
    return put(p, text, len);
}

static uint64_t get_u64(const uint8_t *p) {
    uint64_t value;
    memcpy(&value, p, 8);
    return __builtin_bswap64(value);
}

static inline void sum_add(uint8_t *out, const uint8_t *a, const uint8_t *b) {
    uint64_t low, middle;
    uint64_t carry = __builtin_add_overflow(get_u64(a + 16), get_u64(b + 16), &low);
    uint64_t next = __builtin_add_overflow(get_u64(a + 8), get_u64(b + 8), &middle);
    next |= __builtin_add_overflow(middle, carry, &middle);
    put_u64(put_u64(put_u64(out, get_u64(a) + get_u64(b) + next), middle), low);
}

static void sums_add(lfs_node *out, const lfs_node *pair) {
    for (int at = 32; at < LFS_NODE_BYTES; at += SUM_BYTES) sum_add(out->bytes + at, pair[0].bytes + at, pair[1].bytes + at);
}

/* -- one tree */

static lfs_node *node_at(lfs_tree *tree, unsigned level, uint32_t position) {
    while (position >= tree->room[level]) {
        tree->room[level] = tree->room[level] ? 2 * tree->room[level] : 64;
        tree->level[level] = lfs_grow_big(tree->level[level], tree->room[level] * sizeof(lfs_node));
    }
    return &tree->level[level][position];
}

/* By 11 bits at a time, from the lowest; room for n more stands behind. Three rounds end in the room, so a fourth, of copying, ends where it began. */
static void sort_rising(uint32_t *positions, uint32_t n) {
    uint32_t *from = positions, *to = positions + n, i = 1, k;
    for (; i < n && (positions[i - 1] <= positions[i] || n <= 64); i++) { /* few: each to its place */
        uint32_t moving = positions[i];
        for (k = i; k && positions[k - 1] > moving; k--) positions[k] = positions[k - 1];
        positions[k] = moving;
    }
    if (i >= n) return;
    for (unsigned shift = 0; shift < 32; shift += 11) {
        uint32_t place[2049] = {0};
        for (i = 0; i < n; i++) place[(from[i] >> shift & 2047) + 1]++;
        for (i = 1; i < 2048; i++) place[i] += place[i - 1];
        for (i = 0; i < n; i++) to[place[from[i] >> shift & 2047]++] = from[i];
        uint32_t *other = from;
        from = to;
        to = other;
    }
    memcpy(positions, from, n * sizeof *positions);
}

/* Nodes of one level, waiting to be hashed together. */
#define NODES_STAGED 64
#define PIECE 1024
#define NODES_AHEAD 12 /* their memory is on its way before it is needed */
typedef struct {
    lfs_tree *tree;
    unsigned level;
    uint32_t n;
    const uint8_t *pair[NODES_STAGED]; /* of the level below, of which nothing changes any more; hashed where they stand */
    uint8_t *hash[NODES_STAGED];
} nodes;

static void nodes_flush(nodes *s) {
    lfs_sum_node_hashes((uint8_t)s->level, s->pair, s->n, s->hash);
    s->n = 0;
}

static void node_renew(nodes *s, uint32_t position) {
    lfs_node *out = node_at(s->tree, s->level, position);
    const lfs_node *pair = &s->tree->level[s->level - 1][2 * (size_t)position];
    if (2 * (size_t)position + 1 >= s->tree->size[s->level - 1]) {
        *out = pair[0];
        return;
    }
    sums_add(out, pair);
    s->pair[s->n] = pair->bytes;
    s->hash[s->n++] = out->bytes;
    if (s->n == NODES_STAGED) nodes_flush(s);
}

/* Up from level `from` to level `to`, each changed node once. positions: n of level `from`, rising; then of the level reached. Returns how many. */
static uint32_t climb(nodes *staged, uint32_t *positions, uint32_t n, unsigned from, unsigned to) {
    lfs_tree *tree = staged->tree;
    for (unsigned level = from + 1; level <= to && level < tree->levels; level++) {
        staged->level = level;
        uint32_t kept = 0;
        const lfs_node *below = tree->level[level - 1];
        for (uint32_t i = 0; i < n; i++) {
            uint32_t position = positions[i] / 2;
            if (i + NODES_AHEAD < n) {
                const uint8_t *pair = below[positions[i + NODES_AHEAD] & ~1u].bytes;
                for (int line = 0; line < 4; line++) __builtin_prefetch(pair + 64 * line);
            }
            if (kept && positions[kept - 1] == position) continue;
            node_renew(staged, position);
            positions[kept++] = position;
        }
        nodes_flush(staged);
        n = kept;
    }
    return n;
}

static void grow(lfs_tree *tree) {
    unsigned level = 1;
    node_at(tree, 0, tree->size[0] - 1);
    for (; tree->size[level - 1] > 1; level++) {
        tree->size[level] = tree->size[level - 1] / 2 + (tree->size[level - 1] & 1);
        node_at(tree, level, tree->size[level] - 1);
    }
    tree->levels = level;
}

/* In pieces of which all low levels stay in the cache. */
static void hash_low(lfs_tree *tree) {
    nodes staged = {.tree = tree};
    if (!tree->n_changed) return;
    grow(tree);
    sort_rising(tree->changed, tree->n_changed);
    for (uint32_t at = 0; at < tree->n_changed; at += PIECE) {
        uint32_t left = tree->n_changed - at, n = climb(&staged, tree->changed + at, left < PIECE ? left : PIECE, 0, LFS_LOW_LEVELS);
        if (tree->n_risen + n > tree->risen_size) {
            tree->risen_size = 2 * (tree->n_risen + n) + 64;
            tree->risen = lfs_grow(tree->risen, 2ull * tree->risen_size * sizeof *tree->risen); /* half of it to sort into */
        }
        memcpy(tree->risen + tree->n_risen, tree->changed + at, n * sizeof *tree->risen);
        tree->n_risen += n;
    }
    tree->n_changed = 0;
}

static void hash_high(lfs_tree *tree) {
    nodes staged = {.tree = tree};
    if (!tree->n_risen) return;
    sort_rising(tree->risen, tree->n_risen);
    climb(&staged, tree->risen, tree->n_risen, LFS_LOW_LEVELS, LFS_TREE_LEVELS);
    tree->n_risen = 0;
}

/* -- leaves */

/* Copies of a fixed size are one or two instructions; what is too long is written over. */
static unsigned leaf_put(uint8_t *bytes, uint32_t ordinal, const lfs_tree *tree, const lfs_info *info, const lfs_state *state) {
    uint8_t *p = bytes;
    *p++ = TAG_LEAF;
    p = put_u64(p, ordinal);
    *p++ = 0;
    *p++ = info->name_len;
    memcpy(p, info->name, sizeof info->name);
    p += info->name_len;
    memcpy(p, tree->unit, sizeof tree->unit);
    p += tree->unit_len;
    *p++ = info->normal == S_CREDIT;
    *p++ = (uint8_t)state->status;
    p = put_u64(put_u64(p, state->entries), state->last_index);
    p = put_u128(put_u128(put_u128(put_u128(p, state->debits), state->credits), state->held_debits), state->held_credits);
    return (unsigned)(p - bytes);
}

/* The row and the sums of one leaf; returns how many blocks the row has. */
static unsigned leaf_make(lfs_state_tree *t, uint32_t which) {
    const lfs_staged *staged = &t->staged[which];
    lfs_place place = t->places[staged->ordinal];
    lfs_tree *tree = &t->trees[place.tree];
    const lfs_state *state = staged->state;
    uint8_t *sums = node_at(tree, 0, place.position)->bytes + 32, *row = t->rows[which];
    memset(sums, 0, 3 * SUM_BYTES);
    put_u128(sums + 8, state->debits);
    put_u128(sums + 8 + SUM_BYTES, state->credits);
    put_u128(sums + 8 + 2 * SUM_BYTES, state->credits > state->debits ? state->credits - state->debits : 0);
    if (tree->n_changed == tree->changed_size) {
        tree->changed_size = tree->changed_size ? 2 * tree->changed_size : 64;
        tree->changed = lfs_grow(tree->changed, 2ull * tree->changed_size * sizeof *tree->changed); /* half of it to sort into */
    }
    tree->changed[tree->n_changed++] = place.position;
    unsigned len = leaf_put(row, staged->ordinal, tree, staged->info, state), blocks = (len + 9 + 63) / 64;
    memset(row + len, 0, 64 * blocks - len);
    row[len] = 0x80;
    put_u64(row + 64 * blocks - 8, 8ull * len);
    return blocks;
}

void lfs_state_tree_make_leaves(lfs_state_tree *t) {
    enum { BLOCKS = LFS_LEAF_ROW_BYTES / 64 };
    uint32_t n = t->n_staged, which[BLOCKS + 1][LFS_LEAVES_STAGED], count[BLOCKS + 1] = {0};
    const uint8_t *rows[LFS_LEAVES_STAGED];
    uint8_t digests[LFS_LEAVES_STAGED][32];
    for (uint32_t i = 0; i < n; i++) __builtin_prefetch(&t->places[t->staged[i].ordinal]);
    for (uint32_t i = 0; i < n; i++) {
        lfs_place place = t->places[t->staged[i].ordinal];
        uint8_t *node = node_at(&t->trees[place.tree], 0, place.position)->bytes;
        const uint8_t *info = (const uint8_t *)t->staged[i].info;
        __builtin_prefetch(info);
        __builtin_prefetch(info + 64);
        lfs_prefetch_state(t->staged[i].state);
        __builtin_prefetch(node, 1);
        __builtin_prefetch(node + 64, 1);
    }
    for (uint32_t i = 0; i < n; i++) {
        unsigned blocks = leaf_make(t, i);
        which[blocks][count[blocks]++] = i;
    }
    for (unsigned blocks = 1; blocks <= BLOCKS; blocks++) {
        for (uint32_t i = 0; i < count[blocks]; i++) rows[i] = t->rows[which[blocks][i]];
        lfs_sha256_padded(rows, blocks, count[blocks], digests[0]);
        for (uint32_t i = 0; i < count[blocks]; i++) { /* in order: the last of one account holds */
            lfs_place place = t->places[t->staged[which[blocks][i]].ordinal];
            memcpy(t->trees[place.tree].level[0][place.position].bytes, digests[i], 32);
        }
    }
    t->n_staged = 0;
}

void lfs_state_tree_set(lfs_state_tree *t, uint32_t ordinal, const lfs_info *info, const lfs_state *state) {
    t->staged[t->n_staged++] = (lfs_staged){ordinal, info, state};
    if (t->n_staged == LFS_LEAVES_STAGED) lfs_state_tree_make_leaves(t);
}

/* -- all trees */

int lfs_state_tree_init(lfs_state_tree *t, uint32_t accounts_max) {
    memset(t, 0, sizeof *t);
    t->accounts_max = accounts_max;
    t->places = mmap(NULL, accounts_max * sizeof *t->places, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->places == MAP_FAILED) t->places = NULL;
    else madvise(t->places, accounts_max * sizeof *t->places, MADV_HUGEPAGE);
    t->rows = lfs_grow(NULL, LFS_LEAVES_STAGED * sizeof *t->rows);
    t->staged = lfs_grow(NULL, LFS_LEAVES_STAGED * sizeof *t->staged);
    return t->places ? 0 : -1;
}

void lfs_state_tree_free(lfs_state_tree *t) {
    for (uint32_t i = 0; i < t->n_trees; i++) {
        for (unsigned level = 0; level < LFS_TREE_LEVELS; level++) free(t->trees[i].level[level]);
        free(t->trees[i].changed);
        free(t->trees[i].risen);
    }
    free(t->trees);
    free(t->order);
    free(t->rows);
    free(t->staged);
    if (t->places) munmap(t->places, t->accounts_max * sizeof *t->places);
}

static int before(const lfs_tree *a, const lfs_tree *b) {
    int order = strcmp(a->currency, b->currency);
    return order ? order < 0 : strcmp(LFS_CLASS_NAMES[a->class_], LFS_CLASS_NAMES[b->class_]) < 0;
}

static uint32_t tree_for(lfs_state_tree *t, const lfs_currency *currency, uint8_t class_) {
    for (uint32_t i = 0; i < t->n_trees; i++)
        if (t->trees[i].class_ == class_ && strcmp(t->trees[i].currency, currency->code) == 0) return i;
    if (t->n_trees == t->trees_size) {
        t->trees_size = t->trees_size ? 2 * t->trees_size : 16;
        t->trees = lfs_grow(t->trees, t->trees_size * sizeof *t->trees);
        t->order = lfs_grow(t->order, t->trees_size * sizeof *t->order);
    }
    lfs_tree *tree = &t->trees[t->n_trees];
    memset(tree, 0, sizeof *tree);
    memcpy(tree->currency, currency->code, sizeof tree->currency);
    tree->decimals = currency->decimals;
    tree->class_ = class_;
    uint8_t *unit = put_text(tree->unit, tree->currency, strlen(tree->currency));
    *unit++ = tree->decimals;
    tree->unit_len = (uint8_t)(put_text(unit, LFS_CLASS_NAMES[class_], strlen(LFS_CLASS_NAMES[class_])) - tree->unit);
    uint32_t place = t->n_trees;
    while (place && before(tree, &t->trees[t->order[place - 1]])) place--;
    memmove(t->order + place + 1, t->order + place, (t->n_trees - place) * sizeof *t->order);
    t->order[place] = t->n_trees;
    return t->n_trees++;
}

void lfs_state_tree_open(lfs_state_tree *t, const lfs_info *info, const lfs_currency *currency) {
    uint32_t which = tree_for(t, currency, info->class_);
    t->places[t->n_accounts++] = (lfs_place){which, t->trees[which].size[0]++};
}

void lfs_state_tree_hash(lfs_state_tree *t) {
    lfs_state_tree_make_leaves(t);
    for (uint32_t i = 0; i < t->n_trees; i++) hash_low(&t->trees[i]), hash_high(&t->trees[i]);
}

void lfs_state_tree_root(lfs_state_tree *t, uint8_t out[32]) {
    size_t len;
    lfs_state_tree_hash(t);
    uint8_t *list = lfs_state_tree_list(t, &len);
    lfs_sha256(list, len, out);
    free(list);
}

uint32_t lfs_state_tree_path(const lfs_state_tree *t, uint32_t ordinal, uint8_t out[LFS_TREE_LEVELS * LFS_NODE_BYTES]) {
    lfs_place place = t->places[ordinal];
    const lfs_tree *tree = &t->trees[place.tree];
    uint32_t n = 0, position = place.position;
    for (unsigned level = 0; level + 1 < tree->levels; level++, position /= 2)
        if ((position ^ 1) < tree->size[level]) memcpy(out + LFS_NODE_BYTES * n++, tree->level[level][position ^ 1].bytes, LFS_NODE_BYTES);
    return n;
}

uint8_t *lfs_state_tree_list(const lfs_state_tree *t, size_t *len) {
    uint8_t *list = lfs_grow(NULL, 16 + t->n_trees * (size_t)192), *p = list;
    *p++ = TAG_STATE;
    p = put_u64(p, t->n_accounts);
    for (int shift = 24; shift >= 0; shift -= 8) *p++ = (uint8_t)(t->n_trees >> shift);
    for (uint32_t i = 0; i < t->n_trees; i++) {
        const lfs_tree *tree = &t->trees[t->order[i]];
        const lfs_node *root = &tree->level[tree->levels - 1][0];
        const char *class_ = LFS_CLASS_NAMES[tree->class_];
        p = put_text(put_text(p, tree->currency, strlen(tree->currency)), class_, strlen(class_));
        p = put(put(put_u64(p, tree->size[0]), root->bytes + 32, 3 * SUM_BYTES), root->bytes, 32);
    }
    *len = (size_t)(p - list);
    return list;
}
