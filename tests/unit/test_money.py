"""Amounts, signed amounts, the currency table; dates and times (docs/FORMAT.md, section 5)."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ledgerfsd
from ledgerfsd import clock, money
from ledgerfsd.limits import AMOUNT_MAX

decimals = st.integers(0, 18)
DAY_NS = 86_400 * 10**9


# -- amounts


@pytest.mark.parametrize(
    ("text", "places", "minor"),
    [
        ("0", 0, 0),
        ("1200", 0, 1200),
        ("0.00", 2, 0),
        ("0.01", 2, 1),
        ("12.30", 2, 1230),
        ("1.234", 3, 1234),
        ("1.000000000000000001", 18, 10**18 + 1),
        ("340282366920938463463374607431768211455", 0, 2**128 - 1),
        ("3402823669209384634633746074317682114.55", 2, 2**128 - 1),
    ],
)
def test_amounts_are_read_and_written(text: str, places: int, minor: int) -> None:
    assert money.parse(text, places) == minor
    assert money.format_amount(minor, places) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1.00",
        "+1.00",
        "01.00",
        "00.00",
        ".50",
        "1.",
        "1,00",
        "1.0.0",
        "1e2",
        " 1.00",
        "1.00\n",
        "1_0.00",
        "0x1",
        "\u221e",
        "\u0661.00",
        "\uff11.00",
        "1.0\u00b2",
        "NaN",
        "1.00\u00a0",
    ],
)
def test_what_is_no_amount(text: str) -> None:
    assert money.read(text) is None
    with pytest.raises(ValueError, match="is not an amount"):
        money.parse(text, 2)


@pytest.mark.parametrize(("text", "places"), [("1", 2), ("1.0", 2), ("1.000", 2), ("1.0", 0), ("0", 3)])
def test_the_number_of_decimals_is_exact(text: str, places: int) -> None:
    with pytest.raises(ValueError, match="decimals instead of"):
        money.parse(text, places)


@pytest.mark.parametrize("text", ["340282366920938463463374607431768211456", "9" * 40, "9" * 9999])
def test_amounts_above_the_largest(text: str) -> None:
    assert money.read(text) == money.Decimal(AMOUNT_MAX + 1, 0)
    with pytest.raises(ValueError, match="more than 2"):
        money.parse(text, 0)


def test_many_zeros_are_still_zero() -> None:
    assert money.read("0." + "0" * 9999) == money.Decimal(0, 9999)
    assert money.read("0." + "0" * 9998 + "7") == money.Decimal(7, 9999)


@given(st.integers(0, AMOUNT_MAX), decimals)
def test_every_amount_has_one_text(minor: int, places: int) -> None:
    text = money.format_amount(minor, places)
    assert money.parse(text, places) == minor
    assert money.read(text) == money.Decimal(minor, places)


@given(st.text(alphabet="0123456789.", max_size=50), decimals)
def test_one_text_of_every_amount(text: str, places: int) -> None:
    try:
        minor = money.parse(text, places)
    except ValueError:
        return
    assert money.format_amount(minor, places) == text


def test_negative_amounts_are_not_written_unsigned() -> None:
    with pytest.raises(ValueError, match="negative"):
        money.format_amount(-1, 2)


# -- signed amounts


@pytest.mark.parametrize(("minor", "text"), [(0, "0.00"), (-1, "-0.01"), (-1230, "-12.30"), (5, "0.05")])
def test_signed_amounts(minor: int, text: str) -> None:
    assert money.format_signed(minor, 2) == text
    assert money.parse_signed(text, 2) == minor


@pytest.mark.parametrize("text", ["-0.00", "--1.00", "-", "-1", "+1.00"])
def test_what_is_no_signed_amount(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'"):
        money.parse_signed(text, 2)


@given(st.integers(-AMOUNT_MAX, AMOUNT_MAX), decimals)
def test_signed_amounts_come_back(minor: int, places: int) -> None:
    assert money.parse_signed(money.format_signed(minor, places), places) == minor


# -- currencies


def test_the_currency_table() -> None:
    assert money.ISO["EUR"].decimals == 2
    assert money.ISO["JPY"].decimals == 0
    assert money.ISO["BHD"].decimals == 3
    assert money.ISO["CLF"].decimals == 4
    assert len(money.ISO) == len(money.TABLE_BYTES.splitlines()) - 1
    assert all(money.is_currency(code) and 0 <= unit.decimals <= 4 for code, unit in money.ISO.items())


def test_the_hash_of_the_currency_table_is_that_of_the_file() -> None:
    path = Path(ledgerfsd.__file__).parent / "data" / "currencies.tsv"
    assert hashlib.sha256(money.TABLE_BYTES).digest() == hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.parametrize(("text", "good"), [("EUR", True), ("A0B1C2D3E4F5", True), ("EU", False), ("eur", False)])
def test_currency_codes(text: str, good: bool) -> None:
    assert money.is_currency(text) == good
    assert not money.is_currency(text + "\n")


# -- dates and times


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.1Z", 10**8),
        ("2026-11-23T08:08:53.123456789Z", 1795421333123456789),
        ("2000-02-29T23:59:59Z", 951868799 * 10**9),
        ("2199-12-31T23:59:59.999999999Z", 7258118400 * 10**9 - 1),
    ],
)
def test_times_are_read(text: str, time_ns: int) -> None:
    assert clock.parse_time(text) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23",
        "2026-11-23T08:08:53",
        "2026-11-23 08:08:53Z",
        "2026-11-23t08:08:53z",
        "2026-11-23T08:08:53+00:00",
        "2026-11-23T08:08:53.Z",
        "2026-11-23T08:08:53.1234567890Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T08:60:00Z",
        "2026-11-23T08:08:60Z",
        "2026-02-29T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "2026-11-23T08:08:53Z\n",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        clock.parse_time(text)


@given(st.integers(0, 7258118400 * 10**9 - 1))
def test_times_come_back(time_ns: int) -> None:
    text = clock.format_time(time_ns)
    assert len(text) == 30
    assert clock.parse_time(text) == time_ns
    seconds, nanoseconds = divmod(time_ns, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    assert text == f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("0001-01-01", True),
        ("9999-12-31", True),
        ("2024-02-29", True),
        ("2000-02-29", True),
        ("1900-02-29", False),
        ("2026-02-29", False),
        ("0000-12-31", False),
        ("2026-00-01", False),
        ("2026-13-01", False),
        ("2026-04-31", False),
        ("2026-4-3", False),
        ("20260403", False),
        ("2026-04-03\n", False),
        ("\uff12026-04-03", False),
    ],
)
def test_dates(text: str, good: bool) -> None:
    assert clock.is_date(text) == good


def test_the_day_of_a_time() -> None:
    assert clock.format_date(0) == "1970-01-01"
    assert clock.format_date(DAY_NS - 1) == "1970-01-01"
    assert clock.format_date(DAY_NS) == "1970-01-02"


def test_clocks() -> None:
    manual = clock.ManualClock(5)
    manual.advance(7)
    assert manual.now_ns() == 12
    manual.set(3)
    assert manual.now_ns() == 3
    before = clock.SystemClock().now_ns()
    assert before <= clock.SystemClock().now_ns()
    assert before > 1_700_000_000 * 10**9
