"""kill -9 at random moments under load, 200 times: a hundred times the engine's process, a hundred times the daemon.

Each half lets one store grow. After every kill the journal that was left behind is compared with what was acknowledged, and
verified. What nobody was told the outcome of is sent again by the next process; then it is there exactly once.
``LEDGERFS_KILL_SEED`` repeats a run (as far as a scheduler can be repeated).
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ledgerfsd.errors import BY_NAME
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.layout import Layout
from tests.conftest import LEDGER, READY_SECONDS, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.crash import intents, stores, writer
from tests.crash.conftest import Workers
from tests.crash.stores import Seen

ROUNDS = 100
COMPLETE_EVERY = 10  # rounds between two complete verifications; the others are quick
WRITERS = 3
INSUFFICIENT = BY_NAME["insufficient_funds"]

pytestmark = pytest.mark.slow


@pytest.fixture
def seed() -> int:
    """A new one each time; shown when the test fails."""
    value = int(os.environ.get("LEDGERFS_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    print(f"LEDGERFS_KILL_SEED={value}")
    return value


@dataclass
class Record:
    """What all the processes together were told."""

    layout: Layout
    seen: Seen
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    settled: int = 0  # ids whose outcome was open, and was settled by sending them again

    @classmethod
    def of(cls, layout: Layout) -> Record:
        return cls(layout, Seen(layout))

    def answered(self, names: list[str]) -> None:
        """A whole file (or submission) was answered: what is covered is committed, the rest refused."""
        self.refused.update(name for name in names if name.startswith("no-"))
        self.acknowledged.update(name for name in names if not name.startswith("no-"))

    def verify(self, number: int) -> None:
        """Compare with the journal; nobody has the store open."""
        stores.fsck(self.layout, quick=number % COMPLETE_EVERY != COMPLETE_EVERY - 1)
        self.seen.look()
        self.seen.assert_once(self.acknowledged)
        self.seen.assert_absent(self.refused)
        self.seen.assert_no_doubles()


# -- the engine's process


def test_engine_killed_under_load(workers: Workers, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    layout = layouts.create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES)
    with stores.opened(layout, segment_bytes=SEGMENT_BYTES) as store:
        stores.submit(store.engine, intents.ACCOUNTS)
    record = Record.of(layout)
    left_open: list[str] = []
    for number in range(ROUNDS):
        worker = workers.begin(
            "load",
            layout.root,
            seed=chance.randrange(2**32),
            prefix=f"e{number}-",
            again=left_open,
            segment_bytes=SEGMENT_BYTES,
        )
        # One time in five it dies while it opens the store: locking, loading, replaying, cutting.
        opening, delay = chance.random() < 0.2, chance.uniform(0.0, 0.15)
        worker.go()
        if not opening:
            assert worker.next() is not None, worker.story.events  # it is open
        killer = threading.Timer(delay / 7 if opening else delay, worker.kill)
        killer.start()
        story = worker.finish()
        killer.join()
        assert not story.done
        assert [event for event in story.events if not {"opened", "sent", "answers"} & event.keys()] == []
        assert {code for name, code in story.answers.items() if name.startswith("no-")} <= {INSUFFICIENT.number}
        assert {code for name, code in story.answers.items() if not name.startswith("no-")} <= {0}
        record.settled += len(set(left_open) & story.answers.keys())
        record.answered(list(story.answers))
        left_open = [*(name for name in left_open if name not in story.answers), *(set(story.open) - set(left_open))]
        record.verify(number)
    with stores.opened(layout, segment_bytes=SEGMENT_BYTES) as store:
        stores.submit(store.engine, [intents.payment(name) for name in left_open])
    record.answered(left_open)
    record.verify(COMPLETE_EVERY - 1)
    assert len(record.acknowledged) > 10 * ROUNDS
    assert record.settled > 0


# -- the daemon


@dataclass
class Drop:
    """A file that was about to be dropped."""

    name: str
    names: list[str]  # ids

    @property
    def content(self) -> bytes:
        return intents.content(self.names, many=self.name.endswith(".ndjson"))

    @property
    def beyond(self) -> bool:
        """Whether something in it is not covered."""
        return any(name.startswith("no-") for name in self.names)


class Writer:
    """A process that drops files; what it says goes to a file, so that it never waits for us."""

    def __init__(self, inbox: Path, prefix: str, seed: int, room: Path) -> None:
        self._said = room / f"{prefix}said"
        command = [sys.executable, "-m", "tests.crash.writer", inbox, prefix, str(seed), room / f"{prefix}work"]
        with self._said.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output)

    @property
    def begun(self) -> bool:
        """Whether it has dropped something."""
        return self._said.stat().st_size > 0

    def outcome(self, record: Record) -> Drop | None:
        """Note what it was told; the file whose outcome it was not told."""
        left_open: Drop | None = None
        for line in self._said.read_text().splitlines():
            word, name, *rest = line.split(" ")
            if word == "try":
                assert left_open is None, line
                left_open = Drop(name, rest)
                continue
            assert left_open is not None, line
            assert left_open.name == name
            if word == "died":
                break
            assert word == ("refused" if left_open.beyond else "ok"), line
            assert word == "ok" or int(rest[0]) == errno.EDQUOT, line
            record.answered(left_open.names)
            left_open = None
        return left_open


def kill_while_starting(daemon: Daemon, delay: float) -> None:
    """Start the daemon and kill it before, or just when, it is ready."""
    command = [sys.executable, "-m", "ledgerfsd", "--store", daemon.store, "--mount", daemon.path, *daemon.options]
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
    time.sleep(delay)
    daemon.kill()


def send_again(daemon: Daemon, left_open: list[Drop], record: Record) -> None:
    """Files with an open outcome, dropped as they were: each is answered now."""
    for drop in left_open:
        answer = writer.plainly(daemon.path / "inbox" / drop.name, drop.content)
        assert answer == (errno.EDQUOT if drop.beyond else 0), (drop.name, answer)
        record.answered(drop.names)
        record.settled += 1


def load_and_kill(daemon: Daemon, number: int, chance: random.Random, room: Path, record: Record) -> list[Drop]:
    """Writers at work, then a kill at a random moment; the files whose outcome is open."""
    writers = [
        Writer(daemon.path / "inbox", f"m{number}-{each}-", chance.randrange(2**32), room) for each in range(WRITERS)
    ]
    deadline = time.monotonic() + READY_SECONDS
    while not all(each.begun for each in writers):
        assert time.monotonic() < deadline, "a writer does not begin"
        time.sleep(0.005)
    time.sleep(chance.uniform(0.0, 0.3))
    if chance.random() < 0.25:
        writers[0].process.send_signal(signal.SIGKILL)
    daemon.kill()
    for each in writers:
        each.process.wait(READY_SECONDS)
    return [drop for each in writers if (drop := each.outcome(record)) is not None]


def assert_reads(daemon: Daemon, record: Record) -> None:
    """The mount shows what was acknowledged: a balance is the sum of its payments."""
    expected = sum(intents.cents(name) for name in record.acknowledged if intents.payment(name)["credit"] == "a")
    balance = json.loads((daemon.path / "accounts/a/balance.json").read_bytes())["balance"]
    assert int(balance.replace(".", "")) == expected


def test_daemon_killed_under_load(store: Path, tmp_path: Path, daemons: Callable[..., Daemon], seed: int) -> None:
    chance = random.Random(seed)
    room = tmp_path / "room"
    room.mkdir()
    record = Record.of(Layout(store))
    with stores.opened(record.layout, segment_bytes=SEGMENT_BYTES) as opened:
        stores.submit(opened.engine, intents.ACCOUNTS)
    daemon = daemons(store, "--segment-bytes", str(SEGMENT_BYTES))
    left_open: list[Drop] = []
    for number in range(ROUNDS):
        if chance.random() < 0.1:
            kill_while_starting(daemon, chance.uniform(0.1, 1.0))
        daemon.start()
        send_again(daemon, left_open, record)
        if number % COMPLETE_EVERY == 0:
            assert_reads(daemon, record)
        left_open = load_and_kill(daemon, number, chance, room, record)
        record.verify(number)
    daemon.start()
    send_again(daemon, left_open, record)
    assert_reads(daemon, record)
    assert daemon.stop() == 0
    record.verify(COMPLETE_EVERY - 1)
    assert len(record.acknowledged) > 10 * ROUNDS
    assert record.settled > 0
