/* The commit engine as Python sees it (typed face: ledgerfsd/core/engine.py). Formats: docs/FORMAT.md.
 *
 * Threads. T1 (apply.c, driven by groups.c) parses and judges intents in the order of their submission and renders entries into
 * the open group. T2 (groups.c) hashes and seals a closed group, writes it, syncs it, brings the projections up to date, publishes
 * it and completes its submissions. T3 zeroes the next segment. T4 (roots.c) hashes changed accounts for the
 * state root. While T2 has group N in hand, T1 fills group N+1; it is closed as
 * soon as T2 is free. Under load T8 (sync.c) syncs group N while T2 hashes group N+1. A lone submission is judged by T2 while T1 sleeps (ADR 50). Intents also come from T5 (socket.c) and T7 (front.c). Readers see published state only. */
#ifndef LFS_CORE_H
#define LFS_CORE_H
#include <stddef.h>
#include <stdint.h>

/* cffi-begin */
typedef struct lfs_engine lfs_engine;
typedef struct lfs_ticket lfs_ticket;

typedef struct { /* the answer to one intent */
    int64_t index;     /* entry, -1: nothing written */
    uint64_t tx;       /* transaction number, 0: none */
    uint64_t block;    /* height of its seal, 0: none */
    uint32_t line;     /* from 1 */
    uint32_t offset;   /* of the offence, codes 10..29 */
    uint32_t name;     /* unknown_field: 1 + position of the name in the ticket's names, else 0 */
    int16_t code;
    uint8_t field;     /* codes 30..52: member, alphabetical number */
    uint8_t duplicate;
} lfs_result;

typedef struct { /* an account; amounts as two 64-bit halves, low first */
    char name[64];
    char currency[16];
    uint64_t debits[2], credits[2], held_debits[2], held_credits[2], overdraft[2];
    uint64_t open_index, last_index, last_tx, entries, log_bytes;
    uint32_t name_len;
    uint8_t decimals, account_class, normal, status, limit;
} lfs_account_view;

typedef struct {
    uint64_t entries, transactions, blocks, accounts, stream_bytes, time_ns, incarnation;
} lfs_counts;

typedef struct {
    uint64_t replayed, cut_bytes, done_bytes, total_bytes;
} lfs_progress;

/* -- life. All return 0, or -1 with the reason in lfs_engine_error. */
lfs_engine *lfs_engine_new(const char *store, uint64_t segment_bytes, uint32_t accounts_max);
void lfs_engine_free(lfs_engine *e);
const char *lfs_engine_error(lfs_engine *e);
/* Write genesis and the first seal into an empty journal. */
int lfs_engine_create(lfs_engine *e, const char *ledger, const char *currencies_hash, uint64_t now_ns);
/* Open the files. mark (80 bytes) comes from lfs_save_mark, or NULL to begin from nothing: then the projections are emptied. */
int lfs_engine_open(lfs_engine *e, const uint8_t *mark);
/* For tests, before the engine is opened: ids that are kept in a table before another is begun, entries of which a run of ids is made, and entries whose words are kept for T6. */
void lfs_engine_ids(lfs_engine *e, uint64_t recent);
int lfs_load_page(lfs_engine *e, uint32_t page, const uint8_t *bytes, size_t len);
int lfs_load_table(lfs_engine *e, const char *name, const uint8_t *bytes, size_t len);
/* After the pages: names into their table. */
int lfs_load_done(lfs_engine *e);
/* Replay about `bytes` of the journal. Returns 1 while there is more, 0 at the end, -1 on damage, -2 when the disk fails. */
int lfs_replay(lfs_engine *e, uint64_t bytes, lfs_progress *progress);
int lfs_engine_start(lfs_engine *e);
void lfs_engine_stop(lfs_engine *e);

/* -- writing */
int lfs_wakeup_fd(lfs_engine *e);
/* mode: 0 each, 1 document, 2 atomic; | 16 dry run | 32 one intent of the ledger's own (FORMAT, section 6.2). The data is copied. now_ns: 0 = the clock. Returns a ticket number. */
uint64_t lfs_submit(lfs_engine *e, const uint8_t *data, size_t len, const char *source, uint32_t first_line, int mode,
                    uint64_t now_ns);
