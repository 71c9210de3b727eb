"""NDJSON files in the inbox: a stream of intents, each judged and answered for itself (docs/SEMANTICS.md, section 4).

Start at ``LinesHandle._take``. Two things make it more than splitting lines:

* Large writes are pipelined. Their lines are on the way to the disk when ``write`` returns; what is refused among them is
  raised by a later call. While they only go on one behind the other the core takes them (``_lend``, ADR 57): this handle
  is called for the first again that is anything else.
* A write that fails has been judged all the same, but for the kernel, and so for the program, it was not written. Buffered
  writers (stdio, Python) therefore send the same bytes again when they are closed. Such a write is numbered as the
  first time, so that the ledger knows its lines again, and nothing is booked twice.
"""

from __future__ import annotations

import errno
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from ledgerfsd import limits
from ledgerfsd.core.front import Loan
from ledgerfsd.core.json import newlines
from ledgerfsd.errors import BY_NAME, CODES, Code, Refused
from ledgerfsd.service.inbox_handles import SPACE, InboxHandle, is_object
from ledgerfsd.service.receipt_text import REFUSED, Outcome, cause, merged, outcomes, refusal
from ledgerfsd.types import Mode

if TYPE_CHECKING:
    from ledgerfsd.core.values import Completion
    from ledgerfsd.service.inbox import Inbox, InboxFile
    from ledgerfsd.service.ledger import Ticket

SMALL_WRITE: Final = 64 * limits.KIB  # below this a write waits for its own verdict
PIPELINE_BYTES_MAX: Final = 4 * limits.MIB  # lines of one handle that may be on their way to the disk
RUNS_MAX: Final = 1_024  # results that are gathered before a receipt is written
# What the engine gets in place of a line whose end we do not wait for: it answers too_large, and counts the line.
TOO_LONG: Final = b"-" * (limits.INTENT_BYTES_MAX + 1)


class State(NamedTuple):
    """How far the lines of a handle have come."""

    line: int  # number of the next line to be judged
    pending: bytes  # the line that has no end yet
    ended: str  # what became of a line that was judged before its newline came: "", "committed", "refused"


class Failed(NamedTuple):
    """A write (or what it brought anew) that was answered with an error."""

    data: bytes
    before: State


