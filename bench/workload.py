"""What the benchmarks feed to a ledger: seeded, so that two runs of one seed write the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE_INTENTS: Final = 10_000  # intents of an NDJSON file
INITIAL: Final = "1000000.00"  # so much that no payment is refused, while the limit is still looked at
_PIECE: Final = 100_000


def account(number: int) -> str:
    """The name of an account."""
    return f"acc_{number:07}"


def open_accounts(count: int) -> Iterator[bytes]:
    """NDJSON that opens accounts 0 to count - 1, in pieces."""
    for first in range(0, count, _PIECE):
        yield b"".join(
            b'{"type":"open_account","account":"%b","currency":"EUR","class":"customer_liability","owner":"cust_%d",'
            b'"initial_balance":"%b"}\n' % (account(number).encode(), number, INITIAL.encode())
            for number in range(first, min(first + _PIECE, count))
        )


class Payments:
    """Transfers between random accounts (uniform), each with an id of its own: counted, or of 128 random bits."""

    def __init__(self, seed: int, accounts: int, *, prefix: str = "p", random_ids: bool = False) -> None:
        self._chance = random.Random(seed)
        self._random_ids = random_ids
        self._names = [account(number).encode() for number in range(accounts)]
        self._prefix = prefix.encode()
        self._made = 0

    def one(self) -> bytes:
        """The next one, without a newline."""
        debit, credit, cents = self._draw()
        return (
            b'{"type":"transfer","id":"%b","debit":"%b","credit":"%b","amount":"%d.%02d","currency":"EUR",'
            b'"reference":"invoice %d"}'
        ) % (self._id(), debit, credit, cents // 100, cents % 100, self._made)

    def row(self) -> bytes:
        """The next one as PostgreSQL's COPY takes it, with its newline."""
        debit, credit, cents = self._draw()
        return b"%b\t%b\t%b\t%d\tinvoice %d\n" % (self._id(), debit, credit, cents, self._made)

    def _draw(self) -> tuple[bytes, bytes, int]:
        chance, names = self._chance.random, self._names
        debit = int(chance() * len(names))
        credit = (debit + 1 + int(chance() * (len(names) - 1))) % len(names)
        self._made += 1
        return names[debit], names[credit], 1 + int(chance() * 99_999)

    def _id(self) -> bytes:
        if self._random_ids:
            return b"%032x" % self._chance.getrandbits(128)
        return b"%b-%010d" % (self._prefix, self._made)

    def lines(self, count: int) -> bytes:
        """The next ``count`` as NDJSON."""
        return b"".join([self.one() + b"\n" for _ in range(count)])


def write_files(directory: Path, payments: Payments, count: int) -> list[Path]:
    """``count`` payments as NDJSON files of FILE_INTENTS each; the last may have fewer."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for number, first in enumerate(range(0, count, FILE_INTENTS)):
        path = directory / f"{number:06}.ndjson"
        path.write_bytes(payments.lines(min(FILE_INTENTS, count - first)))
        files.append(path)
    return files
