"""What the kernel may cache, and what it is told when that changes."""

from __future__ import annotations

import json
import threading

import pyfuse3
import pytest
import trio

from ledgerfsd.core.kernel import HeldBalances, ffi, lib
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.nodes import Fixed, Kind
from tests.fs.conftest import Mounted, packed, pay

pytestmark = pytest.mark.trio


async def test_only_what_the_kernel_holds_is_invalidated(mounted_here: Mounted) -> None:
    """LOOKUP minus FORGET decides, and the account is watched only as long. SEMANTICS 1.2"""
    operations, told, ctx = mounted_here.operations, mounted_here.told, mounted_here.ctx
    await mounted_here.write("inbox/1.json", packed(pay()))
    assert not [inode for _, inode, _ in told.all if nodes.kind_of(inode) is Kind.BALANCE]
    held = pyfuse3.InodeT(await mounted_here.find("accounts/b/balance.json"))
    await mounted_here.find("accounts/b/balance.json")
    directory = pyfuse3.InodeT(await mounted_here.find("transactions"))
    await mounted_here.write("inbox/2.json", packed(pay()))
    assert told.of(held) == [], "nothing that is valid was given yet"
    await operations.getattr(held, ctx)
    await operations.getattr(directory, ctx)
    await mounted_here.write("inbox/3.json", packed(pay("1.00", "c", "a")))  # another account
    assert told.of(held) == []
    assert told.of(directory) == ["attributes"]
    await operations.forget([(held, 1)])
    await mounted_here.write("inbox/4.json", packed(pay()))
    await mounted_here.write("inbox/5.json", packed(pay()))
    assert told.of(held) == ["attributes"], "once; it was not asked for in between"
    assert told.of(directory) == []
    await operations.getattr(held, ctx)
    await operations.forget([(held, 1)])
    await mounted_here.write("inbox/6.json", packed(pay()))
    assert told.of(held) == []
    assert operations.ledger.engine.touched() == []


async def test_a_balance_that_nobody_has_read_since_costs_a_commit_nothing(mounted_here: Mounted) -> None:
    """It is told of once; the engine reports its account again when it is asked for, is open or has pages. SEMANTICS 1.2"""
    operations, told, ctx = mounted_here.operations, mounted_here.told, mounted_here.ctx
    engine = operations.ledger.engine
    inode = pyfuse3.InodeT(await mounted_here.find("accounts/b/balance.json"))
    account, commits = nodes.number_of(inode), 0

    async def reported() -> int:
        """How many of two commits had the account among those that are told of."""
        nonlocal commits
        seen = lib.lfs_kernel_commits(engine.handle, account)
        for _ in range(2):
            commits += 1
            await mounted_here.write(f"inbox/{commits}.json", packed(pay()))
        return int(lib.lfs_kernel_commits(engine.handle, account)) - seen

    assert await reported() == 0, "nothing that is valid was given yet"
    await operations.getattr(inode, ctx)
    assert await reported() == 1
    assert told.of(inode) == ["attributes"]
    opened = await operations.open(inode, pyfuse3.FlagT(0), ctx)
    assert told.of(inode) == ["pages"]
    assert await reported() == 2, "open"
    assert told.of(inode) == ["pages", "pages"]
    await operations.release(opened.fh)
    assert await reported() == 1, "the kernel has pages"
    assert await reported() == 0
    assert told.of(inode) == []
    log = pyfuse3.InodeT(await mounted_here.find("accounts/b/tx.log"))
    assert await reported() == 2, "another file of the account is held"
    await operations.forget([(log, 1)])
    assert await reported() == 0


