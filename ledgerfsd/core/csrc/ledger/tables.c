/* The tables of the state machine: account names, ids, holds, reversed transactions, currencies. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "ledger.h"
#include "lfs_currencies.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

void *lfs_grow(void *p, size_t bytes) {
    void *q = realloc(p, bytes);
    if (!q) {
        fprintf(stderr, "ledgerfsd: out of memory (%zu bytes wanted); nothing unacknowledged was kept\n", bytes);
        abort();
    }
    return q;
}

void *lfs_grow_big(void *p, size_t bytes) {
    p = lfs_grow(p, bytes);
    uintptr_t huge = 2u << 20, first = ((uintptr_t)p + huge - 1) & ~(huge - 1), last = ((uintptr_t)p + bytes) & ~(huge - 1);
    if (last > first) madvise((void *)first, last - first, MADV_HUGEPAGE);
    return p;
}

static void *big_zeroed(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, bytes, MADV_HUGEPAGE); /* a look-up touches one random slot: huge pages halve its cost */
    return p;
}

uint64_t lfs_hash(const lfs_ledger *l, const uint8_t *bytes, size_t len) { return XXH3_64bits_withSeed(bytes, len, l->seed); }
uint64_t lfs_word_key(const lfs_ledger *l, char kind, lfs_text text) { return XXH3_64bits_withSeed(text.p, text.len, l->seed + (uint8_t)kind) >> 16; }

/* What of a hash stands in a slot, and is never 0. */
static inline uint32_t half_of(uint64_t hash) { return (uint32_t)hash ? (uint32_t)hash : 1; }

uint64_t lfs_tag(const lfs_ledger *l, const uint8_t *bytes, size_t len) {
    uint64_t hash = lfs_hash(l, bytes, len);
    return hash ? hash : 1;
}

static uint64_t *free_slot(const lfs_table *t, uint32_t half) {
    uint64_t *line = lfs_table_line(t, half);
    unsigned free_;
    while (!(free_ = lfs_line_like(line, 0))) line = lfs_table_next(t, line);
    return &line[__builtin_ctz(free_)];
}

void lfs_table_reserve(lfs_table *t, uint64_t more) {
    unsigned bits = t->bits ? t->bits : 12;
    while (t->used + more > ((uint64_t)3 << bits) / 4) bits++;
    if (bits == t->bits) return;
    lfs_table old = *t;
    t->bits = bits;
    t->slots = big_zeroed(sizeof(uint64_t) << bits);
    if (!t->slots) lfs_grow(NULL, (size_t)-1 / 2);
    if (!old.slots) return;
    size_t size = (size_t)1 << old.bits;
    for (size_t i = 0; i < size; i++)
        if (old.slots[i]) *free_slot(t, (uint32_t)(old.slots[i] >> 32)) = old.slots[i];
    munmap(old.slots, size * sizeof(uint64_t));
}

void lfs_table_free(lfs_table *t) {
    if (t->slots) munmap(t->slots, sizeof(uint64_t) << t->bits);
    memset(t, 0, sizeof *t);
}

void lfs_table_load(lfs_table *t, uint64_t tag, uint32_t value) {
    uint32_t half = half_of(tag);
    *free_slot(t, half) = (uint64_t)half << 32 | (value + 1);
    t->used++;
}

void lfs_table_insert(lfs_ledger *l, lfs_table *t, uint64_t tag, uint32_t value) {
    uint32_t half = half_of(tag);
    uint64_t *slot = free_slot(t, half);
    /* Readers may be looking names up: the account is there before its slot is. */
    __atomic_store_n(slot, (uint64_t)half << 32 | (value + 1), __ATOMIC_RELEASE);
    t->used++;
    lfs_undo *undo = lfs_undo_push(l, U_SLOT, 0);
    if (undo) {
        undo->slot = slot;
        undo->table = t;
    }
}

uint32_t lfs_name_find(const lfs_ledger *l, uint64_t hash, const uint8_t *name, size_t len) {
    uint32_t half = half_of(hash);
    for (const uint64_t *line = lfs_table_line(&l->names, half);; line = lfs_table_next(&l->names, (uint64_t *)line)) {
        for (unsigned like = lfs_line_like(line, half); like; like &= like - 1) {
            uint32_t ordinal = (uint32_t)__atomic_load_n(&line[__builtin_ctz(like)], __ATOMIC_ACQUIRE) - 1;
            const lfs_info *info = &l->info[ordinal];
            if (info->name_len == len && lfs_same(info->name, name, len)) return ordinal;
        }
        if (lfs_line_like(line, 0)) return LFS_NONE;
    }
}

