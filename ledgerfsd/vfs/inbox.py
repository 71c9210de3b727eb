"""The door to the inbox: open flags, directories and attributes of FUSE in terms of ``service.inbox``."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from ledgerfsd.service.inbox import Area, Inbox, InboxFile
from ledgerfsd.service.inbox_handles import InboxHandle
from ledgerfsd.vfs.handles import OpenInboxFile
from ledgerfsd.vfs.nodes import Fixed

if TYPE_CHECKING:
    import pyfuse3

AREAS: Final = {Fixed.INBOX: Area.INBOX, Fixed.ATOMIC: Area.ATOMIC, Fixed.DRY_RUN: Area.DRY_RUN}
_SUBDIRECTORIES: Final = (b"atomic", b"dry-run")
_RENAME_NOREPLACE: Final = 1


class Door:
    """What the mount asks of the inbox. All methods raise errors.Refused or OSError."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def area(self, directory: int) -> Area:
        """The area of a directory. Raises OSError EROFS for a directory that takes no files."""
        area = AREAS.get(Fixed(directory)) if directory in AREAS else None
        if area is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return area

    def file(self, number: int) -> InboxFile:
        """The file with this number. Raises OSError ENOENT when it has gone."""
        file = self._inbox.get(number)
        if file is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return file

    def create(self, directory: int, name: bytes, flags: int, ctx: pyfuse3.RequestContext) -> InboxFile:
        """A new file, or the one that came into being since the kernel looked."""
        area = self.area(directory)
        there = self._inbox.find(area, name)
        if there is not None and not flags & os.O_EXCL:
            return there
        return self._inbox.create(area, name, uid=ctx.uid, gid=ctx.gid)

    def open(self, file: InboxFile, flags: int) -> InboxHandle | OpenInboxFile:
        """Open for reading, or for writing."""
        if flags & os.O_ACCMODE == os.O_RDONLY:
            return OpenInboxFile(self._inbox, file)
        return self._inbox.open(file, append=bool(flags & os.O_APPEND), truncate=bool(flags & os.O_TRUNC))

    def size(self, file: InboxFile) -> int:
        """What stat says."""
        return self._inbox.size(file)

    def mtime_ns(self, file: InboxFile) -> int:
        """Time of the receipt, else of the file's creation."""
        text = self._inbox.text(file)
        return text.mtime_ns if text is not None else file.created_ns

    def directory_mtime_ns(self, directory: int) -> int:
        """When a name last came or went."""
        return self._inbox.mtime_ns[self.area(directory)]

    def resize(self, file: InboxFile, handle: object, size: int) -> None:
        """Truncate through an open handle, or by name."""
        if isinstance(handle, InboxHandle):
            handle.truncate(size)
        elif size != self._inbox.size(file):
            self._inbox.resize(file, size)

    def unlink(self, directory: int, name: bytes) -> None:
        """Remove a name."""
        area = self.area(directory)
        if name in _SUBDIRECTORIES and area is Area.INBOX:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self._inbox.unlink(area, name)

    async def rename(self, directory: int, name: bytes, to_directory: int, to_name: bytes, flags: int) -> None:
        """Rename within the inbox."""
        area, to_area = self.area(directory), self.area(to_directory)
        if flags & ~_RENAME_NOREPLACE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if name in _SUBDIRECTORIES and area is Area.INBOX:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        await self._inbox.rename(area, name, to_area, to_name, replace=not flags & _RENAME_NOREPLACE)

    def verdict(self, file: InboxFile) -> tuple[str, str] | None:
        """Status and code of a file that has its answer."""
        text = self._inbox.text(file)
        return text.verdict if text is not None else None
