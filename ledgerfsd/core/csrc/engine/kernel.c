/* What the kernel holds of balance.json files: look-ups, opens, and what it has to be told of a commit. The rules, and why they are so, stand in
 * ledgerfsd/vfs/kernel.py, which keeps the same of all other files; of these it is kept here, because the front (front_read.c) answers requests about them
 * without Python. Whoever answers, T7 or Python, counts here. */
#include <stdlib.h>
#include <sys/mman.h>
#include "engine.h"

typedef struct {
    uint64_t lookups;
    uint32_t opened, dropped; /* dropped: how often its attributes were */
    uint32_t commits;         /* that touched it while it was watched */
    uint8_t asked : 1;        /* attributes that are valid for long were given since */
    uint8_t coming : 1;       /* a LOOKUP gave them, and no request has shown since that the kernel has made the inode */
    uint8_t stale : 1;        /* pages may be from before the newest commit */
    uint8_t others : 1;       /* another file of the account is held: Python says so by lfs_watch */
    uint8_t watched : 1;      /* as bit 0 of the engine's `watched` is */
} held;

struct lfs_kernel {
    pthread_mutex_t lock;
    uint64_t count, accounts;
    held of[]; /* by ordinal; touched as used */
};

static size_t bytes_of(uint64_t accounts) { return sizeof(lfs_kernel) + accounts * sizeof(held); }

