"""``exports/``: the ledger as plain-text accounting, whole and by month (SEMANTICS, section 15)."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from ledgerfsd.clock import format_date, parse_time
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Branch, Handle, Keep, Place, Stat
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.exports import Exports, View
    from ledgerfsd.service.query import Query

_TOP: Final = nodes.inode(Kind.EXPORT_DIRECTORY, 0)
_NAME: Final = re.compile(r"(ledger|([0-9]{4})-(0[1-9]|1[0-2]))\.([a-z]+)")
_FORM_BITS: Final = 8


class _Opened(Handle):
    """A file as it was when it was opened."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def read(self, offset: int, size: int) -> bytes:
        return self._view.read(offset, size)


class ExportBranch(Branch):
    """The directory and its files. A file's number: months since the year 0 (0: the whole), and the format."""

    kinds = frozenset((Kind.EXPORT_DIRECTORY, Kind.EXPORT_FILE))
    places = (Place(Fixed.ROOT, b"exports", _TOP),)

    def __init__(self, engine: Engine, query: Query, exports: Exports) -> None:
        self._engine = engine
        self._query = query
        self._exports = exports
        self._forms = exports.formats

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:  # noqa: ARG002
        """``ledger.<format>`` and ``<month>.<format>`` of months that have an entry."""
        match = _NAME.fullmatch(name.decode(errors="replace"))
        if match is None or match[4] not in self._forms:
            return 0, False
        month = int(match[2]) * 12 + int(match[3]) - 1 if match[2] else 0
        if month and not self._has(month):
            return 0, False
        return _inode(month, self._forms.index(match[4])), True

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:  # noqa: ARG002
        """The whole, then the months."""
        found = [(f"ledger.{form}", _inode(0, at)) for at, form in enumerate(self._forms)]
        for month in range(_month_of(self._query.mtime_of(0)), self._newest() + 1):
            if self._has(month):
                found += [(f"{_text(month)}.{form}", _inode(month, at)) for at, form in enumerate(self._forms)]
        for name, inode in found[skip:]:
            yield name.encode(), inode

    def keep(self, inode: int) -> Keep:
        """A month is for ever once a later one has an entry."""
        return Keep.FOREVER if self._closed(inode) else Keep.NOTHING

    async def stat(self, inode: int) -> Stat:
        """Exact. The first look at a long ledger takes its time."""
        if nodes.is_directory(inode):
            return Stat(0, self._engine.counts().time_ns)
        view = await self._view(inode)
        return Stat(view.size, view.mtime_ns)

    async def open(self, inode: int, flags: int) -> Handle | None:
        """A file that still grows is read as it was when it was opened."""
        await super().open(inode, flags)
        return None if self._closed(inode) else _Opened(await self._view(inode))

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        """Of a month that is over."""
        return (await self._view(inode)).read(offset, size)

    async def _view(self, inode: int) -> View:
        month, form = divmod(nodes.number_of(inode), 1 << _FORM_BITS)
        name = self._forms[form]
        return await (self._exports.month(name, _text(month)) if month else self._exports.whole(name))

    def _closed(self, inode: int) -> bool:
        month = nodes.number_of(inode) >> _FORM_BITS
        return 0 < month < self._newest()

    def _newest(self) -> int:
        return _month_of(self._engine.counts().time_ns)

    def _has(self, month: int) -> bool:
        """Whether an entry was booked in it."""
        first, following = (self._first_at(number) for number in (month, month + 1))
        return first < following

    def _first_at(self, month: int) -> int:
        start = parse_time(f"{_text(month)}-01T00:00:00Z")
        return bisect_left(range(self._engine.counts().entries), start, key=self._query.mtime_of)


def _inode(month: int, form: int) -> int:
    return nodes.inode(Kind.EXPORT_FILE, month << _FORM_BITS | form)


def _month_of(time_ns: int) -> int:
    date = format_date(time_ns)
    return int(date[:4]) * 12 + int(date[5:7]) - 1


def _text(month: int) -> str:
    return f"{month // 12:04}-{month % 12 + 1:02}"
