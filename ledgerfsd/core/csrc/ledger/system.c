/* What the ledger records by itself: key/1, anchor/1, restore/1 (docs/FORMAT.md, sections 6.2 and 7). An entry of these has the members of its
 * intent as they are, so one table judges both, and replay makes the intent of an entry anew to check its hash. */
#include <stdlib.h>
#include "ledger.h"
#include "lfs_hash.h"
#include "lfs_json.h"

#define VKEY_BYTES_MAX 400

enum rule { R_ID, R_TYPE, R_HASH, R_KIND, R_STATUS, R_SIZE, R_INCARNATION, R_TEXT, R_VKEY };
typedef struct {
    const char *name;
    uint8_t rule, optional;
} member;
#define MEMBERS_MAX 7

/* In canonical order, which is also that in which equal offences are reported. */
static const struct { const char *type, *kind; uint32_t n; member members[MEMBERS_MAX]; } TYPES[] = {
    {"key", "key/1", 6, {{"id", R_ID, 0}, {"status", R_STATUS, 0}, {"type", R_TYPE, 0}, {"valid_from_size", R_SIZE, 0},
                         {"valid_to_size", R_SIZE, 1}, {"vkey", R_VKEY, 0}}},
    {"anchor", "anchor/1", 7, {{"hash", R_HASH, 0}, {"id", R_ID, 0}, {"kind", R_KIND, 0}, {"name", R_TEXT, 0}, {"root", R_HASH, 0},
                               {"size", R_SIZE, 0}, {"type", R_TYPE, 0}}},
    {"restore", "restore/1", 7, {{"id", R_ID, 0}, {"incarnation", R_INCARNATION, 0}, {"reason", R_TEXT, 0}, {"signed_root", R_HASH, 1},
                                 {"signed_size", R_SIZE, 1}, {"size", R_SIZE, 0}, {"type", R_TYPE, 0}}},
};
enum { SIGNED_ROOT = 3, SIGNED_SIZE = 4 };
#define TYPES_N 3

/* -- judging */

/* The lowest code wins, then the member that comes first: they are looked at in order. */
static void offend(lfs_intent *in, int code, lfs_text name) {
    if (in->code && code >= in->code) return;
    in->code = (int16_t)code;
    in->field = F_OTHER;
    in->other_name = name;
}

static lfs_text text_of(const char *word) { return (lfs_text){(const uint8_t *)word, (uint32_t)strlen(word)}; }

static int one_of(lfs_text text, const char *const *words, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (lfs_text_is(text, words[i])) return 1;
    return 0;
}

static int system_id_ok(lfs_text id, const char *type) {
    size_t len = strlen(type);
    return lfs_id_ok(id, 1) && id.len > len + 2 && id.p[0] == '~' && memcmp(id.p + 1, type, len) == 0 && id.p[len + 1] == ':';
}

static int judge_number(lfs_intent *in, int rule, lfs_text token) {
    uint64_t value;
    if (token.p[0] != '-' && (token.p[0] < '0' || token.p[0] > '9')) return LFS_WRONG_KIND;
    if (lfs_entry_u64(token, &value) || (rule == R_INCARNATION && value < 2)) return LFS_BAD_VALUE;
    if (rule == R_INCARNATION) in->incarnation = value;
    return 0;
}

static int judge_word(lfs_intent *in, const char *type, int rule, lfs_text word) {
    static const char *const kinds[] = {"folder", "s3", "rfc3161", "witness"}, *const statuses[] = {"active", "retiring", "revoked"};
    uint8_t hash[32];
    switch (rule) {
    case R_ID:
        in->id = word;
        return system_id_ok(word, type) ? 0 : LFS_BAD_ID;
    case R_HASH: return word.len == 64 && lfs_hex_get(word.p, 32, hash) == 0 ? 0 : LFS_BAD_VALUE;
    case R_KIND: return one_of(word, kinds, 4) ? 0 : LFS_BAD_VALUE;
    case R_STATUS: return one_of(word, statuses, 3) ? 0 : LFS_BAD_VALUE;
    case R_TEXT: return lfs_text_ok(word) ? 0 : LFS_BAD_TEXT;
    case R_VKEY:
        if (word.len < 1 || word.len > VKEY_BYTES_MAX) return LFS_BAD_VALUE;
        for (uint32_t i = 0; i < word.len; i++)
            if (word.p[i] < '!' || word.p[i] > '~' || word.p[i] == '\\') return LFS_BAD_VALUE;
        return 0;
    default: return 0;
    }
}

