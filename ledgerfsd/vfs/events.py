"""``events/``: the log as CloudEvents, by day and as streams that wait; consumers; the schemas (SEMANTICS, section 14)."""

from __future__ import annotations

import datetime
import errno
import re
import select
from importlib import resources
from typing import TYPE_CHECKING, Final

from ledgerfsd import limits
from ledgerfsd.service.events import Stream, day_start_ns
from ledgerfsd.vfs import nodes, requests
from ledgerfsd.vfs.branch import Branch, Handle, Keep, Place, Stat, fault
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledgerfsd.service.consumers import Consumers
    from ledgerfsd.service.events import Events, Feed

import trio

_SHIFT: Final = 48
_MASK: Final = (1 << _SHIFT) - 1


def _directory(kind: int, value: int = 0) -> int:
    return nodes.inode(Kind.EVENT_DIRECTORY, kind << _SHIFT | value)


def _file(kind: int, value: int = 0) -> int:
    return nodes.inode(Kind.EVENT_FILE, kind << _SHIFT | value)


def _parts(inode: int) -> tuple[int, int]:
    number = nodes.number_of(inode)
    return number >> _SHIFT, number & _MASK


# A directory's number: one of these above 48 bits, and below it the number of the consumer.
_TOP, _FROM, _CONSUMERS, _SCHEMAS = (_directory(kind) for kind in range(4))
_CONSUMER: Final = 4
# A file's number: one of these, and the day's ordinal, the index, the consumer's number or the schema's.
_LIVE, _DAY, _FROM_INDEX, _POSITION, _RESET, _CONSUMED, _SCHEMA = range(7)

_DAY_NAME: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})\.ndjson")
_INDEX_NAME: Final = re.compile(rb"(0|[1-9][0-9]{0,9})\.ndjson")
_POSITION_TEXT: Final = re.compile(rb"[0-9]{1,20}")
_POSITION_BYTES_MAX: Final = 64  # digits and white space
_CONSUMER_FILES: Final = {b"position": _POSITION, b"reset": _RESET}
_CONSUMER_STREAM: Final = b"events.ndjson"
_SCHEMA_NAMES: Final = ("entry.json", "event.json", "intent.json")


class _Stream(Handle):
    """A stream that is open. The position is the kernel's; we remember where the last read ended, for ``poll``."""

    def __init__(self, stream: Stream, feed: Feed) -> None:
        self._stream = stream
        self._feed = feed
        self._end = 0

    async def read(self, offset: int, size: int) -> bytes:
        """Whole lines, when there are some; else it waits. EAGAIN, EINTR; ECONNABORTED when the mount goes."""
        request = requests.current()
        if not request.number:
            self._feed.deaf()
        while True:
            data = self._stream.read(offset, size)
            if data:
                self._end = offset + len(data)
                return data  # type: ignore[return-value]  # pyfuse3 takes any buffer
            if self._feed.stopped:
                raise fault(errno.ECONNABORTED)
            if request.nonblocking:
                raise fault(errno.EAGAIN)
            more = trio.Event()
            self._feed.tell(more, more.set)
            try:
                with requests.interruptible(request):
                    await more.wait()
            finally:
                self._feed.forget(more)

    def poll(self, notify: Callable[[], None] | None) -> int:
        """Readable when there is an event."""
        if self._stream.ready(self._end) or self._feed.stopped:
            return select.POLLIN | select.POLLRDNORM
        if notify is not None:
            self._feed.tell(self, notify)
        return 0

    async def release(self) -> None:
        """The last descriptor is gone."""
        self._feed.forget(self)


