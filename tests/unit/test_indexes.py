"""The indexes of an engine against what its entries say: right after a commit, from files, merged, after restart and rebuild."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.values import By, SavedState
from ledgerfsd.errors import DamageError
from ledgerfsd.journal.layout import Layout, create
from ledgerfsd.state.opening import OpenStore, open_store
from ledgerfsd.state.rebuild import rebuild
from ledgerfsd.state.tip import Mark
from ledgerfsd.state.verify import verify
from ledgerfsd.types import Mode

NOW = 1_795_000_000_000_000_000
ACCOUNTS = 40
SEGMENT_BYTES = 1 << 20
FORWARD, BEHIND = 5, 10  # niceness


class Line(NamedTuple):
    """An entry of an account, as it stands in the journal."""

    entry: int
    data: bytes
    said: dict[str, Any]


def intents(chance: random.Random, count: int, name: str) -> bytes:
    """Everything that names accounts: payments, holds, posts, voids, updates, wide transactions; one account is hot."""
    lines: list[dict[str, Any]] = []
    held: list[str] = []
    for number in range(count):
        a, b = (f"a{each}" for each in chance.sample(range(1, ACCOUNTS), 2))
        a = "a0" if chance.random() < 0.3 else a
        kind = chance.random()
        pay: dict[str, Any] = {"debit": a, "credit": b, "amount": f"{chance.randint(1, 999)}.{number % 100:02}"}
        if kind < 0.6:
            extra = (
                {"reference": (f'ref {number % 9} "ü" \\', "see [7],", 'as {7},"x', "[7]")[number % 11 % 4]}
                if kind < 0.3
                else {"metadata": {"reference": "ref 1", "tags": ["t1"]}}
            )
            lines.append(pay | extra)
        elif kind < 0.75:
            held.append(f"h-{name}-{number}")
            lines.append(pay | {"type": "hold", "id": held[-1]})
        elif kind < 0.9 and held:
            end = held.pop(chance.randrange(len(held)))
            lines.append({"type": chance.choice(("post", "void")), "hold": end})
        elif kind < 0.97:
            sides = [
                {"account": a, "side": "debit", "amount": "2.00"},
                {"account": b, "side": "credit", "amount": "1.00"},
            ]
            lines.append(
                {"postings": [*sides, {"account": b, "side": "credit", "amount": "1.00"}], "type": "transaction"}
            )
        else:
            lines.append({"type": chance.choice(("freeze", "unfreeze", "unfreeze")), "account": b})
    return b"".join(
        json.dumps(line | ({} if "id" in line else {"id": f"{name}-{at}"})).encode() + b"\n"
        for at, line in enumerate(lines)
    )


def submit(engine: Engine, data: bytes, name: str) -> None:
    engine.submit(data, source=name.encode(), first_line=1, mode=Mode.EACH, now_ns=NOW)
    engine.drain()
    engine.completions()


def opened(layout: Layout) -> OpenStore:
    store = open_store(layout, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    return store


def make(root: Path) -> OpenStore:
    store = opened(create(root, "ledger.example/indexes", segment_bytes=SEGMENT_BYTES))
    accounts = [
        {"type": "open_account", "account": f"a{number}", "class": "clearing", "currency": "EUR", "id": f"o{number}",
         "tags": [f"t{number % 3}", "all"], "reference": "opening"}
        for number in range(ACCOUNTS)
    ]  # fmt: skip
    submit(store.engine, b"".join(json.dumps(each).encode() + b"\n" for each in accounts), "accounts")
    return store


def chains(engine: Engine) -> dict[str, list[Line]]:
    """By account, read from the entries themselves."""
    found: dict[str, list[Line]] = {}
    for index in range(engine.counts().entries):
        data = bytes(engine.entry(index))
        said = json.loads(data)
        names = {posting["account"] for posting in said.get("postings", [])}
        if said["t"] in ("account/1", "account.update/1"):
            names = {said["account"]}
        for name in names:
            found.setdefault(name, []).append(Line(index, data, said))
    return found


def minor(text: str) -> int:
    return int(text.replace(".", ""))


def as_of(name: str, lines: list[Line]) -> tuple[object, ...]:
    """What the entries say of an account: the members of Account that they change."""
    debits = credits = held_debits = held_credits = last_tx = 0
    status = "open"
    for line in lines:
        status = line.said.get("status", status)
        last_tx = line.said.get("tx", last_tx)
        for posting in line.said.get("postings", []):
            if posting["account"] != name:
                continue
            debits, credits = minor(posting.get("debits", str(debits))), minor(posting.get("credits", str(credits)))
            held_debits = minor(posting.get("held_debits", str(held_debits)))
            held_credits = minor(posting.get("held_credits", str(held_credits)))
    size = sum(len(line.data) + 1 for line in lines)
    return (status, debits, credits, held_debits, held_credits, lines[-1].entry, last_tx, len(lines), size)


def check(engine: Engine, chance: random.Random) -> None:
    """Everything that the indexes answer."""
    entries, found = engine.counts().entries, chains(engine)
    for name, lines in found.items():
        ordinal = engine.ordinal(name.encode())
        whole = b"".join(line.data + b"\n" for line in lines)
        assert engine.log(ordinal, 0, len(whole) + 1) == whole
        postings = engine.postings(ordinal, 0, len(lines) + 1)
        assert [(each.rank, each.entry, each.length) for each in postings] == [
            (rank, line.entry, len(line.data)) for rank, line in enumerate(lines)
        ]
        for _ in range(10):
            offset, rank, size = (
                chance.randrange(len(whole)),
                chance.randrange(len(lines)),
                chance.randrange(entries + 1),
            )
            assert engine.log(ordinal, offset, 1000) == whole[offset : offset + 1000]
            assert engine.postings(ordinal, rank, 3) == postings[rank : rank + 3]
            assert (
                engine.postings(ordinal, size, 3, by=By.INDEX) == [each for each in postings if each.entry >= size][:3]
            )
            assert engine.postings(ordinal, rank, 9, size=size) == [
                each for each in postings[rank : rank + 9] if each.entry < size
            ]
            assert (
                engine.postings(ordinal, offset, 1, by=By.LOG)
                == [each for each in postings if each.log_end > offset][:1]
            )
            past, before = engine.account_at(ordinal, size), [line for line in lines if line.entry < size]
            if past is None:
                assert not before
                continue
            numbers = (past.status, past.debits, past.credits, past.held_debits, past.held_credits, past.last_index,
                       past.last_tx, past.entries, past.log_bytes)  # fmt: skip
            assert numbers == as_of(name, before)
        assert engine.account_at(ordinal, entries) == engine.account(ordinal)
        assert engine.account_at(ordinal, entries + 1) is None
    for size in (0, 2, 20, entries // 2, entries):
        all_of_them = engine.accounts_at(size, 0, 10_000)
        singly = [engine.account_at(each, size) for each in range(len(found))]
        assert all_of_them == [past for past in singly if past is not None]
        assert engine.accounts_at(size, 3, 5) == all_of_them[3:8]
    assert engine.accounts_at(entries, len(found), 5) == []
    check_words(engine, chance)


def check_words(engine: Engine, chance: random.Random) -> None:
    said = [(index, json.loads(bytes(engine.entry(index)))) for index in range(engine.counts().entries)]
    first = chance.randrange(len(said))
    for reference in ("opening", "ref 1", 'ref 3 "ü" \\', "see [7],", 'as {7},"x', "[7]", "none"):
        expected = [index for index, each in said if each.get("reference") == reference]
        assert list(engine.with_reference(reference, 0, 10**5)) == expected
        assert list(engine.with_reference(reference, first, 2)) == [index for index in expected if index >= first][:2]
    for tag in ("t1", "all", "t"):
        assert list(engine.with_tag(tag)) == [index for index, each in said if tag in each.get("tags", [])]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenStore]:
    made = make(tmp_path / "store")
    yield made
    made.close()


def test_right_after_the_commit_and_from_files(store: OpenStore) -> None:
    chance = random.Random(1)
    for part in range(8):
        submit(store.engine, intents(chance, 300, f"p{part}"), f"p{part}")
        assert store.engine.indexes().unindexed > 0
        if part in (0, 4, 7):
            check(store.engine, chance)
        store.projector.save_now()  # makes a run of what is in memory
        numbers = store.engine.indexes()
        assert (numbers.unindexed, numbers.covered, numbers.trouble) == (0, store.engine.counts().entries, "")
        if part in (0, 4, 7):
            check(store.engine, chance)
    store.engine.close()
    # Small files were merged meanwhile; those that no list names any more are gone with the next save.
    submitted = store.engine.counts().entries
    store.projector.save_now()
    assert store.engine.indexes().files < 16
    assert len(list(store.layout.indexes.iterdir())) <= 32
    assert store.engine.counts().entries == submitted


def test_restart_kill_and_rebuild(tmp_path: Path) -> None:
    chance = random.Random(2)
    store = make(tmp_path / "store")
    layout = store.layout
    submit(store.engine, intents(chance, 400, "a"), "a")
    store.projector.save_now()
    submit(store.engine, intents(chance, 400, "b"), "b")
    copy = Layout(tmp_path / "killed")  # as a crash would leave it: postings in memory, files that no list names
    store.engine.drain()
    shutil.copytree(layout.root, copy.root)
    stray = copy.indexes / "postings-0000000000-0000000010.run"
    stray.write_bytes(b"half a file")
    expected = chains(store.engine)
    store.close()
    for each in (layout, copy):
        again = opened(each)
        assert chains(again.engine) == expected
        check(again.engine, chance)
        again.close()
    assert not stray.exists()
    rebuild(layout, segment_bytes=SEGMENT_BYTES)
    again = opened(layout)
    assert again.engine.recovery.replayed == 0
    check(again.engine, chance)
    again.close()
    assert verify(layout, anchors=[])[0] == []


@pytest.mark.slow
def test_many_postings_are_merged_by_the_thread(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    chance = random.Random(3)
    for part in range(12):
        lines = [
            b'{"debit":"a%d","credit":"a%d","amount":"1.00","id":"%d-%d","reference":"m%d"}\n'
            % (*chance.sample(range(ACCOUNTS), 2), part, number, part * (number & 1))
            for number in range(40_000)
        ]
        submit(store.engine, b"".join(lines), f"m{part}")
        # The words are looked for in entries, in what the thread has noted of them, and in files: here in all of these, or soon.
        for each in range(1, part + 1):
            found = store.engine.with_reference(f"m{each}", 0, 10**5)
            assert len(found) == len(set(found)) == 20_000
            assert list(found) == sorted(found)
        if part % 4 == 1:
            store.projector.save_now()
    store.projector.save_now()
    numbers = store.engine.indexes()
    assert numbers.postings == sum(
        account.entries for account in store.engine.accounts_at(store.engine.counts().entries, 0, 99)
    )
    assert numbers.files < 24
    for ordinal in range(0, ACCOUNTS, 7):
        indexes = list(store.engine.history(ordinal))
        assert [each.entry for each in store.engine.postings(ordinal, 0, 10**6)] == indexes
        for rank in chance.sample(range(1, len(indexes)), 20):
            past = store.engine.account_at(ordinal, indexes[rank])
            assert past is not None
            assert (past.last_index, past.entries) == (indexes[rank - 1], rank)
    store.close()
    before = {path.name for path in store.layout.indexes.iterdir()}
    again = opened(store.layout)
    again.close()
    assert {path.name for path in store.layout.indexes.iterdir()} <= before  # what no list names is removed
    assert verify(store.layout, anchors=[])[0] == []


def test_what_is_saved_covers_the_mark_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves beside commits: however the two threads meet, a start finds indexes up to the mark and no further."""
    store = make(tmp_path / "store")
    running, wrong = True, []

    into_index = store.index.save

    def looked_at(state: SavedState, tip: bytes) -> None:
        covered = [int.from_bytes(state.tables["indexes"][:8], "little"), Mark.of(state.mark).entries]
        if covered[0] != covered[1]:
            wrong.append(covered)
        into_index(state, tip)

    def save() -> None:
        while running:
            store.projector.save_now()

    monkeypatch.setattr(store.index, "save", looked_at)
    thread = threading.Thread(target=save)
    thread.start()
    for part in range(300):
        lines = [
            b'{"debit":"a1","credit":"a2","amount":"1.00","id":"s%d-%d"}\n' % (part, number) for number in range(500)
        ]
        store.engine.submit(b"".join(lines), source=b"s", first_line=1, mode=Mode.EACH)
        if part % 20 == 0:
            store.engine.drain()
            store.engine.completions()
    store.engine.drain()
    running = False
    thread.join()
    assert wrong == []
    assert len(store.engine.postings(1, 0, 10**6)) == store.engine.account(1).entries == 150_001
    store.close()
    assert verify(store.layout, anchors=[])[0] == []


