/* Reading one intent: from bytes to members and canonical form. What the members must be is judge.c's.
 *
 * Four ways lead to the same answer. The quickest (intent_shape.c) knows only transfers of the shape of one before. The next (intent_quick.c)
 * knows only members that are short plain strings. The next
 * walks the text once and knows what well-behaved programs write: known member names, once each, strings without escapes. At anything else
 * each gives up, and the last one judges the whole text as JSON
 * (which settles the codes 10 to 18 from left to right), brings it into canonical form and walks that. So the quick ways need only be
 * right about what they accept. */
#include "intent.h"
#include <stdlib.h>
#include "lfs_codes.h"
#include "lfs_hash.h"
#include "lfs_json.h"

const char *const LFS_FIELD_NAMES[F_COUNT] = {
    "account", "amount", "class", "credit", "currency", "debit", "decimals", "effective", "expires", "hold", "id",
    "initial_balance", "limit", "metadata", "normal", "of", "owner", "postings", "reference", "side", "tags", "through", "type"};

const uint8_t LFS_FIELD_LENGTHS[F_COUNT] = {7, 6, 5, 6, 8, 5, 8, 9, 7, 4, 2, 15, 5, 8, 6, 2, 5, 8, 9, 4, 4, 7, 4};

void lfs_arena_ready(lfs_arena *arena) {
    if (arena->size - arena->used >= LFS_ARENA_INTENT_MAX) return;
    if (arena->base) {
        if (arena->n_full == arena->full_size) {
            arena->full_size = arena->full_size ? 2 * arena->full_size : 16;
            arena->full = lfs_grow(arena->full, arena->full_size * sizeof *arena->full);
        }
        arena->full[arena->n_full++] = arena->base;
    }
    arena->base = lfs_grow(NULL, LFS_ARENA_BYTES);
    arena->size = LFS_ARENA_BYTES;
    arena->used = 0;
}

void lfs_arena_reset(lfs_arena *arena) {
    while (arena->n_full) free(arena->full[--arena->n_full]);
    arena->used = 0;
}

void lfs_arena_free(lfs_arena *arena) {
    lfs_arena_reset(arena);
    free(arena->full);
    free(arena->base);
    memset(arena, 0, sizeof *arena);
}

uint8_t *lfs_arena_take(lfs_arena *arena, size_t bytes) {
    uint8_t *p = arena->base + arena->used;
    arena->used += (bytes + 15) & ~(size_t)15;
    return p;
}

enum { SURE = 0, UNSURE = -1 };

/* Walk the members of the outermost object. canonical: the text is in canonical form, so nothing can surprise. */
static int walk(const uint8_t *text, const uint8_t *end, int canonical, lfs_arena *arena, lfs_intent *in) {
    lfs_json_error err;
    int simple;
    const uint8_t *p = text + 1;
    p = lfs_json_space(p, end);
    if (p < end && *p == '}') p++;
    else for (;;) {
        const uint8_t *name = p, *q;
        if (p >= end || *p != '"' || !(p = lfs_json_string(text, p, end, &simple, &err))) return UNSURE;
        int field = p - name > 2 ? lfs_field_of(name + 1, (size_t)(p - name - 2)) : F_OTHER;
        if (!canonical && (field == F_OTHER || in->present & BIT(field))) return UNSURE;
        lfs_text other = {name + 1, (uint32_t)(p - name - 2)};
        p = lfs_json_space(p, end);
        if (p >= end || *p++ != ':') return UNSURE;
        p = lfs_json_space(p, end);
        if (p >= end) return UNSURE;
        simple = 1;
        q = *p == '"' ? lfs_json_string(text, p, end, &simple, &err) : lfs_json_value(text, p, end, 2, &err);
        if (!q || (!simple && !canonical)) return UNSURE;
        lfs_text token = {p, (uint32_t)(q - p)};
        if (!canonical && (*p == '{' || *p == '[')) { /* nested values are judged and stored in canonical form */
            uint8_t *room = lfs_arena_take(arena, token.len);
            long len = lfs_json_canonical(p, token.len, room, token.len);
            if (len < 0) return UNSURE;
            token = (lfs_text){room, (uint32_t)len};
        }
        if (field == F_OTHER) {
            if (!in->other_name.p) in->other_name = other; /* the first in canonical order */
        } else {
            in->f[field] = token;
            in->present |= BIT(field);
        }
        p = lfs_json_space(q, end);
        if (p >= end) return UNSURE;
        if (*p == '}') { p++; break; }
        if (*p++ != ',') return UNSURE;
        p = lfs_json_space(p, end);
    }
    return lfs_json_space(p, end) == end ? SURE : UNSURE;
}

/* Every member as canonical form begins it. */
#define BEGINNING_BYTES 24
static const char BEGINNINGS[F_COUNT][BEGINNING_BYTES] = {
    ",\"account\":", ",\"amount\":", ",\"class\":", ",\"credit\":", ",\"currency\":", ",\"debit\":", ",\"decimals\":", ",\"effective\":",
    ",\"expires\":", ",\"hold\":", ",\"id\":", ",\"initial_balance\":", ",\"limit\":", ",\"metadata\":", ",\"normal\":", ",\"of\":",
    ",\"owner\":", ",\"postings\":", ",\"reference\":", ",\"side\":", ",\"tags\":", ",\"through\":", ",\"type\":"};

