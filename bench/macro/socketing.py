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
    lines = [deque(each.one() + b"\n" for _ in range(share)) for each in payments]
    client = _fork.Process(target=_client, args=(directory / "socket", lines, depth, there))
    client.start()
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


def _client(path: Path, lines: list[deque[bytes]], depth: int, control: Connection) -> None:
    poll, made = select.epoll(), {}
    for queue in lines:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        poll.register(connection, select.EPOLLIN)
        made[connection.fileno()] = (connection, queue, deque[float]())
    control.send(None)
    control.recv()
    waited, clock = list[float](), time.perf_counter
    for connection, queue, begun in made.values():
        _send(connection, queue, begun, depth)
    open_ones = len(made)
    while open_ones:
        for descriptor, _ in poll.poll():
            connection, queue, begun = made[descriptor]
            answers = connection.recv(RECEIVE_BYTES).count(b"\n")
            now = clock()
            waited += [now - begun.popleft() for _ in range(answers)]
            if queue:
                _send(connection, queue, begun, answers)
            elif not begun:
                poll.unregister(connection)
                open_ones -= 1
    control.send(waited)


def _send(connection: socket.socket, queue: deque[bytes], begun: deque[float], count: int) -> None:
    count = min(count, len(queue))
    now = time.perf_counter()
    begun.extend([now] * count)
    if count:
        connection.sendall(b"".join([queue.popleft() for _ in range(count)]))
