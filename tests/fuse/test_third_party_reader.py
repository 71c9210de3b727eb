"""``log/tile/`` is read, unchanged, by a tlog-tiles reader that others wrote: Go's golang.org/x/mod/sumdb/tlog.

The reader (tests/third_party/tlogread) gets no more than what a stranger has: the mounted files, and the roots that the
seals claim.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import REPOSITORY, Daemon

SOURCE = REPOSITORY / "tests" / "third_party" / "tlogread"
GOPATH = "/usr/share/gocode"  # Debian's golang-golang-x-mod-dev
BATCHES = [1, 7_000, 255, 60_000, 3_333]  # in all above 65,536: a full tile of level 1 and a partial one behind it


class Tree(NamedTuple):
    size: int
    root: str


class Reader:
    """The compiled program."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def run(self, log: Path, trees: list[Tree]) -> subprocess.CompletedProcess[str]:
        lines = "".join(f"{tree.size} {tree.root}\n" for tree in trees)
        return subprocess.run([self.program, "-log", log], input=lines, capture_output=True, text=True, timeout=300)

    def summary(self, log: Path, trees: list[Tree]) -> dict[str, Any]:
        done = self.run(log, trees)
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Needs Debian's golang-go and golang-golang-x-mod-dev (tools/install-system test); no network, no module."""
    there = tmp_path_factory.mktemp("tlogread")
    settings = {
        "GO111MODULE": "off",
        "GOPATH": GOPATH,
        "GOFLAGS": "",
        "GOCACHE": str(there / "cache"),
        "CGO_ENABLED": "0",
    }
    built = subprocess.run(
        ["go", "build", "-o", there / "tlogread", "."],
        cwd=SOURCE,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return Reader(there / "tlogread")


def intents(first: int, count: int, amount: str = "0.01") -> str:
    """Lines of several lengths, with text that is not ASCII."""
    references = ["Zürich ¥" * (number % 11) + str(number) for number in range(first, first + count)]
    return "".join(
        f'{{"id":"t-{number}","debit":"acc_1","credit":"acc_2","amount":"{amount}","reference":"{reference}"}}\n'
        for number, reference in enumerate(references, first)
    )


def seals(mount: Path) -> list[Tree]:
    """What each seal says of the tree of all entries before it."""
    found = [json.loads(path.read_bytes()) for path in sorted((mount / "blocks").iterdir())]
    return [Tree(seal["index"], seal["log_root"]) for seal in found]


def fill(mounted: Daemon) -> None:
    inbox = mounted.path / "inbox"
    open_account = '{{"type":"open_account","account":"{}","currency":"EUR","class":"customer_liability"{}}}\n'
    accounts = open_account.format("acc_1", ',"initial_balance":"5000.00"') + open_account.format("acc_2", "")
    (inbox / "accounts.ndjson").write_text(accounts)
    with pytest.raises(OSError, match="quota"):  # refused by the state: entries all the same
        (inbox / "refused.ndjson").write_text(intents(0, 300, amount="5000.01"))
    first = 300
    for number, count in enumerate(BATCHES):
        (inbox / f"{number}.ndjson").write_text(intents(first, count))
        first += count


def test_go_sumdb_reads_trees_entries_and_proofs(reader: Reader, mounted: Daemon) -> None:
    fill(mounted)
    log = mounted.path / "log"
    trees = seals(mounted.path)
    assert trees[-1].size > 65_536 + 256
    chosen = sorted({*trees[:4], *trees[4 :: max(1, len(trees) // 8)], trees[-1]})
    summary = reader.summary(log, chosen)
    assert summary["entries"] == trees[-1].size
    assert summary["trees"] == len(chosen)
    assert summary["proofs"] > 1_000
    kinds = {"0-full", "0-partial", "1-full", "1-partial", "2-partial", "entries-full", "entries-partial"}
    assert kinds <= summary["tiles"].keys()

    # The program can fail: a root that is not the log's, and a right root of another size.
    tree = trees[-1]
    wrong = ("0" if tree.root[0] != "0" else "1") + tree.root[1:]
    for claim in (Tree(tree.size, wrong), Tree(tree.size - 1, tree.root)):
        done = reader.run(log, [claim])
        assert done.returncode == 1
        assert "tlogread:" in done.stderr
