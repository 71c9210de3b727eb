/* Inside of the engine: files, threads, published state. See lfs_core.h for the threads and who does what. */
#ifndef LFS_ENGINE_H
#define LFS_ENGINE_H
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include "ledger.h"
#include "lfs_hash.h"
#include "ordinals.h"
#include "runs.h"
#include "state_tree.h"

#define LFS_SEGMENTS_MAX 65536
#define LFS_LEVELS 4 /* 256^4 leaves are all the entries there may be */
#define LFS_REPLAY_BATCH_MAX (1u << 22) /* entries; far above what a group ever holds */
#define LFS_GROUPS 4 /* open, ready, next, being written */
#define LFS_GROUP_BYTES (8u << 20)
/* A segment is closed at the first bundle boundary after its target: 255 entries of the largest kind may follow. */
#define LFS_SEGMENT_SLACK (32u << 20)
#define LFS_BLOCK 4096 /* of the page cache, and at least what direct I/O wants */

typedef struct {
    uint64_t first_index, base; /* stream offset of its first byte */
    int fd;
    const uint8_t *map; /* whole address range it may come to fill */
    size_t map_len;
} lfs_segment;

/* A projection: fixed-size records, appended with pwrite, read through a map. Space is allocated ahead of the journal write, so that a full
 * disk is noticed before anything is committed. */
typedef struct {
    int fd;
    uint64_t size, allocated;
    const uint8_t *map;
    size_t map_len;
    void *digest; /* runs/ only: XXH3 of everything in the file */
    char name[16];
} lfs_dense;

typedef struct { /* one sealed batch on its way into the projections */
    uint64_t first;
    uint32_t n; /* the seal included */
    const uint64_t *offsets;
    const uint8_t *leaves;
    const uint64_t *txs;
    uint32_t n_txs;
    const uint8_t *tiles; /* the hashes of level 1 that it completes, if they are known */
    uint64_t n_tiles;
} lfs_batch;

#define LFS_LONG_TEXT (64u << 10) /* bytes of a submission; from here on its memory is used again */
#define LFS_TEXTS 8

typedef struct { uint8_t *bytes; size_t size; } lfs_room;

struct lfs_ticket {
    uint64_t number;
    int mode, dry_run, system;
    uint64_t now_ns;
    char source[256];
    uint8_t *data;
    size_t len, room; /* room: of `data`, if it is one of the texts that are kept, else 0 */
    uint32_t first_line, lines;
    int ids_required;    /* an intent without an id is refused: two connections may send the same line */
    uint64_t connection; /* of the socket (see socket.c), 0: Python's */
    struct lfs_front_file *front; /* of the front (see front.c), or NULL */
    /* Of a file that is lent to the front (see front_lines.c), under the lock: while it is lent, the file and whether this is finished; then those that Python
     * gets as one, in a chain, when the last of them is finished. */
    struct lfs_front_lines *lines_of;
    int finished;
    lfs_ticket *head, *more; /* the first of the chain; the next */
    uint32_t left;           /* of the first: how many of the chain are not finished */
    lfs_result *results;
    uint32_t n, size;
    char *names; /* of unknown members, each with its final zero */
    uint32_t names_len;
    lfs_ticket *next;
};

struct lfs_engine {
    char store[PATH_MAX];
    int journal_dir, hashes_dir, runs_dir;
    uint64_t segment_bytes;
    char error[512];
    lfs_ledger ledger; /* T1's; ahead of the disk by up to LFS_GROUPS batches */
    lfs_intent chunk[LFS_INTENTS_TOGETHER]; /* T1's: parsed ahead of being applied, so that their tables' memory arrives meanwhile, and all stays in the cache */

