/* The state machine: accounts, holds, ids, and the group of entries that it renders. One thread at a time; no I/O but reading
 * entries back through `reader`. */
#ifndef LFS_LEDGER_H
#define LFS_LEDGER_H
#include <stdio.h>
#include "intent.h"
#include "lfs_codes.h"
#include "lfs_core.h"
#include "quick_text.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define LFS_ENTRY_BYTES_MAX 65535
#define LFS_ENTRIES_MAX 0xfffffffeull
#define LFS_BATCH_INTENTS_MAX 8192
#define LFS_NONE UINT32_MAX
#define LFS_LINE_SLOTS 8 /* of a table, in a line of the cache */

enum lfs_status { A_OPEN, A_FROZEN, A_CLOSED };

typedef struct { /* what never changes after account/1 */
    u128 overdraft;
    uint64_t open_index;
    uint8_t name[64];
    uint16_t currency; /* place in ledger->currencies */
    uint8_t class_, normal, limit, name_len;
    uint8_t pad[2];
} lfs_info;

typedef struct { /* what entries change */
    u128 debits, credits, held_debits, held_credits;
    uint64_t last_index, entries, log_bytes, last_tx;
    uint64_t status;
    uint64_t pad;
} lfs_state;

typedef struct { char code[13]; uint8_t decimals, len; } lfs_currency;

enum lfs_hold_status { H_OPEN, H_POSTED, H_VOIDED, H_EXPIRED };
typedef struct {
    u128 amount;
    uint64_t expires_ns;
    uint32_t index; /* of its hold/1 entry; LFS_NONE: free slot */
    uint32_t debit, credit;
    uint32_t status;
} lfs_hold;

/* An open-addressing table of 8-byte slots, low half of the tag << 32 | value + 1; 0 is free. A tag is a hash; the line of eight slots follows from the high
 * bits of that half, so a larger table is filled in the order of the smaller one. In a line the first free slot is taken, and the lines behind it are looked
 * at only when it is full: a look-up touches one line of the cache, nearly always, and compares all of it at once. Nothing is ever deleted, except in the reverse order of
 * insertion (undo), which leaves no trace. */
typedef struct {
    uint64_t *slots;
    uint64_t used;
    unsigned bits;
} lfs_table;

/* states: what the entry states of the account: 1 debits and credits, 2 what is held. */
typedef struct { uint32_t ordinal; uint8_t states; lfs_state state; } lfs_update;
typedef struct { uint32_t ordinal, index; uint16_t len; uint8_t states; } lfs_posted;

#define LFS_WORD_ASK UINT64_MAX

/* The entries of one batch, before and while they are written. */
typedef struct lfs_group {
    uint8_t *bytes; /* u16 length and entry, back to back */
    size_t used, size;
    uint64_t first_index, first_tx;
    uint32_t *start; /* per entry: place of its length field; and where the last one ends, once the group is closed */
    uint64_t *tag;   /* per entry: tag of the id that it owns, 0: none (FORMAT, section 8) */
    uint64_t *word;  /* per entry: key of its only word (lfs_word_key), so that T6 need not read it; 0: it has none; LFS_WORD_ASK: the entry tells */
    uint32_t entries, entries_size;
    uint8_t *leaves; /* T2's: leaf hashes of the first `hashed` entries, and of the seal */
    uint32_t hashed, leaves_size;
    uint64_t *txs; /* entry index per transaction */
    uint32_t n_txs, txs_size;
    lfs_update *updates;
    uint32_t n_updates, updates_size;
    uint64_t height, seal_time;
    uint64_t incarnation;
    int sealed, state_wanted; /* it ends with a seal; the seal must carry the state root */
    uint32_t n_accounts; /* accounts there are after this group */
    uint8_t policy_leaf[32];
    lfs_ticket *tickets, **tickets_tail; /* finished with this group */
    uint64_t intents;
} lfs_group;

