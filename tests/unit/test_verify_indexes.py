"""``ledgerfs verify`` and indexes/: every field of a run and of the list of runs, spoiled with every checksum made to fit."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from ledgerfsd.core.pure import runs
from ledgerfsd.core.pure.runs import FENCE, FOOTER, IDS, KINDS, POSTINGS, WORDS, Record, Run
from ledgerfsd.core.pure.sums import record_hash
from ledgerfsd.core.verifier import record_hash as core_record_hash
from ledgerfsd.journal.fsck import Finding
from ledgerfsd.journal.layout import Layout, create
from ledgerfsd.state.opening import open_store
from ledgerfsd.state.store import IndexStore, Saved
from ledgerfsd.state.verify import verify
from ledgerfsd.types import Mode

SEGMENT_BYTES = 1 << 20
ACCOUNTS = 12
SAVES = 3
FENCE_FIELDS = ("key", "offset", "log", "index", "count", "status", "totals", "held", "check")
FOOTER_FIELDS = ("magic", "kind", "block", "first", "end", "records", "bytes", "fences_check", "check")


def intents(chance: random.Random, part: int) -> Iterator[dict[str, object]]:
    """All that has records, of some hundred entries."""
    for number in range(ACCOUNTS if part == 0 else 0):
        yield {"type": "open_account", "account": f"a{number}", "class": "clearing", "currency": "EUR",
               "tags": [f"t{number % 3}", "all"], "reference": "opening"}  # fmt: skip
    yield {"type": "freeze", "account": f"a{part}"}
    yield {"type": "unfreeze", "account": f"a{part}"}
    for number in range(360):
        a, b = (f"a{each}" for each in chance.sample(range(ACCOUNTS), 2))
        pay: dict[str, object] = {"debit": a, "credit": b, "amount": f"{number % 9 + 1}.00"}
        yield pay | ({"reference": f'r {number % 40} "ü"'} if number % 4 else {"metadata": {"reference": "r 1"}})
        if number % 10 == 0:
            yield pay | {"type": "hold", "id": f"h{part}-{number}"}
            yield {"type": "void" if number % 20 else "post", "hold": f"h{part}-{number}"}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A store with three files of each kind, of several blocks each."""
    layout = create(tmp_path_factory.mktemp("indexes") / "store", "ledger.example/indexes", segment_bytes=SEGMENT_BYTES)
    store = open_store(layout, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    chance = random.Random(1)
    for part in range(SAVES):
        data = b"".join(json.dumps(intent).encode() + b"\n" for intent in intents(chance, part))
        store.engine.submit(data, source=b"f%d" % part, first_line=1, mode=Mode.EACH)
        store.engine.drain()
        store.engine.completions()
        store.projector.save_now()
    store.close()
    assert [len(list(layout.indexes.glob(f"{kind}-*"))) for kind in KINDS] == [SAVES] * 3
    assert verify(layout, anchors=[])[0] == []
    return layout


def files(layout: Layout) -> list[Path]:
    return sorted(layout.indexes.iterdir())


def fault(layout: Layout) -> Finding:
    """The only thing that is found wrong."""
    (found,) = verify(layout, anchors=[])[0]
    assert found.severity == "projection"
    return found


def written(layout: Layout, path: Path, data: bytes) -> Finding:
    """What is found when the file has these bytes; then it has its own again."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return fault(layout)
    finally:
        path.write_bytes(before)


# -- records

Change = Callable[[list[Record], int, random.Random], tuple[list[Record], set[int]]]


def other_key(records: list[Record], at: int, chance: random.Random) -> tuple[list[Record], set[int]]:
    record = records[at]
    changed = record._replace(key=record.key ^ 1 << chance.randrange(3))
    return [*records[:at], changed, *records[at + 1 :]], {record.entry}


def other_entry(records: list[Record], at: int, chance: random.Random) -> tuple[list[Record], set[int]]:
    record, entries = records[at], [each.entry for each in records]
    entry = chance.randrange(min(entries), max(entries) + 1)
    if entry == record.entry:
        entry += 1 if entry < max(entries) else -1
    return [*records[:at], record._replace(entry=entry), *records[at + 1 :]], {record.entry, entry}


def other_length(records: list[Record], at: int, chance: random.Random) -> tuple[list[Record], set[int]]:
    record = records[at]
    changed = record._replace(length=record.length ^ 1 << chance.randrange(12))
    return [*records[:at], changed, *records[at + 1 :]], {record.entry}


def other_states(records: list[Record], at: int, chance: random.Random) -> tuple[list[Record], set[int]]:
    record = records[at]
    changed = record._replace(states=record.states ^ chance.randrange(1, 4))
    return [*records[:at], changed, *records[at + 1 :]], {record.entry}


def dropped(records: list[Record], at: int, _: random.Random) -> tuple[list[Record], set[int]]:
    return [*records[:at], *records[at + 1 :]], {records[at].entry}


def doubled(records: list[Record], at: int, _: random.Random) -> tuple[list[Record], set[int]]:
    return [*records[:at], records[at], *records[at:]], {records[at].entry}


def swapped(records: list[Record], at: int, chance: random.Random) -> tuple[list[Record], set[int]]:
    """Two records exchange their entries: whatever is added up of either stays the same."""
    a = records[at]
    b = chance.choice([each for each in records if each.key != a.key and each.entry != a.entry])
    rest = [each for each in records if each not in (a, b)]
    return [*rest, a._replace(entry=b.entry), b._replace(entry=a.entry)], {a.entry, b.entry}


RECORD_CHANGES: list[Change] = [other_key, other_entry, other_length, other_states, dropped, doubled, swapped]


@pytest.mark.parametrize("change", RECORD_CHANGES, ids=lambda change: change.__name__)
def test_a_record(good: Layout, change: Change) -> None:
    """File and entry are named, whatever is wrong with one of its records."""
    chance = random.Random(change.__name__)
    for path in files(good):
        run = Run(path.read_bytes())
        if run.kind != POSTINGS and change is other_length:
            continue  # its records have none
        for _ in range(6):
            records = list(run)
            changed, entries = change(records, chance.randrange(len(records)), chance)
            found = written(good, path, runs.write(run.kind, run.first, run.end, changed))
            assert found.file == f"indexes/{path.name}"
            assert found.entry in entries, (found, entries)


def test_records_out_of_order(good: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks exchanged: all is there, with checksums and fences that fit, but a search would miss some."""
    monkeypatch.setattr(runs, "sorted", lambda records, **_: list(records), raising=False)
    for path in files(good):
        run = Run(path.read_bytes())
        first, second, *rest = [run.block(number) for number in range(len(run.fences))]
        assert len(second) == runs.BLOCK
        changed = [record for block in (second, first, *rest) for record in block]
        found = written(good, path, runs.write(run.kind, run.first, run.end, changed))
        assert (found.file, found.entry) == (f"indexes/{path.name}", first[0].entry)
        assert "out of order" in found.what


# -- the frame


def framed(data: bytes, fences: bytes, footer: tuple[object, ...]) -> bytes:
    """The file with these fences and this footer, and checks that fit."""
    blocks = data[: len(data) - FOOTER.size - len(fences)]
    sealed = FOOTER.pack(*footer[:7], xxhash.xxh3_64_intdigest(fences), 0)[:-8]
    return blocks + fences + sealed + struct.pack("<Q", xxhash.xxh3_64_intdigest(sealed))


@pytest.mark.parametrize("field", FENCE_FIELDS)
def test_a_fence(good: Layout, field: str) -> None:
    """The first, one in the middle and the last."""
    place = FENCE_FIELDS.index(field)
    for path in files(good):
        data = path.read_bytes()
        run = Run(data)
        footer = FOOTER.unpack(data[-FOOTER.size :])
        size, behind = len(run.fences) * FENCE.size, FOOTER.size + len(run.filter)
        fences = data[-behind - size : -behind]
        for at in {0, len(run.fences) // 2, len(run.fences) - 1}:
            values = list(FENCE.unpack_from(fences, at * FENCE.size))
            values[place] ^= 1
            changed = fences[: at * FENCE.size] + FENCE.pack(*values) + fences[(at + 1) * FENCE.size :]
            found = written(good, path, framed(data, changed + run.filter, footer))
            assert found.file == f"indexes/{path.name}"
            assert found.entry in range(run.first - 1, run.end + 1)


def test_a_filter(good: Layout) -> None:
    """A bit that is missing would hide an id, one too many only costs time: both are found."""
    chance = random.Random(3)
    for path in files(good):
        data = path.read_bytes()
        run = Run(data)
        for _ in range(10 if run.kind == IDS else 0):
            behind = bytearray(data[-FOOTER.size - len(run.fences) * FENCE.size - len(run.filter) : -FOOTER.size])
            behind[len(run.fences) * FENCE.size + chance.randrange(len(run.filter))] ^= 1 << chance.randrange(8)
            found = written(good, path, framed(data, bytes(behind), FOOTER.unpack(data[-FOOTER.size :])))
            assert (found.file, found.what) == (f"indexes/{path.name}", "its filter is not that of its records")


@pytest.mark.parametrize("field", FOOTER_FIELDS)
def test_a_footer(good: Layout, field: str) -> None:
    place = FOOTER_FIELDS.index(field)
    for path in files(good):
        data = path.read_bytes()
        for change in (1, 2, 128, 1 << 30):
            values = list(FOOTER.unpack(data[-FOOTER.size :]))
            values[place] = b"lfsrun2\n" if field == "magic" else values[place] ^ change
            sealed = FOOTER.pack(*values)
            if field != "check":
                sealed = sealed[:-8] + struct.pack("<Q", xxhash.xxh3_64_intdigest(sealed[:-8]))
            assert written(good, path, data[: -FOOTER.size] + sealed).file == f"indexes/{path.name}"


def test_a_file_that_is_not_there_or_cut_or_longer(good: Layout) -> None:
    for path in files(good):
        data = path.read_bytes()
        padded = Run(data).size
        for changed in (b"", data[:40], data[:-1], data[8:], data + bytes(8)):
            assert written(good, path, changed).file == f"indexes/{path.name}"
        if padded % 8:
            assert "before its fences" in written(good, path, data[:padded] + b"x" + data[padded + 1 :]).what
        path.unlink()
        assert (fault(good).file, fault(good).what) == (f"indexes/{path.name}", "cannot be opened")
        path.write_bytes(data)


# -- the list in index.lmdb


def saved(layout: Layout, listed: bytes | None = None) -> Saved:
    """What index.lmdb holds; with another list of the files of indexes/."""
    store = IndexStore(layout.index)
    found = store.load()
    assert found is not None
    if listed is not None:
        store.save(found.state._replace(tables=found.state.tables | {"indexes": listed}), found.tip)
    store.close()
    return found


def with_list(layout: Layout, change: Callable[[bytes], bytes]) -> Finding:
    """What is found with another list; then it is the old one again."""
    before = saved(layout).state.tables["indexes"]
    saved(layout, change(before))
    (found,) = verify(layout, anchors=[])[0]
    saved(layout, before)
    return found


def lists(dump: bytes) -> list[tuple[int, list[bytes]]]:
    """Of each kind: how many entries are covered, and the names."""
    found, at = [], 0
    while at < len(dump):
        covered, count = struct.unpack_from("<QQ", dump, at)
        at += 16
        found.append((covered, [dump[at + 48 * i : at + 48 * (i + 1)] for i in range(count)]))
        at += 48 * count
    return found


def dumped(kinds: list[tuple[int, list[bytes]]]) -> bytes:
    return b"".join(struct.pack("<QQ", covered, len(names)) + b"".join(names) for covered, names in kinds)


@pytest.mark.parametrize("kind", [POSTINGS, WORDS, IDS])
def test_the_list_of_files(good: Layout, kind: int) -> None:
    def changed(make: Callable[[int, list[bytes]], tuple[int, list[bytes]]]) -> Callable[[bytes], bytes]:
        def change(dump: bytes) -> bytes:
            kinds = lists(dump)
            kinds[kind] = make(*kinds[kind])
            return dumped(kinds)

        return change

    changes = [
        changed(lambda covered, names: (covered + 1, names)),
        changed(lambda covered, names: (covered - 1, names)),
        *(changed(lambda covered, names, at=at: (covered, [*names[:at], *names[at + 1 :]])) for at in range(SAVES)),
        changed(lambda covered, _: (covered, [])),
        changed(lambda covered, names: (covered, [names[1], names[0], *names[2:]])),
        changed(lambda covered, names: (covered, [names[0], *names])),
        changed(lambda covered, names: (covered, [names[0].replace(b"-", b"_"), *names[1:]])),
        changed(lambda covered, names: (covered, [names[0][:-1] + b"x", *names[1:]])),
        changed(lambda covered, names: (covered, [*names, names[0].replace(b"-00", b"-99")])),
        lambda dump: dump[:-1],
        lambda dump: dump[:-48],
        lambda dump: dump + bytes(48),
        lambda dump: dumped(list(reversed(lists(dump)))),
    ]
    for number, change in enumerate(changes):
        found = with_list(good, change)
        assert (found.severity, found.file.partition("/")[0]) == ("projection", "indexes"), number
    found = with_list(good, changed(lambda covered, names: (covered, names[1:])))
    assert found.entry == first_with_records(good, kind)
    assert found.what.endswith("missing, or not as in the journal")
    found = with_list(good, lambda _: b"")
    assert (found.severity, found.file) == ("note", "indexes")
    assert verify(good, anchors=[])[0] == []


def first_with_records(layout: Layout, kind: int) -> int:
    oldest = next(path for path in files(layout) if path.name.startswith(KINDS[kind]))
    return min(record.entry for record in Run(oldest.read_bytes()))


# -- the hash of a record


def test_the_hash_of_a_record_equals_that_of_its_twin() -> None:
    chance = random.Random(8)
    for _ in range(500):
        key = chance.randbytes(16)
        record = Record(chance.getrandbits(64), chance.getrandbits(32), chance.getrandbits(16), chance.getrandbits(2))
        kind = chance.randrange(3)
        assert core_record_hash(key, kind, record) == record_hash(key, kind, record)


def test_the_hash_is_siphash() -> None:
    """OpenSSL's SipHash-2-4 of 00 … 0f under the key 00 … 0f, with 128 bits of result."""
    data = bytes(range(16))
    key, rest = struct.unpack("<QQ", data)
    record = Record(key, rest >> 32, rest >> 16 & 0xFFFF, rest & 0xFF)
    assert record_hash(data, rest >> 8 & 0xFF, record).hex() == "6ee2a4ca67b054bbfd3315bf85230577"
