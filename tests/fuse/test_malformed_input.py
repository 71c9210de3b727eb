"""Input of every wrong kind through the mount: refused with its own code, the ledger as it was.

What the answer must be, the twin in plain Python says, which shares nothing with the core but the specification. Here is
what it cannot say: which call fails and with which errno, that the receipt is readable, and that the daemon is unharmed.
"""

from __future__ import annotations

import errno
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from ledgerfsd.errors import BY_NAME
from ledgerfsd.types import Mode
from tests.conftest import REPOSITORY
from tests.fuse.conftest import Mounted, until
from tests.fuse.feeding import (
    FIRST_CODE_OF_STATE,
    Answer,
    Fed,
    State,
    Twin,
    answers,
    feed,
    healthy,
    pieces_of,
)

SUITE = sorted((REPOSITORY / "tests/vectors/json-parsing-testsuite/test_parsing").glob("*.json"))
GOOD = b'{"debit":"acc_001","credit":"acc_002","amount":"1.00"}'
INTENT_BYTES_MAX = 49_152


class Case(NamedTuple):
    """A document, and the code with which it is refused."""

    data: bytes
    code: str


def transfer(**members: str) -> bytes:
    return json.dumps({"debit": "acc_001", "credit": "acc_002", "amount": "1.00"} | members).encode()


def padded(size: int) -> bytes:
    """A good intent of exactly so many bytes, most of them white space inside."""
    return GOOD[:1] + b" " * (size - len(GOOD)) + GOOD[1:]


def nested(levels: int) -> bytes:
    """A transfer with brackets nested so deep, its own among them."""
    inside = b"[" * (levels - 2) + b"]" * (levels - 2)
    return GOOD[:-1] + b',"metadata":{"a":' + (inside or b"1") + b"}}"


def number(text: str) -> bytes:
    return GOOD[:-1] + b',"metadata":{"n":' + text.encode() + b"}}"


def postings(count: int) -> bytes:
    sides = [
        {"account": f"acc_00{1 + n % 2}", "side": ("debit", "credit")[n % 2], "amount": "0.01"} for n in range(count)
    ]
    return json.dumps({"postings": sides, "type": "transaction"}).encode()


