"""The protocol of one open inbox file, independent of FUSE (docs/SEMANTICS.md, sections 3 to 5).

Start at ``InboxHandle`` for the calls and at ``DocumentHandle._take`` for the simplest kind. Staging is per handle: two
programs that write one name do not see each other.

Why the verdict comes in ``write`` and again in ``flush``: a shell's builtin echo never looks at the result of
close(), and most programs look at nothing else. Why ``release`` never commits: nobody hears its errors, and it also
comes when the writer was killed half-way. Why ``flush`` is no end: it comes once for every descriptor that is closed,
with the same text still growing in another process.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from ledgerfsd import limits
from ledgerfsd.core.json import Scanner
from ledgerfsd.errors import BY_NAME, CODES, Code, Refused
from ledgerfsd.service.receipt_text import Outcome, cause, outcomes, refusal
from ledgerfsd.service.receipts import UNFINISHED, Answer
from ledgerfsd.types import Mode

if TYPE_CHECKING:
    from types import TracebackType

    from ledgerfsd.core.values import Completion
    from ledgerfsd.service.inbox import Inbox, InboxFile

SPACE: Final = b" \t\r\n"  # FORMAT, section 2
BATCH_HINT: Final = (
    'begin the file with a line {"count":N}, or write it under a scratch name such as .name and rename it'
)


class Turn:
    """A lock that costs no pass through the scheduler when it is free."""

    __slots__ = ("_closed", "_lock")

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._closed: trio.Event | None = None

    def close(self) -> None:
        """Nobody has a turn until ``open``."""
        self._closed = trio.Event()

    def open(self) -> None:
        """Let them have it."""
        if self._closed is not None:
            self._closed.set()
            self._closed = None

    async def __aenter__(self) -> None:
        if self._closed is not None:
            await self._closed.wait()
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class InboxHandle(ABC):
    """One open file description for writing. Methods raise errors.Refused, or OSError for what has no result code."""

    mode = ""  # as the receipt says it

    def __init__(self, inbox: Inbox, file: InboxFile, *, append: bool) -> None:
        self.inbox = inbox
        self.file = file
        self.append = append
        self.size = 0  # bytes taken; after ``recall``
        self.refused: Code | None = None  # the first refusal; close() repeats it
        self._turn = Turn()
        self._answer: Answer | None = None

    def numbered(self, number: int) -> None:  # noqa: B027  (most have no use for it)
        """The mount has opened it under this number."""

    def recall(self) -> None:  # noqa: B027  (only lines are ever taken by the core)
        """Know of all that was written: the core may have taken some of it."""

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be committed."""
        return self.file.area.name == "DRY_RUN"

    async def write(self, offset: int, data: bytes) -> int:
        """Take bytes; the verdict on what they complete is raised here."""
        async with self._turn:
            await self._take(offset, data)
        return len(data)

    async def flush(self) -> None:
        """A descriptor is closed: repeat the verdict, or say that there is none yet."""
        async with self._turn:
            await self._flush()

    async def fsync(self) -> None:
        """As ``flush``."""
        await self.flush()

    async def finish(self) -> None:
        """The file is known to be whole (it was renamed): as ``flush``, but an empty file is refused too."""
        if self.size == 0:
            self._record([refusal(1, "empty")])
            raise Refused(BY_NAME["empty"])
        await self.flush()

    async def release(self) -> None:
        """The last descriptor is gone. Commits nothing; writes the receipt if there is none."""
        async with self._turn:
            try:
                await self._release()
            finally:
                self.inbox.closed(self)

    def truncate(self, size: int) -> None:
        """Set the size. Raises Refused(already_committed) for what has its verdict, OSError for what cannot be."""
        if size != self.size:
            raise Refused(BY_NAME["already_committed"])

    def read(self, offset: int, size: int) -> bytes:
        """What a program reads back that opened for reading and writing: the receipt, once there is one."""
        text = self.inbox.text(self.file)
        return text.read(offset, size) if text is not None else b""

    @abstractmethod
    async def _take(self, offset: int, data: bytes) -> None: ...

    @abstractmethod
    async def _flush(self) -> None: ...

    @abstractmethod
    async def _release(self) -> None: ...

    async def _submit(self, data: bytes, *, first_line: int, mode: Mode, dry_run: bool) -> Completion:
        return await self.inbox.ledger.submit(
            data, source=self.file.name, first_line=first_line, mode=mode, dry_run=dry_run
        )

    def _record(self, results: list[Outcome]) -> None:
        if self._answer is None:
            self._answer = Answer(self.file.name.decode(), dry_run=self.dry_run)
        self.inbox.receipts.answer(self._answer, results, mode=self.mode, size=self.size)
        self.file.answer = self._answer
        self.file.answered_as = self.file.name

    def _record_empty(self) -> None:
        """A file without a byte: touch must work, and must not hide what an earlier file of this name did."""
        name = self.file.name.decode()
        if self.file.answer is None and self.inbox.receipts.find(name, dry_run=self.dry_run) is None:
            self._record([refusal(1, "empty")])


