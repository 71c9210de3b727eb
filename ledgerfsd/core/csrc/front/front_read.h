/* Of the front: reading. See front_read.c. */
#ifndef LFS_FRONT_READ_H
#define LFS_FRONT_READ_H
#include "front.h"

#define LFS_FOPEN_NOFLUSH (1 << 5) /* nothing is to be told at close(); older kernels pass over it, and ask */

typedef struct fuse_in_header fuse_head;
typedef struct { /* what an answer says of a file or directory */
    uint64_t node, size, ns;
    int directory;
} lfs_front_found;

/* Answers; 1, as what answers requests returns. */
int lfs_front_error(lfs_front *f, const fuse_head *h, int error); /* 0: done */
int lfs_front_entry(lfs_front *f, const fuse_head *h, const lfs_front_found *found, uint64_t attr_seconds);
int lfs_front_attributes(lfs_front *f, const fuse_head *h, const lfs_front_found *found, uint64_t seconds);
int lfs_front_opens(lfs_front *f, const fuse_head *h);
int lfs_front_reads(lfs_front *f, const fuse_head *h, const uint8_t *bytes, size_t len);
int lfs_front_nothing(lfs_front *f, const fuse_head *h, size_t len);

/* Of node numbers and requests. */
uint64_t lfs_front_number(uint64_t node);
int lfs_front_is(uint64_t node, uint64_t kind);
int lfs_front_only_reads(const fuse_head *h);
const char *lfs_front_name_of(const fuse_head *h, size_t *len); /* of a LOOKUP; NULL: not what we know */
uint64_t lfs_front_transaction_number(const char *name, size_t len, const char *suffix); /* 0: it is no name of one */

/* front_texts.c */
int lfs_front_is_text(const lfs_front *f, uint64_t node);
int lfs_front_texts_look(lfs_front *f, const fuse_head *h, const char *name, size_t len);
int lfs_front_texts_request(lfs_front *f, const fuse_head *h);

/* front_past.c */
int lfs_front_is_past(const lfs_front *f, uint64_t node);
int lfs_front_past_look(lfs_front *f, const fuse_head *h, const char *name, size_t len);
int lfs_front_past_request(lfs_front *f, const fuse_head *h);
#endif
