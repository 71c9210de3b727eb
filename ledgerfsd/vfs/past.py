"""``snapshots/``: the ledger as it was.

``snapshots/<X>/`` is the state that X names (``service.points``), ``snapshots/effective/<date>/`` the balances by effective
date. Start at ``PastBranch.lookup``. The directory of a state is known by how it was named and not only by its size: the
kernel has one place for a directory, and would move it about between two names of the same state. Files are known by
the state, so two names of the same state share their pages.
"""

from __future__ import annotations

import datetime
import errno
from collections import OrderedDict
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
import trio

from ledgerfsd import limits
from ledgerfsd.clock import is_date
from ledgerfsd.service import render, trial_balance
from ledgerfsd.service.effective import Effective
from ledgerfsd.service.named import NAME
from ledgerfsd.service.past import Past
from ledgerfsd.service.points import Label, is_point_like
from ledgerfsd.service.query import Text
from ledgerfsd.service.spool import Spool
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Branch, Handle, Keep, Listing, Place, Stat, fault
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ledgerfsd.service.ledger import Ledger
    from ledgerfsd.service.points import Point
    from ledgerfsd.service.proofs import Proofs
    from ledgerfsd.vfs.contents import Readable

SPOOLED_BYTES_MAX: Final = 1024 * limits.MIB  # of trial balances that are kept; one may be as large as it is
SIZES_MAX: Final = 10_000
NAMES_AT_ONCE: Final = 256

# Parts of a state, in the numbers of directories and files.
TOP, STATE, ACCOUNTS, BY_DATE = range(4)
TRIAL_BALANCE, POINT, PROOF = range(3)

_FILES: Final = {b"trial-balance.csv": TRIAL_BALANCE, b"point.json": POINT}
_PROOF: Final = (
    b"proof"  # found, but not listed: it changes with the checkpoint, and copying a snapshot should come to rest
)


class Shown(Handle):
    """A file made when it was opened."""

    def __init__(self, content: Readable) -> None:
        self._content = content

    async def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        return self._content.read(offset, size)


