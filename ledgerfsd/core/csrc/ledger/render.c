/* Writing entries: canonical JSON, members in sorted order (docs/FORMAT.md, section 7). */
#include <stdlib.h>
#include "ledger.h"
#include "lfs_hash.h"

/* Room that any entry can need before its length is judged: 200 postings of at most 420 bytes, metadata, a rejected intent. */
#define ROOM (200 * 420 + 2 * 65536)
#define FETCHED_BYTES 512 /* about an entry: the next one's place, which T2 on another core read last */

static inline uint8_t *put(uint8_t *p, const void *bytes, size_t len) {
    memcpy(p, bytes, len);
    return p + len;
}
#define LIT(p, text) put(p, text, sizeof(text) - 1)
static inline uint8_t *put_word(uint8_t *p, const char *word) { return lfs_copy(p, (const uint8_t *)word, strlen(word)); }
/* All of a field whose first len bytes are the text: an entry has room behind its end, so the length decides nothing but where it ends. */
static inline uint8_t *put_wide(uint8_t *p, const void *field, size_t size, size_t len) {
    memcpy(p, field, size);
    return p + len;
}
static inline uint8_t *put_text(uint8_t *p, lfs_text text) { return lfs_copy(p, text.p, text.len); }
static inline uint8_t *quote(uint8_t *p, lfs_text text) {
    *p++ = '"';
    p = put_text(p, text);
    *p++ = '"';
    return p;
}

uint8_t *lfs_entry_begin(lfs_ledger *l) {
    lfs_group *g = l->group;
    if (g->used + ROOM > g->size) {
        g->size = 2 * g->size + ROOM;
        g->bytes = lfs_grow(g->bytes, g->size);
    }
    if (g->entries + 1 >= g->entries_size) { /* one more for the seal */
        g->entries_size *= 2;
        g->start = lfs_grow(g->start, g->entries_size * sizeof *g->start);
        g->tag = lfs_grow(g->tag, g->entries_size * sizeof *g->tag);
        g->word = lfs_grow(g->word, g->entries_size * sizeof *g->word);
    }
    for (size_t line = 0; line < FETCHED_BYTES; line += 64) lfs_fetch_to_write(g->bytes + g->used + FETCHED_BYTES + line);
    l->time_before = l->last_time;
    l->last_time = l->now_ns > l->last_time ? l->now_ns : l->last_time + 1;
    return g->bytes + g->used + 2;
}

int lfs_entry_end(lfs_ledger *l, uint8_t *end, uint64_t tag) {
    lfs_group *g = l->group;
    uint8_t *begin = g->bytes + g->used + 2;
    size_t len = (size_t)(end - begin);
    if (len > LFS_ENTRY_BYTES_MAX) {
        l->last_time = l->time_before;
        return -1;
    }
    begin[-2] = (uint8_t)(len >> 8);
    begin[-1] = (uint8_t)len;
    g->start[g->entries] = (uint32_t)g->used;
    g->word[g->entries] = LFS_WORD_ASK;
    g->tag[g->entries++] = tag;
    g->used += len + 2;
    l->next_index++;
    return (int)len;
}

static uint8_t *put_index(const lfs_ledger *l, uint8_t *p) { return lfs_u64_put_loose(LIT(p, ",\"index\":"), l->next_index); }

/* ,"id":…,"index":…,"intent":… ; comma 0 when id is the first member */
static uint8_t *put_identity(const lfs_ledger *l, uint8_t *p, lfs_text id, const uint8_t *intent, int comma) {
    if (comma) *p++ = ',';
    p = put_index(l, quote(LIT(p, "\"id\":"), id));
    if (!intent) return p;
    p = lfs_hex_put(LIT(p, ",\"intent\":\""), intent, 32);
    *p++ = '"';
    return p;
}

static int given(const lfs_intent *in, int field) { return in && (in->present >> field & 1); }

static uint8_t *put_optional(uint8_t *p, const lfs_intent *in, int field) {
    if (!given(in, field)) return p;
    *p++ = ',';
    *p++ = '"';
    p = lfs_copy(p, (const uint8_t *)LFS_FIELD_NAMES[field], LFS_FIELD_LENGTHS[field]);
    *p++ = '"';
    *p++ = ':';
    return field == F_METADATA || field == F_TAGS ? put_text(p, in->f[field]) : quote(p, in->f[field]);
}