/* Expire what is due. Cheap when nothing is. */
void lfs_tick(lfs_engine *e);
void lfs_drain(lfs_engine *e);
/* "" or why the ledger is read-only. */
const char *lfs_failure(lfs_engine *e);
uint64_t lfs_inflight_bytes(lfs_engine *e);
/* The oldest finished submission, or NULL. The caller frees it. Those of a lent file may be several that go as one: then positions and counts are of all. */
lfs_ticket *lfs_take(lfs_engine *e);
void lfs_ticket_free(lfs_ticket *t);
uint64_t lfs_ticket_number(const lfs_ticket *t);
uint32_t lfs_ticket_count(const lfs_ticket *t); /* of results */
const lfs_result *lfs_ticket_result(const lfs_ticket *t, uint32_t position, const char **name); /* NULL: there is none. name: of the member that is unknown, or "" */
uint32_t lfs_ticket_lines(const lfs_ticket *t);
uint32_t lfs_ticket_committed(const lfs_ticket *t);
int64_t lfs_ticket_refused(const lfs_ticket *t); /* position of the first refused result, or -1 */
const char *lfs_field_name(uint8_t field);
/* Positions where a run of equal outcome begins (see types.Run); returns how many there are. */
uint32_t lfs_ticket_runs(const lfs_ticket *t, uint32_t *starts, uint32_t cap);

/* -- the socket (see socket.c). It takes over the descriptor's connections, not the descriptor. */
int lfs_socket_start(lfs_engine *e, int listening);
/* Set apart what is finished now; give the answers to what was set apart. */
void lfs_socket_hold(lfs_engine *e);
void lfs_socket_deliver(lfs_engine *e);
void lfs_socket_counts(lfs_engine *e, uint64_t *connections, uint64_t *committed, uint64_t *refused);

/* -- receipts (see receipts.c), for several threads */
typedef struct lfs_receipts lfs_receipts;
lfs_receipts *lfs_receipts_new(const char *directory);
void lfs_receipts_free(lfs_receipts *r);
/* The next record opens the file of the day again. */
void lfs_receipts_close(lfs_receipts *r);
/* Append whole lines to <date>.ndjson; date: ten characters, what follows is not looked at. Where they begin, or a negative errno: then nothing of them is there. */
int64_t lfs_receipts_append(lfs_receipts *r, const char *date, const uint8_t *bytes, size_t len);