class ScratchHandle(InboxHandle):
    """A file under a scratch name: bytes at any offset, kept in memory until the file is renamed or removed."""

    async def _take(self, offset: int, data: bytes) -> None:
        content = self.file.content
        if content is None:  # renamed and committed while it was open
            if data.strip(SPACE):
                raise Refused(BY_NAME["already_committed"])
            return
        if self.append:
            offset = len(content)
        end = offset + len(data)
        if end > len(content):
            self.inbox.stage(self.file, end)
            content.extend(bytes(end - len(content)))
        content[offset:end] = data
        self.size = len(content)

    async def _flush(self) -> None:
        pass

    async def _release(self) -> None:
        pass

    def truncate(self, size: int) -> None:
        """Cut or extend with zeros."""
        if self.file.content is not None:
            self.inbox.resize(self.file, size)

    def read(self, offset: int, size: int) -> bytes:
        """The bytes as written."""
        content = self.file.content
        return bytes(content[offset : offset + size]) if content is not None else super().read(offset, size)


class StagedHandle(InboxHandle):
    """A file that is judged as a whole: its bytes are kept until they are complete."""

    def __init__(self, inbox: Inbox, file: InboxFile, *, append: bool) -> None:
        super().__init__(inbox, file, append=append)
        self._buffer = bytearray()
        self._judged = False
        self._told = -1  # size at which the receipt last said that something is missing

    async def _take(self, offset: int, data: bytes) -> None:
        if self.refused is not None:
            raise Refused(self.refused)
        if self._judged:
            self._take_after(data)
            return
        self._stage(offset, data)
        await self._consider()

    async def _flush(self) -> None:
        if self.refused is not None:
            raise Refused(self.refused)
        if self._judged or not self._buffer:
            return
        await self._consider()
        if not self._judged:
            raise Refused(await self._unfinished())

    async def _release(self) -> None:
        try:
            if not self._buffer and not self._judged and self.refused is None:
                self._record_empty()
            elif not self._judged and self._told != self.size:
                await self._unfinished()
        finally:
            self._drop_buffer()

    def truncate(self, size: int) -> None:
        """Cut what has no verdict yet (an editor begins with size 0); the size it has is always right."""
        if size == self.size:
            return
        if self._judged:
            raise Refused(BY_NAME["already_committed"])
        if size > self.size:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self.inbox.reserve(size - len(self._buffer))
        del self._buffer[size:]
        self.size = size
        self._rescan()

    def read(self, offset: int, size: int) -> bytes:
        """The bytes staged, then the receipt."""
        return super().read(offset, size) if self._judged else bytes(self._buffer[offset : offset + size])

    def await_verdict(self, size: int) -> None:
        """The front has taken the text (``service.inbox_front``); whatever comes waits for ``judged``."""
        self.size = size
        self._turn.close()

    def judged(self, size: int, refused: Code | None, answer: Answer | None) -> None:
        """The verdict on what the front has taken."""
        self.size = size
        self.refused = refused
        self._answer = answer
        self._judged = True
        self._turn.open()

    @abstractmethod
    def _scan(self, data: bytes) -> None:
        """Look at bytes added to the end."""

    @abstractmethod
    def _rescan(self) -> None:
        """Look at all bytes anew."""

    @abstractmethod
    async def _consider(self) -> None:
        """Judge if complete. Raises Refused."""

    @abstractmethod
    async def _unfinished(self) -> Code:
        """Say in the receipt what is missing; the code for it. May find that nothing can mend it, and judge."""

    def _stage(self, offset: int, data: bytes) -> None:
        there = len(self._buffer)
        if self.append:
            offset = there
        if offset > there:
            raise OSError(errno.ESPIPE, "the file must be written without gaps")
        end = offset + len(data)
        if end > limits.DOCUMENT_BYTES_MAX:
            self._refuse(refusal(1, "too_large"))
        self.inbox.reserve(max(0, end - there))
        self._buffer[offset:end] = data
        self.size = len(self._buffer)
        if offset == there:
            self._scan(data)
        else:
            self._rescan()

    def _refuse(self, result: Outcome) -> None:
        self._judged = True
        self.refused = BY_NAME[result.code]
        self._record([result])
        self._drop_buffer()
        raise Refused(self.refused)

    async def _judge(self, data: bytes, *, first_line: int, mode: Mode) -> None:
        """The verdict. Raises Refused; with code busy everything stays as it was."""
        try:
            completion = await self._submit(data, first_line=first_line, mode=mode, dry_run=self.dry_run)
        except Refused as error:
            self._told = self.size
            self._record([refusal(first_line, error.code.name)])
            raise
        self._judged = True
        results = outcomes(completion.runs(), dry_run=self.dry_run)
        self._answer = None  # what was said of the text while it was unfinished is no part of the verdict
        self._record(results)
        self._drop_buffer()
        self.refused = cause(results)
        if self.refused is not None:
            raise Refused(self.refused)

    def _take_after(self, data: bytes) -> None:
        """Bytes after the verdict: white space is nothing, anything else is not committed and must be said."""
        if data.strip(SPACE):
            self.refused = BY_NAME["already_committed"]
            line = self._answer.last_line + 1 if self._answer is not None else 1
            self._record([refusal(line, self.refused.name)])
            raise Refused(self.refused)
        self.size += len(data)

    def _drop_buffer(self) -> None:
        self.inbox.reserve(-len(self._buffer))
        self._buffer = bytearray()