/* "t":…,"time":… */
static inline uint8_t *put_kind_time(lfs_ledger *l, uint8_t *p, const char *kind) {
    p = put_word(LIT(p, ",\"t\":\""), kind);
    p = lfs_time_put_knowing(&l->second, LIT(p, "\",\"time\":\""), l->last_time);
    *p++ = '"';
    return p;
}

enum { TOTALS = 1, HELD = 2 };

static uint8_t *put_posting(const lfs_ledger *l, uint8_t *p, const lfs_effect *effect, int side, u128 amount, int what) {
    const lfs_info *info = &l->info[effect->ordinal];
    const lfs_currency *unit = &l->currencies[info->currency];
    const lfs_state *after = &effect->after;
    p = put_wide(LIT(p, "{\"account\":\""), info->name, sizeof info->name, info->name_len);
    p = lfs_amount_put_loose(LIT(p, "\",\"amount\":\""), amount, unit->decimals);
    if (what & TOTALS) p = lfs_amount_put_loose(LIT(p, "\",\"credits\":\""), after->credits, unit->decimals);
    p = put_wide(LIT(p, "\",\"currency\":\""), unit->code, sizeof unit->code, unit->len);
    if (what & TOTALS) p = lfs_amount_put_loose(LIT(p, "\",\"debits\":\""), after->debits, unit->decimals);
    if (what & HELD) {
        p = lfs_amount_put_loose(LIT(p, "\",\"held_credits\":\""), after->held_credits, unit->decimals);
        p = lfs_amount_put_loose(LIT(p, "\",\"held_debits\":\""), after->held_debits, unit->decimals);
    }
    p = lfs_u64_put_loose(LIT(p, "\",\"prev\":"), effect->prev);
    return side == S_DEBIT ? LIT(p, ",\"side\":\"debit\"}") : LIT(p, ",\"side\":\"credit\"}");
}

static uint8_t *put_pair(const lfs_ledger *l, uint8_t *p, const lfs_effect *effects, u128 amount, int what) {
    p = put_posting(l, LIT(p, ",\"postings\":["), &effects[0], S_DEBIT, amount, what);
    *p++ = ',';
    p = put_posting(l, p, &effects[1], S_CREDIT, amount, what);
    *p++ = ']';
    return p;
}

/* Here its text is in the cache. A key that looks like "none" is left to the entry. */
static uint64_t word_of(const lfs_ledger *l, const lfs_intent *in) {
    if (!given(in, F_REFERENCE)) return 0;
    uint64_t key = lfs_word_key(l, 'r', in->f[F_REFERENCE]);
    return key ? key : LFS_WORD_ASK;
}

int lfs_render_txn(lfs_ledger *l, const lfs_intent *in, lfs_text id, lfs_text type, uint64_t reverses, int plain,
                   const lfs_posting *postings, const lfs_effect *effects, uint32_t n) {
    uint8_t *p = lfs_entry_begin(l);
    int dated = !plain && given(in, F_EFFECTIVE);
    *p++ = '{';
    if (dated) p = quote(LIT(p, "\"effective\":"), in->f[F_EFFECTIVE]);
    p = put_identity(l, p, id, in->hash, dated);
    if (!plain) p = put_optional(p, in, F_METADATA);
    p = LIT(p, ",\"postings\":[");
    for (uint32_t i = 0; i < n; i++) {
        if (i) *p++ = ',';
        p = put_posting(l, p, &effects[i], postings[i].side, postings[i].amount.value, TOTALS);
    }
    *p++ = ']';
    if (!plain) p = put_optional(p, in, F_REFERENCE);
    if (reverses) p = lfs_u64_put_loose(LIT(p, ",\"reverses\":"), reverses);
    p = put_kind_time(l, p, "txn/1");
    p = lfs_u64_put_loose(LIT(p, ",\"tx\":"), l->next_tx);
    p = put_text(LIT(p, ",\"type\":\""), type);
    int len = lfs_entry_end(l, LIT(p, "\"}"), lfs_tag_of(l, in, id));
    if (len >= 0) l->group->word[l->group->entries - 1] = plain ? 0 : word_of(l, in);
    return len;
}

