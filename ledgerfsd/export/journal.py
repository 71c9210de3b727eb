"""``ledger.journal``: one text that hledger and ledger both read, with ``--strict``.

Every posting says the balance after it, so a changed amount is found where it stands. hledger 1.25 and ledger 3.3 were tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ledgerfsd.export.book import ACTIONS, ROOTS
from ledgerfsd.money import format_amount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledgerfsd.export.book import Account, Entry

# In a description: ";" begins a comment, "|" ends hledger's payee.
_DESCRIPTION: Final = str.maketrans(";|", ",/")


def header(origin: str, part: str) -> str:
    """What the file begins with; ``part`` says of what it is: the whole ledger, or a month."""
    return (
        f"; {origin}: {part}, written by LedgerFS.\n"
        "; hledger check --strict -f ledger.journal        ledger --strict -f ledger.journal balance\n"
        '; Debits are positive. Each posting says the balance after it. "leaf" is the entry\'s hash in the log:\n'
        "; (printf '\\0'; cat transactions/tx_0001.json) | sha256sum\n\n"
    )


def account_name(account: Account) -> str:
    """The account as the program knows it: see ``_named``."""
    if not account.shown:
        account.shown = _named(account)
    return account.shown


def _named(account: Account) -> str:
    """Root, class and name. ``%3A`` stands for a colon that would make an empty part; no name has a ``%``."""
    name = account.name
    while "::" in name:
        name = name.replace("::", "%3A:")
    if name.endswith(":"):
        name = name[:-1] + "%3A"
    return f"{ROOTS[account.account_class]}:{account.account_class}:{name}"


def _commodity(code: str) -> str:
    return code if code.isalpha() else f'"{code}"'


class Journal:
    """``book.Format`` of hledger and ledger."""

    def currency(self, date: str, code: str, decimals: int) -> str:  # noqa: ARG002
        """A commodity with its decimals."""
        commodity, point = _commodity(code), "" if decimals else "."
        return f"commodity {commodity}\n  format {commodity} {format_amount(1000 * 10**decimals, decimals)}{point}\n\n"

    def open(self, account: Account, owner: str) -> str:  # noqa: ARG002  (free text in a comment could be read as a tag)
        """Declares the account."""
        return f"account {account_name(account)}\n\n"

    def change(self, date: str, account: Account, action: str) -> str:
        """A comment: neither program knows of frozen accounts."""
        return f"; {date} {account_name(account)} {ACTIONS[action]}\n\n"

    def transaction(self, entry: Entry, leaf: str, lines: list[tuple[Account, str, str]]) -> str:
        """One transaction, each posting with the balance after it."""
        effective = f"={entry.effective}" if entry.effective else ""
        reference = f" {entry.reference.translate(_DESCRIPTION)}" if entry.reference else ""
        text = f"{entry.date}{effective} * (tx_{entry.tx:04}){reference}\n  ; leaf {leaf}, entry {entry.index}\n"
        for account, amount, after in lines:
            commodity = _commodity(account.currency)
            text += f"  {account_name(account)}  {commodity} {amount} = {commodity} {after}\n"
        return text + "\n"

    def balances(self, last: str, following: str, accounts: Iterable[Account], *, month: bool) -> str:  # noqa: ARG002
        """At the end of a month: nothing is moved, and every balance is said once more. (Days need none: postings do it.)"""
        if not month:
            return ""
        text = f"{last} * end of {last[:7]}\n"
        for account in accounts:
            commodity = _commodity(account.currency)
            nothing = format_amount(0, account.decimals)
            text += f"  {account_name(account)}  {commodity} {nothing} = {commodity} {account.balance}\n"
        return text + "\n"

    def opening(self, date: str, accounts: Iterable[Account]) -> str:
        """What each account had when the month began: together nothing, as debits equal credits."""
        text = f"{date} * balances brought forward\n"
        for account in accounts:
            if account.balance.strip("-0."):
                text += f"  {account_name(account)}  {_commodity(account.currency)} {account.balance}\n"
        return text + "\n" if "\n  " in text else ""
