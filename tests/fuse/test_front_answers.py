"""Files that the core answers without Python (ADR 46): whoever asks afterwards finds everything, whatever Python is doing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ledgerfsd.journal.layout import create
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, pay, with_accounts

WRITERS, FILES = 32, 6
LIVES = 3
WAIT_SECONDS = 20

# Python knows of a receipt only after a while: what asks for it has to wait. And it stands still as long as there is a file "pause".
SLOW = """
import pathlib, sys, time
from ledgerfsd.service.inbox_front import FrontFiles
learn, pause = FrontFiles.learn, pathlib.Path(sys.argv.pop())
def slow(self):
    time.sleep(0.01)
    while pause.exists():
        pause.with_name("paused").touch()
        time.sleep(0.01)
    learn(self)
FrontFiles.learn = slow
from ledgerfsd import daemon
daemon.main()
"""


@contextmanager
def slow(tmp_path: Path) -> Iterator[Mounted]:
    """A mount whose Python is slow, and stands still while ``tmp_path / "pause"`` is there."""
    store, mount = create(tmp_path / "slow", LEDGER, segment_bytes=SEGMENT_BYTES).root, tmp_path / "slow-mount"
    daemon = Daemon(store, mount)
    command = [sys.executable, "-c", SLOW, "--store", store, "--mount", mount, tmp_path / "pause"]
    with (tmp_path / "log").open("wb") as log:
        daemon.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (mount / ".ledgerfs/version").exists():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        yield with_accounts(daemon, tmp_path / "work")
        assert daemon.stop() == 0
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        (tmp_path / "pause").unlink(missing_ok=True)
        daemon.kill()


def in_threads(work: Callable[[int], None], threads: int) -> None:
    """Run it so many times at once; whatever it raises fails the test, as pytest makes an error of it."""
    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def look(mounted: Mounted, name: str, before: int) -> None:
    """A file that was just acknowledged is seen from every side."""
    receipt = mounted / "receipts" / name
    found = os.stat(receipt)
    assert os.stat(mounted / "receipts").st_mtime_ns >= found.st_mtime_ns >= before
    line = json.loads(receipt.read_bytes())
    assert line["status"] == "committed"
    assert found.st_size == receipt.stat().st_size == len(receipt.read_bytes())
    assert json.loads((mounted / "transactions" / f"{line['tx']}.json").read_bytes())["id"] == name
    assert (mounted / "inbox" / name).read_bytes() == receipt.read_bytes()


def test_everything_is_there_the_moment_close_returns(ledger: Mounted) -> None:
    """SEMANTICS 1.2, SEMANTICS 1.10, SEMANTICS 8.1: 32 writers, each of which looks at once."""
    failed: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for number in range(FILES):
                name, before = f"now-{writer}-{number}.json", time.time_ns()
                assert not (ledger / "receipts" / name).exists()
                ledger.drop(name, pay(id=name))
                look(ledger, name, before)
                if number == writer % FILES:
                    assert name in os.listdir(ledger / "receipts")
                    assert name in os.listdir(ledger / "inbox")
                    assert ledger.drop(name, pay(id=name)).read_bytes().count(b"duplicate") == 1
                    assert (ledger / "receipts" / name).read_bytes().count(b"duplicate") == 1
        except BaseException as error:  # noqa: BLE001  (raised below)
            failed.append(error)

    before = ledger.transactions()
    in_threads(write, WRITERS)
    if failed:
        raise failed[0]
    assert ledger.transactions() == before + WRITERS * FILES


# Argument: the inbox, a prefix, how many. A program of its own, for the mount tells a crowd by who writes.
CREATE = """
import os, sys
for number in range(int(sys.argv[3])):
    name = f"{sys.argv[2]}-{number}.json"
    with open(os.path.join(sys.argv[1], name), "wb", buffering=0) as file:
        file.write(b'{"id":"%b","debit":"acc_001","credit":"acc_002","amount":"1.00"}' % name.encode())
