/* Saving and loading the projection of the state (index.lmdb holds it). The tables are copied while T1 and T2 stand still; account pages are
 * copied later, so they may be newer than the mark: replay leaves alone what an account already contains. */
#include "engine.h"
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PAGE_ACCOUNTS 64
typedef struct {
    lfs_info info;
    lfs_state state;
} record;

size_t lfs_page_bytes(void) { return PAGE_ACCOUNTS * sizeof(record); }

static void pause_threads(lfs_engine *e, int on) {
    pthread_mutex_lock(&e->lock);
    e->pause_wanted = on;
    pthread_cond_broadcast(&e->to_apply);
    while (on && !e->paused && e->running && e->stopping < 2) pthread_cond_wait(&e->quiet, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

/* -- when to save */

void lfs_saver_init(lfs_engine *e) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&e->saver.due, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&e->saver.lock, NULL);
    atomic_store(&e->saver.entries, UINT64_MAX);
}

void lfs_saver_wake(lfs_engine *e) {
    pthread_mutex_lock(&e->saver.lock);
    atomic_store(&e->saver.entries, UINT64_MAX);
    pthread_cond_broadcast(&e->saver.due);
    pthread_mutex_unlock(&e->saver.lock);
}

int lfs_save_wait(lfs_engine *e, uint64_t entries, uint64_t milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + milliseconds % 1000 * 1000000;
    until.tv_sec += (time_t)(milliseconds / 1000 + ns / LFS_NS_PER_S);
    until.tv_nsec = (long)(ns % LFS_NS_PER_S);
    pthread_mutex_lock(&e->saver.lock);
    atomic_store(&e->saver.entries, entries);
    int late = 0;
    while (!e->saver.ended && !late && atomic_load(&e->entries) < entries) {
        late = pthread_cond_timedwait(&e->saver.due, &e->saver.lock, &until) == ETIMEDOUT;
        if (atomic_load(&e->saver.entries) == UINT64_MAX) break;
    }
    atomic_store(&e->saver.entries, UINT64_MAX);
    pthread_mutex_unlock(&e->saver.lock);
    return atomic_load(&e->entries) >= entries;
}

void lfs_save_wait_end(lfs_engine *e) {
    pthread_mutex_lock(&e->saver.lock);
    e->saver.ended = 1;
    pthread_cond_broadcast(&e->saver.due);
    pthread_mutex_unlock(&e->saver.lock);
}

/* policy: leaf of the newest policy entry, closed period, incarnation; registered currencies; indexes of entries of the ledger's own */
typedef struct {
    uint8_t leaf[32];
    int32_t closed_through;
    uint32_t n_currencies, incarnation, n_system;
} policy_head;

static uint8_t *copy_tables(const lfs_ledger *l, uint64_t *bytes, uint64_t at[4]) {
    uint32_t own = l->n_currencies - l->n_iso;
    at[0] = 0;
    at[1] = at[0] + (uint64_t)l->n_holds * sizeof(lfs_hold);
    at[2] = at[1] + (uint64_t)l->n_reversed * 8;
    at[3] = *bytes = at[2] + sizeof(policy_head) + own * sizeof(lfs_currency) + l->n_system * sizeof *l->system;
    uint8_t *copy = lfs_grow(NULL, *bytes), *p = copy;
    for (uint32_t i = 0; i < l->holds_size; i++)
        if (l->holds[i].index != LFS_NONE) p = (uint8_t *)memcpy(p, &l->holds[i], sizeof(lfs_hold)) + sizeof(lfs_hold);
    for (uint32_t i = 0; i < l->reversed_size; i++)
        if (l->reversed[i]) p = (uint8_t *)memcpy(p, &l->reversed[i], 8) + 8;
    policy_head head = {.closed_through = l->closed_through, .n_currencies = own, .incarnation = (uint32_t)l->incarnation, .n_system = l->n_system};
    memcpy(head.leaf, l->policy_leaf, 32);
    p = (uint8_t *)memcpy(p, &head, sizeof head) + sizeof head;
    p = (uint8_t *)memcpy(p, l->currencies + l->n_iso, own * sizeof(lfs_currency)) + own * sizeof(lfs_currency);
    if (l->n_system) memcpy(p, l->system, l->n_system * sizeof *l->system);
    return copy;
}

