"""LedgerFS and what people use for this today, in turn, in one invocation: PostgreSQL, and TigerBeetle where a binary is given.

Batch for batch: files of 8,192 payments against set-based batches of 8,192. One by one: a file for each payment against a
function call for each. Every side is durable before it acknowledges; LedgerFS hashes, seals and proves besides.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from bench import workload
from bench.macro import mixed as mixing
from bench.macro import ndjson, single, socketing
from bench.measure import Report, timed
from bench.peers.postgres import SETTINGS, Cluster, rows

BATCH: Final = 8_192
CLIENTS: Final = (1, 8, 32)
WAY: Final = "128 KiB writes, 2 writers"
ID_ORDERS: Final = ("sequential", "random")
_ACCEPTED: Final = re.compile(r"load accepted = ([0-9,.]+) tx/s")


class _Way(NamedTuple):
    """How batches are given to PostgreSQL; a chained one does a quarter of the work."""

    name: str
    connections: int
    chained: bool
    share: int
    prefix: str


WAYS: Final = (
    _Way("1 connections", 1, False, 1, "1"),
    _Way("2 connections", 2, False, 1, "2"),
    _Way("1 connections, chain of SHA-256", 1, True, 4, "1c"),
)


def batches(
    report: Report,
    directory: Path,
    *,
    seed: int,
    transactions: int,
    accounts: int,
    settings: dict[str, str],
    binary: Path | None = None,
    pattern: str = "uniform",
) -> None:
    """NDJSON files through the mount against batches in PostgreSQL, with and without a hash chain, and in TigerBeetle."""
    load = ndjson.titled(accounts, pattern)
    ours = f"{load}, {WAY}"
    report.note(
        f"PostgreSQL's settings: {', '.join(f'{name}={value}' for name, value in (SETTINGS | settings).items())}"
    )
    for turn in range(report.repeats):
        once = Report(1)
        ndjson.run(
            once,
            directory,
            seed=seed + turn,
            transactions=transactions // BATCH * BATCH,
            accounts=accounts,
            pattern=pattern,
            ways=[WAY],
            directly=False,
            lines=BATCH,
        )
        report.add(ours, "tx/s", once.rows[ours].median)
        with Cluster(directory / "postgres", accounts, settings) as cluster:
            if not turn:
                report.note(cluster.version())
            for way in WAYS:
                payments = workload.Payments(seed + turn, accounts, pattern=pattern, prefix=way.prefix)
                _batched(
                    report, cluster, f"{_theirs(load)}, {way.name}", payments, transactions // way.share // BATCH, way
                )
        if binary and pattern == "uniform":
            _tigerbeetle(report, directory, binary, turn, transactions, accounts)
    for way in WAYS:
        theirs = f"{_theirs(load)}, {way.name}"
        report.ratio(f"LedgerFS / {theirs}", ours, theirs, aim="must 5")
    for order in ID_ORDERS:
        report.ratio(f"LedgerFS / {_tiger(accounts, order)}", ours, _tiger(accounts, order))


def _theirs(load: str) -> str:
    return load.replace("NDJSON", "PostgreSQL", 1) + f", batches of {BATCH:,}"


def _batched(report: Report, cluster: Cluster, name: str, payments: workload.Payments, count: int, way: _Way) -> None:
    made = [rows(payments, BATCH) for _ in range(max(1, count))]
    before = cluster.transfers()
    cluster.settle()
    with timed() as section:
        seconds = cluster.batched(made, way.connections, chained=way.chained)
    if cluster.transfers() - before != len(made) * BATCH:
        raise RuntimeError(f"{name}: not every transfer is there")
    report.spent(name, section)
    report.add(name, "tx/s", len(made) * BATCH / seconds)


def one_by_one(
    report: Report,
    directory: Path,
    *,
    seed: int,
    accounts: int,
    files: int,
    seconds: int,
    settings: dict[str, str],
) -> None:
    """A file for each payment, and a line on the socket for each, against a function call for each."""
    for turn in range(report.repeats):
        once = Report(1)
        single.run(once, directory, seed=seed + turn, files=files, crews=CLIENTS)
        for clients in CLIENTS:
            name = f"{single.named(clients)}, rate"
            report.add(name, "/s", once.rows[name].median)
        once = Report(1)
        socketing.run(once, directory, seed=seed + turn, intents=10 * files)
        for row in once.rows.values():
            report.add(row.name, row.unit, row.median)
        with Cluster(directory / "postgres", accounts, settings) as cluster:
            for chained in (False, True):
                for clients in CLIENTS:
                    cluster.settle()
                    name = f"PostgreSQL, one by one, {clients} clients" + (", chain of SHA-256" if chained else "")
                    with timed() as section:
                        rate, latency = cluster.one_by_one(clients, seconds, chained=chained)
                    report.spent(name, section)
                    report.add(name, "tx/s", rate)
                    report.add(f"{name}, mean", "ms", latency)
    for clients in CLIENTS:
        theirs = f"PostgreSQL, one by one, {clients} clients"
        for what, ours in (("a file each", single.named(clients)), ("socket", socketing.named(clients))):
            report.ratio(
                f"LedgerFS, {what} / {theirs}", f"{ours}, rate", theirs, aim="must 5" if clients == CLIENTS[-1] else ""
            )


def mixed(
    report: Report, directory: Path, *, seed: int, operations: int, seconds: int, settings: dict[str, str]
) -> None:
    """Nine reads of a balance for each payment: files of the mount against prepared statements."""
    for turn in range(report.repeats):
        once = Report(1)
        mixing.run(once, directory, seed=seed + turn, operations=operations)
        for row in once.rows.values():
            report.add(row.name, row.unit, row.median)
        with Cluster(directory / "postgres", mixing.ACCOUNTS, settings) as cluster:
            for clients in mixing.CLIENTS:
                cluster.settle()
                name = f"PostgreSQL, mixed 90/10, {clients} clients"
                with timed() as section:
                    rate, latency = cluster.mixed(clients, seconds)
                report.spent(name, section)
                report.add(name, "/s", rate)
                report.add(f"{name}, mean", "ms", latency)
    for clients in mixing.CLIENTS:
        theirs = f"PostgreSQL, mixed 90/10, {clients} clients"
        report.ratio(f"LedgerFS / {theirs}", f"{mixing.named(clients)}, rate", theirs)


def _tigerbeetle(report: Report, directory: Path, binary: Path, turn: int, transactions: int, accounts: int) -> None:
    """Its own benchmark, with a replica of its own and a data file in ``directory``: ids in order, and random ones."""
    for order in ID_ORDERS:
        with timed() as section:
            done = subprocess.run(
                [
                    *(binary.resolve(), "benchmark", f"--account-count={accounts}", f"--transfer-count={transactions}"),
                    *("--transfer-batch-size=8189", f"--id-order={order}", f"--seed={turn + 1}", "--query-count=0"),
                ],
                cwd=directory,
                capture_output=True,
                text=True,
                check=False,
            )
        report.spent(_tiger(accounts, order), section)
        report.add(_tiger(accounts, order), "tx/s", accepted(done.stdout + done.stderr))


def _tiger(accounts: int, order: str) -> str:
    return f"TigerBeetle, {accounts:,} accounts, batches of 8,189, {order} ids"


def accepted(text: str) -> float:
    """Transfers a second, from what ``tigerbeetle benchmark`` prints. Raises RuntimeError when they are not in it."""
    found = _ACCEPTED.search(text)
    if found is None:
        raise RuntimeError(f"tigerbeetle benchmark said: {text}")
    return float(found[1].replace(",", ""))
