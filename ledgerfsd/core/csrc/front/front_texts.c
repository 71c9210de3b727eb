/* Files of which every open has a text of its own, in the front (ADR 51): receipts that T2 recorded (front_told.c), and proofs of transactions that the checkpoint in
 * force covers. What is answered is what ledgerfsd/vfs answers, to the byte; of all others, and when a checkpoint has to be signed first, Python answers. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "front_read.h"

#define RECEIPTS 4096 /* the newest: fewer than receipts/ lists */
#define HANDLES 256
#define HANDLE (3ull << 61)       /* numbers of these handles: above those that Python counts from 2^62, below those of inbox files */
#define IN_FORCE_NS LFS_NS_PER_S  /* proofs.IN_FORCE_SECONDS */
#define RECEIPT_BYTES 192
#define HASH_LINE 45 /* 32 bytes in base64, and a newline */

typedef struct receipt {
    struct receipt *next; /* of its chain */
    uint64_t number, index, tx, block, ns;
    uint32_t name_len;
    char name[LFS_FRONT_NAME_MAX + 1];
} receipt;

typedef struct text { /* an open file; T7's */
    struct text *next;
    uint64_t handle;
    size_t len;
    uint8_t bytes[];
} text;

struct lfs_front_texts {
    pthread_mutex_t lock; /* over all but what is open */
    receipt of[RECEIPTS], *first[RECEIPTS];
    uint64_t recorded; /* the next takes the place of the oldest */
    uint64_t size, made_ns, keys[3]; /* of the checkpoint; size 0: there is none */
    uint8_t *note;
    size_t note_len;
    char root[PATH_MAX]; /* trusted_root.json: when it changes, the checkpoint is not in force any more */
    int signing;         /* one is on its way, and who asks for a proof that it may cover waits here */
    lfs_front_request *waiting, **waiting_tail;
    text *open[HANDLES];
    uint64_t handles;
};

lfs_front_texts *lfs_front_texts_new(void) {
    lfs_front_texts *t = calloc(1, sizeof *t); /* touched as used */
    if (!t) abort();
    pthread_mutex_init(&t->lock, NULL);
    t->handles = HANDLE;
    t->waiting_tail = &t->waiting;
    return t;
}

static void request_free(lfs_front_request *r) {
    free(r->bytes);
    free(r);
}

void lfs_front_texts_free(lfs_front_texts *t) {
    for (uint32_t i = 0; i < HANDLES; i++)
        for (text *each = t->open[i], *next; each; each = next) {
            next = each->next;
            free(each);
        }
    for (lfs_front_request *r = t->waiting, *next; r; r = next) {
        next = r->next;
        request_free(r);
    }
    pthread_mutex_destroy(&t->lock);
    free(t->note);
    free(t);
}

/* -- receipts. Called under the lock. */

static receipt **chain(lfs_front_texts *t, uint64_t number) { return &t->first[number % RECEIPTS]; }

static receipt *find(lfs_front_texts *t, uint64_t number) {
    receipt *r = *chain(t, number);
    while (r && r->number != number) r = r->next;
    return r;
}

static void drop(lfs_front_texts *t, uint64_t number) {
    receipt **at = chain(t, number);
    while (*at && (*at)->number != number) at = &(*at)->next;
    if (*at) *at = (*at)->next;
}

/* T2: before the writer has its answer. */
void lfs_front_texts_record(lfs_front_texts *t, const lfs_front_file *file, const lfs_result *result) {
    uint64_t number = file->receipt_number;
    pthread_mutex_lock(&t->lock);
    receipt *r = &t->of[t->recorded % RECEIPTS], **first = chain(t, number);
    if (t->recorded++ >= RECEIPTS && find(t, r->number) == r) drop(t, r->number);
    drop(t, number);
    *r = (receipt){.next = *first, .number = number, .index = (uint64_t)result->index, .tx = result->tx, .block = result->block, .ns = file->recorded_ns,
                   .name_len = file->text_len};
    memcpy(r->name, file->text, file->text_len);
    *first = r;
    pthread_mutex_unlock(&t->lock);
}

void lfs_front_receipt_drop(lfs_engine *e, uint64_t number) {
    lfs_front_texts *t = e->front ? e->front->texts : NULL;
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    drop(t, number);
    pthread_mutex_unlock(&t->lock);
}

#define LIT(p, text) (memcpy(p, text, sizeof(text) - 1), (p) + sizeof(text) - 1)

/* As service.receipt_text. */
static size_t receipt_text(const receipt *r, uint8_t out[RECEIPT_BYTES]) {
    uint8_t *p = lfs_u64_put(LIT(out, "{\"line\":1,\"status\":\"committed\",\"code\":\"ok\",\"index\":"), r->index);
    p = LIT(p, ",\"tx\":\"tx_");
    for (uint64_t least = 1000; least > r->tx && least > 1; least /= 10) *p++ = '0';
    p = lfs_u64_put(LIT(lfs_u64_put(p, r->tx), "\",\"block\":"), r->block);
    return (size_t)(LIT(p, "}\n") - out);
}

