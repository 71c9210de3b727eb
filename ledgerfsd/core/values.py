"""What the engine gives and takes, as Python values: submissions that are finished, accounts, proofs of the state, what is saved.

They are made of the core's structures (``csrc/lfs_core.h``). All are copies but ``Completion``.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ledgerfsd.core import _core
from ledgerfsd.types import Account, Result, Run

ffi: Any = _core.ffi
lib: Any = _core.lib

MARK_BYTES = 80
# In the order of loading. The policy comes first: accounts and holds may use currencies that it registers.
TABLES = ("policy", "holds", "reversed", "indexes")
RUNS_FEW = 15
STATE_NODE_BYTES = 104  # hash and three sums of 24 bytes
CLASSES = (
    "customer_liability",
    "safeguarding_asset",
    "own_funds",
    "equity",
    "income",
    "expense",
    "suspense",
    "clearing",
)
SIDES = ("debit", "credit")
STATUSES = ("open", "frozen", "closed")
FIELDS = tuple(ffi.string(lib.lfs_field_name(number)).decode() for number in range(24))


class SavedState(NamedTuple):
    """What index.lmdb keeps: made by ``Engine.save``, given back to ``Engine(saved=…)``."""

    mark: bytes  # opaque, MARK_BYTES long
    tables: dict[str, bytes]  # TABLES: holds, reversed, policy; and the list of the files in indexes/
    pages: Mapping[int, bytes]  # account pages; from ``save`` only those that changed since the save before


class ChangedPages(Mapping[int, bytes]):
    """Account pages that are read when they are asked for, as they are then: a million accounts have 240 MB of them.

    They may be newer than the mark; replay leaves alone what an account already contains. The engine must be open.
    """

    def __init__(self, read: Callable[[int, bytearray], None], numbers: tuple[int, ...]) -> None:
        """``read``: ``Engine.read_page``. ``numbers``: rising."""
        self._read = read
        self._numbers = numbers
        self._room = bytearray(lib.lfs_page_bytes())  # once: asking for it anew cost a third of a save

    def __getitem__(self, number: int) -> bytes:
        self._read(number, self._room)
        return bytes(self._room)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


@dataclass(frozen=True)
class Recovery:
    """What opening found."""

    entries: int
    replayed: int  # entries read from the journal (the rest came from the projections)
    cut_bytes: int  # bytes of an unfinished batch that were zeroed
    seconds: float


class Completion:
    """A finished submission: its ticket and its results, in the order of its lines; read from the core's memory, which lives as long."""

    def __init__(self, handle: Any, *, owned: bool = True) -> None:
        self._handle = ffi.gc(handle, lib.lfs_ticket_free) if owned else handle
        self._count: int = lib.lfs_ticket_count(handle)
        self.ticket: int = lib.lfs_ticket_number(handle)
        self.lines: int = lib.lfs_ticket_lines(handle)  # lines consumed, empty ones included

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Result:
        if not 0 <= position < self._count:
            raise IndexError(position)
        name = ffi.new("const char **")
        raw = lib.lfs_ticket_result(self._handle, position, name)
        field = FIELDS[raw.field] if 30 <= raw.code <= 52 else ""
        if raw.name:
            field = ffi.string(name[0]).decode("utf-8", "replace")
        return Result(raw.code, bool(raw.duplicate), raw.line, raw.offset, field, raw.index, raw.tx, raw.block)

    def runs(self) -> Iterator[Run]:
        """The results with neighbours of equal outcome taken together."""
        room, count = 0, RUNS_FEW
        while (
            room <= count
        ):  # they are counted as they are found: looking twice at each result is for those that have many
            room = count + 1
            starts = ffi.new("uint32_t[]", room)
            count = lib.lfs_ticket_runs(self._handle, starts, room)
        starts[count] = self._count
        for i in range(count):
            yield Run(self[starts[i]], starts[i + 1] - starts[i])

    @property
    def refused(self) -> Result | None:
        """The first result whose code is not 0."""
        position = lib.lfs_ticket_refused(self._handle)
        return None if position < 0 else self[position]

    @property
    def committed(self) -> int:
        """How many were committed, duplicates of commits included."""
        return int(lib.lfs_ticket_committed(self._handle))


