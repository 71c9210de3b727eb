/* Requests about files that are only read, answered by the front (ADR 47): accounts/<id>/, its balance.json, transactions/<name>, of past states what
 * front_past.c knows, of receipts/ and proofs/ what front_texts.c does. What is answered is what ledgerfsd/vfs answers (tree.py, contents.py, operations.py), to the byte; what is not known here, or fails, goes to
 * Python. Node numbers are computed (vfs/nodes.py), so nothing is kept here but what the kernel holds of balances (kernel.c). Handle numbers are node numbers. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include "front_read.h"

#define NUMBER_BITS 56
#define NAME_MAX_BYTES 255 /* operations.NAME_BYTES_MAX */

void lfs_front_tree_set(lfs_engine *e, const lfs_front_tree *tree) {
    if (e->front) e->front->tree = *tree;
}

uint64_t lfs_front_number(uint64_t node) { return node & ((1ull << NUMBER_BITS) - 1); }
int lfs_front_is(uint64_t node, uint64_t kind) { return node >> NUMBER_BITS == kind >> NUMBER_BITS; }

/* -- answers */

static struct fuse_attr attributes(const lfs_front *f, const lfs_front_found *found) {
    struct fuse_attr attr = {.ino = found->node, .size = found->size, .blocks = (found->size + 511) / 512, .mode = S_IFREG | 0444, .nlink = 1,
                             .uid = f->tree.uid, .gid = f->tree.gid, .blksize = LFS_BLOCK};
    if (found->directory) attr.mode = S_IFDIR | 0555, attr.nlink = 2;
    attr.atime = attr.mtime = attr.ctime = found->ns / LFS_NS_PER_S;
    attr.atimensec = attr.mtimensec = attr.ctimensec = (uint32_t)(found->ns % LFS_NS_PER_S);
    return attr;
}

int lfs_front_error(lfs_front *f, const fuse_head *h, int error) {
    lfs_front_reply(f, h->unique, error, NULL, 0);
    return 1;
}

int lfs_front_entry(lfs_front *f, const fuse_head *h, const lfs_front_found *found, uint64_t attr_seconds) {
    struct fuse_entry_out out = {.nodeid = found->node, .entry_valid = f->tree.seconds, .attr_valid = attr_seconds, .attr = attributes(f, found)};
    lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return 1;
}

int lfs_front_attributes(lfs_front *f, const fuse_head *h, const lfs_front_found *found, uint64_t seconds) {
    struct fuse_attr_out out = {.attr_valid = seconds, .attr = attributes(f, found)};
    lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return 1;
}

int lfs_front_opens(lfs_front *f, const fuse_head *h) {
    /* Nothing is to be told at close(), so the kernel need not ask. */
    struct fuse_open_out out = {.fh = h->nodeid, .open_flags = FOPEN_KEEP_CACHE | LFS_FOPEN_NOFLUSH};
    lfs_front_reply(f, h->unique, 0, &out, sizeof out);
    return 1;
}

int lfs_front_reads(lfs_front *f, const fuse_head *h, const uint8_t *bytes, size_t len) {
    const struct fuse_read_in *in = (const void *)(h + 1);
    size_t offset = in->offset < len ? in->offset : len, size = len - offset < in->size ? len - offset : in->size;
    lfs_front_reply(f, h->unique, 0, bytes + offset, size);
    return 1;
}

/* The request asks for no more than reading. */
int lfs_front_only_reads(const fuse_head *h) {
    const struct fuse_open_in *in = (const void *)(h + 1);
    return (in->flags & O_ACCMODE) == O_RDONLY && !(in->flags & O_TRUNC);
}

/* Forget the pages and attributes of a file that nobody has open: no READ has one of them locked, so it does not wait. */
static void drop_pages(const lfs_front *f, uint64_t node) {
    struct fuse_notify_inval_inode_out body = {.ino = node};
    struct fuse_out_header out = {.len = sizeof out + sizeof body, .error = FUSE_NOTIFY_INVAL_INODE};
    struct iovec parts[] = {{&out, sizeof out}, {&body, sizeof body}};
    if (writev(f->device, parts, 2) < 0) return; /* the kernel does not have it any more: there is nothing to drop */
}

