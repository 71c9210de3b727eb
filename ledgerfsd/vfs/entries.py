"""Directory entries that do not make the kernel remember a file.

pyfuse3 always answers READDIRPLUS, so every name listed would pin an inode and a directory entry in the kernel: 1 KiB
each, 11 GiB for ten million names. A node number of 0 beside a real ``st_ino`` tells the kernel to take the name and
nothing else, but pyfuse3 sets both at once. So the node number is cleared where it lies: it is the first member of
the structure that EntryAttributes wraps, directly behind the object's head. ``find`` checks that at start; if a later
pyfuse3 lays it out otherwise, listings are answered with full attributes instead: right, but more expensive.
"""

from __future__ import annotations

import ctypes
import stat
from typing import Final

import pyfuse3

_HEAD: Final = object.__basicsize__
_MARK: Final = 0x5A17_C0DE_0DD5_EED5


def find() -> bool:
    """Whether the node number lies where we expect it."""
    probe = pyfuse3.EntryAttributes()
    size = type(probe).__basicsize__
    blank = ctypes.string_at(id(probe), size)
    probe.st_ino = pyfuse3.InodeT(_MARK)
    marked = ctypes.string_at(id(probe), size)
    mark = _MARK.to_bytes(8, "little")
    same = blank[:_HEAD] == marked[:_HEAD]
    return same and marked[_HEAD : _HEAD + 8] == mark and marked.count(mark) == 2


class NameOnly:
    """One reusable entry that carries an inode number and a type, and no node number."""

    def __init__(self) -> None:
        self.entry = pyfuse3.EntryAttributes()
        self._node = ctypes.c_uint64.from_address(id(self.entry) + _HEAD)
        self._format = stat.S_IFREG  # as EntryAttributes begins

    def set(self, inode: int, format_: int) -> pyfuse3.EntryAttributes:
        """The entry for a file; ``format_``: its type as in ``st_mode``."""
        self.entry.st_ino = pyfuse3.InodeT(inode)
        self._node.value = 0
        if format_ != self._format:
            self._format = format_
            self.entry.st_mode = pyfuse3.ModeT(format_)
        return self.entry


AVAILABLE: Final = find()
