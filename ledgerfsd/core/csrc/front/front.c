/* T7: the requests of the mount, before Python sees them.
 *
 * It reads the FUSE device, answers what it can (front_answer.c; of what is only read, front_read.c) and queues the rest for pyfuse3, which takes it with lfs_front_receive
 * as it would have read it; replies and notifications of pyfuse3 go to the device as ever. It never waits for a commit, nor for Python.
 *
 * A file of its own takes this way (ADR 36):
 *
 *   CREATE → NEW → WRITE of a whole document: lfs_enqueue → WAITING → T1, T2 (T2 alone: ADR 50) → complete() in groups.c puts it into `finished`
 *   → Python, once a group commit: lfs_front_hold → tells the mount what changed → lfs_front_take, receipts and names → lfs_front_deliver
 *   → the WRITE is answered: JUDGED → FLUSH repeats it → RELEASE frees it
 *
 * or, if it is one transaction, committed, and the mount need not be told (lfs_unattended): T2 writes the receipt, notes it for Python, and answers
 * the WRITE (front_told.c).
 *
 * With the receipt the name becomes Python's; the open file stays here until it is released, or something else than this happens to it:
 * then it is handed over, in whatever state it is, before the request that Python has to see. Inode and handle numbers stay. */
#include "front.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HEADER_BYTES 4096 /* what libfuse has room for besides the data */
#define PAGES 256         /* of data, unless the kernel is told otherwise */
#define EAGER_NS 10000    /* how long T7 looks for the next request of a crowd; those of one file come that soon after each other */

/* -- to Python */

static void signal_ready(lfs_front *f) {
    uint64_t one = 1;
    if (write(f->ready, &one, sizeof one) < 0) return; /* it is readable: the counter is at its limit */
}

static uint8_t *buffer_take(lfs_front *f) { /* under the lock */
    return f->n_spare ? f->spare[--f->n_spare] : lfs_grow(NULL, f->buffer_bytes);
}

static uint8_t *forward(lfs_front *f, uint8_t *bytes, size_t len) { /* returns another buffer */
    lfs_front_request *r = lfs_grow(NULL, sizeof *r);
    *r = (lfs_front_request){.bytes = bytes, .len = len};
    pthread_mutex_lock(&f->lock);
    int first = !f->requests;
    *f->requests_tail = r;
    f->requests_tail = &r->next;
    uint8_t *other = buffer_take(f);
    if (first) signal_ready(f);
    pthread_mutex_unlock(&f->lock);
    return other;
}

static void end(lfs_front *f, int error) {
    pthread_mutex_lock(&f->lock);
    f->ended = 1;
    f->end_error = error;
    signal_ready(f);
    pthread_mutex_unlock(&f->lock);
}

/* What fuse_session_receive_buf is for pyfuse3: the next request in *bytes, which was allocated and is exchanged. Returns its length, 0 when the mount
 * has ended, or a negative errno. *handed: files were handed over or have their receipts, which is to be known before the request is looked at. */
long lfs_front_receive(void *front, void **bytes, int *handed) {
    lfs_front *f = front;
    uint64_t count;
    pthread_mutex_lock(&f->lock);
    lfs_front_request *r = f->requests;
    long len = r ? (long)r->len : f->ended ? -f->end_error : -EINTR;
    if (r) {
        f->requests = r->next;
        if (!r->next) f->requests_tail = &f->requests;
        if (*bytes && f->n_spare < LFS_FRONT_SPARE) f->spare[f->n_spare++] = *bytes;
        else free(*bytes);
        *bytes = r->bytes;
    }
    if (!f->requests && !f->ended && read(f->ready, &count, sizeof count) < 0) count = 0; /* it was not readable: fine */
    *handed = f->handed || f->n_told;
    pthread_mutex_unlock(&f->lock);
    free(r);
    return len;
}