CASES = {
    "white-space": Case(b" \t\r\n\n", "empty"),
    "null": Case(b"null", "not_an_object"),
    "string": Case(b'"pay"', "not_an_object"),
    "number": Case(b"12", "not_an_object"),
    "array-of-numbers": Case(b"[1,2]", "not_an_object"),
    "empty-array": Case(b"[ ]", "empty_batch"),
    "empty-object": Case(b"{}", "missing_field"),
    "byte-order-mark": Case(b"\xef\xbb\xbf" + GOOD, "bad_json"),
    "utf-16": Case(GOOD.decode().encode("utf-16"), "bad_json"),
    "nul-bytes": Case(bytes(4096), "bad_json"),
    "nul-behind": Case(GOOD + b"\0", "bad_json"),
    "program": Case(Path("/bin/true").read_bytes()[:100_000], "bad_json"),
    "random": Case(random.Random(2).randbytes(40_000), "bad_json"),
    "random-and-large": Case(random.Random(3).randbytes(70_000), "too_large"),
    "yaml": Case(b"debit: acc_001\ncredit: acc_002\namount: 1.00\n", "bad_json"),
    "csv": Case(b"debit,credit,amount\nacc_001,acc_002,1.00\n", "bad_json"),
    "single-quotes": Case(GOOD.replace(b'"', b"'"), "bad_json"),
    "comment": Case(b"/* pay */" + GOOD, "bad_json"),
    "trailing-comma": Case(GOOD[:-1] + b",}", "bad_json"),
    "two-objects": Case(GOOD + GOOD, "bad_json"),
    "object-then-text": Case(GOOD + b" now", "bad_json"),
    "nan": Case(number("NaN"), "bad_json"),
    "control-character": Case(transfer()[:-1] + b',"reference":"a\x01b"}', "bad_json"),
    "truncated-object": Case(GOOD[:-1], "incomplete"),
    "truncated-array": Case(b"[" + GOOD + b",", "incomplete"),
    "truncated-escape": Case(GOOD[:-1] + b',"reference":"\\u00', "incomplete"),
    "truncated-utf-8": Case(GOOD[:-1] + b',"reference":"\xc3', "incomplete"),
    "one-byte-too-large": Case(padded(INTENT_BYTES_MAX + 1), "too_large"),
    "much-too-large": Case(padded(4_000_000), "too_large"),
    "too-large-and-not-closed": Case(padded(900_000)[:-1], "too_large"),
    "too-large-in-an-array": Case(b"[" + GOOD + b"," + padded(INTENT_BYTES_MAX + 1) + b"]", "too_large"),
    "too-many-intents": Case(b"[" + b",".join([GOOD] * 8193) + b"]", "too_many_intents"),
    "level-17": Case(nested(17), "too_deep"),
    "level-20000": Case(nested(20_000), "too_deep"),
    "level-a-million-open": Case(b"[" * 1_000_000, "too_deep"),
    "duplicate": Case(GOOD[:-1] + b',"amount":"9.00"}', "duplicate_key"),
    "duplicate-escaped": Case(GOOD[:-1] + b',"\\u0061mount":"9.00"}', "duplicate_key"),
    "duplicate-deep": Case(GOOD[:-1] + b',"metadata":{"a":{"b":1,"b":1}}}', "duplicate_key"),
    "bad-utf-8": Case(GOOD[:-1] + b',"reference":"\xff"}', "bad_utf8"),
    "overlong-utf-8": Case(GOOD[:-1] + b',"reference":"\xc0\xaf"}', "bad_utf8"),
    "surrogate-utf-8": Case(GOOD[:-1] + b',"reference":"\xed\xa0\x80"}', "bad_utf8"),
    "unpaired-surrogate": Case(GOOD[:-1] + b',"reference":"\\ud800x"}', "bad_utf8"),
    "float": Case(GOOD.replace(b'"1.00"', b"1.00"), "bad_number"),
    "exponent": Case(number("1e3"), "bad_number"),
    "minus-zero": Case(number("-0"), "bad_number"),
    "two-to-the-53": Case(number(str(2**53)), "bad_number"),
    "huge-integer": Case(number("9" * 15_000), "bad_number"),
    "huge-exponent": Case(number("1e" + "9" * 10_000), "bad_number"),
    "unknown-type": Case(b'{"type":"gift","account":"acc_001"}', "unknown_type"),
    "unknown-field": Case(transfer(memo="x"), "unknown_field"),
    "thousands-of-unknown-fields": Case(
        GOOD[:-1] + b"".join(b',"f%d":%d' % (n, n) for n in range(3_000)) + b"}", "unknown_field"
    ),
    "missing-amount": Case(b'{"debit":"acc_001","credit":"acc_002"}', "missing_field"),
    "integer-amount": Case(GOOD.replace(b'"1.00"', b"1"), "wrong_kind"),
    "bad-id": Case(transfer(id="~mine"), "bad_id"),
    "bad-account-name": Case(transfer(debit="../acc_001"), "bad_account_name"),
    "negative": Case(transfer(amount="-1.00"), "bad_amount"),
    "thousands-separator": Case(transfer(amount="1,000.00"), "bad_amount"),
    "leading-zero": Case(transfer(amount="01.00"), "bad_amount"),
    "arabic-digits": Case(transfer(amount="\u0661.00"), "bad_amount"),
    "zero": Case(transfer(amount="0.00"), "zero_amount"),
    "beyond-128-bits": Case(transfer(amount=str(2**128)), "amount_overflow"),
    "amount-of-9000-digits": Case(transfer(amount="9" * 9_000), "amount_overflow"),
    "lower-case-currency": Case(transfer(currency="eur"), "bad_currency"),
    "30-february": Case(transfer(effective="2026-02-30"), "bad_date"),
    "to-itself": Case(transfer(credit="acc_001"), "same_account"),
    "large-metadata": Case(GOOD[:-1] + b',"metadata":{"x":"' + b"y" * 16_400 + b'"}}', "bad_metadata"),
    "201-postings": Case(postings(201), "too_many_postings"),
    "1-posting": Case(postings(1), "too_few_postings"),
}
# Well-formed, and refused by the state: an entry in the log each, but nothing moves.
REFUSED = {
    "unknown-account": Case(transfer(credit="acc_999"), "unknown_account"),
    "unknown-currency": Case(transfer(currency="XYZ"), "unknown_currency"),
    "currency-of-another": Case(transfer(currency="USD"), "currency_mismatch"),
    "too-many-decimals": Case(transfer(amount="1.000"), "wrong_decimals"),
    "too-few-decimals": Case(transfer(amount="1"), "wrong_decimals"),
    "beyond-the-balance": Case(transfer(amount="100000.01"), "insufficient_funds"),
    "unknown-hold": Case(b'{"type":"post","hold":"none"}', "unknown_hold"),
    "unknown-transaction": Case(b'{"type":"reverse","of":"tx_9999"}', "unknown_transaction"),
    "account-exists": Case(
        b'{"type":"open_account","account":"acc_001","currency":"EUR","class":"equity"}', "account_exists"
    ),
    "unbalanced": Case(postings(3), "unbalanced"),
    "largest-amount": Case(transfer(amount=f"{(2**128 - 1) // 100}.{(2**128 - 1) % 100:02}"), "balance_overflow"),
}