/* The text of a receipt, or 0: Python's. name: which it must have, or NULL. */
static size_t receipt_found(lfs_front *f, uint64_t number, const char *name, size_t len, uint8_t out[RECEIPT_BYTES], lfs_front_found *found) {
    size_t size = 0;
    pthread_mutex_lock(&f->texts->lock);
    const receipt *r = find(f->texts, number);
    if (r && (!name || (r->name_len == len && memcmp(r->name, name, len) == 0))) {
        size = receipt_text(r, out);
        *found = (lfs_front_found){.node = f->tree.receipt | number, .size = size, .ns = r->ns};
    }
    pthread_mutex_unlock(&f->texts->lock);
    return size;
}

/* -- who waits for a checkpoint */

/* To Python, as front.c passes a request on; into a buffer that can be used again for any. */
static void pass_on(lfs_front *f, lfs_front_request *r) {
    uint8_t *whole = memcpy(lfs_grow(NULL, f->buffer_bytes), r->bytes, r->len);
    uint64_t one = 1;
    free(r->bytes);
    r->bytes = whole;
    r->next = NULL;
    pthread_mutex_lock(&f->lock);
    int first = !f->requests;
    *f->requests_tail = r;
    f->requests_tail = &r->next;
    if (first && write(f->ready, &one, sizeof one) < 0) first = 0; /* it is readable: the counter is at its limit */
    pthread_mutex_unlock(&f->lock);
}

/* The checkpoint has come, or will not. Python's thread: whoever is not answered by it now is Python's. */
static void signed_or_not(lfs_front *f) {
    lfs_front_texts *t = f->texts;
    pthread_mutex_lock(&t->lock);
    lfs_front_request *r = t->waiting;
    t->waiting = NULL;
    t->waiting_tail = &t->waiting;
    t->signing = 0;
    pthread_mutex_unlock(&t->lock);
    for (lfs_front_request *next; r; r = next) {
        next = r->next;
        if (lfs_front_read_request(f, r->bytes, r->len)) request_free(r);
        else pass_on(f, r);
    }
}

/* Let a request wait for the checkpoint that is on its way, if there is one. Not an OPEN: what is open is T7's. */
static int waits(lfs_front *f, const fuse_head *h, uint64_t number) {
    lfs_front_texts *t = f->texts;
    if (lfs_read_transaction(f->engine, number) < 0) return 0;
    pthread_mutex_lock(&t->lock);
    int signing = t->signing;
    if (signing) {
        lfs_front_request *r = lfs_grow(NULL, sizeof *r);
        *r = (lfs_front_request){.bytes = memcpy(lfs_grow(NULL, h->len), h, h->len), .len = h->len};
        *t->waiting_tail = r;
        t->waiting_tail = &r->next;
    }
    pthread_mutex_unlock(&t->lock);
    return signing;
}

/* -- proofs */

void lfs_front_checkpoint(lfs_engine *e, const char *root, const uint64_t keys[3], uint64_t size, const uint8_t *note, size_t len) {
    lfs_front_texts *t = e->front ? e->front->texts : NULL;
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->note = lfs_grow(t->note, len + 1);
    memcpy(t->note, note, len);
    memcpy(t->keys, keys, sizeof t->keys);
    snprintf(t->root, sizeof t->root, "%s", root);
    t->note_len = len;
    t->size = size;
    t->made_ns = lfs_monotonic();
    pthread_mutex_unlock(&t->lock);
    signed_or_not(e->front);
}

void lfs_front_signing(lfs_engine *e, int on) {
    lfs_front_texts *t = e->front ? e->front->texts : NULL;
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->signing = on;
    pthread_mutex_unlock(&t->lock);
    if (!on) signed_or_not(e->front);
}

/* As Proofs._in_force. Under the lock. */
static int in_force(const lfs_front_texts *t, uint64_t index) {
    struct stat there;
    if (t->size <= index || lfs_monotonic() - t->made_ns >= IN_FORCE_NS || stat(t->root, &there)) return 0;
    uint64_t changed = (uint64_t)there.st_mtim.tv_sec * LFS_NS_PER_S + (uint64_t)there.st_mtim.tv_nsec;
    return t->keys[0] == there.st_ino && t->keys[1] == changed && t->keys[2] == (uint64_t)there.st_size;
}

static uint8_t *put_base64(uint8_t *p, const uint8_t hash[32]) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 30; i += 3) {
        uint32_t three = (uint32_t)hash[i] << 16 | (uint32_t)hash[i + 1] << 8 | hash[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6) *p++ = (uint8_t)digits[three >> shift & 63];
    }
    uint32_t two = (uint32_t)hash[30] << 16 | (uint32_t)hash[31] << 8;
    *p++ = (uint8_t)digits[two >> 18];
    *p++ = (uint8_t)digits[two >> 12 & 63];
    *p++ = (uint8_t)digits[two >> 6 & 63];
    *p++ = '=';
    *p++ = '\n';
    return p;
}

/* What stands before the hashes. */
static uint8_t *put_head(uint8_t *p, uint64_t index) {
    p = lfs_u64_put(LIT(p, "c2sp.org/tlog-proof@v1\nindex "), index);
    *p++ = '\n';
    return p;
}

