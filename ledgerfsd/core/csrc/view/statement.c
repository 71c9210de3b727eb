/* Rows of statement.csv (SEMANTICS 2.4): one for each of an account's postings that states debits and credits. */
#include "engine.h"

#define PIECE 256
/* Above the longest row: a reference of 512 bytes with its quotes doubled, amounts of 41 and 42 bytes, the rest. */
#define ROW_BYTES_MAX 1400

/* A JSON string's content as a field of RFC 4180. Text in the ledger has no line breaks; escaped are only quotes and backslashes. */
static uint8_t *put_field(uint8_t *out, lfs_text text) {
    int quoted = text.len && (memchr(text.p, ',', text.len) || memmem(text.p, text.len, "\\\"", 2));
    if (quoted) *out++ = '"';
    for (uint32_t i = 0; i < text.len; i++) {
        uint8_t byte = text.p[i];
        if (byte == '\\' && i + 1 < text.len) byte = text.p[++i];
        if (byte == '"') *out++ = '"';
        *out++ = byte;
    }
    if (quoted) *out++ = '"';
    return out;
}

static uint8_t *put_text(uint8_t *out, lfs_text text) {
    if (text.len) memcpy(out, text.p, text.len);
    return out + text.len;
}

static uint8_t *put_balance(uint8_t *out, const lfs_entry_posting *posting, unsigned decimals, int normal) {
    lfs_amount debits = {0}, credits = {0};
    lfs_amount_parse(posting->debits.p, posting->debits.len, &debits);
    lfs_amount_parse(posting->credits.p, posting->credits.len, &credits);
    u128 plus = normal == S_DEBIT ? debits.value : credits.value, minus = normal == S_DEBIT ? credits.value : debits.value;
    if (plus < minus) *out++ = '-';
    return lfs_amount_put(out, plus < minus ? minus - plus : plus - minus, decimals);
}

static uint8_t *put_tx(uint8_t *out, lfs_text number) {
    memcpy(out, "tx_0000", 7);
    out += 3 + (number.len < 4 ? 4 - number.len : 0);
    return put_text(out, number);
}

static uint8_t *put_row(uint8_t *out, const lfs_entry *entry, const lfs_entry_posting *posting, unsigned decimals, int normal) {
    static const lfs_text post = {(const uint8_t *)"post", 4};
    int debit = lfs_text_is(posting->side, "debit");
    out = put_text(out, (lfs_text){entry->time.p, 10});
    *out++ = ',';
    out = put_text(out, entry->effective);
    *out++ = ',';
    out = put_tx(out, entry->tx);
    *out++ = ',';
    out = put_text(out, entry->type.p ? entry->type : post);
    *out++ = ',';
    out = put_field(out, entry->reference);
    *out++ = ',';
    if (debit) out = put_text(out, posting->amount);
    *out++ = ',';
    if (!debit) out = put_text(out, posting->amount);
    *out++ = ',';
    out = put_balance(out, posting, decimals, normal);
    *out++ = ',';
    out = put_text(out, entry->index);
    *out++ = '\r';
    *out++ = '\n';
    return out;
}

int64_t lfs_read_statement(lfs_engine *e, uint64_t ordinal, uint64_t rank, uint64_t until, uint8_t *out, size_t cap, uint64_t *next) {
    lfs_account_view account;
    lfs_posting_view postings[PIECE];
    uint8_t *at = out;
    *next = rank;
    if (lfs_read_account(e, ordinal, &account)) return -1;
    while (*next < until) {
        int64_t n = lfs_read_postings(e, ordinal, LFS_BY_RANK, *next, UINT64_MAX, postings, until - *next < PIECE ? until - *next : PIECE);
        if (n <= 0) return -1; /* there are as many as the account says */
        for (int64_t i = 0; i < n; i++) {
            if (cap - (size_t)(at - out) < (size_t)LFS_POSTINGS_MAX * ROW_BYTES_MAX) return at - out;
            *next = postings[i].rank + 1;
            if (!(postings[i].states & 1)) continue;
            lfs_entry entry;
            lfs_entry_posting posting;
            const uint8_t *p = NULL, *bytes;
            uint32_t len;
            bytes = lfs_entry_at(e, postings[i].index, &len);
            if (lfs_entry_read(bytes, len, &entry) || !entry.tx.p) return -1;
            while (lfs_entry_posting_next(entry.postings, &p, &posting) == 1)
                if (posting.account.len == account.name_len && !memcmp(posting.account.p, account.name, account.name_len))
                    at = put_row(at, &entry, &posting, account.decimals, account.normal);
        }
    }
    return at - out;
}
