"""The signer: a process of its own (``python -m ledgerfsd.service.signer``) that alone reads the private keys.

The daemon starts it with a socket as its standard input and speaks to it in lines of JSON (``Request``, ``Answer``). The
first line comes from the signer: what it signed last. It ends when the socket does.

It has a memory of its own, the file ``last-signed``, and it never signs two histories: no smaller size, no other root of
the same size, and a larger size only with a proof that the new tree begins with the old one. The memory is durable
before a signature is given out, so no crash makes it forget one.
"""

from __future__ import annotations

import argparse
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
from ledgerfsd.merkle import note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.proof import ProofError, verify_consistency
from ledgerfsd.service.keys import Keys
from ledgerfsd.service.last_signed import LastSigned

LINE_BYTES_MAX: Final = 1 << 20
PATIENCE_SECONDS: Final = 3.0


class Request(msgspec.Struct, frozen=True):
    """Sign the checkpoint of this size and root (hex); ``proof`` (hex) leads from what was signed last to it."""

    size: int
    root: str
    proof: list[str]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The signed note, or why there is none; and what was signed last (size 0: nothing yet)."""

    size: int
    root: str
    note: str = ""
    error: str = ""
    hint: str = ""
    created: str = ""  # in the first line: the id of the key that was made because there was none


class Memory:
    """What was signed last, and the rule that goes by it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._file = LastSigned(keys.last_signed_path, keys.origin)
        self.last = self._file.head or Checkpoint(keys.origin, 0, b"")

    def sign(self, size: int, root: bytes, proof: Sequence[bytes]) -> bytes:
        """The signed checkpoint. Raises ProofError: it would be a second history. StoreError: keys or memory fail."""
        last = self.last
        if size < max(1, last.size):
            raise ProofError(f"the checkpoint of size {last.size} is signed; {size} is smaller")
        if last.size:
            verify_consistency(last.size, size, last.root, root, proof if size > last.size else [])
        head = Checkpoint(self._keys.origin, size, root)
        # The keys come first: they may have gone, and nothing is to be remembered that was not signed.
        data = note.sign(head.body(), self._keys.signers())
        if head != last:
            self._file.write(head)
            self.last = head
        return data

    def answer(self, line: bytes) -> Answer:
        """The answer to one request."""
        try:
            request = msgspec.json.decode(line, type=Request)
            proof = [bytes.fromhex(hash_) for hash_ in request.proof]
            data = self.sign(request.size, bytes.fromhex(request.root), proof)
        except LedgerError as error:
            return self.state(error=str(error), hint=error.hint)
        except (msgspec.DecodeError, ValueError) as error:
            return self.state(error=f"not a request: {error}")
        return self.state(note=data.decode())

    def state(self, *, note: str = "", error: str = "", hint: str = "", created: str = "") -> Answer:
        """An answer with what was signed last."""
        return Answer(self.last.size, self.last.root.hex(), note, error, hint, created)


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


def serve(keys: Keys, stream: BinaryIO) -> None:
    """Answer until the stream ends."""
    try:
        created = keys.create_if_absent()
        _hold(keys.directory)
        keys.signers()
        memory = Memory(keys)
    except LedgerError as error:
        stream.write(msgspec.json.encode(Answer(0, "", error=str(error), hint=error.hint)) + b"\n")
        return
    stream.write(msgspec.json.encode(memory.state(created=created.key_id if created else "")) + b"\n")
    stream.flush()
    while line := stream.readline(LINE_BYTES_MAX):
        stream.write(msgspec.json.encode(memory.answer(line)) + b"\n")
        stream.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the signer on the socket that is its standard input."""
    parser = argparse.ArgumentParser(prog="ledgerfs-signer", description="Signs checkpoints for ledgerfsd.")
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--origin", required=True)
    options = parser.parse_args(arguments)
    # It ends with its daemon, when the socket closes: a signal to the whole group must not come before that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the key
    try:
        with socket.socket(fileno=0) as connection, connection.makefile("rwb") as stream:
            serve(Keys(options.keys, options.origin), stream)  # type: ignore[arg-type]
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
