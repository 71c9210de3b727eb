"""The past: balances as they were, trial balances, and the raw log added up (issue 4, points 1 and 2)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from bench import workload
from bench.daemon import Mounted, copy
from bench.macro.reading import open_read_close
from bench.measure import REPOSITORY, Report, timed
from ledgerfsd.clock import format_time, parse_time

READS: Final = 2_000
NAMES: Final = 50
RANGE: Final = 5_000  # transactions between the two points of a diff
BESIDE_SECONDS: Final = 0.01  # between two reads of a balance while a trial balance is made


def run(report: Report, directory: Path, *, seed: int, transactions: int, accounts: int, reads_only: bool) -> None:
    """One ledger, in which names are given now and then; every measurement ``report.repeats`` times."""
    chance = random.Random(seed)
    with Mounted(directory / "ledger", accounts) as ledger:
        payments = workload.Payments(seed, accounts)
        files = max(1, transactions // workload.FILE_INTENTS)
        for number in range(files):
            copy([payments.lines(workload.FILE_INTENTS)], ledger.mount / "inbox" / f"{number}.ndjson")
            if number % max(1, files // NAMES) == 0:
                (ledger.mount / "snapshots" / f"named-{number}").mkdir()
        report.note(f"past: of {ledger.status()['entries']:,} entries and {ledger.status()['accounts']:,} accounts")
        for _ in range(report.repeats):
            _reads(report, ledger.mount, chance, accounts)
            if reads_only:
                continue
            _trial_balance(report, ledger, chance)
            _commands(report, ledger, transactions)


def _reads(report: Report, mount: Path, chance: random.Random, accounts: int) -> None:
    """Accounts and points at random, nothing of which the kernel has seen."""
    names = [name for name in os.listdir(mount / "snapshots") if name.startswith("named-")]
    first = parse_time(_point(mount, names[0])["time"])
    last = parse_time(_point(mount, names[-1])["time"])

    def anything() -> str:
        return format_time(chance.randrange(first, last))

    for name, choose in (("named, listed", lambda: chance.choice(names)), ("any time, not listed", anything)):
        paths = [
            mount / "snapshots" / choose() / "accounts" / workload.account(number) / "balance.json"
            for number in chance.choices(range(accounts), k=READS)
        ]
        taken = open_read_close(report, f"as-of reads, {name}", paths)
        report.latencies(f"as-of balance.json, {name}, open + read + close", taken, unit="us", aims={99: "aim < 1,000"})


def _point(mount: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((mount / "snapshots" / name / "point.json").read_bytes())
    return found


def _trial_balance(report: Report, ledger: Mounted, chance: random.Random) -> None:
    """One that was never asked for, of a state since all accounts are there; and balances read meanwhile."""
    first = int(_point(ledger.mount, "named-0")["size"])
    size = chance.randrange(first, ledger.status()["entries"])
    path = ledger.mount / "snapshots" / f"size-{size}" / "trial-balance.csv"
    beside: list[float] = []
    done = threading.Event()

    def read_beside() -> None:
        while not done.is_set():
            place = ledger.mount / "accounts" / workload.account(chance.randrange(1000)) / "balance.json"
            began = time.perf_counter()
            place.read_bytes()
            beside.append(time.perf_counter() - began)
            done.wait(BESIDE_SECONDS)

    before, _ = ledger.memory()
    other = threading.Thread(target=read_beside)
    other.start()
    try:
        with timed() as section:
            rows = path.stat().st_size and path.read_bytes().count(b"\n")
    finally:
        done.set()
        other.join()
    report.spent("trial balance", section)
    report.add("trial balance, rows a second", "1/s", rows / section.seconds)
    report.add("trial balance, seconds", "s", section.seconds)
    report.add("trial balance, memory it added", "MiB", ledger.memory()[0] - before)
    report.latencies("balance.json while a trial balance is made", beside, unit="us", aims={99: "must < 10,000"})


def _commands(report: Report, ledger: Mounted, transactions: int) -> None:
    points = ("diff", f"tx-{transactions - RANGE}", f"tx-{transactions}")
    entries = ledger.status()["entries"]
    for name, arguments in ((f"diff of {RANGE:,} transactions", points), ("replay of all", ("replay", "acc_0000001"))):
        command = [sys.executable, "-m", "ledgerfsd.cli.main", *arguments, "--mount", str(ledger.mount)]
        with timed() as section:
            subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        report.spent(name, section)
        report.add(f"{name}, seconds", "s", section.seconds)
        if name.startswith("replay"):
            report.add("replay, entries a second", "1/s", entries / section.seconds)
