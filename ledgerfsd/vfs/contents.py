"""Size, time and bytes of every file that is only read.

Start at ``Contents.stat``. Files that change in place either keep their size (balance, account) or are live: made for
each open, and their pages are not cached (receipts, status, checkpoint, proofs).
"""

from __future__ import annotations

import errno
import os
from importlib import resources
from typing import TYPE_CHECKING, Final, Protocol

from ledgerfsd.money import TABLE_BYTES
from ledgerfsd.service import status as texts
from ledgerfsd.service.query import HASH_BYTES, Text
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Stat
from ledgerfsd.vfs.nodes import ENTRIES, Fixed, Kind

if TYPE_CHECKING:
    from ledgerfsd.service.ledger import Ledger
    from ledgerfsd.service.proofs import Proofs
    from ledgerfsd.service.query import Query
    from ledgerfsd.service.receipts import Answer, Receipts
    from ledgerfsd.service.status import Status
    from ledgerfsd.vfs.branch import Branches

GROWING: Final = frozenset(
    (
        Fixed.ACCOUNTS,
        Fixed.TRANSACTIONS,
        Fixed.PROOFS,
        Fixed.CONSISTENCY,
        Fixed.BLOCKS,
        Fixed.LOG,
        Fixed.TILES,
    )
)
LIVE: Final = frozenset((Fixed.HEALTH, Fixed.STATUS, Fixed.METRICS, Fixed.CHECKPOINT, Fixed.TRUSTED_ROOT))
PROOFS: Final = (Kind.PROOF, Kind.CONSISTENCY, Kind.ACCOUNT_PROOF)
RECEIPTS: Final = (Kind.RECEIPT, Kind.DRY_RECEIPT)