static int64_t find_in(const lfs_ledger *l, const lfs_table *t, uint64_t hash, const uint8_t *id, size_t len) {
    uint32_t half = half_of(hash);
    for (uint64_t *line = lfs_table_line(t, half);; line = lfs_table_next(t, line)) {
        for (unsigned like = lfs_line_like(line, half); like; like &= like - 1) {
            uint32_t index = (uint32_t)line[__builtin_ctz(like)] - 1, entry_len;
            const uint8_t *bytes = l->reader(l->reader_context, index, &entry_len);
            lfs_text found = lfs_entry_id(bytes, entry_len);
            if (found.len == len && memcmp(found.p, id, len) == 0) return index;
        }
        if (lfs_line_like(line, 0)) return -1;
    }
}

int64_t lfs_id_find(lfs_ledger *l, uint64_t hash, const uint8_t *id, size_t len) {
    int64_t found = find_in(l, &l->ids, hash, id, len);
    if (found < 0 && l->ids_before.used) found = find_in(l, &l->ids_before, hash, id, len);
    if (found < 0 && l->n_older) found = lfs_ids_older(l, hash, id, len);
    return found;
}

/* -- holds */

static uint32_t hold_place(const lfs_ledger *l, uint32_t index) {
    return (uint32_t)((index * 0x9e3779b97f4a7c15ull) >> 32) & (l->holds_size - 1);
}

lfs_hold *lfs_hold_find(const lfs_ledger *l, uint32_t index) {
    if (!l->holds_size) return NULL;
    for (uint32_t at = hold_place(l, index);; at = (at + 1) & (l->holds_size - 1)) {
        if (l->holds[at].index == index) return &l->holds[at];
        if (l->holds[at].index == LFS_NONE) return NULL;
    }
}

static lfs_hold *hold_slot(lfs_ledger *l, uint32_t index) {
    uint32_t at = hold_place(l, index);
    while (l->holds[at].index != LFS_NONE) at = (at + 1) & (l->holds_size - 1);
    return &l->holds[at];
}

static void holds_reserve(lfs_ledger *l, uint32_t more) {
    uint32_t size = l->holds_size ? l->holds_size : 1024, old_size = l->holds_size;
    while ((uint64_t)l->n_holds + more > (uint64_t)size * 3 / 4) size *= 2;
    if (size == old_size) return;
    lfs_hold *old = l->holds;
    l->holds = lfs_grow(NULL, (size_t)size * sizeof *l->holds);
    l->holds_size = size;
    for (uint32_t i = 0; i < size; i++) l->holds[i].index = LFS_NONE;
    for (uint32_t i = 0; i < old_size; i++)
        if (old[i].index != LFS_NONE) *hold_slot(l, old[i].index) = old[i];
    free(old);
}

lfs_hold *lfs_hold_put(lfs_ledger *l, const lfs_hold *hold) {
    holds_reserve(l, 1);
    lfs_hold *slot = hold_slot(l, hold->index);
    *slot = *hold;
    l->n_holds++;
    lfs_undo_push(l, U_HOLD_NEW, hold->index);
    return slot;
}

void lfs_due_push(lfs_ledger *l, uint64_t expires_ns, uint32_t index) {
    if (l->n_due == l->due_size) {
        l->due_size = l->due_size ? 2 * l->due_size : 1024;
        l->due = lfs_grow(l->due, l->due_size * sizeof *l->due);
    }
    uint32_t at = l->n_due++;
    for (; at; at = (at - 1) / 2) { /* sift up */
        const lfs_due *parent = &l->due[(at - 1) / 2];
        if (parent->expires_ns < expires_ns || (parent->expires_ns == expires_ns && parent->index < index)) break;
        l->due[at] = *parent;
    }
    l->due[at] = (lfs_due){expires_ns, index};
}

/* -- reversed transactions */

static uint32_t reversed_place(const lfs_ledger *l, uint64_t tx) {
    uint32_t at = (uint32_t)((tx * 0x9e3779b97f4a7c15ull) >> 32) & (l->reversed_size - 1);
    while (l->reversed[at] && l->reversed[at] != tx) at = (at + 1) & (l->reversed_size - 1);
    return at;
}

int lfs_reversed(const lfs_ledger *l, uint64_t tx) { return l->reversed_size && l->reversed[reversed_place(l, tx)] == tx; }

