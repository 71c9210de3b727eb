"""Is a commit as cheap in a ledger of fifty million transactions as in one of a million? One store, filled without a pause.

What is drawn once comes again under new ids (``workload.Stamped``), so that making intents does not slow the run down.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted, disk_bytes, need_room
from bench.macro import restart
from bench.macro.direct import STAGES, thread_ns
from bench.measure import Report, timed

WRITERS: Final = 2
PIECE: Final = 128 * 1024
SAMPLES: Final = 50
ENDS: Final = 10  # the first and the last of so many parts are compared

_fork = multiprocessing.get_context("fork")


def run(report: Report, directory: Path, *, seed: int, transactions: int, accounts: int) -> None:
    """Fill it, ``report.repeats`` times; the series are those of the last. Raises LedgerError when the disk has no room for it."""
    for turn in range(report.repeats):
        report.series.clear()
        need_room(directory, transactions)
        with _memory_in_use(directory):
            _run(report, directory, seed + turn, transactions, accounts)


def _run(report: Report, directory: Path, seed: int, transactions: int, accounts: int) -> None:
    stamped = workload.Stamped(seed, accounts, random_ids=True)
    with Mounted(directory / "ledger", accounts) as ledger:
        files, crew = transactions // workload.FILE_INTENTS, []
        for number in range(WRITERS):
            here, there = _fork.Pipe()
            arguments = (stamped, ledger.mount / "inbox", number, files, there)
            worker = _fork.Process(target=_write, args=arguments, daemon=True)
            worker.start()
            there.close()  # so that its end is noticed
            crew.append((worker, here))
        before, empty = ledger.transactions(), ledger.memory()[0]
        with timed() as section:
            for _, here in crew:
                here.send(None)
            _watch(report, ledger, [here for _, here in crew], max(1, files // SAMPLES))
        for worker, _ in crew:
            worker.join()
        made = ledger.transactions() - before
        if made != files * workload.FILE_INTENTS:
            raise RuntimeError(f"flat: {made} transactions, not {transactions}")
        report.spent("flat", section)
        _figures(report, made, section.seconds, empty)
        report.note(f"flat: {made:,} transactions with random ids over {accounts:,} accounts")
        ledger.stop()
        restart.start(report, "flat, start with all of them, clean", ledger)


@contextmanager
def _memory_in_use(directory: Path) -> Iterator[None]:
    """All free memory is the kernel's cache, of a file of zeros, as on a machine that has run for a while.

    The host of a guest supplies a page when it is first touched, and may take free ones back. Where it does, the first
    gigabytes of a run cost less than all that follow, and the run would measure that.
    """
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemFree:"))
    piece = bytearray(1 << 20)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as zeros:
        os.truncate(zeros.fileno(), int(line.split()[1]) * 1024)
        while os.readv(zeros.fileno(), [piece]):
            pass
        yield


def _watch(report: Report, ledger: Mounted, pipes: list[Connection], each: int) -> None:
    """A sample whenever ``each`` more files were acknowledged."""
    began = last = time.perf_counter()
    before = thread_ns(ledger.pid)
    done = 0
    while pipes:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)
            if pipe.recv() is None:
                pipes.remove(pipe)
                continue
            done += 1
            if done % each:
                continue
            now, (own, mapped), threads = time.perf_counter(), ledger.memory(), thread_ns(ledger.pid)
            spent = {name: threads[thread] - before[thread] for name, thread in STAGES.items()}
            spent["daemon"] = threads.total() - before.total()
            report.sample(
                millions=done * workload.FILE_INTENTS / 1e6,
                seconds=now - began,
                rate=each * workload.FILE_INTENTS / (now - last),
                own_mib=own,
                mapped_mib=mapped,
                disk_mib=disk_bytes(ledger.store) / 2**20,
                **{f"{name}_ns": ns / (each * workload.FILE_INTENTS) for name, ns in spent.items()},
            )
            last, before = now, threads


def _figures(report: Report, made: int, seconds: float, empty: float) -> None:
    rates, own, disk, millions = (report.series[name] for name in ("rate", "own_mib", "disk_mib", "millions"))
    part = max(1, len(rates) // ENDS)
    size = f"{made / ENDS / 1e6:g} million"
    first, last = statistics.median(rates[:part]), statistics.median(rates[-part:])
    report.add("flat, rate of all", "tx/s", made / seconds)
    report.add(f"flat, rate of the first {size}", "tx/s", first)
    report.add(f"flat, rate of the last {size}", "tx/s", last)
    report.add("flat, rate, last tenth / first tenth", "x", last / first, aim="aim 0.9")
    report.add(f"flat, rate, last tenth / first {1 / SAMPLES:.0%}", "x", last / rates[0], aim="aim 0.9")
    report.add(f"flat, slowest of {len(rates)} parts / first tenth", "x", min(rates) / first)
    for name in (*STAGES, "daemon"):
        series = report.series[f"{name}_ns"]
        report.add(f"flat, processor time of the first {size}, {name}", "ns/tx", statistics.mean(series[:part]))
        report.add(f"flat, processor time of the last {size}, {name}", "ns/tx", statistics.mean(series[-part:]))
    report.add("flat, own memory at the end", "MiB", own[-1])
    report.add("flat, own memory before", "MiB", empty)
    if len(own) > part:
        grown = millions[-1] - millions[part - 1]
        report.add("flat, own memory a million transactions", "MiB", (own[-1] - own[part - 1]) / grown)
        report.add("flat, disk a transaction", "B", (disk[-1] - disk[part - 1]) * 2**20 / grown / 1e6)


def _write(stamped: workload.Stamped, inbox: Path, number: int, files: int, control: Connection) -> None:
    control.recv()
    while number < files:
        descriptor = os.open(inbox / f"{number:08}.ndjson", os.O_WRONLY | os.O_CREAT, 0o644)
        view = memoryview(stamped.file(number))
        while view:
            view = view[os.write(descriptor, view[:PIECE]) :]
        os.close(descriptor)
        control.send(number)
        number += WRITERS
    control.send(None)
