"""NDJSON files copied into the inbox, against the same files handed to the engine in the same run (issue 2, point 7).

A writer is a process that does what cp does: read a file, create its copy, write it in pieces of one size, close. It
counts as done when every ``close()`` has returned 0, which is when everything is durable. What a file takes is from before its
creation to that.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from ctypes import Array, c_double
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted
from bench.measure import REPOSITORY, Report, timed

KIB: Final = 1024
WRITERS: Final = {  # name → (bytes a write, writers)
    "128 KiB writes, 1 writer": (128 * KIB, 1),
    "128 KiB writes, 2 writers": (128 * KIB, 2),
    "128 KiB writes, 4 writers": (128 * KIB, 4),
    "128 KiB writes, 8 writers": (128 * KIB, 8),
    "128 KiB writes, 32 writers": (128 * KIB, 32),
    "1 MiB writes, 1 writer": (1024 * KIB, 1),
    "1 MiB writes, 2 writers": (1024 * KIB, 2),
}
CP: Final = "cp"
ALL: Final = (*WRITERS, CP)
DIRECT: Final = "engine directly"
NAMED: Final = {"uniform": "", "zipf": ", Zipf", "hot": ", one hot account"}
ACCOUNTS: Final = 10_000

_fork = multiprocessing.get_context("fork")


@dataclass
class Load:
    """What is fed in every run, and where."""

    report: Report
    directory: Path
    title: str
    files: list[Path]
    transactions: int
    accounts: int


def run(
    report: Report,
    directory: Path,
    *,
    seed: int,
    transactions: int,
    accounts: int = ACCOUNTS,
    pattern: str = "uniform",
    random_ids: bool = False,
    ways: Sequence[str] = ALL,
    directly: bool = True,
    lines: int = workload.FILE_INTENTS,
) -> None:
    """The ways in turn, ``report.repeats`` times, each on a new store; and the engine alone."""
    payments = workload.Payments(seed, accounts, pattern=pattern, random_ids=random_ids)
    files = workload.write_files(directory / "intents", payments, transactions, lines)
    load = Load(report, directory, titled(accounts, pattern, random_ids), files, transactions, accounts)
    size = sum(path.stat().st_size for path in files) / transactions
    report.note(f"{load.title}: {transactions:,} transfers a run, in {len(files)} files, {size:.0f} bytes each")
    for _ in range(report.repeats):
        for way in ways:
            if way == CP:
                _with_cp(load)
            else:
                _with_writers(load, way, *WRITERS[way])
        if directly:
            _directly(load)
    for way in ways:
        report.ratio(f"{load.title}, {way} / directly", f"{load.title}, {way}", f"{load.title}, {DIRECT}")


def titled(accounts: int, pattern: str = "uniform", random_ids: bool = False) -> str:
    """What the figures of such a load begin with."""
    return f"NDJSON, {accounts:,} accounts" + NAMED[pattern] + (", random ids" if random_ids else "")


def _with_writers(load: Load, way: str, piece: int, writers: int) -> None:
    """Writers share the files between them."""
    with Mounted(load.directory / "ledger", load.accounts) as ledger:
        barrier = _fork.Barrier(writers + 1)
        taken = _fork.RawArray("d", len(load.files))  # seconds a file
        shares = [range(number, len(load.files), writers) for number in range(writers)]
        crew = [
            _fork.Process(
                target=_write, args=(load.files, share, ledger.mount / "inbox", piece, barrier, taken), daemon=True
            )
            for share in shares
        ]
        for writer in crew:
            writer.start()

        def work() -> None:
            barrier.wait()
            for writer in crew:
                writer.join()

        _through_the_mount(load, way, ledger, work)
        if any(writer.exitcode for writer in crew):
            raise RuntimeError(f"{load.title}, {way}: a writer failed")
        load.report.latencies(per_file(f"{load.title}, {way}"), list(taken))


def per_file(name: str) -> str:
    """What the latencies of such a way begin with."""
    return f"{name}: a file, create to close"


def _with_cp(load: Load) -> None:
    """The program that people use: one cp for all files."""
    with Mounted(load.directory / "ledger", load.accounts) as ledger:
        command: list[str | Path] = ["cp", *load.files, ledger.mount / "inbox"]
        _through_the_mount(load, CP, ledger, lambda: subprocess.run(command, check=True))


def _through_the_mount(load: Load, way: str, ledger: Mounted, work: Callable[[], object]) -> None:
    name, before, used = f"{load.title}, {way}", ledger.transactions(), ledger.processor_seconds()
    with timed() as section:
        work()
    made = ledger.transactions() - before
    if made != load.transactions:
        raise RuntimeError(f"{name}: {made} transactions, not {load.transactions}")
    load.report.spent(name, section)
    load.report.add(name, "tx/s", made / section.seconds, aim="must 200,000, aim 500,000")
    cost = (ledger.processor_seconds() - used) / made * 1e6
    load.report.add(f"{name}: daemon, cpu s a million", "s", cost)


def _directly(load: Load) -> None:
    """A process with the engine alone: no mount, no file of its own for each submission."""
    name = f"{load.title}, {DIRECT}"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "bench.macro.direct",
        load.directory / "direct",
        str(load.accounts),
    ]
    with timed() as section:
        done = subprocess.run([*command, *load.files], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    if found["transactions"] != load.transactions:
        raise RuntimeError(f"{name}: {found['transactions']} transactions, not {load.transactions}")
    load.report.spent(name, section)
    load.report.add(name, "tx/s", load.transactions / found["seconds"])
    load.report.add(f"{name}: cpu s a million", "s", found["cpu"] / load.transactions * 1e6)
    load.report.add(f"{name}: state roots, ns a transaction", "ns", found["state"] / load.transactions)
    for thread in ("lfs-apply", "lfs-write", "lfs-zero", "lfs-tree"):
        load.report.add(
            f"{name}: {thread}, cpu ns a transaction", "ns", found["threads"].get(thread, 0) / load.transactions
        )
    load.report.add(f"{name}: state tree beside, ns a transaction", "ns", found["beside"] / load.transactions)


def _write(
    files: Sequence[Path], share: range, inbox: Path, piece: int, barrier: Barrier, taken: Array[c_double]
) -> None:
    barrier.wait()
    for number in share:
        path, began = files[number], time.perf_counter()
        with path.open("rb", buffering=0) as source, (inbox / path.name).open("wb", buffering=0) as copy:
            while data := source.read(piece):
                if copy.write(data) != len(data):
                    raise OSError("a write was cut short")
        taken[number] = time.perf_counter() - began
