/* Submissions: their memory, and how Python reads them when they are finished. */
#include "engine.h"
#include <stdlib.h>

#define TEXT_MAX (4u << 20) /* of a room that is kept */

static lfs_ticket *ticket_with(lfs_room room, const uint8_t *head, size_t head_len, const uint8_t *data, size_t data_len, const char *source, uint32_t first_line) {
    size_t len = head_len + data_len;
    lfs_ticket *t = lfs_grow(NULL, sizeof *t);
    memset(t, 0, sizeof *t);
    t->data = room.bytes ? room.bytes : lfs_grow(NULL, len + 64); /* the string scanner reads in strides */
    t->room = room.size;
    if (head_len) memcpy(t->data, head, head_len);
    memcpy(t->data + head_len, data, data_len);
    memset(t->data + len, 0, 64);
    t->len = len;
    t->first_line = first_line;
    snprintf(t->source, sizeof t->source, "%s", source);
    return t;
}

lfs_ticket *lfs_ticket_new(const uint8_t *data, size_t len, const char *source, uint32_t first_line) {
    return ticket_with((lfs_room){0}, NULL, 0, data, len, source, first_line);
}

/* The kernel clears memory before it gives it, which takes longer than to copy the text. So the rooms of long texts go round. */
lfs_ticket *lfs_ticket_join(lfs_engine *e, const uint8_t *head, size_t head_len, const uint8_t *data, size_t data_len, const char *source, uint32_t first_line) {
    lfs_room room = {0};
    size_t len = head_len + data_len;
    if (len >= LFS_LONG_TEXT && len + 64 <= TEXT_MAX) {
        pthread_mutex_lock(&e->lock);
        e->texts_idle = 0;
        if (e->n_texts) room = e->texts[--e->n_texts];
        pthread_mutex_unlock(&e->lock);
        if (room.size < len + 64) {
            free(room.bytes);
            room.size = (len + 64 + len / 8 + 4095) & ~(size_t)4095; /* the next may be somewhat longer */
            if (room.size > TEXT_MAX) room.size = TEXT_MAX;
            room.bytes = lfs_grow(NULL, room.size);
        }
    }
    return ticket_with(room, head, head_len, data, data_len, source, first_line);
}

lfs_ticket *lfs_ticket_take(lfs_engine *e, const uint8_t *data, size_t len, const char *source, uint32_t first_line) {
    return lfs_ticket_join(e, NULL, 0, data, len, source, first_line);
}

void lfs_text_return(lfs_engine *e, lfs_ticket *t) {
    if (!t->room) return;
    lfs_room room = {t->data, t->room};
    t->data = NULL;
    t->room = 0;
    pthread_mutex_lock(&e->lock);
    if (e->n_texts < LFS_TEXTS) {
        e->texts[e->n_texts++] = room;
        room.bytes = NULL;
    }
    pthread_mutex_unlock(&e->lock);
    free(room.bytes);
}

void lfs_texts_free(lfs_engine *e) {
    while (e->n_texts) free(e->texts[--e->n_texts].bytes);
}

void lfs_ticket_free(lfs_ticket *t) {
    for (lfs_ticket *more; t; t = more) {
        more = t->more;
        free(t->data);
        free(t->results);
        free(t->names);
        free(t);
    }
}

uint64_t lfs_ticket_number(const lfs_ticket *t) { return t->number; }

uint32_t lfs_ticket_count(const lfs_ticket *t) {
    uint32_t n = 0;
    for (; t; t = t->more) n += t->n;
    return n;
}

const lfs_result *lfs_ticket_result(const lfs_ticket *t, uint32_t position, const char **name) {
    for (; t && position >= t->n; t = t->more) position -= t->n;
    if (!t) return NULL;
    *name = lfs_ticket_name(t, t->results[position].name);
    return &t->results[position];
}

uint32_t lfs_ticket_lines(const lfs_ticket *t) {
    uint32_t n = 0;
    for (; t; t = t->more) n += t->lines;
    return n;
}

uint32_t lfs_ticket_committed(const lfs_ticket *t) {
    uint32_t n = 0;
    for (; t; t = t->more)
        for (uint32_t i = 0; i < t->n; i++) n += t->results[i].code == 0;
    return n;
}

int64_t lfs_ticket_refused(const lfs_ticket *t) {
    for (int64_t before = 0; t; before += t->n, t = t->more)
        for (uint32_t i = 0; i < t->n; i++)
            if (t->results[i].code) return before + i;
    return -1;
}

const char *lfs_ticket_name(const lfs_ticket *t, uint32_t name) { return name ? t->names + name - 1 : ""; }

const char *lfs_field_name(uint8_t field) { return field < F_COUNT ? LFS_FIELD_NAMES[field] : ""; }

/* b follows a: same outcome, the next line, index and number risen by one where there are any. */
static int follows(const lfs_result *a, const lfs_result *b) {
    if (a->code != b->code || a->duplicate != b->duplicate || a->block != b->block || b->line != a->line + 1) return 0;
    if (a->field != b->field || a->offset != b->offset || a->name || b->name) return 0;
    if (a->index < 0 ? b->index >= 0 : b->index != a->index + 1) return 0;
    return a->tx ? b->tx == a->tx + 1 : !b->tx;
}

uint32_t lfs_ticket_runs(const lfs_ticket *t, uint32_t *starts, uint32_t cap) {
    uint32_t n = 0, before = 0;
    const lfs_result *last = NULL;
    for (; t; before += t->n, t = t->more)
        for (uint32_t i = 0; i < t->n; last = &t->results[i++]) {
            if (last && follows(last, &t->results[i])) continue;
            if (n < cap) starts[n] = before + i;
            n++;
        }
    return n;
}
