/* What pyfuse3 does not pass on of a request: that it is interrupted, and the flags its file has now.
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

static process *real;
static uint64_t unique, seen;
static uint32_t read_flags;

static void lfs_interrupted(uint64_t request); /* Python's */

/* The real function is that of the libfuse which the module at `path` (pyfuse3) is linked with. Returns 0, or -1. */
static int lfs_requests_bind(const char *path) {
    void *module = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (!module) return -1;
    real = (process *)dlsym(module, "fuse_session_process_buf");
    return real ? 0 : -1;
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
