"""The file of a consumer's position (docs/FORMAT.md, section 17). Start at ``PositionFile.write``.

Two slots of a page each, and the one with the larger serial counts. A position is written into the other one, in place, with
one synchronous write: consumers acknowledge often, and a new file for each would cost three syncs of the file system's journal. A
crash can spoil only the slot that is being written, whose position nobody was told is durable.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

import msgspec

from ledgerfsd.journal.layout import sync_directory, write_durably

if TYPE_CHECKING:
    from pathlib import Path

SLOT_BYTES: Final = 4096  # a page: no write touches two slots
SLOTS: Final = 2
FILE_BYTES: Final = SLOT_BYTES * SLOTS


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """What a slot says."""

    consumer: str
    position: int
    time: str
    serial: int = 0  # absent in files from before there were slots


def _slot(kept: Kept) -> bytes:
    line = msgspec.json.encode(kept) + b"\n"
    return (line + hashlib.sha256(line).hexdigest().encode() + b"\n").ljust(SLOT_BYTES, b"\0")


def _line(slot: bytes) -> bytes | None:
    """What a slot holds; None when it is empty or torn."""
    line, newline, digest = slot.rstrip(b"\0").removesuffix(b"\n").rpartition(b"\n")
    return line if digest == hashlib.sha256(line + newline).hexdigest().encode() else None


class PositionFile:
    """One file. ``slot`` is the one that counts, -1 when the file is to be made anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slot = -1
        self._serial = 0

    def read(self) -> Kept:
        """What is kept. Raises OSError, or ValueError (msgspec's too) when it is not what was written."""
        data = self.path.read_bytes()
        lines = {-1: data}  # one object alone: as it was written before there were slots
        if len(data) == FILE_BYTES:
            slots = ((number, _line(data[number * SLOT_BYTES :][:SLOT_BYTES])) for number in range(SLOTS))
            lines = {number: line for number, line in slots if line is not None}
        if not lines:
            raise ValueError("neither of its slots is whole")
        found = {number: msgspec.json.decode(line, type=Kept) for number, line in lines.items()}
        newest = max(found, key=lambda number: found[number].serial)
        kept = found[newest]
        if kept.consumer != self.path.name or kept.position < 0:
            raise ValueError("it is another consumer's")
        self._slot, self._serial = newest, kept.serial
        return kept

    def write(self, position: int, time: str) -> None:
        """Durable when this returns. Raises OSError: then the old position counts, or after a crash perhaps this one."""
        data = _slot(Kept(self.path.name, position, time, self._serial + 1))
        if self._slot < 0 or not self._overwrite(1 - self._slot, data):
            self._anew(data)
        else:
            self._slot = 1 - self._slot
        self._serial += 1

    def _anew(self, data: bytes) -> None:
        if not self.path.parent.is_dir():  # a store from before there were consumers
            self.path.parent.mkdir(mode=0o750)
            sync_directory(self.path.parent.parent)
        write_durably(self.path, data.ljust(FILE_BYTES, b"\0"))
        self._slot = 0

    def _overwrite(self, number: int, data: bytes) -> bool:
        """False when the file has gone."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if os.pwrite(descriptor, data, number * SLOT_BYTES) != len(data):
                raise OSError(0, "a write was cut short")
        finally:
            os.close(descriptor)
        return True
