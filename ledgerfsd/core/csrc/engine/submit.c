/* T1: judging one submission. */
#include "engine.h"
#include <stdlib.h>
#include "lfs_json.h"

#define COMMON_LINE 128 /* bytes of an intent, to guess how many results there will be */
#define FETCH_AFTER 6 /* intents */
#define HAND_OVER_EARLY 1024 /* a long submission gives the writer something as soon as it is idle, but no crumbs */
#define ALIGNED 64 /* a batch that begins at a multiple of this shares nearly all nodes of its own tree with the log's: see lfs_frontier_append_batch */

lfs_result *lfs_result_add(lfs_ticket *t) {
    if (t->n == t->size) {
        t->size = t->size ? 2 * t->size : 4 + (uint32_t)(t->len / COMMON_LINE);
        t->results = lfs_grow(t->results, t->size * sizeof *t->results);
    }
    lfs_result *result = &t->results[t->n++];
    memset(result, 0, sizeof *result);
    result->index = -1;
    return result;
}

static void note_name(lfs_ticket *t, lfs_result *result, const lfs_intent *in) {
    if (in->field != F_OTHER || t->names_len > 65536) return;
    lfs_text name = in->other_name;
    t->names = lfs_grow(t->names, t->names_len + name.len + 1);
    uint8_t *at = (uint8_t *)t->names + t->names_len;
    size_t len = name.len;
    if (memchr(name.p, '\\', len)) len = lfs_json_unescape(name.p - 1, name.p + name.len + 1, at);
    else memcpy(at, name.p, len);
    at[len] = 0;
    result->name = 1 + t->names_len;
    t->names_len += (uint32_t)len + 1;
}

static void refuse_all(lfs_ticket *t, int code) {
    lfs_result *result = lfs_result_add(t);
    result->line = t->first_line;
    result->code = (int16_t)code;
}

/* The next line that is not empty; its number in *line. Returns 0 at the end. */
static int next_line(lfs_ticket *t, const uint8_t **p, uint32_t *line, lfs_text *out) {
    const uint8_t *end = t->data + t->len;
    while (*p < end) {
        const uint8_t *newline = memchr(*p, '\n', (size_t)(end - *p)), *stop = newline ? newline : end, *begin = *p;
        *p = newline ? newline + 1 : end;
        *line = t->first_line + t->lines++;
        *out = (lfs_text){begin, (uint32_t)(stop - begin)}; /* whole: offsets count from its beginning */
        if (lfs_json_space(begin, stop) < stop) return 1;
    }
    return 0;
}

static void group_room(lfs_engine *e) {
    lfs_group *g = e->ledger.group;
    int aligned = (e->ledger.next_index + 1) % ALIGNED == 0; /* so the next batch would begin, behind the seal */
    if (g->intents >= LFS_BATCH_INTENTS_MAX || g->used >= LFS_GROUP_BYTES || (aligned && g->intents > LFS_BATCH_INTENTS_MAX - ALIGNED) ||
        (aligned && g->intents >= HAND_OVER_EARLY && lfs_writer_idle(e))) lfs_hand_over(e);
}

/* Table growth moves what readers of names look at. */
static void reserve(lfs_engine *e, uint32_t intents) {
    pthread_mutex_lock(&e->names_lock);
    lfs_ledger_reserve(&e->ledger, intents);
    pthread_mutex_unlock(&e->names_lock);
}

static void apply_one(lfs_engine *e, lfs_ticket *t, lfs_intent *in, int write_rejected) {
    lfs_result *result = lfs_result_add(t);
    int moves = (in->type == I_REGISTER_CURRENCY || in->type >= I_KEY) && !in->code;
    if (moves) pthread_mutex_lock(&e->names_lock);
    lfs_apply(&e->ledger, in, t->now_ns, write_rejected, result);
    if (moves) pthread_mutex_unlock(&e->names_lock);
    if (in->code) note_name(t, result, in);
    e->ledger.group->intents++;
}

/* What an intent is going to need is fetched in three steps, each some intents after the one before: while others are parsed, and not all at once, since a
 * processor waits for so many lines at a time and no more. `at` is the intent whose turn it is with the first. */
static void fetch_step(lfs_ledger *l, lfs_intent *intents, uint32_t n, uint32_t at) {
    if (at < n) lfs_prefetch_tables(l, &intents[at]);
    if (at >= FETCH_AFTER && at - FETCH_AFTER < n) lfs_prefetch_names(l, &intents[at - FETCH_AFTER]);
    if (at >= 2 * FETCH_AFTER && at - 2 * FETCH_AFTER < n) lfs_prefetch_accounts(l, &intents[at - 2 * FETCH_AFTER]);
}

