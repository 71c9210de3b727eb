/* What verifying has found out: the verdict, counts, roots, accounts; and whether index.lmdb holds what it should. */
#include <stddef.h>
#include <stdlib.h>
#include "verify.h"

#define PAGE_ACCOUNTS 64 /* as in save.c */
typedef struct {
    lfs_info info;
    lfs_state state;
} record;

void lfs_verify_verdict(const lfs_verify *v, lfs_verdict *out) { *out = v->verdict; }

void lfs_verify_counts(const lfs_verify *v, lfs_counts *out) {
    *out = (lfs_counts){v->batch_first, v->ledger.next_tx - 1, v->blocks, v->ledger.n_accounts, v->stream_end, v->seal_time, v->ledger.incarnation};
}

int lfs_verify_root(const lfs_verify *v, uint64_t size, uint8_t out[32]) {
    if (size == v->batch_first && size == v->log.size) {
        lfs_frontier_root(&v->log, out);
        return 0;
    }
    for (uint32_t i = 0; i < v->n_wanted; i++) {
        if (v->wanted[i].size != size || !v->wanted[i].known || size > v->batch_first) continue;
        memcpy(out, v->wanted[i].root, 32);
        return 0;
    }
    uint64_t low = 0, high = v->blocks;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (v->seals[middle] + 1ull < size) low = middle + 1;
        else high = middle;
    }
    if (low == v->blocks || v->seals[low] + 1ull != size || size < v->task.trusted) return -1;
    memcpy(out, v->seal_roots + 32 * low, 32);
    return 0;
}

uint32_t lfs_verify_system(const lfs_verify *v, uint32_t i, int64_t *index) {
    uint32_t own = v->ledger.n_system;
    *index = i < own ? (int64_t)v->ledger.system[i] : i < own + v->n_recorded ? (int64_t)v->recorded[i - own] : -1;
    return own + v->n_recorded;
}

int lfs_verify_read(lfs_verify *v, uint64_t index, const uint8_t **bytes, uint32_t *len) {
    *bytes = index < v->batch_first ? lfs_verify_entry(v, index, len, 1) : NULL;
    return *bytes ? 0 : -1;
}

int64_t lfs_verify_differs(const lfs_verify *v, unsigned file, int *ended) {
    *ended = v->projections[file].ended;
    return v->projections[file].differs;
}

static void put_halves(uint64_t out[2], u128 value) {
    out[0] = (uint64_t)value;
    out[1] = (uint64_t)(value >> 64);
}

int lfs_verify_account(const lfs_verify *v, uint64_t ordinal, lfs_account_view *out) {
    const lfs_ledger *l = &v->ledger;
    if (ordinal >= l->n_accounts) return -1;
    const lfs_info *info = &l->info[ordinal];
    const lfs_judged *state = &v->accounts[ordinal];
    const lfs_currency *unit = &l->currencies[info->currency];
    *out = (lfs_account_view){.open_index = info->open_index, .last_index = state->last_index, .last_tx = state->last_tx,
                              .entries = state->entries, .log_bytes = state->log_bytes, .name_len = info->name_len, .decimals = unit->decimals,
                              .account_class = info->class_, .normal = info->normal, .status = state->status, .limit = info->limit};
    memcpy(out->name, info->name, 64);
    memcpy(out->currency, unit->code, sizeof unit->code);
    put_halves(out->debits, state->debits);
    put_halves(out->credits, state->credits);
    put_halves(out->held_debits, state->held_debits);
    put_halves(out->held_credits, state->held_credits);
    put_halves(out->overdraft, info->overdraft);
    return 0;
}

