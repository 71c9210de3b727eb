"""Check 4 through the mount: kill -9 at random moments under load, a hundred times on one growing store.

After each restart every intent whose close() returned 0 is there exactly once, none whose close() was refused is, and one whose
outcome was left open by the death of the daemon is there at most once; dropped again, it is there exactly once.
"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ledgerfsd.journal.fsck import Check
from ledgerfsd.journal.layout import Layout
from tests.conftest import Daemon
from tests.fuse.conftest import Mounted, lines, pay, with_accounts

ROUNDS = 100
WRITERS = 4
SEED = int(os.environ.get("LEDGERFS_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
DEAD = {
    errno.ENOTCONN,
    errno.ECONNABORTED,
    errno.ENOENT,
    errno.EIO,
    errno.EBADF,
}  # what a killed daemon leaves to programs


@dataclass
class Outcomes:
    """Ids by what their writer was told."""

    acknowledged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    left_open: list[tuple[str, str]] = field(default_factory=list)  # file name, content


def written(path: Path, content: str, *, by_cp: bool, work: Path) -> int:
    """Drop a file; 0 or the errno its writer got."""
    if by_cp:
        source = work / path.name
        source.write_text(content)
        found = subprocess.run(["cp", source, path], capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
        source.unlink()
        if found.returncode == 0:
            return 0
        return errno.EDQUOT if "quota" in found.stderr else errno.ENOTCONN
    try:
        path.write_text(content)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def write_until_dead(ledger: Mounted, prefix: str, chance: random.Random, told: Outcomes) -> None:
    """Files of one intent, or of a few, some of them beyond the balance."""
    for number in range(100_000):
        ids = [f"{prefix}-{number}-{item}" for item in range(chance.choice([1, 1, 1, 5, 30]))]
        poor = len(ids) == 1 and chance.random() < 0.2
        intents = [pay("0.01", id=name) if not poor else pay("5.00", id=name, debit="empty") for name in ids]
        content = json.dumps(intents[0]) if len(ids) == 1 else lines(intents)
        name = f"{prefix}-{number}.{'json' if len(ids) == 1 else 'ndjson'}"
        failed = written(ledger / "inbox" / name, content, by_cp=chance.random() < 0.2, work=ledger.work)
        if failed == 0:
            told.acknowledged += ids
        elif failed in DEAD:
            told.left_open.append((name, content))
            return
        else:
            assert poor, (name, failed)
            told.refused += ids


class Booked:
    """The ids that are booked on an account, read on from where the last look ended."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._offset = 0

    def look(self, ledger: Mounted) -> Counter[str]:
        with (ledger / "accounts/acc_002/tx.log").open("rb") as log:
            log.seek(self._offset)
            content = log.read()
        self._offset += len(content)
        self.count.update(json.loads(line)["id"] for line in content.splitlines())
        return self.count


def sound(store: Path, *, quick: bool) -> None:
    """fsck, in this process; the daemon is dead. An unfinished batch at the end is a note, not a fault."""
    findings = [finding for finding in Check(Layout(store), quick=quick).run() if finding.severity != "note"]
    assert not findings


@pytest.mark.slow
def test_killed_under_load(store: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    print(f"LEDGERFS_KILL_SEED={SEED}")
    chance = random.Random(SEED)
    daemon = daemons(store).start()
    ledger = with_accounts(daemon, tmp_path / "work")
    booked, refused, expected = Booked(), set[str](), set[str]()
    for number in range(ROUNDS):
        told = Outcomes()
        threads = [
            threading.Thread(
                target=write_until_dead, args=(ledger, f"k{number}-{writer}", random.Random(chance.random()), told)
            )
            for writer in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.02, 0.4))
        daemon.kill()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        sound(store, quick=number % 10 != 9)
        daemon.start()
        expected.update(told.acknowledged)
        refused.update(told.refused)
        count = booked.look(ledger)
        assert [name for name in expected if count[name] != 1] == []
        assert [name for name in refused if count[name]] == []
        assert [name for name, times in count.items() if times != 1] == []
        for name, content in told.left_open:
            intents = [json.loads(line) for line in content.splitlines()]
            fits = intents[0]["debit"] != "empty"
            assert (written(ledger / "inbox" / name, content, by_cp=False, work=ledger.work) == 0) == fits
            (expected if fits else refused).update(intent["id"] for intent in intents)
        count = booked.look(ledger)
        assert [name for name in expected if count[name] != 1] == []
        assert [name for name in refused if count[name]] == []
    assert daemon.stop() == 0
    sound(store, quick=False)
