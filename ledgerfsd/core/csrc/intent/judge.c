/* Judging the members of one intent, on their own (docs/FORMAT.md, section 6.1, numbers 30 to 52). Every offence is looked at; the lowest
 * code wins, then the first member in alphabetical order. */
#include "intent.h"
#include "lfs_codes.h"
#include "lfs_json.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

const char *const LFS_CLASS_NAMES[C_COUNT] = {"customer_liability", "safeguarding_asset", "own_funds", "equity",
                                              "income", "expense", "suspense", "clearing"};
static const uint8_t CLASS_NORMAL[C_COUNT] = {S_CREDIT, S_DEBIT, S_DEBIT, S_CREDIT, S_CREDIT, S_DEBIT, S_CREDIT, S_DEBIT};
static const char *const TYPE_NAMES[I_COUNT] = {"open_account", "transfer", "transaction", "hold", "post", "void", "reverse",
                                                "freeze", "unfreeze", "close_account", "register_currency", "close_period"};

#define ALWAYS (BIT(F_ID) | BIT(F_METADATA) | BIT(F_REFERENCE) | BIT(F_TYPE))
static const struct { uint32_t required, optional; } MEMBERS[I_COUNT] = {
    [I_OPEN_ACCOUNT] = {BIT(F_ACCOUNT) | BIT(F_CLASS) | BIT(F_CURRENCY),
                        BIT(F_INITIAL_BALANCE) | BIT(F_LIMIT) | BIT(F_NORMAL) | BIT(F_OWNER) | BIT(F_TAGS)},
    [I_TRANSFER] = {BIT(F_AMOUNT) | BIT(F_CREDIT) | BIT(F_DEBIT), BIT(F_CURRENCY) | BIT(F_EFFECTIVE)},
    [I_TRANSACTION] = {BIT(F_POSTINGS), BIT(F_EFFECTIVE)},
    [I_HOLD] = {BIT(F_AMOUNT) | BIT(F_CREDIT) | BIT(F_DEBIT), BIT(F_CURRENCY) | BIT(F_EXPIRES)},
    [I_POST] = {BIT(F_HOLD), BIT(F_AMOUNT) | BIT(F_EFFECTIVE)},
    [I_VOID] = {BIT(F_HOLD), 0},
    [I_REVERSE] = {BIT(F_OF), BIT(F_EFFECTIVE)},
    [I_FREEZE] = {BIT(F_ACCOUNT), 0},
    [I_UNFREEZE] = {BIT(F_ACCOUNT), 0},
    [I_CLOSE_ACCOUNT] = {BIT(F_ACCOUNT), 0},
    [I_REGISTER_CURRENCY] = {BIT(F_CURRENCY) | BIT(F_DECIMALS), 0},
    [I_CLOSE_PERIOD] = {BIT(F_THROUGH), 0},
};
#define POSTING_REQUIRED (BIT(F_ACCOUNT) | BIT(F_AMOUNT) | BIT(F_SIDE))

static inline __attribute__((always_inline)) int same(lfs_text text, const char *word) {
    size_t len = strlen(word);
    return text.len == len && lfs_same(text.p, (const uint8_t *)word, len);
}

/* What a character may stand in, one bit each. */
enum { IN_NAME_FIRST = 1, IN_NAME = 2, IN_TAG = 4 };
#define ALNUM (IN_NAME_FIRST | IN_NAME | IN_TAG)
static const uint8_t CHARACTERS[256] = {['0' ... '9'] = ALNUM, ['A' ... 'Z'] = ALNUM, ['a' ... 'z'] = ALNUM,
                                        ['.'] = IN_NAME | IN_TAG, ['_'] = IN_NAME | IN_TAG, [':'] = IN_NAME | IN_TAG,
                                        ['-'] = IN_NAME | IN_TAG, ['/'] = IN_TAG, ['='] = IN_TAG, ['+'] = IN_TAG};

static int all_of(const uint8_t *p, size_t len, int set) {
    int all = set;
    for (size_t i = 0; i < len; i++) all &= CHARACTERS[p[i]];
    return all;
}

