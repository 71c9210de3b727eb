"""The front: requests of the mount that the core answers by itself (``csrc/front/front.c``, ADR 36), behind a typed face.

Start at ``Front``. It stands between the kernel and pyfuse3: what it does not answer it passes on, and a file of its own with which
something unusual happens is handed over first. ``service.inbox_front`` is the other side.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from ledgerfsd.core import _core
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.values import Completion

ffi: Any = _core.ffi
lib: Any = _core.lib

CODES_MAX: Final = 256
TOLD_AT_ONCE: Final = 256
_VERDICT: Final = struct.Struct("=QQQqQQIIIhBBQQqQI256s4x")  # lfs_front_answer
_SENT: Final = struct.Struct("=QQQ")  # lfs_front_sent


class State(enum.IntEnum):
    """Of a file that is handed over."""

    NEW = 0  # no byte was written
    WAITING = 1  # written; the verdict comes with ``Front.take``
    JUDGED = 2


class Verdict(NamedTuple):
    """A document that the engine has finished."""

    number: int  # of its inode
    created_ns: int
    waited_ns: int  # since it was written
    entry: int  # its index; this and the two that follow only if it is plain
    tx: int
    block: int
    uid: int
    gid: int
    size: int
    code: int  # the cause of a refusal, or 0
    plain: bool  # one transaction, committed; of others ``Front.completion`` tells
    name_len: int
    ticket: int
    recorded_ns: int  # when the core wrote its receipt, 0: it did not; where it stands in the file of that day
    receipt_at: int
    receipt_number: int
    receipt_len: int
    room: bytes

    @property
    def name(self) -> bytes:
        """Of the file."""
        return self.room[: self.name_len]


class Handed(NamedTuple):
    """An open file that is handed over."""

    number: int  # of its inode
    handle: int
    created_ns: int
    uid: int
    gid: int
    size: int  # bytes written
    code: int  # the verdict, if it is judged
    state: State
    append: bool
    name: bytes


class Loan(NamedTuple):
    """An open file of lines that the core may write to (``Front.lend``)."""

    number: int  # of its inode
    handle: int
    time_ns: int  # what stat says
    uid: int
    gid: int
    position: int  # where the next WRITE begins
    credit: int  # bytes of lines that may be sent
    line: int  # number of the next one


class Lent(NamedTuple):
    """The same as it comes back, WRITEs further."""

    position: int
    line: int
    pending: bytes
    refused: bool  # an intent was, of a submission that has finished
    sent: list[
        tuple[int, int, int]
    ]  # submissions, as one or two: ticket, when the last was asked for (monotonic, ns), bytes


class Addresses(NamedTuple):
    """What is to be called instead of libfuse's fuse_session_fd and fuse_session_receive_buf, and with what."""

    descriptor: int
    receive: int
    context: int


class Numbers(NamedTuple):
    """How the mount numbers nodes: four directories, and what the nodes of eight kinds begin with."""

    accounts: int
    transactions: int
    account: int
    balance: int
    transaction: int
    past_directory: int  # itself snapshots/
    past_account: int
    past_balance: int
    receipts: int
    proofs: int
    receipt: int
    proof: int


class ReceiptFile:
    """The file of the day in ``receipts/``, to which the core and Python append records (``receipts.c``). For several threads."""

    def __init__(self, directory: Path) -> None:
        self.handle: Final = ffi.gc(lib.lfs_receipts_new(os.fsencode(directory)), lib.lfs_receipts_free)

    def append(self, date: str, records: bytes) -> int:
        """Append whole lines to ``<date>.ndjson``; returns where they begin. Raises OSError: then nothing of them is there."""
        at = int(lib.lfs_receipts_append(self.handle, date.encode(), ffi.from_buffer(records), len(records)))
        if at < 0:
            raise OSError(-at, os.strerror(-at))
        return at

    def close(self) -> None:
        """Until the next record."""
        lib.lfs_receipts_close(self.handle)


