"""Open files and directories that need a state of their own.

Files that are only read have none: their handle number is their inode number, which lies below ``FIRST``.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from ledgerfsd.service.inbox import Inbox, InboxFile
    from ledgerfsd.service.inbox_handles import InboxHandle
    from ledgerfsd.vfs.branch import Handle, Listing
    from ledgerfsd.vfs.contents import Readable

FIRST: Final = 1 << 62


class OpenText:
    """A file opened for reading that shows the state at the moment it was opened."""

    def __init__(self, content: Readable) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        return self._content.read(offset, size)


class OpenInboxFile:
    """An inbox file opened for reading: what is staged, else its receipt."""

    def __init__(self, inbox: Inbox, file: InboxFile) -> None:
        self._file = file
        self._text = inbox.text(file)

    def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        if self._file.content is not None:
            return bytes(self._file.content[offset : offset + size])
        return self._text.read(offset, size) if self._text is not None else b""


class OpenDirectory:
    """A directory being listed. ``entries``: taken when it was opened; None: read as it goes on."""

    def __init__(self, inode: int, entries: list[tuple[bytes, int]] | Listing | None) -> None:
        self.inode = inode
        self.entries = entries


Opened: TypeAlias = "OpenText | OpenInboxFile | OpenDirectory | InboxHandle | Handle"


class Handles:
    """The table of open handles with a state."""

    def __init__(self) -> None:
        self._open: dict[int, Opened] = {}
        self._next = FIRST

    def add(self, handle: Opened) -> int:
        """Its number."""
        number = self._next
        self._next += 1
        self._open[number] = handle
        return number

    def put(self, number: int, handle: Opened) -> None:
        """A handle whose number the kernel has already: the front gave it (``core.front``), above all of ours."""
        self._open[number] = handle

    def get(self, number: int) -> Opened:
        """The handle with this number. Raises OSError EBADF."""
        handle = self._open.get(number)
        if handle is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def drop(self, number: int) -> Opened | None:
        """Forget a handle; returns it."""
        return self._open.pop(number, None)

    def __len__(self) -> int:
        return len(self._open)
