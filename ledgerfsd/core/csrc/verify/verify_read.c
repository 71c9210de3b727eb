/* Reading entries strictly, for verifying: one pass that is at once the judge of canonical form, of the members that a kind of entry has (docs/FORMAT.md,
 * section 7), and of the form of each. Numbers, names and words are read where they stand; only texts of users go through the JSON reader. */
#include "verify_read.h"
#include <stdlib.h>
#include "lfs_json.h"

enum form { INTEGER, HEX, ID, NAME, CURRENCY, WORD, TEXT, STRING, OBJECT, POSTINGS, TAGS, TIME, DATE, CHAIN, AMOUNT, SIDE };

/* A member's name as it is written, `"name":`. The first 16 bytes are compared as two words. */
typedef struct {
    uint64_t word[2], mask[2];
    char text[24];
    uint8_t len, form, place;
} name;

static name NAMES[V_MEMBERS] = {
    [V_ACCOUNT] = {.text = "account", .form = NAME}, [V_ACTION] = {.text = "action", .form = WORD},
    [V_CLASS] = {.text = "class", .form = WORD}, [V_CODE] = {.text = "code", .form = WORD},
    [V_COUNT] = {.text = "count", .form = INTEGER}, [V_CURRENCIES] = {.text = "currencies", .form = HEX},
    [V_CURRENCY] = {.text = "currency", .form = CURRENCY}, [V_DECIMALS] = {.text = "decimals", .form = INTEGER},
    [V_EFFECTIVE] = {.text = "effective", .form = DATE}, [V_EXPIRES] = {.text = "expires", .form = TIME},
    [V_FIRST] = {.text = "first", .form = INTEGER}, [V_HEIGHT] = {.text = "height", .form = INTEGER},
    [V_HOLD] = {.text = "hold", .form = ID}, [V_ID] = {.text = "id", .form = ID}, [V_INDEX] = {.text = "index", .form = INTEGER},
    [V_INTENT] = {.text = "intent", .form = HEX}, [V_INTENT_HASH] = {.text = "intent_hash", .form = HEX},
    [V_LEDGER] = {.text = "ledger", .form = STRING}, [V_LIMIT] = {.text = "limit", .form = WORD},
    [V_LOG_ROOT] = {.text = "log_root", .form = HEX}, [V_METADATA] = {.text = "metadata", .form = OBJECT},
    [V_NORMAL] = {.text = "normal", .form = WORD}, [V_OWNER] = {.text = "owner", .form = TEXT},
    [V_POLICY] = {.text = "policy", .form = WORD}, [V_POSTINGS] = {.text = "postings", .form = POSTINGS},
    [V_PREV] = {.text = "prev", .form = CHAIN}, [V_REASON] = {.text = "reason", .form = WORD},
    [V_REFERENCE] = {.text = "reference", .form = TEXT}, [V_REQUEST] = {.text = "request", .form = OBJECT},
    [V_REVERSES] = {.text = "reverses", .form = INTEGER}, [V_STATE_ROOT] = {.text = "state_root", .form = HEX},
    [V_STATUS] = {.text = "status", .form = WORD}, [V_T] = {.text = "t", .form = WORD}, [V_TAGS] = {.text = "tags", .form = TAGS},
    [V_THROUGH] = {.text = "through", .form = DATE}, [V_TIME] = {.text = "time", .form = TIME}, [V_TX] = {.text = "tx", .form = INTEGER},
    [V_TX_ROOT] = {.text = "tx_root", .form = HEX}, [V_TYPE] = {.text = "type", .form = WORD}};

