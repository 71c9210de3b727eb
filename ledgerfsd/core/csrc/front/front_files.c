/* The front's tables: names of inbox/, its own files by number, and what is handed over to Python. */
#include <stdlib.h>
#include "front.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

static lfs_front_name **chain(lfs_front *f, const char *text, size_t len) {
    return &f->names[XXH3_64bits(text, len) % LFS_FRONT_NAMES];
}

lfs_front_name *lfs_front_find(lfs_front *f, const char *text, size_t len) {
    lfs_front_name *name = *chain(f, text, len);
    while (name && (name->len != len || memcmp(name->text, text, len) != 0)) name = name->next;
    return name;
}

lfs_front_name *lfs_front_add(lfs_front *f, const char *text, size_t len, lfs_front_file *file) {
    lfs_front_name *name = lfs_grow(NULL, sizeof *name + len), **first = chain(f, text, len);
    *name = (lfs_front_name){.next = *first, .file = file, .len = (uint32_t)len};
    memcpy(name->text, text, len);
    return *first = name;
}

void lfs_front_drop(lfs_front *f, const char *text, size_t len) {
    lfs_front_name **at = chain(f, text, len), *name;
    while ((name = *at) && (name->len != len || memcmp(name->text, text, len) != 0)) at = &name->next;
    if (!name) return;
    if (name->file) name->file->name = NULL;
    *at = name->next;
    free(name);
}

lfs_front_file *lfs_front_file_at(lfs_front *f, uint64_t number) {
    lfs_front_file *file = f->files[number % LFS_FRONT_FILES];
    while (file && file->number != number) file = file->next;
    return file;
}

lfs_front_file *lfs_front_file_new(lfs_front *f, const char *text, size_t len) {
    lfs_front_file *file = lfs_grow(NULL, sizeof *file);
    memset(file, 0, sizeof *file);
    file->number = ++f->last_number;
    file->created_ns = lfs_clock();
    memcpy(file->text, text, len);
    file->text_len = (uint32_t)len;
    file->name = lfs_front_add(f, text, len, file);
    file->next = f->files[file->number % LFS_FRONT_FILES];
    f->files[file->number % LFS_FRONT_FILES] = file;
    f->open++;
    return file;
}

/* -- crowds */

#define CROWD 6                                 /* programs */
#define CROWD_WINDOW_NS (LFS_NS_PER_S / 200)

void lfs_front_note_writer(lfs_front *f, uint32_t program) {
    uint64_t now = lfs_monotonic(), since = now - atomic_load_explicit(&f->crowd_ns, memory_order_relaxed);
    if (since >= CROWD_WINDOW_NS) {
        atomic_store_explicit(&f->crowd, since < 2 * CROWD_WINDOW_NS ? (uint32_t)__builtin_popcountll(f->writers) : 0, memory_order_relaxed);
        atomic_store_explicit(&f->crowd_ns, now, memory_order_relaxed);
        f->writers = 0;
    }
    f->writers |= 1ull << (program * 0x9e3779b97f4a7c15ull >> 58);
}

int lfs_front_crowded(lfs_engine *e) {
    lfs_front *f = e->front;
    if (!f || atomic_load_explicit(&f->crowd, memory_order_relaxed) < CROWD) return 0;
    return lfs_monotonic() - atomic_load_explicit(&f->crowd_ns, memory_order_relaxed) < 2 * CROWD_WINDOW_NS;
}

/* -- */

void lfs_front_file_remove(lfs_front *f, lfs_front_file *file) {
    lfs_front_file **at = &f->files[file->number % LFS_FRONT_FILES];
    while (*at != file) at = &(*at)->next;
    *at = file->next;
    if (file->name) file->name->file = NULL;
    file->name = NULL;
    f->open--;
}

void lfs_front_hand_over(lfs_front *f, lfs_front_file *file) {
    lfs_front_file_remove(f, file);
    file->handed = 1;
    file->next_handed = NULL;
    *f->handed_tail = file;
    f->handed_tail = &file->next_handed;
}

void lfs_front_hand_over_all(lfs_front *f) {
    for (uint32_t i = 0; f->open && i < LFS_FRONT_FILES; i++)
        while (f->files[i]) lfs_front_hand_over(f, f->files[i]);
}

/* Only names that commit and need no look at their characters: all others are Python's (SEMANTICS, 6.1 and 7.1). */
int lfs_front_may_take(const char *text, size_t len) {
    if (len < 6 || len > LFS_FRONT_NAME_MAX || *text == '.' || memcmp(text + len - 5, ".json", 5) != 0) return 0;
    for (size_t i = 0; i < len; i++)
        if (text[i] < 0x20 || text[i] > 0x7e || text[i] == '"' || text[i] == '\\') return 0;
    return 1;
}
