"""state/store.py, tip.py and opening.py: what LMDB keeps, and when it is believed."""

from __future__ import annotations

import struct
from pathlib import Path

import lmdb
import pytest

from ledgerfsd.core.values import SavedState
from ledgerfsd.errors import DamageError
from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.tree import leaf_hash
from ledgerfsd.state import store as stores
from ledgerfsd.state.opening import incomplete
from ledgerfsd.state.store import IndexStore
from ledgerfsd.state.tip import Mark, Tip

TIP = Tip(b"\x11" * 32, 7, 1234).pack()


def state(entries: int = 8, **pages: bytes) -> SavedState:
    mark = struct.pack("<6Q", 1, entries, 100, 3, 2, 4)
    return SavedState(mark, {"holds": b"h", "reversed": b"", "policy": b"p"}, {int(k[1:]): v for k, v in pages.items()})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.lmdb"


def test_new_store_has_nothing(path: Path) -> None:
    store = IndexStore(path)
    assert store.load() is None
    assert store.discarded == ""
    store.close()


def test_what_was_saved_is_loaded_by_the_next_process(path: Path) -> None:
    store = IndexStore(path)
    store.save(state(p0=b"a" * 100, p70000=b"b"), TIP)
    store.close()
    store.close()
    again = IndexStore(path)
    found = again.load()
    assert found is not None
    assert found.state == state(p0=b"a" * 100, p70000=b"b")
    assert Tip.unpack(found.tip) == Tip(b"\x11" * 32, 7, 1234)
    again.close()


def test_pages_not_given_again_stay(path: Path) -> None:
    store = IndexStore(path)
    store.save(state(8, p0=b"old", p1=b"stays"), TIP)
    store.save(state(9, p0=b"new"), TIP)
    found = store.load()
    assert found is not None
    assert found.state.pages == {0: b"new", 1: b"stays"}
    assert Mark.of(found.state.mark).entries == 9
    store.close()


def test_a_large_save_does_not_begin_anew(path: Path) -> None:
    asked: list[int] = []

    class Pages(dict[int, bytes]):
        def __getitem__(self, number: int) -> bytes:
            asked.append(number)
            return super().__getitem__(number)

    store = IndexStore(path, map_bytes=2**20)
    for _ in range(2):
        pages = Pages(dict.fromkeys(range(500), b"p" * 15360))
        store.save(state()._replace(pages=pages), TIP)
        assert asked == list(range(500))
        asked.clear()
    store.close()


