"""Accounts as they were: the ledger after its first ``size`` entries.

Start at ``Past.account``. Nothing is kept: what an account had is stated by its own entries.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

import trio

from ledgerfsd.service import render
from ledgerfsd.service.chains import HOLDS, INLINE_MAX, TOTALS
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
        self._threads = trio.CapacityLimiter(2)

    async def account(self, ordinal: int, size: int) -> Account:
        """An account after the first ``size`` entries. Raises IndexError when it was not open yet."""
        if self._engine.account(ordinal).entries <= INLINE_MAX:
            found = account_at(self._engine, ordinal, size)
        else:
            found = await trio.to_thread.run_sync(account_at, self._engine, ordinal, size, limiter=self._threads)
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
        for ordinal in range(self.count(size)):
            account = account_at(self._engine, ordinal, size)
            assert account is not None
            yield account

    def count(self, size: int) -> int:
        """How many accounts existed: they are numbered in the order of their opening."""
        accounts = self._engine.counts().accounts
        return bisect_left(range(accounts), size, key=lambda ordinal: self._engine.account(ordinal).open_index)

    def existed(self, ordinal: int, size: int) -> bool:
        """Whether an account, which is open now, was among them."""
        return self._engine.account(ordinal).open_index < size

    def newest(self, ordinal: int, sizes: list[int]) -> list[int]:
        """Index of an account's newest entry in each of these states; -1: it did not exist yet."""
        history = self._engine.history(ordinal)
        places = (bisect_left(history, size) for size in sizes)
        return [history[place - 1] if place else -1 for place in places]

    def _as_of(self, account: Account, entry: bytes) -> render.AsOf:
        return render.as_of(self._engine, account, entry)


def account_at(engine: Engine, ordinal: int, size: int) -> Account | None:
    """An account after the first ``size`` entries, None when it was not open yet. Walks its whole chain."""
    account = engine.account(ordinal)
    if account.open_index >= size:
        return None
    if account.last_index < size:
        return account
    indexes = engine.history(ordinal)
    del indexes[bisect_left(indexes, size) :]
    ends, states = engine.shapes(indexes, end=0)

    def newest(state: int) -> tuple[render.Posting, int]:
        """The newest posting that states this, and the transaction of its entry."""
        place = next((place for place in range(len(states) - 1, -1, -1) if states[place] & state), -1)
        entry = render.decode(engine.entry(indexes[place])) if place >= 0 else render.Entry("", 0, "")
        postings = [each for each in entry.postings if each.account == account.name]
        return (postings[-1] if postings else render.Posting(account.name)), entry.tx

    totals, last_tx = newest(TOTALS)
    holds, _ = newest(HOLDS)
    changed = states.rfind(0)  # neither totals nor holds: account/1 or account.update/1
    return account._replace(
        debits=render.minor(totals.debits or "0"),
        credits=render.minor(totals.credits or "0"),
        held_debits=render.minor(holds.held_debits or "0"),
        held_credits=render.minor(holds.held_credits or "0"),
        status=render.decode(engine.entry(indexes[changed])).status or "open",
        last_index=indexes[-1],
        last_tx=last_tx,
        entries=len(indexes),
        log_bytes=ends[-1],
    )
