"""What the files of the mount contain: bytes and sizes for accounts, transactions, blocks and tiles.

Start at ``Query.balance``. Everything is as of the newest durable entry; nothing here changes anything. The methods
that are not async answer at once; a statement may first have to be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from ledgerfsd import limits
from ledgerfsd.core.values import By
from ledgerfsd.service import render
from ledgerfsd.service.months import Months
from ledgerfsd.service.statements import STATEMENTS_MAX, Cache, Statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledgerfsd.service.ledger import Ledger
    from ledgerfsd.service.points import Point
    from ledgerfsd.types import Account

HASH_BYTES: Final = 32
TILE_WIDTH: Final = limits.BUNDLE_ENTRIES
THREADS: Final = 2  # long histories read at once; more would only take the interpreter from the mount


class Text(NamedTuple):
    """The whole of a small file."""

    data: bytes
    mtime_ns: int

    @property
    def size(self) -> int:
        """Its length."""
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        return self.data[offset : offset + size]


class Query:
    """Read-only views of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        engine, root = ledger.engine, ledger.layout.root
        self.points = ledger.points
        self._engine = engine
        self._threads = trio.CapacityLimiter(THREADS)
        self._root = root
        self._statements = Cache(STATEMENTS_MAX)
        self.months = Months(engine, self.mtime_of)

    # -- accounts

    def balance(self, ordinal: int) -> Text:
        """``balance.json``."""
        account = self._engine.account(ordinal)
        entry = bytes(self._engine.entry(account.last_index))
        return Text(render.balance(account, self._as_of(account, entry)), render.time_of(entry))

    def account(self, ordinal: int) -> Text:
        """``account.json``."""
        account = self._engine.account(ordinal)
        entry = bytes(self._engine.entry(account.last_index))
        opened = self._engine.entry(account.open_index)
        return Text(render.account_file(opened, account.status, self._as_of(account, entry)), render.time_of(entry))

    def log_size(self, ordinal: int) -> tuple[int, int]:
        """Size and mtime of ``tx.log``."""
        account = self._engine.account(ordinal)
        return account.log_bytes, self.mtime_of(account.last_index)

    def log_read(self, ordinal: int, offset: int, size: int) -> bytes:
        """A piece of ``tx.log``."""
        return self._engine.log(ordinal, offset, size)

    async def statement(self, ordinal: int, month: int = 0) -> tuple[Statement, int]:
        """``statement.csv``, or that of a month, complete, and its mtime. Raises OSError when there is no room for a large one."""
        period = (lambda: self.months.period(month)) if month else None
        statement = self._statements.get((ordinal, month), lambda: Statement(self._engine, ordinal, self._root, period))
        try:
            account = await statement.current(self._threads)
        except OSError:
            self._statements.drop((ordinal, month))
            raise
        return statement, self.mtime_of(account.last_index)

    def log_part(self, ordinal: int, month: int) -> tuple[int, int, int]:
        """What of ``tx.log`` was booked in a month: from, to (exclusive), and the last entry of it; -1 when there is none."""
        period = self.months.period(month)
        before = self._engine.account_at(ordinal, period.first)
        after = self._engine.account_at(ordinal, period.end)
        start = before.log_bytes if before else 0
        if after is None or after.last_index < period.first:
            return start, start, -1
        return start, after.log_bytes, after.last_index

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Of the indexes, for metrics."""
        numbers = self._engine.indexes()
        return {
            "index_bytes": ("Size of the files in indexes/", numbers.bytes),
            "index_files": ("How many they are", numbers.files),
            "index_unindexed_postings": ("Postings in memory, of which no file has been made yet", numbers.unindexed),
            "index_seconds": ("Processor time spent on them since the start", numbers.spent_ns / 1e9),
        }

    def opened_ns(self, ordinal: int) -> int:
        """When the account was opened."""
        return self.mtime_of(self._engine.account(ordinal).open_index)

    def months_of(self, ordinal: int) -> Iterator[int]:
        """The months in which an account has an entry, oldest first."""
        size = self._engine.counts().entries
        index = self._engine.account(ordinal).open_index
        while True:
            month = self.months.of_entry(index)
            yield month
            found = self._engine.postings(ordinal, self.months.first(month + 1), 1, by=By.INDEX, size=size)
            if not found:
                return
            index = found[0].entry

    # -- past states

    def newest_before(self, ordinal: int, point: Point) -> int:
        """Index of the account's newest entry in a past state; -1: it did not exist."""
        past = self._engine.account_at(ordinal, point.size)
        return past.last_index if past else -1

    def snapshot(self, ordinal: int, index: int) -> Text:
        """``snapshots/<X>.json``: the balance as the account's entry ``index`` left it. Raises IndexError."""
        past = self._engine.account_at(ordinal, index + 1)
        if past is None:
            raise IndexError(index)
        entry = bytes(self._engine.entry(index))
        return Text(render.balance(past, self._as_of(past, entry)), render.time_of(entry))

    # -- entries

    def transaction(self, number: int) -> memoryview:
        """``transactions/tx_…``. Raises IndexError."""
        return self._engine.entry(self._engine.transaction(number))

    def block(self, height: int) -> memoryview:
        """``blocks/…``. Raises IndexError."""
        return self._engine.entry(self._engine.block(height))

    def mtime_of(self, index: int) -> int:
        """The booking time of an entry, in ns."""
        return render.time_of(bytes(self._engine.entry(index)))

    # -- log/tile

    def tile_exists(self, level: int, number: int, width: int) -> bool:
        """Whether a tile of ``level`` (bundles: level 0) has so many hashes."""
        return number * TILE_WIDTH + width <= self._engine.level_size(level)

    def tile_mtime(self, level: int, number: int, width: int) -> int:
        """Time of the newest entry under a tile."""
        return self.mtime_of((number * TILE_WIDTH + width) * TILE_WIDTH**level - 1)

    def tile(self, level: int, number: int, width: int) -> bytes:
        """The hashes of a tile. Raises IndexError."""
        return self._engine.hashes(level, number * TILE_WIDTH, width)

    def bundle(self, number: int, width: int) -> memoryview | bytes:
        """The entries of a bundle with their lengths. Raises IndexError."""
        return self._engine.bundle(number, width)

    # -- extended attributes

    def attributes(self, index: int) -> dict[bytes, bytes]:
        """``user.ledgerfs.*`` of a file that shows entry ``index``."""
        entry = bytes(self._engine.entry(index))
        return {
            b"user.ledgerfs.index": b"%d" % index,
            b"user.ledgerfs.leaf": self._engine.leaf(index).hex().encode(),
            b"user.ledgerfs.seal": b"%d" % self._engine.block_of(index),
            b"user.ledgerfs.as_of": render.time_text(entry).encode(),
        }

    def _as_of(self, account: Account, entry: bytes) -> render.AsOf:
        return render.as_of(self._engine, account, entry)
