/* Inside of verifying: pieces of the journal and who does what with them. See lfs_verify.h for the files.
 *
 * A thread of its own reads the journal ahead, in pieces of whole entries. The jobs take what there is to do: to *check* a piece (form of each entry, leaf
 * hashes, what of hashes/ and runs/ it says), any pieces at once; to *chain* the next piece and *judge* the batches that end in it, one job at a time
 * and in order; and to work out the root of the state as of a seal, one at a time and in order. What is wrong first, by position, is the
 * answer, whatever the order in which it was found. */
#ifndef LFS_VERIFY_INTERNAL_H
#define LFS_VERIFY_INTERNAL_H
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include "lfs_hash.h"
#include "lfs_verify.h"
#include "state_tree.h"
#include "verify_account.h"
#include "verify_read.h"
#include "verify_sums.h"

#define LFS_BUNDLE 256u
#define LFS_QUARTER 64u
#define LFS_PIECE_BYTES (1u << 20)
#define LFS_PIECE_SLACK 128 /* the readers of members look so far behind an entry */
#define LFS_JOBS_MAX 64
#define LFS_ROOTS_WAITING 8 /* state roots that may wait for their turn */

enum lfs_expect { EXPECT_ANY, EXPECT_ACCOUNT, EXPECT_OPENING };
enum lfs_piece_state { PIECE_READ, PIECE_CHECKING, PIECE_CHECKED };

typedef struct lfs_piece {
    struct lfs_piece *next;
    int state;
    uint32_t segment;
    uint8_t *bytes;
    size_t used, size;
    uint64_t first, offset; /* index of the first entry; its place in the stream */
    uint32_t n, entries_size;
    uint32_t *start;        /* per entry: place of its length field; one more: where the last ends */
    const char *end;        /* nothing follows this piece, and why; "": the stream ends, or all that was asked for is there. NULL: more follows */
    int tail;               /* what ends it are bytes behind its last entry, which is that of a closed segment */
    /* what checking finds */
    uint32_t good;          /* entries before the first that is broken */
    uint32_t wrong;         /* entries before the first that is wrong in form; UINT32_MAX: none is */
    char broken_why[160], wrong_why[160];
    lfs_seen *seen;
    uint8_t *leaves, *quarters, *bundles, *scratch; /* quarters: roots of 64 entries each, of the same whole bundles */
    lfs_reading reading;
    lfs_seen_account *accounts; /* that it opens */
    uint32_t n_accounts, accounts_size;
    uint32_t judged;        /* entries that the judge is done with */
    lfs_tally tally;
} lfs_piece;

typedef struct { int fd; uint64_t items; uint32_t item_bytes; int64_t differs; int ended; } lfs_projection;

typedef struct { uint64_t first, base, size; int fd; } lfs_journal_file;

typedef struct lfs_root_job { /* the state as of a seal, and the root that the seal carries */
    struct lfs_root_job *next;
    uint64_t seal;
    uint8_t root[32];
    uint32_t n, size, accounts, n_currencies;
    uint32_t *ordinals;
    lfs_state *states; /* `size` of them; grows with its pages, which the system clears once each */
    lfs_currency *currencies;
} lfs_root_job;

typedef struct { uint64_t size; uint8_t root[32]; int known; } lfs_wanted;

struct lfs_verify {
    lfs_verify_task task;
    char store[PATH_MAX];
    lfs_journal_file *files;
    uint32_t n_files;
    lfs_projection projections[LFS_V_FILES];
    uint64_t total_bytes;

    /* Hand-over, under `lock`. */
    pthread_mutex_t lock;
    pthread_cond_t work, room, over;
    pthread_t reader, jobs[LFS_JOBS_MAX];
    uint32_t n_jobs, running;
    lfs_piece *oldest, *to_judge, *to_check, *newest, *spare;
    uint32_t ahead; /* pieces read and not yet chained */
    int reading_ahead, judging, rooting, stop, ended;
    lfs_root_job *roots, **roots_tail, *spare_roots;
    uint32_t n_roots;
    _Atomic uint64_t done_bytes;
    lfs_verdict verdict;
    lfs_sums sums; /* of the indexes */

