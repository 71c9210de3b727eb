/* Which entry owns an id, however old it is (docs/FORMAT.md, sections 8 and 16).
 *
 * The newest ids are in two tables in memory, which T1 alone looks at: `ids` takes what is written, `ids_before` is what was full before it. Older ones
 * are in runs, each with a filter in memory. When a table is full, T6 is asked for a run of what it holds; and the older table is given up as soon as all of it
 * is in runs that a sieve knows, for a look at it costs T1 as much as one at the sieve does. Until then the newer one grows. T1 never waits for T6: it looks at
 * the runs through a view, which T6 exchanges as a whole, and what a view shows stays open until T1 has taken a later one. A block that is not what was
 * written makes the answer unknown, never "no": then the intent is refused. */
#include "engine.h"
#include <stdlib.h>

/* -- views of the runs: made by whoever builds, looked at by T1 */

void lfs_ids_publish(lfs_runs *r, const lfs_run *closing, uint32_t n_closing) {
    const lfs_run_list *list = &r->list[LFS_IDS];
    lfs_id_view *view = lfs_grow(NULL, sizeof *view + list->n * sizeof *view->runs), *before = r->newest;
    *view = (lfs_id_view){.covered = list->covered, .n = list->n, .sifted = r->sifted, .n_sieves = r->n_sieves};
    memcpy(view->sieves, r->sieves, r->n_sieves * sizeof *view->sieves);
    memcpy(view->runs, list->runs, list->n * sizeof *view->runs);
    if (before) {
        before->closing = lfs_grow(NULL, (n_closing + 1) * sizeof *before->closing);
        memcpy(before->closing, closing, n_closing * sizeof *closing);
        before->n_closing = n_closing;
        before->ending = r->ending;
        before->next = view;
    } else {
        r->oldest = view;
        for (uint32_t i = 0; i < n_closing; i++) {
            lfs_run gone = closing[i];
            lfs_run_close(&gone);
        }
        lfs_sieve_free(&r->ending);
    }
    memset(&r->ending, 0, sizeof r->ending);
    atomic_store(&r->newest, view);
    lfs_ids_tidy(r);
}

static void view_free(lfs_id_view *view) {
    for (uint32_t i = 0; i < view->n_closing; i++) lfs_run_close(&view->closing[i]);
    free(view->closing);
    lfs_sieve_free(&view->ending);
    free(view);
}

/* Close what no view shows any more. The oldest is freed first: so what it closes is in no earlier one. */
void lfs_ids_tidy(lfs_runs *r) {
    const lfs_id_view *held = atomic_load(&r->held);
    for (lfs_id_view *view; (view = r->oldest) && view != held && view->next;) {
        r->oldest = view->next;
        view_free(view);
    }
}

void lfs_ids_free(lfs_runs *r) {
    for (lfs_id_view *view; (view = r->oldest);) {
        r->oldest = view->next;
        view_free(view);
    }
    for (uint32_t i = 0; i < LFS_TAIL_CHUNKS; i++) free(r->id_chunks[i]);
    for (uint32_t i = 0; i < r->n_sieves; i++) lfs_sieve_free(&r->sieves[i]);
}

static const lfs_id_view *view_take(lfs_runs *r) {
    lfs_id_view *view = atomic_load(&r->newest), *before;
    do { /* once it is seen here, and is still the newest, it stays */
        before = view;
        atomic_store(&r->held, view);
    } while ((view = atomic_load(&r->newest)) != before);
    return view;
}

/* -- tables */

static void give_up_older(lfs_ledger *l) {
    lfs_table_free(&l->ids_before);
    l->ids_before_from = l->ids_from;
}

static void turn_over(lfs_ledger *l) {
    unsigned bits = 12;
    give_up_older(l);
    l->ids_before = l->ids;
    memset(&l->ids, 0, sizeof l->ids);
    l->ids_from = l->next_index;
    while (l->ids_most > (3ull << bits) / 4) bits++; /* as large as it will be, so that it does not grow step by step */
    lfs_table_reserve(&l->ids, (3ull << bits) / 4);
    atomic_store(&l->runs->ids_wanted, l->ids_from);
}

/* After a start the table is small, for most ledgers have few ids. It grows once more, to its full size, as soon as a sixteenth of that has come: growing step by
 * step it would be moved three times, and a file wait 10 to 30 ms for each. */
#define FIRST_SHARE 16

void lfs_ids_settle(lfs_ledger *l) {
    lfs_runs *r = l->runs;
    if (!r) return;
    int full = l->ids.used >= l->ids_most;
    if (!full && l->ids.used > l->ids_most / FIRST_SHARE) lfs_table_reserve(&l->ids, l->ids_most - l->ids.used);
    if (l->older == atomic_load_explicit(&r->newest, memory_order_acquire) && !full) return;
    const lfs_id_view *view = l->older = view_take(r);
    if (full && (view ? view->covered : 0) >= l->ids_from) turn_over(l);
    if (l->ids_before.slots && view && view->sifted >= l->ids_from) give_up_older(l);
    l->n_older = l->n_sifted = 0;
    while (view && l->n_older < view->n && view->runs[l->n_older].is.first < l->ids_before_from) l->n_older++;
    while (l->n_sifted < l->n_older && view->runs[l->n_sifted].is.end <= view->sifted) l->n_sifted++;
}