/* -- the front (see front.c): requests of the mount that the core answers. Numbers and times as they are in FUSE and in receipts. */
typedef struct { /* a document that has its verdict */
    uint64_t number, created_ns, waited_ns; /* of its inode; waited: from the WRITE on */
    int64_t index;
    uint64_t tx, block;
    uint32_t uid, gid, size;
    int16_t code;     /* the cause of a refusal, or 0 */
    uint8_t plain;    /* one transaction, committed: index, tx and block say all; else look into the ticket */
    uint8_t name_len;
    lfs_ticket *ticket; /* the front's */
    uint64_t recorded_ns; /* when its receipt was written, 0: it was not; where it stands in the file of that day */
    int64_t receipt_at;
    uint64_t receipt_number; /* see lfs_receipt_number */
    uint32_t receipt_len;
    char name[256];
} lfs_front_answer;
typedef struct { /* an open file that is handed over */
    uint64_t number, handle, created_ns;
    uint32_t uid, gid, size;
    int code;
    uint8_t state, append; /* state 0: no byte was written; 1: the verdict is to come; 2: code is the verdict */
    char name[256];
} lfs_front_open;
/* What to call instead of two functions of libfuse: lfs_front_descriptor and lfs_front_receive. */
void *lfs_front_new(lfs_engine *e, uint64_t inbox, uint64_t kind, const int *errnos);
int lfs_front_descriptor(void *front, int device);
long lfs_front_receive(void *front, void **bytes, int *handed);
/* 0; 1: nobody asked for the descriptor, so nobody will ask for requests either; -1: it cannot. */
int lfs_front_start(lfs_engine *e);
void lfs_front_stop(lfs_engine *e);
/* Where T2 is to write receipts; before lfs_front_start. It stays the caller's, and must outlive the engine. */
void lfs_front_receipts(lfs_engine *e, lfs_receipts *r);
/* Of what was recorded since the last call, oldest first, at most cap; returns how many. Call it until there are less. */
uint32_t lfs_front_told(lfs_engine *e, lfs_front_answer *out, uint32_t cap);
/* Set apart what is finished now and waits for Python (how many are there); describe what of it is not recorded (how many); reply to the writers. */
uint32_t lfs_front_hold(lfs_engine *e);
uint32_t lfs_front_take(lfs_engine *e, lfs_front_answer *out);
void lfs_front_deliver(lfs_engine *e, uint64_t now_ns);
/* The next file that is handed over: 1, or 0 when there is none. -1: first take what lfs_front_told tells. */
int lfs_front_adopt(lfs_engine *e, lfs_front_open *out);
/* A name came to inbox/ or went, by Python's doing. */
void lfs_front_name_set(lfs_engine *e, const char *text, size_t len, int there);
/* How many files it may have open. */
void lfs_front_limit(lfs_engine *e, uint32_t files);
void lfs_front_counts(lfs_engine *e, uint32_t *open, uint32_t *waiting, uint64_t *answered);
typedef struct { /* an open *.ndjson that Python lends (see front_lines.c) */
    uint64_t number, handle, time_ns;  /* of its inode; what GETATTR says */
    uint32_t uid, gid;
    uint64_t position, credit;         /* position: where the next WRITE begins; credit: bytes of lines that it may send */
    uint32_t line, least;              /* number of the next line; a WRITE of fewer bytes is Python's */
    const uint8_t *pending;            /* the line that has no end yet */
    uint32_t n_pending;
    const char *source;
} lfs_front_loan;
typedef struct { uint64_t number, asked_ns, size; } lfs_front_sent; /* submissions that come to lfs_take as one; asked_ns: of the last */
typedef struct { /* how it comes back: as it was lent, WRITEs further */
    uint64_t position;
    uint32_t line, n_pending, n_sent;
    int refused; /* an intent was, of a submission that is finished */
    const uint8_t *pending;
    const lfs_front_sent *sent; /* all that were made, finished or not: one, or two of about equal size */
} lfs_front_lent;
/* 1; 0: there is no front. Then lfs_front_recall; NULL: it was not lent. What was sent comes to lfs_take from then on. */
int lfs_front_lend(lfs_engine *e, const lfs_front_loan *loan);
const lfs_front_lent *lfs_front_recall(lfs_engine *e, uint64_t handle);
void lfs_front_lent_free(const lfs_front_lent *lent);
typedef struct { /* how the mount numbers its nodes (vfs/nodes.py), and what it says of files that are only read */
    uint64_t accounts, transactions;        /* these directories */
    uint64_t account, balance, transaction; /* what the nodes of these kinds begin with */
    uint64_t past_directory, past_account, past_balance;
    uint64_t receipts, proofs;              /* directories */
    uint64_t receipt, proof;                /* of transactions */
    uint32_t uid, gid, seconds;             /* seconds: for which names and attributes are valid */
} lfs_front_tree;
/* Let it answer what is read (see front_read.c). */
void lfs_front_tree_set(lfs_engine *e, const lfs_front_tree *tree);
/* Receipts that T2 recorded are answered in front_texts.c, until Python has another answer for the name. The number of a name: service.receipts.number_of. */
uint64_t lfs_receipt_number(const uint8_t *name, size_t len);
void lfs_front_receipt_drop(lfs_engine *e, uint64_t number);
/* A checkpoint that was signed, or is asked for again: in force for a second from now on, while `root`, the file of the public keys, has this inode, mtime and size. */
void lfs_front_checkpoint(lfs_engine *e, const char *root, const uint64_t keys[3], uint64_t size, const uint8_t *note, size_t len);
/* One is on its way: who asks for a proof that is not covered waits for lfs_front_checkpoint, or until it is said that none is. */
void lfs_front_signing(lfs_engine *e, int on);

