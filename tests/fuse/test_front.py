"""The core's front (ADR 36): with it and without it the mount is the same, only quicker."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Daemon
from tests.fuse.conftest import Mounted, pay, until, with_accounts
from tests.fuse.fronts import answered, booked, both, recorded

SEQUENCES, STEPS = 30, 60
NAMES = ("one.json", "two.json", "three.json", "lines.ndjson", ".scratch", "odd name.json", "bad.txt", "ünder.json")
WRITERS, FILES = 12, 15
STOP_SECONDS = 60

__all__ = ["both"]  # a fixture


class Program:
    """Does what a random program might, and notes what it was told. Nothing of it depends on the clock."""

    def __init__(self, mounted: Mounted, seed: int) -> None:
        self.mounted = mounted
        self.inbox = mounted / "inbox"
        self.receipts = mounted / "receipts"
        self.prefix = f"s{seed}-"
        self.random = random.Random(seed)
        self.open: list[int] = []
        self.told: list[tuple[str, object]] = []

    def path(self) -> Path:
        name = self.random.choice(NAMES)
        return self.inbox / (name if name == ".scratch" else self.prefix + name)

    def text(self) -> bytes:
        """Something to write: whole, in part, wrong, or refused."""
        draw = self.random
        number = draw.randrange(6)
        intent = pay(f"{1 + number}.00", **({"id": f"{self.prefix}{number}"} if draw.random() < 0.5 else {}))
        whole = json.dumps(intent).encode()
        return draw.choice(
            [
                whole,
                whole + b"\n",
                b" \n" + whole,
                whole[: len(whole) // 2],
                whole[len(whole) // 2 :],
                json.dumps([intent, pay("0.01")]).encode(),
                json.dumps([pay("0.02"), pay("0.03", debit="nobody")]).encode(),
                json.dumps(pay("1.00", debit="empty")).encode(),
                json.dumps(pay("1.00", colour="red")).encode(),
                whole + b" x",
                b"nonsense",
                b" \n",
                b"{" + b" " * 50_000,
            ]
        )

    def step(self) -> None:
        """One call."""
        draw = self.random
        calls: list[tuple[Callable[[], object], int]] = [
            (self.create, 6),
            (self.write, 10),
            (self.close, 5),
            (self.duplicate, 2),
            (lambda: os.fsync(self.descriptor()), 1),
            (lambda: os.ftruncate(self.descriptor(), draw.choice((0, 0, 10, 60))), 1),
            (lambda: os.truncate(self.path(), draw.choice((0, 20))), 1),
            (lambda: os.pread(self.descriptor(), 4096, 0).decode(), 1),
            (lambda: _seen(os.fstat(self.descriptor())), 3),
            (lambda: _seen(os.stat(self.path())), 3),
            (lambda: _plain(self.path().read_bytes()), 3),
            (lambda: self.path().unlink(), 2),
            (lambda: os.rename(self.path(), self.path()), 2),
            (lambda: os.chmod(self.path(), 0o600), 1),
            (lambda: os.utime(self.path(), (1, 1)), 1),
            (lambda: os.getxattr(self.path(), "user.ledgerfs.code"), 2),
            (lambda: os.getxattr(self.path(), "user.other"), 1),
            (lambda: sorted(name for name in os.listdir(self.inbox) if name.startswith(self.prefix)), 2),
            (self.whole, 6),
        ]
        weights = [weight for _, weight in calls]
        position = draw.choices(range(len(calls)), weights)[0]
        try:
            result = calls[position][0]()
        except OSError as error:
            result = errno.errorcode[error.errno or 0]
        self.told.append((str(position), result))

    def descriptor(self) -> int:
        if not self.open:
            raise OSError(errno.EBADF, "none")
        return self.random.choice(self.open)

    def create(self) -> str:
        flags = self.random.choice((os.O_WRONLY, os.O_WRONLY, os.O_RDWR)) | os.O_CREAT
        flags |= self.random.choice((0, os.O_TRUNC, os.O_TRUNC, os.O_EXCL, os.O_APPEND))
        self.open.append(os.open(self.path(), flags, 0o644))
        return "opened"

    def write(self) -> int:
        descriptor, data = self.descriptor(), self.text()
        return os.write(descriptor, data) if self.random.random() < 0.8 else os.pwrite(descriptor, data, 0)

    def close(self) -> None:
        descriptor = self.descriptor()
        self.open.remove(descriptor)
        try:
            os.close(descriptor)
        finally:
            self.settle()

    def settle(self) -> None:
        """The kernel tells of the last close afterwards; until then the file counts as open."""
        deadline = time.monotonic() + STOP_SECONDS
        while self.mounted.status()["inbox"]["open_files"] != len(self.open):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def duplicate(self) -> None:
        os.close(os.dup(self.descriptor()))

    def whole(self) -> str:
        """As `cp` does it."""
        path, text = self.path(), self.text()
        try:
            path.write_bytes(text)
        finally:
            self.settle()
        return _plain((self.receipts / path.name).read_bytes())

    def end(self) -> None:
        """Close everything; then what is left to see."""
        while self.open:
            try:
                self.close()
                self.told.append(("close", "fine"))
            except OSError as error:
                self.told.append(("close", errno.errorcode[error.errno or 0]))
        for name in sorted(name for name in os.listdir(self.receipts) if name.startswith(self.prefix)):
            self.told.append((name, _plain((self.receipts / name).read_bytes())))
        for name in sorted(name for name in os.listdir(self.inbox) if name.startswith(self.prefix)):
            self.told.append((name, _seen(os.stat(self.inbox / name))))


def _seen(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_mode, stat.st_size, stat.st_nlink, stat.st_uid, stat.st_gid, stat.st_blocks


def _plain(text: bytes) -> str:
    return text.decode()


@pytest.mark.slow
def test_programs_cannot_tell_whether_the_front_is_there(both: tuple[Mounted, Mounted]) -> None:
    """SEMANTICS 1.2, 3.1 to 3.10, 6.2 to 6.4, 7.1 to 7.3: the same errnos, sizes, contents, receipts and ledger."""
    for seed in range(SEQUENCES):
        programs = [Program(mounted, seed) for mounted in both]
        for program in programs:
            for _ in range(STEPS):
                program.step()
            program.end()
        for told, other in zip(programs[0].told, programs[1].told, strict=True):
            assert told == other, f"sequence {seed}: {programs[0].told[: programs[0].told.index(told) + 1]}"
    assert booked(both[0]) == booked(both[1])
    assert recorded(both[0]) == recorded(both[1])
    assert answered(both[0]) > SEQUENCES * STEPS / 10
    assert answered(both[1]) == -1


def test_many_write_while_others_look(both: tuple[Mounted, Mounted]) -> None:
    """SEMANTICS 1.2, SEMANTICS 8.2: a file that somebody looks at while it waits for its verdict is handed over as it is."""
    mounted, failed, done = both[0], [], threading.Event()

    def write(writer: int) -> None:
        for number in range(FILES):
            name = f"look-{writer}-{number}.json"
            mounted.drop(name, pay(id=name))
            if mounted.receipt(name)[0]["status"] != "committed" or not (mounted / "inbox" / name).read_text():
                failed.append(name)

    def look() -> None:
        while not done.is_set():
            for path in list((mounted / "inbox").iterdir()):
                if path.name.startswith("look-") and path.exists():
                    path.read_bytes()

    before = mounted.transactions()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    looker = threading.Thread(target=look)
    for thread in (looker, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    looker.join()
    assert failed == []
    assert mounted.transactions() == before + WRITERS * FILES
    until(lambda: mounted.status()["inbox"]["open_files"] == 0)  # the kernel tells of the last close when it likes


def test_stopping_answers_who_has_begun(store: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """SEMANTICS 1.1: SIGTERM while many write: what was acknowledged is there, and nobody hangs."""
    mounted = with_accounts(daemons(store).start(), tmp_path / "work")
    acknowledged: list[str] = []

    def write(writer: int) -> None:
        for number in range(10_000):
            name = f"stop-{writer}-{number}.json"
            try:
                mounted.drop(name, pay(id=name))
            except OSError:
                return
            acknowledged.append(name)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in writers:
        thread.start()
    until(lambda: len(acknowledged) >= 2 * WRITERS)
    assert mounted.daemon.stop() == 0
    for thread in writers:
        thread.join(STOP_SECONDS)
    assert not any(thread.is_alive() for thread in writers)
    again = daemons(store).start()
    ids = {json.loads(path.read_bytes())["id"] for path in (again.path / "transactions").iterdir()}
    assert ids >= set(acknowledged)


def test_an_unknown_pyfuse3_is_served_without_it(store: Path, tmp_path: Path) -> None:
    script = "from ledgerfsd.vfs import requests; requests.calls = lambda name: False; from ledgerfsd import daemon; daemon.main()"
    mount, log = tmp_path / "mount", tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", script, "--store", store, "--mount", mount], cwd=REPOSITORY, stderr=out, stdout=out
        )
    try:
        deadline = time.monotonic() + STOP_SECONDS
        while not (mount / ".ledgerfs/version").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        (mount / "inbox/accounts.json").write_text(
            json.dumps({"type": "open_account", "account": "a", "currency": "EUR", "class": "customer_liability"})
        )
        assert (mount / "accounts/a/balance.json").exists()
        assert "answered in Python only" in log.read_text()
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        subprocess.run(["fusermount3", "-u", "-q", "-z", mount], check=False, capture_output=True)