int lfs_verify_page(const lfs_verify *v, uint64_t page, const uint8_t *bytes, size_t len) {
    const lfs_ledger *l = &v->ledger;
    record expected[PAGE_ACCOUNTS];
    if (len != sizeof expected) return 0;
    memset(expected, 0, sizeof expected);
    for (uint64_t i = 0; i < PAGE_ACCOUNTS && page * PAGE_ACCOUNTS + i < l->n_accounts; i++) {
        expected[i].info = l->info[page * PAGE_ACCOUNTS + i];
        expected[i].state = lfs_judged_state(&v->accounts[page * PAGE_ACCOUNTS + i]);
    }
    return memcmp(bytes, expected, sizeof expected) == 0;
}

/* -- the small tables, as save.c dumps them, in no particular order */

static int by_index(const void *a, const void *b) {
    const lfs_hold *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* `used`: bytes of an item behind which the compiler's padding stands. */
static int same_items(uint8_t *ours, size_t n, const uint8_t *bytes, size_t len, size_t item, size_t used, int (*order)(const void *, const void *)) {
    int same = len == n * item;
    uint8_t *theirs = lfs_grow(NULL, len + 1);
    memcpy(theirs, bytes, len);
    if (same && n) {
        qsort(ours, n, item, order);
        qsort(theirs, n, item, order);
    }
    for (size_t i = 0; i < n && same; i++) same = memcmp(ours + i * item, theirs + i * item, used) == 0;
    free(theirs);
    return same;
}

static int same_policy(const lfs_ledger *l, const uint8_t *bytes, size_t len) {
    struct { uint8_t leaf[32]; int32_t closed_through; uint32_t n_currencies, incarnation, n_system; } head = {
        .closed_through = l->closed_through, .incarnation = (uint32_t)l->incarnation, .n_system = l->n_system};
    head.n_currencies = l->n_currencies - l->n_iso;
    memcpy(head.leaf, l->policy_leaf, 32);
    size_t rest = head.n_currencies * sizeof(lfs_currency);
    size_t own = l->n_system * sizeof *l->system;
    return len == sizeof head + rest + own && memcmp(bytes, &head, sizeof head) == 0 && memcmp(bytes + sizeof head, l->currencies + l->n_iso, rest) == 0 &&
           (!own || memcmp(bytes + sizeof head + rest, l->system, own) == 0);
}

int lfs_verify_table(lfs_verify *v, const char *name, const uint8_t *bytes, size_t len) {
    const lfs_ledger *l = &v->ledger;
    size_t n = 0;
    int same = 0;
    if (strcmp(name, "policy") == 0) return same_policy(l, bytes, len);
    if (strcmp(name, "holds") == 0) {
        lfs_hold *holds = lfs_grow(NULL, (l->n_holds + 1) * sizeof *holds);
        for (uint32_t i = 0; i < l->holds_size; i++)
            if (l->holds[i].index != LFS_NONE) holds[n++] = l->holds[i];
        same = same_items((uint8_t *)holds, n, bytes, len, sizeof *holds, offsetof(lfs_hold, status) + sizeof holds->status, by_index);
        free(holds);
    } else if (strcmp(name, "reversed") == 0) {
        uint64_t *reversed = lfs_grow(NULL, (l->n_reversed + 1) * sizeof *reversed);
        for (uint32_t i = 0; i < l->reversed_size; i++)
            if (l->reversed[i]) reversed[n++] = l->reversed[i];
        same = same_items((uint8_t *)reversed, n, bytes, len, sizeof *reversed, sizeof *reversed, by_number);
        free(reversed);
    }
    return same;
}

/* -- for tests */

int lfs_verify_form(const uint8_t *bytes, uint32_t len, char why[256]) {
    static const lfs_ledger none;
    lfs_reading r;
    lfs_seen seen;
    uint8_t *copy = lfs_grow(NULL, len + LFS_PIECE_SLACK);
    memcpy(copy, bytes, len);
    memset(copy + len, 0, LFS_PIECE_SLACK);
    lfs_reading_init(&r, &none);
    int form = lfs_see(&r, copy, len, &seen);
    snprintf(why, 256, "%s", form == LFS_SEEN ? "" : r.why);
    lfs_reading_free(&r);
    free(copy);
    return form == LFS_SEEN;
}
