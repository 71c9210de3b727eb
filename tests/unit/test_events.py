"""Events: the core's lines against the twin's, at any place; the schemas against everything the suite makes."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import referencing
from hypothesis import given
from hypothesis import strategies as st

from ledgerfsd.clock import NS_PER_DAY, format_time, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure import events as twin
from ledgerfsd.errors import CODES
from ledgerfsd.journal.layout import create
from ledgerfsd.types import Mode
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES
from tests.model.intents import OPENINGS, Source

BEGIN = parse_time("2026-02-26T00:00:00Z")
ORIGIN = LEDGER.encode()
DECEIVING = {
    "time": "1999-01-01T00:00:00.000000000Z",
    "postings": [{"account": "z"}],
    "tx": 5,
    "t": "seal/1",
    "account": "y",
}


CHANGED = st.one_of(
    st.none(),
    st.integers(-2, 20),
    st.booleans(),
    st.sampled_from(["", "a", "x" * 65, "x" * 129, "~x", "a b", "tx_0001", "tx_1", "EUR", "eur", "1.00", "01", "-1", "none"]),
    st.sampled_from(["overdraft:1.00", "overdraft:", "debit", "transfer", "hold", "void", "equity", "own_funds", "steal"]),
    st.sampled_from([[], [1], ["a"], ["a", "a"], ["é"], {}, {"a": [None, {"b": 1}]}, [{"account": "a"}]]),
)  # fmt: skip


class Past(NamedTuple):
    """A ledger of a few days, and the lines of its events by the twin."""

    engine: Engine
    lines: list[bytes]
    intents: list[bytes]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    """Every feature, at random, and metadata that looks like members of entries."""
    root = create(tmp_path_factory.mktemp("events") / "store", LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=BEGIN).root
    engine = Engine(root, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
    engine.start()
    source, intents, now = Source("x"), [json.dumps(each).encode() for each in OPENINGS], BEGIN
    source.random.seed(7)
    deceiving = {
        "debit": OPENINGS[0]["account"],
        "credit": OPENINGS[1]["account"],
        "amount": "1.00",
        "metadata": DECEIVING,
    }
    units = [(each, b"accounts", Mode.DOCUMENT) for each in intents]
    units.append((json.dumps(deceiving).encode(), b"deceiving", Mode.DOCUMENT))
    for _ in range(300):
        sent = source.submission()
        units += [(text, sent.name.encode(), mode) for text, _, mode in sent.units() if not sent.dry_run]
    for text, name, mode in units:
        now += source.random.randrange(8 * NS_PER_DAY // len(units))
        engine.submit(text, source=name, first_line=1, mode=mode, now_ns=now)
        intents.append(text)
    engine.drain()
    entries = engine.counts().entries
    assert entries > 300
    yield Past(
        engine, [twin.line(LEDGER, at, bytes(engine.entry(at)), engine.leaf(at)) for at in range(entries)], intents
    )
    engine.close()


def test_lines_are_the_twins(past: Past) -> None:
    whole = b"".join(past.lines)
    assert bytes(past.engine.events(0, len(past.lines), 0, ORIGIN, len(whole) + 1)) == whole
    kinds = {json.loads(line)["type"] for line in past.lines}
    assert {
        f"ledgerfs.{kind}.v1" for kind in ("genesis", "account", "txn", "hold", "post", "void", "rejected", "seal")
    } <= kinds


def test_a_line_has_the_length_that_follows_from_its_entry(past: Past) -> None:
    for at, line in enumerate(past.lines):
        data = line[line.index(b'"data":') + 7 : -2]
        assert data == bytes(past.engine.entry(at))
        assert len(line) == len(data) + Engine.event_width(ORIGIN) == len(data) + twin.width(LEDGER)
        assert hashlib.sha256(b"\0" + data).hexdigest() == json.loads(line)["leafhash"]


@given(st.data())
def test_any_piece_of_any_range(past: Past, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(past.lines)))
    end = data.draw(st.integers(first, len(past.lines)))
    text = b"".join(past.lines[first:end])
    offset, size = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 5000))
    index, skip = past.engine.event_at(first, end, ORIGIN, offset)
    assert bytes(past.engine.events(index, end, skip, ORIGIN, size)) == text[offset : offset + size]
    assert past.engine.offset(end) - past.engine.offset(first) + (end - first) * (twin.width(LEDGER) - 2) == len(text)


@given(st.data())
def test_whole_lines_when_one_fits(past: Past, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(past.lines) - 1))
    text = b"".join(past.lines[first:])
    offset, size = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(1, 6000))
    index, skip = past.engine.event_at(first, len(past.lines), ORIGIN, offset)
    got = bytes(past.engine.events(index, len(past.lines), skip, ORIGIN, size, whole=True))
    assert text[offset:].startswith(got)
    line = past.lines[index][skip:]
    if len(line) >= size:
        assert got == line[:size]
    else:
        assert got.endswith(b"\n")
        assert len(got) < size
        following = past.lines[index + 1 + got[len(line) :].count(b"\n") :]
        assert not following or len(got) + len(following[0]) >= size


def test_times_are_found(past: Past) -> None:
    times = [json.loads(line)["time"] for line in past.lines]
    assert times == sorted(times)
    for at in (0, 1, 17, len(times) - 1):
        assert past.engine.first_at(times[at]) == at
        assert past.engine.first_at(format_time(parse_time(times[at]) + 1)) == at + 1
    assert past.engine.first_at(format_time(0)) == 0


def test_what_is_not_there(past: Past) -> None:
    with pytest.raises(IndexError):
        past.engine.offset(len(past.lines) + 1)
    assert bytes(past.engine.events(len(past.lines), len(past.lines) + 5, 0, ORIGIN, 100)) == b""


def test_a_segment_ends_and_the_next_goes_on(tmp_path: Path) -> None:
    root = create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=BEGIN).root
    engine = Engine(root, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
    engine.start()
    long = json.dumps({"debit": "a", "credit": "b", "amount": "1.00", "metadata": {"x": "y" * 9_000}})
    opening = '{{"type":"open_account","account":"{}","currency":"EUR","class":"suspense"}}\n'
    text = "".join(opening.format(name) for name in "ab") + (long + "\n") * 400
    engine.submit(text.encode(), source=b"x", first_line=1, mode=Mode.EACH)
    engine.drain()
    count = engine.counts().entries
    assert engine.counts().stream_bytes > 3 * SEGMENT_BYTES
    lines = [twin.line(LEDGER, at, bytes(engine.entry(at)), engine.leaf(at)) for at in range(count)]
    assert bytes(engine.events(0, count, 0, ORIGIN, 1 << 26)) == b"".join(lines)
    engine.close()


# -- schemas

SCHEMAS = REPOSITORY / "ledgerfsd" / "data" / "schema"
# What a schema cannot say, or says of characters and not of bytes.
BEYOND_A_SCHEMA = {
    *("too_large", "incomplete", "bad_utf8", "bad_json", "too_deep", "duplicate_key", "bad_number", "empty"),
    *(
        "bad_date",
        "bad_time",
        "bad_text",
        "bad_metadata",
        "same_account",
        "zero_amount",
        "amount_overflow",
        "empty_batch",
    ),
}


@functools.cache
def validator(name: str) -> Any:
    """A schema that has been checked itself, and finds the others."""
    texts = [json.loads(path.read_bytes()) for path in SCHEMAS.glob("*.json")]
    for text in texts:
        jsonschema.Draft202012Validator.check_schema(text)
    registry: Any = referencing.Registry().with_resources(
        (text["$id"], referencing.Resource.from_contents(text)) for text in texts
    )
    (schema,) = (text for text in texts if text["$id"] == f"urn:ledgerfs:schema:{name}:1")
    return jsonschema.Draft202012Validator(schema, registry=registry)


def test_every_event_and_entry_fits_its_schema(past: Past) -> None:
    events = validator("event")
    for line in past.lines:
        events.validate(json.loads(line))
    event = json.loads(past.lines[0])
    for change in ({"id": "00"}, {"sequence": "1"}, {"more": 1}, {"data": {}}, {"leafhash": "A" * 64}, {"subject": ""}):
        assert not events.is_valid(event | change), change


def test_the_schema_of_entries_is_as_strict_as_the_format(past: Past) -> None:
    """No member may be missing, none be more, none of another kind."""
    entries = validator("entry")
    newest = {entry["t"]: entry for entry in (json.loads(line)["data"] for line in past.lines)}
    for entry in newest.values():
        optional = {"reference", "metadata", "owner", "tags", "effective", "expires", "state_root", "reverses"}
        optional |= {"valid_to_size"}
        optional |= {"intent"} if entry["t"] == "void/1" else set()
        for name in entry:
            shorter = {each: value for each, value in entry.items() if each != name}
            assert entries.is_valid(shorter) is (name in optional), (entry["t"], name)
            if name != "metadata":
                assert not entries.is_valid(entry | {name: {}}), (entry["t"], name)
        assert not entries.is_valid(entry | {"odd": 1})


def test_every_kind_of_the_format_has_a_schema() -> None:
    text = (REPOSITORY / "docs/FORMAT.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r"^\* \*\*([a-z.]+/\d+)\*\*", text, re.MULTILINE))
    written = set(re.findall(r'"const": "([a-z.]+/\d+)"', (SCHEMAS / "entry.json").read_text(encoding="utf-8")))
    assert kinds == written, "an entry of a new kind needs a schema in ledgerfsd/data/schema/entry.json"


def judged(engine: Engine, intent: object) -> str:
    """The code of a dry run."""
    number = engine.submit(json.dumps(intent).encode(), source=b"x", first_line=1, mode=Mode.DOCUMENT, dry_run=True)
    engine.drain()
    (completion,) = (each for each in engine.completions() if each.ticket == number)
    found = completion.refused
    return CODES[found.code].name if found is not None else "ok"


def agree(engine: Engine, intents: Any, intent: object) -> None:
    """The schema refuses nothing that the ledger takes, and lets nothing pass whose form the ledger refuses."""
    code = judged(engine, intent)
    if code in BEYOND_A_SCHEMA:
        return
    malformed = 0 < next(number for number, each in CODES.items() if each.name == code) < 100
    assert intents.is_valid(intent) is not malformed, (code, intent)


def test_the_schema_of_intents_agrees_with_the_ledger(past: Past) -> None:
    """On everything that the suite's generator makes."""
    intents = validator("intent")
    seen = 0
    for text in past.intents:
        for line in text.splitlines():
            try:
                intent = json.loads(line)
            except ValueError:
                continue
            for each in intent if isinstance(intent, list) else [intent]:
                agree(past.engine, intents, each)
                seen += 1
    assert seen > 300


@given(st.data())
def test_the_schema_of_intents_agrees_on_what_is_changed(past: Past, data: st.DataObject) -> None:
    """One member less, one more, or one with another value."""
    source = Source("x")
    source.random = random.Random(data.draw(st.integers(0, 10_000)))
    texts = [line for text, _, _ in source.submission().units() for line in text.splitlines()]
    try:
        intent = json.loads(data.draw(st.sampled_from(texts or [b"{}"])))
    except ValueError:
        intent = {}
    whole = intent if isinstance(intent, dict) else {}
    name = data.draw(
        st.sampled_from([*whole, "odd", "id", "type", "amount", "hold", "tags", "limit", "of", "decimals"])
    )
    value = data.draw(CHANGED)
    changed = {each: kept for each, kept in whole.items() if each != name} if value is None else whole | {name: value}
    agree(past.engine, validator("intent"), changed)
