"""Nine reads of ``balance.json`` and one file of one intent, by chance, on each of many clients: what most services do with a ledger."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from bench import workload
from bench.crew import crew
from bench.daemon import Mounted
from bench.macro.single import processor
from bench.measure import Report, timed

ACCOUNTS: Final = 10_000
CLIENTS: Final = (1, 8, 32)
WRITES: Final = 0.1
READ_BYTES: Final = 65_536


def named(clients: int) -> str:
    """What the figures of so many clients begin with."""
    return f"mixed 90/10, {clients} client{'s' if clients > 1 else ''}"


def run(report: Report, directory: Path, *, seed: int, operations: int) -> None:
    """So many operations with each number of clients, ``report.repeats`` times."""
    for turn in range(report.repeats):
        with Mounted(directory / "ledger", ACCOUNTS) as ledger:
            for clients in CLIENTS:
                _measure(report, ledger, seed + turn, clients, operations // clients)


def _measure(report: Report, ledger: Mounted, seed: int, clients: int, share: int) -> None:
    before = ledger.transactions()
    each = [(ledger.mount, seed * 1000 + number, f"m{clients}-{number}", share) for number in range(clients)]
    with crew(_client, each) as go, timed() as section:
        spent = ledger.thread_seconds()
        results = go()
        processor(report, f"{named(clients)}, processor an operation", spent, ledger.thread_seconds(), share * clients)
    reads = [taken for read, _ in results for taken in read]
    writes = [taken for _, written in results for taken in written]
    if ledger.transactions() - before != len(writes):
        raise RuntimeError(f"{named(clients)}: not every file is a transaction")
    report.spent(named(clients), section)
    report.add(f"{named(clients)}, rate", "/s", (len(reads) + len(writes)) / section.seconds)
    report.latencies(f"{named(clients)}, read", reads)
    report.latencies(f"{named(clients)}, write", writes)


def _client(mount: Path, seed: int, prefix: str, share: int, barrier: Barrier, result: Connection) -> None:
    chance, payments = random.Random(seed), workload.Payments(seed, ACCOUNTS, prefix=prefix)
    jobs: list[tuple[bytes, bytes]] = []
    for number in range(share):
        if chance.random() < WRITES:
            jobs.append((os.fsencode(mount / "inbox" / f"{prefix}-{number}.json"), payments.one()))
        else:
            name = workload.account(chance.randrange(ACCOUNTS))
            jobs.append((os.fsencode(mount / "accounts" / name / "balance.json"), b""))
    reads, writes, clock = list[float](), list[float](), time.perf_counter
    barrier.wait()
    for path, body in jobs:
        began = clock()
        if body:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(descriptor, body)
        else:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, READ_BYTES)
        os.close(descriptor)
        (writes if body else reads).append(clock() - began)
    result.send((reads, writes))
