"""The values that rooms hand to each other: what was asked, what came of it, what stands in the ledger.

Amounts are unsigned minor units, times are nanoseconds since 1970-01-01 UTC. No behaviour, no I/O.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Mode(enum.IntEnum):
    """What becomes of a submission."""

    EACH = 0  # NDJSON lines, each for itself
    DOCUMENT = 1  # one JSON document: an intent, or an array that is committed whole or not at all
    ATOMIC = 2  # NDJSON lines, all or none


class Result(NamedTuple):
    """The answer to one intent."""

    code: int  # number in errors.CODES; 0 = committed
    duplicate: bool  # the id was known with the same content; the other members are the first result's
    line: int  # line (or array element) in the file, from 1
    offset: int  # byte offset of the offence within the line, for codes 10..29
    field: str  # name of the offending member, for codes 30..99; "" if none
    index: int  # type: ignore[assignment]  # entry index, -1 if nothing was written (tuple.index is not missed)
    tx: int  # transaction number, 0 if none
    block: int  # height of the seal that commits it, 0 if none (dry run, nothing written)


class Run(NamedTuple):
    """Neighbouring lines of equal outcome; index and tx rise by one from line to line (they stay -1 or 0 if so)."""

    first: Result
    count: int  # type: ignore[assignment]  # lines first.line .. first.line + count - 1


class Counts(NamedTuple):
    """The durable state in numbers."""

    entries: int
    transactions: int
    blocks: int
    accounts: int
    stream_bytes: int
    time_ns: int  # time of the last seal, ns since 1970
    incarnation: int = 1  # which life of the ledger: one more after every restore


class Account(NamedTuple):
    """An account as of its newest durable entry. Amounts are minor units."""

    ordinal: int
    name: str
    currency: str
    decimals: int
    account_class: str
    normal: str  # "debit" | "credit"
    status: str  # "open" | "frozen" | "closed"
    debits: int
    credits: int
    held_debits: int
    held_credits: int
    overdraft: int | None  # None: no limit; 0: no_overdraft; else the overdraft
    open_index: int  # index of its account/1 entry
    last_index: int  # its newest entry
    last_tx: int  # newest transaction number that touched it, 0 if none
    entries: int  # length of its chain
    log_bytes: int  # sum of (entry length + 1) over its chain: the size of tx.log
