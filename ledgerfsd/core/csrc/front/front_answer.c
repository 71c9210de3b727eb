/* What the front answers by itself: LOOKUP of a name that is not there, and the life of a file that is one document written at once.
 *
 * Every function looks at one request and returns 1 when it has answered it. At anything else (0) the files concerned are handed over
 * and the request goes to Python, which knows all of the protocol (ledgerfsd/service/inbox_handles.py); here is only its simplest case. */
#include "front.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include "lfs_json.h"

typedef struct fuse_in_header head;

void lfs_front_reply(lfs_front *f, uint64_t request, int error, const void *body, size_t len) {
    struct fuse_out_header out = {.len = (uint32_t)(sizeof out + len), .error = -error, .unique = request};
    struct iovec parts[] = {{&out, sizeof out}, {(void *)body, len}};
    atomic_fetch_add(&f->answered, 1);
    /* It fails when the request is gone: its mount was taken away. Then nobody waits. */
    if (writev(f->device, parts, len ? 2 : 1) < 0) return;
}

static int done(lfs_front *f, const head *h, int error) {
    lfs_front_reply(f, h->unique, error, NULL, 0);
    return 1;
}

/* The text at `offset` of a request's body, which must end with the request. NULL: it is not what we know. */
static const char *text_at(const head *h, size_t offset, size_t *len) {
    size_t whole = h->len - sizeof *h;
    const char *text = (const char *)(h + 1) + offset;
    if (whole <= offset) return NULL;
    *len = strnlen(text, whole - offset);
    return offset + *len + 1 == whole ? text : NULL;
}

/* -- names */

/* Hand over the file of a name in inbox/. */
static void yield_name(lfs_front *f, const char *text, size_t len) {
    lfs_front_name *name = lfs_front_find(f, text, len);
    if (name && name->file) lfs_front_hand_over(f, name->file);
}

static int lookup(lfs_front *f, const head *h) {
    size_t len;
    const char *text = text_at(h, 0, &len);
    if (!text || !lfs_front_may_take(text, len)) return 0;
    pthread_mutex_lock(&f->lock);
    int there = lfs_front_find(f, text, len) != NULL;
    if (there) yield_name(f, text, len);
    pthread_mutex_unlock(&f->lock);
    return there ? 0 : done(f, h, ENOENT);
}

struct fuse_attr lfs_front_inbox_attributes(uint64_t node, uint64_t size, uint64_t ns, uint32_t uid, uint32_t gid) {
    struct fuse_attr attr = {.ino = node, .size = size, .blocks = (size + 511) / 512, .mode = S_IFREG | 0644, .nlink = 1, .uid = uid, .gid = gid, .blksize = LFS_BLOCK};
    attr.atime = attr.mtime = attr.ctime = ns / LFS_NS_PER_S;
    attr.atimensec = attr.mtimensec = attr.ctimensec = (uint32_t)(ns % LFS_NS_PER_S);
    return attr;
}

static void fill(lfs_front *f, const lfs_front_file *file, struct fuse_attr *attr) {
    uint64_t ns = file->state == FRONT_JUDGED ? file->answered_ns : file->created_ns;
    *attr = lfs_front_inbox_attributes(f->kind + LFS_FRONT_INODE + file->number, file->size, ns, file->uid, file->gid);
}

static int create(lfs_front *f, const head *h) {
    const struct fuse_create_in *in = (const void *)(h + 1);
    struct { struct fuse_entry_out entry; struct fuse_open_out opened; } out = {0};
    size_t len;
    const char *text = text_at(h, sizeof *in, &len);
    if (!text || !lfs_front_may_take(text, len) || (in->flags & O_ACCMODE) == O_RDONLY) return 0;
    pthread_mutex_lock(&f->lock);
    int mine = !lfs_front_find(f, text, len) && f->open < f->open_max;
    if (mine) {
        lfs_front_file *file = lfs_front_file_new(f, text, len);
        lfs_front_note_writer(f, h->pid);
        file->uid = h->uid;
        file->gid = h->gid;
        file->append = in->flags & O_APPEND ? 1 : 0;
        fill(f, file, &out.entry.attr);
        out.entry.nodeid = out.entry.attr.ino;
        out.opened = (struct fuse_open_out){.fh = LFS_FRONT_HANDLE + file->number, .open_flags = FOPEN_DIRECT_IO};
    } else {
        yield_name(f, text, len);
    }
    pthread_mutex_unlock(&f->lock);
    if (mine) lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return mine;
}