/* The first step was taken for `fetched` of them. */
static void apply_chunk(lfs_engine *e, lfs_ticket *t, lfs_intent *intents, uint32_t n, uint32_t fetched) {
    for (uint32_t at = fetched; at < n + 2 * FETCH_AFTER; at++) fetch_step(&e->ledger, intents, n, at);
    lfs_intents_hash(intents, n);
    if (!t->dry_run) reserve(e, n);
    for (uint32_t i = 0; i < n; i++) {
        if (!t->dry_run) group_room(e);
        apply_one(e, t, &intents[i], !t->dry_run);
    }
    if (!t->dry_run && e->ledger.group->intents >= HAND_OVER_EARLY + 2 * ALIGNED && lfs_writer_idle(e)) lfs_hand_over(e);
}

/* The lowest code that applies is the answer: a member that is missing comes before members that are wrong. */
static void require_id(lfs_intent *in) {
    if (in->present & 1u << F_ID || (in->code && in->code <= LFS_MISSING_FIELD)) return;
    in->code = LFS_MISSING_FIELD;
    in->field = F_ID;
}

static void each_line(lfs_engine *e, lfs_ticket *t, lfs_text source) {
    lfs_intent *intents = e->chunk;
    const uint8_t *p = t->data;
    uint32_t n = 0, line;
    lfs_text text;
    while (next_line(t, &p, &line, &text)) {
        if (n == LFS_INTENTS_TOGETHER) {
            apply_chunk(e, t, intents, n, n);
            lfs_arena_reset(&e->arena);
            n = 0;
        }
        lfs_arena_ready(&e->arena);
        lfs_intent_parse(text.p, text.len, source, line, &e->arena, &intents[n]);
        if (t->ids_required) require_id(&intents[n]);
        n++;
        fetch_step(&e->ledger, intents, n, n - 1);
    }
    apply_chunk(e, t, intents, n, n);
    lfs_arena_reset(&e->arena);
}

/* What was taken back cannot be pointed at. */
static void forget(lfs_ticket *t) {
    for (uint32_t i = 0; i < t->n; i++) {
        t->results[i].index = -1;
        t->results[i].tx = t->results[i].block = 0;
    }
}

static uint32_t count_lines(const lfs_ticket *t) { return 1 + (uint32_t)lfs_newlines(t->data, t->len); }

static void each_dry(lfs_engine *e, lfs_ticket *t, lfs_text source) {
    lfs_mark mark;
    uint32_t lines = count_lines(t);
    reserve(e, lines < 1u << 20 ? lines : 1u << 20);
    lfs_scope_begin(&e->ledger, &mark);
    each_line(e, t, source);
    pthread_mutex_lock(&e->names_lock);
    lfs_scope_drop(&e->ledger, &mark);
    pthread_mutex_unlock(&e->names_lock);
    forget(t);
}

/* All or none. The intents are parsed already. */
static void all_or_none(lfs_engine *e, lfs_ticket *t, lfs_intent *intents, uint32_t n) {
    lfs_ledger *l = &e->ledger;
    lfs_mark mark;
    int malformed = 0;
    for (uint32_t i = 0; i < n; i++) malformed |= intents[i].code;
    if (malformed) {
        for (uint32_t i = 0; i < n; i++) {
            lfs_result *result = lfs_result_add(t);
            result->line = intents[i].line;
            result->code = intents[i].code ? intents[i].code : LFS_BATCH_ABORTED;
            result->offset = intents[i].offset;
            result->field = intents[i].field;
            note_name(t, result, &intents[i]);
        }
        return;
    }
    if (l->group->intents && l->group->intents + n > LFS_BATCH_INTENTS_MAX) lfs_hand_over(e);
    reserve(e, n + 1);
    lfs_intents_hash(intents, n);
    for (uint32_t i = 0; i < n; i++) lfs_prefetch_tables(l, &intents[i]);
    lfs_scope_begin(l, &mark);
    uint32_t failed = n;
    for (uint32_t i = 0; i < n && failed == n; i++) {
        apply_one(e, t, &intents[i], 0);
        if (t->results[t->n - 1].code) failed = i;
    }
    if (failed == n && !t->dry_run) {
        lfs_scope_keep(l);
        return;
    }
    pthread_mutex_lock(&e->names_lock);
    lfs_scope_drop(l, &mark);
    pthread_mutex_unlock(&e->names_lock);
    if (t->dry_run) forget(t);
    if (failed == n) return;
    uint32_t first = t->n - failed - 1;
    for (uint32_t i = 0; i < n; i++) {
        lfs_result *result = i <= failed ? &t->results[first + i] : lfs_result_add(t);
        if (i == failed) {
            if (t->dry_run || result->duplicate) continue;
            lfs_expire(l, t->now_ns); /* what had expired before the batch was taken back with it */
            lfs_reject(l, &intents[i], result->code, t->now_ns, result);
            continue;
        }
        *result = (lfs_result){.index = -1, .line = intents[i].line, .code = LFS_BATCH_ABORTED};
    }
}