/* -- reading published state. Return 0, or -1 when out of range. */
void lfs_read_counts(lfs_engine *e, lfs_counts *out);
int lfs_read_entry(lfs_engine *e, uint64_t index, const uint8_t **bytes, uint32_t *len);
int lfs_read_bundle(lfs_engine *e, uint64_t number, uint32_t width, const uint8_t **bytes, size_t *len);
int lfs_read_hashes(lfs_engine *e, unsigned level, uint64_t first, uint64_t count, uint8_t *out);
int64_t lfs_read_transaction(lfs_engine *e, uint64_t number);
int64_t lfs_read_block(lfs_engine *e, uint64_t height);
int64_t lfs_read_block_of(lfs_engine *e, uint64_t index);
int64_t lfs_read_ordinal(lfs_engine *e, const uint8_t *name, size_t len);
int lfs_read_account(lfs_engine *e, uint64_t ordinal, lfs_account_view *out);
/* Indexes of the account's chain above `stop`, newest first; returns how many were written (at most cap). begin: 0 = the newest
 * entry, else the index of an entry of the chain to go on behind. */
uint64_t lfs_read_history(lfs_engine *e, uint64_t ordinal, int64_t stop, int64_t behind, uint64_t *out, uint64_t cap);
/* Indexes of the entries of kind key/1 and restore/1, ascending, from number `from` on; returns how many were written (at most cap). */
uint32_t lfs_read_system(lfs_engine *e, uint32_t from, uint32_t *out, uint32_t cap);
/* Stream offset of an entry; of the one that comes next: the length of the stream. -1: out of range. */
int64_t lfs_read_offset(lfs_engine *e, uint64_t index);
/* Index of the first entry whose time is not before this one (30 bytes, as entries have it); the number of entries if there is none. */
int64_t lfs_read_first_at(lfs_engine *e, const char *time);
/* Events (FORMAT, section 17). The line of an entry has its length and lfs_event_width bytes. */
uint64_t lfs_event_width(uint64_t origin_len);
/* The event that covers byte `offset` of the lines of first..end-1, and how many of its bytes stand before it; `end` behind the last. */
uint64_t lfs_event_at(lfs_engine *e, uint64_t first, uint64_t end, uint64_t width, uint64_t offset, uint64_t *skip);
/* Lines of first..end-1 without the first `skip` bytes, at most cap bytes; if `whole`, less than cap, and behind the first line that was begun only
 * lines that fit to their end. Returns how many bytes; -1: an entry that cannot be read. */
int64_t lfs_read_events(lfs_engine *e, uint64_t first, uint64_t end, uint64_t skip, int whole, const char *origin, size_t origin_len,
                        uint8_t *out, size_t cap);

/* -- indexes (FORMAT, section 16). Of these, -1: a run is not what was written. */
typedef struct {     /* one entry of an account */
    uint64_t rank;   /* from 0, in the account's chain */
    uint64_t index;
    uint64_t log_end; /* where its line ends in tx.log, newline included */
    uint32_t len, states; /* of the entry, in bytes; 1: it states debits and credits, 2: what is held, 0: the status */
} lfs_posting_view;
typedef struct {
    uint64_t bytes, posting_bytes, postings, ids, id_bytes, id_memory /* filters, tables, tail */, unindexed, covered, spent_ns;
    uint32_t files, damaged, trouble; /* trouble: errno of the last attempt to write */
} lfs_index_counts;
/* Entries of the account below entry `size`, from the first with rank (by 0) or index (by 2) at or above value, or whose line ends beyond it
 * in tx.log (by 1). Returns how many were written. */
int64_t lfs_read_postings(lfs_engine *e, uint64_t ordinal, int by, uint64_t value, uint64_t size, lfs_posting_view *out, uint64_t cap);
/* Bytes of tx.log from offset; returns how many. */
int64_t lfs_read_log(lfs_engine *e, uint64_t ordinal, uint64_t offset, uint8_t *out, uint64_t size);
/* Rows of statement.csv of the entries rank..until; fewer when they do not fit (cap: 512 KiB and more). *next: the rank to go on with. Returns the
 * number of bytes. */
