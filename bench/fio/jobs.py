"""fio: what files of the mount cost, one workload a file (``*.fio``), cold and cached, read and written.

Each runs on files of the mount and then on the same bytes as plain files on the disk's file system and on tmpfs: the limit. Nobody's
memory is what it is after the caches of the kernel were dropped. Segments are not in the mount: they are read in the store, beside the
bundles, which are slices of them. An intent in the inbox is durable when ``write`` returns; on the disk O_DSYNC is asked for that.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import workload
from bench.daemon import Mounted, copy, drop_caches
from bench.macro.reading import ACCOUNTS, balances
from bench.measure import Report, timed
from ledgerfsd.errors import LedgerError

JOBS: Final = Path(__file__).parent
MEMORY: Final = Path("/dev/shm")
CACHED_FILES: Final = 100
INTENT_BYTES: Final = 128  # what inbox_write.fio writes
AIMS: Final = ("balance_cold", "balance_cached")  # what the table of aims needs


class Workload(NamedTuple):
    """A file of ``fio/`` and the files that it reads, of a ledger's mount or (segments) its store."""

    name: str
    pick: Callable[[Mounted, int, random.Random], list[Path]]
    cold: bool
    place: str = "mount"


def _balances(ledger: Mounted, count: int, chance: random.Random) -> list[Path]:
    return balances(ledger.mount, count, chance)


def _transactions(ledger: Mounted, count: int, chance: random.Random) -> list[Path]:
    numbers = chance.sample(range(ACCOUNTS + 1, ACCOUNTS * 5), count)  # beyond the openings
    return [ledger.mount / "transactions" / f"tx_{number:04}.json" for number in numbers]


def _tiles(ledger: Mounted, count: int, chance: random.Random) -> list[Path]:
    numbers = chance.sample(range(200), min(count, 200))
    return [ledger.mount / "log" / "tile" / "0" / f"{number:03}" for number in numbers]


def _bundles(ledger: Mounted, count: int, chance: random.Random) -> list[Path]:
    numbers = chance.sample(range(200), min(count, 200))
    return [ledger.mount / "log" / "tile" / "entries" / f"{number:03}" for number in numbers]


def _segments(ledger: Mounted, _: int, __: random.Random) -> list[Path]:
    return sorted((ledger.store / "journal").glob("*.seg"))[:1]  # the first is whole


WORKLOADS: Final = (
    Workload("balance_cold", _balances, cold=True),
    Workload("balance_cached", _balances, cold=False),
    Workload("transaction_cold", _transactions, cold=True),
    Workload("transaction_cached", _transactions, cold=False),
    Workload("tile_cold", _tiles, cold=True),
    Workload("tile_cached", _tiles, cold=False),
    Workload("bundle_cold", _bundles, cold=True),
    Workload("bundle_cached", _bundles, cold=False),
    Workload("bundle_mmap", _bundles, cold=False),
    Workload("segment_cold", _segments, cold=True, place="store"),
    Workload("segment_cached", _segments, cold=False, place="store"),
)
INBOX: Final = "inbox_write"


