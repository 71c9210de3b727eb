"""The quick way of reading a txn/1 (verify_quick.c) takes nothing that the strict way refuses, and makes the same of what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledgerfsd.core.verifier import form_of, read_quickly
from tests.verify.support import entries_of, make

INTENT = b"0123456789abcdef" * 4


def posting(
    account: bytes = b"acc_0000001",
    amount: bytes = b"12.50",
    totals: bytes = b"9000000.00",
    currency: bytes = b"EUR",
    prev: bytes = b"123456",
    side: bytes = b"debit",
) -> bytes:
    return b'{"account":"%b","amount":"%b","credits":"%b","currency":"%b","debits":"0.00","prev":%b,"side":"%b"}' % (
        account,
        amount,
        totals,
        currency,
        prev,
        side,
    )


def entry(
    *postings: bytes,
    id_: bytes = b"p-0000000001",
    index: bytes = b"327168",
    reference: bytes | None = b"invoice 7 (of 9)",
    tx: bytes = b"163572",
    type_: bytes = b"transfer",
) -> bytes:
    legs = b",".join(postings or (posting(), posting(b"A:b.c_d-9", side=b"credit")))
    said = b"" if reference is None else b',"reference":"%b"' % reference
    return (
        b'{"id":"%b","index":%b,"intent":"%b","postings":[%b]%b,"t":"txn/1","time":"2026-11-26T18:19:15.425777661Z","tx":%b,"type":"%b"}'
        % (id_, index, INTENT, legs, said, tx, type_)
    )


def at_the_limits() -> Iterator[tuple[bytes, bool]]:
    """Entries, and whether they have the form of one: lengths and values on both sides of what is allowed, or of what is read quickly."""
    yield entry(reference=None), True
    for type_, good in ((b"transaction", True), (b"opening", True), (b"reversal", False), (b"transfers", False)):
        yield entry(type_=type_), good
    for size in (1, 15, 16, 17, 32, 127, 128, 129, 144):
        yield entry(id_=b"i" * size), size <= 128
        yield entry(id_=b"~" * size), size <= 128
    for size in (1, 15, 16, 17, 63, 64, 65, 80):
        yield entry(posting(b"n" * size), posting()), size <= 64
    for size in (1, 16, 255, 256, 257, 272):
        yield entry(reference=b"r" * size), size <= 256
    for name in (b"", b".a", b"_a", b":a", b"-a", b"0", b"Z:", b"a@", b"a[", b"a`", b"a{", b"a/", b"a;", b"a\xe1"):
        yield entry(posting(name), posting()), name in {b"0", b"Z:"}
    for reference, good in ((b"", False), (b"\xc3\xa4", True), (b'\\"', True), (b"\\u0007", False), (b"\x7f", False)):
        yield entry(reference=reference), good
    for digits in range(1, 20):
        number = b"1234567890123456789"[:digits]
        good = int(number) < 2**53
        yield entry(index=number), good
        yield entry(tx=number), good
        yield entry(posting(prev=number), posting()), good
        yield entry(index=b"0" + number), False
        for fraction in (b"", b".", b".0", b".12", b".123", b".12345678", b".123456789", b".123456789012345678"):
            yield entry(posting(amount=number + fraction), posting()), fraction != b"."
            yield entry(posting(totals=b"0" + number + fraction), posting()), False
    for amount, good in (
        (b"0", True),
        (b"0.00", True),
        (b"00", False),
        (b"", False),
        (b".5", False),
        (b"-1.00", False),
        (b"1e5", False),
    ):
        yield entry(posting(amount=amount), posting()), good
    for currency in (b"PTS", b"EURX", b"EU2"):
        yield entry(posting(currency=currency), posting()), True
    for currency in (b"X", b"eur", b"EU", b"EuR", b"1UR"):
        yield entry(posting(currency=currency), posting()), False
    yield entry(posting()), False
    yield entry(*[posting()] * 200), True
    yield entry(*[posting()] * 201), False


def other_bytes(text: bytes) -> Iterator[bytes]:
    """Every byte as every other byte; every byte left out, doubled; everything cut short; something behind."""
    for at in range(len(text)):
        before, behind = text[:at], text[at + 1 :]
        yield before + behind
        yield before + text[at : at + 1] + text[at:]
        yield before
        for value in range(256):
            yield before + bytes([value]) + behind
    for end in (b"}", b" ", b"\0", b",", b"\n"):
        yield text + end


def check_with_other_bytes(read: Callable[[bytes], int], sample: bytes) -> None:
    """A reader takes the sample, and reads nothing else than the strict way of what it takes of the others."""
    assert read(sample) == 1
    taken = 0
    for text in other_bytes(sample):
        how = read(text)
        assert how >= 0, text
        taken += how
    assert taken > 4_000, "only ids, texts, names, numbers and hashes can be others"


SAMPLES = (entry(), entry(reference=None, type_=b"opening"))


@pytest.mark.parametrize("sample", SAMPLES)
def test_any_byte_may_be_another(sample: bytes) -> None:
    check_with_other_bytes(read_quickly, sample)


def test_at_the_limits() -> None:
    quick = 0
    for text, good in at_the_limits():
        how = read_quickly(text)
        assert how >= 0, text
        assert (form_of(text) == "") == good, text
        assert not how or good, text
        quick += how
    assert quick > 100


def test_what_the_engine_writes_is_read_quickly(tmp_path: Path) -> None:
    """Else the quick way would be right, and of no use. What it declines is of another kind, or has a rare member."""
    ways = {0: 0, 1: 0}
    for text in entries_of(make(tmp_path / "store")):
        value, how = json.loads(text), read_quickly(text)
        ways[how] += 1
        if how == 0 and value["t"] == "txn/1":
            plain = value.keys().isdisjoint({"effective", "metadata", "reverses"})
            assert not plain or not value.get("reference", "").isascii() or "\\" in text.decode(), text
    assert ways[1] > 500
    assert ways[0] > 50
