"""Events in plain Python: entries as lines of CloudEvents (docs/FORMAT.md, section 17)."""

from __future__ import annotations

import json
from typing import Final

HEAD_BYTES: Final = 336  # and the origin: everything up to and including "data":
TAIL_BYTES: Final = 2


def width(origin: str) -> int:
    """What a line has besides its entry, in bytes."""
    return HEAD_BYTES + len(origin) + TAIL_BYTES


def subject(entry: dict[str, object]) -> str | None:
    """The transaction or account that an entry is about; None for those of the ledger itself."""
    if "tx" in entry:
        return f"tx_{entry['tx']:04}"
    if "account" in entry:
        return str(entry["account"])
    postings = entry.get("postings")
    return str(postings[0]["account"]) if isinstance(postings, list) else None


def line(origin: str, index: int, entry: bytes, leaf: bytes) -> bytes:
    """The line of an entry."""
    read = json.loads(entry)
    about = subject(read)
    members = {
        "specversion": "1.0",
        "id": f"{index}",
        "source": origin,
        "type": f"ledgerfs.{read['t'].replace('/', '.v')}",
    }
    if about is not None:
        members["subject"] = about
    members |= {"time": read["time"], "sequence": f"{index:020}", "leafhash": leaf.hex()}
    head = json.dumps(members, separators=(",", ":"))[:-1] + ","
    return (head.ljust(HEAD_BYTES + len(origin) - 7) + '"data":').encode() + entry + b"}\n"
