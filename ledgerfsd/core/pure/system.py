"""What the ledger records by itself: key/1, anchor/1, restore/1 (docs/FORMAT.md, sections 6.2 and 7).

Such an intent is never taken from the inbox. Start at ``judge``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from .canonical import dump
from .entries import Json
from .intent import Intent, Offences, Refusal, is_id, is_text, judge_members, read_object

KINDS: Final = {"key": "key/1", "anchor": "anchor/1", "restore": "restore/1"}  # type of the intent → kind of entry
# Members of each type besides id and type: required, optional.
TYPES: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "key": (frozenset({"status", "valid_from_size", "vkey"}), frozenset({"valid_to_size"})),
    "anchor": (frozenset({"hash", "kind", "name", "root", "size"}), frozenset()),
    "restore": (frozenset({"incarnation", "reason", "size"}), frozenset({"signed_root", "signed_size"})),
}
SIGNED: Final = frozenset({"signed_root", "signed_size"})  # both or neither

_HASH: Final = re.compile("[0-9a-f]{64}")
_VKEY: Final = re.compile(r"[!#-\[\]-~]{1,400}")
_ADDED: Final = ("index", "intent", "t", "time")  # members that the entry has and the intent has not


def judge(text: bytes) -> Intent | Refusal:
    """Judge the bytes of one intent of the ledger's own; as ``intent.judge`` does with all others."""
    value = read_object(text, _offences)
    return value if isinstance(value, Refusal) else Intent(value["type"], dump(value), value, id=value["id"])


def members(intent: Mapping[str, Json]) -> dict[str, Json]:
    """What the entry has of its intent."""
    return {name: value for name, value in intent.items() if name != "type"}


def intent_of(entry: Mapping[str, Json]) -> Intent:
    """The intent of an entry of one of these kinds. Raises ValueError when there can be none."""
    (kind,) = (name for name, kind in KINDS.items() if kind == entry["t"])
    value = {name: value for name, value in entry.items() if name not in _ADDED} | {"type": kind}
    intent = judge(dump(value))
    if isinstance(intent, Refusal):
        raise ValueError(f"its {intent.field} is not that of an entry of this kind")
    return intent


def _offences(value: dict[str, Any]) -> Offences:
    if "type" not in value:
        yield "missing_field", "type"
        return
    kind = value["type"]
    if not isinstance(kind, str) or kind not in TYPES:
        yield "unknown_type", "type"
        return
    required, optional = TYPES[kind]
    required |= {"id"} | (SIGNED & optional if SIGNED & value.keys() else frozenset())
    own_id = {"id": lambda text: _unless(_own_id(text, kind), "bad_id")}
    yield from judge_members(value, required, optional | {"type"}, dict.fromkeys(_LEAST, int), {**_CHECKS, **own_id})


def _unless(good: object, code: str) -> Iterator[str]:
    if not good:
        yield code


def _at_least(least: int) -> Callable[[int], Iterator[str]]:
    return lambda number: _unless(number >= least, "bad_value")


def _one_of(*words: str) -> Callable[[str], Iterator[str]]:
    return lambda text: _unless(text in words, "bad_value")


def _form(pattern: re.Pattern[str]) -> Callable[[str], Iterator[str]]:
    return lambda text: _unless(pattern.fullmatch(text), "bad_value")


def _text(text: str) -> Iterator[str]:
    return _unless(is_text(text), "bad_text")


def _own_id(text: str, kind: str) -> bool:
    begin = f"~{kind}:"
    return is_id(text) and text.startswith(begin) and text != begin


_LEAST: Final = {"incarnation": 2, "signed_size": 0, "size": 0, "valid_from_size": 0, "valid_to_size": 0}
_CHECKS: Final[Mapping[str, Callable[[Any], Iterator[str]]]] = {
    "hash": _form(_HASH),
    "kind": _one_of("folder", "s3", "rfc3161", "witness"),
    "name": _text,
    "reason": _text,
    "root": _form(_HASH),
    "signed_root": _form(_HASH),
    "status": _one_of("active", "retiring", "revoked"),
    "type": _one_of(*TYPES),
    "vkey": _form(_VKEY),
    **{name: _at_least(least) for name, least in _LEAST.items()},
}
