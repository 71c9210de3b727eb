"""Entries in, plain-text accounting out: what every format needs to know of the accounts, and when a day or month ends.

Start at ``Book.add``. A format is told of each entry that has a meaning for it, in order, and between them of the days and
months that have ended, with the balances then. Debits are positive, as these programs have it.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from ledgerfsd.money import ISO, format_signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOTS: Final = {
    "customer_liability": "Liabilities",
    "safeguarding_asset": "Assets",
    "own_funds": "Assets",
    "equity": "Equity",
    "income": "Income",
    "expense": "Expenses",
    "suspense": "Liabilities",
    "clearing": "Assets",
}
ACTIONS: Final = {"freeze": "frozen", "unfreeze": "open again", "close": "closed"}


class Posting(msgspec.Struct, gc=False):
    """A posting of a ``txn/1`` or ``post/1``; amounts are decimal strings of the account's currency."""

    account: str
    side: str = ""
    amount: str = ""
    debits: str = "0"
    credits: str = "0"


class Entry(msgspec.Struct, gc=False):
    """An entry, as far as an export shows it (FORMAT, section 7)."""

    t: str
    index: int
    time: str
    id: str = ""
    tx: int = 0
    type: str = ""
    reference: str = ""
    effective: str = ""
    postings: list[Posting] = []
    account: str = ""
    currency: str = ""
    account_class: str = msgspec.field(name="class", default="")
    owner: str = ""
    action: str = ""
    policy: str = ""
    decimals: int = 0

    @property
    def date(self) -> str:
        """The booking date."""
        return self.time[:10]


class Account(msgspec.Struct, array_like=True, gc=False):
    """An account of the book."""

    name: str
    account_class: str
    currency: str
    decimals: int
    opened: str
    closed: bool = False
    balance: str = "0"  # debits less credits, as it is written
    shown: str = ""  # its name in the format, once it was worked out

    def signed(self, posting: Posting) -> str:
        """The amount of a posting; notes the balance after it."""
        after = int(posting.debits.replace(".", "")) - int(posting.credits.replace(".", ""))
        self.balance = format_signed(after, self.decimals)
        return posting.amount if posting.side == "debit" else f"-{posting.amount}"


class BookState(msgspec.Struct):
    """What a book knows, so that another can go on from there."""

    date: str
    decimals: dict[str, int]
    currencies: dict[str, str]
    accounts: list[Account]  # in order of opening
    day: list[str]
    month: list[str]


class Format(Protocol):
    """A program's way to write. Each method gives the text for one thing, ``""`` for what it has no words for."""

    def currency(self, date: str, code: str, decimals: int) -> str: ...

    def open(self, account: Account, owner: str) -> str: ...

    def change(self, date: str, account: Account, action: str) -> str: ...

    def transaction(self, entry: Entry, leaf: str, lines: list[tuple[Account, str, str]]) -> str:
        """``lines``: account, signed amount, balance after it."""

    def balances(self, last: str, following: str, accounts: Iterable[Account], *, month: bool) -> str:
        """The balances at the end of a day (``last``; ``following`` is the next), or of a month: of the accounts that had
        a transaction in it.
        """

    def opening(self, date: str, accounts: Iterable[Account]) -> str:
        """The balances with which a month begins, for a file that has that month only."""


class Book:
    """The accounts as of the entries added so far. ``write`` gets the text, ``month_begins`` what a file of one month begins
    with, before the first text of that month.
    """

    def __init__(
        self, form: Format, write: Callable[[str], None], month_begins: Callable[[str, str, Iterable[str]], None]
    ) -> None:
        self._form = form
        self._write = write
        self._month_begins = month_begins
        self._decode = msgspec.json.Decoder(Entry).decode
        self._decimals: dict[str, int] = {}
        self._currencies: dict[str, str] = {}  # those in use → when first
        self._accounts: dict[str, Account] = {}
        self._day: dict[str, Account] = {}  # with a transaction on this day
        self._month: dict[str, Account] = {}
        self.date = ""

    def add(self, data: bytes | memoryview, leaf: str) -> None:
        """The next entry of the log, and its leaf hash in hex. Entries without a meaning for accounting only make time pass."""
        entry = self._decode(data)
        if entry.date != self.date:
            self._begin(entry.date)
        if entry.tx:
            self._transaction(entry, leaf)
        elif entry.t == "account/1":
            self._open(entry)
        elif entry.t == "account.update/1":
            account = self._accounts[entry.account]
            account.closed = account.closed or entry.action == "close"
            self._write(self._form.change(entry.date, account, entry.action))
        elif entry.t == "policy/1" and entry.policy == "currency":
            self._decimals[entry.currency] = entry.decimals

    def state(self) -> BookState:
        """What it knows now. The accounts in it are the book's own."""
        accounts = list(self._accounts.values())
        return BookState(self.date, self._decimals, self._currencies, accounts, list(self._day), list(self._month))

    def go_on_from(self, state: BookState) -> None:
        """Know what another book knew. Raises KeyError when it does not fit together."""
        self.date, self._decimals, self._currencies = state.date, state.decimals, state.currencies
        self._accounts = {account.name: account for account in state.accounts}
        self._day, self._month = ({name: self._accounts[name] for name in names} for names in (state.day, state.month))

    def unfinished_day(self) -> str:
        """What the end of the newest day would be if it ended now."""
        if not self._day:
            return ""
        return self._form.balances(self.date, _following(self.date), self._day.values(), month=False)

    def _begin(self, date: str) -> None:
        last, self.date = self.date, date
        if not last:
            self._month_begins(date[:7], "", ())
            return
        if self._day:
            self._write(self._form.balances(last, _following(last), self._day.values(), month=False))
            self._day = {}
        if date[:7] == last[:7]:
            return
        if self._month:
            self._write(self._form.balances(last, _following(last), self._month.values(), month=True))
            self._month = {}
        currencies = "".join(
            self._form.currency(first, code, self._decimals_of(code)) for code, first in self._currencies.items()
        )
        accounts = (self._form.open(account, "") for account in self._accounts.values() if not account.closed)
        opening = self._form.opening(date[:7] + "-01", self._accounts.values())
        self._month_begins(date[:7], currencies, [*accounts, opening])

    def _open(self, entry: Entry) -> None:
        if entry.currency not in self._currencies:
            self._currencies[entry.currency] = entry.date
            self._write(self._form.currency(entry.date, entry.currency, self._decimals_of(entry.currency)))
        account = self._accounts[entry.account] = Account(
            entry.account, entry.account_class, entry.currency, self._decimals_of(entry.currency), entry.date
        )
        self._write(self._form.open(account, entry.owner))

    def _transaction(self, entry: Entry, leaf: str) -> None:
        lines = []
        for posting in entry.postings:
            account = self._accounts[posting.account]
            self._day[account.name] = self._month[account.name] = account
            lines.append((account, account.signed(posting), account.balance))
        self._write(self._form.transaction(entry, leaf, lines))

    def _decimals_of(self, code: str) -> int:
        known = self._decimals.get(code)
        return ISO[code].decimals if known is None else known


def _following(date: str) -> str:
    return (datetime.date.fromisoformat(date) + datetime.timedelta(days=1)).isoformat()
