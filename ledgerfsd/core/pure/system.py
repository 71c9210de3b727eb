"""What the ledger records by itself: key/1, anchor/1, restore/1 (docs/FORMAT.md, sections 6.2 and 7).

Such an intent is never taken from the inbox. Start at ``judge``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ...errors import BY_NAME
from ...limits import INTENT_BYTES_MAX
from .canonical import SPACE, check, dump, name_key
from .entries import Json
from .intent import Intent, Refusal, is_id, is_text

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
    if len(text.strip(SPACE)) > INTENT_BYTES_MAX:
        return Refusal(BY_NAME["too_large"].number)
    verdict = check(text)
    if verdict.code:
        return Refusal(verdict.code, verdict.offset)
    value = json.loads(text[verdict.begin : verdict.end])
    if not isinstance(value, dict):
        return Refusal(BY_NAME["not_an_object"].number, verdict.begin)
    offences = [(BY_NAME[name].number, name_key(member), member) for name, member in _offences(value)]
    if offences:
        number, _, member = min(offences)
        return Refusal(number, 0, member)
    return Intent(value["type"], dump(value), value, id=value["id"])


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


def _offences(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "type" not in value:
        yield "missing_field", "type"
        return
    kind = value["type"]
    if not isinstance(kind, str) or kind not in TYPES:
        yield "unknown_type", "type"
        return
    required, optional = TYPES[kind]
    required |= {"id"} | (SIGNED & optional if SIGNED & value.keys() else frozenset())
    for name in required - value.keys():
        yield "missing_field", name
    for name, member in value.items():
        if name not in required | optional | {"type"}:
            yield "unknown_field", name
        elif type(member) is not (int if name in _NUMBERS else str):
            yield "wrong_kind", name
        elif code := _wrong(name, member, kind):
            yield code, name


def _wrong(name: str, member: Any, kind: str) -> str:
    """What is wrong with a member of the right JSON kind; "" if nothing."""
    if name in _NUMBERS:
        return "" if member >= _NUMBERS[name] else "bad_value"
    if name == "id":
        return "" if _own_id(member, kind) else "bad_id"
    if name in ("name", "reason"):
        return "" if is_text(member) else "bad_text"
    return "" if name == "type" or _WORDS[name](member) else "bad_value"


_NUMBERS: Final = {"incarnation": 2, "signed_size": 0, "size": 0, "valid_from_size": 0, "valid_to_size": 0}  # least
_WORDS: Final[Mapping[str, Callable[[str], object]]] = {
    "hash": _HASH.fullmatch,
    "kind": ("folder", "s3", "rfc3161", "witness").__contains__,
    "root": _HASH.fullmatch,
    "signed_root": _HASH.fullmatch,
    "status": ("active", "retiring", "revoked").__contains__,
    "vkey": _VKEY.fullmatch,
}


def _own_id(text: str, kind: str) -> bool:
    begin = f"~{kind}:"
    return is_id(text) and text.startswith(begin) and text != begin
