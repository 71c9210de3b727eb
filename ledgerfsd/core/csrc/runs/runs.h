/* Runs: sorted immutable index files (docs/FORMAT.md, section 16), the postings and ids that are in none yet, and the thread that makes runs of them.
 *
 * A run holds the records of a range of entries, sorted by key and then by entry. Ranges follow each other, so what comes in the order of the
 * runs, and then of the tail, is in the order of the log. T2 appends to the tail and never waits; T6 builds a run of it, and
 * merges runs. Readers hold `lock` for reading while they look; T6 holds it for writing only to exchange files or to free tail. */
#ifndef LFS_RUNS_H
#define LFS_RUNS_H
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "lfs_runs.h"

#define LFS_RUN_BLOCK 128 /* records */
#define LFS_RUNS_MAX 4096 /* files of one kind; a merged one has up to LFS_RUN_RECORDS_MAX records */
#define LFS_RUN_RECORDS_MAX (64ull << 20)
#define LFS_TAIL_CHUNK 65536u
#define LFS_TAIL_CHUNKS 4096u
#define LFS_TAIL_MAX (4u << 20) /* postings (64 MiB), or ids, that are kept while no run can be written */
#define LFS_BUILD_RECORDS (1u << 19) /* postings, or words, of which a run is made, when no save asks for it before */
#define LFS_WORDS_STEP 32768 /* entries that are not looked at for words before T6 is woken for it */
#define LFS_IDS_RECENT 1000000u /* ids in a table, of which there are two: 16 MiB each */
#define LFS_IDS_RUN (1u << 20) /* entries of which a run of ids is made, when neither T1 nor a save asks for it before */
#define LFS_SIEVES_MAX 72 /* of 2^26 ids each but the first */
#define LFS_FILTER_BITS 12 /* for each record */
#define LFS_FILTER_PROBES 6
#define LFS_FILTER_LINE 64 /* bytes */
#define LFS_RUN_MAGIC "lfsrun1\n"

enum lfs_run_kind { LFS_POSTINGS, LFS_WORDS, LFS_IDS, LFS_RUN_KINDS };
/* What an entry states of an account: its status (when it states nothing else), debits and credits, what is held. */
enum lfs_facet { LFS_STATUS, LFS_TOTALS, LFS_HELD, LFS_FACETS };

typedef struct { /* on disk as here; the processor is little-endian */
    uint64_t key, offset, log;
    uint32_t index, count, newest[LFS_FACETS], check;
} lfs_fence;

typedef struct {
    char magic[8];
    uint32_t kind, block;
    uint64_t first, end, records, bytes, fences_check, check;
} lfs_run_footer;

typedef struct {
    lfs_run_footer is;
    char name[48];
    int fd, synced, listed; /* listed: what LMDB holds may name it */
    const uint8_t *map;
    size_t map_len;
    const lfs_fence *fences;
    uint64_t blocks;
    const uint64_t *filter; /* of ids */
    uint64_t lines;
} lfs_run;

typedef struct {
    int fd, kind, failed; /* failed: an errno */
    uint64_t first, end, records, at, written; /* at: bytes of blocks handed on */
    uint8_t *room;
    size_t used, block_at;
    lfs_fence *fences;
    uint64_t n_fences, fences_size;
    uint64_t *filter, lines;
    uint64_t key;
    uint32_t index, len;
    lfs_past sum;
} lfs_run_writer;

/* Where a look through a run is. */
typedef struct {
    const lfs_run *run;
    uint64_t block;
    uint32_t at, n;
    lfs_record room[LFS_RUN_BLOCK];
} lfs_run_cursor;

enum lfs_run_by { LFS_BY_RANK, LFS_BY_LOG, LFS_BY_INDEX };

/* Shifts by a variable number take a third of the time with BMI2, which processors have since about 2014. */
#ifdef __x86_64__
#define LFS_FAST __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define LFS_FAST
#endif

int lfs_write_all(int fd, const uint8_t *bytes, size_t len, uint64_t at); /* store.c */

