/* balance.json as text. Its twin is balance in ledgerfsd/service/render.py; tests/property/test_balance_equals_twin.py compares the bytes. */
#include "engine.h"

static u128 number(const uint64_t halves[2]) { return (u128)halves[1] << 64 | halves[0]; }

#define LIT(p, text) (memcpy(p, text, sizeof(text) - 1), (p) + sizeof(text) - 1)

/* plus less minus; both are below 2^128, as totals are below 2^127. */
static uint8_t *put_signed(uint8_t *p, u128 plus, u128 minus, unsigned decimals) {
    if (plus < minus) *p++ = '-';
    return lfs_amount_put(p, plus < minus ? minus - plus : plus - minus, decimals);
}

static uint8_t *put_tx(uint8_t *p, uint64_t tx) {
    uint8_t digits[20];
    size_t len = (size_t)(lfs_u64_put(digits, tx) - digits);
    p = LIT(p, "\"tx_0000");
    p -= len < 4 ? len : 4;
    memcpy(p, digits, len);
    p += len;
    *p++ = '"';
    return p;
}

/* Entries are canonical, so the last "time":" is the member: free text sorts before it. NULL when there is none. */
const uint8_t *lfs_entry_time(const uint8_t *bytes, uint32_t len) {
    static const char name[] = "\"time\":\"";
    for (int64_t at = (int64_t)len - LFS_TIME_BYTES - (int64_t)sizeof name; at >= 0; at--)
        if (memcmp(bytes + at, name, sizeof name - 1) == 0) return bytes + at + sizeof name - 1;
    return NULL;
}

int lfs_entry_ns(lfs_engine *e, uint64_t index, uint64_t *ns) {
    uint32_t len;
    const uint8_t *bytes, *time;
    if (lfs_read_entry(e, index, &bytes, &len)) return -1;
    time = lfs_entry_time(bytes, len);
    return time ? lfs_time_parse(time, LFS_TIME_BYTES, ns) : -1;
}

/* The rest of the members: what the account's newest entry says of it. */
static uint8_t *put_as_of(lfs_engine *e, uint8_t *p, const lfs_account_view *account, const uint8_t *time) {
    p = lfs_u64_put(LIT(p, "\",\"as_of\":{\"index\":"), account->last_index);
    p = LIT(p, ",\"tx\":");
    /* The newest entry is a transaction just when the account's newest transaction is that entry. */
    if (account->last_tx && lfs_read_transaction(e, account->last_tx) == (int64_t)account->last_index) p = put_tx(p, account->last_tx);
    else p = LIT(p, "null");
    p = lfs_u64_put(LIT(p, ",\"seal\":"), (uint64_t)lfs_read_block_of(e, account->last_index));
    p = lfs_copy(LIT(p, ",\"time\":\""), time, LFS_TIME_BYTES);
    return LIT(p, "\"}}");
}

int lfs_balance_text(lfs_engine *e, const lfs_account_view *account, uint8_t out[LFS_BALANCE_BYTES], uint64_t *ns) {
    uint8_t room[LFS_BALANCE_BYTES + 256], *p = room; /* amounts of 41 bytes, names of 64 and 12: the text always fits into out */
    u128 debits = number(account->debits), credits = number(account->credits);
    u128 plus = account->normal == S_DEBIT ? debits : credits, minus = account->normal == S_DEBIT ? credits : debits;
    u128 held = number(account->normal == S_DEBIT ? account->held_credits : account->held_debits);
    const uint8_t *bytes, *time;
    unsigned decimals = account->decimals;
    uint32_t len;
    if (lfs_read_entry(e, account->last_index, &bytes, &len) || !(time = lfs_entry_time(bytes, len)) || lfs_time_parse(time, LFS_TIME_BYTES, ns)) return -1;
    p = lfs_copy(LIT(p, "{\"account\":\""), (const uint8_t *)account->name, account->name_len);
    p = lfs_copy(LIT(p, "\",\"currency\":\""), (const uint8_t *)account->currency, strnlen(account->currency, sizeof account->currency));
    p = put_signed(LIT(p, "\",\"balance\":\""), plus, minus, decimals);
    p = put_signed(LIT(p, "\",\"available\":\""), plus, minus + held, decimals);
    p = lfs_amount_put(LIT(p, "\",\"held\":\""), held, decimals);
    p = lfs_amount_put(LIT(p, "\",\"debits\":\""), debits, decimals);
    p = lfs_amount_put(LIT(p, "\",\"credits\":\""), credits, decimals);
    p = put_as_of(e, p, account, time);
    if (p - room > LFS_BALANCE_BYTES - 1) return -1;
    memset(out, ' ', LFS_BALANCE_BYTES - 1);
    memcpy(out, room, (size_t)(p - room));
    out[LFS_BALANCE_BYTES - 1] = '\n';
    return 0;
}

int lfs_read_balance(lfs_engine *e, uint64_t ordinal, uint64_t size, uint8_t *out, uint64_t *ns) {
    lfs_account_view account;
    int found = size == UINT64_MAX ? lfs_read_account(e, ordinal, &account) == 0 : lfs_read_account_at(e, ordinal, size, &account);
    if (found != 1) return found;
    return lfs_balance_text(e, &account, out, ns) ? -1 : 1;
}
