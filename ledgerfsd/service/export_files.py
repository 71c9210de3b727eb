"""Where ``exports/`` keeps its text: files that only grow, and a mark that says how far they count (docs/FORMAT.md, section 20).

Start at ``Spool`` and ``read_mark``. A projection: what does not fit is made anew. Nothing is synced, because the checksum in the
mark tells what a power failure left.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

import msgspec

from ledgerfsd.export.book import BookState

if TYPE_CHECKING:
    from pathlib import Path

TEXT_VERSION: Final = 1  # raise it when what is written changes: then all of it is written anew
BUFFER_BYTES: Final = 1 << 20


class Extent(msgspec.Struct):
    """So much of a spool counts, and what it hashes to (hex SHA-256)."""

    size: int
    sha256: str


class Month(msgspec.Struct, array_like=True):
    """Where a month lies in the spools, and the time of its last entry once it has ended."""

    name: str
    body: int
    opening: int
    opening_end: int
    end_ns: int = 0


class Mark(msgspec.Struct):
    """How far an export was written: ``entries`` of the log, the last of which has the leaf hash ``leaf``."""

    version: int
    entries: int
    leaf: str
    body: Extent
    openings: Extent
    months: list[Month]
    book: BookState


def write_mark(path: Path, mark: Mark) -> None:
    """Replace it. Raises OSError."""
    line = msgspec.json.encode(mark) + b"\n"
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(line + hashlib.sha256(line).hexdigest().encode() + b"\n")
    temporary.rename(path)


def read_mark(path: Path) -> Mark:
    """Raises OSError, or ValueError (msgspec's too) when it is not what was written."""
    line, newline, digest = path.read_bytes().removesuffix(b"\n").rpartition(b"\n")
    if digest != hashlib.sha256(line + newline).hexdigest().encode():
        raise ValueError("the mark is not what was written")
    mark = msgspec.json.decode(line, type=Mark)
    if mark.version != TEXT_VERSION:
        raise ValueError("it was written by another version")
    return mark


class Spool:
    """Text that only grows, in a file. What was put is read only after ``flush``."""

    def __init__(self, path: Path, extent: Extent | None = None) -> None:
        """The file as far as ``extent``, else an empty one. Raises OSError, and ValueError when its text is not what was written."""
        self.size = 0
        self._hash = hashlib.sha256()
        if extent is None:
            path.unlink(missing_ok=True)  # who still reads an old one keeps it
        self._file = path.open("w+b" if extent is None else "r+b", buffering=BUFFER_BYTES)
        if extent is not None:
            self._check(extent)

    def _check(self, extent: Extent) -> None:
        while self.size < extent.size and (piece := self._file.read(min(BUFFER_BYTES, extent.size - self.size))):
            self._hash.update(piece)
            self.size += len(piece)
        if self.extent() != extent:
            self._file.close()
            raise ValueError("the text is not what was written")
        self._file.truncate(extent.size)  # what was written behind the mark is written again
        self._file.seek(extent.size)

    def extent(self) -> Extent:
        """All of it."""
        return Extent(self.size, self._hash.hexdigest())

    def put(self, text: str) -> None:
        """Add to it. Raises OSError."""
        data = text.encode()
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def flush(self) -> None:
        """Let it be read. Raises OSError."""
        self._file.flush()

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        return os.pread(self._file.fileno(), size, offset)
