"""A store with a file of every kind, made by a real daemon with every feature and real anchors; and proof files from its mount."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ledgerfsd.clock import NS_PER_SECOND, format_time
from ledgerfsd.journal.layout import Layout, create
from ledgerfsd.service.keys import TrustedRoot, parse_trusted_root
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.anchor_servers import Authority, status
from tests.fuse.conftest import ACCOUNTS, lines, pay, until
from tests.fuse.test_digests import digest, latest
from tests.witnesses import WitnessProcess

PAYMENTS = 1_050
HOLD_NS = 3 * NS_PER_SECOND  # a hold that ends by itself; it is judged before, however slow the disk is
SETTINGS = """\
anchor_seconds = 1

[[anchors]]
kind = "folder"
name = "folder"
path = "{folder}"

[[anchors]]
kind = "rfc3161"
name = "tsa"
url = "{tsa}"
tsa_cert = "{roots}"

[[anchors]]
kind = "witness"
name = "w1"
url = "{witness}"
vkey = "{vkey}"
"""


class Everything:
    """The store (nobody has it open), and copies of what the mount showed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files = place / "files"  # checkpoints, proofs and entries, as read from the mount
        self.store = Path()
        self.policy = b""
        self.root: TrustedRoot | None = None
        self.tsa_roots = Path()

    @property
    def layout(self) -> Layout:
        return Layout(self.store)

    def read(self, name: str) -> bytes:
        return (self.files / name).read_bytes()

    def make(self) -> Everything:
        self.files.mkdir()
        (self.place / "folder").mkdir()
        authority = Authority(self.place / "authority")
        self.tsa_roots = authority.roots
        witness = WitnessProcess(self.place / "witness").start()
        with authority.serving() as tsa:
            settings = self.place / "ledger.toml"
            values = {"folder": self.place / "folder", "tsa": tsa, "roots": authority.roots, "witness": witness.url}
            settings.write_text(SETTINGS.format(**values, vkey=witness.witness.encode()))
            self.store = create(self.place / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
            daemon = Daemon(self.store, self.place / "mount", ["--config", str(settings)]).start()
            try:
                vkey = json.loads((daemon.path / ".ledgerfs/trusted_root.json").read_bytes())["keys"][0]["vkey"]
                command(daemon, "witness", "trust", "--dir", witness.directory, "--vkey", vkey)
                self.policy = f"log {vkey}\nwitness w1 {witness.witness.encode()}\nquorum w1\n".encode()
                self._feed(daemon)
                until(lambda: all(each["unanchored_entries"] == 0 for each in status(daemon.path)["anchors"]))
                self._keep(daemon)
                self._lives(daemon)
            finally:
                daemon.kill()
                witness.kill()
        return self

    def _feed(self, daemon: Daemon) -> None:
        inbox = daemon.path / "inbox"
        opened: list[dict[str, Any]] = [*ACCOUNTS, {"type": "register_currency", "currency": "PTS", "decimals": 4}]
        for currency, amount in (("JPY", "9000"), ("BHD", "9.000"), ("PTS", "9.0000")):
            for name, kind in (("bank", "safeguarding_asset"), ("cust", "customer_liability")):
                opened.append(
                    {"type": "open_account", "account": f"{name}-{currency}", "class": kind, "currency": currency}
                )
            opened.append({"debit": f"bank-{currency}", "credit": f"cust-{currency}", "amount": amount})
        (inbox / "open.ndjson").write_text(lines(opened))
        paid = [pay("0.01", reference=f"invoice {each}", metadata={"n": each}) for each in range(PAYMENTS)]
        for at in range(0, PAYMENTS, 150):
            (inbox / f"{at}.ndjson").write_text(lines(paid[at : at + 150]))
        hold = {"type": "hold", "debit": "acc_001", "credit": "acc_002", "amount": "5.00"}
        soon = format_time(time.time_ns() + HOLD_NS)
        rest: list[dict[str, Any]] = [
            {**hold, "id": "h1"},
            {**hold, "id": "h2"},
            {**hold, "id": "h3", "expires": soon},
            {**hold, "id": "h4"},
            {"type": "post", "hold": "h1", "amount": "4.00", "effective": "2026-01-31"},
            {"type": "void", "hold": "h2"},
            {"type": "reverse", "of": "tx_0009"},
            {"type": "freeze", "account": "empty"},
            {"type": "unfreeze", "account": "empty"},
            {"type": "close_account", "account": "empty"},
            {"type": "close_period", "through": "2025-12-31"},
        ]
        (inbox / "rest.ndjson").write_text(lines(rest))
        try:
            (inbox / "no.json").write_text(json.dumps(pay("99999999.00")))
        except OSError:
            pass  # insufficient funds: an entry rejected/1
        (daemon.path / "snapshots/audit-2026").mkdir()
        (daemon.path / "snapshots/audit-2027").mkdir()
        (daemon.path / "events/consumers/books").mkdir()
        (daemon.path / "events/consumers/books/position").write_text("5\n")
        assert (daemon.path / "exports/ledger.journal").read_bytes()
        until(lambda: status(daemon.path)["transactions"] > PAYMENTS)
        until(lambda: json.loads((daemon.path / "accounts/acc_001/balance.json").read_bytes())["held"] == "5.00")

    def _keep(self, daemon: Daemon) -> None:
        """What one key has signed."""
        path = latest(daemon)
        until(lambda: all(each["outcome"] == "anchored" for each in digest(path)["anchors"]))
        old = (daemon.path / "log/checkpoint").read_bytes()
        (daemon.path / "inbox/one-more.json").write_text(json.dumps(pay("1.00")))
        for name, shown in {
            "checkpoint": "log/checkpoint",
            "tx.json": "transactions/tx_0777.json",
            "tx.tlog-proof": "proofs/tx_0777.tlog-proof",
            "balance.json": "accounts/acc_001/proof.json",
            "seal.json": "snapshots/audit-2026/seal.json",
            "seal.tlog-proof": "snapshots/audit-2026/proof",
            "trusted_root.json": ".ledgerfs/trusted_root.json",
        }.items():
            (self.files / name).write_bytes((daemon.path / shown).read_bytes())
        (self.files / "old").write_bytes(old)
        sizes = [self.read(name).split(b"\n")[1].decode() for name in ("old", "checkpoint")]
        (self.files / "consistency").write_bytes((daemon.path / f"proofs/consistency/{'-'.join(sizes)}").read_bytes())
        shutil.copytree(path, self.files / "digest")
        cosigned = self.read("digest/checkpoint") + self.read("digest/w1.cosig")
        (self.files / "cosigned").write_bytes(cosigned)
        self.root = parse_trusted_root(self.read("trusted_root.json"), "the mount")

    def _lives(self, daemon: Daemon) -> None:
        """Keys are changed, the ledger is restored, and goes on."""
        command(daemon, "key", "rotate", "--store", self.store)
        (daemon.path / "inbox/two-keys.json").write_text(json.dumps(pay("1.00")))
        (self.files / "two-keys").write_bytes((daemon.path / "log/checkpoint").read_bytes())
        assert daemon.stop() == 0
        command(daemon, "restore", "--store", self.store, "--reason", "a rehearsal", "--yes")
        daemon.start()
        until(lambda: latest(daemon).name.endswith("-2"))
        assert (daemon.path / "exports/ledger.journal").read_bytes()  # a restore makes projections anew
        assert daemon.stop() == 0


def command(daemon: Daemon, *words: object) -> None:
    environment = os.environ | {"LEDGERFS_LAST_SIGNED": str(daemon.last_signed)}
    program = [sys.executable, "-m", "ledgerfsd.cli.main", *map(str, words)]
    subprocess.run(program, cwd=REPOSITORY, env=environment, check=True, capture_output=True, timeout=60)
