"""Ids that are long past: tables of a few ids, so that most are in runs, held against the twin in plain Python."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.core.pure.runs import IDS, Run, listed
from ledgerfsd.errors import CODES
from ledgerfsd.journal.layout import Layout, create
from ledgerfsd.state.check import everything
from ledgerfsd.state.opening import open_store
from ledgerfsd.state.rebuild import rebuild
from ledgerfsd.state.store import IndexStore
from ledgerfsd.state.verify import verify
from ledgerfsd.types import Mode, Result

ORIGIN = "ledger.example/ids"
NOW = 1_795_000_000_000_000_000
SEGMENT_BYTES = 1 << 20
RECENT = 20

Intent = dict[str, Any]


def lines(intents: Sequence[Intent]) -> bytes:
    return b"".join(json.dumps(intent).encode() + b"\n" for intent in intents)


def opening(number: int) -> Intent:
    return {"type": "open_account", "account": f"a{number}", "class": "clearing", "currency": "EUR", "id": f"o{number}"}


def pay(name: str, amount: str = "1.00", **more: str) -> Intent:
    return {"debit": "a0", "credit": "a1", "amount": amount, "id": name} | more


class Pair:
    """An engine with small tables, and the twin."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "journal").mkdir(parents=True)
        Engine.create(root, ORIGIN, segment_bytes=SEGMENT_BYTES, now_ns=NOW)
        self.twin = Ledger.create(ORIGIN, NOW, accounts_max=4096)
        self.now_ns = NOW
        self.start()

    def start(self) -> None:
        self.engine = Engine(self.root, segment_bytes=SEGMENT_BYTES, accounts_max=4096, ids_recent=RECENT)
        self.engine.start()

    def submit(self, intents: Sequence[Intent], mode: Mode = Mode.EACH, *, dry_run: bool = False) -> list[Result]:
        """The answers, which are those of the twin."""
        self.now_ns += 1_000_000
        more: dict[str, Any] = {"mode": mode, "dry_run": dry_run, "now_ns": self.now_ns}
        data = lines(intents)
        self.engine.submit(data, source=b"f", first_line=1, **more)
        self.engine.drain()
        (completion,) = self.engine.completions()
        ours = [completion[each] for each in range(len(completion))]
        assert ours == self.twin.submit(data, source=b"f", first_line=1, **more)
        if self.twin.book.batch_first < len(self.twin.entries):
            self.twin.seal(self.now_ns)
        return ours

    def into_runs(self) -> None:
        """Make runs of everything, as a save does."""
        self.engine.save()
        self.engine.saved(False)

    def check(self) -> None:
        """The same entries; but which seals carry a state root goes by time."""
        ours = [bytes(self.engine.entry(index)) for index in range(self.engine.counts().entries)]
        seal = b'{"count":'
        assert len(ours) == len(self.twin.entries)
        assert [each for each in ours if not each.startswith(seal)] == [
            each for each in self.twin.entries if not each.startswith(seal)
        ]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "store")
    made.submit([opening(0), opening(1)])
    yield made
    made.engine.close()


def names(results: Sequence[Result]) -> list[str]:
    return [CODES[result.code].name + (" again" if result.duplicate else "") for result in results]


@pytest.mark.parametrize("seed", range(4))
def test_everything_as_the_twin_says(pair: Pair, seed: int) -> None:
    """New ids, old ids with the same and with other content, refused ones, in every mode; the tables turn over many times."""
    chance, used = random.Random(seed), list[Intent]()
    for number in range(120):
        batch = [pay(f"n{number}-{each}", reference=f"r{each}") for each in range(chance.randrange(4))]
        batch += (
            [pay(f"x{number}", amount="1.000")] if chance.random() < 0.3 else []
        )  # refused by the state, and used up
        if chance.random() < 0.3:
            batch.append(pay(f"h{number}", type="hold"))
        used += batch
        for old in chance.sample(used, min(len(used), 3)):
            kind = chance.random()
            if kind < 0.3:
                batch.append(old | {"amount": "7.00"})
            elif kind < 0.6 and old.get("type") == "hold":
                batch.append(
                    {"type": chance.choice(("post", "void")), "hold": old["id"], "id": f"e{number}-{len(batch)}"}
                )
            else:
                batch.append(old)
        mode = chance.choice((Mode.EACH, Mode.EACH, Mode.ATOMIC))
        if batch:
            if chance.random() < 0.2:
                pair.submit(batch, mode, dry_run=True)
            pair.submit(batch, mode)
        if chance.random() < 0.4:
            pair.into_runs()
        if number == 70:  # a start without anything saved
            pair.engine.close()
            pair.start()
    pair.check()
    known = {json.loads(entry).get("id") for entry in pair.twin.entries}
    again = [intent for intent in used if intent["id"] in known]
    assert len(again) > 100
    answers = names(pair.submit(again))
    assert {"ok again", "wrong_decimals again"} <= set(answers) <= {"ok again", "wrong_decimals again", "id_reused"}
    assert pair.engine.indexes().ids > 100


