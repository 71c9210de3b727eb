"""Runs, the sorted immutable files of ``indexes/`` (docs/FORMAT.md, section 16): the twin of ``csrc/run_file.c``.

Plain and slow. ``write`` makes the bytes of a run, ``Run`` reads them; both go by the text of the format alone.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import xxhash

MAGIC: Final = b"lfsrun1\n"
BLOCK: Final = 128
POSTINGS: Final = 0
WORDS: Final = 1
FENCE: Final = struct.Struct("<QQQII3II")
FOOTER: Final = struct.Struct("<8sIIQQQQQQ")


class Record(NamedTuple):
    """One line of an index. In ``words``: length and states are 0."""

    key: int
    entry: int
    length: int
    states: int


@dataclass(frozen=True)
class Fence:
    """What is known of a block without reading it."""

    key: int
    offset: int
    log: int
    entry: int
    count: int
    newest: tuple[int, int, int]
    check: int


@dataclass
class Past:
    """What some records of one key come to. ``newest``: entry + 1 by facet, 0 for none."""

    count: int = 0
    log: int = 0
    last: int = 0
    newest: tuple[int, int, int] = (0, 0, 0)

    def add(self, record: Record) -> None:
        """One more record, the newest."""
        at = record.entry + 1
        status, totals, held = self.newest
        self.count += 1
        self.log += record.length + 1
        self.last = at
        self.newest = (
            status if record.states else at,
            at if record.states & 1 else totals,
            at if record.states & 2 else held,
        )


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """Small numbers of either sign as small numbers."""
    return 2 * value if value >= 0 else -2 * value - 1


def write(kind: int, first: int, end: int, records: Iterable[Record]) -> bytes:
    """The file of a run. The records are sorted here, those of one key by entry."""
    blocks, fences = bytearray(), bytearray()
    ordered = sorted(records, key=lambda record: (record.key, record.entry))
    past, key = Past(), -1
    for start in range(0, len(ordered), BLOCK):
        block = bytearray()
        head = ordered[start]
        if head.key != key:
            past = Past()
        before, state = None, (past.log, head.entry, past.count, *past.newest)
        for record in ordered[start : start + BLOCK]:
            if record.key != key:
                past, key = Past(), record.key
            block += _encode(kind, first, record, before)
            past.add(record)
            before = record
        check = xxhash.xxh3_64_intdigest(bytes(block)) & 0xFFFF_FFFF
        fences += FENCE.pack(head.key, len(blocks), *state, check)
        blocks += block
    footer = FOOTER.pack(MAGIC, kind, BLOCK, first, end, len(ordered), len(blocks), xxhash.xxh3_64_intdigest(fences), 0)
    footer = footer[:-8] + struct.pack("<Q", xxhash.xxh3_64_intdigest(footer[:-8]))
    return bytes(blocks + bytes(-len(blocks) % 8) + fences) + footer


def _encode(kind: int, first: int, record: Record, before: Record | None) -> bytes:
    if before is not None and before.key == record.key:
        out = varint((record.entry - before.entry) << 3 | record.states << 1)
    else:
        out = varint((record.entry - first) << 3 | record.states << 1 | 1)
        out += varint(record.key - before.key if before is not None else 0)
    if kind == POSTINGS:
        out += varint(zigzag(record.length - (before.length if before is not None else 0)))
    return out


class Run:
    """A run that was read. Raises ValueError for bytes that are not one."""

    def __init__(self, data: bytes) -> None:
        if len(data) < FOOTER.size:
            raise ValueError("too short")
        footer = FOOTER.unpack(data[-FOOTER.size :])
        magic, self.kind, block, self.first, self.end, self.records, self.size, fences_check, check = footer
        if magic != MAGIC or block != BLOCK or check != xxhash.xxh3_64_intdigest(data[-FOOTER.size : -8]):
            raise ValueError("not a run")
        begin, count = -(-self.size // 8) * 8, -(-self.records // BLOCK)
        fences = data[begin : -FOOTER.size]
        if len(fences) != count * FENCE.size or fences_check != xxhash.xxh3_64_intdigest(fences):
            raise ValueError("its fences are not what was written")
        self._data = data
        self.fences = [
            Fence(key, offset, log, entry, count, (status, totals, held), check)
            for key, offset, log, entry, count, status, totals, held, check in FENCE.iter_unpack(fences)
        ]

    def block(self, number: int) -> list[Record]:
        """The records of a block. Raises ValueError when it is not what was written."""
        fence = self.fences[number]
        until = self.fences[number + 1].offset if number + 1 < len(self.fences) else self.size
        data = self._data[fence.offset : until]
        if xxhash.xxh3_64_intdigest(data) & 0xFFFF_FFFF != fence.check:
            raise ValueError(f"block {number} is not what was written")
        numbers, found = _varints(data), []
        key, entry, length = fence.key, 0, 0
        for _ in range(min(BLOCK, self.records - number * BLOCK)):
            head = next(numbers)
            entry = self.first + (head >> 3) if head & 1 else entry + (head >> 3)
            key += next(numbers) if head & 1 else 0
            if self.kind == POSTINGS:
                more = next(numbers)
                length += -(more + 1) // 2 if more & 1 else more // 2
            found.append(Record(key, entry, length, head >> 1 & 3))
        return found

    def __iter__(self) -> Iterator[Record]:
        for number in range(len(self.fences)):
            yield from self.block(number)

    def before(self, key: int, bound: int) -> Past:
        """What the records of a key with an entry below ``bound`` come to: the fence, and one block."""
        place = bisect_right(self.fences, (key, bound), key=lambda fence: (fence.key, fence.entry)) - 1
        past = Past()
        if place < 0:
            return past
        fence = self.fences[place]
        if fence.key == key:
            past = Past(fence.count, fence.log, max(fence.newest), fence.newest)
        for record in self.block(place):
            if record.key == key and record.entry < bound:
                past.add(record)
        return past


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