class _Position(Handle):
    """``position`` or ``reset`` of a consumer, open. Each line written is a position; a last one may go without its newline."""

    def __init__(self, consumers: Consumers, number: int, *, reset: bool) -> None:
        self._consumers = consumers
        self._number = number
        self._reset = reset
        self._shown: bytes | None = None
        self._unfinished = b""
        self._end = 0
        self._refused = 0  # errno of the last verdict

    async def read(self, offset: int, size: int) -> bytes:
        """The position as it was at the first read."""
        if self._shown is None:
            self._shown = _position_text(self._consumers.position(self._number))
        return self._shown[offset : offset + size]

    async def write(self, offset: int, data: bytes) -> int:
        """The verdict comes with the newline. ESPIPE: neither at the beginning nor where the last write ended."""
        if offset == 0:
            self._unfinished = b""
        elif offset != self._end:
            raise fault(errno.ESPIPE)
        lines = (self._unfinished + data).split(b"\n")
        self._unfinished = b""
        if len(lines) > 1:
            await self._acknowledge([line for line in lines[:-1] if line.strip()])
        if len(lines[-1]) > _POSITION_BYTES_MAX:
            raise self._refuse(fault(errno.EBADMSG))
        self._unfinished = lines[-1]
        self._end = offset + len(data)
        return len(data)

    async def flush(self) -> None:
        """``close``: takes a last line without a newline, and repeats a refusal."""
        last, self._unfinished = self._unfinished, b""
        if last.strip():
            await self._acknowledge([last])
        if self._refused:
            raise fault(self._refused)

    async def _acknowledge(self, lines: list[bytes]) -> None:
        self._refused = 0
        try:
            positions = [_parsed(line) for line in lines]
            if positions:
                await self._consumers.acknowledge(self._number, positions[-1], reset=self._reset)
        except OSError as error:
            raise self._refuse(error) from None

    def _refuse(self, error: OSError) -> OSError:
        self._refused = error.errno or errno.EIO
        return error


