"""How fast ``exports/`` is written: the first look at a long ledger, a look after one more commit or a restart, and reading it again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted, copy
from bench.measure import Report, timed

ACCOUNTS: Final = 10_000
LOOKS: Final = 20


def run(report: Report, directory: Path, *, seed: int, transactions: int) -> None:
    """Each format of a ledger of its own size, written anew after each start."""
    with Mounted(directory / "ledger", ACCOUNTS) as ledger:
        payments = workload.Payments(seed, ACCOUNTS)
        pieces = (payments.lines(workload.FILE_INTENTS) for _ in range(transactions // workload.FILE_INTENTS))
        copy(pieces, ledger.mount / "inbox" / "payments.ndjson")
        for _ in range(report.repeats):
            for form in ("journal", "beancount"):
                _one(report, ledger, form, transactions)
            ledger.stop()
            ledger.start()
            for form in ("journal", "beancount"):
                _after_a_restart(report, ledger, form)
            ledger.stop()
            shutil.rmtree(ledger.store / "exports")  # what was written would only be gone on with
            ledger.start()


def _one(report: Report, ledger: Mounted, form: str, transactions: int) -> None:
    path = ledger.mount / "exports" / f"ledger.{form}"
    with timed() as section:
        size = path.stat().st_size
    report.spent(f"export {form}", section)
    report.add(f"ledger.{form}, first look", "tx/s", transactions / section.seconds)
    with timed() as section:
        read = sum(len(piece) for piece in _pieces(path))
    if read != size:
        raise RuntimeError(f"{path}: {read} bytes instead of {size}")
    report.add(f"ledger.{form}, read", "MB/s", read / section.seconds / 1e6)
    waited = []
    for number in range(LOOKS):
        intent = f'{{"debit":"{workload.account(0)}","credit":"{workload.account(1)}","amount":"0.01"}}'
        (ledger.mount / "inbox" / f"{form}-{time.time_ns()}-{number}.json").write_text(intent)
        began = time.perf_counter()
        path.stat()
        waited.append((time.perf_counter() - began) * 1e3)
    report.add(f"ledger.{form}, look after a commit, median", "ms", sorted(waited)[LOOKS // 2])


def _after_a_restart(report: Report, ledger: Mounted, form: str) -> None:
    """What was written is compared with its checksum, and gone on with."""
    with timed() as section:
        size = (ledger.mount / "exports" / f"ledger.{form}").stat().st_size
    report.spent(f"export {form}, after a restart", section)
    report.add(f"ledger.{form}, look after a restart", "ms", section.seconds * 1e3)
    report.add(f"ledger.{form}, checked after a restart", "MB/s", size / section.seconds / 1e6)


def _pieces(path: Path) -> list[bytes]:
    with path.open("rb", buffering=0) as file:
        return list(iter(lambda: file.read(1 << 20), b""))
