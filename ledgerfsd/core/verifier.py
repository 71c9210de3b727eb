"""Verifying a journal with the C core (``csrc/verify/lfs_verify.h``), typed: everything worked out again, in memory, by threads.

Nothing of the store is written, and it need not be locked when ``limit`` says how much of it is durable. Use ``Verifier``
once: make it, ``wait`` until it is done, then ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledgerfsd import limits
from ledgerfsd.core import _core
from ledgerfsd.core.values import account_of
from ledgerfsd.errors import StoreError
from ledgerfsd.types import Account, Counts

ffi: Any = _core.ffi
lib: Any = _core.lib

WAIT_MILLISECONDS: Final = 100
NO_LIMIT: Final = 2**64 - 1
# The files that are compared, in the order of the core's numbers for them, with the bytes of an item.
FILES: Final = (
    "runs/offsets",
    "runs/transactions",
    "runs/blocks",
    *(f"hashes/{level}" for level in range(4)),
)


@dataclass(frozen=True)
class Applied:
    """How much of ``hashes/`` and ``runs/`` is to be there, and is compared. All zeros: nothing."""

    entries: int = 0
    transactions: int = 0
    blocks: int = 0
    indexes: bytes = (
        b""  # the list of the files of ``indexes/`` that was saved with these; empty: they are not compared
    )


@dataclass(frozen=True)
class Damage:
    """The first bad entry, by position, in which file, and why."""

    entry: int
    file: str
    what: str


class Verifier:
    """One run over one journal."""

    def __init__(
        self,
        store: Path,
        *,
        applied: Applied,
        limit: int | None = None,
        trusted: int = 0,
        roots: Sequence[int] = (),
        jobs: int | None = None,
    ) -> None:
        """Begin. Raises StoreError when the system does not give the address space that it takes.

        ``limit``: verify so many entries, all of which must count; None: as many as count.

        ``trusted``: the hashes of so many entries are taken on trust, from ``hashes/``; a seal must end there.
        ``roots``: sizes of which ``root`` will be asked. ``jobs``: threads besides the one that reads (None: one a processor).
        """
        self._store = os.fsencode(store)
        self._path = ffi.new("char[]", self._store)
        task = ffi.new("lfs_verify_task *")
        task.store, task.limit, task.trusted = self._path, NO_LIMIT if limit is None else limit, trusted
        task.mark_entries, task.mark_transactions, task.mark_blocks = (
            applied.entries,
            applied.transactions,
            applied.blocks,
        )
        listed = ffi.from_buffer(applied.indexes)
        task.indexes, task.indexes_len = listed, len(applied.indexes)
        task.jobs, task.accounts_max = jobs or len(os.sched_getaffinity(0)), limits.ACCOUNTS_MAX
        if wanted := lib.lfs_verify_room(task.accounts_max):
            raise StoreError(
                f"verifying takes {wanted >> 20:,} MiB of address space (most of it is never used), and the system gives less",
                hint="raise the limit of the process (ulimit -v), or vm.overcommit_ratio if vm.overcommit_memory is 2",
            )
        sizes = sorted(set(roots))
        self._handle = ffi.gc(lib.lfs_verify_begin(task, sizes, len(sizes)), lib.lfs_verify_free)

    def wait(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Wait for the end; ``progress(done_bytes, total_bytes)`` is called now and then.

        Raises StoreError when verifying itself cannot go on: a file cannot be read, ``trusted`` does not end with a seal.
        """
        done = ffi.new("lfs_progress *")
        while lib.lfs_verify_wait(self._handle, WAIT_MILLISECONDS, done):
            if progress is not None:
                progress(done.done_bytes, done.total_bytes)
        self._verdict = ffi.new("lfs_verdict *")
        lib.lfs_verify_verdict(self._handle, self._verdict)
        if failure := ffi.string(self._verdict.failure).decode("utf-8", "replace"):
            raise StoreError(f"{os.fsdecode(self._store)}: {failure}")

    @property
    def damage(self) -> Damage | None:
        """What is wrong with the journal; None when it is good."""
        return self._place() if self._verdict.damage else None

    @property
    def unfinished(self) -> Damage | None:
        """Where a batch behind the end is unfinished, if there is one: no damage, the next start zeroes it."""
        return self._place() if self._verdict.cut_bytes else None

    def _place(self) -> Damage:
        what = ffi.string(self._verdict.why).decode("utf-8", "replace")
        return Damage(self._verdict.entry, f"journal/{self._verdict.segment:020}.seg", what)

    @property
    def cut_bytes(self) -> int:
        """Bytes of an unfinished batch behind the end, which the next start zeroes."""
        return int(self._verdict.cut_bytes)

    def counts(self) -> Counts:
        """What counts, in numbers."""
        raw = ffi.new("lfs_counts *")
        lib.lfs_verify_counts(self._handle, raw)
        return Counts(
            raw.entries, raw.transactions, raw.blocks, raw.accounts, raw.stream_bytes, raw.time_ns, raw.incarnation
        )

    def root(self, size: int) -> bytes | None:
        """The root of the first ``size`` entries, of the whole or a size that was asked for; None: there are fewer, or they are trusted."""
        out = ffi.new("uint8_t[32]")
        return None if lib.lfs_verify_root(self._handle, size, out) else bytes(ffi.buffer(out))

    def system_entries(self) -> list[int]:
        """Indexes of the entries of kind key/1, anchor/1 and restore/1, ascending."""
        index = ffi.new("int64_t *")
        found = [index[0] for i in range(lib.lfs_verify_system(self._handle, 0, index)) if self._system(i, index)]
        return sorted(found)

    def _system(self, number: int, index: Any) -> bool:
        lib.lfs_verify_system(self._handle, number, index)
        return bool(index[0] >= 0)

    def entry(self, index: int) -> bytes:
        """The exact bytes of an entry. Raises IndexError."""
        place, length = ffi.new("const uint8_t **"), ffi.new("uint32_t *")
        if index < 0 or lib.lfs_verify_read(self._handle, index, place, length):
            raise IndexError(index)
        return bytes(ffi.buffer(place[0], length[0]))

    def differences(self) -> list[tuple[str, int, bool]]:
        """Of each file of ``runs/`` and ``hashes/`` that is wrong: name, first wrong item, and whether the file ends before it."""
        found = []
        ended = ffi.new("int *")
        for number, name in enumerate(FILES):
            item = lib.lfs_verify_differs(self._handle, number, ended)
            if item >= 0:
                found.append((name, int(item), bool(ended[0])))
        return found

    def index_fault(self) -> Damage | None:
        """What is wrong first in ``indexes/``; entry -1 when it concerns none. Slow when something is."""
        raw = ffi.new("lfs_index_fault *")
        if not lib.lfs_verify_indexes(self._handle, raw):
            return None
        file, why = (ffi.string(text).decode("utf-8", "replace") for text in (raw.file, raw.why))
        return Damage(int(raw.entry), file, why)

    def account(self, ordinal: int) -> Account:
        """An account. Raises IndexError."""
        raw = ffi.new("lfs_account_view *")
        if ordinal < 0 or lib.lfs_verify_account(self._handle, ordinal, raw):
            raise IndexError(ordinal)
        return account_of(ordinal, raw)

    def page_is(self, page: int, content: bytes | memoryview) -> bool:
        """Whether a page of accounts of index.lmdb holds what it should, byte for byte."""
        return bool(lib.lfs_verify_page(self._handle, page, ffi.from_buffer(content), len(content)))

    def table_is(self, name: str, content: bytes) -> bool:
        """Whether a table of index.lmdb (holds, reversed, policy) holds what it should."""
        return bool(lib.lfs_verify_table(self._handle, name.encode(), content, len(content)))


def form_of(entry: bytes) -> str:
    """What is wrong with the form of an entry, whatever came before it; "" when nothing is."""
    why = ffi.new("char[256]")
    return "" if lib.lfs_verify_form(entry, len(entry), why) else str(ffi.string(why).decode("utf-8", "replace"))


def read_quickly(entry: bytes) -> int:
    """1 when the core reads the entry the quick way and both ways agree; 0: it is read the other way only; -1: they differ."""
    return int(lib.lfs_verify_quick(entry, len(entry)))


def record_hash(key: bytes, kind: int, record: Sequence[int]) -> bytes:
    """What a record of an index (key, entry, length, states) adds to the sum of its kind: 16 bytes, under a key of 16."""
    out = ffi.new("uint8_t[16]")
    lib.lfs_verify_record_hash(key, kind, ffi.new("lfs_record *", tuple(record)), out)
    return bytes(ffi.buffer(out))
