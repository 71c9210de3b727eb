"""Writers and readers of one mount, each a process, for ``test_coherence``.

Run as ``python -m tests.model.coherent ROLE MOUNT BOARD WRITER SLOT ACCOUNT``. Writer w pays one cent after the other to each
account ``w<w>.<role of a reader>`` and says on the board how many have been acknowledged, as soon as it knows. So whoever has
read the board and then reads an account must find at least as many cents. At its end every process prints a ``Report``.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.model.board import Board

READERS = ("reopened", "kept", "mapped", "tail")
STOP = 0  # slot: not 0 when all are to end
ACKNOWLEDGED = 1  # slot of writer 0; then those of the others
WRITERS = 2
COUNTS = 16  # slot of the first reader: how many reads it has done
WRONG_MAX = 5
LIST_EVERY = 20


@dataclass
class Report:
    """What a process found."""

    wrong: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)  # looks that showed less than had been acknowledged


def cents(amount: str) -> int:
    return int(amount.replace(".", ""))


def cents_in(entry: dict[str, Any], account: str) -> int:
    """What a transaction left in an account."""
    found = [posting["credits"] for posting in entry.get("postings", ()) if posting["account"] == account]
    return cents(found[0]) if found else 0


class Writer:
    """Pays, and looks at once."""

    def __init__(self, mount: Path, board: Board, number: int) -> None:
        self.mount = mount
        self.board = board
        self.number = number
        self.accounts = [f"w{number}.{role}" for role in READERS]
        self.directory = mount / "accounts" / self.accounts[0]
        self.log = os.open(self.directory / "tx.log", os.O_RDONLY)
        self.size = os.fstat(self.log).st_size

    def intent(self) -> str:
        postings = [{"account": account, "side": "credit", "amount": "0.01"} for account in self.accounts]
        postings.append({"account": "float", "side": "debit", "amount": f"0.{len(postings):02}"})
        return json.dumps({"type": "transaction", "postings": postings})

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

    def run(self, payments: Iterator[None], report: Report) -> None:
        """Pay until told to stop."""
        slot = ACKNOWLEDGED + self.number
        for _ in payments:
            self.board[slot] += 1
            report.wrong += self._look(self.board[slot])
            if self.board[STOP] or report.wrong:
                return

    def _look(self, paid: int) -> Iterator[str]:
        size = os.stat(self.directory / "tx.log").st_size
        line = os.pread(self.log, size - self.size, self.size)
        if size <= self.size or len(line) != size - self.size or line.count(b"\n") != 1 or not line.endswith(b"\n"):
            yield f"tx.log has {size} bytes, {self.size} before, and between them stands {line!r}"
            return
        self.size = size
        entry = json.loads(line)
        if cents_in(entry, self.accounts[0]) != paid:
            yield f"after {paid} payments tx.log ends with {entry}"
        name = f"tx_{entry['tx']:04}.json"
        if (self.mount / "transactions" / name).read_bytes() + b"\n" != line:
            yield f"{name} differs from tx.log"
        if paid % LIST_EVERY == 0 and name not in os.listdir(self.mount / "transactions"):
            yield f"{name} is not listed"


class Reader:
    """Reads what a writer's account has, in one way. A look gives the cents."""

    def __init__(self, mount: Path, account: str) -> None:
        self.account = account
        self.path = mount / f"accounts/{account}/balance.json"
        self.fd = os.open(self.path, os.O_RDONLY)
        self.log = os.open(mount / f"accounts/{account}/tx.log", os.O_RDONLY)
        self.map = mmap.mmap(self.fd, 0, prot=mmap.PROT_READ)

    @staticmethod
    def _credits(text: bytes) -> int:
        assert text.startswith(b"{") and text.endswith(b"\n"), text
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
        size = os.fstat(self.log).st_size
        start = max(0, size - 2048)
        lines = os.pread(self.log, size - start, start).split(b"\n")
        assert len(lines) > 1 and lines[-1] == b"" and b"\0" not in lines[-2], lines
        return cents_in(json.loads(lines[-2]), self.account)


def read(look: Callable[[], int], board: Board, number: int, slot: int, report: Report) -> None:
    """Look until told to stop."""
    last = 0
    while not board[STOP] and len(report.wrong) < WRONG_MAX:
        least = board[ACKNOWLEDGED + number]
        try:
            found = look()
        except (ValueError, AssertionError) as error:
            report.wrong.append(f"torn: {error!r}")
            continue
        most = board[ACKNOWLEDGED + number] + 1  # one may be acknowledged and not on the board yet
        if found > most or found < last:
            report.wrong.append(f"{found} cents after {last}, and {most} can have been paid")
        if found < least:
            report.behind.append(f"{found} cents, but {least} had been acknowledged")
        last = found
        board[slot] += 1


def main() -> None:
    role, mount, path, writer, slot, account = sys.argv[1:]
    board, number, report = Board(Path(path)), int(writer), Report()
    if role in READERS:
        read(getattr(Reader(Path(mount), account), role), board, number, int(slot), report)
    else:
        client = Writer(Path(mount), board, number)
        client.run(getattr(client, role)(), report)
    print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main()
