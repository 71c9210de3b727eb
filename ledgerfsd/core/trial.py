"""Rows of trial balances by the C core (``csrc/ledger/trial.c``): without the interpreter's lock, so that nobody waits for a million rows.

Its twin is ``service.trial_balance.account_row``, which the balances by effective date go through.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ledgerfsd.core import _core
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.values import CLASSES

ffi: Any = _core.ffi
lib: Any = _core.lib

ACCOUNTS_AT_ONCE: Final = 2048
ROW_BYTES_MAX: Final = 384
TOTALS_ROOM: Final = 2 * ACCOUNTS_AT_ONCE


class Total(NamedTuple):
    """What the accounts of a currency and class have together, in minor units."""

    currency: str
    account_class: str
    decimals: int
    debits: int
    credits: int
    debit_balance: int
    credit_balance: int


class TrialRows:
    """The accounts that existed after the first ``size`` entries of an engine's log, as rows in the order of opening."""

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self._size = size
        self._first = 0
        self._used = ffi.new("uint32_t *")
        self._room = TOTALS_ROOM
        self._totals = ffi.new("lfs_trial_total[]", self._room)
        self._text = bytearray(ACCOUNTS_AT_ONCE * ROW_BYTES_MAX)

    def next(self) -> bytes:
        """The next rows, b"" after the last. Raises DamageError when an index is not what was written."""
        accounts, count = self._engine.views_at(self._size, self._first, ACCOUNTS_AT_ONCE)
        # At most one more total an account, and never too few: a call that fails half-way would have counted some twice.
        if self._used[0] + count > self._room:
            self._grow(self._used[0] + count)
        out = ffi.from_buffer(self._text)
        length = lib.lfs_trial_rows(accounts, count, out, self._totals, self._used, self._room)
        self._first += count
        return bytes(self._text[:length])

    def _grow(self, room: int) -> None:
        totals = ffi.new("lfs_trial_total[]", 2 * room)
        ffi.memmove(totals, self._totals, self._used[0] * ffi.sizeof("lfs_trial_total"))
        self._totals, self._room = totals, 2 * room

    def totals(self) -> list[Total]:
        """Of the rows so far."""
        return [
            Total(
                ffi.string(total.currency).decode(),
                CLASSES[total.account_class],
                total.decimals,
                *(_sum(parts) for parts in (total.debits, total.credits, total.debit_balance, total.credit_balance)),
            )
            for total in self._totals[0 : self._used[0]]
        ]


def _sum(parts: Any) -> int:
    return int(parts[0]) | int(parts[1]) << 64 | int(parts[2]) << 128