    /* T2's */
    lfs_segment *segments;
    _Atomic uint32_t n_segments;
    lfs_dense offsets, transactions, blocks, hashes[LFS_LEVELS];
    lfs_frontier frontier;
    uint8_t prev_seal[32];
    uint64_t stream_end;
    uint64_t *offset_room;
    uint8_t *leaf_room, *mth_room, *tile_room; /* leaf_room: of replay; a group has its own */
    uint64_t n_tiles; /* in tile_room: what the batch in hand completes */
    uint32_t room;
    lfs_state_tree tree;   /* of the newest seal that carries its root, or ahead of it; see roots.c, also for whose it is */
    uint64_t state_height; /* that seal's height; 0: none since the start */
    _Atomic uint64_t state_ns; /* when it was made, by the monotonic clock */
    lfs_ordinals in_group; /* accounts of the group in hand, while its root is worked out */
    uint32_t swept;        /* accounts that were pending when T4 swept, or was told to, since that seal; 0: it was not */
    int sealed;            /* read-only: 1 when the tree is that of the newest sealed root, -1 when there is none */
    uint64_t sealed_size;  /* entries before that seal */
    uint64_t catch_up_ns, catch_up_each_ns; /* when that began; from there to the root, for each of those accounts, the last time */
    _Atomic uint64_t state_spent, tree_spent; /* ns on all roots since the start: of T2, and of T4 beside it */
    _Atomic int state_stale; /* the newest root is not that of what is published */

    /* Published, under `publish`; entries is also read without it. */
    pthread_mutex_t publish;
    lfs_state *published;
    _Atomic uint64_t entries;
    lfs_counts counts;
    uint8_t *watched; /* bit 0: watched; bit 1: in touched */
    uint32_t *touched;
    uint32_t n_touched, touched_size;
    int telling; /* Python has taken `touched`, and the kernel is not told of all of it yet */
    unsigned attended; /* who wants to be told of every commit before it is answered, a bit each; see lfs_attend */
    uint64_t covered;  /* the largest size to which a proof led that was read; see prove.c */
    uint64_t *dirty; /* bit per page of 64 accounts */
    lfs_ordinals pending; /* accounts of which the state tree does not have what is published */

    /* Held while the name table or the list of currencies moves, and by those who look names up besides T1. */
    pthread_mutex_t names_lock;

    /* Hand-over, under `lock`. */
    pthread_mutex_t lock;
    pthread_cond_t to_apply, handed, to_write, to_zero, to_hash, hashed, to_sync, quiet;
    pthread_t apply_thread, write_thread, zero_thread, tree_thread, sync_thread;
    int sync, sync_fd, sync_errno; /* see sync.c */
    int running, stopping, parked, lent, gathering, paused, pause_wanted, tick_wanted, zero_wanted, spare_ready, state_wanted, state_due, tree_busy;
    lfs_ticket *queue, **queue_tail, *done, **done_tail;
    lfs_proof *proofs, *proven; /* asked for; answered */
    uint64_t next_ticket, inflight_tickets, inflight_bytes;
    lfs_room texts[LFS_TEXTS]; /* for submissions to come; the one used last is taken first, since a cache may still have it */
    uint32_t n_texts;
    int texts_idle; /* ticks since one was taken */
    lfs_group *groups[LFS_GROUPS], *ready, *next, *writing; /* next: T2 has taken it and hashes it, while the one before is synced */
    char failure[256];
    int failure_code; /* 0, LFS_READ_ONLY or LFS_STORAGE_ERROR */
    int wakeup;
    struct lfs_socket *socket; /* NULL: nobody listens */
    struct lfs_front *front;   /* NULL: Python sees every request */
    struct lfs_kernel *kernel;

    lfs_runs runs; /* see runs.h */

    struct { /* who waits for so many entries, to save them; see lfs_save_wait */
        pthread_mutex_t lock;
        pthread_cond_t due;
        _Atomic uint64_t entries; /* UINT64_MAX: nobody waits, or he has been woken */
        int ended;
    } saver;

    lfs_arena arena;
    uint8_t *saved_table; /* copies made by lfs_save_begin */
    uint64_t saved_bytes, saved_at[4], *saving, saving_words;
    uint8_t *saved_runs;
    size_t saved_runs_len;
    /* replay: the batch in hand */
    const uint8_t **replay_bytes;
    uint32_t *replay_len;
    lfs_quick *replay_quick; /* those that were read quickly; tx 0: it was not */
    uint32_t replay_n, replay_quick_size;
    uint64_t replay_first, replay_segment, total_bytes, done_bytes, replayed, cut_bytes;
};

