"""events/: section 14 of docs/SEMANTICS.md."""

from __future__ import annotations

import asyncio
import datetime
import errno
import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.clock import NS_PER_DAY, format_date, format_time, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure import events as twin
from ledgerfsd.journal.layout import create
from ledgerfsd.types import Mode
from tests.conftest import LEDGER, PATIENCE_SECONDS, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import ACCOUNTS, Mounted, lines, pay, with_accounts

CONSUMING = REPOSITORY / "tests" / "fuse" / "consuming.py"
TIMEOUT = 60
FOR_EVER = 10**9
SOON = PATIENCE_SECONDS  # in which what is immediate has happened, on a machine that is busy with other things
Events = list[dict[str, Any]]


def parsed(text: bytes) -> Events:
    return [json.loads(line) for line in text.splitlines()]


def ids(text: bytes) -> list[int]:
    return [int(event["id"]) for event in parsed(text)]


def count(ledger: Mounted) -> int:
    return int(ledger.status()["entries"])


def today(ledger: Mounted) -> Path:
    """The newest day (not the clock's: the test may run over midnight)."""
    return sorted((ledger / "events").glob("*.ndjson"))[-1]


def read_all(path: Path, end: int) -> bytes:
    """A stream, up to event ``end``."""
    found = b""
    with path.open("rb", buffering=0) as file:
        while not found.endswith(b"\n") or ids(found.splitlines()[-1])[0] < end - 1:
            found += file.read(1 << 20)
    return found


# -- what an event is


def test_events_are_the_log(shared: Mounted) -> None:
    """SEMANTICS 14.1"""
    shared.drop("log.ndjson", lines([pay(reference='say "x"', metadata={"time": "x", "postings": []}), pay()]))
    text = b"".join(path.read_bytes() for path in sorted((shared / "events").glob("*.ndjson")))
    assert ids(text) == list(range(count(shared)))
    kinds = set()
    for index, line in enumerate(text.splitlines(keepends=True)):
        data = line[line.index(b'"data":') + 7 : -2]
        leaf = hashlib.sha256(b"\0" + data).digest()
        assert line == twin.line(LEDGER, index, data, leaf)
        event = json.loads(line)
        assert event["data"]["index"] == index
        kinds.add(event["type"])
        if event["type"] == "ledgerfs.txn.v1":
            path = shared / f"transactions/{event['subject']}.json"
            assert path.read_bytes() == data
            assert os.getxattr(path, "user.ledgerfs.leaf").decode() == event["leafhash"]
    assert {"ledgerfs.genesis.v1", "ledgerfs.seal.v1", "ledgerfs.account.v1", "ledgerfs.txn.v1"} <= kinds


def test_an_event_is_shown_when_its_commit_is_acknowledged(shared: Mounted) -> None:
    """Durable, and at once. SEMANTICS 14.1"""
    shared.drop("shown.json", pay(reference="shown"))
    index = shared.receipt("shown.json")[0]["index"]
    assert ids(today(shared).read_bytes())[-2:] == [index, index + 1]


# -- days


