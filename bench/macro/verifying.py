"""``ledgerfs verify`` of a whole store: on all processors, on one, and of what came after a checkpoint; from the kernel's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.macro import proofs
from bench.measure import Report, timed
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state.verify import WHOLE, Part, verify

AIM: Final = "aim 1,000,000"


def run(report: Report, directory: Path, *, seed: int, transactions: int, accounts: int, whole_only: bool) -> None:
    """One large store, made once; then every measurement ``report.repeats`` times."""
    store = Layout(proofs.filled(directory, seed, transactions, accounts))
    size = sum(path.stat().st_size for path in store.segments())
    for _ in range(report.repeats):
        entries, seconds = _verify(report, store, "verify, all processors", None, WHOLE, AIM)
        report.add("verify, all processors, bytes", "MB/s", size / seconds / 1e6)
        if whole_only:
            continue
        _verify(report, store, "verify, one job", 1, WHOLE)
        _verify(report, store, "verify, --from the newest seal", None, Part(trusted=entries))


def _verify(report: Report, store: Layout, name: str, jobs: int | None, part: Part, aim: str = "") -> tuple[int, float]:
    with timed() as section:
        findings, found = verify(store, anchors=[], jobs=jobs, part=part)
    if [each for each in findings if each.severity != "note"]:
        raise RuntimeError(f"the store does not verify: {findings[:3]}")
    report.spent(name, section)
    report.add(name, "entries/s", found.entries / section.seconds, aim=aim)
    return found.entries, section.seconds
