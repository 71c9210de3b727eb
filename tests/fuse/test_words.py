"""references/ and tags/: entries by what people wrote into them (SEMANTICS 13.6 and 13.7)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ledgerfsd.service.word_names import file_name, text_of
from tests.conftest import REPOSITORY
from tests.fuse.conftest import Mounted, lines, pay, until_followed


@pytest.mark.parametrize(
    "text", ["a", "invoice 42", "a/b", "100 %", "%2F", ".", "..", "Grüße €", 'say "x" \\', "x\x7fy"]
)
def test_a_word_has_one_name(text: str) -> None:
    """SEMANTICS 13.6"""
    name = file_name(text)
    assert text_of(name) == text
    assert b"/" not in name


@pytest.mark.parametrize(
    "name", [b"a", b"a.json", b"%61.ndjson", b"%2f.ndjson", b"\xff.ndjson", b".ndjson", b"%.ndjson"]
)
def test_other_spellings_are_no_names(name: bytes) -> None:
    """SEMANTICS 13.6"""
    assert text_of(name) == ""


def entries(ledger: Mounted, name: str) -> list[bytes]:
    """The lines of a file, whose size ``stat`` knew."""
    path = ledger / name
    size = path.stat().st_size
    data = path.read_bytes()
    assert len(data) == size
    return data.splitlines()


def test_the_entries_of_a_reference(ledger: Mounted) -> None:
    """Found at once, exact bytes, oldest first; it grows with the next; the same inode after a restart. SEMANTICS 13.6"""
    reference = "invoice 42/7 % Grüße"
    name = f"references/{os.fsdecode(file_name(reference))}"
    assert not (ledger / name).exists()
    for number in range(3):
        ledger.drop(f"p{number}.json", pay(f"{number + 1}.00", reference=reference))
        ledger.drop(f"q{number}.json", pay("9.00", reference=reference + "x"))
        last = ledger.receipt(f"p{number}.json")[0]["tx"]
        found = entries(ledger, name)
        assert len(found) == number + 1
        assert found[-1] == (ledger / f"transactions/{last}.json").read_bytes()
    assert [json.loads(line)["postings"][0]["amount"] for line in found] == ["1.00", "2.00", "3.00"]
    before = (ledger / name).stat()
    assert ledger.shell("ls -A $M/references $M/tags | grep ndjson").returncode == 1
    assert not (ledger / "references/nothing.ndjson").exists()
    assert not (ledger / "references/invoice.ndjson").exists()
    assert ledger.daemon.stop() == 0
    ledger.daemon.start()
    after = (ledger / name).stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert entries(ledger, name) == found
    with pytest.raises(OSError, match="Read-only"):
        (ledger / name).write_text("x")


def test_a_reference_of_very_many_entries(shared: Mounted) -> None:
    """More than are looked up at once, and more than is kept in memory; followed by tail. SEMANTICS 13.6"""
    shared.drop(
        "many.ndjson", lines([pay("0.01", reference="bulk" if number % 2 else "other") for number in range(6_000)])
    )
    found = entries(shared, "references/bulk.ndjson")
    assert len(found) == 3_000
    assert [json.loads(line)["index"] for line in found] == sorted({json.loads(line)["index"] for line in found})
    follow = subprocess.Popen(["tail", "-n0", "-f", shared / "references/bulk.ndjson"], stdout=subprocess.PIPE)
    try:
        assert follow.stdout is not None
        until_followed(follow.pid, shared / "references/bulk.ndjson")
        shared.drop("more.json", pay("0.02", reference="bulk"))
        assert json.loads(follow.stdout.readline())["postings"][0]["amount"] == "0.02"
    finally:
        follow.kill()
        follow.communicate()


def test_the_accounts_with_a_tag(shared: Mounted) -> None:
    """SEMANTICS 13.7"""
    more = {"type": "open_account", "currency": "EUR", "class": "customer_liability"}
    shared.drop("tagged.json", more | {"account": "acc_900", "tags": ["tier:1", "pool:a", "x"]})
    for tag in ("pool:a", "tier:1"):
        found = [json.loads(line) for line in entries(shared, f"tags/{tag}.ndjson")]
        assert [entry["account"] for entry in found] == ["acc_001", "acc_900"]
        assert all(tag in entry["tags"] for entry in found)
    assert [json.loads(line)["account"] for line in entries(shared, "tags/x.ndjson")] == ["acc_900"]
    inodes = {(shared / f"tags/{tag}.ndjson").stat().st_ino for tag in ("pool:a", "tier:1", "x")}
    assert len(inodes) == 3


def find(shared: Mounted, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ledgerfsd.cli.main", "find", "--mount", str(shared.path), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


def test_the_command(shared: Mounted) -> None:
    """``ledgerfs find``. SEMANTICS 13.6"""
    shared.drop("found.json", pay("7.00", reference="to / find"))
    done = find(shared, "--reference", "to / find")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert "acc_001 debit 7.00" in done.stdout
    done = find(shared, "--json", "--tag", "pool:a")
    assert json.loads(done.stdout.splitlines()[0])["account"] == "acc_001"
    done = find(shared, "--reference", "to / fin")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no entry has the reference 'to / fin'" in done.stderr
