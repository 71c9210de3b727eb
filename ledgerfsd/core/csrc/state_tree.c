#include "state_tree.h"
#include <stdlib.h>
#include <sys/mman.h>
#include "lfs_hash.h"

#define TAG_LEAF 0x10
#define TAG_NODE 0x11
#define TAG_STATE 0x12
#define SUM_BYTES 24

/* -- bytes */

static uint8_t *put(uint8_t *p, const void *bytes, size_t len) { return (uint8_t *)memcpy(p, bytes, len) + len; }

static uint8_t *put_number(uint8_t *p, u128 value, unsigned bytes) {
    for (unsigned i = bytes; i-- > 0; value >>= 8) p[i] = (uint8_t)value;
    return p + bytes;
}

static uint8_t *put_text(uint8_t *p, const void *text, size_t len) { return put(put_number(p, len, 2), text, len); }

static uint8_t *put_sum(uint8_t *p, lfs_sum sum) {
    for (int i = 2; i >= 0; i--) p = put_number(p, sum.word[i], 8);
    return p;
}

static uint8_t *put_sums(uint8_t *p, const lfs_node *n) { return put_sum(put_sum(put_sum(p, n->debits), n->credits), n->liability); }

static uint8_t *put_node(uint8_t *p, const lfs_node *n) { return put_sums(put(p, n->hash, 32), n); }

static lfs_sum sum_of(u128 value) { return (lfs_sum){{(uint64_t)value, (uint64_t)(value >> 64), 0}}; }

static lfs_sum sum_add(lfs_sum a, lfs_sum b) {
    lfs_sum out;
    u128 carry = 0;
    for (int i = 0; i < 3; i++, carry >>= 64) {
        carry += (u128)a.word[i] + b.word[i];
        out.word[i] = (uint64_t)carry;
    }
    return out;
}

/* -- nodes */

static void leaf_make(lfs_node *out, uint32_t ordinal, const lfs_tree *tree, const lfs_info *info, const lfs_state *state) {
    uint8_t bytes[256], *p = bytes;
    *p++ = TAG_LEAF;
    p = put_text(put_number(p, ordinal, 8), info->name, info->name_len);
    p = put_text(p, tree->currency, strlen(tree->currency));
    *p++ = tree->decimals;
    p = put_text(p, LFS_CLASS_NAMES[info->class_], strlen(LFS_CLASS_NAMES[info->class_]));
    *p++ = info->normal == S_CREDIT;
    *p++ = (uint8_t)state->status;
    p = put_number(put_number(p, state->entries, 8), state->last_index, 8);
    p = put_number(put_number(p, state->debits, 16), state->credits, 16);
    p = put_number(put_number(p, state->held_debits, 16), state->held_credits, 16);
    lfs_sha256(bytes, (size_t)(p - bytes), out->hash);
    out->debits = sum_of(state->debits);
    out->credits = sum_of(state->credits);
    out->liability = sum_of(state->credits > state->debits ? state->credits - state->debits : 0);
}

static void parent_make(lfs_node *out, unsigned height, const lfs_node *left, const lfs_node *right) {
    uint8_t bytes[2 + 2 * LFS_NODE_BYTES] = {TAG_NODE, (uint8_t)height};
    put_node(put_node(bytes + 2, left), right);
    lfs_node made = {.debits = sum_add(left->debits, right->debits),
                     .credits = sum_add(left->credits, right->credits),
                     .liability = sum_add(left->liability, right->liability)};
    lfs_sha256(bytes, sizeof bytes, made.hash);
    *out = made;
}

/* -- one tree */

static lfs_node *node_at(lfs_tree *tree, unsigned level, uint32_t position) {
    if (position >= tree->room[level]) {
        tree->room[level] = tree->room[level] ? 2 * tree->room[level] : 16;
        if (tree->room[level] <= position) tree->room[level] = position + 1;
        tree->level[level] = lfs_grow(tree->level[level], tree->room[level] * sizeof(lfs_node));
    }
    return &tree->level[level][position];
}

