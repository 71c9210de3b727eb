"""The digests in the store: ``digests/<size>.ndjson`` (docs/FORMAT.md, section 15).

Start at ``Digests``. They cannot be derived from the journal, so they are evidence, as receipts are: lines are only
ever appended, and synced. A file holds 1,024 digests with all that came of them, and two or three files at most are in
memory, so that a ledger of ten years starts as quickly as a new one.

A ledger that was restored has several lives (incarnations). Each has files of its own, so that digests of a life that was
lost stay what they were, under the names that they had: they are *lost*, and evidence of what was.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import structlog
import trio

from ledgerfsd.clock import parse_time
from ledgerfsd.errors import StoreError
from ledgerfsd.journal import checked
from ledgerfsd.journal.layout import sync_directory

log = structlog.get_logger()

FILE_DIGESTS: Final = 1024
FILES_KEPT: Final = 2  # besides the newest
DIGEST: Final = "digest/1"
OUTCOME: Final = "outcome/1"
SUFFIX: Final = ".ndjson"
LINE_BYTES_MAX: Final = 1 << 20
_FILE: Final = re.compile(r"([0-9]{20})(?:-([1-9][0-9]{0,9}))?" + re.escape(SUFFIX), re.ASCII)
_NAME: Final = re.compile(r"([1-9][0-9]{0,18})(?:-([2-9]|[1-9][0-9]{1,9}))?", re.ASCII)

What = Literal["anchored", "failed", "contradicted"]


class Named(msgspec.Struct, frozen=True):
    """An anchor by name."""

    kind: str
    name: str


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What came of one attempt to anchor a digest."""

    size: int
    time: str
    kind: str
    name: str
    outcome: What
    where: str = ""
    retries: int = 0  # failures in a row before this attempt
    why: str = ""  # it failed
    hash: str = ""  # hex SHA-256 of the evidence
    detail: dict[str, Any] = {}
    file: str = ""  # name of the evidence in the digest's directory
    evidence: str = ""  # its bytes, in base64
    t: Literal["outcome/1"] = OUTCOME

    @property
    def data(self) -> bytes:
        """The evidence itself."""
        return base64.b64decode(self.evidence)


