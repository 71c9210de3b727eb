/* What runs and tail tell: an account's postings by number, place in tx.log or entry, and accounts as they were. */
#include "engine.h"
#include <stdlib.h>

/* Postings of one account, oldest first: of the runs, then of the tail. Under the lock of the runs. */
typedef struct {
    lfs_engine *e;
    uint64_t key, bound; /* entries below bound only */
    uint32_t run;        /* the one under the cursor */
    lfs_run_cursor cursor;
    lfs_record *tail;
    uint64_t n_tail, at_tail;
    lfs_past sum; /* of all before */
    int damaged;
} walk;

static void add(lfs_past *sum, const lfs_past *more) {
    sum->count += more->count;
    sum->log += more->log;
    if (more->last) sum->last = more->last;
    for (int i = 0; i < LFS_FACETS; i++)
        if (more->newest[i]) sum->newest[i] = more->newest[i];
}

/* What counts against `value` of the postings so far. */
static uint64_t reached(const lfs_past *sum, int by) { return by == LFS_BY_RANK ? sum->count : by == LFS_BY_LOG ? sum->log : 0; }

/* Begin at the first posting with rank, end in tx.log, or entry beyond (LFS_BY_LOG) or at and beyond value. */
static int walk_begin(walk *w, lfs_engine *e, uint64_t key, uint64_t bound, int by, uint64_t value) {
    const lfs_run_list *list = &e->runs.list[LFS_POSTINGS];
    memset(w, 0, offsetof(walk, cursor));
    memset(&w->cursor, 0, offsetof(lfs_run_cursor, room));
    w->tail = NULL;
    w->n_tail = w->at_tail = 0;
    memset(&w->sum, 0, sizeof w->sum);
    w->damaged = 0;
    w->e = e;
    w->key = key;
    w->bound = bound;
    for (; w->run < list->n; w->run++) {
        const lfs_run *run = &list->runs[w->run];
        lfs_past here;
        if (lfs_run_seek(&w->cursor, run, key, by, value - reached(&w->sum, by), &here)) return -1;
        add(&w->sum, &here);
        const lfs_record *record = lfs_run_record(&w->cursor, &w->damaged);
        if (w->damaged) return -1;
        if (record && record->key == key) break;
    }
    if (w->run < list->n) return 0;
    w->n_tail = lfs_tail_of(&e->runs, key, bound, &w->tail);
    for (; w->at_tail < w->n_tail; w->at_tail++) {
        const lfs_record *record = &w->tail[w->at_tail];
        uint64_t here = by == LFS_BY_RANK ? w->sum.count : by == LFS_BY_LOG ? w->sum.log + record->len : record->index;
        if (here >= value) break;
        lfs_past_add(&w->sum, record);
    }
    return 0;
}

/* The next posting; w->sum then contains it. NULL at the end or when damaged. */
static const lfs_record *walk_next(walk *w) {
    const lfs_run_list *list = &w->e->runs.list[LFS_POSTINGS];
    while (w->run < list->n) {
        const lfs_record *record = lfs_run_record(&w->cursor, &w->damaged);
        if (w->damaged) return NULL;
        if (record && record->key == w->key) {
            if (record->index >= w->bound) return NULL;
            lfs_past_add(&w->sum, record);
            lfs_run_next(&w->cursor);
            return record;
        }
        if (++w->run == list->n) {
            w->n_tail = lfs_tail_of(&w->e->runs, w->key, w->bound, &w->tail);
            break;
        }
        lfs_past unused;
        if (lfs_run_seek(&w->cursor, &list->runs[w->run], w->key, LFS_BY_RANK, 0, &unused)) {
            w->damaged = 1;
            return NULL;
        }
    }
    if (w->at_tail == w->n_tail) return NULL;
    const lfs_record *record = &w->tail[w->at_tail++];
    lfs_past_add(&w->sum, record);
    return record;
}

/* Release the walk; -1 when something was not what was written. */
static int walk_end(walk *w) {
    free(w->tail);
    if (w->damaged) atomic_store(&w->e->runs.damaged, 1);
    return w->damaged ? -1 : 0;
}

static int damage(lfs_engine *e) {
    atomic_store(&e->runs.damaged, 1);
    return -1;
}

int64_t lfs_read_postings(lfs_engine *e, uint64_t ordinal, int by, uint64_t value, uint64_t size, lfs_posting_view *out, uint64_t cap) {
    uint64_t entries = atomic_load_explicit(&e->entries, memory_order_acquire), n = 0;
    const lfs_record *record;
    walk w;
    pthread_rwlock_rdlock(&e->runs.lock);
    int failed = walk_begin(&w, e, ordinal, size < entries ? size : entries, by, value);
    while (!failed && n < cap && (record = walk_next(&w)))
        out[n++] = (lfs_posting_view){w.sum.count - 1, record->index, w.sum.log, record->len, record->states};
    failed |= walk_end(&w);
    pthread_rwlock_unlock(&e->runs.lock);
    return failed ? damage(e) : (int64_t)n;
}

