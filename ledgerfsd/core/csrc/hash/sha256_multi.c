/* SHA-256 of many messages in parallel lanes: the compression functions, and the scheduler that keeps the lanes full
 * when the messages differ in length. */
#include <string.h>

#include "sha256.h"

#ifdef __x86_64__

#define ROTATE_LEFT(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define VEC_(n) vec_##n
#define VEC(n) VEC_(n)
#define LOWER_8 {0, 8, 1, 9, 2, 10, 3, 11}
#define UPPER_8 {4, 12, 5, 13, 6, 14, 7, 15}
#define LOWER_16 {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}
#define UPPER_16 {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}
#define PICK_(which, n) which##_##n
#define PICK(which, n) PICK_(which, n)
#define LOWER_HALVES(n, x, y) __builtin_shuffle(x, y, (VEC(n))PICK(LOWER, n))
#define UPPER_HALVES(n, x, y) __builtin_shuffle(x, y, (VEC(n))PICK(UPPER, n))

#define LANES 8
#define TARGET "avx2"
#define NAME blocks_avx2_x8
#include "sha256_lanes.h"

#define LANES 16
#define TARGET "avx2"
#define NAME blocks_avx2_x16
#include "sha256_lanes.h"

const lfs_lanes LFS_AVX2_X8 = {.blocks = blocks_avx2_x8, .lanes = 8};
const lfs_lanes LFS_AVX2_X16 = {.blocks = blocks_avx2_x16, .lanes = 16};
#endif

#define IDLE SIZE_MAX

typedef struct {
    const lfs_lanes *lanes;
    int prefix;
    const lfs_strings *in;
    size_t next, n; /* the first string not yet begun */
    uint8_t *out;
    unsigned busy;
    size_t string[LFS_LANES_MAX]; /* which string is in the lane, or IDLE */
    unsigned piece[LFS_LANES_MAX];
    _Alignas(64) uint32_t state[8 * LFS_LANES_MAX];
    lfs_message message[LFS_LANES_MAX];
} scheduler;

/* Put the next string into a lane, or leave it idle. */
static void begin(scheduler *s, unsigned lane) {
    s->string[lane] = IDLE;
    if (s->next == s->n) return;
    size_t i = s->string[lane] = s->next++;
    lfs_message_cut(&s->message[lane], s->prefix, s->in->entries[i], s->in->lens[i]);
    for (unsigned word = 0; word < 8; word++) s->state[word * s->lanes->lanes + lane] = LFS_SHA256_START[word];
    s->piece[lane] = LFS_HEAD;
    while (!s->message[lane].piece[s->piece[lane]].blocks) s->piece[lane]++; /* the tail is never empty */
    s->busy++;
}

static void state_of(const scheduler *s, unsigned lane, uint32_t state[8]) {
    for (unsigned word = 0; word < 8; word++) state[word] = s->state[word * s->lanes->lanes + lane];
}

/* The lane has taken `blocks` blocks of its piece. */
static void advance(scheduler *s, unsigned lane, size_t blocks) {
    lfs_message *m = &s->message[lane];
    unsigned piece = s->piece[lane];
    m->piece[piece].at += 64 * blocks;
    m->piece[piece].blocks -= blocks;
    while (piece < LFS_PIECES && !m->piece[piece].blocks) piece++;
    s->piece[lane] = piece;
    if (piece < LFS_PIECES) return;
    uint32_t state[8];
    state_of(s, lane, state);
    lfs_digest_write(state, s->out + 32 * s->string[lane]);
    s->busy--;
    begin(s, lane);
}

/* All lanes take as many blocks as the shortest piece has. */
static void step(scheduler *s) {
    const uint8_t *data[LFS_LANES_MAX], *some = NULL;
    size_t blocks = SIZE_MAX;
    unsigned n = s->lanes->lanes;
    for (unsigned lane = 0; lane < n; lane++) {
        if (s->string[lane] == IDLE) continue;
        size_t left = s->message[lane].piece[s->piece[lane]].blocks;
        some = s->message[lane].piece[s->piece[lane]].at;
        if (left < blocks) blocks = left;
    }
    for (unsigned lane = 0; lane < n; lane++) {
        /* an idle lane must read something: what a busy one reads; the result is not used */
        data[lane] = s->string[lane] == IDLE ? some : s->message[lane].piece[s->piece[lane]].at;
    }
    s->lanes->blocks(s->state, data, blocks);
    for (unsigned lane = 0; lane < n; lane++) {
        if (s->string[lane] != IDLE) advance(s, lane, blocks);
    }
}

