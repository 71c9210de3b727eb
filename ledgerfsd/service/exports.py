"""``exports/``: the ledger as plain-text accounting, written on from where it was left whenever somebody looks.

Start at ``Exports.whole``. Nothing is written before somebody asks; then everything since the beginning, in a worker
thread, and later only what is new. The text lies in ``exports/`` of the store (``export_files``), so that a restart goes on
from there; it is a projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
import trio

from ledgerfsd.export import beancount, journal
from ledgerfsd.export.book import Book, Format
from ledgerfsd.limits import BUNDLE_ENTRIES
from ledgerfsd.merkle.tile import decode_bundle
from ledgerfsd.service.export_files import TEXT_VERSION, Mark, Month, Spool, read_mark, write_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.query import Query

log = structlog.get_logger()

HEX: Final = 64  # digits of a hash
INLINE_MAX: Final = 256  # entries written on without leaving the loop: some milliseconds
SAVE_ENTRIES: Final = 1_000_000  # a mark each, so that a long first look that is killed need not begin anew
MANY_ENTRIES: Final = 10_000  # written on at once: worth a mark
WHOLE: Final = "the whole ledger"


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


class Export:
    """One format's text of the whole ledger."""

    def __init__(
        self, engine: Engine, query: Query, form: Format, header: Callable[[str], str], directory: Path, name: str
    ) -> None:
        """Goes on from what lies in ``directory``, if that is of this log and whole. Raises OSError."""
        self._engine = engine
        self._query = query
        self._header = header
        self._paths = [directory / f"{name}.{part}" for part in ("mark", "body", "openings")]
        self._months: dict[str, Month] = {}
        self._next = self._marked = (
            0  # index of the first entry that is not in it; of the first that the mark does not cover
        )
        self._tail = b""  # the end of the day that is not over
        directory.mkdir(mode=0o750, exist_ok=True)
        mark = self._found()
        self._book = Book(form, self._body.put, self._month_begins)
        if mark is not None:
            self._next = self._marked = mark.entries
            self._months = {month.name: month for month in mark.months}
            self._book.go_on_from(mark.book)
            self._tail = self._book.unfinished_day().encode()

    def _found(self) -> Mark | None:
        """The mark of what is there, with the spools opened; None: with empty ones."""
        try:
            mark = read_mark(self._paths[0])
            if mark.entries > self._engine.counts().entries or self._engine.leaf(mark.entries - 1).hex() != mark.leaf:
                raise ValueError("it is of another history")
            self._body, self._openings = Spool(self._paths[1], mark.body), Spool(self._paths[2], mark.openings)
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            if not isinstance(error, FileNotFoundError):
                log.warning("an export is written anew", file=str(self._paths[0]), reason=str(error))
            self._paths[0].unlink(missing_ok=True)
            self._body, self._openings = Spool(self._paths[1]), Spool(self._paths[2])
            return None
        return mark

    def save(self) -> None:
        """Let the next start go on from here. What cannot be saved is only slower then."""
        if self._next == self._marked:
            return
        try:
            self._body.flush()
            self._openings.flush()
            leaf, months = self._engine.leaf(self._next - 1).hex(), list(self._months.values())
            extents = (self._body.extent(), self._openings.extent())
            write_mark(self._paths[0], Mark(TEXT_VERSION, self._next, leaf, *extents, months, self._book.state()))
            self._marked = self._next
        except OSError as error:
            log.warning("how far an export was written is not saved", reason=error.strerror)

    def discard(self) -> None:
        """Half of an entry may stand in it: the next one begins anew."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def behind(self) -> int:
        """How many entries are not in it."""
        return self._engine.counts().entries - self._next

    def extend(self, entries: int) -> None:
        """Write on up to the first ``entries`` entries. Raises OSError: then this export is of no use any more."""
        first = self._next
        while self._next < entries:
            self._write_bundle(entries)
            if self._next - self._marked >= SAVE_ENTRIES:
                self.save()
        self._body.flush()
        self._openings.flush()
        self._tail = self._book.unfinished_day().encode()
        if entries - first >= MANY_ENTRIES:
            self.save()

    def _write_bundle(self, entries: int) -> None:
        """To the end of the bundle, in which the next entry is, or to ``entries``."""
        number, skip = divmod(self._next, BUNDLE_ENTRIES)
        width = min(BUNDLE_ENTRIES, entries - number * BUNDLE_ENTRIES)
        bundle = decode_bundle(bytes(self._engine.bundle(number, width)))
        leaves = self._engine.hashes(0, self._next, width - skip).hex()
        for place, data in enumerate(bundle[skip:]):
            self._book.add(data, leaves[HEX * place : HEX * (place + 1)])
            self._next += 1

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
        month = self._months[name] = Month(name, self._body.size, self._openings.size, self._openings.size)
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
                engine, query, journal.Journal(), lambda part: journal.header(origin, part), directory, "journal"
            ),
            "beancount": lambda: Export(
                engine,
                query,
                beancount.Beancount(),
                lambda part: beancount.header(origin, part),
                directory,
                "beancount",
            ),
        }
        self._exports: dict[str, Export] = {}
        self._turns = {name: trio.Lock() for name in self._makers}
        self._threads = trio.CapacityLimiter(1)

    @property
    def formats(self) -> list[str]:
        """The endings of the files."""
        return list(self._makers)

    def save(self) -> None:
        """The daemon ends: let the next one go on from here."""
        for export in self._exports.values():
            export.save()

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
                export = await trio.to_thread.run_sync(self._makers[form], limiter=self._threads)
                self._exports[form] = export
            try:
                if export.behind() <= INLINE_MAX:
                    export.extend(max(entries, self._engine.counts().entries))
                else:
                    await trio.to_thread.run_sync(export.extend, entries, limiter=self._threads)
            except OSError:
                self._exports.pop(form).discard()
                raise
            return export
