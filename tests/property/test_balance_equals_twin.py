"""``balance.json`` of the C core and of its twin in Python: the same bytes, now and as of every entry, whatever the ledger."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.kernel import balance
from ledgerfsd.service import render
from ledgerfsd.types import Account, Mode
from tests.property.test_core_equals_twin import BEGIN_NS, ORIGIN, SECOND_NS, SEGMENT_BYTES, shaped

DECIMALS = (0, 2, 3, 18)
NAMES = ("a", "x" * 64)
SIDES = ("debit", "credit")


def openings(decimals: int) -> list[dict[str, Any]]:
    """Accounts of either normal side that may be lowered without limit, some of the longest name."""
    currency = f"CURRENCY{decimals:03}"
    accounts = [
        {
            "type": "open_account",
            "account": name[:-3] + f"{side[0]}{decimals:02}" if len(name) > 3 else f"{name}{side[0]}{decimals}",
        }
        | {"class": "suspense", "normal": side, "currency": currency, "limit": "none"}
        for name in NAMES
        for side in SIDES
    ]
    return [{"type": "register_currency", "currency": currency, "decimals": decimals}, *accounts]


@st.composite
def moves(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Transfers and holds of small and of the largest amounts between accounts of ``openings``."""
    decimals = draw(st.sampled_from(DECIMALS))
    opened = openings(decimals)
    names = st.sampled_from([each["account"] for each in opened[1:]])
    found = []
    for _ in range(draw(st.integers(1, 8))):
        minor = draw(st.sampled_from([1, 9, 10, 12_345, 2**64, 2**126, 2**127 - 1, 10 ** draw(st.integers(0, 37))]))
        amount = f"{minor:0{decimals + 1}}"
        text = f"{amount[:-decimals]}.{amount[-decimals:]}" if decimals else amount
        found.append(
            {
                "type": draw(st.sampled_from(["transfer", "hold"])),
                "debit": draw(names),
                "credit": draw(names),
                "amount": text,
            }
        )
    return [*opened, *found]


def written(engine: Engine, account: Account) -> tuple[bytes, int]:
    """By the twin."""
    entry = bytes(engine.entry(account.last_index))
    return render.balance(account, render.as_of(engine, account, entry)), render.time_of(entry)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves(), st.lists(shaped(), max_size=25))
def test_core_and_twin(moved: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Accounts with no entry but the first, on hold, negative, frozen; amounts of up to 39 digits; transactions and none."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        (store / "journal").mkdir()
        Engine.create(store, ORIGIN, segment_bytes=SEGMENT_BYTES, now_ns=BEGIN_NS)
        engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
        engine.start()
        try:
            for number, intent in enumerate([*moved, *others], 1):
                line = json.dumps(intent).encode()
                engine.submit(
                    line, source=b"f", first_line=number, mode=Mode.EACH, now_ns=BEGIN_NS + number * SECOND_NS
                )
            engine.drain()
            counts = engine.counts()
            assert counts.accounts >= len(NAMES) * len(SIDES)
            for ordinal in range(counts.accounts):
                account = engine.account(ordinal)
                assert balance(engine, ordinal) == written(engine, account)
                for size in range(account.open_index + 1, counts.entries + 1):
                    then = engine.account_at(ordinal, size)
                    assert then is not None
                    assert balance(engine, ordinal, size) == written(engine, then)
        finally:
            engine.close()
