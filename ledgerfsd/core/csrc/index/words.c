/* Words by which entries are found: the reference of an entry, the tags of an account. A run keeps 48 bits of a hash; a match is settled
 * by reading the entry. */
#include "engine.h"
#include <stdlib.h>
#include <sys/mman.h>

#define ROOM_BYTES ((LFS_BUILD_RECORDS + LFS_WORDS_MAX) * sizeof(lfs_record))
#define AHEAD 5 /* entries */
#define WINDOW 4096 /* behind the beginning of an entry's reference follow at most 512 bytes of it, 16 tags and some short members */

/* The text that begins at `found`, when that is the value of a member of the entry itself: what sorts behind reference and tags has no brackets of its
 * own, so behind a member of the entry only its last bracket closes. */
static lfs_text value_at(const uint8_t *found, const uint8_t *end, int list) {
    const lfs_text none = {NULL, 0};
    const uint8_t *stop = found;
    if (list) stop = memchr(found, ']', (size_t)(end - found));
    else
        while (stop < end && *stop != '"') stop += *stop == '\\' ? 2 : 1;
    if (!stop || stop >= end || memchr(stop, '}', (size_t)(end - stop)) != end - 1) return none;
    return (lfs_text){found, (uint32_t)(stop - found)};
}

/* The value behind the last occurrence of `name`: names inside strings have their quotes escaped. */
static lfs_text last_member(const uint8_t *bytes, uint32_t len, const char *name, size_t name_len) {
    const uint8_t *p = bytes + (len > WINDOW ? len - WINDOW : 0), *end = bytes + len, *found = NULL;
    while ((p = memmem(p, (size_t)(end - p), name, name_len))) found = p += name_len;
    return found ? value_at(found, end, name[name_len - 1] == '[') : (lfs_text){NULL, 0};
}

static int is_of_account(const uint8_t *bytes, uint32_t len) {
    static const char begin[] = "{\"account\":\"";
    return len > sizeof begin && memcmp(bytes, begin, sizeof begin - 1) == 0;
}

/* Most entries end with their postings, the reference if any, and some short members: then it is enough to look behind the last bracket. It is
 * not inside a string when a name follows: there a quote would be escaped, or end the string, and then no letter stands behind it. */
static lfs_text reference_of(const uint8_t *bytes, uint32_t len) {
    static const char name[] = ",\"reference\":\"";
    const uint8_t *end = bytes + len, *square = memrchr(bytes, ']', len - 1);
    const uint8_t *from = square ? square + 1 : bytes, *curly = memrchr(from, '}', (size_t)(end - 1 - from)), *last = curly ? curly : square;
    if (!last || end - last < (ptrdiff_t)sizeof name || memcmp(last + 1, name, 2) || last[3] < 'a' || last[3] > 'z' || is_of_account(bytes, len))
        return last_member(bytes, len, name, sizeof name - 1);
    if (memcmp(last + 1, name, sizeof name - 1) == 0) return value_at(last + sizeof name, end, 0);
    if (last[3] > name[2]) return (lfs_text){NULL, 0}; /* members are sorted */
    return last_member(last + 1, (uint32_t)(end - last - 1), name, sizeof name - 1);
}

/* "a","b": the next of them. */
static int next_tag(lfs_text *tags, lfs_text *tag) {
    if (!tags->len || *tags->p != '"') return 0;
    const uint8_t *quote = memchr(tags->p + 1, '"', tags->len - 1);
    if (!quote) return 0;
    *tag = (lfs_text){tags->p + 1, (uint32_t)(quote - tags->p - 1)};
    uint32_t used = tag->len + 2 + (tag->len + 2 < tags->len);
    tags->p += used;
    tags->len -= used;
    return 1;
}

static lfs_text tags_of(const uint8_t *bytes, uint32_t len) {
    static const char name[] = ",\"tags\":[";
    if (!is_of_account(bytes, len)) return (lfs_text){NULL, 0};
    return last_member(bytes, len, name, sizeof name - 1);
}

uint32_t lfs_entry_words(const lfs_engine *e, const uint8_t *bytes, uint32_t len, uint64_t *out) {
    uint32_t n = 0;
    lfs_text reference = reference_of(bytes, len), tags = tags_of(bytes, len), tag;
    if (reference.p) out[n++] = lfs_word_key(&e->ledger, 'r', reference);
    while (n < LFS_WORDS_MAX && next_tag(&tags, &tag)) out[n++] = lfs_word_key(&e->ledger, 't', tag);
    return n;
}

/* -- words that T1 knows */

/* T6 may look at what we overwrite: the new end is there before it, by which T6 sees that it was. */
void lfs_words_tail_add(lfs_runs *r, uint64_t first, const uint64_t *words, uint32_t n) {
    if (!r->word_tail) r->word_tail = lfs_grow(NULL, r->words_kept * sizeof *r->word_tail);
    if (first != atomic_load_explicit(&r->word_end, memory_order_relaxed)) atomic_store_explicit(&r->word_from, first, memory_order_relaxed); /* the first of this life */
    atomic_store_explicit(&r->word_end, first + n, memory_order_release);
    atomic_thread_fence(memory_order_release);
    for (uint64_t i = 0, mask = r->words_kept - 1; i < n; i++) atomic_store_explicit(&r->word_tail[(first + i) & mask], words[i], memory_order_relaxed);
}

/* Of an entry that is published. */
static uint64_t known_word(lfs_runs *r, uint64_t index) {
    if (!atomic_load_explicit(&r->word_end, memory_order_acquire) || index < atomic_load_explicit(&r->word_from, memory_order_relaxed)) return LFS_WORD_ASK;
    uint64_t word = atomic_load_explicit(&r->word_tail[index & (r->words_kept - 1)], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&r->word_end, memory_order_relaxed) - index <= r->words_kept ? word : LFS_WORD_ASK;
}

