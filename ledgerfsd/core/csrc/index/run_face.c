/* Single runs without an engine that runs. See lfs_runs.h. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "lfs_runs.h"

static lfs_engine *engine_at(const char *dir) {
    lfs_engine *e = lfs_engine_new(dir, 1 << 20, 64);
    e->runs.dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return e;
}

int lfs_run_make(const char *dir, int kind, uint64_t first, uint64_t end, lfs_record *records, uint64_t n) {
    lfs_engine *e = engine_at(dir);
    int failed = lfs_run_write_all(&e->runs, kind, first, end, records, n, &e->runs.list[kind].runs[0]);
    e->runs.list[kind].n = !failed;
    lfs_engine_free(e);
    return failed;
}

int lfs_run_join(const char *dir, int kind, const char **names, uint32_t n) {
    lfs_engine *e = engine_at(dir);
    lfs_run_list *list = &e->runs.list[kind];
    int failed = 0;
    for (; list->n < n && !failed; list->n += !failed) failed = lfs_run_open(&list->runs[list->n], e->runs.dir, names[list->n]) ? -1 : 0;
    if (!failed) failed = lfs_run_merge(e, kind, 0, n);
    if (e->runs.damaged) failed = -1;
    lfs_engine_free(e);
    return failed;
}

void lfs_run_window(const uint64_t *records, uint32_t n, uint32_t *from, uint32_t *count) {
    lfs_run_list list = {.runs = lfs_grow(NULL, (n + 1) * sizeof(lfs_run)), .n = n};
    for (uint32_t i = 0; i < n; i++) list.runs[i].is.records = records[i];
    if (!lfs_runs_window(&list, from, count)) *count = 0;
    free(list.runs);
}

int lfs_run_past(const char *dir, const char *name, uint64_t key, uint64_t bound, lfs_past *out) {
    int folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), failed = -1;
    lfs_run run;
    memset(out, 0, sizeof *out);
    if (folder >= 0 && !lfs_run_open(&run, folder, name)) {
        failed = lfs_run_before(&run, key, bound, out);
        lfs_run_close(&run);
    }
    if (folder >= 0) close(folder);
    return failed;
}