class PastBranch(Branch):
    """The past of one ledger."""

    kinds = frozenset(
        (
            *(Kind.PAST_DIRECTORY, Kind.PAST_FILE, Kind.PAST_ACCOUNT, Kind.PAST_BALANCE, Kind.PAST_ACCOUNT_FILE),
            Kind.EFFECTIVE_BALANCE,
        )
    )
    places: ClassVar = (Place(Fixed.ROOT, b"snapshots", nodes.past_directory(TOP, 0, 0)),)

    def __init__(self, ledger: Ledger, proofs: Proofs) -> None:
        self._engine = ledger.engine
        self._points = ledger.points
        self._root = ledger.layout.root
        self._proofs = proofs
        self._past = Past(ledger.engine)
        self._effective = Effective(ledger, self._past)
        self._spools: OrderedDict[int, Spool] = OrderedDict()  # size of the log → its trial balance
        self._lengths: dict[int, int] = {}  # the same → bytes of its trial balance
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    # -- names

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:
        """See ``Branch``."""
        kind, number = nodes.kind_of(parent), nodes.number_of(parent)
        if kind is Kind.PAST_ACCOUNT:
            label, key, ordinal = nodes.past_account_parts(number)
            return dict(self._in_account(label, key, ordinal)).get(name, 0), True
        part, label, key = nodes.past_parts(number)
        if part == STATE and name == _PROOF and label != Label.EFFECTIVE:
            return nodes.past_file(PROOF, 0, self._points.size_of(label, key)), True
        if part == STATE:
            return dict(self._in_state(label, key)).get(name, 0), True
        if part == ACCOUNTS:
            ordinal = self._engine.ordinal(name)
            found = ordinal >= 0 and (
                label == Label.EFFECTIVE or self._past.existed(ordinal, self._points.size_of(label, key))
            )
            return nodes.past_account(label, key, ordinal) if found else 0, True
        text = name.decode("ascii", "replace")
        if part == BY_DATE:
            return nodes.past_directory(STATE, Label.EFFECTIVE, _number(text)) if is_date(text) else 0, True
        if name == b"effective":
            return nodes.past_directory(BY_DATE, 0, 0), True
        point = self._points.point(text)
        return (nodes.past_directory(STATE, point.label, point.key), point.final) if point else (0, False)

    def parent(self, directory: int) -> int:
        """See ``Branch``."""
        number = nodes.number_of(directory)
        if nodes.kind_of(directory) is Kind.PAST_ACCOUNT:
            label, key, _ = nodes.past_account_parts(number)
            return nodes.past_directory(ACCOUNTS, label, key)
        part, label, key = nodes.past_parts(number)
        if part == ACCOUNTS:
            return nodes.past_directory(STATE, label, key)
        return nodes.past_directory(BY_DATE if label == Label.EFFECTIVE else TOP, 0, 0)

    def taken(self, directory: int) -> list[tuple[bytes, int]] | Listing | None:
        """See ``Branch``."""
        kind, number = nodes.kind_of(directory), nodes.number_of(directory)
        if kind is Kind.PAST_ACCOUNT:
            return self._in_account(*nodes.past_account_parts(number))
        part, label, key = nodes.past_parts(number)
        if part == ACCOUNTS:
            return None
        if part == STATE:
            return self._in_state(label, key)
        listed = self._points.listed()
        if part == TOP:
            first = [(b"effective", nodes.past_directory(BY_DATE, 0, 0)), *_states(listed)]
            return Listing(first, lambda skip: _states(self._points.listed_digests(skip)))
        dates = [name for name, _ in listed if is_date(name)]
        return [(date.encode(), nodes.past_directory(STATE, Label.EFFECTIVE, _number(date))) for date in dates]

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:
        """Accounts, without the first ``skip``."""
        _, label, key = nodes.past_parts(nodes.number_of(directory))
        count = self._accounts(label, key)
        for first in range(skip, count, NAMES_AT_ONCE):
            for ordinal, name in enumerate(self._engine.names(first, min(NAMES_AT_ONCE, count - first)), first):
                yield name.encode(), nodes.past_account(label, key, ordinal)

    def _in_state(self, label: int, key: int) -> list[tuple[bytes, int]]:
        accounts = nodes.past_directory(ACCOUNTS, label, key)
        if label == Label.EFFECTIVE:
            return [(b"accounts", accounts), (b"trial-balance.csv", nodes.past_file(TRIAL_BALANCE, label, key))]
        size = self._points.size_of(label, key)
        seal = nodes.inode(Kind.BLOCK, self._engine.block_of(size - 1))
        files = [(name, nodes.past_file(part, 0, size)) for name, part in _FILES.items()]
        return [(b"accounts", accounts), (b"seal.json", seal), *files]

    def _in_account(self, label: int, key: int, ordinal: int) -> list[tuple[bytes, int]]:
        if label == Label.EFFECTIVE:
            return [(b"balance.json", nodes.account_at(Kind.EFFECTIVE_BALANCE, ordinal, key))]
        size = self._points.size_of(label, key)
        return [
            (b"balance.json", nodes.account_at(Kind.PAST_BALANCE, ordinal, size)),
            (b"account.json", nodes.account_at(Kind.PAST_ACCOUNT_FILE, ordinal, size)),
        ]

    def _accounts(self, label: int, key: int) -> int:
        """How many there are. By effective date all of today: one opened later may have something by then."""
        if label == Label.EFFECTIVE:
            return self._engine.counts().accounts
        return self._past.count(self._points.size_of(label, key))

    # -- what a file is

    def keep(self, inode: int) -> Keep:
        """See ``Branch``."""
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind is Kind.PAST_ACCOUNT:
            changes = nodes.past_account_parts(number)[0] == Label.EFFECTIVE
        elif kind is Kind.PAST_DIRECTORY:
            part, label, _ = nodes.past_parts(number)
            changes = part in (TOP, BY_DATE) or label == Label.EFFECTIVE
        elif kind is Kind.PAST_FILE:
            part, label, _ = nodes.past_parts(number)
            changes = part == PROOF or label == Label.EFFECTIVE
        else:
            changes = kind is Kind.EFFECTIVE_BALANCE
        return Keep.NOTHING if changes else Keep.FOREVER

    def mode(self, inode: int) -> int:
        """As of the inbox for ``snapshots/``, where directories can be made."""
        return 0o775 if inode == self.places[0].inode else super().mode(inode)

    def index_of(self, inode: int) -> int:
        """The account's newest entry then."""
        if nodes.kind_of(inode) is not Kind.PAST_BALANCE:
            return -1
        ordinal, size = nodes.snapshot_parts(nodes.number_of(inode))
        return self._past.newest(ordinal, size)

    async def stat(self, inode: int) -> Stat:
        """See ``Branch``."""
        if nodes.is_directory(inode):
            return Stat(0, self._points.time_of(self._newest_of(inode)))
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind is Kind.PAST_FILE and self.keep(inode) is Keep.FOREVER:
            part, _, size = nodes.past_parts(number)
            if part == TRIAL_BALANCE and size in self._lengths:
                return Stat(self._lengths[size], self._points.time_of(size - 1))
        content = await self._content(inode)
        return Stat(content.size, content.mtime_ns)

    def _newest_of(self, directory: int) -> int:
        """The newest entry that counts in a directory."""
        number = nodes.number_of(directory)
        if nodes.kind_of(directory) is Kind.PAST_ACCOUNT:
            label, key, _ = nodes.past_account_parts(number)
        else:
            part, label, key = nodes.past_parts(number)
            label = Label.EFFECTIVE if part in (TOP, BY_DATE) else label
        return (self._engine.counts().entries if label == Label.EFFECTIVE else self._points.size_of(label, key)) - 1

    # -- reading

    async def open(self, inode: int, flags: int) -> Handle | None:
        """Files that may change are made now, and stay so for this reader."""
        await super().open(inode, flags)
        return Shown(await self._content(inode)) if self.keep(inode) is Keep.NOTHING else None

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        """See ``Branch``."""
        return (await self._content(inode)).read(offset, size)

    async def _content(self, inode: int) -> Readable:
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        if kind is Kind.PAST_FILE:
            return await self._file(*nodes.past_parts(number))
        ordinal, key = nodes.snapshot_parts(number)
        if kind is Kind.PAST_BALANCE:
            return self._past.balance(ordinal, key)
        if kind is Kind.PAST_ACCOUNT_FILE:
            return self._past.account_file(ordinal, key)
        return await self._effective.balance(ordinal, key)

    async def _file(self, part: int, label: int, key: int) -> Readable:
        if label == Label.EFFECTIVE:
            return await self._effective.trial_balance(key)
        if part == TRIAL_BALANCE:
            return await self._trial_balance(key)
        if part == POINT:
            return self._point(key)
        return await self._proofs.entry(self._engine.block(self._engine.block_of(key - 1)))

    def _point(self, size: int) -> Text:
        entry = bytes(self._engine.entry(size - 1))
        text = {
            "size": size,
            "tx": self._points.transactions(size),
            "seal": self._engine.block_of(size - 1),
            "accounts": self._past.count(size),
            "time": render.time_text(entry),
        }
        return Text(msgspec.json.encode(text) + b"\n", render.time_of(entry))

    async def _trial_balance(self, size: int) -> Spool:
        async with self._turn:
            spool = self._spools.get(size)
            if spool is None:
                spool = Spool(self._root, self._points.time_of(size - 1))
                await trio.to_thread.run_sync(trial_balance.write_at, self._engine, size, spool, limiter=self._thread)
                self._keep_spool(size, spool)
            self._spools.move_to_end(size)
            return spool

    def _keep_spool(self, size: int, spool: Spool) -> None:
        if len(self._lengths) >= SIZES_MAX:
            self._lengths.clear()
        self._lengths[size] = spool.size
        self._spools[size] = spool
        while len(self._spools) > 1 and sum(each.size for each in self._spools.values()) > SPOOLED_BYTES_MAX:
            self._spools.popitem(last=False)

    # -- changing

    async def mkdir(self, parent: int, name: bytes) -> int:
        """Name the newest state."""
        if parent != self.places[0].inode:
            raise fault(errno.EROFS)
        text = name.decode("ascii", "replace")
        if is_point_like(text) or self._points.point(text):
            raise fault(errno.EEXIST if (await self.lookup(parent, name))[0] else errno.EPERM)
        if len(name) > limits.NAME_BYTES_MAX:
            raise fault(errno.ENAMETOOLONG)
        if not NAME.fullmatch(text):
            raise fault(errno.EPERM)
        named = await self._points.named.create(text)
        return nodes.past_directory(STATE, Label.NAMED, named.number)

    async def remove(self, parent: int, name: bytes, *, directory: bool) -> None:  # noqa: ARG002
        """Never: a name that was given stays."""
        if parent == self.places[0].inode and directory:
            raise fault(errno.EPERM)
        raise fault(errno.EROFS)


def _states(points: Iterable[tuple[str, Point]]) -> Iterator[tuple[bytes, int]]:
    """The directories of states."""
    for name, point in points:
        yield name.encode(), nodes.past_directory(STATE, point.label, point.key)


def _number(date: str) -> int:
    """The proleptic ordinal of a date."""
    return datetime.date.fromisoformat(date).toordinal()
