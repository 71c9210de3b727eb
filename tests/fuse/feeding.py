"""Bytes into the inbox by system calls, one by one, and what the twin in plain Python says of the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ledgerfsd.clock import parse_time
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.errors import CODES
from ledgerfsd.types import Mode, Result
from tests.conftest import LEDGER
from tests.fuse.conftest import ACCOUNTS, Mounted, lines, until

NOW_NS = parse_time("2026-11-23T12:00:00Z")
FIRST_CODE_OF_MEMBERS = 30  # below: an offset; from here to 99: a member
FIRST_CODE_OF_STATE = 100


class Fed(NamedTuple):
    """What a program saw."""

    errno: int  # of the first call that failed, 0 if none did
    call: str  # "write", "close" or ""
    written: int  # bytes that write() took


def feed(path: Path, pieces: Iterable[bytes], *, stubborn: bool = False) -> Fed:
    """Create a file and write it. ``stubborn``: go on after an error, as a program does that never looks."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    number, call, written = 0, "", 0
    for piece in pieces:
        try:
            written += os.write(descriptor, piece)
        except OSError as error:
            if not number:
                number, call = error.errno or 0, "write"
            if not stubborn:
                break
    try:
        os.close(descriptor)
    except OSError as error:
        if not number:
            number, call = error.errno or 0, "close"
    return Fed(number, call, written)


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


class Answer(NamedTuple):
    """What one line of a receipt says, as far as it depends on the bytes alone."""

    line: int
    code: str
    offset: int = 0  # for codes of section 2 of FORMAT
    field: str = ""  # for codes of members

    def __str__(self) -> str:
        return (
            f"line {self.line}: {self.code}" + (f" at {self.offset}" if self.offset else "") + f" {self.field}".rstrip()
        )


def answers(receipt: list[dict[str, Any]]) -> list[Answer]:
    """Those of a receipt. Codes from 100 on name the account or the id at fault, which the twin does not."""
    return [
        Answer(
            line["line"],
            line["code"],
            line.get("offset", 0),
            line.get("field", "") if line["status"] == "refused" and _is_shape(line["code"]) else "",
        )
        for line in receipt
    ]


def _is_shape(name: str) -> bool:
    return any(code.name == name and code.number < FIRST_CODE_OF_STATE for code in CODES.values())


class Twin:
    """The reference, with the accounts that ``conftest.with_accounts`` opens."""

    def __init__(self) -> None:
        self.ledger = Ledger.create(LEDGER, NOW_NS)
        self.submit("accounts.ndjson", lines(ACCOUNTS).encode(), Mode.EACH)

    def submit(self, name: str, data: bytes, mode: Mode) -> list[Result]:
        results = self.ledger.submit(
            data, source=name.encode(), first_line=1, mode=mode, dry_run=False, now_ns=NOW_NS + 1
        )
        self.ledger.seal(NOW_NS + 1)
        return results

    def answers(self, name: str, data: bytes, mode: Mode) -> list[Answer]:
        """What the receipt must say."""
        return [
            Answer(
                result.line,
                CODES[result.code].name,
                result.offset if 0 < result.code < FIRST_CODE_OF_MEMBERS else 0,
                result.field if FIRST_CODE_OF_MEMBERS <= result.code < FIRST_CODE_OF_STATE else "",
            )
            for result in self.submit(name, data, mode)
        ]

    def entries(self) -> int:
        """Entries that are not seals: how many of those there are depends on how fast the intents came."""
        return len(self.ledger.entries) - len(self.ledger.book.seals)


@dataclass
class State:
    """What no malformed file may change."""

    entries: int  # without seals
    transactions: int
    balances: dict[str, str]

    @classmethod
    def of(cls, mounted: Mounted) -> State:
        """As it is now."""
        status = mounted.status()
        names = sorted(os.listdir(mounted / "accounts"))
        return cls(
            status["entries"] - status["blocks"],
            status["transactions"],
            {name: mounted.balance(name)["balance"] for name in names},
        )


def memory_kib(mounted: Mounted) -> int:
    """The daemon's own memory: neither the journal it has mapped nor the page cache."""
    assert mounted.daemon.process is not None
    text = Path(f"/proc/{mounted.daemon.process.pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1])


def healthy(mounted: Mounted) -> None:
    """Alive, well, nothing left in memory, no request that failed by our own fault, and it still takes money."""
    assert mounted.daemon.process is not None
    assert mounted.daemon.process.poll() is None
    assert (mounted / ".ledgerfs/health").read_text() == "ok\n"
    assert "\nledgerfs_faults_total 0.0\n" in (mounted / ".ledgerfs/metrics.prom").read_text()
    # The kernel tells of the last close when it likes, after close() has returned.
    until(lambda: mounted.status()["inbox"]["open_files"] == 0)
    assert mounted.status()["inbox"]["staged_bytes"] == 0
    before = mounted.transactions()
    name = f"healthy-{before}.json"
    intent = b'{"debit":"acc_001","credit":"acc_002","amount":"0.01","id":"healthy-%d"}' % before
    assert feed(mounted / "inbox" / name, [intent]) == Fed(0, "", len(intent))
    assert mounted.transactions() == before + 1
