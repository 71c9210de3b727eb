"""Money: decimal strings outside, unsigned minor units inside (docs/FORMAT.md, section 5). Nothing is ever rounded.

Start at ``parse`` and ``format_amount``. ``ISO`` is the vendored table of ISO 4217, ``data/currencies.tsv``;
the hash of its bytes stands in the genesis entry, so a ledger knows by which table its amounts were judged.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final, NamedTuple

from .limits import AMOUNT_MAX

_AMOUNT: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_CURRENCY: Final = re.compile(r"[A-Z][A-Z0-9]{2,11}")
_AMOUNT_DIGITS_MAX: Final = len(str(AMOUNT_MAX))


class Currency(NamedTuple):
    """One row of the currency table."""

    code: str
    decimals: int
    name: str


class Decimal(NamedTuple):
    """An amount as written: ``minor`` is its digits without the point, ``decimals`` how many of them stood behind it.

    It is money only once ``decimals`` is found to be that of the currency.
    """

    minor: int  # AMOUNT_MAX + 1 stands for everything larger
    decimals: int


def _load() -> tuple[bytes, dict[str, Currency]]:
    data = resources.files("ledgerfsd").joinpath("data/currencies.tsv").read_bytes()
    table: dict[str, Currency] = {}
    for row in data.decode("utf-8").splitlines()[1:]:
        code, decimals, name = row.split("\t")
        table[code] = Currency(code, int(decimals), name)
    return data, table


TABLE_BYTES, ISO = _load()


def is_currency(text: str) -> bool:
    """Whether ``text`` has the form of a currency code. It need not be known."""
    return _CURRENCY.fullmatch(text) is not None


def read(text: str) -> Decimal | None:
    """The amount that ``text`` writes, whatever its currency; None when it is not an unsigned plain decimal."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        return None
    fraction = match[2] or ""
    digits = (match[1] + fraction).lstrip("0")
    # A number of some thousand digits is refused by int() itself; its value does not matter, it is too large.
    minor = int(digits or "0") if len(digits) <= _AMOUNT_DIGITS_MAX else AMOUNT_MAX + 1
    return Decimal(min(minor, AMOUNT_MAX + 1), len(fraction))


def parse(text: str, decimals: int) -> int:
    """Minor units of an amount that must have exactly ``decimals`` decimals.

    Raises ValueError when it is not an amount, has other decimals, or exceeds 2^128-1 minor units.
    """
    amount = read(text)
    if amount is None:
        raise ValueError(f"{text!r} is not an amount such as {format_amount(1250, decimals)!r}")
    if amount.decimals != decimals:
        raise ValueError(f"{text!r} has {amount.decimals} decimals instead of {decimals}")
    if amount.minor > AMOUNT_MAX:
        raise ValueError(f"{text!r} is more than 2^128-1 minor units")
    return amount.minor


def format_amount(minor: int, decimals: int) -> str:
    """The one way to write ``minor`` (not negative) units of a currency with ``decimals`` decimals."""
    if minor < 0:
        raise ValueError(f"{minor} is negative; only signed amounts are")
    if decimals == 0:
        return str(minor)
    digits = str(minor).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def format_signed(minor: int, decimals: int) -> str:
    """A signed amount, as rendered files show balances: an optional ``-``, never on zero."""
    return ("-" if minor < 0 else "") + format_amount(abs(minor), decimals)


def parse_signed(text: str, decimals: int) -> int:
    """Minor units of a signed amount. Raises ValueError as ``parse`` does, and on a negative zero."""
    if not text.startswith("-"):
        return parse(text, decimals)
    minor = parse(text[1:], decimals)
    if minor == 0:
        raise ValueError(f"{text!r} is a negative zero")
    return -minor
