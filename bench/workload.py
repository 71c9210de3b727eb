"""What the benchmarks feed to a ledger: seeded, so that two runs of one seed write the same bytes.

``Payments`` draws transfers one by one. ``Stamped`` draws a million once and gives them out again and again under new ids, which is
quick enough to feed an engine without end. Who pays whom is one of ``PATTERNS``.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Final

FILE_INTENTS: Final = 10_000  # intents of an NDJSON file
INITIAL: Final = "9000000.00"  # so much that no payment of fifty million is refused, while the limit is still looked at
PATTERNS: Final = ("uniform", "zipf", "hot")
ZIPF_EXPONENT: Final = 1.0
_SPREAD: Final = 2_654_435_761  # a prime above any number of accounts: the busiest do not stand beside each other
_PIECE: Final = 100_000
_STAMP: Final = b"@" * 8


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


def zipf(chance: random.Random, count: int) -> Callable[[], int]:
    """Draws from 0 to count - 1: the n-th busiest so often as 1/n says. Which one that is looks random, and is always the same."""
    sums = array("d", accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, count + 1)))
    whole, draw = sums[-1], chance.random
    return lambda: bisect_left(sums, draw() * whole) * _SPREAD % count


def pairs(chance: random.Random, count: int, pattern: str) -> Callable[[], tuple[int, int]]:
    """Draws who pays and who is paid, two of 0 to count - 1: anybody (uniform), the busy more often (zipf), or all pay number 0 (hot)."""
    draw = chance.random

    def uniform() -> tuple[int, int]:
        debit = int(draw() * count)
        return debit, (debit + 1 + int(draw() * (count - 1))) % count

    def hot() -> tuple[int, int]:
        return 1 + int(draw() * (count - 1)), 0

    if pattern == "zipf":
        one = zipf(chance, count)

        def busy() -> tuple[int, int]:
            debit = credit = one()
            while credit == debit:
                credit = one()
            return debit, credit

        return busy
    return {"uniform": uniform, "hot": hot}[pattern]


class Payments:
    """Transfers between accounts, each with an id of its own: counted, or of 128 random bits."""

    def __init__(
        self, seed: int, accounts: int, *, prefix: str = "p", random_ids: bool = False, pattern: str = "uniform"
    ) -> None:
        self._chance = random.Random(seed)
        self._random_ids = random_ids
        self._names = [account(number).encode() for number in range(accounts)]
        self._pair = pairs(self._chance, accounts, pattern)
        self._prefix = prefix.encode()
        self._made = 0

    def one(self) -> bytes:
        """The next one, without a newline."""
        debit, credit, cents = self._draw()
        return _transfer(self._id(), debit, credit, cents, b"%d" % self._made)

    def row(self) -> bytes:
        """The next one as PostgreSQL's COPY takes it, with its newline."""
        debit, credit, cents = self._draw()
        return b"%b\t%b\t%b\t%d\tinvoice %d\n" % (self._id(), debit, credit, cents, self._made)

    def _draw(self) -> tuple[bytes, bytes, int]:
        debit, credit = self._pair()
        self._made += 1
        return self._names[debit], self._names[credit], 1 + int(self._chance.random() * 99_999)

    def _id(self) -> bytes:
        if self._random_ids:
            return b"%032x" % self._chance.getrandbits(128)
        return b"%b-%010d" % (self._prefix, self._made)

    def lines(self, count: int) -> bytes:
        """The next ``count`` as NDJSON."""
        return b"".join([self.one() + b"\n" for _ in range(count)])


class Stamped:
    """Files of payments by number, without end: ``drawn`` files are drawn, and come again and again with other ids and references."""

    def __init__(
        self,
        seed: int,
        accounts: int,
        *,
        drawn: int = 100,
        random_ids: bool = False,
        pattern: str = "uniform",
        lines: int = FILE_INTENTS,
    ) -> None:
        chance = random.Random(seed)
        pair = pairs(chance, accounts, pattern)
        names = [account(number).encode() for number in range(accounts)]

        def one(number: int) -> bytes:
            debit, credit = pair()
            # The stamp stands behind the random part: ids of one file are then as far apart as any others.
            which = b"%024x%b" % (chance.getrandbits(96), _STAMP) if random_ids else b"%b-%05d" % (_STAMP, number)
            cents = 1 + int(chance.random() * 99_999)
            return _transfer(which, names[debit], names[credit], cents, b"%b-%05d" % (_STAMP, number)) + b"\n"

        self._drawn = [b"".join([one(number) for number in range(lines)]) for _ in range(drawn)]

    def file(self, number: int) -> bytes:
        """NDJSON; no other number has the same ids."""
        return self._drawn[number % len(self._drawn)].replace(_STAMP, b"%08x" % number)


def _transfer(which: bytes, debit: bytes, credit: bytes, cents: int, invoice: bytes) -> bytes:
    return (
        b'{"type":"transfer","id":"%b","debit":"%b","credit":"%b","amount":"%d.%02d","currency":"EUR",'
        b'"reference":"invoice %b"}'
    ) % (which, debit, credit, cents // 100, cents % 100, invoice)


def write_files(directory: Path, payments: Payments, count: int, lines: int = FILE_INTENTS) -> list[Path]:
    """``count`` payments as NDJSON files of so many lines each; the last may have fewer."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for number, first in enumerate(range(0, count, lines)):
        path = directory / f"{number:06}.ndjson"
        path.write_bytes(payments.lines(min(lines, count - first)))
        files.append(path)
    return files
