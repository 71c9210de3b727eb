"""A forger with everything: entries are changed, dropped, moved or added, and all that follows from them is made to fit.

Indexes, transaction numbers, chains of accounts, totals, seals and hashes are worked out anew. What is left wrong is only
that the ledger would never have decided so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.verify.support import amount_text, canonical, seal_again

Entry = dict[str, Any]
TOTALS = ("debits", "credits", "held_debits", "held_credits")


def forge(entries: Sequence[bytes], change: Callable[[list[Entry]], Entry]) -> tuple[list[bytes], int]:
    """The forged log, and the index in it of the entry that `change` returned: the first that must be found at fault."""
    values: list[Entry] = [json.loads(entry) for entry in entries]
    fault = change(values)
    Restated().all(values)
    return seal_again([canonical(value) for value in values], states=False), fault["index"]


class Restated:
    """Makes what entries state besides their decisions fit together."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._totals: dict[str, dict[str, int]] = {}
        self._decimals = {"EUR": 2, "JPY": 0, "BHD": 3}
        self._held: dict[str, int] = {}
        self._moved: dict[int, int] = {}
        self._tx = self._height = self._first = 0

    def all(self, values: list[Entry]) -> None:
        """In place."""
        for index, value in enumerate(values):
            self._moved[value["index"]] = index
            value["index"] = index
            if value.get("reason") == "expired":
                value["id"] = f"~expire:{self._moved[int(value['id'].split(':')[1])]}"
            if "tx" in value:
                self._tx += 1
                value["tx"] = self._tx
            if value["t"] == "policy/1" and value["policy"] == "currency":
                self._decimals[value["currency"]] = value["decimals"]
            elif value["t"] == "account/1":
                self._last[value["account"]] = index
                self._totals[value["account"]] = dict.fromkeys(TOTALS, 0)
            elif value["t"] == "account.update/1":
                value["prev"], self._last[value["account"]] = self._last[value["account"]], index
            elif value["t"] == "seal/1":
                self._height += 1
                value.pop("state_root", None)
                value |= {"first": self._first, "count": index - self._first, "height": self._height}
                self._first = index + 1
            self._postings(index, value)

    def _postings(self, index: int, value: Entry) -> None:
        before: dict[str, int] = {}
        for posting in value.get("postings", []):
            name, decimals, totals = (
                posting["account"],
                self._decimals[posting["currency"]],
                self._totals[posting["account"]],
            )
            posting["prev"] = before.setdefault(name, self._last[name])
            amount = int(posting["amount"].replace(".", ""))
            if value["t"] in ("txn/1", "post/1"):
                totals[posting["side"] + "s"] += amount
            if value["t"] == "hold/1":
                self._held[value["id"]] = amount
            if value["t"] in ("hold/1", "post/1", "void/1"):
                totals[f"held_{posting['side']}s"] += amount if value["t"] == "hold/1" else -self._held[value["hold"]]
            posting.update({total: amount_text(totals[total], decimals) for total in TOTALS if total in posting})
        for name in before:
            self._last[name] = index
