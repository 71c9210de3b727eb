"""The tables of ids and names (tables.c) where they are crowded on purpose: a line of eight slots that overflows into the next ones.

Ids and names are chosen by their hash (docs/FORMAT.md, section 8), whose seed is known as soon as there is a ledger. The
line of a hash follows from the upper bits of its lower half; those of the crowd have twelve such bits in common, so they
share a line of the smallest table (512 lines) and of any up to eight times as large. It is the last line, behind which
the first one comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import pytest
import xxhash

from ledgerfsd.core.engine import Engine
from ledgerfsd.types import Mode
from tests.unit.test_ids import SEGMENT_BYTES, Intent, Pair, names, opening, pay

LINE = 8
SMALLEST = 4096  # slots; at most three quarters are used
CROWD = 3 * LINE + 4
OTHERS = 3_200
PIECE = 400


class Whole(Pair):
    """An engine with tables as large as they like, and the twin."""

    def start(self) -> None:
        self.engine = Engine(self.root, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
        self.engine.start()

    def restart(self) -> None:
        """End without a save: the tables are made anew from the journal."""
        self.engine.close()
        self.start()

    def half(self, text: str) -> int:
        """What of its hash stands in a slot."""
        seed = int.from_bytes(hashlib.sha256(b"\0" + bytes(self.engine.entry(0))).digest()[:8], "little")
        return xxhash.xxh3_64_intdigest(text.encode(), seed) & 0xFFFFFFFF

    def of_last_line(self, prefix: str) -> Iterator[str]:
        """Texts that all begin in the last line."""
        return (text for number in count() if self.half(text := f"{prefix}{number}") >> 20 == 0xFFF)

    def of_first_line(self, prefix: str) -> Iterator[str]:
        """Texts that begin where the last line overflows to."""
        return (text for number in count() if self.half(text := f"{prefix}{number}") >> 23 == 0)

    def twins(self, prefix: str) -> list[str]:
        """Two texts that have the same half."""
        seen = dict[int, str]()
        for number in count():
            half, text = self.half(f"{prefix}{number}"), f"{prefix}{number}"
            if half in seen:
                return [seen[half], text]
            seen[half] = text
        raise AssertionError


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Whole]:
    made = Whole(tmp_path / "store")
    made.submit([opening(0), opening(1)])
    yield made
    made.engine.close()


def account(name: str) -> Intent:
    return {"type": "open_account", "account": name, "class": "clearing", "currency": "EUR", "id": f"open-{name}"}


def used(name: str) -> Intent:
    """A payment to the account ``name``: refused if it is not known."""
    return pay(f"to-{name}") | {"credit": name}


KINDS = pytest.mark.parametrize(
    ("make", "known"),
    [
        pytest.param(pay, lambda name: (pay(name), "ok again"), id="ids"),
        pytest.param(account, lambda name: (account(name) | {"id": f"again-{name}"}, "account_exists"), id="names"),
    ],
)
Make = Callable[[str], Intent]
Known = Callable[[str], tuple[Intent, str]]


def check_known(pair: Whole, texts: list[str], known: Known) -> None:
    asked = [known(text) for text in texts]
    assert names(pair.submit([intent for intent, _ in asked], dry_run=True)) == [answer for _, answer in asked]


@KINDS
def test_a_line_overflows(pair: Whole, make: Make, known: Known) -> None:
    """Each is found in the line where there was room, and who is in none of them is not found."""
    crowd = list(islice(pair.of_last_line("c"), CROWD + 1))
    first = list(islice(pair.of_first_line("f"), LINE))
    for text in crowd[:-1] + first:
        assert names(pair.submit([make(text)])) == ["ok"], text
    check_known(pair, crowd[:-1] + first, known)
    assert names(pair.submit([make(crowd[-1])])) == ["ok"]
    check_known(pair, crowd, known)
    pair.restart()
    check_known(pair, crowd + first, known)
    pair.check()


@KINDS
@pytest.mark.parametrize("before", [0, LINE - 1, LINE, LINE + 1])
def test_what_overflowed_is_taken_back(pair: Whole, make: Make, known: Known, before: int) -> None:
    """After a dry run, and a batch that was refused as a whole, all is as it was: and can be done again, in another order."""
    crowd = list(islice(pair.of_last_line("c"), CROWD))
    first = list(islice(pair.of_first_line("f"), LINE))
    if before:
        assert set(names(pair.submit([make(text) for text in crowd[:before]]))) == {"ok"}
    rest = crowd[before:] + first
    tried = [make(text) for text in rest]
    assert set(names(pair.submit(tried, Mode.ATOMIC, dry_run=True))) == {"ok"}
    assert "ok" not in names(pair.submit([*tried, pay("refused", debit="nobody")], Mode.ATOMIC))
    if before:
        check_known(pair, crowd[:before], known)
    assert set(names(pair.submit([make(text) for text in reversed(rest)], Mode.ATOMIC))) == {"ok"}
    check_known(pair, crowd + first, known)
    pair.check()


@KINDS
def test_a_crowded_table_grows(pair: Whole, make: Make, known: Known) -> None:
    """Every slot finds its place in the larger table, which is filled in the order of the smaller one."""
    crowd = list(islice(pair.of_last_line("c"), CROWD + 1))
    first = list(islice(pair.of_first_line("f"), LINE))
    assert set(names(pair.submit([make(text) for text in crowd[:-1] + first]))) == {"ok"}
    assert OTHERS > SMALLEST * 3 // 4
    for begin in range(0, OTHERS, PIECE):
        assert set(names(pair.submit([make(f"x{number}") for number in range(begin, begin + PIECE)]))) == {"ok"}
    check_known(pair, [*crowd[:-1], *first, "x0", f"x{OTHERS - 1}"], known)
    assert names(pair.submit([make(crowd[-1])])) == ["ok"]
    pair.restart()
    check_known(pair, [*crowd, *first, "x0", f"x{OTHERS - 1}"], known)
    pair.check()


@KINDS
def test_the_same_half_is_not_the_same_text(pair: Whole, make: Make, known: Known) -> None:
    one, other = pair.twins("t")
    assert names(pair.submit([make(one)])) == ["ok"]
    assert names(pair.submit([make(other)])) == ["ok"]
    check_known(pair, [one, other], known)
    pair.restart()
    check_known(pair, [other, one], known)
    pair.check()


def test_accounts_of_a_crowd_are_told_apart(pair: Whole) -> None:
    """Each gets what was paid to it, and no other."""
    crowd = [*islice(pair.of_last_line("c"), CROWD), *pair.twins("t")]
    pair.submit([account(name) for name in crowd])
    assert set(names(pair.submit([used(name) | {"amount": f"{place}.00"} for place, name in enumerate(crowd, 1)]))) == {
        "ok"
    }
    for _ in range(2):
        accounts = [pair.engine.account(ordinal) for ordinal in range(pair.engine.counts().accounts)]
        paid = {each.name: each.credits for each in accounts}
        assert [paid[name] for name in crowd] == [100 * place for place in range(1, len(crowd) + 1)]
        pair.restart()
