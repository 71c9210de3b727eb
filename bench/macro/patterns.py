"""Who pays whom, in how many accounts and under what ids: NDJSON files through the mount, each case in turn, and against the plainest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from bench import workload
from bench.macro import ndjson
from bench.measure import Report

WAY: Final = "128 KiB writes, 2 writers"


def run(report: Report, directory: Path, *, seed: int, transactions: int, accounts: Sequence[int]) -> None:
    """Every pattern with counted and random ids over each number of accounts, ``report.repeats`` times."""
    for turn, count in product(range(report.repeats), accounts):
        for pattern, random_ids in product(workload.PATTERNS, (False, True)):
            once = Report(1)
            ndjson.run(
                once,
                directory,
                seed=seed + turn,
                transactions=transactions,
                accounts=count,
                pattern=pattern,
                random_ids=random_ids,
                ways=[WAY],
                directly=False,
            )
            name = f"{ndjson.titled(count, pattern, random_ids)}, {WAY}"
            report.add(name, "tx/s", once.rows[name].median)
    for count, pattern in product(accounts, workload.PATTERNS):
        plain = f"{ndjson.titled(count)}, {WAY}"
        for random_ids in (False, True):
            name = f"{ndjson.titled(count, pattern, random_ids)}, {WAY}"
            if name != plain:
                report.ratio(f"{name} / uniform, counted ids", name, plain)