static void reversed_reserve(lfs_ledger *l, uint32_t more) {
    uint32_t size = l->reversed_size ? l->reversed_size : 1024, old_size = l->reversed_size;
    while ((uint64_t)l->n_reversed + more > (uint64_t)size * 3 / 4) size *= 2;
    if (size == old_size) return;
    uint64_t *old = l->reversed;
    l->reversed = lfs_grow(NULL, (size_t)size * sizeof *old);
    memset(l->reversed, 0, (size_t)size * sizeof *old);
    l->reversed_size = size;
    for (uint32_t i = 0; i < old_size; i++)
        if (old[i]) l->reversed[reversed_place(l, old[i])] = old[i];
    free(old);
}

void lfs_reversed_put(lfs_ledger *l, uint64_t tx) {
    reversed_reserve(l, 1);
    uint32_t at = reversed_place(l, tx);
    if (l->reversed[at]) return;
    l->reversed[at] = tx;
    l->n_reversed++;
    lfs_undo *undo = lfs_undo_push(l, U_REVERSED, 0);
    if (undo) undo->slot = &l->reversed[at];
}

/* -- currencies */

static int iso_number(lfs_text code) {
    int number = 0;
    if (code.len != 3) return -1;
    for (int i = 0; i < 3; i++) {
        if (code.p[i] < 'A' || code.p[i] > 'Z') return -1;
        number = number * 26 + (code.p[i] - 'A');
    }
    return number;
}

uint32_t lfs_currency_find(const lfs_ledger *l, lfs_text code) {
    int number = iso_number(code);
    if (number >= 0 && l->iso_place[number]) return l->iso_place[number] - 1u;
    for (uint32_t i = l->n_iso; i < l->n_currencies; i++)
        if (lfs_text_is(code, l->currencies[i].code)) return i;
    return LFS_NONE;
}

void lfs_currency_add(lfs_ledger *l, lfs_text code, unsigned decimals) {
    l->currencies = lfs_grow(l->currencies, (l->n_currencies + 1) * sizeof *l->currencies);
    lfs_currency *unit = &l->currencies[l->n_currencies++];
    memset(unit, 0, sizeof *unit);
    memcpy(unit->code, code.p, code.len);
    unit->decimals = (uint8_t)decimals;
    unit->len = (uint8_t)code.len;
    lfs_undo_push(l, U_CURRENCY, 0);
}

/* -- the whole */

void lfs_ledger_init(lfs_ledger *l, uint32_t accounts_max) {
    memset(l, 0, sizeof *l);
    l->accounts_max = accounts_max;
    /* Address space for all accounts there may ever be; memory comes as they are opened, and nothing ever moves. */
    l->info = big_zeroed((size_t)accounts_max * sizeof *l->info);
    l->state = big_zeroed((size_t)accounts_max * sizeof *l->state);
    if (!l->info || !l->state) lfs_grow(NULL, (size_t)-1 / 2);
    lfs_table_reserve(&l->names, 1);
    lfs_table_reserve(&l->ids, 1);
    size_t n = sizeof LFS_ISO_4217 / sizeof *LFS_ISO_4217;
    for (size_t i = 0; i < n; i++)
        lfs_currency_add(l, (lfs_text){(const uint8_t *)LFS_ISO_4217[i].code, 3}, (unsigned)LFS_ISO_4217[i].decimals);
    l->n_iso = l->n_currencies;
    for (uint32_t i = 0; i < l->n_iso; i++)
        l->iso_place[iso_number((lfs_text){(const uint8_t *)l->currencies[i].code, 3})] = (uint16_t)(i + 1);
    l->closed_through = LFS_NO_DAY;
    l->next_tx = 1;
    l->height = 1;
    l->incarnation = 1;
}

void lfs_ledger_without_states(lfs_ledger *l) {
    munmap(l->state, (size_t)l->accounts_max * sizeof *l->state);
    l->state = NULL;
}

void lfs_ledger_free(lfs_ledger *l) {
    munmap(l->info, (size_t)l->accounts_max * sizeof *l->info);
    if (l->state) lfs_ledger_without_states(l);
    lfs_table_free(&l->names);
    lfs_table_free(&l->ids);
    lfs_table_free(&l->ids_before);
    free(l->holds);
    free(l->reversed);
    free(l->due);
    free(l->currencies);
    free(l->undo);
    free(l->system);
    free(l->posted);
}

void lfs_ledger_reserve(lfs_ledger *l, uint32_t intents) {
    lfs_ids_settle(l);
    lfs_table_reserve(&l->ids, 3ull * intents + l->n_due); /* what is due expires with the next intent */
    lfs_table_reserve(&l->names, 2ull * intents);
    holds_reserve(l, intents);
    reversed_reserve(l, intents);
}