/* -- looking */

static inline uint64_t key_of(uint64_t hash) { return hash ? hash : 1; }

void lfs_ids_prefetch(const lfs_ledger *l, uint64_t hash) {
    __builtin_prefetch(lfs_table_line(&l->ids, (uint32_t)hash));
    if (l->ids_before.used) __builtin_prefetch(lfs_table_line(&l->ids_before, (uint32_t)hash));
    if (!l->n_older) return;
    uint64_t key = key_of(hash);
    for (uint32_t i = 0; i < l->older->n_sieves; i++) __builtin_prefetch(lfs_sieve_line(&l->older->sieves[i], key));
    for (uint32_t i = l->n_sifted; i < l->n_older; i++) __builtin_prefetch(l->older->runs[i].filter + lfs_filter_place(l->older->runs[i].lines, key));
}

static int is_of(lfs_ledger *l, uint32_t index, const uint8_t *id, size_t len) {
    uint32_t entry_len;
    const uint8_t *bytes = l->reader(l->reader_context, index, &entry_len);
    lfs_text found = lfs_entry_id(bytes, entry_len);
    return found.len == len && memcmp(found.p, id, len) == 0;
}

int64_t lfs_ids_older(lfs_ledger *l, uint64_t hash, const uint8_t *id, size_t len) {
    uint64_t key = key_of(hash);
    uint32_t least = lfs_sieves_have(l->older->sieves, l->older->n_sieves, key) ? 0 : l->n_sifted;
    for (uint32_t i = l->n_older; i-- > least;) {
        const lfs_run *run = &l->older->runs[i];
        if (!lfs_filter_has(run->filter, run->lines, key)) continue;
        lfs_run_cursor c;
        lfs_past unused;
        const lfs_record *record;
        int damaged = lfs_run_seek(&c, run, key, LFS_BY_INDEX, 0, &unused) != 0;
        for (; !damaged && (record = lfs_run_record(&c, &damaged)) && record->key == key; lfs_run_next(&c))
            if (is_of(l, record->index, id, len)) return record->index;
        if (!damaged) continue;
        atomic_store(&l->runs->damaged, 1);
        l->unsettled = 1;
        return -1;
    }
    return -1;
}

/* -- the tail: tags of entries that no run of ids covers. T2 adds, T6 takes. */

void lfs_ids_tail_begin(lfs_runs *r, uint64_t entries) {
    r->id_begin = entries;
    r->id_end = entries;
}

void lfs_ids_tail_add(lfs_runs *r, const uint64_t *tags, uint32_t n) {
    uint64_t end = r->id_end;
    for (uint32_t done = 0; done < n;) {
        uint64_t **chunk = &r->id_chunks[end / LFS_TAIL_CHUNK % LFS_TAIL_CHUNKS], at = end % LFS_TAIL_CHUNK, some = LFS_TAIL_CHUNK - at;
        if (some > n - done) some = n - done;
        if (!*chunk) *chunk = lfs_grow(NULL, LFS_TAIL_CHUNK * sizeof **chunk);
        memcpy(*chunk + at, tags + done, some * sizeof *tags);
        done += (uint32_t)some;
        end += some;
    }
    atomic_store_explicit(&r->id_end, end, memory_order_release);
}

uint64_t lfs_ids_gather(lfs_runs *r, uint64_t *end, lfs_record *out, uint64_t most) {
    uint64_t n = 0;
    for (uint64_t index = r->id_begin; index < *end; index++) {
        uint64_t tag = r->id_chunks[index / LFS_TAIL_CHUNK % LFS_TAIL_CHUNKS][index % LFS_TAIL_CHUNK];
        if (!tag) continue;
        if (n == most) *end = index;
        else out[n++] = (lfs_record){tag, (uint32_t)index, 0, 0};
    }
    return n;
}

void lfs_ids_tail_forget(lfs_runs *r, uint64_t begin) {
    for (uint64_t i = r->id_begin / LFS_TAIL_CHUNK; i < begin / LFS_TAIL_CHUNK; i++) {
        free(r->id_chunks[i % LFS_TAIL_CHUNKS]);
        r->id_chunks[i % LFS_TAIL_CHUNKS] = NULL;
    }
    atomic_store(&r->id_begin, begin);
}

int lfs_ids_enough(const lfs_runs *r) {
    uint64_t begin = atomic_load(&r->id_begin), end = atomic_load(&r->id_end), wanted = atomic_load_explicit(&r->ids_wanted, memory_order_relaxed);
    return end - begin >= r->ids_run || (begin < wanted && wanted <= end);
}