/* Elements of an array, or lines: parsed whole before any is judged against the state. */
static void batch(lfs_engine *e, lfs_ticket *t, lfs_text source, const lfs_text *texts, const uint32_t *lines, uint32_t n) {
    lfs_intent *intents = lfs_grow(NULL, n * sizeof *intents);
    for (uint32_t i = 0; i < n; i++) {
        lfs_arena_ready(&e->arena);
        lfs_intent_parse(texts[i].p, texts[i].len, source, lines[i], &e->arena, &intents[i]);
    }
    all_or_none(e, t, intents, n);
    lfs_arena_reset(&e->arena);
    free(intents);
}

typedef struct { lfs_text *texts; uint32_t *lines; uint32_t n; } pieces;

static void piece_add(pieces *p, lfs_text text, uint32_t line) {
    if (!(p->n & (p->n - 1))) { /* at powers of two */
        p->texts = lfs_grow(p->texts, (2ull * p->n + 1) * sizeof *p->texts);
        p->lines = lfs_grow(p->lines, (2ull * p->n + 1) * sizeof *p->lines);
    }
    p->texts[p->n] = text;
    p->lines[p->n++] = line;
}

static void atomic_batch(lfs_engine *e, lfs_ticket *t, lfs_text source, pieces *p) {
    if (p->n > LFS_BATCH_INTENTS_MAX) refuse_all(t, LFS_TOO_MANY_INTENTS);
    else if (p->n == 0) refuse_all(t, LFS_EMPTY_BATCH);
    else batch(e, t, source, p->texts, p->lines, p->n);
    free(p->texts);
    free(p->lines);
}

static void atomic_lines(lfs_engine *e, lfs_ticket *t, lfs_text source) {
    pieces found = {0};
    const uint8_t *p = t->data;
    uint32_t line;
    lfs_text text;
    while (next_line(t, &p, &line, &text)) piece_add(&found, text, line);
    atomic_batch(e, t, source, &found);
}

static void document(lfs_engine *e, lfs_ticket *t, lfs_text source) {
    lfs_json_error err = {0, 0};
    const uint8_t *end = t->data + t->len, *first = lfs_json_space(t->data, end);
    t->lines = 1;
    if (t->system || first == end || *first != '[') { /* one intent (or nothing, or no object: its parser says which) */
        lfs_intent *in = lfs_grow(NULL, sizeof *in);
        lfs_mark mark;
        lfs_arena_ready(&e->arena);
        if (t->system) lfs_system_parse(t->data, t->len, t->first_line, &e->arena, in);
        else lfs_intent_parse(t->data, t->len, source, t->first_line, &e->arena, in);
        reserve(e, 1);
        if (t->dry_run) lfs_scope_begin(&e->ledger, &mark);
        apply_chunk(e, t, in, 1, 0);
        if (t->dry_run) {
            pthread_mutex_lock(&e->names_lock);
            lfs_scope_drop(&e->ledger, &mark);
            pthread_mutex_unlock(&e->names_lock);
            forget(t);
        }
        lfs_arena_reset(&e->arena);
        free(in);
        return;
    }
    size_t begin, stop;
    int code = lfs_json_check(t->data, t->len, &begin, &stop, &err);
    if (code) {
        refuse_all(t, code);
        t->results[t->n - 1].offset = err.offset;
        return;
    }
    pieces found = {0};
    for (const uint8_t *p = lfs_json_space(first + 1, end); *p != ']'; p = lfs_json_space(p, end)) {
        if (*p == ',') p = lfs_json_space(p + 1, end);
        const uint8_t *q = lfs_json_value(p, p, end, 2, &err);
        piece_add(&found, (lfs_text){p, (uint32_t)(q - p)}, t->first_line + found.n);
        p = q;
    }
    t->lines = found.n;
    atomic_batch(e, t, source, &found);
}

void lfs_process(lfs_engine *e, lfs_ticket *t) {
    lfs_text source = {(const uint8_t *)t->source, (uint32_t)strlen(t->source)};
    if (!t->now_ns) t->now_ns = lfs_clock();
    e->ledger.now_ns = t->now_ns;
    if (e->failure_code || e->ledger.next_index > LFS_ENTRIES_MAX - (1u << 20)) {
        refuse_all(t, LFS_READ_ONLY);
        t->lines = count_lines(t);
        return;
    }
    if (t->mode == 1 || t->system) document(e, t, source);
    else if (t->mode == 2) atomic_lines(e, t, source);
    else if (t->dry_run) each_dry(e, t, source);
    else each_line(e, t, source);
}
