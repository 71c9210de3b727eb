"""A mounted ledger with a few accounts, and what tests ask of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.journal.layout import create
from tests.conftest import LEDGER, PATIENCE_SECONDS, SEGMENT_BYTES, Daemon

ACCOUNTS = [
    {"type": "open_account", "account": "float", "currency": "EUR", "class": "safeguarding_asset"},
    {
        "type": "open_account",
        "account": "acc_001",
        "currency": "EUR",
        "class": "customer_liability",
        "initial_balance": "100000.00",
        "owner": "cust_1",
        "tags": ["pool:a", "tier:1"],
    },
    {"type": "open_account", "account": "acc_002", "currency": "EUR", "class": "customer_liability"},
    {"type": "open_account", "account": "empty", "currency": "EUR", "class": "customer_liability"},
]


def pay(amount: str = "1.00", *, debit: str = "acc_001", credit: str = "acc_002", **more: Any) -> dict[str, Any]:
    """A transfer."""
    return {"debit": debit, "credit": credit, "amount": amount, **more}


def lines(intents: list[dict[str, Any]]) -> str:
    """NDJSON."""
    return "".join(json.dumps(intent) + "\n" for intent in intents)


@dataclass
class Mounted:
    """A mount of our own daemon, and a directory on another file system beside it."""

    path: Path
    work: Path
    daemon: Daemon

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def transactions(self) -> int:
        """How many there are."""
        return self.status()["transactions"]

    def status(self) -> dict[str, Any]:
        """status.json."""
        return json.loads((self.path / ".ledgerfs/status.json").read_text())

    def balance(self, account: str) -> dict[str, Any]:
        """balance.json."""
        return json.loads((self.path / f"accounts/{account}/balance.json").read_text())

    def receipt(self, name: str) -> list[dict[str, Any]]:
        """The receipt of an inbox file, line by line."""
        return [json.loads(line) for line in (self.path / f"receipts/{name}").read_text().splitlines()]

    def seal(self) -> None:
        """Have the newest state sealed. After many changes at once the ledger does that by itself, within a second (FORMAT 12): a seal
        without entries, which whoever counts or compares does not expect."""
        (self.path / "accounts/float/proof.json").read_bytes()

    def drop(self, name: str, content: str | dict[str, Any] | list[Any]) -> Path:
        """Write an inbox file and return it."""
        path = self.path / "inbox" / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def shell(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a bash script in the work directory; ``$M`` is the mount, ``$I`` its inbox."""
        environment = os.environ | {"M": str(self.path), "I": str(self.path / "inbox"), "LC_ALL": "C"} | more
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def until(done: Callable[[], object]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_followed(process: int, path: Path) -> None:
    """Wait until a ``tail -f`` has read a file to its end: what comes now, it shows."""

    def followed() -> bool:
        wanted, opened = f"pos:\t{path.stat().st_size}\n", Path(f"/proc/{process}/fd")
        for descriptor in list(opened.iterdir()):
            try:
                if descriptor.readlink() == path:
                    return wanted in Path(f"/proc/{process}/fdinfo/{descriptor.name}").read_text()
            except FileNotFoundError:
                continue
        return False

    until(followed)


def with_accounts(daemon: Daemon, work: Path) -> Mounted:
    """Open the accounts of the tests."""
    work.mkdir(exist_ok=True)
    mounted = Mounted(daemon.path, work, daemon)
    mounted.drop("accounts.ndjson", lines(ACCOUNTS))
    return mounted


@pytest.fixture
def ledger(mounted: Daemon, tmp_path: Path) -> Mounted:
    """A mount of its own for one test."""
    return with_accounts(mounted, tmp_path / "work")


@pytest.fixture(scope="module")
def shared(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """One mount for all tests of a module that do not disturb each other."""
    place = tmp_path_factory.mktemp("shared")
    daemon = Daemon(create(place / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root, place / "mount").start()
    try:
        yield with_accounts(daemon, place / "work")
        assert daemon.stop() == 0
        # A traceback in the log is a fault of ours, whatever the programs were told.
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()