int lfs_fail_api(lfs_engine *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t lfs_clock(void);

/* store.c */
int lfs_dense_open(lfs_engine *e, lfs_dense *d, int dir, const char *name, uint64_t size, uint64_t most);
int lfs_dense_reserve(lfs_engine *e, lfs_dense *d, uint64_t more);
int lfs_dense_append(lfs_engine *e, lfs_dense *d, const void *bytes, uint64_t len);
void lfs_dense_close(lfs_dense *d);
uint64_t lfs_runs_digest(lfs_engine *e);
int lfs_segments_open(lfs_engine *e);
int lfs_segment_begin(lfs_engine *e, uint64_t first_index, uint64_t base);
int lfs_segment_add(lfs_engine *e, int fd, uint64_t first_index, uint64_t base);
const lfs_segment *lfs_segment_at(lfs_engine *e, uint64_t offset);
int lfs_spare_make(lfs_engine *e);
void *lfs_zero_loop(void *context);
int lfs_write_all(int fd, const uint8_t *bytes, size_t len, uint64_t at);
void lfs_rooms(lfs_engine *e, uint32_t entries);
int lfs_project(lfs_engine *e, const lfs_batch *batch);
void lfs_project_undo(lfs_engine *e, const lfs_batch *batch);
int lfs_project_reserve(lfs_engine *e, uint64_t entries, uint64_t txs);

/* write.c: T2's work on one group. Returns 0 or a code; *why says what failed. */
int lfs_group_commit(lfs_engine *e, lfs_group *g, char why[256]);
lfs_group *lfs_group_new(void);
int lfs_group_hash(lfs_group *g); /* the next piece of a closed group's leaves, if there is one; 1: another one is left */
void lfs_group_free(lfs_group *g);

/* sync.c */
int lfs_sync_and_hash(lfs_engine *e, int fd, uint64_t at, uint64_t len); /* T2 */
void *lfs_sync_loop(void *context);

/* roots.c */
uint64_t lfs_monotonic(void);
int lfs_state_begin(lfs_engine *e); /* -1: the newest seal carries another root */
const uint8_t *lfs_state_carry(lfs_engine *e, const lfs_group *g, uint8_t root[32]);
void lfs_state_published(lfs_engine *e, const lfs_group *g, int carried);
int lfs_state_current(lfs_engine *e);
int lfs_state_is_old(lfs_engine *e); /* no root for a second */
void *lfs_tree_loop(void *context);

void lfs_state_open(lfs_engine *e, uint32_t accounts);

/* prove.c: T2's */
void lfs_proofs_answer(lfs_engine *e);

/* sealed.c: T2's, once the ledger is read-only */
int lfs_state_sealed(lfs_engine *e); /* makes the tree that of the newest sealed root; -1: there is none */
int lfs_read_sealed(lfs_engine *e, uint64_t ordinal, lfs_account_view *out); /* the account as of that; -1: it was not open yet */

/* submit.c: T1's work on one ticket */
void lfs_process(lfs_engine *e, lfs_ticket *t);
lfs_result *lfs_result_add(lfs_ticket *t);

/* engine.c */
void lfs_turn_read_only(lfs_engine *e, int code, const char *why); /* for good; the first reason stays */

/* groups.c */
void lfs_group_take(lfs_engine *e, lfs_group *g); /* it is the open one from now on */
void lfs_hand_over(lfs_engine *e); /* T1: close the open group, take another; waits while three are under way */
int lfs_writer_idle(lfs_engine *e);
lfs_group *lfs_next_group(lfs_engine *e);
uint64_t lfs_enqueue(lfs_engine *e, lfs_ticket *t); /* a list of them, under one lock; the number of the first */
void *lfs_apply_loop(void *context);
void *lfs_write_loop(void *context);

/* ticket.c */
lfs_ticket *lfs_ticket_new(const uint8_t *data, size_t len, const char *source, uint32_t first_line); /* the data is copied */
lfs_ticket *lfs_ticket_take(lfs_engine *e, const uint8_t *data, size_t len, const char *source, uint32_t first_line); /* the same, for what may be long */
lfs_ticket *lfs_ticket_join(lfs_engine *e, const uint8_t *head, size_t head_len, const uint8_t *data, size_t data_len, const char *source, uint32_t first_line); /* both in a row */
const char *lfs_ticket_name(const lfs_ticket *t, uint32_t name); /* of this one's results */
void lfs_text_return(lfs_engine *e, lfs_ticket *t); /* T1: it is judged, and nothing points into its text */
void lfs_texts_free(lfs_engine *e);                 /* under the lock */

/* socket.c */
int lfs_socket_finished(lfs_engine *e, lfs_ticket *t, int unattended); /* under the engine's lock; 1: it waits for Python */
int lfs_socket_due(lfs_engine *e);                                     /* the same; then lfs_socket_wake, without the lock */
void lfs_socket_wake(lfs_engine *e);
void lfs_socket_stop(lfs_engine *e);
void lfs_socket_end(lfs_engine *e);

/* front.c, front_told.c */
void lfs_front_record(lfs_engine *e, lfs_ticket *tickets);                  /* before what is told is decided */
void lfs_front_tell(lfs_engine *e);                                        /* the same */
int lfs_front_finished(lfs_engine *e, lfs_ticket *t, int unattended); /* under the engine's lock; 1: it waits for Python */
void lfs_front_answer_ready(lfs_engine *e);                                       /* the same */
int lfs_front_crowded(lfs_engine *e); /* are there many programs that create files, one after the other? */
void lfs_front_lines_finished(lfs_ticket *t);                                     /* the same */
void lfs_front_end(lfs_engine *e);

/* kernel.c */
typedef struct lfs_kernel lfs_kernel;
lfs_kernel *lfs_kernel_new(uint64_t accounts);
void lfs_kernel_free(lfs_kernel *k);
/* T2, of what it has published: takes `touched`, if those are no more than `cap` and Python is not telling of others; what the kernel has to be told of each, where
 * LFS_TELL_PAGES is Python's, and lfs_kernel_leave puts it back; and, when the kernel has no such inode, whether it is about to make one. */
uint32_t lfs_kernel_take(lfs_engine *e, uint32_t *out, uint32_t cap);
uint8_t lfs_kernel_committed_unopened(lfs_engine *e, uint32_t ordinal);
int lfs_kernel_missed(lfs_engine *e, uint32_t ordinal);
void lfs_kernel_leave(lfs_engine *e, uint32_t ordinal);

/* balance.c */
const uint8_t *lfs_entry_time(const uint8_t *bytes, uint32_t len); /* 30 bytes; NULL: there is none */
int lfs_entry_ns(lfs_engine *e, uint64_t index, uint64_t *ns);     /* the booking time; -1: not there */
int lfs_balance_text(lfs_engine *e, const lfs_account_view *account, uint8_t out[LFS_BALANCE_BYTES], uint64_t *ns);

/* open.c */
int lfs_hash_is(lfs_text text, const uint8_t hash[32]);
int lfs_mark_write(lfs_engine *e, uint8_t *mark);

/* save.c */
void lfs_saver_init(lfs_engine *e);
void lfs_saver_wake(lfs_engine *e);
/* T2, after every commit. A wake-up that falls between the waiter's look and his wait is made up for by the next commit. */
static inline void lfs_saver_tell(lfs_engine *e) {
    if (e->counts.entries >= atomic_load_explicit(&e->saver.entries, memory_order_relaxed)) lfs_saver_wake(e);
}

/* read.c */
int lfs_unattended(lfs_engine *e, unsigned bits); /* what is published now may be answered without asking Python, if these are all that matter */
const uint8_t *lfs_entry_at(lfs_engine *e, uint64_t index, uint32_t *len);
const lfs_segment *lfs_segment_of(lfs_engine *e, uint64_t index);
int64_t lfs_previous_of(lfs_engine *e, const lfs_info *info, uint64_t index); /* the account's entry before this one; -1: none */
void lfs_account_fill(lfs_engine *e, uint32_t ordinal, const lfs_state *state, lfs_account_view *out);
const uint8_t *lfs_reader(void *context, uint64_t index, uint32_t *len);
uint64_t lfs_tx_reader(void *context, uint64_t tx);
uint64_t lfs_block_reader(void *context, uint64_t index);
#endif
