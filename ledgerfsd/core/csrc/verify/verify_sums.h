/* Inside of verifying the indexes: sums of what they must hold (verify_sums.c), and the runs of the store (verify_runs.c). ADR 34 says why sums. */
#ifndef LFS_VERIFY_SUMS_H
#define LFS_VERIFY_SUMS_H
#include "money.h"
#include "runs.h"
#include "verify_read.h"

#define LFS_PART_SHIFT 16 /* the entries of a part, 65,536, have one sum a kind */

typedef struct { uint64_t word[2]; } lfs_sum_key;

/* A record of a kind as it is hashed. */
static inline void lfs_record_words(const lfs_record *r, int kind, uint64_t *first, uint64_t *second) {
    *first = r->key;
    *second = (uint64_t)r->index << 32 | (uint64_t)r->len << 16 | (uint64_t)kind << 8 | r->states;
}
/* The hashes of n records: low and high halves. All arrays have room for a multiple of eight. verify_siphash.c */
void lfs_record_hashes(const lfs_sum_key *key, const uint64_t *first, const uint64_t *second, uint64_t *low, uint64_t *high, uint32_t n);

/* Of one thread: sums of the part of the log that it is in. They are handed on when it comes to another part. */
#define LFS_TALLY_WAITING 64
typedef struct {
    uint64_t part;
    u128 sum[LFS_RUN_KINDS];
    struct { uint64_t first[LFS_TALLY_WAITING], second[LFS_TALLY_WAITING]; uint32_t n; } waiting[LFS_RUN_KINDS]; /* records to be hashed together */
} lfs_tally;

typedef struct { /* a run of the store */
    char name[48];
    int kind, fd;
    lfs_run_footer is;
    lfs_fence *fences;
    uint64_t blocks;
    uint64_t lines, *filter, *remade; /* of ids: the filter as it stands behind the fences, and what its records make of it */
    uint64_t wrong_at; /* the first record that is wrong, UINT64_MAX: none is */
    int64_t wrong_entry;
    char why[128];
} lfs_kept_run;

typedef struct {
    uint64_t entries; /* so many are indexed; 0: nothing is compared */
    lfs_sum_key key;
    u128 *sums; /* kind by kind, part by part. What the journal calls for less what runs hold: 0 where they agree. Under lock */
    lfs_kept_run *runs;
    uint32_t n_runs;
    char file[64], why[256]; /* what is wrong with the list, or with the frame of a file */
    /* Under lock: what is to be looked at next, and by how many threads some is. */
    uint32_t next_run, scanning;
    uint64_t next_block;
    _Atomic uint64_t done_bytes;
} lfs_sums;

struct lfs_verify;
/* verify_sums.c */
int lfs_sums_begin(struct lfs_verify *v); /* -1: there is no randomness */
void lfs_sums_free(lfs_sums *sums);
void lfs_tally_close(struct lfs_verify *v, lfs_tally *tally);
void lfs_tally_hash(const lfs_sums *sums, lfs_tally *tally, int kind); /* what waits */
static inline void lfs_tally_add(struct lfs_verify *v, const lfs_sums *sums, lfs_tally *tally, int kind, lfs_record record) {
    uint64_t part = record.index >> LFS_PART_SHIFT;
    if (record.index >= sums->entries) return;
    if (part != tally->part) {
        lfs_tally_close(v, tally);
        tally->part = part;
    }
    uint32_t n = tally->waiting[kind].n++;
    lfs_record_words(&record, kind, &tally->waiting[kind].first[n], &tally->waiting[kind].second[n]);
    if (n + 1 == LFS_TALLY_WAITING) lfs_tally_hash(sums, tally, kind);
}
/* What an entry states of the accounts that it names: `states` of its records in `postings`. */
static inline uint8_t lfs_seen_states(const lfs_seen *s) {
    return s->kind == K_TXN ? 1 : s->kind == K_HOLD || s->kind == K_VOID ? 2 : s->kind == K_POST ? 3 : 0;
}
/* The record of the id that an entry owns (s->tag is not 0). */
static inline lfs_record lfs_seen_id(const lfs_seen *s) { return (lfs_record){s->id_hash ? s->id_hash : 1, (uint32_t)s->index, 0, 0}; }
/* Keys of the records in `words` of the entry that was read last; at most LFS_WORDS_MAX. */
uint32_t lfs_seen_words(const lfs_reading *r, const lfs_seen *s, uint64_t *out);

/* verify_runs.c */
void lfs_kept_open(struct lfs_verify *v, const uint8_t *list, size_t len); /* the list, and the frames of its files */
uint64_t lfs_kept_bytes(const lfs_sums *sums);
int lfs_kept_more(const lfs_sums *sums); /* is there more to look at? Under lock */
void lfs_kept_scan(struct lfs_verify *v); /* some of it; under lock, which is let go meanwhile */
/* Records of this kind and of entries from..to, as the files have them, in no order; returns how many, in *out (to be freed), or -1: not read. */
int64_t lfs_kept_records(const lfs_sums *sums, int kind, uint64_t from, uint64_t to, lfs_record **out);
const char *lfs_kept_file(const lfs_sums *sums, int kind, uint64_t index); /* the name of the run with this entry's records; NULL: none covers it */
#endif
