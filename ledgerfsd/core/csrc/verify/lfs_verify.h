/* Verifying a store (typed face: ledgerfsd/core/verifier.py): its journal is read, hashed and judged from the first byte, and what only repeats it is
 * compared, all in memory. Nothing of the store is written, and nothing of the commit path judges it: verify_read.c reads entries, verify_judge.c judges
 * them, verify_chain.c proves the seals. Formats: docs/FORMAT.md. */
#ifndef LFS_VERIFY_H
#define LFS_VERIFY_H
#include "lfs_core.h"
#include "lfs_runs.h"

/* cffi-begin */
typedef struct lfs_verify lfs_verify;

typedef struct {
    const char *store;
    uint64_t limit;       /* verify so many entries, which must end with a seal; UINT64_MAX: all that count */
    uint64_t trusted;     /* hashes below are taken on trust; 0: none. Must stand behind a seal */
    uint64_t mark_entries, mark_transactions, mark_blocks; /* how much of hashes/ and runs/ is compared; 0: nothing */
    uint32_t jobs;        /* threads, besides the one that reads ahead */
    uint32_t accounts_max;
    const uint8_t *indexes; /* the list of the files of indexes/, as index.lmdb has it with this mark */
    size_t indexes_len;     /* 0: they are not compared */
} lfs_verify_task;

typedef struct { /* what was found wrong */
    int damage;        /* the first bad entry is `entry`; else the journal is good, but for that of an unfinished batch (cut_bytes) */
    uint64_t entry, segment; /* segment: the first entry of the file */
    char why[256];
    uint64_t cut_bytes; /* of an unfinished batch behind the end */
    char failure[256]; /* "": else verifying itself failed, and nothing is known */
} lfs_verdict;

/* Places in lfs_verify_differs. */
enum { LFS_V_OFFSETS, LFS_V_TRANSACTIONS, LFS_V_BLOCKS, LFS_V_HASHES, LFS_V_FILES = 7 };

/* How many bytes of address space lfs_verify_begin would want in vain; 0: they can be had. */
uint64_t lfs_verify_room(uint32_t accounts_max);
/* The threads begin at once. Roots are kept of the whole and of the sizes wanted, which rise. */
lfs_verify *lfs_verify_begin(const lfs_verify_task *task, const uint64_t *wanted, uint32_t n_wanted);
/* Wait until the end, at most so long. Returns 1 while there is more to do, with what is done so far. */
int lfs_verify_wait(lfs_verify *v, uint32_t milliseconds, lfs_progress *progress);
/* What follows wants the end. */
void lfs_verify_verdict(const lfs_verify *v, lfs_verdict *out);
void lfs_verify_counts(const lfs_verify *v, lfs_counts *out);
/* Root of the first `size` entries, which was wanted, or behind a seal; 0, or -1 when it was not worked out (size below `trusted`). */
int lfs_verify_root(const lfs_verify *v, uint64_t size, uint8_t out[32]);
/* The first item that differs in a file of runs/ or (LFS_V_HASHES + level) hashes/; -1: none. *ended: the file ends there. */
int64_t lfs_verify_differs(const lfs_verify *v, unsigned file, int *ended);
/* Entries of kind key/1 and restore/1, then anchor/1: returns how many there are; *index of number i, -1: none. */
uint32_t lfs_verify_system(const lfs_verify *v, uint32_t i, int64_t *index);
/* The bytes of an entry; they stay until the next call. 0, or -1. */
int lfs_verify_read(lfs_verify *v, uint64_t index, const uint8_t **bytes, uint32_t *len);
int lfs_verify_account(const lfs_verify *v, uint64_t ordinal, lfs_account_view *out);
/* Is this what index.lmdb should hold? Both return 1 when it is, 0 when not. */
int lfs_verify_page(const lfs_verify *v, uint64_t page, const uint8_t *bytes, size_t len);
int lfs_verify_table(lfs_verify *v, const char *name, const uint8_t *bytes, size_t len);
typedef struct {
    char file[64], why[256];
    int64_t entry; /* -1: none */
} lfs_index_fault;
/* What is wrong first in indexes/. Returns 1, or 0 when nothing is. */
int lfs_verify_indexes(lfs_verify *v, lfs_index_fault *out);
void lfs_verify_free(lfs_verify *v);
/* For tests: judge the form of one entry alone. Returns 1 when it is that of an entry, else 0 with the reason. */
int lfs_verify_form(const uint8_t *bytes, uint32_t len, char why[256]);
/* For tests: 1 when the entry is read the quick way, with the same result as the other; 0: it is read the other way; -1: they do not agree. */
int lfs_verify_quick(const uint8_t *bytes, uint32_t len);
/* For tests: what a record of an index adds to its sum, little-endian. */
void lfs_verify_record_hash(const uint8_t key[16], int kind, const lfs_record *record, uint8_t out[16]);
/* cffi-end */
#endif