static void put_canonical(lfs_intent *in, size_t text_len, lfs_arena *arena) {
    uint8_t *out = lfs_arena_take(arena, text_len + 2 + BEGINNING_BYTES), *p = out;
    for (uint32_t rest = in->present; rest; rest &= rest - 1) {
        int field = __builtin_ctz(rest);
        memcpy(p, BEGINNINGS[field], BEGINNING_BYTES);
        p = lfs_copy(p + LFS_FIELD_LENGTHS[field] + 4, in->f[field].p, in->f[field].len);
    }
    if (p == out) p++;
    *out = '{';
    *p++ = '}';
    in->canonical = (lfs_text){out, (uint32_t)(p - out)};
}

static int walk_anew(const uint8_t *text, const uint8_t *end, lfs_arena *arena, lfs_intent *in) {
    in->present = 0;
    return walk(text, end, 0, arena, in);
}

void lfs_intent_canonical(const uint8_t *text, size_t len, lfs_arena *arena, lfs_intent *in) {
    lfs_json_error err = {0, 0};
    size_t begin, end;
    int code = lfs_json_check(text, len, &begin, &end, &err);
    if (!code && text[begin] != '{') {
        code = LFS_NOT_AN_OBJECT;
        err.offset = (uint32_t)begin;
    }
    if (code) {
        in->code = (int16_t)code;
        in->offset = err.offset;
        return;
    }
    uint8_t *room = lfs_arena_take(arena, end - begin);
    long canonical = lfs_json_canonical(text + begin, end - begin, room, end - begin);
    in->canonical = (lfs_text){room, (uint32_t)canonical};
}

static void slow(const uint8_t *text, size_t len, lfs_arena *arena, lfs_intent *in) {
    lfs_intent_canonical(text, len, arena, in);
    if (!in->code) walk(in->canonical.p, in->canonical.p + in->canonical.len, 1, arena, in);
}

static void make_auto_id(lfs_intent *in, lfs_text source, lfs_arena *arena) {
    size_t mark = arena->used;
    uint8_t *text = lfs_arena_take(arena, source.len + in->canonical.len + 32), *p = text, digest[32];
    *p++ = 0x10;
    memcpy(p, source.p, source.len);
    p += source.len;
    *p++ = 0;
    p = lfs_u64_put(p, in->line);
    *p++ = 0;
    memcpy(p, in->canonical.p, in->canonical.len);
    p += in->canonical.len;
    lfs_sha256(text, (size_t)(p - text), digest);
    arena->used = mark;
    memcpy(in->auto_id, "~auto:", 6);
    lfs_hex_put(in->auto_id + 6, digest, 16);
    in->id = (lfs_text){in->auto_id, 38};
}

void lfs_intent_parse(const uint8_t *text, size_t len, lfs_text source, uint32_t line, lfs_arena *arena, lfs_intent *in) {
    memset(in, 0, offsetof(lfs_intent, f)); /* f itself is guarded by the bits of present */
    lfs_clear(&in->canonical, sizeof *in - offsetof(lfs_intent, canonical));
    in->line = line;
    const uint8_t *first = lfs_json_space(text, text + len), *end = text + len;
    while (end > first && lfs_json_space(end - 1, end) == end) end--;
    size_t used = (size_t)(end - first); /* white space around it does not count */
    if (used > LFS_INTENT_BYTES_MAX) {
        in->code = LFS_TOO_LARGE;
        return;
    }
    if (lfs_shape_read(first, end, arena, in)) return;
    size_t mark = arena->used;
    if (first < end && *first == '{' && (lfs_intent_quick(first, end, in) == 0 || walk_anew(first, end, arena, in) == SURE)) {
        put_canonical(in, used, arena);
    } else {
        arena->used = mark;
        in->present = 0;
        in->other_name.p = NULL;
        slow(text, len, arena, in);
        if (in->code) return;
    }
    lfs_judge(in, arena);
    if (in->code) return;
    if (in->present & BIT(F_ID)) in->id = in->f[F_ID];
    else make_auto_id(in, source, arena);
    lfs_shape_learn(&arena->shapes, first, end, in);
}

void lfs_intents_hash(lfs_intent *intents, uint32_t n) {
    const uint8_t *texts[LFS_INTENTS_TOGETHER];
    uint32_t lens[LFS_INTENTS_TOGETHER];
    uint8_t digests[LFS_INTENTS_TOGETHER][32], *out[LFS_INTENTS_TOGETHER];
    for (uint32_t i = 0; i < n;) {
        uint32_t together = 0;
        for (; i < n && together < LFS_INTENTS_TOGETHER; i++) {
            if (intents[i].code) continue;
            texts[together] = intents[i].canonical.p;
            lens[together] = intents[i].canonical.len;
            out[together++] = intents[i].hash;
        }
        lfs_sha256_texts(texts, lens, together, digests[0]);
        for (uint32_t k = 0; k < together; k++) memcpy(out[k], digests[k], 32);
    }
}
