/* Inside of the front: see front.c for the threads and the life of a file. */
#ifndef LFS_FRONT_H
#define LFS_FRONT_H
#include <linux/fuse.h>
#include "engine.h"

#define LFS_FRONT_NAME_MAX 255
#define LFS_FRONT_INFLIGHT_BYTES (16u << 20) /* above it Python decides who waits for room, and for how long */
#define LFS_FRONT_INODE (1ull << 48)  /* numbers of its inbox files: above those that Python counts from 1 */
#define LFS_FRONT_HANDLE (1ull << 63) /* numbers of its handles: above those that Python counts from 2^62 */

typedef struct lfs_front lfs_front;
typedef struct lfs_front_file lfs_front_file;
typedef struct lfs_front_texts lfs_front_texts;
typedef struct lfs_front_lines lfs_front_lines;

typedef struct lfs_front_name { /* of a file in inbox/, whosever it is */
    struct lfs_front_name *next;
    lfs_front_file *file; /* NULL: Python's */
    uint32_t len;
    char text[];
} lfs_front_name;

enum { FRONT_NEW, FRONT_WAITING, FRONT_JUDGED }; /* no byte yet; in the engine; the verdict is given */

struct lfs_front_file {
    lfs_front_file *next, *next_handed;
    lfs_front_name *name; /* NULL: it has gone */
    uint64_t number;      /* from 1: the inode's is LFS_FRONT_INODE + number, the handle's LFS_FRONT_HANDLE + number */
    uint64_t created_ns, answered_ns, asked_ns; /* asked: monotonic, of the WRITE */
    uint64_t write;       /* the WRITE that waits for the verdict */
    uint64_t recorded_ns; /* when T2 wrote the receipt; 0: it did not */
    int64_t receipt_at;   /* in the file of that day */
    uint64_t receipt_number;
    uint32_t receipt_len;
    uint32_t uid, gid, size;
    int code;
    uint8_t state, append;
    uint8_t handed, taken; /* handed over to Python: put into the list; and taken from there */
    uint32_t text_len;
    char text[LFS_FRONT_NAME_MAX + 1];
};

typedef struct lfs_front_request {
    struct lfs_front_request *next;
    uint8_t *bytes;
    size_t len;
} lfs_front_request;

#define LFS_FRONT_NAMES 16384 /* chains; inbox/ shows 10,000 names */
#define LFS_FRONT_FILES 4096
#define LFS_FRONT_SPARE 64 /* buffers kept */
#define LFS_FRONT_TELL 256 /* accounts of a group of which T2 tells the kernel; of more, Python does, while T2 goes on */
#define LFS_FRONT_TOLD 256 /* verdicts of which Python is told together, when nobody asks before */

struct lfs_front {
    lfs_engine *engine;
    uint64_t inbox, kind; /* node of inbox/; what the nodes of inbox files begin with */
    int errnos[256];      /* by result code */
    lfs_front_tree tree;  /* all 0: Python answers what is read */
    lfs_front_texts *texts;
    int device, ready;
    size_t buffer_bytes;
    pthread_t thread;
    pthread_mutex_t telling; /* T2 tells the kernel: over `running`, which it needs for that */
    int running;
    _Atomic int stopping;
    pthread_mutex_t lock; /* over what follows */
    lfs_front_name *names[LFS_FRONT_NAMES];
    lfs_front_file *files[LFS_FRONT_FILES];
    uint64_t last_number;
    uint32_t open, open_max; /* of its own files; how many there may be */
    uint64_t writers;        /* since crowd_ns: a bit for each program that created a file, or for some of them */
    _Atomic uint64_t crowd_ns;
    _Atomic uint32_t crowd; /* programs that did in the time before */
    int eager;              /* T7's: the device does not let it wait */
    lfs_front_file *handed, **handed_tail;
    lfs_front_lines *lent; /* few: Python has opened them */
    lfs_front_request *requests, **requests_tail; /* to Python */
    uint8_t *spare[LFS_FRONT_SPARE];
    uint32_t n_spare;
    int ended, end_error;
    lfs_front_answer *told; /* what Python does not know yet */
    uint32_t n_told, told_size;
    /* T2's */
    lfs_receipts *receipts; /* NULL: Python writes them all */
    uint8_t *records;
    size_t record_size;
    /* under the engine's lock */
    lfs_ticket *due, **due_tail;           /* T2's to answer */
    lfs_ticket *finished, **finished_tail; /* for Python */
    lfs_ticket *held, **held_tail; /* Python's */
    _Atomic uint32_t waiting;      /* WRITEs */
    _Atomic uint64_t answered;     /* requests, for people */
};

/* front_files.c, under the front's lock */
lfs_front_name *lfs_front_find(lfs_front *f, const char *text, size_t len);
lfs_front_name *lfs_front_add(lfs_front *f, const char *text, size_t len, lfs_front_file *file);
void lfs_front_drop(lfs_front *f, const char *text, size_t len);
lfs_front_file *lfs_front_file_at(lfs_front *f, uint64_t number);
lfs_front_file *lfs_front_file_new(lfs_front *f, const char *text, size_t len);
void lfs_front_file_remove(lfs_front *f, lfs_front_file *file); /* out of the tables; the name stays */
void lfs_front_note_writer(lfs_front *f, uint32_t program);     /* one creates a file; see lfs_front_crowded */
void lfs_front_hand_over(lfs_front *f, lfs_front_file *file);
void lfs_front_hand_over_all(lfs_front *f);
int lfs_front_may_take(const char *text, size_t len);

/* front_read.c: the same of requests that only read. It may take from a request what is not Python's. */
int lfs_front_read_request(lfs_front *f, uint8_t *bytes, size_t len);

/* front_lines.c */
int lfs_front_take_lines(lfs_front *f, const struct fuse_in_header *h); /* 1 when it is answered, 0 when it is not of a file that is lent, or is Python's */
void lfs_front_lines_end(lfs_front *f);

/* front_texts.c */
lfs_front_texts *lfs_front_texts_new(void);
void lfs_front_texts_free(lfs_front_texts *t);
void lfs_front_texts_record(lfs_front_texts *t, const lfs_front_file *file, const lfs_result *result);

/* front_told.c */
int lfs_front_plain(const lfs_ticket *t);
int lfs_front_reply_all(lfs_front *f, lfs_ticket *t, uint64_t now_ns);

/* front.c */
int lfs_front_cause(const lfs_ticket *t);
void lfs_front_describe(lfs_front_answer *out, const lfs_front_file *file, lfs_ticket *t);

/* front_answer.c: 1 when it is answered, 0 when it is Python's */
int lfs_front_answer_request(lfs_front *f, const uint8_t *bytes, size_t len);
struct fuse_attr lfs_front_inbox_attributes(uint64_t node, uint64_t size, uint64_t ns, uint32_t uid, uint32_t gid); /* of an inbox file; ns: its times */
void lfs_front_reply(lfs_front *f, uint64_t request, int error, const void *body, size_t len);
#endif