async def test_a_balance_that_is_closed_while_its_pages_are_dropped(
    mounted_here: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its account may be watched no more, so who opens it next has them dropped once more. SEMANTICS 1.2"""
    operations, told, ctx = mounted_here.operations, mounted_here.told, mounted_here.ctx
    inode = pyfuse3.InodeT(await mounted_here.find("accounts/b/balance.json"))
    opened = await operations.open(inode, pyfuse3.FlagT(0), ctx)
    told.of(inode)
    with monkeypatch.context() as patched:
        patched.setattr(told, "drop_pages", lambda of: trio.from_thread.run_sync(operations.kernel.released, of))
        await mounted_here.write("inbox/1.json", packed(pay()))
    await mounted_here.write("inbox/2.json", packed(pay()))
    await operations.open(inode, pyfuse3.FlagT(0), ctx)
    assert told.of(inode) == ["pages"]
    await operations.release(opened.fh)


async def test_pages_of_open_files_are_dropped(mounted_here: Mounted) -> None:
    """Those of a file that is not open when it is opened again. SEMANTICS 1.2"""
    operations, told, ctx = mounted_here.operations, mounted_here.told, mounted_here.ctx
    for name, whole in (
        ("balance.json", ["pages"]),
        ("tx.log", ["pages", "grow"]),
        ("statement.csv", ["pages", "grow"]),
    ):
        inode = pyfuse3.InodeT(await mounted_here.find(f"accounts/b/{name}"))
        first = (await operations.open(inode, pyfuse3.FlagT(0), ctx)).fh
        assert told.of(inode) == whole, "the first time"
        second = (await operations.open(inode, pyfuse3.FlagT(0), ctx)).fh
        await operations.release(first)
        assert told.of(inode) == []
        await mounted_here.write(f"inbox/{inode}-1.json", packed(pay()))
        assert told.of(inode) == whole
        await operations.release(second)
        await operations.open(inode, pyfuse3.FlagT(0), ctx)
        assert told.of(inode) == [], "nothing was committed in between"
        await operations.release(second)
        await mounted_here.write(f"inbox/{inode}-2.json", packed(pay()))
        await mounted_here.write(f"inbox/{inode}-3.json", packed(pay()))
        assert told.of(inode) == []
        await operations.open(inode, pyfuse3.FlagT(0), ctx)
        assert told.of(inode) == whole
        await operations.release(second)


async def test_a_size_is_told_when_no_older_page_is_left(
    mounted_here: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, who asks gets the old one; afterwards the kernel is made to have it. SEMANTICS 1.2"""
    operations, told, ctx = mounted_here.operations, mounted_here.told, mounted_here.ctx
    inode = pyfuse3.InodeT(await mounted_here.find("accounts/b/tx.log"))
    opened = await operations.open(inode, pyfuse3.FlagT(0), ctx)
    before = (await operations.getattr(inode, ctx)).st_size
    sizes, read = [], []

    def look(of: int, size: int = 0) -> None:
        assert of == inode
        sizes.append((size, trio.from_thread.run(operations.getattr, inode, ctx).st_size))
        read.append(len(trio.from_thread.run(operations.read, opened.fh, 0, 1 << 16)))

    monkeypatch.setattr(told, "drop_pages", look)
    monkeypatch.setattr(told, "grow", look)
    await mounted_here.write("inbox/1.json", packed(pay()))
    after = (await operations.getattr(inode, ctx)).st_size
    assert sizes == [(0, before), (after, after)]
    assert read == [after, after]
    assert before < after


async def test_a_file_that_is_closed_while_its_pages_are_dropped(
    mounted_here: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked just then got the old size, for long. SEMANTICS 1.2"""
    operations, told, ctx = mounted_here.operations, mounted_here.told, mounted_here.ctx
    inode = pyfuse3.InodeT(await mounted_here.find("accounts/b/tx.log"))
    opened = await operations.open(inode, pyfuse3.FlagT(0), ctx)
    told.of(inode)

    def look(of: int) -> None:
        trio.from_thread.run(operations.getattr, of, ctx)
        trio.from_thread.run(operations.release, opened.fh)

    monkeypatch.setattr(told, "drop_pages", look)
    await mounted_here.write("inbox/1.json", packed(pay()))
    assert told.of(inode) == ["attributes"]


async def test_who_stops_waits_for_no_page(mounted_here: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A READ that nobody answers any more may have it locked. SEMANTICS 10.4"""
    operations, ctx = mounted_here.operations, mounted_here.ctx
    inode = pyfuse3.InodeT(await mounted_here.find("accounts/b/balance.json"))
    await operations.open(inode, pyfuse3.FlagT(0), ctx)
    waiting, go_on = trio.Event(), threading.Event()

    def drop_pages(inode: int) -> None:
        trio.from_thread.run_sync(waiting.set)
        go_on.wait(60)

    monkeypatch.setattr(mounted_here.told, "drop_pages", drop_pages)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mounted_here.write, "inbox/1.json", packed(pay()))
        await waiting.wait()
        operations.kernel.stop()
    go_on.set()
    with trio.fail_after(30):
        await mounted_here.write("inbox/2.json", packed(pay()))


async def test_receipts_are_live(mounted_here: Mounted) -> None:
    """A name that is answered anew; who has it open keeps what it was. SEMANTICS 1.8"""
    operations, ctx = mounted_here.operations, mounted_here.ctx
    await mounted_here.write("inbox/x.json", packed(pay()))
    inode = pyfuse3.InodeT(await mounted_here.find("receipts/x.json"))
    kept = await operations.open(inode, pyfuse3.FlagT(0), ctx)
    assert kept.direct_io
    assert (await operations.getattr(inode, ctx)).attr_timeout == 0
    before = await operations.read(kept.fh, 0, 4096)
    operations.door.unlink(Fixed.INBOX, b"x.json")
    await mounted_here.write("inbox/x.json", packed([pay("2.00"), pay("3.00")]))
    assert await operations.read(kept.fh, 0, 4096) == before
    assert len((await mounted_here.read("receipts/x.json")).splitlines()) == 2


async def test_first_lookup_of_a_changing_file_gives_no_validity(mounted_here: Mounted) -> None:
    """Between our reply and the kernel's inode an invalidation would be lost. SEMANTICS 1.2"""
    operations, ctx = mounted_here.operations, mounted_here.ctx
    account = pyfuse3.InodeT(await mounted_here.find("accounts/b"))
    for name, seconds in ((b"balance.json", 0), (b"tx.log", 0), (b"statement.csv", 0), (b"snapshots", 3600)):
        entry = await operations.lookup(account, pyfuse3.FileNameT(name), ctx)
        assert (entry.entry_timeout, entry.attr_timeout) == (3600, seconds)
        assert (await operations.getattr(entry.st_ino, ctx)).attr_timeout == 3600


async def test_a_read_is_as_new_as_the_ledger(mounted_here: Mounted) -> None:
    """A commit between GETATTR and READ. The size is always the same. SEMANTICS 1.8"""
    operations, ctx = mounted_here.operations, mounted_here.ctx
    inode = pyfuse3.InodeT(await mounted_here.find("accounts/b/balance.json"))
    size = (await operations.getattr(inode, ctx)).st_size
    await mounted_here.write("inbox/x.json", packed(pay("123456.00")))
    opened = await operations.open(inode, pyfuse3.FlagT(0), ctx)
    text = await operations.read(opened.fh, 0, 4096)
    assert json.loads(text)["balance"] == "123456.00"
    assert len(text) == size == (await operations.getattr(inode, ctx)).st_size


async def test_what_is_told_before_the_inode_is_there_is_told_again(
    mounted_here: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the kernel has made it, or has given it back. SEMANTICS 1.2"""
    engine, told = mounted_here.operations.ledger.engine, mounted_here.told
    held, asked, account = HeldBalances(engine), ffi.new("uint32_t *"), 1
    inode, tries = nodes.inode(Kind.BALANCE, account), list[int]()

    def drop_attributes(of: int) -> None:
        assert of == inode
        tries.append(of)
        if len(tries) == 5:
            held.forget(account, 2)
        if len(tries) != 3:
            raise FileNotFoundError

    monkeypatch.setattr(told, "drop_attributes", drop_attributes)
    for name, count in (("made", 3), ("given back", 5)):
        assert lib.lfs_kernel_looking(engine.handle, account, asked) == 0
        assert lib.lfs_kernel_entering(engine.handle, account, asked[0]) == 1
        await mounted_here.write(f"inbox/{name}.json", packed(pay()))
        assert len(tries) == count
