/* Shared by json.c and json_canonical.c only: walking and sorting the members of an object that was accepted. */
#ifndef LFS_JSON_NAMES_H
#define LFS_JSON_NAMES_H
#include "lfs_json.h"

#define LFS_JSON_NO_NAME UINT32_MAX

/* Compare two string tokens (pointers to their opening quotes) by the UTF-16 code units they stand for. */
int lfs_json_token_order(const uint8_t *a, const uint8_t *b);
/* The byte after a string token. */
const uint8_t *lfs_json_skip_string(const uint8_t *token);
/* From the name of a member to the name of the next, or NULL when it was the last. */
const uint8_t *lfs_json_next_name(const uint8_t *name, const uint8_t *end);
/* Sort n names (offsets of their opening quotes from base) canonically. Returns the smallest offset of a name that
 * repeats an earlier one, or LFS_JSON_NO_NAME. */
uint32_t lfs_json_sort_names(const uint8_t *base, uint32_t *names, uint32_t n);
#endif
