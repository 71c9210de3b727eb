"""cli/keys.py: ``ledgerfs key`` and the key that ``ledgerfs init`` makes. With a mount: tests/fuse/test_proofs.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledgerfsd.cli import main as cli
from ledgerfsd.merkle import note


class Run:
    """Runs ``ledgerfs`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        assert cli.main([str(argument) for argument in arguments]) == code
        captured = self._capsys.readouterr()
        return captured.out if code == 0 else captured.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("LEDGERFS_STORE", str(tmp_path / "store"))
    run = Run(capsys)
    out = run("init", "--ledger", "ledger.example/cli", "--segment-bytes", 2**20, "--json")
    (vkey,) = json.loads(out)["vkeys"]
    assert note.parse_verifier(vkey).name == "ledger.example/cli"
    return run


def test_rotate_and_revoke(run: Run) -> None:
    (first,) = json.loads(run("key", "list", "--json"))["keys"]
    assert (first["status"], first["valid_from_size"], first["valid_to_size"]) == ("active", 0, None)
    out = run("key", "rotate")
    assert out.startswith("made the new active key ")
    vkey = out.splitlines()[1]
    note.parse_verifier(vkey)
    header, *rows = run("key", "list").splitlines()
    assert header.split()[:4] == ["ID", "STATUS", "FROM", "TO"]
    assert [row.split()[1] for row in rows] == ["retiring", "active"]
    assert "PRIVATE" not in run("key", "list", "--json")
    assert run("key", "revoke", first["id"], "--size", 9) == f"revoked {first['id']}: believed up to size 9\n"
    assert [row.split()[1] for row in run("key", "list").splitlines()[1:]] == ["revoked", "active"]


def test_mistakes_are_explained(run: Run, tmp_path: Path) -> None:
    (first,) = json.loads(run("key", "list", "--json"))["keys"]
    assert "there are keys" in run("key", "create", code=3)
    assert "is the active key" in run("key", "revoke", first["id"], code=3)
    assert "there is no key" in run("key", "revoke", "12345678", code=3)
    assert "revoke takes the id" in run("key", "revoke", code=1)
    assert "only revoke does" in run("key", "rotate", first["id"], code=1)
    assert "goes with revoke" in run("key", "list", "--size", 1, code=1)
    assert "there are no keys" in run("key", "list", "--keys", tmp_path / "nowhere", code=3)
    assert "is not a LedgerFS store" in run("key", "list", "--store", tmp_path, code=3)
    assert run("key", "create", "--keys", tmp_path / "elsewhere").startswith("made the key ")
    assert not (tmp_path / "nowhere").exists()


def test_prove_needs_something_to_believe(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"c2sp.org/tlog-proof@v1\nindex 0\n\nx\n")
    assert "whom to believe" in run("prove", "tx", 1, "--check", file, "--entry", file, code=1)
    assert "go together" in run("prove", "tx", 1, "--check", file, code=1)
    assert "is no transaction" in run("prove", "tx", "x", code=1)
    assert "one or two files" in run("prove", "consistency", file, file, file, code=1)
    assert "no LedgerFS is mounted" in run("prove", "tx", 1, "--mount", tmp_path, code=3)
    vkey = note.generate("ledger.example/x").verifier().encode()
    assert "give one of them" in run("prove", "tx", 1, "--vkey", vkey, "--trusted-root", file, code=1)
    other = note.generate("ledger.example/y").verifier().encode()
    two = ("--vkey", vkey, "--vkey", other)
    assert "not all of one ledger" in run("prove", "consistency", file, file, *two, code=1)
    assert "not a signature line" in run("prove", "consistency", file, file, "--vkey", vkey, code=4)
    assert "is not a trusted root" in run("prove", "consistency", file, file, "--trusted-root", file, code=4)