static int judge_member(lfs_intent *in, const char *type, int rule, lfs_text token) {
    if (rule == R_SIZE || rule == R_INCARNATION) return judge_number(in, rule, token);
    if (token.p[0] != '"') return LFS_WRONG_KIND;
    return judge_word(in, type, rule, (lfs_text){token.p + 1, token.len - 2});
}

/* The value of a member of a canonical object; p NULL when it has none of that name. */
static lfs_text member_of(lfs_text object, const char *wanted) {
    lfs_text name, token;
    const uint8_t *p = object.p + 1, *end = object.p + object.len;
    while (*p != '}') {
        if (*p == ',') p++;
        p = lfs_member_next(p, end, &name, &token);
        if (lfs_text_is(name, wanted)) return token;
    }
    return (lfs_text){NULL, 0};
}

static void judge_members(lfs_intent *in, int type) {
    lfs_text name, token;
    uint32_t seen = 0;
    const uint8_t *p = in->canonical.p + 1, *end = in->canonical.p + in->canonical.len;
    while (*p != '}') {
        if (*p == ',') p++;
        p = lfs_member_next(p, end, &name, &token);
        uint32_t i = 0;
        while (i < TYPES[type].n && !lfs_text_is(name, TYPES[type].members[i].name)) i++;
        if (i == TYPES[type].n) {
            offend(in, LFS_UNKNOWN_FIELD, name);
            continue;
        }
        seen |= 1u << i;
        int code = judge_member(in, TYPES[type].type, TYPES[type].members[i].rule, token);
        if (code) offend(in, code, name);
    }
    for (uint32_t i = 0; i < TYPES[type].n; i++) {
        int pair = type == I_RESTORE - I_KEY && (i == SIGNED_ROOT || i == SIGNED_SIZE) && seen & (1u << SIGNED_ROOT | 1u << SIGNED_SIZE);
        if (!(seen & 1u << i) && (pair || !TYPES[type].members[i].optional))
            offend(in, LFS_MISSING_FIELD, text_of(TYPES[type].members[i].name));
    }
}

static void judge(lfs_intent *in) {
    lfs_text type = member_of(in->canonical, "type"), size = member_of(in->canonical, "size");
    int which = 0;
    if (!type.p) {
        offend(in, LFS_MISSING_FIELD, text_of("type"));
        return;
    }
    while (which < TYPES_N && !(type.p[0] == '"' && lfs_text_is((lfs_text){type.p + 1, type.len - 2}, TYPES[which].type))) which++;
    if (which == TYPES_N) {
        offend(in, LFS_UNKNOWN_TYPE, text_of("type"));
        return;
    }
    in->type = (uint8_t)(I_KEY + which);
    judge_members(in, which);
    if (!in->code && size.p) lfs_entry_u64(size, &in->size);
}

void lfs_system_parse(const uint8_t *text, size_t len, uint32_t line, lfs_arena *arena, lfs_intent *in) {
    memset(in, 0, sizeof *in);
    in->line = line;
    const uint8_t *first = lfs_json_space(text, text + len), *end = text + len;
    while (end > first && lfs_json_space(end - 1, end) == end) end--;
    if (end - first > LFS_INTENT_BYTES_MAX) {
        in->code = LFS_TOO_LARGE;
        return;
    }
    lfs_intent_canonical(text, len, arena, in);
    if (!in->code) judge(in);
    if (!in->code) lfs_sha256(in->canonical.p, in->canonical.len, in->hash);
}

/* -- entries and their intents */

typedef struct { const char *name; const uint8_t *value; size_t len; } extra;

/* The canonical object with some members left out and others (in order) put in. Returns the end. */
static uint8_t *put_merged(uint8_t *p, lfs_text object, const char *const *without, size_t n_without, const extra *more, size_t n_more) {
    lfs_text name, token;
    const uint8_t *q = object.p + 1, *end = object.p + object.len;
    uint8_t *begin = p;
    size_t k = 0;
    for (;;) {
        int left = *q != '}';
        if (left) {
            if (*q == ',') q++;
            q = lfs_member_next(q, end, &name, &token);
            if (one_of(name, without, n_without)) continue;
        }
        for (; k < n_more; k++) {
            lfs_text own = text_of(more[k].name);
            if (left && lfs_json_name_order(own.p, own.len, name.p, name.len) > 0) break;
            *p = p == begin ? '{' : ',';
            p++;
            *p++ = '"';
            p = (uint8_t *)memcpy(p, own.p, own.len) + own.len;
            *p++ = '"';
            *p++ = ':';
            p = (uint8_t *)memcpy(p, more[k].value, more[k].len) + more[k].len;
        }
        if (!left) break;
        *p = p == begin ? '{' : ',';
        p++;
        size_t len = (size_t)(token.p + token.len - (name.p - 1));
        p = (uint8_t *)memcpy(p, name.p - 1, len) + len; /* "name":value */
    }
    *p++ = '}';
    return p;
}

