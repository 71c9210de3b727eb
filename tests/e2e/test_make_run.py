"""``make run`` as a newcomer types it: in a checkout without anything built, and then every command that it prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd import mounts
from tests.conftest import REPOSITORY

BUILT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "*.so", "*.o", "_core.c", "lfs_codes.h", "lfs_currencies.h",
    "__pycache__", ".*_cache", ".hypothesis", "ledgerfs", "demo-store", "vectors",
)  # fmt: skip
MAKE_SECONDS = 900


class Checkout:
    """A copy of what is in the repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mount = path / "ledgerfs"
        unwanted = ("LEDGERFS_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}

    def make(self, target: str) -> str:
        """Run make; its standard output."""
        done = subprocess.run(
            ["make", target],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=MAKE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command as it would be pasted."""
        environment = self.environment | {"LC_ALL": "C"}
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def balance(self) -> str:
        """Of acc_001."""
        return str(json.loads((self.mount / "accounts/acc_001/balance.json").read_text())["balance"])


@pytest.fixture(scope="module")
def checkout(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    path = tmp_path_factory.mktemp("fresh") / "checkout"
    shutil.copytree(REPOSITORY, path, ignore=BUILT)
    yield Checkout(path)
    if mounts.at(path / "ledgerfs"):
        mounts.unmount(path / "ledgerfs", lazy=True)


def commands(text: str) -> list[str]:
    """The commands in what ``make run`` prints: its indented lines."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def line_of(log: Path, part: str) -> str:
    """Wait for a line in a growing file."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines(keepends=True):
            if part in line and line.endswith("\n"):
                return line
        time.sleep(0.05)
    raise AssertionError(f"{part} did not arrive in:\n{log.read_text()}")


@pytest.mark.slow
def test_every_printed_command_works(checkout: Checkout, tmp_path: Path) -> None:
    drop, balance, transaction, follow, more = commands(checkout.make("run"))

    done = checkout.shell(drop)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(checkout.shell(balance).stdout)["balance"] == "337.50"
    assert json.loads(checkout.shell(transaction).stdout)["tx"] == 1

    seen = tmp_path / "second-shell"
    with (
        seen.open("wb") as output,
        subprocess.Popen(["bash", "-c", "exec " + follow], cwd=checkout.path, stdout=output) as tail,
    ):
        line_of(seen, '"invoice 42"')
        done = checkout.shell(more)
        assert "cp: " in done.stderr
        assert "Disk quota exceeded" in done.stderr
        (receipt,) = [json.loads(line) for line in done.stdout.splitlines()]
        assert (receipt["status"], receipt["code"]) == ("refused", "insufficient_funds")
        assert receipt["what_to_do"]
        assert json.loads(line_of(seen, '"coffee beans"'))["tx"] == 5
        tail.kill()
    assert checkout.balance() == "330.25"


@pytest.mark.slow
def test_again_nothing_is_paid_twice(checkout: Checkout) -> None:
    """Depends on the test before: the same store, mounted still, then stopped, then killed."""
    text = checkout.make("run")
    assert "already mounted" in text
    printed = commands(text)
    for stop in ("", "make stop", "kill -9 $(tr -dc 0-9 <demo-store/lock)"):
        if stop:
            done = checkout.shell(stop)
            assert done.returncode == 0, done.stderr
            assert commands(checkout.make("run")) == printed
        assert checkout.shell(printed[0]).returncode == 0
        assert "Disk quota exceeded" in checkout.shell(printed[4]).stderr
        assert checkout.balance() == "330.25"
    assert "unmounted" in checkout.make("stop")
    assert "nothing is mounted" in checkout.make("stop")
    assert checkout.shell(".venv/bin/ledgerfs fsck --store demo-store").returncode == 0
