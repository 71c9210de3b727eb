"""Accounts as they were: the ledger after its first ``size`` entries.

Start at ``Past.balance``. Nothing is kept: the engine finds what an account had in its indexes, in O(log n).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from ledgerfsd.service import render
from ledgerfsd.service.query import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.types import Account

ACCOUNTS_AT_ONCE: Final = 1000


class Past:
    """Past states of the accounts of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def account(self, ordinal: int, size: int) -> Account:
        """An account after the first ``size`` entries. Raises IndexError when it was not open yet."""
        found = self._engine.account_at(ordinal, size)
        if found is None:
            raise IndexError(ordinal)
        return found

    def balance(self, ordinal: int, size: int) -> Text:
        """``balance.json`` as it was. Raises IndexError."""
        account = self.account(ordinal, size)
        entry = bytes(self._engine.entry(account.last_index))
        return Text(render.balance(account, render.as_of(self._engine, account, entry)), render.time_of(entry))

    def account_file(self, ordinal: int, size: int) -> Text:
        """``account.json`` as it was. Raises IndexError."""
        account = self.account(ordinal, size)
        entry = bytes(self._engine.entry(account.last_index))
        opened = self._engine.entry(account.open_index)
        as_of = render.as_of(self._engine, account, entry)
        return Text(render.account_file(opened, account.status, as_of), render.time_of(entry))

    def accounts(self, size: int) -> Iterator[Account]:
        """Every account that existed, in order of opening. Takes long for many: to be called in a worker thread."""
        first = 0
        while found := self._engine.accounts_at(size, first, ACCOUNTS_AT_ONCE):
            yield from found
            first += len(found)

    def count(self, size: int) -> int:
        """How many accounts existed: they are numbered in the order of their opening."""
        accounts = self._engine.counts().accounts
        return bisect_left(range(accounts), size, key=lambda ordinal: self._engine.account(ordinal).open_index)

    def existed(self, ordinal: int, size: int) -> bool:
        """Whether an account, which is open now, was among them."""
        return self._engine.account(ordinal).open_index < size

    def newest(self, ordinal: int, size: int) -> int:
        """Index of an account's newest entry then; -1: it did not exist yet."""
        found = self._engine.account_at(ordinal, size)
        return found.last_index if found is not None else -1