int lfs_render_hold(lfs_ledger *l, const lfs_intent *in, const lfs_posting *postings, const lfs_effect *effects) {
    uint8_t *p = lfs_entry_begin(l);
    *p++ = '{';
    if (in->expires_ns) {
        p = lfs_time_put(LIT(p, "\"expires\":\""), in->expires_ns);
        *p++ = '"';
    }
    p = put_identity(l, p, in->id, in->hash, in->expires_ns != 0);
    p = put_optional(p, in, F_METADATA);
    p = put_pair(l, p, effects, postings[0].amount.value, HELD);
    p = put_optional(p, in, F_REFERENCE);
    p = put_kind_time(l, p, "hold/1");
    *p++ = '}';
    return lfs_entry_end(l, p, lfs_tag_of(l, in, in->id));
}

int lfs_render_post(lfs_ledger *l, const lfs_intent *in, u128 amount, const lfs_effect *effects) {
    uint8_t *p = lfs_entry_begin(l);
    *p++ = '{';
    if (given(in, F_EFFECTIVE)) {
        p = quote(LIT(p, "\"effective\":"), in->f[F_EFFECTIVE]);
        *p++ = ',';
    }
    p = quote(LIT(p, "\"hold\":"), in->f[F_HOLD]);
    p = put_identity(l, p, in->id, in->hash, 1);
    p = put_optional(p, in, F_METADATA);
    p = put_pair(l, p, effects, amount, TOTALS | HELD);
    p = put_optional(p, in, F_REFERENCE);
    p = put_kind_time(l, p, "post/1");
    p = lfs_u64_put_loose(LIT(p, ",\"tx\":"), l->next_tx);
    *p++ = '}';
    return lfs_entry_end(l, p, lfs_tag_of(l, in, in->id));
}

int lfs_render_void(lfs_ledger *l, const lfs_intent *in, lfs_text id, lfs_text hold_id, u128 amount, const lfs_effect *effects) {
    uint8_t *p = lfs_entry_begin(l);
    p = quote(LIT(p, "{\"hold\":"), hold_id);
    p = put_identity(l, p, id, in ? in->hash : NULL, 1);
    p = put_optional(p, in, F_METADATA);
    p = put_pair(l, p, effects, amount, HELD);
    p = in ? LIT(p, ",\"reason\":\"voided\"") : LIT(p, ",\"reason\":\"expired\"");
    p = put_optional(p, in, F_REFERENCE);
    p = put_kind_time(l, p, "void/1");
    *p++ = '}';
    return lfs_entry_end(l, p, lfs_tag_of(l, in, id));
}

int lfs_render_account(lfs_ledger *l, const lfs_intent *in, lfs_text id, lfs_text name, lfs_text currency, int class_, int normal,
                       lfs_text limit, int plain) {
    uint8_t *p = lfs_entry_begin(l);
    p = quote(LIT(p, "{\"account\":"), name);
    p = put_word(LIT(p, ",\"class\":\""), LFS_CLASS_NAMES[class_]);
    p = quote(LIT(p, "\",\"currency\":"), currency);
    p = put_identity(l, p, id, in->hash, 1);
    p = quote(LIT(p, ",\"limit\":"), limit);
    if (!plain) p = put_optional(p, in, F_METADATA);
    p = normal == S_DEBIT ? LIT(p, ",\"normal\":\"debit\"") : LIT(p, ",\"normal\":\"credit\"");
    if (!plain) p = put_optional(put_optional(p, in, F_OWNER), in, F_REFERENCE);
    p = LIT(p, ",\"t\":\"account/1\"");
    if (!plain) p = put_optional(p, in, F_TAGS);
    p = lfs_time_put(LIT(p, ",\"time\":\""), l->last_time);
    return lfs_entry_end(l, LIT(p, "\"}"), lfs_tag_of(l, in, id));
}

int lfs_render_update(lfs_ledger *l, const lfs_intent *in, const char *action, const char *status, uint64_t prev) {
    uint8_t *p = lfs_entry_begin(l);
    p = quote(LIT(p, "{\"account\":"), in->f[F_ACCOUNT]);
    p = put_word(LIT(p, ",\"action\":\""), action);
    *p++ = '"';
    p = put_identity(l, p, in->id, in->hash, 1);
    p = put_optional(p, in, F_METADATA);
    p = lfs_u64_put_loose(LIT(p, ",\"prev\":"), prev);
    p = put_optional(p, in, F_REFERENCE);
    p = put_word(LIT(p, ",\"status\":\""), status);
    *p++ = '"';
    p = put_kind_time(l, p, "account.update/1");
    *p++ = '}';
    return lfs_entry_end(l, p, lfs_tag_of(l, in, in->id));
}

