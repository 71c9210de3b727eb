/* Do the indexes hold what the journal calls for (docs/FORMAT.md, section 16)? Every record that an entry calls for is hashed under a key that nobody
 * knows before, and added to the sum of its kind and part of the log; every record that a run holds is taken off (verify_runs.c). So it does not matter
 * in which order they come, and nothing is kept but one sum for 65,536 entries. Where one is not 0 in the end, the records of these entries are
 * made and read again, and compared one by one: that is slow, and names the first that is wrong.
 *
 * A further kind of run wants: its place in lfs_run_kind (runs.h) and KINDS (verify_runs.c); a call of lfs_tally_add where the record is known, in
 * lfs_piece_check (what the entry says by itself) or lfs_verify_judge (what needs the state); and the same records in called_for, below. Ids have a filter besides: their records make it anew. */
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>
#include "verify.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

static uint64_t parts(const lfs_sums *sums) { return (sums->entries >> LFS_PART_SHIFT) + 1; }

int lfs_sums_begin(lfs_verify *v) {
    lfs_sums *sums = &v->sums;
    if (getrandom(&sums->key, sizeof sums->key, 0) != sizeof sums->key) return -1;
    size_t bytes = LFS_RUN_KINDS * parts(sums) * sizeof *sums->sums;
    sums->sums = lfs_grow(NULL, bytes);
    memset(sums->sums, 0, bytes);
    return 0;
}

void lfs_sums_free(lfs_sums *sums) {
    for (uint32_t i = 0; i < sums->n_runs; i++) {
        if (sums->runs[i].fd >= 0) close(sums->runs[i].fd);
        free(sums->runs[i].fences);
        free(sums->runs[i].remade);
    }
    free(sums->sums);
    free(sums->runs);
}

void lfs_tally_hash(const lfs_sums *sums, lfs_tally *tally, int kind) {
    uint64_t low[LFS_TALLY_WAITING], high[LFS_TALLY_WAITING];
    uint32_t n = tally->waiting[kind].n;
    lfs_record_hashes(&sums->key, tally->waiting[kind].first, tally->waiting[kind].second, low, high, n);
    for (uint32_t i = 0; i < n; i++) tally->sum[kind] += (u128)high[i] << 64 | low[i];
    tally->waiting[kind].n = 0;
}

void lfs_tally_close(lfs_verify *v, lfs_tally *tally) {
    if (!v->sums.entries) return;
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) lfs_tally_hash(&v->sums, tally, kind);
    pthread_mutex_lock(&v->lock);
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++) v->sums.sums[(uint64_t)kind * parts(&v->sums) + tally->part] += tally->sum[kind];
    pthread_mutex_unlock(&v->lock);
    memset(tally->sum, 0, sizeof tally->sum);
}

uint32_t lfs_seen_words(const lfs_reading *r, const lfs_seen *s, uint64_t *out) {
    uint64_t seed = r->ledger->seed;
    uint32_t n = 0;
    if (s->kind >= K_KINDS) return 0; /* key/1, anchor/1 and restore/1 have neither */
    if (lfs_has(r, V_REFERENCE)) out[n++] = XXH3_64bits_withSeed(r->f[V_REFERENCE].p, r->f[V_REFERENCE].len, seed + 'r') >> 16;
    if (!lfs_has(r, V_TAGS)) return n;
    const uint8_t *p = r->f[V_TAGS].p, *end = p + r->f[V_TAGS].len; /* ["a","b"], of which nothing is escaped */
    while (p < end && n < LFS_WORDS_MAX) {
        const uint8_t *open = memchr(p, '"', (size_t)(end - p));
        if (!open) break;
        const uint8_t *close = memchr(open + 1, '"', (size_t)(end - open - 1));
        if (!close) break;
        out[n++] = XXH3_64bits_withSeed(open + 1, (size_t)(close - open - 1), seed + 't') >> 16;
        p = close + 1;
    }
    return n;
}

/* -- where a sum is not 0 */

typedef struct {
    lfs_record *records;
    uint64_t n, size;
} heap;

static void put(heap *h, lfs_record record) {
    if (h->n == h->size) {
        h->size = h->size ? 2 * h->size : 4096;
        h->records = lfs_grow(h->records, h->size * sizeof *h->records);
    }
    h->records[h->n++] = record;
}

static void put_account(lfs_verify *v, heap *h, const lfs_seen *s, const uint8_t *name, uint32_t len) {
    uint32_t ordinal = lfs_name_find(&v->ledger, lfs_hash(&v->ledger, name, len), name, len);
    for (uint64_t i = h->n; i > 0 && h->records[i - 1].index == s->index; i--)
        if (h->records[i - 1].key == ordinal) return;
    put(h, (lfs_record){ordinal, (uint32_t)s->index, (uint16_t)s->len, lfs_seen_states(s)});
}

/* Records of one kind that entries from..to call for, read again. -1: an entry cannot be. */
static int called_for(lfs_verify *v, int kind, uint64_t from, uint64_t to, heap *h) {
    lfs_reading *r = &v->reading;
    for (uint64_t index = from; index < to; index++) {
        lfs_seen s;
        uint32_t len;
        uint64_t words[LFS_WORDS_MAX];
        const uint8_t *bytes = lfs_verify_entry(v, index, &len, 1);
        r->n_postings = 0;
        if (!bytes || lfs_see(r, bytes, len, &s) != LFS_SEEN) return -1;
        if (kind == LFS_POSTINGS) {
            for (uint32_t i = 0; i < s.n_postings; i++) put_account(v, h, &s, r->postings[i].account, r->postings[i].account_len);
            if (s.kind == K_ACCOUNT || s.kind == K_UPDATE) put_account(v, h, &s, r->f[V_ACCOUNT].p, r->f[V_ACCOUNT].len);
        } else if (kind == LFS_IDS) {
            if (s.tag) put(h, lfs_seen_id(&s));
        } else {
            uint32_t n = lfs_seen_words(r, &s, words);
            for (uint32_t i = 0; i < n; i++) put(h, (lfs_record){words[i], (uint32_t)index, 0, 0});
        }
    }
    return 0;
}