int64_t lfs_read_log(lfs_engine *e, uint64_t ordinal, uint64_t offset, uint8_t *out, uint64_t size) {
    uint64_t done = 0;
    const lfs_record *record;
    walk w;
    pthread_rwlock_rdlock(&e->runs.lock);
    int failed = walk_begin(&w, e, ordinal, atomic_load_explicit(&e->entries, memory_order_acquire), LFS_BY_LOG, offset);
    while (!failed && done < size && (record = walk_next(&w))) {
        uint32_t len;
        const uint8_t *bytes = lfs_entry_at(e, record->index, &len);
        uint64_t begin = w.sum.log - len - 1, skip = offset + done - begin, take = len > skip ? len - skip : 0;
        if (len != record->len || skip > len) {
            w.damaged = 1;
            break;
        }
        if (take > size - done) take = size - done;
        memcpy(out + done, bytes + skip, take);
        done += take;
        if (done < size) out[done++] = '\n';
    }
    failed |= walk_end(&w);
    pthread_rwlock_unlock(&e->runs.lock);
    return failed ? damage(e) : (int64_t)done;
}

/* -- accounts as they were */

static int sum_before(lfs_engine *e, uint64_t ordinal, uint64_t size, lfs_past *sum) {
    const lfs_run_list *list = &e->runs.list[LFS_POSTINGS];
    memset(sum, 0, sizeof *sum);
    for (uint32_t i = 0; i < list->n; i++)
        if (lfs_run_before(&list->runs[i], ordinal, size, sum)) return -1;
    if (size > list->covered) lfs_tail_before(&e->runs, ordinal, size, sum);
    return 0;
}

static void put_amount(uint64_t out[2], lfs_text text) {
    lfs_amount amount;
    if (!text.p || lfs_amount_parse(text.p, text.len, &amount)) return;
    out[0] = (uint64_t)amount.value;
    out[1] = (uint64_t)(amount.value >> 64);
}

/* The account's last posting in an entry. Returns 0 when there is none. */
static int posting_of(lfs_engine *e, uint64_t ordinal, uint64_t index, lfs_entry *entry, lfs_entry_posting *out) {
    const lfs_info *info = &e->ledger.info[ordinal];
    const uint8_t *p = NULL;
    lfs_entry_posting posting;
    uint32_t len;
    int found = 0;
    const uint8_t *bytes = lfs_entry_at(e, index, &len);
    if (lfs_entry_read(bytes, len, entry)) return 0;
    while (lfs_entry_posting_next(entry->postings, &p, &posting) == 1) {
        if (posting.account.len != info->name_len || memcmp(posting.account.p, info->name, info->name_len)) continue;
        *out = posting;
        found = 1;
    }
    return found;
}

/* Fill in what the entries of the sum state. Whatever does not fit means that the index is wrong. */
static int view_of(lfs_engine *e, uint64_t ordinal, const lfs_past *sum, lfs_account_view *out) {
    lfs_entry entry;
    lfs_entry_posting posting;
    uint32_t len;
    if (lfs_read_account(e, ordinal, out)) return -1;
    memset(out->debits, 0, sizeof out->debits);
    memset(out->credits, 0, sizeof out->credits);
    memset(out->held_debits, 0, sizeof out->held_debits);
    memset(out->held_credits, 0, sizeof out->held_credits);
    out->last_index = sum->last - 1;
    out->last_tx = 0;
    out->entries = sum->count;
    out->log_bytes = sum->log;
    if (sum->newest[LFS_TOTALS]) {
        if (!posting_of(e, ordinal, sum->newest[LFS_TOTALS] - 1, &entry, &posting) || !posting.debits.p || lfs_entry_u64(entry.tx, &out->last_tx)) return -1;
        put_amount(out->debits, posting.debits);
        put_amount(out->credits, posting.credits);
    }
    if (sum->newest[LFS_HELD]) {
        if (!posting_of(e, ordinal, sum->newest[LFS_HELD] - 1, &entry, &posting) || !posting.held_debits.p) return -1;
        put_amount(out->held_debits, posting.held_debits);
        put_amount(out->held_credits, posting.held_credits);
    }
    const uint8_t *bytes = lfs_entry_at(e, sum->newest[LFS_STATUS] ? sum->newest[LFS_STATUS] - 1 : out->open_index, &len);
    if (lfs_entry_read(bytes, len, &entry)) return -1;
    out->status = lfs_text_is(entry.status, "frozen") ? A_FROZEN : lfs_text_is(entry.status, "closed") ? A_CLOSED : A_OPEN;
    return 0;
}

