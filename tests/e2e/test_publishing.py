"""``ledgerfs publish nats``: a real server, and everybody killed at random."""

from __future__ import annotations

import asyncio
import json
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.conftest import REPOSITORY, Daemon
from tests.fuse.anchor_servers import free_port
from tests.fuse.conftest import Mounted, lines, pay, until, with_accounts

SERVER = Path(sys.executable).with_name("nats-server")
TIMEOUT = 60


class Server:
    """A NATS server with JetStream, its files in a directory of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [SERVER, "-js", "-sd", self.place, "-a", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def unread(self) -> int:
        """Bytes that clients sent and the server, which is stopped, has not read."""
        fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(each[4].split(":")[1], 16) for each in fields if each[1].endswith(f":{self.port:04X}"))

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(TIMEOUT)

    def messages(self, stream: str = "LEDGER") -> list[Any]:
        """All that the stream has, by sequence number."""

        async def read() -> list[Any]:
            connection = await nats.connect(self.url)
            jetstream = connection.jetstream(timeout=TIMEOUT)
            last = (await jetstream.stream_info(stream)).state.last_seq
            found = [await jetstream.get_msg(stream, sequence) for sequence in range(1, last + 1)]
            await connection.close()
            return found

        return asyncio.run(read())

    def last(self, stream: str) -> int:
        """Sequence number of its last message; 0 while it is not there."""

        async def read() -> int:
            connection = await nats.connect(self.url)
            try:
                return int((await connection.jetstream(timeout=TIMEOUT).stream_info(stream)).state.last_seq)
            except nats.errors.Error:
                return 0
            finally:
                await connection.close()

        return asyncio.run(read())

    def put(self, subject: str, text: bytes) -> None:
        """A message of somebody else."""

        async def publish() -> None:
            connection = await nats.connect(self.url)
            await connection.jetstream(timeout=TIMEOUT).publish(subject, text)
            await connection.close()

        asyncio.run(publish())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def ledger(mounted: Daemon, tmp_path: Path) -> Mounted:
    return with_accounts(mounted, tmp_path / "work")


def publisher(ledger: Mounted, server: Server, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "ledgerfsd.cli.main",
        "publish",
        "nats",
        "--mount",
        ledger.path,
        "--url",
        server.url,
    ]
    return subprocess.Popen(
        [*command, *more], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def publish(ledger: Mounted, server: Server, *more: str, code: int = 0) -> str:
    process = publisher(ledger, server, "--once", *more)
    out, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "never retrieved" not in said
    return out if code == 0 else said


def events(ledger: Mounted) -> list[bytes]:
    return b"".join(path.read_bytes() for path in sorted((ledger / "events").glob("*.ndjson"))).splitlines()


def test_every_event_once_and_in_order(ledger: Mounted, server: Server) -> None:
    ledger.drop("some.ndjson", lines([pay()] * 50))
    ledger.seal()
    expected = events(ledger)
    assert f"published {len(expected)} events" in publish(ledger, server)
    assert "published 0 events" in publish(ledger, server)
    ledger.drop("more.json", pay())
    assert json.loads(publish(ledger, server, "--json")) == {
        "stream": "LEDGER",
        "published": 2,
        "next": len(expected) + 2,
    }
    found = server.messages()
    assert [message.data for message in found] == events(ledger)
    for index, message in enumerate(found):
        event = json.loads(message.data)
        assert message.headers["Ledgerfs-Index"] == str(index) == event["id"]
        assert message.headers["Ledgerfs-Leaf"] == event["leafhash"]
        assert message.subject == "ledger." + event["data"]["t"].partition("/")[0].replace(".", "_")


def test_what_is_no_stream_of_this_ledger_is_refused(ledger: Mounted, server: Server) -> None:
    publish(ledger, server, "--from", "3")
    assert json.loads(server.messages()[0].data)["id"] == "3"
    server.put("ledger.txn", b"not an event")
    assert "no events of ledger.example/test" in publish(ledger, server, code=1)
    assert "no name of a stream" in publish(ledger, server, "--stream", "a b", code=1)
    assert "no subject" in publish(ledger, server, "--subject", "a..b", code=1)


def test_a_log_that_was_rolled_back_is_refused(ledger: Mounted, server: Server, store: Path, tmp_path: Path) -> None:
    publish(ledger, server)
    process = ledger.daemon
    process.stop()
    subprocess.run(["cp", "-a", store, tmp_path / "copy"], check=True)
    process.start()
    ledger.drop("newer.json", pay())
    publish(ledger, server)
    process.stop()
    subprocess.run(["rm", "-rf", store], check=True)
    (tmp_path / "copy").rename(store)
    process.start()
    assert "is not in the log that is mounted" in publish(ledger, server, code=1)


def test_a_server_that_is_not_there(ledger: Mounted, server: Server) -> None:
    server.kill()
    assert "does not take events" in publish(ledger, server, code=1)
    server.start()


@pytest.mark.parametrize("more", [False, True], ids=["nothing left to send", "more to send"])
def test_a_server_that_goes_down_right_behind_its_answers(ledger: Mounted, server: Server, more: bool) -> None:
    """The publisher learns that the connection is lost while it takes answers, which swallows that it is told to stop.

    Stopped in turn, so that answers to a hundred messages lie in its socket, and the end of the connection behind them.
    It then meets the lost connection itself when it sends more: no traceback of that. Without more it must not sleep on.
    """
    process = publisher(ledger, server)
    guard = threading.Timer(TIMEOUT, process.kill)  # the end of what it says, instead of waiting for ever
    guard.start()
    try:
        assert "goes on with event 0" in wait_connected(process)
        until(lambda: server.last("LEDGER") == len(events(ledger)))
        before = len(events(ledger))
        server.signal(signal.SIGSTOP)
        ledger.drop("many.ndjson", lines([pay("0.01")] * 100))
        sent = events(ledger)[before:]
        until(lambda: server.unread() > sum(map(len, sent)))  # all of it, for it goes in one piece
        process.send_signal(signal.SIGSTOP)
        server.signal(signal.SIGCONT)
        until(lambda: server.last("LEDGER") == before + len(sent))
        if more:
            ledger.drop("more.json", pay())
        server.kill()
        process.send_signal(signal.SIGCONT)
        assert process.stderr is not None
        assert "the connection was lost; trying again" in process.stderr.readline()
        server.start()
        assert f"goes on with event {before + len(sent)}" in wait_connected(process)
        until(lambda: server.last("LEDGER") == len(events(ledger)))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=TIMEOUT)
    finally:
        guard.cancel()
        process.kill()
    assert "Traceback" not in said
    assert "never retrieved" not in said


def wait_connected(process: subprocess.Popen[str]) -> str:
    """What it says when it has found the stream; what it said before is that there is no server yet."""
    assert process.stderr is not None
    while not (said := process.stderr.readline()).startswith("LEDGER at"):
        assert said.endswith("trying again\n"), said
    return said


def wait_begun(process: subprocess.Popen[str]) -> None:
    """Until it has found mount and server, and says so. Ctrl-C before, while Python starts, is another matter."""
    assert process.stderr is not None
    assert select.select([process.stderr], [], [], TIMEOUT)[0]


def run_and_kill(ledger: Mounted, server: Server, *, files: int, pause: float, two: bool) -> None:
    """Publishers, server and daemon, each killed at random while commits run."""
    chance = random.Random(5)

    def load() -> None:
        for at in range(files):
            while True:  # the daemon is killed too; the same file again is booked once
                try:
                    ledger.drop(f"load-{at}.ndjson", lines([pay("0.01")] * 100))
                except OSError:
                    time.sleep(0.05)
                else:
                    break
            time.sleep(pause)

    writer = threading.Thread(target=load)
    writer.start()
    running = [publisher(ledger, server) for _ in range(2 if two else 1)]
    while writer.is_alive():
        time.sleep(0.5 + chance.random() * 0.5)
        which = chance.randrange(4)
        if which == 0:
            server.kill()
            server.start()
        elif which == 1 and two:
            for process in running:
                wait_begun(process)  # else it would find no mount, and end
            ledger.daemon.kill()
            ledger.daemon.start()
        else:
            at = chance.randrange(len(running))
            running[at].kill()
            _, said = running[at].communicate(timeout=TIMEOUT)
            assert "Traceback" not in said
            running[at] = publisher(ledger, server)
    writer.join()
    until(lambda: server.last("LEDGER") > 100)  # they get somewhere, in spite of it all
    for process in running:
        wait_begun(process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode in (130, -signal.SIGINT)
    ledger.seal()
    publish(ledger, server)
    assert [message.data for message in server.messages()] == events(ledger)


def test_publisher_and_server_are_killed(ledger: Mounted, server: Server) -> None:
    run_and_kill(ledger, server, files=40, pause=0.1, two=False)


@pytest.mark.slow
def test_two_publishers_and_everybody_is_killed(ledger: Mounted, server: Server) -> None:
    """Two at once do not interleave: the server refuses what is out of turn."""
    run_and_kill(ledger, server, files=40, pause=0.25, two=True)
