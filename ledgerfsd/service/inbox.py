"""The files of ``inbox/``, ``inbox/atomic/`` and ``inbox/dry-run/``: what exists, what is staged, what a rename
commits.

Start at ``Inbox.create`` and ``Inbox.open``; what an open file does with the bytes it gets stands in ``inbox_handles``.
A file is *scratch* (its name says so: it never commits, but a rename to a final name does) or *final*. Final files keep
nothing of what was written; once answered they show their receipt. Files live as long as the process: after a restart
``inbox/`` is empty, and the receipts are where they were.

Errors: errors.Refused carries a result code; OSError an errno for what has none. Never EINVAL: mv takes that for
another mistake and says nonsense.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import time
from typing import TYPE_CHECKING, Final

from ledgerfsd import limits
from ledgerfsd.errors import BY_NAME, Refused
from ledgerfsd.service.inbox_handles import (
    BatchHandle,
    DocumentHandle,
    InboxHandle,
    ScratchHandle,
)
from ledgerfsd.service.inbox_lines import LinesHandle
from ledgerfsd.service.receipt_text import ReceiptText, refusal
from ledgerfsd.service.receipts import Answer, Receipts

if TYPE_CHECKING:
    from ledgerfsd.core.front import Front
    from ledgerfsd.service.ledger import Ledger

FILES_SHOWN_MAX: Final = 10_000  # answered files that inbox/ still shows; the oldest go first
HANDLES_MAX: Final = 8_192  # each may hold a line of 48 KiB: 400 MiB
SCRATCH_BYTES_MAX: Final = 64 * limits.MIB  # of one scratch file
STAGED_BYTES_MAX: Final = 512 * limits.MIB  # of everything that is not answered yet
SCRATCH_IDLE_SECONDS: Final = 3_600  # a scratch file left behind for so long makes room when it is needed
RENAME_PIECE: Final = limits.MIB  # so that the lines of a renamed file are judged while the next ones are split

# Names under which programs write what is not finished: editors, rsync, sed -i, mktemp with a dot.
_SCRATCH: Final = re.compile(rb"\..*|.*~|.*\.(?:tmp|part|swp|swx)|4913|sed[A-Za-z0-9]{6}", re.DOTALL)


class Area(enum.Enum):
    """A directory that takes files."""

    INBOX = 0
    ATOMIC = 1  # all lines of a file or none
    DRY_RUN = 2  # answers, never commits

    __hash__ = object.__hash__  # names are looked up by it several times a file, and Enum's is a call into Python


class InboxFile:
    """A name in the inbox, or a file that is still open after its name went."""

    __slots__ = (
        "answer",
        "answered_as",
        "area",
        "content",
        "created_ns",
        "gid",
        "handles",
        "linked",
        "name",
        "next_line",
        "number",
        "touched",
        "uid",
    )

    def __init__(
        self, number: int, area: Area, name: bytes, *, uid: int, gid: int, now_ns: int, scratch: bool = False
    ) -> None:
        self.number = number
        self.area = area
        self.name = name
        self.uid = uid
        self.gid = gid
        self.created_ns = now_ns
        self.touched = time.monotonic() if scratch else 0.0  # a scratch file, last
        self.linked = True
        self.handles: list[InboxHandle] = []
        self.content: bytearray | None = bytearray() if scratch else None
        self.answer: Answer | None = None
        self.answered_as = b""  # the name under which it got its answer; b"" while it has none
        self.next_line = 1  # where a writer that appends goes on counting


def is_scratch(name: bytes) -> bool:
    """Whether a file of this name is kept aside until it is renamed."""
    return _SCRATCH.fullmatch(name) is not None


def is_final(name: bytes) -> bool:
    """Whether a file of this name commits."""
    return not is_scratch(name) and name.endswith((b".json", b".ndjson"))


def recall(file: InboxFile) -> None:
    """Nothing of an open file is in the core."""
    for handle in file.handles:
        handle.recall()


class Inbox:
    """All inbox files of a ledger."""

    def __init__(self, ledger: Ledger, receipts: Receipts) -> None:
        self.ledger = ledger
        self.receipts = receipts
        self.staged = 0  # bytes in memory of files without an answer
        self.front: Front | None = None  # the core that takes simple files of inbox/ by itself
        self.mtime_ns = dict.fromkeys(Area, ledger.clock.now_ns())
        self._names: dict[tuple[Area, bytes], InboxFile] = {}  # oldest first
        self._numbers: dict[int, InboxFile] = {}
        self._last_number = 0
        self._opened = 0

    @property
    def open_handles(self) -> int:
        """How many files are open for writing."""
        return self._opened + (self.front.open if self.front is not None else 0)

    # -- names

    def find(self, area: Area, name: bytes) -> InboxFile | None:
        """The file of this name."""
        return self._names.get((area, name))

    def get(self, number: int) -> InboxFile | None:
        """The file with this number."""
        return self._numbers.get(number)

    def files(self, area: Area) -> list[InboxFile]:
        """The files of a directory, oldest first."""
        return [file for (where, _), file in self._names.items() if where is area]

    def create(self, area: Area, name: bytes, *, uid: int, gid: int) -> InboxFile:
        """A new file. Raises OSError: EEXIST; EPERM for a name that would neither commit nor is scratch; EILSEQ."""
        if (area, name) in self._names:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._check_name(name)
        file = self._new(area, name, uid=uid, gid=gid)
        self._numbers[file.number] = file
        self._link(file)
        return file

    def unlink(self, area: Area, name: bytes) -> None:
        """Remove a name. What was committed stays, and so does the receipt. Raises OSError ENOENT."""
        file = self.find(area, name)
        if file is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._unlink(file)

    async def rename(self, area: Area, name: bytes, to_area: Area, to_name: bytes, *, replace: bool) -> None:
        """Rename; from a scratch name to a final one this is the commit, and a refusal leaves the scratch file as it
        was.

        Raises Refused, or OSError: ENOENT, EEXIST (``replace`` is False), EILSEQ, EPERM for a final file: it must not
        look as if it were committed again. (Only an editor's way is open: to a scratch name beside it, and back.)
        """
        file = self.find(area, name)
        if file is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not replace and (to_area, to_name) in self._names:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._check_name(to_name)
        if file.content is None:
            aside = to_area is area and (is_scratch(to_name) or to_name == file.answered_as)
            if not file.answered_as or not aside:
                raise OSError(errno.EPERM, "only scratch files commit by being renamed")
        elif is_final(to_name):
            await self._commit(file, to_area, to_name)
        self._move(file, to_area, to_name)

    # -- content

    def open(self, file: InboxFile, *, append: bool, truncate: bool) -> InboxHandle:
        """Open for writing. Raises OSError: ENFILE when too many are open, EPERM for an answered file put aside."""
        if self.open_handles >= HANDLES_MAX:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        if file.content is None and is_scratch(file.name):
            raise OSError(errno.EPERM, "the file has its answer")
        if truncate:
            self.resize(file, 0)
            file.next_line = 1
        handle = self._handle(file, append=append)
        self._count(handle)
        return handle

    def closed(self, handle: InboxHandle) -> None:
        """A handle is released (called by the handle)."""
        file = handle.file
        file.handles.remove(handle)
        file.touched = time.monotonic()
        self._opened -= 1
        self._tell_limit()
        self._forget(file)
        self._evict()

    def resize(self, file: InboxFile, size: int) -> None:
        """Truncate by name. Final files hold nothing, so only 0 makes sense. Raises OSError EPERM, EFBIG, ENOSPC."""
        if file.content is not None:
            self.stage(file, size)
            if size < len(file.content):
                del file.content[size:]
            else:
                file.content.extend(bytes(size - len(file.content)))
        elif size:
            raise OSError(errno.EPERM, "a final file cannot be resized")

    def stage(self, file: InboxFile, size: int) -> None:
        """Account for the content of a scratch file growing (or shrinking) to ``size`` bytes. Raises OSError EFBIG, ENOSPC."""
        assert file.content is not None
        if size > SCRATCH_BYTES_MAX:
            self._refuse_scratch(file, "too_large", f"a scratch file may have {SCRATCH_BYTES_MAX} bytes")
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        try:
            self.reserve(size - len(file.content))
        except OSError:
            self._refuse_scratch(file, "busy", "no room for more unfinished files; remove some from inbox/")
            raise

    def reserve(self, size: int) -> None:
        """Take memory for staged bytes (negative: give it back). Raises OSError ENOSPC."""
        if size > 0 and self.staged + size > STAGED_BYTES_MAX:
            self._make_room(size)
        self.staged += size

    def text(self, file: InboxFile) -> ReceiptText | None:
        """The receipt of a file that has one."""
        return self.receipts.text(file.answer) if file.answer is not None else None

    def size(self, file: InboxFile) -> int:
        """What stat says: the bytes written while it is written, then the size of its receipt."""
        if file.content is not None:
            return len(file.content)
        if file.handles:
            file.handles[-1].recall()
            return file.handles[-1].size
        text = self.text(file)
        return text.size if text is not None else 0

    # -- what the front did (see ``inbox_front``)

    def front_changed(self, front: Front | None) -> None:
        """There is one from now on, or none any more. Names come later: inbox/ is empty when it begins."""
        for file in self._numbers.values():
            recall(file)
        self.front = front
        self._tell_limit()

    def adopt(self, number: int, name: bytes, *, uid: int, gid: int, created_ns: int, shown: bool = True) -> InboxFile:
        """A file in inbox/ with a final name, which the kernel knows already. ``tidy`` is to be called when all are adopted."""
        file = InboxFile(number, Area.INBOX, name, uid=uid, gid=gid, now_ns=created_ns)
        self._numbers[number] = file
        file.linked = shown
        if not shown:
            return file
        self._names[Area.INBOX, name] = file
        if created_ns > self.mtime_ns[Area.INBOX]:
            self.mtime_ns[Area.INBOX] = created_ns
        return file

    def adopt_open(self, file: InboxFile, *, append: bool) -> DocumentHandle:
        """The file is open for writing."""
        handle = DocumentHandle(self, file, append=append)
        self._count(handle)
        return handle

    def tidy(self) -> None:
        """Show the newest only."""
        self._evict()

    # -- inside

    def _count(self, handle: InboxHandle) -> None:
        recall(handle.file)  # alone no longer
        handle.file.handles.append(handle)
        self._opened += 1
        self._tell_limit()

    def _tell_limit(self) -> None:
        if self.front is not None:
            self.front.limit(HANDLES_MAX - self._opened)

    def _tell_name(self, area: Area, name: bytes, *, there: bool) -> None:
        if self.front is not None and area is Area.INBOX:
            self.front.name(name, there=there)

    def _check_name(self, name: bytes) -> None:
        if not is_scratch(name) and not is_final(name):
            raise OSError(errno.EPERM, "the name ends neither in .json nor in .ndjson, nor is it a scratch name")
        try:
            name.decode()
        except UnicodeDecodeError:
            raise OSError(errno.EILSEQ, "the name is not UTF-8") from None

    def _new(self, area: Area, name: bytes, *, uid: int, gid: int) -> InboxFile:
        self._last_number += 1
        now_ns = self.ledger.clock.now_ns()
        file = InboxFile(self._last_number, area, name, uid=uid, gid=gid, now_ns=now_ns, scratch=is_scratch(name))
        earlier = None if file.content is not None else self._earlier(file)
        if earlier is not None:
            file.next_line = earlier.last_line + 1
        return file

    def _earlier(self, file: InboxFile) -> Answer | None:
        return self.receipts.find(file.name.decode(), dry_run=file.area is Area.DRY_RUN)

    def _handle(self, file: InboxFile, *, append: bool) -> InboxHandle:
        if file.content is not None:
            return ScratchHandle(self, file, append=append)
        if file.name.endswith(b".ndjson"):
            kind = BatchHandle if file.area is Area.ATOMIC else LinesHandle
            return kind(self, file, append=append)
        return DocumentHandle(self, file, append=append)

    async def _commit(self, file: InboxFile, area: Area, name: bytes) -> None:
        """Feed a scratch file to the handle that its final name calls for, as a program would that wrote it there."""
        assert file.content is not None
        data = bytes(file.content)
        target = self._new(area, name, uid=file.uid, gid=file.gid)
        target.next_line = 1
        handle = self._handle(target, append=True)
        self._count(handle)
        refused: Refused | None = None
        try:
            for begin in range(0, len(data), RENAME_PIECE):
                try:
                    await handle.write(0, data[begin : begin + RENAME_PIECE])
                except Refused as error:
                    refused = refused or error
                    if not isinstance(handle, LinesHandle) or error.code is BY_NAME["busy"]:
                        break
                    handle.go_on()
            if refused is None or isinstance(handle, LinesHandle):
                await handle.finish()
        finally:
            await handle.release()
        if refused is not None:
            raise refused
        file.answer = target.answer
        file.answered_as = name

    def _move(self, file: InboxFile, area: Area, name: bytes) -> None:
        recall(file)  # its name is part of what intents without an id get
        there = self.find(area, name)
        if there is file:
            return
        if there is not None:
            self._unlink(there)
        if not file.linked:  # its name was removed while the commit was under way
            file.linked = True
        else:
            self._names.pop((file.area, file.name))
            self._tell_name(file.area, file.name, there=False)
            self.mtime_ns[file.area] = self.ledger.clock.now_ns()
        file.area, file.name = area, name
        if file.answered_as and file.content is not None:
            self.reserve(-len(file.content))
            file.content = None
        self._link(file)

    def _link(self, file: InboxFile) -> None:
        self._names[file.area, file.name] = file
        self._tell_name(file.area, file.name, there=True)
        self._numbers[file.number] = file
        self.mtime_ns[file.area] = self.ledger.clock.now_ns()
        self._evict()

    def _unlink(self, file: InboxFile) -> None:
        recall(file)  # it has no name any more: stat says so
        del self._names[file.area, file.name]
        self._tell_name(file.area, file.name, there=False)
        file.linked = False
        self.mtime_ns[file.area] = self.ledger.clock.now_ns()
        self._forget(file)

    def _forget(self, file: InboxFile) -> None:
        if file.linked or file.handles:
            return
        self._numbers.pop(file.number, None)
        if file.content is not None:
            self.reserve(-len(file.content))
            file.content = None

    def _evict(self) -> None:
        excess = len(self._names) - FILES_SHOWN_MAX
        if excess <= 0:
            return
        idle = (file for file in self._names.values() if file.content is None and not file.handles)
        for file in [file for _, file in zip(range(excess), idle, strict=False)]:
            self._unlink(file)

    def _make_room(self, size: int) -> None:
        limit = time.monotonic() - SCRATCH_IDLE_SECONDS
        old = [file for file in self._names.values() if file.content and not file.handles and file.touched < limit]
        for file in sorted(old, key=lambda file: file.touched):
            if self.staged + size <= STAGED_BYTES_MAX:
                return
            self._unlink(file)
        if self.staged + size > STAGED_BYTES_MAX:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _refuse_scratch(self, file: InboxFile, code: str, note: str) -> None:
        assert file.content is not None
        answer = Answer(file.name.decode(), dry_run=file.area is Area.DRY_RUN)
        self.receipts.answer(answer, [refusal(1, code, note)], mode="scratch", size=len(file.content))