/* run_write.c: making one file. records: so many will come. */
int lfs_run_write_begin(lfs_run_writer *w, int dir, const char *name, int kind, uint64_t first, uint64_t end, uint64_t records);
void lfs_run_write(lfs_run_writer *w, const lfs_record *records, uint64_t n);
/* Returns 0 or an errno; the file is complete, not synced, and closed. */
int lfs_run_write_end(lfs_run_writer *w);
uint64_t *lfs_filter_room(uint64_t lines); /* to be freed */
uint64_t lfs_run_check(const lfs_fence *fences, uint64_t n, const uint64_t *filter, uint64_t lines);
void lfs_filter_fill(uint64_t *filter, uint64_t lines, const lfs_record *records, uint64_t n);

/* run_file.c: reading one. What reads returns -1 for damage. */
/* Returns NULL, or what is wrong. */
const char *lfs_run_open(lfs_run *run, int dir, const char *name);
void lfs_run_close(lfs_run *run);
/* The number of the records of a block. */
int lfs_run_block(const lfs_run *run, uint64_t block, lfs_record *out);
int lfs_run_two_blocks(const lfs_run *run, uint64_t block, lfs_record *out); /* of the next as well, when both are full */
/* Add what the records of a key with index < bound come to. */
int lfs_run_before(const lfs_run *run, uint64_t key, uint64_t bound, lfs_past *sum);
/* Put the cursor on the first record of key with rank (or end in the log, or index) at or above (above; at or above) value, or on what follows
 * the key. *sum: what the records of the key before it come to (count and log). */
int lfs_run_seek(lfs_run_cursor *c, const lfs_run *run, uint64_t key, int by, uint64_t value, lfs_past *sum);
/* The record under the cursor, NULL at the end of the run. *damaged is set when the block is not what was written. */
const lfs_record *lfs_run_record(lfs_run_cursor *c, int *damaged);
static inline void lfs_run_next(lfs_run_cursor *c) { c->at++; }

static inline void lfs_past_add(lfs_past *sum, const lfs_record *record) {
    uint32_t at = record->index + 1;
    sum->count++;
    sum->log += (uint64_t)record->len + 1;
    sum->last = at;
    if (!record->states) sum->newest[LFS_STATUS] = at;
    if (record->states & 1) sum->newest[LFS_TOTALS] = at;
    if (record->states & 2) sum->newest[LFS_HELD] = at;
}

/* The filter of a run of ids: a line of 64 bytes holds the bits of the keys that fall into it. Lines follow each other as keys do. */
static inline uint64_t lfs_filter_lines(uint64_t records) { return (records * LFS_FILTER_BITS + 511) / 512; }

static inline uint64_t lfs_filter_place(uint64_t lines, uint64_t key) { return 8 * (uint64_t)((unsigned __int128)key * lines >> 64); }
static inline uint64_t *lfs_filter_line(uint64_t *filter, uint64_t lines, uint64_t key) { return filter + lfs_filter_place(lines, key); }

static inline void lfs_filter_add(uint64_t *line, uint64_t key) {
    uint64_t bits = key * 0x9e3779b97f4a7c15ull;
    for (int i = 0; i < LFS_FILTER_PROBES; i++, bits >>= 9) line[bits >> 6 & 7] |= 1ull << (bits & 63);
}

/* Without a branch for each bit: two in five are set, so each would be guessed wrongly as often as not. */
static inline int lfs_filter_has(const uint64_t *filter, uint64_t lines, uint64_t key) {
    const uint64_t *line = filter + lfs_filter_place(lines, key);
    uint64_t bits = key * 0x9e3779b97f4a7c15ull, all = 1;
    for (int i = 0; i < LFS_FILTER_PROBES; i++, bits >>= 9) all &= line[bits >> 6 & 7] >> (bits & 63);
    return (int)(all & 1);
}

typedef struct { /* sieves.c */
    uint64_t *filter, lines, records, most;
} lfs_sieve;

static inline uint64_t *lfs_sieve_line(const lfs_sieve *s, uint64_t key) { return s->filter + lfs_filter_place(s->lines, key); }

typedef struct {
    lfs_run *runs;
    uint32_t n;
    uint64_t covered; /* entries: all before are in the runs */
} lfs_run_list;

typedef struct lfs_id_view { /* the runs of ids as they were at one time */
    struct lfs_id_view *next;
    lfs_run *closing; /* what the next one does not show */
    uint32_t n_closing, n;
    uint64_t covered;
    uint64_t sifted; /* the ids of all entries before are in the sieves */
    uint32_t n_sieves;
    lfs_sieve sieves[LFS_SIEVES_MAX], ending; /* ending: what the next one does not show; filter may be NULL */
    lfs_run runs[];
} lfs_id_view;