/* What fuse_session_fd is: pyfuse3 waits on this instead of the device. */
int lfs_front_descriptor(void *front, int device) {
    lfs_front *f = front;
    f->device = device;
    return f->ready;
}

/* -- the thread */

/* FUSE_INIT, on its way to libfuse: the kernel shall not drop pages by itself when it sees a new mtime (it cannot know whether they are older), for it
 * is told which are (vfs/kernel.py), and what is stored when a balance is opened is newer than the attributes it asks for next. */
static void keep_pages(uint8_t *bytes, size_t len) {
    const struct fuse_in_header *h = (const void *)bytes;
    struct fuse_init_in *in = (void *)(h + 1);
    if (h->opcode == FUSE_INIT && len >= sizeof *h + offsetof(struct fuse_init_in, flags2)) in->flags &= ~(uint32_t)FUSE_AUTO_INVAL_DATA;
}

/* Whoever creates a file holds the folder's lock in the kernel from LOOKUP until CREATE is answered. In a crowd all others wait for that lock, and so for what T7
 * takes to wake; there it looks for the next request for a moment before it sleeps. For one writer that would be time of the processor for nothing. */
static void set_eager(lfs_front *f, int eager) {
    int flags = fcntl(f->device, F_GETFL);
    if (flags >= 0 && !fcntl(f->device, F_SETFL, eager ? flags | O_NONBLOCK : flags & ~O_NONBLOCK)) f->eager = eager;
}

static ssize_t next_request(lfs_front *f, uint8_t *bytes) {
    int crowded = lfs_front_crowded(f->engine);
    uint64_t since = 0;
    if (crowded != f->eager) set_eager(f, crowded);
    for (;;) {
        ssize_t n = read(f->device, bytes, f->buffer_bytes);
        if (n >= 0 || errno != EAGAIN || !f->eager) return n;
        uint64_t now = lfs_monotonic();
        if (!since) since = now;
        if (now - since < EAGER_NS) continue;
        struct pollfd device = {f->device, POLLIN, 0};
        if (poll(&device, 1, -1) < 0) return -1;
        since = 0;
    }
}

static void *front_loop(void *context) {
    lfs_front *f = context;
    uint8_t *bytes = lfs_grow(NULL, f->buffer_bytes);
    while (!f->stopping) {
        ssize_t n = next_request(f, bytes);
        if (n < 0 && (errno == EINTR || errno == ENOENT)) { /* ENOENT: the request was taken back meanwhile */
            continue;
        } else if (n < (ssize_t)sizeof(struct fuse_in_header)) {
            end(f, n >= 0 ? EIO : errno == ENODEV ? 0 : errno);
            break;
        } else if (!lfs_front_read_request(f, bytes, (size_t)n) && !lfs_front_answer_request(f, bytes, (size_t)n)) {
            keep_pages(bytes, (size_t)n);
            bytes = forward(f, bytes, (size_t)n);
        }
    }
    free(bytes);
    return NULL;
}

/* But for crowds it waits in read(): poll() before it would cost two calls more for most requests of a lone writer. So it takes a signal to stop it, one that does no harm
 * when somebody else sends it. */
static void interrupt(int number) { (void)number; }

static int interruptible(void) {
    struct sigaction action = {.sa_handler = interrupt};
    return sigaction(SIGURG, &action, NULL);
}

/* The kernel wants room for the largest WRITE there may be. */
static size_t buffer_bytes(void) {
    long pages = PAGES;
    FILE *limit = fopen("/proc/sys/fs/fuse/max_pages_limit", "re");
    if (limit) {
        if (fscanf(limit, "%ld", &pages) != 1 || pages < PAGES) pages = PAGES;
        fclose(limit);
    }
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE) + HEADER_BYTES;
}

