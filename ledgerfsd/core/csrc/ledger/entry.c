/* Reading entries. They are canonical JSON that was judged before it was written (or by replay), so reading trusts their form but never
 * reads past their end. */
#include "ledger.h"

typedef struct { const char *name; uint32_t len, place; } member;
#define M(name, field) {name, sizeof name - 1, offsetof(lfs_entry, field)}
static const member MEMBERS[] = {
    M("account", account), M("action", action), M("class", class_), M("code", code), M("count", count),
    M("currencies", currencies), M("currency", currency), M("decimals", decimals), M("effective", effective),
    M("expires", expires), M("first", first), M("height", height), M("hold", hold), M("id", id), M("index", index),
    M("intent", intent), M("intent_hash", intent_hash), M("ledger", ledger), M("limit", limit), M("log_root", log_root),
    M("normal", normal), M("owner", owner), M("policy", policy), M("postings", postings), M("prev", prev),
    M("reason", reason), M("reference", reference), M("reverses", reverses), M("state_root", state_root), M("status", status), M("t", t), M("tags", tags), M("through", through),
    M("time", time), M("tx", tx), M("tx_root", tx_root), M("type", type)};
#define P(name, field) {name, sizeof name - 1, offsetof(lfs_entry_posting, field)}
static const member POSTING_MEMBERS[] = {
    P("account", account), P("amount", amount), P("credits", credits), P("currency", currency), P("debits", debits),
    P("held_credits", held_credits), P("held_debits", held_debits), P("prev", prev), P("side", side)};

/* The byte after a string, or NULL when it does not end. */
static const uint8_t *skip_string(const uint8_t *p, const uint8_t *end) {
    const uint8_t *quote = ++p < end ? memchr(p, '"', (size_t)(end - p)) : NULL;
    if (!quote || !memchr(p, '\\', (size_t)(quote - p))) return quote ? quote + 1 : NULL;
    for (; p < end; p++) {
        if (*p == '"') return p + 1;
        if (*p == '\\') p++;
    }
    return NULL;
}

static const uint8_t *skip_value(const uint8_t *p, const uint8_t *end) {
    if (*p != '{' && *p != '[') {
        while (p < end && *p != ',' && *p != '}' && *p != ']') p++;
        return p;
    }
    for (int depth = 0; p < end;) {
        if (*p == '"') {
            if (!(p = skip_string(p, end))) return NULL;
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if ((*p == '}' || *p == ']') && --depth == 0) return p + 1;
        p++;
    }
    return NULL;
}

/* Fill `out` from the object at p; strings without their quotes. Returns the end, or NULL. */
static const uint8_t *read_object(const uint8_t *p, const uint8_t *end, const member *members, size_t n, uint8_t *out) {
    if (p >= end || *p++ != '{') return NULL;
    if (p < end && *p == '}') return p + 1;
    size_t at = 0; /* members come in sorted order, as the table does */
    for (;;) {
        const uint8_t *name = p;
        if (p >= end || *p != '"' || !(p = skip_string(p, end))) return NULL;
        lfs_text key = {name + 1, (uint32_t)(p - name - 2)};
        if (p >= end || *p++ != ':' || p >= end) return NULL;
        const uint8_t *value = p;
        int string = *p == '"';
        p = string ? skip_string(p, end) : skip_value(p, end);
        if (!p || p >= end) return NULL;
        for (size_t i = at; i < n; i++) {
            if (key.len != members[i].len || memcmp(key.p, members[i].name, key.len) != 0) continue;
            lfs_text text = {value + string, (uint32_t)(p - value) - 2 * (uint32_t)string};
            memcpy(out + members[i].place, &text, sizeof text);
            at = i + 1;
            break;
        }
        if (*p == '}') return p + 1;
        if (*p++ != ',') return NULL;
    }
}

int lfs_entry_read(const uint8_t *bytes, uint32_t len, lfs_entry *out) {
    memset(out, 0, sizeof *out);
    const uint8_t *end = read_object(bytes, bytes + len, MEMBERS, sizeof MEMBERS / sizeof *MEMBERS, (uint8_t *)out);
    return end == bytes + len ? 0 : -1;
}

int lfs_entry_posting_next(lfs_text postings, const uint8_t **p, lfs_entry_posting *out) {
    const uint8_t *end = postings.p + postings.len, *at = *p ? *p : postings.p;
    if (!postings.p || at >= end || *at == ']') return 0;
    if (*at++ != (*p ? ',' : '[')) return -1;
    memset(out, 0, sizeof *out);
    *p = read_object(at, end, POSTING_MEMBERS, sizeof POSTING_MEMBERS / sizeof *POSTING_MEMBERS, (uint8_t *)out);
    return *p ? 1 : -1;
}

int lfs_entry_u64(lfs_text token, uint64_t *out) {
    uint64_t value = 0;
    if (!token.p || token.len < 1 || token.len > 16) return -1;
    for (uint32_t i = 0; i < token.len; i++) {
        if (token.p[i] < '0' || token.p[i] > '9') return -1;
        value = value * 10 + (uint64_t)(token.p[i] - '0');
    }
    *out = value;
    return 0;
}

/* What sorts before "id" is free of quotes and escapes in every kind of entry (names, dates, codes, ids, numbers), so the first match is the
 * member. */
static lfs_text string_after(const uint8_t *bytes, uint32_t len, const char *key) {
    const uint8_t *p = memmem(bytes, len, key, strlen(key));
    if (!p) return (lfs_text){NULL, 0};
    p += strlen(key);
    const uint8_t *quote = memchr(p, '"', (size_t)(bytes + len - p));
    return quote ? (lfs_text){p, (uint32_t)(quote - p)} : (lfs_text){NULL, 0};
}

lfs_text lfs_entry_id(const uint8_t *bytes, uint32_t len) { return string_after(bytes, len < 1024 ? len : 1024, "\"id\":\""); }

lfs_text lfs_entry_intent(const uint8_t *bytes, uint32_t len) {
    static const char incarnation[] = ",\"incarnation\":", index[] = ",\"index\":", intent[] = ",\"intent", hash[] = "_hash";
    const lfs_text none = {NULL, 0};
    lfs_text id = lfs_entry_id(bytes, len);
    const uint8_t *p = id.p + id.len + 1, *end = bytes + len;
    if (id.p && end - p >= 120 && memcmp(p, incarnation, sizeof incarnation - 1) == 0) /* of a restore */
        for (p += sizeof incarnation - 1; *p >= '0' && *p <= '9';) p++;
    if (!id.p || end - p < 120 || memcmp(p, index, sizeof index - 1) != 0) return none;
    p += sizeof index - 1;
    while (*p >= '0' && *p <= '9') p++;
    if (memcmp(p, intent, sizeof intent - 1) != 0) return none;
    p += sizeof intent - 1;
    if (memcmp(p, hash, sizeof hash - 1) == 0) p += sizeof hash - 1;
    return end - p >= 67 && memcmp(p, "\":\"", 3) == 0 ? (lfs_text){p + 3, 64} : none;
}

/* What sorts after "t" holds no text of users (tags have no quotes), so the last match is the member. */
lfs_text lfs_entry_kind(const uint8_t *bytes, uint32_t len) {
    static const char key[] = "\"t\":\"";
    for (uint32_t at = len; at-- > 0;)
        if (at + sizeof key - 1 <= len && bytes[at] == '"' && memcmp(bytes + at, key, sizeof key - 1) == 0)
            return string_after(bytes + at, len - at, key);
    return (lfs_text){NULL, 0};
}
