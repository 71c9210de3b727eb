"""An account's entries in order: where each lies in ``tx.log``, and the rows of ``statement.csv``.

Both grow at their end only, so what was once worked out stays right. A short piece is added on the spot; a long one
(the first look at an account of a million entries) in a worker thread, so that the mount goes on meanwhile. The
pattern, in ``Growing.current``: read the account, add what is missing, return, with no checkpoint in between; so what
is returned is as new as the account, and a reader told of a commit never gets less.
"""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import IO, TYPE_CHECKING, Final, Generic, TypeVar

import trio

from ledgerfsd import limits
from ledgerfsd.service import render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.types import Account

ROUNDS: Final = 3
INLINE_MAX: Final = 512  # entries added without leaving the loop: about a millisecond
CHAIN_ENTRIES_MAX: Final = 4_000_000  # of all chains in memory, at 24 bytes each
STATEMENTS_MAX: Final = 256
STATEMENT_MEMORY: Final = 256 * limits.KIB  # above it a statement lies in a temporary file

ROWS_AT_ONCE: Final = 10_000

TOTALS: Final = 1  # what an entry's postings state (Engine.shapes)
HOLDS: Final = 2


class Growing(ABC):
    """Something worked out from the first ``entries`` entries of an account."""

    def __init__(self, engine: Engine, ordinal: int) -> None:
        self.ordinal = ordinal
        self.entries = 0
        self._engine = engine
        self._last = -1  # index of the newest entry worked in
        self._turn = trio.Lock()

    async def current(self, threads: trio.CapacityLimiter) -> Account:
        """Bring it up to date; returns the account it is up to date with. No checkpoint after reading that account."""
        for _ in range(ROUNDS):
            account = self._engine.account(self.ordinal)
            if not self._turn.locked() and account.entries - self.entries <= INLINE_MAX:
                self._extend(account)
                return account
            async with self._turn:
                await trio.to_thread.run_sync(self._extend, self._engine.account(self.ordinal), limiter=threads)
        # It grows as fast as we follow. What is missing now is little, and nothing is submitted while we add it here.
        async with self._turn:
            account = self._engine.account(self.ordinal)
            self._extend(account)
            return account

    async def reach(self, account: Account, threads: trio.CapacityLimiter) -> None:
        """Bring it at least as far as ``account``."""
        async with self._turn:
            if account.entries - self.entries <= INLINE_MAX:
                self._extend(account)
            else:
                await trio.to_thread.run_sync(self._extend, account, limiter=threads)

    def _extend(self, account: Account) -> None:
        if account.last_index <= self._last:
            return
        indexes = self._engine.history(self.ordinal, stop=self._last)
        # The chain may have grown since ``account`` was read; what it names is where we stop.
        del indexes[bisect_right(indexes, account.last_index) :]
        self._add(indexes, account)
        self.entries += len(indexes)
        self._last = indexes[-1]

    @abstractmethod
    def _add(self, indexes: array[int], account: Account) -> None:
        """Work in the next entries."""


class Chain(Growing):
    """Where the entries of an account are, in the log of all entries and in ``tx.log``."""

    def __init__(self, engine: Engine, ordinal: int) -> None:
        super().__init__(engine, ordinal)
        self._indexes = array("Q")
        self._ends = array("Q")  # of each entry in tx.log, newline included
        self._totals = array("I")  # positions of entries that state debits and credits
        self._holds = array("I")  # positions of those that state what is held

    def _add(self, indexes: array[int], account: Account) -> None:  # noqa: ARG002
        first = len(self._ends)
        ends, states = self._engine.shapes(indexes, end=self._ends[-1] if first else 0)
        self._totals.extend(first + at for at, state in enumerate(states) if state & TOTALS)
        self._holds.extend(first + at for at, state in enumerate(states) if state & HOLDS)
        self._indexes.extend(indexes)
        # Last, because readers in the loop go by it while this runs in a worker thread.
        self._ends.extend(ends)

    def read(self, offset: int, size: int) -> bytes:
        """A piece of ``tx.log``."""
        known = len(self._ends)
        position = bisect_right(self._ends, offset, hi=known)
        base = self._ends[position - 1] if position else 0
        end = offset + size
        parts: list[bytes | memoryview] = []
        start = base
        while position < known and start < end:
            parts += (self._engine.entry(self._indexes[position]), b"\n")
            start = self._ends[position]
            position += 1
        return b"".join(parts)[offset - base : end - base]

    def newest(self, size: int) -> int:
        """Index of the account's newest entry among the first ``size`` of the ledger; -1: it did not exist yet."""
        position = bisect_left(self._indexes, size)
        return self._indexes[position - 1] if position else -1

    def at(self, index: int, account: Account) -> tuple[Account, render.AsOf]:
        """The account as its entry ``index`` left it (status and limit are not looked at)."""
        position = bisect_left(self._indexes, index)
        totals = self._posting(self._totals, position, account.name)
        holds = self._posting(self._holds, position, account.name)
        entry = render.decode(self._engine.entry(index))
        past = account._replace(
            debits=render.minor(totals.debits or "0"),
            credits=render.minor(totals.credits or "0"),
            held_debits=render.minor(holds.held_debits or "0"),
            held_credits=render.minor(holds.held_credits or "0"),
        )
        return past, render.AsOf(index, entry.tx, self._engine.block_of(index), entry.time)

    def _posting(self, positions: array[int], position: int, name: str) -> render.Posting:
        """The account's last posting in the newest entry of ``positions`` that is not after ``position``."""
        found = bisect_right(positions, position)
        if not found:
            return render.Posting(name)
        entry = render.decode(self._engine.entry(self._indexes[positions[found - 1]]))
        return [posting for posting in entry.postings if posting.account == name][-1]


class Statement(Growing):
    """``statement.csv`` of an account: in memory while small, else in a nameless temporary file of the store."""

    def __init__(self, engine: Engine, ordinal: int, directory: Path) -> None:
        super().__init__(engine, ordinal)
        self.size = 0
        self._directory = directory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._put(render.STATEMENT_HEADER)

    def _add(self, indexes: array[int], account: Account) -> None:
        for first in range(0, len(indexes), ROWS_AT_ONCE):
            entries = (render.decode(self._engine.entry(index)) for index in indexes[first : first + ROWS_AT_ONCE])
            rows = [render.statement_rows(entry, account.name, account.normal, account.decimals) for entry in entries]
            self._put("".join(rows).encode())

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


Kind = TypeVar("Kind", bound=Growing)


class Cache(Generic[Kind]):
    """The most recently used of them."""

    def __init__(self, make: Callable[[int], Kind], *, items: int, entries: int) -> None:
        self._make = make
        self._items = items
        self._entries = entries
        self._kept: OrderedDict[int, Kind] = OrderedDict()

    def get(self, ordinal: int) -> Kind:
        """The one of this account, perhaps a fresh one."""
        kept = self._kept.get(ordinal)
        if kept is None:
            self._shrink()
            kept = self._kept[ordinal] = self._make(ordinal)
        self._kept.move_to_end(ordinal)
        return kept

    def drop(self, ordinal: int) -> None:
        """Forget one (its file could not be written)."""
        self._kept.pop(ordinal, None)

    def _shrink(self) -> None:
        # Looked at only when another account comes: the sum over some thousand is quick, and one account may be as long
        # as it is.
        total = sum(kept.entries for kept in self._kept.values())
        while self._kept and (len(self._kept) >= self._items or total > self._entries):
            _, old = self._kept.popitem(last=False)
            total -= old.entries
