"""Consumers of events: how far each has read, kept as small files in the store (docs/FORMAT.md, section 17).

Start at ``Consumers``. A position is durable before it is confirmed, and it goes forward only, unless it is reset. It is
evidence of others, not part of the ledger: one that cannot be read is reported by ``health`` and left as it is, never
taken for 0 by guess.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from typing import TYPE_CHECKING, Final

import structlog
import trio

from ledgerfsd.clock import format_time, parse_time
from ledgerfsd.journal.layout import sync_directory
from ledgerfsd.service.position_file import PositionFile

if TYPE_CHECKING:
    from pathlib import Path

    from ledgerfsd.clock import Clock
    from ledgerfsd.service.events import Events

log = structlog.get_logger()

CONSUMERS_MAX: Final = 10_000
NAME: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_NUMBER_BYTES: Final = 6
_NEW: Final = ".new"  # what write_durably calls a file before it is renamed


class Consumer:
    """One consumer. ``position``: the first event that it has not acknowledged; -1: its file cannot be read."""

    __slots__ = ("file", "lock", "mtime_ns", "name", "number", "position", "removed")

    def __init__(self, file: PositionFile, position: int, mtime_ns: int) -> None:
        self.file = file
        self.name = file.path.name
        self.position = position
        self.mtime_ns = mtime_ns
        self.number = number_of(self.name)
        self.lock = trio.Lock()
        self.removed = False


class _Save:
    """A position on its way to the disk."""

    __slots__ = ("consumer", "done", "error", "position", "time_ns")

    def __init__(self, consumer: Consumer, position: int, time_ns: int) -> None:
        self.consumer = consumer
        self.position = position
        self.time_ns = time_ns
        self.done = False
        self.error: OSError | None = None


def number_of(name: str) -> int:
    """A 48-bit number that depends on the name alone, so inode numbers survive a restart."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:_NUMBER_BYTES])


class Consumers:
    """All consumers of a ledger. Methods raise OSError; what they raise is the errno of the request."""

    def __init__(self, directory: Path, events: Events, clock: Clock) -> None:
        self._directory = directory
        self._events = events
        self._clock = clock
        self._failures: dict[str, str] = {}
        self._by_number: dict[int, Consumer] = {}
        self._saves: list[_Save] = []  # that nobody has taken to the disk yet
        self._disk = trio.Lock()
        if directory.is_dir():
            for path in sorted(directory.iterdir()):
                if not path.name.endswith(_NEW):
                    self._add(self._load(path))

    def _add(self, consumer: Consumer) -> None:
        self._by_number[consumer.number] = consumer

    def _load(self, path: Path) -> Consumer:
        file = PositionFile(path)
        try:
            kept = file.read()
            return Consumer(file, kept.position, parse_time(kept.time))
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            log.error("the position of a consumer cannot be read", path=str(path), error=str(error))
            self._failures[path.name] = f"its file cannot be read: {error}"
            return Consumer(file, -1, 0)

    def __len__(self) -> int:
        return len(self._by_number)

    # -- for health and metrics

    def trouble(self) -> str:
        """What is wrong, or nothing."""
        found = [f"consumer {name}: {why}" for name, why in sorted(self._failures.items())]
        there = self._events.count
        for name in self.names():
            position = self._by_number[number_of(name)].position
            if position > there:
                found.append(
                    f"consumer {name}: it is ahead of the log, at {position} of {there}; was an older backup restored?"
                )
        return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For metrics."""
        positions = [each.position for each in self._by_number.values() if each.position >= 0]
        behind = self._events.count - min(positions) if positions else 0
        return {
            "consumers": ("Consumers of events", len(self)),
            "consumer_behind_events": ("Events that the last of the consumers has not acknowledged", behind),
            "event_readers_waiting": ("Readers that wait for an event", len(self._events.feed)),
        }

    # -- finding

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(each.name for each in self._by_number.values())

    def find(self, name: bytes) -> Consumer | None:
        """The consumer of this name."""
        found = self._by_number.get(number_of(name.decode())) if NAME.fullmatch(name) else None
        return found if found is not None and found.name.encode() == name else None

    def get(self, number: int) -> Consumer:
        """The consumer with this number. ENOENT: it was removed."""
        found = self._by_number.get(number)
        if found is None:
            raise _fault(errno.ENOENT)
        return found

    def position(self, number: int) -> int:
        """How far it has read. EIO: its file cannot be read; a reset makes it good."""
        position = self.get(number).position
        if position < 0:
            raise _fault(errno.EIO)
        return position

    # -- changing

    async def create(self, name: bytes) -> Consumer:
        """A new consumer at event 0. EEXIST; EPERM: no name for one; ENOSPC: there are too many; EIO: the disk fails."""
        if not NAME.fullmatch(name) or name.endswith(_NEW.encode()):
            raise _fault(errno.EPERM)
        consumer = Consumer(PositionFile(self._directory / name.decode()), 0, 0)
        if consumer.number in self._by_number:
            raise _fault(errno.EEXIST)
        if len(self._by_number) >= CONSUMERS_MAX:
            raise _fault(errno.ENOSPC)
        async with consumer.lock:
            self._add(consumer)  # before the disk is waited for: a second one of this name is refused
            try:
                await self._save(consumer, 0)
            except OSError:
                consumer.removed = True
                self._failures.pop(consumer.name, None)
                del self._by_number[consumer.number]
                raise
        return consumer

    async def acknowledge(self, number: int, position: int, *, reset: bool = False) -> None:
        """All events before ``position`` are done. ERANGE: behind the end of the log, or before what was acknowledged."""
        consumer = self.get(number)
        async with consumer.lock:
            if consumer.removed:
                raise _fault(errno.ENOENT)
            if position > self._events.count:
                raise _fault(errno.ERANGE)
            if not reset:
                if consumer.position < 0:
                    raise _fault(errno.EIO)
                if position < consumer.position:
                    raise _fault(errno.ERANGE)
                if position == consumer.position and consumer.name not in self._failures:
                    return
            await self._save(consumer, position)

    async def remove(self, name: bytes) -> None:
        """Forget a consumer. ENOENT; EIO: the disk fails."""
        consumer = self.find(name)
        if consumer is None:
            raise _fault(errno.ENOENT)
        async with consumer.lock:
            if consumer.removed:
                raise _fault(errno.ENOENT)
            await trio.to_thread.run_sync(self._unlink, consumer.name)
            consumer.removed = True
            self._failures.pop(consumer.name, None)
            del self._by_number[consumer.number]

    async def _save(self, consumer: Consumer, position: int) -> None:
        """Those who come while a thread is at the disk go there together afterwards: one of them takes them all along."""
        save = _Save(consumer, position, self._clock.now_ns())
        self._saves.append(save)
        with trio.CancelScope(shield=True):  # others may wait for what we have taken
            async with self._disk:
                if not save.done:
                    saves, self._saves = self._saves, []
                    await trio.to_thread.run_sync(_write, saves)
        if save.error is not None:
            # Of the old and the new position one will be there after a crash. The old one is what we go by: it repeats events.
            self._failures[consumer.name] = f"its position is not written: {save.error.strerror}"
            raise _fault(errno.ENOSPC if save.error.errno == errno.ENOSPC else errno.EIO)
        self._failures.pop(consumer.name, None)
        consumer.position, consumer.mtime_ns = position, save.time_ns

    def _unlink(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
        sync_directory(self._directory)


def _write(saves: list[_Save]) -> None:
    """In a worker thread."""
    for save in saves:
        try:
            save.consumer.file.write(save.position, format_time(save.time_ns))
        except OSError as error:
            save.error = error
        save.done = True


def _fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))