typedef struct {
    uint32_t ordinal, index, back; /* back: so many postings before stands the account's previous one; 0: none is left */
    uint16_t len;
    uint8_t states;
} lfs_tail_posting;

typedef struct lfs_runs {
    pthread_rwlock_t lock;
    int dir;
    lfs_run_list list[LFS_RUN_KINDS]; /* changed by whoever builds; read under lock */
    /* T2's, read by all: postings begin..end are in no run. */
    lfs_tail_posting *chunks[LFS_TAIL_CHUNKS];
    _Atomic uint64_t begin, end;
    uint64_t *heads; /* per account: position of its newest posting + 1 */
    uint32_t accounts_max;
    /* Words (words.c) of the entries that words covers ..words_to, which are in no run: so that a look need not read these entries. */
    lfs_record *words;
    _Atomic uint64_t n_words, words_to;
    _Atomic uint64_t *word_tail, word_from, word_end; /* T2's: the word of each of the entries word_from..word_end (lfs_group), of the last `words_kept` */
    uint64_t words_kept; /* a power of two */
    /* Ids (ids.c). Tags of the entries id_begin..id_end, 0 for none, are in no run. */
    uint64_t *id_chunks[LFS_TAIL_CHUNKS];
    _Atomic uint64_t id_begin, id_end;
    uint64_t ids_run; /* of so many entries a run is made */
    _Atomic uint64_t ids_wanted; /* T1 asks for runs of the entries before */
    lfs_id_view *oldest;            /* whoever builds */
    lfs_id_view *_Atomic newest;    /* whoever builds changes it */
    const lfs_id_view *_Atomic held; /* T1 says at which it looks */
    lfs_sieve sieves[LFS_SIEVES_MAX], ending; /* changed under lock for writing; ending: one that the next view does not show any more */
    uint32_t n_sieves;
    uint64_t sifted;
    _Atomic int damaged; /* a block was not what was written: what is listed is not saved any more */
    /* Under `turn`. */
    pthread_mutex_t turn;
    pthread_cond_t wanted, done;
    pthread_t thread;
    int tid, niceness; /* its number, by which its priority is set (0: it does not run), and what the other threads have */
    lfs_record *rooms[2]; /* for building: whoever does */
    int running, stopping, trouble; /* trouble: errno of the last build or merge */
    uint64_t target; /* a save waits until exactly so many entries are covered, and for what comes then; 0: none does */
    _Atomic uint64_t spent; /* ns of processor time */
    char gone[LFS_RUNS_MAX][48]; /* files that were merged away and that LMDB may still name */
    uint32_t n_gone, n_unnamed; /* the first so many are not named by the list that is being saved */
} lfs_runs;

struct lfs_engine;
/* ids.c */
/* The list of runs of ids has changed; these are not in it any more, and are closed when T1 looks at them no more. */
void lfs_ids_publish(lfs_runs *r, const lfs_run *closing, uint32_t n_closing);
void lfs_ids_tidy(lfs_runs *r);
void lfs_ids_free(lfs_runs *r);
void lfs_ids_tail_begin(lfs_runs *r, uint64_t entries);
void lfs_ids_tail_add(lfs_runs *r, const uint64_t *tags, uint32_t n);
void lfs_ids_tail_forget(lfs_runs *r, uint64_t begin);
/* Records of the entries from the beginning of the tail up to *end, which comes down when they are more than `most`. */
uint64_t lfs_ids_gather(lfs_runs *r, uint64_t *end, lfs_record *out, uint64_t most);
int lfs_ids_enough(const lfs_runs *r);

/* sieves.c */
/* May one of them know the key of an id? */
int lfs_sieves_have(const lfs_sieve *sieves, uint32_t n, uint64_t key);
void lfs_sieve_free(const lfs_sieve *s);
/* Put the ids of runs into sieves that are in none yet. Returns 0, an errno, or -1 to stop for now. */
int lfs_ids_sift(struct lfs_engine *e);

