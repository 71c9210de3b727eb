"""Intents that follow from their ids, so that anybody can send one again as it was. Imports next to nothing: writers start often."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

ACCOUNTS: list[dict[str, Any]] = [
    {"type": "open_account", "id": "open-bank", "account": "bank", "class": "safeguarding_asset", "currency": "EUR"},
    {
        "type": "open_account",
        "id": "open-rich",
        "account": "rich",
        "class": "customer_liability",
        "currency": "EUR",
        "initial_balance": "1000000000.00",
    },
    {"type": "open_account", "id": "open-a", "account": "a", "class": "customer_liability", "currency": "EUR"},
    {"type": "open_account", "id": "open-b", "account": "b", "class": "customer_liability", "currency": "EUR"},
    {"type": "open_account", "id": "open-poor", "account": "poor", "class": "customer_liability", "currency": "EUR"},
]


def payment(name: str) -> dict[str, Any]:
    """The intent of this id. One that begins with ``no-`` asks for more than there is: insufficient_funds."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
    if name.startswith("no-"):
        return {"id": name, "debit": "poor", "credit": "a", "amount": f"{number % 1000 + 1}.00"}
    return {"id": name, "debit": "rich", "credit": "ab"[number % 2], "amount": f"0.{number % 99 + 1:02}"}


def cents(name: str) -> int:
    """The amount of a payment, in minor units."""
    return int(payment(name)["amount"].replace(".", ""))


def lines(intents: Iterable[dict[str, Any]]) -> bytes:
    """NDJSON."""
    return b"".join(json.dumps(intent).encode() + b"\n" for intent in intents)


def content(names: list[str], *, many: bool) -> bytes:
    """What a file with these payments holds: one document, or lines."""
    return lines(map(payment, names)) if many else json.dumps(payment(names[0])).encode()
