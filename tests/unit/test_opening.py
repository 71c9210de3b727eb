"""state/opening.py, projector.py, rebuild.py and check.py on real stores: what a start believes, and what it does then."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledgerfsd.core.values import SavedState
from ledgerfsd.errors import DamageError, StoreError
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state import projector as projectors
from ledgerfsd.state import store as stores
from ledgerfsd.state.check import everything
from ledgerfsd.state.opening import OpenStore, open_store
from ledgerfsd.state.projector import Projector
from ledgerfsd.state.rebuild import rebuild
from ledgerfsd.state.store import IndexStore
from ledgerfsd.types import Mode

SIZE = 2**20


@contextmanager
def opened(root: Path, *, close: bool = True) -> Iterator[OpenStore]:
    """An open store with its engine running; without ``close`` it ends as after kill -9 (nothing is saved)."""
    store = open_store(Layout(root), segment_bytes=SIZE)
    store.engine.start()
    yield store
    if close:
        store.close()
    else:
        store.engine.close()
        store.index.close()


def submit(store: OpenStore, *intents: object) -> None:
    data = b"".join(json.dumps(intent).encode() + b"\n" for intent in intents)
    name = f"{store.engine.counts().entries}.ndjson".encode()
    store.engine.submit(data, source=name, first_line=1, mode=Mode.EACH)
    store.engine.drain()
    assert [completion.refused for completion in store.engine.completions()] == [None]


def account(name: str, **more: object) -> dict[str, object]:
    return {"type": "open_account", "account": name, "currency": "EUR", "class": "customer_liability", **more}


def pay(amount: str = "1.00") -> dict[str, str]:
    return {"debit": "a0", "credit": "a1", "amount": amount}


@pytest.fixture
def filled(store: Path) -> Path:
    """200 accounts (four pages), a hold, an own currency, a reversal; saved by a clean stop."""
    with opened(store) as open_:
        submit(open_, *(account(f"a{number}", initial_balance="50.00") for number in range(200)))
        submit(open_, account("o", limit="overdraft:7.00"), account("n", limit="none", normal="debit"))
        submit(open_, {"type": "register_currency", "currency": "PTS", "decimals": 0})
        submit(open_, account("p", currency="PTS", limit="overdraft:3"))
        submit(open_, pay("2.00"), {"type": "hold", "id": "h", "debit": "a0", "credit": "a1", "amount": "3.00"})
        submit(open_, {"type": "reverse", "of": "tx_0201"}, {"type": "freeze", "account": "a5"})
    return store


def state_of(store: OpenStore) -> list[object]:
    engine = store.engine
    return [engine.counts(), [engine.account(number) for number in range(engine.counts().accounts)]]


def test_clean_start_replays_nothing_and_knows_everything(filled: Path) -> None:
    with opened(filled, close=False) as first:
        before = state_of(first)
        assert first.engine.recovery.replayed == 0
        assert first.engine.recovery.entries == before[0].entries  # type: ignore[attr-defined]
    rebuild(Layout(filled), segment_bytes=SIZE)
    with opened(filled, close=False) as second:
        assert state_of(second) == before


def test_start_after_a_crash_replays_what_was_not_saved(filled: Path) -> None:
    with opened(filled, close=False) as first:
        submit(first, pay(), pay(), {"type": "post", "hold": "h"}, account("late", initial_balance="1.00"))
        before = state_of(first)
    with opened(filled) as second:
        assert second.engine.recovery.replayed == 6
        assert state_of(second) == before
    assert everything(Layout(filled), quick=False)[0] == []


@pytest.mark.parametrize("quick", [False, True])
def test_check_after_a_crash_finds_nothing(filled: Path, quick: bool) -> None:
    with opened(filled, close=False) as first:
        submit(first, *[pay("0.01")] * 300)
    assert everything(Layout(filled), quick=quick)[0] == []


def test_index_gone_or_spoiled_is_made_anew(filled: Path) -> None:
    for spoil in (b"", b"junk" * 4096):
        (filled / "index.lmdb" / "data.mdb").write_bytes(spoil)
        with opened(filled) as store:
            assert store.engine.recovery.replayed == store.engine.recovery.entries
    assert everything(Layout(filled), quick=False)[0] == []


def change_index(root: Path, **changes: object) -> None:
    """Save a state with some of its members changed, as a fault would."""
    index = IndexStore(root / "index.lmdb")
    saved = index.load()
    assert saved is not None
    index.save(saved.state._replace(**changes), saved.tip)
    index.close()


def load(root: Path) -> SavedState:
    index = IndexStore(root / "index.lmdb")
    saved = index.load()
    index.close()
    assert saved is not None
    return saved.state


def test_state_of_another_build_is_made_anew(filled: Path) -> None:
    mark = load(filled).mark
    change_index(filled, mark=bytes([mark[0] ^ 1]) + mark[1:])
    with opened(filled) as store:
        assert store.engine.recovery.replayed == store.engine.recovery.entries
    assert load(filled).mark == mark


def test_wrong_balance_in_a_page_is_found_by_check(filled: Path) -> None:
    pages = load(filled).pages
    assert sorted(pages) == [0, 1, 2, 3]
    page = bytearray(pages[2])
    at = page.index((5000).to_bytes(16, "little"))  # the 50.00 that every account got
    page[at] += 1
    change_index(filled, pages={2: bytes(page)})
    (finding,) = everything(Layout(filled), quick=False)[0]
    assert (finding.severity, finding.file) == ("projection", "index.lmdb")
    assert "credits is 5001, the journal says 5000" in finding.what
    change_index(filled, pages={2: pages[2]})
    assert everything(Layout(filled), quick=False)[0] == []


def test_missing_page_is_found_by_check(filled: Path) -> None:
    change_index(filled, pages={3: b"short"})
    findings, _ = everything(Layout(filled), quick=False)
    assert {finding.what.partition(": ")[2] for finding in findings} == {"its page is missing or has the wrong size"}


def test_check_of_an_unreadable_index(filled: Path) -> None:
    (filled / "index.lmdb" / "data.mdb").write_bytes(b"junk" * 4096)
    (finding,) = everything(Layout(filled), quick=True)[0]
    assert (finding.severity, finding.file) == ("projection", "index.lmdb")


def test_journal_that_lost_its_end_stops_the_start(filled: Path) -> None:
    segment = next((filled / "journal").glob("*.seg"))
    backup = segment.read_bytes()
    with opened(filled) as store:
        submit(store, pay())
    segment.write_bytes(backup)
    with pytest.raises(DamageError, match="was committed here"):
        open_store(Layout(filled), segment_bytes=SIZE)
    # Nothing was touched on the way, and the index can be opened again in this process.
    assert segment.read_bytes() == backup
    with pytest.raises(DamageError, match="was committed here"):
        open_store(Layout(filled), segment_bytes=SIZE)
    rebuild(Layout(filled), segment_bytes=SIZE)
    with opened(filled) as store:
        assert store.engine.recovery.replayed == 0


def test_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a LedgerFS store"):
        open_store(Layout(tmp_path))


# -- the projector


class Disk(IndexStore):
    """An index on a disk that refuses for a while."""

    full = False
    asked = 0

    def save(self, state: SavedState, tip: bytes) -> None:
        self.asked += 1
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().save(state, tip)


def test_refused_save_is_told_and_made_good_later(store: Path) -> None:
    opened_store = open_store(Layout(store), segment_bytes=SIZE)
    opened_store.index.close()
    engine, disk = opened_store.engine, Disk(store / "index.lmdb")
    projector = Projector(engine, disk)
    engine.start()
    submit(opened_store, *(account(f"a{number}", initial_balance="50.00") for number in range(100)))
    disk.full = True
    projector.attempt()
    assert "No space left on device" in projector.trouble
    assert projector.lag_entries == engine.counts().entries
    submit(opened_store, pay())
    disk.full = False
    projector.attempt()
    assert (projector.trouble, projector.lag_entries) == ("", 0)
    engine.close()
    disk.close()
    assert sorted(load(store).pages) == [0, 1]
    assert everything(Layout(store), quick=False)[0] == []
    with opened(store) as again:
        assert again.engine.recovery.replayed == 0


@pytest.mark.parametrize("parts", range(5))
def test_save_that_stops_between_its_parts(filled: Path, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some pages are newer than the mark, by all that was committed since the save before: a start replays what they lack."""
    monkeypatch.setattr(stores, "PAGES_AT_ONCE", 1)
    with opened(filled, close=False) as store:
        submit(
            store, *({"debit": f"a{n}", "credit": f"a{(n * 7 + 191) % 200}", "amount": "1.00"} for n in range(10, 200))
        )
        submit(
            store, {"type": "post", "hold": "h"}, {"type": "hold", "debit": "a70", "credit": "a150", "amount": "2.00"}
        )
        submit(store, *(account(f"late{number}", initial_balance="1.00") for number in range(80)))
        before = state_of(store)
        whole = store.index._save_pages
        left = iter(range(parts))

        def until_then(pages: Mapping[int, bytes], numbers: list[int]) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            whole(pages, numbers)

        monkeypatch.setattr(store.index, "_save_pages", until_then)
        with pytest.raises(OSError, match="No space left"):
            store.projector.save_now()
    assert everything(Layout(filled), quick=False)[0] == []
    with opened(filled) as again:
        assert 0 < again.engine.recovery.replayed < again.engine.recovery.entries
        assert state_of(again) == before
    assert everything(Layout(filled), quick=False)[0] == []