static int render(lfs_ledger *l, const lfs_intent *in) {
    static const char *const without[] = {"type"};
    uint8_t *p = lfs_entry_begin(l), index[20], intent[66], kind[16], time[32];
    size_t index_len = (size_t)(lfs_u64_put(index, l->next_index) - index);
    intent[0] = intent[65] = time[0] = time[31] = '"';
    lfs_hex_put(intent + 1, in->hash, 32);
    lfs_time_put(time + 1, l->last_time);
    int kind_len = snprintf((char *)kind, sizeof kind, "\"%s\"", TYPES[in->type - I_KEY].kind);
    const extra more[] = {{"index", index, index_len}, {"intent", intent, 66}, {"t", kind, (size_t)kind_len}, {"time", time, 32}};
    p = put_merged(p, in->canonical, without, 1, more, 4);
    return lfs_entry_end(l, p, lfs_tag(l, in->id.p, in->id.len));
}

/* The intent of an entry in canonical form, if the entry is one of these. The caller frees it. */
static uint8_t *intent_of(lfs_text entry, int type, size_t *len) {
    static const char *const without[] = {"index", "intent", "t", "time"};
    uint8_t *text = lfs_grow(NULL, entry.len + 64), word[16];
    int word_len = snprintf((char *)word, sizeof word, "\"%s\"", TYPES[type].type);
    const extra more[] = {{"type", word, (size_t)word_len}};
    *len = (size_t)(put_merged(text, entry, without, 4, more, 1) - text);
    return text;
}

/* -- the state */

static int restore_follows(const lfs_ledger *l, const lfs_intent *in, uint64_t index) {
    return in->incarnation == l->incarnation + 1 && in->size <= index;
}

/* The entry at `index` stands. */
static void note(lfs_ledger *l, const lfs_intent *in, uint64_t index) {
    if (in->type == I_ANCHOR) return; /* there may be many, and nobody asks for them */
    lfs_undo *undo = lfs_undo_push(l, U_SYSTEM, (uint32_t)l->incarnation);
    (void)undo;
    if (l->n_system == l->system_size) {
        l->system_size = l->system_size ? 2 * l->system_size : 64;
        l->system = lfs_grow(l->system, l->system_size * sizeof *l->system);
    }
    l->system[l->n_system++] = (uint32_t)index;
    if (in->type == I_RESTORE) l->incarnation = in->incarnation;
}

int lfs_system_apply(lfs_ledger *l, lfs_intent *in, lfs_result *out) {
    (void)out;
    if (in->type == I_RESTORE && !restore_follows(l, in, l->next_index)) return LFS_BAD_RESTORE;
    if (render(l, in) < 0) return LFS_ENTRY_TOO_LARGE;
    lfs_table_insert(l, &l->ids, lfs_tag(l, in->id.p, in->id.len), (uint32_t)(l->next_index - 1));
    note(l, in, l->next_index - 1);
    return 0;
}

int lfs_system_replay(lfs_ledger *l, uint64_t index, const uint8_t *bytes, uint32_t len, const lfs_entry *e, char *why) {
    int type = 0;
    while (type < TYPES_N && !lfs_text_is(e->t, TYPES[type].kind)) type++;
    if (type == TYPES_N) return 1;
    lfs_arena arena = {0};
    lfs_intent in;
    uint8_t hex[64];
    size_t intent_len;
    uint8_t *intent = intent_of((lfs_text){bytes, len}, type, &intent_len);
    lfs_arena_ready(&arena);
    lfs_system_parse(intent, intent_len, 1, &arena, &in);
    const char *wrong = NULL;
    if (in.code) wrong = "an entry of the ledger's own has not the members that it should";
    else if (!e->intent.p || e->intent.len != 64 || (lfs_hex_put(hex, in.hash, 32), memcmp(hex, e->intent.p, 64)))
        wrong = "its intent is not the hash of what it says";
    else if (in.type == I_RESTORE && !restore_follows(l, &in, index)) wrong = "a restore does not follow from the incarnation before";
    else note(l, &in, index);
    free(intent);
    lfs_arena_free(&arena);
    if (!wrong) return 0;
    snprintf(why, 256, "%s", wrong);
    return -1;
}
