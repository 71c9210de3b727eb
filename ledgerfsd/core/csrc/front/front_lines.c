/* Large WRITEs of *.ndjson, without Python (ADR 57).
 *
 * The file is Python's (ledgerfsd/service/inbox_lines.py), which lends it: where the next WRITE must begin, the number of the next line, and the line that has
 * no end yet. Until Python has it back (lfs_front_recall), which it does before it does anything else with the file, WRITEs that go on from there and are large
 * enough to be pipelined (SEMANTICS, 4.2) are taken here: whole lines become a submission, and the WRITE is answered. GETATTR is answered as well. What is not
 * as simple as that goes to Python as ever, and so does every WRITE once an intent was refused.
 *
 * Submissions stay here until the file goes back, so that Python is not woken for each. Then it gets all of them as one, or as two, because who writes on waits
 * for half of them (inbox_lines.py): what one more costs it is some 30 microseconds, in which T1 judges forty intents. How many there can be is
 * bounded by `credit`. */
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include "front.h"
#include "lfs_json.h"

struct lfs_front_lines {
    lfs_front_lines *next;
    lfs_front_loan loan; /* as it was lent, but for the texts; `credit` is what is left of it */
    lfs_front_lent is;   /* as it goes back */
    uint32_t sent_size;
    char source[256];
    lfs_front_sent *sent;
    lfs_ticket **tickets; /* the same ones */
    _Atomic int refused;
    uint8_t pending[LFS_INTENT_BYTES_MAX];
};

static lfs_front_lines **lines_of(lfs_front *f, uint64_t handle) { /* under the lock */
    lfs_front_lines **at = &f->lent;
    while (*at && (*at)->loan.handle != handle) at = &(*at)->next;
    return at;
}

int lfs_front_lend(lfs_engine *e, const lfs_front_loan *loan) {
    lfs_front *f = e->front;
    if (!f || loan->n_pending > LFS_INTENT_BYTES_MAX) return 0;
    lfs_front_lines *l = lfs_grow(NULL, sizeof *l);
    lfs_clear(l, offsetof(lfs_front_lines, pending));
    l->loan = *loan;
    l->is = (lfs_front_lent){.position = loan->position, .line = loan->line, .n_pending = loan->n_pending, .pending = l->pending};
    snprintf(l->source, sizeof l->source, "%s", loan->source);
    memcpy(l->pending, loan->pending, loan->n_pending);
    pthread_mutex_lock(&f->lock);
    l->next = f->lent;
    f->lent = l;
    pthread_mutex_unlock(&f->lock);
    return 1;
}

/* Under the engine's lock: those from `first` on that have so many bytes become one, which the first stands for. Returns the one behind them. */
static uint32_t chain(lfs_front_lines *l, uint32_t first, uint64_t bytes, lfs_front_sent *whole) {
    lfs_ticket *head = l->tickets[first], **more = &head;
    uint32_t i = first;
    *whole = (lfs_front_sent){.number = head->number};
    while (i < l->is.n_sent && (i == first || whole->size < bytes)) {
        lfs_ticket *t = l->tickets[i];
        *more = t;
        more = &t->more;
        t->lines_of = NULL;
        t->head = head;
        head->left += !t->finished;
        whole->size += l->sent[i].size;
        whole->asked_ns = l->sent[i++].asked_ns;
    }
    return i;
}

/* The same. 1: something is finished already, and goes to lfs_take. */
static int give_back(lfs_engine *e, lfs_front_lines *l) {
    lfs_front_sent parts[2];
    uint64_t bytes = 0;
    uint32_t n = 0;
    int finished = 0;
    for (uint32_t i = 0; i < l->is.n_sent; i++) bytes += l->sent[i].size;
    for (uint32_t i = 0; i < l->is.n_sent; n++) {
        lfs_ticket *head = l->tickets[i];
        i = chain(l, i, n ? bytes : (bytes + 1) / 2, &parts[n]);
        if (head->left) continue;
        head->next = NULL;
        *e->done_tail = head;
        e->done_tail = &head->next;
        finished = 1;
    }
    if (n) memcpy(l->sent, parts, n * sizeof *parts);
    l->is.n_sent = n;
    return finished;
}

const lfs_front_lent *lfs_front_recall(lfs_engine *e, uint64_t handle) {
    lfs_front *f = e->front;
    uint64_t one = 1;
    if (!f) return NULL;
    pthread_mutex_lock(&f->lock);
    lfs_front_lines **at = lines_of(f, handle), *l = *at;
    if (l) *at = l->next;
    pthread_mutex_unlock(&f->lock);
    if (!l) return NULL;
    pthread_mutex_lock(&e->lock);
    int finished = give_back(e, l);
    pthread_mutex_unlock(&e->lock);
    if (finished && write(e->wakeup, &one, sizeof one) < 0) one = 0; /* made up for once a second */
    l->is.refused = atomic_load(&l->refused);
    l->is.sent = l->sent;
    return &l->is;
}

