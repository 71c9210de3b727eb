"""fio: what the pages of files of the mount cost, one workload a file (``*.fio``), cold and cached.

Each runs on files of the mount and then on the same bytes as plain files on the disk's file system and on tmpfs: the limit.
Nobody's memory is what it is after the caches of the kernel were dropped.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, NamedTuple

from bench import workload
from bench.daemon import Mounted, copy, drop_caches
from bench.macro.reading import ACCOUNTS, balances
from bench.measure import Report, timed

JOBS: Final = Path(__file__).parent
MEMORY: Final = Path("/dev/shm")
CACHED_FILES: Final = 100
AIMS: Final = ("balance_cold", "balance_cached")  # what the table of aims needs


class Workload(NamedTuple):
    """A file of ``fio/`` and the files that it reads."""

    name: str
    pick: Callable[[Path, int, random.Random], list[Path]]
    cold: bool


def _transactions(mount: Path, count: int, chance: random.Random) -> list[Path]:
    numbers = chance.sample(range(ACCOUNTS + 1, ACCOUNTS * 5), count)  # beyond the openings
    return [mount / "transactions" / f"tx_{number:04}.json" for number in numbers]


def _tiles(mount: Path, count: int, chance: random.Random) -> list[Path]:
    return [mount / "log" / "tile" / "0" / f"{number:03}" for number in chance.sample(range(200), min(count, 200))]


def _bundles(mount: Path, count: int, chance: random.Random) -> list[Path]:
    return [
        mount / "log" / "tile" / "entries" / f"{number:03}" for number in chance.sample(range(200), min(count, 200))
    ]


WORKLOADS: Final = (
    Workload("balance_cold", balances, cold=True),
    Workload("balance_cached", balances, cold=False),
    Workload("transaction_cold", _transactions, cold=True),
    Workload("transaction_cached", _transactions, cold=False),
    Workload("tile_cold", _tiles, cold=True),
    Workload("tile_cached", _tiles, cold=False),
    Workload("bundle_mmap", _bundles, cold=False),
)


def run(
    report: Report, directory: Path, *, seed: int, transactions: int, files: int, names: Collection[str] | None = None
) -> None:
    """One ledger; every workload (or these) in turn, ``report.repeats`` times."""
    chance = random.Random(seed)
    with Mounted(directory / "ledger", ACCOUNTS) as ledger:
        payments = workload.Payments(seed, ACCOUNTS)
        pieces = (payments.lines(workload.FILE_INTENTS) for _ in range(transactions // workload.FILE_INTENTS))
        copy(pieces, ledger.mount / "inbox" / "payments.ndjson")
        shutil.rmtree(MEMORY / "ledgerfs-bench", ignore_errors=True)
        try:
            for _ in range(report.repeats):
                for each in (each for each in WORKLOADS if names is None or each.name in names):
                    _fio(report, each, directory, ledger.mount, chance, files)
        finally:
            shutil.rmtree(MEMORY / "ledgerfs-bench", ignore_errors=True)


def _fio(report: Report, each: Workload, directory: Path, mount: Path, chance: random.Random, files: int) -> None:
    originals = each.pick(mount, files if each.cold else CACHED_FILES, chance)
    for place, copies in (("mount", None), ("disk", directory / "copies"), ("tmpfs", MEMORY / "ledgerfs-bench")):
        if copies is not None and not (place == "tmpfs" and each.cold):
            copies.mkdir()
        elif copies is not None:
            continue  # tmpfs is never cold
        links = _links(directory / "links", originals, copies)
        if each.cold and not drop_caches():
            return
        with timed() as section:
            found = _run_fio(JOBS / f"{each.name}.fio", links, len(originals))
        report.spent(f"fio {each.name} {place}", section)
        report.add(f"fio {each.name}, {place}, p50", "us", found["percentile"]["50.000000"] / 1e3)
        report.add(f"fio {each.name}, {place}, p99", "us", found["percentile"]["99.000000"] / 1e3)
        if copies is not None:
            shutil.rmtree(copies)
    report.ratio(f"fio {each.name}, mount / tmpfs, p50", f"fio {each.name}, mount, p50", f"fio {each.name}, tmpfs, p50")


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


def _run_fio(job: Path, links: Path, files: int) -> dict[str, dict[str, float]]:
    environment = os.environ | {"LINKS": str(links), "FILES": str(files)}
    command = ["fio", "--output-format=json", str(job)]
    done = subprocess.run(command, env=environment, cwd=links, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job.name}: {done.stderr or done.stdout}")
    (result,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    if result["error"]:
        raise RuntimeError(f"{job.name}: error {result['error']}")
    found: dict[str, dict[str, float]] = result["read"]["clat_ns"]
    return found
