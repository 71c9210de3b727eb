"""Wall clock and calendar. Times are integers: nanoseconds since 1970-01-01T00:00:00Z, without leap seconds.

Whoever needs the time takes a ``Clock``; ``SystemClock`` is the real one, ``ManualClock`` the one of tests. The
texts are those of docs/FORMAT.md, section 5.
"""

from __future__ import annotations

import datetime
import re
import time
from typing import Final, Protocol

NS_PER_SECOND: Final = 1_000_000_000
NS_PER_DAY: Final = 86_400 * NS_PER_SECOND

_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?Z"
)
_ANY_TIME: Final = re.compile(
    r"([0-9-]{10})[Tt]([0-9:]{8}(?:\.[0-9]{1,9})?)([Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
_YEAR_MIN, _YEAR_MAX = 1970, 2199


class Clock(Protocol):
    """A source of the present."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC. May stand still or jump back: entries take care of that themselves."""


class SystemClock:
    """The clock of the machine."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """The time last set."""
        return self._now_ns

    def set(self, now_ns: int) -> None:
        """Jump to a time, forwards or backwards."""
        self._now_ns = now_ns

    def advance(self, nanoseconds: int) -> None:
        """Move by so many nanoseconds."""
        self._now_ns += nanoseconds


def is_date(text: str) -> bool:
    """Whether ``text`` is a day of the Gregorian calendar, 0001-01-01 to 9999-12-31, as ``YYYY-MM-DD``."""
    return _day(text) is not None


def format_date(time_ns: int) -> str:
    """The UTC day of a time, ``YYYY-MM-DD``. Dates of this form sort as text."""
    return datetime.date.fromordinal(_EPOCH + time_ns // NS_PER_DAY).isoformat()


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC with nine decimals: ``2026-11-23T08:08:53.123456789Z``."""
    seconds, nanoseconds = divmod(time_ns % NS_PER_DAY, NS_PER_SECOND)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{format_date(time_ns)}T{hours:02}:{minutes:02}:{seconds % 60:02}.{nanoseconds:09}Z"


def parse_time(text: str) -> int:
    """Nanoseconds of ``YYYY-MM-DDThh:mm:ss[.d{1,9}]Z``, years 1970 to 2199. Raises ValueError for anything else."""
    match = _TIME.fullmatch(text)
    day = _day(match[1]) if match is not None else None
    if match is None or day is None or not _YEAR_MIN <= day.year <= _YEAR_MAX:
        raise ValueError(f"{text!r} is not a time such as 2026-11-29T00:00:00Z")
    seconds = int(match[2]) * 3600 + int(match[3]) * 60 + int(match[4])
    nanoseconds = int((match[5] or "").ljust(9, "0"))
    return (day.toordinal() - _EPOCH) * NS_PER_DAY + seconds * NS_PER_SECOND + nanoseconds


def parse_any_time(text: str) -> int:
    """Nanoseconds of an RFC 3339 time with any offset from UTC. Raises ValueError for anything else."""
    match = _ANY_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 2026-11-29T00:00:00Z")
    local = parse_time(f"{match[1]}T{match[2]}Z")
    offset = (int(match[5]) * 3600 + int(match[6]) * 60) * NS_PER_SECOND if match[4] else 0
    return local + (offset if match[4] == "-" else -offset)


def parse_day(text: str) -> int:
    """Days since 1970-01-01 of a date from 1970 to 2199. Raises ValueError for anything else."""
    return parse_time(text + "T00:00:00Z") // NS_PER_DAY


def parse_month(text: str) -> int:
    """``YYYY-MM`` as 12 * year + month, counted from 0. Raises ValueError for anything else."""
    if _MONTH.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a month such as 2026-11")
    return int(text[:4]) * 12 + int(text[5:]) - 1


def end_of_day(day: int) -> int:
    """The last nanosecond of a day, which is counted from 1970-01-01."""
    return (day + 1) * NS_PER_DAY - 1


def end_of_month(month: int) -> int:
    """The last nanosecond of a month, which ``parse_month`` gave. Raises ValueError when it is not within 1970 to 2199."""
    return parse_day(f"{(month + 1) // 12:04}-{(month + 1) % 12 + 1:02}-01") * NS_PER_DAY - 1


def _day(text: str) -> datetime.date | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return datetime.date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None