static void node_renew(lfs_tree *tree, unsigned level, uint32_t position) {
    lfs_node *out = node_at(tree, level, position);
    const lfs_node *left = &tree->level[level - 1][2 * position];
    if (2 * position + 1 < tree->size[level - 1]) parent_make(out, level, left, left + 1);
    else *out = *left;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Level by level, each changed node once. Where most have changed, sorting would cost more than hashing all. */
static void rehash(lfs_tree *tree) {
    uint32_t n = tree->n_changed, *changed = tree->changed;
    if (!n) return;
    int all = n > tree->size[0] / 4;
    if (!all) qsort(changed, n, sizeof *changed, ascending);
    unsigned level = 1;
    for (; tree->size[level - 1] > 1; level++) {
        tree->size[level] = tree->size[level - 1] / 2 + (tree->size[level - 1] & 1);
        for (uint32_t i = 0; all && i < tree->size[level]; i++) node_renew(tree, level, i);
        if (all) continue;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t position = changed[i] / 2;
            if (kept && changed[kept - 1] == position) continue;
            node_renew(tree, level, position);
            changed[kept++] = position;
        }
        n = kept;
    }
    tree->levels = level;
    tree->n_changed = 0;
}

/* -- all trees */

int lfs_state_tree_init(lfs_state_tree *t, uint32_t accounts_max) {
    memset(t, 0, sizeof *t);
    t->accounts_max = accounts_max;
    t->places = mmap(NULL, accounts_max * sizeof *t->places, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->places == MAP_FAILED) t->places = NULL;
    return t->places ? 0 : -1;
}

void lfs_state_tree_free(lfs_state_tree *t) {
    for (uint32_t i = 0; i < t->n_trees; i++) {
        for (unsigned level = 0; level < LFS_TREE_LEVELS; level++) free(t->trees[i].level[level]);
        free(t->trees[i].changed);
    }
    free(t->trees);
    free(t->order);
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

void lfs_state_tree_set(lfs_state_tree *t, uint32_t ordinal, const lfs_info *info, const lfs_state *state) {
    lfs_place place = t->places[ordinal];
    lfs_tree *tree = &t->trees[place.tree];
    leaf_make(node_at(tree, 0, place.position), ordinal, tree, info, state);
    if (tree->n_changed == tree->changed_size) {
        tree->changed_size = tree->changed_size ? 2 * tree->changed_size : 64;
        tree->changed = lfs_grow(tree->changed, tree->changed_size * sizeof *tree->changed);
    }
    tree->changed[tree->n_changed++] = place.position;
}

void lfs_state_tree_root(lfs_state_tree *t, uint8_t out[32]) {
    size_t len;
    for (uint32_t i = 0; i < t->n_trees; i++) rehash(&t->trees[i]);
    uint8_t *list = lfs_state_tree_list(t, &len);
    lfs_sha256(list, len, out);
    free(list);
}

uint32_t lfs_state_tree_path(const lfs_state_tree *t, uint32_t ordinal, uint8_t out[LFS_TREE_LEVELS * LFS_NODE_BYTES]) {
    lfs_place place = t->places[ordinal];
    const lfs_tree *tree = &t->trees[place.tree];
    uint32_t n = 0, position = place.position;
    for (unsigned level = 0; level + 1 < tree->levels; level++, position /= 2)
        if ((position ^ 1) < tree->size[level]) put_node(out + LFS_NODE_BYTES * n++, &tree->level[level][position ^ 1]);
    return n;
}

uint8_t *lfs_state_tree_list(const lfs_state_tree *t, size_t *len) {
    uint8_t *list = lfs_grow(NULL, 16 + t->n_trees * (size_t)192), *p = list;
    *p++ = TAG_STATE;
    p = put_number(put_number(p, t->n_accounts, 8), t->n_trees, 4);
    for (uint32_t i = 0; i < t->n_trees; i++) {
        const lfs_tree *tree = &t->trees[t->order[i]];
        const lfs_node *root = &tree->level[tree->levels - 1][0];
        const char *class_ = LFS_CLASS_NAMES[tree->class_];
        p = put_text(put_text(p, tree->currency, strlen(tree->currency)), class_, strlen(class_));
        p = put(put_sums(put_number(p, tree->size[0], 8), root), root->hash, 32);
    }
    *len = (size_t)(p - list);
    return list;
}
