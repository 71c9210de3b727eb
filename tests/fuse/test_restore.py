"""A store that was rolled back, and `ledgerfs restore` (SEMANTICS 10.6 and 10.8)."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.recorded import recorded
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.service import last_signed
from tests.conftest import LEDGER, REPOSITORY, Daemon
from tests.fuse.conftest import Mounted, pay, until, with_accounts
from tests.fuse.test_anchoring import thaw

REASON = 'the disk "failed"'


def ledgerfs(daemon: Daemon, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "ledgerfsd.cli.main", command, "--store", daemon.store, *map(str, arguments)]
    environment = os.environ | {"LEDGERFS_LAST_SIGNED": str(daemon.last_signed)}
    return subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def signed(ledger: Mounted) -> tuple[bytes, Checkpoint]:
    data = (ledger / "log/checkpoint").read_bytes()
    return data, checkpoint.parse(note.parse(data).text)


def refuse(daemon: Daemon) -> str:
    """Start it; it must not come up."""
    command = [sys.executable, "-m", "ledgerfsd", "--store", daemon.store, "--mount", daemon.path]
    environment = os.environ | {"LEDGERFS_LAST_SIGNED": str(daemon.last_signed)}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


class Rolled:
    """A ledger whose store, keys included, was put back to an older copy; and what was signed when."""

    def __init__(self, daemon: Daemon, work: Path) -> None:
        self.daemon = daemon
        self.work = work
        ledger = with_accounts(daemon.start(), work)
        ledger.drop("before.json", pay())
        self.early = signed(ledger)
        assert daemon.stop() == 0
        self.copy = work / "copy"
        shutil.copytree(daemon.store, self.copy)
        daemon.start()
        self.kept = []
        for number in range(3):
            ledger.drop(f"lost-{number}.json", pay())
            self.kept.append(signed(ledger))
        assert daemon.stop() == 0
        self.root = work / "trusted_root.json"
        shutil.copy(daemon.store / "keys/trusted_root.json", self.root)
        shutil.rmtree(daemon.store)
        shutil.copytree(self.copy, daemon.store)

    def verify(self, *anchors: bytes) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and findings of `ledgerfs verify` with these checkpoints."""
        named: list[object] = []
        for number, data in enumerate(anchors):
            path = self.work / f"anchor-{number}"
            path.write_bytes(data)
            named += ["--anchor", path]
        done = ledgerfs(self.daemon, "verify", "--json", "--trusted-root", self.root, *named)
        return done.returncode, json.loads(done.stdout)["findings"]


