/* T5: intents over a Unix socket, a line each, answered by a line each in the same order.
 *
 * It reads whole lines, queues them as submissions of their own, and writes answers out when the submissions are handed back. A
 * submission takes this way:
 *
 *   T5 lfs_enqueue → T1, T2 → complete() in groups.c puts it into `finished`
 *   → Python: lfs_socket_hold (what is finished now) → tells the mount what changed → lfs_socket_deliver → T5 writes the answers
 *
 * so an answer is given only after every file shows what it answers (SEMANTICS, 16.2), at one call into Python for a whole group
 * commit. Where the mount need not be told (lfs_unattended) and nothing waits to be, complete() puts it into `ready` itself: no Python.
 * What comes out of one turn of epoll goes into the queue together, for each submission that T1 is woken for costs as much as judging it. A connection is known by slot and generation: an answer for one that has gone finds nobody and is dropped. */
#include "engine.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define READ_BYTES (256u << 10)    /* of one connection before another has its turn */
#define WINDOW_BYTES (2u << 20)    /* a connection is not read while so much of it is under way, or so many answers wait for it */
#define INFLIGHT_BYTES (64u << 20) /* nor is any while so much of all is */
#define LONG_LINE_BYTES (2u * LFS_INTENT_BYTES_MAX) /* no intent can be so long, white space around it included */
#define EVENTS 64
#define LINGER_MS 1000 /* when the ledger stops: for a client that does not read its answers */
#define ANSWER_BYTES 256 /* of an answer, without its field */

typedef struct {
    uint8_t *bytes;
    size_t at, used, size;
} buffer;

typedef struct {
    int fd;
    uint32_t generation;
    uint32_t interest; /* what epoll waits for */
    uint32_t next_line, tickets;
    size_t inflight;
    int ended;    /* the client sends no more */
    int skipping; /* inside of a line that is too long and was answered */
    buffer in, out;
} connection;

struct lfs_socket {
    int listening, epoll, wake, running;
    _Atomic int stopping;
    pthread_t thread;
    connection *slots[CONNECTIONS_MAX];
    uint32_t generations[CONNECTIONS_MAX];
    lfs_ticket *taken, **taken_tail; /* in this turn */
    uint8_t changed[CONNECTIONS_MAX]; /* in this turn: something to settle */
    _Atomic int starved; /* some connection is not read because all are too much: settle them all */
    /* under the engine's lock */
    lfs_ticket *finished, **finished_tail, *held, **held_tail, *ready, **ready_tail;
    /* for people */
    _Atomic uint64_t connections, committed, refused;
};

/* -- buffers */

static void room(buffer *b, size_t more) {
    if (b->at && (b->at == b->used || b->used + more > b->size)) {
        memmove(b->bytes, b->bytes + b->at, b->used - b->at);
        b->used -= b->at;
        b->at = 0;
    }
    if (b->used + more <= b->size) return;
    while (b->used + more > b->size) b->size = b->size ? 2 * b->size : 4096;
    b->bytes = lfs_grow(b->bytes, b->size);
}

static void put(buffer *b, const void *bytes, size_t len) {
    room(b, len);
    memcpy(b->bytes + b->used, bytes, len);
    b->used += len;
}

static size_t waiting(const buffer *b) { return b->used - b->at; }

