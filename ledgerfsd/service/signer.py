"""The signer: a process of its own (``python -m ledgerfsd.service.signer``) that alone reads the private keys.

The daemon starts it with a socket as its standard input and speaks to it in lines of JSON (``signer_lines``). The
first line comes from the signer: what it signed last. It ends when the socket does.

It never signs two histories: see ``memory.py``. The memory is durable before a signature is given out, so no crash makes it
forget one. ``signer_socket.py`` runs the same signer as a service of a user of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from ledgerfsd.errors import LedgerError, StoreError
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.keys import Key
from ledgerfsd.service.memory import Memory
from ledgerfsd.service.signer_lines import LINE_BYTES_MAX, Answer, Request

PATIENCE_SECONDS: Final = 3.0
_PR_SET_DUMPABLE: Final = 4  # prctl(2)
_PR_SET_NO_NEW_PRIVS: Final = 38


class Signer:
    """Answers requests by its memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def answer(self, line: bytes) -> Answer:
        """The answer to one request."""
        try:
            request = msgspec.json.decode(line, type=Request)
            proof, earlier = ([bytes.fromhex(hash_) for hash_ in hashes] for hashes in (request.proof, request.earlier))
            root = bytes.fromhex(request.root)
            data = self.memory.sign(request.size, root, proof, request.seal, earlier=earlier, restored=request.restored)
        except LedgerError as error:
            return self.state(error=str(error), hint=error.hint)
        except (msgspec.DecodeError, ValueError) as error:
            return self.state(error=f"not a request: {error}")
        return self.state(note=data.decode())

    def state(self, *, note: str = "", error: str = "", hint: str = "", created: str = "") -> Answer:
        """An answer with what was signed last."""
        last, earlier = self.memory.last, self.memory.earlier
        size, root = (earlier.size, earlier.root.hex()) if earlier else (0, "")
        return Answer(last.size, last.root.hex(), note, error, hint, created, size, root)


def _hold(directory: Path) -> int:
    """Two signers with one memory would not be one. Raises StoreError.

    The directory itself is what is locked: on a full disk no file could be made for it, and what is there can be read.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # That of a daemon that was just killed ends as soon as it notices.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise StoreError(f"another signer uses {directory}", hint="unmount the other ledger first")
            time.sleep(0.02)
    except OSError as error:
        raise StoreError(f"{error.filename or directory}: {error.strerror}") from None
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_signer(keys: Keyring, apart: Path | None = None) -> tuple[Signer, Key | None]:
    """A signer that holds the keys, and the key that was made because there was none. Raises StoreError."""
    created = keys.create_if_absent()
    _hold(keys.directory)
    keys.signers()
    return Signer(Memory(keys, apart)), created


def talk(signer: Signer, stream: BinaryIO, *, created: Key | None = None) -> None:
    """Greet, and answer until the stream ends."""
    stream.write(msgspec.json.encode(signer.state(created=created.key_id if created else "")) + b"\n")
    stream.flush()
    while line := stream.readline(LINE_BYTES_MAX):
        stream.write(msgspec.json.encode(signer.answer(line)) + b"\n")
        stream.flush()


def serve(keys: Keyring, stream: BinaryIO, apart: Path | None = None) -> None:
    """Answer one daemon until it ends; what is wrong at the start is said in the first line."""
    try:
        signer, created = open_signer(keys, apart)
    except LedgerError as error:
        stream.write(msgspec.json.encode(Answer(0, "", error=str(error), hint=error.hint)) + b"\n")
        return
    talk(signer, stream, created=created)


def protect() -> None:
    """Nobody of the same user looks into this process: no core file, no debugger, no /proc/<pid>/mem; and it gains no rights.

    Whoever may read the key files needs none of that: see docs/SECURITY.md.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            raise StoreError(f"the signer cannot protect itself: {os.strerror(ctypes.get_errno())}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the signer on the socket that is its standard input."""
    parser = argparse.ArgumentParser(prog="ledgerfs-signer", description="Signs checkpoints for ledgerfsd.")
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--origin", required=True)
    parser.add_argument("--last-signed", type=Path)
    options = parser.parse_args(arguments)
    # It ends with its daemon, when the socket closes: a signal to the whole group must not come before that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    protect()
    try:
        with socket.socket(fileno=0) as connection, connection.makefile("rwb") as stream:
            serve(Keyring(options.keys, options.origin), stream, options.last_signed)  # type: ignore[arg-type]
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
