/* T2, when a group is durable: the receipts of the front's files that committed one transaction are written, in one piece, and noted for Python
 * to know of. Then the writers have their answer, from T2 itself where nobody has to be told first.
 *
 * Python takes what is noted before it looks at any request (lfs_front_receive), so whoever asks after close() has returned finds the receipt
 * (SEMANTICS, 1.2); else when there is much of it, or once a second. All other verdicts wait until Python has recorded them. */
#include "front.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define RECORD_BYTES 640 /* of a receipt with the longest name and the largest numbers */

static uint8_t *put(uint8_t *at, const char *text) {
    size_t len = strlen(text);
    memcpy(at, text, len);
    return at + len;
}

/* One transaction, committed: its index, number and block say all. */
int lfs_front_plain(const lfs_ticket *t) {
    const lfs_result *r = t->results;
    return t->n == 1 && !r->code && !r->duplicate && r->tx;
}

/* As service.receipts writes it. The name needs no escapes: see lfs_front_may_take. */
static uint8_t *record(uint8_t *at, const lfs_front_file *file, const lfs_result *r, const char *time) {
    at = put(at, "{\"file\":\"");
    memcpy(at, file->text, file->text_len);
    at = put(put(put(at + file->text_len, "\",\"time\":\""), time), "\",\"mode\":\"document\",\"bytes\":");
    at = lfs_u64_put(at, file->size);
    at = lfs_u64_put(put(at, ",\"results\":[{\"lines\":[1,1],\"status\":\"committed\",\"code\":\"ok\",\"index\":"), (uint64_t)r->index);
    at = lfs_u64_put(put(at, ",\"tx\":"), r->tx);
    at = lfs_u64_put(put(at, ",\"block\":"), r->block);
    return put(at, "}]}\n");
}

/* Under the front's lock. */
static void note(lfs_front *f, lfs_front_file *file, lfs_ticket *t) {
    if (f->n_told == f->told_size) {
        f->told_size = f->told_size ? 2 * f->told_size : LFS_FRONT_TOLD;
        f->told = lfs_grow(f->told, f->told_size * sizeof *f->told);
    }
    lfs_front_describe(f->told + f->n_told++, file, t);
}

void lfs_front_record(lfs_engine *e, lfs_ticket *tickets) {
    lfs_front *f = e->front;
    char time[31] = {0};
    size_t used = 0;
    uint64_t now = lfs_clock(), one = 1;
    lfs_time_put((uint8_t *)time, now);
    for (lfs_ticket *t = tickets; t; t = t->next) {
        if (!t->front || !lfs_front_plain(t)) continue;
        if (used + RECORD_BYTES > f->record_size) f->records = lfs_grow(f->records, f->record_size = 2 * (used + RECORD_BYTES));
        uint8_t *at = f->records + used;
        t->front->receipt_len = (uint32_t)(record(at, t->front, t->results, time) - at);
        t->front->receipt_at = (int64_t)used;
        t->front->receipt_number = lfs_receipt_number((const uint8_t *)t->front->text, t->front->text_len);
        used += t->front->receipt_len;
    }
    int64_t begin = used && f->receipts ? lfs_receipts_append(f->receipts, time, f->records, used) : -1;
    if (begin < 0) return; /* Python does it, or says that it cannot */
    pthread_mutex_lock(&f->lock);
    for (lfs_ticket *t = tickets; t; t = t->next) {
        lfs_front_file *file = t->front;
        if (!file || !lfs_front_plain(t)) continue;
        file->receipt_at += begin;
        file->recorded_ns = now;
        lfs_front_texts_record(f->texts, file, t->results);
        note(f, file, t);
    }
    int many = f->n_told >= LFS_FRONT_TOLD;
    pthread_mutex_unlock(&f->lock);
    if (many && write(e->wakeup, &one, sizeof one) < 0) return; /* made up for once a second */
}

