"""The digests in the store: ``digests/<size>.ndjson`` (docs/FORMAT.md, section 15).

Start at ``Digests``. They cannot be derived from the journal, so they are evidence, as receipts are: lines are only
ever appended, and synced. A file holds 1,024 digests with all that came of them, and two or three files at most are in
memory, so that a ledger of ten years starts as quickly as a new one.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog
import trio

from ledgerfsd.clock import parse_time
from ledgerfsd.errors import StoreError
from ledgerfsd.journal.layout import sync_directory

log = structlog.get_logger()

FILE_DIGESTS: Final = 1024
FILES_KEPT: Final = 2  # besides the newest
DIGEST: Final = "digest/1"
OUTCOME: Final = "outcome/1"
SUFFIX: Final = ".ndjson"
LINE_BYTES_MAX: Final = 1 << 20

What = Literal["anchored", "failed", "contradicted"]


class Named(msgspec.Struct, frozen=True):
    """An anchor by name."""

    kind: str
    name: str


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
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


class Issued(msgspec.Struct, frozen=True):
    """The line of a digest."""

    size: int
    time: str
    root: str
    checkpoint: str
    anchors: list[Named]
    t: Literal["digest/1"] = DIGEST


class Digest:
    """A checkpoint and what came of anchoring it."""

    def __init__(self, issued: Issued) -> None:
        self.issued = issued
        # In the order of first mention, which never changes: the mount numbers files by it.
        self.outcomes: dict[str, Outcome | None] = {named.name: None for named in issued.anchors}
        self.changed = issued.time

    @property
    def size(self) -> int:
        """Entries of the log that it speaks of."""
        return self.issued.size

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


class _File:
    """One file, as read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digests: dict[int, Digest] = {}  # in order of size
        self.whole = 0  # bytes up to the last line that is complete; what follows was never said to be there

    def take(self, record: Issued | Outcome) -> None:
        """A line that is durable."""
        if isinstance(record, Issued):
            self.digests[record.size] = Digest(record)
        elif record.size in self.digests:
            self.digests[record.size].add(record)

    def load(self) -> _File:
        """Read it. A line that is none is passed over, and logged."""
        with self.path.open("rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                if not line.endswith(b"\n"):
                    break
                try:
                    self.take(_decode(line))
                except (msgspec.DecodeError, ValueError) as error:
                    log.warning("passed over a line that is no digest", file=self.path.name, reason=str(error))
                self.whole += len(line)
        return self


def _decode(line: bytes) -> Issued | Outcome:
    kind = msgspec.json.decode(line, type=dict[str, Any]).get("t")
    if kind == DIGEST:
        issued = msgspec.json.decode(line, type=Issued)
        parse_time(issued.time)
        return issued
    outcome = msgspec.json.decode(line, type=Outcome)
    parse_time(outcome.time)
    try:
        base64.b64decode(outcome.evidence, validate=True)
    except binascii.Error:
        raise ValueError("the evidence is not base64") from None
    return outcome


class Digests:
    """All digests of a store. Reading needs no lock; ``add`` and ``retire`` are the daemon's."""

    def __init__(self, directory: Path) -> None:
        """Reads the newest file. Raises StoreError when the directory cannot be read."""
        self.directory = directory
        self.trouble = ""  # why the last line could not be written
        self._turn = trio.Lock()
        self._kept: OrderedDict[int, _File] = OrderedDict()
        try:
            self._begins = sorted(int(path.stem) for path in directory.glob(f"[0-9]*{SUFFIX}") if path.stem.isdecimal())
            self._last = _File(self._path(self._begins[-1])).load() if self._begins else None
        except OSError as error:
            raise StoreError(f"{error.filename or directory}: {error.strerror}") from None

    # -- reading

    @property
    def newest(self) -> Digest | None:
        """The one issued last."""
        if self._last is None or not self._last.digests:
            return None
        return self._last.digests[next(reversed(self._last.digests))]

    def get(self, size: int) -> Digest | None:
        """The digest of this size."""
        begin = max((begin for begin in self._begins if begin <= size), default=0)
        return self._file(begin).digests.get(size) if begin else None

    def cosignatures(self, size: int) -> bytes:
        """Signature lines that witnesses gave for the digest of this size."""
        digest = self.get(size)
        if digest is None:
            return b""
        return b"".join(each.data for each in digest.evidence().values() if each.kind == "witness")

    def sizes(self, skip: int = 0) -> Iterator[int]:
        """All sizes, smallest first, without the first ``skip``."""
        for begin in self._begins[skip // FILE_DIGESTS :]:
            yield from list(self._file(begin).digests)[skip % FILE_DIGESTS :]
            skip = 0

    def backwards(self) -> Iterator[Digest]:
        """The newest digests first, of the two newest files: as far as it matters who has anchored what."""
        for begin in self._begins[: -FILES_KEPT - 1 : -1]:
            yield from reversed(self._file(begin).digests.values())

    def _path(self, begin: int) -> Path:
        return self.directory / f"{begin:020}{SUFFIX}"

    def _file(self, begin: int) -> _File:
        if self._last is not None and begin == self._begins[-1]:
            return self._last
        file = self._kept.get(begin)
        if file is None:
            file = self._kept[begin] = _File(self._path(begin)).load()
            if len(self._kept) > FILES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(begin)
        return file

    # -- writing

    def retire(self, entries: int) -> None:
        """Put files aside that speak of more entries than the log has: of a life that was lost in a restore."""
        while (newest := self.newest) is not None and newest.size > entries:
            assert self._last is not None
            aside = self._last.path.with_suffix(f"{SUFFIX}.lost")
            number = 1
            while aside.exists():
                number += 1
                aside = self._last.path.with_suffix(f"{SUFFIX}.lost{number}")
            self._last.path.rename(aside)
            sync_directory(self.directory)
            log.warning("digests of more entries than the log has were put aside", file=aside.name, size=newest.size)
            self._begins.pop()
            self._last = _File(self._path(self._begins[-1])).load() if self._begins else None

    async def add(self, record: Issued | Outcome) -> None:
        """Append a line, durably. Raises OSError; then it is as if nothing had been asked."""
        async with self._turn:
            file = self._target(record)
            line = msgspec.json.encode(record) + b"\n"
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
                self._begins.append(record.size)

    def _target(self, record: Issued | Outcome) -> _File:
        if isinstance(record, Outcome):
            begin = max((begin for begin in self._begins if begin <= record.size), default=0)
            return self._file(begin)
        full = self._last is None or len(self._last.digests) >= FILE_DIGESTS
        return _File(self._path(record.size)) if full or self._last is None else self._last


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
