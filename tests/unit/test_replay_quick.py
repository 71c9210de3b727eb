"""The quick way in which replay reads a txn/1 (entry_quick.c) takes nothing that the strict way refuses, and reads the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.entries import read_quickly
from ledgerfsd.core.pure.canonical import dump
from ledgerfsd.errors import DamageError
from ledgerfsd.journal.layout import create
from tests.unit.test_verify import ORIGIN, SEGMENT_BYTES, reseal
from tests.unit.test_verify import entries_of as parsed
from tests.unit.test_verify import make as small
from tests.verify.support import entries_of, make
from tests.verify.test_quick import SAMPLES, at_the_limits, check_with_other_bytes

Json = dict[str, Any]
OTHER_TYPES = (b'"type":"reversal"}', b'"type":"transfers"}')  # replay never asks for the type


@pytest.mark.parametrize("sample", SAMPLES)
def test_any_byte_may_be_another(sample: bytes) -> None:
    check_with_other_bytes(read_quickly, sample)


def test_at_the_limits() -> None:
    quick = 0
    for text, good in at_the_limits():
        how = read_quickly(text)
        assert how >= 0, text
        assert not how or good or text.endswith(OTHER_TYPES), text
        quick += how
    assert quick > 50


def test_what_the_engine_writes_is_read_quickly(tmp_path: Path) -> None:
    """Else it would be right, and of no use. What it declines is of another kind, has a rare member, or more than two postings."""
    ways = {0: 0, 1: 0}
    for text in entries_of(make(tmp_path / "store")):
        value, how = json.loads(text), read_quickly(text)
        ways[how] += 1
        if how == 0 and value["t"] == "txn/1" and len(value["postings"]) == 2:
            plain = value.keys().isdisjoint({"effective", "metadata", "reverses"})
            assert not plain or not value.get("reference", "").isascii() or "\\" in text.decode(), text
    assert ways[1] > 500


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    return parsed(small(tmp_path_factory.mktemp("replay") / "store"))


def another_amount(entry: Json) -> None:
    entry["postings"][0]["amount"] = "0.98"


def unbalanced(entry: Json) -> None:
    debit = next(posting for posting in entry["postings"] if posting["side"] == "debit")
    before, debit["amount"] = debit["amount"], "0.97"
    debit["debits"] = str(Decimal(debit["debits"]) + Decimal("0.97") - Decimal(before))


def another_number(entry: Json) -> None:
    entry["tx"] += 1


def another_previous(entry: Json) -> None:
    entry["postings"][1]["prev"] -= 1


def nobody(entry: Json) -> None:
    entry["postings"][0]["account"] = "nobody"


def another_currency(entry: Json) -> None:
    entry["postings"][0]["currency"] = "USD"


def other_decimals(entry: Json) -> None:
    for member in ("amount", "credits", "debits"):
        entry["postings"][0][member] += "0"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (another_amount, "the totals after a posting do not follow from those before"),
        (unbalanced, "its debits and credits differ"),
        (another_number, "the transaction number does not follow"),
        (another_previous, "prev of a posting is not the account's previous entry"),
        (nobody, "a posting names an account that does not exist"),
        (another_currency, "a posting's amount or currency does not fit its account"),
        (other_decimals, "a posting's amount or currency does not fit its account"),
    ],
)
def test_both_ways_refuse_the_same(
    tmp_path: Path, history: list[Json], change: Callable[[Json], None], what: str
) -> None:
    """A start names the entry that does not follow, though every seal fits, whichever way it was read."""
    for quickly in (True, False):
        layout = create(tmp_path / f"store-{quickly}", ORIGIN, segment_bytes=SEGMENT_BYTES)
        entries = deepcopy(history)
        entry = next(entry for entry in entries if entry.get("id") == "p3-7")
        if not quickly:
            entry["metadata"] = {}
        assert read_quickly(dump(entry)) == quickly
        change(entry)
        assert read_quickly(dump(entry)) == quickly
        reseal(layout, entries)
        with pytest.raises(DamageError, match=f"entry {entry['index']}: {what}"):
            Engine(layout.root, segment_bytes=SEGMENT_BYTES)
