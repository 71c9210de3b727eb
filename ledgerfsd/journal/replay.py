"""Balances from the raw log alone: the amounts of the entries added up, by code that shares nothing with the projections.

Start at ``Replay.run``. What each posting states besides (totals, what is held) must be what the amounts before it come to,
debits must equal credits, and a batch counts only with its seal. Hashes are not looked at: ``ledgerfs fsck`` does.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from ledgerfsd.clock import end_of_day, end_of_month, format_time, parse_any_time, parse_day, parse_month
from ledgerfsd.errors import DamageError, LedgerError
from ledgerfsd.money import ISO, format_signed

PROGRESS_ENTRIES: Final = 4096
SEAL_PREFIX: Final = b'{"count":'  # of all kinds of entry only a seal begins so

_NUMBERED: Final = re.compile(r"(block|size|tx|digest)-([1-9][0-9]{0,18})")


class Posting(msgspec.Struct, gc=False):
    """A posting as it stands in an entry."""

    account: str
    side: str
    amount: str
    currency: str
    debits: str | None = None
    credits: str | None = None
    held_debits: str | None = None
    held_credits: str | None = None


class Entry(msgspec.Struct, gc=False):
    """An entry, as far as balances go by it."""

    t: str
    index: int
    time: str
    id: str = ""
    tx: int = 0
    postings: list[Posting] = []
    account: str = ""
    currency: str = ""
    normal: str = ""
    status: str = ""
    hold: str = ""
    policy: Any = None
    decimals: int = 0
    first: int = -1
    count: int = -1
    height: int = -1


_decoder: Final = msgspec.json.Decoder(Entry)


def decode(data: bytes) -> Entry:
    """An entry's members. Raises msgspec.MsgspecError when it is no entry."""
    return _decoder.decode(data)


class Until(NamedTuple):
    """Where a replay ends, the named entry included; ``number`` is that of a block, size or transaction."""

    kind: str  # "block" | "size" | "tx" | "time" | "end"
    number: int = 0
    time: str = ""

    @staticmethod
    def parse(text: str) -> Until | None:
        """``block-N``, ``size-N`` (as ``digest-N``), ``tx-N``, an RFC 3339 time, a day or a month (to its end, UTC). None: not such."""
        if match := _NUMBERED.fullmatch(text):
            return Until("size" if match[1] == "digest" else match[1], int(match[2]))
        try:
            return Until("time", time=format_time(_last_ns(text)))
        except ValueError:
            return None


END: Final = Until("end")


class Balance:
    """An account and what it has, in minor units."""

    __slots__ = (
        "credits", "currency", "debits", "decimals", "held_credits", "held_debits", "index", "name", "normal",
        "status", "time", "tx",
    )  # fmt: skip

    def __init__(self, name: str, currency: str, decimals: int, normal: str) -> None:
        self.name, self.currency, self.decimals, self.normal = name, currency, decimals, normal
        self.status = "open"
        self.debits = self.credits = self.held_debits = self.held_credits = 0
        self.index, self.tx, self.time = -1, 0, ""  # of its newest entry; tx 0: that is no transaction

    def text(self, seal: int) -> dict[str, Any]:
        """The members of ``balance.json``; ``seal`` is the height of its newest entry's block."""
        debit = self.normal == "debit"
        now = self.debits - self.credits if debit else self.credits - self.debits
        held = self.held_credits if debit else self.held_debits
        return {
            "account": self.name,
            "currency": self.currency,
            "balance": format_signed(now, self.decimals),
            "available": format_signed(now - held, self.decimals),
            "held": format_signed(held, self.decimals),
            "debits": format_signed(self.debits, self.decimals),
            "credits": format_signed(self.credits, self.decimals),
            "as_of": {
                "index": self.index,
                "tx": f"tx_{self.tx:04}" if self.tx else None,
                "seal": seal,
                "time": self.time,
            },
        }


