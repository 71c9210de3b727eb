"""A text that is made once and read often: in memory while it is small, else in a nameless temporary file of the store."""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING, Final

from ledgerfsd import limits

if TYPE_CHECKING:
    from pathlib import Path

MEMORY_MAX: Final = 256 * limits.KIB


class Spool:
    """Its text is put together in one thread and read when it is whole."""

    def __init__(self, directory: Path, mtime_ns: int) -> None:
        self.size = 0
        self.mtime_ns = mtime_ns
        self._directory = directory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def put(self, data: bytes) -> None:
        """Add to its end. Raises OSError when the disk is full."""
        if self._file is None and self.size + len(data) > MEMORY_MAX:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  (it lives as long as this)
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)
        self.size += len(data)

    def finish(self) -> None:
        """It is whole. Raises OSError when the disk is full."""
        if self._file is not None:
            self._file.flush()

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        if self._file is None:
            return bytes(self._memory[offset : offset + size])
        return os.pread(self._file.fileno(), size, offset)
