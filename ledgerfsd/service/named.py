"""Named snapshots: names that people gave to states, in ``snapshots.ndjson`` of the store (docs/FORMAT.md, section 18).

Start at ``NamedSnapshots``. The file only grows; it cannot be derived from the journal. A line counts when its newline is
there, and when its state is one of this ledger: the leaf hash of the state's last entry says so.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog
import trio

from ledgerfsd.clock import format_time
from ledgerfsd.journal import checked
from ledgerfsd.journal.layout import sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from ledgerfsd.clock import Clock
    from ledgerfsd.core.engine import Engine

log = structlog.get_logger()

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAMES_MAX: Final = 100_000


class Named(NamedTuple):
    """A name and what it stands for."""

    number: int  # of its line, from 0
    name: str
    size: int


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A line of the file."""

    leaf: str
    name: str
    size: int
    time: str


def read(line: bytes) -> Line:
    """What a line (without its newline) says. Raises ValueError: it is not what was written."""
    said = msgspec.json.decode(checked.unseal(line), type=Line)
    if not NAME.fullmatch(said.name):
        raise ValueError("a bad name")
    return said


class NamedSnapshots:
    """The names of one store."""

    def __init__(self, path: Path, engine: Engine, clock: Clock) -> None:
        self._path = path
        self._engine = engine
        self._clock = clock
        self._by_name: dict[str, Named] = {}
        self._by_number: dict[int, Named] = {}
        self._lines = 0
        self._end = 0  # of the last whole line
        self._wrong: list[str] = []  # lines that are not what was written
        self._failure = ""
        self._turn = trio.Lock()
        self._load()

    def all(self) -> list[Named]:
        """In the order in which they were given."""
        return list(self._by_name.values())

    def size(self, number: int) -> int:
        """The size of the state that a name stands for. Raises IndexError."""
        if number not in self._by_number:
            raise IndexError(number)
        return self._by_number[number].size

    def find(self, name: str) -> Named | None:
        """The one of this name."""
        return self._by_name.get(name)

    def trouble(self) -> str:
        """What is wrong, for ``health``."""
        if self._failure:
            return f"snapshots can no longer be named: {self._failure}"
        return f"{self._path.name}: " + "; ".join(self._wrong[:5]) if self._wrong else ""

    async def create(self, name: str) -> Named:
        """Give a name to the newest durable state; durable when this returns.

        Raises OSError: EEXIST, EMLINK when there are too many, EROFS when the disk failed before, or what it says now.
        """
        async with self._turn:
            if name in self._by_name:
                raise _fault(errno.EEXIST)
            if self._failure or self._engine.failure:
                raise _fault(errno.EROFS)
            if self._lines >= NAMES_MAX:
                raise _fault(errno.EMLINK)
            size = self._engine.counts().entries
            line = Line(self._engine.leaf(size - 1).hex(), name, size, format_time(self._clock.now_ns()))
            data = checked.seal(msgspec.json.encode(line))
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._append, data)
            self._end += len(data)
            self._lines += 1
            return self._add(name, size)

    def _append(self, data: bytes) -> None:
        new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            # What stands behind the last whole line was never acknowledged: a crash or a full disk left it.
            os.ftruncate(descriptor, self._end)
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], self._end + done)
            self._sync(descriptor, new=new)
        finally:
            os.close(descriptor)

    def _sync(self, descriptor: int, *, new: bool) -> None:
        try:
            os.fsync(descriptor)
            if new:
                sync_directory(self._path.parent)
        except OSError as error:
            # Whether the name is there is known only after the next start; never sync again what failed once.
            self._failure = error.strerror or str(error)
            log.error("snapshots can no longer be named", reason=self._failure)
            raise

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        self._end = data.rfind(b"\n") + 1
        for line in data[: self._end].split(b"\n")[:-1]:
            self._lines += 1
            try:
                self._take(read(line))
            except ValueError as error:
                self._wrong.append(f"line {self._lines}: {error}")
                log.error("a named snapshot is not what was written", line=self._lines, reason=str(error))

    def _take(self, line: Line) -> None:
        if line.name in self._by_name:
            raise ValueError("a repeated name")
        if not 0 < line.size <= self._engine.counts().entries:
            raise ValueError(f"{line.name} is of {line.size} entries, and the log has fewer")
        if self._engine.leaf(line.size - 1).hex() != line.leaf:
            raise ValueError(f"{line.name} is of another history")
        self._add(line.name, line.size)

    def _add(self, name: str, size: int) -> Named:
        named = Named(self._lines - 1, name, size)
        self._by_name[name] = self._by_number[named.number] = named
        return named


def _fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))