enum { IN_ACCOUNT, IN_AMOUNT, IN_CREDITS, IN_CURRENCY, IN_DEBITS, IN_HELD_CREDITS, IN_HELD_DEBITS, IN_PREV, IN_SIDE, IN_POSTING };
static name POSTING_NAMES[IN_POSTING] = {
    {.text = "account", .form = NAME}, {.text = "amount", .form = AMOUNT, .place = P_AMOUNT},
    {.text = "credits", .form = AMOUNT, .place = P_CREDITS}, {.text = "currency", .form = CURRENCY},
    {.text = "debits", .form = AMOUNT, .place = P_DEBITS}, {.text = "held_credits", .form = AMOUNT, .place = P_HELD_CREDITS},
    {.text = "held_debits", .form = AMOUNT, .place = P_HELD_DEBITS}, {.text = "prev", .form = INTEGER},
    {.text = "side", .form = SIDE}};

#define B(member) (1ull << V_##member)
#define ALL (B(T) | B(INDEX) | B(TIME))
#define COMMON (ALL | B(ID) | B(INTENT))
#define NOTES (B(REFERENCE) | B(METADATA))
#define IN(member) (1u << IN_##member)
#define LEG (IN(ACCOUNT) | IN(AMOUNT) | IN(CURRENCY) | IN(PREV) | IN(SIDE))
#define TOTALS (IN(CREDITS) | IN(DEBITS))
#define HELD (IN(HELD_CREDITS) | IN(HELD_DEBITS))

/* docs/FORMAT.md, section 7: what an entry of the kind must have, what it may have, and what its postings have. */
static const struct { const char *name; uint64_t required, optional; uint32_t posting; } KINDS[K_KINDS] = {
    [K_GENESIS] = {"genesis/1", ALL | B(LEDGER) | B(CURRENCIES), 0, 0},
    [K_ACCOUNT] = {"account/1", COMMON | B(ACCOUNT) | B(CLASS) | B(CURRENCY) | B(LIMIT) | B(NORMAL), NOTES | B(OWNER) | B(TAGS), 0},
    [K_TXN] = {"txn/1", COMMON | B(POSTINGS) | B(TX) | B(TYPE), NOTES | B(EFFECTIVE) | B(REVERSES), LEG | TOTALS},
    [K_HOLD] = {"hold/1", COMMON | B(POSTINGS), NOTES | B(EXPIRES), LEG | HELD},
    [K_POST] = {"post/1", COMMON | B(HOLD) | B(POSTINGS) | B(TX), NOTES | B(EFFECTIVE), LEG | TOTALS | HELD},
    [K_VOID] = {"void/1", ALL | B(ID) | B(HOLD) | B(POSTINGS) | B(REASON), NOTES | B(INTENT), LEG | HELD},
    [K_UPDATE] = {"account.update/1", COMMON | B(ACCOUNT) | B(ACTION) | B(PREV) | B(STATUS), NOTES, 0},
    [K_POLICY] = {"policy/1", COMMON | B(POLICY), NOTES | B(CURRENCY) | B(DECIMALS) | B(THROUGH), 0},
    [K_REJECTED] = {"rejected/1", ALL | B(ID) | B(INTENT_HASH) | B(CODE) | B(REQUEST), 0, 0},
    [K_SEAL] = {"seal/1", ALL | B(COUNT) | B(FIRST) | B(HEIGHT) | B(LOG_ROOT) | B(POLICY) | B(PREV) | B(TX_ROOT), B(STATE_ROOT), 0}};

static const char *const TYPES[] = {"transfer", "transaction", "reversal", "opening"};

static inline int same(lfs_text text, const char *word) {
    size_t len = strlen(word);
    return text.len == len && memcmp(text.p, word, len) == 0;
}

static void names_ready(name *names, int n) {
    for (int i = 0; i < n; i++) {
        char written[32] = {0};
        names[i].len = (uint8_t)snprintf(written, sizeof written, "\"%s\":", names[i].text);
        memcpy(names[i].text, written, names[i].len + 1u);
        memcpy(names[i].word, written, 16);
        uint8_t mask[16] = {0};
        memset(mask, 0xff, names[i].len < 16 ? names[i].len : 16);
        memcpy(names[i].mask, mask, 16);
    }
}

__attribute__((constructor)) static void ready(void) {
    names_ready(NAMES, V_MEMBERS);
    names_ready(POSTING_NAMES, IN_POSTING);
}

