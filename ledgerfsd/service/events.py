"""Events: the log as lines of CloudEvents (docs/FORMAT.md, section 17), by day and as streams that wait for more.

Start at ``Events``. Nothing is rendered before it is read, and nothing is kept for a reader but its position: the length of a
line follows from that of its entry. ``Feed`` wakes those who wait.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
import trio

from ledgerfsd.clock import NS_PER_DAY, format_date
from ledgerfsd.core.values import Attending
from ledgerfsd.service import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.ledger import Change, Ledger

log = structlog.get_logger()

# A READ of a stream gives less than this, so that one reader's turn is short, and less than it asked for, because the kernel
# then returns to the program at once; a full READ it would follow by another, which waits.
READ_BYTES_MAX: Final = 256 * 1024
# Waking a reader costs the thread of the mount about so long. Those who wait are not woken faster than they can be served in
# half of its time: commits go first, and with many readers each gets more at once.
WAKE_SECONDS: Final = 0.0001


class Range(NamedTuple):
    """Events first..end-1 of a day. ``closed``: there will be no more of it."""

    first: int
    end: int
    closed: bool


class Feed:
    """Those who wait for an event that is not there yet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wake: dict[object, Callable[[], None]] = {}
        self._news = trio.Event()
        self.stopped = False
        self._deaf = False

    def __len__(self) -> int:
        return len(self._wake)

    def tell(self, who: object, wake: Callable[[], None]) -> None:
        """Call ``wake`` once, soon after the next commit; it replaces what was to be called for ``who`` before."""
        if not self._wake:
            # What was committed after ``who`` looked, but before this, is made up for: the engine asks for it to be announced.
            self._engine.attend(Attending.EVENTS, True)
        self._wake[who] = wake

    def forget(self, who: object) -> None:
        """Do not call what is to be called for ``who``."""
        if self._wake.pop(who, None) and not self._wake:
            self._engine.attend(Attending.EVENTS, False)

    async def committed(self, change: Change) -> None:  # noqa: ARG002
        """Entries became durable (``Ledger.on_change``)."""
        self._news.set()

    async def run(self) -> None:
        """Wake whoever waits, until cancelled. A task of its own: writers get their answers first."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            woken = len(self._wake)
            self._wake_all()
            await trio.sleep(2 * WAKE_SECONDS * woken if woken > 1 else 0)

    def deaf(self) -> None:
        """A reader cannot be interrupted (see ``vfs.requests``); said once."""
        if not self._deaf:
            self._deaf = True
            log.warning("signals of readers are not seen: reads that wait give EINTR once a second")

    def stop(self) -> None:
        """The mount goes: nobody waits any more."""
        self.stopped = True
        self._wake_all()

    def _wake_all(self) -> None:
        waiting, self._wake = self._wake, {}
        if waiting:
            self._engine.attend(Attending.EVENTS, False)
        for wake in waiting.values():
            wake()


class Events:
    """The events of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._engine = ledger.engine
        self._clock = ledger.clock
        self.origin = ledger.origin.encode()
        self.feed = Feed(self._engine)
        self._extra = self._engine.event_width(self.origin)
        self._born = self.day_of(0)

    @property
    def count(self) -> int:
        """How many there are: the index of the next one."""
        return self._engine.counts().entries

    def size(self, first: int, end: int) -> int:
        """Length of the lines of events first..end-1."""
        # An entry's length field, two bytes, stands in the stream but not in the line.
        stream = self._engine.offset(end) - self._engine.offset(first)
        return stream + (end - first) * (self._extra - 2)

    def read(self, first: int, end: int, offset: int, size: int) -> memoryview:
        """A piece of the lines of events first..end-1."""
        index, skip = self._engine.event_at(first, end, self.origin, offset)
        return self._engine.events(index, end, skip, self.origin, size)

    def lines(self, first: int, offset: int, size: int) -> memoryview:
        """Lines from event ``first`` on, from a byte of them on, whole if at least one fits (see ``Engine.events``)."""
        end = self.count
        index, skip = self._engine.event_at(first, end, self.origin, offset)
        # Room for one byte more than there is: of several lines, less than what is asked for is given.
        size = min(size, self.size(index, end) - skip + 1)
        return self._engine.events(index, end, skip, self.origin, size, whole=True)

    def time_of(self, index: int) -> int:
        """The time of an event, in ns."""
        return render.time_of(bytes(self._engine.entry(index)))

    # -- days, by their ordinal (datetime.date)

    def day_of(self, index: int) -> int:
        """The day of an event."""
        return _day(self.time_of(index))

    def days(self) -> range:
        """All days that have a file: from that of genesis to today, or to the newest event's if the clock is behind it."""
        newest = max(_day(self._clock.now_ns()), self.day_of(self.count - 1))
        return range(self._born, newest + 1)

    def day(self, day: int) -> Range:
        """The events of a day so far. It is closed when an event of a later day is there: times only rise."""
        first, end = (self._engine.first_at(_start(each)) for each in (day, day + 1))
        return Range(first, end, end < self.count)


class Stream:
    """The log from one event on, as a file that has no end: its bytes are at fixed offsets, so a reader's position is an offset."""

    def __init__(self, events: Events, first: int) -> None:
        self._events = events
        self._first = first

    def ready(self, offset: int) -> bool:
        """Whether there is something to read."""
        end = self._events.count
        return self._first < end and offset < self._events.size(self._first, end)

    def read(self, offset: int, size: int) -> memoryview | bytes:
        """Whole lines, as many as fit; a piece of a line if not even one does. Empty: there is no more yet."""
        if not self.ready(offset):
            return b""
        return self._events.lines(self._first, offset, min(size, READ_BYTES_MAX))


def _day(time_ns: int) -> int:
    return datetime.date.fromisoformat(format_date(time_ns)).toordinal()


def _start(day: int) -> str:
    return f"{datetime.date.fromordinal(day).isoformat()}T00:00:00.000000000Z"


def day_start_ns(day: int) -> int:
    """When a day begins."""
    return (day - datetime.date(1970, 1, 1).toordinal()) * NS_PER_DAY
