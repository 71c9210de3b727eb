"""What is only read, with the core's front and without it: the same names, attributes, bytes and errors (ADR 47)."""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon
from tests.fuse.conftest import Mounted, lines, pay, with_accounts
from tests.fuse.test_front import answered

FIRST_LOOKS = 1_000
WAIT_SECONDS = 30
PLACES = ("accounts", "transactions", "receipts", "proofs")
PYTHON = {"snapshots", "history", "statements", "proof", "consistency"}  # the front knows nothing of them
LOST = (
    "accounts/nobody",
    "accounts/" + "x" * 255,
    "accounts/" + "x" * 256,
    "accounts/acc_001/balance.jsom",
    "accounts/acc_001/balance.json/x",
    "accounts/b\u00e4nk",
    "transactions/tx_1.json",
    "transactions/tx_00001.json",
    "transactions/tx_0000.json",
    "transactions/tx_9999.json",
    "transactions/" + "x" * 256,
    "receipts/nothing.json",
    "receipts/b\u00e4nk.json",
    "receipts/" + "x" * 256,
    "proofs/tx_1.tlog-proof",
    "proofs/tx_9999.tlog-proof",
    "proofs/tx_0001.json",
    "proofs/tx_0001.tlog-proof/x",
    "snapshots/size-2/accounts/acc_001",
    "snapshots/size-999999/accounts",
    "snapshots/block-2/accounts/nobody",
    "snapshots/named/accounts/acc_001/tx.log",
    "snapshots/tx-0/accounts",
    "snapshots/1969-12-31T23:59:59Z",
    "snapshots/2026-02-30T00:00:00Z",
    "snapshots/2150-01-01T00:00:00Z",
)
CALLS: tuple[Callable[[Path], object], ...] = (
    lambda path: os.open(path, os.O_WRONLY),
    lambda path: os.open(path, os.O_RDWR),
    lambda path: os.open(path, os.O_RDONLY | os.O_TRUNC),
    lambda path: os.truncate(path, 0),
    lambda path: os.unlink(path),
    lambda path: os.chmod(path, 0o600),
    lambda path: os.getxattr(path, "user.ledgerfs.index"),
    lambda path: os.getxattr(path, "user.other"),
    lambda path: os.listdir(path),
    lambda path: os.access(path, os.R_OK),
    lambda path: os.statvfs(path).f_namemax,
)


