"""What the ledger records by itself, at the service's door: keys and anchors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from ledgerfsd.errors import Refused
from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.recorded import recorded
from ledgerfsd.merkle import note, proof
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.system import disagreements, key_of, logged, missing, newest
from ledgerfsd.state.verify import Part, verify
from ledgerfsd.types import Mode
from tests.conftest import LEDGER
from tests.fs.conftest import lines

pytestmark = pytest.mark.trio
TOKEN = b"a time stamp token"


def committed(ledger: Ledger) -> bytes:
    (line,) = (
        line for line in ledger.metrics.text({}).splitlines() if line.startswith(b"ledgerfs_intents_committed_total ")
    )
    return line


async def test_an_anchor_is_recorded_once(ledger: Ledger) -> None:
    size, before = ledger.engine.counts().entries, committed(ledger)
    root = proof.root(ledger.engine.hashes, size)
    first = await ledger.record_anchor(kind="rfc3161", name="tsa.example", size=size, root=root, evidence=TOKEN)
    entry = json.loads(bytes(ledger.engine.entry(first.index)))
    assert (entry["t"], entry["kind"], entry["name"], entry["size"]) == ("anchor/1", "rfc3161", "tsa.example", size)
    assert (entry["root"], entry["hash"]) == (root.hex(), hashlib.sha256(TOKEN).hexdigest())
    again = await ledger.record_anchor(kind="rfc3161", name="tsa.example", size=size, root=root, evidence=TOKEN)
    assert (again.index, again.duplicate) == (first.index, True)
    other = await ledger.record_anchor(kind="rfc3161", name="tsa2.example", size=size, root=root, evidence=TOKEN)
    assert other.index > first.index
    with pytest.raises(Refused, match="bad_text"):
        await ledger.record_anchor(kind="folder", name="\n", size=size, root=root, evidence=TOKEN)
    assert committed(ledger) == before, "they are not intents of clients"


@pytest.mark.parametrize("right", [True, False])
async def test_verify_looks_at_the_roots_of_recorded_anchors(ledger: Ledger, right: bool) -> None:
    size = ledger.engine.counts().entries
    root = proof.root(ledger.engine.hashes, size) if right else bytes(32)
    result = await ledger.record_anchor(kind="s3", name="bucket", size=size, root=root, evidence=TOKEN)
    findings, found = verify(ledger.layout, anchors=[], part=Part(projections=False))
    assert (found.recorded_anchors, found.anchors) == (int(right), 0)
    assert [(each.severity, each.entry) for each in findings] == ([] if right else [("damage", result.index)])


async def test_the_log_comes_to_say_what_the_trusted_root_says(ledger: Ledger, tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys", LEDGER)
    keys.create()
    for change in (lambda: None, keys.rotate, lambda: keys.revoke(keys.trusted_root().keys[0].key_id, 5), keys.rotate):
        change()
        await ledger.recorder.keys(keys.trusted_root())
        await ledger.recorder.keys(keys.trusted_root())
        statements = [key_of(entry, LEDGER) for _, entry in logged(ledger.engine, "key/1")]
        assert list(newest(statements).values()) == keys.trusted_root().keys
        assert disagreements(keys.trusted_root(), statements) == ([], [])
    assert len(statements) == 6
    assert [entry["id"] for _, entry in logged(ledger.engine, "key/1")] == [f"~key:{number}" for number in range(1, 7)]
    assert list(recorded(Layout(ledger.layout.root), "key/1")) == [entry for _, entry in logged(ledger.engine, "key/1")]
    # A key that the trusted root has not any more is revoked; one that comes back to what it was is said again.
    root = keys.trusted_root()
    assert missing(msgspec.structs.replace(root, keys=root.keys[1:]), newest(statements), 77) == [], (
        "it is revoked already"
    )
    (gone,) = missing(msgspec.structs.replace(root, keys=root.keys[:2]), newest(statements), 77)
    assert (gone.vkey, gone.status, gone.valid_to_size) == (root.keys[2].vkey, "revoked", 77)


async def test_nothing_a_user_writes_is_found_as_recorded(ledger: Ledger) -> None:
    stranger = note.generate(LEDGER).verifier().encode()
    entry = {"id": "~key:9", "index": 9, "status": "active", "t": "key/1", "valid_from_size": 0, "vkey": stranger}
    await ledger.submit(
        lines(
            *(
                {"debit": "nobody", "credit": "acc_001", "amount": "1.00", "metadata": {"a" * pad: entry}}
                for pad in (1, 2, 3)
            )
        ),
        source=b"x",
        first_line=1,
        mode=Mode.EACH,
    )
    assert list(recorded(ledger.layout, "key/1")) == []
