"""Writers and readers of one mount, each a process, for ``test_coherence``.

Run as ``python -m tests.model.coherent ROLE MOUNT BOARD WRITER SLOT``. Writer w pays one cent after the other to account
``w<w>`` and says on the board how many have been acknowledged, as soon as it knows. So whoever has read the board and then
reads the account must find at least as many cents. At its end every process prints what was wrong, as a JSON list.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.model.board import Board

STOP = 0  # slot: not 0 when all are to end
ACKNOWLEDGED = 1  # slot of writer 0; then those of the others
WRITERS = 2
COUNTS = 16  # slot of the first reader: how many reads it has done
WRONG_MAX = 5
LIST_EVERY = 20


def cents(amount: str) -> int:
    return int(amount.replace(".", ""))


class Writer:
    """Pays, and looks at once."""

    def __init__(self, mount: Path, board: Board, number: int) -> None:
        self.mount = mount
        self.board = board
        self.number = number
        self.directory = mount / f"accounts/w{number}"
        self.log = os.open(self.directory / "tx.log", os.O_RDONLY)
        self.size = os.fstat(self.log).st_size

    def intent(self) -> str:
        return json.dumps({"debit": "float", "credit": f"w{self.number}", "amount": "0.01"})

    def documents(self) -> Iterator[None]:
        """A file for each payment."""
        for number in range(1, sys.maxsize):
            fd = os.open(self.mount / f"inbox/w{self.number}-{number}.json", os.O_WRONLY | os.O_CREAT)
            os.write(fd, self.intent().encode())
            os.close(fd)
            yield

    def lines(self) -> Iterator[None]:
        """One file, a write for each payment."""
        fd = os.open(self.mount / f"inbox/w{self.number}.ndjson", os.O_WRONLY | os.O_CREAT)
        while True:
            os.write(fd, self.intent().encode() + b"\n")
            yield

    def run(self, payments: Iterator[None]) -> Iterator[str]:
        """Pay until told to stop."""
        slot = ACKNOWLEDGED + self.number
        for _ in payments:
            self.board[slot] += 1
            yield from self._look(self.board[slot])
            if self.board[STOP]:
                return

    def _look(self, paid: int) -> Iterator[str]:
        size = os.stat(self.directory / "tx.log").st_size
        line = os.pread(self.log, size - self.size, self.size)
        if size <= self.size or len(line) != size - self.size or line.count(b"\n") != 1 or not line.endswith(b"\n"):
            yield f"tx.log has {size} bytes, {self.size} before, and between them stands {line!r}"
            return
        self.size = size
        entry = json.loads(line)
        if cents(entry["postings"][1]["credits"]) != paid:
            yield f"after {paid} payments tx.log ends with {entry}"
        name = f"tx_{entry['tx']:04}.json"
        if (self.mount / "transactions" / name).read_bytes() + b"\n" != line:
            yield f"{name} differs from tx.log"
        if paid % LIST_EVERY == 0 and name not in os.listdir(self.mount / "transactions"):
            yield f"{name} is not listed"


class Reader:
    """Reads what a writer's account has, in one way. A look gives the cents."""

    def __init__(self, mount: Path, number: int) -> None:
        self.path = mount / f"accounts/w{number}/balance.json"
        self.log = mount / f"accounts/w{number}/tx.log"
        self.fd = os.open(self.path, os.O_RDONLY)
        self.log_fd = os.open(self.log, os.O_RDONLY)
        self.map = mmap.mmap(self.fd, 0, prot=mmap.PROT_READ)

    @staticmethod
    def _credits(text: bytes) -> int:
        balance: dict[str, Any] = json.loads(text)
        # Two numbers of the file that come of the same state.
        assert balance["balance"] == balance["credits"], balance
        return cents(balance["credits"])

    def reopened(self) -> int:
        """As cat: open, read until there is no more."""
        fd = os.open(self.path, os.O_RDONLY)
        text = b""
        while piece := os.read(fd, 65536):
            text += piece
        os.close(fd)
        return self._credits(text)

    def kept(self) -> int:
        """A descriptor kept open."""
        return self._credits(os.pread(self.fd, 4096, 0))

    def mapped(self) -> int:
        """A mapping kept: stat says whether it is still what it was, as with any file that others write."""
        while True:
            before = os.fstat(self.fd).st_mtime_ns
            text = self.map[:]
            if os.fstat(self.fd).st_mtime_ns == before:
                return self._credits(text)

    def tail(self) -> int:
        """The end of the log, by its size."""
        size = os.fstat(self.log_fd).st_size
        start = max(0, size - 2048)
        lines = os.pread(self.log_fd, size - start, start).split(b"\n")
        assert lines[-1] == b"", lines
        entry = json.loads(lines[-2])
        return cents(entry["postings"][1]["credits"]) if "postings" in entry else 0


def read(look: Callable[[], int], board: Board, number: int, slot: int) -> Iterator[str]:
    """Look until told to stop: never less than was acknowledged before, never more than can have been paid after."""
    while not board[STOP]:
        least = board[ACKNOWLEDGED + number]
        try:
            found = look()
        except (ValueError, AssertionError) as error:
            yield f"torn: {error!r}"
            continue
        most = board[ACKNOWLEDGED + number] + 1  # one may be acknowledged and not on the board yet
        if not least <= found <= most:
            yield f"{found} cents, but {least} were acknowledged before and {most} can have been paid after"
        board[slot] += 1


def main() -> None:
    role, mount, path, writer, slot = sys.argv[1:]
    board, number = Board(Path(path)), int(writer)
    if role in ("documents", "lines"):
        client = Writer(Path(mount), board, number)
        found = client.run(getattr(client, role)())
    else:
        found = read(getattr(Reader(Path(mount), number), role), board, number, int(slot))
    wrong = [text for _, text in zip(range(WRONG_MAX), found, strict=False)]
    print(json.dumps(wrong), flush=True)


if __name__ == "__main__":
    main()