void lfs_front_lent_free(const lfs_front_lent *lent) {
    lfs_front_lines *l = (lfs_front_lines *)((uint8_t *)lent - offsetof(lfs_front_lines, is));
    free(l->sent);
    free(l->tickets);
    free(l);
}

void lfs_front_lines_end(lfs_front *f) {
    for (lfs_front_lines *l; (l = f->lent);) {
        f->lent = l->next;
        for (uint32_t i = 0; i < l->is.n_sent; i++) lfs_ticket_free(l->tickets[i]); /* no thread is left: they are finished */
        lfs_front_lent_free(&l->is);
    }
}

/* Under the engine's lock. */
void lfs_front_lines_finished(lfs_ticket *t) {
    lfs_front_lines *l = t->lines_of;
    if (lfs_ticket_refused(t) >= 0) atomic_store(&l->refused, 1);
    t->finished = 1;
}

static void send(lfs_front *f, lfs_front_lines *l, lfs_ticket *t) {
    uint32_t i = l->is.n_sent++;
    if (i == l->sent_size) {
        l->sent_size = i ? 2 * i : 16;
        l->sent = lfs_grow(l->sent, l->sent_size * sizeof *l->sent);
        l->tickets = lfs_grow(l->tickets, l->sent_size * sizeof *l->tickets);
    }
    t->lines_of = l;
    l->tickets[i] = t;
    l->sent[i] = (lfs_front_sent){.asked_ns = lfs_monotonic(), .size = t->len};
    l->sent[i].number = lfs_enqueue(f->engine, t);
}

/* Under the lock. 0: it is Python's. */
static int take(lfs_front *f, lfs_front_lines *l, uint64_t offset, const uint8_t *bytes, uint32_t size) {
    if (offset != l->is.position || size < l->loan.least || atomic_load(&l->refused)) return 0;
    const uint8_t *last = memrchr(bytes, '\n', size);
    if (!last) return 0;
    uint32_t whole = (uint32_t)(last + 1 - bytes), rest = size - whole;
    uint64_t len = (uint64_t)l->is.n_pending + whole, lines = lfs_newlines(bytes, whole);
    if (rest > LFS_INTENT_BYTES_MAX || len > l->loan.credit || l->is.line + lines >= UINT32_MAX || lfs_inflight_bytes(f->engine) > LFS_FRONT_INFLIGHT_BYTES) return 0;
    send(f, l, lfs_ticket_join(f->engine, l->pending, l->is.n_pending, bytes, whole, l->source, l->is.line));
    memcpy(l->pending, last + 1, rest);
    l->is.n_pending = rest;
    l->is.line += (uint32_t)lines;
    l->is.position += size;
    l->loan.credit -= len;
    return 1;
}

static int write_of(lfs_front *f, const struct fuse_in_header *h) {
    const struct fuse_write_in *in = (const void *)(h + 1);
    size_t len = h->len - sizeof *h;
    if (len < sizeof *in || len - sizeof *in != in->size || in->fh >= LFS_FRONT_HANDLE || in->write_flags & FUSE_WRITE_CACHE) return 0;
    pthread_mutex_lock(&f->lock);
    lfs_front_lines *l = *lines_of(f, in->fh);
    int taken = l && take(f, l, in->offset, (const uint8_t *)(in + 1), in->size);
    pthread_mutex_unlock(&f->lock);
    const struct fuse_write_out out = {.size = in->size};
    if (taken) lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return taken;
}

/* What the file is open for is its size: programs ask at the beginning (cp, and whatever has buffers). */
static int getattr_of(lfs_front *f, const struct fuse_in_header *h) {
    struct fuse_attr_out out = {0};
    pthread_mutex_lock(&f->lock);
    const lfs_front_lines *l = f->lent;
    while (l && f->kind + l->loan.number != h->nodeid) l = l->next;
    if (l) out.attr = lfs_front_inbox_attributes(h->nodeid, l->is.position, l->loan.time_ns, l->loan.uid, l->loan.gid);
    pthread_mutex_unlock(&f->lock);
    if (l) lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return l != NULL;
}

int lfs_front_take_lines(lfs_front *f, const struct fuse_in_header *h) {
    return h->opcode == FUSE_WRITE ? write_of(f, h) : h->opcode == FUSE_GETATTR ? getattr_of(f, h) : 0;
}