/* -- names */

const char *lfs_front_name_of(const fuse_head *h, size_t *len) {
    const char *text = (const char *)(h + 1);
    size_t whole = h->len - sizeof *h;
    *len = strnlen(text, whole);
    return *len + 1 == whole ? text : NULL;
}

/* A name that is not there. It is not remembered: it may be there after the next commit (SEMANTICS 1.10). */
int lfs_front_nothing(lfs_front *f, const fuse_head *h, size_t len) { return lfs_front_error(f, h, len > NAME_MAX_BYTES ? ENAMETOOLONG : ENOENT); }

static int account_found(lfs_front *f, uint64_t ordinal, lfs_front_found *out) {
    lfs_account_view account;
    *out = (lfs_front_found){.node = f->tree.account | ordinal, .directory = 1};
    return lfs_read_account(f->engine, ordinal, &account) == 0 && lfs_entry_ns(f->engine, account.open_index, &out->ns) == 0;
}

static int look_for_account(lfs_front *f, const fuse_head *h, const char *name, size_t len) {
    lfs_front_found found;
    int64_t ordinal = lfs_read_ordinal(f->engine, (const uint8_t *)name, len);
    if (ordinal < 0) return lfs_front_nothing(f, h, len);
    return account_found(f, (uint64_t)ordinal, &found) && lfs_front_entry(f, h, &found, f->tree.seconds);
}

/* tx_0001.json: four digits at least, no other spelling. 0: no such. */
uint64_t lfs_front_transaction_number(const char *name, size_t len, const char *suffix) {
    uint64_t number = 0;
    size_t ends = strlen(suffix), digits = len - 3 - ends;
    if (len < 7 + ends || len > 22 + ends || memcmp(name, "tx_", 3) != 0 || memcmp(name + len - ends, suffix, ends) != 0 || (digits > 4 && name[3] == '0')) return 0;
    for (size_t i = 0; i < digits; i++) {
        if (name[3 + i] < '0' || name[3 + i] > '9') return 0;
        number = 10 * number + (uint64_t)(name[3 + i] - '0');
    }
    return number;
}

static const uint8_t *transaction_found(lfs_front *f, uint64_t number, lfs_front_found *out) {
    const uint8_t *bytes = NULL;
    uint32_t len;
    int64_t index = lfs_read_transaction(f->engine, number);
    *out = (lfs_front_found){.node = f->tree.transaction | number};
    if (index < 0 || lfs_read_entry(f->engine, (uint64_t)index, &bytes, &len) || lfs_entry_ns(f->engine, (uint64_t)index, &out->ns)) return NULL;
    out->size = len;
    return bytes;
}

static int look_for_transaction(lfs_front *f, const fuse_head *h, const char *name, size_t len) {
    lfs_front_found found;
    uint64_t number = lfs_front_transaction_number(name, len, ".json");
    if (lfs_read_transaction(f->engine, number) < 0) return lfs_front_nothing(f, h, len);
    return transaction_found(f, number, &found) && lfs_front_entry(f, h, &found, f->tree.seconds);
}

static int balance_found(lfs_front *f, uint64_t ordinal, uint8_t text[LFS_BALANCE_BYTES], lfs_front_found *out) {
    *out = (lfs_front_found){.node = f->tree.balance | ordinal, .size = LFS_BALANCE_BYTES};
    return lfs_read_balance(f->engine, ordinal, UINT64_MAX, text, &out->ns) == 1;
}

