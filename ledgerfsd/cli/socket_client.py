"""``submit --socket``: the same file over the daemon's socket. Lines out and answers in, at the same time.

Answers have no explanations; those of the table of codes are put beside them.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ledgerfsd.cli.output import Progress
from ledgerfsd.errors import BY_NAME, LedgerError

RECEIVE_BYTES: Final = 1 << 18


def exchange(path: Path, chunks: Iterator[bytes], total: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """Send everything and give the answers as they come. Raises LedgerError when nobody listens or the daemon goes away."""
    with socket.socket(socket.AF_UNIX) as connection, selectors.DefaultSelector() as selector:
        try:
            connection.connect(str(path))
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            yield from _answers(connection, selector, chunks, total, progress)
        except OSError as error:
            hint = "what was answered is done; submit the same file again: nothing is paid twice"
            raise LedgerError(f"{path}: {error.strerror}", hint=hint) from None


def _answers(
    connection: socket.socket, selector: selectors.BaseSelector, chunks: Iterator[bytes], total: int, progress: Progress
) -> Iterator[dict[str, Any]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    unsent, rest, done = memoryview(next(chunks)), b"", 0
    while True:
        for _, ready in selector.select():
            if ready & selectors.EVENT_READ:
                received = connection.recv(RECEIVE_BYTES)
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    yield _explained(decode(line))
                if not received:
                    return
            if ready & selectors.EVENT_WRITE:
                sent = connection.send(unsent)
                done += sent
                progress(done, total)
                unsent = unsent[sent:] or memoryview(next(chunks, b""))
                if not unsent:
                    connection.shutdown(socket.SHUT_WR)
                    selector.modify(connection, selectors.EVENT_READ)


def _explained(answer: dict[str, Any]) -> dict[str, Any]:
    if answer["status"] == "refused":
        code = BY_NAME[answer["code"]]
        answer |= {"meaning": code.meaning, "what_to_do": code.what_to_do}
    return answer
