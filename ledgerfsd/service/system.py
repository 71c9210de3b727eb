"""What the ledger records by itself: signing keys, and anchors given by others (docs/FORMAT.md, sections 6.2 and 7).

``Recorder.keys`` brings the log up to what ``trusted_root.json`` says; ``Recorder.anchor`` records evidence. Both wait
until the entry is durable, and both may be asked again: what stands in the log already is not written twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import structlog
import trio

from ledgerfsd.errors import CODES, Refused
from ledgerfsd.service.keys import Key, TrustedRoot

if TYPE_CHECKING:
    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.ledger import Ledger
    from ledgerfsd.types import Result

log = structlog.get_logger()

AnchorKind = Literal["folder", "s3", "rfc3161", "witness"]


def logged(engine: Engine, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """(index, entry) of all ``key/1`` or ``restore/1`` in the durable log, oldest first."""
    found = [(index, msgspec.json.decode(engine.entry(index))) for index in engine.system_entries()]
    return [(index, entry) for index, entry in found if entry["t"] == kind]


def key_of(entry: Mapping[str, Any], origin: str) -> Key:
    """What a ``key/1`` says."""
    return Key(entry["vkey"], origin, entry["valid_from_size"], entry.get("valid_to_size"), entry["status"])


def newest(keys: Iterable[Key]) -> dict[str, Key]:
    """Verifier key → what was said of it last."""
    return {key.vkey: key for key in keys}


def missing(root: TrustedRoot, stated: Mapping[str, Key], size: int) -> list[Key]:
    """What the log of ``size`` entries, which has ``stated``, does not say yet. A key that the root does not have any more
    is revoked: nobody holds it, so nothing that comes later can be signed by it."""
    found = [key for key in root.keys if stated.get(key.vkey) != key]
    known = {key.vkey for key in root.keys}
    gone = [key for key in stated.values() if key.vkey not in known and key.status != "revoked"]
    return found + [msgspec.structs.replace(key, status="revoked", valid_to_size=size) for key in gone]


def disagreements(root: TrustedRoot, statements: Iterable[Key]) -> tuple[list[str], list[str]]:
    """Between a trusted root and the ``key/1`` entries of a log, oldest first: (what cannot be, what is only newer there).

    The log may go on from a trusted root that was kept elsewhere; but it must once have said just what that says. A log
    without any statement is of an earlier version.
    """
    said = list(statements)
    last, wrong, newer = newest(said), [], []
    for key in root.keys if said else ():
        if key not in said:
            wrong.append(f"the log does not say of key {key.key_id} what the trusted root says ({_words(key)})")
        elif last[key.vkey] != key:
            newer.append(f"the log now says of key {key.key_id}: {_words(last[key.vkey])}; get the newest trusted root")
    for key in last.values():
        if key.status != "revoked" and key.vkey not in {each.vkey for each in root.keys}:
            newer.append(f"the log names a key that the trusted root does not have, and it is not believed: {key.vkey}")
    return wrong, newer


def _words(key: Key) -> str:
    end = "on" if key.valid_to_size is None else f"to {key.valid_to_size}"
    return f"{key.status}, from size {key.valid_from_size} {end}"


class Recorder:
    """Writes such entries for an open ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn = trio.Lock()

    async def keys(self, root: TrustedRoot) -> None:
        """Let the log say of every key what the trusted root says. Raises Refused: busy, read-only."""
        async with self._turn:
            engine = self._ledger.engine
            entries = logged(engine, "key/1")
            stated = newest(key_of(entry, root.ledger) for _, entry in entries)
            differ = missing(root, stated, engine.counts().entries)
            for number, key in enumerate(differ, len(entries) + 1):
                said: dict[str, Any] = {"vkey": key.vkey, "status": key.status, "valid_from_size": key.valid_from_size}
                if key.valid_to_size is not None:
                    said["valid_to_size"] = key.valid_to_size
                await self.record({"type": "key", "id": f"~key:{number}"} | said)
                log.info("recorded a key", key=key.key_id, status=key.status)

    async def anchor(self, *, kind: AnchorKind, name: str, size: int, root: bytes, evidence: bytes) -> Result:
        """Record that somebody outside gave ``evidence`` (such as a time stamp token) of the checkpoint of this size and root.

        ``name`` says who or where: 1 to 256 bytes without control characters. The result names the entry; asked again with
        the same, it is a duplicate. Raises Refused: busy, read-only, bad_text.
        """
        digest = hashlib.sha256(evidence).hexdigest()
        said = {"type": "anchor", "kind": kind, "name": name, "size": size, "root": root.hex(), "hash": digest}
        made = hashlib.sha256(_canonical(said)).hexdigest()[:32]
        return await self.record({"id": f"~anchor:{made}"} | said)

    async def record(self, intent: dict[str, Any]) -> Result:
        """Commit one intent of the ledger's own. Raises Refused."""
        result = (await self._ledger.submit_own(_canonical(intent)))[0]
        if result.code:
            raise Refused(CODES[result.code])
        return result


def _canonical(value: dict[str, Any]) -> bytes:
    # Flat, with member names of ASCII and no fractions: sorting them is all that RFC 8785 asks for besides.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