/* The proof of a transaction, if the checkpoint in force covers it; else 0. out: NULL, or where the open file is put that is made of it. */
static int proof_found(lfs_front *f, uint64_t number, lfs_front_found *found, text **out) {
    lfs_front_texts *t = f->texts;
    uint8_t head[64], path[LFS_PATH_MAX * 32];
    int64_t index = lfs_read_transaction(f->engine, number);
    if (index < 0) return 0;
    pthread_mutex_lock(&t->lock);
    uint64_t size = in_force(t, (uint64_t)index) ? t->size : 0;
    size_t note_len = t->note_len, head_len = (size_t)(put_head(head, (uint64_t)index) - head);
    uint32_t hashes = size ? lfs_inclusion(f->engine, (uint64_t)index, size, out ? path : NULL) : 0;
    size_t len = head_len + hashes * (size_t)HASH_LINE + 1 + note_len;
    if (size && out) {
        text *made = *out = lfs_grow(NULL, sizeof *made + len);
        uint8_t *p = lfs_copy(made->bytes, head, head_len);
        for (uint32_t i = 0; i < hashes; i++) p = put_base64(p, path + 32 * i);
        *p++ = '\n';
        memcpy(p, t->note, note_len);
        made->len = len;
    }
    pthread_mutex_unlock(&t->lock);
    *found = (lfs_front_found){.node = f->tree.proof | number, .size = len};
    if (!size) return 0;
    if (lfs_entry_ns(f->engine, size - 1, &found->ns)) {
        if (out) free(*out);
        return 0;
    }
    lfs_proof_read(f->engine, (uint64_t)index, size);
    return 1;
}

/* -- requests */

int lfs_front_texts_look(lfs_front *f, const fuse_head *h, const char *name, size_t len) {
    uint8_t room[RECEIPT_BYTES];
    lfs_front_found found;
    if (!f->texts) return 0;
    if (h->nodeid == f->tree.receipts) {
        uint64_t number = lfs_receipt_number((const uint8_t *)name, len);
        if (!receipt_found(f, number, name, len, room, &found)) return 0;
    } else {
        uint64_t number = lfs_front_transaction_number(name, len, ".tlog-proof");
        if (!number) return 0;
        if (!proof_found(f, number, &found, NULL)) return waits(f, h, number);
    }
    return lfs_front_entry(f, h, &found, 0);
}

static text *text_at(lfs_front_texts *t, uint64_t handle, int take) {
    text **at = &t->open[handle % HANDLES], *found;
    while (*at && (*at)->handle != handle) at = &(*at)->next;
    if ((found = *at) && take) *at = found->next;
    return found;
}

static int opens(lfs_front *f, const fuse_head *h) {
    lfs_front_texts *t = f->texts;
    uint8_t room[RECEIPT_BYTES];
    uint64_t number = lfs_front_number(h->nodeid);
    lfs_front_found found;
    text *made;
    if (!lfs_front_only_reads(h)) return 0;
    if (lfs_front_is(h->nodeid, f->tree.receipt)) {
        size_t len = receipt_found(f, number, NULL, 0, room, &found);
        if (!len) return 0;
        made = lfs_grow(NULL, sizeof *made + len);
        memcpy(made->bytes, room, made->len = len);
    } else if (!proof_found(f, number, &found, &made)) {
        return 0;
    }
    made->handle = t->handles++;
    made->next = t->open[made->handle % HANDLES];
    t->open[made->handle % HANDLES] = made;
    struct fuse_open_out out = {.fh = made->handle, .open_flags = FOPEN_DIRECT_IO | LFS_FOPEN_NOFLUSH};
    lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return 1;
}

int lfs_front_is_text(const lfs_front *f, uint64_t node) {
    return f->texts && (lfs_front_is(node, f->tree.receipt) || lfs_front_is(node, f->tree.proof));
}

int lfs_front_texts_request(lfs_front *f, const fuse_head *h) {
    uint8_t room[RECEIPT_BYTES];
    uint64_t handle, number = lfs_front_number(h->nodeid);
    lfs_front_found found;
    const text *open;
    switch (h->opcode) {
    case FUSE_GETATTR:
        if (lfs_front_is(h->nodeid, f->tree.receipt) ? receipt_found(f, number, NULL, 0, room, &found) != 0 : proof_found(f, number, &found, NULL))
            return lfs_front_attributes(f, h, &found, 0);
        return lfs_front_is(h->nodeid, f->tree.proof) && waits(f, h, number);
    case FUSE_OPEN: return opens(f, h);
    case FUSE_READ:
    case FUSE_RELEASE:
    case FUSE_FLUSH:
        memcpy(&handle, h + 1, sizeof handle); /* it comes first in all three */
        open = text_at(f->texts, handle, h->opcode == FUSE_RELEASE);
        if (!open) return 0; /* Python's */
        if (h->opcode == FUSE_READ) return lfs_front_reads(f, h, open->bytes, open->len);
        if (h->opcode == FUSE_RELEASE) free((void *)open);
        return lfs_front_error(f, h, 0);
    default: return 0;
    }
}