def test_saves_use_the_room_of_the_saves_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction replaces is free two transactions later: with all pages in one there would be three of each."""
    monkeypatch.setattr(stores, "PAGES_AT_ONCE", 50)
    store = IndexStore(path)
    for turn in range(6):
        store.save(state(p0=b"0")._replace(pages=dict.fromkeys(range(1_000), bytes([turn]) * 13_312)), TIP)
    found = store.load()
    store.close()
    assert found is not None
    assert set(found.state.pages.values()) == {bytes([5]) * 13_312}
    assert len(found.state.pages) == 1_000
    assert (path / "data.mdb").stat().st_size < 1.3 * 1_000 * 16_384


def test_map_grows_when_it_is_full(path: Path) -> None:
    store = IndexStore(path, map_bytes=2**20)
    pages = {f"p{number}": bytes([number]) * 16_384 for number in range(200)}  # 3 MiB
    store.save(state(**pages), TIP)
    store.close()
    again = IndexStore(path, map_bytes=2**20)
    found = again.load()
    assert found is not None
    assert len(found.state.pages) == 200
    assert found.state.pages[199] == b"\xc7" * 16_384
    again.save(state(9, p200=b"x" * 2**20), TIP)
    again.close()


@pytest.mark.parametrize("junk", [b"", b"not a database" * 1000, b"\0" * 8192])
def test_unreadable_file_is_made_anew(path: Path, junk: bytes) -> None:
    store = IndexStore(path)
    store.save(state(p0=b"a"), TIP)
    store.close()
    (path / "data.mdb").write_bytes(junk)
    again = IndexStore(path)
    assert again.load() is None
    again.save(state(p0=b"b"), TIP)
    assert again.load() is not None
    again.close()


@pytest.mark.parametrize("key", [b"format", b"lmdb"])
def test_other_format_is_made_anew_and_says_so(path: Path, key: bytes) -> None:
    store = IndexStore(path)
    store.save(state(p0=b"a"), TIP)
    store.close()
    with lmdb.open(str(path), max_dbs=3) as env, env.begin(write=True) as transaction:
        transaction.put(key, b"7.7", db=env.open_db(b"meta", txn=transaction))
    again = IndexStore(path)
    assert f"{key.decode()} 7.7, not" in again.discarded
    assert again.load() is None
    again.close()


@pytest.mark.parametrize("content", [b"account page", b"holds dump", b"the mark's 80 bytes"])
def test_bad_bit_in_a_value_is_noticed(path: Path, content: bytes) -> None:
    store = IndexStore(path)
    saved = SavedState(b"the mark's 80 bytes", {"holds": b"holds dump", "policy": b""}, {7: b"account page"})
    store.save(saved, TIP)
    store.close()
    data = bytearray((path / "data.mdb").read_bytes())
    assert data.count(content) == 1
    data[data.index(content) + 3] ^= 4
    (path / "data.mdb").write_bytes(data)
    with pytest.raises(lmdb.CorruptedError):
        IndexStore.peek(path)
    again = IndexStore(path)
    assert again.load() is None
    assert "not what was written" in again.discarded
    again.save(saved, TIP)
    assert again.load() is not None
    again.close()


def test_file_that_was_cut_is_not_read(path: Path) -> None:
    """Its pages are mapped: one behind the end of the file would kill the process."""
    store = IndexStore(path)
    store.save(state(**{f"p{number}": b"x" * 9_000 for number in range(50)}), TIP)
    store.close()
    with (path / "data.mdb").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(lmdb.CorruptedError, match="shorter"):
        IndexStore.peek(path)
    again = IndexStore(path)
    assert "shorter" in again.discarded
    assert again.load() is None
    again.close()


# -- the tip


def segments(layout: Layout, *parts: list[bytes]) -> None:
    layout.journal.mkdir(parents=True)
    first = 0
    for entries in parts:
        data = b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)
        (layout.journal / f"{first:020}.seg").write_bytes(data)
        first += len(entries)


def test_tip_is_found_in_any_segment(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    segments(layout, [b"one", b"three"], [b"seven", b"eleven!"])
    Tip(leaf_hash(b"three"), 1, 5).check(layout)
    Tip(leaf_hash(b"seven"), 2, 12).check(layout)
    Tip(leaf_hash(b"eleven!"), 3, 19).check(layout)


@pytest.mark.parametrize(
    "tip",
    [
        Tip(leaf_hash(b"threE"), 1, 5),  # other bytes
        Tip(leaf_hash(b"three"), 1, 4),  # other place
        Tip(leaf_hash(b"gone"), 4, 28),  # behind the end
        Tip(leaf_hash(b"gone"), 4, 10_000),
    ],
)
def test_journal_without_the_tip_is_damage(tmp_path: Path, tip: Tip) -> None:
    layout = Layout(tmp_path)
    segments(layout, [b"one", b"three"], [b"seven", b"eleven!"])
    with pytest.raises(DamageError, match=f"entry {tip.entry} was committed here") as caught:
        tip.check(layout)
    assert "restore" in caught.value.hint


def test_zeroed_tip_is_damage(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    segments(layout, [b"one", b"three"])
    segment = layout.segments()[0]
    segment.write_bytes(segment.read_bytes()[:5] + bytes(100))
    with pytest.raises(DamageError):
        Tip(leaf_hash(b"three"), 1, 5).check(layout)


# -- files beside the mark


def test_short_projection_files_are_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.runs.mkdir()
    layout.hashes.mkdir()
    mark = Mark(entries=600, stream_bytes=9, transactions=10, blocks=3, accounts=1)
    files = {
        layout.runs / "offsets": 8 * 600,
        layout.runs / "transactions": 80,
        layout.runs / "blocks": 24,
        layout.hashes / "0": 32 * 600,
        layout.hashes / "1": 32 * 2,
    }
    for path, size in files.items():
        path.write_bytes(bytes(size + 64))
    assert incomplete(layout, mark) == ""
    for path, size in files.items():
        path.write_bytes(bytes(size - 1))
        assert incomplete(layout, mark) == f"{path.relative_to(tmp_path)} is missing or too short"
        path.unlink()
        assert str(path.relative_to(tmp_path)) in incomplete(layout, mark)
        path.write_bytes(bytes(size))
