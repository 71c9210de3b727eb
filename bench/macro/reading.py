"""Reading: open, read and close of files that nobody has in memory, and of files that the kernel has: what a program waits for.

Beside it the same bytes as plain files on tmpfs, where an open asks nobody: the limit.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted, copy, drop_caches
from bench.measure import Report, timed

ACCOUNTS: Final = 10_000
CACHED_FILES: Final = 100
LOOPS: Final = 20  # times that each of them is read
MEMORY: Final = Path("/dev/shm")
CACHED: Final = "balance.json, open + read + close, cached"
TMPFS: Final = "the same bytes on tmpfs, open + read + close"


def run(report: Report, directory: Path, *, seed: int, transactions: int, files: int) -> None:
    """One ledger; cold and cached in turn, ``report.repeats`` times."""
    chance = random.Random(seed)
    with Mounted(directory / "ledger", ACCOUNTS) as ledger:
        payments = workload.Payments(seed, ACCOUNTS)
        pieces = (payments.lines(workload.FILE_INTENTS) for _ in range(transactions // workload.FILE_INTENTS))
        copy(pieces, ledger.mount / "inbox" / "payments.ndjson")
        for _ in range(report.repeats):
            _loops(report, ledger.mount, chance, files)


def balances(mount: Path, count: int, chance: random.Random) -> list[Path]:
    """``balance.json`` of so many accounts by chance."""
    return [
        mount / "accounts" / workload.account(number) / "balance.json"
        for number in chance.sample(range(ACCOUNTS), count)
    ]


def _loops(report: Report, mount: Path, chance: random.Random, files: int) -> None:
    if drop_caches():
        taken = open_read_close(report, "balance.json cold", balances(mount, files, chance))
        report.latencies(
            "balance.json, open + read + close, cold", taken, unit="us", aims={99: "must < 10,000, aim < 300"}
        )
    else:
        report.note("balance.json cold: left out, because only root may drop the kernel's caches")
    same = balances(mount, CACHED_FILES, chance)
    open_read_close(report, "warming", same)
    taken = open_read_close(report, "balance.json cached", same * LOOPS)
    report.latencies(CACHED, taken, unit="us", aims={99: "must < 2,000, aim < 100"})
    with tempfile.TemporaryDirectory(prefix="ledgerfs-bench-", dir=MEMORY) as memory:
        copies = [Path(memory) / str(number) for number in range(len(same))]
        for path, plain in zip(same, copies, strict=True):
            plain.write_bytes(path.read_bytes())
        taken = open_read_close(report, "balance.json on tmpfs", copies * LOOPS)
    report.latencies(TMPFS, taken, unit="us")
    report.ratio(f"{CACHED} / tmpfs, p50", f"{CACHED}, p50", f"{TMPFS}, p50")


def open_read_close(report: Report, name: str, paths: list[Path]) -> list[float]:
    """Seconds that open, read and close of each took, in one timed section. Raises RuntimeError when one has no content."""
    names, taken, clock = [os.fsencode(path) for path in paths], [], time.perf_counter
    with timed() as section:
        for path in names:
            began = clock()
            descriptor = os.open(path, os.O_RDONLY)
            data = os.read(descriptor, 65_536)
            os.close(descriptor)
            taken.append(clock() - began)
            if not data.startswith(b"{"):
                raise RuntimeError(f"{path!r} has no content")
    report.spent(name, section)
    return taken