int lfs_read_account_at(lfs_engine *e, uint64_t ordinal, uint64_t size, lfs_account_view *out) {
    lfs_past sum;
    if (lfs_read_account(e, ordinal, out) || size > atomic_load_explicit(&e->entries, memory_order_acquire) || out->open_index >= size) return 0;
    if (out->last_index < size) return 1;
    pthread_rwlock_rdlock(&e->runs.lock);
    int failed = sum_before(e, ordinal, size, &sum);
    pthread_rwlock_unlock(&e->runs.lock);
    if (failed || !sum.count || sum.last > size || view_of(e, ordinal, &sum, out)) return damage(e);
    return 1;
}

/* Add what the records of key below bound come to, the cursor being before them; it then stands behind the key. */
static int sum_forward(lfs_run_cursor *c, uint64_t key, uint64_t bound, lfs_past *sum) {
    int damaged = 0;
    const lfs_record *record;
    while ((record = lfs_run_record(c, &damaged)) && record->key < key && !damaged) lfs_run_next(c);
    for (uint32_t seen = 0; (record = lfs_run_record(c, &damaged)) && record->key == key && !damaged; seen++) {
        if (seen == 2 * LFS_RUN_BLOCK || record->index >= bound) { /* much of one account: its fences know */
            lfs_past here, unused;
            const lfs_run *run = c->run;
            if (record->index < bound) {
                memset(sum, 0, sizeof *sum);
                if (lfs_run_seek(c, run, key, LFS_BY_INDEX, bound, &here)) return -1;
                *sum = here;
            }
            return lfs_run_seek(c, run, key + 1, LFS_BY_RANK, 0, &unused);
        }
        lfs_past_add(sum, record);
        lfs_run_next(c);
    }
    return damaged ? -1 : 0;
}

int64_t lfs_read_accounts_at(lfs_engine *e, uint64_t size, uint64_t first, uint64_t count, lfs_account_view *out) {
    const lfs_run_list *list = &e->runs.list[LFS_POSTINGS];
    uint64_t entries = atomic_load_explicit(&e->entries, memory_order_acquire), n = 0;
    int failed = 0;
    if (size > entries) size = entries;
    pthread_rwlock_rdlock(&e->runs.lock);
    uint32_t runs = 0;
    while (runs < list->n && list->runs[runs].is.first < size) runs++;
    lfs_run_cursor *cursors = lfs_grow(NULL, (runs + 1) * sizeof *cursors);
    for (uint32_t i = 0; i < runs && !failed; i++) {
        lfs_past unused;
        failed = lfs_run_seek(&cursors[i], &list->runs[i], first, LFS_BY_RANK, 0, &unused);
    }
    for (; n < count && !failed; n++) {
        uint64_t ordinal = first + n;
        lfs_past sum = {0};
        if (lfs_read_account(e, ordinal, &out[n]) || out[n].open_index >= size) break; /* ordinals are in the order of opening */
        if (out[n].last_index < size) continue; /* as it was: what is published is the answer */
        for (uint32_t i = 0; i < runs && !failed; i++) {
            lfs_past here = {0};
            failed = sum_forward(&cursors[i], ordinal, size, &here);
            add(&sum, &here);
        }
        if (size > list->covered) lfs_tail_before(&e->runs, ordinal, size, &sum);
        failed |= !sum.count || view_of(e, ordinal, &sum, &out[n]);
    }
    free(cursors);
    pthread_rwlock_unlock(&e->runs.lock);
    return failed ? damage(e) : (int64_t)n;
}

void lfs_read_indexes(lfs_engine *e, lfs_index_counts *out) {
    lfs_runs *r = &e->runs;
    memset(out, 0, sizeof *out);
    pthread_rwlock_rdlock(&r->lock);
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++)
        for (uint32_t i = 0; i < r->list[kind].n; i++) {
            out->bytes += r->list[kind].runs[i].map_len;
            if (kind == LFS_IDS) {
                out->ids += r->list[kind].runs[i].is.records;
                out->id_bytes += r->list[kind].runs[i].map_len;
            }
            if (kind == LFS_POSTINGS) out->postings += r->list[kind].runs[i].is.records, out->posting_bytes += r->list[kind].runs[i].map_len;
        }
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) out->files += r->list[kind].n;
    for (uint32_t i = 0; i < r->n_sieves; i++) out->id_memory += r->sieves[i].lines * LFS_FILTER_LINE;
    out->id_memory += (8ull << e->ledger.ids.bits) + (e->ledger.ids_before.slots ? 8ull << e->ledger.ids_before.bits : 0) + 8 * (r->id_end - r->id_begin);
    out->unindexed = r->end - r->begin;
    out->covered = r->list[LFS_POSTINGS].covered;
    pthread_rwlock_unlock(&r->lock);
    out->spent_ns = r->spent;
    out->damaged = (uint32_t)r->damaged;
    out->trouble = (uint32_t)r->trouble;
}