class Readable(Protocol):
    """The content of a file at one moment."""

    @property
    def size(self) -> int: ...

    @property
    def mtime_ns(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes: ...


class Contents:
    """The read-only files of one mount."""

    def __init__(
        self, ledger: Ledger, query: Query, receipts: Receipts, status: Status, proofs: Proofs, branches: Branches
    ) -> None:
        self._ledger = ledger
        self._engine = ledger.engine
        self._query = query
        self._receipts = receipts
        self._status = status
        self._proofs = proofs
        self._branches = branches
        self._born_ns = query.mtime_of(0)
        self._fixed = {
            Fixed.README: status.readme(),
            Fixed.ERRORS: texts.errors_file(),
            Fixed.CURRENCIES: TABLE_BYTES,
            Fixed.LIMITS: texts.limits_file(),
            Fixed.VERSION: texts.version_file(),
            Fixed.VERIFY_PAGE: resources.files("ledgerfsd").joinpath("data/verify.html").read_bytes(),
        }

    async def stat(self, inode: int) -> Stat:
        """Size and mtime. No checkpoint after the state was read, so a commit announced later is newer than this.

        Raises OSError ENOENT for a receipt that has gone.
        """
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind in (Kind.BALANCE, Kind.ACCOUNT_FILE):
            text = self._account_file(kind, number)
            return Stat(text.size, text.mtime_ns)
        if branch := self._branches.of(inode):
            return await branch.stat(inode)
        if self.is_live(inode):
            content = await self.live(inode)
            return Stat(content.size, content.mtime_ns)
        if kind is Kind.TX_LOG:
            return Stat(*self._query.log_size(number))
        if kind is Kind.STATEMENT:
            statement, mtime_ns = await self._query.statement(number)
            return Stat(statement.size, mtime_ns)
        if kind is Kind.SNAPSHOT:
            ordinal, index = nodes.snapshot_parts(number)
            snapshot = self._query.snapshot(ordinal, index)
            return Stat(snapshot.size, snapshot.mtime_ns)
        if kind is Kind.TRANSACTION:
            return self._entry(self._engine.transaction(number))
        if kind is Kind.BLOCK:
            return self._entry(self._engine.block(number))
        if kind is Kind.TILE:
            return self._tile(number)
        return Stat(len(self._fixed[Fixed(number)]), self._born_ns) if inode in self._fixed else self._directory(inode)

    async def read(self, inode: int, offset: int, size: int) -> bytes | memoryview:
        """A piece of a file that is not live. No checkpoint after the state was read."""
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind in (Kind.BALANCE, Kind.ACCOUNT_FILE):
            return self._account_file(kind, number).read(offset, size)
        if kind is Kind.TX_LOG:
            return self._query.log_read(number, offset, size)
        if kind is Kind.STATEMENT:
            statement, _ = await self._query.statement(number)
            return statement.read(offset, size)
        if branch := self._branches.of(inode):
            return await branch.read(inode, offset, size)
        return self._immutable(kind, number)[offset : offset + size]

    async def prepare(self, inode: int) -> None:
        """Work out what a READ of a file needs, however long its history is: a commit may have to wait for a READ."""
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind is Kind.STATEMENT:
            await self._query.statement(number)

    @staticmethod
    def is_live(inode: int) -> bool:
        """Whether it is made for each open."""
        return inode in LIVE or nodes.kind_of(inode) in RECEIPTS or nodes.kind_of(inode) in PROOFS

    async def live(self, inode: int) -> Readable:
        """A live file, as it is now. Raises OSError: ENOENT for a receipt that has gone, EIO when nothing can be signed."""
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind in RECEIPTS:
            return self._receipts.text(self.answer(number))
        if kind is Kind.PROOF:
            return await self._proofs.transaction(number)
        if kind is Kind.ACCOUNT_PROOF:
            return await self._proofs.balance(number)
        if kind is Kind.CONSISTENCY:
            return self._proofs.consistency(*nodes.consistency_parts(number))
        if inode == Fixed.CHECKPOINT:
            return await self._proofs.checkpoint()
        if inode == Fixed.TRUSTED_ROOT:
            return await self._proofs.trusted_root()
        make = {
            Fixed.HEALTH: self._status.health,
            Fixed.STATUS: self._status.status,
            Fixed.METRICS: self._status.metrics,
        }[Fixed(number)]
        return Text(make(), self._ledger.clock.now_ns())

    def answer(self, number: int) -> Answer:
        """The answer behind a receipt. Raises OSError ENOENT."""
        answer = self._receipts.get(number)
        if answer is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return answer

    def index_of(self, inode: int) -> int:
        """The entry that a file shows, -1 for those that show none."""
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind is Kind.TRANSACTION:
            return self._engine.transaction(number)
        if kind is Kind.BLOCK:
            return self._engine.block(number)
        if kind is Kind.BALANCE:
            return self._engine.account(number).last_index
        if branch := self._branches.of(inode):
            return branch.index_of(inode)
        return nodes.snapshot_parts(number)[1] if kind is Kind.SNAPSHOT else -1

    # -- inside

    def _immutable(self, kind: Kind, number: int) -> bytes | memoryview:
        if kind is Kind.TRANSACTION:
            return self._query.transaction(number)
        if kind is Kind.BLOCK:
            return self._query.block(number)
        if kind is Kind.TILE:
            level, tile, width = nodes.tile_parts(number)
            return self._query.bundle(tile, width) if level == ENTRIES else self._query.tile(level, tile, width)
        if kind is Kind.SNAPSHOT:
            return self._query.snapshot(*nodes.snapshot_parts(number)).data
        return self._fixed[Fixed(number)]

    def _account_file(self, kind: Kind, number: int) -> Text:
        return self._query.balance(number) if kind is Kind.BALANCE else self._query.account(number)

    def _entry(self, index: int) -> Stat:
        return Stat(len(self._engine.entry(index)), self._query.mtime_of(index))

    def _tile(self, number: int) -> Stat:
        level, tile, width = nodes.tile_parts(number)
        if level == ENTRIES:
            return Stat(len(self._query.bundle(tile, width)), self._query.tile_mtime(0, tile, width))
        return Stat(width * HASH_BYTES, self._query.tile_mtime(level, tile, width))

    def _directory(self, inode: int) -> Stat:
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind in (Kind.ACCOUNT, Kind.SNAPSHOTS):
            return Stat(0, self._query.opened_ns(number))
        if kind is not Kind.FIXED or number in GROWING:
            return Stat(0, self._engine.counts().time_ns)
        if number in (Fixed.RECEIPTS, Fixed.DRY_RECEIPTS):
            return Stat(0, self._receipts.mtime_ns or self._born_ns)
        return Stat(0, self._born_ns)