/* -- words of what is in no run yet */

/* Segments that end between two entries need not stay mapped now that they are read: whenever the kernel wanted memory it would look at each of their pages,
 * and interrupt T1 and T2 to take it away. Whoever reads them later has them mapped again, from the cache. */
static void unmap_read(lfs_engine *e, uint64_t from, uint64_t to) {
    if (to <= from) return;
    const lfs_segment *last = lfs_segment_of(e, to - 1);
    for (const lfs_segment *s = lfs_segment_of(e, from); s < last; s++) madvise((void *)s->map, s->map_len, MADV_DONTNEED); /* only a hint */
}

static uint32_t words_at(lfs_engine *e, uint64_t index, uint64_t *out) {
    uint32_t len;
    if ((out[0] = known_word(&e->runs, index)) != LFS_WORD_ASK) return out[0] != 0;
    const uint8_t *bytes = lfs_entry_at(e, index, &len);
    const uint8_t *ahead = bytes + AHEAD * (len + 2ull); /* the end of a later one, if they are as long as this; T2's core has it */
    __builtin_prefetch(ahead - 64);
    __builtin_prefetch(ahead - 128);
    return lfs_entry_words(e, bytes, len, out);
}

uint64_t lfs_words_note(lfs_engine *e, uint64_t until) {
    lfs_runs *r = &e->runs;
    uint64_t n = r->n_words, from = r->words_to;
    if (!r->words) r->words = mmap(NULL, ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->words == MAP_FAILED) r->words = lfs_grow(NULL, (size_t)-1 / 2);
    for (uint64_t index = r->words_to, words[LFS_WORDS_MAX]; index < until && n < LFS_BUILD_RECORDS; index++) {
        uint32_t found = words_at(e, index, words);
        for (uint32_t i = 0; i < found; i++) r->words[n++] = (lfs_record){words[i], (uint32_t)index, 0, 0};
        if (index % 256 == 255 || index + 1 == until || n >= LFS_BUILD_RECORDS) {
            atomic_store_explicit(&r->n_words, n, memory_order_release);
            atomic_store_explicit(&r->words_to, index + 1, memory_order_release);
        }
    }
    unmap_read(e, from, r->words_to);
    return n;
}

void lfs_words_forget(lfs_runs *r) { r->n_words = 0; }

void lfs_words_idle(lfs_runs *r) {
    if (r->words && !r->n_words) madvise(r->words, ROOM_BYTES, MADV_DONTNEED);
}

void lfs_words_free(lfs_runs *r) {
    free((void *)r->word_tail);
    if (r->words) munmap(r->words, ROOM_BYTES);
}

int lfs_words_due(const lfs_engine *e) {
    const lfs_runs *r = &e->runs;
    uint64_t entries = atomic_load_explicit(&e->entries, memory_order_acquire), to = atomic_load_explicit(&r->words_to, memory_order_relaxed);
    return entries > to && entries - to >= LFS_WORDS_STEP;
}

/* -- looking */

static int has_word(const uint8_t *bytes, uint32_t len, char kind, lfs_text word) {
    if (kind == 'r') {
        lfs_text reference = reference_of(bytes, len);
        return reference.p && reference.len == word.len && memcmp(reference.p, word.p, word.len) == 0;
    }
    lfs_text tags = tags_of(bytes, len), tag;
    while (next_tag(&tags, &tag))
        if (tag.len == word.len && memcmp(tag.p, word.p, word.len) == 0) return 1;
    return 0;
}

static int take(lfs_engine *e, uint64_t index, char kind, lfs_text word, uint64_t *out, uint64_t *n) {
    uint32_t len;
    const uint8_t *bytes = lfs_entry_at(e, index, &len);
    if (has_word(bytes, len, kind, word)) out[(*n)++] = index;
    return 0;
}

int64_t lfs_read_word(lfs_engine *e, char kind, const uint8_t *word, size_t word_len, uint64_t first, uint64_t *out, uint64_t cap) {
    const lfs_run_list *list = &e->runs.list[LFS_WORDS];
    lfs_text text = {word, (uint32_t)word_len};
    uint64_t key = lfs_word_key(&e->ledger, kind, text), n = 0, entries = atomic_load_explicit(&e->entries, memory_order_acquire);
    int damaged = 0;
    pthread_rwlock_rdlock(&e->runs.lock);
    for (uint32_t i = 0; i < list->n && n < cap && !damaged; i++) {
        lfs_run_cursor c;
        lfs_past unused;
        const lfs_record *record;
        if (list->runs[i].is.end <= first) continue;
        damaged = lfs_run_seek(&c, &list->runs[i], key, LFS_BY_INDEX, first, &unused) != 0;
        while (!damaged && n < cap && (record = lfs_run_record(&c, &damaged)) && record->key == key) {
            take(e, record->index, kind, text, out, &n);
            lfs_run_next(&c);
        }
    }
    uint64_t covered = atomic_load_explicit(&e->runs.words_to, memory_order_acquire), kept = atomic_load_explicit(&e->runs.n_words, memory_order_acquire);
    if (covered < first) kept = 0;
    for (uint64_t i = 0; i < kept && n < cap && !damaged; i++) {
        const lfs_record *record = &e->runs.words[i];
        if (record->key == key && record->index >= first && record->index < covered) take(e, record->index, kind, text, out, &n);
    }
    pthread_rwlock_unlock(&e->runs.lock);
    if (damaged) {
        atomic_store(&e->runs.damaged, 1);
        return -1;
    }
    for (uint64_t index = first > covered ? first : covered; index < entries && n < cap; index++) take(e, index, kind, text, out, &n);
    return (int64_t)n;
}
