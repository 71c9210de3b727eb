"""Recovery by the C core and by its twin agree on a damaged stream: what counts, what is cut, what is refused as damage."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerfsd.clock import parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure import journal
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.errors import DamageError, StoreError
from ledgerfsd.types import Mode

SEGMENT = "0" * 20 + ".seg"
BEGIN_NS = parse_time("2026-03-02T09:00:00Z") or 0
HISTORY = [
    '{"type":"open_account","account":"a","class":"equity","currency":"EUR","initial_balance":"10.00"}\n'
    '{"type":"open_account","account":"b","class":"equity","currency":"EUR"}',
    '{"id":"1","debit":"a","credit":"b","amount":"1.00","metadata":{"t":"seal/1","n":[1,"x"]}}\n'
    '{"id":"2","debit":"a","credit":"nobody","amount":"1.00"}',
    '{"type":"hold","id":"h","debit":"a","credit":"b","amount":"2.00"}\n{"type":"post","hold":"h","amount":"1.00"}',
    '{"type":"register_currency","currency":"PTS","decimals":3}\n{"type":"freeze","account":"b"}',
    '{"type":"reverse","of":"tx_0002"}',
]

SYSTEM = [
    '{"type":"key","id":"~key:1","status":"active","valid_from_size":0,"vkey":"l+01234567+AQAB"}',
    '{"type":"anchor","id":"~anchor:1","kind":"s3","name":"x","size":4,"root":"'
    + "ab" * 32
    + '","hash":"'
    + "cd" * 32
    + '"}',
    '{"type":"restore","id":"~restore:2","incarnation":2,"reason":"r","size":4}',
]


def history() -> bytes:
    """The stream of a ledger with entries of most kinds, a block each."""
    ledger = Ledger.create("ledger.example/recovery", BEGIN_NS)
    for number, lines in enumerate(HISTORY):
        now_ns = BEGIN_NS + number * 10**9
        ledger.submit(lines.encode(), source=b"f", first_line=1, mode=Mode.EACH, dry_run=False, now_ns=now_ns)
        ledger.seal(now_ns)
    for number, intent in enumerate(SYSTEM):
        now_ns = BEGIN_NS + (20 + number) * 10**9
        ledger.submit(
            intent.encode(), source=b"", first_line=1, mode=Mode.DOCUMENT, dry_run=False, now_ns=now_ns, system=True
        )
        ledger.seal(now_ns)
    return journal.stream(ledger.entries)


STREAM = history()
places = st.integers(0, len(STREAM) - 1)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The stream with one bit turned, a part zeroed or overwritten, or the end gone; and zeros behind it, or none."""
    data, at = bytearray(STREAM), draw(places)
    kind = draw(st.sampled_from(["flip", "flip", "flip", "cut", "zero", "copy", "none"]))
    if kind == "flip":
        data[at] ^= draw(st.sampled_from([1, 2, 4, 16, 64, 128, 255]))
    elif kind == "cut":
        del data[at:]
    elif kind == "zero":
        end = min(at + draw(st.integers(1, 600)), len(data))
        data[at:end] = bytes(end - at)
    elif kind == "copy":
        source, size = draw(places), draw(st.sampled_from([1, 9, 200]))
        piece = STREAM[source : source + size]
        data[at : at + len(piece)] = piece
    return bytes(data) + bytes(draw(st.sampled_from([0, 1, 100])))


def by_core(data: bytes) -> tuple[int, bytes] | None:
    """How many entries count and what the segment holds then; None when it is refused as damage."""
    with tempfile.TemporaryDirectory() as folder:
        segment = Path(folder) / "journal" / SEGMENT
        segment.parent.mkdir()
        segment.write_bytes(data)
        try:
            engine = Engine(Path(folder), segment_bytes=1 << 20, accounts_max=4096)
        except (DamageError, StoreError):
            assert segment.read_bytes() == data
            return None
        return engine.counts().entries, segment.read_bytes().rstrip(b"\0")


def by_twin(data: bytes) -> tuple[int, bytes] | None:
    """The same."""
    try:
        found = journal.recover(data)
        Ledger.replay(found.entries)
    except DamageError:
        return None
    return len(found.entries), data[: found.length]


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_both_recover_the_same(data: bytes) -> None:
    assert by_core(data) == by_twin(data)