enum lfs_undo_kind { U_STATE, U_SLOT, U_ACCOUNT, U_HOLD, U_HOLD_NEW, U_REVERSED, U_CURRENCY, U_CLOSED, U_POLICY, U_SYSTEM };
typedef struct {
    uint8_t kind;
    uint32_t which;
    uint64_t *slot;
    lfs_table *table;
    union { lfs_state state; lfs_hold hold; int32_t day; uint8_t leaf[32]; } old;
} lfs_undo;

typedef struct {
    uint64_t expires_ns;
    uint32_t index;
} lfs_due;

typedef struct lfs_ledger {
    lfs_info *info;   /* [accounts_max], address space reserved */
    lfs_state *state; /* [accounts_max] */
    uint32_t n_accounts, accounts_max;
    lfs_table names;
    lfs_table ids, ids_before; /* the newest ids: those of the entries from ids_from on, and those before them from ids_before_from on */
    uint64_t ids_from, ids_before_from, ids_most; /* ids_most: so many in a table, then another is begun */
    struct lfs_runs *runs; /* where older ids are; NULL: all are in `ids` */
    const struct lfs_id_view *older; /* what of the runs is looked at now: the first n_older, which hold ids that the tables do not */
    uint32_t n_older, n_sifted; /* n_sifted: those of which a sieve knows */
    int unsettled; /* set when a look for an id met with damage: it may be known or not */
    lfs_hold *holds; /* open addressing by index */
    uint32_t n_holds, holds_size;
    uint64_t *reversed; /* open addressing of transaction numbers, 0 is free */
    uint32_t n_reversed, reversed_size;
    lfs_due *due; /* heap of open holds that expire, soonest first; may hold stale ones */
    uint32_t n_due, due_size;
    lfs_currency *currencies;
    uint32_t n_currencies, n_iso;
    int32_t closed_through;
    uint16_t iso_place[26 * 26 * 26]; /* three letters -> place in currencies + 1 */
    uint64_t next_index, next_tx, last_time, height; /* height: of the open batch */
    uint64_t now_ns, time_before; /* the clock as of the intent in hand; last_time before the entry in hand */
    uint64_t seed;
    lfs_second second; /* of last_time, as text */
    lfs_quick_second read_second; /* of the entry read last by lfs_quick_read */
    uint8_t policy_leaf[32];
    uint64_t incarnation;
    uint32_t *system, n_system, system_size; /* indexes of key/1 and restore/1 */
    lfs_group *group;
    lfs_undo *undo;
    uint32_t n_undo, undo_size;
    lfs_posted *posted; /* by the batch that replay has in hand, also what the saved state contained */
    uint32_t n_posted, posted_size;
    int scoped; /* changes are being recorded, so that they can be taken back */
    /* Bytes of any entry with index < next_index; they stay valid until the next call into the ledger. */
    const uint8_t *(*reader)(void *context, uint64_t index, uint32_t *len);
    uint64_t (*tx_reader)(void *context, uint64_t tx); /* entry index of a transaction below next_tx */
    uint64_t (*block_reader)(void *context, uint64_t index); /* height of the seal that commits or will commit an entry */
    void *reader_context;
} lfs_ledger;

/* tables.c */
void lfs_table_reserve(lfs_table *t, uint64_t more);
uint64_t lfs_tag(const lfs_ledger *l, const uint8_t *bytes, size_t len);
/* The tag of an id of an entry; that of the intent's own was hashed when its memory was fetched. */
static inline uint64_t lfs_tag_of(const lfs_ledger *l, const lfs_intent *in, lfs_text id) {
    if (!in || id.p != in->id.p) return lfs_tag(l, id.p, id.len);
    return in->id_hash ? in->id_hash : 1;
}
/* The first slot of the line for this half; that of the line to look at when there is none free in it. */
static inline uint64_t *lfs_table_line(const lfs_table *t, uint32_t half) { return &t->slots[(half >> (32 - t->bits)) & ~(LFS_LINE_SLOTS - 1u)]; }
static inline uint64_t *lfs_table_next(const lfs_table *t, uint64_t *line) {
    return (line += LFS_LINE_SLOTS) == t->slots + ((size_t)1 << t->bits) ? t->slots : line;
}
/* A bit for each slot of a line with this half; 0: for the free ones. */
static inline unsigned lfs_line_like(const uint64_t *line, uint32_t half) {
#ifdef __SSE2__
    const __m128 *two = (const __m128 *)line;
    __m128i wanted = _mm_set1_epi32((int)half);
    __m128i first = _mm_castps_si128(_mm_shuffle_ps(two[0], two[1], 0xdd)), last = _mm_castps_si128(_mm_shuffle_ps(two[2], two[3], 0xdd));
    return (unsigned)_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(first, wanted))) |
           (unsigned)_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(last, wanted))) << 4;
