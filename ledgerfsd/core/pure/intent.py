"""Shape of intents: the bytes of one intent become an ``Intent`` or a ``Refusal`` (docs/FORMAT.md, sections 2, 5, 6).

Everything here is judged on the intent alone, codes 10 to 52; ``rules.py`` judges it against the state. Start
at ``judge``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ...clock import is_date, parse_time
from ...errors import BY_NAME
from ...limits import (
    AMOUNT_MAX,
    DECIMALS_MAX,
    INTENT_BYTES_MAX,
    METADATA_BYTES_MAX,
    POSTINGS_MAX,
    TAGS_MAX,
    TEXT_BYTES_MAX,
)
from ...money import Decimal, is_currency, read
from .canonical import SPACE, check, dump, name_key
from .entries import opening_equity
from .hashing import sha256

# Every class with its normal side.
CLASSES: Final = {
    "customer_liability": "credit",
    "safeguarding_asset": "debit",
    "own_funds": "debit",
    "equity": "credit",
    "income": "credit",
    "expense": "debit",
    "suspense": "credit",
    "clearing": "debit",
}
SIDES: Final = ("debit", "credit")

# Members of each type: required, optional. All may have those of COMMON besides.
COMMON: Final = frozenset({"type", "id", "reference", "metadata"})
TYPES: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    name: (frozenset(required.split()), frozenset(optional.split()))
    for name, required, optional in (
        ("open_account", "account class currency", "initial_balance limit normal owner tags"),
        ("transfer", "amount credit debit", "currency effective"),
        ("transaction", "postings", "effective"),
        ("hold", "amount credit debit", "currency expires"),
        ("post", "hold", "amount effective"),
        ("void", "hold", ""),
        ("reverse", "of", "effective"),
        ("freeze", "account", ""),
        ("unfreeze", "account", ""),
        ("close_account", "account", ""),
        ("register_currency", "currency decimals", ""),
        ("close_period", "through", ""),
    )
}
POSTING: Final = (frozenset({"account", "amount", "side"}), frozenset({"currency"}))

_KINDS: Final[Mapping[str, type]] = {"metadata": dict, "postings": list, "tags": list, "decimals": int}  # others: str
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_TAG: Final = re.compile(r"[A-Za-z0-9._:/=+-]{1,64}")
_ID: Final = re.compile(r"[!#-\[\]-~]{1,128}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")
_TRANSACTION: Final = re.compile(r"tx_([0-9]{4}|[1-9][0-9]{4,18})")  # one name for each; 19 digits hold any number
_OVERDRAFT: Final = "overdraft:"


class Refusal(NamedTuple):
    """Why bytes are not an intent."""

    code: int  # a number of errors.CODES below 100
    offset: int = 0  # byte offset of the offence, for codes 10 to 18
    field: str = ""  # the offending member, for codes 30 to 52


class Limit(NamedTuple):
    """A limit as written: ``amount`` is that of ``overdraft:``, None for the other forms."""

    text: str  # "none", "no_overdraft" or "overdraft:<amount>"
    amount: Decimal | None


class PostingIntent(NamedTuple):
    """One element of ``postings`` of a ``transaction``."""

    account: str
    side: str
    amount: Decimal
    currency: str | None


@dataclass(frozen=True, slots=True)
class Intent:
    """A well-formed intent. Members that its type does not have, or that were not given, are None or empty."""

    kind: str  # the type, also when it was left out
    content: bytes  # canonical bytes
    value: dict[str, Any] = field(compare=False)  # the object itself
    id: str | None = None  # None: name it by ``auto_id``
    reference: str | None = None
    metadata: dict[str, Any] | None = None
    account: str = ""
    account_class: str = ""
    amount: Decimal | None = None  # of open_account: the initial balance
    credit: str = ""
    currency: str | None = None
    debit: str = ""
    decimals: int = 0
    effective: str | None = None
    expires_ns: int | None = None
    hold: str = ""
    limit: Limit | None = None
    normal: str | None = None
    of: str = ""
    owner: str | None = None
    postings: tuple[PostingIntent, ...] = ()
    tags: list[str] | None = None
    through: str = ""

    @property
    def digest(self) -> str:
        """What identifies the content: hex SHA-256 of the canonical bytes."""
        return sha256(self.content).hex()


def auto_id(source: bytes, line: int, content: bytes) -> str:
    """The id of an intent without one: made of file name, line and content, so that a file dropped twice pays once."""
    return "~auto:" + sha256(b"\x10" + source + b"\x00" + b"%d" % line + b"\x00" + content).hex()[:32]


def judge(text: bytes) -> Intent | Refusal:
    """Judge the bytes of one intent, with white space around it. Offsets count from the first byte of ``text``."""
    value = read_object(text, _offences)
    if isinstance(value, Refusal):
        return value
    intent = _build(value, dump(value))
    if _opens_itself(intent):
        return Refusal(BY_NAME["same_account"].number, 0, "account")
    return intent


# -- offences: pairs of (name of code, member). Their order does not matter, the lowest number wins.

Offences = Iterator[tuple[str, str]]


def read_object(text: bytes, offences: Callable[[dict[str, Any]], Offences]) -> dict[str, Any] | Refusal:
    """The object in the bytes of one intent; or the first offence, of the bytes or of those that ``offences`` finds."""
    if len(text.strip(SPACE)) > INTENT_BYTES_MAX:
        return Refusal(BY_NAME["too_large"].number)
    verdict = check(text)
    if verdict.code:
        return Refusal(verdict.code, verdict.offset)
    value = json.loads(text[verdict.begin : verdict.end])
    if not isinstance(value, dict):
        return Refusal(BY_NAME["not_an_object"].number, verdict.begin)
    found = [(BY_NAME[name].number, name_key(member), member) for name, member in offences(value)]
    if found:
        number, _, member = min(found)
        return Refusal(number, 0, member)
    return value


def judge_members(
    value: dict[str, Any],
    required: frozenset[str],
    optional: frozenset[str],
    kinds: Mapping[str, type],
    checks: Mapping[str, Callable[[Any], Iterator[str]]],
) -> Offences:
    """Those of the members of an object. ``kinds``: the JSON kind of a member, else string; ``checks``: codes of what is wrong."""
    for name in required - value.keys():
        yield "missing_field", name
    for name, member in value.items():
        if name not in required | optional:
            yield "unknown_field", name
        elif type(member) is not kinds.get(name, str):
            yield "wrong_kind", name
        else:
            for code in checks[name](member):
                yield code, name


def _offences(value: dict[str, Any]) -> Offences:
    if "type" not in value and not ("debit" in value and "credit" in value):
        yield "missing_field", "type"
        return
    kind = value.get("type", "transfer")
    if not isinstance(kind, str) or kind not in TYPES:
        yield "unknown_type", "type"
        return
    required, optional = TYPES[kind]
    yield from _members(value, required, optional | COMMON)
    if isinstance(value.get("debit"), str) and value["debit"] == value.get("credit"):
        yield "same_account", "credit"


def _members(value: dict[str, Any], required: frozenset[str], optional: frozenset[str]) -> Offences:
    return judge_members(value, required, optional, _KINDS, _CHECKS)


def _amount(text: str) -> Iterator[str]:
    amount = read(text)
    if amount is None:
        yield "bad_amount"
    elif amount.minor == 0:
        yield "zero_amount"
    elif amount.minor > AMOUNT_MAX:
        yield "amount_overflow"


def _amount_or_zero(text: str) -> Iterator[str]:
    yield from (code for code in _amount(text) if code != "zero_amount")


def is_account_name(text: str) -> bool:
    """Whether an account can be called so."""
    return _NAME.fullmatch(text) is not None


def _account_name(text: str) -> Iterator[str]:
    if not is_account_name(text):
        yield "bad_account_name"


def is_id(text: str) -> bool:
    """Whether it can be an id; one that begins with ``~`` is made by the ledger."""
    return _ID.fullmatch(text) is not None


def _id(text: str) -> Iterator[str]:
    if not is_id(text) or text.startswith("~"):
        yield "bad_id"


def _hold_id(text: str) -> Iterator[str]:
    if not is_id(text):
        yield "bad_id"


def _currency(text: str) -> Iterator[str]:
    if not is_currency(text):
        yield "bad_currency"


def _date(text: str) -> Iterator[str]:
    if not is_date(text):
        yield "bad_date"


def _time(text: str) -> Iterator[str]:
    try:
        parse_time(text)
    except ValueError:
        yield "bad_time"


def _class(text: str) -> Iterator[str]:
    if text not in CLASSES:
        yield "bad_class"


def _side(text: str) -> Iterator[str]:
    if text not in SIDES:
        yield "bad_side"


def _limit(text: str) -> Iterator[str]:
    if text.startswith(_OVERDRAFT):
        yield from _amount_or_zero(text.removeprefix(_OVERDRAFT))
    elif text not in ("none", "no_overdraft"):
        yield "bad_limit"


def _tags(tags: list[Any]) -> Iterator[str]:
    texts = [tag for tag in tags if isinstance(tag, str)]
    if len(texts) < len(tags):
        yield "wrong_kind"
    if len(tags) > TAGS_MAX or len(set(texts)) < len(texts) or not all(map(_TAG.fullmatch, texts)):
        yield "bad_tags"


def is_text(text: str) -> bool:
    """Whether it is a text as section 5 wants it."""
    return 1 <= len(text.encode("utf-8")) <= TEXT_BYTES_MAX and _CONTROL.search(text) is None


def _text(text: str) -> Iterator[str]:
    if not is_text(text):
        yield "bad_text"


def _metadata(value: dict[str, Any]) -> Iterator[str]:
    if len(dump(value)) > METADATA_BYTES_MAX:
        yield "bad_metadata"


def _decimals(number: int) -> Iterator[str]:
    if not 0 <= number <= DECIMALS_MAX:
        yield "bad_decimals"


def _transaction_name(text: str) -> Iterator[str]:
    if _TRANSACTION.fullmatch(text) is None:
        yield "bad_transaction_name"


def _postings(postings: list[Any]) -> Iterator[str]:
    for posting in postings:
        if isinstance(posting, dict):
            yield from (code for code, _ in _members(posting, *POSTING))
        else:
            yield "wrong_kind"
    if len(postings) < 2:
        yield "too_few_postings"
    if len(postings) > POSTINGS_MAX:
        yield "too_many_postings"


def _nothing(_: str) -> Iterator[str]:
    yield from ()


_CHECKS: Final[Mapping[str, Callable[[Any], Iterator[str]]]] = {
    "account": _account_name,
    "amount": _amount,
    "class": _class,
    "credit": _account_name,
    "currency": _currency,
    "debit": _account_name,
    "decimals": _decimals,
    "effective": _date,
    "expires": _time,
    "hold": _hold_id,
    "id": _id,
    "initial_balance": _amount_or_zero,
    "limit": _limit,
    "metadata": _metadata,
    "normal": _side,
    "of": _transaction_name,
    "owner": _text,
    "postings": _postings,
    "reference": _text,
    "side": _side,
    "tags": _tags,
    "through": _date,
    "type": _nothing,
}


def _opens_itself(intent: Intent) -> bool:
    """Whether the account is the one that its initial balance would be booked against."""
    opening = intent.kind == "open_account" and intent.amount is not None and intent.amount.minor > 0
    return opening and intent.account == opening_equity(intent.currency or "")


# -- building: the value is known to be well-formed


def _build(value: dict[str, Any], content: bytes) -> Intent:
    amount = value.get("amount", value.get("initial_balance"))
    expires = value.get("expires")
    return Intent(
        kind=value.get("type", "transfer"),
        content=content,
        value=value,
        id=value.get("id"),
        reference=value.get("reference"),
        metadata=value.get("metadata"),
        account=value.get("account", ""),
        account_class=value.get("class", ""),
        amount=None if amount is None else _decimal(amount),
        credit=value.get("credit", ""),
        currency=value.get("currency"),
        debit=value.get("debit", ""),
        decimals=value.get("decimals", 0),
        effective=value.get("effective"),
        expires_ns=None if expires is None else parse_time(expires),
        hold=value.get("hold", ""),
        limit=parse_limit(value["limit"]) if "limit" in value else None,
        normal=value.get("normal"),
        of=value.get("of", ""),
        owner=value.get("owner"),
        postings=tuple(
            PostingIntent(each["account"], each["side"], _decimal(each["amount"]), each.get("currency"))
            for each in value.get("postings", ())
        ),
        tags=value.get("tags"),
        through=value.get("through", ""),
    )


def parse_limit(text: str) -> Limit:
    """A limit that is known to be well-formed. Raises ValueError when it is not."""
    if text.startswith(_OVERDRAFT):
        return Limit(text, _decimal(text.removeprefix(_OVERDRAFT)))
    if text not in ("none", "no_overdraft"):
        raise ValueError(f"{text!r} is not a limit")
    return Limit(text, None)


def _decimal(text: str) -> Decimal:
    amount = read(text)
    if amount is None:
        raise ValueError(f"{text!r} is not an amount")
    return amount