lfs_kernel *lfs_kernel_new(uint64_t accounts) {
    lfs_kernel *k = mmap(NULL, bytes_of(accounts), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (k == MAP_FAILED) abort();
    pthread_mutex_init(&k->lock, NULL);
    k->accounts = accounts;
    return k;
}

void lfs_kernel_free(lfs_kernel *k) {
    if (k) munmap(k, bytes_of(k->accounts));
}

/* The file of an account, and the lock with it; NULL, and no lock, when there is no such account. */
static held *of(lfs_engine *e, uint64_t ordinal) {
    lfs_kernel *k = e->kernel;
    if (ordinal >= k->accounts) return NULL;
    pthread_mutex_lock(&k->lock);
    return &k->of[ordinal];
}

static void leave(lfs_engine *e) { pthread_mutex_unlock(&e->kernel->lock); }

/* Under the lock, after each change of what it goes by. An account is watched while a commit would change what is noted here: a balance that was told
 * of and that nobody has asked for since is not, so that a commit costs nothing for accounts that were read once, long ago. Whoever begins to read has it
 * watched before he reads the state: what is published before that, he sees; what is published after it is told. */
static void watch(lfs_engine *e, uint64_t ordinal, held *file) {
    int wanted = file->others || (file->lookups && (file->asked || file->opened || !file->stale));
    if (wanted == file->watched) return;
    file->watched = wanted;
    pthread_mutex_lock(&e->publish);
    if (wanted) e->watched[ordinal] |= 1;
    else e->watched[ordinal] &= 2;
    pthread_mutex_unlock(&e->publish);
}

int lfs_watch(lfs_engine *e, uint64_t ordinal, int on) {
    held *file = of(e, ordinal);
    if (!file) return -1;
    file->others = on != 0;
    watch(e, ordinal, file);
    leave(e);
    return 0;
}

int lfs_kernel_hold(lfs_engine *e, uint64_t ordinal) {
    held *file = of(e, ordinal);
    if (!file) return -1;
    if (!file->lookups++) {
        *file = (held){.lookups = 1, .stale = 1, .others = file->others, .watched = file->watched, .commits = file->commits};
        e->kernel->count++;
    }
    leave(e);
    return 0;
}

void lfs_kernel_forget(lfs_engine *e, uint64_t ordinal, uint64_t count) {
    held *file = of(e, ordinal);
    if (!file) return;
    if (file->lookups) {
        file->lookups -= count < file->lookups ? count : file->lookups;
        if (!file->lookups) {
            e->kernel->count--;
            watch(e, ordinal, file);
        }
    }
    leave(e);
}

uint32_t lfs_kernel_asking(lfs_engine *e, uint64_t ordinal) {
    held *file = of(e, ordinal);
    uint32_t dropped = 0;
    if (!file) return 0;
    if (file->lookups) {
        file->asked = 1;
        file->coming = 0;
        dropped = file->dropped;
        watch(e, ordinal, file);
    }
    leave(e);
    return dropped;
}

int lfs_kernel_looking(lfs_engine *e, uint64_t ordinal, uint32_t *asked) {
    if (lfs_kernel_hold(e, ordinal)) return -1;
    held *file = of(e, ordinal);
    file->asked = 1;
    *asked = file->dropped;
    watch(e, ordinal, file);
    leave(e);
    return 0;
}

int lfs_kernel_entering(lfs_engine *e, uint64_t ordinal, uint32_t asked) {
    held *file = of(e, ordinal);
    if (!file) return 0;
    int lasting = file->dropped == asked;
    file->coming |= lasting;
    leave(e);
    return lasting;
}

int lfs_kernel_coming(lfs_engine *e, uint64_t ordinal) {
    held *file = of(e, ordinal);
    if (!file) return 0;
    int coming = file->lookups && file->coming;
    leave(e);
    return coming;
}

int lfs_kernel_lasting(lfs_engine *e, uint64_t ordinal, uint32_t asked) {
    held *file = of(e, ordinal);
    if (!file) return 1;
    int lasting = !file->lookups || file->dropped == asked;
    leave(e);
    return lasting;
}

int lfs_kernel_opened(lfs_engine *e, uint64_t ordinal) {
    held *file = of(e, ordinal);
    int stale = 0;
    if (!file) return 0;
    file->coming = 0;
    if (file->lookups && !file->opened++) {
        stale = file->stale;
        file->stale = 0;
        watch(e, ordinal, file);
    }
    leave(e);
    return stale;
}

void lfs_kernel_released(lfs_engine *e, uint64_t ordinal) {
    held *file = of(e, ordinal);
    if (!file) return;
    if (file->lookups && file->opened && !--file->opened) watch(e, ordinal, file);
    leave(e);
}

uint32_t lfs_kernel_commits(lfs_engine *e, uint64_t ordinal) {
    held *file = of(e, ordinal);
    if (!file) return 0;
    uint32_t commits = file->commits;
    leave(e);
    return commits;
}

/* Under the lock. What the kernel is to be told. */
static uint8_t committed(lfs_engine *e, uint64_t ordinal, held *file) {
    if (!file->lookups) return LFS_TELL_NOTHING;
    uint8_t asked = file->asked;
    file->stale = 1;
    file->commits++;
    if (file->opened) return LFS_TELL_PAGES;
    file->asked = 0;
    file->dropped += asked;
    watch(e, ordinal, file);
    return asked ? LFS_TELL_ATTRIBUTES : LFS_TELL_NOTHING;
}

void lfs_kernel_committed(lfs_engine *e, const uint32_t *ordinals, uint32_t n, uint8_t *out) {
    for (uint32_t i = 0; i < n; i++) {
        held *file = of(e, ordinals[i]);
        out[i] = LFS_TELL_NOTHING;
        if (!file) continue;
        out[i] = committed(e, ordinals[i], file);
        leave(e);
    }
}

/* Closed meanwhile, it is not watched any more, and a commit may have come since: then its pages are dropped when it is opened next. */
void lfs_kernel_renewed(lfs_engine *e, uint64_t ordinal) {
    held *file = of(e, ordinal);
    if (!file) return;
    if (file->opened) file->stale = 0;
    leave(e);
}

uint64_t lfs_kernel_count(lfs_engine *e) {
    lfs_kernel *k = e->kernel;
    pthread_mutex_lock(&k->lock);
    uint64_t count = k->count;
    pthread_mutex_unlock(&k->lock);
    return count;
}

/* -- T2 tells the kernel by itself (front_told.c) */

uint32_t lfs_kernel_take(lfs_engine *e, uint32_t *out, uint32_t cap) {
    uint32_t n = 0;
    pthread_mutex_lock(&e->publish);
    if (!e->telling && e->n_touched <= cap)
        for (; e->n_touched; n++) e->watched[out[n] = e->touched[--e->n_touched]] &= 1;
    pthread_mutex_unlock(&e->publish);
    return n;
}

void lfs_kernel_leave(lfs_engine *e, uint32_t ordinal) {
    pthread_mutex_lock(&e->publish);
    if (e->watched[ordinal] == 1) {
        e->touched[e->n_touched++] = ordinal; /* it was taken from there, so there is room */
        e->watched[ordinal] = 3;
    }
    pthread_mutex_unlock(&e->publish);
}

uint8_t lfs_kernel_committed_unopened(lfs_engine *e, uint32_t ordinal) {
    held *file = of(e, ordinal);
    if (!file) return LFS_TELL_NOTHING;
    uint8_t tell = file->others || file->opened ? LFS_TELL_PAGES : committed(e, ordinal, file);
    leave(e);
    return tell;
}

int lfs_kernel_missed(lfs_engine *e, uint32_t ordinal) {
    held *file = of(e, ordinal);
    if (!file) return 0;
    int missed = file->lookups && file->coming;
    file->asked |= missed; /* as it was: it is to be told of once more */
    watch(e, ordinal, file);
    leave(e);
    return missed;
}
