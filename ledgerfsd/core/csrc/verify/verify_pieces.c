/* Pieces of the journal: read ahead by a thread of its own, and checked, each by itself, by any job. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "verify.h"

#define LFS_HASHED_AT_ONCE 1024
#define PIECES_AHEAD(v) (2 * (v)->n_jobs + 6)

/* -- reading */

static lfs_piece *piece_take(lfs_verify *v) {
    pthread_mutex_lock(&v->lock);
    while (v->ahead >= PIECES_AHEAD(v) && !v->stop) pthread_cond_wait(&v->room, &v->lock);
    lfs_piece *piece = v->spare;
    int stop = v->stop;
    if (piece && !stop) v->spare = piece->next;
    pthread_mutex_unlock(&v->lock);
    if (stop) return NULL;
    if (!piece) {
        piece = lfs_grow(NULL, sizeof *piece);
        memset(piece, 0, sizeof *piece);
        lfs_reading_init(&piece->reading, &v->ledger);
    }
    piece->next = NULL;
    piece->state = PIECE_READ;
    piece->n = piece->judged = piece->good = 0;
    piece->used = 0;
    piece->end = NULL;
    piece->tail = 0;
    return piece;
}

void lfs_piece_free(lfs_piece *piece) {
    void *rooms[] = {piece->bytes, piece->start, piece->seen, piece->leaves, piece->quarters, piece->bundles, piece->scratch, piece->accounts};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) free(rooms[i]);
    lfs_reading_free(&piece->reading);
    free(piece);
}

static void piece_put(lfs_verify *v, lfs_piece *piece) {
    pthread_mutex_lock(&v->lock);
    if (v->newest) v->newest->next = piece;
    else v->oldest = piece;
    v->newest = piece;
    if (!v->to_check) v->to_check = piece;
    if (!v->to_judge) v->to_judge = piece;
    v->ahead++;
    pthread_cond_broadcast(&v->work);
    pthread_mutex_unlock(&v->lock);
}

/* More bytes of the segment behind those that the piece has. Returns how many, -1 when it cannot be read. */
static int piece_fill(lfs_verify *v, lfs_piece *piece, const lfs_journal_file *file, uint64_t at) {
    size_t more = LFS_PIECE_BYTES / 8; /* so that the lengths are still in the cache when they are looked at */
    if (piece->used + more + LFS_PIECE_SLACK > piece->size) {
        piece->size = LFS_PIECE_BYTES + piece->used + LFS_PIECE_SLACK;
        piece->bytes = lfs_grow(piece->bytes, piece->size);
    }
    int got = lfs_read_fully(file->fd, piece->bytes + piece->used, more, at + piece->used);
    if (got < 0) {
        char name[48];
        snprintf(name, sizeof name, "journal/%020llu.seg", (unsigned long long)file->first);
        lfs_verify_fails(v, "cannot be read", name);
        return -1;
    }
    piece->used += (size_t)got;
    memset(piece->bytes + piece->used, 0, LFS_PIECE_SLACK);
    return got;
}

static void starts_room(lfs_piece *piece) {
    if (piece->n + 2 < piece->entries_size) return;
    piece->entries_size = piece->entries_size ? 2 * piece->entries_size : 4096;
    size_t n = piece->entries_size;
    piece->start = lfs_grow(piece->start, n * sizeof *piece->start);
    piece->seen = lfs_grow(piece->seen, n * sizeof *piece->seen);
    piece->leaves = lfs_grow(piece->leaves, n * 32);
    piece->quarters = lfs_grow(piece->quarters, n / LFS_QUARTER * 32 + 32);
    piece->bundles = lfs_grow(piece->bundles, n / LFS_BUNDLE * 32 + 32);
    piece->scratch = lfs_grow(piece->scratch, n * 32 + 128 * 32);
}

/* Whole entries from `at` of a segment on, up to a bundle's end when there is more. Returns where the piece ends; piece->end says why nothing more of the
 * segment follows: "" at its end. */