def mapped_kib(path: Path) -> int:
    """How much of a file this process has mapped and may touch without a fault."""
    text = Path("/proc/self/smaps").read_text()
    return sum(int(each.split("Rss:")[1].split()[0]) for each in text.split(f"{path}\n")[1:])


def test_segments_that_were_indexed_are_not_kept_mapped(tmp_path: Path) -> None:
    """But for the last, which goes on; and they are read as ever. Holds: of transactions T6 reads none."""
    store = make(tmp_path / "store")
    reference = "r" * 200
    for part in range(5):
        lines = [
            b'{"type":"hold","debit":"a1","credit":"a2","amount":"1.00","id":"%d-%d","reference":"%b"}\n'
            % (part, number, reference.encode())
            for number in range(10_000)
        ]
        submit(store.engine, b"".join(lines), f"m{part}")
    segments = sorted(store.layout.journal.glob("*.seg"))
    assert len(segments) > 8
    deadline = time.monotonic() + 60
    while any(map(mapped_kib, segments[:8])):
        assert time.monotonic() < deadline, "the thread that makes indexes has read them long ago"
        time.sleep(0.05)
    first = bytes(store.engine.entry(int(segments[3].stem)))
    assert first.startswith(b"{")
    assert mapped_kib(segments[3]) > 0
    store.close()


