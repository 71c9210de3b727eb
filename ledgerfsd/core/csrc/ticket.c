/* Finished submissions as Python reads them. */
#include "engine.h"
#include <stdlib.h>

void lfs_ticket_free(lfs_ticket *t) {
    free(t->data);
    free(t->results);
    free(t->names);
    free(t);
}

uint64_t lfs_ticket_number(const lfs_ticket *t) { return t->number; }

uint32_t lfs_ticket_results(const lfs_ticket *t, const lfs_result **results) {
    *results = t->results;
    return t->n;
}

uint32_t lfs_ticket_lines(const lfs_ticket *t) { return t->lines; }

uint32_t lfs_ticket_committed(const lfs_ticket *t) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++) n += t->results[i].code == 0;
    return n;
}

int64_t lfs_ticket_refused(const lfs_ticket *t) {
    for (uint32_t i = 0; i < t->n; i++)
        if (t->results[i].code) return i;
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
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        if (i && follows(&t->results[i - 1], &t->results[i])) continue;
        if (n < cap) starts[n] = i;
        n++;
    }
    return n;
}
