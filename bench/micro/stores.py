"""A store at rest: replaying its journal, writing and reading what a start needs (the saved projection), and proofs made and verified."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Final

from bench import workload
from bench.macro import proofs
from bench.measure import Report, each_of, timed
from ledgerfsd.core import hashing
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal.layout import Layout
from ledgerfsd.merkle import checkpoint, note, proof
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.state.opening import open_store
from ledgerfsd.state.rebuild import rebuild
from ledgerfsd.types import Mode

ORIGIN: Final = "ledger.example/bench"
CHANGES: Final = 10_000  # transactions before the snapshot is written


def run(report: Report, directory: Path, *, seed: int, transactions: int, accounts: int, proofs_made: int) -> None:
    """One store, made once; then every stage ``report.repeats`` times."""
    layout = Layout(directory / "micro")
    proofs.fill(layout.root, seed, transactions, accounts)
    chance, where = random.Random(seed), f"{accounts:,} accounts"
    for turn in range(report.repeats):
        with timed() as section:
            recovery = rebuild(layout)
        report.spent("replay", section)
        report.add(f"replay of a journal, {where}", "entries/s", recovery.replayed / section.seconds)
        payments = workload.Payments(seed, accounts, prefix=f"turn{turn}")
        _saving(report, layout, where, payments.lines(CHANGES))
        opened = open_store(layout)
        try:
            _proofs(report, opened.engine, chance, proofs_made)
        finally:
            opened.close()
    shutil.rmtree(layout.root)


def _saving(report: Report, layout: Layout, where: str, lines: bytes) -> None:
    with timed() as section:
        opened = open_store(layout)
    report.spent("snapshot load", section)
    report.add(f"snapshot load and open, {where}", "ms", section.seconds * 1e3)
    try:
        opened.engine.start()
        opened.engine.submit(lines, source=b"changes.ndjson", first_line=1, mode=Mode.EACH)
        opened.engine.drain()
        with timed() as section:
            opened.projector.save_now()
        report.spent("snapshot write", section)
        report.add(f"snapshot write after {CHANGES:,} transactions, {where}", "ms", section.seconds * 1e3)
    finally:
        opened.close()


def _proofs(report: Report, engine: Engine, chance: random.Random, count: int) -> None:
    size = engine.block(engine.counts().blocks) + 1
    root = proof.root(engine.hashes, size)
    indexes = [chance.randrange(size) for _ in range(count)]
    leaves = [hashing.leaf_hashes([engine.entry(index)]) for index in indexes]
    made = each_of(
        report, "inclusion proof made", indexes, lambda index: proof.inclusion(engine.hashes, index, size), unit="us"
    )
    each_of(
        report,
        "inclusion proof verified",
        list(zip(indexes, leaves, made, strict=True)),
        lambda each: proof.verify_inclusion(each[0], size, each[1], each[2], root),
        unit="us",
    )
    olds = [1 + chance.randrange(size - 1) for _ in range(count // 5)]
    roots = [proof.root(engine.hashes, old) for old in olds]
    paths = each_of(
        report, "consistency proof made", olds, lambda old: proof.consistency(engine.hashes, old, size), unit="us"
    )
    each_of(
        report,
        "consistency proof verified",
        list(zip(olds, roots, paths, strict=True)),
        lambda each: proof.verify_consistency(each[0], size, each[1], root, each[2]),
        unit="us",
    )
    signer = note.generate(ORIGIN)
    body = Checkpoint(ORIGIN, size, root).body()
    signed = each_of(
        report, "checkpoint signed", [body] * (count // 5), lambda text: note.sign(text, [signer]), unit="us"
    )
    each_of(
        report,
        "checkpoint verified",
        signed,
        lambda data: checkpoint.verify(data, ORIGIN, [signer.verifier()]),
        unit="us",
    )
    report.note(f"proofs: of {size:,} entries")