def test_projector_saves_by_itself_and_is_lazy(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projectors, "SHORTEST_SECONDS", 0.01)
    with opened(store) as open_:
        open_.projector.start()
        submit(open_, account("a0"))
        deadline = time.monotonic() + 30
        while open_.projector.lag_entries:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        saved = (store / "index.lmdb" / "data.mdb").stat().st_mtime_ns
        time.sleep(0.1)  # ten rounds in which there is nothing to save
        assert (store / "index.lmdb" / "data.mdb").stat().st_mtime_ns == saved
    with opened(store) as again:
        assert again.engine.recovery.replayed == 0


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def by_entries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is saved in the next hour is saved because a hundred entries have come."""
    monkeypatch.setattr(projectors, "SHORTEST_SECONDS", 3600.0)
    monkeypatch.setattr(projectors, "LONGEST_SECONDS", 3600.0)
    monkeypatch.setattr(projectors, "ENTRIES_SOON", 100)
    monkeypatch.setattr(projectors, "SPENT_AN_ENTRY", 1.0)


@pytest.mark.usefixtures("by_entries_only")
def test_so_many_entries_are_saved_at_once_and_fewer_are_not(filled: Path) -> None:
    """So what a start after a crash under load has to replay is bounded, however long the projector would wait otherwise."""
    with opened(filled, close=False) as store:
        store.projector.start()
        for _ in range(3):
            submit(store, *[pay("0.01")] * 60)  # and a seal
            time.sleep(0.05)
            assert store.projector.lag_entries == 61
            submit(store, *[pay("0.01")] * 60)
            wait_until(lambda: store.projector.lag_entries == 0)
        store.projector.stop()
    with opened(filled) as again:
        assert again.engine.recovery.replayed == 0


@pytest.mark.usefixtures("by_entries_only")
def test_after_a_dear_save_more_entries_may_come(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a ledger of a million accounts would spend more on saves than on replaying what they spare; but not without bound."""
    monkeypatch.setattr(projectors, "SPENT_AN_ENTRY", 1e-12)
    monkeypatch.setattr(projectors, "ENTRIES_MOST", 200)
    with opened(filled, close=False) as store:
        store.projector.start()
        submit(store, *[pay("0.01")] * 120)
        wait_until(lambda: store.projector.lag_entries == 0)
        submit(store, *[pay("0.01")] * 120)
        time.sleep(0.05)
        assert store.projector.lag_entries == 121
        submit(store, *[pay("0.01")] * 120)
        wait_until(lambda: store.projector.lag_entries == 0)
        store.projector.stop()