void lfs_reading_init(lfs_reading *r, const lfs_ledger *ledger) {
    memset(r, 0, sizeof *r);
    r->ledger = ledger;
}

void lfs_reading_free(lfs_reading *r) {
    free(r->postings);
    free(r->held);
    r->postings = NULL;
    r->held = NULL;
}

static inline int name_is(const uint8_t *p, const name *n) {
    uint64_t word[2];
    memcpy(word, p, 16);
    if (((word[0] ^ n->word[0]) & n->mask[0]) | ((word[1] ^ n->word[1]) & n->mask[1])) return 0;
    return n->len <= 16 || memcmp(p + 16, n->text + 16, n->len - 16u) == 0;
}

/* Which of the members behind `at` begins at p; -1: none. */
static int find_name(const name *names, int n, int at, const uint8_t *p) {
    for (int i = at + 1; i < n; i++)
        if (name_is(p, &names[i])) return i;
    return -1;
}

/* -- values. Each returns the byte after the value, or NULL. They look at most 64 bytes behind the entry, where nothing fits in the end. */

static inline int digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }

static inline const uint8_t *read_integer(const uint8_t *p, uint64_t *out) {
    const uint8_t *begin = p;
    uint64_t value = 0;
    if (*p == '0') {
        *out = 0;
        return p + 1;
    }
    while (digit(*p) && p - begin < 17) value = value * 10 + (uint64_t)(*p++ - '0');
    *out = value;
    return p > begin && value < 1ull << 53 ? p : NULL;
}

static inline const uint8_t *read_hex(const uint8_t *p, lfs_text *out) {
    uint8_t bad = 0;
    *out = (lfs_text){p + 1, 64};
    for (int i = 1; i <= 64; i++) bad |= (uint8_t)(((uint8_t)(p[i] - '0') > 9) & ((uint8_t)(p[i] - 'a') > 5));
    return *p == '"' && p[65] == '"' && !bad ? p + 66 : NULL;
}

/* Where plain text, printable ASCII from `low` on without anything to escape, ends; at most `end`. */
static inline const uint8_t *plain_end(const uint8_t *p, const uint8_t *end, uint8_t low) {
#ifdef __SSE2__
    return quick_plain_end(p, end, low);
#else
    while (p < end && *p >= low && *p < 0x7f && *p != '"' && *p != '\\') p++;
    return p;
#endif
}

static inline const uint8_t *read_printable(const uint8_t *p, const uint8_t *end, uint8_t low, lfs_text *out) {
    const uint8_t *begin = p + 1, *after = plain_end(begin, end, low);
    *out = (lfs_text){begin, (uint32_t)(after - begin)};
    return *p == '"' && after < end && *after == '"' ? after + 1 : NULL;
}

/* What may stand in the plain strings of the ledger's own making, and what in ids. */
static inline const uint8_t *read_plain(const uint8_t *p, const uint8_t *end, lfs_text *out) { return read_printable(p, end, ' ', out); }

static inline const uint8_t *read_id(const uint8_t *p, const uint8_t *end, lfs_text *out) {
    const uint8_t *after = read_printable(p, end, ' ' + 1, out);
    return after && out->len >= 1 && out->len <= 128 ? after : NULL;
}

static inline const uint8_t *read_amount(const uint8_t *p, u128 *value, uint8_t *decimals) {
    const uint8_t *begin = ++p;
    uint64_t low = 0;
    *decimals = 0;
    if (p[-1] != '"' || !digit(*p) || (*p == '0' && digit(p[1]))) return NULL;
    while (digit(*p) && p - begin < 60) low = low * 10 + (uint64_t)(*p++ - '0');
    if (*p == '.') {
        const uint8_t *point = ++p;
        while (digit(*p) && p - point < 20) low = low * 10 + (uint64_t)(*p++ - '0');
        if (p == point) return NULL;
        *decimals = (uint8_t)(p - point);
    }
    *value = low;
    if (*p != '"') return NULL;
    if (p - begin > 19) {
        lfs_amount amount;
        if (lfs_amount_parse(begin, (size_t)(p - begin), &amount)) return NULL;
        *value = amount.value;
    }
    return p + 1;
}

