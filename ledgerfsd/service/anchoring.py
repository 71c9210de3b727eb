"""Copies of checkpoints in folders that this machine should not be able to rewrite (docs/SECURITY.md).

Start at ``Anchoring.run``. Every few seconds, when the log has grown, the newest checkpoint is written into each folder: a
mount of another machine, a WORM device, a disk with append-only folders. A file is made with O_EXCL, synced, made
read-only, and immutable where the file system can (chattr +i). What stands there already is never touched: a checkpoint
of the same size with another root means two histories, and is said so until somebody looks into it.

Anchors never hold up commits: a folder that fails is tried again, ever more seldom, and ``health`` says so when the newest
anchor is too old.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from ledgerfsd.errors import LedgerError
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.merkle.proof import ProofError

if TYPE_CHECKING:
    from ledgerfsd.service.ledger import Ledger
    from ledgerfsd.service.proofs import Proofs

log = structlog.get_logger()

SUFFIX: Final = ".checkpoint"
BACK_OFF: Final = 2  # times as long after every failure
BACK_OFF_MOST: Final = 64  # times the interval
_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, ioctl_iflags(2)
_SET_FLAGS: Final = 0x40086602
_IMMUTABLE: Final = 0x10


class AnchorError(LedgerError):
    """A folder holds another history."""


class Folder:
    """One folder and how it stands with it."""

    def __init__(self, path: Path, now: float) -> None:
        self.path = path
        self.size = 0  # of the newest checkpoint that is there
        self.since = now  # when it was last up to date
        self.failure = ""
        self.contradicted = False
        self._pause = 1
        self._next = now

    def due(self, now: float) -> bool:
        """Whether it may be tried again."""
        return not self.contradicted and now >= self._next

    def done(self, size: int, now: float) -> None:
        """It has the newest checkpoint."""
        self.size, self.since, self.failure, self._pause = size, now, "", 1

    def failed(self, error: Exception, now: float, interval: float) -> None:
        """It has not. Wait before the next try."""
        if not self.failure:
            log.warning("a checkpoint could not be anchored; commits go on", folder=str(self.path), reason=str(error))
        self.failure = str(error)
        self.contradicted = isinstance(error, AnchorError)
        self._next = now + interval * self._pause
        self._pause = min(self._pause * BACK_OFF, BACK_OFF_MOST)


class Anchoring:
    """Keeps the folders up to date."""

    def __init__(self, ledger: Ledger, proofs: Proofs, folders: list[Path], *, interval: float, limit: float) -> None:
        """``interval``: seconds between anchors; ``limit``: seconds after which ``health`` complains."""
        now = trio.current_time()
        self.folders = [Folder(path, now) for path in folders]
        self._ledger = ledger
        self._proofs = proofs
        self._interval = interval
        self._limit = limit

    def trouble(self) -> str:
        """What is wrong, for ``health``; ``""`` if nothing."""
        now, entries = trio.current_time(), self._ledger.known.entries
        found = []
        for folder in self.folders:
            late = now - folder.since if folder.size < entries else 0.0
            if folder.contradicted or late > self._limit:
                why = folder.failure or "it is being written"
                found.append(
                    f"{folder.path}: the newest anchor is of {folder.size} entries, {late:.0f} s behind: {why}"
                )
        return "; ".join(found)

    def gauges(self) -> dict[str, tuple[str, float]]:
        """The window that is open to somebody with root and the signing key."""
        newest = max((folder.size for folder in self.folders), default=0)
        entries = self._ledger.known.entries
        behind = min((trio.current_time() - folder.since for folder in self.folders), default=0.0)
        found = {"unanchored_entries": ("Entries that no anchor speaks of", float(entries - newest))}
        if self.folders:
            meaning = "Seconds since the newest anchor, 0 when it is of the whole log"
            found["unanchored_seconds"] = (meaning, behind if newest < entries else 0.0)
        return found

    async def run(self) -> None:
        """Anchor until cancelled."""
        if not self.folders:
            return
        while True:
            await self.once()
            await trio.sleep(self._interval)

    async def once(self) -> None:
        """Bring every folder that is due up to date."""
        now = trio.current_time()
        due = [folder for folder in self.folders if folder.due(now) and folder.size < self._ledger.known.entries]
        if not due:
            return
        try:
            data = (await self._proofs.checkpoint()).data
        except OSError as error:
            for folder in due:
                folder.failed(error, now, self._interval)
            return
        size = checkpoint.parse(note.parse(data).text).size
        for folder in due:
            try:
                # In a thread: the folder may be on another machine. One that hangs keeps the others waiting, not the mount.
                life = self._ledger.known.incarnation
                await trio.to_thread.run_sync(write, folder.path, data, life, abandon_on_cancel=True)
            except (OSError, LedgerError) as error:
                folder.failed(error, trio.current_time(), self._interval)
            else:
                folder.done(size, trio.current_time())


def write(folder: Path, data: bytes, incarnation: int = 1) -> Path:
    """Put a checkpoint into a folder, durably. Raises OSError, or AnchorError when another one of its size is there.

    After a restore the name has the incarnation too: what was signed before, and is lost, may have the same sizes.
    """
    ours = checkpoint.parse(note.parse(data).text)
    path = folder / (f"{ours.size:020}" + (f"-{incarnation}" if incarnation > 1 else "") + SUFFIX)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    except FileExistsError:
        _compare(path, ours)
        return path
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        # If we stop before this line, the file may be cut short: then it names no size, and the next try says so.
        _make_immutable(descriptor)
    finally:
        os.close(descriptor)
    _sync(folder)
    return path


def _compare(path: Path, ours: checkpoint.Checkpoint) -> None:
    try:
        theirs = checkpoint.parse(note.parse(path.read_bytes()).text)
    except ProofError as error:
        raise OSError(errno.EIO, f"{path} is no checkpoint ({error}); move it away") from None
    if (theirs.origin, theirs.size, theirs.root) != (ours.origin, ours.size, ours.root):
        what = f"{path} has another root than this ledger at {ours.size} entries: there are two histories"
        raise AnchorError(what, hint="verify the store with it: ledgerfs verify --anchor")


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
