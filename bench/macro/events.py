"""Events: how soon a reader has a commit, how fast the log is read, and what readers cost those who write.

All readers of a run are one process that waits with epoll, as the connections of ``socketing`` do. Latency is taken from the moment
before the program writes its intent, so that it compares with what ``close()`` takes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from bench import workload
from bench.daemon import Mounted, copy
from bench.measure import Report, Section, timed

ACCOUNTS: Final = 10_000
READERS: Final = 100
READ_BYTES: Final = 1 << 20

_CONSUMER_FILES: Final = (("events.ndjson", os.O_RDONLY), ("position", os.O_WRONLY))

_fork = multiprocessing.get_context("fork")


def run(report: Report, directory: Path, *, seed: int, transactions: int, files: int) -> None:
    """``files`` intents of their own for latency; ``transactions`` for what is read and for the rate beside readers."""
    for turn in range(report.repeats):
        with Mounted(directory / "ledger", ACCOUNTS) as ledger:
            payments = workload.Payments(seed + turn, ACCOUNTS)
            for readers in (1, 10, READERS):
                _latency(report, ledger, payments, readers, files)
            for readers in (0, 1, READERS):
                _rate(report, ledger, payments, readers, transactions)
            _throughput(report, ledger, transactions)
            _consumers(report, ledger, payments, transactions // 10)


# -- readers: one process


class Readers:
    """A process that follows ``live.ndjson`` with so many descriptors until each has the last event that is announced."""

    def __init__(self, ledger: Mounted, readers: int, name: str = "live") -> None:
        self._here, there = _fork.Pipe()
        path = ledger.mount / "events" / f"{name}.ndjson"
        self._process = _fork.Process(target=_follow, args=(path, readers, there))
        self._process.start()
        self._here.recv()

    def finish(self, last: int) -> dict[int, list[float]]:
        """Index of an event → when each reader had it; waits until all have event ``last``."""
        self._here.send(last)
        found: dict[int, list[float]] = self._here.recv()
        self._process.join()
        return found


def _follow(path: Path, readers: int, control: Connection) -> None:
    poll, seen, rests = select.epoll(), dict[int, list[float]](), dict[int, bytes]()
    for _ in range(readers):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        poll.register(descriptor, select.EPOLLIN)
        rests[descriptor] = b""
    poll.register(control.fileno(), select.EPOLLIN)
    control.send(None)
    last, open_ones, newest = -1, readers, dict.fromkeys(rests, -1)
    while open_ones or last < 0:
        for descriptor, _ in poll.poll():
            if descriptor == control.fileno():
                last = control.recv()
                poll.unregister(control.fileno())
                open_ones = sum(index < last for index in newest.values())
                continue
            newest_now = _take(descriptor, rests, seen)
            if newest[descriptor] < last <= newest_now:
                open_ones -= 1
            newest[descriptor] = max(newest[descriptor], newest_now)
    control.send(seen)


def _take(descriptor: int, rests: dict[int, bytes], seen: dict[int, list[float]]) -> int:
    """Read what is there and note its transactions; the newest event in it."""
    try:
        piece = os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return -1
    now, newest = time.perf_counter(), -1
    *lines, rests[descriptor] = (rests[descriptor] + piece).split(b"\n")
    for line in lines:
        newest = _index(line)
        if b'"ledgerfs.txn.v1"' in line[:400]:
            seen.setdefault(newest, []).append(now)
    return newest


def _index(line: bytes) -> int:
    return int(line[27 : line.index(b'"', 27)])  # behind {"specversion":"1.0","id":"


# -- what is measured


def _latency(report: Report, ledger: Mounted, payments: workload.Payments, readers: int, files: int) -> None:
    following = Readers(ledger, readers)
    began, closed = list[float](), list[float]()
    with timed() as section:
        for number in range(files):
            path = ledger.mount / "inbox" / f"latency-{readers}-{time.monotonic_ns()}-{number}.json"
            text = payments.one()
            began.append(time.perf_counter())
            path.write_bytes(text)
            closed.append(time.perf_counter())
    seen = following.finish(_count(ledger) - 1)
    name = f"events, {readers} reader{'s' if readers > 1 else ''} waiting"
    taken = list[float]()
    for begin, index in zip(began, sorted(seen), strict=True):
        arrived = seen[index]
        if len(arrived) != readers:
            raise RuntimeError(f"{name}: an event came {len(arrived)} times")
        taken += [each - begin for each in arrived]
    report.spent(name, section)
    report.latencies(f"{name}, write to read", taken)
    report.latencies(
        f"{name}, write to close() returned", [end - begin for begin, end in zip(began, closed, strict=True)]
    )


def _rate(report: Report, ledger: Mounted, payments: workload.Payments, readers: int, transactions: int) -> None:
    """NDJSON through the mount while so many readers are open: one follows, the others never read."""
    pieces = [payments.lines(workload.FILE_INTENTS) for _ in range(transactions // workload.FILE_INTENTS)]
    first = _count(ledger)
    stream = ledger.mount / "events" / f"from/{first}.ndjson"
    following = Readers(ledger, 1) if readers else None
    idle = [os.open(stream, os.O_RDONLY) for _ in range(readers - 1)]
    name = f"events, NDJSON beside {readers} readers"
    with timed() as section:
        copy(pieces, ledger.mount / "inbox" / f"rate-{readers}.ndjson")
    report.spent(name, section)
    report.add(f"{name}, rate", "tx/s", transactions / section.seconds)
    if following is not None and len(following.finish(_count(ledger) - 1)) != transactions:
        raise RuntimeError(f"{name}: not every event came")
    for descriptor in idle:
        os.close(descriptor)


def _throughput(report: Report, ledger: Mounted, transactions: int) -> None:
    end = _count(ledger)
    first = max(0, end - transactions)
    for readers in (1, READERS):
        begin = max(first, end - transactions // readers)
        started = _run(ledger, begin, end, readers)
        with timed() as section:
            started()
        name = f"events, {readers} reader{'s' if readers > 1 else ''} catching up"
        report.spent(name, section)
        report.add(f"{name}, all together", "events/s", readers * (end - begin) / section.seconds)
    path = max((ledger.mount / "events").glob("????-??-??.ndjson"))
    with timed() as section:
        size = _read_file(path)
    report.spent("events, day file", section)
    _add_speed(report, "events, day file read", size, section)


def _run(ledger: Mounted, begin: int, end: int, readers: int) -> Callable[[], None]:
    """Processes of 25 threads at most, ready to read; what is given starts them and waits."""
    path, groups = ledger.mount / "events" / f"from/{begin}.ndjson", max(1, readers // 25)
    controls, running = [], []
    for _ in range(groups):
        here, there = _fork.Pipe()
        process = _fork.Process(target=_catch_up, args=(path, end, readers // groups, there))
        process.start()
        here.recv()
        controls.append(here)
        running.append(process)

    def go() -> None:
        for control in controls:
            control.send(None)
        for control in controls:
            if control.recv() is not True:
                raise RuntimeError("not every event came")
        for process in running:
            process.join()

    return go


def _catch_up(path: Path, end: int, readers: int, control: Connection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def read(_: int) -> bool:
        descriptor, newest = os.open(path, os.O_RDONLY), -1
        while newest < end - 1:
            piece = os.read(descriptor, READ_BYTES)
            newest = _index(piece[piece.rfind(b"\n", 0, -1) + 1 :])
        os.close(descriptor)
        return True

    control.send(None)
    control.recv()
    with ThreadPoolExecutor(readers) as pool:
        control.send(all(pool.map(read, range(readers))))


def _consumers(report: Report, ledger: Mounted, payments: workload.Payments, transactions: int) -> None:
    """READERS consumers that acknowledge what each READ gave them, while NDJSON is written at full speed."""
    begin, folder = _count(ledger), ledger.mount / "events" / "consumers"
    for number in range(READERS):
        place = folder / f"c{begin}-{number}"
        place.mkdir()
        (place / "position").write_text(f"{begin}\n")
    pieces, running = [payments.lines(workload.FILE_INTENTS) for _ in range(transactions // workload.FILE_INTENTS)], []
    for first in range(0, READERS, 10):
        names = [f"c{begin}-{number}" for number in range(first, first + 10)]
        running.append(_fork.Process(target=_acknowledge, args=(folder, names, begin + transactions)))
        running[-1].start()
    name, before = f"events, {READERS} consumers that acknowledge", ledger.processor_seconds()
    with timed() as section:
        began = time.perf_counter()
        copy(pieces, ledger.mount / "inbox" / f"consumers-{begin}.ndjson")
        committed = time.perf_counter() - began
        for process in running:
            process.join()
    report.spent(name, section)
    report.add(f"{name}, commits meanwhile", "tx/s", transactions / committed)
    report.add(f"{name}, all together", "events/s", READERS * transactions / section.seconds)
    used = ledger.processor_seconds() - before
    report.add(f"{name}, processor time of the daemon an event", "us", used / (READERS * transactions) * 1e6)


def _acknowledge(folder: Path, names: list[str], end: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def follow(name: str) -> None:
        position = int((folder / name / "position").read_bytes())
        stream, done = (os.open(folder / name / each, flags) for each, flags in _CONSUMER_FILES)
        while position < end:
            piece = os.read(stream, READ_BYTES)
            position = _index(piece[piece.rfind(b"\n", 0, -1) + 1 :]) + 1
            os.write(done, b"%d\n" % position)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(follow, names))


def _read_file(path: Path) -> int:
    size = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            size += len(piece)
    return size


def _add_speed(report: Report, name: str, size: int, section: Section) -> None:
    report.add(name, "MB/s", size / section.seconds / 1e6)


def _count(ledger: Mounted) -> int:
    status: dict[str, Any] = json.loads((ledger.mount / ".ledgerfs" / "status.json").read_bytes())
    return int(status["entries"])