@pytest.fixture(scope="module")
def twin() -> Twin:
    return Twin()


@pytest.mark.parametrize("name", CASES)
def test_malformed_document(shared: Mounted, twin: Twin, name: str) -> None:
    before = State.of(shared)
    data, code = CASES[name]
    fed = feed(shared / f"inbox/{name}.json", [data])
    assert fed.errno == BY_NAME[code].errno, fed
    assert fed.call == ("close" if code in ("incomplete", "empty") else fed.call)
    found = answers(shared.receipt(f"{name}.json"))
    assert code in [answer.code for answer in found]
    assert found == twin.answers(f"{name}.json", data, Mode.DOCUMENT)
    assert State.of(shared) == before
    healthy(shared)


@pytest.mark.parametrize("name", REFUSED)
def test_document_refused_by_the_state(shared: Mounted, twin: Twin, name: str) -> None:
    before = State.of(shared)
    data, code = REFUSED[name]
    assert BY_NAME[code].number >= FIRST_CODE_OF_STATE
    fed = feed(shared / f"inbox/{name}.json", [data])
    assert fed == Fed(BY_NAME[code].errno, "write", 0)
    found = answers(shared.receipt(f"{name}.json"))
    assert found == twin.answers(f"{name}.json", data, Mode.DOCUMENT)
    assert found[0].code == code
    before.entries += 1  # the rejection
    assert State.of(shared) == before
    healthy(shared)


def test_largest_intents_that_are_taken(shared: Mounted, twin: Twin) -> None:
    before = State.of(shared)
    largest = {"48-kib.json": padded(INTENT_BYTES_MAX), "level-16.json": nested(16), "200.json": postings(200)}
    largest["2-to-the-53.json"] = number(str(2**53 - 1))
    largest["space.json"] = b" " * 100_000 + GOOD + b"\n" * 100_000  # white space around it does not count
    for name, data in largest.items():
        assert feed(shared / f"inbox/{name}", [data]) == Fed(0, "", len(data)), name
        assert [answer.code for answer in answers(shared.receipt(name))] == ["ok"]
        assert twin.answers(name, data, Mode.DOCUMENT) == answers(shared.receipt(name))
    assert shared.transactions() == before.transactions + len(largest)


def test_empty_file(shared: Mounted) -> None:
    """touch must work, so close() says nothing; the receipt does."""
    before = State.of(shared)
    assert feed(shared / "inbox/nothing.json", []) == Fed(0, "", 0)
    until((shared / "receipts/nothing.json").exists)
    assert [answer.code for answer in answers(shared.receipt("nothing.json"))] == ["empty"]
    assert State.of(shared) == before
    healthy(shared)


def test_truncated_at_every_byte(shared: Mounted, twin: Twin) -> None:
    data = b'{"debit":"acc_001","credit":"acc_002","amount":"1.00","metadata":{"a":[-12,true,"\\ud834\\udd1e \xe2\x82\xac"]}}'
    before = State.of(shared)
    for size in range(1, len(data)):
        name = f"cut-{size}.json"
        assert feed(shared / "inbox" / name, [data[:size]]) == Fed(errno.EBADMSG, "close", size)
        assert answers(shared.receipt(name)) == twin.answers(name, data[:size], Mode.DOCUMENT)
    assert State.of(shared) == before
    healthy(shared)


