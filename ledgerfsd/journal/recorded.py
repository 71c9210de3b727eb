"""What the ledger has recorded by itself, found in the segments without opening the store: it may be mounted meanwhile.

An entry of kind ``key/1`` or ``restore/1`` begins with its id, which no user can give, and is shorter than 8,192 bytes, so
that the first byte of its length is a control character. No JSON text has one: nothing that a user wrote can pass for such
an entry. What stands in a batch that is not sealed yet is found too.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from typing import Any, Final

from ledgerfsd.journal.layout import Layout

LENGTH_LIMIT: Final = 8192


def recorded(layout: Layout, kind: str) -> Iterator[dict[str, Any]]:
    """The entries of kind ``key/1`` or ``restore/1``, oldest first. Raises OSError."""
    head = b'{"id":"~' + kind.partition("/")[0].encode() + b":"
    for path in layout.segments():
        with path.open("rb") as file:
            if not path.stat().st_size:
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = data.find(head)
                while at >= 0:
                    length = int.from_bytes(data[max(at - 2, 0) : at], "big")
                    entry = _entry(data[at : at + length]) if at >= 2 and length < LENGTH_LIMIT else {}
                    if entry.get("t") == kind:
                        yield entry
                    at = data.find(head, at + 1)


def _entry(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