class Issued(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line of a digest."""

    size: int
    time: str
    root: str
    checkpoint: str
    anchors: list[Named]
    t: Literal["digest/1"] = DIGEST


class Digest:
    """A checkpoint and what came of anchoring it. ``incarnation``: the life of the ledger that issued it."""

    def __init__(self, issued: Issued, incarnation: int = 1) -> None:
        self.issued = issued
        self.incarnation = incarnation
        # In the order of first mention, which never changes: the mount numbers files by it.
        self.outcomes: dict[str, Outcome | None] = {named.name: None for named in issued.anchors}
        self.changed = issued.time

    @property
    def size(self) -> int:
        """Entries of the log that it speaks of."""
        return self.issued.size

    @property
    def name(self) -> str:
        """That of its directory: one that was lost in a restore may have the size of a later one."""
        return f"{self.size}-{self.incarnation}" if self.incarnation > 1 else str(self.size)

    @property
    def checkpoint(self) -> bytes:
        """The signed note."""
        return self.issued.checkpoint.encode()

    def add(self, outcome: Outcome) -> None:
        """Take what came of an attempt. What is anchored stays so."""
        before = self.outcomes.get(outcome.name)
        if before is None or before.outcome != "anchored":
            self.outcomes[outcome.name] = outcome
            self.changed = outcome.time

    def evidence(self) -> dict[str, Outcome]:
        """File name → outcome, of those anchors that gave evidence to keep."""
        return {outcome.file: outcome for outcome in self.outcomes.values() if outcome is not None and outcome.file}

    def text(self, ledger: str) -> bytes:
        """``digest.json``."""
        kinds = {named.name: named.kind for named in self.issued.anchors}
        anchors = [
            _shown(outcome) if outcome else {"kind": kinds[name], "name": name, "outcome": "none"}
            for name, outcome in self.outcomes.items()
        ]
        value = {
            "t": DIGEST,
            "ledger": ledger,
            "size": self.size,
            "incarnation": self.incarnation,
            "root": self.issued.root,
            "time": self.issued.time,
            "anchors": anchors,
        }
        return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _shown(outcome: Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": outcome.kind,
        "name": outcome.name,
        "where": outcome.where,
        "outcome": outcome.outcome,
        "when": outcome.time,
        "size": outcome.size,
        "retries": outcome.retries,
    }
    more = {"hash": outcome.hash, "file": outcome.file, "why": outcome.why, "detail": outcome.detail}
    return shown | {name: value for name, value in more.items() if value}


def name_of(text: str) -> tuple[int, int] | None:
    """Incarnation and size of the digest whose directory has this name; None: it is no such name."""
    found = _NAME.fullmatch(text)
    return (int(found[2] or 1), int(found[1])) if found else None


class Place(NamedTuple):
    """A file by what its name says: sorted so, files are in the order in which they were written."""

    incarnation: int
    first: int  # size of its first digest

    @property
    def file(self) -> str:
        """The name."""
        return f"{self.first:020}" + (f"-{self.incarnation}" if self.incarnation > 1 else "") + SUFFIX


def place_of(name: str) -> Place | None:
    """What the name of a file says; None: it is no such name."""
    found = _FILE.fullmatch(name)
    return Place(int(found[2] or 1), int(found[1])) if found else None


class _File:
    """One file, as read."""

    def __init__(self, directory: Path, place: Place) -> None:
        self.path = directory / place.file
        self.incarnation = place.incarnation
        self.digests: dict[int, Digest] = {}  # in order of size
        self.whole = 0  # bytes up to the last line that is complete; what follows was never said to be there

    def take(self, record: Issued | Outcome) -> None:
        """A line that is durable."""
        if isinstance(record, Issued):
            self.digests[record.size] = Digest(record, self.incarnation)
        elif record.size in self.digests:
            self.digests[record.size].add(record)

    def load(self) -> _File:
        """Read it. A line that is none is passed over, and logged."""
        with self.path.open("rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                if not line.endswith(b"\n"):
                    break
                try:
                    self.take(decode(line))
                except ValueError as error:
                    log.warning("passed over a line that is no digest", file=self.path.name, reason=str(error))
                self.whole += len(line)
        return self


def decode(line: bytes) -> Issued | Outcome:
    """What a line says. Raises ValueError (msgspec.DecodeError is one): it is not what was written."""
    value = checked.unseal(line.removesuffix(b"\n"))
    kind = msgspec.json.decode(value, type=dict[str, Any]).get("t")
    if kind == DIGEST:
        issued = msgspec.json.decode(value, type=Issued)
        parse_time(issued.time)
        return issued
    outcome = msgspec.json.decode(value, type=Outcome)
    parse_time(outcome.time)
    try:
        base64.b64decode(outcome.evidence, validate=True)
    except binascii.Error:
        raise ValueError("the evidence is not base64") from None
    return outcome


class Restore(NamedTuple):
    """From here on (``size`` entries) the log is of this incarnation."""

    incarnation: int
    size: int


class Digests:
    """All digests of a store. Reading needs no lock; ``add`` is the daemon's."""

    def __init__(self, directory: Path, restores: Sequence[Restore] = ()) -> None:
        """Reads the newest file. ``restores``: those of the log, oldest first; without them nothing is known to be lost.

        Raises StoreError when the directory cannot be read.
        """
        self.directory = directory
        self.trouble = ""  # why the last line could not be written
        self._restores = restores
        self._incarnation = restores[-1].incarnation if restores else 1
        self._turn = trio.Lock()
        self._kept: OrderedDict[Place, _File] = OrderedDict()
        try:
            named = (place_of(path.name) for path in directory.glob(f"[0-9]*{SUFFIX}"))
            self._places = sorted(place for place in named if place)
            self._last = _File(directory, self._places[-1]).load() if self._places else None
        except OSError as error:
            raise StoreError(f"{error.filename or directory}: {error.strerror}") from None

    # -- reading

    @property
    def newest(self) -> Digest | None:
        """The newest that speaks of this log."""
        return next(self.backwards(), None)

    def lost(self, digest: Digest) -> bool:
        """Whether a restore gave up what it speaks of."""
        return digest.size > self._end(digest.incarnation)

    def _end(self, incarnation: int) -> int:
        """How many entries of this life are in the log."""
        sizes = [restore.size for restore in self._restores if restore.incarnation > incarnation]
        return min(sizes) if sizes else 1 << 63

    def get(self, size: int) -> Digest | None:
        """The digest of this size that speaks of this log."""
        place = self._place(size)
        return self._file(place).digests.get(size) if place else None

    def _place(self, size: int) -> Place | None:
        """Where the digest of this size is, if there is one: in a life of which so many entries are left."""
        return max(
            (place for place in self._places if place.first <= size <= self._end(place.incarnation)), default=None
        )

    def of(self, incarnation: int, size: int) -> Digest | None:
        """A digest of some life, lost or not."""
        places = [each for each in self._places if each.incarnation == incarnation and each.first <= size]
        return self._file(places[-1]).digests.get(size) if places else None

    def cosignatures(self, size: int) -> bytes:
        """Signature lines that witnesses gave for the digest of this size."""
        digest = self.get(size)
        if digest is None:
            return b""
        return b"".join(each.data for each in digest.evidence().values() if each.kind == "witness")

    def all(self, skip: int = 0) -> Iterator[Digest]:
        """All digests, lost ones too, in the order in which they were issued, without the first ``skip``."""
        for number, place in enumerate(list(self._places)):
            # Of a life's files all but the last are full: they need not be read to be passed over.
            full = number + 1 < len(self._places) and self._places[number + 1].incarnation == place.incarnation
            if full and skip >= FILE_DIGESTS:
                skip -= FILE_DIGESTS
                continue
            digests = list(self._file(place).digests.values())
            yield from digests[skip:]
            skip = max(0, skip - len(digests))

    def sizes(self, skip: int = 0, above: int = 0) -> Iterator[int]:
        """The sizes of those that speak of this log, ascending: those above ``above``, without the first ``skip`` of them."""
        places = [place for place in self._places if place.first <= self._end(place.incarnation)]
        for place, following in itertools.zip_longest(places, places[1:]):
            # Files that are passed over need not be read. One that another of its life follows is full.
            if following is not None and following.first <= above + 1:
                continue
            full = following is not None and following.incarnation == place.incarnation and place.first > above
            if full and skip >= FILE_DIGESTS:
                skip -= FILE_DIGESTS
                continue
            sizes = [size for size in self._file(place).digests if above < size <= self._end(place.incarnation)]
            yield from sizes[skip:]
            skip = max(0, skip - len(sizes))

    def backwards(self) -> Iterator[Digest]:
        """Those that speak of this log, newest first, of a few files: as far as it matters who has anchored what."""
        speaking = [place for place in self._places if place.first <= self._end(place.incarnation)]
        for place in speaking[: -FILES_KEPT - 1 : -1]:
            yield from (each for each in reversed(self._file(place).digests.values()) if not self.lost(each))

    def _file(self, place: Place) -> _File:
        if self._last is not None and place == self._places[-1]:
            return self._last
        file = self._kept.get(place)
        if file is None:
            file = self._kept[place] = _File(self.directory, place).load()
            if len(self._kept) > FILES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return file

    # -- writing

    async def add(self, record: Issued | Outcome) -> None:
        """Append a line, durably. Raises OSError; then it is as if nothing had been asked."""
        async with self._turn:
            file = self._target(record)
            line = checked.seal(msgspec.json.encode(record))
            try:
                await trio.to_thread.run_sync(_append, file.path, file.whole, line)
            except OSError as error:
                self.trouble = f"digests are not written: {error.strerror}"
                raise
            self.trouble = ""
            file.whole += len(line)
            file.take(record)
            if isinstance(record, Issued) and file is not self._last:
                self._last = file
                self._places.append(Place(self._incarnation, record.size))

    def _target(self, record: Issued | Outcome) -> _File:
        if isinstance(record, Outcome):
            place = self._place(record.size)
            assert place is not None
            return self._file(place)
        last = self._last
        if last is None or len(last.digests) >= FILE_DIGESTS or last.incarnation != self._incarnation:
            return _File(self.directory, Place(self._incarnation, record.size))
        return last


def _append(path: Path, whole: int, line: bytes) -> None:
    new = whole == 0
    if new:
        path.parent.mkdir(mode=0o750, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        # Half a line of an attempt that failed, or of a crash, goes first: nobody was told that it is there.
        os.ftruncate(descriptor, whole)
        view = memoryview(line)
        while view:
            written = os.pwrite(descriptor, view, whole)
            view, whole = view[written:], whole + written
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        sync_directory(path.parent)
        sync_directory(path.parent.parent)
