/* Events: entries as lines of CloudEvents (FORMAT, section 17). Their lengths follow from the entries', so a place in a range of events is
 * found without rendering what stands before it. Published entries only. */
#include "engine.h"

#define HEAD_BYTES 336 /* and the origin: everything up to and including "data":, with the longest id, kind (KIND_BYTES_MAX) and subject */
#define KIND_BYTES_MAX 24
#define TAIL_BYTES 2   /* } and newline */
#define TIME_BYTES 30

static int64_t offset_of(lfs_engine *e, uint64_t index) {
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    if (index > counts.entries) return -1;
    if (index == counts.entries) return (int64_t)counts.stream_bytes;
    uint64_t offset;
    memcpy(&offset, e->offsets.map + index * 8, 8);
    return (int64_t)offset;
}

int64_t lfs_read_offset(lfs_engine *e, uint64_t index) { return offset_of(e, index); }

uint64_t lfs_event_width(uint64_t origin_len) { return HEAD_BYTES + origin_len + TAIL_BYTES; }

/* Bytes of the events from first to before index. An entry's length field has two bytes too many. */
static uint64_t bytes_between(lfs_engine *e, uint64_t first, uint64_t index, uint64_t width) {
    return (uint64_t)(offset_of(e, index) - offset_of(e, first)) + (index - first) * (width - 2);
}

uint64_t lfs_event_at(lfs_engine *e, uint64_t first, uint64_t end, uint64_t width, uint64_t offset, uint64_t *skip) {
    uint64_t low = first, high = end; /* the last event that begins at or before the offset */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (bytes_between(e, first, middle + 1, width) <= offset) low = middle + 1;
        else high = middle;
    }
    *skip = offset - bytes_between(e, first, low, width);
    return low;
}

/* The time stands behind everything that users write, and a text of users holds no bare quote: the last match is the member. */
static const uint8_t *time_of(const uint8_t *bytes, uint32_t len) {
    static const char key[] = "\"time\":\"";
    for (uint32_t at = len < TIME_BYTES + sizeof key ? 0 : len - TIME_BYTES - (uint32_t)sizeof key + 2; at-- > 0;)
        if (bytes[at] == '"' && memcmp(bytes + at, key, sizeof key - 1) == 0) return bytes + at + sizeof key - 1;
    return NULL;
}

int64_t lfs_read_first_at(lfs_engine *e, const char *time) {
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    uint64_t low = 0, high = counts.entries;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        uint32_t len;
        const uint8_t *bytes = lfs_entry_at(e, middle, &len), *there = time_of(bytes, len);
        if (!there) return -1;
        if (memcmp(there, time, TIME_BYTES) < 0) low = middle + 1;
        else high = middle;
    }
    return (int64_t)low;
}

static char *put(char *out, const char *text, size_t len) {
    memcpy(out, text, len);
    return out + len;
}
#define PUT(out, literal) put(out, literal, sizeof literal - 1)

static char *put_number(char *out, uint64_t value, unsigned digits) { /* at least so many digits */
    uint8_t text[24];
    size_t len = (size_t)(lfs_u64_put(text, value) - text), zeros = len < digits ? digits - len : 0;
    memset(out, '0', zeros);
    return put(out + zeros, (const char *)text, len);
}

static uint32_t subject_of(const lfs_entry *entry, char out[96]) {
    lfs_entry_posting posting;
    const uint8_t *p = NULL;
    lfs_text found = entry->account;
    uint64_t tx;
    if (entry->tx.p && lfs_entry_u64(entry->tx, &tx) == 0) return (uint32_t)(put_number(PUT(out, "tx_"), tx, 4) - out);
    if (!found.p && entry->postings.p && lfs_entry_posting_next(entry->postings, &p, &posting) == 1) found = posting.account;
    if (!found.p || found.len > 64) return 0;
    memcpy(out, found.p, found.len);
    return found.len;
}

/* The head of a line, without "data":, padded with spaces. Returns -1 for what is no entry. */
static int render_head(lfs_engine *e, uint64_t index, const uint8_t *bytes, uint32_t len, const char *origin, size_t origin_len, char *out) {
    lfs_entry entry;
    char subject[96];
    if (lfs_entry_read(bytes, len, &entry) || !entry.t.p || entry.t.len > KIND_BYTES_MAX || !entry.time.p || entry.time.len != TIME_BYTES) return -1;
    const char *kind = (const char *)entry.t.p, *slash = memchr(kind, '/', entry.t.len);
    if (!slash) return -1;
    char *p = PUT(out, "{\"specversion\":\"1.0\",\"id\":\"");
    p = put_number(p, index, 1);
    p = PUT(p, "\",\"source\":\"");
    p = put(p, origin, origin_len);
    p = PUT(p, "\",\"type\":\"ledgerfs.");
    p = put(p, kind, (size_t)(slash - kind));
    p = PUT(p, ".v");
    p = put(p, slash + 1, (size_t)(kind + entry.t.len - slash - 1));
    uint32_t subject_len = subject_of(&entry, subject);
    if (subject_len) {
        p = PUT(p, "\",\"subject\":\"");
        p = put(p, subject, subject_len);
    }
    p = PUT(p, "\",\"time\":\"");
    p = put(p, (const char *)entry.time.p, TIME_BYTES);
    p = PUT(p, "\",\"sequence\":\"");
    p = put_number(p, index, 20);
    p = PUT(p, "\",\"leafhash\":\"");
    p = (char *)lfs_hex_put((uint8_t *)p, e->hashes[0].map + index * 32, 32);
    p = PUT(p, "\",");
    size_t data = HEAD_BYTES + origin_len - (sizeof "\"data\":" - 1);
    memset(p, ' ', data - (size_t)(p - out));
    PUT(out + data, "\"data\":");
    return 0;
}

int64_t lfs_read_events(lfs_engine *e, uint64_t first, uint64_t end, uint64_t skip, int whole, const char *origin, size_t origin_len,
                        uint8_t *out, size_t cap) {
    char head[HEAD_BYTES + 256];
    size_t used = 0, head_len = HEAD_BYTES + origin_len;
    lfs_counts counts;
    lfs_read_counts(e, &counts);
    if (origin_len > 255) return -1;
    for (uint64_t index = first; index < end && index < counts.entries && used < cap; index++, skip = 0) {
        uint32_t len;
        const uint8_t *bytes = lfs_entry_at(e, index, &len);
        if (whole && used && head_len + len + TAIL_BYTES >= cap - used) break;
        if (render_head(e, index, bytes, len, origin, origin_len, head)) return -1;
        const struct { const void *bytes; size_t len; } parts[] = {{head, head_len}, {bytes, len}, {"}\n", TAIL_BYTES}};
        for (int i = 0; i < 3; i++) {
            size_t from = skip < parts[i].len ? skip : parts[i].len, n = parts[i].len - from;
            skip -= from;
            if (n > cap - used) n = cap - used;
            memcpy(out + used, (const uint8_t *)parts[i].bytes + from, n);
            used += n;
        }
    }
    return (int64_t)used;
}
