"""One intent a file: create, write, close, by one writer and by many; beside it what the disk itself takes.

The verdict comes with ``write`` (docs/SEMANTICS.md, 3.1) and again with ``close``; the time that counts for a program is
from creating the file to the return of ``close``, so that is what is reported, and ``close`` alone besides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
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
            f"disk, 4 KiB write + fdatasync, p{percent}",
            aim=aim,
        )


def disk(report: Report, directory: Path) -> None:
    """4 KiB over blocks that were written before, and fdatasync: the least that one durable commit can take here."""
    path = directory / "disk"
    path.write_bytes(bytes(BLOCK * DISK_WRITES))
    descriptor = os.open(path, os.O_WRONLY)
    os.fsync(descriptor)
    block, taken = os.urandom(BLOCK), []
    with timed() as section:
        for number in range(DISK_WRITES):
            began = time.perf_counter()
            os.pwrite(descriptor, block, BLOCK * number)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - began)
    os.close(descriptor)
    path.unlink()
    report.spent("disk", section)
    report.latencies("disk, 4 KiB write + fdatasync", taken)


def named(writers: int) -> str:
    """What the figures of so many writers begin with."""
    return f"file per intent, {writers} writer{'s' if writers > 1 else ''}"


def _through_the_mount(report: Report, ledger: Mounted, seed: int, writers: int, files: int) -> None:
    name = named(writers)
    share, before = files // writers, ledger.transactions()
    each = []
    for number in range(writers):
        payments = workload.Payments(seed * 1000 + number, ACCOUNTS, prefix=f"w{writers}-{number}")
        each.append(([payments.one() for _ in range(share)], ledger.mount / "inbox", f"{writers}-{number}"))
    with crew(_write, each) as go, timed() as section:
        spent = ledger.thread_seconds()
        results = go()
        processor(report, f"{name}, processor a file", spent, ledger.thread_seconds(), share * writers)
    if ledger.transactions() != before + share * writers:
        raise RuntimeError(f"{name}: not every file is a transaction")
    whole = [taken for times, _ in results for taken in times]
    closing = [taken for _, times in results for taken in times]
    report.spent(name, section)
    report.add(f"{name}, rate", "/s", len(whole) / section.seconds, aim="aim 10,000" if writers > 1 else "")
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


def _write(bodies: list[bytes], inbox: Path, prefix: str, barrier: Barrier, result: Connection) -> None:
    names = [os.fsencode(inbox / f"{prefix}-{number}.json") for number in range(len(bodies))]
    whole, closing, clock = [], [], time.perf_counter
    barrier.wait()
    for name, body in zip(names, bodies, strict=True):
        began = clock()
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(descriptor, body)
        written = clock()
        os.close(descriptor)
        ended = clock()
        whole.append(ended - began)
        closing.append(ended - written)
    result.send((whole, closing))
