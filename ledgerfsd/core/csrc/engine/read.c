/* Reading. What Python calls sees published entries only; the state machine (lfs_reader and its like) also sees groups under way. */
#include "engine.h"
#include <unistd.h>

static uint64_t get_u64(const lfs_dense *d, uint64_t i) {
    uint64_t value;
    memcpy(&value, d->map + i * 8, 8);
    return value;
}

static const uint8_t *bytes_at(lfs_engine *e, uint64_t offset) {
    const lfs_segment *s = lfs_segment_at(e, offset);
    return s->map + (offset - s->base);
}

/* An entry that the projections know. */
const uint8_t *lfs_entry_at(lfs_engine *e, uint64_t index, uint32_t *len) {
    const uint8_t *at = bytes_at(e, get_u64(&e->offsets, index));
    *len = (uint32_t)at[0] << 8 | at[1];
    return at + 2;
}

const lfs_segment *lfs_segment_of(lfs_engine *e, uint64_t index) { return lfs_segment_at(e, get_u64(&e->offsets, index)); }

static lfs_group *group_of(lfs_engine *e, uint64_t index) {
    for (int i = 0; i < LFS_GROUPS; i++) {
        lfs_group *g = e->groups[i];
        if (g && g->height && index >= g->first_index && index < g->first_index + g->entries) return g;
    }
    return NULL;
}

/* T1 and replay. A slot of the id table may be stale and name an entry that is not there: then there are no bytes. */
const uint8_t *lfs_reader(void *context, uint64_t index, uint32_t *len) {
    lfs_engine *e = context;
    if (index < atomic_load_explicit(&e->entries, memory_order_acquire)) return lfs_entry_at(e, index, len);
    if (e->replay_n && index >= e->replay_first && index < e->replay_first + e->replay_n) {
        *len = e->replay_len[index - e->replay_first];
        return e->replay_bytes[index - e->replay_first];
    }
    lfs_group *g = group_of(e, index);
    *len = 0;
    if (!g) return (const uint8_t *)"";
    const uint8_t *at = g->bytes + g->start[index - g->first_index];
    *len = (uint32_t)at[0] << 8 | at[1];
    return at + 2;
}

uint64_t lfs_tx_reader(void *context, uint64_t tx) {
    lfs_engine *e = context;
    for (int i = 0; i < LFS_GROUPS; i++) { /* groups first: what is published meanwhile stays in its group until T1 takes it again */
        lfs_group *g = e->groups[i];
        if (g && g->height && tx >= g->first_tx && tx < g->first_tx + g->n_txs) return g->txs[tx - g->first_tx];
    }
    return get_u64(&e->transactions, tx - 1);
}

static uint64_t block_of(lfs_engine *e, uint64_t index, uint64_t blocks) {
    uint64_t low = 1, high = blocks; /* the first block whose seal is at or after the entry */
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (get_u64(&e->blocks, middle - 1) >= index) high = middle;
        else low = middle + 1;
    }
    return low;
}

uint64_t lfs_block_reader(void *context, uint64_t index) {
    lfs_engine *e = context;
    lfs_group *g = group_of(e, index);
    if (g) return g->height;
    pthread_mutex_lock(&e->publish);
    uint64_t blocks = e->counts.blocks;
    pthread_mutex_unlock(&e->publish);
    return block_of(e, index, blocks);
}

void lfs_read_counts(lfs_engine *e, lfs_counts *out) {
    pthread_mutex_lock(&e->publish);
    *out = e->counts;
    pthread_mutex_unlock(&e->publish);
}

int lfs_read_entry(lfs_engine *e, uint64_t index, const uint8_t **bytes, uint32_t *len) {
    if (index >= atomic_load_explicit(&e->entries, memory_order_acquire)) return -1;
    *bytes = lfs_entry_at(e, index, len);
    return 0;
}

int lfs_read_bundle(lfs_engine *e, uint64_t number, uint32_t width, const uint8_t **bytes, size_t *len) {
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    if (width < 1 || width > 256 || number > counts.entries / 256 || number * 256 + width > counts.entries) return -1;
    uint64_t begin = get_u64(&e->offsets, number * 256), last = get_u64(&e->offsets, number * 256 + width - 1);
    *bytes = bytes_at(e, begin); /* a segment begins on a bundle boundary: the bundle is one piece */
    const uint8_t *at = *bytes + (last - begin);
    *len = (size_t)(last - begin) + 2 + ((size_t)at[0] << 8 | at[1]);
    return 0;
}

int lfs_read_hashes(lfs_engine *e, unsigned level, uint64_t first, uint64_t count, uint8_t *out) {
    if (level >= LFS_LEVELS) return -1;
    uint64_t size = atomic_load_explicit(&e->entries, memory_order_acquire) >> (8 * level);
    if (first > size || count > size - first) return -1;
    if (count) memcpy(out, e->hashes[level].map + first * 32, count * 32);
    return 0;
}

int64_t lfs_read_transaction(lfs_engine *e, uint64_t number) {
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    return number < 1 || number > counts.transactions ? -1 : (int64_t)get_u64(&e->transactions, number - 1);
}

int64_t lfs_read_block(lfs_engine *e, uint64_t height) {
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    return height < 1 || height > counts.blocks ? -1 : (int64_t)get_u64(&e->blocks, height - 1);
}

int64_t lfs_read_block_of(lfs_engine *e, uint64_t index) {
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    return index >= counts.entries ? -1 : (int64_t)block_of(e, index, counts.blocks);
}

/* -- accounts. The name table belongs to T1, which may let it grow; so this goes under the lock that T1 takes to do so. */