static int sync_projections(lfs_engine *e) {
    lfs_dense *files[] = {&e->offsets, &e->transactions, &e->blocks};
    for (int i = 0; i < 3; i++)
        if (fdatasync(files[i]->fd)) return lfs_fail_api(e, "cannot sync runs/%s: %s", files[i]->name, strerror(errno));
    for (int i = 0; i < LFS_LEVELS; i++)
        if (e->hashes[i].fd > 0 && fdatasync(e->hashes[i].fd))
            return lfs_fail_api(e, "cannot sync hashes/%s: %s", e->hashes[i].name, strerror(errno));
    if (fsync(e->runs_dir) || fsync(e->hashes_dir)) return lfs_fail_api(e, "cannot sync runs/: %s", strerror(errno));
    return 0;
}

int lfs_save_begin(lfs_engine *e, uint8_t *mark) {
    pause_threads(e, 1);
    /* After a failure memory runs ahead of the journal for ever: what is on disk already is the best there is. */
    int usable = !e->failure_code;
    if (usable) {
        lfs_mark_write(e, mark);
        lfs_runs_target(e);
        free(e->saved_table);
        e->saved_table = copy_tables(&e->ledger, &e->saved_bytes, e->saved_at);
        uint64_t words = ((uint64_t)e->ledger.n_accounts >> 12) + 1;
        pthread_mutex_lock(&e->publish);
        e->saving = lfs_grow(e->saving, words * 8);
        memcpy(e->saving, e->dirty, words * 8);
        memset(e->dirty, 0, words * 8);
        pthread_mutex_unlock(&e->publish);
        e->saving_words = words;
    }
    pause_threads(e, 0);
    if (!usable) return lfs_fail_api(e, "the ledger is read-only");
    int refused = lfs_runs_flush(e), unsynced = refused ? 0 : lfs_runs_sync(e);
    free(e->saved_runs);
    e->saved_runs = NULL;
    e->saved_runs_len = refused ? 0 : lfs_runs_dump(&e->runs, &e->saved_runs);
    lfs_runs_flushed(e);
    if (refused) return lfs_fail_api(e, "indexes/ cannot be written: %s", strerror(refused));
    /* What a failed sync lost counts as clean from now on, so a second try would succeed and the mark would vouch for it. */
    int failed = unsynced ? unsynced : sync_projections(e);
    if (failed) lfs_turn_read_only(e, LFS_STORAGE_ERROR, e->error);
    return failed;
}

size_t lfs_save_table(lfs_engine *e, const char *name, const uint8_t **bytes) {
    if (strcmp(name, "indexes") == 0) {
        *bytes = e->saved_runs;
        return e->saved_runs_len;
    }
    int i = strcmp(name, "holds") == 0 ? 0 : strcmp(name, "reversed") == 0 ? 1 : 2;
    *bytes = e->saved_table + e->saved_at[i];
    return e->saved_at[i + 1] - e->saved_at[i];
}

int lfs_read_page(lfs_engine *e, uint64_t page, uint8_t *out, size_t cap) {
    record *records = (record *)out;
    if (cap < lfs_page_bytes()) return -1;
    pthread_mutex_lock(&e->publish);
    for (uint64_t i = 0; i < PAGE_ACCOUNTS; i++) {
        uint64_t ordinal = page * PAGE_ACCOUNTS + i;
        if (ordinal >= e->counts.accounts) {
            memset(&records[i], 0, sizeof records[i]);
            continue;
        }
        records[i].info = e->ledger.info[ordinal];
        records[i].state = e->published[ordinal];
    }
    pthread_mutex_unlock(&e->publish);
    return 0;
}

uint64_t lfs_save_pages(lfs_engine *e, uint32_t *out, uint64_t cap) {
    uint64_t n = 0;
    for (uint64_t word = 0; word < e->saving_words; word++)
        for (uint64_t left = e->saving[word]; left; left &= left - 1, n++)
            if (n < cap) out[n] = (uint32_t)(word * 64 + (uint64_t)__builtin_ctzll(left));
    return n;
}

