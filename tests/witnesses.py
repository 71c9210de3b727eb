"""Witness processes of our own (``ledgerfs witness serve``), and a log of entries to show to them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ledgerfsd.core.hashing import leaf_hashes, mth
from ledgerfsd.merkle import cosignature, note, proof
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.cosignature import Witness
from ledgerfsd.merkle.tlog_proof import encode_hashes
from ledgerfsd.witness.memory import Memory
from tests.conftest import REPOSITORY

SECONDS = 60


@dataclass
class Answer:
    """An answer of the witness."""

    status: int
    kind: str
    body: bytes


class WitnessProcess:
    """One that serves a directory on a free port."""

    def __init__(self, directory: Path, *trusted: str, name: str = "witness.example/w1") -> None:
        self.directory = directory
        self.memory = Memory.create(directory, name)
        self.witness: Witness = self.memory.key().witness()
        for vkey in trusted:
            self.memory.trust(note.parse_verifier(vkey))
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything it said."""
        return self.directory.with_name(self.directory.name + ".log").read_text()

    def start(self, *before: str) -> WitnessProcess:
        """``before``: words before the command, such as strace's."""
        command = [
            *before,
            sys.executable,
            "-m",
            "ledgerfsd.cli.main",
            "witness",
            "serve",
            "--dir",
            str(self.directory),
        ]
        command += ["--listen", "127.0.0.1:0", "--log-format", "json"]
        path = self.directory.with_name(self.directory.name + ".log")
        path.write_bytes(b"")
        with path.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + SECONDS
        while not (lines := [line for line in self.log.splitlines() if '"serving"' in line]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the witness does not serve:\n{self.log}")
            time.sleep(0.02)
        self.url = json.loads(lines[0])["url"]
        return self

    def stop(self) -> int:
        """End it cleanly."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(SECONDS)

    def wait(self) -> int:
        """Until it has ended by itself."""
        assert self._process is not None
        return self._process.wait(SECONDS)

    def kill(self) -> None:
        """End it somehow, and what runs under strace with it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(SECONDS)

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """One request on a connection of its own. Raises OSError or HTTPException when there is no answer."""
        target = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=SECONDS)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheader("Content-Type", ""), answer.read())
        finally:
            connection.close()

    def add(self, old: int, hashes: Sequence[bytes], checkpoint: bytes) -> Answer:
        """Submit a checkpoint."""
        return self.ask("POST", "/add-checkpoint", f"old {old}\n".encode() + encode_hashes(hashes) + b"\n" + checkpoint)

    def cosigned(self, answer: Answer, checkpoint: bytes) -> int:
        """The time of the cosignature in an answer; it must hold."""
        assert answer.status == 200, answer
        _, (found,) = cosignature.verify(checkpoint + answer.body, [self.witness])
        return found.time


class History:
    """The log of one signer; ``salt`` makes another history."""

    def __init__(self, signer: note.Signer, salt: str = "", common: int = 0) -> None:
        self.signer = signer
        self._leaves = leaf_hashes([b"entry %d" % n + salt.encode() * (n >= common) for n in range(64)])

    def checkpoint(self, size: int) -> bytes:
        root = mth(self._leaves[: 32 * size])
        return note.sign(Checkpoint(self.signer.name, size, root).body(), [self.signer])

    def prove(self, old: int, new: int) -> list[bytes]:
        return proof.consistency(self._read, old, new)

    def _read(self, level: int, first: int, count: int) -> bytes:
        assert level == 0
        return self._leaves[32 * first : 32 * (first + count)]