int64_t lfs_read_ordinal(lfs_engine *e, const uint8_t *name, size_t len) {
    if (!lfs_name_ok(name, len)) return -1;
    pthread_mutex_lock(&e->names_lock);
    uint32_t ordinal = lfs_name_find(&e->ledger, lfs_hash(&e->ledger, name, len), name, len);
    pthread_mutex_unlock(&e->names_lock);
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    return ordinal < counts.accounts ? (int64_t)ordinal : -1;
}

static void put_halves(uint64_t out[2], u128 value) {
    out[0] = (uint64_t)value;
    out[1] = (uint64_t)(value >> 64);
}

void lfs_account_fill(lfs_engine *e, uint32_t ordinal, const lfs_state *state, lfs_account_view *out) {
    const lfs_info *info = &e->ledger.info[ordinal];
    memset(out, 0, sizeof *out);
    memcpy(out->name, info->name, 64);
    out->name_len = info->name_len;
    pthread_mutex_lock(&e->names_lock); /* the list of currencies may move */
    const lfs_currency *unit = &e->ledger.currencies[info->currency];
    memcpy(out->currency, unit->code, sizeof unit->code);
    out->decimals = unit->decimals;
    pthread_mutex_unlock(&e->names_lock);
    put_halves(out->debits, state->debits);
    put_halves(out->credits, state->credits);
    put_halves(out->held_debits, state->held_debits);
    put_halves(out->held_credits, state->held_credits);
    put_halves(out->overdraft, info->overdraft);
    out->open_index = info->open_index;
    out->last_index = state->last_index;
    out->last_tx = state->last_tx;
    out->entries = state->entries;
    out->log_bytes = state->log_bytes;
    out->account_class = info->class_;
    out->normal = info->normal;
    out->status = (uint8_t)state->status;
    out->limit = info->limit;
}

int lfs_read_account(lfs_engine *e, uint64_t ordinal, lfs_account_view *out) {
    pthread_mutex_lock(&e->publish);
    int known = ordinal < e->counts.accounts;
    lfs_state state = {0};
    if (known) state = e->published[ordinal];
    pthread_mutex_unlock(&e->publish);
    if (known) lfs_account_fill(e, (uint32_t)ordinal, &state, out);
    return known ? 0 : -1;
}

/* The account's entry before this one; -1 at the beginning of the chain. */
int64_t lfs_previous_of(lfs_engine *e, const lfs_info *info, uint64_t index) {
    lfs_entry entry;
    lfs_entry_posting posting;
    uint32_t len;
    uint64_t prev;
    const uint8_t *p = NULL, *bytes = lfs_entry_at(e, index, &len);
    if (lfs_entry_read(bytes, len, &entry)) return -1;
    if (!entry.postings.p) return entry.prev.p && lfs_entry_u64(entry.prev, &prev) == 0 ? (int64_t)prev : -1;
    while (lfs_entry_posting_next(entry.postings, &p, &posting) == 1)
        if (posting.account.len == info->name_len && memcmp(posting.account.p, info->name, info->name_len) == 0)
            return lfs_entry_u64(posting.prev, &prev) == 0 ? (int64_t)prev : -1;
    return -1;
}

uint64_t lfs_read_history(lfs_engine *e, uint64_t ordinal, int64_t stop, int64_t behind, uint64_t *out, uint64_t cap) {
    lfs_account_view view;
    if (lfs_read_account(e, ordinal, &view)) return 0;
    const lfs_info *info = &e->ledger.info[ordinal];
    int64_t index = behind > 0 ? lfs_previous_of(e, info, (uint64_t)behind) : (int64_t)view.last_index;
    uint64_t n = 0;
    while (n < cap && index > stop) {
        out[n++] = (uint64_t)index;
        if ((uint64_t)index <= view.open_index) break;
        index = lfs_previous_of(e, info, (uint64_t)index);
    }
    return n;
}

uint32_t lfs_read_system(lfs_engine *e, uint32_t from, uint32_t *out, uint32_t cap) {
    const lfs_ledger *l = &e->ledger;
    uint64_t entries = atomic_load_explicit(&e->entries, memory_order_acquire);
    uint32_t n = 0;
    pthread_mutex_lock(&e->names_lock); /* T1 may let the list grow */
    for (uint32_t i = from; i < l->n_system && n < cap && l->system[i] < entries; i++) out[n++] = l->system[i];
    pthread_mutex_unlock(&e->names_lock);
    return n;
}

void lfs_attend(lfs_engine *e, unsigned bit, int on) {
    uint64_t one = 1;
    pthread_mutex_lock(&e->publish);
    if (on) e->attended |= bit;
    else e->attended &= ~bit;
    pthread_mutex_unlock(&e->publish);
    if (on && write(e->wakeup, &one, sizeof one) < 0) return; /* made up for once a second */
}

/* Whoever attends from now on reads, after that, what is published now. */
int lfs_unattended(lfs_engine *e, unsigned bits) {
    pthread_mutex_lock(&e->publish);
    int unattended = !(e->attended & bits) && !e->n_touched && !e->telling;
    pthread_mutex_unlock(&e->publish);
    return unattended;
}

void lfs_told(lfs_engine *e) {
    pthread_mutex_lock(&e->publish);
    e->telling = 0;
    pthread_mutex_unlock(&e->publish);
}

uint32_t lfs_touched(lfs_engine *e, uint32_t *out, uint32_t cap) {
    pthread_mutex_lock(&e->publish);
    uint32_t n = 0;
    if (e->n_touched) e->telling = 1;
    while (e->n_touched && n < cap) {
        out[n] = e->touched[--e->n_touched];
        e->watched[out[n++]] &= 1;
    }
    pthread_mutex_unlock(&e->publish);
    return n;
}
