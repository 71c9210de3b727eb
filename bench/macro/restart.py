"""How long a start takes with many transactions, after a clean stop and after kill -9; and the memory that they take.

The time is from the start of the process to the first answer of the mount. ``kill -9`` falls while files are being copied,
so the start finds an unfinished batch and a tail that no projection has.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted, copy, drop_caches
from bench.measure import Report, timed

ACCOUNTS: Final = 10_000
MEMORY_ACCOUNTS: Final = 1_000_000
PIECE_FILES: Final = 100  # of FILE_INTENTS, in one inbox file
KILL_AFTER_SECONDS: Final = 1.5  # of copying

_fork = multiprocessing.get_context("fork")


def run(report: Report, directory: Path, *, seed: int, transactions: int) -> None:
    """Build one large ledger, then stop, kill and start it again and again."""
    millions = f"{transactions // 1_000_000} million transactions"
    with Mounted(directory / "ledger", ACCOUNTS) as ledger:
        empty = ledger.memory()
        stamped, payments = workload.Stamped(seed, ACCOUNTS), workload.Payments(seed, ACCOUNTS)
        files = transactions // workload.FILE_INTENTS
        for first in range(0, files, PIECE_FILES):
            pieces = (stamped.file(number) for number in range(first, min(first + PIECE_FILES, files)))
            copy(pieces, ledger.mount / "inbox" / f"{first}.ndjson")
        _memory(report, "memory a million transactions", ledger, empty, transactions / 1e6)
        for _ in range(report.repeats):
            ledger.stop()
            start(report, f"restart with {millions}, clean", ledger, aim="must < 2, aim < 1")
            _memory(report, "memory a million transactions, after a restart", ledger, empty, transactions / 1e6)
            ledger.stop()
            drop_caches()
            start(report, f"restart with {millions}, clean, nothing in the page cache", ledger)
            _kill_under_load(ledger, payments)
            start(report, f"restart with {millions}, after kill -9", ledger, aim="aim < 3")


def accounts(report: Report, directory: Path, *, count: int) -> None:
    """What accounts take in memory, and how fast they are opened."""
    with Mounted(directory / "ledger") as ledger:
        empty = ledger.memory()
        pieces = list(workload.open_accounts(count))
        with timed() as section:
            copy(pieces, ledger.mount / "inbox" / "accounts.ndjson")
        if ledger.status()["accounts"] != count + 1:  # and the equity account of the opening balances
            raise RuntimeError("not every account was opened")
        report.spent("accounts", section)
        report.add("accounts opened with an initial balance", "/s", count / section.seconds)
        _memory(report, "memory a million accounts (and their openings)", ledger, empty, count / 1e6)
        ledger.stop()
        ledger.start()
        _memory(report, "memory a million accounts (and their openings), after a restart", ledger, empty, count / 1e6)


def _memory(report: Report, name: str, ledger: Mounted, empty: tuple[float, float], millions: float) -> None:
    own, mapped = ledger.memory()
    report.add(f"{name}, own", "MiB", (own - empty[0]) / millions)
    report.add(f"{name}, mapped files", "MiB", (mapped - empty[1]) / millions)


def start(report: Report, name: str, ledger: Mounted, *, aim: str = "") -> None:
    """Start a daemon that was stopped or killed: how long until the mount answers, and what of that was replay."""
    with timed() as section:
        seconds = ledger.start()
    found = ledger.status()["recovery"]
    report.spent(name, section)
    report.add(name, "s", seconds, aim=aim)
    report.add(f"{name}, replaying", "s", found["milliseconds"] / 1e3)
    report.add(f"{name}, entries replayed", "", found["replayed"])


def _kill_under_load(ledger: Mounted, payments: workload.Payments) -> None:
    pieces = [payments.lines(workload.FILE_INTENTS) for _ in range(200)]
    writer = _fork.Process(
        target=_copy_until_it_dies, args=(pieces, ledger.mount / "inbox" / f"{time.time_ns()}.ndjson")
    )
    writer.start()
    time.sleep(KILL_AFTER_SECONDS)
    ledger.kill()
    writer.join()


def _copy_until_it_dies(pieces: list[bytes], path: Path) -> None:
    try:
        copy(pieces, path)
    except OSError:
        pass  # the daemon was killed, as it should be
