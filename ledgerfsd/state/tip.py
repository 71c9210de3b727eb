"""The tip: the last entry that a projection has applied, by which it is tied to one journal.

A projection loaded beside a journal that it was not made from (restored from a backup, cut, exchanged) would give wrong
answers, or worse, hide that acknowledged entries are gone. So the tip is saved with the mark and looked for in the
segments before anything else happens.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ledgerfsd.core.engine import Engine
from ledgerfsd.errors import DamageError
from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.tree import leaf_hash

RECORD: Final = struct.Struct(">32sQQ")


class Mark(NamedTuple):
    """The numbers in the core's mark, after the fingerprint of its build (docs/FORMAT.md, section 9)."""

    entries: int
    stream_bytes: int
    transactions: int
    blocks: int
    accounts: int

    @classmethod
    def of(cls, mark: bytes) -> Mark:
        """Read them. Raises struct.error when the mark is too short."""
        return cls(*struct.unpack_from("<8x5Q", mark))


class Tip(NamedTuple):
    """One entry: what it is and where it stands."""

    leaf: bytes
    entry: int  # its index
    offset: int  # stream offset of its length field

    @classmethod
    def of(cls, engine: Engine, mark: Mark) -> Tip:
        """The last entry before a mark."""
        entry = bytes(engine.entry(mark.entries - 1))
        return cls(leaf_hash(entry), mark.entries - 1, mark.stream_bytes - 2 - len(entry))

    def pack(self) -> bytes:
        """The record in LMDB."""
        return RECORD.pack(*self)

    @classmethod
    def unpack(cls, record: bytes) -> Tip:
        """Raises struct.error."""
        return cls(*RECORD.unpack(record))

    def check(self, layout: Layout) -> None:
        """Raise DamageError unless the journal holds this entry at this place."""
        offset = self.offset
        path = layout.journal
        for path in layout.segments():
            size = path.stat().st_size
            if offset < size:
                with path.open("rb") as file:
                    file.seek(offset)
                    length = int.from_bytes(file.read(2), "big")
                    if leaf_hash(file.read(length)) == self.leaf:
                        return
                break
            offset -= size
        raise DamageError(
            f"{path}: entry {self.entry} was committed here, but the journal does not hold it: "
            "its end is missing, or it is another journal",
            hint="restore the newest journal/ from a backup; only if it is lost for good: `ledgerfs restore` goes on without "
            "it, and says so in the log",
        )