class DocumentHandle(StagedHandle):
    """``*.json``: one intent, or an array that is committed whole or not at all. Complete with its last bracket."""

    mode = "document"

    def __init__(self, inbox: Inbox, file: InboxFile, *, append: bool) -> None:
        super().__init__(inbox, file, append=append)
        self._scanner = Scanner()
        self._foreign = False  # it begins with what can never become an intent
        self._lead = -1  # bytes of white space before the first bracket, -1: there is none yet

    def _scan(self, data: bytes) -> None:
        if self._lead < 0 and data.strip(SPACE):
            self._lead = len(self._buffer) - len(self._buffer.lstrip(SPACE))
        if self._scanner.done or self._foreign:
            return
        try:
            self._scanner.feed(data)
        except ValueError:
            self._foreign = True

    def _rescan(self) -> None:
        self._scanner = Scanner()
        self._foreign = False
        self._lead = -1
        self._scan(bytes(self._buffer))

    async def _consider(self) -> None:
        if self._scanner.done or self._foreign:
            await self._judge(bytes(self._buffer), first_line=1, mode=Mode.DOCUMENT)
        elif len(self._buffer) - self._lead > limits.INTENT_BYTES_MAX and self._buffer[self._lead] == ord("{"):
            self._refuse(refusal(1, "too_large"))

    async def _unfinished(self) -> Code:
        # A dry run: an unfinished document cannot be committed, and if we are wrong about that, it must not be.
        completion = await self._submit(bytes(self._buffer), first_line=1, mode=Mode.DOCUMENT, dry_run=True)
        found = completion.refused
        code = CODES[found.code] if found is not None else BY_NAME["incomplete"]
        if code.name not in UNFINISHED:
            self._judged = True
            self.refused = code
        if self._told != self.size:
            self._told = self.size
            results = outcomes(completion.runs(), dry_run=True) if found is not None else [refusal(1, code.name)]
            self._record(results)
        if self._judged:
            self._drop_buffer()
        return code


