"""Names: which file a name means, and what a directory lists.

Start at ``Tree.lookup``. Nothing is kept: a name is parsed and looked up in the engine. A listing is a position in a
sequence that is never stored, so ten million names cost no memory here, and a listing interrupted and taken up again
goes on where it was (the cookie of an entry is its position).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ledgerfsd.service.past import Past
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Listing
from ledgerfsd.vfs.inbox import AREAS
from ledgerfsd.vfs.nodes import ENTRIES, Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.inbox import Inbox
    from ledgerfsd.service.points import Point
    from ledgerfsd.service.proofs import Proofs
    from ledgerfsd.service.query import Query
    from ledgerfsd.service.receipts import Receipts
    from ledgerfsd.vfs.branch import Branches

TILE_WIDTH: Final = 256
NAMES_AT_ONCE: Final = 256
DOTS: Final = 2  # positions of "." and ".."

_TX: Final = re.compile(rb"tx_([0-9]{4,19})\.json")
_PROOF: Final = re.compile(rb"tx_([0-9]{4,19})\.tlog-proof")
_BLOCK: Final = re.compile(rb"([0-9]{8,19})\.json")
_TILE: Final = re.compile(rb"([0-9]{3})(\.p)?")
_GROUP: Final = re.compile(rb"x([0-9]{3})")
_WIDTH: Final = re.compile(rb"[1-9][0-9]{0,2}")

_FIXED: Final[dict[Fixed, dict[bytes, Fixed]]] = {
    Fixed.ROOT: {
        b"README.txt": Fixed.README,
        b"inbox": Fixed.INBOX,
        b"receipts": Fixed.RECEIPTS,
        b"accounts": Fixed.ACCOUNTS,
        b"transactions": Fixed.TRANSACTIONS,
        b"blocks": Fixed.BLOCKS,
        b"proofs": Fixed.PROOFS,
        b"log": Fixed.LOG,
        b".ledgerfs": Fixed.CONTROL,
    },
    Fixed.INBOX: {b"atomic": Fixed.ATOMIC, b"dry-run": Fixed.DRY_RUN},
    Fixed.RECEIPTS: {b"dry-run": Fixed.DRY_RECEIPTS},
    Fixed.LOG: {b"checkpoint": Fixed.CHECKPOINT, b"tile": Fixed.TILES},
    Fixed.PROOFS: {b"consistency": Fixed.CONSISTENCY},
    Fixed.CONTROL: {
        b"health": Fixed.HEALTH,
        b"status.json": Fixed.STATUS,
        b"metrics.prom": Fixed.METRICS,
        b"errors.tsv": Fixed.ERRORS,
        b"limits.json": Fixed.LIMITS,
        b"version": Fixed.VERSION,
        b"currencies.tsv": Fixed.CURRENCIES,
        b"trusted_root.json": Fixed.TRUSTED_ROOT,
        b"verify.html": Fixed.VERIFY_PAGE,
    },
}
_ACCOUNT_FILES: Final = {
    b"balance.json": Kind.BALANCE,
    b"account.json": Kind.ACCOUNT_FILE,
    b"tx.log": Kind.TX_LOG,
    b"statement.csv": Kind.STATEMENT,
    b"snapshots": Kind.SNAPSHOTS,
}
# Found, but not listed: it changes with every commit of anybody, so rsync and tar of accounts/ would never come to rest.
_ACCOUNT_PROOF: Final = b"proof.json"
_PARENTS: Final = {child: parent for parent, children in _FIXED.items() for child in children.values()}


class Tree:
    """The names of one mount."""

    def __init__(
        self, engine: Engine, query: Query, inbox: Inbox, receipts: Receipts, proofs: Proofs, branches: Branches
    ) -> None:
        self._engine = engine
        self._query = query
        self._past = Past(engine)
        self._inbox = inbox
        self._receipts = receipts
        self._proofs = proofs
        self._branches = branches
        self._fixed: dict[Fixed, dict[bytes, int]] = {
            parent: {name: int(child) for name, child in children.items()} for parent, children in _FIXED.items()
        }
        for place in branches.places:
            self._fixed.setdefault(place.directory, {})[place.name] = place.inode
        self._account_files = _ACCOUNT_FILES | branches.in_account

    # -- look-up

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:
        """Inode number of a name, 0 if there is none; and whether the name will always mean it."""
        kind, number = nodes.kind_of(parent), nodes.number_of(parent)
        if kind is Kind.SNAPSHOTS:
            return self._snapshot(number, name)
        if kind is Kind.FIXED:
            return self._in_fixed(Fixed(number), name), True
        if kind is Kind.ACCOUNT:
            file = Kind.ACCOUNT_PROOF if name == _ACCOUNT_PROOF else self._account_files.get(name)
            return (nodes.inode(file, number) if file else 0), True
        if branch := self._branches.of(parent):
            return await branch.lookup(parent, name)
        return self._in_tiles(kind, number, name), True

    def _in_fixed(self, directory: Fixed, name: bytes) -> int:
        fixed = self._fixed.get(directory, {}).get(name)
        if fixed is not None:
            return int(fixed)
        if directory is Fixed.ACCOUNTS:
            ordinal = self._engine.ordinal(name)
            return nodes.inode(Kind.ACCOUNT, ordinal) if ordinal >= 0 else 0
        if directory is Fixed.TRANSACTIONS:
            return _numbered(_TX, name, Kind.TRANSACTION, 4, self._engine.counts().transactions)
        if directory is Fixed.PROOFS:
            return self._proof(name)
        if directory is Fixed.CONSISTENCY:
            return self._consistency(name)
        if directory is Fixed.BLOCKS:
            return _numbered(_BLOCK, name, Kind.BLOCK, 8, self._engine.counts().blocks)
        if directory in (Fixed.RECEIPTS, Fixed.DRY_RECEIPTS):
            return self._receipt(name, dry_run=directory is Fixed.DRY_RECEIPTS)
        if directory is Fixed.TILES:
            return self._tile_level(name)
        if directory in AREAS:
            file = self._inbox.find(AREAS[directory], name)
            return nodes.inode(Kind.INBOX_FILE, file.number) if file is not None else 0
        return 0

    def _receipt(self, name: bytes, *, dry_run: bool) -> int:
        try:
            answer = self._receipts.find(name.decode(), dry_run=dry_run)
        except UnicodeDecodeError:
            return 0
        if answer is None:
            return 0
        return nodes.inode(Kind.DRY_RECEIPT if dry_run else Kind.RECEIPT, answer.number)

    def _proof(self, name: bytes) -> int:
        if name.endswith(b".json"):  # not listed: it is accounts/<id>/proof.json
            ordinal = self._engine.ordinal(name.removesuffix(b".json"))
            return nodes.inode(Kind.ACCOUNT_PROOF, ordinal) if ordinal >= 0 else 0
        return _numbered(_PROOF, name, Kind.PROOF, 4, self._engine.counts().transactions)

    def _consistency(self, name: bytes) -> int:
        first, _, second = name.partition(b"-")
        old, new = self._proofs.height_of(first), self._proofs.height_of(second)
        return nodes.consistency(old, new) if 0 < old <= new else 0

    def _snapshot(self, ordinal: int, name: bytes) -> tuple[int, bool]:
        point = self._point(name)
        index = self._query.newest_before(ordinal, point) if point is not None else -1
        if point is None or index < 0:
            return 0, False
        return nodes.snapshot(ordinal, index), point.final

    def _point(self, name: bytes) -> Point | None:
        if not name.endswith(b".json") or not name.isascii():
            return None
        return self._query.points.point(name[:-5].decode())

    def _tile_level(self, name: bytes) -> int:
        if name == b"entries":
            return nodes.inode(Kind.TILE_LEVEL, ENTRIES)
        if len(name) == 1 and b"0" <= name <= b"7" and self._size(int(name)):
            return nodes.inode(Kind.TILE_LEVEL, int(name))
        return 0

    def _in_tiles(self, kind: Kind, number: int, name: bytes) -> int:
        if kind is Kind.PARTIAL:
            return self._partial_tile(number, name)
        level, depth, value = _group(kind, number)
        size = self._size(level)
        if match := _TILE.fullmatch(name):
            tile = value * 1000 + int(match[1])
            if match[2]:
                return nodes.partial(level, tile) if tile * TILE_WIDTH < size else 0
            return nodes.tile(level, tile, TILE_WIDTH) if (tile + 1) * TILE_WIDTH <= size else 0
        match = _GROUP.fullmatch(name)
        if match is None or depth == 2 or (depth == 0 and name == b"x000"):
            return 0
        inner = value * 1000 + int(match[1])
        return nodes.group(level, depth + 1, inner) if inner * 1000 * TILE_WIDTH < size else 0

    def _partial_tile(self, number: int, name: bytes) -> int:
        level, tile, _ = nodes.tile_parts(number)
        width = int(name) if _WIDTH.fullmatch(name) else TILE_WIDTH
        if width >= TILE_WIDTH or tile * TILE_WIDTH + width > self._size(level):
            return 0
        return nodes.tile(level, tile, width)

    def _size(self, level: int) -> int:
        return self._engine.level_size(0 if level == ENTRIES else level)

    # -- listing

    def parent(self, directory: int) -> int:
        """Inode number of the directory above."""
        kind, number = nodes.kind_of(directory), nodes.number_of(directory)
        if kind is Kind.FIXED:
            return int(_PARENTS.get(Fixed(number), Fixed.ROOT))
        if kind is Kind.ACCOUNT:
            return int(Fixed.ACCOUNTS)
        if self._branches.of(directory):
            return self._branches.parent(directory)
        if kind is Kind.SNAPSHOTS:
            return nodes.inode(Kind.ACCOUNT, number)
        if kind is Kind.TILE_LEVEL:
            return int(Fixed.TILES)
        if kind is Kind.TILE_GROUP:
            level, depth, value = nodes.group_parts(number)
            return _container(level, value if depth == 2 else 0)
        level, tile, _ = nodes.tile_parts(number)
        return _container(level, tile)

    def snapshot_of(self, directory: int) -> list[tuple[bytes, int]] | Listing | None:
        """The entries of a directory whose names may go, or come between others: taken once when it is opened. None for
        those that only grow at their end."""
        if branch := self._branches.of(directory):
            return branch.taken(directory)
        if nodes.kind_of(directory) is Kind.SNAPSHOTS:
            return self._snapshots(nodes.number_of(directory))
        if directory not in (Fixed.RECEIPTS, Fixed.DRY_RECEIPTS) and directory not in AREAS:
            return None
        fixed = [(name, int(child)) for name, child in _FIXED.get(Fixed(directory), {}).items()]
        if directory in AREAS:
            files = self._inbox.files(AREAS[Fixed(directory)])
            return fixed + [(file.name, nodes.inode(Kind.INBOX_FILE, file.number)) for file in files]
        dry_run = directory == Fixed.DRY_RECEIPTS
        kind = Kind.DRY_RECEIPT if dry_run else Kind.RECEIPT
        answers = self._receipts.answers(dry_run=dry_run)
        return fixed + [(answer.name.encode(), nodes.inode(kind, answer.number)) for answer in answers]

    def entries(
        self, directory: int, position: int, taken: list[tuple[bytes, int]] | Listing | None
    ) -> Iterator[tuple[bytes, int, int]]:
        """Name, inode number and position behind it, from ``position`` on. Positions 0 and 1 are ``.`` and ``..``.

        ``taken`` is what ``snapshot_of`` gave when the directory was opened.
        """
        if position < 1:
            yield b".", directory, 1
        if position < DOTS:
            yield b"..", self.parent(directory), DOTS
        skip = max(0, position - DOTS)
        kind, number = nodes.kind_of(directory), nodes.number_of(directory)
        found: Iterable[tuple[bytes, int]]
        if taken is not None:
            found = taken.entries(skip) if isinstance(taken, Listing) else taken[skip:]
        elif kind is Kind.FIXED:
            found = self._list_fixed(Fixed(number), skip)
        elif kind is Kind.ACCOUNT:
            names = list(self._account_files.items())[skip:]
            found = ((name, nodes.inode(file, number)) for name, file in names)
        elif branch := self._branches.of(directory):
            found = branch.entries(directory, skip)
        else:
            for name, child, place in self._list_tiles(kind, number, skip):
                yield name, child, place + DOTS + 1
            return
        for place, (name, child) in enumerate(found, skip + DOTS + 1):
            yield name, child, place

    def _list_fixed(self, directory: Fixed, skip: int) -> Iterator[tuple[bytes, int]]:
        if directory is Fixed.ACCOUNTS:
            yield from self._list_accounts(skip)
        elif directory is Fixed.TRANSACTIONS:
            first = nodes.inode(Kind.TRANSACTION, 0)
            for number in range(skip + 1, self._engine.counts().transactions + 1):
                yield b"tx_%04d.json" % number, first + number
        elif directory is Fixed.PROOFS:
            yield from self._list_proofs(skip)
        elif directory is Fixed.CONSISTENCY:
            if skip == 0:
                yield self._example()
        elif directory is Fixed.BLOCKS:
            first = nodes.inode(Kind.BLOCK, 0)
            for number in range(skip + 1, self._engine.counts().blocks + 1):
                yield b"%08d.json" % number, first + number
        elif directory is Fixed.TILES:
            levels = [ENTRIES, *(level for level in range(8) if self._size(level))]
            for level in levels[skip:]:
                yield (b"entries" if level == ENTRIES else b"%d" % level), nodes.inode(Kind.TILE_LEVEL, level)
        else:
            for name, child in list(self._fixed[directory].items())[skip:]:
                yield name, int(child)

    def _list_proofs(self, skip: int) -> Iterator[tuple[bytes, int]]:
        if skip == 0:
            yield b"consistency", int(Fixed.CONSISTENCY)
        first = nodes.inode(Kind.PROOF, 0)
        for number in range(max(skip, 1), self._engine.counts().transactions + 1):
            yield b"tx_%04d.tlog-proof" % number, first + number

    def _example(self) -> tuple[bytes, int]:
        # Any two sealed sizes resolve; the newest two stand there as the example of how such names look.
        new = self._engine.counts().blocks
        old = max(1, new - 1)
        return b"%d-%d" % (self._proofs.size_at(old), self._proofs.size_at(new)), nodes.consistency(old, new)

    def _list_accounts(self, skip: int) -> Iterator[tuple[bytes, int]]:
        accounts = self._engine.counts().accounts
        for first in range(skip, accounts, NAMES_AT_ONCE):
            for ordinal, name in enumerate(self._engine.names(first, min(NAMES_AT_ONCE, accounts - first)), first):
                yield name.encode(), nodes.inode(Kind.ACCOUNT, ordinal)

    def _snapshots(self, ordinal: int) -> Listing:
        # Any point in time resolves; the newest block stands there as the example of how such names look.
        newest = self._engine.account(ordinal).last_index
        example = (b"block-%d.json" % self._engine.block_of(newest), nodes.snapshot(ordinal, newest))
        opened = self._engine.account(ordinal).open_index
        return Listing(
            [*self._past_names(ordinal, self._query.points.listed()), example],
            lambda skip: self._past_names(ordinal, self._query.points.listed_digests(skip, opened)),
        )

    def _past_names(self, ordinal: int, points: Iterable[tuple[str, Point]]) -> Iterator[tuple[bytes, int]]:
        for name, point in points:
            index = self._past.newest(ordinal, point.size)
            if index >= 0:
                yield name.encode() + b".json", nodes.snapshot(ordinal, index)

    def _list_tiles(self, kind: Kind, number: int, skip: int) -> Iterator[tuple[bytes, int, int]]:
        """Places: 0 to 999 full tiles, 1000 the partial one, from 1001 on groups."""
        if kind is Kind.PARTIAL:
            level, tile, _ = nodes.tile_parts(number)
            width = self._size(level) - tile * TILE_WIDTH
            if skip == 0 and 0 < width < TILE_WIDTH:
                yield b"%d" % width, nodes.tile(level, tile, width), 0
            return
        level, depth, value = _group(kind, number)
        first = value * 1000
        full, width = divmod(self._size(level), TILE_WIDTH)
        for place in range(skip, min(1000, full - first)):
            yield b"%03d" % place, nodes.tile(level, first + place, TILE_WIDTH), place
        if skip <= 1000 and width and first <= full < first + 1000:
            yield b"%03d.p" % (full - first), nodes.partial(level, full), 1000
        if depth == 2:
            return
        for place in range(max(skip, 1001), 2001):
            inner = value * 1000 + place - 1001
            if inner * 1000 * TILE_WIDTH >= self._size(level):
                return
            if inner:  # group 0 of the level directory is the level directory itself
                yield b"x%03d" % (place - 1001), nodes.group(level, depth + 1, inner), place


def _numbered(pattern: re.Pattern[bytes], name: bytes, kind: Kind, digits: int, newest: int) -> int:
    """Inode number of a name with a number, which must be written with exactly the digits it is listed with."""
    match = pattern.fullmatch(name)
    number = int(match[1]) if match else 0
    if match is None or not 1 <= number <= newest or match[1] != b"%0*d" % (digits, number):
        return 0
    return nodes.inode(kind, number)


def _group(kind: Kind, number: int) -> tuple[int, int, int]:
    """Level, depth and value of a directory of tiles; the level directory is the group of depth 0."""
    return nodes.group_parts(number) if kind is Kind.TILE_GROUP else (number, 0, 0)


def _container(level: int, tile: int) -> int:
    """Inode number of the directory in which a tile (or a group whose tiles begin there) is."""
    value, depth = tile // 1000, 1 if tile < 1_000_000 else 2
    return nodes.group(level, depth, value) if value else nodes.inode(Kind.TILE_LEVEL, level)
