/* One entry read as replay does, for tests (typed face: ledgerfsd/core/entries.py). */
#ifndef LFS_QUICK_H
#define LFS_QUICK_H
#include <stdint.h>

/* cffi-begin */
/* Is it read the quick way (1, 0), and does the strict way read the same of it (if not: -1)? */
int lfs_quick_agrees(const uint8_t *bytes, uint32_t len);
/* cffi-end */
#endif
