/* T8: a sync that T2 would have to wait for. T2 hashes the next group meanwhile, and does nothing else with it: it is written when this one is durable
 * and published. So what a crash leaves, and what a failed sync means, is what it is without this thread (FORMAT, section 3: nothing is written behind a
 * batch that is not durable yet). */
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define WORTH_IT 1024 /* entries; fewer are hashed in the time that two threads take to wake each other */

enum { IDLE, WANTED, BUSY };

static int is_done(lfs_engine *e) {
    pthread_mutex_lock(&e->lock);
    int done = e->sync == IDLE;
    pthread_mutex_unlock(&e->lock);
    return done;
}

/* fdatasync() of the file in which the last bytes written are `len` at `at`. If a group is ready its leaves are hashed meanwhile: T1 has no part in it any
 * more, so that is done without the lock. */
int lfs_sync_and_hash(lfs_engine *e, int fd, uint64_t at, uint64_t len) {
    pthread_mutex_lock(&e->lock);
    lfs_group *next = lfs_next_group(e);
    int beside = next && next->entries - next->hashed >= WORTH_IT;
    if (beside) {
        e->sync_fd = fd;
        e->sync = WANTED;
        pthread_cond_signal(&e->to_sync);
    }
    pthread_mutex_unlock(&e->lock);
    if (!beside) return fdatasync(fd);
    sync_file_range(fd, (off_t)at, (off_t)len, SYNC_FILE_RANGE_WRITE); /* a hint, as in write.c: T8 may not have a processor yet */
    while (lfs_group_hash(next) && !is_done(e)) continue;
    pthread_mutex_lock(&e->lock);
    int ours = e->sync == WANTED; /* T8 still has none: we are sooner there */
    if (ours) e->sync = IDLE;
    while (e->sync != IDLE) pthread_cond_wait(&e->to_write, &e->lock);
    int failed = e->sync_errno;
    pthread_mutex_unlock(&e->lock);
    if (ours) return fdatasync(fd);
    errno = failed;
    return failed ? -1 : 0;
}

void *lfs_sync_loop(void *context) {
    lfs_engine *e = context;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (e->sync != WANTED && e->stopping < 3) pthread_cond_wait(&e->to_sync, &e->lock);
        if (e->sync != WANTED) break;
        e->sync = BUSY;
        int fd = e->sync_fd;
        pthread_mutex_unlock(&e->lock);
        int failed = fdatasync(fd) ? errno : 0;
        pthread_mutex_lock(&e->lock);
        e->sync_errno = failed;
        e->sync = IDLE;
        pthread_cond_signal(&e->to_write);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}