/* Thousands of entries share a second: the calendar is asked once for each. */
const uint8_t *lfs_read_time(lfs_reading *r, const uint8_t *p, uint64_t *out) {
    const uint8_t *text = p + 1;
    uint32_t fraction = 0, bad = 0;
    if (memcmp(text, r->second_text, 20) != 0) {
        uint64_t at;
        if (text[19] != '.' || lfs_time_parse(text, 30, &at)) return NULL;
        memcpy(r->second_text, text, 20);
        r->second = at - at % LFS_NS_PER_S;
    }
    for (int i = 20; i < 29; i++) {
        bad |= (uint8_t)(text[i] - '0') > 9;
        fraction = fraction * 10 + (uint32_t)(text[i] - '0');
    }
    *out = r->second + fraction;
    return *p == '"' && !bad && text[29] == 'Z' && text[30] == '"' ? p + 32 : NULL;
}

static const uint8_t *read_date(const uint8_t *p, lfs_text *out) {
    *out = (lfs_text){p + 1, 10};
    return *p == '"' && p[11] == '"' && lfs_date_parse(p + 1, 10) != LFS_NO_DAY ? p + 12 : NULL;
}

static const uint8_t *read_string(const uint8_t *p, const uint8_t *end, lfs_text *out) {
    const uint8_t *after = *p == '"' ? lfs_json_form(p, end, 2) : NULL;
    if (after) *out = (lfs_text){p + 1, (uint32_t)(after - p - 2)};
    return after;
}

static const uint8_t *read_text(const uint8_t *p, const uint8_t *end, lfs_text *out) {
    uint8_t unescaped[1600];
    const uint8_t *after = read_string(p, end, out);
    if (!after || out->len < 1 || out->len > 1536) return NULL;
    size_t len = lfs_json_unescape(p, after, unescaped);
    for (size_t i = 0; i < len; i++)
        if (unescaped[i] < 0x20 || unescaped[i] == 0x7f) return NULL;
    return len <= 256 ? after : NULL;
}

static int tag_ok(lfs_text tag) {
    static const char others[] = "._:/=+-";
    for (uint32_t i = 0; i < tag.len; i++) {
        uint8_t c = tag.p[i];
        if (!digit(c) && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !memchr(others, c, sizeof others - 1)) return 0;
    }
    return tag.len >= 1 && tag.len <= 64;
}

static const uint8_t *read_tags(const uint8_t *p, const uint8_t *end) {
    lfs_text tags[16];
    uint32_t n = 0;
    if (*p++ != '[') return NULL;
    if (*p == ']') return p + 1;
    for (;; n++) {
        if (n == 16 || !(p = read_plain(p, end, &tags[n])) || !tag_ok(tags[n])) return NULL;
        for (uint32_t i = 0; i < n; i++)
            if (tags[i].len == tags[n].len && memcmp(tags[i].p, tags[n].p, tags[n].len) == 0) return NULL;
        if (*p == ']') return p + 1;
        if (*p++ != ',') return NULL;
    }
}

static inline const uint8_t *read_side(const uint8_t *p, uint8_t *out) {
    if (memcmp(p, "\"debit\"", 7) == 0) {
        *out = S_DEBIT;
        return p + 7;
    }
    *out = S_CREDIT;
    return memcmp(p, "\"credit\"", 8) == 0 ? p + 8 : NULL;
}

/* -- postings */