#else
    unsigned like = 0;
    for (unsigned i = 0; i < LFS_LINE_SLOTS; i++) like |= (unsigned)((uint32_t)(__atomic_load_n(&line[i], __ATOMIC_RELAXED) >> 32) == half) << i;
    return like;
#endif
}
/* What a slot with this tag holds, value + 1, in the line where it nearly always is; 0: it is not there. A hint: the tag's other half may differ. */
static inline uint32_t lfs_table_likely(const lfs_table *t, uint64_t tag) {
    const uint64_t *line = lfs_table_line(t, (uint32_t)tag);
    unsigned like = lfs_line_like(line, (uint32_t)tag);
    return like ? (uint32_t)line[__builtin_ctz(like)] : 0;
}
void lfs_table_load(lfs_table *t, uint64_t tag, uint32_t value);
void lfs_table_free(lfs_table *t);
uint32_t lfs_name_find(const lfs_ledger *l, uint64_t hash, const uint8_t *name, size_t len);
/* The entry that owns an id; -1: none, or l->unsettled is set. */
int64_t lfs_id_find(lfs_ledger *l, uint64_t hash, const uint8_t *id, size_t len);
void lfs_table_insert(lfs_ledger *l, lfs_table *t, uint64_t tag, uint32_t value);
uint64_t lfs_hash(const lfs_ledger *l, const uint8_t *bytes, size_t len);
/* What a run keeps of a word (index/words.c): 48 bits. kind: 'r' reference, 't' tag; text as it stands in the entry, escapes and all. */
uint64_t lfs_word_key(const lfs_ledger *l, char kind, lfs_text text);
lfs_hold *lfs_hold_find(const lfs_ledger *l, uint32_t index);
lfs_hold *lfs_hold_put(lfs_ledger *l, const lfs_hold *hold);
int lfs_reversed(const lfs_ledger *l, uint64_t tx);
void lfs_reversed_put(lfs_ledger *l, uint64_t tx);
void lfs_due_push(lfs_ledger *l, uint64_t expires_ns, uint32_t index);
lfs_due lfs_due_pop(lfs_ledger *l); /* the soonest; there must be one. In apply_holds.c */
uint32_t lfs_currency_find(const lfs_ledger *l, lfs_text code);
void lfs_currency_add(lfs_ledger *l, lfs_text code, unsigned decimals);

/* ids.c: ids that are in no table any more */
/* Look at the newest runs from now on, and begin another table when the one in hand is full and all that is given up for it is in runs. */
void lfs_ids_settle(lfs_ledger *l);
void lfs_ids_prefetch(const lfs_ledger *l, uint64_t hash);
int64_t lfs_ids_older(lfs_ledger *l, uint64_t hash, const uint8_t *id, size_t len);

/* undo.c */
typedef struct {
    uint32_t entries, n_txs, n_updates;
    size_t used;
    uint64_t next_index, next_tx, last_time;
} lfs_mark;
/* Between begin and keep or drop the group is not closed and no table moves (lfs_ledger_reserve). */
void lfs_scope_begin(lfs_ledger *l, lfs_mark *mark);
void lfs_scope_keep(lfs_ledger *l);
void lfs_scope_drop(lfs_ledger *l, const lfs_mark *mark);
/* Room for what is about to change, or NULL outside a scope. */
lfs_undo *lfs_undo_push(lfs_ledger *l, enum lfs_undo_kind kind, uint32_t which);