@pytest.mark.parametrize("way", ["document", "lines", "renamed"])
def test_json_parsing_testsuite(shared: Mounted, way: str) -> None:
    """All files of github.com/nst/JSONTestSuite: as documents, as lines, and renamed into the inbox."""
    assert len(SUITE) == 318
    twin, before, wrong = Twin(), State.of(shared), []
    mode, ending = (Mode.EACH, "ndjson") if way == "lines" else (Mode.DOCUMENT, "json")
    for path in SUITE:
        data, name = path.read_bytes(), f"{way}-{path.stem}.{ending}"
        expected = twin.answers(name, data, mode)
        # A file without a byte can be closed, and so can one of empty lines; the receipt says that there was nothing.
        nothing = not expected or (not data and way != "renamed")
        fed = renamed(shared, name, data) if way == "renamed" else feed(shared / "inbox" / name, [data])
        until((shared / "receipts" / name).exists)
        found = answers(shared.receipt(name))
        if found != (expected or [Answer(1, "empty")]) or (fed.errno == 0) != nothing:
            wrong.append((name, fed, found, expected))
    assert not wrong, wrong
    assert State.of(shared) == before
    healthy(shared)


def test_json_parsing_testsuite_byte_by_byte(shared: Mounted) -> None:
    """The verdict comes with the byte that decides it, and the writer goes on as if nothing had been said."""
    before = State.of(shared)
    for path in SUITE:
        data, name = path.read_bytes(), f"bytes-{path.stem}.json"
        fed = feed(shared / "inbox" / name, pieces_of(data, 1 + len(data) // 2_000), stubborn=True)
        until((shared / "receipts" / name).exists)
        assert (fed.errno == 0) == (not data), name
        assert "ok" not in [answer.code for answer in answers(shared.receipt(name))], name
    assert State.of(shared) == before
    healthy(shared)


def renamed(shared: Mounted, name: str, data: bytes) -> Fed:
    scratch = shared / f"inbox/.{name}"
    assert feed(scratch, [data]) == Fed(0, "", len(data))
    try:
        scratch.rename(shared / f"inbox/{name}")
    except OSError as error:
        scratch.unlink()
        return Fed(error.errno or 0, "rename", len(data))
    return Fed(0, "", len(data))


def mixed_lines(count: int) -> bytes:
    """Good payments, refusals of both kinds, empty lines and rubbish, in random order."""
    chance = random.Random(5)
    wrong = [case.data for case in CASES.values() if b"\n" not in case.data and len(case.data) < 3_000]
    wrong += [case.data for case in REFUSED.values()]
    found = []
    for position in range(count):
        kind = chance.randrange(10)
        if kind < 6:
            found.append(transfer(amount=f"0.{position % 99 + 1:02}"))
        elif kind < 7:
            found.append(chance.choice([b"", b"  \t\r", b" " * 5_000 + b'{"a":01}', GOOD + b" " * 60_000]))
        else:
            found.append(chance.choice(wrong))
    return b"\n".join(found) + b"\n" + GOOD[:-1]  # and the last line is cut off


@pytest.mark.parametrize("size", [777, 4_096, 131_072, 1_048_576])
def test_lines_of_mixed_validity(ledger: Mounted, size: int) -> None:
    """Good lines stand, each other one is answered under its own number, however the writer cuts the file."""
    twin = Twin()
    data = mixed_lines(4_000)
    fed = feed(ledger / "inbox/mixed.ndjson", pieces_of(data, size), stubborn=True)
    assert fed.errno in {BY_NAME[code].errno for code in ("bad_json", "insufficient_funds", "unknown_account", "empty")}
    found = answers(ledger.receipt("mixed.ndjson"))
    expected = twin.answers("mixed.ndjson", data, Mode.EACH)
    assert [str(answer) for answer in found] == [str(answer) for answer in expected]
    assert found[-1].code == "incomplete"
    assert State.of(ledger).entries == twin.entries() + 1  # the mount has recorded its key
    for name in ("acc_001", "acc_002"):
        account = twin.ledger.account(name)
        balance = account.credits - account.debits
        assert ledger.balance(name)["balance"] == f"{balance // 100}.{balance % 100:02}"
    healthy(ledger)
    assert ledger.daemon.stop() == 0
    fsck = [sys.executable, "-m", "ledgerfsd.cli.main", "fsck", "--store", ledger.daemon.store]
    done = subprocess.run(fsck, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