@pytest.fixture
def rolled(store: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> Rolled:
    return Rolled(daemons(store), tmp_path / "work")


def test_keys_that_were_rolled_back_with_the_store_do_not_help(rolled: Rolled) -> None:
    """SEMANTICS 10.6"""
    said = refuse(rolled.daemon)
    assert "was rolled back" in said
    assert f"a checkpoint of {rolled.kept[-1][1].size} entries is signed" in said
    assert "ledgerfs restore" in said
    records = list(rolled.daemon.last_signed.iterdir())
    assert [last_signed.read(path, LEDGER) for path in records] == [rolled.kept[-1][1]]
    records[0].write_text(f"{LEDGER}\n{rolled.early[1].size}\n{note.encode_base64(bytes(32))}\n")
    command = [sys.executable, "-m", "ledgerfsd", "--store", rolled.daemon.store, "--mount", rolled.daemon.path]
    environment = os.environ | {"LEDGERFS_LAST_SIGNED": str(rolled.daemon.last_signed)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"have two roots for {rolled.early[1].size} entries" in done.stderr


def test_a_restore_is_an_entry_and_the_signer_asks_for_it(rolled: Rolled) -> None:
    """SEMANTICS 10.8"""
    daemon, last = rolled.daemon, rolled.kept[-1][1]
    assert rolled.verify(rolled.early[0])[0] == 0
    code, findings = rolled.verify(rolled.kept[0][0])
    assert code == 4
    done = ledgerfs(daemon, "restore", "--reason", REASON)
    assert done.returncode == 1
    assert "add --yes" in done.stderr
    done = ledgerfs(daemon, "restore", "--reason", "x" * 300, "--yes")
    assert done.returncode == 1
    assert "reason" in done.stderr
    refuse(daemon)
    done = ledgerfs(daemon, "restore", "--reason", REASON, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    (entry,) = recorded(Layout(daemon.store), "restore/1")
    assert (entry["incarnation"], entry["reason"], entry["size"]) == (2, REASON, entry["index"])
    assert (entry["signed_size"], entry["signed_root"]) == (last.size, last.root.hex())
    assert json.loads(done.stdout)["index"] == entry["index"]
    # The next checkpoint is of the new life; what was signed last in the old one is kept.
    ledger = with_accounts(daemon.start(), rolled.work)
    assert ledger.status()["incarnation"] == 2
    newest = signed(ledger)
    assert entry["index"] < newest[1].size < last.size + 20
    for directory in (daemon.last_signed, daemon.store / "keys"):
        (evidence,) = directory.glob("*.lost-2-*")
        assert checkpoint.parse(evidence.read_text()) == last
    ledger.drop("after.json", pay("2.00"))
    signed(ledger)
    assert (ledger / ".ledgerfs/health").read_text() == "ok\n"
    assert daemon.stop() == 0
    assert daemon.start().stop() == 0, "and it starts again without more ado"
    # Verifiers with newer checkpoints are told where they went, and neither pass nor call it two histories.
    assert rolled.verify(rolled.early[0], newest[0]) == (0, [])
    code, findings = rolled.verify(rolled.early[0], *[data for data, _ in rolled.kept], newest[0])
    assert code == 1
    assert {finding["severity"] for finding in findings} == {"lost"}
    assert len(findings) == 3
    assert all(f"lost in the restore at entry {entry['index']}" in finding["what"] for finding in findings)
    anchor = rolled.work / "anchor-1"
    tool = [sys.executable, "tools/ledgerfs_verify.py", "store", daemon.store, "--key", rolled.root, "--anchor", anchor]
    judged = subprocess.run(tool, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (judged.returncode, f"lost in the restore at entry {entry['index']}" in judged.stderr) == (1, True)
    assert ledgerfs(daemon, "fsck").returncode == 0


def test_a_restore_does_not_cover_other_histories(rolled: Rolled) -> None:
    """A checkpoint later than what the restore says was signed last is of nobody's history."""
    daemon, last = rolled.daemon, rolled.kept[1]
    (record,) = rolled.daemon.last_signed.iterdir()
    record.write_text(last[1].body())
    assert ledgerfs(daemon, "restore", "--reason", REASON, "--yes").returncode == 0
    assert rolled.verify(last[0])[0] == 1
    code, findings = rolled.verify(rolled.kept[2][0])
    assert (code, [finding["severity"] for finding in findings]) == (4, ["damage"])
    assert with_accounts(daemon.start(), rolled.work).status()["incarnation"] == 2
    assert daemon.stop() == 0


def test_the_index_alone_is_newer(store: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """Nothing newer was signed: the restore says that it knows of nothing lost. SEMANTICS 10.8"""
    daemon = daemons(store)
    ledger = with_accounts(daemon.start(), tmp_path / "work")
    assert daemon.stop() == 0
    shutil.copytree(store / "journal", tmp_path / "journal")
    daemon.start()
    ledger.drop("lost.json", pay())
    assert daemon.stop() == 0
    shutil.rmtree(store / "journal")
    shutil.copytree(tmp_path / "journal", store / "journal")
    assert "`ledgerfs restore` goes on without it" in refuse(daemon)
    assert ledgerfs(daemon, "rebuild").returncode == 4
    reading, writing = pty.openpty()
    words = [sys.executable, "-m", "ledgerfsd.cli.main", "restore", "--store", store, "--reason", REASON]
    for typed, code in (("yes\n", 1), (f"{LEDGER}\n", 0)):
        with subprocess.Popen(words, cwd=REPOSITORY, stdin=writing, stdout=subprocess.PIPE, text=True) as process:
            os.write(reading, typed.encode())
            assert process.stdout is not None
            said = process.stdout.read()
        assert process.returncode == code
        assert "Nothing that was signed is missing" in said
    os.close(reading)
    os.close(writing)
    (entry,) = recorded(Layout(store), "restore/1")
    assert "signed_size" not in entry
    assert with_accounts(daemon.start(), tmp_path / "work").status()["incarnation"] == 2
    assert signed(ledger)[1].size > entry["index"]
    assert daemon.stop() == 0


def test_anchor_folders_go_on_after_a_restore(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What was lost stays in the folder; the new life's checkpoints stand beside it, and nobody cries of two histories."""
    folder, config = tmp_path / "anchors", tmp_path / "config.toml"
    folder.mkdir()
    request.addfinalizer(lambda: thaw(folder))
    config.write_text(f'anchors = ["{folder}"]\nanchor_seconds = 1\n')
    daemon = daemons(store, "--config", str(config))
    ledger = with_accounts(daemon.start(), tmp_path / "work")
    assert daemon.stop() == 0
    shutil.copytree(store, tmp_path / "copy")
    daemon.start()

    def anchored() -> bool:
        name = f"{ledger.status()['entries']:020}"
        return any(path.name.startswith(name) for path in folder.iterdir())

    for _ in range(2):
        ledger.drop(f"lost-{ledger.transactions()}.json", pay("3.00"))
        until(anchored)
    assert daemon.stop() == 0
    shutil.rmtree(store)
    shutil.copytree(tmp_path / "copy", store)
    assert ledgerfs(daemon, "restore", "--reason", REASON, "--yes").returncode == 0
    before = {path.name for path in folder.iterdir()}
    daemon.start()
    ledger.drop("new.json", pay("4.00"))
    until(lambda: any(path.name.endswith("-2.checkpoint") for path in folder.iterdir()))
    assert (ledger / ".ledgerfs/health").read_text() == "ok\n"
    assert before < {path.name for path in folder.iterdir()}
    root = tmp_path / "trusted_root.json"
    shutil.copy(ledger / ".ledgerfs/trusted_root.json", root)
    assert daemon.stop() == 0
    done = ledgerfs(daemon, "verify", "--json", "--anchor", folder, "--trusted-root", root)
    assert (done.returncode, {each["severity"] for each in json.loads(done.stdout)["findings"]}) == (1, {"lost"})


def test_digests_of_the_lost_life_keep_their_names_and_the_new_life_has_one_at_once(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Though the log is smaller than the newest of the lost ones. SEMANTICS 11.7"""
    config = tmp_path / "config.toml"
    config.write_text("anchor_seconds = 1\n")
    daemon = daemons(store, "--config", str(config))
    ledger = with_accounts(daemon.start(), tmp_path / "work")
    top = ledger.path / "digests"

    def digest_of(size: int) -> bool:
        return (top / str(size)).exists()

    until(lambda: digest_of(ledger.status()["entries"]))
    kept = os.readlink(top / "latest")
    assert daemon.stop() == 0
    shutil.copytree(store / "journal", tmp_path / "journal")
    daemon.start()
    for number in range(9):
        ledger.drop(f"lost-{number}.json", pay())
    until(lambda: digest_of(ledger.status()["entries"]))
    lost = os.readlink(top / "latest")
    assert int(lost) > int(kept)
    before = {
        name: (os.stat(top / name / "checkpoint"), (top / name / "checkpoint").read_bytes()) for name in (kept, lost)
    }
    assert daemon.stop() == 0
    shutil.rmtree(store / "journal")
    shutil.copytree(tmp_path / "journal", store / "journal")
    # The memories of the signer were rolled back as well: then the digests in the store still tell.
    shutil.rmtree(daemon.last_signed)
    (store / "keys/last-signed").unlink()
    shutil.rmtree(store / "index.lmdb")
    assert f"it has a digest of {lost} entries" in refuse(daemon)
    assert ledgerfs(daemon, "restore", "--reason", REASON, "--yes").returncode == 0
    daemon.start()
    until(lambda: os.readlink(top / "latest").endswith("-2"))
    newest = os.readlink(top / "latest")
    assert int(kept) < int(newest.removesuffix("-2")) < int(lost), "at once: nothing was committed since"
    found = json.loads((top / newest / "digest.json").read_text())
    assert (found["size"], found["incarnation"]) == (int(newest.removesuffix("-2")), 2)
    for name, (there, data) in before.items():
        now = os.stat(top / name / "checkpoint")
        assert (now.st_ino, now.st_mtime_ns) == (there.st_ino, there.st_mtime_ns)
        assert (top / name / "checkpoint").read_bytes() == data
    assert {kept, lost, newest, "latest"} <= {each.name for each in top.iterdir()}
    assert (ledger / f"snapshots/digest-{kept}").is_dir()
    for size in (lost, newest.removesuffix("-2")):  # what was lost is no state of this ledger
        assert (ledger / f"snapshots/digest-{size}").is_dir() is (size != lost)
    assert (ledger / ".ledgerfs/health").read_text() == "ok\n"
    listed = json.loads(ledgerfs(daemon, "digest", "list", "--json").stdout)
    assert [(each["size"], each["incarnation"]) for each in listed][-2:] == [(int(lost), 1), (found["size"], 2)]
    assert json.loads(ledgerfs(daemon, "digest", "show", newest, "--json").stdout) == found
    root = tmp_path / "trusted_root.json"
    shutil.copy(ledger / ".ledgerfs/trusted_root.json", root)
    assert daemon.stop() == 0
    done = ledgerfs(daemon, "verify", "--json", "--anchor", store / "digests", "--trusted-root", root)
    findings = json.loads(done.stdout)["findings"]
    assert (done.returncode, {each["severity"] for each in findings}) == (1, {"lost"})
    assert any(each["file"].endswith(f"digest {lost}") for each in findings)


def test_a_damaged_journal_is_not_restored(rolled: Rolled) -> None:
    segment = rolled.daemon.store / "journal" / f"{0:020}.seg"
    data = bytearray(segment.read_bytes())
    at = data.index(b'"acc_001"')
    data[at + 1] ^= 1
    segment.write_bytes(data)
    done = ledgerfs(rolled.daemon, "restore", "--reason", REASON, "--yes")
    assert done.returncode == 4
    assert "nothing was changed" in done.stderr
    assert segment.read_bytes() == data
