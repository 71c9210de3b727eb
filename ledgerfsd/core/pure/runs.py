"""Runs, the sorted immutable files of ``indexes/`` (docs/FORMAT.md, section 16): the twin of ``csrc/runs/run_write.c``, ``run_file.c``.

Plain and slow. ``write`` makes the bytes of a run, ``Run`` reads them; both go by the text of the format alone.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Final, NamedTuple

import xxhash

MAGIC: Final = b"lfsrun1\n"
BLOCK: Final = 128
KINDS: Final = ("postings", "words", "ids")
POSTINGS: Final = 0
WORDS: Final = 1
IDS: Final = 2
LINE_BITS: Final = 512  # of a filter
BITS_PER_RECORD: Final = 12
PROBES: Final = 6
ODD: Final = 0x9E37_79B9_7F4A_7C15
LISTED: Final = struct.Struct("<QQ")  # for each kind, before the names
NAME_BYTES: Final = 48
FENCE: Final = struct.Struct("<QQQII3II")
FOOTER: Final = struct.Struct("<8sIIQQQQQQ")


class Record(NamedTuple):
    """One line of an index. In ``words`` and ``ids``: length and states are 0."""

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
    if kind == IDS:
        fences += filter_of([record.key for record in ordered])
    footer = FOOTER.pack(MAGIC, kind, BLOCK, first, end, len(ordered), len(blocks), xxhash.xxh3_64_intdigest(fences), 0)
    footer = footer[:-8] + struct.pack("<Q", xxhash.xxh3_64_intdigest(footer[:-8]))
    return bytes(blocks + bytes(-len(blocks) % 8) + fences) + footer


def filter_lines(records: int) -> int:
    """How many lines the filter of so many records has."""
    return -(-records * BITS_PER_RECORD // LINE_BITS)


def filter_bits(key: int, lines: int) -> list[int]:
    """The bits of a key in a filter: all in one line."""
    line, bits = key * lines >> 64, key * ODD
    return [line * LINE_BITS + (bits >> 9 * probe & LINE_BITS - 1) for probe in range(PROBES)]


def filter_of(keys: Sequence[int]) -> bytes:
    """The filter of a run of ids."""
    lines = filter_lines(len(keys))
    out = bytearray(lines * LINE_BITS // 8)
    for key in keys:
        for bit in filter_bits(key, lines):
            out[bit >> 3] |= 1 << (bit & 7)
    return bytes(out)


def listed(table: bytes, kind: int) -> list[str]:
    """The names of the runs of a kind in the table ``indexes`` of LMDB, oldest first. Raises ValueError."""
    at, names = 0, list[str]()
    for _ in range(kind + 1):
        if len(table) < at + LISTED.size:
            raise ValueError("the list is cut short")
        _, count = LISTED.unpack_from(table, at)
        at += LISTED.size
        pieces = [table[at + NAME_BYTES * number :][:NAME_BYTES] for number in range(count)]
        names = [piece.rstrip(b"\0").decode("ascii", "replace") for piece in pieces]
        at += NAME_BYTES * count
    return names


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

    def __init__(self, data: bytes | mmap) -> None:
        if len(data) < FOOTER.size:
            raise ValueError("too short")
        footer = FOOTER.unpack(data[-FOOTER.size :])
        magic, self.kind, block, self.first, self.end, self.records, self.size, fences_check, check = footer
        if magic != MAGIC or block != BLOCK or check != xxhash.xxh3_64_intdigest(data[-FOOTER.size : -8]):
            raise ValueError("not a run")
        begin, count = -(-self.size // 8) * 8, -(-self.records // BLOCK)
        fences, lines = data[begin : -FOOTER.size], filter_lines(self.records) if self.kind == IDS else 0
        if len(fences) != count * FENCE.size + lines * LINE_BITS // 8 or fences_check != xxhash.xxh3_64_intdigest(
            fences
        ):
            raise ValueError("its fences are not what was written")
        self._data = data
        fences, self.filter = fences[: count * FENCE.size], fences[count * FENCE.size :]
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

    def may_have(self, key: int) -> bool:
        """Whether the filter lets a key pass: always when there is a record of it."""
        bits = filter_bits(key, len(self.filter) * 8 // LINE_BITS) if self.filter else [0]
        return bool(self.filter) and all(self.filter[bit >> 3] >> (bit & 7) & 1 for bit in bits)

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
