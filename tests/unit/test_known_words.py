"""The words of entries that T1 has told T6, which then reads no entry: what is found by them, held against the entries themselves."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.types import Mode

NOW = 1_795_000_000_000_000_000
ORIGIN = "ledger.example/words"
ACCOUNTS = 8
REFERENCES = ("a", "invoice 7", 'say "no" \\', "end],", "end},", "[1]", "{2}", "ü", "x" * 100)
ROUNDS = 12


def lines(intents: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(intent).encode() + b"\n" for intent in intents)


def some(chance: random.Random, name: str, count: int) -> list[dict[str, Any]]:
    """Payments with a reference and without, some with what only looks like one; and others that may have one."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        a, b = (f"a{each}" for each in chance.sample(range(ACCOUNTS), 2))
        intent: dict[str, Any] = {"id": f"{name}-{number}", "debit": a, "credit": b, "amount": "1.00"}
        if chance.random() < 0.6:
            intent["reference"] = chance.choice(REFERENCES)
        if chance.random() < 0.2:
            intent["metadata"] = {"reference": chance.choice(REFERENCES), "tags": ["t0"]}
        kind = chance.random()
        if kind < 0.1:
            intent["type"] = "hold"
        elif kind < 0.2:
            del intent["debit"], intent["credit"], intent["amount"]
            sides = (("debit", a), ("credit", b))
            intent |= {
                "type": "transaction",
                "postings": [{"account": each, "side": side, "amount": "2.00"} for side, each in sides],
            }
        elif kind < 0.25:
            intent["amount"] = "0.001"  # refused
        elif kind < 0.3:
            intent["debit"] = "nobody"  # the same, and written as refused
        found.append(intent)
    return found


def spoilt(intents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Together they are refused at the last: all that was written for those before is taken back."""
    return [*intents, {"id": intents[0]["id"] + "-last", "debit": "nobody", "credit": "a1", "amount": "1.00"}]


def written(engine: Engine) -> dict[str, list[int]]:
    """By reference and by tag ("#" before it), read from the entries."""
    found: dict[str, list[int]] = {}
    for index in range(engine.counts().entries):
        entry = json.loads(bytes(engine.entry(index)))
        tags = entry.get("tags", []) if entry["t"] == "account/1" else []
        for word in ([entry["reference"]] if "reference" in entry else []) + [f"#{tag}" for tag in tags]:
            found.setdefault(word, []).append(index)
    return found


@pytest.fixture(params=[64, None], ids=["some", "all"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """``some``: T6 is nearly always too late, and has to read most entries."""
    (tmp_path / "journal").mkdir()
    Engine.create(tmp_path, ORIGIN, now_ns=NOW)
    with closing(Engine(tmp_path, accounts_max=64, ids_recent=request.param)) as made:
        made.start()
        yield made


def test_words_that_t1_knows_are_those_of_the_entries(engine: Engine) -> None:
    """Of all kinds of entries, in batches that are refused too; in memory, and in the runs that a save has made."""
    chance = random.Random(7)
    openings: list[dict[str, Any]] = [
        {"type": "open_account", "account": f"a{number}", "class": "clearing", "currency": "EUR", "id": f"o{number}",
         "tags": ["t0", f"t{number % 3}"][number % 2 :], "reference": REFERENCES[number % 3]}
        for number in range(ACCOUNTS)
    ]  # fmt: skip
    engine.submit(lines(openings), source=b"o", first_line=1, mode=Mode.EACH, now_ns=NOW)
    for number in range(ROUNDS):
        intents = some(chance, f"r{number}", chance.choice((1, 5, 90, 700)))
        atomic = chance.random() < 0.5
        data = lines(spoilt(intents) if atomic else intents)
        engine.submit(data, source=b"r", first_line=1, mode=Mode.ATOMIC if atomic else Mode.EACH, now_ns=NOW)
        engine.submit(lines(some(chance, f"s{number}", 3)), source=b"s", first_line=1, mode=Mode.EACH, now_ns=NOW)
        if chance.random() < 0.3:
            engine.drain()
    engine.drain()
    assert [completion.lines for completion in engine.completions()]
    expected = written(engine)
    assert set(REFERENCES) <= set(expected)
    for saved in (False, True):
        for word, entries in expected.items():
            if word.startswith("#"):
                assert list(engine.with_tag(word[1:], 0, 10**5)) == entries
            else:
                assert list(engine.with_reference(word, 0, 10**5)) == entries, word
        if not saved:
            engine.save()
            engine.saved(True)
    assert list(engine.with_reference("nothing", 0, 10**5)) == []
