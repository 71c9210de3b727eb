"""Ids of many transactions: what they take in memory and on the disk, and what it costs to ask for them while commits go on (issue 4).

The engine is given payments with random ids, directly, as ``direct.py`` does, and saves as a daemon does. Processor time of its threads
is reported rather than rates: it depends less on who else uses the machine.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Final

from bench import workload
from bench.macro.direct import thread_ns
from bench.measure import Report, timed
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal import layout
from ledgerfsd.state.opening import OpenStore, open_store
from ledgerfsd.types import Mode

ACCOUNTS: Final = 10_000
PIECE: Final = 100_000
STEP: Final = 1_000_000  # transactions between two figures
KEPT: Final = 200  # one line in so many is sent again in the end
APPLY: Final = "lfs-apply"
BUILD: Final = "lfs-runs"
MIB: Final = 2**20


def run(report: Report, directory: Path, *, seed: int, transactions: int) -> None:
    """One store, made once; then it is stopped and opened, and asked, ``report.repeats`` times."""
    store = directory / "store"
    kept = _fill(report, store, seed, transactions)
    millions = f"{transactions / 1e6:g} million transactions"
    for number in range(report.repeats):
        with timed() as section:
            opened = open_store(layout.Layout(store))
        report.add(f"ids: opening a store of {millions}", "s", section.seconds)
        opened.engine.start()
        _memory(report, opened.engine, f"{millions}, after a start")
        chance = random.Random(seed + number)
        chance.shuffle(kept)
        _ask(report, opened, kept, "ids: old ones again, T1", duplicates=True)
        fresh = workload.Payments(seed + 1 + number, ACCOUNTS, random_ids=True)
        _ask(report, opened, [fresh.one() for _ in kept], f"ids: new ones among {millions}, T1", duplicates=False)
        opened.close()
    shutil.rmtree(store)


def _fill(report: Report, store: Path, seed: int, transactions: int) -> list[bytes]:
    opened = open_store(layout.create(store, "ledger.example/bench"))
    engine = opened.engine
    engine.start()
    opened.projector.start()
    for piece in workload.open_accounts(ACCOUNTS):
        engine.submit(piece, source=b"accounts.ndjson", first_line=1, mode=Mode.EACH)
    engine.drain()
    payments, kept = workload.Payments(seed, ACCOUNTS, random_ids=True), list[bytes]()
    for first in range(0, transactions, STEP):
        before, seconds = thread_ns(), 0.0
        for at in range(first, min(first + STEP, transactions), PIECE):
            lines = payments.lines(min(PIECE, transactions - at))
            kept += lines.splitlines()[::KEPT]
            began = time.perf_counter()  # without the making of the lines
            engine.submit(lines, source=b"p%d.ndjson" % at, first_line=1, mode=Mode.EACH)
            engine.drain()
            seconds += time.perf_counter() - began
            engine.completions()
        spent, count = thread_ns() - before, min(STEP, transactions - first)
        if first in (0, STEP * ((transactions - 1) // STEP)):
            where = "the first million" if not first else f"the last of {transactions / 1e6:g} million"
            report.add(f"ids: {where}, T1", "ns/tx", spent[APPLY] / count)
            report.add(f"ids: {where}, T6", "ns/tx", spent[BUILD] / count)
            report.add(f"ids: {where}, rate", "tx/s", count / seconds)
    if engine.counts().transactions < transactions:
        raise RuntimeError("not every payment was committed")
    _memory(report, engine, f"{transactions / 1e6:g} million transactions, while running")
    opened.close()
    return kept


def _memory(report: Report, engine: Engine, when: str) -> None:
    numbers = engine.indexes()
    report.add(f"ids: memory, {when}", "MiB", numbers.id_memory / MIB)
    report.add(f"ids: on the disk, {when}", "bytes/id", numbers.id_bytes / max(numbers.ids, 1))


def _ask(report: Report, opened: OpenStore, lines: list[bytes], name: str, *, duplicates: bool) -> None:
    engine, before = opened.engine, thread_ns()
    engine.submit(b"\n".join(lines), source=b"again.ndjson", first_line=1, mode=Mode.EACH)
    engine.drain()
    spent = thread_ns() - before
    (completion,) = engine.completions()
    if completion.committed != len(lines) or completion[len(lines) - 1].duplicate != duplicates:
        raise RuntimeError("an id was taken for another")
    report.add(name, "ns/intent", spent[APPLY] / len(lines))
