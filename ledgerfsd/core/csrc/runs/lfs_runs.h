/* Single runs, as Python sees them (typed face: ledgerfsd/core/runs.py): for tests that hold them against the twin. */
#ifndef LFS_RUNS_FACE_H
#define LFS_RUNS_FACE_H
#include <stddef.h>
#include <stdint.h>

/* cffi-begin */
typedef struct {
    uint64_t key;   /* postings: ordinal; words: hash; ids: tag */
    uint32_t index; /* of the entry */
    uint16_t len;   /* of the entry, in bytes; words, ids: 0 */
    uint8_t states; /* 1: debits and credits; 2: what is held; words, ids: 0 */
} lfs_record;

/* What the first entries of the log say of one key. last, newest: entry index + 1, 0 for none. */
typedef struct {
    uint64_t count, log;
    uint32_t last, newest[3]; /* by facet: status, debits and credits, what is held */
} lfs_past;

/* Write records (in the order of the log; sorted in place) as a run in folder `dir`. Returns 0 or an errno. */
int lfs_run_make(const char *dir, int kind, uint64_t first, uint64_t end, lfs_record *records, uint64_t n);
/* Merge runs that follow each other into one. Returns 0, an errno, or -1: one of them is not what was written. */
int lfs_run_join(const char *dir, int kind, const char **names, uint32_t n);
/* Which neighbours of runs with so many records, oldest first, are to become one: *count of them from *from on, 0 for none. */
void lfs_run_window(const uint64_t *records, uint32_t n, uint32_t *from, uint32_t *count);
/* What the records of a key below bound come to. Returns 0, or -1: not what was written. */
int lfs_run_past(const char *dir, const char *name, uint64_t key, uint64_t bound, lfs_past *out);
/* cffi-end */
#endif
