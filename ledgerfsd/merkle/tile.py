"""The C2SP tlog-tiles layout: names of tiles, their widths for a tree size, and entry bundles.

A tile of level L holds up to 256 hashes of subtrees of 256**L leaves; an entry bundle holds up to 256 entries, each
after its length (u16, big-endian). A name such as ``tile/0/x001/x234/067.p/44`` is relative to
``log/``. Start at ``decode``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ledgerfsd.limits import BUNDLE_ENTRIES, ENTRY_BYTES_MAX

TILE_WIDTH: Final = BUNDLE_ENTRIES
LEVEL_MAX: Final = 63  # as C2SP says; trees of fewer than 2**64 leaves have hashes on levels 0 to 7 only
INDEX_MAX: Final = (2**64 - 1) // TILE_WIDTH
ENTRIES: Final = -1  # stands for a level in the name of an entry bundle

_PATH = re.compile(r"tile/(?P<level>entries|[0-9]+)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of hashes, or an entry bundle."""

    level: int  # 0..63, or ENTRIES
    index: int
    width: int = TILE_WIDTH  # 1..256 hashes or entries; below 256 it is a partial one


def encode_index(index: int) -> str:
    """``1234067`` → ``x001/x234/067``."""
    if index < 0:
        raise ValueError(f"a tile index cannot be {index}")
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    return "/".join(reversed(groups))


def decode_index(path: str) -> int:
    """``x001/x234/067`` → ``1234067``. Raises ValueError for every other spelling."""
    digits = path.replace("x", "").replace("/", "")
    if not (digits.isascii() and digits.isdigit()) or encode_index(int(digits)) != path:
        raise ValueError(f"not a tile index: {path}")
    return int(digits)


def check(tile: Tile) -> Tile:
    """Return the tile. Raises ValueError for one that has no name. (Whether a tree has it, ``width`` says.)"""
    if tile.level != ENTRIES and not 0 <= tile.level <= LEVEL_MAX:
        raise ValueError(f"no tile level {tile.level}")
    if not 0 <= tile.index <= INDEX_MAX:
        raise ValueError(f"no tile index {tile.index}")
    if not 1 <= tile.width <= TILE_WIDTH:
        raise ValueError(f"no tile width {tile.width}")
    return tile


def encode(tile: Tile) -> str:
    """The name of a tile. Raises ValueError for one that cannot be."""
    check(tile)
    level = "entries" if tile.level == ENTRIES else str(tile.level)
    partial = "" if tile.width == TILE_WIDTH else f".p/{tile.width}"
    return f"tile/{level}/{encode_index(tile.index)}{partial}"


def decode(path: str) -> Tile:
    """The tile of a name. Raises ValueError for a name that ``encode`` would not give."""
    if len(path) > 64 or not (match := _PATH.fullmatch(path)):
        raise ValueError(f"not the name of a tile: {path}")
    level = ENTRIES if match["level"] == "entries" else int(match["level"])
    tile = Tile(level, decode_index(match["index"]), int(match["width"] or TILE_WIDTH))
    if encode(tile) != path:
        raise ValueError(f"not the name of a tile: {path}")
    return tile


def level_size(level: int, size: int) -> int:
    """How many hashes of a level (or entries) a tree of ``size`` leaves has."""
    return size >> (8 * max(level, 0))


def widths(level: int, size: int) -> tuple[int, int]:
    """How many full tiles a level of a tree of ``size`` leaves has, and the width of the partial one or 0."""
    return divmod(level_size(level, size), TILE_WIDTH)


def width(level: int, index: int, size: int) -> int:
    """The width of a tile in a tree of ``size`` leaves: 1..256, or 0 when the tree does not have it."""
    return max(0, min(TILE_WIDTH, level_size(level, size) - index * TILE_WIDTH))


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle. Raises ValueError for an entry longer than its length field can say."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise ValueError(f"an entry cannot have {len(entry)} bytes")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_bundle(data: bytes | memoryview) -> list[bytes]:
    """The entries of a bundle. Raises ValueError when it is cut off or holds more than 256."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + 2
        at = begin + int.from_bytes(data[at:begin], "big")
        if begin > len(data) or at > len(data):
            raise ValueError(f"the bundle ends inside entry {len(entries)}")
        entries.append(bytes(data[begin:at]))
    if len(entries) > TILE_WIDTH:
        raise ValueError(f"a bundle cannot hold {len(entries)} entries")
    return entries