class BatchHandle(StagedHandle):
    """``inbox/atomic/*.ndjson``: all lines or none. Only a count in its first line, or a rename, says that it is whole."""

    mode = "atomic"

    def __init__(self, inbox: Inbox, file: InboxFile, *, append: bool) -> None:
        super().__init__(inbox, file, append=append)
        self._lines = 0  # lines with something in them, the header not counted
        self._begin = 0  # where the line that is not finished yet begins
        self._header = 0  # bytes of the header line, 0 while there is none
        self._count = -1  # what it announces
        self._first_seen = False

    def _scan(self, data: bytes) -> None:
        if b"\n" not in data:
            return
        end = self._buffer.rfind(b"\n") + 1
        fresh = bytes(self._buffer[self._begin : end])
        self._begin = end
        if not self._first_seen:
            self._first_seen = True
            first, _, _ = fresh.partition(b"\n")
            self._count = announced(first)
            if self._count >= 0:
                self._header = len(first) + 1
                fresh = fresh[self._header :]
        self._lines += sum(1 for line in fresh.split(b"\n") if line.strip(SPACE))

    def _rescan(self) -> None:
        self._lines = self._begin = self._header = 0
        self._count = -1
        self._first_seen = False
        self._scan(bytes(self._buffer))

    async def _consider(self) -> None:
        lines = self._lines
        if len(self._buffer) - self._begin > limits.INTENT_BYTES_MAX + 1:
            self._refuse(refusal(lines + 1, "too_large"))
        if self._count > limits.BATCH_INTENTS_MAX or lines > limits.BATCH_INTENTS_MAX:
            self._refuse(refusal(1, "too_many_intents"))
        if self._count < 0:
            return
        tail = bytes(self._buffer[self._begin :])
        if tail.strip(SPACE) and (is_object(tail) or lines >= self._count):
            lines += 1
        if lines > self._count:
            self._refuse(refusal(1, "too_many_intents", f"the first line announces {self._count}, {lines} are there"))
        if lines == self._count:
            await self._judge_lines()

    async def finish(self) -> None:
        """The file was renamed in, so it is whole, with a header or without."""
        async with self._turn:
            if self.refused is not None:
                raise Refused(self.refused)
            if self._judged:
                return
            if self._count >= 0:
                note = f"the first line announces {self._count}, {self._lines} are there"
                self._refuse(refusal(1, "incomplete", note))
            await self._judge_lines()

    async def _judge_lines(self) -> None:
        if not self._buffer[self._header :].strip(SPACE):
            self._refuse(refusal(1, "empty_batch" if self._header else "empty"))
        first_line = 2 if self._header else 1
        await self._judge(bytes(self._buffer[self._header :]), first_line=first_line, mode=Mode.ATOMIC)

    async def _unfinished(self) -> Code:
        code = BY_NAME["incomplete" if self._buffer.strip(SPACE) else "empty"]
        if self._told != self.size:
            self._told = self.size
            wanted = f"the first line announces {self._count}, {self._lines} have arrived"
            note = wanted if self._count >= 0 else BATCH_HINT
            self._record([refusal(1, code.name, note)])
        return code


def is_object(text: bytes) -> bool:
    """Whether a text ends with the bracket that closes the object it began: nothing that follows could belong to it."""
    if not text.lstrip(SPACE).startswith(b"{"):
        return False
    scanner = Scanner()
    used = scanner.feed(text)
    return scanner.done and not text[used:].strip(SPACE)


def announced(line: bytes) -> int:
    """N of a header line ``{"count":N}``; -1 if it is none."""
    try:
        header = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # of bytes that are no JSON
        return -1
    if isinstance(header, dict) and list(header) == ["count"] and type(header["count"]) is int and header["count"] >= 0:
        return header["count"]
    return -1
