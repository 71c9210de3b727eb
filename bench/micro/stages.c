/* See stages.h. What is called here is what the core's own threads call, in chunks as they do. */
#include "stages.h"
#include <stdlib.h>
#include <time.h>
#include "engine.h"
#include "lfs_json.h"

#define CHUNK 64 /* as submit.c has it */

struct lfs_stages {
    lfs_ledger ledger;
    lfs_arena arena;
    lfs_group *group;
    uint8_t *leaves, *scratch, *tiles;
    const uint8_t **entries;
    uint32_t *lens;
    lfs_state_tree tree;
};

/* Processor time of this thread: what others do on the machine counts as little as it can. */
static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * LFS_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* An id whose tag is another's is settled by that entry's bytes. Two ids are never the same here, so any entry without an id will do. */
static const uint8_t *no_entry(void *context, uint64_t index, uint32_t *len) {
    *len = 2;
    return (const uint8_t *)"{}";
}

static void take_group(lfs_stages *s) {
    lfs_group *g = s->group;
    g->used = g->entries = g->n_txs = g->n_updates = 0;
    g->intents = 0;
    g->first_index = s->ledger.next_index;
    g->first_tx = s->ledger.next_tx;
    g->height = s->ledger.height;
}

lfs_stages *lfs_stages_new(uint32_t accounts_max) {
    lfs_stages *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    lfs_ledger_init(&s->ledger, accounts_max);
    s->ledger.reader = no_entry;
    s->group = s->ledger.group = lfs_group_new();
    take_group(s);
    size_t room = LFS_BATCH_INTENTS_MAX + 1024;
    s->leaves = lfs_grow(NULL, 32 * room);
    s->scratch = lfs_grow(NULL, 32 * room);
    s->tiles = lfs_grow(NULL, 32 * room);
    s->entries = lfs_grow(NULL, room * sizeof *s->entries);
    s->lens = lfs_grow(NULL, room * sizeof *s->lens);
    if (lfs_state_tree_init(&s->tree, accounts_max)) return NULL;
    return s;
}

void lfs_stages_free(lfs_stages *s) {
    lfs_state_tree_free(&s->tree);
    lfs_group_free(s->group);
    lfs_arena_free(&s->arena);
    lfs_ledger_free(&s->ledger);
    void *rooms[] = {s->leaves, s->scratch, s->tiles, s->entries, s->lens};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) free(rooms[i]);
    free(s);
}

/* Parses up to CHUNK lines from *p on; returns how many. */
static uint32_t parse(lfs_stages *s, const uint8_t **p, const uint8_t *end, lfs_intent *intents) {
    uint32_t n = 0;
    lfs_text source = {(const uint8_t *)"stages.ndjson", 13};
    for (const uint8_t *newline; n < CHUNK && *p < end && (newline = memchr(*p, '\n', (size_t)(end - *p))); *p = newline + 1) {
        lfs_arena_ready(&s->arena);
        lfs_intent_parse(*p, (size_t)(newline - *p), source, n + 1, &s->arena, &intents[n]);
        n++;
    }
    return n;
}

static void apply(lfs_stages *s, lfs_intent *intents, uint32_t n, lfs_stage_times *times) {
    lfs_ledger *l = &s->ledger;
    lfs_ledger_reserve(l, n);
    for (uint32_t i = 0; i < n; i++) lfs_prefetch_tables(l, &intents[i]);
    for (uint32_t i = 0; i < n; i++) lfs_prefetch_names(l, &intents[i]);
    for (uint32_t i = 0; i < n; i++) lfs_prefetch_accounts(l, &intents[i]);
    for (uint32_t i = 0; i < n; i++) {
        lfs_result result;
        lfs_apply(l, &intents[i], 0, 1, &result);
        times->refused += result.code != 0;
    }
}

void lfs_stages_feed(lfs_stages *s, const uint8_t *lines, size_t len, lfs_stage_times *times) {
    static lfs_intent intents[CHUNK];
    const uint8_t *p = lines, *end = lines + len;
    for (uint32_t n;;) {
        if (s->group->entries + 4 * CHUNK > LFS_BATCH_INTENTS_MAX) {
            times->bytes += s->group->used - 2 * s->group->entries;
            take_group(s);
        }
        uint64_t begin = now();
        if (!(n = parse(s, &p, end, intents))) break;
        uint64_t parsed = now();
        lfs_intents_hash(intents, n);
        uint64_t hashed = now();
        apply(s, intents, n, times);
        times->apply_ns += now() - hashed;
        times->hash_ns += hashed - parsed;
        times->parse_ns += parsed - begin;
        times->intents += n;
        lfs_arena_reset(&s->arena);
    }
}