def builders() -> set[int]:
    """Threads of this process that make indexes."""
    return {int(task.name) for task in Path("/proc/self/task").iterdir() if (task / "comm").read_text() == "lfs-runs\n"}


def test_who_makes_indexes_comes_forward_for_a_save(tmp_path: Path) -> None:
    """Behind commits otherwise; and only where it may."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    may = os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - FORWARD
    if may:
        os.setpriority(os.PRIO_PROCESS, 0, FORWARD)  # of this thread; those of the engine inherit it
    before = builders()
    try:
        with closing(make(tmp_path / "store")) as store:
            (number,), seen = builders() - before, set[int]()
            for turn in range(100):
                submit(store.engine, intents(random.Random(turn), 1_000, f"f{turn}"), f"f{turn}")
                saving = threading.Thread(target=store.engine.save)
                saving.start()
                while saving.is_alive():
                    seen.add(os.getpriority(os.PRIO_PROCESS, number))
                saving.join()
                store.engine.saved(False)
                if FORWARD in seen:
                    break
            assert (FORWARD in seen) == may
            assert os.getpriority(os.PRIO_PROCESS, number) == BEHIND
    finally:
        if may:
            os.setpriority(os.PRIO_PROCESS, 0, ours)


def test_a_bad_bit_is_an_error_and_mended_at_the_next_start(tmp_path: Path) -> None:
    chance = random.Random(4)
    store = make(tmp_path / "store")
    submit(store.engine, intents(chance, 800, "x"), "x")
    store.close()
    (path,) = store.layout.indexes.glob("postings-*")
    data = bytearray(path.read_bytes())
    data[40] ^= 8
    path.write_bytes(data)
    (finding,) = verify(store.layout, anchors=[])[0]
    assert (finding.file, finding.what) == (f"indexes/{path.name}", "block 0 is not what was written")
    again = opened(store.layout)
    with pytest.raises(DamageError, match="indexes/ is not what was written"):
        again.engine.postings(0, 0, 10)
    assert "indexes/" in again.engine.indexes().trouble
    assert again.engine.account(0).entries > 1  # what is not asked of the index is not touched by it
    again.close()
    mended = opened(store.layout)
    assert mended.engine.recovery.replayed == mended.engine.counts().entries
    check(mended.engine, chance)
    mended.close()


@pytest.mark.parametrize("spoil", ["remove", "cut", "fence"])
def test_a_file_that_is_not_whole_is_made_again_at_start(tmp_path: Path, spoil: str) -> None:
    chance = random.Random(6)
    store = make(tmp_path / "store")
    submit(store.engine, intents(chance, 300, "x"), "x")
    store.close()
    (path,) = store.layout.indexes.glob("words-*")
    if spoil == "remove":
        path.unlink()
    elif spoil == "cut":
        os.truncate(path, path.stat().st_size - 1)
    else:
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
    assert [finding.severity for finding in verify(store.layout, anchors=[])[0]] == ["projection"]
    again = opened(store.layout)
    assert again.engine.recovery.replayed == again.engine.counts().entries
    check(again.engine, chance)
    again.close()