/* runs.c */
void lfs_runs_init(lfs_runs *r, uint32_t accounts_max);
void lfs_runs_free(lfs_runs *r);
int lfs_runs_open(struct lfs_engine *e, int store, int empty);
size_t lfs_runs_dump(lfs_runs *r, uint8_t **out);
int lfs_runs_list(struct lfs_engine *e, const uint8_t *bytes, size_t len);
int lfs_runs_load(struct lfs_engine *e, const uint8_t *bytes, size_t len); /* and remove the files that are not listed */
int lfs_runs_sync(struct lfs_engine *e);
void lfs_runs_saved(lfs_runs *r);
void lfs_tail_add(lfs_runs *r, uint32_t ordinal, uint32_t index, uint32_t len, uint8_t states);
int lfs_tail_full(const lfs_runs *r);
/* Postings of an account in the tail with index < bound, oldest first, in *out (to be freed). Under lock. */
uint64_t lfs_tail_of(lfs_runs *r, uint64_t ordinal, uint64_t bound, lfs_record **out);
void lfs_tail_before(lfs_runs *r, uint64_t ordinal, uint64_t bound, lfs_past *sum);
void lfs_tail_forget(lfs_runs *r, uint64_t begin);
static inline const lfs_tail_posting *lfs_tail_at(const lfs_runs *r, uint64_t position) {
    return &r->chunks[position / LFS_TAIL_CHUNK % LFS_TAIL_CHUNKS][position % LFS_TAIL_CHUNK];
}

/* words.c */
#define LFS_WORDS_MAX 17 /* of an entry: a reference, or 16 tags and a reference */
#define LFS_WORDS_KEPT (1u << 20) /* entries: 8 MiB. If T6 is further behind, it reads the entries */
/* T2, before they are published: the words of the entries from `first` on. */
void lfs_words_tail_add(lfs_runs *r, uint64_t first, const uint64_t *words, uint32_t n);
uint32_t lfs_entry_words(const struct lfs_engine *e, const uint8_t *bytes, uint32_t len, uint64_t *out);
/* Whoever builds: look at the entries up to `until`, and keep their words, until the room is full. Returns the number of all that are kept. */
uint64_t lfs_words_note(struct lfs_engine *e, uint64_t until);
void lfs_words_forget(lfs_runs *r); /* what is kept is in a run. Under lock for writing. */
void lfs_words_idle(lfs_runs *r); /* gives memory back that is not needed */
void lfs_words_free(lfs_runs *r);
int lfs_words_due(const struct lfs_engine *e);

/* run_build.c */
int lfs_runs_start(struct lfs_engine *e);
void lfs_runs_stop(struct lfs_engine *e);
void lfs_runs_wake(struct lfs_engine *e); /* T2: there may be something to do */
void lfs_run_name(char name[48], int kind, uint64_t first, uint64_t end);
/* Complete a file and open it. Returns 0 or an errno. */
int lfs_run_finish(lfs_runs *r, lfs_run_writer *w, const char *name, lfs_run *made);
/* Write one run, whose records come in the order of the log, and open it. Returns 0 or an errno. */
int lfs_run_write_all(lfs_runs *r, int kind, uint64_t first, uint64_t end, lfs_record *records, uint64_t n, lfs_run *made);
/* A save looks at the lists from the moment they cover its target until it lets go. Under `turn`. */
int lfs_runs_frozen(const lfs_runs *r);
/* Called now and then by a merge, which may take seconds: builds what there is to build. Returns 0, an errno, or -1 to stop for now. */
int lfs_runs_between(struct lfs_engine *e);
/* T6, in the middle of something that nobody waits for: lets others have the processor, until there is something to build or the time is over. */
void lfs_runs_rest(lfs_runs *r, unsigned milliseconds);
void lfs_runs_idle(lfs_runs *r); /* gives the memory for building back */
/* While no thread runs (replay): build and merge when there is enough. */
int lfs_runs_step(struct lfs_engine *e);
void lfs_runs_target(struct lfs_engine *e);
int lfs_runs_flush(struct lfs_engine *e);
void lfs_runs_flushed(struct lfs_engine *e);

/* run_merge.c. Those that merge return 0, an errno, or -1 to stop for now. */
/* Which neighbours are to become one, if any are: returns 1 or 0. Only their numbers of records are looked at. */
int lfs_runs_window(const lfs_run_list *list, uint32_t *from, uint32_t *count);
/* Merge `count` runs of the list into one. */
int lfs_run_merge(struct lfs_engine *e, int kind, uint32_t from, uint32_t count);
/* All that there are too many of. */
int lfs_runs_merge(struct lfs_engine *e);
#endif
