"""What the ledger records by itself (SEMANTICS 10.7): keys and anchors, seen from a mount."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.recorded import recorded
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.keys import parse_trusted_root, usual_directory
from tests.conftest import LEDGER, REPOSITORY
from tests.fuse.conftest import Mounted, pay


def said(ledger: Mounted) -> list[dict[str, Any]]:
    """The key/1 entries of its log."""
    return list(recorded(Layout(ledger.daemon.store), "key/1"))


def run(*command: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


def key_list(ledger: Mounted) -> dict[str, Any]:
    done = run("-m", "ledgerfsd.cli.main", "key", "list", "--json", "--store", ledger.daemon.store)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def verify(ledger: Mounted, root: Path) -> subprocess.CompletedProcess[str]:
    command = ("-m", "ledgerfsd.cli.main", "verify", "--json", "--store", ledger.daemon.store)
    return run(*command, "--trusted-root", root)


def test_a_new_key_is_in_the_log_before_the_next_checkpoint(ledger: Mounted) -> None:
    """SEMANTICS 10.7"""
    (first,) = said(ledger)
    assert first["index"] == 2
    assert (first["status"], first["valid_from_size"]) == ("active", 0)
    keys = Keyring(usual_directory(ledger.daemon.store), LEDGER)
    assert first["vkey"] == keys.trusted_root().keys[0].vkey
    size = checkpoint.parse(note.parse((ledger / "log/checkpoint").read_bytes()).text).size
    new = keys.rotate()
    assert len(said(ledger)) == 1
    signed = parse_trusted_root((ledger / ".ledgerfs/trusted_root.json").read_bytes(), "the mount").verify(
        (ledger / "log/checkpoint").read_bytes()
    )
    entries = said(ledger)
    assert [entry["status"] for entry in entries] == ["active", "retiring", "active"]
    assert entries[2]["vkey"] == new.vkey
    assert size < entries[2]["index"] < signed.size
    old = keys.trusted_root().keys[0]
    keys.revoke(old.key_id, 3)
    assert (ledger / "log/checkpoint").read_bytes()
    last = said(ledger)[-1]
    assert (last["vkey"], last["status"], last["valid_to_size"]) == (old.vkey, "revoked", 3)
    listed = key_list(ledger)
    assert listed["keys"] == listed["log"]
    ledger.drop("pay.json", pay())
    assert (ledger / "log/checkpoint").read_bytes()
    assert len(said(ledger)) == 4


def test_the_log_says_nothing_twice(ledger: Mounted) -> None:
    """SEMANTICS 10.7"""
    entries = ledger.status()["entries"]
    assert ledger.daemon.stop() == 0
    ledger.daemon.start()
    assert (ledger / "log/checkpoint").read_bytes()
    assert len(said(ledger)) == 1
    assert ledger.status()["entries"] == entries
    assert ledger.status()["incarnation"] == 1


def test_nobody_writes_them_into_the_inbox(ledger: Mounted) -> None:
    """SEMANTICS 10.7"""
    (entry,) = said(ledger)
    for kind in ("key", "anchor", "restore"):
        forged = {name: entry[name] for name in ("status", "valid_from_size", "vkey")} | {"type": kind, "id": "mine"}
        for text in (json.dumps(forged), json.dumps([forged])):
            done = ledger.shell(f"printf %s '{text}' > $I/{kind}.json")
            assert done.returncode != 0
            assert ledger.receipt(f"{kind}.json")[0]["code"] == "unknown_type"
    assert len(said(ledger)) == 1


def test_keys_that_are_gone_are_revoked_in_the_log(ledger: Mounted) -> None:
    (first,) = said(ledger)
    assert ledger.daemon.stop() == 0
    directory = usual_directory(ledger.daemon.store)
    directory.rename(directory.with_name("lost-keys"))
    ledger.daemon.start()
    _, new, gone = said(ledger)
    assert (gone["vkey"], gone["status"]) == (first["vkey"], "revoked")
    assert new["vkey"] == Keyring(directory, LEDGER).trusted_root().keys[0].vkey


def test_verifiers_compare_the_log_with_the_trusted_root(ledger: Mounted, tmp_path: Path) -> None:
    root = tmp_path / "root.json"
    keys = Keyring(usual_directory(ledger.daemon.store), LEDGER)
    root.write_bytes(keys.trusted_root_path.read_bytes())
    good = json.loads(root.read_text())
    keys.rotate()
    assert (ledger / "log/checkpoint").read_bytes()
    tool = ("tools/ledgerfs_verify.py", "mount", ledger.path, "--quiet", "--json", "--key")
    done = run(*tool, root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ledger.daemon.stop() == 0
    # The log has gone on from an older trusted root: that is said, and is no fault.
    older = verify(ledger, root)
    assert older.returncode == 0, older.stdout
    notes = [finding["what"] for finding in json.loads(older.stdout)["findings"] if finding["file"] == "keys"]
    assert len(notes) == 2
    assert "get the newest trusted root" in notes[0]
    assert "is not believed" in notes[1]
    newest = verify(ledger, keys.trusted_root_path)
    assert newest.returncode == 0, newest.stdout
    assert [each["status"] for each in json.loads(newest.stdout)["keys"]] == ["active", "retiring", "active"]
    assert not [each for each in json.loads(newest.stdout)["findings"] if each["file"] == "keys"]
    # What the log never said is a fault.
    good["keys"][0]["valid_from_size"] = 1
    root.write_text(json.dumps(good))
    wrong = verify(ledger, root)
    assert wrong.returncode == 4
    assert "the log does not say of key" in wrong.stdout
    assert run(tool[0], "store", ledger.daemon.store, *tool[3:], keys.trusted_root_path).returncode == 0
    done = run(tool[0], "store", ledger.daemon.store, *tool[3:], root)
    assert done.returncode == 1
    assert "does not say" in done.stdout
