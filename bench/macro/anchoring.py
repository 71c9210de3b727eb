"""What digests cost: the same NDJSON files with a digest and an anchor each second, and with none.

The anchor is a folder beside the store, so its writes go to the same disk: the dearest place for one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted
from bench.measure import Report, timed

ACCOUNTS: Final = 10_000
NONE, EACH_SECOND = "no digest", "a digest and an anchor each second"
SECONDS: Final = {NONE: 86_400, EACH_SECOND: 1}


def run(report: Report, directory: Path, *, seed: int, transactions: int) -> None:
    """Both in turn, ``report.repeats`` times, each on a new store."""
    files = workload.write_files(directory / "intents", workload.Payments(seed, ACCOUNTS), transactions)
    title = f"NDJSON with cp, {ACCOUNTS:,} accounts"
    for _ in range(report.repeats):
        for way, seconds in SECONDS.items():
            _run(report, directory, f"{title}, {way}", seconds, files, transactions)
    report.ratio(f"{title}, digests / none", f"{title}, {EACH_SECOND}", f"{title}, {NONE}")


def _run(report: Report, directory: Path, name: str, seconds: int, files: list[Path], transactions: int) -> None:
    folder, settings = directory / "anchors", directory / "ledger.toml"
    folder.mkdir(exist_ok=True)
    settings.write_text(f'anchors = ["{folder}"]\nanchor_seconds = {seconds}\n', encoding="utf-8")
    with Mounted(directory / "ledger", ACCOUNTS, "--config", str(settings)) as ledger:
        before = ledger.transactions()
        with timed() as section:
            subprocess.run(["cp", *files, ledger.mount / "inbox"], check=True)
        made = ledger.transactions() - before
        if made != transactions:
            raise RuntimeError(f"{name}: {made} transactions, not {transactions}")
        report.spent(name, section)
        report.add(name, "tx/s", made / section.seconds)
        report.note(f"{name}: {len(list((ledger.mount / 'digests').iterdir())) - 1} digests")
    # Immutable where the file system can: only root takes that away again.
    subprocess.run(["chattr", "-R", "-i", folder], check=False, capture_output=True)
    for path in folder.iterdir():
        path.unlink()