static void finish_alone(scheduler *s, unsigned lane, lfs_sha256_blocks *one) {
    uint32_t state[8];
    state_of(s, lane, state);
    for (unsigned piece = s->piece[lane]; piece < LFS_PIECES; piece++) {
        if (s->message[lane].piece[piece].blocks) {
            one(state, s->message[lane].piece[piece].at, s->message[lane].piece[piece].blocks);
        }
    }
    lfs_digest_write(state, s->out + 32 * s->string[lane]);
}

/* Strings of all lengths at once. */
static void many_mixed(const lfs_lanes *lanes, lfs_sha256_blocks *one, int prefix, const lfs_strings *in, size_t n, uint8_t *out) {
    scheduler s;
    s.lanes = lanes, s.prefix = prefix, s.in = in, s.next = 0, s.n = n, s.out = out, s.busy = 0;
    for (unsigned lane = 0; lane < lanes->lanes; lane++) begin(&s, lane);
    /* Half-empty lanes are no faster than one message after another. */
    while (s.busy > lanes->lanes / 2) step(&s);
    for (unsigned lane = 0; lane < lanes->lanes; lane++) {
        if (s.string[lane] != IDLE) finish_alone(&s, lane, one);
    }
}

#define EVEN_BLOCKS_MAX 16

static void digests_write(const uint32_t *states, unsigned wide, const uint32_t *which, uint8_t *out) {
    for (unsigned lane = 0; lane < wide; lane++) {
        uint32_t state[8];
        for (unsigned word = 0; word < 8; word++) state[word] = states[word * wide + lane];
        lfs_digest_write(state, out + 32 * (size_t)which[lane]);
    }
}

static void start(uint32_t *state, unsigned wide) {
    for (unsigned word = 0; word < 8; word++)
        for (unsigned lane = 0; lane < wide; lane++) state[word * wide + lane] = LFS_SHA256_START[word];
}

/* As many strings as there are lanes, which all come to the same number of blocks, read where they stand. While they are hashed, those from `next` on are
 * fetched: another core wrote them last, and whoever reads them would wait for each line. */
static void even_in_place(const lfs_lanes *lanes, int prefix, const lfs_strings *in, const uint32_t *which, unsigned blocks, size_t next, size_t n, uint8_t *out) {
    const uint8_t *texts[LFS_LANES_MAX], *soon[LFS_LANES_MAX];
    uint32_t lens[LFS_LANES_MAX];
    uint8_t *digests[LFS_LANES_MAX];
    for (unsigned lane = 0; lane < lanes->lanes; lane++) {
        texts[lane] = in->entries[which[lane]];
        lens[lane] = in->lens[which[lane]];
        digests[lane] = out + 32 * (size_t)which[lane];
        if (next < n) soon[lane] = in->entries[next + lane < n ? next + lane : n - 1];
    }
    lanes->texts(prefix, texts, lens, blocks, next < n ? soon : NULL, digests);
}

/* The same where the lanes cannot do that: copied and padded, and then there is nothing to decide. */
static void even(const lfs_lanes *lanes, int prefix, const lfs_strings *in, const uint32_t *which, unsigned blocks, size_t next, size_t n, uint8_t *out) {
    if (lanes->texts) {
        even_in_place(lanes, prefix, in, which, blocks, next, n, out);
        return;
    }
    _Alignas(64) uint8_t rows[LFS_LANES_MAX][64 * EVEN_BLOCKS_MAX];
    _Alignas(64) uint32_t state[8 * LFS_LANES_MAX];
    const uint8_t *data[LFS_LANES_MAX];
    unsigned wide = lanes->lanes;
    for (unsigned lane = 0; lane < wide; lane++) {
        uint8_t *row = rows[lane];
        uint64_t len = in->lens[which[lane]] + (prefix != LFS_NO_PREFIX), bits = __builtin_bswap64(8 * len);
        row[0] = (uint8_t)prefix;
        memcpy(row + (prefix != LFS_NO_PREFIX), in->entries[which[lane]], in->lens[which[lane]]);
        memset(row + len, 0, 64 * blocks - len);
        row[len] = 0x80;
        memcpy(row + 64 * blocks - 8, &bits, 8);
    }
    start(state, wide);
    unsigned soon = n - next < wide ? (unsigned)(n - next) : wide;
    for (unsigned block = 0; block < blocks; block += 2) {
        for (unsigned lane = 0; lane < wide; lane++) data[lane] = rows[lane] + 64 * block;
        for (unsigned i = 0; i < soon; i++) {
            __builtin_prefetch(in->entries[next + i] + 64 * block);
            __builtin_prefetch(in->entries[next + i] + 64 * block + 64);
        }
        lanes->blocks(state, data, blocks - block < 2 ? 1 : 2);
    }
    digests_write(state, wide, which, out);
}

