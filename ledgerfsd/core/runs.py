"""Single runs of the C core (``csrc/runs/run_write.c``, ``run_file.c``), typed: for tests, which hold them against ``pure/runs.py``,
and for the benchmark of merging.

The engine has runs of its own; nobody else needs these.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledgerfsd.core import _core
from ledgerfsd.core.pure.runs import KINDS, Past, Record
from ledgerfsd.errors import DamageError

ffi: Any = _core.ffi
lib: Any = _core.lib


def name(kind: int, first: int, end: int) -> str:
    """The name of the file of a run."""
    return f"{KINDS[kind]}-{first:010}-{end:010}.run"


def make(directory: Path, kind: int, first: int, end: int, records: Sequence[Record]) -> Path:
    """Write a run; the records come in the order of the log. Raises OSError."""
    room = room_for(len(records))
    for at, record in enumerate(records):
        room[at] = tuple(record)
    return make_of(directory, kind, first, end, room)


def room_for(records: int) -> Any:
    """An array of so many ``lfs_record``, to be filled."""
    return ffi.new("lfs_record[]", records)


def make_of(directory: Path, kind: int, first: int, end: int, records: Any) -> Path:
    """Write a run of such an array, which is sorted in place. Raises OSError."""
    _check(lib.lfs_run_make(os.fsencode(directory), kind, first, end, records, len(records)))
    return directory / name(kind, first, end)


def join(directory: Path, kind: int, names: Sequence[str]) -> None:
    """Merge runs that follow each other; they are removed. Raises OSError, DamageError."""
    places = [ffi.new("char[]", each.encode()) for each in names]
    _check(lib.lfs_run_join(os.fsencode(directory), kind, places, len(places)))


def window(records: Sequence[int]) -> tuple[int, int]:
    """Which neighbours of runs with so many records, oldest first, are to become one: the first of them, and how many (0: none)."""
    first, count = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    lib.lfs_run_window(ffi.new("uint64_t[]", list(records)), len(records), first, count)
    return first[0], count[0]


def past(path: Path, key: int, bound: int) -> Past:
    """What the records of a key with an entry below ``bound`` come to. Raises DamageError."""
    raw = ffi.new("lfs_past *")
    _check(lib.lfs_run_past(os.fsencode(path.parent), os.fsencode(path.name), key, bound, raw))
    newest = (raw.newest[0], raw.newest[1], raw.newest[2])
    return Past(raw.count, raw.log, raw.last, newest)


def _check(failed: int) -> None:
    if failed < 0:
        raise DamageError("a run is not what was written")
    if failed:
        raise OSError(failed, os.strerror(failed))
