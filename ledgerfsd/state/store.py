"""``index.lmdb``: the account pages, small tables and the applied-through mark (docs/FORMAT.md, section 9).

Start at ``IndexStore``. Key spaces, each a named database:

* ``meta``: ``format`` = ``1``; ``lmdb`` = major.minor of the library that wrote it; ``mark`` = the core's mark;
  ``tip`` = the last entry applied (see ``tip.py``), which ties the projection to one journal.
* ``accounts``: big-endian u32 page number → page of account records, as the core laid them out.
* ``tables``: ``holds``, ``reversed``, ``policy`` → the core's dump.

Behind each value (but for the first two) stand 8 bytes that tell whether it is what was written: LMDB itself does not
notice a bad bit, and a wrong balance would go on into the journal.

Everything here is a projection. A file that cannot be read, or is of another format, is deleted and made again.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import lmdb
import xxhash

from ledgerfsd import limits
from ledgerfsd.core.values import SavedState
from ledgerfsd.errors import StoreError

FORMAT: Final = b"1"
# LMDB 1.0 reads files of 0.9 no more, nor the other way round: the first two numbers say which family wrote ours.
LIBRARY: Final = ".".join(str(part) for part in lmdb.version()[:2]).encode()
MAP_BYTES: Final = 256 * limits.MIB  # address space, not disk: the file grows with what is in it
ROOM_A_PAGE: Final = 20 * limits.KIB  # of accounts: four of LMDB's pages, and its part of a branch
PAGES_AT_ONCE: Final = 2_048  # of accounts, in one transaction: LMDB holds its 32 MB in memory until the commit
CHECK_BYTES: Final = 8
DISK_HINT: Final = "see to the disk and the permissions of the store"
UNUSABLE: Final = (
    lmdb.BadTxnError,  # what follows the discovery of a bad page
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


class Saved(NamedTuple):
    """What ``load`` found."""

    state: SavedState
    tip: bytes  # the packed Tip


class IndexStore:
    """The open LMDB environment. One per process; one thread at a time may call it."""

    def __init__(self, path: Path, *, map_bytes: int = MAP_BYTES) -> None:
        """Open or create. Raises StoreError when the disk refuses. ``discarded`` says why an old file was deleted."""
        self._path = path
        self._map_bytes = map_bytes
        self.discarded = ""
        try:
            self._open()
            self._check_format()
        except UNUSABLE as error:
            self.discard(str(error))
        except (OSError, lmdb.Error) as error:
            raise StoreError(f"{path}: {error}", hint=DISK_HINT) from None

    def _open(self) -> None:
        self._path.mkdir(mode=0o750, exist_ok=True)  # LMDB would give a directory the mode of its files
        self._env = lmdb.open(str(self._path), map_size=self._map_bytes, max_dbs=3, mode=0o640, max_readers=8)
        # A file grown by an earlier process is larger than our map: LMDB takes its size then.
        self._map_bytes = max(self._map_bytes, self._env.info()["map_size"])
        self._open_databases()

    def _open_databases(self) -> None:
        # Reading a page of the map behind the end of the file would kill the process.
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if (self._path / "data.mdb").stat().st_size < needed:
            raise lmdb.CorruptedError("the file is shorter than it was")
        self._meta = self._env.open_db(b"meta")
        self._accounts = self._env.open_db(b"accounts")
        self._tables = self._env.open_db(b"tables")

    def _check_format(self) -> None:
        with self._env.begin(db=self._meta) as transaction:
            for key, expected in ((b"format", FORMAT), (b"lmdb", LIBRARY)):
                value = transaction.get(key)
                if value is not None and value != expected:
                    raise lmdb.VersionMismatchError(f"{key.decode()} {value.decode()}, not {expected.decode()}")

    def discard(self, reason: str) -> None:
        """Delete everything and begin anew; the journal has it all. Raises StoreError when the disk refuses."""
        self.discarded = reason
        self.close()
        shutil.rmtree(self._path, ignore_errors=True)
        try:
            self._open()
        except (OSError, lmdb.Error) as error:
            raise StoreError(f"{self._path}: {error}", hint=DISK_HINT) from None

    def close(self) -> None:
        """Close the environment. Idempotent."""
        env = getattr(self, "_env", None)
        if env is not None:
            env.close()

    def load(self) -> Saved | None:
        """The state of the last ``save``, None when there is none, or when it is damaged: then it is discarded."""
        try:
            return self._load()
        except lmdb.Error as error:
            self.discard(str(error))
            return None

    def _load(self, *, pages: bool = True) -> Saved | None:
        with self._env.begin(buffers=True) as transaction:
            mark = _checked(b"meta", b"mark", transaction.get(b"mark", db=self._meta))
            tip = _checked(b"meta", b"tip", transaction.get(b"tip", db=self._meta))
            if mark is None or tip is None:
                return None
            tables, accounts = {}, {}
            for name, dump in transaction.cursor(db=self._tables):
                tables[bytes(name).decode()] = _checked(b"tables", name, dump) or b""
            for number, page in transaction.cursor(db=self._accounts) if pages else ():
                accounts[_number(number)] = bytes(_sound(b"accounts", number, page))
        return Saved(SavedState(mark=mark, tables=tables, pages=accounts), tip)

    @staticmethod
    def peek(path: Path, *, pages: bool = True) -> Saved | None:
        """The same without opening for writing: for checks. Raises lmdb.Error when it cannot be read.

        Without ``pages`` those of the accounts are left out: ``each_page`` has them.
        """
        with IndexStore._reader(path) as reader:
            return reader._load(pages=pages) if reader else None

    @staticmethod
    def each_page(path: Path) -> Iterator[tuple[int, memoryview]]:
        """The pages of accounts, ascending, with their numbers, as they stand in the map: one is good until the next is asked for.

        Raises lmdb.Error when one cannot be read, or is not what was written.
        """
        with IndexStore._reader(path) as reader:
            if reader is None:
                return
            with reader._env.begin(buffers=True) as transaction:
                for number, page in transaction.cursor(db=reader._accounts):
                    yield _number(number), _sound(b"accounts", number, page)

    @staticmethod
    @contextmanager
    def _reader(path: Path) -> Iterator[IndexStore | None]:
        """Opened for reading only; None when nothing is there."""
        if not (path / "data.mdb").exists():
            yield None
            return
        reader = IndexStore.__new__(IndexStore)
        reader._path = path
        with lmdb.open(str(path), readonly=True, lock=False, create=False, max_dbs=3) as reader._env:
            try:
                reader._open_databases()
            except lmdb.NotFoundError:
                yield None
                return
            yield reader

    def save(self, state: SavedState, tip: bytes) -> None:
        """Keep the state: after a crash ``load`` gives this state, or the one before in which some pages are newer than its mark.

        Such pages are what replay expects (``ChangedPages``). The caller has made ``hashes/`` and ``runs/`` durable up to the mark.
        Raises OSError or lmdb.Error when the disk refuses; the earlier mark and tables then still stand.
        """
        self._make_room(len(state.pages))
        while True:
            try:
                self._save(state, tip)
            except UNUSABLE as error:
                # What is saved from now on lacks pages, and the next start sees that: it begins from nothing.
                self.discard(str(error))
                raise
            except lmdb.MapFullError:
                self._grow(2 * self._map_bytes)
            else:
                return

    def _make_room(self, pages: int) -> None:
        """The map shall hold what is there and as many new pages: a save that fills it begins anew, after most of the work."""
        used = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        wanted = used + pages * ROOM_A_PAGE
        if wanted > self._map_bytes:
            self._grow(max(2 * self._map_bytes, wanted))

    def _grow(self, map_bytes: int) -> None:
        # No transaction is open here, which is what LMDB asks for before the map may grow.
        self._env.set_mapsize(map_bytes)
        self._map_bytes = self._env.info()["map_size"]

    def _save(self, state: SavedState, tip: bytes) -> None:
        numbers = sorted(state.pages)
        for first in range(0, len(numbers), PAGES_AT_ONCE):
            self._save_pages(state.pages, numbers[first : first + PAGES_AT_ONCE])
        # If we stop here: old mark, new pages. The pages of all parts are durable before the mark that needs them.
        with self._env.begin(write=True) as transaction:
            transaction.put(b"format", FORMAT, db=self._meta)
            transaction.put(b"lmdb", LIBRARY, db=self._meta)
            for key, value in ((b"mark", state.mark), (b"tip", tip)):
                transaction.put(key, value + _check(b"meta", key, value), db=self._meta)
            for name, dump in state.tables.items():
                transaction.put(name.encode(), dump + _check(b"tables", name.encode(), dump), db=self._tables)

    def _save_pages(self, pages: Mapping[int, bytes], numbers: list[int]) -> None:
        """One durable transaction. The room of what it replaces is used again by the next but one."""
        with self._env.begin(write=True, db=self._accounts) as transaction:
            for number in numbers:
                key, page = struct.pack(">I", number), pages[number]
                transaction.put(key, page + _check(b"accounts", key, page))


def _check(database: bytes, key: bytes | memoryview, value: bytes | memoryview) -> bytes:
    """XXH3-64 of what stands where. No security: whoever can write here can write anything."""
    digest = xxhash.xxh3_64(database)
    digest.update(key)
    digest.update(value)
    return digest.digest()


def _checked(database: bytes, key: bytes | memoryview, stored: memoryview | None) -> bytes | None:
    """The value without its check. Raises lmdb.CorruptedError when it is not the one that was written."""
    return None if stored is None else bytes(_sound(database, key, stored))


def _sound(database: bytes, key: bytes | memoryview, stored: memoryview) -> memoryview:
    """The same where it stands."""
    value = stored[:-CHECK_BYTES]
    if _check(database, key, value) != bytes(stored[-CHECK_BYTES:]):
        raise lmdb.CorruptedError(f"a value in {database.decode()} is not what was written")
    return value


def _number(key: bytes | memoryview) -> int:
    (number,) = struct.unpack(">I", key)
    return int(number)
