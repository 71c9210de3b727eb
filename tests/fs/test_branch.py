"""A branch: a part of the tree that explains itself."""

# ruff: noqa: ARG002  (the arguments are those of Branch and Handle, used or not)

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import pyfuse3
import pytest

from ledgerfsd.service.keys import Keys, usual_directory
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.proofs import Proofs
from ledgerfsd.service.query import Query
from ledgerfsd.service.signing import Signing
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Branch, Handle, Keep, Place, Stat
from ledgerfsd.vfs.nodes import Fixed, Kind
from ledgerfsd.vfs.operations import LedgerOperations
from tests.fs.conftest import Told

TOP = nodes.inode(Kind.EVENT_DIRECTORY, 0)
LASTING, NEWER = (nodes.inode(Kind.EVENT_FILE, number) for number in (1, 2))


class Slate(Handle):
    """A file that says how often it was read, and takes anything."""

    def __init__(self) -> None:
        self.taken = b""

    async def read(self, offset: int, size: int) -> bytes:
        return self.taken[offset : offset + size]

    async def write(self, offset: int, data: bytes) -> int:
        self.taken += data
        return len(data)

    async def flush(self) -> None:
        if self.taken == b"wrong":
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))


class Sample(Branch):
    """Two files and what may be made."""

    kinds = frozenset((Kind.EVENT_DIRECTORY, Kind.EVENT_FILE, Kind.HISTORY_DIRECTORY))
    places = (Place(Fixed.ROOT, b"sample", TOP),)
    in_account = {b"sample": Kind.HISTORY_DIRECTORY}  # noqa: RUF012

    def __init__(self) -> None:
        self.names = {b"lasting": LASTING, b"newer": NEWER}

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:
        return self.names.get(name, 0), name == b"lasting"

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:
        return iter(list(self.names.items())[skip:])

    def keep(self, inode: int) -> Keep:
        return Keep.FOREVER if inode == LASTING else Keep.NOTHING

    def mode(self, inode: int) -> int:
        return 0o644 if inode == NEWER else super().mode(inode)

    async def stat(self, inode: int) -> Stat:
        return Stat(0 if nodes.is_directory(inode) else 7, 1)

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        return b"a sample"[offset : offset + size]

    async def create(self, parent: int, name: bytes, flags: int) -> tuple[int, Handle]:
        self.names[name] = nodes.inode(Kind.EVENT_FILE, 9)
        return self.names[name], Slate()


@pytest.fixture
def operations(ledger: Ledger) -> Iterator[LedgerOperations]:
    signing = Signing(ledger, Keys(usual_directory(ledger.layout.root), ledger.origin))
    made = LedgerOperations(ledger, Proofs(ledger, Query(ledger), signing), Told(), [Sample()])
    yield made
    made.receipts.close()


CTX = pyfuse3.RequestContext()


async def find(operations: LedgerOperations, *names: str) -> pyfuse3.EntryAttributes:
    inode = pyfuse3.InodeT(1)
    for name in names:
        entry = await operations.lookup(inode, pyfuse3.FileNameT(name.encode()), CTX)
        inode = entry.st_ino
    return entry


@pytest.mark.trio
async def test_it_hangs_where_it_says(operations: LedgerOperations) -> None:
    assert [name for name, _, _ in operations.tree.entries(Fixed.ROOT, 2, None)][-1] == b"sample"
    assert [name for name, _, _ in operations.tree.entries(TOP, 0, None)] == [b".", b"..", b"lasting", b"newer"]
    assert operations.tree.parent(TOP) == Fixed.ROOT
    inside = await find(operations, "accounts", "a", "sample")
    account = await find(operations, "accounts", "a")
    assert stat.S_ISDIR(inside.st_mode)
    assert operations.tree.parent(inside.st_ino) == account.st_ino


@pytest.mark.trio
async def test_what_never_changes_is_the_kernels_to_keep_and_nothing_else(operations: LedgerOperations) -> None:
    for name, keeps in (("lasting", True), ("newer", False)):
        entry = await find(operations, "sample", name)
        assert bool(entry.attr_timeout) is bool(entry.entry_timeout) is keeps
        opened = await operations.open(entry.st_ino, pyfuse3.FlagT(os.O_RDONLY), CTX)
        assert (opened.keep_cache, opened.direct_io) == (keeps, not keeps)
        assert await operations.read(opened.fh, 2, 6) == b"sample"


@pytest.mark.trio
async def test_it_is_only_read_unless_it_says_otherwise(operations: LedgerOperations) -> None:
    entry = await find(operations, "sample", "lasting")
    attempts = (
        lambda: operations.open(entry.st_ino, pyfuse3.FlagT(os.O_WRONLY), CTX),
        lambda: operations.mkdir(pyfuse3.InodeT(TOP), pyfuse3.FileNameT(b"x"), pyfuse3.ModeT(0o755), CTX),
        lambda: operations.rmdir(pyfuse3.InodeT(TOP), pyfuse3.FileNameT(b"x"), CTX),
        lambda: operations.unlink(pyfuse3.InodeT(TOP), pyfuse3.FileNameT(b"lasting"), CTX),
    )
    for attempt in attempts:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await attempt()
        assert caught.value.errno == errno.EROFS


@pytest.mark.trio
async def test_a_file_may_be_made_and_written_and_close_may_fail(operations: LedgerOperations) -> None:
    opened, entry = await operations.create(
        pyfuse3.InodeT(TOP), pyfuse3.FileNameT(b"made"), pyfuse3.ModeT(0o644), pyfuse3.FlagT(os.O_RDWR), CTX
    )
    assert (await find(operations, "sample", "made")).st_ino == entry.st_ino
    assert await operations.write(opened.fh, 0, b"wrong") == 5
    assert await operations.read(opened.fh, 0, 9) == b"wrong"
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.flush(opened.fh)
    assert caught.value.errno == errno.EBADMSG
    await operations.release(opened.fh)
