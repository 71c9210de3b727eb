"""A store as the benchmarks make it, verified: payments as fast as they go, accounts opened among them, runs made and merged meanwhile.

What only shows at speed was found this way: roots of accounts that were opened while the state tree was swept.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from pathlib import Path

import pytest
import xxhash

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure.runs import FENCE, FOOTER
from ledgerfsd.journal.layout import create
from ledgerfsd.state.opening import open_store
from ledgerfsd.state.store import IndexStore
from ledgerfsd.state.verify import verify
from ledgerfsd.types import Mode

PARTS = 12  # at least
SECONDS = 2.5  # at least: there is a root every second, which takes a while among all accounts
PAYMENTS = 20_000  # a part
OPENINGS = 4_000
BYTES_AHEAD = 8 << 20

ACCOUNT = b'{"account":"a%d","class":"clearing","currency":"EUR","id":"o%d","tags":["t%d"],"type":"open_account"%s}\n'
PAYMENT = b'{"amount":"1.00","credit":"a%d","debit":"a%d","id":"p%d-%d","reference":"r%d"}\n'


def part_of(chance: random.Random, part: int) -> bytes:
    """Payments between all accounts so far, and openings among them, half with an initial balance."""
    lines, accounts = [], part * OPENINGS
    for number in range(PAYMENTS):
        if number % (PAYMENTS // OPENINGS) == 0:
            balance = b',"initial_balance":"5.00"' if accounts % 2 else b""
            lines.append(ACCOUNT % (accounts, accounts, accounts % 7, balance))
            accounts += 1
        a = chance.randrange(accounts)
        if accounts > 1:
            lines.append(PAYMENT % (a, (a + chance.randrange(1, accounts)) % accounts, part, number, number % 5000))
    return b"".join(lines)


def roots(engine: Engine) -> int:
    """How many seals carry a state root."""
    blocks = engine.counts().blocks
    return sum(b'"state_root"' in bytes(engine.entry(engine.block(height))) for height in range(1, blocks + 1))


@pytest.mark.slow
def test_a_store_made_at_full_speed(tmp_path: Path) -> None:
    layout = create(tmp_path / "store", "ledger.example/speed", segment_bytes=16 << 20)
    store = open_store(layout, segment_bytes=16 << 20)
    engine, chance = store.engine, random.Random(6)
    engine.start()
    running = threading.Event()
    running.set()

    def save() -> None:
        while running.is_set():
            store.projector.save_now()

    saving = threading.Thread(target=save)
    saving.start()
    try:
        parts, began = 0, time.monotonic()
        while parts < PARTS or time.monotonic() - began < SECONDS:
            part, parts = parts, parts + 1
            engine.submit(part_of(chance, part), source=b"f%d" % part, first_line=1, mode=Mode.EACH)
            while engine.inflight_bytes > BYTES_AHEAD:
                engine.completions()
        engine.drain()
    finally:
        running.clear()
        saving.join()
    store.projector.save_now()
    counts = engine.counts()
    assert counts.accounts == parts * OPENINGS + 1
    assert counts.transactions > parts * PAYMENTS
    assert roots(engine) > 1
    assert engine.indexes().covered == counts.entries
    store.close()
    for jobs in (1, 2, 5):
        findings, found = verify(layout, anchors=[], jobs=jobs)
        assert findings == []
        assert (found.entries, found.transactions, found.accounts) == (
            counts.entries,
            counts.transactions,
            counts.accounts,
        )
    saved = IndexStore.peek(layout.index)
    assert saved is not None
    listed = saved.state.tables["indexes"]  # T6 may have merged again since
    runs = sorted(layout.indexes.iterdir(), key=lambda path: path.stat().st_size)
    largest = {path.name.partition("-")[0]: path for path in runs if path.name.encode() in listed}
    assert set(largest) >= {"postings", "words"}
    for path in largest.values():
        before = path.read_bytes()
        data, entry = one_bit(before)
        path.write_bytes(data)
        (finding,) = verify(layout, anchors=[])[0]
        path.write_bytes(before)
        assert (finding.file, finding.entry) == (f"indexes/{path.name}", entry)


def one_bit(data: bytes) -> tuple[bytes, int]:
    """A run in which the first record of a block in the middle states something else, with checksums that fit; and the record's entry."""
    footer = list(FOOTER.unpack(data[-FOOTER.size :]))
    records, size = footer[5], footer[6]
    begin, blocks = -(-size // 8) * 8, -(-records // 128)
    out, at = bytearray(data), begin + blocks // 2 * FENCE.size
    fence, after = list(FENCE.unpack_from(data, at)), FENCE.unpack_from(data, at + FENCE.size)
    while after[0] == fence[0]:  # a fence behind it would tell
        at += FENCE.size
        fence, after = list(FENCE.unpack_from(data, at)), FENCE.unpack_from(data, at + FENCE.size)
    out[fence[1]] ^= 2
    fence[8] = xxhash.xxh3_64_intdigest(bytes(out[fence[1] : after[1]])) & 0xFFFF_FFFF
    out[at : at + FENCE.size] = FENCE.pack(*fence)
    footer[7] = xxhash.xxh3_64_intdigest(bytes(out[begin : -FOOTER.size]))
    sealed = FOOTER.pack(*footer)[:-8]
    out[-FOOTER.size :] = sealed + struct.pack("<Q", xxhash.xxh3_64_intdigest(sealed))
    return bytes(out), fence[3]
