"""What an auditor does with the tools at hand: fetch and verify proofs, look at the past, ask for the trail of an account."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from bench import workload
from bench.daemon import Mounted, copy
from bench.measure import REPOSITORY, Report, each_of, timed
from ledgerfsd.merkle import balance_proof, tlog_proof
from ledgerfsd.service.keys import parse_trusted_root

ACCOUNTS: Final = 10_000
REFERENCE: Final = "invoice 4711"
VERIFIER: Final = REPOSITORY / "tools" / "ledgerfs_verify.py"


def run(report: Report, directory: Path, *, seed: int, transactions: int, proofs: int) -> None:
    """One ledger with a state named half-way; every question ``report.repeats`` times."""
    chance = random.Random(seed)
    with Mounted(directory / "ledger", ACCOUNTS) as ledger:
        payments = workload.Payments(seed, ACCOUNTS)
        files = transactions // workload.FILE_INTENTS
        for number in range(files):
            copy([payments.lines(workload.FILE_INTENTS)], ledger.mount / "inbox" / f"{number}.ndjson")
            if number == files // 2:
                (ledger.mount / "snapshots" / "half-way").mkdir()
        status = ledger.status()
        report.note(f"audit: of {status['entries']:,} entries and {status['accounts']:,} accounts")
        for _ in range(report.repeats):
            _proofs(report, ledger.mount, chance, status, proofs)
            _trail(report, ledger.mount, chance, status["transactions"])
            _tools(report, directory, ledger.mount)


def _proofs(report: Report, mount: Path, chance: random.Random, status: dict[str, Any], count: int) -> None:
    root = parse_trusted_root((mount / ".ledgerfs/trusted_root.json").read_bytes(), "the mount")
    verifiers = [key.verifier for key in root.keys]
    transactions, blocks = status["transactions"], status["blocks"]
    names = [f"tx_{chance.randrange(1, transactions + 1):04}" for _ in range(count)]
    entries = [(mount / "transactions" / f"{name}.json").read_bytes() for name in names]
    texts = each_of(
        report, "proof of a transaction, read", names, lambda name: (mount / f"proofs/{name}.tlog-proof").read_bytes()
    )
    each_of(
        report,
        "proof of a transaction, verified with its signature",
        list(zip(texts, entries, strict=True)),
        lambda each: tlog_proof.verify(each[0], each[1], root.ledger, verifiers),
    )
    accounts = [workload.account(chance.randrange(ACCOUNTS)) for _ in range(count)]
    texts = each_of(
        report, "balance proof, read", accounts, lambda name: (mount / "accounts" / name / "proof.json").read_bytes()
    )
    each_of(report, "balance proof, verified", texts, lambda text: balance_proof.verify(text, root.ledger, verifiers))
    heights = sorted(chance.sample(range(1, blocks), 2))
    seals = [json.loads((mount / f"blocks/{height:08}.json").read_bytes()) for height in heights]
    old, new = (int(seal["index"]) + 1 for seal in seals)
    path = mount / "proofs" / "consistency" / f"{old}-{new}"
    each_of(report, "consistency proof, read", [path] * (count // 10), Path.read_bytes)


def _trail(report: Report, mount: Path, chance: random.Random, transactions: int) -> None:
    names = [workload.account(chance.randrange(ACCOUNTS)) for _ in range(200)]
    each_of(
        report, "tx.log of an account, whole", names, lambda name: (mount / "accounts" / name / "tx.log").read_bytes()
    )
    each_of(
        report,
        "statement.csv of an account",
        names,
        lambda name: (mount / "accounts" / name / "statement.csv").read_bytes(),
    )
    months = [next((mount / "accounts" / name / "history").iterdir()) for name in names[:50]]
    each_of(report, "a month of an account's history", months, Path.read_bytes)
    for what, points in (
        ("a named state", ["half-way"] * 200),
        ("any transaction", [f"tx-{chance.randrange(ACCOUNTS + 1, transactions)}" for _ in range(200)]),
    ):
        paths = [
            mount / "snapshots" / point / "accounts" / name / "balance.json"
            for point, name in zip(points, names, strict=True)
        ]
        each_of(report, f"balance as of {what}", paths, Path.read_bytes)


def _tools(report: Report, directory: Path, mount: Path) -> None:
    """Whole programs, their start included: what a person waits for."""
    root, name = str(directory / "trusted_root.json"), workload.account(7)
    (directory / "trusted_root.json").write_bytes((mount / ".ledgerfs" / "trusted_root.json").read_bytes())
    for ending, place in (("json", "transactions"), ("tlog-proof", "proofs")):
        (directory / f"tx.{ending}").write_bytes((mount / place / f"tx_12345.{ending}").read_bytes())
    (directory / "balance.json").write_bytes((mount / "accounts" / name / "proof.json").read_bytes())
    ledgerfs = [sys.executable, "-m", "ledgerfsd.cli.main"]
    proof, entry, balance = (str(directory / each) for each in ("tx.tlog-proof", "tx.json", "balance.json"))
    there = ["--mount", str(mount)]
    for what, command in (
        ("ledgerfs prove tx", [*ledgerfs, "prove", "tx", "12345", "--trusted-root", root, *there]),
        ("ledgerfs prove balance", [*ledgerfs, "prove", "balance", name, "--trusted-root", root, *there]),
        ("ledgerfs history --reference", [*ledgerfs, "history", name, "--reference", REFERENCE, *there]),
        ("ledgerfs diff of 5,000 transactions", [*ledgerfs, "diff", "tx-20000", "tx-25000", *there]),
        ("ledgerfs_verify.py tx, kept", [sys.executable, str(VERIFIER), "tx", proof, entry, "--key", root]),
        ("ledgerfs_verify.py balance, kept", [sys.executable, str(VERIFIER), "balance", balance, "--key", root]),
    ):
        with timed() as section:
            subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
        report.spent(what, section)
        report.add(what, "ms", section.seconds * 1e3)
