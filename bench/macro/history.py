"""Indexes and histories: how they are made beside full-speed commits, what they cost, and how fast they answer (issue 4).

One account is hot: a million entries of its own (with ``--quick`` a tenth). What is asked of the mount is asked with the
programs that people use.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted
from bench.measure import Report, timed
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal import layout
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state.opening import open_store
from ledgerfsd.types import Mode

HOT: Final = "hot"
LOOKS: Final = 20_000
INFLIGHT: Final = 32 * 2**20
PIECE: Final = 100_000
FIRST_LINES: Final = 50


def run(report: Report, directory: Path, *, seed: int, transactions: int, accounts: int, hot: int) -> None:
    """One store, made once; then every measurement ``report.repeats`` times."""
    chance = random.Random(seed)
    place = directory / "ledger"
    place.mkdir(parents=True)
    _fill(report, place / "store", seed, transactions, accounts, hot)
    for _ in range(report.repeats):
        _engine(report, place / "store", chance)
    ledger = Mounted(place)
    try:
        for _ in range(report.repeats):
            ledger.start()
            _mounted(report, ledger, chance)
            ledger.stop()
    finally:
        ledger.__exit__()


def _payments(seed: int, transactions: int, accounts: int, hot: int) -> Iterator[bytes]:
    """Payments in pieces; evenly among them the ``hot`` ones, which one account receives."""
    payments = workload.Payments(seed, accounts, random_ids=True)
    for first in range(0, transactions, PIECE):
        lines = payments.lines(min(PIECE, transactions - first)).splitlines(keepends=True)
        share = hot * len(lines) // transactions
        for number in range(share):
            at = number * len(lines) // share
            head, _, rest = lines[at].partition(b'"credit":"')
            lines[at] = head + b'"credit":"%b"' % HOT.encode() + rest.partition(b'"')[2]
        yield b"".join(lines)


def _fill(report: Report, store: Path, seed: int, transactions: int, accounts: int, hot: int) -> None:
    opened = open_store(layout.create(store, "ledger.example/bench"))
    engine = opened.engine
    engine.start()
    opened.projector.start()
    account = f'{{"type":"open_account","account":"{HOT}","currency":"EUR","class":"clearing"}}\n'
    _submit(engine, account.encode(), b"hot.ndjson")
    for piece in workload.open_accounts(accounts):
        _submit(engine, piece, b"accounts.ndjson")
    engine.drain()
    spent, before, behind, busy = engine.indexes().spent_ns, engine.counts().transactions, 0, 0.0
    for number, piece in enumerate(_payments(seed, transactions, accounts, hot)):
        began = time.perf_counter()  # without the making of the piece
        _submit(engine, piece, b"p%d.ndjson" % number)
        engine.drain()
        busy += time.perf_counter() - began
        behind = max(behind, engine.indexes().unindexed)
    made = engine.counts().transactions - before
    report.add("commits while indexes are made, engine directly", "/s", made / busy)
    report.add("postings in memory at most", "", behind)
    opened.close()
    numbers = engine.indexes()
    report.add("index thread, processor time a posting", "ns", (numbers.spent_ns - spent) / (2 * made))
    report.add("indexes, bytes a posting", "B", numbers.posting_bytes / numbers.postings, aim="aim 3.4")
    report.add("indexes with references, bytes a transaction", "B", numbers.bytes / engine.counts().transactions)
    report.note(
        f"history: {engine.counts().transactions:,} transactions, {numbers.postings:,} postings, {numbers.files} files"
    )


def _submit(engine: Engine, body: bytes, name: bytes) -> None:
    engine.submit(body, source=name, first_line=1, mode=Mode.EACH)
    while engine.inflight_bytes > INFLIGHT:
        time.sleep(0.001)
        engine.completions()
    engine.completions()


def _engine(report: Report, store: Path, chance: random.Random) -> None:
    opened = open_store(Layout(store))
    engine = opened.engine
    report.add("start, recovery", "s", engine.recovery.seconds)
    counts = engine.counts()
    taken: list[float] = []
    with timed() as section:
        for _ in range(LOOKS):
            ordinal, size = chance.randrange(counts.accounts), chance.randrange(counts.entries)
            began = time.perf_counter()
            engine.account_at(ordinal, size)
            taken.append(time.perf_counter() - began)
    report.spent("as-of", section)
    report.latencies("account as of any entry", taken, unit="us", aims={99: "aim < 1,000"})
    hot, taken = engine.ordinal(HOT.encode()), []
    with timed() as section:
        for _ in range(LOOKS):
            size = chance.randrange(counts.entries)
            began = time.perf_counter()
            engine.account_at(hot, size)
            taken.append(time.perf_counter() - began)
    report.spent("as-of, hot", section)
    report.latencies("the same, the hot account", taken, unit="us", aims={99: "aim < 1,000"})
    with timed() as section:
        found = sum(
            len(engine.accounts_at(counts.entries // 2, first, 10_000)) for first in range(0, counts.accounts, 10_000)
        )
    report.spent("all accounts", section)
    report.add("all accounts as of the middle, one pass", "/s", found / section.seconds)
    with timed() as section:
        for number in range(LOOKS):
            engine.with_reference(f"invoice {number * 7 + 1}", 0, 10)
    report.spent("references", section)
    report.add("entries of a reference", "us", section.seconds / LOOKS * 1e6)
    opened.close()


def _mounted(report: Report, ledger: Mounted, chance: random.Random) -> None:
    log = ledger.mount / "accounts" / HOT / "tx.log"
    report.add("daemon, own memory after the start", "MiB", ledger.memory()[0])
    with timed() as section, log.open("rb") as file:
        file.readline()
    report.spent("first line", section)
    report.add("tx.log of the hot account, first line, first look", "ms", section.seconds * 1e3)
    size, taken = log.stat().st_size, []
    with timed() as section, log.open("rb", buffering=0) as file:
        for _ in range(FIRST_LINES):
            began = time.perf_counter()
            file.seek(chance.randrange(size - 4096))
            file.read(4096)
            taken.append(time.perf_counter() - began)
    report.spent("middle", section)
    report.latencies("the same, 4 KiB anywhere", taken, unit="us")
    for name, command in (
        ("tail -n 10 tx.log", f"tail -n 10 {log}"),
        ("grep -c in the whole tx.log", f"grep -c nothing-like-this {log}"),
        ("statement.csv of the hot account, first look", f"wc -l {log.parent}/statement.csv"),
        ("ls transactions | head", f"ls -U {ledger.mount}/transactions | head"),
        ("ls -U transactions | wc -l", f"ls -U {ledger.mount}/transactions | wc -l"),
        ("ls accounts/hot/history", f"ls {log.parent}/history"),
    ):
        with timed() as section:
            subprocess.run(["bash", "-c", command], check=False, stdout=subprocess.DEVNULL)
        report.spent(name, section)
        report.add(name, "s", section.seconds)
        if name.startswith("grep"):
            report.add("tx.log, throughput", "MB/s", size / section.seconds / 1e6)
    report.add("daemon, own memory after all this", "MiB", ledger.memory()[0])
