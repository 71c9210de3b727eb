"""Runs of indexes by themselves: what T6 does, from records in the order of the log to files, and from many files to one."""

from __future__ import annotations

import array
import random
import time
from pathlib import Path
from typing import Final

from bench.measure import Report, timed
from ledgerfsd.core import runs
from ledgerfsd.core.pure.runs import KINDS

RUNS: Final = 32  # become one
RECORDS: Final = 524_288  # of each: what half a second of commits leaves
ACCOUNTS: Final = 10_000
KEY_BITS: Final = {"words": 48, "ids": 64}


def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Each kind of run made, and merged, ``report.repeats`` times."""
    records = RECORDS // 16 if quick else RECORDS
    for turn in range(report.repeats):
        for kind, name in enumerate(KINDS):
            with timed() as section:
                made, merged = _measure(directory, kind, name, records, turn)
            report.spent(f"runs of {name}", section)
            report.add(f"run of {name} made, a record", "ns", made)
            report.add(f"{RUNS} runs of {name} merged, a record", "ns", merged)
    report.note(f"runs: of {records:,} records each; processor time, the kernel's included")


def _measure(directory: Path, kind: int, name: str, records: int, seed: int) -> tuple[float, float]:
    chance, names, spent = random.Random(seed), list[str](), 0
    for first in range(0, RUNS * records, records):
        room = runs.room_for(records)
        fields = array.array("Q", chance.randbytes(8 * records))
        for at, key in enumerate(fields):
            room[at].key = key % ACCOUNTS if kind == 0 else key >> 64 - KEY_BITS[name]
            room[at].index = first + at // 2 if kind == 0 else first + at
            room[at].len, room[at].states = (480, 1) if kind == 0 else (0, 0)
        began = time.process_time_ns()
        names.append(runs.make_of(directory, kind, first, first + records, room).name)
        spent += time.process_time_ns() - began
    began = time.process_time_ns()
    runs.join(directory, kind, names)
    merged = time.process_time_ns() - began
    (directory / runs.name(kind, 0, RUNS * records)).unlink()
    return spent / RUNS / records, merged / RUNS / records