int lfs_render_policy(lfs_ledger *l, const lfs_intent *in) {
    uint8_t *p = lfs_entry_begin(l), *begin = p;
    int currency = in->type == I_REGISTER_CURRENCY;
    *p++ = '{';
    if (currency) {
        p = quote(LIT(p, "\"currency\":"), in->f[F_CURRENCY]);
        p = lfs_u64_put_loose(LIT(p, ",\"decimals\":"), in->decimals);
    }
    p = put_identity(l, p, in->id, in->hash, currency);
    p = put_optional(p, in, F_METADATA);
    p = currency ? LIT(p, ",\"policy\":\"currency\"") : LIT(p, ",\"policy\":\"close_period\"");
    p = put_optional(p, in, F_REFERENCE);
    p = LIT(p, ",\"t\":\"policy/1\"");
    p = put_optional(p, in, F_THROUGH);
    p = lfs_time_put(LIT(p, ",\"time\":\""), l->last_time);
    p = LIT(p, "\"}");
    lfs_undo *undo = lfs_undo_push(l, U_POLICY, 0);
    if (undo) memcpy(undo->old.leaf, l->policy_leaf, 32);
    const uint8_t *entry = begin;
    uint32_t len = (uint32_t)(p - begin);
    lfs_leaf_hashes(&entry, &len, 1, l->policy_leaf);
    return lfs_entry_end(l, p, lfs_tag_of(l, in, in->id));
}

int lfs_render_rejected(lfs_ledger *l, const lfs_intent *in, int code) {
    uint8_t *p = lfs_entry_begin(l);
    const char *name = "";
    for (size_t i = 0; i < sizeof LFS_CODE_NAMES / sizeof *LFS_CODE_NAMES; i++)
        if (LFS_CODE_NAMES[i].number == code) name = LFS_CODE_NAMES[i].name;
    p = put_word(LIT(p, "{\"code\":\""), name);
    p = put_index(l, quote(LIT(p, "\",\"id\":"), in->id));
    p = lfs_hex_put(LIT(p, ",\"intent_hash\":\""), in->hash, 32);
    p = put_text(LIT(p, "\",\"request\":"), in->canonical);
    p = put_kind_time(l, p, "rejected/1");
    *p++ = '}';
    return lfs_entry_end(l, p, code == LFS_ID_REUSED ? 0 : lfs_tag_of(l, in, in->id));
}

static uint8_t *put_hash(uint8_t *p, const char *name, const uint8_t hash[32]) {
    *p++ = ',';
    *p++ = '"';
    p = lfs_hex_put(LIT(put_word(p, name), "\":\""), hash, 32);
    *p++ = '"';
    return p;
}

uint32_t lfs_render_seal(uint8_t *out, uint64_t index, uint64_t time, uint64_t height, uint64_t first, uint64_t count,
                         const uint8_t log_root[32], const uint8_t policy[32], const uint8_t prev[32], const uint8_t *state_root,
                         const uint8_t tx_root[32]) {
    uint8_t *p = lfs_u64_put_loose(LIT(out, "{\"count\":"), count);
    p = lfs_u64_put_loose(LIT(p, ",\"first\":"), first);
    p = lfs_u64_put_loose(LIT(p, ",\"height\":"), height);
    p = lfs_u64_put_loose(LIT(p, ",\"index\":"), index);
    p = put_hash(put_hash(put_hash(p, "log_root", log_root), "policy", policy), "prev", prev);
    if (state_root) p = put_hash(p, "state_root", state_root);
    p = lfs_time_put(LIT(p, ",\"t\":\"seal/1\",\"time\":\""), time);
    *p++ = '"';
    p = put_hash(p, "tx_root", tx_root);
    *p++ = '}';
    return (uint32_t)(p - out);
}

uint32_t lfs_render_genesis(uint8_t *out, uint64_t time, const char *ledger, const char *currencies) {
    uint8_t *p = put_word(LIT(out, "{\"currencies\":\""), currencies);
    p = put_word(LIT(p, "\",\"index\":0,\"ledger\":\""), ledger);
    p = lfs_time_put(LIT(p, "\",\"t\":\"genesis/1\",\"time\":\""), time);
    return (uint32_t)(LIT(p, "\"}") - out);
}
