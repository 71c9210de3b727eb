"""What the files of ``hashes/`` and ``runs/`` must hold, derived from the journal and compared byte for byte.

The files are projections: a difference is mended by `ledgerfs rebuild`, so it is reported but never called damage. Only
what lies before the applied-through mark is compared; what is behind it is written again at the next start.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import xxhash

from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.stream import Entry
from ledgerfsd.journal.tree import leaf_hash

TILE_HEIGHT: Final = 8  # level L of hashes/ holds the subtrees of height 8 L
BUFFER_BYTES: Final = 2**18
SUM_MASK: Final = 2**64 - 1


def id_record(tag: int, entry: int) -> int:
    """A number for a record of an id: their sum tells whether two sets of records, however spread over files, are the same."""
    return xxhash.xxh3_64_intdigest(struct.pack("<QI", tag, entry))


class _Expected:
    """One file: feed it what it should hold, ask for the first difference."""

    def __init__(self, path: Path, item_bytes: int) -> None:
        self.path = path
        self._item_bytes = item_bytes
        self._buffer = bytearray()
        self._position = 0
        self._file: BinaryIO | None = None
        self.difference = ""

    def feed(self, item: bytes) -> None:
        self._buffer += item
        if len(self._buffer) >= BUFFER_BYTES:
            self._compare()

    def _compare(self) -> None:
        if not self.difference:
            try:
                if self._file is None:
                    self._file = self.path.open("rb")
                found = self._file.read(len(self._buffer))
            except OSError as error:
                self.difference = f"cannot be read: {error.strerror}"
            else:
                if found != self._buffer:
                    self.difference = self._first_difference(found)
        self._position += len(self._buffer)
        self._buffer.clear()

    def _first_difference(self, found: bytes) -> str:
        same = next((at for at, byte in enumerate(found) if byte != self._buffer[at]), len(found))
        item = (self._position + same) // self._item_bytes
        return f"ends before item {item}" if same == len(found) else f"item {item} differs from the journal"

    def finish(self, *, exact: bool) -> None:
        """Compare the rest; ``exact``: nothing but zeros may follow."""
        self._compare()
        if self._file is not None:
            if exact and not self.difference and self._file.read().strip(b"\0"):
                self.difference = f"holds more than the {self._position // self._item_bytes} items that the journal has"
            self._file.close()


class Projections:
    """All derived files, fed entry by entry in order."""

    def __init__(self, layout: Layout, applied: int) -> None:
        """``applied``: entries up to the mark; later ones are ignored."""
        self._layout = layout
        self._applied = applied
        self._levels: dict[int, _Expected] = {}
        self._level_sizes: dict[int, int] = {}
        runs = layout.runs
        self._offsets = _Expected(runs / "offsets", 8)
        self._transactions = _Expected(runs / "transactions", 8)
        self._blocks = _Expected(runs / "blocks", 8)
        self._seed = 0
        self.ids = 0  # of all records of ids, see id_record

    def subtree(self, height: int, node: bytes) -> None:
        """A subtree of the log became complete."""
        level, rest = divmod(height, TILE_HEIGHT)
        if rest:
            return
        number = self._level_sizes.get(level, 0)
        self._level_sizes[level] = number + 1
        if (number + 1) << (TILE_HEIGHT * level) > self._applied:
            return
        if level not in self._levels:
            self._levels[level] = _Expected(self._layout.hashes / str(level), 32)
        self._levels[level].feed(node)

    def entry(self, entry: Entry, value: dict[str, Any]) -> None:
        """An entry, and what it says."""
        if entry.index >= self._applied:
            return
        if entry.index == 0:
            self._seed = int.from_bytes(leaf_hash(entry.data)[:8], "little")
        self._offsets.feed(struct.pack("<Q", entry.offset))
        if tag := self._tag(value):
            self.ids = self.ids + id_record(tag, entry.index) & SUM_MASK
        if "tx" in value:
            self._transactions.feed(struct.pack("<Q", entry.index))
        if value["t"] == "seal/1":
            self._blocks.feed(struct.pack("<Q", entry.index))

    def _tag(self, value: dict[str, Any]) -> int:
        """The id tag (docs/FORMAT.md, section 8); 0 for an entry that owns no id."""
        if "id" not in value or (value["t"] == "rejected/1" and value["code"] == "id_reused"):
            return 0
        tag: int = xxhash.xxh3_64_intdigest(value["id"].encode(), seed=self._seed)
        return tag or 1

    def finish(self, entries: int) -> Iterator[tuple[str, int, str]]:
        """The differences: file, entry index (-1: none in particular), what."""
        exact = self._applied == entries
        for file in [*self._levels.values(), self._offsets, self._transactions, self._blocks]:
            file.finish(exact=exact)
            if file.difference:
                yield str(file.path.relative_to(self._layout.root)), -1, file.difference
