/* The file of the day in receipts/ (FORMAT, section 10). Records come to its end from T2 (front_told.c) and from Python (service/receipts.py). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ledger.h"
#include "lfs_core.h"

#define DATE_LEN 10

struct lfs_receipts {
    pthread_mutex_t lock;
    int file; /* of `date`, or -1 */
    char date[DATE_LEN + 1];
    char directory[PATH_MAX];
};

lfs_receipts *lfs_receipts_new(const char *directory) {
    lfs_receipts *r = lfs_grow(NULL, sizeof *r);
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    r->file = -1;
    snprintf(r->directory, sizeof r->directory, "%s", directory);
    return r;
}

static void let_go(lfs_receipts *r) {
    if (r->file >= 0) close(r->file);
    r->file = -1;
}

void lfs_receipts_close(lfs_receipts *r) {
    pthread_mutex_lock(&r->lock);
    let_go(r);
    pthread_mutex_unlock(&r->lock);
}

void lfs_receipts_free(lfs_receipts *r) {
    let_go(r);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static int open_day(lfs_receipts *r, const char *date) {
    char path[PATH_MAX + 32], last = '\n';
    struct stat stat;
    let_go(r);
    snprintf(path, sizeof path, "%s/%.*s.ndjson", r->directory, DATE_LEN, date);
    r->file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (r->file < 0) return -1;
    memcpy(r->date, date, DATE_LEN);
    if (fstat(r->file, &stat)) return -1;
    if (stat.st_size && pread(r->file, &last, 1, stat.st_size - 1) != 1) return -1;
    /* A record that a crash cut off must not swallow ours. */
    return last == '\n' || write(r->file, "\n", 1) == 1 ? 0 : -1;
}

static int64_t append(lfs_receipts *r, const uint8_t *bytes, size_t len) {
    off_t at = lseek(r->file, 0, SEEK_END);
    if (at < 0) return -errno;
    ssize_t n = write(r->file, bytes, len);
    if (n == (ssize_t)len) return at;
    int error = n < 0 ? errno : ENOSPC;
    if (n > 0 && ftruncate(r->file, at)) let_go(r); /* what was cut off is looked for when it is opened again */
    return -error;
}

int64_t lfs_receipts_append(lfs_receipts *r, const char *date, const uint8_t *bytes, size_t len) {
    pthread_mutex_lock(&r->lock);
    int64_t at;
    if ((r->file < 0 || memcmp(r->date, date, DATE_LEN) != 0) && open_day(r, date)) {
        at = errno ? -errno : -EIO;
        let_go(r);
    } else {
        at = append(r, bytes, len);
    }
    pthread_mutex_unlock(&r->lock);
    return at;
}