/* inbox: its node; kind: what the nodes of inbox files begin with; errnos: 256 of them, by result code. */
void *lfs_front_new(lfs_engine *e, uint64_t inbox, uint64_t kind, const int *errnos) {
    lfs_front *f = lfs_grow(NULL, sizeof *f);
    memset(f, 0, sizeof *f);
    f->engine = e;
    f->inbox = inbox;
    f->kind = kind;
    memcpy(f->errnos, errnos, sizeof f->errnos);
    f->device = -1;
    f->ready = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    f->buffer_bytes = buffer_bytes();
    f->texts = lfs_front_texts_new();
    pthread_mutex_init(&f->lock, NULL);
    pthread_mutex_init(&f->telling, NULL);
    f->handed_tail = &f->handed;
    f->requests_tail = &f->requests;
    f->due_tail = &f->due;
    f->finished_tail = &f->finished;
    f->held_tail = &f->held;
    return e->front = f;
}

int lfs_front_start(lfs_engine *e) {
    lfs_front *f = e->front;
    if (f->device < 0) return 1;
    if (f->ready < 0 || interruptible()) return -1;
    int flags = fcntl(f->device, F_GETFL);
    if (flags < 0 || fcntl(f->device, F_SETFL, flags & ~O_NONBLOCK)) return -1;
    if ((errno = pthread_create(&f->thread, NULL, front_loop, f))) return -1;
    pthread_setname_np(f->thread, "lfs-front");
    pthread_mutex_lock(&f->telling);
    f->running = 1;
    pthread_mutex_unlock(&f->telling);
    return 0;
}

/* Nothing more is read; what waits for its verdict goes on. */
void lfs_front_stop(lfs_engine *e) {
    lfs_front *f = e->front;
    const struct timespec a_moment = {.tv_nsec = 100000};
    if (!f || !f->running) return;
    f->stopping = 1;
    while (pthread_tryjoin_np(f->thread, NULL)) { /* more than once: the first may come just before the read */
        pthread_kill(f->thread, SIGURG);
        nanosleep(&a_moment, NULL);
    }
    pthread_mutex_lock(&f->telling);
    f->running = 0;
    pthread_mutex_unlock(&f->telling);
}

static void free_tickets(lfs_ticket *t) {
    for (lfs_ticket *next; t; t = next) {
        next = t->next;
        free(t->front);
        lfs_ticket_free(t);
    }
}

/* With the engine, whose threads have ended. */
void lfs_front_end(lfs_engine *e) {
    lfs_front *f = e->front;
    if (!f) return;
    lfs_front_stop(e);
    lfs_front_hand_over_all(f);
    while (f->handed) {
        lfs_front_file *file = f->handed;
        f->handed = file->next_handed;
        if (file->state != FRONT_WAITING) free(file);
    }
    lfs_front_lines_end(f);
    free_tickets(f->finished);
    free_tickets(f->held);
    for (uint32_t i = 0; i < LFS_FRONT_NAMES; i++)
        for (lfs_front_name *name = f->names[i], *next; name; name = next) {
            next = name->next;
            free(name);
        }
    for (lfs_front_request *r = f->requests, *next; r; r = next) {
        next = r->next;
        free(r->bytes);
        free(r);
    }
    while (f->n_spare) free(f->spare[--f->n_spare]);
    free(f->told);
    free(f->records);
    lfs_front_texts_free(f->texts);
    close(f->ready);
    free(f);
    e->front = NULL;
}

/* -- verdicts */

uint32_t lfs_front_hold(lfs_engine *e) {
    lfs_front *f = e->front;
    uint32_t n = 0;
    if (!f) return 0;
    pthread_mutex_lock(&e->lock);
    if (f->finished) {
        *f->held_tail = f->finished;
        f->held_tail = f->finished_tail;
        f->finished = NULL;
        f->finished_tail = &f->finished;
    }
    pthread_mutex_unlock(&e->lock);
    for (lfs_ticket *t = f->held; t; t = t->next) n++;
    return n;
}

/* As service.receipt_text.cause: the first refusal, but not one that another intent of the batch brought about. */
int lfs_front_cause(const lfs_ticket *t) {
    int found = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        int code = t->results[i].code;
        if (code && code != LFS_BATCH_ABORTED) return code;
        if (!found) found = code;
    }
    return found;
}

