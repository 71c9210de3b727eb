"""Processes to kill, and the tracer that makes their system calls fail."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

ANSWER_SECONDS = 60
TRACER_SECONDS = 1


@dataclass
class Story:
    """What a worker told before it ended."""

    events: list[dict[str, Any]] = field(default_factory=list)
    injected: int = 0  # how many system calls were tampered with
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)  # (thread, system call) → how often

    def get(self, name: str) -> Any:
        """What was told under this name, None if nothing was."""
        return next((event[name] for event in self.events if name in event), None)

    @property
    def done(self) -> bool:
        """Whether it came to its end."""
        return bool(self.get("done"))

    @property
    def sent(self) -> list[str]:
        """Ids of all intents that were sent."""
        return [name for event in self.events for name in event.get("sent", [])]

    @property
    def answers(self) -> dict[str, int]:
        """Result codes of those that were answered."""
        return {name: code for event in self.events for name, code in event.get("answers", [])}

    @property
    def acknowledged(self) -> list[str]:
        """Ids that were answered with success."""
        return [name for name, code in self.answers.items() if code == 0]

    @property
    def refused(self) -> list[str]:
        """Ids that were answered with a refusal."""
        return [name for name, code in self.answers.items() if code]

    @property
    def open(self) -> list[str]:
        """Ids whose outcome nobody was told."""
        answers = self.answers
        return [name for name in self.sent if name not in answers]


class Worker:
    """A forked worker: waits for ``go``, then tells its story until it ends."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._lines = channel.makefile("rb")
        self.story = Story()
        self.pid = int(json.loads(self._lines.readline())["pid"])

    def go(self) -> None:
        """Let it begin."""
        self.channel.send(b"g")

    def next(self) -> dict[str, Any] | None:
        """The next thing it tells; None when it has ended."""
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            return None
        if not line.endswith(b"\n"):
            return None
        event: dict[str, Any] = json.loads(line)
        self.story.events.append(event)
        return event

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> Story:
        """Hear the rest."""
        while self.next() is not None:
            pass
        self._lines.close()
        self.channel.close()
        return self.story


class Workers:
    """The process that forks workers."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.worker", str(theirs.fileno())],
                cwd=REPOSITORY,
                pass_fds=[theirs.fileno()],
            )

    def begin(self, scenario: str, store: Path, **order: Any) -> Worker:
        """A new worker, which waits for ``go``."""
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_SECONDS)
        with theirs:
            message = json.dumps({"scenario": scenario, "store": str(store), **order}).encode()
            socket.send_fds(self._socket, [message], [theirs.fileno()])
        return Worker(ours)

    def run(self, scenario: str, store: Path, **order: Any) -> Story:
        """Do a job undisturbed."""
        worker = self.begin(scenario, store, **order)
        worker.go()
        return worker.finish()

    def trace(self, scenario: str, store: Path, log: Path, calls: str, *, inject: str = "", **order: Any) -> Story:
        """Do a job under strace. ``inject``: what to do to which call, as strace's option of that name says it."""
        worker = self.begin(scenario, store, **order)
        with Tracer(worker.pid, log, calls, inject=inject):
            worker.go()
            story = worker.finish()
        story.injected, story.calls = read_trace(log)
        return story

    def close(self) -> None:
        """End it; its children have ended."""
        self._socket.close()
        self._process.wait(ANSWER_SECONDS)


class Tracer:
    """strace, attached to a process and all its threads, or to one thread alone; leaves when the process ends."""

    def __init__(self, pid: int, log: Path, calls: str, *, inject: str = "", alone: bool = False) -> None:
        whom = [*([] if alone else ["-f"]), "-y", "-p", str(pid)]
        command = ["strace", *whom, "-o", str(log), "-e", f"trace={calls}", "-e", "signal=none"]
        if inject:
            command += ["-e", f"inject={inject}"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert "attached" in line, f"strace cannot attach: {line}"

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process if it still runs, and wait for strace."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.communicate(timeout=TRACER_SECONDS)
        except subprocess.TimeoutExpired:  # it can miss the end of a process whose threads were killed
            self._process.kill()
            self._process.communicate()


CALL = re.compile(r"(\d+) +(?:<\.\.\. )?([a-z0-9_]+)(?:\(| resumed)")


def read_trace(log: Path) -> tuple[int, Counter[tuple[str, str]]]:
    """How many calls were tampered with, and how often each thread made each call."""
    calls: Counter[tuple[str, str]] = Counter()
    injected = 0
    for line in log.read_text(errors="replace").splitlines():
        injected += "(INJECTED)" in line
        found = CALL.match(line)
        if found and " resumed" not in found[0]:
            calls[found[1], found[2]] += 1
    return injected, calls


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place for stores that are opened thousands of times: in memory where that can be had.

    A killed process loses nothing that the kernel has taken from it, so for that it makes no difference where files are.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("room")
        return
    with tempfile.TemporaryDirectory(prefix="ledgerfs-crash-", dir=memory) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.close()