@pytest.mark.usefixtures("by_entries_only")
def test_a_disk_that_refuses_is_not_asked_again_at_once(filled: Path) -> None:
    """Though there are too many entries already: only when so many have come again."""
    store = open_store(Layout(filled), segment_bytes=SIZE)
    store.index.close()
    disk = Disk(filled / "index.lmdb")
    disk.full = True
    projector = Projector(store.engine, disk, saved_entries=store.engine.counts().entries)
    store.engine.start()
    projector.start()
    for saves in (1, 2):
        submit(store, *[pay("0.01")] * 60)
        submit(store, *[pay("0.01")] * 60)
        wait_until(lambda saves=saves: disk.asked == saves)  # type: ignore[misc]
        time.sleep(0.05)
        assert disk.asked == saves
    began = time.monotonic()
    projector.stop()
    assert time.monotonic() - began < 60, "a wait of an hour ends at once"
    store.engine.close()
    disk.close()


def test_waiting_for_entries_ends_with_them_or_the_time(filled: Path) -> None:
    with opened(filled) as store:
        now = store.engine.counts().entries
        assert store.engine.wait_entries(now, 3600.0)
        assert not store.engine.wait_entries(now + 1, 0.01)
        waiter = threading.Thread(target=store.engine.wait_entries, args=(now + 2, 3600.0))
        waiter.start()
        submit(store, pay())
        waiter.join(30)
        assert not waiter.is_alive()
        store.engine.stop_waiting()
        assert not store.engine.wait_entries(now + 100, 3600.0)


def test_saving_under_load_loses_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves while the commit threads run, then a crash: mark, tables and pages fit together with the journal."""
    monkeypatch.setattr(projectors, "SHORTEST_SECONDS", 0.001)
    with opened(filled, close=False) as store:
        store.projector.start()
        lines = b"".join(json.dumps(pay("0.01")).encode() + b"\n" for _ in range(200))
        for number in range(60):
            store.engine.submit(lines, source=b"load%d.ndjson" % number, first_line=1, mode=Mode.EACH)
        store.engine.drain()
        store.projector.stop()
        before = state_of(store)
        assert store.projector.trouble == ""
    with opened(filled) as again:
        assert state_of(again) == before
    assert everything(Layout(filled), quick=False)[0] == []