int64_t lfs_read_statement(lfs_engine *e, uint64_t ordinal, uint64_t rank, uint64_t until, uint8_t *out, size_t cap, uint64_t *next);
/* The account as the first `size` entries left it. Returns 1, or 0: not opened then. */
int lfs_read_account_at(lfs_engine *e, uint64_t ordinal, uint64_t size, lfs_account_view *out);
/* The same of up to `count` accounts from ordinal `first` on, in one pass. Returns how many there were. */
int64_t lfs_read_accounts_at(lfs_engine *e, uint64_t size, uint64_t first, uint64_t count, lfs_account_view *out);
/* Indexes of entries from `first` on with this reference ('r'), or of account/1 entries with this tag ('t'); the word as canonical JSON has it. */
int64_t lfs_read_word(lfs_engine *e, char kind, const uint8_t *word, size_t word_len, uint64_t first, uint64_t *out, uint64_t cap);

/* -- rows of trial balances (SEMANTICS, 12.6) */
typedef struct { /* of the accounts of one currency and class; sums as three 64-bit parts, low first */
    char currency[16];
    uint64_t debits[3], credits[3], debit_balance[3], credit_balance[3];
    uint8_t account_class, decimals;
} lfs_trial_total;
/* The rows of n accounts, at most 384 bytes each, and their amounts added to the totals, of which there are *used and room for cap. Returns the
 * bytes written, or -1 when there is no room for another total: then nothing of use was written. */
int64_t lfs_trial_rows(const lfs_account_view *accounts, uint64_t n, uint8_t *out, lfs_trial_total *totals, uint32_t *used, uint32_t cap);
void lfs_read_indexes(lfs_engine *e, lfs_index_counts *out);

/* balance.json (balance.c), as of now (size UINT64_MAX) or as the first `size` entries left the account; ns: when its newest entry was booked. Returns 1,
 * 0: no such account, or not open yet; -1: what stands in the store is not what was written. */
#define LFS_BALANCE_BYTES 512
int lfs_read_balance(lfs_engine *e, uint64_t ordinal, uint64_t size, uint8_t *out, uint64_t *ns);

/* What the kernel holds of the balance.json of accounts (kernel.c); as vfs/kernel.py says. opened: 1 when pages must be dropped before it is answered. */
#define LFS_TELL_NOTHING 0
#define LFS_TELL_ATTRIBUTES 1
#define LFS_TELL_PAGES 2
int lfs_kernel_hold(lfs_engine *e, uint64_t ordinal); /* -1: there can be no such account */
void lfs_kernel_forget(lfs_engine *e, uint64_t ordinal, uint64_t count);
uint32_t lfs_kernel_asking(lfs_engine *e, uint64_t ordinal);
int lfs_kernel_lasting(lfs_engine *e, uint64_t ordinal, uint32_t asked);
int lfs_kernel_looking(lfs_engine *e, uint64_t ordinal, uint32_t *asked); /* hold, and give attributes that are valid for long … */
int lfs_kernel_entering(lfs_engine *e, uint64_t ordinal, uint32_t asked); /* … if no commit came between; 1: they are */
int lfs_kernel_coming(lfs_engine *e, uint64_t ordinal); /* such an answer is on its way: when there is no inode to tell of, there will be */
uint32_t lfs_kernel_commits(lfs_engine *e, uint64_t ordinal); /* how many the kernel was, or is being, told of */
int lfs_kernel_opened(lfs_engine *e, uint64_t ordinal);
void lfs_kernel_released(lfs_engine *e, uint64_t ordinal);
/* These accounts were touched: what the kernel is to be told of each; and then, that it was told of its pages. */
void lfs_kernel_committed(lfs_engine *e, const uint32_t *ordinals, uint32_t n, uint8_t *out);
void lfs_kernel_renewed(lfs_engine *e, uint64_t ordinal);
uint64_t lfs_kernel_count(lfs_engine *e);

