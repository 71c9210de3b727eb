"""LedgerFS and what people use for this today, in turn, in one invocation: PostgreSQL, and TigerBeetle where a binary is given.

Batch for batch: files of 8,192 payments against set-based batches of 8,192. One by one: a file for each payment against a
function call for each. Every side is durable before it acknowledges; LedgerFS hashes, seals and proves besides.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from bench import workload
from bench.macro import ndjson, single, socketing
from bench.measure import Report, timed
from bench.peers.postgres import Cluster, rows

BATCH: Final = 8_192
CLIENTS: Final = (1, 8, 32)
CONNECTIONS: Final = (1, 2)
WAY: Final = "128 KiB writes, 2 writers"
_ACCEPTED: Final = re.compile(r"load accepted = ([0-9,.]+) tx/s")


def batches(report: Report, directory: Path, *, seed: int, transactions: int, accounts: int) -> None:
    """NDJSON files through the mount against batches in PostgreSQL, with and without a hash chain."""
    count = transactions // BATCH
    ours = f"NDJSON, {accounts:,} accounts, {WAY}"
    for turn in range(report.repeats):
        once = Report(1)
        ndjson.run(once, directory, seed=seed + turn, transactions=transactions, accounts=accounts, ways=[WAY])
        report.add(ours, "tx/s", once.rows[ours].median)
        with Cluster(directory / "postgres", accounts) as cluster:
            if not turn:
                report.note(cluster.version())
            for connections in CONNECTIONS:
                _batched(report, cluster, f"{connections} connections", seed + turn, count, connections)
            _batched(
                report, cluster, "1 connections, chain of SHA-256", seed + turn, max(1, count // 4), 1, chained=True
            )
    for what in (*(f"{connections} connections" for connections in CONNECTIONS), "1 connections, chain of SHA-256"):
        theirs = f"PostgreSQL, {accounts:,} accounts, batches of {BATCH:,}, {what}"
        report.ratio(f"LedgerFS / {theirs}", ours, theirs, aim="must 5")


def _batched(
    report: Report, cluster: Cluster, what: str, seed: int, count: int, connections: int, *, chained: bool = False
) -> None:
    name = f"PostgreSQL, {cluster.accounts:,} accounts, batches of {BATCH:,}, {what}"
    payments = workload.Payments(seed, cluster.accounts, prefix=what[:1] + "c" * chained)
    made = [rows(payments, BATCH) for _ in range(count)]
    before = cluster.transfers()
    cluster.settle()
    with timed() as section:
        seconds = cluster.batched(made, connections, chained=chained)
    if cluster.transfers() - before != count * BATCH:
        raise RuntimeError(f"{name}: not every transfer is there")
    report.spent(name, section)
    report.add(name, "tx/s", count * BATCH / seconds)


def one_by_one(report: Report, directory: Path, *, seed: int, accounts: int, files: int, seconds: int) -> None:
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
        with Cluster(directory / "postgres", accounts) as cluster:
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


def tigerbeetle(report: Report, binary: Path, *, transactions: int, accounts: int) -> None:
    """Its own benchmark, on a data file and a replica of its own: ids in order, and random ones."""
    for order in ("sequential", "random"):
        for _ in range(report.repeats):
            with timed() as section:
                done = subprocess.run(
                    [
                        *(binary, "benchmark", f"--account-count={accounts}", f"--transfer-count={transactions}"),
                        *("--transfer-batch-size=8189", f"--id-order={order}"),
                    ],
                    capture_output=True,
                    text=True,
                    check=True,
                )
            found = _ACCEPTED.search(done.stdout + done.stderr)
            if found is None:
                raise RuntimeError(f"tigerbeetle benchmark said: {done.stdout}{done.stderr}")
            name = f"TigerBeetle, {accounts:,} accounts, batches of 8,189, {order} ids"
            report.spent(name, section)
            report.add(name, "tx/s", float(found[1].replace(",", "")))
