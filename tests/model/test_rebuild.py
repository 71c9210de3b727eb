"""Everything but the journal can be deleted: what is rebuilt from the segments is byte for byte the same tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ledgerfsd.clock import NS_PER_SECOND, format_time
from ledgerfsd.core.pure import entries
from tests.conftest import REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, lines, pay, until, with_accounts
from tests.model.reference import MountLog

# Made by the process, not by the ledger: what the daemon says of itself, the files dropped into it, and the digests that it
# issues as time goes on.
OWN = {"inbox", "receipts", "digests", ".ledgerfs/health", ".ledgerfs/status.json", ".ledgerfs/metrics.prom"}

HOLD_NS = 2 * NS_PER_SECOND  # a hold that ends by itself; it is judged before, however slow the disk is
KIND = re.compile(r"[a-z.]+/1")


def everything(ledger: Mounted) -> None:
    """Entries of every kind, in two registered and two other currencies, over several segments and bundles."""
    ledger.drop(
        "more.ndjson",
        lines(
            [
                {"type": "register_currency", "currency": "POINTS", "decimals": 3},
                {"type": "open_account", "account": "points", "currency": "POINTS", "class": "equity"}
                | {"initial_balance": "7.125", "owner": 'a "quoted" owner', "tags": ["x"], "metadata": {"k": [1, None]}},
                {"type": "open_account", "account": "yen", "currency": "JPY", "class": "customer_liability"}
                | {"limit": "overdraft:500"},
                {"type": "open_account", "account": "yen2", "currency": "JPY", "class": "clearing"},
                pay("300", debit="yen", credit="yen2", effective="2026-11-01", reference="übergabe"),
                {"type": "transaction", "id": "multi", "metadata": {"t": "seal/1"}, "postings": [
                    {"account": "acc_001", "side": "debit", "amount": "3.00"},
                    {"account": "acc_002", "side": "credit", "amount": "2.00"},
                    {"account": "acc_002", "side": "credit", "amount": "1.00"},
                ]},
                pay("5.00", id="h1", type="hold", expires="2199-01-01T00:00:00Z"),
                pay("5.00", id="h2", type="hold"),
                pay("5.00", id="h3", type="hold"),
                {"type": "post", "hold": "h1", "amount": "4.00"},
                {"type": "void", "hold": "h2"},
                {"type": "reverse", "of": "tx_0002", "reference": "back"},
                {"type": "freeze", "account": "empty"},
                {"type": "unfreeze", "account": "empty"},
                {"type": "close_account", "account": "empty"},
                {"type": "close_period", "through": "2020-12-31"},
            ]
        ),
    )  # fmt: skip
    for name, intent in (("poor", pay("999999.00")), ("unknown", pay(credit="nobody"))):
        assert ledger.shell(f"echo '{json.dumps(intent)}' > $I/{name}.json").returncode != 0
    for number in range(3):
        ledger.drop(f"bulk-{number}.ndjson", lines([pay("0.01", metadata={"y": "z" * 2_500})] * 400))
    ledger.drop("soon.json", pay("5.00", type="hold", expires=format_time(time.time_ns() + HOLD_NS)))
    until(lambda: b'"reason":"expired"' in (ledger / "accounts/acc_002/tx.log").read_bytes())
    ledger.seal()
    only_in_trouble = {entries.ANCHOR, entries.RESTORE}  # the daemon makes these, when something outside happens
    kinds = only_in_trouble | {json.loads(entry)["t"] for entry in MountLog(ledger.path).read()}
    assert kinds == {value for value in vars(entries).values() if isinstance(value, str) and KIND.fullmatch(value)}


def attributes(path: Path) -> bytes:
    """The extended attributes."""
    return repr([(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]).encode()


def tree(root: Path) -> dict[str, tuple[int, ...] | bytes]:
    """Every path with what stat says of it, and every file's bytes."""
    found: dict[str, tuple[int, ...] | bytes] = {}
    for directory, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            path = Path(directory, name)
            relative = str(path.relative_to(root))
            if relative in OWN or name.startswith("digest-"):
                if name in names:
                    names.remove(name)
                continue
            status = path.stat()
            found[relative] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns)
            if name in files:
                content = path.read_bytes()
                assert len(content) == status.st_size, relative
                found[relative + " content"] = content
                found[relative + " attributes"] = attributes(path)
    return found


def projections(store: Path) -> dict[str, bytes]:
    """The files of hashes/ and runs/."""
    paths = [path for name in ("hashes", "runs") for path in sorted((store / name).iterdir())]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


def same(before: dict[str, tuple[int, ...] | bytes], after: dict[str, tuple[int, ...] | bytes]) -> None:
    assert sorted(before) == sorted(after)
    assert [name for name in before if before[name] != after[name]] == []


def test_rebuilt_from_segments_alone(store: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    daemon = daemons(store, "--segment-bytes", str(SEGMENT_BYTES)).start()
    ledger = with_accounts(daemon, tmp_path / "work")
    everything(ledger)
    before = tree(ledger.path)
    assert len([name for name in before if name.startswith("transactions/tx_") and name.endswith(".json")]) > 1_200
    assert len(list((store / "journal").glob("*.seg"))) > 2
    assert daemon.stop() == 0
    files = projections(store)

    daemon.start()  # a plain restart
    same(before, tree(ledger.path))
    daemon.kill()
    daemon.start()
    same(before, tree(ledger.path))
    assert daemon.stop() == 0
    assert projections(store) == files

    command = [sys.executable, "-m", "ledgerfsd.cli.main", "rebuild", "--store", store]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    assert projections(store) == files
    daemon.start()
    same(before, tree(ledger.path))
    assert daemon.stop() == 0

    for name in ("hashes", "runs", "index.lmdb"):
        shutil.rmtree(store / name)
    daemon.start()
    same(before, tree(ledger.path))
    assert daemon.stop() == 0
    assert projections(store) == files
