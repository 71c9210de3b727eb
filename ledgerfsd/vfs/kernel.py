"""What the kernel holds of files that change, and telling it when they did.

The kernel caches attributes for an hour and pages without limit, so for a file that changed it must be told before the
writer gets its reply. Only files that it holds are kept here (LOOKUP minus FORGET), and only accounts that it holds are
watched in the engine, so the cost of a commit goes by what is cached, not by what was written.

What is told goes by whether somebody has the file open, for only then can somebody read its pages:

* Not open: its attributes are dropped, which never blocks. Its pages are dropped when it is opened next.
* Open: its pages are dropped too. That waits for pages that a READ has locked, hence in a worker thread: the thread of
  the requests is the one that answers the READ.

Telling of new attributes is not enough, for two reasons in fs/fuse/inode.c. A GETATTR answer that an invalidation
overtakes is thrown away, and a read then goes on with the old size and pages (fuse_change_attributes); and new
attributes are valid a moment before the old pages are dropped, a moment in which another process may read those. So
pages are dropped here and not left to the kernel, and for files that grow, three steps in this order:

1. Drop the pages. What is read from now on is of the new state, in full pages, whatever size the kernel goes by.
2. Report the new size. Until now GETATTR gave the old one of an open file, so no reader got beyond it into a page whose
   end was read before the commit: there the kernel has zeros.
3. Store the last byte again (NOTIFY_STORE): that makes the kernel's size the new one, whatever becomes of an answer that
   was under way, and makes it ask anew.

The files of an account that change in place never change their size (see ``service.render``), so for them step 1 is all.

What is held of ``balance.json`` is kept in the core (``core.kernel``), by the same rules: its front answers most requests about them
without Python (ADR 47). An account of which it holds nothing else is watched only while that file is open or the kernel has
attributes or pages of it that a commit would make old: balances that were read once, long ago, cost a commit nothing.

A LOOKUP that Python answers gives attributes that are valid for no time: between our reply and the moment the
kernel makes the inode, an invalidation would find nothing (ENOENT) and be lost. A GETATTR has no such gap. The front
gives ``balance.json`` attributes that last, which spares a GETATTR, and notes that the inode is ``coming``, until a
request about it shows that it is there: an invalidation that finds nothing meanwhile is told again until it does,
before the writer gets its answer (ADR 53).

Of balances that nobody has open, the core tells the kernel by itself (``lfs_front_tell``), when it need not tell of many;
``committed`` hears of the others.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from ledgerfsd.core.kernel import HeldBalances
from ledgerfsd.core.values import Attending
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.contents import GROWING
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.ledger import Change
    from ledgerfsd.service.receipts import Answer
    from ledgerfsd.vfs.branch import Stat

log = structlog.get_logger()

LONG: Final = 3600  # seconds: whoever may change is invalidated, so this bounds nothing but our own mistakes
AGAIN_SECONDS: Final = 0.0005
COMING_SECONDS: Final = 10.0  # at most, until the kernel has the inode that it has asked for: usually microseconds
_GROWING_FILES: Final = frozenset((Kind.TX_LOG, Kind.STATEMENT))
_ACCOUNT_FILES: Final = (Kind.BALANCE, Kind.ACCOUNT_FILE, Kind.TX_LOG, Kind.STATEMENT)
_OTHER_ACCOUNT_FILES: Final = tuple(kind for kind in _ACCOUNT_FILES if kind is not Kind.BALANCE)
_TILES: Final = frozenset((Kind.TILE_LEVEL, Kind.TILE_GROUP))
_RECEIPT_DIRECTORIES: Final = frozenset((Fixed.RECEIPTS, Fixed.DRY_RECEIPTS))


class Notify(Protocol):
    """What can be told to the kernel. Each raises FileNotFoundError when it does not hold the inode (any more)."""

    def drop_attributes(self, inode: int) -> None:
        """Forget the attributes. Never blocks."""

    def drop_pages(self, inode: int) -> None:
        """Forget attributes and pages. Waits for READs of the file that are under way."""

    def grow(self, inode: int, size: int) -> None:
        """Make the file at least so large; its last byte is a newline. May wait as ``drop_pages`` does."""


class Held:
    """A file that the kernel holds."""

    __slots__ = ("asked", "dropped", "lookups", "opened", "renewed", "stale", "stat")

    def __init__(self) -> None:
        self.lookups = 0
        self.opened = 0
        self.asked = False  # attributes that are valid for long were given since they were dropped last
        self.dropped = 0  # how often
        self.stale = True  # pages may be from before the newest commit
        self.stat: Stat | None = None  # of a file that grows and is open: what GETATTR gives
        self.renewed: Stat | None = None  # of a file that grows: what it was when its pages were dropped last


class Kernel:
    """Look-ups, opens and invalidation. ``stat`` gives what a file has now (see ``Contents.stat``)."""

    def __init__(self, engine: Engine, notify: Notify, stat: Callable[[int], Awaitable[Stat]]) -> None:
        self._engine = engine
        self._notify = notify
        self._stat = stat
        self._balances = HeldBalances(engine)
        self._held: dict[int, Held] = {}  # but balances
        self._growing: set[int] = set()  # held directories that every commit changes
        self._lasting: set[int] = set()  # those of them whose attributes the kernel may have
        self.learn: Callable[[], None] = lambda: None  # know of receipts that the core has written
        self._renewing = trio.CancelScope()
        self._stopped = False
        self._thread = trio.CapacityLimiter(1)

    @staticmethod
    def changes(inode: int) -> bool:
        """Whether a file may change while the kernel holds it, in what we let it cache."""
        kind = nodes.kind_of(inode)
        fixed = kind is Kind.FIXED and (inode in GROWING or inode in _RECEIPT_DIRECTORIES)
        return fixed or kind in _TILES or kind in _ACCOUNT_FILES

    def __len__(self) -> int:
        return len(self._held) + len(self._balances)

    # -- what the kernel holds

    def hold(self, inode: int) -> None:
        """The kernel gets an answer to a LOOKUP. Call it before reading the state that is answered."""
        if not self.changes(inode):
            return
        if _is_balance(inode):
            self._balances.hold(nodes.number_of(inode))
            return
        held = self._held.get(inode)
        if held is None:
            held = self._held[inode] = Held()
            if nodes.kind_of(inode) in _ACCOUNT_FILES:
                self._engine.watch(nodes.number_of(inode), True)
            elif inode not in _RECEIPT_DIRECTORIES:
                self._growing.add(inode)
        held.lookups += 1

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """The kernel gives back look-ups."""
        for inode, count in forgotten:
            if _is_balance(inode):
                self._balances.forget(nodes.number_of(inode), count)
            held = self._held.get(inode)
            if held is None:
                continue
            held.lookups -= count
            if held.lookups <= 0:
                del self._held[inode]
                self._dropped(inode)

    def _dropped(self, inode: int) -> None:
        self._growing.discard(inode)
        self._forgotten({inode})
        if nodes.kind_of(inode) in _ACCOUNT_FILES:
            ordinal = nodes.number_of(inode)
            if not any(nodes.inode(kind, ordinal) in self._held for kind in _OTHER_ACCOUNT_FILES):
                self._engine.watch(ordinal, False)

    async def stat(self, inode: int) -> Stat:
        """What GETATTR and LOOKUP give."""
        stat = await self._stat(inode)
        held = self._held.get(inode)  # looked at last: the file may have been opened meanwhile
        return stat if held is None or held.stat is None else held.stat

    def asking(self, inode: int) -> int:
        """The kernel is going to get an answer to GETATTR: from here on no commit is answered before it is told of it.

        To be called before what is answered is read. The result is for ``lasting``.
        """
        if _is_balance(inode):
            return self._balances.asking(nodes.number_of(inode))
        held = self._held.get(inode)
        if held is None:
            return 0
        held.asked = True
        if inode in self._growing:
            if not self._lasting:
                self._engine.attend(Attending.KERNEL, True)
            self._lasting.add(inode)
        elif inode == Fixed.RECEIPTS:
            self._engine.attend(Attending.RECEIPTS, True)
            self.learn()  # the core may have answered one since this request came
        return held.dropped

    def lasting(self, inode: int, asked: int) -> bool:
        """It gets it now. Whether it may keep it: not if it was told of a commit since ``asking``, for that came too early."""
        if _is_balance(inode):
            return self._balances.lasting(nodes.number_of(inode), asked)
        held = self._held.get(inode)
        return held is None or held.dropped == asked

    def _forgotten(self, inodes: set[int]) -> None:
        """The kernel does not have their attributes any more."""
        if Fixed.RECEIPTS in inodes:
            self._engine.attend(Attending.RECEIPTS, False)
        if self._lasting:
            self._lasting -= inodes
            if not self._lasting:
                self._engine.attend(Attending.KERNEL, False)

    async def opened(self, inode: int) -> None:
        """OPEN of a file."""
        if _is_balance(inode):
            if self._balances.opened(nodes.number_of(inode)):
                self._tell(self._notify.drop_pages, inode)  # see below
            return
        held = self._held.get(inode)
        if held is None:
            return
        stat = await self._size(inode)  # no checkpoint from here on
        held.opened += 1
        if held.opened > 1:
            return
        held.stat = stat
        # A commit that is not announced yet changes the size too: GETATTR may have given it while nobody had the file open.
        if held.stale or held.renewed != stat:
            held.stale = False
            held.renewed = stat
            # Not in a worker: while nobody has it open, no READ has locked a page.
            self._tell(self._notify.drop_pages, inode)
            if stat is not None:
                self._tell(self._notify.grow, inode, stat.size)

    def released(self, inode: int) -> None:
        """RELEASE of a file."""
        if _is_balance(inode):
            self._balances.released(nodes.number_of(inode))
            return
        held = self._held.get(inode)
        if held is not None and held.opened:
            held.opened -= 1
            if not held.opened:
                held.stat = None

    # -- telling it

    async def committed(self, change: Change) -> None:
        """Entries became durable. When it returns the kernel has nothing that is older. Not to be called twice at once."""
        opened: dict[int, Held] = {}
        attributes, pages = self._balances.committed(change.touched) if change.touched else ([], [])
        for ordinal in attributes:
            await self._drop_balance_attributes(ordinal)
        for ordinal in change.touched:
            for kind in _OTHER_ACCOUNT_FILES:
                inode = nodes.inode(kind, ordinal)
                held = self._held.get(inode)
                if held is None:
                    continue
                held.stale = True
                if held.opened:
                    opened[inode] = held
                else:
                    self._drop_attributes(inode, held)
        lasting = set(self._lasting)
        for inode in lasting:
            self._drop_attributes(inode, self._held[inode])
        self._forgotten(lasting)
        if (opened or pages) and not self._stopped:
            with trio.CancelScope() as self._renewing:
                await self._renew(opened, pages)

    async def _drop_balance_attributes(self, ordinal: int) -> None:
        """Told to nobody, it must be told again when the kernel is about to make the inode."""
        inode = nodes.inode(Kind.BALANCE, ordinal)
        with trio.move_on_after(COMING_SECONDS) as waiting:
            while True:
                try:
                    self._notify.drop_attributes(inode)
                except FileNotFoundError:
                    if self._balances.coming(ordinal):
                        await trio.sleep(AGAIN_SECONDS)
                        continue
                return
        if waiting.cancelled_caught:
            log.warning("the kernel does not make an inode that it has asked for", inode=inode)

    async def _renew(self, opened: dict[int, Held], balances: Sequence[int]) -> None:
        """The three steps from above. A file that is closed meanwhile may be done in vain."""
        inodes = [nodes.inode(Kind.BALANCE, ordinal) for ordinal in balances]
        await self._in_thread(self._notify.drop_pages, [(inode,) for inode in (*inodes, *opened)])
        for ordinal in balances:
            self._balances.renewed(ordinal)
        sizes: list[tuple[int, int]] = []
        for inode, held in opened.items():
            stat = await self._size(inode)
            held.stale = False
            if stat is None:
                continue
            if held.stat is not None:
                held.stat = held.renewed = stat
                sizes.append((inode, stat.size))
            else:  # closed meanwhile; and somebody may have got the old size after the first step
                self._tell(self._notify.drop_attributes, inode)
        if sizes:
            await self._in_thread(self._notify.grow, sizes)

    async def _in_thread(self, tell: Callable[..., None], arguments: Sequence[tuple[int, ...]]) -> None:
        def tell_all() -> None:
            for each in arguments:
                self._tell(tell, *each)

        await trio.to_thread.run_sync(tell_all, abandon_on_cancel=True, limiter=self._thread)

    async def _size(self, inode: int) -> Stat | None:
        return await self._stat(inode) if nodes.kind_of(inode) in _GROWING_FILES else None

    def stop(self) -> None:
        """READs are not answered any more: do not wait for one."""
        self._stopped = True
        self._renewing.cancel()

    def answered(self, answer: Answer) -> None:
        """A receipt is new or has grown."""
        inode = Fixed.DRY_RECEIPTS if answer.dry_run else Fixed.RECEIPTS
        held = self._held.get(inode)
        if held is not None:
            self._drop_attributes(inode, held)

    def _drop_attributes(self, inode: int, held: Held) -> None:
        if held.asked:
            held.asked = False
            held.dropped += 1
            if inode == Fixed.RECEIPTS:
                self._forgotten({inode})
            self._tell(self._notify.drop_attributes, inode)

    @staticmethod
    def _tell(tell: Callable[..., None], *arguments: int) -> None:
        with suppress(FileNotFoundError):  # the kernel has dropped the inode, its FORGET is on the way
            tell(*arguments)


def _is_balance(inode: int) -> bool:
    return nodes.kind_of(inode) is Kind.BALANCE
