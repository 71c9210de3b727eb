"""The benchmarks of LedgerFS: NAME after NAME, each measured several times, printed, and kept in a JSON file.

Every figure is the median of several runs with the least and the most beside it; what is compared is measured in turn within
the same invocation, and a ratio is taken run by run. A measurement that fails is kept as failed and the others go on. A file
that has results of the same machine and the same code is added to. `make bench-report` makes docs/BENCHMARKS.md of them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path.insert(0, str(REPOSITORY))

from bench import measure, safety  # noqa: E402
from bench.fio import jobs  # noqa: E402
from bench.interrupt import interruptible  # noqa: E402
from bench.macro import (  # noqa: E402
    anchoring,
    audit,
    events,
    exporting,
    flat,
    history,
    ids,
    ndjson,
    past,
    patterns,
    proofs,
    reading,
    restart,
    single,
    socketing,
    sustained,
    verifying,
)
from bench.measure import Report  # noqa: E402
from bench.micro import disk, merging, stages, stores  # noqa: E402
from bench.peers import against, tigerbeetle  # noqa: E402
from bench.record import Record, code, machine, now  # noqa: E402
from ledgerfsd.errors import LedgerError  # noqa: E402


def main() -> int:
    """Run what was asked for, print it, and keep it. Returns 1 when a measurement failed, 2 for what cannot be done."""
    options = parser().parse_args()
    options.postgres = dict(options.postgres or [])
    try:
        unsafe = safety.look(existing(options.dir), options.postgres)
        safety.refuse(unsafe, {name for name in safety.UNSAFE if getattr(options, f"unsafe_{name}")})
        if options.tigerbeetle:
            options.tigerbeetle = options.tigerbeetle.resolve()
            tigerbeetle.version(options.tigerbeetle)
        replace = options.replace or options.json is None
        options.json = options.json or DEFAULT
        record = Record(options.json, machine(options.dir), code(), replace=replace)
        record.check()
    except LedgerError as error:
        print(f"bench: {told(error)}", file=sys.stderr)
        return 2
    measure.patience = options.patience
    facts = machine(options.dir) | code() | {"seed": str(options.seed), "settings": safety.ALWAYS}
    print("\n".join(f"{name:12} {value}" for name, value in facts.items()), flush=True)
    for found in unsafe:
        print(f"UNSAFE       {found.where}: {safety.UNSAFE[found.name]}", flush=True)
    failed: list[str] = []
    names = options.only or (AIMS if options.aims else [name for name in MEASUREMENTS if name not in APART])
    with interruptible():
        directory = Path(tempfile.mkdtemp(prefix="ledgerfs-bench-", dir=options.dir))
        directory.chmod(0o755)  # PostgreSQL runs as a user of its own
        try:
            for name in names:
                failed += [name] * (not one(name, directory, record, options, [found.name for found in unsafe]))
        except KeyboardInterrupt:
            print(f"interrupted; what was measured is in {options.json}", file=sys.stderr)
            return 130
        finally:
            if not options.keep:
                remove(directory)
    print(f"written to {options.json}" + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def one(name: str, directory: Path, record: Record, options: argparse.Namespace, unsafe: list[str]) -> bool:
    """One measurement; whatever happens to it, what it had is kept and the next can go on. False: it failed."""
    report = Report(options.repeats or (1 if options.quick else 3))
    facts: dict[str, Any] = {
        "title": (MEASUREMENTS[name].__doc__ or name).strip(),
        "began": now(),
        "commit": code()["commit"],
        "command": command(name, options),
        "seed": options.seed,
        "settings": safety.ALWAYS,
        "quick": options.quick,
        "unsafe": unsafe,
    }
    began, failed, pace = time.monotonic(), "", measure.pace()
    print(f"\n== {name}: {facts['command']}", flush=True)
    try:
        MEASUREMENTS[name](report, directory, options)
    except LedgerError as error:  # what the user can change
        failed = told(error)
    except Exception as error:
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}"[:500]
    except KeyboardInterrupt:
        failed = "interrupted"
        raise
    finally:
        facts["seconds"] = round(time.monotonic() - began)
        report.notes.append(
            f"Pace of the machine: hashlib took {pace:.0f} ms for 16 MiB before, {measure.pace():.0f} afterwards."
        )
        record.keep(name, report, facts, failed=failed)
    print(report.table() + (f"\nFAILED: {failed}" if failed else ""))
    print(f"{name}: {facts['seconds']} s", file=sys.stderr, flush=True)
    return not failed


def remove(directory: Path) -> None:
    """It and all below; a signer whose daemon was killed may put something there for a moment yet."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)
    print(f"could not remove {directory}; please do", file=sys.stderr)


