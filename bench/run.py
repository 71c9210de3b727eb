"""The benchmarks. ``make bench`` runs all; ``make bench BENCH_ARGS=--quick`` a small version of each.

Start at ``main``. Every figure is the median of several runs with the least and the most beside it; what is compared is
measured in turn within the same invocation, and the ratio is taken run by run. See README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path.insert(0, str(REPOSITORY))

from bench import measure  # noqa: E402
from bench.fio import jobs  # noqa: E402
from bench.macro import (  # noqa: E402
    anchoring,
    events,
    exporting,
    history,
    ndjson,
    past,
    proofs,
    reading,
    restart,
    single,
    socketing,
    verifying,
)
from bench.measure import Report, machine  # noqa: E402
from bench.peers import against  # noqa: E402

RESULTS: Final = REPOSITORY / "bench" / "results"


def main() -> int:
    """Run what was asked for and print it."""
    options = parser().parse_args()
    chosen = options.only or list(MEASUREMENTS)
    options.dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="ledgerfs-bench-", dir=options.dir))
    directory.chmod(0o755)  # PostgreSQL runs as a user of its own
    measure.patience = options.patience
    report = Report(options.repeats or (1 if options.quick else 3))
    facts = machine(directory) | {
        "seed": str(options.seed),
        "runs": str(report.repeats),
        "durability": "fdatasync before every acknowledgement",
        "command": " ".join(["python", "-m", "bench.run", *sys.argv[1:]]),
    }
    print("\n".join(f"{name:12} {value}" for name, value in facts.items()), flush=True)
    try:
        for name in chosen:
            began = time.monotonic()
            MEASUREMENTS[name](report, directory, options)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    print(report.table())
    place = options.json or RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"machine": facts, **report.data()}, indent=1) + "\n")
    print(f"written to {place}")
    return 0


def measure_ndjson(report: Report, directory: Path, options: Any) -> None:
    """NDJSON files through the mount and directly."""
    ndjson.run(report, directory, seed=options.seed, transactions=100_000 if options.quick else 1_000_000)


def measure_million_accounts(report: Report, directory: Path, options: Any) -> None:
    """The same over a million accounts, one way in: opening them takes longer than the payments."""
    count, transactions = (100_000, 100_000) if options.quick else (1_000_000, 1_000_000)
    ndjson.run(
        report,
        directory,
        seed=options.seed,
        transactions=transactions,
        accounts=count,
        ways=["128 KiB writes, 2 writers"],
    )


def measure_single(report: Report, directory: Path, options: Any) -> None:
    """One intent a file."""
    single.run(report, directory, seed=options.seed, files=640 if options.quick else 6_400)


def measure_reading(report: Report, directory: Path, options: Any) -> None:
    """Opening, reading and closing ``balance.json``, cold and cached."""
    reading.run(report, directory, seed=options.seed, transactions=100_000, files=200 if options.quick else 2_000)


def measure_fio(report: Report, directory: Path, options: Any) -> None:
    """fio on files of the mount, and on the same bytes as plain files."""
    jobs.run(report, directory, seed=options.seed, transactions=100_000, files=200 if options.quick else 2_000)


def measure_restart(report: Report, directory: Path, options: Any) -> None:
    """Start after a stop and after kill -9; memory a million transactions."""
    restart.run(
        report,
        directory,
        seed=options.seed,
        transactions=options.transactions or (1_000_000 if options.quick else 10_000_000),
    )


def measure_accounts(report: Report, directory: Path, options: Any) -> None:
    """Memory a million accounts."""
    restart.accounts(report, directory, count=100_000 if options.quick else 1_000_000)


def measure_proofs(report: Report, directory: Path, options: Any) -> None:
    """Making proofs, having one in hand after close()."""
    transactions = options.transactions or (100_000 if options.quick else 10_000_000)
    accounts = 10_000 if options.quick else 1_000_000
    proofs.run(report, directory, seed=options.seed, transactions=transactions, accounts=accounts)


def measure_events(report: Report, directory: Path, options: Any) -> None:
    """Commit to consumer, reading the log, and writing beside readers."""
    transactions, files = (100_000, 200) if options.quick else (500_000, 2_000)
    events.run(report, directory, seed=options.seed, transactions=transactions, files=files)


def measure_digests(report: Report, directory: Path, options: Any) -> None:
    """A digest and an anchor each second under full load, against none."""
    anchoring.run(
        report,
        directory,
        seed=options.seed,
        transactions=options.transactions or (100_000 if options.quick else 2_000_000),
    )


def measure_exports(report: Report, directory: Path, options: Any) -> None:
    """Plain-text accounting."""
    exporting.run(report, directory, seed=options.seed, transactions=100_000 if options.quick else 1_000_000)


def measure_peers(report: Report, directory: Path, options: Any) -> None:
    """Batch for batch against PostgreSQL, over ten thousand and a million accounts; TigerBeetle where there is one."""
    transactions = 100_000 if options.quick else 1_000_000
    for accounts in (10_000, 100_000 if options.quick else 1_000_000):
        against.batches(report, directory, seed=options.seed, transactions=transactions, accounts=accounts)
        if options.tigerbeetle:
            against.tigerbeetle(report, options.tigerbeetle, transactions=transactions, accounts=accounts)


def measure_peers_single(report: Report, directory: Path, options: Any) -> None:
    """One by one against PostgreSQL."""
    files, seconds = (640, 2) if options.quick else (6_400, 10)
    against.one_by_one(report, directory, seed=options.seed, accounts=10_000, files=files, seconds=seconds)


def measure_socket(report: Report, directory: Path, options: Any) -> None:
    """Lines over the socket."""
    socketing.run(report, directory, seed=options.seed, intents=6_400 if options.quick else 64_000)


def measure_past(report: Report, directory: Path, options: Any) -> None:
    """Balances as they were, trial balances, diff and replay."""
    count = 10_000 if options.quick else 1_000_000
    past.run(
        report, directory, seed=options.seed, transactions=options.transactions or max(count, 100_000), accounts=count
    )


def measure_history(report: Report, directory: Path, options: Any) -> None:
    """Indexes, past balances, long histories, long listings."""
    transactions = options.transactions or (200_000 if options.quick else 10_000_000 if options.big else 2_000_000)
    accounts = 10_000 if options.quick else 1_000_000 if options.big else 100_000
    hot = min(1_000_000, transactions // 2)
    history.run(report, directory, seed=options.seed, transactions=transactions, accounts=accounts, hot=hot)


def measure_verifying(report: Report, directory: Path, options: Any) -> None:
    """Verifying a whole store."""
    transactions = options.transactions or (100_000 if options.quick else 10_000_000)
    accounts = 10_000 if options.quick else 1_000_000
    verifying.run(report, directory, seed=options.seed, transactions=transactions, accounts=accounts)


MEASUREMENTS: Final[dict[str, Callable[[Report, Path, Any], None]]] = {
    "ndjson": measure_ndjson,
    "million-accounts": measure_million_accounts,
    "single": measure_single,
    "reading": measure_reading,
    "fio": measure_fio,
    "restart": measure_restart,
    "accounts": measure_accounts,
    "proofs": measure_proofs,
    "past": measure_past,
    "events": measure_events,
    "verifying": measure_verifying,
    "digests": measure_digests,
    "exports": measure_exports,
    "socket": measure_socket,
    "history": measure_history,
    "peers": measure_peers,
    "peers-single": measure_peers_single,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="bench.run", description="Benchmarks of LedgerFS, through the mount.")
    made.add_argument("--quick", action="store_true", help="a tenth of the work, one run: does it work at all?")
    made.add_argument("--only", choices=list(MEASUREMENTS), action="append", help="only this one (may be repeated)")
    made.add_argument("--repeats", type=int, help="runs of each measurement (default 3, quick 1)")
    made.add_argument(
        "--transactions",
        type=int,
        help="of the restart, proofs and past measurements (default 10,000,000, quick 1,000,000)",
    )
    made.add_argument("--seed", type=int, default=1, help="of the workload (default 1)")
    made.add_argument(
        "--patience",
        type=float,
        default=30,
        help="seconds to wait for an idle machine before each timed section (default 30)",
    )
    made.add_argument("--big", action="store_true", help="history with 10 million transactions and a million accounts")
    made.add_argument("--tigerbeetle", type=Path, metavar="PATH", help="a tigerbeetle binary to compare with (peers)")
    made.add_argument("--json", type=Path, help="where to write every value (default bench/results/<time>.json)")
    made.add_argument(
        "--dir", type=Path, default=REPOSITORY / "build", help="where stores are made: a real disk, no tmpfs"
    )
    made.add_argument("--keep", action="store_true", help="leave the stores behind")
    return made


if __name__ == "__main__":
    sys.exit(main())
