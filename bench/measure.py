"""Timed sections, medians, and the table.

Every timed section holds one lock of the machine, so that two benchmarks never overlap, and reads how much processor time
the host took away meanwhile (steal): figures taken while that was much say more of the neighbours than of us.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

LOCK: Final = Path(tempfile.gettempdir()) / "bench.lock"
REPOSITORY: Final = Path(__file__).resolve().parent.parent
IDLE_SHARE: Final = 0.9
STOLEN_SHARE: Final = 0.2  # of one processor: above it the figures are the host's
IDLE_LOOK_SECONDS: Final = 0.3
PERCENTS: Final = (50, 95, 99, 99.9)
T = TypeVar("T")
R = TypeVar("R")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


patience = 30.0  # seconds that a timed section waits for a machine with nothing else to do; run.py sets it


@dataclass
class Section:
    """A timed section: wall seconds, and seconds of all processors together."""

    seconds: float = 0.0
    busy: float = 0.0
    stolen: float = 0.0
    quiet: bool = True  # the machine was idle before it

    @property
    def stolen_share(self) -> float:
        """Of one processor."""
        return self.stolen / max(self.seconds, 1e-9)


@contextmanager
def timed() -> Iterator[Section]:
    """Hold the lock and take the time."""
    section = Section()
    with LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _tell(f"another benchmark is at work ({LOCK}); waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        section.quiet = _wait_until_idle()
        before, began = _processors(), time.perf_counter()
        yield section
        section.seconds = time.perf_counter() - began
        after = _processors()
    idle, stolen, total = (late - early for late, early in zip(after, before, strict=True))
    section.busy, section.stolen = total - idle - stolen, stolen


def _wait_until_idle() -> bool:
    deadline = time.monotonic() + patience
    while True:
        before = _processors()
        time.sleep(IDLE_LOOK_SECONDS)
        idle, _, total = (late - early for late, early in zip(_processors(), before, strict=True))
        if idle >= IDLE_SHARE * total:
            return True
        if time.monotonic() > deadline:
            return False


def _processors() -> tuple[float, float, float]:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    times = [int(text) / _TICKS for text in fields]
    return times[3] + times[4], times[7], sum(times)


def pace() -> float:
    """Milliseconds that SHA-256 of 16 MiB takes on one processor, the least of three: a host that shares its processors may be
    half as quick an hour later, and steal does not tell."""
    block, taken = bytes(16 << 20), list[float]()
    for _ in range(3):
        began = time.perf_counter()
        hashlib.sha256(block).digest()
        taken.append(time.perf_counter() - began)
    return min(taken) * 1e3


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many per cent do not exceed (nearest rank). Raises IndexError when there is none."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass
class Row:
    """One figure: what every run gave."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    aim: str = ""

    @property
    def median(self) -> float:
        """Of all runs."""
        return statistics.median(self.values)


class Report:
    """The figures of one measurement."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self.rows: dict[str, Row] = {}
        self.notes: list[str] = []
        self.series: dict[str, list[float]] = {}
        self.sections: dict[str, list[Section]] = {}

    def add(self, name: str, unit: str, value: float, *, aim: str = "") -> None:
        """Another run's value of a figure."""
        self.rows.setdefault(name, Row(name, unit, aim=aim)).values.append(value)

    def spent(self, name: str, section: Section) -> None:
        """Keep what a timed section cost."""
        self.sections.setdefault(name, []).append(section)
        _tell(f"{name}: {section.seconds:.3g} s")

    def latencies(
        self, name: str, seconds: Sequence[float], *, unit: str = "ms", aims: Mapping[int, str] | None = None
    ) -> None:
        """p50, p95, p99 and p99.9 of one run; of each only if there are enough values for one to lie beyond it."""
        scale = {"ms": 1e3, "us": 1e6}[unit]
        for percent in PERCENTS:
            if len(seconds) * (100 - percent) < 99.9 and percent > PERCENTS[0]:
                continue
            aim = (aims or {}).get(int(percent), "") if percent == int(percent) else ""
            self.add(f"{name}, p{percent}", unit, percentile(seconds, percent) * scale, aim=aim)

    def ratio(self, name: str, above: str, below: str, *, aim: str = "") -> None:
        """A figure of two others, run by run, so that what disturbed both does not count. Nothing if one is missing."""
        if above in self.rows and below in self.rows:
            pairs = zip(self.rows[above].values, self.rows[below].values, strict=True)
            self.rows[name] = Row(name, "x", [a / b for a, b in pairs if b], aim)

    def sample(self, **values: float) -> None:
        """One more point of each of these series, which belong together."""
        for name, value in values.items():
            self.series.setdefault(name, []).append(value)
        _tell(", ".join(f"{name} {_short(value)}" for name, value in values.items()))

    def note(self, text: str) -> None:
        """A sentence below the table, once."""
        if text not in self.notes:
            self.notes.append(text)

    def table(self) -> str:
        """For people."""
        width = max((len(name) for name in self.rows), default=10)
        lines = [f"{'measure':{width}}  {'median':>10}  {'least':>10}  {'most':>10}  runs  unit   must or aim"]
        for row in self.rows.values():
            values = f"{_short(row.median):>10}  {_short(min(row.values)):>10}  {_short(max(row.values)):>10}"
            lines.append(f"{row.name:{width}}  {values}  {len(row.values):>4}  {row.unit:5}  {row.aim}".rstrip())
        return "\n".join([*lines, *(f"note: {note}" for note in [*self.circumstances(), *self.notes])])

    def circumstances(self) -> list[str]:
        """What makes the figures worse than they need be."""
        sections = [section for each in self.sections.values() for section in each]
        busy = sum(not section.quiet for section in sections)
        found = (
            [f"the machine was busy with other things before {busy} of {len(sections)} timed sections"] if busy else []
        )
        for name, each in self.sections.items():
            worst = max(section.stolen_share for section in each)
            if worst > STOLEN_SHARE:
                found.append(f"while {name!r} ran, the host took away up to {worst:.2f} of a processor")
        return found

    def data(self) -> dict[str, Any]:
        """For programs: every value of every run, with six digits."""
        rows = [
            {"name": row.name, "unit": row.unit, "values": [_rounded(value) for value in row.values], "aim": row.aim}
            for row in self.rows.values()
        ]
        series = {name: [_rounded(value) for value in values] for name, values in self.series.items()}
        sections = [section for each in self.sections.values() for section in each]
        return {
            "rows": rows,
            "series": series,
            "sections": {
                "all": len(sections),
                "busy": sum(not section.quiet for section in sections),
                "withheld": sum(section.stolen_share > STOLEN_SHARE for section in sections),
            },
            "notes": [*self.circumstances(), *self.notes],
        }


def each_of(report: Report, name: str, given: Sequence[T], work: Callable[[T], R], *, unit: str = "ms") -> list[R]:
    """What the work gives for each, one after the other; how long each took goes into the report."""
    found, taken, clock = list[R](), list[float](), time.perf_counter
    with timed() as section:
        for each in given:
            began = clock()
            result = work(each)
            taken.append(clock() - began)
            found.append(result)
    report.spent(name, section)
    report.latencies(name, taken, unit=unit)
    return found


def _tell(text: str) -> None:
    """How far it is: the table comes at the end."""
    print(f"  {text}", file=sys.stderr, flush=True)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
