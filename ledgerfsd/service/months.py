"""Months of the log: where each begins. By booking time, in UTC.

A month is numbered by year * 12 + month - 1. It is over when a later one has an entry: times rise strictly, so nothing
can be booked in it any more.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from ledgerfsd.clock import NS_PER_DAY, format_date, parse_time
from ledgerfsd.service.statements import Period

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledgerfsd.core.engine import Engine


def text_of(month: int) -> str:
    """``2026-11``."""
    return f"{month // 12:04}-{month % 12 + 1:02}"


def month_of(time_ns: int) -> int:
    """The month of a time."""
    date = format_date(time_ns)
    return int(date[:4]) * 12 + int(date[5:7]) - 1


class Months:
    """The months of one ledger; beginnings are remembered, as they never move."""

    def __init__(self, engine: Engine, mtime_of: Callable[[int], int]) -> None:
        self._engine = engine
        self._mtime_of = mtime_of
        self._first: dict[int, int] = {}

    def of_entry(self, index: int) -> int:
        """The month in which an entry was booked."""
        return month_of(self._mtime_of(index))

    def newest(self) -> int:
        """The month of the newest seal."""
        return month_of(self._engine.counts().time_ns)

    def is_over(self, month: int) -> bool:
        """Whether nothing can be booked in it any more."""
        return month < self.newest()

    def first(self, month: int) -> int:
        """The first entry of a month or of a later one; the number of entries when there is none yet."""
        known = self._first.get(month)
        if known is not None:
            return known
        entries = self._engine.counts().entries
        start = parse_time(f"{text_of(month)}-01T00:00:00Z")
        found = bisect_left(range(entries), start, key=self._mtime_of)
        if found < entries:
            self._first[month] = found
        return found

    def period(self, month: int) -> Period:
        """Its place in the log."""
        counts = self._engine.counts()  # of one moment: what is committed while we count is not in it
        over = month < month_of(counts.time_ns)
        last_day = format_date(parse_time(f"{text_of(month + 1)}-01T00:00:00Z") - NS_PER_DAY)
        end = self.first(month + 1) if over else counts.entries
        return Period(text_of(month), last_day, min(self.first(month), end), end, over)
