/* Intents: what a user asks for, parsed and judged on their own (docs/FORMAT.md, section 6). */
#ifndef LFS_INTENT_H
#define LFS_INTENT_H
#include "money.h"

#define LFS_INTENT_BYTES_MAX 49152
#define LFS_METADATA_BYTES_MAX 16384
#define LFS_POSTINGS_MAX 200
#define LFS_TAGS_MAX 16

/* Members of all intents, in alphabetical order: the order of canonical form and of reporting. */
enum lfs_field {
    F_ACCOUNT, F_AMOUNT, F_CLASS, F_CREDIT, F_CURRENCY, F_DEBIT, F_DECIMALS, F_EFFECTIVE, F_EXPIRES, F_HOLD, F_ID,
    F_INITIAL_BALANCE, F_LIMIT, F_METADATA, F_NORMAL, F_OF, F_OWNER, F_POSTINGS, F_REFERENCE, F_SIDE, F_TAGS, F_THROUGH,
    F_TYPE, F_COUNT, F_OTHER = F_COUNT /* a name that no intent knows */
};
extern const char *const LFS_FIELD_NAMES[F_COUNT];
extern const uint8_t LFS_FIELD_LENGTHS[F_COUNT];
#define BIT(field) (1u << (field))

/* The only member of this length that begins so; F_OTHER: none. */
static inline int lfs_field_like(const uint8_t *name, size_t len) {
    switch (len << 8 | name[0]) {
    case 2 << 8 | 'i': return F_ID;
    case 2 << 8 | 'o': return F_OF;
    case 4 << 8 | 'h': return F_HOLD;
    case 4 << 8 | 's': return F_SIDE;
    case 4 << 8 | 't': return name[1] == 'y' ? F_TYPE : F_TAGS;
    case 5 << 8 | 'c': return F_CLASS;
    case 5 << 8 | 'd': return F_DEBIT;
    case 5 << 8 | 'l': return F_LIMIT;
    case 5 << 8 | 'o': return F_OWNER;
    case 6 << 8 | 'a': return F_AMOUNT;
    case 6 << 8 | 'c': return F_CREDIT;
    case 6 << 8 | 'n': return F_NORMAL;
    case 7 << 8 | 'a': return F_ACCOUNT;
    case 7 << 8 | 'e': return F_EXPIRES;
    case 7 << 8 | 't': return F_THROUGH;
    case 8 << 8 | 'c': return F_CURRENCY;
    case 8 << 8 | 'd': return F_DECIMALS;
    case 8 << 8 | 'm': return F_METADATA;
    case 8 << 8 | 'p': return F_POSTINGS;
    case 9 << 8 | 'e': return F_EFFECTIVE;
    case 9 << 8 | 'r': return F_REFERENCE;
    case 15 << 8 | 'i': return F_INITIAL_BALANCE;
    default: return F_OTHER;
    }
}

static inline int lfs_field_of(const uint8_t *name, size_t len) {
    int field = lfs_field_like(name, len);
    return field != F_OTHER && lfs_same((const uint8_t *)LFS_FIELD_NAMES[field], name, len) ? field : F_OTHER;
}

enum lfs_type {
    I_OPEN_ACCOUNT, I_TRANSFER, I_TRANSACTION, I_HOLD, I_POST, I_VOID, I_REVERSE, I_FREEZE, I_UNFREEZE, I_CLOSE_ACCOUNT,
    I_REGISTER_CURRENCY, I_CLOSE_PERIOD, I_COUNT,
    I_KEY = I_COUNT, I_ANCHOR, I_RESTORE, I_ALL /* what the ledger records by itself: never from the inbox */
};
enum lfs_class {
    C_CUSTOMER_LIABILITY, C_SAFEGUARDING_ASSET, C_OWN_FUNDS, C_EQUITY, C_INCOME, C_EXPENSE, C_SUSPENSE, C_CLEARING, C_COUNT
};
extern const char *const LFS_CLASS_NAMES[C_COUNT];
enum lfs_side { S_DEBIT, S_CREDIT };
enum lfs_limit { L_NONE, L_NO_OVERDRAFT, L_OVERDRAFT };

typedef struct {
    const uint8_t *p; /* strings: what stands between the quotes, as in canonical form; objects and arrays: canonical bytes */
    uint32_t len;
} lfs_text;

typedef struct {
    lfs_text account, currency, amount_text;
    lfs_amount amount;
    uint64_t name_hash;
    uint32_t ordinal; /* filled by the state machine */
    uint16_t unit;    /* the same: place of the stated currency + 1, 0 when none is */
    uint8_t side;
} lfs_posting;

typedef struct {
    int16_t code;  /* 0, or 10..52 */
    uint8_t field; /* offending member for 30..52; F_OTHER: its name is in other_name */
    uint8_t type, class_, normal, limit;
    uint8_t has_amount;
    uint32_t offset;   /* for 10..18, from the first byte of the intent */
    uint32_t line;     /* in its file, from 1 */
    uint32_t present;  /* bit per member */
    lfs_text f[F_COUNT];
    lfs_text canonical;
    uint8_t hash[32];
    lfs_text id;
    uint8_t auto_id[38];
    uint64_t id_hash;
    lfs_amount amount, second; /* second: initial_balance */
    lfs_amount overdraft;
    int32_t day; /* effective or through, LFS_NO_DAY if absent */
    uint32_t decimals;
    uint64_t expires_ns; /* 0: none */
    uint64_t of_tx;
    lfs_posting *postings;
    uint32_t n_postings;
    lfs_text other_name;
    uint64_t incarnation, size; /* of a restore */
} lfs_intent;

