/* One line read by itself. See lfs_shape.h. */
#include "intent.h"
#include <stdio.h>
#include "lfs_shape.h"

static uint8_t *put_text(uint8_t *p, const char *name, lfs_text text) {
    p += sprintf((char *)p, "%s %u ", name, text.p ? text.len : 0);
    if (text.p) p = lfs_copy(p, text.p, text.len);
    *p++ = '\n';
    return p;
}

static uint8_t *put_amount(uint8_t *p, const char *name, const lfs_amount *amount) {
    return p + sprintf((char *)p, "%s %016llx%016llx %u\n", name, (unsigned long long)(amount->value >> 64), (unsigned long long)amount->value, amount->decimals);
}

static uint8_t *put_members(uint8_t *p, const lfs_intent *in) {
    for (uint32_t rest = in->present; rest; rest &= rest - 1) {
        int field = __builtin_ctz(rest);
        p = put_text(p, LFS_FIELD_NAMES[field], in->f[field]);
    }
    for (uint32_t i = 0; i < in->n_postings; i++) {
        const lfs_posting *posting = &in->postings[i];
        p += sprintf((char *)p, "posting %u, unit %u, hash %llu, ordinal %u\n", posting->side, posting->unit, (unsigned long long)posting->name_hash, posting->ordinal);
        p = put_text(put_text(put_text(p, "account", posting->account), "currency", posting->currency), "text", posting->amount_text);
        p = put_amount(p, "amount", &posting->amount);
    }
    return p;
}

static size_t describe(const lfs_intent *in, uint8_t *out) {
    uint8_t *p = out;
    p += sprintf((char *)p, "code %d, field %u, offset %u, line %u, present %x\n", in->code, in->field, in->offset, in->line, in->present);
    if (in->code) return (size_t)(put_text(p, "other", in->other_name) - out); /* what else is there is nobody's */
    p += sprintf((char *)p, "type %u, class %u, normal %u, limit %u, has_amount %u, day %d, decimals %u, expires %llu, of %llu, hash %llu\n", in->type,
                 in->class_, in->normal, in->limit, in->has_amount, in->day, in->decimals, (unsigned long long)in->expires_ns, (unsigned long long)in->of_tx,
                 (unsigned long long)in->id_hash);
    p = put_text(put_text(p, "canonical", in->canonical), "id", in->id);
    p = put_amount(put_amount(put_amount(p, "amount", &in->amount), "second", &in->second), "overdraft", &in->overdraft);
    return (size_t)(put_members(p, in) - out);
}

int lfs_shape_trial(const uint8_t *before, size_t before_len, const uint8_t *text, size_t len, int quickly, uint8_t *out, size_t *out_len) {
    lfs_arena arena = {0};
    lfs_intent first, in;
    lfs_text source = {(const uint8_t *)"trial", 5};
    lfs_arena_ready(&arena);
    lfs_intent_parse(before, before_len, source, 1, &arena, &first);
    int can = arena.shapes.way == LFS_SHAPES_READ;
    lfs_arena_reset(&arena);
    if (!quickly) arena.shapes.way = LFS_SHAPES_OFF;
    uint32_t taken = arena.shapes.taken;
    lfs_intent_parse(text, len, source, 2, &arena, &in);
    taken = arena.shapes.taken - taken;
    *out_len = describe(&in, out);
    lfs_arena_free(&arena);
    return can ? (int)taken : -1;
}
