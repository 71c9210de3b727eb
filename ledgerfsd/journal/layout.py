"""The files of a store (docs/FORMAT.md, section 1): their places, their creation, the lock.

Start at ``Layout``; ``create`` makes a store, ``check`` says whether a directory is one, ``lock`` holds it.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledgerfsd import limits
from ledgerfsd.core.engine import Engine
from ledgerfsd.errors import LedgerError, StoreError

FORMAT_LINE: Final = "ledgerfs-store 1\n"
LEDGER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]*(/[A-Za-z0-9._~-]+)*")  # a schema-less URL: C2SP's log origin
LOCK_POLL_SECONDS: Final = 0.05
CREATING: Final = "creating"  # present from the first to the last step of creation


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in the store at ``root``. Paths are computed, never checked."""

    root: Path

    @property
    def format(self) -> Path:
        """The line that makes a directory a store; written last."""
        return self.root / "format"

    @property
    def lock(self) -> Path:
        """Held with flock() by the process that has the store open."""
        return self.root / "lock"

    @property
    def genesis(self) -> Path:
        """Entry 0, for people."""
        return self.root / "genesis.json"

    @property
    def journal(self) -> Path:
        """The segments: the truth."""
        return self.root / "journal"

    @property
    def hashes(self) -> Path:
        """Projection: leaf hashes and tile levels."""
        return self.root / "hashes"

    @property
    def runs(self) -> Path:
        """Projection: positions of entries, transactions and blocks."""
        return self.root / "runs"

    @property
    def indexes(self) -> Path:
        """Projection: postings by account, entries by reference, tag and id."""
        return self.root / "indexes"

    @property
    def index(self) -> Path:
        """Projection: the LMDB environment."""
        return self.root / "index.lmdb"

    @property
    def receipts(self) -> Path:
        """Answers to inbox files, one file a day."""
        return self.root / "receipts"

    @property
    def digests(self) -> Path:
        """Checkpoints that were issued, and the evidence of their anchors; made with the first."""
        return self.root / "digests"

    @property
    def named_snapshots(self) -> Path:
        """The names given to past states."""
        return self.root / "snapshots.ndjson"

    @property
    def exports(self) -> Path:
        """Projection: the text of exports, as far as somebody has looked at it; made with the first."""
        return self.root / "exports"

    @property
    def consumers(self) -> Path:
        """How far consumers of events have read, one file each; made when there is one."""
        return self.root / "consumers"

    def segments(self) -> list[Path]:
        """The segment files in stream order. Raises StoreError when the directory cannot be read."""
        try:
            return sorted(self.journal.glob("*.seg"))
        except OSError as error:
            raise StoreError(f"{self.journal}: {error.strerror}") from None


def create(root: Path, ledger: str, *, segment_bytes: int = limits.SEGMENT_BYTES, now_ns: int = 0) -> Layout:
    """Make a new store for the ledger of this origin (such as ``ledger.example/main``) in an absent or empty directory.

    ``now_ns`` replaces the clock. Raises StoreError when something is there already or the disk refuses, LedgerError for a bad origin.
    If we stop half-way, ``creating`` is there and ``format`` is not: the next ``create`` begins anew.
    """
    if not LEDGER_NAME.fullmatch(ledger) or len(ledger) > 255:
        raise LedgerError(
            f"{ledger!r} is not a ledger origin", hint="use a URL without its scheme, such as ledger.example/main"
        )
    layout = Layout(root)
    try:
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        _refuse_if_used(layout)
        with lock(layout):
            _create(layout, ledger, segment_bytes, now_ns)
    except OSError as error:
        raise StoreError(f"{error.filename or root}: {error.strerror}", hint="nothing usable was made there") from None
    return layout


def _refuse_if_used(layout: Layout) -> None:
    if layout.format.exists():
        raise StoreError(f"{layout.root} holds a store already", hint="mount it, or choose another directory")
    names = {path.name for path in layout.root.iterdir()}
    if names - {"lock"} and CREATING not in names:
        raise StoreError(f"{layout.root} is not empty", hint="choose a directory that is empty or does not exist")


def _create(layout: Layout, ledger: str, segment_bytes: int, now_ns: int) -> None:
    marker = layout.root / CREATING
    marker.touch()
    sync_directory(layout.root)
    for directory in (layout.journal, layout.hashes, layout.runs, layout.indexes, layout.receipts):
        _empty(directory)
    Engine.create(layout.root, ledger, segment_bytes=segment_bytes, now_ns=now_ns)
    write_durably(layout.genesis, first_entry(layout) + b"\n")
    sync_directory(layout.journal)
    write_durably(layout.format, FORMAT_LINE.encode())
    # If we stop here: the store is whole, only the marker is left over, and nobody asks for it once ``format`` exists.
    marker.unlink()
    sync_directory(layout.root)
    sync_directory(layout.root.parent)


def _empty(directory: Path) -> None:
    # Called only while ``creating`` stands and ``format`` does not: what is inside is left of an interrupted creation.
    directory.mkdir(mode=0o750, exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    sync_directory(directory)


def first_entry(layout: Layout) -> bytes:
    """The bytes of entry 0, read from the first segment. Raises StoreError when there is none."""
    path = layout.journal / f"{0:020}.seg"
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(2), "big")
            entry = file.read(length)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}", hint="restore journal/ from a backup") from None
    if len(entry) != length or length == 0:
        raise StoreError(f"{path}: the first entry is missing", hint="restore journal/ from a backup")
    return entry


def check(layout: Layout) -> None:
    """Raise StoreError unless this is a store that this version can open."""
    try:
        line = layout.format.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        hint = f"`ledgerfs init --store {layout.root} --ledger ORIGIN` makes one"
        raise StoreError(f"{layout.root} is not a LedgerFS store", hint=hint) from None
    except OSError as error:
        raise StoreError(f"{layout.format}: {error.strerror}") from None
    if line != FORMAT_LINE:
        raise StoreError(
            f"{layout.format} says {line.strip()[:60]!r}; this version reads {FORMAT_LINE.strip()!r}",
            hint="use the version of LedgerFS that made the store",
        )
    if not layout.segments():
        raise StoreError(f"{layout.journal} holds no segment", hint="restore journal/ from a backup")


@contextmanager
def lock(layout: Layout, *, patience_seconds: int = 0) -> Iterator[None]:
    """Hold the store for this process. Raises StoreError, naming the holder, when another process has it.

    ``patience_seconds``: wait so long for a holder that may be about to end. The kernel releases the lock when the
    process ends, however it ends: there are no stale locks.
    """
    try:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StoreError(f"{layout.lock}: {error.strerror}") from None
    try:
        if not _locked(descriptor, patience_seconds):
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise StoreError(f"{layout.root} is in use by process {holder}", hint="unmount it first (ledgerfs umount)")
        with suppress(OSError):  # only people read it: on a full disk the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, patience_seconds: int) -> bool:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return True


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that after a crash it holds the old or the new bytes, never a mixture."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