#ifdef __SSE2__
/* Some 16 bytes of which each is one of the text's, and each of the text's from `at` on is one, as far as 16 reach. */
static inline __m128i sixteen(const uint8_t *p, size_t len, size_t at) {
    if (len >= 16) return _mm_loadu_si128((const __m128i *)(p + (at + 16 <= len ? at : len - 16)));
    uint64_t two[2];
    if (len >= 8) {
        memcpy(&two[0], p, 8), memcpy(&two[1], p + len - 8, 8);
    } else if (len >= 4) {
        uint32_t ends[2];
        memcpy(&ends[0], p, 4), memcpy(&ends[1], p + len - 4, 4);
        two[0] = two[1] = (uint64_t)ends[0] << 32 | ends[1];
    } else {
        uint32_t few = (uint32_t)p[0] << 24 | (uint32_t)p[len / 2] << 16 | (uint32_t)p[len - 1] << 8 | p[0];
        two[0] = two[1] = (uint64_t)few << 32 | few;
    }
    return _mm_set_epi64x((long long)two[1], (long long)two[0]);
}

/* Bytes from first to last (ASCII). */
static inline __m128i between(__m128i v, char first, char last) {
    return _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8((char)(first - 1))), _mm_cmplt_epi8(v, _mm_set1_epi8((char)(last + 1))));
}

static int all_in_name(const uint8_t *p, size_t len) {
    __m128i all = _mm_set1_epi8(-1);
    for (size_t at = 0; at < len; at += 16) {
        __m128i v = sixteen(p, len, at);
        __m128i ok = _mm_or_si128(between(_mm_or_si128(v, _mm_set1_epi8(0x20)), 'a', 'z'), between(v, '0', ':'));
        ok = _mm_or_si128(ok, _mm_or_si128(between(v, '-', '.'), _mm_cmpeq_epi8(v, _mm_set1_epi8('_'))));
        all = _mm_and_si128(all, ok);
    }
    return _mm_movemask_epi8(all) == 0xffff;
}

/* Neither blank nor control characters, nor quote and backslash: '!' to '~'. */
static int all_in_id(const uint8_t *p, size_t len) {
    __m128i all = _mm_set1_epi8(-1);
    for (size_t at = 0; at < len; at += 16) {
        __m128i v = sixteen(p, len, at), bad = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
        all = _mm_and_si128(all, _mm_andnot_si128(bad, between(v, '!', '~')));
    }
    return _mm_movemask_epi8(all) == 0xffff;
}

