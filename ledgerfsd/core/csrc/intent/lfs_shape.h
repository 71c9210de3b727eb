/* One line read by itself, for tests (typed face: ledgerfsd/core/shape.py): what is made of it by the shape of a line before, and otherwise. */
#ifndef LFS_SHAPE_H
#define LFS_SHAPE_H
#include <stddef.h>
#include <stdint.h>

/* cffi-begin */
/* Reads `before`, then `text`; quickly: by its shape if that will do. All that was made of `text` is written to out, in words (room for 16 * len + 65536);
 * *out_len gets its length. Returns 1 when it was read by its shape, 0 when it was not, -1 when this processor cannot. */
int lfs_shape_trial(const uint8_t *before, size_t before_len, const uint8_t *text, size_t len, int quickly, uint8_t *out, size_t *out_len);
/* cffi-end */
#endif
