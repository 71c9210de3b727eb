"""The disk by itself: appending to blocks that were zeroed before, as segments are, and what a sync takes after so many bytes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from bench.measure import Report, percentile, timed

ENTRY_BYTES: Final = 480  # about what a transfer's entry has
FILE_BYTES: Final = 64 << 20  # a segment
SIZES: Final = {4096: 2_000, 1 << 20: 200, 4 << 20: 48}  # bytes of a write: how many


def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Writes without and with a sync after each, ``report.repeats`` times."""
    path = directory / "segment"
    for _ in range(report.repeats):
        for size, count in SIZES.items():
            _measure(report, path, size, max(8, count // 10) if quick else count)


def _measure(report: Report, path: Path, size: int, count: int) -> None:
    path.write_bytes(bytes(FILE_BYTES))
    descriptor = os.open(path, os.O_WRONLY)
    os.fsync(descriptor)
    block, taken, synced = os.urandom(size), list[float](), list[float]()
    with timed() as section:
        for number in range(count):
            began = time.perf_counter()
            os.pwrite(descriptor, block, size * number % FILE_BYTES)
            written = time.perf_counter()
            os.fdatasync(descriptor)
            synced.append(time.perf_counter() - written)
            taken.append(written - began)
    os.close(descriptor)
    path.unlink()
    name = f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"
    report.spent(f"disk, {name}", section)
    entries = max(1, size // ENTRY_BYTES)
    report.add(f"append, an entry, {name} at once", "ns", percentile(taken, 50) / entries * 1e9)
    report.add(f"append and fdatasync, {name}, throughput", "MB/s", size * count / (sum(taken) + sum(synced)) / 1e6)
    report.latencies(f"fdatasync after {name}", synced)