static inline const uint8_t *read_in_posting(lfs_seen_posting *out, lfs_seen_held *held, const name *n, const uint8_t *p, const uint8_t *end) {
    lfs_text text;
    uint64_t number;
    switch (n->form) {
    case NAME:
        p = read_plain(p, end, &text);
        if (!p || !lfs_name_ok(text.p, text.len)) return NULL;
        out->account = text.p;
        out->account_len = (uint8_t)text.len;
        return p;
    case CURRENCY:
        p = read_plain(p, end, &text);
        if (!p || !lfs_currency_ok(text.p, text.len)) return NULL;
        out->currency = (uint16_t)(text.p - out->account);
        out->currency_len = (uint8_t)text.len;
        return p;
    case AMOUNT:
        if (n->place < P_TOTALS) return read_amount(p, &out->value[n->place], &out->decimals[n->place]);
        return read_amount(p, &held->value[n->place - P_TOTALS], &held->decimals[n->place - P_TOTALS]);
    case SIDE: return read_side(p, &out->side);
    default:
        p = read_integer(p, &number);
        out->prev = lfs_seen_prev(number);
        return p;
    }
}

/* *present gets what the posting has. */
static const uint8_t *read_posting(lfs_reading *r, lfs_seen_posting *out, const uint8_t *p, const uint8_t *end, uint32_t *present) {
    int at = -1;
    *present = 0;
    out->account = p; /* until it is known, or for ever in what is no posting */
    if (*p++ != '{') return NULL;
    for (;;) {
        int member = r->posting_next[at + 1];
        if (member <= at || member >= IN_POSTING || !name_is(p, &POSTING_NAMES[member])) {
            member = find_name(POSTING_NAMES, IN_POSTING, at, p);
            if (member < 0) return NULL;
            r->posting_next[at + 1] = (uint8_t)member;
        }
        at = member;
        *present |= 1u << member;
        if (!(p = read_in_posting(out, &r->held[r->n_postings], &POSTING_NAMES[member], p + POSTING_NAMES[member].len, end)) || p >= end) return NULL;
        if (*p == '}') break;
        if (*p++ != ',') return NULL;
    }
    out->name_hash = (uint32_t)lfs_hash(r->ledger, out->account, out->account_len);
    out->ordinal = LFS_NONE;
    return p + 1;
}

/* All of them must have the same members, which lfs_see compares with the kind. */
static const uint8_t *read_postings(lfs_reading *r, const uint8_t *p, const uint8_t *end) {
    uint32_t first = r->n_postings, present, all = 0;
    if (*p++ != '[') return NULL;
    for (;;) {
        lfs_reading_room(r);
        if (r->n_postings - first == LFS_POSTINGS_MAX) return NULL;
        lfs_seen_posting *posting = &r->postings[r->n_postings];
        if (!(p = read_posting(r, posting, p, end, &present)) || p >= end) return NULL;
        if ((present & LEG) != LEG || (all && present != all)) return NULL;
        all = present;
        r->n_postings++;
        if (*p == ']') break;
        if (*p++ != ',') return NULL;
    }
    r->number[V_POSTINGS] = all;
    return r->n_postings - first >= 2 ? p + 1 : NULL;
}

/* -- entries */

static inline const uint8_t *read_value(lfs_reading *r, int member, const uint8_t *p, const uint8_t *end, int rejected) {
    lfs_text *out = &r->f[member];
    const uint8_t *after;
    switch (NAMES[member].form) {
    case INTEGER: return read_integer(p, &r->number[member]);
    case HEX: return read_hex(p, out);
    case ID: return read_id(p, end, out);
    case WORD: return read_plain(p, end, out);
    case TIME: *out = (lfs_text){p + 1, 30}; return lfs_read_time(r, p, &r->number[member]);
    case DATE: return read_date(p, out);
    case POSTINGS: return read_postings(r, p, end);
    case CHAIN: return *p == '"' ? read_hex(p, out) : (*out = (lfs_text){NULL, 0}, read_integer(p, &r->number[member]));
    case NAME: after = read_plain(p, end, out); return after && lfs_name_ok(out->p, out->len) ? after : NULL;
    case CURRENCY: after = read_plain(p, end, out); return after && lfs_currency_ok(out->p, out->len) ? after : NULL;
    case TEXT: return read_text(p, end, out);
    case STRING: return read_string(p, end, out);
    case TAGS:
        after = read_tags(p, end);
        if (after) *out = (lfs_text){p, (uint32_t)(after - p)};
        return after;
    default:
        after = *p == '{' ? lfs_json_form(p, end, rejected ? 1 : 2) : NULL;
        if (after) *out = (lfs_text){p, (uint32_t)(after - p)};
        return after && (member != V_METADATA || out->len <= LFS_METADATA_BYTES_MAX) ? after : NULL;
    }
}