#define LFS_WORD(text) ((lfs_text){(const uint8_t *)(text), sizeof(text) - 1})

/* entry.c: reading entries */
typedef struct {
    lfs_text account, action, class_, code, count, currencies, currency, decimals, effective, expires, first, height, hold, id,
        index, intent, intent_hash, ledger, limit, log_root, normal, owner, policy, postings, prev, reason, reference, reverses, state_root, status, t,
        tags, through, time, tx, tx_root, type;
} lfs_entry;
typedef struct {
    lfs_text account, amount, credits, currency, debits, held_credits, held_debits, prev, side;
} lfs_entry_posting;
int lfs_entry_read(const uint8_t *bytes, uint32_t len, lfs_entry *out);
/* Steps through entry->postings: *p is NULL before the first; returns 0 at the end, -1 on nonsense. */
int lfs_entry_posting_next(lfs_text postings, const uint8_t **p, lfs_entry_posting *out);
int lfs_entry_u64(lfs_text token, uint64_t *out);
/* The line is going to be written, and another core has it. (A plain prefetch would get it to read, and it would have to be asked for again.) */
static inline void lfs_fetch_to_write(const void *line) {
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*(const uint8_t *)line));
#else
    __builtin_prefetch(line, 1);
#endif
}
/* Here, so that the length of a word that is known is known. */
static inline int lfs_text_is(lfs_text text, const char *word) {
    size_t len = strlen(word);
    return text.len == len && memcmp(text.p, word, len) == 0;
}

/* entry_quick.c: a txn/1 of two postings as nearly all are, with its numbers. */
typedef struct {
    const uint8_t *account, *currency; /* three letters */
    uint64_t hash, prev, amount, credits, debits;
    uint8_t account_len, decimals, debit;
} lfs_quick_posting;
typedef struct {
    uint64_t index, time, tx, tag;
    lfs_quick_posting of[2];
} lfs_quick;
/* 1: the entry is canonical, and all that it says is in *out, but for what replay does not ask (intent, reference, type); 0: it is to be read by lfs_entry_read.
 * LFS_QUICK_BEYOND bytes behind it must be readable. */
int lfs_quick_read(lfs_ledger *l, const uint8_t *bytes, uint32_t len, lfs_quick *out);
lfs_text lfs_entry_id(const uint8_t *bytes, uint32_t len);     /* len 0: none */
lfs_text lfs_entry_kind(const uint8_t *bytes, uint32_t len);
lfs_text lfs_entry_intent(const uint8_t *bytes, uint32_t len); /* hex hash of the intent */

/* render.c: writing entries. Each opens, fills and closes one entry in l->group; the return value is its length, or -1 when it would exceed
 * LFS_ENTRY_BYTES_MAX (then nothing was written). */
typedef struct {
    uint32_t ordinal;
    uint64_t prev;
    lfs_state after;
} lfs_effect;
uint8_t *lfs_entry_begin(lfs_ledger *l);
int lfs_entry_end(lfs_ledger *l, uint8_t *end, uint64_t tag);
int lfs_render_txn(lfs_ledger *l, const lfs_intent *in, lfs_text id, lfs_text type, uint64_t reverses, int plain,
                   const lfs_posting *postings, const lfs_effect *effects, uint32_t n);
int lfs_render_hold(lfs_ledger *l, const lfs_intent *in, const lfs_posting *postings, const lfs_effect *effects);
int lfs_render_post(lfs_ledger *l, const lfs_intent *in, u128 amount, const lfs_effect *effects);
int lfs_render_void(lfs_ledger *l, const lfs_intent *in, lfs_text id, lfs_text hold_id, u128 amount, const lfs_effect *effects);
int lfs_render_account(lfs_ledger *l, const lfs_intent *in, lfs_text id, lfs_text name, lfs_text currency, int class_, int normal,
                       lfs_text limit, int plain);