@pytest.fixture(scope="module")
def past(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A ledger that began six days ago, with payments on four of the days, mounted."""
    place = tmp_path_factory.mktemp("past")
    start = time.time_ns() // NS_PER_DAY * NS_PER_DAY - 6 * NS_PER_DAY
    root = create(place / "store", LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=start + 1).root
    engine = Engine(root, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
    engine.start()
    engine.submit(lines(ACCOUNTS).encode(), source=b"a", first_line=1, mode=Mode.EACH, now_ns=start + 2)
    for day, second in ((1, 0), (1, 86_399), (2, 5), (4, 7)):  # the third day has none, nor has the fifth
        at = start + day * NS_PER_DAY + second * 10**9
        engine.submit(lines([pay()] * 300).encode(), source=b"%d" % at, first_line=1, mode=Mode.EACH, now_ns=at)
    engine.drain()
    engine.close()
    daemon = Daemon(root, place / "mount").start()
    (place / "work").mkdir()
    try:
        yield Mounted(daemon.path, place / "work", daemon)
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()


def day(past: Mounted, number: int) -> Path:
    born = json.loads((past / "blocks/00000001.json").read_bytes())["time"]
    return past / f"events/{format_date(parse_time(born) + number * NS_PER_DAY)}.ndjson"


def test_a_file_for_every_day(past: Mounted) -> None:
    """SEMANTICS 14.2"""
    listed = sorted(path.name for path in (past / "events").glob("*.ndjson"))
    born = datetime.date.fromisoformat(day(past, 0).stem)
    now = datetime.datetime.now(datetime.UTC).date()
    assert listed == [f"{born + datetime.timedelta(days)}.ndjson" for days in range((now - born).days + 1)]
    sizes = [os.stat(day(past, number)).st_size for number in range(7)]
    assert [bool(size) for size in sizes] == [
        True,
        True,
        True,
        False,
        True,
        False,
        True,
    ]  # today: the key, which the daemon records
    for number in range(7):
        path = day(past, number)
        text = path.read_bytes()
        assert len(text) == sizes[number]
        for event in parsed(text):
            assert event["time"][:10] == path.stem
        if text:
            assert format_time(os.stat(path).st_mtime_ns) == parsed(text)[-1]["time"]
    for name in ("2020-01-01.ndjson", f"{born + datetime.timedelta(9)}.ndjson", "2026-02-30.ndjson", "x.ndjson"):
        assert not (past / "events" / name).exists()


def test_pieces_of_a_day(past: Mounted) -> None:
    """Any piece, by pread and by mmap. SEMANTICS 14.2"""
    import mmap

    path = day(past, 1)
    text, chance = path.read_bytes(), random.Random(3)
    with path.open("rb", buffering=0) as file:
        for _ in range(200):
            offset, size = chance.randrange(len(text) + 10), chance.randrange(9_000)
            assert os.pread(file.fileno(), size, offset) == text[offset : offset + size]
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as mapped:
            assert mapped[:] == text


def test_a_second_rsync_transfers_nothing(past: Mounted) -> None:
    """SEMANTICS 14.2, SEMANTICS 14.6"""
    command = 'rsync -a --stats "$M/events/" copy/ | grep "files transferred"'
    first, second = (past.shell(command) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert second.stdout.strip().endswith(": 0")
    assert not first.stdout.strip().endswith(": 0")
    for number in range(5):
        assert (past.work / "copy" / day(past, number).name).read_bytes() == day(past, number).read_bytes()


def test_a_closed_day_never_changes(past: Mounted) -> None:
    """Its pages are the kernel's: reading them again asks nobody. The newest one with events is not closed. SEMANTICS 14.2"""
    before = [(day(past, number).stat(), day(past, number).read_bytes()) for number in range(4)]
    past.drop("later.json", pay())
    for number, (stat, text) in enumerate(before):
        again = day(past, number).stat()
        assert (again.st_size, again.st_mtime_ns, again.st_ino) == (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        assert day(past, number).read_bytes() == text


def test_tail_follows_today(ledger: Mounted) -> None:
    """SEMANTICS 14.2"""
    with subprocess.Popen(["tail", "-n", "+1", "-f", "-s", "0.05", today(ledger)], stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        try:
            for number in range(5):
                ledger.drop(f"tail-{number}.json", pay(reference=f"tail {number}"))
                while json.loads(tail.stdout.readline())["data"].get("reference") != f"tail {number}":
                    pass
        finally:
            tail.kill()


# -- streams


def test_live_begins_at_its_open(shared: Mounted) -> None:
    """Before the first read: nothing is lost in between. SEMANTICS 14.3"""
    with (shared / "events/live.ndjson").open("rb", buffering=0) as live:
        before = count(shared)
        shared.drop("live-1.json", pay(reference="one"))
        shared.drop("live-2.json", pay(reference="two"))
        text = live.read(1 << 20)
        while len(ids(text)) < 4:
            text += live.read(1 << 20)
        assert ids(text) == [before, before + 1, before + 2, before + 3]


def test_from_any_index(shared: Mounted) -> None:
    """SEMANTICS 14.3"""
    end = count(shared)
    for index in (0, 1, end - 1):
        assert ids(read_all(shared / f"events/from/{index}.ndjson", end)) == list(range(index, end))
    for name in ("-1", "01", "x", "4294967295", "99999999999"):
        assert not (shared / f"events/from/{name}.ndjson").exists(), name


def test_from_an_index_that_is_not_there_yet(shared: Mounted) -> None:
    """SEMANTICS 14.3"""
    wanted = count(shared) + 3
    path = shared / f"events/from/{wanted}.ndjson"
    with subprocess.Popen(["head", "-n", "1", path], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        shared.drop("far-1.json", pay())
        shared.drop("far-2.json", pay())
        assert ids(reader.stdout.readline()) == [wanted]


def test_whole_lines_and_pieces_of_one(shared: Mounted) -> None:
    """SEMANTICS 14.3"""
    end = count(shared)
    text = read_all(shared / "events/from/0.ndjson", end)
    first = len(text.splitlines(keepends=True)[0])
    descriptor = os.open(shared / "events/from/0.ndjson", os.O_RDONLY)
    try:
        assert os.read(descriptor, 100) == text[:100]
        assert os.read(descriptor, first) == text[100:first]
        assert os.read(descriptor, 4_000).endswith(b"\n")
        os.lseek(descriptor, first, os.SEEK_SET)
        assert os.read(descriptor, 10) == text[first : first + 10]
        assert os.pread(descriptor, 50, 7) == text[7:57]
    finally:
        os.close(descriptor)


def test_programs_share_a_stream(shared: Mounted) -> None:
    """head gives back what it read too much. SEMANTICS 14.3"""
    done = shared.shell('(head -n 1; head -n 2; head -n 1) < "$M/events/from/1.ndjson"')
    assert done.stderr == ""
    assert ids(done.stdout.encode()) == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_reader_at_once(shared: Mounted, number: signal.Signals) -> None:
    """SEMANTICS 14.4"""
    for _ in range(5):
        with subprocess.Popen(["cat", shared / "events/live.ndjson"], stdout=subprocess.PIPE) as reader:
            until_blocked(reader.pid)
            reader.send_signal(number)
            assert reader.wait(SOON) == -number
    shared.drop(f"after-{number}.json", pay())


def until_blocked(pid: int) -> None:
    """Wait until a process waits in a read of the mount."""
    deadline = time.monotonic() + SOON
    while "request_wait_answer" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_handler_of_python_runs_and_the_read_goes_on(shared: Mounted) -> None:
    """EINTR: whoever handles the signal reads again, and loses nothing. SEMANTICS 14.4"""
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('caught', flush=True))\n"
        "descriptor = os.open(sys.argv[1], os.O_RDONLY)\n"
        "print('open', flush=True)\n"
        "print(os.read(descriptor, 1000).decode(), flush=True)\n"
    )
    command = [sys.executable, "-S", "-c", script, shared / "events/live.ndjson"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        until_blocked(reader.pid)
        reader.send_signal(signal.SIGUSR1)
        assert reader.stdout.readline() == "caught\n"
        before = count(shared)
        shared.drop("handled.json", pay())
        assert ids(reader.stdout.readline().encode()) == [before]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_daemon_ends_though_readers_wait(ledger: Mounted, how: signal.Signals) -> None:
    """SEMANTICS 14.4"""
    command = ["cat", ledger / "events/live.ndjson"]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(20)]
    for reader in readers:
        until_blocked(reader.pid)
    assert ledger.daemon.process is not None
    ledger.daemon.process.send_signal(how)
    for reader in readers:
        _, said = reader.communicate(timeout=SOON)
        assert reader.returncode == 1
        assert "connection abort" in said or "not connected" in said
    assert ledger.daemon.process.wait(SOON) == (0 if how is signal.SIGTERM else -how)


def test_nonblocking_at_open_or_later(shared: Mounted) -> None:
    """SEMANTICS 14.4"""
    descriptor = os.open(shared / "events/live.ndjson", os.O_RDONLY)
    try:
        os.set_blocking(descriptor, False)
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 100)
        shared.drop("later.json", pay())
        assert len(ids(os.read(descriptor, 1 << 20))) == 2
    finally:
        os.close(descriptor)
    descriptor = os.open(shared / f"events/from/{count(shared)}.ndjson", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 100)
    os.close(descriptor)


def epolled(descriptor: int, seconds: float) -> bool:
    with select.epoll() as poller:
        poller.register(descriptor, select.EPOLLIN)
        return bool(poller.poll(seconds))


def polled(descriptor: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def selected(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


@pytest.mark.parametrize("wait", [epolled, polled, selected])
def test_who_polls_is_told(shared: Mounted, wait: Callable[[int, float], bool]) -> None:
    """SEMANTICS 14.4"""
    descriptor = os.open(shared / "events/live.ndjson", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not wait(descriptor, 0)
        assert not wait(descriptor, 0.05)
        for number in range(3):
            writer = threading.Timer(0.1, shared.drop, (f"{wait.__name__}-{number}.json", pay()))
            writer.start()
            assert wait(descriptor, TIMEOUT)
            writer.join()
            assert wait(descriptor, 0)
            assert len(ids(os.read(descriptor, 1 << 20))) == 2
            assert not wait(descriptor, 0)
    finally:
        os.close(descriptor)
    with (shared / "README.txt").open("rb") as other:
        assert wait(other.fileno(), 0) if wait is not epolled else True


def test_asyncio_reads_a_stream(shared: Mounted) -> None:
    """Edge of selectors and loops. SEMANTICS 14.4"""

    async def read_two() -> bytes:
        loop, found, arrived = asyncio.get_running_loop(), [], asyncio.Event()
        descriptor = os.open(shared / "events/live.ndjson", os.O_RDONLY | os.O_NONBLOCK)

        def readable() -> None:
            found.append(os.read(descriptor, 1 << 20))
            if len(ids(b"".join(found))) >= 4:
                arrived.set()

        loop.add_reader(descriptor, readable)
        for number in range(2):
            await asyncio.to_thread(shared.drop, f"asyncio-{number}.json", pay())
        await asyncio.wait_for(arrived.wait(), TIMEOUT)
        loop.remove_reader(descriptor)
        os.close(descriptor)
        return b"".join(found)

    assert len(ids(asyncio.run(read_two()))) == 4


def test_a_daemon_that_does_not_see_signals_says_so(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """pyfuse3 bound its names before we were loaded, as one would that goes another way. SEMANTICS 14.4"""
    daemon = daemons(store)
    script = "import sys, pyfuse3; from ledgerfsd.daemon import main; sys.exit(main(sys.argv[1:]))"
    with daemon.log.open("ab") as log:
        command = [sys.executable, "-c", script, "--store", store, "--mount", daemon.path]
        daemon.process = subprocess.Popen(command, cwd=REPOSITORY, stderr=log)
    while not (daemon.path / ".ledgerfs/version").exists():
        assert daemon.process.poll() is None
        time.sleep(0.02)
    ledger = with_accounts(daemon, tmp_path / "work")
    with subprocess.Popen(["cat", ledger / "events/live.ndjson"], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        until_blocked(reader.pid)
        time.sleep(1.5)  # long enough for one EINTR, after which cat reads again
        ledger.drop("x.json", pay())
        assert reader.stdout.readline().startswith(b'{"specversion"')
        reader.terminate()
        assert reader.wait(SOON) == -signal.SIGTERM
    assert "signals of readers are not seen" in daemon.log.read_text()
    assert "answered in Python only" in daemon.log.read_text()
    assert daemon.stop() == 0


def test_slow_readers_hold_nobody_up(ledger: Mounted) -> None:
    """Fifty that never read, one that reads a byte at a time; and a fast one that has everything. SEMANTICS 14.5"""
    idle = [os.open(ledger / "events/from/0.ndjson", os.O_RDONLY) for _ in range(50)]
    slow = os.open(ledger / "events/from/0.ndjson", os.O_RDONLY)
    begin = count(ledger)
    try:
        fast = subprocess.Popen(["head", "-n", "4000", ledger / f"events/from/{begin}.ndjson"], stdout=subprocess.PIPE)
        bytes_read = b""
        for number in range(8):
            bytes_read += os.read(slow, 1)
            ledger.drop(f"slow-{number}.ndjson", lines([pay("0.01")] * 500))
        assert ids(fast.communicate(timeout=TIMEOUT)[0]) == list(range(begin, begin + 4000))
        assert bytes_read == b'{"specve'
        assert ids(os.read(idle[0], 100_000))[0] == 0
    finally:
        for descriptor in (*idle, slow):
            os.close(descriptor)


def test_copies_come_to_rest(shared: Mounted) -> None:
    """SEMANTICS 14.6"""
    (shared / "events/consumers/rest").mkdir()
    born = parsed(read_all(shared / "events/from/0.ndjson", 1))[0]["time"]
    done = shared.shell(
        'cp -r "$M/events" rest && grep -rc specversion "$M/events" >/dev/null && find "$M/events" -type f'
    )
    assert done.returncode == 0, done.stderr
    for name in ("events/live.ndjson", "events/from/3.ndjson", "events/consumers/rest/events.ndjson"):
        assert str(shared / name) not in done.stdout
        assert os.stat(shared / name).st_size == 0
        assert format_time(os.stat(shared / name).st_mtime_ns) == born
    (shared / "events/consumers/rest").rmdir()


# -- consumers


def write(path: Path, text: str) -> int:
    """The errno of writing a file in whole, 0 for none."""
    try:
        path.write_text(text)
    except OSError as error:
        return error.errno or -1
    return 0


def test_a_consumer_acknowledges_by_writing(shared: Mounted) -> None:
    """SEMANTICS 14.7"""
    folder = shared / "events/consumers/billing"
    folder.mkdir()
    position, reset = folder / "position", folder / "reset"
    assert (position.read_text(), position.stat().st_size, sorted(os.listdir(folder))) == (
        "0\n",
        2,
        ["position", "reset"],
    )
    modes = [(shared / "events/consumers").stat().st_mode & 0o777, position.stat().st_mode & 0o777]
    assert modes == [0o775, 0o664]
    assert write(position, "3\n") == 0
    assert position.read_text() == "3\n"
    assert write(position, "4") == 0  # close takes it
    assert (position.read_text(), write(position, "4\n")) == ("4\n", 0)
    for text, number in (("3\n", errno.ERANGE), (f"{count(shared) + 1}\n", errno.ERANGE), ("x\n", errno.EBADMSG)):
        assert (write(position, text), position.read_text()) == (number, "4\n")
    for text in ("-1\n", "4.0\n", "5 6\n", "9" * 70, "5\nx\n", "\x005"):
        assert (write(position, text), position.read_text()) == (errno.EBADMSG, "4\n")
    assert (write(position, ""), write(position, "\n"), position.read_text()) == (0, 0, "4\n")
    assert ids(read_all(folder / "events.ndjson", count(shared))) == list(range(4, count(shared)))
    assert (write(reset, "1\n"), position.read_text(), reset.read_text()) == (0, "1\n", "1\n")
    with position.open("wb", buffering=0) as file:  # one open file, many acknowledgements
        for number in (2, 3, 5):
            file.write(b"%d\n" % number)
            assert position.read_text() == f"{number}\n"
        with pytest.raises(OSError):
            os.pwrite(file.fileno(), b"6\n", 999)
    folder.rmdir()
    assert not folder.exists()
    assert not position.exists()


def test_the_shell_is_told(shared: Mounted) -> None:
    """The verdict comes in WRITE, so even a builtin echo learns of it. SEMANTICS 14.7"""
    done = shared.shell(
        'cd "$M/events/consumers" && mkdir sh && echo 2 > sh/position && cat sh/position; echo 1 > sh/position'
    )
    assert (done.stdout, done.returncode) == ("2\n", 1)
    assert "out of range" in done.stderr
    assert shared.shell('rmdir "$M/events/consumers/sh"').returncode == 0


def test_names_and_what_cannot_be_done(shared: Mounted) -> None:
    """SEMANTICS 14.8"""
    consumers = shared / "events/consumers"
    for name in (".x", "a b", "x" * 65, "é", "x.new"):
        with pytest.raises(PermissionError):
            (consumers / name).mkdir()
    (consumers / "twice").mkdir()
    with pytest.raises(FileExistsError):
        (consumers / "twice").mkdir()
    for attempt in (
        lambda: (shared / "events/x").mkdir(),
        lambda: (consumers / "twice/x").write_text("1"),
        lambda: (consumers / "twice/position").unlink(),
        lambda: (consumers / "x").write_text("1"),
        lambda: (shared / "events/live.ndjson").write_text("1"),
        lambda: os.truncate(today(shared), 0),
    ):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno in (errno.EROFS, errno.EACCES)
    (consumers / "twice").rmdir()
    with pytest.raises(FileNotFoundError):
        (consumers / "twice").rmdir()


def test_consumers_survive_and_damage_is_seen(ledger: Mounted) -> None:
    """SEMANTICS 14.8"""
    consumers = ledger / "events/consumers"
    for name in ("one", "two", "gone"):
        (consumers / name).mkdir()
        (consumers / name / "position").write_text("3\n")
    (consumers / "gone").rmdir()
    inode = (consumers / "one/position").stat().st_ino
    ledger.daemon.kill()
    (ledger.daemon.store / "consumers/two").write_text("{")
    ledger.daemon.start()
    assert sorted(os.listdir(consumers)) == ["one", "two"]
    assert (consumers / "one/position").read_text() == "3\n"
    assert (consumers / "one/position").stat().st_ino == inode
    assert "consumer two" in (ledger / ".ledgerfs/health").read_text()
    with pytest.raises(OSError, match="Input/output"):
        (consumers / "two/position").read_text()
    assert write(consumers / "two/position", "4\n") == errno.EIO
    assert write(consumers / "two/reset", "2\n") == 0
    assert (consumers / "two/position").read_text() == "2\n"
    assert (ledger / ".ledgerfs/health").read_text() == "ok\n"
    ledger.daemon.stop()
    path = ledger.daemon.store / "consumers/one"
    path.write_text(
        '{"consumer":"one","position":9999,"time":"2026-01-01T00:00:00Z"}\n'
    )  # as it was before there were slots
    ledger.daemon.start()
    assert "consumer one: it is ahead of the log" in (ledger / ".ledgerfs/health").read_text()
    assert write(consumers / "one/reset", "1\n") == 0
    ledger.daemon.kill()
    ledger.daemon.start()
    assert (consumers / "one/position").read_text() == "1\n"
    assert (ledger / ".ledgerfs/health").read_text() == "ok\n"


def test_the_schemas_are_there(shared: Mounted) -> None:
    """SEMANTICS 14.9"""
    folder = shared / ".ledgerfs/schema"
    assert sorted(os.listdir(folder)) == ["entry.json", "event.json", "intent.json"]
    for path in folder.iterdir():
        assert json.loads(path.read_bytes())["$id"] == f"urn:ledgerfs:schema:{path.stem}:1"
        assert path.read_bytes() == (REPOSITORY / "ledgerfsd/data/schema" / path.name).read_bytes()


# -- killed at random


def kill_and_restart(ledger: Mounted, groups: list[list[str]], *, files: int, size: int, kills: int) -> None:
    """Consumers in one process for each group, killed at random while commits go at full speed, and while the consumers catch up;
    then each has each event once, in order. ``files`` of ``size`` intents; ``kills``: of processes that had done something."""
    chance = random.Random(1)
    for name in (name for group in groups for name in group):
        (ledger / "events/consumers" / name).mkdir()
        (ledger.work / name).touch()
    text = lines([pay("0.01")] * size)

    def load() -> None:
        for at in range(files):
            ledger.drop(f"load-{at}.ndjson", text)

    def done(group: list[str]) -> int:
        return sum((ledger.work / name).stat().st_size for name in group)

    def start(group: list[str], end: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-S", "-E", CONSUMING, ledger.path, ledger.work, str(end), *group])

    writer = threading.Thread(target=load)
    running = [start(group, FOR_EVER) for group in groups]
    before = [0] * len(groups)
    writer.start()
    killed = turn = 0
    while writer.is_alive() or killed < kills:
        at, turn = chance.randrange(len(running)), turn + 1
        time.sleep(chance.random() / len(groups))
        running[at].kill()
        assert running[at].wait(TIMEOUT) == -signal.SIGKILL
        killed += done(groups[at]) > before[at]
        before[at] = done(groups[at])
        running[at] = start(groups[at], FOR_EVER)
        if not writer.is_alive():
            ledger.drop(f"more-{turn}.ndjson", lines([pay("0.01")] * 10))  # so that there is always something to do
    writer.join()
    end = count(ledger)
    for process in running:
        process.kill()
        assert process.wait(TIMEOUT) == -signal.SIGKILL
    for process in [start(group, end) for group in groups]:
        assert process.wait(2 * TIMEOUT) == 0
    for name in (name for group in groups for name in group):
        text = (ledger.work / name).read_text()
        seen = text.count("\n")
        assert seen >= end  # a seal may have come since
        assert text == "".join(f"{number}\n" for number in range(seen)), name
        assert (ledger / f"events/consumers/{name}/position").read_text() == f"{seen}\n"


def test_consumers_that_are_killed_see_every_event_once(ledger: Mounted) -> None:
    """SEMANTICS 14.5, SEMANTICS 14.7"""
    kill_and_restart(ledger, [["c1", "c2"], ["c3"]], files=30, size=1000, kills=5)


@pytest.mark.slow
def test_a_hundred_consumers(ledger: Mounted) -> None:
    """SEMANTICS 14.5"""
    groups = [[f"c{group}-{number}" for number in range(10)] for group in range(10)]
    kill_and_restart(ledger, groups, files=10, size=4000, kills=30)