"""


def test_a_crowd_and_all_others_beside_it(ledger: Mounted) -> None:
    """SEMANTICS 1.2: commits wait a moment for each other (ADR 59), nobody waits for the crowd to end, nothing is lost or mixed up."""
    before = ledger.transactions()
    inbox, programs, files = ledger / "inbox", 16, 60
    commands = [[sys.executable, "-c", CREATE, inbox, f"crowd-{number}", str(files)] for number in range(programs)]
    crowd = [subprocess.Popen(command) for command in commands]
    lines = "".join(json.dumps(pay(id=f"line-{number}")) + "\n" for number in range(5_000))
    ledger.drop("lines.ndjson", lines)
    ledger.drop("all.batch.json", [pay(id=f"batch-{number}") for number in range(100)])
    for number in range(20):
        ledger.drop(f"alone-{number}.json", pay(id=f"alone-{number}.json"))
        look(ledger, f"alone-{number}.json", 0)
        assert (ledger / "accounts/acc_001/balance.json").read_bytes()
    assert [program.wait(WAIT_SECONDS) for program in crowd] == [0] * programs
    assert ledger.transactions() == before + programs * files + 5_000 + 100 + 20
    for number in range(programs):
        look(ledger, f"crowd-{number}-{files - 1}.json", 0)


def test_a_slow_python_is_waited_for_by_who_looks(tmp_path: Path) -> None:
    """SEMANTICS 1.2, SEMANTICS 1.5: and by nobody else. While it stands still, files are acknowledged all the same."""
    with slow(tmp_path) as mounted:
        for number in range(10):
            name, before = f"slow-{number}.json", time.time_ns()
            os.stat(mounted / "receipts")
            mounted.drop(name, pay(id=name))
            look(mounted, name, before)
        mounted.drop("last.json", pay(id="last.json"))  # of this the kernel is told: it has attributes of receipts/
        (tmp_path / "pause").touch()
        mounted.drop("paused.json", pay(id="paused.json"))
        seen: list[dict[str, object]] = []
        # Of inbox/ Python answers; receipts of what was just acknowledged are read without it (ADR 51).
        shown = mounted / "inbox/paused.json"
        looking = threading.Thread(target=lambda: seen.append(json.loads(shown.read_bytes())))
        looking.start()
        deadline = time.monotonic() + WAIT_SECONDS
        while not (tmp_path / "paused").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        before = time.time_ns()
        names = [f"meanwhile-{number}.json" for number in range(20)]
        writing = threading.Thread(target=lambda: [mounted.drop(name, pay(id=name)) for name in names])
        writing.start()
        writing.join(WAIT_SECONDS)
        assert not writing.is_alive()
        assert [mounted.receipt(name)[0]["status"] for name in ("paused.json", *names)] == ["committed"] * 21
        assert not seen
        (tmp_path / "pause").unlink()
        looking.join(WAIT_SECONDS)
        assert [line["status"] for line in seen] == ["committed"]
        for name in names:
            look(mounted, name, before)


def test_a_killed_daemon_leaves_receipts_of_all_it_acknowledged(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """SEMANTICS 1.1, SEMANTICS 8.4: kill -9 while many write. What was acknowledged is booked, and its receipt says so."""
    acknowledged: list[str] = []
    draw = random.Random(46)
    mounted = with_accounts(daemons(store).start(), tmp_path / "work")
    for life in range(LIVES):
        fresh = len(acknowledged)

        def write(writer: int, life: int = life, mounted: Mounted = mounted) -> None:
            for number in range(10_000):
                name = f"kill-{life}-{writer}-{number}.json"
                try:
                    mounted.drop(name, pay("0.01", id=name))
                except OSError:
                    return
                acknowledged.append(name)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in writers:
            thread.start()
        wanted, deadline = fresh + 20 + draw.randrange(300), time.monotonic() + WAIT_SECONDS
        while len(acknowledged) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        mounted.daemon.kill()
        for thread in writers:
            thread.join(WAIT_SECONDS)
        assert len(acknowledged) > fresh
        mounted = Mounted(mounted.path, mounted.work, mounted.daemon.start())
        booked = {json.loads(path.read_bytes())["id"] for path in (mounted / "transactions").iterdir()}
        assert booked >= set(acknowledged)
        for name in acknowledged[fresh:]:
            assert [line["status"] for line in mounted.receipt(name)] == ["committed"]
        # No answer, but perhaps a booking: the same file again tells.
        name = acknowledged[-1]
        mounted.drop(name, pay("0.01", id=name))
        assert [line["status"] for line in mounted.receipt(name)] == ["duplicate"]