class LinesHandle(InboxHandle):
    """``*.ndjson``: every complete line is an intent of its own.

    Positions: the kernel repeats the offset of a write that failed, so ``_position`` moves only when we answer
    without an error, while the lines of the failed write stay judged.
    """

    mode = "each"

    def __init__(self, inbox: Inbox, file: InboxFile, *, append: bool) -> None:
        super().__init__(inbox, file, append=append)
        self._position = 0
        self._state = State(1, b"", "")
        self._again = False  # a failed write has come again: its lines keep their numbers
        self._known = 0  # lines before this number are in the receipt already
        self._failed: list[Failed] = []  # the last write, if it failed
        self._tickets: deque[Ticket] = deque()
        self._outstanding = 0
        self._unreported: Code | None = None  # a refusal that no write has raised yet
        self._results: list[Outcome] = []  # not in a receipt yet
        self._told = -1  # size at which the receipt last said that the end is missing
        self._number_of_mount = 0  # 0: the mount does not know it
        self._lent = False  # the core takes what is written
        self._due = False  # an intent was refused, which the next write is to be told

    # -- in the core

    def numbered(self, number: int) -> None:
        """From now on the mount writes to it."""
        self._number_of_mount = number
        self._lend()

    def _lend(self) -> None:
        """Let the core take the writes that follow, if there is nothing to be told of those before."""
        front, file, state = self.inbox.front, self.file, self._state
        alone = (
            self._number_of_mount and not self.append and not self.dry_run and len(file.handles) == 1 and file.linked
        )
        owing = self._failed or self._unreported is not None or state.ended or self.size != self._position
        credit = PIPELINE_BYTES_MAX - self._outstanding
        if front is None or not alone or owing or credit < SMALL_WRITE:
            return
        text = self.inbox.text(file)
        time_ns = text.mtime_ns if text is not None else file.created_ns
        loan = Loan(file.number, self._number_of_mount, time_ns, file.uid, file.gid, self._position, credit, state.line)
        self._lent = front.lend(loan, state.pending, file.name, least=SMALL_WRITE)

    def recall(self) -> None:
        """Go on where the core is now. A refusal that it has heard of is due in the next write."""
        if not self._lent or self.inbox.front is None:
            return
        self._lent = False
        back = self.inbox.front.recall(self._number_of_mount)
        if back is None:
            return
        for number, asked_ns, size in back.sent:
            self._tickets.append(self.inbox.ledger.adopt(number, size, asked_ns / 1e9))
            self._outstanding += size
        self._due = back.refused
        self.size += back.position - self._position
        self._position = back.position
        self._state = State(back.line, back.pending, "")
        self.file.next_line = max(self.file.next_line, back.line)

    # -- the protocol

    async def _take(self, offset: int, data: bytes) -> None:
        self.recall()
        await self._take_here(offset, data)
        if len(data) >= SMALL_WRITE:
            self._lend()

    async def _take_here(self, offset: int, data: bytes) -> None:
        if not self.append and offset != self._position:
            raise OSError(errno.ESPIPE, "the file must be written from its beginning to its end")
        pieces, self._failed = self._failed, []
        told = sum(len(piece.data) for piece in pieces)
        if not data.startswith(b"".join(piece.data for piece in pieces)):
            pieces, told = [], 0
        try:
            rest = data[told:]
            if pieces:
                await self._repeat(pieces, tell=not rest)
            if rest:
                pieces = [*pieces, Failed(rest, self._state._replace(line=self._number()))]
                await self._split(rest)
                self.size += len(rest)
            await self._settle(self._limit(data))
            if len(data) < SMALL_WRITE:
                self._write_receipt()
            self._raise_unreported()
        except Refused:
            await self._settle(0)  # so that the receipt tells all of this write before it can come again
            self._write_receipt()
            self._failed, self._known = pieces, self._state.line
            raise
        self._position += len(data)

    def _limit(self, data: bytes) -> int:
        """How many bytes of lines may be on their way when a write is answered. Once there are too many it waits for half of them."""
        due, self._due = self._due, False
        if due or len(data) < SMALL_WRITE:
            return 0
        return PIPELINE_BYTES_MAX // (2 if self._outstanding > PIPELINE_BYTES_MAX else 1)

    async def _repeat(self, pieces: list[Failed], *, tell: bool) -> None:
        """Take the bytes of a write that failed as the same lines. ``tell``: report their refusals once more.

        Not when there is more behind them: the program knows, and a buffered writer that goes on must be able to.
        """
        unreported = self._unreported
        self._again = True
        try:
            for piece in pieces:
                self._state = piece.before
                await self._split(piece.data)
            await self._settle(0)
        finally:
            self._again = False
        if not tell:
            self._unreported = unreported

    def go_on(self) -> None:
        """What comes next is no repetition, even if it should look like the write that failed."""
        self._failed = []

    async def _flush(self) -> None:
        self.recall()
        await self._settle_all(commit=True)
        if self.refused is not None:
            raise Refused(self.refused)

    async def fsync(self) -> None:
        """As ``flush``, but a refusal that a write has reported is not reported again: a long-lived stream goes on."""
        async with self._turn:
            self.recall()
            await self._settle_all(commit=True)
            self._raise_unreported()

    async def _release(self) -> None:
        self.recall()
        # Refused: the unfinished line. Its answer is written, and nobody would hear it.
        with suppress(Refused):
            await self._settle_all(commit=False)
        if self._answer is None:
            self._record_empty()

    def truncate(self, size: int) -> None:
        """Only before the first line is complete, or to the size it has."""
        self.recall()
        if size == self.size:
            return
        if size or self.size != len(self._state.pending):
            raise Refused(BY_NAME["already_committed"])
        self._state = self._state._replace(pending=b"")
        self.size = self._position = 0

    async def _split(self, data: bytes) -> None:
        """Queue the lines that ``data`` completes, keep the rest. If there is no room (busy), nothing is taken."""
        if self._state.ended:
            data = self._end_line(data)
        cut = data.rfind(b"\n") + 1
        lines = b"".join((self._state.pending, memoryview(data)[:cut])) if cut else b""  # copied once: they are many
        pending = data[cut:] if cut else self._state.pending + data
        if len(pending) > limits.INTENT_BYTES_MAX:
            # White space around an intent does not count; inside one it does, so the end is cut only behind a whole one.
            pending = pending.lstrip(SPACE)
            pending = pending.rstrip(SPACE) if is_object(pending) else pending
        too_long = len(pending) > limits.INTENT_BYTES_MAX
        if too_long:
            lines, pending = lines + TOO_LONG, b""
        if lines:
            await self._queue(lines)
        self._state = State(self._state.line, pending, "refused" if too_long else self._state.ended)

    def _end_line(self, data: bytes) -> bytes:
        """Pass over the rest of a line that has its answer; what follows it."""
        tail, newline, rest = data.partition(b"\n")
        ended = self._state.ended
        if ended == "committed" and tail.strip(SPACE):
            self._add([refusal(self._state.line - 1, "already_committed")])
            ended = "refused"
        if ended == "refused" and not newline and tail.strip(SPACE):
            self._unreported = self.refused  # with every write: the line will not end well, so let the writer stop
        self._state = self._state._replace(ended="" if newline else ended)
        return rest

    def _number(self) -> int:
        # Writers that append share the file's count, so that equal lines of two of them are two intents (FORMAT, section 6).
        return self.file.next_line if self.append and not self._again else self._state.line

    async def _queue(self, lines: bytes) -> None:
        first = self._number()
        following = first + newlines(lines) + (not lines.endswith(b"\n"))
        # Before the wait: another writer may append meanwhile.
        self.file.next_line = max(self.file.next_line, following)
        try:
            ticket = await self.inbox.ledger.start(
                lines, source=self.file.name, first_line=first, mode=Mode.EACH, dry_run=self.dry_run
            )
        except Refused as error:
            self._record([Outcome(first, following - 1, REFUSED, error.code.name)])
            raise
        self._state = self._state._replace(line=following)
        self._tickets.append(ticket)
        self._outstanding += len(lines)

    async def _settle(self, limit: int) -> None:
        """Wait until at most ``limit`` bytes are on their way; hear also what has arrived without waiting."""
        while self._tickets and (self._outstanding > limit or self._tickets[0].done):
            ticket = self._tickets.popleft()
            completion = await ticket.wait()
            self._outstanding -= ticket.size
            await self._gather(completion)

    async def _gather(self, completion: Completion) -> None:
        """A piece at a time: a flood of wrong lines must neither keep the whole mount waiting nor fill the memory."""
        runs = completion.runs()
        while piece := list(islice(runs, RUNS_MAX)):
            if len(self._results) + len(piece) > RUNS_MAX:
                self._write_receipt()
                await trio.lowlevel.checkpoint()
            self._add(outcomes(piece, dry_run=self.dry_run))

    def _add(self, results: list[Outcome]) -> None:
        merged(self._results, behind(results, self._known))
        code = cause(results)
        self.refused = self.refused or code
        self._unreported = self._unreported or code

    async def _settle_all(self, *, commit: bool) -> None:
        """Everything durable, the last line included if it is an object by itself. Raises Refused(incomplete)."""
        await self._settle(0)
        try:
            if self._state.pending.strip(SPACE):
                if commit and is_object(self._state.pending):
                    await self._last_line()
                else:
                    raise Refused(await self._unfinished())
        finally:
            self._write_receipt()

    async def _last_line(self) -> None:
        await self._queue(self._state.pending)
        await self._settle(0)
        refused = bool(self._results) and self._results[-1].status == REFUSED
        self._state = State(self._state.line, b"", "refused" if refused else "committed")

    async def _unfinished(self) -> Code:
        """The code of the line that has no end."""
        completion = await self._submit(self._state.pending, first_line=self._number(), mode=Mode.EACH, dry_run=True)
        code = CODES[completion.refused.code] if completion.refused is not None else BY_NAME["incomplete"]
        if self._told != self.size:
            self._told = self.size
            found = outcomes(completion.runs(), dry_run=True) if completion.refused is not None else []
            merged(self._results, found or [refusal(self._number(), code.name)])
        return code

    def _write_receipt(self) -> None:
        if self._results:
            self._record(self._results)
            self._results = []

    def _raise_unreported(self) -> None:
        code, self._unreported = self._unreported, None
        if code is not None:
            self._write_receipt()
            raise Refused(code)


def behind(results: list[Outcome], line: int) -> list[Outcome]:
    """The results of the lines from ``line`` on."""
    found = []
    for result in results:
        skip = max(0, line - result.first)
        if not skip:
            found.append(result)
        elif result.last >= line:
            found.append(
                msgspec.structs.replace(
                    result,
                    first=line,
                    index=result.index + skip if result.index >= 0 else -1,
                    tx=result.tx + skip if result.tx else 0,
                )
            )
    return found
