/* Past states in the front (ADR 47): snapshots/<X>/accounts/<id>/balance.json, X a time, block-N, size-N, tx-N or digest-N. All of it never changes, so nothing is
 * counted. Names of directories are ledgerfsd/vfs/past.py's and ledgerfsd/service/points.py's; X itself is looked up here only if it is a time to whose past nothing can be
 * added. Ends of days and months, names that were given and balances by effective date are Python's. */
#include <errno.h>
#include "front_read.h"

enum { TOP, STATE, ACCOUNTS }; /* parts of a state, in past.py */
enum { TIMES = 8, BY_BLOCK = 8, BY_SIZE = 9, BY_TX = 10, BY_DIGEST = 14 }; /* points.Label */

typedef struct { /* a directory of a past state */
    uint64_t part, label, key, ordinal;
    uint64_t size; /* entries that count; 0: Python knows */
    uint64_t ns;   /* of the last of them */
} place;

static uint64_t size_of(lfs_engine *e, uint64_t label, uint64_t key) {
    if (label < TIMES || label == BY_SIZE || label == BY_DIGEST) return key;
    if (label == BY_BLOCK) return (uint64_t)(lfs_read_block(e, key) + 1);
    return label == BY_TX ? (uint64_t)(lfs_read_transaction(e, key) + 1) : 0;
}

static int is_account(const lfs_front *f, uint64_t node) { return node >> 60 == f->tree.past_account >> 60; }

/* What a node number says (nodes.past_directory, nodes.past_account). 0: Python's. */
static int place_of(lfs_front *f, uint64_t node, place *out) {
    uint64_t number = lfs_front_number(node);
    *out = is_account(f, node) ? (place){ACCOUNTS, node >> 56 & 15, number >> 24, number & 0xffffff, 0, 0}
                               : (place){number >> 36, number >> 32 & 15, number & 0xffffffff, 0, 0, 0};
    if (out->part == TOP || out->part > ACCOUNTS) return 0;
    out->size = size_of(f->engine, out->label, out->key);
    return out->size && lfs_entry_ns(f->engine, out->size - 1, &out->ns) == 0;
}

static uint64_t directory(const lfs_front *f, uint64_t part, uint64_t label, uint64_t key) {
    return f->tree.past_directory | part << 36 | label << 32 | key;
}

static int found_directory(lfs_front *f, const fuse_head *h, uint64_t node, uint64_t ns) {
    lfs_front_found found = {.node = node, .ns = ns, .directory = 1};
    return lfs_front_entry(f, h, &found, f->tree.seconds);
}

/* As Points._at, of a time that the newest seal has reached: nothing that is to come belongs to its past. */
static int look_for_time(lfs_front *f, const fuse_head *h, const char *name, size_t len) {
    uint8_t next[LFS_TIME_BYTES];
    lfs_counts counts;
    uint64_t time, ns;
    lfs_read_counts(f->engine, &counts);
    if (lfs_time_parse((const uint8_t *)name, len, &time) || time > counts.time_ns || time > lfs_clock()) return 0;
    lfs_time_put(next, time + 1);
    int64_t size = lfs_read_first_at(f->engine, (const char *)next);
    if (size <= 0 || lfs_entry_ns(f->engine, (uint64_t)size - 1, &ns)) return 0;
    return found_directory(f, h, directory(f, STATE, time / LFS_NS_PER_S % TIMES, (uint64_t)size), ns);
}

static int look_for_account(lfs_front *f, const fuse_head *h, const place *in, const char *name, size_t len) {
    lfs_account_view account;
    int64_t ordinal = lfs_read_ordinal(f->engine, (const uint8_t *)name, len);
    if (ordinal < 0) return lfs_front_nothing(f, h, len);
    if (lfs_read_account(f->engine, (uint64_t)ordinal, &account)) return 0;
    if (account.open_index >= in->size) return lfs_front_nothing(f, h, len);
    return found_directory(f, h, f->tree.past_account | in->label << 56 | in->key << 24 | (uint64_t)ordinal, in->ns);
}

/* A balance as the first `size` entries left it: number holds the ordinal and the size. */
static int balance_found(lfs_front *f, uint64_t number, uint8_t text[LFS_BALANCE_BYTES], lfs_front_found *out) {
    *out = (lfs_front_found){.node = f->tree.past_balance | number, .size = LFS_BALANCE_BYTES};
    return lfs_read_balance(f->engine, number >> 32, number & 0xffffffff, text, &out->ns) == 1;
}

int lfs_front_past_look(lfs_front *f, const fuse_head *h, const char *name, size_t len) {
    uint8_t text[LFS_BALANCE_BYTES];
    lfs_front_found found;
    place in;
    if (h->nodeid == f->tree.past_directory) return look_for_time(f, h, name, len);
    if (!place_of(f, h->nodeid, &in)) return 0;
    if (is_account(f, h->nodeid)) {
        if (len != 12 || memcmp(name, "balance.json", len) != 0) return 0;
        return balance_found(f, in.ordinal << 32 | in.size, text, &found) && lfs_front_entry(f, h, &found, f->tree.seconds);
    }
    if (in.part == ACCOUNTS) return look_for_account(f, h, &in, name, len);
    if (len != 8 || memcmp(name, "accounts", len) != 0) return 0;
    return found_directory(f, h, directory(f, ACCOUNTS, in.label, in.key), in.ns);
}

static int of_balance(lfs_front *f, const fuse_head *h) {
    uint8_t text[LFS_BALANCE_BYTES];
    lfs_front_found found;
    uint64_t number = lfs_front_number(h->nodeid);
    switch (h->opcode) {
    case FUSE_GETATTR: return balance_found(f, number, text, &found) && lfs_front_attributes(f, h, &found, f->tree.seconds);
    case FUSE_READ: return balance_found(f, number, text, &found) && lfs_front_reads(f, h, text, sizeof text);
    case FUSE_OPEN: return lfs_front_only_reads(h) ? lfs_front_opens(f, h) : lfs_front_error(f, h, EROFS);
    case FUSE_RELEASE:
    case FUSE_FLUSH: return lfs_front_error(f, h, 0);
    default: return 0;
    }
}

int lfs_front_is_past(const lfs_front *f, uint64_t node) {
    return is_account(f, node) || lfs_front_is(node, f->tree.past_directory) || lfs_front_is(node, f->tree.past_balance);
}

int lfs_front_past_request(lfs_front *f, const fuse_head *h) {
    place in;
    if (lfs_front_is(h->nodeid, f->tree.past_balance)) return of_balance(f, h);
    if (h->opcode != FUSE_GETATTR || !place_of(f, h->nodeid, &in)) return 0;
    lfs_front_found found = {.node = h->nodeid, .ns = in.ns, .directory = 1};
    return lfs_front_attributes(f, h, &found, f->tree.seconds);
}
