"""Trial balances: the rows of the core are those of its twin, whatever the amounts, and at any point."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.core import trial
from ledgerfsd.core.engine import Engine
from ledgerfsd.service import trial_balance
from ledgerfsd.service.past import Past
from ledgerfsd.service.spool import Spool
from ledgerfsd.types import Mode
from tests.fuse import past_history

HUGE = 2**126


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A random history, and sums that need more than 128 bits."""
    layout = past_history.make(tmp_path_factory.mktemp("trial") / "store", 8, 60)
    engine = Engine(layout.root, segment_bytes=2**20, accounts_max=4096)
    engine.start()
    intents = []
    for number in range(9):
        for side in ("from", "to"):
            intents.append(
                {"type": "open_account", "account": f"{side}{number}", "class": "clearing", "currency": "JPY"}
            )
        intents.append({"debit": f"from{number}", "credit": f"to{number}", "amount": str(HUGE)})
    body = b"".join(json.dumps(intent).encode() + b"\n" for intent in intents)
    engine.submit(body, source=b"huge", first_line=1, mode=Mode.EACH)
    engine.drain()
    yield engine
    engine.close()


def read(spool: Spool) -> bytes:
    return spool.read(0, spool.size + 1)


@pytest.mark.parametrize("at_once", [1, 7, 2048])
def test_the_core_and_its_twin_agree(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(trial, "ACCOUNTS_AT_ONCE", at_once)
    monkeypatch.setattr(trial, "TOTALS_ROOM", at_once)
    entries = engine.counts().entries
    for size in (1, 2, *range(3, entries, 37), entries):
        mine, twins = Spool(tmp_path, 0), Spool(tmp_path, 0)
        trial_balance.write_at(engine, size, mine)
        trial_balance.write(Past(engine).accounts(size), twins)
        assert read(mine) == read(twins)
    assert f"class,,clearing,JPY,{9 * HUGE},{9 * HUGE},{9 * HUGE},{9 * HUGE},,,".encode() in read(mine)


def test_a_large_text_lies_in_a_file(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = Spool(tmp_path, 5), Spool(tmp_path, 5)
    trial_balance.write_at(engine, engine.counts().entries, small)
    monkeypatch.setattr("ledgerfsd.service.spool.MEMORY_MAX", 100)
    trial_balance.write_at(engine, engine.counts().entries, large)
    assert large._file is not None
    assert (small.size, read(small), small.mtime_ns) == (large.size, read(large), 5)
    for offset in range(0, small.size, 301):
        assert small.read(offset, 301) == large.read(offset, 301)
    assert list(tmp_path.iterdir()) == []
    large._file.close()
