/* Rows of trial balances: lfs_trial_rows of lfs_core.h. The longest is "account,", a name of 64, a class of 18, a currency of 12, five amounts of 41,
 * "credit", "frozen", nine commas, CR LF: 334 bytes. */
#include "ledger.h"
#include "lfs_core.h"
#include "money.h"

static const char *const SIDES[] = {"debit", "credit"}, *const STATUSES[] = {"open", "frozen", "closed"};

static u128 number(const uint64_t halves[2]) { return (u128)halves[1] << 64 | halves[0]; }

static void add(uint64_t sum[3], u128 value) {
    u128 low = (u128)sum[0] + (uint64_t)value;
    u128 high = (u128)sum[1] + (uint64_t)(value >> 64) + (uint64_t)(low >> 64);
    sum[0] = (uint64_t)low;
    sum[1] = (uint64_t)high;
    sum[2] += (uint64_t)(high >> 64);
}

static uint8_t *text(uint8_t *out, const char *s) {
    size_t len = strlen(s);
    memcpy(out, s, len);
    return out + len;
}

/* The total to which an account belongs: mostly that of the account before, which is *near. */
static lfs_trial_total *total_of(const lfs_account_view *account, lfs_trial_total *totals, uint32_t *used, uint32_t cap, lfs_trial_total *near) {
    for (uint32_t i = 0; i <= *used; i++) {
        lfs_trial_total *each = i == 0 ? near : &totals[i - 1];
        if (each && each->account_class == account->account_class && !strncmp(each->currency, account->currency, sizeof each->currency)) return each;
    }
    if (*used == cap) return NULL;
    lfs_trial_total *made = &totals[(*used)++];
    memset(made, 0, sizeof *made);
    memcpy(made->currency, account->currency, sizeof made->currency);
    made->account_class = account->account_class;
    made->decimals = account->decimals;
    return made;
}

static uint8_t *row(uint8_t *out, const lfs_account_view *account, lfs_trial_total *total) {
    u128 debits = number(account->debits), credits = number(account->credits);
    u128 over = debits > credits ? debits - credits : 0, under = debits > credits ? 0 : credits - debits;
    u128 held = number(account->normal ? account->held_debits : account->held_credits);
    u128 amounts[] = {debits, credits, over, under, held};
    out = text(out, "account,");
    memcpy(out, account->name, account->name_len);
    out += account->name_len;
    *out++ = ',';
    out = text(out, LFS_CLASS_NAMES[account->account_class]);
    *out++ = ',';
    out = text(out, account->currency);
    for (int i = 0; i < 5; i++) {
        *out++ = ',';
        out = lfs_amount_put(out, amounts[i], account->decimals);
    }
    *out++ = ',';
    out = text(out, SIDES[account->normal]);
    *out++ = ',';
    out = text(out, STATUSES[account->status]);
    add(total->debits, debits);
    add(total->credits, credits);
    add(total->debit_balance, over);
    add(total->credit_balance, under);
    return text(out, "\r\n");
}

int64_t lfs_trial_rows(const lfs_account_view *accounts, uint64_t n, uint8_t *out, lfs_trial_total *totals, uint32_t *used, uint32_t cap) {
    uint8_t *at = out;
    lfs_trial_total *total = NULL;
    for (uint64_t i = 0; i < n; i++) {
        total = total_of(&accounts[i], totals, used, cap, total);
        if (!total) return -1;
        at = row(at, &accounts[i], total);
    }
    return at - out;
}
