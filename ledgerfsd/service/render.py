"""The texts of rendered files, as pure functions of what stands in the ledger. No state.

Start at ``balance``. Entries are never rendered: transaction and block files are their exact bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ledgerfsd.clock import NS_PER_DAY, NS_PER_SECOND, parse_time
from ledgerfsd.money import format_signed

if TYPE_CHECKING:
    from ledgerfsd.core.engine import Engine
    from ledgerfsd.types import Account

STATEMENT_HEADER: Final = b"date,effective,tx,type,reference,debit,credit,balance,index\r\n"

# The files that change in place keep their size: a program that reads until the end (cat, jq, Python) asks once more behind
# it, and a size that had grown meanwhile would give it the old text and the last bytes of the new one.
BALANCE_BYTES: Final = 512  # above the longest: names of 64 and 12 bytes, five amounts of 41, numbers of 10 digits
_INDEX_DIGITS: Final = 10  # limits.ENTRIES_MAX
_STATUS_LETTERS: Final = 6

_TIME: Final = b'"time":"'
_day_starts: dict[bytes, int] = {}


class AsOf(NamedTuple):
    """The entry that a rendered state is as of."""

    entry: int  # index
    tx: int  # transaction number, 0: the entry is none
    seal: int  # height of its block
    time: str


class Posting(msgspec.Struct):
    """A posting of an entry, as far as rendering needs it. Amounts are decimal strings of the account's currency."""

    account: str
    side: str = ""
    amount: str = ""
    debits: str | None = None
    credits: str | None = None
    held_debits: str | None = None
    held_credits: str | None = None


class Entry(msgspec.Struct):
    """An entry that touches an account, as far as rendering needs it."""

    t: str
    index: int
    time: str
    tx: int = 0
    type: str = ""
    reference: str = ""
    effective: str = ""
    status: str = ""
    postings: list[Posting] = []


_decoder: Final = msgspec.json.Decoder(Entry)


def decode(entry: bytes | memoryview) -> Entry:
    """The members of an entry that are rendered."""
    return _decoder.decode(entry)


def time_of(entry: bytes) -> int:
    """An entry's time in ns. Entries are canonical, so the last ``"time":"`` is the member: free text sorts before it."""
    at = entry.rfind(_TIME) + len(_TIME)
    day = entry[at : at + 10]
    start = _day_starts.get(day)
    if start is None:
        start = parse_time(day.decode() + "T00:00:00Z")
        if len(_day_starts) > 10_000:
            _day_starts.clear()
        _day_starts[day] = start
    seconds = int(entry[at + 11 : at + 13]) * 3600 + int(entry[at + 14 : at + 16]) * 60 + int(entry[at + 17 : at + 19])
    return start + seconds * NS_PER_SECOND + int(entry[at + 20 : at + 29])


def time_text(entry: bytes) -> str:
    """An entry's time as it stands there."""
    at = entry.rfind(_TIME) + len(_TIME)
    return entry[at : at + 30].decode()


def tx_name(number: int) -> str:
    """The name of a transaction (FORMAT, section 5)."""
    return f"tx_{number:04}"


def as_of(engine: Engine, account: Account, entry: bytes) -> AsOf:
    """What an account's file is as of; ``entry`` is the account's newest."""
    # The newest entry is a transaction just when the account's newest transaction is that entry.
    tx = account.last_tx
    if tx and engine.transaction(tx) != account.last_index:
        tx = 0
    return AsOf(account.last_index, tx, engine.block_of(account.last_index), time_text(entry))


def minor(amount: str) -> int:
    """Minor units of an amount that stands in an entry, where it has exactly its currency's decimals."""
    return int(amount.replace(".", ""))


def balance(account: Account, as_of: AsOf) -> bytes:
    """``balance.json``, always of ``BALANCE_BYTES``. The balance is on the account's normal side; what is held on the other
    side is not available.
    """
    if account.normal == "debit":
        now, held = account.debits - account.credits, account.held_credits
    else:
        now, held = account.credits - account.debits, account.held_debits

    def amount(value: int) -> str:
        return format_signed(value, account.decimals)

    text = {
        "account": account.name,
        "currency": account.currency,
        "balance": amount(now),
        "available": amount(now - held),
        "held": amount(held),
        "debits": amount(account.debits),
        "credits": amount(account.credits),
        "as_of": {
            "index": as_of.entry,
            "tx": tx_name(as_of.tx) if as_of.tx else None,
            "seal": as_of.seal,
            "time": as_of.time,
        },
    }
    return msgspec.json.encode(text).ljust(BALANCE_BYTES - 1) + b"\n"


def account_file(opened: bytes | memoryview, status: str, as_of: AsOf) -> bytes:
    """``account.json``: what the account was opened with, and its status now. Its size is always the same."""
    entry: dict[str, Any] = msgspec.json.decode(opened)
    text: dict[str, Any] = {"account": entry.pop("account"), "status": status, "opened": entry.pop("time")}
    text["opened_index"] = entry.pop("index")
    del entry["t"]
    text |= entry
    text["as_of"] = {"index": as_of.entry, "seal": as_of.seal, "time": as_of.time}
    shown = len(status) + len(str(as_of.entry)) + len(str(as_of.seal))
    return msgspec.json.encode(text) + b" " * (_STATUS_LETTERS + 2 * _INDEX_DIGITS - shown) + b"\n"


def statement_edge(day: str, what: str, account: Account, state: Account | None, before: Account | None) -> bytes:
    """The first or last row of a monthly statement: the balance in ``state``, and what was debited and credited since ``before``
    (in the last one)."""
    debits, credits = (state.debits, state.credits) if state else (0, 0)
    after = format_signed(debits - credits if account.normal == "debit" else credits - debits, account.decimals)
    columns = ","
    if what == "closing":
        sums = (debits - (before.debits if before else 0), credits - (before.credits if before else 0))
        columns = ",".join(format_signed(each, account.decimals) for each in sums)
    return f"{day},,,{what},,{columns},{after},\r\n".encode()


def seconds_text(ns: int) -> str:
    """A duration for people: whole seconds, with days when there are some."""
    days, rest = divmod(ns, NS_PER_DAY)
    return (f"{days} d " if days else "") + f"{rest // NS_PER_SECOND} s"