void lfs_save_end(lfs_engine *e, int ok) {
    if (!ok && e->saving) { /* what was not saved is still to be saved */
        pthread_mutex_lock(&e->publish);
        for (uint64_t i = 0; i < e->saving_words; i++) e->dirty[i] |= e->saving[i];
        pthread_mutex_unlock(&e->publish);
    }
    if (ok) lfs_runs_saved(&e->runs);
    free(e->saved_table);
    free(e->saving);
    e->saved_table = NULL;
    e->saving = NULL;
    e->saving_words = 0;
}

/* -- loading */

int lfs_load_page(lfs_engine *e, uint32_t page, const uint8_t *bytes, size_t len) {
    if (len != lfs_page_bytes()) return lfs_fail_api(e, "an account page has the wrong size");
    for (uint64_t i = 0; i < PAGE_ACCOUNTS; i++) {
        uint64_t ordinal = (uint64_t)page * PAGE_ACCOUNTS + i;
        if (ordinal >= e->ledger.n_accounts) break;
        record one;
        memcpy(&one, bytes + i * sizeof one, sizeof one);
        e->ledger.info[ordinal] = one.info;
        e->ledger.state[ordinal] = one.state;
    }
    return 0;
}

int lfs_load_table(lfs_engine *e, const char *name, const uint8_t *bytes, size_t len) {
    lfs_ledger *l = &e->ledger;
    if (strcmp(name, "indexes") == 0) return lfs_runs_load(e, bytes, len);
    if (strcmp(name, "holds") == 0) {
        for (size_t at = 0; at + sizeof(lfs_hold) <= len; at += sizeof(lfs_hold)) {
            lfs_hold hold;
            memcpy(&hold, bytes + at, sizeof hold);
            lfs_hold_put(l, &hold);
            if (hold.status == H_OPEN && hold.expires_ns) lfs_due_push(l, hold.expires_ns, hold.index);
        }
    } else if (strcmp(name, "reversed") == 0) {
        for (size_t at = 0; at + 8 <= len; at += 8) {
            uint64_t tx;
            memcpy(&tx, bytes + at, 8);
            lfs_reversed_put(l, tx);
        }
    } else {
        policy_head head;
        if (len < sizeof head) return lfs_fail_api(e, "the saved policy is cut short");
        memcpy(&head, bytes, sizeof head);
        size_t currencies = head.n_currencies * sizeof(lfs_currency);
        if (len != sizeof head + currencies + head.n_system * sizeof *l->system) return lfs_fail_api(e, "the saved policy is cut short");
        memcpy(l->policy_leaf, head.leaf, 32);
        l->closed_through = head.closed_through;
        e->counts.incarnation = l->incarnation = head.incarnation;
        l->n_system = l->system_size = head.n_system;
        l->system = lfs_grow(l->system, (l->n_system + 1) * sizeof *l->system);
        memcpy(l->system, bytes + sizeof head + currencies, l->n_system * sizeof *l->system);
        for (uint32_t i = 0; i < head.n_currencies; i++) {
            lfs_currency unit;
            memcpy(&unit, bytes + sizeof head + i * sizeof unit, sizeof unit);
            lfs_currency_add(l, (lfs_text){(const uint8_t *)unit.code, (uint32_t)strlen(unit.code)}, unit.decimals);
        }
    }
    return 0;
}

int lfs_load_done(lfs_engine *e) {
    lfs_ledger *l = &e->ledger;
    lfs_table_reserve(&l->names, l->n_accounts);
    for (uint32_t i = 0; i < l->n_accounts; i++) {
        const lfs_info *info = &l->info[i];
        if (!info->name_len || info->name_len > 64 || info->currency >= l->n_currencies) return lfs_fail_api(e, "account %u was not saved", i);
        lfs_table_load(&l->names, lfs_tag(l, info->name, info->name_len), i);
    }
    l->ids_from = l->ids_before_from = e->counts.entries; /* all before are in runs */
    memcpy(e->published, l->state, l->n_accounts * sizeof *e->published);
    return 0;
}