static int rename_of(lfs_front *f, const head *h, size_t fixed, uint64_t to) {
    const char *text = (const char *)(h + 1) + fixed, *end = (const char *)h + h->len;
    if (text >= end) return 0;
    size_t len = strnlen(text, (size_t)(end - text));
    const char *other = text + len + 1;
    pthread_mutex_lock(&f->lock);
    if (h->nodeid == f->inbox) yield_name(f, text, len);
    if (to == f->inbox && other < end) yield_name(f, other, strnlen(other, (size_t)(end - other)));
    pthread_mutex_unlock(&f->lock);
    return 0;
}

static int in_inbox(lfs_front *f, const head *h) {
    size_t len;
    const char *text;
    switch (h->opcode) {
    case FUSE_LOOKUP: return lookup(f, h);
    case FUSE_CREATE: return create(f, h);
    case FUSE_UNLINK:
        if (!(text = text_at(h, 0, &len))) return 0;
        pthread_mutex_lock(&f->lock);
        yield_name(f, text, len);
        pthread_mutex_unlock(&f->lock);
        return 0;
    case FUSE_OPENDIR: /* what is listed, and when a name last came */
    case FUSE_GETATTR:
        pthread_mutex_lock(&f->lock);
        lfs_front_hand_over_all(f);
        pthread_mutex_unlock(&f->lock);
        return 0;
    default: return 0;
    }
}

/* -- files. Called under the front's lock; -1: hand it over. */

enum { HAND_OVER = -1 };

/* One whole document in the first WRITE. The scanner is that of DocumentHandle: what begins with no bracket is judged at once. */
static int is_whole(const uint8_t *bytes, size_t len) {
    lfs_json_scan scan = {0};
    return lfs_json_scan_feed(&scan, bytes, len) < 0 || scan.done;
}

static int take_write(lfs_front *f, lfs_front_file *file, const head *h) {
    const struct fuse_write_in *in = (const void *)(h + 1);
    const uint8_t *bytes = (const uint8_t *)(in + 1);
    size_t len = h->len - sizeof *h;
    if (file->state != FRONT_NEW || len < sizeof *in || len - sizeof *in != in->size || in->offset) return HAND_OVER;
    if (in->write_flags & FUSE_WRITE_CACHE || in->size > LFS_INTENT_BYTES_MAX || !is_whole(bytes, in->size)) return HAND_OVER;
    if (lfs_inflight_bytes(f->engine) > LFS_FRONT_INFLIGHT_BYTES) return HAND_OVER;
    lfs_ticket *t = lfs_ticket_new(bytes, in->size, file->text, 1);
    t->mode = 1;
    t->front = file;
    file->state = FRONT_WAITING;
    file->size = in->size;
    file->write = h->unique;
    file->asked_ns = lfs_monotonic();
    atomic_fetch_add(&f->waiting, 1);
    lfs_enqueue(f->engine, t);
    return 1; /* lfs_front_deliver replies */
}

static int verdict(lfs_front *f, const lfs_front_file *file, const head *h) {
    if (file->state == FRONT_WAITING) return HAND_OVER;
    return done(f, h, file->code ? f->errnos[file->code & 255] : 0);
}

static int attributes(lfs_front *f, const lfs_front_file *file, const head *h) {
    struct fuse_attr_out out = {0};
    fill(f, file, &out.attr);
    lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return 1;
}

static int release(lfs_front *f, lfs_front_file *file, const head *h) {
    if (file->state != FRONT_JUDGED) return HAND_OVER; /* its receipt says empty */
    lfs_front_file_remove(f, file);
    free(file);
    return done(f, h, 0);
}

