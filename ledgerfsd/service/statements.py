"""Statements: the rows of an account as CSV, whole or of one month.

They grow at their end only, so what was once worked out stays right. The core writes the rows; a short piece is added on
the spot, a long one (the first look at an account of a million entries) in a worker thread, so that the mount goes on
meanwhile. The pattern, in ``Statement.current``: read the account, add what is missing, return, with no checkpoint in
between; so what is returned is as new as the account, and a reader told of a commit never gets less.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import trio

from ledgerfsd import limits
from ledgerfsd.service import render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.types import Account

ROUNDS: Final = 3
INLINE_MAX: Final = 512  # entries added without leaving the loop: less than a millisecond
STATEMENTS_MAX: Final = 256
STATEMENT_MEMORY: Final = 256 * limits.KIB  # above it a statement lies in a temporary file


class Period(NamedTuple):
    """A month as the log has it now: entries from ``first`` to ``end`` (exclusive)."""

    text: str  # 2026-11
    last_day: str  # 2026-11-30
    first: int
    end: int
    over: bool  # nothing can be booked in it any more


class Statement:
    """``statement.csv`` of an account, or that of a month: in memory while small, else in a nameless temporary file."""

    def __init__(
        self, engine: Engine, ordinal: int, directory: Path, period: Callable[[], Period] | None = None
    ) -> None:
        """``period``: the month, asked for anew each time, as it goes on; None for the whole."""
        self.size = 0
        self._engine = engine
        self._ordinal = ordinal
        self._directory = directory
        self._period = period
        self._rank = 0  # entries of the account worked in, and those before the month
        self._closed = False
        self._turn = trio.Lock()
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._put(render.STATEMENT_HEADER)
        if period is not None:
            month = period()
            before = engine.account_at(ordinal, month.first)
            self._rank = before.entries if before else 0
            self._put(render.statement_edge(f"{month.text}-01", "opening", engine.account(ordinal), before, None))

    async def current(self, threads: trio.CapacityLimiter) -> Account:
        """Bring it up to date; returns the account it is up to date with. No checkpoint after reading that account."""
        for _ in range(ROUNDS):
            account, month = self._account()
            if not self._turn.locked() and account.entries - self._rank <= INLINE_MAX:
                self._extend(account, month)
                return account
            async with self._turn:
                await trio.to_thread.run_sync(self._extend, *self._account(), limiter=threads)
        # It grows as fast as we follow. What is missing now is little, and nothing is submitted while we add it here.
        async with self._turn:
            account, month = self._account()
            self._extend(account, month)
            return account

    def _account(self) -> tuple[Account, Period | None]:
        """The account as of the end of what is shown, and the month."""
        if self._period is None:
            return self._engine.account(self._ordinal), None
        month = self._period()
        account = self._engine.account_at(self._ordinal, month.end)
        if account is None:  # nobody finds the name of a month in which the account did not exist
            raise IndexError(self._ordinal)
        return account, month

    def _extend(self, account: Account, month: Period | None) -> None:
        while self._rank < account.entries:
            rows, rank = self._engine.statement(self._ordinal, self._rank, account.entries)
            self._put(rows)
            self._rank = rank
        if month is not None and month.over and not self._closed:
            before = self._engine.account_at(self._ordinal, month.first)
            self._put(render.statement_edge(month.last_day, "closing", account, account, before))
            self._closed = True

    def _put(self, data: bytes) -> None:
        if self._file is None and self.size + len(data) > STATEMENT_MEMORY:
            file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  (it lives as long as this)
            file.write(self._memory)
            file.flush()
            self._file = file
            self._memory = bytearray()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)
            self._file.flush()
        self.size += len(data)

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        if self._file is None:
            return bytes(self._memory[offset : offset + size])
        return os.pread(self._file.fileno(), max(0, min(size, self.size - offset)), offset)


Key = tuple[int, int]  # ordinal, month (0: the whole)


class Cache:
    """The most recently used of them."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._kept: OrderedDict[Key, Statement] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Statement]) -> Statement:
        """The one of this account and month, perhaps a fresh one."""
        kept = self._kept.get(key)
        if kept is None:
            while len(self._kept) >= self._items:
                self._kept.popitem(last=False)
            kept = self._kept[key] = make()
        self._kept.move_to_end(key)
        return kept

    def drop(self, key: Key) -> None:
        """Forget one (its file could not be written)."""
        self._kept.pop(key, None)