def test_what_was_taken_back_is_free_again(pair: Pair) -> None:
    """An atomic batch that fails, with tables that turn over before and after it."""
    for number in range(30):
        pair.submit([pay(f"b{number}-{each}") for each in range(9)])
        pair.into_runs()
        wrong = [pay(f"c{number}"), pay(f"d{number}", amount="1.000")]
        assert names(pair.submit(wrong, Mode.ATOMIC)) == ["batch_aborted", "wrong_decimals"]
        assert names(pair.submit([pay(f"c{number}")], dry_run=True)) == ["ok"]
        assert names(pair.submit([pay(f"c{number}"), pay(f"d{number}")])) == ["ok", "id_reused"]
    pair.check()


def test_many_holds_expire_at_once(pair: Pair) -> None:
    """Their voids are more ids than a table of its first size has room for."""
    engine = pair.engine
    for number in range(5):
        holds = [pay(f"h{number}-{each}", type="hold", expires="2026-11-19T00:00:00Z") for each in range(1000)]
        assert set(submit(engine, holds)) == {"ok"}
        pair.into_runs()
    late = NOW + 10 * 86_400 * 10**9
    engine.submit(lines([pay("late"), holds[0]]), source=b"s", first_line=1, mode=Mode.ATOMIC, now_ns=late)
    engine.drain()
    (completion,) = engine.completions()
    assert names([completion[0], completion[1]]) == ["ok", "ok again"]
    said = [json.loads(bytes(engine.entry(index)))["t"] for index in range(engine.counts().entries)]
    assert said.count("void/1") == said.count("hold/1") == 5000


def submit(engine: Engine, intents: Sequence[Intent]) -> list[str]:
    engine.submit(lines(intents), source=b"s", first_line=1, mode=Mode.EACH, now_ns=NOW)
    engine.drain()
    (completion,) = engine.completions()
    return names([completion[each] for each in range(len(completion))])


