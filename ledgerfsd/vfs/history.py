"""``accounts/<id>/history/`` and ``accounts/<id>/statements/``: an account by month (SEMANTICS, section 13)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Final

from ledgerfsd.service.months import text_of
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Branch, Keep, Stat
from ledgerfsd.vfs.nodes import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.query import Query

_NAME: Final = re.compile(rb"([0-9]{4})-(0[1-9]|1[0-2])\.([a-z]+)")
_FORMS: Final = {Kind.HISTORY_DIRECTORY: b"ndjson", Kind.STATEMENTS_DIRECTORY: b"csv"}
_FILES: Final = {
    Kind.HISTORY_DIRECTORY: Kind.HISTORY_FILE,
    Kind.STATEMENTS_DIRECTORY: Kind.STATEMENTS_FILE,
}
_MONTH_BITS: Final = 16  # the year 2199 ends before month 26,400


class HistoryBranch(Branch):
    """Both directories of all accounts. A file's number: ordinal and month."""

    kinds = frozenset((*_FILES, *_FILES.values()))
    in_account: ClassVar[Mapping[bytes, Kind]] = {
        b"history": Kind.HISTORY_DIRECTORY,
        b"statements": Kind.STATEMENTS_DIRECTORY,
    }

    def __init__(self, engine: Engine, query: Query) -> None:
        self._engine = engine
        self._query = query

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:
        """``<month>.ndjson`` or ``<month>.csv`` of a month in which the account has an entry."""
        kind, ordinal = nodes.kind_of(parent), nodes.number_of(parent)
        match = _NAME.fullmatch(name)
        if match is None or match[3] != _FORMS[kind]:
            return 0, False
        month = int(match[1]) * 12 + int(match[2]) - 1
        if not 1970 <= int(match[1]) <= 2199 or self._query.log_part(ordinal, month)[2] < 0:
            return 0, False
        return _file(kind, ordinal, month), True

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:
        """The months, oldest first."""
        kind, ordinal = nodes.kind_of(directory), nodes.number_of(directory)
        for place, month in enumerate(self._query.months_of(ordinal)):
            if place >= skip:
                yield text_of(month).encode() + b"." + _FORMS[kind], _file(kind, ordinal, month)

    def keep(self, inode: int) -> Keep:
        """A month that is over never changes."""
        if nodes.is_directory(inode):
            return Keep.NOTHING
        return Keep.FOREVER if self._query.months.is_over(_parts(inode)[1]) else Keep.NOTHING

    def index_of(self, inode: int) -> int:
        """The newest entry of the month."""
        return -1 if nodes.is_directory(inode) else self._query.log_part(*_parts(inode))[2]

    async def stat(self, inode: int) -> Stat:
        """Exact; the directories have the time at which the account was opened."""
        if nodes.is_directory(inode):
            return Stat(0, self._query.opened_ns(nodes.number_of(inode)))
        ordinal, month = _parts(inode)
        if nodes.kind_of(inode) is Kind.STATEMENTS_FILE:
            statement, mtime_ns = await self._query.statement(ordinal, month)
            return Stat(statement.size, mtime_ns)
        start, end, newest = self._query.log_part(ordinal, month)
        return Stat(end - start, self._query.mtime_of(newest))

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        """A piece; of the month that goes on as it is now: it only grows."""
        ordinal, month = _parts(inode)
        if nodes.kind_of(inode) is Kind.STATEMENTS_FILE:
            statement, _ = await self._query.statement(ordinal, month)
            return statement.read(offset, size)
        start, end, _ = self._query.log_part(ordinal, month)
        return self._query.log_read(ordinal, start + offset, max(0, min(size, end - start - offset)))


def _file(directory: Kind, ordinal: int, month: int) -> int:
    return nodes.inode(_FILES[directory], ordinal << _MONTH_BITS | month)


def _parts(inode: int) -> tuple[int, int]:
    number = nodes.number_of(inode)
    return number >> _MONTH_BITS, number & (1 << _MONTH_BITS) - 1
