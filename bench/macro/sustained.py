"""Ten minutes at a steady rate: does it stay as quick, and what grows? Samples every few seconds of rate, latency, memory and disk.

Files of a thousand intents come by a timetable; a file's latency counts from when it was due, so that a daemon that falls behind
cannot hide it. Meanwhile balances are read.

Does the last tenth wait longer than the first? That is told in three ways, and none is left out. The median of the samples' p99, each
of which is the slowest of a hundred files: it does not see a burst, but of like minutes on a quiet machine one had 1.2 times that of
another. The p99 of all files of a tenth (1,200 in a minute): 1.13 times, but one second in which others use the machine decides it. And
p50, which shows what every file waits for. What the host withheld (steal) stands beside them, by samples and by tenths: where that is
more than a few milliseconds a second, the first two say more of the neighbours than of us.

A host can be slow without any steal. So each sample also has what the daemon's threads took of the processor for a transaction,
and what a loop of Python in the measuring process took, which has nothing to do with a ledger: where both rise it was the machine.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted, disk_bytes, need_room
from bench.macro.direct import STAGES, thread_ns
from bench.measure import Report, percentile, timed

ACCOUNTS: Final = 10_000
LINES: Final = 1_000  # of a file
WRITERS: Final = 2
PROBE_SECONDS: Final = 0.02
LOOP: Final = 200_000  # additions of the loop that has nothing to do with a ledger, some ten milliseconds
FASTEST: Final = 500_000  # transactions a second that room is asked for when no rate is given

_fork = multiprocessing.get_context("fork")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class _Seen:
    """What came since the last sample."""

    closes: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)


def run(report: Report, directory: Path, *, seed: int, seconds: float, rate: float, every: float) -> None:
    """One run of so many seconds; rate 0: as fast as it goes. Raises LedgerError when the disk has no room for it."""
    need_room(directory, seconds * (rate or FASTEST))
    stamped = workload.Stamped(seed, ACCOUNTS, lines=LINES)
    with Mounted(directory / "ledger", ACCOUNTS) as ledger:
        crew = []
        for number in range(WRITERS):
            here, there = _fork.Pipe()
            arguments = (stamped, ledger.mount / "inbox", number, rate, seconds, there)
            worker = _fork.Process(target=_write, args=arguments)
            worker.start()
            crew.append((worker, here))
        before, empty = ledger.transactions(), ledger.memory()[0]
        with timed() as section:
            for _, here in crew:
                here.send(time.monotonic())
            closes, reads = _watch(report, ledger, [here for _, here in crew], before, every)
        for worker, _ in crew:
            worker.join()
        made = ledger.transactions() - before
        if made != len(closes) * LINES:
            raise RuntimeError(f"sustained: {made} transactions of {len(closes)} files of {LINES:,}")
        report.spent("sustained", section)
        report.add("sustained, seconds", "s", section.seconds)
        if rate:
            report.add("sustained, rate asked for", "tx/s", rate)
        report.add("sustained, rate", "tx/s", made / section.seconds)
        report.latencies(f"sustained, file of {LINES:,} intents, due to close", closes)
        report.latencies("sustained, balance.json read beside", reads)
        _growth(report, made, empty)
        _slower(report, closes)
        _dearer(report)


def _watch(
    report: Report, ledger: Mounted, pipes: list[Connection], before: int, every: float
) -> tuple[list[float], list[float]]:
    """Sample until both writers are done; what files and reads took."""
    began = last = time.monotonic()
    closes, reads, seen, count, turn = list[float](), list[float](), _Seen(), before, 0
    stolen, spent = _stolen(), thread_ns(ledger.pid)
    while pipes:
        for pipe in list(pipes):
            while pipe.poll():
                taken = pipe.recv()
                if taken is None:
                    pipes.remove(pipe)
                    break
                seen.closes.append(taken)
        place = ledger.mount / "accounts" / workload.account(turn % ACCOUNTS) / "balance.json"
        turn += 7
        at = time.perf_counter()
        place.read_bytes()
        seen.reads.append(time.perf_counter() - at)
        time.sleep(PROBE_SECONDS)
        now = time.monotonic()
        if now - last < every and pipes:
            continue
        known, (own, mapped), threads = ledger.transactions(), ledger.memory(), thread_ns(ledger.pid)
        each = {name: threads[thread] - spent[thread] for name, thread in STAGES.items()}
        each["daemon"] = threads.total() - spent.total()
        if now - last >= every / 2:  # what is left over at the end is no sample
            report.sample(
                seconds=now - began,
                transactions=known - before,
                rate=(known - count) / (now - last),
                own_mib=own,
                mapped_mib=mapped,
                disk_mib=disk_bytes(ledger.store) / 2**20,
                close_p99_ms=percentile(seen.closes, 99) * 1e3 if seen.closes else 0.0,
                read_p99_ms=percentile(seen.reads, 99) * 1e3,
                stolen_ms=(_stolen() - stolen) / (now - last) * 1e3,
                loop_ms=_loop() * 1e3,
                **{f"{name}_ns": ns / max(1, known - count) for name, ns in each.items()},
            )
        closes, reads = closes + seen.closes, reads + seen.reads
        last, count, seen, stolen, spent = now, known, _Seen(), _stolen(), threads
    return closes, reads


def _growth(report: Report, made: int, empty: float) -> None:
    """First against last tenth; what a million transactions leave behind."""
    rates, own, disk, known = (report.series[name] for name in ("rate", "own_mib", "disk_mib", "transactions"))
    tenth = max(1, len(rates) // 10)
    report.add(
        "sustained, rate of the last tenth / first tenth", "x", sum(rates[-tenth:]) / sum(rates[:tenth]), aim="aim 0.9"
    )
    report.add("sustained, own memory at the end", "MiB", own[-1])
    report.add("sustained, own memory before", "MiB", empty)
    if known[-1] > known[tenth - 1]:
        millions = (known[-1] - known[tenth - 1]) / 1e6
        report.add("sustained, own memory a million transactions", "MiB", (own[-1] - own[tenth - 1]) / millions)
        report.add("sustained, disk a transaction", "B", (disk[-1] - disk[tenth - 1]) * 2**20 / millions / 1e6)
    report.note(f"sustained: {made:,} transactions over {ACCOUNTS:,} accounts")


def _slower(report: Report, closes: list[float]) -> None:
    """Files of the last tenth against those of the first; ``closes`` are nearly in the order in which they were due."""
    slow, stolen = report.series["close_p99_ms"], report.series["stolen_ms"]
    tenth = max(1, len(slow) // 10)
    first, last = statistics.median(slow[:tenth]), statistics.median(slow[-tenth:])
    report.add("sustained, p99 due to close, last tenth / first tenth", "x", last / first)
    files = max(1, len(closes) // 10)
    for percent in (99, 50):
        first, last = percentile(closes[:files], percent), percentile(closes[-files:], percent)
        report.add(f"sustained, p{percent} of all files due to close, last tenth / first tenth", "x", last / first)
    for name, part in (("first", stolen[:tenth]), ("last", stolen[-tenth:])):
        report.add(f"sustained, processor time that the host withheld, {name} tenth", "ms/s", statistics.mean(part))


def _dearer(report: Report) -> None:
    """What a transaction took of the processor, and what the loop took, in the first and the last tenth."""
    tenth = max(1, len(report.series["loop_ms"]) // 10)
    for name, part in (("first", slice(tenth)), ("last", slice(-tenth, None))):
        for stage in (*STAGES, "daemon"):
            taken = statistics.mean(report.series[f"{stage}_ns"][part])
            report.add(f"sustained, processor time of the {name} tenth, {stage}", "ns/tx", taken)
        loop = statistics.median(report.series["loop_ms"][part])
        report.add(f"sustained, a loop of Python beside it, {name} tenth", "ms", loop)


def _loop() -> float:
    """Seconds that it takes of the processor: a measure of how quick the machine is just then."""
    began, total = time.thread_time(), 0
    for number in range(LOOP):
        total += number
    return time.thread_time() - began


def _stolen() -> float:
    """Seconds of all processors together that the host has given to others."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / _TICKS


def _write(
    stamped: workload.Stamped, inbox: Path, number: int, rate: float, seconds: float, control: Connection
) -> None:
    began = control.recv()
    while True:
        due = began + number * LINES / rate if rate else time.monotonic()
        if due >= began + seconds:
            break
        body = stamped.file(number)
        time.sleep(max(0.0, due - time.monotonic()))
        begin = due if rate else time.monotonic()
        descriptor = os.open(inbox / f"{number:08}.ndjson", os.O_WRONLY | os.O_CREAT, 0o644)
        view = memoryview(body)
        while view:
            view = view[os.write(descriptor, view) :]
        os.close(descriptor)
        control.send(time.monotonic() - begin)
        number += WRITERS
    control.send(None)