uint32_t lfs_front_told(lfs_engine *e, lfs_front_answer *out, uint32_t cap) {
    lfs_front *f = e->front;
    pthread_mutex_lock(&f->lock);
    uint32_t n = f->n_told < cap ? f->n_told : cap;
    if (n) memcpy(out, f->told, n * sizeof *out);
    f->n_told -= n;
    if (f->n_told) memmove(f->told, f->told + n, f->n_told * sizeof *out);
    pthread_mutex_unlock(&f->lock);
    return n;
}

static int drop_attributes(const lfs_front *f, uint32_t ordinal) { /* never waits */
    struct fuse_notify_inval_inode_out body = {.ino = f->tree.balance | ordinal, .off = -1};
    struct fuse_out_header out = {.len = sizeof out + sizeof body, .error = FUSE_NOTIFY_INVAL_INODE};
    struct iovec parts[] = {{&out, sizeof out}, {&body, sizeof body}};
    return writev(f->device, parts, 2) < 0 ? -1 : 0;
}

/* Of what is published the kernel is told here, as far as that is balances which nobody has open; what is left in `touched` is Python's. Not while Python
 * tells: two at once would undo what the other notes (kernel.c). */
void lfs_front_tell(lfs_engine *e) {
    lfs_front *f = e->front;
    uint32_t ordinals[LFS_FRONT_TELL], n;
    pthread_mutex_lock(&f->telling); /* the device is not closed meanwhile. T7 never takes this */
    n = f->running && f->tree.balance ? lfs_kernel_take(e, ordinals, LFS_FRONT_TELL) : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t tell = lfs_kernel_committed_unopened(e, ordinals[i]);
        if (tell == LFS_TELL_ATTRIBUTES && drop_attributes(f, ordinals[i]) && lfs_kernel_missed(e, ordinals[i])) tell = LFS_TELL_PAGES;
        if (tell == LFS_TELL_PAGES) lfs_kernel_leave(e, ordinals[i]);
    }
    pthread_mutex_unlock(&f->telling);
}

/* Under the engine's lock. Returns whether it waits for Python. */
int lfs_front_finished(lfs_engine *e, lfs_ticket *t, int unattended) {
    lfs_front *f = e->front;
    int at_once = unattended && t->front->recorded_ns;
    lfs_ticket ***tail = at_once ? &f->due_tail : &f->finished_tail;
    t->next = NULL;
    **tail = t;
    *tail = &t->next;
    return !at_once;
}

/* Returns whether Python has adopted one of the files, and waits for what is noted of it. */
int lfs_front_reply_all(lfs_front *f, lfs_ticket *t, uint64_t now_ns) {
    int awaited = 0;
    for (lfs_ticket *next; t; t = next) {
        next = t->next;
        lfs_front_file *file = t->front;
        struct fuse_write_out out = {.size = file->size};
        uint64_t request = file->write;
        int code = lfs_front_cause(t);
        pthread_mutex_lock(&f->lock);
        file->code = code;
        file->answered_ns = file->recorded_ns ? file->recorded_ns : now_ns;
        file->state = FRONT_JUDGED;
        int gone = file->taken;
        pthread_mutex_unlock(&f->lock);
        awaited |= gone;
        if (gone) free(file); /* else it is freed by the RELEASE that may follow the reply */
        lfs_front_reply(f, request, code ? f->errnos[code & 255] : 0, &out, code ? 0 : sizeof out);
        atomic_fetch_sub(&f->waiting, 1);
        lfs_ticket_free(t);
    }
    return awaited;
}

/* Under the engine's lock, which is let go meanwhile. */
void lfs_front_answer_ready(lfs_engine *e) {
    lfs_front *f = e->front;
    lfs_ticket *t = f->due;
    uint64_t one = 1;
    if (!t) return;
    f->due = NULL;
    f->due_tail = &f->due;
    pthread_mutex_unlock(&e->lock);
    int awaited = lfs_front_reply_all(f, t, 0);
    if (awaited && write(e->wakeup, &one, sizeof one) < 0) awaited = 0; /* as above */
    pthread_mutex_lock(&e->lock);
}
