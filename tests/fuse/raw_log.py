"""The raw log by other means than ours: segments read with ``struct``, and the amounts of a few accounts added up.

Nothing of the product is imported, and nothing that an entry states of the balances is believed: only who moved how much, when.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SEAL = b'{"count":'


class State(NamedTuple):
    """What an account had, in minor units, and the entry that made it so."""

    debits: int
    credits: int
    held_debits: int
    held_credits: int
    status: str
    index: int
    tx: int  # 0: that entry is no transaction
    time: str


class Account:
    """An account's states, each with the time from which on it held."""

    def __init__(self, opened: dict[str, Any]) -> None:
        self.name, self.currency, self.normal = opened["account"], opened["currency"], opened["normal"]
        self.times: list[str] = []
        self.states: list[State] = []
        self._now = State(0, 0, 0, 0, "open", 0, 0, "")

    def change(self, entry: dict[str, Any], **more: Any) -> None:
        """What an entry changed."""
        self._now = self._now._replace(index=entry["index"], tx=entry.get("tx", 0), time=entry["time"], **more)
        self.times.append(entry["time"])
        self.states.append(self._now)

    def add(self, entry: dict[str, Any], **amounts: int) -> None:
        """The same for amounts."""
        self.change(entry, **{name: getattr(self._now, name) + amount for name, amount in amounts.items()})

    def at(self, time: str) -> State | None:
        """As it was at a time, what was booked then included."""
        place = bisect_right(self.times, time)
        return self.states[place - 1] if place else None


class RawLog:
    """What became of the accounts whose names begin with ``prefix``."""

    def __init__(self, journal: Path, prefix: str) -> None:
        self.accounts: dict[str, Account] = {}
        self.entries = 0
        self.first = self.last = ""  # booking times
        self._seals: list[int] = []
        self._holds: dict[str, int] = {}
        mark, prefixed = f'"{prefix}'.encode(), prefix
        for index, data in enumerate(_entries(journal)):
            if data.startswith(SEAL):
                self._seals.append(index)
            elif mark in data:
                self._take(json.loads(data), prefixed)
            self.last = data[data.rindex(b'"time":"') + 8 :][:30].decode() if data.startswith(SEAL) else self.last
            self.entries = index + 1
        self.first = json.loads(next(_entries(journal)))["time"]

    def seal_of(self, index: int) -> int:
        """Height of the block of an entry."""
        return bisect_left(self._seals, index) + 1

    def _take(self, entry: dict[str, Any], prefix: str) -> None:
        kind = entry["t"]
        if kind == "account/1":
            if entry["account"].startswith(prefix):
                self.accounts[entry["account"]] = account = Account(entry)
                account.change(entry)
        elif kind == "account.update/1":
            self.accounts[entry["account"]].change(entry, status=entry["status"])
        elif kind in ("txn/1", "hold/1", "post/1", "void/1"):
            self._move(kind, entry)

    def _move(self, kind: str, entry: dict[str, Any]) -> None:
        amount = int(entry["postings"][0]["amount"].replace(".", ""))
        if kind == "hold/1":
            self._holds[entry["id"]] = amount
        reserved = 0 if kind == "txn/1" else amount if kind == "hold/1" else -self._holds.pop(entry["hold"])
        for posting in entry["postings"]:
            account = self.accounts.get(posting["account"])
            if account is None:
                continue
            side = posting["side"] + "s"
            changes = {f"held_{side}": reserved}
            if kind in ("txn/1", "post/1"):
                changes[side] = int(posting["amount"].replace(".", ""))
            account.add(entry, **changes)


def _entries(journal: Path) -> Iterator[bytes]:
    length = struct.Struct(">H").unpack_from
    for segment in sorted(journal.glob("*.seg")):
        data, place = segment.read_bytes(), 0
        while place + 2 <= len(data) and (size := length(data, place)[0]):
            yield data[place + 2 : place + 2 + size]
            place += 2 + size