uint64_t lfs_stages_render(lfs_stages *s, const uint8_t *lines, size_t len, uint32_t rounds) {
    static lfs_intent intents[CHUNK];
    const uint8_t *p = lines;
    if (!parse(s, &p, lines + len, intents) || intents[0].code || intents[0].type != I_TRANSFER) return 0;
    lfs_intent *in = &intents[0];
    lfs_effect effects[2];
    for (int i = 0; i < 2; i++) {
        lfs_text name = in->postings[i].account;
        uint32_t ordinal = lfs_name_find(&s->ledger, lfs_hash(&s->ledger, name.p, name.len), name.p, name.len);
        if (ordinal == LFS_NONE) return 0;
        effects[i] = (lfs_effect){ordinal, 1, s->ledger.state[ordinal]};
    }
    uint64_t begin = now();
    for (uint32_t i = 0; i < rounds; i++) {
        if (s->group->entries + 4 > LFS_BATCH_INTENTS_MAX) take_group(s);
        lfs_render_txn(&s->ledger, in, in->id, LFS_WORD("transfer"), 0, 0, in->postings, effects, 2);
    }
    uint64_t spent = now() - begin;
    lfs_arena_reset(&s->arena);
    return spent;
}

uint32_t lfs_stages_entries(const lfs_stages *s) { return s->group->entries; }

static uint32_t list(lfs_stages *s) {
    const lfs_group *g = s->group;
    for (uint32_t i = 0; i < g->entries; i++) {
        const uint8_t *at = g->bytes + g->start[i];
        s->entries[i] = at + 2;
        s->lens[i] = (uint32_t)at[0] << 8 | at[1];
    }
    return g->entries;
}

uint64_t lfs_stages_leaves(lfs_stages *s) {
    uint32_t n = list(s);
    uint64_t begin = now();
    lfs_leaf_hashes(s->entries, s->lens, n, s->leaves);
    return now() - begin;
}

uint64_t lfs_stages_batch_root(lfs_stages *s) {
    uint8_t root[32];
    uint64_t begin = now();
    lfs_mth(s->leaves, s->group->entries, s->scratch, root);
    return now() - begin;
}

uint64_t lfs_stages_log_root(lfs_stages *s, uint64_t before) {
    lfs_frontier f;
    uint8_t root[32];
    lfs_frontier_init(&f);
    for (unsigned height = 64; height-- > 0;) /* a log of that size, of any content */
        if (before >> height & 1) lfs_frontier_append_subtree(&f, height, s->leaves);
    uint64_t begin = now();
    lfs_frontier_append_tiles(&f, s->leaves, s->group->entries, s->tiles);
    lfs_frontier_root(&f, root);
    return now() - begin;
}

static uint64_t chain(lfs_stages *s, uint8_t head[32]) {
    uint32_t n = list(s);
    uint8_t *link = lfs_grow(NULL, 32 + LFS_ENTRY_BYTES_MAX);
    memset(link, 0, 32);
    uint64_t begin = now();
    for (uint32_t i = 0; i < n; i++) {
        memcpy(link + 32, s->entries[i], s->lens[i]);
        lfs_sha256(link, 32 + s->lens[i], link);
    }
    uint64_t spent = now() - begin;
    memcpy(head, link, 32);
    free(link);
    return spent;
}

uint64_t lfs_stages_chain(lfs_stages *s, uint8_t head[32]) { return chain(s, head); }

int lfs_stages_chain_verify(lfs_stages *s, const uint8_t head[32], uint64_t *ns) {
    uint8_t found[32];
    *ns = chain(s, found);
    return memcmp(found, head, 32) == 0;
}

uint64_t lfs_stages_state_root(lfs_stages *s, uint32_t touched, uint64_t seed) {
    lfs_ledger *l = &s->ledger;
    uint8_t root[32];
    while (s->tree.n_accounts < l->n_accounts) {
        uint32_t i = s->tree.n_accounts;
        lfs_state_tree_open(&s->tree, &l->info[i], &l->currencies[l->info[i].currency]);
        lfs_state_tree_set(&s->tree, i, &l->info[i], &l->state[i]);
    }
    lfs_state_tree_root(&s->tree, root);
    /* In rising order, as the tree's own thread has them: a step of the average distance, more or less. */
    uint64_t begin = now(), at = 0, step = l->n_accounts / (touched ? touched : 1);
    for (uint32_t i = 0; i < touched; i++, at += step) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t ordinal = (uint32_t)((at + (step > 1 ? (seed >> 33) % step : 0)) % l->n_accounts);
        l->state[ordinal].debits++;
        l->state[ordinal].credits++;
        lfs_state_tree_set(&s->tree, ordinal, &l->info[ordinal], &l->state[ordinal]);
    }
    lfs_state_tree_root(&s->tree, root);
    return now() - begin;
}