def run(
    report: Report,
    directory: Path,
    *,
    seed: int,
    transactions: int,
    files: int,
    names: Collection[str] | None = None,
) -> None:
    """One ledger; every workload (or these) in turn, ``report.repeats`` times. Raises LedgerError when there is no fio."""
    if shutil.which("fio") is None:
        raise LedgerError("fio is not installed", hint="`tools/install-system test` installs it")
    chance = random.Random(seed)
    with Mounted(directory / "ledger", ACCOUNTS) as ledger:
        payments = workload.Payments(seed, ACCOUNTS)
        pieces = (payments.lines(workload.FILE_INTENTS) for _ in range(transactions // workload.FILE_INTENTS))
        copy(pieces, ledger.mount / "inbox" / "payments.ndjson")
        shutil.rmtree(MEMORY / "ledgerfs-bench", ignore_errors=True)
        try:
            for turn in range(report.repeats):
                for each in WORKLOADS:
                    if names is None or each.name in names:
                        _read(report, each, directory, ledger, chance, files)
                if names is None or INBOX in names:
                    _write(report, directory, ledger, turn, files)
        finally:
            shutil.rmtree(MEMORY / "ledgerfs-bench", ignore_errors=True)


def _read(report: Report, each: Workload, directory: Path, ledger: Mounted, chance: random.Random, files: int) -> None:
    originals = each.pick(ledger, files if each.cold else CACHED_FILES, chance)
    for place, copies in ((each.place, None), ("disk", directory / "copies"), ("tmpfs", MEMORY / "ledgerfs-bench")):
        if place == "tmpfs" and each.cold:
            continue  # it never is
        if copies is not None:
            if each.place == "store" and place == "disk":
                continue  # it is a plain file there already
            copies.mkdir()
        links = _links(directory / "links", originals, copies)
        if each.cold and not drop_caches():
            report.note(f"fio {each.name}: left out, because only root may drop the kernel's caches")
            return
        _job(report, each.name, place, "read", links, len(originals))
        if copies is not None:
            shutil.rmtree(copies)
    name = f"fio {each.name}, "
    report.ratio(f"{name}{each.place} / tmpfs, p50", f"{name}{each.place}, p50", f"{name}tmpfs, p50")


def _write(report: Report, directory: Path, ledger: Mounted, turn: int, files: int) -> None:
    """Files of one intent each, all of the same text: their names make them different payments."""
    intent = b'{"type":"transfer","debit":"%b","credit":"%b","amount":"0.01","currency":"EUR"}' % (
        workload.account(0).encode(),
        workload.account(1).encode(),
    )
    pattern = directory / "pattern"
    pattern.write_bytes(intent.ljust(INTENT_BYTES))
    before = ledger.transactions()
    for place, folder, sync in (
        ("mount", ledger.mount / "inbox", "none"),
        ("disk", directory / "copies", "dsync"),
        ("tmpfs", MEMORY / "ledgerfs-bench", "none"),
    ):
        if place != "mount":
            folder.mkdir()
        more = {"RUN": f"fio-{turn}-{time.time_ns()}", "SYNC": sync, "PATTERN": str(pattern)}
        _job(report, INBOX, place, "write", folder, files, more)
        if place != "mount":
            shutil.rmtree(folder)
    if ledger.transactions() - before != files:
        raise RuntimeError(f"{INBOX}: not every file is a transaction")
    report.ratio(f"fio {INBOX}, mount / disk, p50", f"fio {INBOX}, mount, p50", f"fio {INBOX}, disk, p50")


def _links(directory: Path, originals: list[Path], copies: Path | None) -> Path:
    """A directory of symbolic links with the numbers for names, as fio wants them."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for number, path in enumerate(originals):
        target = path
        if copies is not None:
            target = copies / str(number)
            target.write_bytes(path.read_bytes())
        (directory / str(number)).symlink_to(target)
    return directory


def _job(
    report: Report, name: str, place: str, way: str, folder: Path, files: int, more: dict[str, str] | None = None
) -> None:
    with timed() as section:
        found = _run(JOBS / f"{name}.fio", folder, files, more or {})[way]
    report.spent(f"fio {name} {place}", section)
    for percent in ("50", "99", "99.9"):
        report.add(
            f"fio {name}, {place}, p{percent}", "us", found["clat_ns"]["percentile"][f"{float(percent):.6f}"] / 1e3
        )
    report.add(f"fio {name}, {place}, throughput", "MB/s", found["bw_bytes"] / 1e6)
    report.add(f"fio {name}, {place}, operations", "/s", found["iops"])


def _run(job: Path, folder: Path, files: int, more: dict[str, str]) -> dict[str, Any]:
    environment = os.environ | {"LINKS": str(folder), "FILES": str(files)} | more
    command = ["fio", "--output-format=json", str(job)]
    done = subprocess.run(command, env=environment, cwd=JOBS, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job.name}: {done.stderr or done.stdout}")
    (result,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    if result["error"]:
        raise RuntimeError(f"{job.name}: error {result['error']}")
    found: dict[str, Any] = result
    return found