/* A member name as it came, made a JSON string: only what has to be is escaped. */
static void put_string(buffer *b, const char *text) {
    put(b, "\"", 1);
    for (const uint8_t *p = (const uint8_t *)text; *p; p++) {
        char escaped[8];
        if (*p == '"' || *p == '\\') put(b, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\%c", *p));
        else if (*p < 0x20) put(b, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", *p));
        else put(b, p, 1);
    }
    put(b, "\"", 1);
}

/* -- answers (SEMANTICS, 16.3: the members of a receipt's line, without the explanations) */

static const char *code_name(int code) {
    for (size_t i = 0; i < sizeof LFS_CODE_NAMES / sizeof *LFS_CODE_NAMES; i++)
        if (LFS_CODE_NAMES[i].number == code) return LFS_CODE_NAMES[i].name;
    return "";
}

static uint8_t *text(uint8_t *at, const char *what) {
    size_t len = strlen(what);
    memcpy(at, what, len);
    return at + len;
}

static uint8_t *number(uint8_t *at, const char *before, uint64_t value) { return lfs_u64_put(text(at, before), value); }

static void answer(buffer *b, const lfs_ticket *t, const lfs_result *r) {
    room(b, ANSWER_BYTES);
    uint8_t *at = number(b->bytes + b->used, "{\"line\":", r->line);
    at = text(at, r->code ? ",\"status\":\"refused\",\"code\":\"" : r->duplicate ? ",\"status\":\"duplicate\",\"code\":\"" : ",\"status\":\"committed\",\"code\":\"");
    at = text(text(at, code_name(r->code)), "\"");
    if (r->index >= 0) at = number(at, ",\"index\":", (uint64_t)r->index);
    if (r->tx) {
        at = text(at, ",\"tx\":\"tx_");
        for (uint64_t least = 1000; least > 1 && r->tx < least; least /= 10) *at++ = '0';
        at = number(at, "", r->tx);
        *at++ = '"';
    }
    if (r->block) at = number(at, ",\"block\":", r->block);
    if (r->code >= LFS_EMPTY && r->code < LFS_UNKNOWN_TYPE) at = number(at, ",\"offset\":", r->offset);
    b->used = (size_t)(at - b->bytes);
    if (r->code >= LFS_UNKNOWN_TYPE && r->code <= LFS_AMOUNT_OVERFLOW) {
        const char *field = r->name ? lfs_ticket_name(t, r->name) : lfs_field_name(r->field);
        if (*field) {
            put(b, ",\"field\":", 9);
            put_string(b, field);
        }
    }
    put(b, "}\n", 2);
}

static void answer_ticket(struct lfs_socket *s, connection *c, const lfs_ticket *t) {
    uint32_t committed = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        answer(&c->out, t, &t->results[i]);
        committed += !t->results[i].code;
    }
    atomic_fetch_add(&s->committed, committed);
    atomic_fetch_add(&s->refused, t->n - committed);
}

/* -- connections */

static void drop(struct lfs_socket *s, uint32_t slot) {
    connection *c = s->slots[slot];
    close(c->fd); /* epoll forgets it with that */
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
    s->slots[slot] = NULL;
    s->generations[slot]++;
    atomic_fetch_sub(&s->connections, 1);
}

static void interest(struct lfs_socket *s, uint32_t slot, uint32_t wanted) {
    connection *c = s->slots[slot];
    if (c->interest == wanted) return;
    struct epoll_event event = {.events = wanted, .data.u64 = slot};
    epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->interest = wanted;
}

static int full(lfs_engine *e, struct lfs_socket *s, const connection *c) {
    size_t most = WINDOW_BYTES;
    int starved = lfs_inflight_bytes(e) > INFLIGHT_BYTES;
    if (starved) s->starved = 1;
    return starved || c->inflight > most || waiting(&c->in) > most || waiting(&c->out) > most;
}

/* Write what there is; returns 0 when the connection is over. */
static int flush(connection *c) {
    while (waiting(&c->out)) {
        ssize_t n = send(c->fd, c->out.bytes + c->out.at, waiting(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN;
        c->out.at += (size_t)n;
    }
    return !(c->ended && !c->tickets);
}

/* After anything that happened to it. */
static void settle(lfs_engine *e, struct lfs_socket *s, uint32_t slot) {
    connection *c = s->slots[slot];
    if (!flush(c)) {
        drop(s, slot);
        return;
    }
    int reads = !c->ended && !s->stopping && !full(e, s, c);
    interest(s, slot, (reads ? EPOLLIN : 0u) | (waiting(&c->out) ? EPOLLOUT : 0u));
}

static void welcome(lfs_engine *e, struct lfs_socket *s) {
    int fd = accept4(s->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    uint32_t slot = 0;
    while (slot < CONNECTIONS_MAX && s->slots[slot]) slot++;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = slot};
    if (slot == CONNECTIONS_MAX || epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event)) {
        close(fd);
        return;
    }
    connection *c = lfs_grow(NULL, sizeof *c);
    *c = (connection){.fd = fd, .generation = s->generations[slot], .interest = EPOLLIN, .next_line = 1};
    s->slots[slot] = c;
    atomic_fetch_add(&s->connections, 1);
}

/* -- reading */

static void take(lfs_engine *e, struct lfs_socket *s, connection *c, uint32_t slot, size_t len) {
    lfs_ticket *t = lfs_ticket_take(e, c->in.bytes + c->in.at, len, "socket", c->next_line);
    t->ids_required = 1;
    t->connection = (uint64_t)c->generation << 32 | (slot + 1);
    for (const uint8_t *p = t->data; (p = memchr(p, '\n', (size_t)(t->data + len - p))); p++) c->next_line++;
    c->tickets++;
    c->inflight += len;
    c->in.at += len;
    *s->taken_tail = t;
    s->taken_tail = &t->next;
}

static void submit(lfs_engine *e, struct lfs_socket *s) {
    if (!s->taken) return;
    lfs_enqueue(e, s->taken);
    s->taken = NULL;
    s->taken_tail = &s->taken;
}

static void refuse_long_line(struct lfs_socket *s, connection *c) {
    lfs_result result = {.index = -1, .line = c->next_line, .code = LFS_TOO_LARGE};
    answer(&c->out, NULL, &result);
    atomic_fetch_add(&s->refused, 1);
    c->skipping = 1;
    c->in.at = c->in.used;
}

/* What of the input is whole lines; at the end of the input also what has no newline. */
static void take_lines(lfs_engine *e, struct lfs_socket *s, uint32_t slot) {
    connection *c = s->slots[slot];
    uint8_t *begin = c->in.bytes + c->in.at, *end = c->in.bytes + c->in.used;
    if (c->skipping) {
        uint8_t *newline = memchr(begin, '\n', (size_t)(end - begin));
        c->in.at = newline ? (size_t)(newline + 1 - c->in.bytes) : c->in.used;
        if (!newline) return;
        c->skipping = 0;
        c->next_line++;
        begin = newline + 1;
    }
    uint8_t *last = memrchr(begin, '\n', (size_t)(end - begin));
    size_t whole = c->ended ? (size_t)(end - begin) : last ? (size_t)(last + 1 - begin) : 0;
    if (whole) take(e, s, c, slot, whole);
    else if (waiting(&c->in) > LONG_LINE_BYTES && !c->tickets) refuse_long_line(s, c);
}

static void receive(lfs_engine *e, struct lfs_socket *s, uint32_t slot) {
    connection *c = s->slots[slot];
    room(&c->in, READ_BYTES);
    ssize_t n = recv(c->fd, c->in.bytes + c->in.used, READ_BYTES, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n > 0) c->in.used += (size_t)n;
    else c->ended = 1; /* or it broke: what was sent whole counts all the same */
    take_lines(e, s, slot);
}

/* -- handing back */

static void move_list(lfs_ticket **from, lfs_ticket ***from_tail, lfs_ticket ***to_tail) {
    if (!*from) return;
    **to_tail = *from;
    *to_tail = *from_tail;
    *from = NULL;
    *from_tail = from;
}

/* Behind what waits for Python the rest waits too: answers of a connection come in the order of its lines. */
int lfs_socket_finished(lfs_engine *e, lfs_ticket *t, int unattended) {
    struct lfs_socket *s = e->socket;
    int at_once = unattended && !s->finished && !s->held;
    lfs_ticket ***tail = at_once ? &s->ready_tail : &s->finished_tail;
    t->next = NULL;
    **tail = t;
    *tail = &t->next;
    return !at_once;
}

void lfs_socket_hold(lfs_engine *e) {
    struct lfs_socket *s = e->socket;
    if (!s) return;
    pthread_mutex_lock(&e->lock);
    move_list(&s->finished, &s->finished_tail, &s->held_tail);
    pthread_mutex_unlock(&e->lock);
}

static void wake(struct lfs_socket *s) {
    uint64_t one = 1;
    if (write(s->wake, &one, sizeof one) < 0) return; /* it is awake: the counter is at its limit */
}

int lfs_socket_due(lfs_engine *e) {
    struct lfs_socket *s = e->socket;
    return s->ready != NULL || (s->starved && e->inflight_bytes <= INFLIGHT_BYTES);
}

void lfs_socket_wake(lfs_engine *e) { wake(e->socket); }

void lfs_socket_deliver(lfs_engine *e) {
    struct lfs_socket *s = e->socket;
    if (!s || !s->held) return; /* only this thread fills `held` */
    pthread_mutex_lock(&e->lock);
    move_list(&s->held, &s->held_tail, &s->ready_tail);
    pthread_mutex_unlock(&e->lock);
    wake(s);
}

static void hand_back(lfs_engine *e, struct lfs_socket *s) {
    pthread_mutex_lock(&e->lock);
    lfs_ticket *t = s->ready;
    s->ready = NULL;
    s->ready_tail = &s->ready;
    pthread_mutex_unlock(&e->lock);
    for (lfs_ticket *next; t; t = next) {
        next = t->next;
        uint32_t slot = (uint32_t)t->connection - 1;
        connection *c = s->slots[slot];
        if (c && c->generation == t->connection >> 32) {
            c->tickets--;
            c->inflight -= t->len;
            answer_ticket(s, c, t);
            s->changed[slot] = 1;
        }
        lfs_ticket_free(t);
    }
    int all = s->starved;
    s->starved = 0;
    for (uint32_t slot = 0; slot < CONNECTIONS_MAX; slot++) {
        connection *c = s->slots[slot];
        if (!c || !(all || s->changed[slot])) continue;
        s->changed[slot] = 0;
        if (!c->tickets && waiting(&c->in) > LONG_LINE_BYTES) take_lines(e, s, slot); /* its answer had to wait for those before */
        settle(e, s, slot);
    }
    submit(e, s);
}

/* -- the thread */

static void *socket_loop(void *context) {
    lfs_engine *e = context;
    struct lfs_socket *s = e->socket;
    struct epoll_event events[EVENTS];
    while (!s->stopping) {
        int n = epoll_wait(s->epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            uint64_t which = events[i].data.u64, count;
            if (which == CONNECTIONS_MAX) {
                welcome(e, s);
            } else if (which > CONNECTIONS_MAX) {
                if (read(s->wake, &count, sizeof count) > 0) hand_back(e, s);
            } else if (s->slots[which]) {
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !s->slots[which]->ended) receive(e, s, (uint32_t)which);
                settle(e, s, (uint32_t)which);
            }
        }
        submit(e, s);
    }
    return NULL;
}

int lfs_socket_start(lfs_engine *e, int listening) {
    struct lfs_socket *s = lfs_grow(NULL, sizeof *s);
    memset(s, 0, sizeof *s);
    s->taken_tail = &s->taken;
    s->finished_tail = &s->finished;
    s->held_tail = &s->held;
    s->ready_tail = &s->ready;
    s->listening = listening;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event accepts = {.events = EPOLLIN, .data.u64 = CONNECTIONS_MAX}, wakes = {.events = EPOLLIN, .data.u64 = CONNECTIONS_MAX + 1};
    e->socket = s;
    if (s->epoll < 0 || s->wake < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, listening, &accepts) ||
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->wake, &wakes) || pthread_create(&s->thread, NULL, socket_loop, e))
        return lfs_fail_api(e, "cannot listen: %s", strerror(errno));
    pthread_setname_np(s->thread, "lfs-socket");
    s->running = 1;
    return 0;
}