def told(call: Callable[[Path], object], path: Path) -> object:
    """What it returns, or the name of the error."""
    try:
        return call(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def mapping(descriptor: int) -> bytes:
    """The same by ``mmap``, where a file can be mapped so."""
    try:
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped:
            return mapped[:]
    except OSError as error:
        return errno.errorcode[error.errno or 0].encode()


def read(path: Path) -> list[bytes]:
    """A file, in the ways that programs read."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = [
            file.read(),
            os.pread(file.fileno(), 7, 3),
            os.pread(file.fileno(), 10, size - 1),
            os.pread(file.fileno(), 10, size),
        ]
        found.append(mapping(file.fileno()))
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    found += [os.pread(direct, 1 << 16, 0), os.pread(direct, 100, 5)]
    os.close(direct)
    return found


def files(top: Path) -> Iterator[Path]:
    """Everything below, twice over: the second time the kernel has it."""
    for _ in range(2):
        for directory, directories, names in os.walk(top):
            directories[:] = sorted(set(directories) - PYTHON)
            for name in (*directories, *sorted(names)):
                yield Path(directory) / name


def walk(mount: Path, others: list[str]) -> list[Any]:
    """All that there is to be seen of what does not change between two starts."""
    found: list[Any] = []
    tops = [mount / each for each in (*PLACES, *others)]
    for path in (path for top in tops for path in files(top)):
        stat = path.stat(follow_symlinks=False)
        row = [
            str(path.relative_to(mount)),
            stat.st_mode,
            stat.st_ino,
            stat.st_nlink,
            stat.st_uid,
            stat.st_gid,
            stat.st_size,
        ]
        row += [stat.st_blocks, stat.st_blksize, stat.st_mtime_ns, stat.st_ctime_ns]
        found.append(row + (read(path) if path.is_file() and stat.st_size else []))
    for path in (mount / each for each in LOST):
        found.append((path.name, told(os.stat, path), told(os.listdir, path)))
    for name in (
        "accounts/acc_001/balance.json",
        "transactions/tx_0001.json",
        "receipts/last.json",
        "proofs/tx_0001.tlog-proof",
        "snapshots/named/accounts/acc_001/balance.json",
    ):
        found.append((name, [told(call, mount / name) for call in CALLS]))
    return found


def history(mounted: Mounted) -> list[str]:
    """A ledger with something of each kind; names of past states, most of them not listed."""
    (mounted / "inbox/first.ndjson").write_text(lines([pay(f"{number}.10") for number in range(1, 40)]))
    (mounted / "snapshots/named").mkdir()
    mounted.drop("hold.json", {"type": "hold", "id": "h1", "debit": "acc_001", "credit": "acc_002", "amount": "5.00"})
    mounted.drop("frozen.json", {"type": "freeze", "account": "empty"})
    mounted.drop("twice.json", pay("0.03"))
    with pytest.raises(OSError):  # noqa: PT011  (the receipt says why)
        mounted.drop("twice.json", pay("-1.00"))
    mounted.drop("last.json", pay("0.01"))
    time = mounted.balance("acc_001")["as_of"]["time"]
    old = mounted.path / "transactions/tx_0003.json"
    past = json.loads(old.read_bytes())["time"]
    names = [
        "size-9",
        "size-12",
        "block-2",
        "block-3",
        "tx-2",
        "tx-20",
        "named",
        time,
        past,
        past[:-1] + "+00:00",
        past[:19] + "Z",
    ]
    return [f"snapshots/{name}" for name in names]


def test_everything_is_the_same_without_the_front(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEMANTICS 1.3 to 1.8, 1.10, 2.2, 2.6, 12.1, 12.3: whoever answers."""
    mounted = with_accounts(daemons(store).start(), tmp_path / "work")
    others = history(mounted)
    before = answered(mounted)
    found = walk(mounted.path, others)
    assert answered(mounted) > before + 500
    assert mounted.daemon.stop() == 0
    monkeypatch.setenv("LEDGERFS_FRONT", "off")
    without = Mounted(mounted.path, mounted.work, daemons(store).start())
    without.path = without.daemon.path
    assert answered(without) == -1
    again = walk(without.path, others)
    assert [row[0] for row in found] == [row[0] for row in again]
    for row, other in zip(found, again, strict=True):
        assert row == other
    assert "Traceback" not in without.daemon.log.read_text()


def open_accounts(mounted: Mounted, count: int) -> list[Path]:
    """``balance.json`` of so many accounts that nobody has looked at."""
    opened = {"type": "open_account", "class": "suspense", "currency": "EUR", "limit": "none"}
    names = [f"new_{number}" for number in range(count)]
    (mounted / "inbox/new.ndjson").write_text(lines([{**opened, "account": name} for name in names]))
    return [mounted / "accounts" / name / "balance.json" for name in names]


def once(path: Path) -> bytes:
    """Open, read and close, and no other call."""
    descriptor = os.open(path, os.O_RDONLY)
    text = os.read(descriptor, 65_536)
    os.close(descriptor)
    return text


def drop(path: Path, document: bytes) -> None:
    """Create, write and close, and no other call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(descriptor, document)
    os.close(descriptor)


def test_requests_that_one_call_costs(ledger: Mounted) -> None:
    """The table of docs/PERFORMANCE.md, exactly. SEMANTICS 1.7"""
    one, two = open_accounts(ledger, 2)
    path = ledger / "inbox/one.json"
    document = json.dumps({"debit": "new_0", "credit": "new_1", "amount": "1.00"}).encode()
    os.stat(ledger / "accounts")
    steps: tuple[tuple[str, int, Callable[[], object]], ...] = (
        ("cold: LOOKUP, LOOKUP, OPEN, RELEASE", 4, lambda: once(one)),
        ("cached: OPEN, RELEASE", 2, lambda: once(one)),
        ("a lone file: LOOKUP, CREATE, WRITE, FLUSH, RELEASE", 5, lambda: drop(path, document)),
        ("changed: OPEN, GETATTR, RELEASE", 3, lambda: once(one)),
        ("cached again", 2, lambda: once(one)),
        ("stat, cached", 0, lambda: os.stat(one)),
        ("stat, cold: LOOKUP, LOOKUP", 2, lambda: os.stat(two)),
        ("stat again", 0, lambda: os.stat(two)),
    )
    for name, requests, call in steps:
        before = answered(ledger)
        call()
        assert answered(ledger) - before == requests, name


def test_the_first_look_at_the_moment_of_a_commit(ledger: Mounted) -> None:
    """Attributes that are on their way to the kernel while a commit is told of do not stay. SEMANTICS 1.2"""
    chance = random.Random(1)
    paths = open_accounts(ledger, FIRST_LOOKS)
    before, taken = threading.Barrier(2), [300e-6]  # seconds that the last commits took

    def look() -> None:
        for path in paths:
            before.wait(WAIT_SECONDS)
            end = time.perf_counter() + chance.uniform(0.3, 1.1) * sorted(taken[-9:])[len(taken[-9:]) // 2]
            while time.perf_counter() < end:
                time.sleep(0)
            os.stat(path) if chance.random() < 0.8 else once(path)

    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    for number, path in enumerate(paths):
        document = json.dumps({"debit": "acc_001", "credit": path.parent.name, "amount": "1.00"}).encode()
        before.wait(WAIT_SECONDS)
        began = time.perf_counter()
        drop(ledger / f"inbox/first-{number}.json", document)
        taken.append(time.perf_counter() - began)
        mtime = os.stat(path).st_mtime_ns
        balance = json.loads(once(path))
        booked = datetime.fromisoformat(balance["as_of"]["time"][:19] + "+00:00")
        assert balance["balance"] == "1.00"
        assert mtime == int(booked.timestamp()) * 10**9 + int(balance["as_of"]["time"][20:29])
    reader.join()
