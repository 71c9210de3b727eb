"""Reading the entry stream straight from the segment files (docs/FORMAT.md, section 3), in plain Python.

For checking only: the daemon reads through the core. Start at ``read``. Nothing here writes.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledgerfsd import limits
from ledgerfsd.journal.layout import Layout

NAME: Final = re.compile(r"[0-9]{20}\.seg")
HASH: Final = rb'"[0-9a-f]{64}"'
# A whole seal as it stands in the stream. User text cannot hold one unnoticed: the u16 before it must be its length.
SEAL: Final = re.compile(
    rb'(..)(\{"count":[0-9]+,"first":([0-9]+),"height":([0-9]+),"index":[0-9]+,"log_root":' + HASH + rb',"policy":' + HASH
    + rb',"prev":' + HASH + rb'(?:,"state_root":' + HASH + rb')?,"t":"seal/1","time":"[^"]{30}","tx_root":' + HASH + rb"\})",
    re.DOTALL,
)  # fmt: skip


class BrokenError(Exception):
    """The bytes do not continue the stream. ``index``: the entry that should stand there."""

    def __init__(self, path: Path, index: int, what: str) -> None:
        super().__init__(what)
        self.path = path
        self.index = index
        self.what = what


@dataclass(slots=True)
class Entry:
    """One entry where it was found."""

    path: Path  # its segment
    index: int
    offset: int  # stream offset of its length field
    position: int  # the same within the segment
    data: bytes


@dataclass(frozen=True)
class Segment:
    """One mapped segment file."""

    path: Path
    first: int  # index of its first entry, from its name
    data: bytes | mmap.mmap
    base: int  # stream offset of its first byte, if all segments before it are whole

    def zeros_from(self, position: int) -> bool:
        """Whether nothing but zeros follows."""
        return not any(self.data[at : at + 2**20].strip(b"\0") for at in range(position, len(self.data), 2**20))


class Stream:
    """All segments of a store, mapped. A context manager."""

    def __init__(self, layout: Layout) -> None:
        self._stack = ExitStack()
        self.segments: list[Segment] = []
        base = 0
        for path in layout.segments():
            data = self._map(path)
            first = int(path.stem) if NAME.fullmatch(path.name) else -1
            self.segments.append(Segment(path, first, data, base))
            base += len(data)
        # An empty segment at the end was made ahead, or by a start that was interrupted; used when its turn comes.
        while len(self.segments) > 1 and self.segments[-1].zeros_from(0):
            base -= len(self.segments.pop().data)
        self.total_bytes = base

    def _map(self, path: Path) -> bytes | mmap.mmap:
        with path.open("rb") as file:
            if path.stat().st_size == 0:  # an empty file cannot be mapped
                return b""
            return self._stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def entries(self) -> Iterator[Entry]:
        """Every entry in order, up to the end of the stream. Raises BrokenError where the bytes stop being a stream."""
        index = 0
        for number, segment in enumerate(self.segments):
            last = number == len(self.segments) - 1
            if segment.first != index or index % limits.BUNDLE_ENTRIES:
                raise BrokenError(segment.path, index, f"a segment that begins with entry {index} should stand here")
            position = 0
            while (entry := _entry(segment, position, index)) is not None:
                yield entry
                position += 2 + len(entry.data)
                index += 1
            if not last and position != len(segment.data):
                raise BrokenError(segment.path, index, "the segment ends before its last byte, but another one follows")
            if not segment.zeros_from(position):
                raise BrokenError(segment.path, index, "bytes other than zero follow the end of the stream")

    def written_after(self, offset: int, *, first: int, height: int) -> bool:
        """Whether, at or after a stream offset, anything stands behind the block with this first entry and height.

        That is the seal of a later block, or any byte but zero behind the seal of this one.
        """
        seen = False
        for segment in self.segments:
            start = max(0, offset - segment.base)
            if start >= len(segment.data):
                continue
            if seen and not segment.zeros_from(start):
                return True
            for match in SEAL.finditer(segment.data, start):
                if int.from_bytes(match[1], "big") != len(match[2]):
                    continue
                if int(match[3]) > first and int(match[4]) > height:
                    return True
                if (int(match[3]), int(match[4])) == (first, height):
                    seen = True
                    if not segment.zeros_from(match.end()):
                        return True
        return False


def _entry(segment: Segment, position: int, index: int) -> Entry | None:
    """The entry at a position, None at the end of the stream."""
    if position == len(segment.data):
        return None
    length = int.from_bytes(segment.data[position : position + 2], "big")
    if length == 0:
        return None
    data = bytes(segment.data[position + 2 : position + 2 + length])
    if len(data) != length or length < 2:
        raise BrokenError(segment.path, index, f"an entry of {length} bytes does not fit at byte {position}")
    return Entry(segment.path, index, segment.base + position, position, data)