/* Printable ASCII without a backslash: what needs no closer look. */
static int plain(const uint8_t *p, size_t len) {
    __m128i all = _mm_set1_epi8(-1);
    for (size_t at = 0; at < len; at += 16) {
        __m128i v = sixteen(p, len, at);
        all = _mm_and_si128(all, _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\\')), between(v, ' ', '~')));
    }
    return _mm_movemask_epi8(all) == 0xffff;
}
#else
static int all_in_name(const uint8_t *p, size_t len) { return all_of(p, len, IN_NAME) != 0; }

static int all_in_id(const uint8_t *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (p[i] < '!' || p[i] > '~' || p[i] == '"' || p[i] == '\\') return 0;
    return 1;
}

static int plain(const uint8_t *p, size_t len) {
    (void)p, (void)len;
    return 0;
}
#endif

int lfs_name_ok(const uint8_t *p, size_t len) {
    return len >= 1 && len <= 64 && (CHARACTERS[p[0]] & IN_NAME_FIRST) && all_in_name(p, len);
}

int lfs_currency_ok(const uint8_t *p, size_t len) {
    if (len < 3 || len > 12 || p[0] < 'A' || p[0] > 'Z') return 0;
    for (size_t i = 1; i < len; i++)
        if (!((p[i] >= 'A' && p[i] <= 'Z') || (p[i] >= '0' && p[i] <= '9'))) return 0;
    return 1;
}

int lfs_id_ok(lfs_text id, int may_be_ours) {
    return id.len >= 1 && id.len <= 128 && (id.p[0] != '~' || may_be_ours) && all_in_id(id.p, id.len);
}

int lfs_text_ok(lfs_text text) {
    uint8_t unescaped[1600];
    const uint8_t *p = text.p;
    if (text.len < 1 || text.len > 1536) return 0; /* 256 bytes are at most 1536 when each is escaped */
    size_t len = text.len;
    if (len <= 256 && plain(p, len)) return 1;
    if (memchr(p, '\\', len)) {
        len = lfs_json_unescape(p - 1, p + text.len + 1, unescaped);
        p = unescaped;
    }
    if (len > 256) return 0;
    int bad = 0;
    for (size_t i = 0; i < len; i++) bad |= p[i] < 0x20 || p[i] == 0x7f;
    return !bad;
}

/* The lowest code wins, then the first member in alphabetical order. */
static void offend(lfs_intent *in, int code, int field) {
    if (in->code == 0 || code < in->code || (code == in->code && field < in->field)) {
        in->code = (int16_t)code;
        in->field = (uint8_t)field;
    }
}

static int is_kind(lfs_text token, uint8_t first) { return token.p[0] == first; }

/* The content of a string token, or judge wrong_kind. */
static int string_of(lfs_intent *in, lfs_text token, int field, lfs_text *out) {
    if (!is_kind(token, '"')) {
        offend(in, LFS_WRONG_KIND, field);
        return 0;
    }
    *out = (lfs_text){token.p + 1, token.len - 2};
    return 1;
}

static int side_of(lfs_text word) { return same(word, "debit") ? S_DEBIT : same(word, "credit") ? S_CREDIT : -1; }

static void judge_amount(lfs_intent *in, lfs_text text, int field, int may_be_zero, lfs_amount *out) {
    int code = lfs_amount_parse(text.p, text.len, out);
    if (code) offend(in, code, field);
    else if (out->value == 0 && !may_be_zero) offend(in, LFS_ZERO_AMOUNT, field);
}

const uint8_t *lfs_member_next(const uint8_t *p, const uint8_t *end, lfs_text *name, lfs_text *value) {
    lfs_json_error err;
    int simple;
    const uint8_t *q = lfs_json_string(p, p, end, &simple, &err);
    *name = (lfs_text){p + 1, (uint32_t)(q - p - 2)};
    const uint8_t *v = q + 1;
    q = lfs_json_value(v, v, end, 1, &err);
    *value = (lfs_text){v, (uint32_t)(q - v)};
    return q;
}

static void judge_posting(lfs_intent *in, lfs_text object, lfs_posting *out) {
    uint32_t present = 0;
    lfs_text name, token, word;
    memset(out, 0, sizeof *out);
    const uint8_t *p = object.p + 1, *end = object.p + object.len;
    while (*p != '}') {
        if (*p == ',') p++;
        p = lfs_member_next(p, end, &name, &token);
        int field = name.len ? lfs_field_of(name.p, name.len) : F_OTHER;
        if (field != F_ACCOUNT && field != F_AMOUNT && field != F_SIDE && field != F_CURRENCY) {
            offend(in, LFS_UNKNOWN_FIELD, F_POSTINGS);
            continue;
        }
        present |= BIT(field);
        if (!string_of(in, token, F_POSTINGS, &word)) continue;
        if (field == F_ACCOUNT) {
            out->account = word;
            if (!lfs_name_ok(word.p, word.len)) offend(in, LFS_BAD_ACCOUNT_NAME, F_POSTINGS);
        } else if (field == F_AMOUNT) {
            out->amount_text = word;
            judge_amount(in, word, F_POSTINGS, 0, &out->amount);
        } else if (field == F_CURRENCY) {
            out->currency = word;
            if (!lfs_currency_ok(word.p, word.len)) offend(in, LFS_BAD_CURRENCY, F_POSTINGS);
        } else {
            int side = side_of(word);
            if (side < 0) offend(in, LFS_BAD_SIDE, F_POSTINGS);
            out->side = (uint8_t)side;
        }
    }
    if ((present & POSTING_REQUIRED) != POSTING_REQUIRED) offend(in, LFS_MISSING_FIELD, F_POSTINGS);
}

static void judge_postings(lfs_intent *in, lfs_text array, lfs_arena *arena) {
    lfs_json_error err;
    lfs_posting spare;
    const uint8_t *p = array.p + 1, *end = array.p + array.len;
    uint32_t n = 0;
    in->postings = (lfs_posting *)lfs_arena_take(arena, LFS_POSTINGS_MAX * sizeof(lfs_posting));
    while (*p != ']') {
        if (*p == ',') p++;
        const uint8_t *q = lfs_json_value(p, p, end, 1, &err);
        lfs_text item = {p, (uint32_t)(q - p)};
        if (!is_kind(item, '{')) offend(in, LFS_WRONG_KIND, F_POSTINGS);
        else judge_posting(in, item, n < LFS_POSTINGS_MAX ? &in->postings[n] : &spare);
        n++;
        p = q;
    }
    if (n < 2) offend(in, LFS_TOO_FEW_POSTINGS, F_POSTINGS);
    if (n > LFS_POSTINGS_MAX) offend(in, LFS_TOO_MANY_POSTINGS, F_POSTINGS);
    in->n_postings = n;
    if (n < LFS_POSTINGS_MAX) arena->used = (size_t)((uint8_t *)(in->postings + n) - arena->base + 15) & ~(size_t)15;
}

static void judge_tags(lfs_intent *in, lfs_text array) {
    lfs_json_error err;
    lfs_text seen[LFS_TAGS_MAX], word;
    uint32_t n = 0;
    const uint8_t *p = array.p + 1, *end = array.p + array.len;
    while (*p != ']') {
        if (*p == ',') p++;
        const uint8_t *q = lfs_json_value(p, p, end, 1, &err);
        if (string_of(in, (lfs_text){p, (uint32_t)(q - p)}, F_TAGS, &word)) {
            if (word.len < 1 || word.len > 64 || !all_of(word.p, word.len, IN_TAG) || n == LFS_TAGS_MAX)
                offend(in, LFS_BAD_TAGS, F_TAGS);
            else seen[n++] = word;
            for (uint32_t i = 0; i + 1 < n; i++)
                if (seen[i].len == word.len && memcmp(seen[i].p, word.p, word.len) == 0) offend(in, LFS_BAD_TAGS, F_TAGS);
        }
        p = q;
    }
}

static void judge_limit(lfs_intent *in, lfs_text word) {
    static const char prefix[] = "overdraft:";
    size_t len = sizeof prefix - 1;
    if (same(word, "none")) in->limit = L_NONE;
    else if (same(word, "no_overdraft")) in->limit = L_NO_OVERDRAFT;
    else if (word.len >= len && memcmp(word.p, prefix, len) == 0) {
        in->limit = L_OVERDRAFT;
        judge_amount(in, (lfs_text){word.p + len, word.len - (uint32_t)len}, F_LIMIT, 1, &in->overdraft);
    } else offend(in, LFS_BAD_LIMIT, F_LIMIT);
}

static void judge_of(lfs_intent *in, lfs_text word) {
    uint64_t tx = 0;
    int ok = word.len >= 7 && word.len <= 22 && memcmp(word.p, "tx_", 3) == 0;
    for (uint32_t i = 3; ok && i < word.len; i++) {
        ok = word.p[i] >= '0' && word.p[i] <= '9' && !__builtin_mul_overflow(tx, (uint64_t)10, &tx);
        tx += (uint64_t)(word.p[i] - '0');
    }
    if (ok && word.len > 7 && word.p[3] == '0') ok = 0; /* one name for each transaction */
    if (!ok) offend(in, LFS_BAD_TRANSACTION_NAME, F_OF);
    in->of_tx = tx;
}

static void judge_class(lfs_intent *in, lfs_text word) {
    for (int i = 0; i < C_COUNT; i++) {
        if (!same(word, LFS_CLASS_NAMES[i])) continue;
        in->class_ = (uint8_t)i;
        if (!(in->present & BIT(F_NORMAL))) in->normal = CLASS_NORMAL[i];
        if (!(in->present & BIT(F_LIMIT))) in->limit = i == C_CUSTOMER_LIABILITY ? L_NO_OVERDRAFT : L_NONE;
        return;
    }
    offend(in, LFS_BAD_CLASS, F_CLASS);
}

static void judge_decimals(lfs_intent *in, lfs_text token) {
    if (!(token.p[0] == '-' || (token.p[0] >= '0' && token.p[0] <= '9'))) {
        offend(in, LFS_WRONG_KIND, F_DECIMALS);
        return;
    }
    uint32_t value = 99;
    if (token.len == 1 && token.p[0] != '-') value = (uint32_t)(token.p[0] - '0');
    if (token.len == 2 && token.p[0] != '-') value = (uint32_t)((token.p[0] - '0') * 10 + token.p[1] - '0');
    if (value > 18) offend(in, LFS_BAD_DECIMALS, F_DECIMALS);
    in->decimals = value;
}

/* The value of one string member. */
static void judge_string(lfs_intent *in, int field, lfs_text word) {
    int side;
    switch (field) {
    case F_ID: if (!lfs_id_ok(word, 0)) offend(in, LFS_BAD_ID, field); break;
    case F_HOLD: if (!lfs_id_ok(word, 1)) offend(in, LFS_BAD_ID, field); break;
    case F_ACCOUNT: case F_DEBIT: case F_CREDIT:
        if (!lfs_name_ok(word.p, word.len)) offend(in, LFS_BAD_ACCOUNT_NAME, field);
        break;
    case F_AMOUNT: in->has_amount = 1; judge_amount(in, word, field, 0, &in->amount); break;
    case F_INITIAL_BALANCE: judge_amount(in, word, field, 1, &in->second); break;
    case F_CURRENCY: if (!lfs_currency_ok(word.p, word.len)) offend(in, LFS_BAD_CURRENCY, field); break;
    case F_EFFECTIVE: case F_THROUGH:
        in->day = lfs_date_parse(word.p, word.len);
        if (in->day == LFS_NO_DAY) offend(in, LFS_BAD_DATE, field);
        break;
    case F_EXPIRES: if (lfs_time_parse(word.p, word.len, &in->expires_ns)) offend(in, LFS_BAD_TIME, field); break;
    case F_NORMAL:
        side = side_of(word);
        if (side < 0) offend(in, LFS_BAD_SIDE, field);
        in->normal = (uint8_t)side;
        break;
    case F_LIMIT: judge_limit(in, word); break;
    case F_OF: judge_of(in, word); break;
    case F_OWNER: case F_REFERENCE: if (!lfs_text_ok(word)) offend(in, LFS_BAD_TEXT, field); break;
    case F_CLASS: judge_class(in, word); break;
    default: break;
    }
}

static void judge_members(lfs_intent *in, lfs_arena *arena) {
    uint32_t transfer = BIT(F_DEBIT) | BIT(F_CREDIT);
    in->type = I_TRANSFER;
    if (in->present & BIT(F_TYPE)) {
        lfs_text word = {in->f[F_TYPE].p + 1, in->f[F_TYPE].len - 2};
        int type = is_kind(in->f[F_TYPE], '"') && same(word, "transfer") ? I_TRANSFER : 0;
        while (type < I_COUNT && !(is_kind(in->f[F_TYPE], '"') && same(word, TYPE_NAMES[type]))) type++;
        if (type == I_COUNT) {
            in->code = LFS_UNKNOWN_TYPE;
            in->field = F_TYPE;
            return;
        }
        in->type = (uint8_t)type;
    } else if ((in->present & transfer) != transfer) {
        in->code = LFS_MISSING_FIELD;
        in->field = F_TYPE;
        return;
    }
    uint32_t required = MEMBERS[in->type].required, known = required | MEMBERS[in->type].optional | ALWAYS;
    uint32_t unknown = in->present & ~known, missing = required & ~in->present;
    if (unknown) {
        int field = __builtin_ctz(unknown);
        const char *name = LFS_FIELD_NAMES[field];
        lfs_text known_name = {(const uint8_t *)name, (uint32_t)strlen(name)};
        if (!in->other_name.p ||
            lfs_json_name_order(known_name.p, known_name.len, in->other_name.p, in->other_name.len) < 0)
            in->other_name = known_name;
    }
    if (in->other_name.p) offend(in, LFS_UNKNOWN_FIELD, F_OTHER);
    if (missing) offend(in, LFS_MISSING_FIELD, __builtin_ctz(missing));
    in->day = LFS_NO_DAY;
    in->n_postings = 0;
    for (uint32_t rest = in->present & known & ~BIT(F_TYPE); rest; rest &= rest - 1) {
        int field = __builtin_ctz(rest);
        lfs_text token = in->f[field];
        if (field == F_METADATA) {
            if (!is_kind(token, '{')) offend(in, LFS_WRONG_KIND, field);
            else if (token.len > LFS_METADATA_BYTES_MAX) offend(in, LFS_BAD_METADATA, field);
        } else if (field == F_POSTINGS || field == F_TAGS) {
            if (!is_kind(token, '[')) offend(in, LFS_WRONG_KIND, field);
            else if (field == F_POSTINGS) judge_postings(in, token, arena);
            else judge_tags(in, token);
        } else if (field == F_DECIMALS) {
            judge_decimals(in, token);
        } else if (string_of(in, token, field, &in->f[field])) {
            judge_string(in, field, in->f[field]);
        }
    }
    if (in->code == LFS_UNKNOWN_FIELD && in->other_name.p && /* there may be one in the postings too */
        lfs_json_name_order(in->other_name.p, in->other_name.len, (const uint8_t *)"postings", 8) < 0) in->field = F_OTHER;
    if ((in->present & transfer) == transfer && in->f[F_DEBIT].len == in->f[F_CREDIT].len &&
        lfs_same(in->f[F_DEBIT].p, in->f[F_CREDIT].p, in->f[F_DEBIT].len))
        offend(in, LFS_SAME_ACCOUNT, F_CREDIT);
    if (in->type == I_OPEN_ACCOUNT && (in->present & BIT(F_ACCOUNT)) && (in->present & BIT(F_CURRENCY)) && in->second.value) { /* an opening account cannot open itself */
        static const char prefix[] = "equity:opening:";
        size_t len = sizeof prefix - 1;
        lfs_text name = in->f[F_ACCOUNT], unit = in->f[F_CURRENCY];
        if (name.len == len + unit.len && memcmp(name.p, prefix, len) == 0 && memcmp(name.p + len, unit.p, unit.len) == 0)
            offend(in, LFS_SAME_ACCOUNT, F_ACCOUNT);
    }
}

/* A transfer and a hold are two postings of one amount. */
static void make_pair(lfs_intent *in, lfs_arena *arena) {
    in->postings = (lfs_posting *)lfs_arena_take(arena, 2 * sizeof(lfs_posting));
    in->n_postings = 2;
    memset(in->postings, 0, 2 * sizeof(lfs_posting));
    for (int side = S_DEBIT; side <= S_CREDIT; side++) {
        lfs_posting *posting = &in->postings[side];
        posting->account = in->f[side == S_DEBIT ? F_DEBIT : F_CREDIT];
        if (in->present & BIT(F_CURRENCY)) posting->currency = in->f[F_CURRENCY];
        posting->amount = in->amount;
        posting->side = (uint8_t)side;
    }
}

void lfs_judge(lfs_intent *in, lfs_arena *arena) {
    judge_members(in, arena);
    if (!in->code && (in->type == I_TRANSFER || in->type == I_HOLD)) make_pair(in, arena);
}