/* key/1, anchor/1, restore/1: what they may say is judged with their intent (system.c), which is all that they say. */
static int see_system(lfs_reading *r, const lfs_entry *entry, lfs_seen *out) {
    if (!same(entry->t, "key/1") && !same(entry->t, "anchor/1") && !same(entry->t, "restore/1")) return 0;
    if (!entry->id.p || entry->id.len < 1 || entry->id.len > 128 || entry->intent.len != 64) return 0;
    out->kind = K_SYSTEM;
    out->type = T_NONE;
    out->day = LFS_NO_DAY;
    out->id = entry->id;
    out->id_made = *out->id.p == '~';
    out->id_hash = lfs_hash(r->ledger, out->id.p, out->id.len);
    out->tag = (uint32_t)out->id_hash ? (uint32_t)out->id_hash : 1;
    out->intent = entry->intent;
    return 1;
}

/* The entry is not of the form of its kind. Does its batch count all the same, and what is it to be called? */
static int fail(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out, const char *format, const char *what) {
    lfs_entry entry;
    const char *broken = NULL;
    int wrapped = len > 1 && same(lfs_entry_kind(bytes, len), "rejected/1");
    *out = (lfs_seen){.bytes = bytes, .len = len, .kind = K_WRONG};
    if (len < 2 || *bytes != '{' || !lfs_json_is_canonical(bytes, len, wrapped)) broken = "not a JSON object in canonical form";
    else if (lfs_entry_read(bytes, len, &entry) || !entry.t.p) broken = "not an entry";
    else if (lfs_entry_u64(entry.index, &out->index)) broken = "it does not carry its index";
    else if (!entry.time.p || entry.time.len != 30 || lfs_time_parse(entry.time.p, 30, &out->time)) broken = "it does not carry its time";
    if (!broken && see_system(r, &entry, out)) return LFS_SEEN;
    snprintf(r->why, sizeof r->why, broken ? "%.0s%s" : format, what, broken);
    return broken || same(entry.t, "seal/1") ? LFS_BROKEN : LFS_WRONG;
}

/* NULL when all of it was read; else what is wrong, and at which member. */
static const char *read_members(lfs_reading *r, const uint8_t *bytes, uint32_t len, int *at_fault) {
    const uint8_t *p = bytes, *end = bytes + len;
    int at = -1, rejected = 0;
    r->present = 0;
    if (len < 2 || *p++ != '{') return "not an entry";
    for (;;) {
        int member = r->next[at + 1];
        if (member <= at || member >= V_MEMBERS || !name_is(p, &NAMES[member])) {
            member = find_name(NAMES, V_MEMBERS, at, p);
            if (member < 0) return "it has a member that no entry has";
            r->next[at + 1] = (uint8_t)member;
        }
        at = *at_fault = member;
        r->present |= 1ull << member;
        rejected |= member == V_INTENT_HASH;
        p = read_value(r, member, p + NAMES[member].len, end, rejected);
        if (!p) return "its member %.20s has another form";
        if (p >= end || *p == '}') break;
        if (*p++ != ',') return "not an entry";
    }
    return p + 1 == end ? NULL : "not an entry";
}

