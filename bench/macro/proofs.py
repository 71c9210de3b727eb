"""Proofs: making one, and having one in hand after ``close()`` (issue 3, point 6). Verifying is verifying.py's."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted, need_room
from bench.measure import Report, timed
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal import layout
from ledgerfsd.journal.layout import Layout
from ledgerfsd.merkle import proof, tlog_proof
from ledgerfsd.service.keys import parse_trusted_root
from ledgerfsd.state.opening import open_store
from ledgerfsd.types import Mode

PROOFS: Final = 5_000
DROPS: Final = 500
INFLIGHT: Final = 32 * 2**20


def run(report: Report, directory: Path, *, seed: int, transactions: int, accounts: int) -> None:
    """One large store, made once; then every measurement ``report.repeats`` times."""
    store = filled(directory, seed, transactions, accounts)
    chance = random.Random(seed)
    for _ in range(report.repeats):
        _make(report, store, chance, accounts)
        _in_hand(report, directory, seed)


def filled(directory: Path, seed: int, transactions: int, accounts: int) -> Path:
    """A store with so many accounts and transfers between them, saved and closed; made once in an invocation."""
    store = directory / f"filled-{seed}-{transactions}-{accounts}"
    if not store.exists():
        need_room(directory, transactions + 2 * accounts)
        draft = store.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        fill(draft, seed, transactions, accounts)
        draft.rename(store)
    return store


def fill(store: Path, seed: int, transactions: int, accounts: int) -> None:
    """Make it."""
    opened = open_store(layout.create(store, "ledger.example/bench"))
    engine = opened.engine
    engine.start()
    for piece in workload.open_accounts(accounts):
        _submit(engine, piece, b"accounts.ndjson")
    stamped = workload.Stamped(seed, accounts)
    for number in range(transactions // workload.FILE_INTENTS):
        _submit(engine, stamped.file(number), b"p%d.ndjson" % number)
    engine.drain()
    opened.projector.save_now()
    opened.close()


def _submit(engine: Engine, body: bytes, name: bytes) -> None:
    engine.submit(body, source=name, first_line=1, mode=Mode.EACH)
    while engine.inflight_bytes > INFLIGHT:
        time.sleep(0.001)
        engine.completions()


def _make(report: Report, store: Path, chance: random.Random, accounts: int) -> None:
    opened = open_store(Layout(store))
    engine = opened.engine
    engine.start()
    size = engine.block(engine.counts().blocks) + 1
    report.note(f"proofs: of {engine.counts().entries:,} entries and {engine.counts().accounts:,} accounts")
    taken: list[float] = []
    with timed() as section:
        for _ in range(PROOFS):
            number = chance.randrange(engine.counts().transactions) + 1
            began = time.perf_counter()
            proof.inclusion(engine.hashes, engine.transaction(number), size)
            taken.append(time.perf_counter() - began)
    report.spent("inclusion proof", section)
    report.latencies("inclusion proof made", taken, aims={99: "must < 50, aim < 1"})
    taken = []
    with timed() as section:
        for _ in range(PROOFS // 10):
            began = time.perf_counter()
            engine.prove(chance.randrange(accounts))
            while not engine.proofs():
                time.sleep(0)
            taken.append(time.perf_counter() - began)
    report.spent("balance proof", section)
    report.latencies("balance proof made, state sealed", taken, aims={99: "must < 50, aim < 1"})
    opened.close()


def _in_hand(report: Report, directory: Path, seed: int) -> None:
    """From the return of close() to a proof that was read and verified."""
    with Mounted(directory / "ledger", 1_000) as ledger:
        root = parse_trusted_root((ledger.mount / ".ledgerfs/trusted_root.json").read_bytes(), "the mount")
        verifiers = [key.verifier for key in root.keys]
        payments = workload.Payments(seed, 1_000, prefix="proof")
        taken: list[float] = []
        with timed() as section:
            for number in range(DROPS):
                path = ledger.mount / "inbox" / f"{number}.json"
                path.write_bytes(payments.one())
                began = time.perf_counter()
                name = json.loads((ledger.mount / "receipts" / path.name).read_bytes())["tx"]
                entry = (ledger.mount / "transactions" / f"{name}.json").read_bytes()
                text = (ledger.mount / "proofs" / f"{name}.tlog-proof").read_bytes()
                tlog_proof.verify(text, entry, root.ledger, verifiers)
                taken.append(time.perf_counter() - began)
        report.spent("close to proof", section)
        report.latencies("close() to a verified proof in hand", taken, aims={99: "must < 50, aim < 5"})