static int look_in_account(lfs_front *f, const fuse_head *h, const char *name, size_t len) {
    uint8_t text[LFS_BALANCE_BYTES];
    lfs_front_found found;
    uint64_t ordinal = lfs_front_number(h->nodeid);
    uint32_t asked;
    if (len != 12 || memcmp(name, "balance.json", len) != 0) return 0;
    if (lfs_kernel_looking(f->engine, ordinal, &asked)) return 0; /* before the state is read that is answered */
    if (balance_found(f, ordinal, text, &found)) return lfs_front_entry(f, h, &found, lfs_kernel_entering(f->engine, ordinal, asked) ? f->tree.seconds : 0);
    lfs_kernel_forget(f->engine, ordinal, 1);
    return 0;
}

/* -- files */

/* OPEN: what pages the kernel has may be old. It gets the new one, and need not ask for it. A commit that comes meanwhile has the pages dropped,
 * but perhaps before they were stored, so they are dropped here as well. Nobody reads them: the OPEN that this is of is not answered. */
static void renew_page(lfs_front *f, uint64_t node, uint32_t commits) {
    uint8_t text[LFS_BALANCE_BYTES];
    lfs_front_found found;
    struct fuse_notify_store_out body = {.nodeid = node, .size = sizeof text};
    struct fuse_out_header out = {.len = sizeof out + sizeof body + sizeof text, .error = FUSE_NOTIFY_STORE};
    struct iovec parts[] = {{&out, sizeof out}, {&body, sizeof body}, {text, sizeof text}};
    int stored = balance_found(f, lfs_front_number(node), text, &found) && writev(f->device, parts, 3) >= 0;
    if (!stored || lfs_kernel_commits(f->engine, lfs_front_number(node)) != commits) drop_pages(f, node);
}

static int of_balance(lfs_front *f, const fuse_head *h) {
    uint8_t text[LFS_BALANCE_BYTES];
    lfs_front_found found;
    uint64_t ordinal = lfs_front_number(h->nodeid);
    uint32_t asked, commits;
    switch (h->opcode) {
    case FUSE_GETATTR:
        asked = lfs_kernel_asking(f->engine, ordinal);
        if (!balance_found(f, ordinal, text, &found)) return 0;
        return lfs_front_attributes(f, h, &found, lfs_kernel_lasting(f->engine, ordinal, asked) ? f->tree.seconds : 0);
    case FUSE_OPEN:
        if (!lfs_front_only_reads(h)) return lfs_front_error(f, h, EROFS);
        commits = lfs_kernel_commits(f->engine, ordinal);
        if (lfs_kernel_opened(f->engine, ordinal)) renew_page(f, h->nodeid, commits);
        return lfs_front_opens(f, h);
    case FUSE_READ: return balance_found(f, ordinal, text, &found) && lfs_front_reads(f, h, text, sizeof text);
    case FUSE_RELEASE: lfs_kernel_released(f->engine, ordinal); return lfs_front_error(f, h, 0);
    case FUSE_FLUSH: return lfs_front_error(f, h, 0);
    default: return 0;
    }
}

static int of_transaction(lfs_front *f, const fuse_head *h) {
    lfs_front_found found;
    const uint8_t *bytes;
    switch (h->opcode) {
    case FUSE_GETATTR: return transaction_found(f, lfs_front_number(h->nodeid), &found) && lfs_front_attributes(f, h, &found, f->tree.seconds);
    case FUSE_READ:
        bytes = transaction_found(f, lfs_front_number(h->nodeid), &found);
        return bytes && lfs_front_reads(f, h, bytes, found.size);
    case FUSE_OPEN: return lfs_front_only_reads(h) ? lfs_front_opens(f, h) : lfs_front_error(f, h, EROFS);
    case FUSE_RELEASE:
    case FUSE_FLUSH: return lfs_front_error(f, h, 0);
    default: return 0;
    }
}

static int of_account(lfs_front *f, const fuse_head *h) {
    lfs_front_found found;
    return h->opcode == FUSE_GETATTR && account_found(f, lfs_front_number(h->nodeid), &found) && lfs_front_attributes(f, h, &found, f->tree.seconds);
}

/* -- all */