class Front:
    """The front of a mount; everything but the counts is for one thread."""

    def __init__(self, engine: Engine, *, inbox: int, kind: int, errnos: Iterable[tuple[int, int]]) -> None:
        """``inbox``: inode number of inbox/; ``kind``: what those of its files begin with; ``errnos``: by result code."""
        assert ffi.sizeof("lfs_front_answer") == _VERDICT.size
        table = ffi.new("int[]", CODES_MAX)
        for code, number in errnos:
            table[code] = number
        self._owner = engine  # outlives what is made of it here
        self._engine = engine.handle
        context = lib.lfs_front_new(self._engine, inbox, kind, table)
        self.addresses = Addresses(
            _address(ffi.addressof(lib, "lfs_front_descriptor")),
            _address(ffi.addressof(lib, "lfs_front_receive")),
            _address(context),
        )
        self._counts = ffi.new("uint32_t[2]")
        self._answered = ffi.new("uint64_t *")
        self._told = bytearray(TOLD_AT_ONCE * _VERDICT.size)
        self._told_at = ffi.from_buffer("lfs_front_answer *", self._told)

    def start(self) -> bool:
        """Begin to read requests. False: pyfuse3 does not go by ``addresses``, and everything is as if there were no front.

        Raises OSError when it does, and requests cannot be read.
        """
        failed = lib.lfs_front_start(self._engine)
        if failed < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return not failed

    def read(self, numbers: Numbers, *, uid: int, gid: int, seconds: int) -> None:
        """Answer what is only read as well (``csrc/front/front_read.c``); ``seconds``: for which names and attributes are valid."""
        lib.lfs_front_tree_set(self._engine, ffi.new("lfs_front_tree *", (*numbers, uid, gid, seconds)))

    def checkpoint(self, root: Path, keys: tuple[int, int, int], size: int, note: bytes) -> None:
        """A signed checkpoint is in force from now on, for a second (``csrc/front/front_texts.c``).

        ``keys``: inode, mtime and size of ``root``, the file of the public keys by which it is.
        """
        lib.lfs_front_checkpoint(self._engine, os.fsencode(root), keys, size, note, len(note))

    def signing(self, on: bool) -> None:
        """A checkpoint is on its way: who asks for a proof waits for it in the core. False: it has come, or will not."""
        lib.lfs_front_signing(self._engine, on)

    def receipt_drop(self, number: int) -> None:
        """What the core has recorded for a name is not its receipt any more, or is no longer listed."""
        lib.lfs_front_receipt_drop(self._engine, number)

    def stop(self) -> None:
        """Read nothing more. What waits for its verdict still gets it."""
        lib.lfs_front_stop(self._engine)

    def receipts(self, file: ReceiptFile) -> None:
        """Let the core write receipts too. Before ``start``."""
        lib.lfs_front_receipts(self._engine, file.handle)
        self._owner.receipts = file  # a thread of the engine uses it until its end

    def told(self) -> list[Verdict]:
        """What the core has recorded since the last call, oldest first: each one transaction, committed, and perhaps answered."""
        found: list[Verdict] = []
        while n := lib.lfs_front_told(self._engine, self._told_at, TOLD_AT_ONCE):
            found.extend(map(Verdict._make, _VERDICT.iter_unpack(memoryview(self._told)[: n * _VERDICT.size])))
            if n < TOLD_AT_ONCE:
                break
        return found

    def take(self) -> list[Verdict]:
        """What else had finished when ``Engine.completions`` was called last."""
        if not self._owner.front_held:
            return []
        room = bytearray(self._owner.front_held * _VERDICT.size)
        n = lib.lfs_front_take(self._engine, ffi.from_buffer("lfs_front_answer *", room))
        return list(map(Verdict._make, _VERDICT.iter_unpack(memoryview(room)[: n * _VERDICT.size])))

    @staticmethod
    def completion(verdict: Verdict) -> Completion:
        """All of a submission; until ``deliver``."""
        return Completion(ffi.cast("lfs_ticket *", verdict.ticket), owned=False)

    def deliver(self, now_ns: int) -> None:
        """Answer the writers of what had finished then. ``now_ns``: mtime from now on of files that the core did not record."""
        if self._owner.front_held:
            lib.lfs_front_deliver(self._engine, now_ns)
            self._owner.front_held = 0

    def adopt(self, learn: Callable[[], None]) -> Handed | None:
        """The next file that is handed over; before it, ``learn`` is to take what ``told`` gives: that may be about this file."""
        raw = ffi.new("lfs_front_open *")
        while (found := lib.lfs_front_adopt(self._engine, raw)) < 0:
            learn()
        if not found:
            return None
        return Handed(
            raw.number,
            raw.handle,
            raw.created_ns,
            raw.uid,
            raw.gid,
            raw.size,
            raw.code,
            State(raw.state),
            bool(raw.append),
            ffi.string(raw.name),
        )

    def lend(self, loan: Loan, pending: bytes, source: bytes, *, least: int) -> bool:
        """Let the core take WRITEs of at least ``least`` bytes, from ``loan.position`` on, while one follows the other.

        ``pending``: what is there of the next line. False: it does not. Until ``recall`` nothing else may be done with the file
        (``csrc/front/front_lines.c``).
        """
        begun, name = ffi.from_buffer("const uint8_t[]", pending), ffi.new("char[]", source[:255])
        made = ffi.new("lfs_front_loan *", (*loan, least, begun, len(pending), name))
        return bool(lib.lfs_front_lend(self._engine, made))

    def recall(self, handle: int) -> Lent | None:
        """Have an open file back. Its submissions come to ``Engine.completions`` from now on. None: it was not lent."""
        raw = lib.lfs_front_recall(self._engine, handle)
        if not raw:
            return None
        try:
            sent = list(_SENT.iter_unpack(ffi.buffer(raw.sent, raw.n_sent * _SENT.size))) if raw.n_sent else []
            return Lent(raw.position, raw.line, bytes(ffi.buffer(raw.pending, raw.n_pending)), bool(raw.refused), sent)
        finally:
            lib.lfs_front_lent_free(raw)

    def name(self, name: bytes, *, there: bool) -> None:
        """A name came to inbox/ or went, not by the front."""
        lib.lfs_front_name_set(self._engine, name, len(name), there)

    def limit(self, files: int) -> None:
        """How many files it may have open; beyond that new ones are not its own."""
        lib.lfs_front_limit(self._engine, max(files, 0))

    @property
    def open(self) -> int:
        """Files that it has open."""
        return self._numbers()[0]

    @property
    def waiting(self) -> int:
        """Writers that wait for their verdict."""
        return self._numbers()[1]

    @property
    def answered(self) -> int:
        """Requests that it has answered since the start."""
        return self._numbers()[2]

    def _numbers(self) -> tuple[int, int, int]:
        lib.lfs_front_counts(self._engine, self._counts, self._counts + 1, self._answered)
        return self._counts[0], self._counts[1], self._answered[0]


def _address(place: Any) -> int:
    return int(ffi.cast("uintptr_t", place))
