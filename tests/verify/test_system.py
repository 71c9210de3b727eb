"""Entries of the ledger's own, forged under good hashes: core, twin and the stand-alone verifier refuse the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.core.verifier import Applied, Verifier
from ledgerfsd.errors import DamageError
from ledgerfsd.types import Mode
from tests.verify.support import ORIGIN, canonical, seal_again, verify, write_store

START = 1_790_000_000_000_000_000
VKEY = f"{ORIGIN}+01234567+AQAB"
INTENTS: list[dict[str, Any]] = [
    {"type": "key", "id": "~key:1", "status": "active", "valid_from_size": 0, "vkey": VKEY},
    {"type": "key", "id": "~key:2", "status": "revoked", "valid_from_size": 0, "valid_to_size": 3, "vkey": VKEY},
    {
        "type": "anchor",
        "id": "~anchor:1",
        "kind": "s3",
        "name": 'b "x"',
        "size": 4,
        "root": "ab" * 32,
        "hash": "cd" * 32,
    },
    {"type": "restore", "id": "~restore:2", "incarnation": 2, "reason": "expired", "size": 8},
    {
        "type": "restore",
        "id": "~restore:3",
        "incarnation": 3,
        "reason": "r",
        "size": 10,
        "signed_size": 99,
        "signed_root": "ef" * 32,
    },
]


def history() -> list[bytes]:
    ledger = Ledger.create(ORIGIN, START)
    for number, intent in enumerate(INTENTS, 1):
        now_ns = START + number * 10**9
        (result,) = ledger.submit(
            json.dumps(intent).encode(),
            source=b"",
            first_line=1,
            mode=Mode.DOCUMENT,
            dry_run=False,
            now_ns=now_ns,
            system=True,
        )
        assert result.code == 0
        ledger.seal(now_ns)
    return ledger.entries


ENTRIES = history()


def verdicts(root: Path, entries: list[bytes]) -> list[bool]:
    """Whether core, twin and stand-alone verifier accept them."""
    store = write_store(root / "store", entries)
    core = Verifier(store, applied=Applied())
    core.wait()
    try:
        Ledger.replay(entries)
        twin = True
    except DamageError:
        twin = False
    return [core.damage is None, twin, verify.main(["store", str(store), "--quiet"]) == 0]


def again(value: dict[str, Any]) -> None:
    """Make the hash of the intent fit what the entry says."""
    own = {name: given for name, given in value.items() if name not in ("index", "intent", "t", "time")}
    value["intent"] = hashlib.sha256(canonical(own | {"type": value["t"].partition("/")[0]})).hexdigest()


FORGED: list[tuple[str, bool, Callable[[dict[str, Any]], object]]] = [
    ("~key:1", False, lambda value: value.update(status="revoked")),
    ("~key:1", False, lambda value: value.update(intent="00" * 32)),
    ("~key:1", False, lambda value: value.pop("intent")),
    ("~key:1", True, lambda value: value.update(status="open")),
    ("~key:1", True, lambda value: value.update(valid_from_size=-1)),
    ("~key:1", True, lambda value: value.update(vkey="")),
    ("~key:1", True, lambda value: value.update(metadata={})),
    ("~key:1", True, lambda value: value.update(id="k")),
    ("~key:1", True, lambda value: value.update(id="~restore:1")),
    ("~key:2", True, lambda value: value.update(id="~key:1")),
    ("~key:2", True, lambda value: value.update(valid_to_size=None)),
    ("~key:2", True, lambda value: value.pop("vkey")),
    ("~anchor:1", True, lambda value: value.update(kind="paper")),
    ("~anchor:1", True, lambda value: value.update(hash="CD" * 32)),
    ("~anchor:1", True, lambda value: value.update(name="")),
    ("~restore:2", True, lambda value: value.update(incarnation=3)),
    ("~restore:2", True, lambda value: value.update(size=value["index"] + 1)),
    ("~restore:2", True, lambda value: value.update(signed_size=9)),
    ("~restore:3", True, lambda value: value.update(incarnation=2)),
    ("~restore:3", True, lambda value: value.pop("signed_root")),
    ("~restore:3", False, lambda value: value.update(signed_size=98)),
]


def test_they_are_accepted_as_they_are(tmp_path: Path) -> None:
    assert verdicts(tmp_path, ENTRIES) == [True] * 3
    assert Ledger.replay(ENTRIES).book.incarnation == 3


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_what_cannot_be_said_is_refused_by_all(number: int, tmp_path: Path) -> None:
    name, fits, change = FORGED[number]

    def forge(_: int, value: dict[str, Any]) -> None:
        if value.get("id") == name:
            change(value)
            if fits:
                again(value)

    assert verdicts(tmp_path, seal_again(ENTRIES, states=False, change=forge)) == [False] * 3


def test_what_could_have_been_said_is_accepted_by_all(tmp_path: Path) -> None:
    def change(_: int, value: dict[str, Any]) -> None:
        if value.get("id") == "~restore:3":
            value["reason"] = "another"
            again(value)

    assert verdicts(tmp_path, seal_again(ENTRIES, states=False, change=change)) == [True] * 3