class By(enum.IntEnum):
    """What ``Engine.postings`` counts from."""

    RANK = 0
    LOG = 1
    INDEX = 2


class Attending(enum.IntFlag):
    """Who has to be told of every commit before it is answered (``Engine.attend``)."""

    KERNEL = 1  # it holds attributes that every commit changes
    EVENTS = 2  # somebody waits for an event
    RECEIPTS = 4  # the kernel holds attributes of receipts/; of commits through files only
    PROOFS = 8  # the next transactions are to be signed at once


class Posting(NamedTuple):
    """An entry of an account."""

    rank: int  # from 0, in the account's chain
    entry: int  # its index
    log_end: int  # where its line ends in tx.log, newline included
    length: int  # of the entry in bytes
    states: int  # 1: it states debits and credits; 2: what is held; 3: both; 0: the account's status


class IndexCounts(NamedTuple):
    """The indexes in numbers."""

    files: int
    bytes: int
    postings: int  # in files
    posting_bytes: int  # of those files
    ids: int  # in files
    id_bytes: int  # of those files
    id_memory: int  # bytes: filters of those files, tables of the newest, what is in no file yet
    unindexed: int  # postings in memory, of which no file has been made yet
    covered: int  # entries whose postings are in files
    spent_ns: int  # processor time of the thread that makes the files
    trouble: str  # "" or what is wrong


class Sums(NamedTuple):
    """Of a node of the state tree: minor units, never negative."""

    debits: int
    credits: int
    liability: int


class StateNode(NamedTuple):
    """A node of the state tree (docs/FORMAT.md, section 12)."""

    hash: bytes
    sums: Sums


class StateProof(NamedTuple):
    """What proves an account, as of the seal that carries the state root."""

    ticket: int
    account: Account
    position: int
    path: list[StateNode]
    trees: bytes  # what the state root is the hash of
    block: int


def _number(halves: Any) -> int:
    return int(halves[0]) | int(halves[1]) << 64


def account_of(ordinal: int, raw: Any) -> Account:
    """An account from the core's view of it (``lfs_account_view``)."""
    return Account(
        ordinal=ordinal,
        name=ffi.string(raw.name, raw.name_len).decode(),
        currency=ffi.string(raw.currency).decode(),
        decimals=raw.decimals,
        account_class=CLASSES[raw.account_class],
        normal=SIDES[raw.normal],
        status=STATUSES[raw.status],
        debits=_number(raw.debits),
        credits=_number(raw.credits),
        held_debits=_number(raw.held_debits),
        held_credits=_number(raw.held_credits),
        overdraft=_number(raw.overdraft) if raw.limit else None,
        open_index=raw.open_index,
        last_index=raw.last_index,
        last_tx=raw.last_tx,
        entries=raw.entries,
        log_bytes=raw.log_bytes,
    )


def state_proof(raw: Any) -> StateProof:
    """A proof from the core's (``lfs_proof``)."""
    path = bytes(ffi.buffer(raw.path, raw.siblings * STATE_NODE_BYTES))
    nodes = [_node(path[at : at + STATE_NODE_BYTES]) for at in range(0, len(path), STATE_NODE_BYTES)]
    trees = bytes(ffi.buffer(raw.list, raw.list_len))
    return StateProof(raw.number, account_of(raw.ordinal, raw.account), raw.position, nodes, trees, raw.block)


def _node(data: bytes) -> StateNode:
    return StateNode(data[:32], Sums(*(int.from_bytes(data[at : at + 24], "big") for at in (32, 56, 80))))


def index_counts(raw: Any) -> IndexCounts:
    """The indexes in numbers, from the core's (``lfs_index_counts``)."""
    trouble = "indexes/ is not what was written" if raw.damaged else ""
    if raw.trouble:
        trouble = f"indexes/ cannot be written: {os.strerror(raw.trouble)}"
    return IndexCounts(
        raw.files,
        raw.bytes,
        raw.postings,
        raw.posting_bytes,
        raw.ids,
        raw.id_bytes,
        raw.id_memory,
        raw.unindexed,
        raw.covered,
        raw.spent_ns,
        trouble,
    )
