"""service/last_signed.py: where what was signed last is kept apart from the store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ledgerfsd.config import ConfigError, load
from ledgerfsd.journal.layout import Layout, first_entry
from ledgerfsd.service import last_signed as records


def test_the_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_signed: Path) -> None:
    assert records.directory() == last_signed, "the environment"
    assert records.directory(str(tmp_path)) == tmp_path, "the setting is stronger"
    monkeypatch.delenv(records.VARIABLE)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert records.directory() == Path("/var/lib/ledgerfs/last-signed")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert records.directory() == Path("/home/somebody/.local/state/ledgerfs/last-signed")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert records.directory() == Path("/state/ledgerfs/last-signed")


def test_a_store_is_known_by_its_genesis(store: Path, last_signed: Path) -> None:
    layout = Layout(store)
    assert records.place(layout) == last_signed / hashlib.sha256(first_entry(layout)).hexdigest()


def test_a_signer_that_runs_by_itself_needs_the_public_keys() -> None:
    given = {"store": "s", "mountpoint": "m", "signer": "/run/signer"}
    with pytest.raises(ConfigError, match="'signer' needs 'keys'"):
        load(None, given)
    assert load(None, given | {"keys": "/keys"}).signer == "/run/signer"
