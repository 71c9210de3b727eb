"""The state from the entries alone (docs/FORMAT.md, sections 4 and 7).

Each entry is read for what it decides (who, which side, how much), the books write that decision anew, and the
bytes must be the same: so every number that the entry states besides (totals, chain, transaction number, roots
of a seal) is checked by arithmetic of our own. ``replay`` is the way in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ...clock import format_date, is_date, parse_time
from ...errors import BY_NAME, DamageError
from ...limits import DECIMALS_MAX, TOTAL_LIMIT
from ...money import parse
from . import entries, system
from .book import Book, EntryTooLargeError, Leg
from .canonical import dump
from .entries import Json
from .hashing import sha256
from .intent import CLASSES, SIDES
from .rules import refusal, reversal_legs, unbalanced

_COMMON: Final = ("id", "intent", "metadata", "reference")


def replay(stream: Iterable[bytes]) -> Book:
    """The books after all of the entries. Raises DamageError naming the first that cannot follow."""
    book = Book()
    for index, data in enumerate(stream):
        try:
            _follow(book, index, data)
        except (
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            AttributeError,
            RecursionError,
            EntryTooLargeError,
        ) as error:
            reason = f"has no or an unknown {error}" if isinstance(error, KeyError) else str(error)
            raise DamageError(
                f"entry {index}: {reason}", hint="restore the journal from a copy; nothing was changed"
            ) from error
    if not book.seals:
        raise DamageError("entry 1: the seal of genesis is missing", hint="restore the journal from a copy")
    return book


def _follow(book: Book, index: int, data: bytes) -> None:
    entry = json.loads(data.decode("utf-8"))
    if not isinstance(entry, dict):
        raise ValueError("is not an object")
    kind = entry["t"]
    if (index == 0) != (kind == entries.GENESIS) or (index == 1) != (kind == entries.SEAL and not book.seals):
        raise ValueError(f"is a {kind}; a ledger begins with genesis/1 and its seal")
    time_ns = parse_time(entry["time"])
    if time_ns <= book.time_ns:
        raise ValueError("its time is not later than that of the entry before")
    if entry.get("id") in book.answers and entry.get("code") != "id_reused":
        raise ValueError(f"the id {entry['id']!r} belongs to entry {book.answers[entry['id']].index}")
    common = {name: entry[name] for name in _COMMON if name in entry}
    _KINDS[kind](book, time_ns, common, entry)
    if book.entries[-1] != data:
        raise ValueError(_difference(entry, json.loads(book.entries[-1])))


def _difference(found: Mapping[str, Json], expected: Mapping[str, Json]) -> str:
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            wanted, got = (dump(each.get(name)).decode("utf-8") for each in (expected, found))
            return f"its {name} does not follow from the entries before: {got} instead of {wanted}"
    return "is not canonical JSON"


def _genesis(book: Book, time_ns: int, _common: Any, entry: Json) -> None:
    book.genesis(entry["ledger"], time_ns)


def _account(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    if entry["account"] in book.accounts:
        raise ValueError(f"the account {entry['account']} exists already")
    if entry["class"] not in CLASSES or entry["normal"] not in SIDES:
        raise ValueError("its class or normal side is unknown")
    book.open_account(
        time_ns, common, entry["account"], entry["class"], entry["currency"],
        limit=entry["limit"], normal=entry["normal"], owner=entry.get("owner"), tags=entry.get("tags"),
    )  # fmt: skip


def _legs(book: Book, entry: Json) -> list[Leg]:
    """What a txn/1 books."""
    legs = []
    for posting in entry["postings"]:
        account = book.accounts[posting["account"]]
        if posting["side"] not in SIDES:
            raise ValueError(f"the side {posting['side']!r} is unknown")
        legs.append(Leg(account.name, posting["side"], parse(posting["amount"], account.decimals), 0))
    return legs


def _amount(book: Book, entry: Json) -> int:
    """The amount of a hold/1, post/1 or void/1: that of its first posting."""
    posting = entry["postings"][0]
    return parse(posting["amount"], book.accounts[posting["account"]].decimals)


def _check_totals(book: Book, entry: Json) -> None:
    for posting in entry["postings"]:
        account = book.accounts[posting["account"]]
        if max(account.debits, account.credits, account.held_debits, account.held_credits) >= TOTAL_LIMIT:
            raise ValueError(f"a total of {account.name} reaches 2^127")


def _txn(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    legs = _legs(book, entry)
    if not legs or unbalanced(book, legs):
        raise ValueError("its debits and credits differ")
    reverses = entry.get("reverses")
    if entry["type"] not in ("transfer", "transaction", "reversal", "opening"):
        raise ValueError(f"the type {entry['type']!r} is unknown")
    if (entry["type"] == "reversal") != (reverses is not None):
        raise ValueError("a reversal, and nothing else, names what it reverses")
    if reverses is not None:
        if reverses in book.reversed or not 1 <= reverses <= len(book.transactions):
            raise ValueError(f"transaction {reverses} is reversed already or does not exist")
        if legs != reversal_legs(book.transactions[reverses - 1]):
            raise ValueError(f"its postings are not those of transaction {reverses} with sides exchanged")
    book.transact(time_ns, common, entry["type"], legs, effective=entry.get("effective"), reverses=reverses)
    _check_totals(book, entry)


def _hold(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    debit, credit = (posting["account"] for posting in entry["postings"])
    expires = entry.get("expires")
    if book.accounts[debit].currency != book.accounts[credit].currency:
        raise ValueError("its debits and credits differ")
    book.hold(
        time_ns, common, debit, credit, _amount(book, entry), None if expires is None else parse_time(expires)
    )  # fmt: skip
    _check_totals(book, entry)


def _open_hold(book: Book, entry: Json) -> str:
    hold_id: str = entry["hold"]
    if book.holds[hold_id].status != "open":
        raise ValueError(f"the hold {hold_id!r} is {book.holds[hold_id].status} already")
    return hold_id


def _post(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    hold_id, amount = _open_hold(book, entry), _amount(book, entry)
    if amount > book.holds[hold_id].amount:
        raise ValueError("posts more than the hold reserves")
    book.post(time_ns, common, hold_id, amount, effective=entry.get("effective"))
    _check_totals(book, entry)


def _void(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    hold_id = _open_hold(book, entry)
    expired = entry["reason"] == "expired"
    expires_ns = book.holds[hold_id].expires_ns
    if expired and (expires_ns is None or expires_ns > time_ns):
        raise ValueError(f"the hold {hold_id!r} has not expired")
    book.void(time_ns, None if expired else common, hold_id)


def _update(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    book.update(time_ns, common, entry["account"], entry["action"])


def _policy(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    if entry["policy"] == "currency":
        if entry["currency"] in book.currencies:
            raise ValueError(f"the currency {entry['currency']} is known already")
        if entry["decimals"] not in range(DECIMALS_MAX + 1):
            raise ValueError(f"{entry['decimals']} is no number of decimals")
        book.register_currency(time_ns, common, entry["currency"], entry["decimals"])
    else:
        if not is_date(entry["through"]) or not book.closed_through < entry["through"] < format_date(time_ns):
            raise ValueError(f"the period to {entry['through']} could not be closed")
        book.close_period(time_ns, common, entry["through"])


def _rejected(book: Book, time_ns: int, common: Any, entry: Json) -> None:
    request, digest, code = entry["request"], entry["intent_hash"], entry["code"]
    if sha256(dump(request)).hex() != digest:
        raise ValueError("its intent_hash is not that of its request")
    if not 100 <= BY_NAME[code].number <= 153:
        raise ValueError(f"the code {code} is never in the log")
    if code == "id_reused" and common["id"] in book.answers and book.answers[common["id"]].intent == digest:
        raise ValueError("its id is that of the same intent")
    book.reject(time_ns, common["id"], digest, code, request)


def _system(book: Book, time_ns: int, _common: Any, entry: Json) -> None:
    intent = system.intent_of(entry)
    if refusal(book, intent, time_ns, 0) is not None:
        raise ValueError("does not follow from the incarnation before")
    book.record(time_ns, intent)


def _seal(book: Book, time_ns: int, _common: Any, entry: Json) -> None:
    state = "state_root" in entry
    if book.batch_first == len(book.entries) and not state:
        raise ValueError("seals nothing")
    book.seal(time_ns, state=state)


_KINDS: Final[Mapping[str, Callable[[Book, int, Any, Json], None]]] = {
    entries.GENESIS: _genesis,
    entries.ACCOUNT: _account,
    entries.TXN: _txn,
    entries.HOLD: _hold,
    entries.POST: _post,
    entries.VOID: _void,
    entries.UPDATE: _update,
    entries.POLICY: _policy,
    entries.REJECTED: _rejected,
    entries.SEAL: _seal,
    entries.KEY: _system,
    entries.ANCHOR: _system,
    entries.RESTORE: _system,
}
