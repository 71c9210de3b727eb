"""``ledger.beancount``, for ``bean-check`` and what reads its files. Beancount 3.2 was tried.

Beancount has no balances at postings, so they are asserted at the end of every day, exactly (``~ 0``; its usual tolerance
would let one cent pass), for the accounts that had a transaction. It computes with 28 digits: larger amounts are written
as they are, and bean-check refuses them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ledgerfsd.export.book import ACTIONS, ROOTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledgerfsd.export.book import Account, Entry

_PARTS: Final = {
    "customer_liability": "Customer",
    "safeguarding_asset": "Safeguarding",
    "own_funds": "Own",
    "equity": "Equity",
    "income": "Income",
    "expense": "Expense",
    "suspense": "Suspense",
    "clearing": "Clearing",
}
_ODD: Final = re.compile(r"[^A-Za-z0-9]")


def header(origin: str, part: str) -> str:
    """What the file begins with; ``part`` says of what it is: the whole ledger, or a month."""
    return (
        f"; {origin}: {part}, written by LedgerFS.  bean-check ledger.beancount\n"
        f'option "title" {_string(origin)}\n'
        '; Debits are positive. "leaf" is the entry\'s hash in the log:\n'
        "; (printf '\\0'; cat transactions/tx_0001.json) | sha256sum\n\n"
    )


def account_name(account: Account) -> str:
    """The account as the program knows it: see ``_named``."""
    if not account.shown:
        account.shown = _named(account)
    return account.shown


def _named(account: Account) -> str:
    """Root, class, and the name after ``Id-``, with ``-XX`` in hex for what beancount does not allow."""
    name = _ODD.sub(lambda odd: f"-{ord(odd[0]):02X}", account.name)
    return f"{ROOTS[account.account_class]}:{_PARTS[account.account_class]}:Id-{name}"


def _string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Beancount:
    """``book.Format`` of beancount."""

    def currency(self, date: str, code: str, decimals: int) -> str:  # noqa: ARG002
        """A commodity."""
        return f"{date} commodity {code}\n\n"

    def open(self, account: Account, owner: str) -> str:
        """Opens the account, with its name in the ledger."""
        text = f"{account.opened} open {account_name(account)} {account.currency}\n  name: {_string(account.name)}\n"
        return text + (f"  owner: {_string(owner)}\n\n" if owner else "\n")

    def change(self, date: str, account: Account, action: str) -> str:
        """A note; and the end of an account that is closed."""
        if action == "close":
            return f"{date} close {account_name(account)}\n\n"
        return f'{date} note {account_name(account)} "{ACTIONS[action]}"\n\n'

    def transaction(self, entry: Entry, leaf: str, lines: list[tuple[Account, str, str]]) -> str:
        """One transaction."""
        name = f"tx_{entry.tx:04}"
        text = f'{entry.date} * "{name}" {_string(entry.reference)} ^{name}\n  entry: {entry.index}\n  leaf: "{leaf}"\n'
        if entry.effective:
            text += f"  effective: {entry.effective}\n"
        for account, amount, _ in lines:
            text += f"  {account_name(account)}  {amount} {account.currency}\n"
        return text + "\n"

    def balances(self, last: str, following: str, accounts: Iterable[Account], *, month: bool) -> str:
        """The balances with which the next day begins. A closed account has none; that of a month's end was said by its days,
        except for whoever reads the month alone.
        """
        text = f"; end of {last[:7]}\n" if month else ""
        for account in accounts:
            if not account.closed:
                text += f"{following} balance {account_name(account)}  {account.balance} ~ 0 {account.currency}\n"
        return text + "\n"

    def opening(self, date: str, accounts: Iterable[Account]) -> str:
        """What each account had when the month began."""
        text = f'{date} * "balances brought forward"\n'
        for account in accounts:
            if account.balance.strip("-0."):
                text += f"  {account_name(account)}  {account.balance} {account.currency}\n"
        return text + "\n" if "\n  " in text else ""
