"""One member of a good intent exchanged for something else: core and twin name the same code and the same member."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.types import Mode

NOW_NS = 1_795_000_000_000_000_000
GOOD: dict[str, dict[str, Any]] = {
    "open_account": {
        "account": "n1",
        "class": "equity",
        "currency": "EUR",
        "initial_balance": "1.00",
        "limit": "overdraft:5.00",
        "normal": "debit",
        "owner": "o",
        "tags": ["a", "b"],
    },
    "transfer": {"amount": "1.00", "credit": "a", "debit": "b", "currency": "EUR", "effective": "2026-01-01"},
    "transaction": {
        "postings": [
            {"account": "a", "amount": "1.00", "side": "debit"},
            {"account": "b", "amount": "1.00", "side": "credit", "currency": "EUR"},
        ],
        "effective": "2026-01-01",
    },
    "hold": {"amount": "1.00", "credit": "a", "debit": "b", "currency": "EUR", "expires": "2027-01-01T00:00:00Z"},
    "post": {"hold": "h", "amount": "1.00", "effective": "2026-01-01"},
    "void": {"hold": "h"},
    "reverse": {"of": "tx_0001", "effective": "2026-01-01"},
    "freeze": {"account": "a"},
    "unfreeze": {"account": "a"},
    "close_account": {"account": "a"},
    "register_currency": {"currency": "XYZ", "decimals": 3},
    "close_period": {"through": "2026-01-01"},
}
COMMON: dict[str, Any] = {"id": "i1", "reference": "r", "metadata": {"a": [1, {"b": None}], "é": "x"}}
MEMBERS = sorted({name for intent in GOOD.values() for name in intent} | set(COMMON) | {"type", "side"})
ODD_MEMBERS = ["zz", "aa", "A", "amounts", "", "é", "\U0001f600", "\uffff", 'a"b', "\u0001x"]
TEXTS = (
    ["", "a", "b", "~x", "x y", "x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 256, "x" * 257, "é" * 128, "é" * 129]
    + ["\u007f", "\u0000", "\n", '"', "\\", "\\" * 256, '"' * 257, "\u2028", "\U0001f600" * 64, "\U0001f600" * 65]
    + ["EUR", "eur", "EURO", "USD1", "ABCDEFGHIJKLM", "debit", "credit", "equity", "customer_liability", "hold", "pay"]
    + ["none", "no_overdraft", "overdraft:", "overdraft:0", "overdraft:1.00", "overdraft:9e9", "overdraft:" + "9" * 50]
    + ["1.00", "0.00", "0", "1", "01", "1.", "-1", "9" * 39, "9" * 38, str(2**128 - 1), str(2**128), f"{2**128 - 1}.00"]
    + ["0." + "0" * 300, "0." + "0" * 300 + "1", "3402823669209384634633746074317682114.56"]
    + ["tx_0001", "tx_1", "tx_00001", "tx_10000", "tx_" + "9" * 19, "tx_" + "9" * 20, "tx_0000"]
    + ["2026-02-29", "2024-02-29", "0001-01-01", "9999-12-31", "10000-01-01", "2027-01-01T00:00:00Z"]
    + ["2027-01-01T00:00:00.000000001Z", "2200-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"]
    + ["2027-01-01T00:00:60Z", "2027-01-01T00:00:00.Z", "2027-01-01T00:00:00+00:00", "equity:opening:EUR"]
)
POSTING = {"account": "a", "amount": "1.00", "side": "debit"}
NESTED: list[Any] = [
    [], {}, [1], ["a"], ["a", "a"], ["a b"], {"a": 1}, {"k": "v" * 16376}, {"k": "v" * 16377},
    [str(number) for number in range(16)], [str(number) for number in range(17)], ["x" * 64], ["x" * 65], ["a", 1], ["a", []],
    [POSTING] * 2, [POSTING], [POSTING] * 200, [POSTING | {"amount": "0.00"}] * 201, [{"account": "a", "amount": "1.00"}] * 2,
    [POSTING | {"side": "x", "zz": 1}] * 2, [1, 2], [POSTING | {"amount": 1}] * 2, [POSTING | {"account": "a b", "currency": "x"}] * 3,
]  # fmt: skip
PLAIN: list[Any] = [0, 1, -1, 18, 19, 2**53 - 1, True, None]
values = st.one_of(st.sampled_from(TEXTS), st.sampled_from(TEXTS), st.sampled_from(NESTED), st.sampled_from(PLAIN))
names = st.one_of(st.sampled_from(MEMBERS), st.sampled_from(MEMBERS), st.sampled_from(ODD_MEMBERS))


@st.composite
def exchanged(draw: st.DrawFn) -> bytes:
    """A good intent with up to three members exchanged, one perhaps gone, in any order."""
    kind = draw(st.sampled_from(sorted(GOOD)))
    intent: dict[str, Any] = {"type": kind} | GOOD[kind] | COMMON
    for _ in range(draw(st.integers(0, 3))):
        own = draw(st.integers(0, 7)) > 0
        intent[draw(st.sampled_from(sorted(intent))) if own else draw(names)] = draw(values)
    if draw(st.integers(0, 9)) == 0:
        del intent[draw(st.sampled_from(sorted(intent)))]
    postings = intent.get("postings")
    if (
        isinstance(postings, list)
        and postings
        and all(isinstance(item, dict) for item in postings)
        and draw(st.booleans())
    ):
        changed = [dict(item) for item in postings]
        place = draw(st.integers(0, len(changed) - 1))
        changed[place][draw(st.one_of(st.sampled_from(["account", "amount", "side", "currency"]), names))] = draw(
            values
        )
        intent["postings"] = changed
    members = draw(st.permutations(list(intent.items())))
    return json.dumps(dict(members), ensure_ascii=draw(st.booleans())).encode()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        (store / "journal").mkdir()
        Engine.create(store, "ledger.example/shape", segment_bytes=1 << 20, now_ns=NOW_NS)
        engine = Engine(store, segment_bytes=1 << 20, accounts_max=4096)
        engine.start()
        yield engine
        engine.close()


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """An intent of strings only, with blanks or without, of which up to two bytes are others.

    That is what intent_quick.c reads, and what it just does not read.
    """
    kind = draw(st.sampled_from(["transfer", "hold", "post", "void", "freeze", "close_period"]))
    intent: dict[str, Any] = {
        "type": kind,
        "id": "i" * draw(st.integers(1, 60)),
        "reference": "r" * draw(st.integers(1, 300)),
    } | GOOD[kind]
    members = draw(st.permutations(list(intent.items())))
    blank = st.sampled_from(["", "", " ", "  ", "\t"])
    pairs = [
        f"{draw(blank)}{json.dumps(name)}{draw(blank)}:{draw(blank)}{json.dumps(value)}{draw(blank)}"
        for name, value in members
    ]
    text = bytearray(f"{draw(blank)}{{{','.join(pairs)}}}{draw(blank)}".encode())
    for _ in range(draw(st.integers(0, 2))):
        text[draw(st.integers(0, len(text) - 1))] = draw(st.sampled_from(b'"\\{}[]:, \t\x01\x7f\x80\xc3a0.-'))
    return bytes(text)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.one_of(exchanged(), written(), written()), min_size=1, max_size=12))
def test_same_code_and_member(engine: Engine, texts: list[bytes]) -> None:
    data = b"\n".join(texts)
    engine.submit(data, source=b"f", first_line=1, mode=Mode.EACH, dry_run=True, now_ns=NOW_NS)
    engine.drain()
    (completion,) = engine.completions()
    twin = Ledger.create("ledger.example/shape", NOW_NS)
    expected = twin.submit(data, source=b"f", first_line=1, mode=Mode.EACH, dry_run=True, now_ns=NOW_NS)
    found = [completion[position] for position in range(len(completion))]
    for text, ours, theirs in zip(texts, found, expected, strict=True):
        assert ours == theirs, text[:500]