static int getxattr(lfs_front *f, const head *h) {
    static const char ours[] = "user.ledgerfs.";
    size_t len;
    const char *text = text_at(h, sizeof(struct fuse_getxattr_in), &len);
    if (!text || strncmp(text, ours, sizeof ours - 1) == 0) return HAND_OVER;
    return done(f, h, ENODATA);
}

static int of_file(lfs_front *f, const head *h, uint64_t number) {
    pthread_mutex_lock(&f->lock);
    lfs_front_file *file = lfs_front_file_at(f, number);
    int answered = 0;
    if (file) {
        switch (h->opcode) {
        case FUSE_WRITE: answered = take_write(f, file, h); break;
        case FUSE_FLUSH:
        case FUSE_FSYNC: answered = verdict(f, file, h); break;
        case FUSE_RELEASE: answered = release(f, file, h); break;
        case FUSE_GETATTR: answered = attributes(f, file, h); break;
        case FUSE_GETXATTR: answered = getxattr(f, h); break;
        case FUSE_IOCTL: answered = done(f, h, ENOSYS); break; /* open() of Python asks every file whether it is a terminal */
        default: answered = HAND_OVER;
        }
        if (answered == HAND_OVER) lfs_front_hand_over(f, file);
    }
    pthread_mutex_unlock(&f->lock);
    return answered > 0;
}

/* -- all */

/* A signal for a writer that waits: it gets the verdict all the same, for the commit is on its way. */
static int interrupted(lfs_front *f, const head *h) {
    const struct fuse_interrupt_in *in = (const void *)(h + 1);
    int ours = 0;
    if (h->len < sizeof *h + sizeof *in || !atomic_load(&f->waiting)) return 0;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; !ours && i < LFS_FRONT_FILES; i++)
        for (lfs_front_file *file = f->files[i]; file; file = file->next) ours |= file->state == FRONT_WAITING && file->write == in->unique;
    pthread_mutex_unlock(&f->lock);
    return ours;
}

static int is_inbox_file(const lfs_front *f, uint64_t node) { return node >= f->kind && node < f->kind + (1ull << 56); }

/* Nothing is kept of what the kernel holds of inbox files, and it gives each back when it is closed. */
static int forgotten(lfs_front *f, const head *h) {
    if (h->opcode == FUSE_FORGET) return is_inbox_file(f, h->nodeid);
    const struct fuse_batch_forget_in *in = (const void *)(h + 1);
    const struct fuse_forget_one *each = (const void *)(in + 1);
    size_t len = h->len - sizeof *h;
    if (len < sizeof *in || (len - sizeof *in) / sizeof *each < in->count) return 0;
    for (uint32_t i = 0; i < in->count; i++)
        if (!is_inbox_file(f, each[i].nodeid)) return 0;
    return 1;
}

int lfs_front_answer_request(lfs_front *f, const uint8_t *bytes, size_t len) {
    const head *h = (const head *)bytes;
    if (h->len != len) return 0;
    if (lfs_front_take_lines(f, h)) return 1;
    if (h->opcode == FUSE_INTERRUPT) return interrupted(f, h);
    if (h->opcode == FUSE_FORGET || h->opcode == FUSE_BATCH_FORGET) return forgotten(f, h);
    if (h->opcode == FUSE_RENAME && len > sizeof *h + sizeof(struct fuse_rename_in))
        return rename_of(f, h, sizeof(struct fuse_rename_in), ((const struct fuse_rename_in *)(h + 1))->newdir);
    if (h->opcode == FUSE_RENAME2 && len > sizeof *h + sizeof(struct fuse_rename2_in))
        return rename_of(f, h, sizeof(struct fuse_rename2_in), ((const struct fuse_rename2_in *)(h + 1))->newdir);
    if (h->nodeid == f->inbox) return in_inbox(f, h);
    if (h->nodeid > f->kind + LFS_FRONT_INODE && h->nodeid < f->kind + 2 * LFS_FRONT_INODE) return of_file(f, h, h->nodeid - f->kind - LFS_FRONT_INODE);
    return 0;
}
