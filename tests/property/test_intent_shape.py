"""A line that is read by the shape of one before (intent_shape.c) gives what it gives otherwise, and what the twin makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerfsd.core.pure import intent as twin
from ledgerfsd.core.shape import read_after

LINE = (
    b'{"type":"transfer","id":"p-0000000001","debit":"acc_0001343","credit":"acc_0009817","amount":"763.77","currency":"EUR"'
    b',"reference":"invoice 1"}'
)
SHAPES = (
    LINE,
    b'{"amount":"1.00","credit":"b","debit":"a","id":"i"}',
    b'{ "id" : "i1" , "type":"transfer", "debit": "a:1", "amount": "0.05",  "credit": "b.2" }',
    b'{"reference":"r","currency":"JPY","credit":"B","debit":"A","amount":"1234567890123456","id":"!","type":"transfer"}',
)
AMOUNTS = [
    "0",
    "0.00",
    "1",
    "10",
    "01",
    "00.1",
    "0.1",
    "1.",
    ".1",
    ".",
    "1..2",
    "1.2.3",
    "12.34",
    "999999999999999",
    "9999999999999999",
] + [
    "99999999999999999",
    "0.00000000000001",
    "123456789.123456",
    "12345678.12345678",
    "1234567.12345678",
    "1e3",
    "-1",
    "1 ",
]
SIZES = (0, 1, 2, 3, 12, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 129)

NEEDED = {"avx512f", "avx512vl", "avx512bw", "avx512dq", "bmi1", "bmi2", "popcnt"}  # as /proc/cpuinfo calls them

processor_can = read_after(LINE, LINE, quickly=True)[0] >= 0


def same(before: bytes, text: bytes) -> bool:
    """Was it read by its shape? What is made of it is the same both ways."""
    taken, quickly = read_after(before, text, quickly=True)
    assert quickly == read_after(before, text, quickly=False)[1], text
    return taken == 1


def same_as_the_twin(before: bytes, text: bytes) -> None:
    """The twin judges it likewise; canonical form and id are the same."""
    said = read_after(before, text, quickly=True)[1]
    judged = twin.judge(text)
    if isinstance(judged, twin.Refusal):
        assert not said.startswith(b"code 0,"), text
    else:
        assert said.startswith(b"code 0,"), text
        assert b"\ncanonical %d %b\n" % (len(judged.content), judged.content) in said, text


def exchanged(line: bytes, **members: str) -> bytes:
    """The line with other values, in the same form otherwise."""
    found = json.loads(line)
    for name, value in members.items():
        line = line.replace(b'"%b"' % found[name].encode(), b'"%b"' % value.encode())
    return line


def lines_with(name: str, value: str) -> Iterator[bytes]:
    for shape in SHAPES:
        if name in json.loads(shape):
            yield exchanged(shape, **{name: value})


def test_it_is_read_so_on_every_processor_that_can() -> None:
    """Else all tests of this file would pass where nothing is read by its shape."""
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    assert processor_can == (set(flags.split()) >= NEEDED)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_line_of_the_same_shape_is_read_by_it(shape: bytes) -> None:
    assert same(shape, shape) == processor_can
    other = exchanged(shape, id="another-9", debit="D-1", credit="c:" + "9" * 60, amount="98765432.10")
    assert same(shape, other) == processor_can
    same_as_the_twin(shape, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_byte_as_every_other(shape: bytes) -> None:
    for at in range(len(shape)):
        for byte in range(256):
            same(shape, shape[:at] + bytes([byte]) + shape[at + 1 :])
        same(shape, shape[:at] + shape[at + 1 :])
        for byte in b'"\\,:{} a0\n\xc3':
            same(shape, shape[:at] + bytes([byte]) + shape[at:])
        same(shape, shape[:at])
        same(shape, shape[at:])


def test_every_byte_as_the_twin_has_it() -> None:
    for at in range(len(LINE)):
        for byte in b'"\\,: .az0Z~_-/\x00\n\x7f\x80\xff':
            same_as_the_twin(LINE, LINE[:at] + bytes([byte]) + LINE[at + 1 :])


@pytest.mark.parametrize("amount", AMOUNTS)
def test_amounts(amount: str) -> None:
    for line in lines_with("amount", amount):
        for shape in SHAPES:
            same(shape, line)
            same_as_the_twin(shape, line)


@pytest.mark.parametrize("size", SIZES)
def test_lengths(size: int) -> None:
    for name in ("id", "debit", "credit", "currency", "reference"):
        for letter in ("X", "9", "~", " ", "é", "\x7f"):
            for line in lines_with(name, letter * size):
                for shape in SHAPES:
                    same(shape, line)
                same_as_the_twin(LINE, line)


def test_both_accounts_the_same() -> None:
    for shape in SHAPES:
        for name in ("a", "b" * 63, "c" * 64):
            line = exchanged(shape, debit=name, credit=name)
            assert not same(shape, line)
            same_as_the_twin(shape, line)


def test_parts_of_a_line() -> None:
    for size in range(1, len(LINE)):
        same(LINE, LINE[:size])
        same(LINE[:size], LINE)


values = st.text(st.characters(codec="utf-8"), max_size=70) | st.sampled_from(
    ["a", "b", "1.00", "EUR", "transfer", "p-1"]
)
known = st.sampled_from(["type", "id", "debit", "credit", "amount", "currency", "reference", "effective"])
members = st.lists(st.tuples(known, values), max_size=9)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SHAPES), members, st.sampled_from(["", " "]))
def test_any_members_in_any_order(shape: bytes, found: list[tuple[str, str]], space: str) -> None:
    text = (
        "{"
        + ",".join(f"{json.dumps(name)}{space}:{json.dumps(value, ensure_ascii=False)}" for name, value in found)
        + "}"
    )
    same(shape, text.encode())
    same(text.encode(), shape)
    same(text.encode(), text.encode())
    same_as_the_twin(shape, text.encode())
