"""A page of numbers that processes share: what has been acknowledged, said by writers the moment after close() returned."""

from __future__ import annotations

import mmap
from pathlib import Path

_BYTES = 4096


class Board:
    """Slots of 64 bits. One process writes a slot; a store of eight aligned bytes is never seen in halves."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)
            self._slots = memoryview(self._map).cast("Q")

    def __getitem__(self, slot: int) -> int:
        return self._slots[slot]

    def __setitem__(self, slot: int, value: int) -> None:
        self._slots[slot] = value
