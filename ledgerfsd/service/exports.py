"""``exports/``: the ledger as plain-text accounting, written on from where it was left whenever somebody looks.

Start at ``Exports.whole``. Nothing is written before somebody asks; then everything since the beginning, in a worker
thread, and later only what is new. The text lies in nameless files of the store's file system: a projection that is made
again after a restart.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from ledgerfsd.export import beancount, journal
from ledgerfsd.export.book import Book, Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.query import Query

INLINE_MAX: Final = 256  # entries written on without leaving the loop: some milliseconds
BUFFER_BYTES: Final = 1 << 20
WHOLE: Final = "the whole ledger"


class Spool:
    """Text that only grows, in a nameless file. What was put is read only after ``flush``."""

    def __init__(self, directory: Path) -> None:
        self.size = 0
        self._file = tempfile.TemporaryFile(dir=directory, buffering=BUFFER_BYTES)  # noqa: SIM115  (lives as long as this)

    def put(self, text: str) -> None:
        """Add to it. Raises OSError."""
        data = text.encode()
        self._file.write(data)
        self.size += len(data)

    def flush(self) -> None:
        """Let it be read. Raises OSError."""
        self._file.flush()

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        return os.pread(self._file.fileno(), size, offset)


class Piece(NamedTuple):
    """A part of a text: bytes, or a part of a spool."""

    size: int
    data: bytes = b""
    spool: Spool | None = None
    start: int = 0


class View(NamedTuple):
    """A file of ``exports/`` as it was at one moment."""

    pieces: tuple[Piece, ...]
    mtime_ns: int

    @property
    def size(self) -> int:
        """Its length."""
        return sum(piece.size for piece in self.pieces)

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        found = []
        for piece in self.pieces:
            take = min(size, piece.size - offset) if offset < piece.size else 0
            if take > 0:
                at = piece.start + offset
                found.append(piece.spool.read(at, take) if piece.spool else piece.data[offset : offset + take])
                size -= take
            offset = max(0, offset - piece.size)
        return b"".join(found)


class Month:
    """Where a month lies in the spools, and the time of its last entry once it has ended."""

    __slots__ = ("body", "end_ns", "name", "opening", "opening_end")

    def __init__(self, name: str, body: int, opening: int) -> None:
        self.name = name
        self.body = body
        self.opening = self.opening_end = opening
        self.end_ns = 0


class Export:
    """One format's text of the whole ledger."""

    def __init__(
        self, engine: Engine, query: Query, form: Format, header: Callable[[str], str], directory: Path
    ) -> None:
        self._engine = engine
        self._query = query
        self._header = header
        self._body, self._openings = Spool(directory), Spool(directory)
        self._book = Book(form, self._body.put, self._month_begins)
        self._months: dict[str, Month] = {}
        self._next = 0  # index of the first entry that is not in it
        self._tail = b""  # the end of the day that is not over

    def behind(self) -> int:
        """How many entries are not in it."""
        return self._engine.counts().entries - self._next

    def extend(self, entries: int) -> None:
        """Write on up to the first ``entries`` entries. Raises OSError: then this export is of no use any more."""
        for index in range(self._next, entries):
            self._book.add(self._engine.entry(index), self._engine.leaf(index))
            self._next = index + 1
        self._body.flush()
        self._openings.flush()
        self._tail = self._book.unfinished_day().encode()

    def whole(self) -> View:
        """``ledger.<format>`` as far as it was written."""
        return self._view(self._header(WHOLE), [self._slice(self._body, 0, self._body.size)], open_ended=True)

    def month(self, name: str) -> View:
        """A month by itself, with the balances it began with. Raises KeyError when it has no entries so far."""
        month = self._months[name]
        following = next((other for other in self._months if other > name), None)
        end = self._months[following].body if following else self._body.size
        parts = [
            self._slice(self._openings, month.opening, month.opening_end),
            self._slice(self._body, month.body, end),
        ]
        return self._view(self._header(name), parts, open_ended=following is None, end_ns=month.end_ns)

    def _view(self, header: str, parts: list[Piece], *, open_ended: bool, end_ns: int = 0) -> View:
        first = header.encode()
        pieces = [Piece(len(first), first), *parts]
        if open_ended:
            pieces.append(Piece(len(self._tail), self._tail))
            end_ns = self._query.mtime_of(self._next - 1)
        return View(tuple(pieces), end_ns)

    @staticmethod
    def _slice(spool: Spool, start: int, end: int) -> Piece:
        return Piece(end - start, spool=spool, start=start)

    def _month_begins(self, name: str, currencies: str, accounts: Iterable[str]) -> None:
        if self._months:
            list(self._months.values())[-1].end_ns = self._query.mtime_of(self._next - 1)
        month = self._months[name] = Month(name, self._body.size, self._openings.size)
        self._openings.put(currencies)
        for text in accounts:
            self._openings.put(text)
        month.opening_end = self._openings.size


class Exports:
    """The files of ``exports/``."""

    def __init__(self, engine: Engine, query: Query, origin: str, directory: Path) -> None:
        self._engine = engine
        self._makers: dict[str, Callable[[], Export]] = {
            "journal": lambda: Export(
                engine, query, journal.Journal(), lambda part: journal.header(origin, part), directory
            ),
            "beancount": lambda: Export(
                engine, query, beancount.Beancount(), lambda part: beancount.header(origin, part), directory
            ),
        }
        self._exports: dict[str, Export] = {}
        self._turns = {name: trio.Lock() for name in self._makers}
        self._threads = trio.CapacityLimiter(1)

    @property
    def formats(self) -> list[str]:
        """The endings of the files."""
        return list(self._makers)

    async def whole(self, form: str) -> View:
        """``ledger.<form>``, as of now. Raises OSError when there is no room for it."""
        return (await self._current(form)).whole()

    async def month(self, form: str, name: str) -> View:
        """``<month>.<form>``, as of now. Raises OSError, or KeyError when the month has no entries."""
        return (await self._current(form)).month(name)

    async def _current(self, form: str) -> Export:
        """The export, up to date with what was durable when this was asked."""
        entries = self._engine.counts().entries
        async with self._turns[form]:
            export = self._exports.get(form)
            if export is None:
                export = self._exports[form] = self._makers[form]()
            try:
                if export.behind() <= INLINE_MAX:
                    export.extend(max(entries, self._engine.counts().entries))
                else:
                    await trio.to_thread.run_sync(export.extend, entries, limiter=self._threads)
            except OSError:
                del self._exports[form]  # half of an entry may stand in it
                raise
            return export
