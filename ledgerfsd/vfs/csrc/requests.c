/* What pyfuse3 does not pass on of a request: that it is interrupted, and the flags its file has now. And where pyfuse3 gets its
 * requests from, when the core's front takes them first (ADR 36).
 *
 * libfuse hands every request to fuse_session_process_buf, which pyfuse3 calls through the dynamic linker. This module is loaded into the global
 * scope before that name is bound, so its definition is found first; it looks at the request's head and goes on to the real one. All that
 * is relied on is the kernel's interface (linux/fuse.h) and the signature of one public function of libfuse. */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>

struct fuse_session;
struct fuse_buf { /* of libfuse 3, fuse_common.h */
    size_t size;
    int flags;
    void *mem;
    int fd;
    int64_t pos;
};
typedef void process(struct fuse_session *se, const struct fuse_buf *buf);
typedef int session_fd(struct fuse_session *se);
typedef int receive(struct fuse_session *se, struct fuse_buf *buf);
typedef void session_exit(struct fuse_session *se);

static process *real;
static session_fd *real_fd;
static receive *real_receive;
static session_exit *real_exit;
static struct { /* core/csrc/front/front.c */
    int (*descriptor)(void *context, int device);
    long (*receive)(void *context, void **bytes, int *handed);
    void *context;
} front;
static uint64_t unique, seen;
static uint32_t read_flags;

static void lfs_interrupted(uint64_t request); /* Python's, both */
static void lfs_handed(void);

/* The real function is that of the libfuse which the module at `path` (pyfuse3) is linked with. Returns 0, or -1. */
static int lfs_requests_bind(const char *path) {
    void *module = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (!module) return -1;
    real = (process *)dlsym(module, "fuse_session_process_buf");
    real_fd = (session_fd *)dlsym(module, "fuse_session_fd");
    real_receive = (receive *)dlsym(module, "fuse_session_receive_buf");
    real_exit = (session_exit *)dlsym(module, "fuse_session_exit");
    return real && real_fd && real_receive && real_exit ? 0 : -1;
}

/* From the next session on. context 0: no longer. */
static void lfs_requests_divert(uintptr_t descriptor, uintptr_t receives, uintptr_t context) {
    front.descriptor = (int (*)(void *, int))descriptor;
    front.receive = (long (*)(void *, void **, int *))receives;
    front.context = (void *)context;
}

__attribute__((visibility("default"))) int fuse_session_fd(struct fuse_session *se) {
    int device = real_fd(se);
    return front.context && device >= 0 ? front.descriptor(front.context, device) : device;
}

__attribute__((visibility("default"))) int fuse_session_receive_buf(struct fuse_session *se, struct fuse_buf *buf) {
    if (!front.context) return real_receive(se, buf);
    int handed = 0;
    long len = front.receive(front.context, &buf->mem, &handed);
    if (handed) lfs_handed(); /* before the request, which is about one of those files */
    if (len == 0) real_exit(se); /* as libfuse does when the mount has gone */
    buf->flags = 0;
    buf->size = len > 0 ? (size_t)len : 0;
    return (int)len;
}

static void lfs_request(uint64_t out[3]) {
    out[0] = seen;
    out[1] = unique;
    out[2] = read_flags & O_NONBLOCK ? 1 : 0;
}

__attribute__((visibility("default"))) void fuse_session_process_buf(struct fuse_session *se, const struct fuse_buf *buf) {
    const struct fuse_in_header *head = buf->mem;
    if (!(buf->flags & 2) && buf->size >= sizeof *head) { /* 2: FUSE_BUF_IS_FD, which pyfuse3 never asks for */
        const void *body = head + 1;
        size_t rest = buf->size - sizeof *head;
        seen++;
        if (head->opcode == FUSE_INTERRUPT && rest >= sizeof(struct fuse_interrupt_in)) {
            lfs_interrupted(((const struct fuse_interrupt_in *)body)->unique);
        } else {
            unique = head->unique;
            read_flags = head->opcode == FUSE_READ && rest >= sizeof(struct fuse_read_in) ? ((const struct fuse_read_in *)body)->flags : 0;
        }
    }
    real(se, buf);
}
