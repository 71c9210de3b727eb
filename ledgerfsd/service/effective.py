"""Balances by effective date: every transaction counts at its effective date, or at its booking date if it has none.

Start at ``Effective.deltas``. A balance by effective date is the balance at the end of that booking day, and what other dates
change in it: transactions booked later that were effective by then, less those booked by then that were effective
later. So only transactions whose two dates differ are kept (12 bytes each), and they are found in one pass over the
log, bundle by bundle, that goes on where it ended.
"""

from __future__ import annotations

import datetime
from array import array
from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from ledgerfsd.limits import BUNDLE_ENTRIES
from ledgerfsd.merkle.tile import decode_bundle
from ledgerfsd.money import format_signed
from ledgerfsd.service import render, trial_balance
from ledgerfsd.service.query import Text
from ledgerfsd.service.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ledgerfsd.service.ledger import Ledger
    from ledgerfsd.service.past import Past
    from ledgerfsd.types import Account

KEPT: Final = 16  # dates whose corrections are remembered
_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
_MEMBER: Final = b'"effective":"'


class Deltas(NamedTuple):
    """What other dates change in the balances at the end of a booking day."""

    entries: int  # of the log when it was worked out
    size: int  # of the log at the end of that day
    changes: dict[int, tuple[int, int]]  # ordinal → debits and credits to add; either may be negative


class _Dates(msgspec.Struct):
    """The dates of an entry."""

    t: str
    time: str
    effective: str = ""


_decoder: Final = msgspec.json.Decoder(_Dates)


class Effective:
    """The balances of one ledger by effective date."""

    def __init__(self, ledger: Ledger, past: Past) -> None:
        self._ledger = ledger
        self._engine = ledger.engine
        self._directory: Path = ledger.layout.root
        self._past = past
        self._scanned = 0
        self._indexes = array("Q")  # entries whose dates differ
        self._dates = array("I")  # their effective dates, as proleptic ordinals
        self._kept: OrderedDict[int, Deltas] = OrderedDict()
        self._texts: OrderedDict[int, tuple[int, Spool]] = OrderedDict()  # date → entries of the log, trial balance
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    async def balance(self, ordinal: int, date: int) -> Text:
        """``balance.json`` by effective date, as known now."""
        deltas = await self.deltas(date)
        return Text(self._render(self._account(ordinal, deltas), date, deltas), self._mtime(deltas))

    async def trial_balance(self, date: int) -> Spool:
        """``trial-balance.csv`` by effective date, as known now. Raises OSError when the disk is full."""
        deltas = await self.deltas(date)
        async with self._turn:
            kept = self._texts.get(date)
            if kept is not None and kept[0] == deltas.entries:
                return kept[1]
            spool = Spool(self._directory, self._mtime(deltas))
            await trio.to_thread.run_sync(trial_balance.write, self._accounts(deltas), spool, limiter=self._thread)
            self._texts[date] = deltas.entries, spool
            if len(self._texts) > KEPT:
                self._texts.popitem(last=False)
            return spool

    async def deltas(self, date: int) -> Deltas:
        """The corrections of a date, which is a proleptic ordinal."""
        async with self._turn:
            kept = self._kept.get(date)
            entries = self._engine.counts().entries
            if kept is None or kept.entries != entries:
                kept = await trio.to_thread.run_sync(self._work_out, date, entries, limiter=self._thread)
                self._kept[date] = kept
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return kept

    # -- in the worker thread

    def _work_out(self, date: int, entries: int) -> Deltas:
        self._scan(entries)
        size = self._ledger.points.size_by_day(date - _EPOCH)
        booked_by_then = bisect_left(self._indexes, size)
        changes: dict[int, tuple[int, int]] = {}
        for place, (index, effective) in enumerate(zip(self._indexes, self._dates, strict=True)):
            if place < booked_by_then and effective > date:
                self._count(changes, index, -1)
            elif place >= booked_by_then and effective <= date:
                self._count(changes, index, 1)
        return Deltas(entries, size, changes)

    def _count(self, changes: dict[int, tuple[int, int]], index: int, sign: int) -> None:
        for posting in render.decode(self._engine.entry(index)).postings:
            ordinal = self._engine.ordinal(posting.account.encode())
            debits, credits = changes.get(ordinal, (0, 0))
            amount = sign * render.minor(posting.amount)
            changes[ordinal] = (debits + amount, credits) if posting.side == "debit" else (debits, credits + amount)

    def _scan(self, entries: int) -> None:
        """Find the entries whose dates differ, up to ``entries``."""
        while self._scanned < entries:
            number, skip = divmod(self._scanned, BUNDLE_ENTRIES)
            first = number * BUNDLE_ENTRIES
            bundle = bytes(self._engine.bundle(number, min(BUNDLE_ENTRIES, entries - first)))
            found = decode_bundle(bundle) if _MEMBER in bundle else []
            for index, entry in enumerate(found[skip:], self._scanned):
                if _MEMBER in entry:
                    self._note(index, _decoder.decode(entry))
            self._scanned = min(first + BUNDLE_ENTRIES, entries)

    def _note(self, index: int, dates: _Dates) -> None:
        # Free text and the request of a rejection may hold the member too.
        if dates.t not in ("txn/1", "post/1") or not dates.effective or dates.effective == dates.time[:10]:
            return
        self._indexes.append(index)
        self._dates.append(datetime.date.fromisoformat(dates.effective).toordinal())

    def _accounts(self, deltas: Deltas) -> Iterator[Account]:
        known = iter(self._past.accounts(deltas.size))
        for ordinal in range(self._past.count(deltas.entries)):
            account = next(known, None) or _blank(self._engine.account(ordinal))
            yield _changed(account, deltas)

    # -- texts

    def _account(self, ordinal: int, deltas: Deltas) -> Account:
        account = self._engine.account_at(ordinal, deltas.size) or _blank(self._engine.account(ordinal))
        return _changed(account, deltas)

    def _mtime(self, deltas: Deltas) -> int:
        return self._ledger.points.time_of(deltas.entries - 1)

    def _render(self, account: Account, date: int, deltas: Deltas) -> bytes:
        now = account.debits - account.credits
        index = deltas.entries - 1
        text = {
            "account": account.name,
            "currency": account.currency,
            "balance": format_signed(now if account.normal == "debit" else -now, account.decimals),
            "debits": format_signed(account.debits, account.decimals),
            "credits": format_signed(account.credits, account.decimals),
            "effective": datetime.date.fromordinal(date).isoformat(),
            "as_of": {
                "index": index,
                "seal": self._engine.block_of(index),
                "time": render.time_text(bytes(self._engine.entry(index))),
            },
        }
        return msgspec.json.encode(text) + b"\n"


def _blank(account: Account) -> Account:
    """An account before its opening."""
    return account._replace(debits=0, credits=0, held_debits=0, held_credits=0)


def _changed(account: Account, deltas: Deltas) -> Account:
    debits, credits = deltas.changes.get(account.ordinal, (0, 0))
    return account._replace(debits=account.debits + debits, credits=account.credits + credits)
