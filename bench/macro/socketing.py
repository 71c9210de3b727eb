"""Intents over the socket: one by one on many connections, and many under way on each.

All connections of a run are one process that waits with epoll: a process for each would measure the scheduler. Each connection
has so many lines under way and sends the next when an answer comes.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import time
from collections import deque
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from bench import workload
from bench.daemon import Mounted
from bench.measure import Report, timed

ACCOUNTS: Final = 10_000
CLIENTS: Final = (1, 8, 32)
DEEP: Final = (4, 2_000)  # connections, lines under way on each
RECEIVE_BYTES: Final = 1 << 16

_fork = multiprocessing.get_context("fork")


def named(connections: int) -> str:
    """What the figures of one by one on so many connections begin with."""
    return f"socket, one by one, {connections} connection{'s' if connections > 1 else ''}"


def run(report: Report, directory: Path, *, seed: int, intents: int) -> None:
    """``intents`` on each number of connections, ``report.repeats`` times; ten times as many where many are under way."""
    for turn in range(report.repeats):
        with Mounted(directory / "ledger", ACCOUNTS, "--socket", str(directory / "socket")) as ledger:
            for connections in CLIENTS:
                _measure(report, ledger, directory, named(connections), seed + turn, intents, connections, 1)
            connections, depth = DEEP
            name = f"socket, {connections} connections, {depth:,} lines under way on each"
            _measure(report, ledger, directory, name, seed + turn, 10 * intents, connections, depth)


def _measure(
    report: Report,
    ledger: Mounted,
    directory: Path,
    name: str,
    seed: int,
    intents: int,
    connections: int,
    depth: int,
) -> None:
    share, before = intents // connections, ledger.transactions()
    here, there = _fork.Pipe()
    payments = [
        workload.Payments(seed * 1000 + n, ACCOUNTS, prefix=f"s{connections}-{depth}-{n}") for n in range(connections)
    ]
    feeds = [_Feed([each.one() + b"\n" for _ in range(share)]) for each in payments]
    client = _fork.Process(target=_client, args=(directory / "socket", feeds, depth, there), daemon=True)
    client.start()
    there.close()  # so that its end is noticed
    here.recv()
    with timed() as section:
        here.send(None)
        waited = here.recv()
    client.join()
    if ledger.transactions() != before + share * connections:
        raise RuntimeError(f"{name}: not every intent is a transaction")
    report.spent(name, section)
    report.add(f"{name}, rate", "/s", share * connections / section.seconds)
    report.latencies(name, waited)


class _Feed:
    """What one connection sends, and when: kept so that a line costs the client next to nothing, for it shares the processors."""

    def __init__(self, lines: list[bytes]) -> None:
        self.total = len(lines)
        self.sent = self.answered = 0
        self._ends = list(accumulate(map(len, lines), initial=0))
        self._bytes = b"".join(lines)
        self._begun = deque[tuple[float, int]]()  # when so many lines were sent together, the oldest first

    def send(self, connection: socket.socket, count: int) -> None:
        """The next so many lines, or what is left of them."""
        count = min(count, self.total - self.sent)
        if not count:
            return
        self._begun.append((time.perf_counter(), count))
        first, self.sent = self.sent, self.sent + count
        connection.sendall(memoryview(self._bytes)[self._ends[first] : self._ends[self.sent]])

    def receive(self, answers: int) -> list[float]:
        """How long each of these answers was waited for."""
        now, waited = time.perf_counter(), list[float]()
        self.answered += answers
        while answers:
            began, count = self._begun.popleft()
            taken = min(count, answers)
            if taken < count:
                self._begun.appendleft((began, count - taken))
            waited += [now - began] * taken
            answers -= taken
        return waited


def _client(path: Path, feeds: list[_Feed], depth: int, control: Connection) -> None:
    poll, made = select.epoll(), {}
    for feed in feeds:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        poll.register(connection, select.EPOLLIN)
        made[connection.fileno()] = (connection, feed)
    control.send(None)
    control.recv()
    waited = list[float]()
    for connection, feed in made.values():
        feed.send(connection, depth)
    open_ones = len(made)
    while open_ones:
        for descriptor, _ in poll.poll():
            connection, feed = made[descriptor]
            data = connection.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the daemon closed a connection")
            answers = data.count(b"\n")
            waited += feed.receive(answers)
            feed.send(connection, answers)
            if feed.answered == feed.total:
                poll.unregister(connection)
                open_ones -= 1
    control.send(waited)