/* In the order of the log. */
static int in_order(const void *a, const void *b) {
    const lfs_record *x = a, *y = b;
    if (x->index != y->index) return x->index < y->index ? -1 : 1;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return (x->states > y->states) - (x->states < y->states);
}

/* The first record that only one of them has; NULL: they are the same. *missing: the runs lack it. */
static const lfs_record *first_difference(heap *want, heap *have, int *missing) {
    uint64_t i = 0;
    if (want->n) qsort(want->records, want->n, sizeof *want->records, in_order);
    if (have->n) qsort(have->records, have->n, sizeof *have->records, in_order);
    while (i < want->n && i < have->n && in_order(&want->records[i], &have->records[i]) == 0) i++;
    if (i == want->n && i == have->n) return NULL;
    *missing = i == have->n || (i < want->n && in_order(&want->records[i], &have->records[i]) < 0);
    return *missing ? &want->records[i] : &have->records[i];
}

static void name_difference(lfs_verify *v, int kind, uint64_t part, lfs_index_fault *out) {
    uint64_t from = part << LFS_PART_SHIFT, to = from + (1u << LFS_PART_SHIFT);
    heap want = {0}, have = {0};
    int missing = 0;
    if (to > v->sums.entries) to = v->sums.entries;
    int64_t n = lfs_kept_records(&v->sums, kind, from, to, &have.records);
    if (n > 0) have.n = (uint64_t)n;
    const lfs_record *first = n < 0 || called_for(v, kind, from, to, &want) ? NULL : first_difference(&want, &have, &missing);
    *out = (lfs_index_fault){.entry = first ? first->index : (int64_t)from};
    const char *file = lfs_kept_file(&v->sums, kind, (uint64_t)out->entry);
    snprintf(out->file, sizeof out->file, "indexes%s%s", file ? "/" : "", file ? file : "");
    if (!first) snprintf(out->why, sizeof out->why, "its records of entries %llu to %llu are not as in the journal, and changed while they were read",
                         (unsigned long long)from, (unsigned long long)to - 1);
    else if (kind == LFS_POSTINGS && first->key < v->ledger.n_accounts)
        snprintf(out->why, sizeof out->why, "account %.64s: its posting in entry %u is %s", v->ledger.info[first->key].name, first->index,
                 missing ? "missing, or not as in the journal" : "not as in the journal");
    else snprintf(out->why, sizeof out->why, "a record of entry %u is %s", first->index, missing ? "missing, or not as in the journal" : "not as in the journal");
    free(want.records);
    free(have.records);
}

int lfs_verify_indexes(lfs_verify *v, lfs_index_fault *out) {
    lfs_sums *sums = &v->sums;
    *out = (lfs_index_fault){.entry = -1};
    if (!sums->entries || sums->entries > v->batch_first || v->verdict.damage) return 0;
    if (sums->why[0]) {
        snprintf(out->file, sizeof out->file, "%s", sums->file);
        snprintf(out->why, sizeof out->why, "%s", sums->why);
        return 1;
    }
    for (uint32_t i = 0; i < sums->n_runs; i++) {
        const lfs_kept_run *run = &sums->runs[i];
        if (run->wrong_at == UINT64_MAX) continue;
        out->entry = run->wrong_entry;
        snprintf(out->file, sizeof out->file, "indexes/%s", run->name);
        snprintf(out->why, sizeof out->why, "%s", run->why);
        return 1;
    }
    lfs_tally_close(v, &v->tally);
    for (int kind = 0; kind < LFS_RUN_KINDS; kind++)
        for (uint64_t part = 0; part < parts(sums); part++) {
            if (!sums->sums[(uint64_t)kind * parts(sums) + part]) continue;
            name_difference(v, kind, part, out);
            return 1;
        }
    for (uint32_t i = 0; i < sums->n_runs; i++) {
        const lfs_kept_run *run = &sums->runs[i];
        if (!run->lines || memcmp(run->filter, run->remade, run->lines * 64) == 0) continue;
        snprintf(out->file, sizeof out->file, "indexes/%s", run->name);
        snprintf(out->why, sizeof out->why, "its filter is not that of its records");
        return 1;
    }
    return 0;
}

/* -- for tests */

/* At a place among others that the record says itself, so that many records are hashed at all places. */
void lfs_verify_record_hash(const uint8_t key[16], int kind, const lfs_record *record, uint8_t out[16]) {
    uint64_t first[16], second[16], low[16], high[16];
    uint32_t at = record->index % 13;
    lfs_sum_key words;
    memcpy(&words, key, sizeof words);
    for (uint64_t i = 0; i < 16; i++) first[i] = second[i] = ~i;
    lfs_record_words(record, kind, &first[at], &second[at]);
    lfs_record_hashes(&words, first, second, low, high, at + 1);
    memcpy(out, &low[at], 8);
    memcpy(out + 8, &high[at], 8);
}