    /* The judge's: whoever has `judging`. */
    lfs_ledger ledger;
    lfs_arena arena;
    lfs_reading reading;
    lfs_tally tally;
    lfs_judged *accounts; /* by ordinal; the ledger has no states */
    uint32_t *touched, n_touched, touched_size; /* named by entries from root_end on, once each */
    uint64_t root_end; /* behind the last seal with a state root */
    uint64_t *marks;   /* a bit for each account, to put `touched` in order */
    lfs_frontier log, batch;
    uint64_t batch_first, time, stream_end, blocks, seal_time; /* as of the last seal that counts, `time` excepted */
    uint64_t batch_time; /* of the first entry of the batch */
    uint8_t prev_seal[32], policy[32], batch_policy[32];
    uint8_t *level_roots[8];
    uint64_t *bundle_offset;
    uint32_t *delta, *txs; /* per entry: its place in its bundle; per transaction: its entry */
    uint64_t bundles_size, entries_size, txs_size, entries; /* entries: those whose place is known */
    int trusting;        /* the trees of what is trusted are there */
    int expect;          /* what must come next */
    uint8_t intent[64];  /* hex, of the newest account/1 */
    uint32_t *recorded, n_recorded; /* anchor/1 entries */
    uint32_t *seals;     /* per block: its seal, and the root of the log up to it */
    uint8_t *seal_roots;
    uint64_t seals_size;
    lfs_wanted *wanted;
    uint32_t n_wanted;
    uint8_t *entry_room; /* what lfs_verify_entry has read */
    char why[256];

    /* Of whoever has `rooting`. */
    lfs_state_tree tree;
};

/* verify.c */
void lfs_verify_fails(lfs_verify *v, const char *what, const char *file); /* verifying cannot go on; errno says why */
void lfs_verify_found(lfs_verify *v, uint64_t entry, const char *why);    /* damage; what is first by position stays */
void lfs_verify_item(lfs_verify *v, unsigned file, uint64_t item, int ended);
/* Address space, zeroed, in huge pages where they can be had; it aborts without. `before` bytes of `old` come along, if there are any. */
void *lfs_verify_reserved(void *old, size_t before, size_t bytes);
int lfs_read_fully(int fd, void *out, size_t len, uint64_t at); /* how many bytes there were, at most len; -1 */

/* verify_pieces.c */
void *lfs_verify_read_loop(void *context);
/* Where the bytes behind `from` end, if the zeros behind them are none; `from` where only zeros stand. */
uint64_t lfs_journal_file_end(const lfs_journal_file *file, uint64_t from);
void lfs_piece_check(lfs_verify *v, lfs_piece *piece);
void lfs_piece_free(lfs_piece *piece);
void lfs_projection_compare(lfs_verify *v, unsigned file, uint64_t first, uint64_t n, const uint8_t *expected, uint8_t *room);

/* verify_chain.c: returns 1 when nothing follows, else 0 */
int lfs_piece_chain(lfs_verify *v, lfs_piece *piece);
void lfs_root_work(lfs_verify *v, lfs_root_job *job);
void lfs_root_job_free(lfs_root_job *job);

/* verify_judge.c: 0, or -1 with v->why */
int lfs_verify_judge(lfs_verify *v, lfs_piece *piece, uint32_t i); /* entry i of the piece */
void lfs_judge_far(const lfs_seen *s, const lfs_seen_posting *postings);
void lfs_judge_ahead(lfs_verify *v, const lfs_seen *s, const lfs_seen_posting *postings);
void lfs_judge_near(lfs_verify *v, const lfs_seen *s, lfs_seen_posting *postings);
/* An entry that stood in the journal before, read again into one room; *len is what there is of it, at most 1024 unless `whole`. NULL when it cannot be read. */
const uint8_t *lfs_verify_entry(lfs_verify *v, uint64_t index, uint32_t *len, int whole);
#endif