class Replay:
    """The accounts after some entries."""

    def __init__(self) -> None:
        self.accounts: dict[str, Balance] = {}  # in the order of their opening
        self.size = 0  # entries applied
        self.transactions = 0
        self._decimals = {code: unit.decimals for code, unit in ISO.items()}
        self._holds: dict[str, int] = {}  # open ones: id → amount
        self._seals = array("Q")

    def run(
        self, entries: Iterable[bytes], until: Until = END, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Apply whole batches up to a point, which may lie within one. ``progress`` is told the bytes read.

        Raises DamageError naming the entry that does not follow, LedgerError when the log ends before the point.
        """
        batch: list[bytes] = []  # nothing of it is looked at before its seal has come
        done = 0
        for count, data in enumerate(entries):
            batch.append(data)
            done += 2 + len(data)
            if count % PROGRESS_ENTRIES == 0:
                progress(done)
            if data.startswith(SEAL_PREFIX):
                if self._apply(self._batch(batch), until):
                    return
                batch = []
        if until.kind not in ("end", "time"):
            raise LedgerError(
                f"there is no {until.kind} {until.number}",
                hint=f"the log has {self.size} entries, {len(self._seals)} blocks and {self.transactions} transactions",
            )

    def text(self, account: str) -> dict[str, Any]:
        """The members of an account's ``balance.json``. Raises KeyError."""
        found = self.accounts[account]
        return found.text(bisect_left(self._seals, found.index) + 1)

    @property
    def blocks(self) -> int:
        """How many whole blocks were read."""
        return len(self._seals)

    @property
    def sealed(self) -> int:
        """The entries in them."""
        return self._seals[-1] + 1 if self._seals else 0

    def _batch(self, raw: list[bytes]) -> list[Entry]:
        """The entries of a batch, whose seal is the last one."""
        first = self.sealed
        batch = []
        for index, data in enumerate(raw, first):
            try:
                batch.append(decode(data))
            except msgspec.MsgspecError as error:
                raise _damage(index, str(error)) from None
            if batch[-1].index != index:
                raise _damage(index, f"says that it is entry {batch[-1].index}")
        seal = batch[-1]
        if (seal.t, seal.first, seal.count, seal.height) != ("seal/1", first, len(raw) - 1, self.blocks + 1):
            raise _damage(seal.index, "is a seal of another batch")
        self._seals.append(seal.index)
        return batch

    def _apply(self, batch: list[Entry], until: Until) -> bool:
        """Apply a batch, or its part up to the point; whether the point was reached."""
        for entry in batch:
            if until.kind == "time" and entry.time > until.time:
                return True
            try:
                self._follow(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise _damage(entry.index, f"does not follow from the entries before: {error}") from None
            self.size += 1
            if (until.kind == "size" and self.size == until.number) or (
                until.kind == "tx" and entry.tx == until.number
            ):
                return True
        return until.kind == "block" and len(self._seals) == until.number

    def _follow(self, entry: Entry) -> None:
        if entry.t in ("txn/1", "post/1"):
            self.transactions += 1
            if entry.tx != self.transactions:
                raise ValueError(f"it should be transaction {self.transactions}")
            self._book(entry, self._holds.pop(entry.hold) if entry.t == "post/1" else 0)
        elif entry.t in ("hold/1", "void/1"):
            self._reserve(entry)
        elif entry.t == "account/1":
            if entry.account in self.accounts:
                raise ValueError(f"the account {entry.account} exists already")
            decimals = self._decimals[entry.currency]
            self.accounts[entry.account] = Balance(entry.account, entry.currency, decimals, entry.normal)
            self._touch(self.accounts[entry.account], entry)
        elif entry.t == "account.update/1":
            self.accounts[entry.account].status = entry.status
            self._touch(self.accounts[entry.account], entry)
        elif entry.t == "policy/1" and entry.policy == "currency":
            self._decimals[entry.currency] = entry.decimals

    @staticmethod
    def _touch(account: Balance, entry: Entry) -> None:
        account.index, account.tx, account.time = entry.index, entry.tx, entry.time

    def _book(self, entry: Entry, held: int) -> None:
        """txn/1, or post/1 of a hold of ``held``."""
        sums: dict[str, int] = {}
        for posting in entry.postings:
            account = self.accounts[posting.account]
            amount = _amount(account, posting)
            if posting.side == "debit":
                account.debits += amount
                account.held_debits -= held
            else:
                account.credits += amount
                account.held_credits -= held
                amount = -amount
            sums[account.currency] = sums.get(account.currency, 0) + amount
            account.index, account.tx, account.time = entry.index, entry.tx, entry.time
            _agree(account, posting)
        if any(sums.values()):
            raise ValueError("its debits and credits differ")

    def _reserve(self, entry: Entry) -> None:
        """hold/1 or void/1."""
        if entry.t == "hold/1":
            amount = self._holds[entry.id] = minor(entry.postings[0].amount)
            change = amount
        else:
            amount = self._holds.pop(entry.hold)
            change = -amount
        for posting in entry.postings:
            account = self.accounts[posting.account]
            if _amount(account, posting) != amount:
                raise ValueError(f"its amount of {posting.amount} is not that of the hold")
            if posting.side == "debit":
                account.held_debits += change
            else:
                account.held_credits += change
            self._touch(account, entry)
            _agree(account, posting)


def _last_ns(text: str) -> int:
    """The last nanosecond of a day, a month, or a time. Raises ValueError."""
    if len(text) == len("2026-11-30"):
        return end_of_day(parse_day(text))
    return end_of_month(parse_month(text)) if len(text) == len("2026-11") else parse_any_time(text)


def minor(amount: str) -> int:
    """Minor units of an amount, signed or not, that has exactly its currency's decimals."""
    return int(amount.replace(".", "", 1))


def _amount(account: Balance, posting: Posting) -> int:
    units, _, fraction = posting.amount.partition(".")
    if len(fraction) != account.decimals:
        raise ValueError(f"{posting.amount} is no amount of {account.currency}")
    return int(units + fraction)


def _agree(account: Balance, posting: Posting) -> None:
    """What a posting states is what the account has. Written out: most of the time of a replay goes by here."""
    stated = posting.debits
    if stated is not None and int(stated.replace(".", "", 1)) != account.debits:
        raise _differs(account, "debits", stated)
    stated = posting.credits
    if stated is not None and int(stated.replace(".", "", 1)) != account.credits:
        raise _differs(account, "credits", stated)
    stated = posting.held_debits
    if stated is not None and int(stated.replace(".", "", 1)) != account.held_debits:
        raise _differs(account, "held_debits", stated)
    stated = posting.held_credits
    if stated is not None and int(stated.replace(".", "", 1)) != account.held_credits:
        raise _differs(account, "held_credits", stated)


def _differs(account: Balance, name: str, stated: str) -> ValueError:
    return ValueError(f"it states {name} of {stated} for {account.name}")


def _damage(index: int, what: str) -> DamageError:
    return DamageError(f"entry {index}: {what}", hint="`ledgerfs fsck` says more; nothing was changed")