PAYMENTS = [pay(f"p{number}") for number in range(1500)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A store whose ids are in a few runs."""
    made = create(tmp_path / "store", ORIGIN, segment_bytes=SEGMENT_BYTES)
    store = open_store(made, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    submit(store.engine, [opening(0), opening(1)])
    for first in range(0, len(PAYMENTS), 500):
        submit(store.engine, PAYMENTS[first : first + 500])
        store.projector.save_now()
    store.close()
    return made


def runs_of(layout: Layout) -> list[Path]:
    saved = IndexStore.peek(layout.index)
    assert saved is not None
    return [layout.indexes / name for name in listed(saved.state.tables["indexes"], IDS)]


def test_ids_of_many_runs_are_found_through_sieves(pair: Pair) -> None:
    """Of 44, 176 and 704 ids here, each in the place of the one before, then another; runs are made and merged beside."""
    used = [[pay(f"s{number}-{each}") for each in range(20)] for number in range(40)]
    for batch in used:
        assert names(pair.submit(batch)) == ["ok"] * 20
        pair.into_runs()
    again = [each for batch in used for each in batch]
    assert names(pair.submit(again)) == ["ok again"] * len(again)
    pair.into_runs()
    assert names(pair.submit([each | {"amount": "2.00"} for each in again])) == ["id_reused"] * len(again)
    assert names(pair.submit([pay(f"t{each}") for each in range(800)])) == ["ok"] * 800
    pair.check()


def test_what_a_table_held_that_was_given_up_is_found(tmp_path: Path) -> None:
    """In runs, whatever is in which of the two tables when it is asked for."""
    root = tmp_path / "store"
    (root / "journal").mkdir(parents=True)
    Engine.create(root, ORIGIN, segment_bytes=SEGMENT_BYTES, now_ns=NOW)
    engine = Engine(root, segment_bytes=SEGMENT_BYTES, accounts_max=4096, ids_recent=4000)
    engine.start()
    submit(engine, [opening(0), opening(1)])
    used, chance = list[Intent](), random.Random(1)
    for number in range(60):
        batch = [pay(f"g{number}-{each}") for each in range(chance.randrange(1, 900))]
        assert set(submit(engine, batch)) == {"ok"}
        used += batch
        again = chance.sample(used, min(len(used), 20))
        assert set(submit(engine, again)) == {"ok again"}
        assert set(submit(engine, [each | {"amount": "2.00"} for each in again])) == {"id_reused"}
        engine.save()
        engine.saved(False)
    assert engine.indexes().ids > 4 * 4000, "it was full more than once"
    for first in range(0, len(used), 1000):
        assert set(submit(engine, used[first : first + 1000])) == {"ok again"}
    engine.close()


def test_an_id_is_in_one_sieve_however_often_its_run_is_merged(pair: Pair) -> None:
    """Memory beside the two tables of 32 KiB: two bytes an id, and a sieve that is not full."""
    for number in range(240):
        assert names(pair.submit([pay(f"m{number}-{each}") for each in range(5)])) == ["ok"] * 5
        pair.into_runs()
    assert pair.engine.indexes().ids > 1200
    assert pair.engine.indexes().id_memory - 2 * 32 * 1024 < 8 * 1024


def test_a_start_opens_runs_and_replays_what_follows(layout: Layout, tmp_path: Path) -> None:
    store = open_store(layout, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    assert store.engine.recovery.replayed == 0
    assert store.engine.indexes().ids == len(PAYMENTS) + 2
    assert store.engine.indexes().id_memory < 2**20
    assert submit(store.engine, [*PAYMENTS[::25], pay("new")]) == ["ok again"] * 60 + ["ok"]
    killed = Layout(tmp_path / "killed")
    shutil.copytree(layout.root, killed.root)
    (killed.indexes / "ids-0000000001-0000000009.run").write_bytes(b"begun")
    store.close()
    again = open_store(killed, segment_bytes=SEGMENT_BYTES)
    again.engine.start()
    assert again.engine.recovery.replayed > 0
    assert submit(again.engine, [pay("new"), pay("new", amount="2.00"), PAYMENTS[0]]) == [
        "ok again",
        "id_reused",
        "ok again",
    ]
    again.close()
    for each in (layout, killed):
        assert verify(each, anchors=[])[0] == []
        assert everything(each, quick=False)[0] == []
        assert {path.name for path in each.indexes.glob("ids-*")} == {path.name for path in runs_of(each)}


def test_a_store_without_runs_of_ids_makes_them(layout: Layout) -> None:
    """As after an update from the format before, which had them in runs/ids."""
    for path in runs_of(layout):
        path.unlink()
    (layout.runs / "ids").write_bytes(b"\x01\0\0\0")
    store = open_store(layout, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    assert store.engine.recovery.replayed == store.engine.counts().entries
    assert not (layout.runs / "ids").exists()
    assert submit(store.engine, PAYMENTS[::25]) == ["ok again"] * 60
    store.close()
    assert verify(layout, anchors=[])[0] == []


def test_a_bad_bit_never_lets_an_id_pass(layout: Layout) -> None:
    """In a block: intents that it may know are refused, all others go on, and the next start makes it anew."""
    path = runs_of(layout)[0]
    good = path.read_bytes()
    data = bytearray(good)
    data[Run(good).fences[3].offset + 40] ^= 16
    path.write_bytes(data)
    assert [(each.file, each.severity) for each in verify(layout, anchors=[])[0]] == [
        (f"indexes/{path.name}", "projection")
    ]
    assert [(each.file, each.severity) for each in everything(layout, quick=False)[0]] == [
        (f"indexes/{path.name}", "projection")
    ]
    store = open_store(layout, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    entries = store.engine.counts().entries
    answers = submit(store.engine, PAYMENTS)
    assert set(answers) == {"ok again", "storage_error"}
    assert 64 <= answers.count("storage_error") <= 256  # one block
    assert store.engine.counts().entries == entries
    lost = answers.index("storage_error")
    more = [pay("z"), {"type": "void", "hold": PAYMENTS[lost]["id"], "id": "v"}]
    assert submit(store.engine, more) == ["ok", "storage_error"]
    store.engine.submit(lines([pay("y"), PAYMENTS[lost]]), source=b"s", first_line=1, mode=Mode.ATOMIC, now_ns=NOW)
    store.engine.drain()
    (completion,) = store.engine.completions()
    assert names([completion[0], completion[1]]) == ["batch_aborted", "storage_error"]
    assert store.engine.counts().entries == entries + 2
    assert "indexes/" in store.engine.indexes().trouble
    store.close()
    mended = open_store(layout, segment_bytes=SEGMENT_BYTES)
    mended.engine.start()
    assert submit(mended.engine, [*PAYMENTS, pay("z"), pay("y")]) == ["ok again"] * (len(PAYMENTS) + 1) + ["ok"]
    mended.close()
    assert verify(layout, anchors=[])[0] == []


@pytest.mark.parametrize("place", [-70, -800, -1000])
def test_a_filter_that_is_not_whole_is_seen_at_start(layout: Layout, place: int) -> None:
    path = runs_of(layout)[0]
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not what was written"):
        Run(bytes(data))
    assert verify(layout, anchors=[])[0][0].severity == "projection"
    store = open_store(layout, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    assert store.engine.recovery.replayed == store.engine.counts().entries
    assert submit(store.engine, PAYMENTS[::25]) == ["ok again"] * 60
    store.close()


def test_filters_let_few_strangers_pass(layout: Layout) -> None:
    chance = random.Random(1)
    rebuild(layout, segment_bytes=SEGMENT_BYTES)
    (path,) = runs_of(layout)
    run = Run(path.read_bytes())
    assert len(list(run)) == len(PAYMENTS) + 2
    assert all(run.may_have(record.key) for record in run)
    passed = sum(run.may_have(chance.randrange(2**64)) for _ in range(20_000))
    assert passed < 20_000 * 0.02