def told(error: LedgerError) -> str:
    """What is wrong and what to do, in a line."""
    return f"{error}" + (f"; {error.hint}" if error.hint else "")


def command(name: str, options: argparse.Namespace) -> str:
    """How to run one measurement again as it was run."""
    words = [f"--only {name}"]
    for option in ("quick", "aims", "big"):
        words += [f"--{option}"] * getattr(options, option)
    for option in ("repeats", "transactions", "seed", "accounts"):
        if getattr(options, option) != parser().get_default(option):
            words.append(f"--{option} {getattr(options, option)}")
    if name in BESIDE_TIGERBEETLE:  # whoever has none can repeat all the others as they were run
        words += ["--tigerbeetle PATH"] * bool(options.tigerbeetle)
    words += [f"--postgres {key}={value}" for key, value in options.postgres.items()]
    words += [f"--unsafe-{each}" for each in safety.UNSAFE if getattr(options, f"unsafe_{each}")]
    if name == "sustained" and not options.quick:
        words.append(f"--sustained-seconds {options.sustained_seconds:g} --sustained-rate {options.sustained_rate:g}")
    return f"make bench BENCH_ARGS='{' '.join(words)}'"


def existing(directory: Path) -> Path:
    """The directory, made if need be. Raises LedgerError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{directory}: {error.strerror}", hint="give another place for stores with --dir") from None
    return directory


def measure_ndjson(report: Report, directory: Path, options: Any) -> None:
    """NDJSON files through the mount and directly."""
    ways = [f"128 KiB writes, {writers}" for writers in ("1 writer", "2 writers", "8 writers", "32 writers")]
    ways = [*ways, ndjson.CP] if options.aims else list(ndjson.ALL)
    ndjson.run(report, directory, seed=options.seed, transactions=100_000 if options.quick else 1_000_000, ways=ways)


def measure_million_accounts(report: Report, directory: Path, options: Any) -> None:
    """The same over a million accounts with random ids, two ways in: opening them takes longer than the payments."""
    count, transactions = (100_000, 100_000) if options.quick else (1_000_000, 1_000_000)
    ndjson.run(
        report,
        directory,
        seed=options.seed,
        transactions=transactions,
        accounts=count,
        random_ids=True,
        ways=["128 KiB writes, 2 writers", "128 KiB writes, 8 writers"],
    )


def measure_patterns(report: Report, directory: Path, options: Any) -> None:
    """Uniform, Zipf and one hot account; counted and random ids; ten thousand and a million accounts."""
    accounts = (10_000, 100_000 if options.quick else 1_000_000)
    transactions = 100_000 if options.quick else 1_000_000
    patterns.run(report, directory, seed=options.seed, transactions=transactions, accounts=accounts)


def measure_single(report: Report, directory: Path, options: Any) -> None:
    """One intent a file."""
    single.run(report, directory, seed=options.seed, files=640 if options.quick else 16_000)


def measure_mixed(report: Report, directory: Path, options: Any) -> None:
    """Nine reads for each write, against the same in PostgreSQL."""
    operations, seconds = (1_600, 2) if options.quick else (32_000, 10)
    against.mixed(
        report, directory, seed=options.seed, operations=operations, seconds=seconds, settings=options.postgres
    )


def measure_sustained(report: Report, directory: Path, options: Any) -> None:
    """Minutes at a steady rate: what grows?"""
    seconds, every = (10.0, 1.0) if options.quick else (options.sustained_seconds, options.sustained_seconds / 120)
    sustained.run(
        report, directory, seed=options.seed, seconds=seconds, rate=options.sustained_rate, every=max(1.0, every)
    )


def measure_flat(report: Report, directory: Path, options: Any) -> None:
    """The rate at fifty million transactions against that at one."""
    transactions = options.transactions or (1_000_000 if options.quick else 50_000_000)
    flat.run(report, directory, seed=options.seed, transactions=transactions, accounts=options.accounts)


def measure_reading(report: Report, directory: Path, options: Any) -> None:
    """Opening, reading and closing ``balance.json``, cold and cached."""
    reading.run(report, directory, seed=options.seed, transactions=100_000, files=200 if options.quick else 2_000)


def measure_fio(report: Report, directory: Path, options: Any) -> None:
    """fio on files of the mount, and on the same bytes as plain files."""
    names = jobs.AIMS if options.aims else None
    files = 200 if options.quick else 2_000
    jobs.run(report, directory, seed=options.seed, transactions=100_000, files=files, names=names)


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


def measure_peers(report: Report, directory: Path, options: Any, accounts: int = 10_000) -> None:
    """Batch for batch against PostgreSQL, over ten thousand accounts; TigerBeetle where there is one."""
    transactions = 100_000 if options.quick else 500_000 if options.aims else 1_000_000
    against.batches(
        report,
        directory,
        seed=options.seed,
        transactions=transactions,
        accounts=accounts,
        settings=options.postgres,
        binary=options.tigerbeetle,
    )


def measure_peers_million(report: Report, directory: Path, options: Any) -> None:
    """Batch for batch against PostgreSQL, over a million accounts; TigerBeetle where there is one."""
    measure_peers(report, directory, options, 100_000 if options.quick else 1_000_000)


def measure_peers_hot(report: Report, directory: Path, options: Any) -> None:
    """The same where one account is paid by all, which is what a merchant or a fee account is."""
    transactions = 100_000 if options.quick else 1_000_000
    against.batches(
        report,
        directory,
        seed=options.seed,
        transactions=transactions,
        accounts=10_000,
        settings=options.postgres,
        pattern="hot",
    )


def measure_peers_single(report: Report, directory: Path, options: Any) -> None:
    """One by one against PostgreSQL."""
    files, seconds = (640, 2) if options.quick else (6_400, 5 if options.aims else 10)
    against.one_by_one(
        report,
        directory,
        seed=options.seed,
        accounts=10_000,
        files=files,
        seconds=seconds,
        settings=options.postgres,
    )


def measure_socket(report: Report, directory: Path, options: Any) -> None:
    """Lines over the socket."""
    socketing.run(report, directory, seed=options.seed, intents=6_400 if options.quick else 64_000)


def measure_past(report: Report, directory: Path, options: Any) -> None:
    """Balances as they were, trial balances, diff and replay."""
    count = 10_000 if options.quick else 1_000_000
    transactions = options.transactions or max(count, 100_000)
    past.run(report, directory, seed=options.seed, transactions=transactions, accounts=count, reads_only=options.aims)


def measure_history(report: Report, directory: Path, options: Any) -> None:
    """Indexes, past balances, long histories, long listings."""
    transactions = options.transactions or (200_000 if options.quick else 10_000_000 if options.big else 2_000_000)
    accounts = 10_000 if options.quick else 1_000_000 if options.big else 100_000
    hot = min(1_000_000, transactions // 2)
    history.run(report, directory, seed=options.seed, transactions=transactions, accounts=accounts, hot=hot)


def measure_audit(report: Report, directory: Path, options: Any) -> None:
    """What an auditor does through the mount: proofs, past balances, trails of accounts."""
    transactions, count = (100_000, 100) if options.quick else (1_000_000, 1_000)
    audit.run(report, directory, seed=options.seed, transactions=transactions, proofs=count)


def measure_micro(report: Report, directory: Path, options: Any) -> None:
    """Stages by themselves: parse to state root, append and fsync, runs of indexes, replay, snapshots, proofs, hash chain."""
    accounts = (10_000, 100_000 if options.quick else 1_000_000)
    transactions = 50_000 if options.quick else 500_000
    stages.run(report, seed=options.seed, transactions=transactions, accounts=accounts)
    disk.run(report, directory, quick=options.quick)
    merging.run(report, directory, quick=options.quick)
    stores.run(
        report,
        directory,
        seed=options.seed,
        transactions=transactions,
        accounts=10_000 if options.quick else 100_000,
        proofs_made=200 if options.quick else 2_000,
    )


def measure_ids(report: Report, directory: Path, options: Any) -> None:
    """Ids of many transactions: memory, disk, and what they cost commits."""
    ids.run(
        report,
        directory,
        seed=options.seed,
        transactions=options.transactions or (200_000 if options.quick else 5_000_000),
    )


def measure_verifying(report: Report, directory: Path, options: Any) -> None:
    """Verifying a whole store."""
    transactions = options.transactions or (100_000 if options.quick else 10_000_000)
    accounts = 10_000 if options.quick else 1_000_000
    verifying.run(
        report, directory, seed=options.seed, transactions=transactions, accounts=accounts, whole_only=options.aims
    )


MEASUREMENTS: Final[dict[str, Callable[[Report, Path, Any], None]]] = {
    "micro": measure_micro,
    "ndjson": measure_ndjson,
    "million-accounts": measure_million_accounts,
    "patterns": measure_patterns,
    "single": measure_single,
    "mixed": measure_mixed,
    "socket": measure_socket,
    "reading": measure_reading,
    "fio": measure_fio,
    "restart": measure_restart,
    "accounts": measure_accounts,
    "proofs": measure_proofs,
    "verifying": measure_verifying,
    "audit": measure_audit,
    "past": measure_past,
    "history": measure_history,
    "events": measure_events,
    "digests": measure_digests,
    "exports": measure_exports,
    "ids": measure_ids,
    "peers": measure_peers,
    "peers-million": measure_peers_million,
    "peers-hot": measure_peers_hot,
    "peers-single": measure_peers_single,
    "sustained": measure_sustained,
    "flat": measure_flat,
}
# What the table of aims is made of (bench/remarks/aims.toml), the quickest first: `--aims`.
AIMS: Final = (
    "ndjson",
    "single",
    "reading",
    "fio",
    "million-accounts",
    "peers",
    "peers-hot",
    "peers-single",
    "past",
    "proofs",
    "verifying",
    "restart",
    "peers-million",
)
BESIDE_TIGERBEETLE: Final = ("peers", "peers-million")
DEFAULT: Final = REPOSITORY / "build" / "bench.json"
# What takes ten minutes, or 35 GB of disk: only when it is named.
APART: Final = ("sustained", "flat")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="bench.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="sustained and flat run only when they are named: they take ten minutes, and 35 GB of disk.\n\nexamples:\n"
        "  make bench BENCH_ARGS='--aims --json bench/results/xeon.json' && make bench-report\n"
        "  make bench BENCH_ARGS='--only flat --json bench/results/xeon.json'\n"
        "  make bench BENCH_ARGS='--only peers --only peers-million --tigerbeetle PATH --json bench/results/xeon.json'\n"
        "  make bench-quick BENCH_ARGS='--only ndjson --only single'",
    )
    made.add_argument("--quick", action="store_true", help="a tenth of the work, one run: does it work at all?")
    made.add_argument("--aims", action="store_true", help="what the table of aims needs, in a quarter of an hour")
    made.add_argument("--only", choices=list(MEASUREMENTS), action="append", help="only this one (may be repeated)")
    made.add_argument("--repeats", type=least(1), help="runs of each measurement (default 3, quick 1)")
    made.add_argument("--seed", type=int, default=1, help="of the workload (default 1)")
    made.add_argument(
        "--transactions",
        type=least(100_000),
        help="how many, where that can be chosen (flat, restart, proofs, past …): 100,000 and more",
    )
    made.add_argument("--accounts", type=least(2), default=10_000, help="how many flat has (default 10,000)")
    made.add_argument("--big", action="store_true", help="history with 10 million transactions and a million accounts")
    made.add_argument("--sustained-seconds", type=amount, default=600, help="how long sustained runs (default 600)")
    made.add_argument(
        "--sustained-rate", type=amount, default=20_000, help="its transactions a second (default 20,000; 0: no limit)"
    )
    made.add_argument(
        "--tigerbeetle", type=Path, metavar="PATH", help="a tigerbeetle binary to compare with (peers, peers-million)"
    )
    made.add_argument(
        "--postgres",
        type=setting,
        metavar="NAME=VALUE",
        action="append",
        help="a setting of PostgreSQL, over those of bench/peers/postgres.py (may be repeated)",
    )
    made.add_argument(
        "--patience",
        type=amount,
        default=30,
        help="seconds to wait for an idle machine before each timed section (default 30)",
    )
    made.add_argument(
        "--json",
        type=Path,
        help="where results are kept and merged, for the report (default build/bench.json, which is replaced when need be)",
    )
    made.add_argument(
        "--replace", action="store_true", help="begin the file anew if it is of another machine or another code"
    )
    made.add_argument(
        "--dir", type=Path, default=REPOSITORY / "build", help="where stores are made: a real disk, no tmpfs"
    )
    made.add_argument("--keep", action="store_true", help="leave the stores behind")
    for name, what in safety.UNSAFE.items():
        made.add_argument(f"--unsafe-{name}", action="store_true", help=f"measure in spite of {what}")
    return made


def least(number: int) -> Callable[[str], int]:
    """A whole number that is not less."""

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < number:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {number:,} on")
        return int(text)

    return whole


def amount(text: str) -> float:
    """A number, not negative."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number, such as 600 or 0.5")
    return float(text)


def setting(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