/* What is known of the shape of transfers read before (intent_shape.c). */
#define LFS_SHAPE_VALUES 6
#define LFS_SHAPES 4 /* one for each number of members */
typedef struct {
    uint8_t bytes[64]; /* behind its len bytes: zeros */
    uint64_t mask;     /* a bit for each of them */
    uint32_t len;
} lfs_literal;
typedef struct {
    uint8_t bytes[16]; /* a set of bytes of ASCII: learn_bytes() */
} lfs_bytes;
typedef struct {
    uint32_t present;
    uint8_t n, quotes;                         /* values that differ from line to line; quotes in a line, 0: nothing is known */
    uint8_t field[LFS_SHAPE_VALUES], quote[LFS_SHAPE_VALUES]; /* of each value, in the order of the line: its member, and which quote opens it */
    uint8_t order[LFS_SHAPE_VALUES];           /* values in canonical order */
    lfs_bytes each[LFS_SHAPE_VALUES], first[LFS_SHAPE_VALUES]; /* what its bytes and the first of them may be, in the order of the line */
    lfs_literal before[LFS_SHAPE_VALUES + 1], form[LFS_SHAPE_VALUES + 1]; /* what stands before each and behind the last, in the line; in canonical form */
} lfs_shape;
enum lfs_shapes_way { LFS_SHAPES_UNKNOWN, LFS_SHAPES_READ, LFS_SHAPES_OFF /* the processor cannot */ };
typedef struct {
    lfs_shape shape[LFS_SHAPES];
    uint32_t way, taken, missed;
} lfs_shapes;

/* Memory for the parsed intents of one chunk: canonical forms and postings. Blocks never move. And what it has read before, for the lines to come. */
typedef struct {
    uint8_t *base;
    size_t used, size;
    uint8_t **full; /* blocks before this one */
    uint32_t n_full, full_size;
    lfs_shapes shapes;
} lfs_arena;
void lfs_arena_ready(lfs_arena *arena); /* room for one more intent */
uint8_t *lfs_arena_take(lfs_arena *arena, size_t bytes); /* zeroed by nobody */
void lfs_arena_reset(lfs_arena *arena);
void lfs_arena_free(lfs_arena *arena);
void *lfs_grow(void *p, size_t bytes); /* realloc that ends the process when memory is exhausted: nothing is half done */
void *lfs_grow_big(void *p, size_t bytes); /* the same, with huge pages where they pay: for what is looked at here and there */
#define LFS_ARENA_BYTES (1u << 20)
/* What one intent can need at most: two canonical forms and its postings. */
#define LFS_ARENA_INTENT_MAX (2 * LFS_INTENT_BYTES_MAX + LFS_POSTINGS_MAX * sizeof(lfs_posting) + 4096)

/* Parse and judge one intent, but for its hash. The text must outlive the result. `source` and in->line give the id of an intent without one. */
void lfs_intent_parse(const uint8_t *text, size_t len, lfs_text source, uint32_t line, lfs_arena *arena, lfs_intent *in);
/* Fill in->f and in->present from the members of the outermost object, if each is a string of plain characters; -1: it is something else. text[0] is '{'. */
int lfs_intent_quick(const uint8_t *text, const uint8_t *end, lfs_intent *in);
/* Parse and judge a transfer that has the shape of one before and no fault; 0: it is to be read another way, and nothing was changed but in->f. */
int lfs_shape_read(const uint8_t *text, const uint8_t *end, lfs_arena *arena, lfs_intent *in);
/* Remember the shape of an intent that was read another way, now and then. */
void lfs_shape_learn(lfs_shapes *shapes, const uint8_t *text, const uint8_t *end, const lfs_intent *in);
/* Settle the codes 10 to 18, or fill in->canonical. */
void lfs_intent_canonical(const uint8_t *text, size_t len, lfs_arena *arena, lfs_intent *in);
/* The same for an intent of the ledger's own (system.c). */
void lfs_system_parse(const uint8_t *text, size_t len, uint32_t line, lfs_arena *arena, lfs_intent *in);
/* The hashes of the canonical forms of those that parsed: many at once, which is quicker by half. */
void lfs_intents_hash(lfs_intent *intents, uint32_t n);
#define LFS_INTENTS_TOGETHER 64
/* in->f holds tokens; afterwards strings are without their quotes, and code and field say what is wrong. */
void lfs_judge(lfs_intent *in, lfs_arena *arena);
int lfs_name_ok(const uint8_t *p, size_t len);
int lfs_currency_ok(const uint8_t *p, size_t len);
int lfs_id_ok(lfs_text id, int may_be_ours);
int lfs_text_ok(lfs_text text);
/* One step through the members of a canonical object: p stands after '{' or ','; returns where the value ends. */
const uint8_t *lfs_member_next(const uint8_t *p, const uint8_t *end, lfs_text *name, lfs_text *value);
#endif
