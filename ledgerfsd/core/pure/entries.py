"""Rendering of entries: what each kind says and how its bytes look (docs/FORMAT.md, sections 2, 4, 5 and 7).

An entry is built as a dict of JSON values and rendered by ``canonical.dump``. Nothing here knows
the state; ``book.py`` supplies the totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...clock import format_time
from ...money import format_amount
from ...types import Account
from .canonical import dump

Json = Any  # a JSON value as Python has it: dict, list, str, int, bool, None

GENESIS: Final = "genesis/1"
ACCOUNT: Final = "account/1"
TXN: Final = "txn/1"
HOLD: Final = "hold/1"
POST: Final = "post/1"
VOID: Final = "void/1"
UPDATE: Final = "account.update/1"
POLICY: Final = "policy/1"
REJECTED: Final = "rejected/1"
KEY: Final = "key/1"
ANCHOR: Final = "anchor/1"
RESTORE: Final = "restore/1"
SEAL: Final = "seal/1"

BOOKED: Final = ("credits", "debits")
HELD: Final = ("held_credits", "held_debits")


def given(**members: Json) -> dict[str, Json]:
    """Those of the members that are not None: an optional member that was not given does not stand in the entry."""
    return {name: value for name, value in members.items() if value is not None}


def entry(kind: str, index: int, time_ns: int, members: Mapping[str, Json]) -> bytes:
    """The bytes of an entry."""
    return dump({"t": kind, "index": index, "time": format_time(time_ns), **members})


def posting(account: Account, side: str, amount: int, prev: int, totals: Iterable[str]) -> dict[str, Json]:
    """One posting. ``account`` is as this posting left it, ``totals`` names those of its totals that are shown."""
    shown = {name: format_amount(getattr(account, name), account.decimals) for name in totals}
    return {
        "account": account.name,
        "amount": format_amount(amount, account.decimals),
        "currency": account.currency,
        "prev": prev,
        "side": side,
        **shown,
    }


def transaction_name(number: int) -> str:
    """``tx_0042``: the name under which a transaction is found, and reversed."""
    return f"tx_{number:04}"


def opening_id(account: str) -> str:
    """The id of the transaction that brings in an account's initial balance."""
    return f"~opening:{account}"


def opening_equity(currency: str) -> str:
    """The name of the account against which initial balances are booked."""
    return f"equity:opening:{currency}"


def opening_equity_id(currency: str) -> str:
    """The id of the entry by which the ledger itself opens that account."""
    return f"~open:{opening_equity(currency)}"


def expiry_id(hold_index: int) -> str:
    """The id of the ``void/1`` that ends an expired hold."""
    return f"~expire:{hold_index}"
