"""Copies of checkpoints in a folder: a mount of another machine, a WORM device, a disk with append-only folders.

A file is made with O_EXCL, synced, made read-only, and immutable where the file system can (chattr +i). What stands there
already is never touched: a checkpoint of the same size with another root means two histories.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from ledgerfsd.service.anchors import kinds
from ledgerfsd.service.anchors.kinds import Evidence, Head, Threads

if TYPE_CHECKING:
    from ledgerfsd.config import FolderAnchor
    from ledgerfsd.service.system import AnchorKind

_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, ioctl_iflags(2)
_SET_FLAGS: Final = 0x40086602
_IMMUTABLE: Final = 0x10


class Folder:
    """A folder that gets a copy of every checkpoint."""

    kind: ClassVar[AnchorKind] = "folder"
    records: ClassVar[bool] = False

    def __init__(self, settings: FolderAnchor) -> None:
        self.name = settings.name
        self._folder = Path(settings.path)
        self._threads = Threads()

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    async def put(self, head: Head) -> Evidence:
        """Write the checkpoint. The folder may be on another machine, and hang."""
        path = await self._threads.run(write, self._folder, head)
        return Evidence(kinds.sha256(head.data), {"path": str(path)})


def write(folder: Path, head: Head) -> Path:
    """Put a checkpoint into a folder, durably. Raises OSError; AnchorError when another one of its size is there."""
    path = folder / head.file
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    except FileExistsError:
        kinds.compare(str(path), path.read_bytes(), head.data)
        return path
    try:
        view = memoryview(head.data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        # If we stop before this line, the file may be cut short: then it names no size, and the next try says so.
        _make_immutable(descriptor)
    finally:
        os.close(descriptor)
    _sync(folder)
    return path


def _make_immutable(descriptor: int) -> None:
    """Where the file system and our rights allow it. A folder that is WORM by itself needs nothing of us."""
    with suppress(OSError):
        flags = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(struct.calcsize("l"))))[0]
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags | _IMMUTABLE))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