void lfs_front_describe(lfs_front_answer *out, const lfs_front_file *file, lfs_ticket *t) {
    const lfs_result *r = t->results;
    *out = (lfs_front_answer){.number = LFS_FRONT_INODE + file->number, .created_ns = file->created_ns, .waited_ns = lfs_monotonic() - file->asked_ns, .uid = file->uid,
                              .gid = file->gid, .ticket = t, .size = file->size, .code = (int16_t)lfs_front_cause(t), .plain = (uint8_t)lfs_front_plain(t),
                              .name_len = (uint8_t)file->text_len, .recorded_ns = file->recorded_ns, .receipt_at = file->receipt_at,
                              .receipt_number = file->receipt_number, .receipt_len = file->receipt_len};
    if (out->plain) out->index = r->index, out->tx = r->tx, out->block = r->block;
    memcpy(out->name, file->text, file->text_len);
}

uint32_t lfs_front_take(lfs_engine *e, lfs_front_answer *out) {
    lfs_front *f = e->front;
    uint32_t n = 0;
    for (lfs_ticket *t = f->held; t; t = t->next)
        if (!t->front->recorded_ns) lfs_front_describe(out + n++, t->front, t); /* of the others lfs_front_told tells */
    return n;
}

void lfs_front_deliver(lfs_engine *e, uint64_t now_ns) {
    lfs_front *f = e->front;
    if (!f) return;
    lfs_ticket *t = f->held;
    f->held = NULL;
    f->held_tail = &f->held;
    lfs_front_reply_all(f, t, now_ns);
}

/* -- handing over */

int lfs_front_adopt(lfs_engine *e, lfs_front_open *out) {
    lfs_front *f = e->front;
    pthread_mutex_lock(&f->lock);
    lfs_front_file *file = f->handed;
    if (file && f->n_told) { /* one of them may be this */
        pthread_mutex_unlock(&f->lock);
        return -1;
    }
    if (file) {
        f->handed = file->next_handed;
        if (!f->handed) f->handed_tail = &f->handed;
        *out = (lfs_front_open){.number = LFS_FRONT_INODE + file->number, .handle = LFS_FRONT_HANDLE + file->number, .created_ns = file->created_ns, .uid = file->uid,
                                .gid = file->gid, .size = file->size, .code = file->code, .state = file->recorded_ns ? FRONT_JUDGED : file->state, .append = file->append};
        memcpy(out->name, file->text, file->text_len + 1);
        file->taken = 1;
        if (file->state != FRONT_WAITING) free(file);
    }
    pthread_mutex_unlock(&f->lock);
    return file != NULL;
}

void lfs_front_name_set(lfs_engine *e, const char *text, size_t len, int there) {
    lfs_front *f = e->front;
    if (!f || !lfs_front_may_take(text, len)) return;
    pthread_mutex_lock(&f->lock);
    lfs_front_name *name = lfs_front_find(f, text, len);
    if (!there) lfs_front_drop(f, text, len);
    else if (!name) lfs_front_add(f, text, len, NULL);
    pthread_mutex_unlock(&f->lock);
}

void lfs_front_receipts(lfs_engine *e, lfs_receipts *r) {
    e->front->receipts = r;
}

void lfs_front_limit(lfs_engine *e, uint32_t files) {
    lfs_front *f = e->front;
    pthread_mutex_lock(&f->lock);
    f->open_max = files;
    pthread_mutex_unlock(&f->lock);
}

void lfs_front_counts(lfs_engine *e, uint32_t *open, uint32_t *waiting, uint64_t *answered) {
    lfs_front *f = e->front;
    pthread_mutex_lock(&f->lock);
    *open = f->open;
    pthread_mutex_unlock(&f->lock);
    *waiting = atomic_load(&f->waiting);
    *answered = atomic_load(&f->answered);
}
