"""LedgerFS and what people use for this today, in turn, in one invocation: PostgreSQL, and TigerBeetle where a binary is given.

Batch for batch: files of 8,192 payments against set-based batches of 8,192 (8,189 in TigerBeetle, which is what its messages
hold). One by one: a file for each payment against a function call for each. Every side is durable before it acknowledges;
LedgerFS hashes, seals and proves besides.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

from bench import workload
from bench.macro import mixed as mixing
from bench.macro import ndjson, single, socketing
from bench.measure import Report, timed
from bench.peers import tigerbeetle
from bench.peers.postgres import SETTINGS, Cluster, rows

BATCH: Final = 8_192
CLIENTS: Final = (1, 8, 32)
WAY: Final = "128 KiB writes, 2 writers"


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
    if binary:
        report.note(tigerbeetle.version(binary))
    report.note(
        f"PostgreSQL's settings: {', '.join(f'{name}={value}' for name, value in (SETTINGS | settings).items())}"
    )
    for turn in range(report.repeats):
        _ours(report, directory, seed + turn, transactions, accounts, pattern=pattern)
        with Cluster(directory / "postgres", accounts, settings) as cluster:
            if not turn:
                report.note(cluster.version())
            for way in WAYS:
                payments = workload.Payments(seed + turn, accounts, pattern=pattern, prefix=way.prefix)
                _batched(
                    report, cluster, f"{_theirs(load)}, {way.name}", payments, transactions // way.share // BATCH, way
                )
        if binary and pattern == "uniform":
            _ours(report, directory, seed + turn, transactions, accounts, random_ids=True)
            for form in tigerbeetle.FORMS:
                _tigerbeetle(report, directory, binary, form, seed + turn, transactions, accounts)
            rates = [report.rows[tigerbeetle.named(accounts, form)].values[turn] for form in tigerbeetle.FORMS]
            report.add(tigerbeetle.named(accounts), "tx/s", max(rates))
    for way in WAYS:
        theirs = f"{_theirs(load)}, {way.name}"
        report.ratio(f"LedgerFS / {theirs}", ours, theirs, aim="must 5")
    for form in tigerbeetle.FORMS:
        theirs = tigerbeetle.named(accounts, form)
        mine = f"{ndjson.titled(accounts, random_ids=True)}, {WAY}" if form is tigerbeetle.RANDOM else ours
        report.ratio(f"LedgerFS / {theirs}", mine, theirs)
    best = tigerbeetle.named(accounts)
    report.ratio(f"LedgerFS / {best}", ours, best, aim="must 1")


def _ours(
    report: Report,
    directory: Path,
    seed: int,
    transactions: int,
    accounts: int,
    *,
    pattern: str = "uniform",
    random_ids: bool = False,
) -> None:
    """One run of files of a batch each through the mount: its rate, and how long a file takes."""
    once = Report(1)
    ndjson.run(
        once,
        directory,
        seed=seed,
        transactions=transactions // BATCH * BATCH,
        accounts=accounts,
        pattern=pattern,
        random_ids=random_ids,
        ways=[WAY],
        directly=False,
        lines=BATCH,
    )
    name = f"{ndjson.titled(accounts, pattern, random_ids)}, {WAY}"
    report.add(name, "tx/s", once.rows[name].median)
    for row in once.rows.values():
        if row.name.startswith(ndjson.per_file(name)):
            report.add(row.name, row.unit, row.median)


def _tigerbeetle(
    report: Report,
    directory: Path,
    binary: Path,
    form: tigerbeetle.Form,
    seed: int,
    transactions: int,
    accounts: int,
) -> None:
    """One run of it: its rate, and how long a batch takes."""
    name = tigerbeetle.named(accounts, form)
    with timed() as section:
        found = tigerbeetle.run(binary, directory, form, seed=seed, accounts=accounts, transfers=transactions)
    report.spent(name, section)
    report.add(name, "tx/s", found.rate)
    for percent, milliseconds in zip(tigerbeetle.PERCENTS, found.latencies, strict=True):
        report.add(f"{name}: a batch, request to reply, p{percent}", "ms", milliseconds)


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
                        rate, taken = cluster.one_by_one(clients, seconds, chained=chained)
                    report.spent(name, section)
                    report.add(name, "tx/s", rate)
                    report.latencies(name, taken)
    for chain, clients in product(("", ", chain of SHA-256"), CLIENTS):
        theirs = f"PostgreSQL, one by one, {clients} clients{chain}"
        for what, ours in (("a file each", single.named(clients)), ("socket", socketing.named(clients))):
            aim = "must 5" if clients == CLIENTS[-1] and what == "socket" else ""
            report.ratio(f"LedgerFS, {what} / {theirs}", f"{ours}, rate", theirs, aim=aim)


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
                    rate, taken = cluster.mixed(clients, seconds)
                report.spent(name, section)
                report.add(name, "/s", rate)
                report.latencies(name, taken)
    for clients in mixing.CLIENTS:
        theirs = f"PostgreSQL, mixed 90/10, {clients} clients"
        report.ratio(f"LedgerFS / {theirs}", f"{mixing.named(clients)}, rate", theirs)
