/* Verification of the indexes of a store: what its runs hold against what replay of its journal gave. */
#include "engine.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define DIFFERS(...) return (snprintf(why, 256, __VA_ARGS__), 1)

/* Is the run sorted, and do its fences say what its records come to? */
static int check_run(const lfs_run *run, char why[256]) {
    lfs_run_cursor c;
    lfs_past sum = {0};
    const lfs_record *record;
    uint64_t key = 0, n = 0;
    uint32_t index = 0;
    int damaged = lfs_run_seek(&c, run, 0, LFS_BY_RANK, 0, &sum) != 0;
    memset(&sum, 0, sizeof sum);
    while (!damaged && (record = lfs_run_record(&c, &damaged)) && !damaged) {
        if (n && (record->key < key || (record->key == key && record->index < index))) DIFFERS("record %llu is out of order", (unsigned long long)n);
        if (record->index < run->is.first || record->index >= run->is.end) DIFFERS("record %llu is of another part of the log", (unsigned long long)n);
        if (!n || record->key != key) memset(&sum, 0, sizeof sum);
        const lfs_fence *f = &run->fences[n / LFS_RUN_BLOCK];
        if (n % LFS_RUN_BLOCK == 0 && (f->key != record->key || f->index != record->index || f->count != sum.count || f->log != sum.log ||
                                       memcmp(f->newest, sum.newest, sizeof f->newest)))
            DIFFERS("fence %llu is not that of its records", (unsigned long long)(n / LFS_RUN_BLOCK));
        lfs_past_add(&sum, record);
        key = record->key;
        index = record->index;
        n++;
        lfs_run_next(&c);
    }
    if (damaged) DIFFERS("block %llu is not what was written", (unsigned long long)(n / LFS_RUN_BLOCK));
    if (n != run->is.records) DIFFERS("holds %llu records instead of %llu", (unsigned long long)n, (unsigned long long)run->is.records);
    return 0;
}

typedef struct {
    const lfs_run_list *list;
    lfs_run_cursor *cursors;
    uint64_t bound;
} side;

/* The next record of an entry below the bound; 0 at the end, -1 when damaged. */
static int next_of(side *s, lfs_record *out) {
    const lfs_record *record;
    uint32_t which = 0;
    int more;
    while ((more = lfs_merge_step(s->list->runs, s->list->n, s->cursors, &record, &which)) > 0) {
        *out = *record;
        lfs_run_next(&s->cursors[which]);
        if (out->index < s->bound) return 1;
    }
    return more;
}

static side side_of(const lfs_run_list *list, uint64_t bound) {
    side s = {list, lfs_grow(NULL, (list->n + 1) * sizeof *s.cursors), bound};
    memset(s.cursors, 0, (list->n + 1) * sizeof *s.cursors);
    return s;
}

static int compare(lfs_engine *e, int kind, const lfs_run_list *theirs, uint64_t bound, char why[256]) {
    side a = side_of(&e->runs.list[kind], bound), b = side_of(theirs, bound);
    lfs_record x = {0}, y = {0};
    int have, found, differs = 0;
    do {
        have = next_of(&a, &x);
        found = next_of(&b, &y);
    } while (have == 1 && found == 1 && x.key == y.key && x.index == y.index && x.len == y.len && x.states == y.states);
    free(a.cursors);
    free(b.cursors);
    if (have <= 0 && found <= 0 && have == found) return have < 0 ? -1 : 0;
    const lfs_record *first = have != 1 || (found == 1 && (y.key < x.key || (y.key == x.key && y.index < x.index))) ? &y : &x;
    if (kind == LFS_POSTINGS && first->key < e->counts.accounts)
        differs = snprintf(why, 256, "account %.64s: its posting in entry %u is not as in the journal", e->ledger.info[first->key].name, first->index) > 0;
    else
        differs = snprintf(why, 256, "a record of entry %u is not as in the journal", first->index) > 0;
    return differs;
}

int lfs_verify_indexes(lfs_engine *e, const char *store, const uint8_t *list, size_t len, uint64_t entries, char *file, char *why) {
    lfs_engine *other = lfs_engine_new(store, e->segment_bytes, 64);
    char path[PATH_MAX + 16];
    lfs_runs_target(e);
    int wrong = lfs_runs_flush(e) ? lfs_fail_api(e, "the scratch folder cannot be written") : 0;
    lfs_runs_flushed(e);
    snprintf(file, 64, "indexes");
    snprintf(path, sizeof path, "%s/indexes", store);
    other->runs.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    other->counts.entries = entries;
    if (!wrong && lfs_runs_list(other, list, len)) {
        snprintf(why, 256, "%.255s", other->error);
        wrong = 1;
    }
    for (int kind = 0; kind < LFS_RUN_KINDS && !wrong; kind++) {
        const lfs_run_list *theirs = &other->runs.list[kind];
        for (uint32_t i = 0; i < theirs->n && !wrong; i++) {
            wrong = check_run(&theirs->runs[i], why);
            if (wrong) snprintf(file, 64, "indexes/%s", theirs->runs[i].name);
        }
        if (!wrong) wrong = compare(e, kind, theirs, entries, why);
    }
    lfs_engine_free(other);
    return wrong;
}