static uint64_t piece_read(lfs_verify *v, lfs_piece *piece, const lfs_journal_file *file, uint64_t at) {
    size_t place = 0, bundle = 0;
    uint32_t in_bundles = 0;
    for (;;) {
        starts_room(piece);
        if (piece->first + piece->n == v->task.limit) {
            piece->end = "";
            break;
        }
        if (piece->n && (piece->first + piece->n) % LFS_BUNDLE == 0) {
            bundle = place;
            in_bundles = piece->n;
        }
        size_t length = place + 2 <= piece->used ? (size_t)piece->bytes[place] << 8 | piece->bytes[place + 1] : 0;
        if (place + 2 + length > piece->used || place + 2 > piece->used) {
            if (bundle && piece->used >= LFS_PIECE_BYTES) { /* the rest is read again, with the next piece */
                place = bundle;
                piece->n = in_bundles;
                break;
            }
            int got = piece_fill(v, piece, file, at);
            if (got > 0) continue;
            piece->end = got < 0 || place + 2 > piece->used ? "" : "an entry is longer than its segment";
            break;
        }
        if (!length) {
            piece->end = "";
            break;
        }
        piece->start[piece->n++] = (uint32_t)place;
        place += 2 + length;
    }
    piece->start[piece->n] = (uint32_t)place;
    return at + place;
}

uint64_t lfs_journal_file_end(const lfs_journal_file *file, uint64_t from) {
    uint8_t room[16384];
    uint64_t end = from, at = from;
    for (int got, last; (got = lfs_read_fully(file->fd, room, sizeof room, at)) > 0; at += (uint64_t)got) {
        if (!room[0] && memcmp(room, room + 1, (size_t)got - 1) == 0) continue; /* nearly always: each byte is as the one before */
        for (last = got; !room[last - 1];) last--;
        end = at + (uint64_t)last;
    }
    return end;
}

