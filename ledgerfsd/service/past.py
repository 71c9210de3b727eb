"""Accounts as they were: the ledger after its first ``size`` entries.

Start at ``Past.account``. Nothing is kept: the indexes say which entries state what an account had.
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

    async def account(self, ordinal: int, size: int) -> Account:
        """An account after the first ``size`` entries. Raises IndexError when it was not open yet."""
        found = self._engine.account_at(ordinal, size)
        if found is None:
            raise IndexError(ordinal)
        return found

    async def balance(self, ordinal: int, size: int) -> Text:
        """``balance.json`` as it was. Raises IndexError."""
        account = await self.account(ordinal, size)
        entry = bytes(self._engine.entry(account.last_index))
        return Text(render.balance(account, self._as_of(account, entry)), render.time_of(entry))

    async def account_file(self, ordinal: int, size: int) -> Text:
        """``account.json`` as it was. Raises IndexError."""
        account = await self.account(ordinal, size)
        entry = bytes(self._engine.entry(account.last_index))
        opened = self._engine.entry(account.open_index)
        return Text(render.account_file(opened, account.status, self._as_of(account, entry)), render.time_of(entry))

    def accounts(self, size: int) -> Iterator[Account]:
        """Every account that existed, in order of opening. Takes long for many: to be called in a worker thread."""
        for first in range(0, self.count(size), ACCOUNTS_AT_ONCE):
            yield from self._engine.accounts_at(size, first, ACCOUNTS_AT_ONCE)

    def count(self, size: int) -> int:
        """How many accounts existed: they are numbered in the order of their opening."""
        accounts = self._engine.counts().accounts
        return bisect_left(range(accounts), size, key=lambda ordinal: self._engine.account(ordinal).open_index)

    def existed(self, ordinal: int, size: int) -> bool:
        """Whether an account, which is open now, was among them."""
        return self._engine.account(ordinal).open_index < size

    def newest(self, ordinal: int, sizes: list[int]) -> list[int]:
        """Index of an account's newest entry in each of these states; -1: it did not exist yet."""
        found = (self._engine.account_at(ordinal, size) for size in sizes)
        return [past.last_index if past else -1 for past in found]

    def _as_of(self, account: Account, entry: bytes) -> render.AsOf:
        return render.as_of(self._engine, account, entry)
