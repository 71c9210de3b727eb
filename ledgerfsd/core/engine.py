"""The commit engine: the C core's threads behind a typed face.

The engine owns ``journal/``, ``hashes/`` and ``runs/`` of an open store. Two C threads commit (parse and apply | hash, write and
sync); they announce finished submissions through an eventfd. All methods may be called from any Python thread; none blocks for
longer than a memory copy, except opening, ``save``, ``drain`` and ``close``. The read methods see durable (sealed and synced) state
only. Start reading in ``csrc/lfs_core.h``.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from ledgerfsd import limits
from ledgerfsd.core import _core
from ledgerfsd.core.values import (
    MARK_BYTES,
    TABLES,
    Attending,
    By,
    ChangedPages,
    Completion,
    IndexCounts,
    Posting,
    Recovery,
    SavedState,
    StateProof,
    account_of,
    index_counts,
    state_proof,
)
from ledgerfsd.errors import DamageError, StoreError
from ledgerfsd.types import Account, Counts, Mode

ffi: Any = _core.ffi
lib: Any = _core.lib

DRY_RUN = 16
SYSTEM = 32
TIME_BYTES = 30
STATEMENT_PIECE_BYTES = limits.MIB
REPLAY_STEP_BYTES = 16 * limits.MIB


class Engine:
    """One open store. ``Engine.create`` makes its journal; ``Engine(...)`` opens and recovers it."""

    @staticmethod
    def create(store: Path, ledger: str, *, segment_bytes: int = limits.SEGMENT_BYTES, now_ns: int = 0) -> None:
        """Write genesis and its seal into an empty ``journal/``. Raises StoreError."""
        table = resources.files("ledgerfsd").joinpath("data/currencies.tsv").read_bytes()
        handle = lib.lfs_engine_new(os.fsencode(store), segment_bytes, 64)
        try:
            digest = hashlib.sha256(table).hexdigest().encode()
            if lib.lfs_engine_create(handle, ledger.encode(), digest, now_ns or time.time_ns()):
                raise StoreError(ffi.string(lib.lfs_engine_error(handle)).decode())
        finally:
            lib.lfs_engine_free(handle)

    def __init__(
        self,
        store: Path,
        *,
        segment_bytes: int = limits.SEGMENT_BYTES,
        accounts_max: int = limits.ACCOUNTS_MAX,
        ids_recent: int | None = None,
        saved: SavedState | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Open and recover: load ``saved`` (or begin from nothing) and replay the rest of the journal.

        ``ids_recent``: for tests: how many ids a table of the newest holds before another is begun (there are two), and of how many
        entries at least T6 need not read their words; None: 1,000,000.
        ``progress(done_bytes, total_bytes)`` is called now and then. Raises StoreError when the files cannot be used (a ``saved`` that does
        not fit among them: open again without it), DamageError when the journal is damaged. No thread runs before ``start``.
        """
        began = time.monotonic()
        self._handle = ffi.gc(lib.lfs_engine_new(os.fsencode(store), segment_bytes, accounts_max), lib.lfs_engine_free)
        if ids_recent is not None:
            lib.lfs_engine_ids(self._handle, ids_recent)
        self._open(saved)
        step = ffi.new("lfs_progress *")
        while more := lib.lfs_replay(self._handle, REPLAY_STEP_BYTES, step):
            if more < 0:
                raise (DamageError if more == -1 else StoreError)(self._error())
            if progress is not None:
                progress(step.done_bytes, step.total_bytes)
        self.wakeup_fd: int = lib.lfs_wakeup_fd(self._handle)
        self.front_held = 0  # submissions of the front that ``completions`` set apart (see ``core.front``)
        self.receipts: object = None  # what the front's thread writes to lives as long
        self.recovery = Recovery(self.counts().entries, step.replayed, step.cut_bytes, time.monotonic() - began)

    @property
    def handle(self) -> Any:
        """The core's own, for other faces of it."""
        return self._handle

    def _error(self) -> str:
        return str(ffi.string(lib.lfs_engine_error(self._handle)).decode("utf-8", "replace"))

    def _check(self, failed: int) -> None:
        if failed:
            raise StoreError(self._error())

    def _open(self, saved: SavedState | None) -> None:
        self._check(lib.lfs_engine_open(self._handle, saved.mark if saved else ffi.NULL))
        if saved is None:
            return
        for page, content in saved.pages.items():
            self._check(lib.lfs_load_page(self._handle, page, content, len(content)))
        for name in TABLES:
            table = saved.tables.get(name, b"")
            self._check(lib.lfs_load_table(self._handle, name.encode(), table, len(table)))
        self._check(lib.lfs_load_done(self._handle))

    def start(self) -> None:
        """Start the commit threads."""
        self._check(lib.lfs_engine_start(self._handle))

    def close(self) -> None:
        """Finish what is queued and stop the threads. Memory views of entries stay valid until the engine is garbage."""
        lib.lfs_engine_stop(self._handle)

    # -- writing

    def submit(
        self,
        data: bytes,
        *,
        source: bytes,
        first_line: int,
        mode: Mode,
        dry_run: bool = False,
        system: bool = False,
        now_ns: int = 0,
    ) -> int:
        """Queue intents (whole lines, or one whole document) and return the ticket.

        Always accepted: the caller bounds memory by ``inflight_bytes``. When the ledger is read-only the answer is the code
        ``read_only``. ``source`` is the file's name and ``first_line`` the line it begins with, for the ids of intents without one.
        ``system``: the data is one intent of the ledger's own (FORMAT, section 6.2), and nothing else is known; never for what a
        client wrote. ``now_ns`` replaces the clock (tests, replay of a recorded day).
        """
        kind = int(mode) | (DRY_RUN if dry_run else 0) | (SYSTEM if system else 0)
        return int(
            lib.lfs_submit(self._handle, ffi.from_buffer(data), len(data), source[:255], first_line, kind, now_ns)
        )

    def completions(self) -> list[Completion]:
        """The submissions finished since the last call; also clears the eventfd. What they committed is visible already."""
        try:
            os.eventfd_read(self.wakeup_fd)
        except BlockingIOError:
            pass
        found = []
        lib.lfs_socket_hold(self._handle)
        self.front_held = lib.lfs_front_hold(self._handle)
        while handle := lib.lfs_take(self._handle):
            found.append(Completion(handle))
        return found

    def listen(self, descriptor: int) -> None:
        """Take intents from the connections of a listening Unix socket, in a thread of the core (docs/SEMANTICS.md, section 16).

        The descriptor stays the caller's, who closes it after ``close``. Raises StoreError.
        """
        self._check(lib.lfs_socket_start(self._handle, descriptor))

    def deliver(self) -> None:
        """All of ``touched`` has been told: let the socket answer what had finished when ``completions`` was called last."""
        lib.lfs_told(self._handle)
        lib.lfs_socket_deliver(self._handle)

    def socket_counts(self) -> tuple[int, int, int]:
        """Of the socket: connections that are open, intents committed (duplicates included), intents refused."""
        numbers = ffi.new("uint64_t[3]")
        lib.lfs_socket_counts(self._handle, numbers, numbers + 1, numbers + 2)
        return numbers[0], numbers[1], numbers[2]

    def tick(self) -> None:
        """Let the ledger expire holds that are due; to be called about once a second."""
        lib.lfs_tick(self._handle)

    def drain(self) -> None:
        """Wait until everything submitted is completed."""
        lib.lfs_drain(self._handle)

    def prove(self, ordinal: int) -> int:
        """Ask for the proof of an account and return a number, by which ``proofs`` gives it soon.

        When the state has changed since its root was sealed last, a seal that carries it is made.
        """
        return int(lib.lfs_prove(self._handle, ordinal))

    def proofs(self) -> list[tuple[int, StateProof | None]]:
        """What ``prove`` asked for and is finished; also announced through the eventfd.

        None: there is no such account, or the ledger is read-only and the newest state is not sealed.
        """
        found: list[tuple[int, StateProof | None]] = []
        while handle := lib.lfs_take_proof(self._handle):
            raw = ffi.gc(handle, lib.lfs_proof_free)
            found.append((raw.number, None if raw.code else state_proof(raw)))
        return found

    @property
    def state_ns(self) -> int:
        """Nanoseconds spent on state roots since the start, by the thread that writes."""
        return int(lib.lfs_state_spent(self._handle, 0))

    @property
    def tree_ns(self) -> int:
        """Nanoseconds that the state tree's own thread has worked beside it since the start."""
        return int(lib.lfs_state_spent(self._handle, 1))

    @property
    def inflight_bytes(self) -> int:
        """Bytes submitted and not yet completed."""
        return int(lib.lfs_inflight_bytes(self._handle))

    @property
    def failure(self) -> str:
        """``""`` while healthy, else why the ledger is read-only."""
        return str(ffi.string(lib.lfs_failure(self._handle)).decode("utf-8", "replace"))

    # -- reading

    def counts(self) -> Counts:
        """The durable state in numbers."""
        raw = ffi.new("lfs_counts *")
        lib.lfs_read_counts(self._handle, raw)
        return Counts(
            raw.entries,
            raw.transactions,
            raw.blocks,
            raw.accounts,
            raw.stream_bytes,
            raw.time_ns,
            raw.incarnation,
        )

    def entry(self, index: int) -> memoryview:
        """The exact bytes of an entry, a slice of the mapped segment. Raises IndexError when there is none (yet)."""
        place = ffi.new("const uint8_t **")
        length = ffi.new("uint32_t *")
        if index < 0 or lib.lfs_read_entry(self._handle, index, place, length):
            raise IndexError(index)
        return memoryview(ffi.buffer(place[0], length[0])).toreadonly()

    def leaf(self, index: int) -> bytes:
        """The leaf hash of an entry. Raises IndexError."""
        return self.hashes(0, index, 1)

    def bundle(self, number: int, width: int) -> memoryview:
        """The first ``width`` (1 to 256) entries of a bundle with their length fields. Raises IndexError."""
        place = ffi.new("const uint8_t **")
        length = ffi.new("size_t *")
        if number < 0 or lib.lfs_read_bundle(self._handle, number, width, place, length):
            raise IndexError(number)
        return memoryview(ffi.buffer(place[0], length[0])).toreadonly()

    def level_size(self, level: int) -> int:
        """How many hashes a tile level has."""
        return self.counts().entries >> (8 * level)

    def hashes(self, level: int, first: int, count: int) -> bytes:
        """Hashes of a tile level, 32 bytes each. Raises IndexError when not all of them exist."""
        out = bytearray(32 * count)
        if level < 0 or first < 0 or lib.lfs_read_hashes(self._handle, level, first, count, ffi.from_buffer(out)):
            raise IndexError(first)
        return bytes(out)

    @staticmethod
    def _found(index: int) -> int:
        if index < 0:
            raise IndexError
        return index

    def transaction(self, number: int) -> int:
        """Entry index of a transaction (from 1). Raises IndexError."""
        return self._found(lib.lfs_read_transaction(self._handle, max(number, 0)))

    def block(self, height: int) -> int:
        """Entry index of a seal (from 1). Raises IndexError."""
        return self._found(lib.lfs_read_block(self._handle, max(height, 0)))

    def block_of(self, index: int) -> int:
        """Height of the seal that commits an entry (a seal commits itself). Raises IndexError."""
        return self._found(lib.lfs_read_block_of(self._handle, index) if index >= 0 else -1)

    def ordinal(self, name: bytes) -> int:
        """Dense number of an account, in order of opening; -1 if unknown."""
        return int(lib.lfs_read_ordinal(self._handle, name, len(name)))

    def account(self, ordinal: int) -> Account:
        """An account as of its newest durable entry. Raises IndexError."""
        raw = ffi.new("lfs_account_view *")
        if ordinal < 0 or lib.lfs_read_account(self._handle, ordinal, raw):
            raise IndexError(ordinal)
        return account_of(ordinal, raw)

    def names(self, first: int, count: int) -> list[str]:
        """Account names by ordinal."""
        last = min(first + count, self.counts().accounts)
        return [self.account(ordinal).name for ordinal in range(first, last)]

    def history(self, ordinal: int, *, stop: int = -1) -> array[int]:
        """Indexes of the account's chain above ``stop``, ascending. Walks the chain back: time grows with the number returned."""
        found = array("Q")
        behind, room = 0, 4096
        while True:
            piece = ffi.new("uint64_t[]", room)
            count = lib.lfs_read_history(self._handle, ordinal, stop, behind, piece, room)
            found.frombytes(ffi.buffer(piece, 8 * count))
            if count < room:
                break
            behind, room = found[-1], 65536
        found.reverse()
        return found

    # -- indexes (docs/FORMAT.md, section 16): all of these see what was committed last; DamageError when a file of
    # indexes/ is not what was written (then the next start makes it anew).

    def postings(
        self, ordinal: int, first: int, count: int, *, by: By = By.RANK, size: int | None = None
    ) -> list[Posting]:
        """Up to ``count`` entries of an account, oldest first.

        ``first``: the rank (from 0) of the first one; ``By.INDEX``: the first one at or behind this entry of the log;
        ``By.LOG``: the one whose line in ``tx.log`` holds the byte at this offset. Only the first ``size`` entries of the
        log count. O(log n) and then one step each.
        """
        room = ffi.new("lfs_posting_view[]", count)
        bound = limits.ENTRIES_MAX + 2 if size is None else size
        found = lib.lfs_read_postings(self._handle, ordinal, by, first, bound, room, count)
        self._intact(found)
        return [Posting(raw.rank, raw.index, raw.log_end, raw.len, raw.states) for raw in room[0:found]]

    def log(self, ordinal: int, offset: int, size: int) -> bytes:
        """A piece of ``tx.log``: the account's entries and a newline behind each."""
        room = bytearray(size)
        found = lib.lfs_read_log(self._handle, ordinal, offset, ffi.from_buffer(room), size)
        self._intact(found)
        del room[found:]
        return bytes(room)

    def statement(self, ordinal: int, rank: int, until: int) -> tuple[bytes, int]:
        """Rows of ``statement.csv`` of the account's entries ``rank`` to ``until`` (exclusive), and the rank at which to go on:
        a piece has at most STATEMENT_PIECE_BYTES."""
        room = ffi.new("uint8_t[]", STATEMENT_PIECE_BYTES)
        following = ffi.new("uint64_t *")
        found = lib.lfs_read_statement(self._handle, ordinal, rank, until, room, len(room), following)
        self._intact(found)
        return bytes(ffi.buffer(room, found)), int(following[0])

    def account_at(self, ordinal: int, size: int) -> Account | None:
        """The account as the first ``size`` entries of the log left it, in every member; None when it was not opened yet.

        O(log n), whatever the account and the time. None too for a ``size`` above ``counts().entries``.
        """
        raw = ffi.new("lfs_account_view *")
        found = lib.lfs_read_account_at(self._handle, ordinal, size, raw) if ordinal >= 0 and size >= 0 else 0
        self._intact(found)
        return account_of(ordinal, raw) if found else None

    def accounts_at(self, size: int, first: int, count: int) -> list[Account]:
        """``account_at`` for the ordinals from ``first`` on, at most ``count`` of them; fewer when fewer were opened then.

        One pass over the index for all of them: for trial balances. Ask for some thousand at a time.
        """
        room, found = self.views_at(size, first, count)
        return [account_of(first + i, room[i]) for i in range(found)]

    def views_at(self, size: int, first: int, count: int) -> tuple[Any, int]:
        """The same as ``lfs_account_view`` records, for ``core.trial``; and how many there were."""
        room = ffi.new("lfs_account_view[]", count)
        found = lib.lfs_read_accounts_at(self._handle, size, first, count, room)
        self._intact(found)
        return room, int(found)

    def with_reference(self, reference: str, first: int = 0, count: int = 1024) -> array[int]:
        """Indexes of entries with this reference, from entry ``first`` on, at most ``count``, ascending."""
        return self._with_word(b"r", reference, first, count)

    def with_tag(self, tag: str, first: int = 0, count: int = 1024) -> array[int]:
        """Indexes of the ``account/1`` entries with this tag, from entry ``first`` on, at most ``count``, ascending."""
        return self._with_word(b"t", tag, first, count)

    def _with_word(self, kind: bytes, word: str, first: int, count: int) -> array[int]:
        text = json.dumps(word, ensure_ascii=False)[
            1:-1
        ].encode()  # as it stands in an entry; control characters never do
        found = array("Q", bytes(8 * count))
        place = ffi.from_buffer("uint64_t[]", found)
        n = lib.lfs_read_word(self._handle, kind, text, len(text), first, place, count)
        self._intact(n)
        return found[:n]

    def _intact(self, found: int) -> None:
        if found < 0:
            raise DamageError(
                "indexes/ is not what was written", hint="restart the daemon: it makes indexes/ anew from the journal"
            )

    def indexes(self) -> IndexCounts:
        """Size and state of the indexes."""
        raw = ffi.new("lfs_index_counts *")
        lib.lfs_read_indexes(self._handle, raw)
        return index_counts(raw)

    def system_entries(self) -> list[int]:
        """Indexes of the entries of kind key/1 and restore/1, ascending."""
        found: list[int] = []
        piece = ffi.new("uint32_t[]", 1024)
        while count := lib.lfs_read_system(self._handle, len(found), piece, 1024):
            found.extend(piece[0:count])
        return found

    # -- events (docs/FORMAT.md, section 17)

    def offset(self, index: int) -> int:
        """Stream offset of an entry; of the one that comes next: the length of the stream. Raises IndexError."""
        return self._found(lib.lfs_read_offset(self._handle, index) if index >= 0 else -1)

    def first_at(self, time: str) -> int:
        """Index of the first entry not before a time, written as entries have it; how many there are if there is none."""
        assert len(time) == TIME_BYTES
        return self._found(lib.lfs_read_first_at(self._handle, time.encode()))

    @staticmethod
    def event_width(origin: bytes) -> int:
        """What the line of an event has besides its entry, in bytes."""
        return int(lib.lfs_event_width(len(origin)))

    def event_at(self, first: int, end: int, origin: bytes, offset: int) -> tuple[int, int]:
        """The event that covers a byte of the lines of first..end-1, and how many of its bytes stand before that one."""
        skip = ffi.new("uint64_t *")
        index = lib.lfs_event_at(self._handle, first, end, lib.lfs_event_width(len(origin)), offset, skip)
        return int(index), int(skip[0])

    def events(self, first: int, end: int, skip: int, origin: bytes, size: int, *, whole: bool = False) -> memoryview:
        """At most ``size`` bytes of the lines of events first..end-1 without the first ``skip`` bytes. ``whole``: less than
        ``size``, and behind the first line only lines that fit to their end (a line that is larger than ``size`` is begun).
        Raises StoreError for an entry that cannot be read."""
        out = bytearray(size)
        place = ffi.from_buffer(out)
        used = lib.lfs_read_events(self._handle, first, end, skip, whole, origin, len(origin), place, size)
        if used < 0:
            raise StoreError(f"one of the entries from {first} on cannot be read")
        return memoryview(out)[:used]

    def attend(self, who: Attending, on: bool) -> None:
        """Whether ``wakeup_fd`` and ``deliver`` are to stand before every answer on the socket for the sake of ``who``.

        They do for commits that touch a watched account anyhow. When it is switched on the descriptor becomes readable too:
        something may have been committed just before, of which nobody was told.
        """
        lib.lfs_attend(self._handle, who, on)

    def watch(self, ordinal: int, on: bool) -> None:
        """Report the account in ``touched`` from now on, or no longer."""
        lib.lfs_watch(self._handle, ordinal, on)

    def touched(self) -> list[int]:
        """Watched accounts that durable entries touched since the last call. Until ``deliver`` no commit is answered without asking."""
        found: list[int] = []
        piece = ffi.new("uint32_t[]", 1024)
        while count := lib.lfs_touched(self._handle, piece, 1024):
            found.extend(piece[0:count])
        return found

    # -- saving

    def wait_entries(self, entries: int, seconds: float) -> bool:
        """Wait until so many entries are committed; False when time is over before, or ``stop_waiting`` was called.

        One thread at a time.
        """
        return bool(lib.lfs_save_wait(self._handle, entries, round(seconds * 1000)))

    def stop_waiting(self) -> None:
        """End the wait for entries, now and for good."""
        lib.lfs_save_wait_end(self._handle)

    def save(self) -> SavedState:
        """Mark, tables and the account pages changed since the last ``saved(True)``; hashes/ and runs/ are synced up to the mark.

        Call ``saved`` afterwards. The commit threads pause while the small tables are copied. Raises StoreError when the ledger is
        read-only or a sync fails.
        """
        mark = bytearray(MARK_BYTES)
        if lib.lfs_save_begin(self._handle, ffi.from_buffer(mark)):
            lib.lfs_save_end(self._handle, 0)
            raise StoreError(self._error())
        tables = {}
        for name in TABLES:
            place = ffi.new("const uint8_t **")
            length = lib.lfs_save_table(self._handle, name.encode(), place)
            tables[name] = bytes(ffi.buffer(place[0], length)) if length else b""
        pages = ffi.new("uint32_t[]", lib.lfs_save_pages(self._handle, ffi.NULL, 0))
        lib.lfs_save_pages(self._handle, pages, len(pages))
        return SavedState(bytes(mark), tables, ChangedPages(self.read_page, tuple(pages)))

    def read_page(self, number: int, room: bytearray) -> None:
        """Put an account page into ``room``, as ``save`` would give it now."""
        lib.lfs_read_page(self._handle, number, ffi.from_buffer(room), len(room))

    def saved(self, ok: bool) -> None:
        """Tell whether the last ``save`` reached the disk; what did not is part of the next."""
        lib.lfs_save_end(self._handle, ok)
