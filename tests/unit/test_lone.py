"""A lone submission is judged by the thread that commits it (ADR 50); order and results are those of T1."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.types import Mode
from tests.conftest import PATIENCE_SECONDS

LONE = 200
WRITERS = 4


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "journal").mkdir()
    Engine.create(tmp_path, "ledger.example/lone", segment_bytes=1 << 20)
    engine = Engine(tmp_path, segment_bytes=1 << 20, accounts_max=1000)
    engine.start()
    for name in "ab":
        opening = {"type": "open_account", "account": name, "class": "equity", "currency": "EUR"}
        engine.submit(json.dumps(opening).encode(), source=b"f", first_line=1, mode=Mode.DOCUMENT)
    engine.drain()
    engine.completions()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not sleeps("lfs-sync"):  # a thread that has just begun goes to sleep when it likes
        assert time.monotonic() < deadline
        time.sleep(0.001)
    yield engine
    engine.close()


def transfer(name: str) -> str:
    return json.dumps({"id": name, "debit": "a", "credit": "b", "amount": "1.00"})


def sleeps(thread: str) -> int:
    """How often a thread of this process has gone to sleep."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == thread:
            status = (task / "status").read_text()
            found += int(status.partition("voluntary_ctxt_switches:")[2].split()[0])
    return found


def test_t1_sleeps_while_submissions_come_one_by_one(engine: Engine) -> None:
    before, beside = (sleeps("lfs-apply"), sleeps("lfs-write")), sleeps("lfs-sync")
    for number in range(LONE):
        engine.submit(transfer(f"t{number}").encode(), source=b"f", first_line=1, mode=Mode.DOCUMENT)
        engine.drain()
    assert engine.counts().transactions == LONE
    assert sleeps("lfs-write") - before[1] >= LONE
    assert sleeps("lfs-apply") - before[0] < LONE / 4, "it was woken for submissions that T2 could have judged"
    assert sleeps("lfs-sync") == beside, "T2 waited for another thread's sync, and had nothing to hash (ADR 52)"


def test_order_and_results_whoever_judges(engine: Engine) -> None:
    """Lone documents, long submissions, dry runs, ticks and saves at once: each is committed once, in order."""
    wanted: dict[int, int] = {}
    lock, stop = threading.Lock(), threading.Event()

    def write(writer: int) -> None:
        for number in range(LONE):
            lines = 1 if number % 10 else 300
            text = "\n".join(transfer(f"w{writer}-{number}-{line}") for line in range(lines)).encode()
            mode, dry_run = (Mode.DOCUMENT, number % 7 == 3) if lines == 1 else (Mode.EACH, False)
            with lock:  # so that numbers of tickets tell the order
                ticket = engine.submit(text, source=b"f", first_line=1, mode=mode, dry_run=dry_run)
                wanted[ticket] = 0 if dry_run else lines

    def disturb() -> None:
        while not stop.wait(0.002):
            engine.tick()
            engine.save()
            engine.saved(True)

    beside = threading.Thread(target=disturb)
    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    beside.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    engine.drain()
    stop.set()
    beside.join()
    done = sorted(engine.completions(), key=lambda completion: completion.ticket)
    last = 0
    for completion in done:
        results = [completion[position] for position in range(len(completion))]
        assert completion.refused is None
        numbers = [result.tx for result in results if result.tx]
        assert len(numbers) == wanted.pop(completion.ticket)
        assert numbers == list(range(last + 1, last + 1 + len(numbers)))
        last += len(numbers)
    assert not wanted
    assert engine.counts().transactions == last
