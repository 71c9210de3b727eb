"""A part of the tree with a module of its own: its names, its listings, its files.

Start at ``Branch``. ``tree``, ``contents`` and ``operations`` know nothing of what a branch holds: an inode whose kind a
branch owns is the branch's to explain. The composition root makes the branches; the defaults here are those of files and
directories that are only read.
"""

from __future__ import annotations

import enum
import errno
import os
import select
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

READ_ONLY_FILE: Final = 0o444
READ_ONLY_DIRECTORY: Final = 0o555
READY: Final = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM


class Stat(NamedTuple):
    """What the kernel wants to know of a file."""

    size: int
    mtime_ns: int


class Keep(enum.Enum):
    """What the kernel may keep of a file or directory."""

    FOREVER = enum.auto()  # attributes and pages: it never changes
    NOTHING = enum.auto()  # every ``stat`` and ``read`` asks us, so no commit has to tell the kernel


class Place(NamedTuple):
    """Where a branch hangs: a name in one of the directories that are always there."""

    directory: Fixed
    name: bytes
    inode: int


class Handle:
    """An open file of a branch that has a state of its own. What a file cannot do is EBADF, as of any descriptor."""

    seekable = True

    async def read(self, offset: int, size: int) -> bytes:  # noqa: ARG002
        """A piece of the file. May wait; a wait is cancelled when the reader is interrupted."""
        raise fault(errno.EBADF)

    async def write(self, offset: int, data: bytes) -> int:  # noqa: ARG002
        """How many bytes were taken."""
        raise fault(errno.EBADF)

    def poll(self, notify: Callable[[], None] | None) -> int:  # noqa: ARG002
        """What ``poll`` would not wait for. If that is nothing, ``notify`` is called once when it may have changed."""
        return READY

    async def flush(self) -> None:
        """A descriptor of the open file is closed; an error raised here is the error of ``close``."""

    async def release(self) -> None:
        """The last descriptor is gone. Nobody hears an error of it."""


class Listing:
    """What a directory lists: names that were taken when it was opened, and behind them those that only grow at their end."""

    def __init__(self, taken: Sequence[tuple[bytes, int]], more: Callable[[int], Iterator[tuple[bytes, int]]]) -> None:
        """``more(skip)``: those behind, without the first ``skip``. Nothing of them is kept."""
        self._taken = taken
        self._more = more

    def entries(self, skip: int) -> Iterator[tuple[bytes, int]]:
        """Without the first ``skip``."""
        yield from self._taken[skip:]
        yield from self._more(max(0, skip - len(self._taken)))


class Branch:
    """One part of the tree. Methods raise OSError; what they raise is the errno of the request."""

    kinds: ClassVar[frozenset[Kind]] = frozenset()
    places: ClassVar[tuple[Place, ...]] = ()
    in_account: ClassVar[Mapping[bytes, Kind]] = {}  # names in accounts/<id>/; the inode's number is the ordinal

    # -- names

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:  # noqa: ARG002
        """Inode number of a name in one of our directories, 0 if there is none; and whether it will always mean it."""
        raise fault(errno.ENOTDIR)

    def parent(self, directory: int) -> int:
        """Inode number of the directory above one of ours that is no ``Place``."""
        raise KeyError(directory)

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:
        """Name and inode number of what a directory lists, without the first ``skip`` names."""
        raise KeyError(directory, skip)

    def taken(self, directory: int) -> list[tuple[bytes, int]] | Listing | None:  # noqa: ARG002
        """What a directory lists, if new names may come between the others: taken once when it is opened. None for those
        that only grow at their end, or not at all."""
        return None

    # -- what a file is

    def keep(self, inode: int) -> Keep:  # noqa: ARG002
        """What the kernel may keep of it."""
        return Keep.NOTHING

    def mode(self, inode: int) -> int:
        """Its permission bits."""
        return READ_ONLY_DIRECTORY if nodes.is_directory(inode) else READ_ONLY_FILE

    def index_of(self, inode: int) -> int:  # noqa: ARG002
        """The entry that it shows (its extended attributes are of that one), -1 for none."""
        return -1

    async def stat(self, inode: int) -> Stat:
        """Its size, exact before it is opened, and its mtime. 0 is the size of directories."""
        raise KeyError(inode)

    # -- reading

    async def open(self, inode: int, flags: int) -> Handle | None:  # noqa: ARG002
        """Open a file; ``None`` when READs go to ``read`` below. By default it is only read."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise fault(errno.EROFS)
        return None

    async def read(self, inode: int, offset: int, size: int) -> bytes | memoryview:
        """A piece of a file that was opened without a handle of its own."""
        raise KeyError(inode, offset, size)

    async def readlink(self, inode: int) -> bytes:  # noqa: ARG002
        """Where a symbolic link leads."""
        raise fault(errno.ENOENT)

    # -- changing

    async def create(self, parent: int, name: bytes, flags: int) -> tuple[int, Handle]:  # noqa: ARG002
        """Make a file and open it: its inode number and handle."""
        raise fault(errno.EROFS)

    async def mkdir(self, parent: int, name: bytes) -> int:  # noqa: ARG002
        """Make a directory; its inode number."""
        raise fault(errno.EROFS)

    async def remove(self, parent: int, name: bytes, *, directory: bool) -> None:  # noqa: ARG002
        """Unlink a file, or remove a directory."""
        raise fault(errno.EROFS)

    async def truncate(self, inode: int, size: int) -> None:  # noqa: ARG002
        """Set the size of a file."""
        raise fault(errno.EROFS)

    # -- the end

    def stop(self) -> None:
        """The mount goes: whoever waits is to be answered now."""


class Branches:
    """All branches of a mount, found by inode number or by where they hang."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._by_kind = {kind: branch for branch in branches for kind in branch.kinds}
        self._parents = {place.inode: int(place.directory) for branch in branches for place in branch.places}
        self.in_account = {name: kind for branch in branches for name, kind in branch.in_account.items()}
        self.places = [place for branch in branches for place in branch.places]

    def of(self, inode: int) -> Branch | None:
        """The branch to which a file belongs, None for those of the trunk."""
        return self._by_kind.get(nodes.kind_of(inode))

    def stop(self) -> None:
        """The mount goes."""
        for branch in set(self._by_kind.values()):
            branch.stop()

    def parent(self, directory: int) -> int:
        """Inode number of the directory above one of a branch."""
        above = self._parents.get(directory)
        if above is not None:
            return above
        kind = nodes.kind_of(directory)
        if kind in self.in_account.values():
            return nodes.inode(Kind.ACCOUNT, nodes.number_of(directory))
        return self._by_kind[kind].parent(directory)


def fault(number: int) -> OSError:
    """The error with this errno."""
    return OSError(number, os.strerror(number))
