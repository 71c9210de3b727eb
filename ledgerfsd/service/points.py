"""What the name of a snapshot means: the first so many entries of the log.

Start at ``Points.point``. A name is an RFC 3339 time, a day or month (its end, in UTC), ``block-N``, ``size-N``, ``tx-N``,
``digest-N`` (that of size N), or one that somebody gave. Nothing is written for any but the last kind: times rise
strictly from entry to entry, so a binary search finds them, and the days that have entries too.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from ledgerfsd.clock import (
    NS_PER_DAY,
    NS_PER_SECOND,
    end_of_day,
    end_of_month,
    format_date,
    parse_any_time,
    parse_day,
    parse_month,
)
from ledgerfsd.service import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ledgerfsd.clock import Clock
    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.named import NamedSnapshots

KEPT_MAX: Final = 10_000

_NUMBERED: Final = re.compile(r"(block|size|tx|digest)-([1-9][0-9]{0,18})")
_POINT_LIKE: Final = re.compile(r"(block|size|tx|digest)-[0-9]+|[0-9]{4}-[0-9]{2}(-[0-9]{2}.*)?|effective|latest")


class Label(enum.IntEnum):
    """How a state was named; the directories of two labels are two, even of the same state. Up to 7 labels of times."""

    TIME = 0  # the key is the size
    BLOCK = 8  # height
    SIZE = 9
    TX = 10  # transaction number
    DAY = 11  # days since 1970-01-01
    MONTH = 12  # 12 * year + month, from 0
    NAMED = 13  # number of the name
    DIGEST = 14  # size
    EFFECTIVE = 15  # the proleptic ordinal of the date, 0001-01-01 being 1; not a size


_TIME_LABELS: Final = 8


class Point(NamedTuple):
    """A past state: the first ``size`` entries. ``final``: the name can never come to mean another."""

    size: int
    final: bool
    label: int
    key: int  # with the label it says the size


class Points:
    """The names of one ledger's past states."""

    def __init__(self, engine: Engine, clock: Clock, named: NamedSnapshots) -> None:
        self.named = named
        self.is_digest: Callable[[int], bool] = lambda size: False  # noqa: ARG005  (whoever makes digests says which there are)
        self.digests: Callable[[int, int], Iterable[int]] = lambda skip, above: ()  # noqa: ARG005  (their sizes)
        self._engine = engine
        self._clock = clock
        self._days: list[tuple[int, int]] = []  # days with entries that are over: day, size at its end
        self._sizes: dict[int, int] = {}  # of times in ns that are final

    def point(self, name: str) -> Point | None:
        """The state that a name means. None: no such, or not yet."""
        named = self.named.find(name)
        if named is not None:
            return Point(named.size, final=True, label=Label.NAMED, key=named.number)
        if match := _NUMBERED.fullmatch(name):
            return self._numbered(match[1], int(match[2]))
        try:
            if len(name) == len("2026-11-30"):
                return self._period(Label.DAY, parse_day(name))
            if len(name) == len("2026-11"):
                return self._period(Label.MONTH, parse_month(name))
            return self._at(parse_any_time(name))
        except ValueError:  # no time, or one before 1970 or after 2199
            return None

    def _numbered(self, kind: str, number: int) -> Point | None:
        counts = self._engine.counts()
        if kind in ("size", "digest"):
            there = number <= counts.entries and (kind == "size" or self.is_digest(number))
            return Point(number, True, Label.SIZE if kind == "size" else Label.DIGEST, number) if there else None
        if kind == "block":
            size = self._engine.block(number) + 1 if number <= counts.blocks else 0
            return Point(size, True, Label.BLOCK, number) if size else None
        size = self._engine.transaction(number) + 1 if number <= counts.transactions else 0
        return Point(size, True, Label.TX, number) if size else None

    def _period(self, label: int, key: int) -> Point | None:
        """The state at the end of a day or month."""
        point = self._at(_last_ns(label, key))
        # Until it is final, what the name means may change, and its directory with it.
        return point._replace(label=label, key=key) if point is not None and point.final else point

    def _at(self, time_ns: int) -> Point | None:
        """Everything booked at or before a time, which is not to come."""
        if time_ns > self._clock.now_ns():
            return None
        # Between the newest seal and now an entry may be on its way to the disk that belongs to this past already.
        final = time_ns <= self._engine.counts().time_ns
        size = self._size_at(time_ns)
        label = Label.TIME + time_ns // NS_PER_SECOND % _TIME_LABELS
        return Point(size, final, label, size) if size else None

    def _size_at(self, time_ns: int) -> int:
        size = self._sizes.get(time_ns)
        if size is None:
            counts = self._engine.counts()
            size = bisect_right(range(counts.entries), time_ns, key=self.time_of)
            if time_ns <= counts.time_ns:
                self._keep(time_ns, size)
        return size

    def size_by_day(self, day: int) -> int:
        """The size of the log at the end of a day (since 1970-01-01), which may be to come."""
        return self._size_at(end_of_day(day))

    def _keep(self, time_ns: int, size: int) -> None:
        if len(self._sizes) >= KEPT_MAX:
            self._sizes.clear()
        self._sizes[time_ns] = size

    def size_of(self, label: int, key: int) -> int:
        """The size of a state that was found by name. Raises IndexError when it never was."""
        if label < Label.TIME + _TIME_LABELS or label in (Label.SIZE, Label.DIGEST):
            return key
        if label == Label.BLOCK:
            return self._engine.block(key) + 1
        if label == Label.TX:
            return self._engine.transaction(key) + 1
        return self.named.size(key) if label == Label.NAMED else self._size_at(_last_ns(label, key))

    def transactions(self, size: int) -> int:
        """How many transactions there are among the first ``size`` entries."""
        count = self._engine.counts().transactions
        return bisect_left(range(1, count + 1), size, key=self._engine.transaction)

    # -- what is listed

    def listed(self) -> list[tuple[str, Point]]:
        """The ends of months and of days that have entries and are over, and named snapshots. (Digests too: ``listed_digests``.)"""
        names = []
        months: set[str] = set()
        for day in self._days_over():
            date = format_date(day * NS_PER_DAY)
            names.append(date)
            months.add(date[:7])
        names += [named.name for named in self.named.all()]
        found = ((name, self.point(name)) for name in [*sorted(months), *names])
        return [(name, point) for name, point in found if point is not None]

    def listed_digests(self, skip: int, above: int = 0) -> Iterator[tuple[str, Point]]:
        """Every digest of a size above ``above``, oldest first, without the first ``skip``. There may be very many, and
        more come at the end only."""
        for size in self.digests(skip, above):
            yield f"digest-{size}", Point(size, True, Label.DIGEST, size)

    def _days_over(self) -> list[int]:
        entries = self._engine.counts().entries
        while True:
            first = self._days[-1][1] if self._days else 0
            if first == entries:
                break
            day = self.time_of(first) // NS_PER_DAY
            end = bisect_left(range(entries), (day + 1) * NS_PER_DAY, lo=first, key=self.time_of)
            if end == entries:  # the newest one may get more
                return [*(each for each, _ in self._days), day]
            self._days.append((day, end))
            self._keep(_last_ns(Label.DAY, day), end)
        return [each for each, _ in self._days]

    def time_of(self, index: int) -> int:
        """The booking time of an entry, in ns."""
        return render.time_of(bytes(self._engine.entry(index)))


def is_point_like(name: str) -> bool:
    """Whether a name is, or may come to be, a point by itself, so that nobody can give it to another."""
    return _POINT_LIKE.fullmatch(name) is not None


def _last_ns(label: int, key: int) -> int:
    """The last nanosecond of a day or month. Raises ValueError for one outside of 1970 to 2199."""
    return end_of_day(key) if label == Label.DAY else end_of_month(key)