static int kind_of(lfs_text t) {
    static const uint8_t usual[] = {K_TXN, K_SEAL, K_REJECTED, K_ACCOUNT, K_HOLD, K_POST, K_VOID, K_UPDATE, K_POLICY, K_GENESIS};
    for (int i = 0; i < K_KINDS; i++)
        if (same(t, KINDS[usual[i]].name)) return usual[i];
    return K_KINDS;
}

static int type_of(lfs_text text) {
    int type = 0;
    while (type < T_NONE && !same(text, TYPES[type])) type++;
    return type;
}

/* What depends on several members. NULL, or the one that does not go with the others. */
static const char *misfit(const lfs_reading *r, lfs_seen *out) {
    int kind = out->kind;
    out->expired = kind == K_VOID && same(r->f[V_REASON], "expired");
    if (kind == K_VOID && ((!out->expired && !same(r->f[V_REASON], "voided")) || out->expired == lfs_has(r, V_INTENT))) return "reason";
    if (kind == K_TXN) out->type = (uint8_t)type_of(r->f[V_TYPE]);
    if (kind == K_TXN && (out->type == T_NONE || (out->type == T_REVERSAL) != lfs_has(r, V_REVERSES))) return "type";
    if (kind == K_SEAL && (!r->f[V_PREV].p || r->f[V_POLICY].len != 64)) return "prev or policy";
    if (kind == K_POLICY && lfs_has(r, V_DECIMALS) && r->number[V_DECIMALS] > 18) return "decimals";
    return kind == K_UPDATE && r->f[V_PREV].p ? "prev" : NULL;
}

int lfs_see_any(lfs_reading *r, const uint8_t *bytes, uint32_t len, lfs_seen *out) {
    uint32_t first = r->n_postings;
    int at = V_T;
    const char *why = read_members(r, bytes, len, &at);
    if (why) return fail(r, bytes, len, out, why, NAMES[at].text);
    int kind = lfs_has(r, V_T) ? kind_of(r->f[V_T]) : K_KINDS;
    if (kind == K_KINDS) return fail(r, bytes, len, out, "it is of no kind of entry", "");
    if ((r->present & KINDS[kind].required) != KINDS[kind].required || r->present & ~(KINDS[kind].required | KINDS[kind].optional))
        return fail(r, bytes, len, out, "it has not the members of a %s", KINDS[kind].name);
    if (lfs_has(r, V_POSTINGS) && r->number[V_POSTINGS] != KINDS[kind].posting)
        return fail(r, bytes, len, out, "its postings have not the members of those of a %s", KINDS[kind].name);
    *out = (lfs_seen){.bytes = bytes, .len = len, .kind = (uint8_t)kind, .type = T_NONE, .day = LFS_NO_DAY,
                      .index = r->number[V_INDEX], .time = r->number[V_TIME], .first_posting = first, .n_postings = r->n_postings - first};
    if (lfs_has(r, V_ID)) {
        out->id = r->f[V_ID];
        out->id_made = *out->id.p == '~';
        out->id_hash = lfs_hash(r->ledger, out->id.p, out->id.len);
        out->tag = (uint32_t)out->id_hash ? (uint32_t)out->id_hash : 1;
        if (kind == K_REJECTED && same(r->f[V_CODE], "id_reused")) out->tag = 0;
    }
    if (lfs_has(r, V_INTENT)) out->intent = r->f[V_INTENT];
    if (lfs_has(r, V_TX)) out->tx = r->number[V_TX];
    if (lfs_has(r, V_EXPIRES)) out->expires = r->number[V_EXPIRES];
    if (lfs_has(r, V_REVERSES)) out->reverses = r->number[V_REVERSES];
    if (lfs_has(r, V_EFFECTIVE)) out->day = lfs_date_parse(r->f[V_EFFECTIVE].p, 10);
    if (lfs_has(r, V_HOLD)) {
        out->hold = r->f[V_HOLD];
        out->hold_hash = lfs_hash(r->ledger, out->hold.p, out->hold.len);
    }
    why = misfit(r, out);
    return why ? fail(r, bytes, len, out, "its member %s does not go with the others", why) : LFS_SEEN;
}