void lfs_sha256_many(const lfs_lanes *lanes, lfs_sha256_blocks *one, int prefix, const lfs_strings *in, size_t n, uint8_t *out) {
    enum { LEFT_MAX = EVEN_BLOCKS_MAX * LFS_LANES_MAX };
    uint32_t waiting[EVEN_BLOCKS_MAX + 1][LFS_LANES_MAX], count[EVEN_BLOCKS_MAX + 1] = {0}, left[LEFT_MAX], lens[LEFT_MAX], n_left = 0;
    const uint8_t *texts[LEFT_MAX];
    uint8_t digests[LEFT_MAX][32];
    for (size_t i = 0; i < n; i++) {
        size_t blocks = (in->lens[i] + (prefix != LFS_NO_PREFIX) + 9 + 63) / 64;
        if (blocks > EVEN_BLOCKS_MAX) blocks = 0; /* long ones wait for each other whatever their length */
        waiting[blocks][count[blocks]++] = (uint32_t)i;
        if (count[blocks] < lanes->lanes) continue;
        count[blocks] = 0;
        if (blocks) {
            even(lanes, prefix, in, waiting[blocks], (unsigned)blocks, i + 1, n, out);
            continue;
        }
        for (unsigned k = 0; k < lanes->lanes; k++) texts[k] = in->entries[waiting[0][k]], lens[k] = in->lens[waiting[0][k]];
        many_mixed(lanes, one, prefix, &(lfs_strings){texts, lens}, lanes->lanes, digests[0]);
        for (unsigned k = 0; k < lanes->lanes; k++) memcpy(out + 32 * (size_t)waiting[0][k], digests[k], 32);
    }
    for (unsigned blocks = 0; blocks <= EVEN_BLOCKS_MAX; blocks++)
        for (uint32_t k = 0; k < count[blocks]; k++) left[n_left++] = waiting[blocks][k];
    for (uint32_t k = 0; k < n_left; k++) texts[k] = in->entries[left[k]], lens[k] = in->lens[left[k]];
    if (n_left) many_mixed(lanes, one, prefix, &(lfs_strings){texts, lens}, n_left, digests[0]);
    for (uint32_t k = 0; k < n_left; k++) memcpy(out + 32 * (size_t)left[k], digests[k], 32);
}

void lfs_sha256_many_padded(const lfs_lanes *lanes, const uint8_t *const *messages, size_t blocks, size_t n, uint8_t *out) {
    _Alignas(64) uint32_t state[8 * LFS_LANES_MAX];
    uint8_t nowhere[32], *digests[LFS_LANES_MAX];
    const uint8_t *data[LFS_LANES_MAX];
    unsigned wide = lanes->lanes;
    for (size_t first = 0; first < n; first += wide) {
        for (unsigned lane = 0; lane < wide; lane++) { /* an idle lane reads what another reads */
            int busy = first + lane < n;
            data[lane] = messages[busy ? first + lane : first];
            digests[lane] = busy ? out + 32 * (first + lane) : nowhere;
        }
        if (lanes->padded) {
            lanes->padded(data, blocks, digests);
            continue;
        }
        start(state, wide);
        lanes->blocks(state, data, blocks);
        for (unsigned lane = 0; lane < wide && first + lane < n; lane++) {
            uint32_t one[8];
            for (unsigned word = 0; word < 8; word++) one[word] = state[word * wide + lane];
            lfs_digest_write(one, out + 32 * (first + lane));
        }
    }
}
