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
    """Transfers between random accounts (uniform), each with an id of its own."""

    def __init__(self, seed: int, accounts: int, *, prefix: str = "p") -> None:
        self._chance = random.Random(seed)
        self._names = [account(number).encode() for number in range(accounts)]
        self._prefix = prefix.encode()
        self._made = 0

    def one(self) -> bytes:
        """The next one, without a newline."""
        chance, names = self._chance.random, self._names
        debit = int(chance() * len(names))
        credit = (debit + 1 + int(chance() * (len(names) - 1))) % len(names)
        cents = 1 + int(chance() * 99_999)
        self._made += 1
        return (
            b'{"type":"transfer","id":"%b-%010d","debit":"%b","credit":"%b","amount":"%d.%02d","currency":"EUR",'
            b'"reference":"invoice %d"}'
        ) % (self._prefix, self._made, names[debit], names[credit], cents // 100, cents % 100, self._made)

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