void *lfs_verify_read_loop(void *context) {
    lfs_verify *v = context;
    uint64_t index = 0, offset = 0, at = 0;
    uint32_t which = 0;
    for (const char *end = NULL; !end;) {
        lfs_piece *piece = piece_take(v);
        if (!piece) return NULL;
        lfs_journal_file *file = &v->files[which];
        if (!at) posix_fadvise(file->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        if (!at && which + 1 < v->n_files) posix_fadvise(file[1].fd, 0, 0, POSIX_FADV_WILLNEED);
        piece->segment = which;
        piece->first = index;
        piece->offset = offset;
        uint64_t after = piece_read(v, piece, file, at);
        index += piece->n;
        offset += after - at;
        at = after;
        if (piece->end && !*piece->end && which + 1 < v->n_files && file[1].first == index && index != v->task.limit) {
            piece->tail = lfs_journal_file_end(file, at) > at; /* only zeros may stand there: a crash can lose its cut */
            piece->end = piece->tail ? "bytes that are no entry stand behind it, the last of its segment" : NULL;
            file[1].base = offset;
            which++;
            at = 0;
        }
        end = piece->end;
        piece_put(v, piece);
    }
    return NULL;
}

/* -- checking */

void lfs_projection_compare(lfs_verify *v, unsigned file, uint64_t first, uint64_t n, const uint8_t *expected, uint8_t *room) {
    lfs_projection *p = &v->projections[file];
    if (first >= p->items) return;
    if (n > p->items - first) n = p->items - first;
    uint32_t bytes = p->item_bytes;
    int got = p->fd < 0 ? -1 : lfs_read_fully(p->fd, room, n * bytes, first * bytes);
    uint64_t have = got < 0 ? 0 : (uint64_t)got / bytes;
    if (memcmp(room, expected, have * bytes) != 0) {
        uint64_t item = 0;
        while (memcmp(room + item * bytes, expected + item * bytes, bytes) == 0) item++;
        lfs_verify_item(v, file, first + item, 0);
    } else if (have < n) {
        lfs_verify_item(v, file, first + have, 1);
    }
}

/* The leaf hashes of good entries from `at` on that are not taken on trust. Of those that are, policies and seals are needed all the same, and are few. */
static void hash_leaves(lfs_verify *v, lfs_piece *piece, uint32_t at) {
    const uint8_t *pointers[LFS_HASHED_AT_ONCE];
    uint32_t lens[LFS_HASHED_AT_ONCE];
    while (at < piece->good && piece->first + at < v->task.trusted) {
        const lfs_seen *s = &piece->seen[at];
        if (s->kind == K_POLICY || s->kind == K_SEAL || s->kind == K_GENESIS) lfs_leaf_hashes(&s->bytes, &s->len, 1, piece->leaves + 32ull * at);
        at++;
    }
    uint32_t n = piece->good - at;
    for (uint32_t i = 0; i < n; i++) {
        pointers[i] = piece->seen[at + i].bytes;
        lens[i] = piece->seen[at + i].len;
    }
    lfs_leaf_hashes(pointers, lens, n, piece->leaves + 32ull * at);
}

/* The roots of all whole bundles at once, level by level, so that the lanes of the hash are full. (Nobody looks at those of what is on trust.) */
static void hash_bundles(lfs_piece *piece) {
    const uint8_t *level = piece->leaves;
    uint32_t bundles = piece->good / LFS_BUNDLE;
    for (uint32_t n = LFS_BUNDLE / 2; n && bundles; n /= 2) {
        uint8_t *above = n == 1 ? piece->bundles : n == LFS_BUNDLE / LFS_QUARTER ? piece->quarters : piece->scratch;
        lfs_node_hashes(level, (size_t)n * bundles, above);
        level = above;
    }
}

static void compare_piece(lfs_verify *v, lfs_piece *piece) {
    uint64_t *offsets = (uint64_t *)piece->scratch, first = piece->first;
    uint32_t n = piece->good;
    uint8_t *room = piece->scratch + 16ull * piece->entries_size;
    for (uint32_t i = 0; i < n; i++) offsets[i] = piece->offset + piece->start[i];
    lfs_projection_compare(v, LFS_V_OFFSETS, first, n, piece->scratch, room);
    uint32_t known = first < v->task.trusted ? (uint32_t)(v->task.trusted - first < n ? v->task.trusted - first : n) : 0;
    if (known < n) lfs_projection_compare(v, LFS_V_HASHES, first + known, n - known, piece->leaves + 32ull * known, piece->scratch);
}

/* The judge is spared reading it again. */
static void account_keep(lfs_piece *piece, lfs_seen *s) {
    const lfs_reading *r = &piece->reading;
    const lfs_text *f = r->f;
    if (piece->n_accounts == piece->accounts_size) {
        piece->accounts_size = piece->accounts_size ? 2 * piece->accounts_size : 64;
        piece->accounts = lfs_grow(piece->accounts, piece->accounts_size * sizeof *piece->accounts);
    }
    s->first_posting = piece->n_accounts;
    piece->accounts[piece->n_accounts++] = (lfs_seen_account){r->present, f[V_ACCOUNT], f[V_CLASS], f[V_CURRENCY], f[V_LIMIT], f[V_NORMAL]};
}

/* Where the results of a later entry go: the core that judged what stood there had these lines last. */
static void fetch_ahead(const lfs_piece *piece, uint32_t i) {
    const uint8_t *seen = (const uint8_t *)(piece->seen + i) + 1152, *postings = (const uint8_t *)(piece->reading.postings + piece->reading.n_postings) + 2048;
    for (int at = 0; at < 128; at += 64) lfs_fetch_to_write(seen + at);
    for (int at = 0; at < 192; at += 64) lfs_fetch_to_write(postings + at);
}

void lfs_piece_check(lfs_verify *v, lfs_piece *piece) {
    lfs_reading *r = &piece->reading;
    uint64_t words[LFS_WORDS_MAX];
    uint32_t hashed = 0;
    r->n_postings = piece->n_accounts = 0;
    piece->wrong = UINT32_MAX;
    piece->good = 0;
    for (uint32_t i = 0; i < piece->n; i++) {
        const uint8_t *bytes = piece->bytes + piece->start[i] + 2;
        fetch_ahead(piece, i);
        int seen = lfs_see(r, bytes, piece->start[i + 1] - piece->start[i] - 2, &piece->seen[i]);
        if (seen == LFS_BROKEN) {
            memcpy(piece->broken_why, r->why, sizeof r->why);
            break;
        }
        if (seen == LFS_WRONG && piece->wrong == UINT32_MAX) {
            piece->wrong = i;
            memcpy(piece->wrong_why, r->why, sizeof r->why);
        }
        if (piece->seen[i].kind == K_ACCOUNT) account_keep(piece, &piece->seen[i]);
        if (piece->seen[i].tag) lfs_tally_add(v, &v->sums, &piece->tally, LFS_IDS, lfs_seen_id(&piece->seen[i]));
        for (uint32_t n = lfs_seen_words(r, &piece->seen[i], words); n > 0; n--)
            lfs_tally_add(v, &v->sums, &piece->tally, LFS_WORDS, (lfs_record){words[n - 1], (uint32_t)(piece->first + i), 0, 0});
        if (++piece->good - hashed < LFS_HASHED_AT_ONCE) continue;
        hash_leaves(v, piece, hashed); /* while what was read is near */
        hashed = piece->good;
    }
    lfs_tally_close(v, &piece->tally);
    hash_leaves(v, piece, hashed);
    if (piece->first + piece->good > v->task.trusted) hash_bundles(piece);
    compare_piece(v, piece);
}