int lfs_render_update(lfs_ledger *l, const lfs_intent *in, const char *action, const char *status, uint64_t prev);
int lfs_render_policy(lfs_ledger *l, const lfs_intent *in);
int lfs_render_rejected(lfs_ledger *l, const lfs_intent *in, int code);
uint32_t lfs_render_seal(uint8_t *out, uint64_t index, uint64_t time, uint64_t height, uint64_t first, uint64_t count,
                         const uint8_t log_root[32], const uint8_t policy[32], const uint8_t prev[32], const uint8_t *state_root,
                         const uint8_t tx_root[32]);
uint32_t lfs_render_genesis(uint8_t *out, uint64_t time, const char *ledger, const char *currencies);

/* system.c */
int lfs_system_apply(lfs_ledger *l, lfs_intent *in, lfs_result *out);
/* Replay of an entry of the ledger's own: 0, -1 with the reason in why (256 bytes), 1: it is none. */
int lfs_system_replay(lfs_ledger *l, uint64_t index, const uint8_t *bytes, uint32_t len, const lfs_entry *e, char *why);

/* apply.c */
void lfs_ledger_init(lfs_ledger *l, uint32_t accounts_max);
void lfs_ledger_without_states(lfs_ledger *l); /* whoever keeps the states of accounts elsewhere: there are none here then, nor address space for them */
void lfs_ledger_free(lfs_ledger *l);
/* Room in the tables for so many more intents: between a mark and its return no table may move. */
void lfs_ledger_reserve(lfs_ledger *l, uint32_t intents);
/* All lines that a state lies in: three, if it begins late in the first. */
static inline void lfs_prefetch_state(const lfs_state *state) {
    const uint8_t *p = (const uint8_t *)state;
    __builtin_prefetch(p, 1);
    __builtin_prefetch(p + 64, 1);
    __builtin_prefetch(p + sizeof *state - 1, 1);
}
/* Hints to the processor which memory the intent will need. */
void lfs_prefetch_tables(lfs_ledger *l, lfs_intent *in);
void lfs_prefetch_names(lfs_ledger *l, lfs_intent *in);
void lfs_prefetch_accounts(lfs_ledger *l, lfs_intent *in);
void lfs_apply(lfs_ledger *l, lfs_intent *in, uint64_t now_ns, int write_rejected, lfs_result *out);
/* Write the rejection of an intent that lfs_apply(…, write_rejected = 0) refused with a state code. */
void lfs_reject(lfs_ledger *l, lfs_intent *in, int code, uint64_t now_ns, lfs_result *out);
int lfs_due_now(const lfs_ledger *l, uint64_t now_ns);
void lfs_expire(lfs_ledger *l, uint64_t now_ns);


/* replay.c */
/* Apply a verified entry. Returns 0, or -1 with the reason in why (256 bytes). *tag gets the tag of its id, *tx its number. */
int lfs_replay_entry(lfs_ledger *l, uint64_t index, const uint8_t *bytes, uint32_t len, uint64_t *tag, uint64_t *tx, char *why);
/* The same for one that was read quickly. */
int lfs_replay_quick(lfs_ledger *l, const lfs_quick *entry, uint32_t len, uint64_t *tag, uint64_t *tx, char *why);
/* Fetch what the entries will need that come LFS_QUICK_AHEAD and half as many behind this one, of the n from it on. */
#define LFS_QUICK_AHEAD 16
void lfs_quick_prefetch(lfs_ledger *l, const lfs_quick *entry, uint32_t n);

static inline void lfs_posting_note(lfs_ledger *l, uint32_t ordinal, uint64_t index, uint32_t len, int states) {
    if (l->n_posted == l->posted_size) {
        l->posted_size = l->posted_size ? 2 * l->posted_size : 4096;
        l->posted = lfs_grow(l->posted, l->posted_size * sizeof *l->posted);
    }
    l->posted[l->n_posted++] = (lfs_posted){ordinal, (uint32_t)index, (uint16_t)len, (uint8_t)states};
}

static inline lfs_state *lfs_state_of(lfs_ledger *l, uint32_t ordinal) { return &l->state[ordinal]; }
#endif
