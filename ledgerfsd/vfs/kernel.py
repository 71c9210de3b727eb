"""What the kernel holds of files that change, and telling it when they did.

The kernel caches attributes for an hour and pages without limit; for a file that changed it must be told before the
writer gets its reply. Only files that it holds are counted here (LOOKUP minus FORGET), and only accounts that it
holds are watched in the engine, so the cost of a commit goes by what is cached, not by what was written.

The first LOOKUP of a file is answered with attributes that are valid for no time: between our reply and the moment the
kernel makes the inode, an invalidation would find nothing (ENOENT) and be lost. A GETATTR has no such gap; the kernel
discards its answer when an invalidation overtook it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.ledger import Change
    from ledgerfsd.service.receipts import Answer

_ACCOUNT_FILES: Final = (Kind.BALANCE, Kind.ACCOUNT_FILE, Kind.TX_LOG, Kind.STATEMENT)
_TILES: Final = (Kind.TILE_LEVEL, Kind.TILE_GROUP)
_CHANGING: Final = frozenset((*_ACCOUNT_FILES, *_TILES, Kind.RECEIPT, Kind.DRY_RECEIPT))
_CHANGING_FIXED: Final = frozenset(
    (
        Fixed.ACCOUNTS,
        Fixed.TRANSACTIONS,
        Fixed.BLOCKS,
        Fixed.LOG,
        Fixed.TILES,
        Fixed.RECEIPTS,
        Fixed.DRY_RECEIPTS,
    )
)
_RECEIPT_DIRECTORIES: Final = frozenset((Fixed.RECEIPTS, Fixed.DRY_RECEIPTS))


class Kernel:
    """Look-up counts and invalidation. ``invalidate`` drops the attributes of an inode; it raises OSError ENOENT."""

    def __init__(self, engine: Engine, invalidate: Callable[[int], None]) -> None:
        self._engine = engine
        self._invalidate = invalidate
        self._lookups: dict[int, int] = {}
        self._growing: set[int] = set()  # held directories that every commit changes

    @staticmethod
    def changes(inode: int) -> bool:
        """Whether a file may change while the kernel holds it (files of the inbox are not cached at all)."""
        kind = nodes.kind_of(inode)
        return kind in _CHANGING or (kind is Kind.FIXED and inode in _CHANGING_FIXED)

    def __len__(self) -> int:
        return len(self._lookups)

    def hold(self, inode: int) -> None:
        """The kernel gets an answer to a LOOKUP. Call it before reading the state that is answered."""
        if not self.changes(inode):
            return
        count = self._lookups.get(inode, 0)
        self._lookups[inode] = count + 1
        if count:
            return
        kind = nodes.kind_of(inode)
        if kind in _ACCOUNT_FILES:
            self._engine.watch(nodes.number_of(inode), True)
        elif kind in _TILES or (kind is Kind.FIXED and inode not in _RECEIPT_DIRECTORIES):
            self._growing.add(inode)

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """The kernel gives back look-ups."""
        for inode, count in forgotten:
            left = self._lookups.get(inode, 0) - count
            if left > 0:
                self._lookups[inode] = left
            elif self._lookups.pop(inode, 0):
                self._drop(inode)

    def _drop(self, inode: int) -> None:
        self._growing.discard(inode)
        if nodes.kind_of(inode) in _ACCOUNT_FILES:
            ordinal = nodes.number_of(inode)
            if not any(nodes.inode(kind, ordinal) in self._lookups for kind in _ACCOUNT_FILES):
                self._engine.watch(ordinal, False)

    def committed(self, change: Change) -> None:
        """Entries became durable."""
        for ordinal in change.touched:
            for kind in _ACCOUNT_FILES:
                self._changed(nodes.inode(kind, ordinal))
        for directory in self._growing:
            self._changed(directory)

    def answered(self, answer: Answer) -> None:
        """A receipt is new or has grown."""
        self._changed(nodes.inode(Kind.DRY_RECEIPT if answer.dry_run else Kind.RECEIPT, answer.number))
        self._changed(Fixed.DRY_RECEIPTS if answer.dry_run else Fixed.RECEIPTS)

    def _changed(self, inode: int) -> None:
        if inode not in self._lookups:
            return
        with suppress(FileNotFoundError):  # the kernel has dropped it, its FORGET is on the way
            self._invalidate(inode)
