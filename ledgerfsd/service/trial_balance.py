"""``trial-balance.csv``: what every account had, and the totals, in which debits equal credits.

Start at ``write``. RFC 4180, lines end in CR LF. A row of kind ``account`` for each account in order of opening, then
``class`` rows (a total for each currency and class) and ``currency`` rows. ``debits`` and ``credits`` are all that was ever
booked on either side; ``debit_balance`` or ``credit_balance`` is by how much one exceeds the other. The rows of accounts
have what lowers the available balance (``held``), the normal side and the status too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ledgerfsd.money import format_amount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledgerfsd.service.spool import Spool
    from ledgerfsd.types import Account

HEADER: Final = b"kind,account,class,currency,debits,credits,debit_balance,credit_balance,held,normal,status\r\n"
ROWS_AT_ONCE: Final = 5000


class Totals:
    """Sums over accounts of one currency, in minor units."""

    __slots__ = ("credit_balance", "credits", "debit_balance", "debits")

    def __init__(self) -> None:
        self.debits = self.credits = self.debit_balance = self.credit_balance = 0

    def add(self, debits: int, credits: int) -> None:
        """One more account."""
        self.debits += debits
        self.credits += credits
        if debits > credits:
            self.debit_balance += debits - credits
        else:
            self.credit_balance += credits - debits


def write(accounts: Iterable[Account], spool: Spool) -> None:
    """Make the whole text. Raises OSError when the disk is full."""
    spool.put(HEADER)
    totals: dict[tuple[str, str], Totals] = {}
    decimals: dict[str, int] = {}
    rows: list[str] = []
    for account in accounts:
        key = account.currency, account.account_class
        if key not in totals:
            totals[key] = Totals()
            decimals[account.currency] = account.decimals
        totals[key].add(account.debits, account.credits)
        one = Totals()
        one.add(account.debits, account.credits)
        held = account.held_credits if account.normal == "debit" else account.held_debits
        rows.append(
            f"account,{account.name},{key[1]},{key[0]},{_amounts(one, account.decimals)},"
            f"{format_amount(held, account.decimals)},{account.normal},{account.status}\r\n"
        )
        if len(rows) == ROWS_AT_ONCE:
            spool.put("".join(rows).encode())
            rows.clear()
    rows += [
        f"class,,{name},{unit},{_amounts(totals[unit, name], decimals[unit])},,,\r\n" for unit, name in sorted(totals)
    ]
    rows += [f"currency,,,{unit},{_amounts(_sum(totals, unit), decimals[unit])},,,\r\n" for unit in sorted(decimals)]
    spool.put("".join(rows).encode())
    spool.finish()


def _sum(totals: dict[tuple[str, str], Totals], currency: str) -> Totals:
    found = Totals()
    for each in (each for (unit, _), each in totals.items() if unit == currency):
        found.debits += each.debits
        found.credits += each.credits
        found.debit_balance += each.debit_balance
        found.credit_balance += each.credit_balance
    return found


def _amounts(totals: Totals, decimals: int) -> str:
    columns = (totals.debits, totals.credits, totals.debit_balance, totals.credit_balance)
    return ",".join(format_amount(amount, decimals) for amount in columns)