class EventBranch(Branch):
    """The directories and files."""

    kinds = frozenset((Kind.EVENT_DIRECTORY, Kind.EVENT_FILE))
    places = (Place(Fixed.ROOT, b"events", _TOP), Place(Fixed.CONTROL, b"schema", _SCHEMAS))

    def __init__(self, events: Events, consumers: Consumers) -> None:
        self._events = events
        self._consumers = consumers
        self._born_ns = events.time_of(0)
        folder = resources.files("ledgerfsd").joinpath("data/schema")
        self._schemas = [folder.joinpath(name).read_bytes() for name in _SCHEMA_NAMES]

    def stop(self) -> None:
        """The mount goes: readers that wait get an answer."""
        self._events.feed.stop()

    # -- names

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:
        """Days, positions and consumers; ``live.ndjson``, ``from/`` and a consumer's ``events.ndjson`` are not listed."""
        if parent == _TOP:
            return self._in_top(name)
        if parent == _FROM:
            match = _INDEX_NAME.fullmatch(name)
            index = int(match[1]) if match else limits.ENTRIES_MAX + 1
            return (_file(_FROM_INDEX, index), True) if index <= limits.ENTRIES_MAX else (0, False)
        if parent == _SCHEMAS:
            text = name.decode(errors="replace")
            return (_file(_SCHEMA, _SCHEMA_NAMES.index(text)), True) if text in _SCHEMA_NAMES else (0, False)
        if parent == _CONSUMERS:
            consumer = self._consumers.find(name)
            return (_directory(_CONSUMER, consumer.number) if consumer else 0), False
        number = self._consumers.get(_parts(parent)[1]).number
        kind = _CONSUMED if name == _CONSUMER_STREAM else _CONSUMER_FILES.get(name)
        return (_file(kind, number) if kind is not None else 0), False

    def _in_top(self, name: bytes) -> tuple[int, bool]:
        fixed = {b"consumers": _CONSUMERS, b"from": _FROM, b"live.ndjson": _file(_LIVE)}.get(name)
        if fixed is not None:
            return fixed, True
        match = _DAY_NAME.fullmatch(name.decode(errors="replace"))
        try:
            day = datetime.date.fromisoformat(match[1]).toordinal() if match else 0
        except ValueError:
            day = 0
        # Today's goes again if the clock is set back before anything is booked.
        return (_file(_DAY, day), day < self._events.days()[-1]) if day in self._events.days() else (0, False)

    def parent(self, directory: int) -> int:
        """Of the directories that are no place."""
        return _CONSUMERS if _parts(directory)[0] == _CONSUMER else _TOP

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:
        """What comes to rest when it is copied: no streams."""
        if directory == _TOP:
            found = [(b"consumers", _CONSUMERS), (b"from", _FROM)]
            days = self._events.days()
            found += [(f"{datetime.date.fromordinal(day)}.ndjson".encode(), _file(_DAY, day)) for day in days]
        elif directory == _SCHEMAS:
            found = [(name.encode(), _file(_SCHEMA, at)) for at, name in enumerate(_SCHEMA_NAMES)]
        elif directory == _CONSUMERS:
            consumers = [self._consumers.find(name.encode()) for name in self._consumers.names()]
            found = [(each.name.encode(), _directory(_CONSUMER, each.number)) for each in consumers if each]
        elif directory == _FROM:
            found = []
        else:
            number = _parts(directory)[1]
            found = [(name, _file(kind, number)) for name, kind in _CONSUMER_FILES.items()]
        yield from found[skip:]

    # -- what a file is

    def keep(self, inode: int) -> Keep:
        """Days that are closed, and schemas, never change."""
        if nodes.is_directory(inode):
            return Keep.NOTHING
        kind, value = _parts(inode)
        closed = kind == _SCHEMA or (kind == _DAY and self._events.day(value).closed)
        return Keep.FOREVER if closed else Keep.NOTHING

    def mode(self, inode: int) -> int:
        """Consumers are made and acknowledge by writing; the kernel checks who may."""
        if nodes.is_directory(inode):
            return 0o775 if inode == _CONSUMERS else super().mode(inode)
        return 0o664 if _parts(inode)[0] in (_POSITION, _RESET) else super().mode(inode)

    async def stat(self, inode: int) -> Stat:
        """Sizes are exact; streams have none."""
        if nodes.is_directory(inode):
            return Stat(
                0, self._born_ns if inode in (_SCHEMAS, _FROM) else self._events.time_of(self._events.count - 1)
            )
        kind, value = _parts(inode)
        if kind == _DAY:
            return self._stat_day(value)
        if kind == _SCHEMA:
            return Stat(len(self._schemas[value]), self._born_ns)
        if kind in (_POSITION, _RESET):
            consumer = self._consumers.get(value)
            return Stat(len(_position_text(max(consumer.position, 0))), consumer.mtime_ns)
        return Stat(0, self._born_ns)

    def _stat_day(self, day: int) -> Stat:
        found = self._events.day(day)
        empty = found.first == found.end
        mtime_ns = max(day_start_ns(day), self._born_ns) if empty else self._events.time_of(found.end - 1)
        return Stat(self._events.size(found.first, found.end), mtime_ns)

    # -- reading and writing

    async def open(self, inode: int, flags: int) -> Handle | None:
        """A stream begins where it was opened: no event falls between ``open`` and the first ``read``."""
        kind, value = _parts(inode)
        if kind in (_POSITION, _RESET):
            self._consumers.get(value)
            return _Position(self._consumers, value, reset=kind == _RESET)
        await super().open(inode, flags)
        if kind in (_DAY, _SCHEMA):
            return None
        index = self._events.count if kind == _LIVE else value
        if kind == _CONSUMED:
            index = self._consumers.position(value)
        return _Stream(Stream(self._events, index), self._events.feed)

    async def read(self, inode: int, offset: int, size: int) -> bytes | memoryview:
        """Of a day, or a schema."""
        kind, value = _parts(inode)
        if kind == _SCHEMA:
            return self._schemas[value][offset : offset + size]
        found = self._events.day(value)
        size = min(size, max(self._events.size(found.first, found.end) - offset, 0))
        return self._events.read(found.first, found.end, offset, size) if size else b""

    async def mkdir(self, parent: int, name: bytes) -> int:
        """A new consumer, which begins with event 0."""
        if parent != _CONSUMERS:
            raise fault(errno.EROFS)
        return _directory(_CONSUMER, (await self._consumers.create(name)).number)

    async def remove(self, parent: int, name: bytes, *, directory: bool) -> None:
        """A consumer; its files go with it."""
        if parent != _CONSUMERS or not directory:
            raise fault(errno.EROFS)
        await self._consumers.remove(name)

    async def truncate(self, inode: int, size: int) -> None:
        """What programs do before they write anew."""
        if nodes.is_directory(inode) or _parts(inode)[0] not in (_POSITION, _RESET):
            raise fault(errno.EROFS)
        if size:
            raise fault(errno.EOPNOTSUPP)


def _position_text(position: int) -> bytes:
    return b"%d\n" % position


def _parsed(line: bytes) -> int:
    text = line.strip()
    if not _POSITION_TEXT.fullmatch(text):
        raise fault(errno.EBADMSG)
    return int(text)