/* Before T1 and T2 end: nothing more is taken. */
void lfs_socket_stop(lfs_engine *e) {
    struct lfs_socket *s = e->socket;
    if (!s || !s->running) return;
    s->stopping = 1;
    wake(s);
    pthread_join(s->thread, NULL);
    s->running = 0;
}

/* After they have ended: everything queued is finished, and whoever waits is told. */
void lfs_socket_end(lfs_engine *e) {
    struct lfs_socket *s = e->socket;
    if (!s) return;
    lfs_socket_hold(e);
    lfs_socket_deliver(e);
    hand_back(e, s);
    for (uint32_t slot = 0; slot < CONNECTIONS_MAX; slot++) {
        if (!s->slots[slot]) continue;
        struct timeval patience = {LINGER_MS / 1000, LINGER_MS % 1000 * 1000};
        connection *c = s->slots[slot];
        setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (waiting(&c->out) && send(c->fd, c->out.bytes + c->out.at, waiting(&c->out), MSG_NOSIGNAL) < 0) shutdown(c->fd, SHUT_RDWR);
        drop(s, slot);
    }
    close(s->epoll);
    close(s->wake);
    free(s);
    e->socket = NULL;
}

void lfs_socket_counts(lfs_engine *e, uint64_t *connections, uint64_t *committed, uint64_t *refused) {
    struct lfs_socket *s = e->socket;
    *connections = s ? atomic_load(&s->connections) : 0;
    *committed = s ? atomic_load(&s->committed) : 0;
    *refused = s ? atomic_load(&s->refused) : 0;
}
