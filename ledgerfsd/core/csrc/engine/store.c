/* Files of the store: dense projections and segments. */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <dirent.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

int lfs_write_all(int fd, const uint8_t *bytes, size_t len, uint64_t at) {
    while (len) {
        ssize_t n = pwrite(fd, bytes, len, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) {
            errno = EIO;
            return -1;
        }
        bytes += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

/* -- dense files */

int lfs_dense_open(lfs_engine *e, lfs_dense *d, int dir, const char *name, uint64_t size, uint64_t most) {
    struct stat st;
    snprintf(d->name, sizeof d->name, "%s", name);
    d->fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (d->fd < 0 || fstat(d->fd, &st)) return lfs_fail_api(e, "cannot open %s: %s", name, strerror(errno));
    if ((uint64_t)st.st_size < size) return lfs_fail_api(e, "%s is shorter than the saved mark", name);
    if (ftruncate(d->fd, (off_t)size)) return lfs_fail_api(e, "cannot cut %s: %s", name, strerror(errno));
    d->size = d->allocated = size;
    d->map_len = most;
    d->map = mmap(NULL, most, PROT_READ, MAP_SHARED, d->fd, 0); /* reads stay below size; the rest is address space */
    if (d->map == MAP_FAILED) return lfs_fail_api(e, "cannot map %s: %s", name, strerror(errno));
    if (dir == e->runs_dir) {
        d->digest = XXH3_createState();
        if (!d->digest) abort();
        XXH3_64bits_reset(d->digest);
        XXH3_64bits_update(d->digest, d->map, size);
    }
    return 0;
}

void lfs_dense_close(lfs_dense *d) {
    if (d->map) munmap((void *)d->map, d->map_len);
    if (d->fd > 0) close(d->fd);
    XXH3_freeState(d->digest);
    memset(d, 0, sizeof *d);
}

int lfs_dense_reserve(lfs_engine *e, lfs_dense *d, uint64_t more) {
    (void)e;
    if (d->size + more <= d->allocated) return 0;
    uint64_t step = d->size < (1u << 20) ? 64 << 10 : 4 << 20, want = d->size + more + step;
    if (fallocate(d->fd, FALLOC_FL_KEEP_SIZE, (off_t)d->allocated, (off_t)(want - d->allocated))) {
        if (errno != EOPNOTSUPP) return -1;
    }
    d->allocated = want;
    return 0;
}

int lfs_dense_append(lfs_engine *e, lfs_dense *d, const void *bytes, uint64_t len) {
    (void)e;
    if (lfs_write_all(d->fd, bytes, len, d->size)) return -1;
    if (d->digest) XXH3_64bits_update(d->digest, bytes, len);
    d->size += len;
    return 0;
}

/* What the mark says of runs/: with one bad bit there an id would be looked for in another entry, and the intent be committed a second time. */
uint64_t lfs_runs_digest(lfs_engine *e) {
    const lfs_dense *files[] = {&e->offsets, &e->transactions, &e->blocks};
    uint64_t digests[3];
    for (int i = 0; i < 3; i++) digests[i] = XXH3_64bits_digest(files[i]->digest);
    return XXH3_64bits(digests, sizeof digests);
}

/* -- segments */

int lfs_segment_add(lfs_engine *e, int fd, uint64_t first_index, uint64_t base) {
    if (e->n_segments == LFS_SEGMENTS_MAX) {
        errno = ENFILE;
        return -1;
    }
    lfs_segment *s = &e->segments[e->n_segments];
    *s = (lfs_segment){first_index, base, fd, NULL, e->segment_bytes + LFS_SEGMENT_SLACK};
    struct stat st;
    if (fstat(fd, &st)) return -1;
    if ((uint64_t)st.st_size + LFS_SEGMENT_SLACK > s->map_len) s->map_len = (size_t)st.st_size + LFS_SEGMENT_SLACK;
    void *map = mmap(NULL, s->map_len, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return -1;
    s->map = map;
    e->n_segments++; /* last: readers look at complete ones only */
    return 0;
}

/* Past the page cache where the file system can: copying zeros into it costs as much as copying entries, and pushes out what is read. */
static int zeroed_file(lfs_engine *e, const char *name, uint64_t bytes) {
    static _Alignas(LFS_BLOCK) const uint8_t zeros[1 << 20];
    int flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, fd = openat(e->journal_dir, name, flags | O_DIRECT, 0640);
    if (fd < 0 && errno == EINVAL) fd = openat(e->journal_dir, name, flags, 0640);
    if (fd < 0) return -1;
    int failed = 0;
    bytes = (bytes + LFS_BLOCK - 1) & ~(uint64_t)(LFS_BLOCK - 1);
    for (uint64_t at = 0; at < bytes && !failed; at += sizeof zeros)
        failed = lfs_write_all(fd, zeros, bytes - at < sizeof zeros ? bytes - at : sizeof zeros, at);
    if (!failed) failed = fdatasync(fd) || fcntl(fd, F_SETFL, O_RDWR);
    if (!failed) return fd;
    int saved = errno;
    unlinkat(e->journal_dir, name, 0); /* a spare that is not whole helps nobody, and the disk may be full */
    close(fd);
    errno = saved;
    return -1;
}

/* A spare segment, zeroed ahead: writing over written blocks makes a sync several times cheaper than over merely allocated ones. Not made of the
 * last of the disk: what is committed meanwhile would find no space. */
int lfs_spare_make(lfs_engine *e) {
    struct statvfs disk;
    if (fstatvfs(e->journal_dir, &disk) || (uint64_t)disk.f_bavail * disk.f_frsize < 2 * e->segment_bytes) return -1;
    int fd = zeroed_file(e, ".spare", e->segment_bytes);
    if (fd < 0) return -1;
    close(fd);
    return 0;
}

/* T3 */
void *lfs_zero_loop(void *context) {
    lfs_engine *e = context;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (!e->zero_wanted && !e->stopping) pthread_cond_wait(&e->to_zero, &e->lock);
        if (e->stopping) break;
        pthread_mutex_unlock(&e->lock);
        int made = lfs_spare_make(e) == 0; /* if not, the writer tries for itself when it needs one, and reports why not */
        pthread_mutex_lock(&e->lock);
        e->spare_ready = made;
        e->zero_wanted = !made ? -1 : 0; /* -1: do not try again in this life */
        while (e->zero_wanted < 0 && !e->stopping) pthread_cond_wait(&e->to_zero, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

int lfs_segment_begin(lfs_engine *e, uint64_t first_index, uint64_t base) {
    char name[40];
    snprintf(name, sizeof name, "%020llu.seg", (unsigned long long)first_index);
    pthread_mutex_lock(&e->lock);
    int spare = e->spare_ready; /* if not: none, or T3 is still writing it; then it will serve the next time */
    e->spare_ready = 0;
    pthread_mutex_unlock(&e->lock);
    int fd = spare ? openat(e->journal_dir, ".spare", O_RDWR | O_CLOEXEC) : zeroed_file(e, ".next", e->segment_bytes);
    if (fd < 0) return -1;
    int renamed = renameat(e->journal_dir, spare ? ".spare" : ".next", e->journal_dir, name);
    /* If we stop here: an empty segment after the last; opening ignores it, and it is used when its turn comes. */
    if (renamed || fsync(e->journal_dir) || lfs_segment_add(e, fd, first_index, base)) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return 0;
}

static int by_name(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Open all segments; their bases are filled in by lfs_engine_open and by replay. */
int lfs_segments_open(lfs_engine *e) {
    int copy = dup(e->journal_dir);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir) return lfs_fail_api(e, "cannot list journal/: %s", strerror(errno));
    rewinddir(dir);
    uint64_t *found = lfs_grow(NULL, LFS_SEGMENTS_MAX * sizeof *found);
    uint32_t n = 0;
    for (struct dirent *entry; (entry = readdir(dir)) && n < LFS_SEGMENTS_MAX;) {
        size_t digits = strspn(entry->d_name, "0123456789");
        if (digits == 20 && strcmp(entry->d_name + 20, ".seg") == 0) found[n++] = strtoull(entry->d_name, NULL, 10);
    }
    closedir(dir);
    qsort(found, n, sizeof *found, by_name);
    int failed = 0;
    for (uint32_t i = 0; i < n && !failed; i++) {
        char name[40];
        snprintf(name, sizeof name, "%020llu.seg", (unsigned long long)found[i]);
        int fd = openat(e->journal_dir, name, O_RDWR | O_CLOEXEC);
        if (fd < 0 || lfs_segment_add(e, fd, found[i], 0)) failed = lfs_fail_api(e, "cannot open journal/%s: %s", name, strerror(errno));
    }
    if (!failed && (n == 0 || found[0] != 0)) failed = lfs_fail_api(e, "journal/ has no segment that begins at entry 0");
    free(found);
    return failed;
}

const lfs_segment *lfs_segment_at(lfs_engine *e, uint64_t offset) {
    uint32_t low = 0, high = e->n_segments;
    if (e->segments[high - 1].base <= offset) low = high - 1; /* what is read most is what has just been written */
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (e->segments[middle].base <= offset) low = middle;
        else high = middle;
    }
    return &e->segments[low];
}

/* -- projections of a batch */

void lfs_rooms(lfs_engine *e, uint32_t entries) {
    if (entries <= e->room) return;
    e->room = entries + entries / 2 + 1024;
    e->offset_room = lfs_grow(e->offset_room, e->room * sizeof *e->offset_room);
    e->leaf_room = lfs_grow(e->leaf_room, e->room * 32ull);
    e->mth_room = lfs_grow(e->mth_room, e->room * 32ull);
    e->tile_room = lfs_grow(e->tile_room, (e->room / 256 + 2) * 32ull);
}

int lfs_project_reserve(lfs_engine *e, uint64_t entries, uint64_t txs) {
    if (lfs_dense_reserve(e, &e->offsets, entries * 8) ||
        lfs_dense_reserve(e, &e->transactions, txs * 8) || lfs_dense_reserve(e, &e->blocks, 8)) return -1;
    for (int level = 0; level < LFS_LEVELS; level++)
        if (e->hashes[level].fd > 0 && lfs_dense_reserve(e, &e->hashes[level], ((entries >> (8 * level)) + 1) * 32)) return -1;
    return 0;
}

static int open_level(lfs_engine *e, int level) {
    char name[8];
    snprintf(name, sizeof name, "%d", level);
    return lfs_dense_open(e, &e->hashes[level], e->hashes_dir, name, 0, (LFS_ENTRIES_MAX * 32) >> (8 * level));
}

/* Append the batch's leaves, and for every tile that they fill its root, level by level. */
static int project_hashes(lfs_engine *e, const lfs_batch *batch) {
    if (lfs_dense_append(e, &e->hashes[0], batch->leaves, batch->n * 32ull)) return -1;
    for (int level = 1; level < LFS_LEVELS; level++) {
        lfs_dense *below = &e->hashes[level - 1], *here = &e->hashes[level];
        uint64_t full = below->size / (256 * 32);
        if (full && here->fd <= 0 && open_level(e, level)) return -1;
        if (level == 1 && batch->n_tiles && lfs_dense_append(e, here, batch->tiles, batch->n_tiles * 32)) return -1;
        while (here->fd > 0 && here->size / 32 < full) {
            uint8_t scratch[128 * 32], root[32];
            lfs_mth(below->map + here->size * 256, 256, scratch, root);
            if (lfs_dense_append(e, here, root, 32)) return -1;
        }
    }
    return 0;
}

static void dense_cut(lfs_dense *d, uint64_t size) {
    if (d->fd > 0 && d->size > size && ftruncate(d->fd, (off_t)size) == 0) d->size = d->allocated = size;
}

/* Take back what lfs_project has written of a batch that is withdrawn. Best effort: the next start cuts the files to what it replays. */
void lfs_project_undo(lfs_engine *e, const lfs_batch *batch) {
    dense_cut(&e->offsets, batch->first * 8);
    dense_cut(&e->transactions, e->counts.transactions * 8);
    dense_cut(&e->blocks, e->counts.blocks * 8);
    for (int level = 0; level < LFS_LEVELS; level++) dense_cut(&e->hashes[level], (batch->first >> (8 * level)) * 32);
}

int lfs_project(lfs_engine *e, const lfs_batch *batch) {
    uint64_t seal = batch->first + batch->n - 1;
    if (project_hashes(e, batch) || lfs_dense_append(e, &e->offsets, batch->offsets, batch->n * 8ull) ||
        lfs_dense_append(e, &e->transactions, batch->txs, batch->n_txs * 8ull) || lfs_dense_append(e, &e->blocks, &seal, 8))
        return -1;
    return 0;
}
