/* Reading entries strictly: verify_read.c for verify_*.c. */
#ifndef LFS_VERIFY_READ_H
#define LFS_VERIFY_READ_H
#include "ledger.h"

/* Every member that an entry may have, in the order of canonical form. */
enum {
    V_ACCOUNT, V_ACTION, V_CLASS, V_CODE, V_COUNT, V_CURRENCIES, V_CURRENCY, V_DECIMALS, V_EFFECTIVE, V_EXPIRES, V_FIRST, V_HEIGHT,
    V_HOLD, V_ID, V_INDEX, V_INTENT, V_INTENT_HASH, V_LEDGER, V_LIMIT, V_LOG_ROOT, V_METADATA, V_NORMAL, V_OWNER, V_POLICY,
    V_POSTINGS, V_PREV, V_REASON, V_REFERENCE, V_REQUEST, V_REVERSES, V_STATE_ROOT, V_STATUS, V_T, V_TAGS, V_THROUGH, V_TIME, V_TX,
    V_TX_ROOT, V_TYPE, V_MEMBERS
};
enum lfs_seen_kind { K_GENESIS, K_ACCOUNT, K_TXN, K_HOLD, K_POST, K_VOID, K_UPDATE, K_POLICY, K_REJECTED, K_SEAL, K_KINDS, K_SYSTEM = K_KINDS, K_WRONG };
enum lfs_seen_type { T_TRANSFER, T_TRANSACTION, T_REVERSAL, T_OPENING, T_NONE };

/* What is seen is written by one core and read by another: it is kept small. */
enum { P_AMOUNT, P_CREDITS, P_DEBITS, P_TOTALS, P_HELD_CREDITS = P_TOTALS, P_HELD_DEBITS, P_AMOUNTS, P_HELD = P_AMOUNTS - P_TOTALS };
typedef struct {
    u128 value[P_TOTALS];
    const uint8_t *account;
    uint32_t prev; /* LFS_NONE: no index of an entry */
    uint32_t name_hash; /* what of it the table of names looks at */
    uint32_t ordinal; /* LFS_NONE until it is looked up; before it is judged, a guess */
    uint16_t currency; /* so many bytes behind `account` */
    uint8_t account_len, currency_len, side, decimals[P_TOTALS];
} lfs_seen_posting;
typedef struct { /* of a posting of a hold, beside it */
    u128 value[P_HELD];
    uint8_t decimals[P_HELD];
} lfs_seen_held;

typedef struct lfs_seen { /* an entry of the right form; texts point into its bytes */
    const uint8_t *bytes;
    uint32_t len, n_postings, first_posting; /* first_posting: of an account/1, its place among the accounts of its piece */
    uint8_t kind, type, expired, id_made; /* id_made: its id begins with ~ */
    int32_t day;       /* effective, LFS_NO_DAY if absent */
    uint32_t tag;      /* of the id that it owns, else 0 (section 8) */
    uint64_t index, time, tx, id_hash; /* 0 where absent, as what follows */
    union { uint64_t reverses, expires, hold_hash; }; /* of a txn/1, of a hold/1, and of a post/1 or void/1 */
    lfs_text id, intent, hold;
} lfs_seen;

typedef struct { /* of an account/1 that has been read: what it says, and which members it has */
    uint64_t present;
    lfs_text account, class_, currency, limit, normal;
} lfs_seen_account;

typedef struct { /* of one thread */
    const lfs_ledger *ledger; /* for the seed of its hashes only */
    uint64_t present;
    lfs_text f[V_MEMBERS];    /* strings without their quotes */
    uint64_t number[V_MEMBERS];
    uint8_t next[V_MEMBERS + 1], posting_next[16]; /* the member that followed this one the last time */
    uint64_t second;          /* time of */
    uint8_t second_text[20];  /* this second, with the point behind it */
    lfs_quick_second quick_second;
    lfs_seen_posting *postings;
    lfs_seen_held *held; /* as many, by the same places */
    uint32_t n_postings, postings_size;
    char why[160];
} lfs_reading;

void lfs_reading_init(lfs_reading *r, const lfs_ledger *ledger);
void lfs_reading_free(lfs_reading *r);
/* Judge the form of one entry: canonical JSON with exactly the members of its kind, each of the right form. Its postings are added to r->postings. 128 bytes
 * behind the entry must be readable. Returns LFS_SEEN, or with r->why LFS_WRONG: canonical, with index and time, and no seal, so that its batch can
 * count, but not of the form of its kind; or LFS_BROKEN: no batch with it counts. */
enum { LFS_SEEN, LFS_WRONG, LFS_BROKEN };
int lfs_see_any(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out);
/* The same of what nearly all entries are (verify_quick.c). Returns 1, or 0 when the entry is to be read the other way. */
int lfs_see_quick(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out);
static inline int lfs_see(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out) {
    return lfs_see_quick(r, bytes, len, out) ? LFS_SEEN : lfs_see_any(r, bytes, len, out);
}
/* A time with its quotes; p stands at the first. Returns what is behind the last, or NULL. */
const uint8_t *lfs_read_time(lfs_reading *r, const uint8_t *p, uint64_t *out);
/* Room for one more posting. */
static inline void lfs_reading_room(lfs_reading *r) {
    if (r->n_postings < r->postings_size) return;
    r->postings_size = r->postings_size ? 2 * r->postings_size : 8192;
    r->postings = lfs_grow(r->postings, r->postings_size * sizeof *r->postings);
    r->held = lfs_grow(r->held, r->postings_size * sizeof *r->held);
}
static inline uint32_t lfs_seen_prev(uint64_t prev) { return prev < LFS_NONE ? (uint32_t)prev : LFS_NONE; }
static inline int lfs_has(const lfs_reading *r, int member) { return (int)(r->present >> member & 1); }
#endif