/* Watch an account for the sake of its other files. */
int lfs_watch(lfs_engine *e, uint64_t ordinal, int on);
enum { LFS_ATTEND_KERNEL = 1, LFS_ATTEND_EVENTS = 2, LFS_ATTEND_RECEIPTS = 4, LFS_ATTEND_PROOFS = 8 };
/* While any bit of `attended` is set, or a watched account was touched, or Python has taken `touched` and not said lfs_told, the wake-up comes
 * before a commit is answered; else the socket and the front's files are answered without it. (Receipts matter to files only.) Setting a bit gives
 * a wake-up as well: for what was committed just before. */
void lfs_attend(lfs_engine *e, unsigned bit, int on);
uint32_t lfs_touched(lfs_engine *e, uint32_t *out, uint32_t cap);
void lfs_told(lfs_engine *e); /* of all that lfs_touched gave */

/* Proofs of RFC 6962 in the tree of the first `size` entries, as ledgerfsd/merkle/proof.py makes them; for what is there. They return how many hashes there are; path:
 * room for LFS_PATH_MAX, or NULL to count only. 0 < size; index < size; 0 < old <= size. */
#define LFS_PATH_MAX 64
void lfs_root(lfs_engine *e, uint64_t size, uint8_t *out);
uint32_t lfs_inclusion(lfs_engine *e, uint64_t index, uint64_t size, uint8_t *path);
uint32_t lfs_consistency(lfs_engine *e, uint64_t old, uint64_t size, uint8_t *path);
/* Somebody reads the proof of this entry in a checkpoint of this size. When it leads beyond all others, the next transactions are to be signed ahead:
 * LFS_ATTEND_PROOFS, until lfs_proofs_expected, which says whether it was so. */
void lfs_proof_read(lfs_engine *e, uint64_t index, uint64_t size);
int lfs_proofs_expected(lfs_engine *e);

/* -- balance proofs (FORMAT, sections 12 and 13) */
typedef struct lfs_proof {
    struct lfs_proof *next;
    uint64_t number, ordinal;
    int code;              /* 0, or why there is none */
    uint32_t position, siblings;
    uint8_t *path;         /* siblings * 104 bytes, from the leaf upwards: hash, then debits, credits, liability of 24 bytes */
    uint8_t *list;         /* the bytes that the state root is the hash of */
    size_t list_len;
    uint64_t block;        /* height of the seal that carries that root */
    lfs_account_view account; /* as of that seal */
} lfs_proof;
/* Ask for the proof of an account; returns a number. When the state has changed since its root was sealed last, a seal is made. */
uint64_t lfs_prove(lfs_engine *e, uint64_t ordinal);
/* Nanoseconds spent on state roots since the start: by the thread that writes, or beside it by the tree's own. */
uint64_t lfs_state_spent(lfs_engine *e, int beside);
/* A finished one, or NULL. The caller frees it. */
lfs_proof *lfs_take_proof(lfs_engine *e);
void lfs_proof_free(lfs_proof *p);

/* -- saving the projection */
/* Wait until so many entries are committed (1), or the time is over or lfs_save_wait_end was called (0). One thread at a time. */
int lfs_save_wait(lfs_engine *e, uint64_t entries, uint64_t milliseconds);
void lfs_save_wait_end(lfs_engine *e); /* nobody waits any more, nor ever again */
/* Pause, wait until memory and disk agree, write the mark (80 bytes) and copy the small tables; sync hashes/ and runs/. */
int lfs_save_begin(lfs_engine *e, uint8_t *mark);
size_t lfs_save_table(lfs_engine *e, const char *name, const uint8_t **bytes);
/* How many account pages have changed since the last lfs_save_end(ok), and which, rising: the first cap of them. */
uint64_t lfs_save_pages(lfs_engine *e, uint32_t *out, uint64_t cap);
/* An account page as it would be saved now. */
int lfs_read_page(lfs_engine *e, uint64_t page, uint8_t *out, size_t cap);
size_t lfs_page_bytes(void);
void lfs_save_end(lfs_engine *e, int ok);
/* cffi-end */
#endif
