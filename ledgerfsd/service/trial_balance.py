"""``trial-balance.csv``: what every account had, and the totals, in which debits equal credits.

Start at ``write_at``. RFC 4180, lines end in CR LF. A row of kind ``account`` for each account in order of opening, then
``class`` rows (a total for each currency and class) and ``currency`` rows. ``debits`` and ``credits`` are all that was ever
booked on either side; ``debit_balance`` or ``credit_balance`` is by how much one exceeds the other. The rows of accounts
have what lowers the available balance (``held``), the normal side and the status too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ledgerfsd.core.trial import Total, TrialRows
from ledgerfsd.money import format_amount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.spool import Spool
    from ledgerfsd.types import Account

HEADER: Final = b"kind,account,class,currency,debits,credits,debit_balance,credit_balance,held,normal,status\r\n"
ROWS_AT_ONCE: Final = 5000


def write_at(engine: Engine, size: int, spool: Spool) -> None:
    """Make the text of the first ``size`` entries. Raises OSError when the disk is full."""
    rows = TrialRows(engine, size)
    spool.put(HEADER)
    while piece := rows.next():
        spool.put(piece)
    spool.put(total_rows(rows.totals()))
    spool.finish()


def write(accounts: Iterable[Account], spool: Spool) -> None:
    """Make the text of these accounts, in plain Python. Raises OSError when the disk is full."""
    spool.put(HEADER)
    totals: dict[tuple[str, str], Total] = {}
    rows: list[str] = []
    for account in accounts:
        key = account.currency, account.account_class
        debits, credits = account.debits, account.credits
        over, under = max(0, debits - credits), max(0, credits - debits)
        before = totals.get(key) or Total(*key, account.decimals, 0, 0, 0, 0)
        totals[key] = _plus(before, Total(*key, account.decimals, debits, credits, over, under))
        rows.append(account_row(account, over, under))
        if len(rows) == ROWS_AT_ONCE:
            spool.put("".join(rows).encode())
            rows.clear()
    spool.put("".join(rows).encode())
    spool.put(total_rows(list(totals.values())))
    spool.finish()


def account_row(account: Account, over: int, under: int) -> str:
    """The row of an account whose debits exceed its credits by ``over``, or the other way round by ``under``."""
    held = account.held_credits if account.normal == "debit" else account.held_debits
    amounts = (account.debits, account.credits, over, under, held)
    columns = ",".join(format_amount(amount, account.decimals) for amount in amounts)
    return (
        f"account,{account.name},{account.account_class},{account.currency},"
        f"{columns},{account.normal},{account.status}\r\n"
    )


def total_rows(totals: list[Total]) -> bytes:
    """The rows of classes, by currency, and those of currencies."""
    rows = []
    currencies: dict[str, Total] = {}
    for total in sorted(totals):
        before = currencies.get(total.currency)
        currencies[total.currency] = _plus(before, total) if before else total
        rows.append(f"class,,{total.account_class},{total.currency},{_amounts(total)},,,\r\n")
    rows += [f"currency,,,{total.currency},{_amounts(total)},,,\r\n" for total in currencies.values()]
    return "".join(rows).encode()


def _plus(one: Total, other: Total) -> Total:
    return one._replace(
        debits=one.debits + other.debits,
        credits=one.credits + other.credits,
        debit_balance=one.debit_balance + other.debit_balance,
        credit_balance=one.credit_balance + other.credit_balance,
    )


def _amounts(total: Total) -> str:
    columns = (total.debits, total.credits, total.debit_balance, total.credit_balance)
    return ",".join(format_amount(amount, total.decimals) for amount in columns)