static int look(lfs_front *f, const fuse_head *h) {
    size_t len;
    const char *name = lfs_front_name_of(h, &len);
    if (!name) return 0;
    if (h->nodeid == f->tree.accounts) return look_for_account(f, h, name, len);
    if (h->nodeid == f->tree.transactions) return look_for_transaction(f, h, name, len);
    if (lfs_front_is(h->nodeid, f->tree.account)) return look_in_account(f, h, name, len);
    if (lfs_front_is_past(f, h->nodeid)) return lfs_front_past_look(f, h, name, len);
    if (h->nodeid == f->tree.receipts || h->nodeid == f->tree.proofs) return lfs_front_texts_look(f, h, name, len);
    return 0;
}

/* What the kernel gives back of balances is counted here, and taken out of a request that names others as well: Python counts those. */
static int forgotten(lfs_front *f, fuse_head *h) {
    if (h->opcode == FUSE_FORGET) {
        const struct fuse_forget_in *in = (const void *)(h + 1);
        if (!lfs_front_is(h->nodeid, f->tree.balance)) return 0;
        lfs_kernel_forget(f->engine, lfs_front_number(h->nodeid), in->nlookup);
        return 1;
    }
    struct fuse_batch_forget_in *in = (void *)(h + 1);
    struct fuse_forget_one *each = (void *)(in + 1);
    uint32_t left = 0;
    if ((h->len - sizeof *h - sizeof *in) / sizeof *each < in->count) return 0;
    for (uint32_t i = 0; i < in->count; i++) {
        if (lfs_front_is(each[i].nodeid, f->tree.balance)) lfs_kernel_forget(f->engine, lfs_front_number(each[i].nodeid), each[i].nlookup);
        else each[left++] = each[i];
    }
    in->count = left;
    return !left;
}

/* How long the fixed part of a request is at least. */
static size_t fixed_bytes(uint32_t opcode) {
    switch (opcode) {
    case FUSE_LOOKUP: return 1;
    case FUSE_GETATTR: return sizeof(struct fuse_getattr_in);
    case FUSE_OPEN: return sizeof(struct fuse_open_in);
    case FUSE_READ: return sizeof(struct fuse_read_in);
    case FUSE_FLUSH: return sizeof(struct fuse_flush_in);
    case FUSE_RELEASE: return sizeof(struct fuse_release_in);
    case FUSE_IOCTL: return sizeof(struct fuse_ioctl_in);
    case FUSE_FORGET: return sizeof(struct fuse_forget_in);
    case FUSE_BATCH_FORGET: return sizeof(struct fuse_batch_forget_in);
    default: return SIZE_MAX;
    }
}

/* open() of Python asks every file whether it is a terminal, and nothing here has an ioctl. */
static int is_file(const lfs_front *f, uint64_t node) {
    return lfs_front_is(node, f->tree.balance) || lfs_front_is(node, f->tree.transaction) || lfs_front_is(node, f->tree.past_balance) || lfs_front_is_text(f, node);
}

int lfs_front_read_request(lfs_front *f, uint8_t *bytes, size_t len) {
    fuse_head *h = (fuse_head *)bytes;
    if (!f->tree.account || h->len != len || len - sizeof *h < fixed_bytes(h->opcode)) return 0;
    if (h->opcode == FUSE_FORGET || h->opcode == FUSE_BATCH_FORGET) return forgotten(f, h);
    if (h->opcode == FUSE_LOOKUP) return look(f, h);
    if (h->opcode == FUSE_IOCTL) return is_file(f, h->nodeid) && lfs_front_error(f, h, ENOSYS);
    if (lfs_front_is(h->nodeid, f->tree.balance)) return of_balance(f, h);
    if (lfs_front_is(h->nodeid, f->tree.account)) return of_account(f, h);
    if (lfs_front_is(h->nodeid, f->tree.transaction)) return of_transaction(f, h);
    if (lfs_front_is_text(f, h->nodeid)) return lfs_front_texts_request(f, h);
    return lfs_front_is_past(f, h->nodeid) && lfs_front_past_request(f, h);
}
