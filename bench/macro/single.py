"""One intent a file: create, write, close, by one writer and by many; beside it what the disk itself takes.

The verdict comes with ``write`` (docs/SEMANTICS.md, 3.1) and again with ``close``; the time that counts for a program is
from creating the file to the return of ``close``, so that is what is reported, and ``close`` alone besides.

The disk is measured twice. Once before, while nothing else is done. And, for the ratios, by the lone writer itself in
the same seconds as its files: 400 files one right after the other, then 400 writes of 4 KiB with fdatasync, and so on,
as many of these as of those. The disk, and who else uses the machine, change from second to second; 2,000 writes are
over in a tenth of one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from bench import workload
from bench.crew import crew
from bench.daemon import Mounted
from bench.measure import Report, percentile, timed

ACCOUNTS: Final = 10_000
WRITERS: Final = (1, 8, 32)
BLOCK: Final = 4096
DISK_WRITES: Final = 2_000
TOGETHER: Final = 400  # files of a lone writer, then as many writes to the disk
DISK: Final = "disk, 4 KiB write + fdatasync"
BETWEEN: Final = f"{DISK}, between the files"
THREADS: Final = {"lfs-front": "T7", "lfs-apply": "T1", "lfs-write": "T2"}  # all others are Python's, but for crumbs


def run(report: Report, directory: Path, *, seed: int, files: int, crews: Sequence[int] = WRITERS) -> None:
    """``files`` files for each number of writers, ``report.repeats`` times, and the disk in between."""
    for turn in range(report.repeats):
        with Mounted(directory / "ledger", ACCOUNTS) as ledger:
            disk(report, directory)
            for writers in crews:
                _through_the_mount(report, ledger, seed + turn, writers, files)
    for percent, aim in ((50, "aim 2"), (95, "aim 4")):
        report.ratio(
            f"file per intent, 1 writer, p{percent} / disk p{percent}",
            f"file per intent, 1 writer, create to close, p{percent}",
            f"{BETWEEN}, p{percent}",
            aim=aim,
        )
        report.ratio(
            f"file per intent, 1 writer, p{percent} / disk before, p{percent}",
            f"file per intent, 1 writer, create to close, p{percent}",
            f"{DISK}, p{percent}",
        )


def disk(report: Report, directory: Path) -> None:
    """4 KiB over blocks that were written before, and fdatasync: the least that one durable commit can take here."""
    path = directory / "disk"
    with _disk(path) as write, timed() as section:
        taken = [write() for _ in range(DISK_WRITES)]
    path.unlink()
    report.spent("disk", section)
    report.latencies(DISK, taken)


@contextmanager
def _disk(path: Path) -> Iterator[Callable[[], float]]:
    """Each call is one such write to the next block of ``path``, and gives its seconds."""
    path.write_bytes(bytes(BLOCK * DISK_WRITES))
    descriptor, block, clock = os.open(path, os.O_WRONLY), os.urandom(BLOCK), time.perf_counter
    os.fsync(descriptor)
    number = 0

    def write() -> float:
        nonlocal number
        number = (number + 1) % DISK_WRITES
        began = clock()
        os.pwrite(descriptor, block, BLOCK * number)
        os.fdatasync(descriptor)
        return clock() - began

    try:
        yield write
    finally:
        os.close(descriptor)


def named(writers: int) -> str:
    """What the figures of so many writers begin with."""
    return f"file per intent, {writers} writer{'s' if writers > 1 else ''}"


def _through_the_mount(report: Report, ledger: Mounted, seed: int, writers: int, files: int) -> None:
    name = named(writers)
    share, before = files // writers, ledger.transactions()
    each = []
    for number in range(writers):
        payments = workload.Payments(seed * 1000 + number, ACCOUNTS, prefix=f"w{writers}-{number}")
        beside = ledger.store.parent / "disk" if writers == 1 else None
        each.append(([payments.one() for _ in range(share)], ledger.mount / "inbox", f"{writers}-{number}", beside))
    with crew(_write, each) as go, timed() as section:
        spent = ledger.thread_seconds()
        results = go()
        processor(report, f"{name}, processor a file", spent, ledger.thread_seconds(), share * writers)
    if ledger.transactions() != before + share * writers:
        raise RuntimeError(f"{name}: not every file is a transaction")
    whole = [taken for times, _, _ in results for taken in times]
    closing = [taken for _, times, _ in results for taken in times]
    between = [taken for _, _, times in results for taken in times]
    report.spent(name, section)
    seconds = section.seconds - sum(between)
    report.add(f"{name}, rate", "/s", len(whole) / seconds, aim="aim 10,000" if writers > 1 else "")
    if between:
        report.latencies(BETWEEN, between)
    aims = {99: "aim < 10"} if writers > 1 else {95: "must < 100"}
    report.latencies(f"{name}, create to close", whole, aims=aims)
    report.add(f"{name}, close() alone, p99", "ms", percentile(closing, 99) * 1e3)


def processor(report: Report, name: str, before: dict[str, float], after: dict[str, float], files: int) -> None:
    """Processor time of the daemon a file, or whatever is counted: it depends less than a rate on who else uses the machine."""
    spent = dict.fromkeys((*THREADS.values(), "Python"), 0.0)
    for thread, seconds in after.items():
        spent[THREADS.get(thread, "Python")] += seconds - before.get(thread, 0.0)
    for thread, seconds in spent.items():
        report.add(f"{name}: {thread}", "us", seconds / files * 1e6)


def _write(
    bodies: list[bytes], inbox: Path, prefix: str, beside: Path | None, barrier: Barrier, result: Connection
) -> None:
    names = [os.fsencode(inbox / f"{prefix}-{number}.json") for number in range(len(bodies))]
    whole, closing, writes, clock = list[float](), list[float](), list[float](), time.perf_counter
    with _disk(beside) if beside else nullcontext() as disk:
        barrier.wait()
        for number, (name, body) in enumerate(zip(names, bodies, strict=True), 1):
            began = clock()
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(descriptor, body)
            written = clock()
            os.close(descriptor)
            ended = clock()
            whole.append(ended - began)
            closing.append(ended - written)
            if disk and not number % TOGETHER:
                writes += [disk() for _ in range(TOGETHER)]
    result.send((whole, closing, writes))
