"""The handlers as such: what may leave them, what the kernel is told, and waiting for room."""

from __future__ import annotations

import errno
import json
import stat
from typing import Any, cast

import pyfuse3
import pytest
import trio

from ledgerfsd import limits
from ledgerfsd.errors import Refused
from ledgerfsd.service.ledger import Ledger, Room
from ledgerfsd.types import Mode
from ledgerfsd.vfs import entries, mount
from ledgerfsd.vfs.nodes import Fixed
from tests.fs.conftest import Mounted, lines, packed, pay

pytestmark = pytest.mark.trio


async def test_nothing_but_fuse_errors_leaves_a_handler(mounted_here: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEMANTICS 10.1"""
    operations, ctx = mounted_here.operations, mounted_here.ctx
    for raised, told in (
        (ZeroDivisionError(), errno.EIO),
        (IndexError(), errno.EIO),
        (OSError(errno.EINVAL, "x"), errno.EIO),
        (OSError("no number"), errno.EIO),
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC),
        (pyfuse3.FUSEError(errno.ENOENT), errno.ENOENT),
    ):

        async def fails(*_: Any, error: Exception = raised) -> Any:
            raise error

        monkeypatch.setattr(operations.tree, "lookup", fails)
        with pytest.raises(pyfuse3.FUSEError) as seen:
            await operations.lookup(pyfuse3.ROOT_INODE, pyfuse3.FileNameT(b"x"), ctx)
        assert seen.value.errno == told
    assert operations.ledger.metrics.faults._value.get() == 2


def _handlers() -> list[str]:
    base = vars(pyfuse3.Operations)
    return [name for name in base if not name.startswith("_") and callable(base[name])]


async def test_every_request_has_a_handler() -> None:
    """A missing one would be ENOSYS, which the kernel remembers for the whole mount. SEMANTICS 10.1"""
    left_to_the_kernel = {"access", "init", "stacktrace"}
    own = set(vars(mount.LedgerOperations))
    assert {name for name in _handlers() if name not in own} == left_to_the_kernel


async def test_names_only_is_available() -> None:
    """If this fails, pyfuse3 lays its structure out anew: see vfs/entries.py. SEMANTICS 2.9"""
    assert entries.AVAILABLE
    only = entries.NameOnly()
    entry = only.set(4711, stat.S_IFDIR)
    assert entry.st_ino == 0, "the node number, as pyfuse3 reads it back"
    assert entry.st_mode == 0o040000
    assert only.set(4712, stat.S_IFREG).st_mode == 0o100000


async def test_overload(ledger: Ledger, autojump_clock: trio.testing.MockClock) -> None:
    """Waiting for room ends with EBUSY, and those who wait are served in order. SEMANTICS 10.2"""
    assert ledger.room.limit == limits.INFLIGHT_BYTES_MAX
    room = Room(100)
    await room.take(90, 1)
    began = trio.current_time()
    with pytest.raises(Refused) as refused:
        await room.take(20, limits.WAIT_SECONDS_MAX)
    assert refused.value.code.errno == errno.EBUSY
    assert trio.current_time() - began == pytest.approx(limits.WAIT_SECONDS_MAX)
    served = []

    async def one(size: int) -> None:
        await room.take(size, 30)
        served.append(size)

    async with trio.open_nursery() as nursery:
        for size in (60, 5, 500):  # the second would fit at once, but it is not its turn; the third needs all there is
            nursery.start_soon(one, size)
            await trio.testing.wait_all_tasks_blocked()
        assert served == []
        room.give(90)
        await trio.testing.wait_all_tasks_blocked()
        assert served == [60, 5]
        room.give(60)
        room.give(5)
    assert served == [60, 5, 500]


async def test_busy_is_answered_and_may_be_tried_again(mounted_here: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and documents that found no room are not booked; the same again is. SEMANTICS 10.2"""
    monkeypatch.setattr(limits, "WAIT_SECONDS_MAX", 0.01)
    room = mounted_here.operations.ledger.room
    counts = mounted_here.operations.ledger.engine.counts
    before = counts().transactions
    room.used = room.limit
    for name, data in (("x.json", packed(pay())), ("x.ndjson", lines(pay(), pay()))):
        with pytest.raises(pyfuse3.FUSEError) as seen:
            await mounted_here.write(f"inbox/{name}", data)
        assert seen.value.errno == errno.EBUSY
        assert b'"busy"' in await mounted_here.read(f"receipts/{name}")
    room.used = 0
    assert counts().transactions == before
    for name, data in (("x.json", packed(pay())), ("x.ndjson", lines(pay(), pay()))):
        mounted_here.operations.door.unlink(Fixed.INBOX, name.encode())
        await mounted_here.write(f"inbox/{name}", data)
        assert b'"committed"' in await mounted_here.read(f"receipts/{name}")
    assert counts().transactions == before + 3
    assert room.used == 0


async def test_dry_runs_commit_nothing(mounted_here: Mounted) -> None:
    """SEMANTICS 5.3"""
    entries_before = mounted_here.operations.ledger.engine.counts().entries
    await mounted_here.write("inbox/dry-run/x.json", packed(pay()))
    with pytest.raises(pyfuse3.FUSEError) as seen:
        await mounted_here.write(
            "inbox/dry-run/y.ndjson", lines(pay("2.00"), pay("1.00", "b", "a"), pay("5.00", "b", "a"))
        )
    assert seen.value.errno == errno.EDQUOT
    assert json.loads(await mounted_here.read("receipts/dry-run/x.json"))["status"] == "accepted"
    codes = [json.loads(line)["code"] for line in (await mounted_here.read("receipts/dry-run/y.ndjson")).splitlines()]
    assert codes == ["ok", "ok", "insufficient_funds"]
    with pytest.raises(pyfuse3.FUSEError):
        await mounted_here.find("receipts/x.json")
    assert mounted_here.operations.ledger.engine.counts().entries == entries_before


async def test_ledger_submits_modes(ledger: Ledger) -> None:
    """The door for those who come without a file: all or none, each, and nothing."""
    atomic = await ledger.submit(lines(pay(), pay("1.00", "nobody")), source=b"m", first_line=1, mode=Mode.ATOMIC)
    assert (atomic.committed, len(atomic)) == (0, 2)
    each = await ledger.submit(lines(pay(), pay("1.00", "nobody")), source=b"m", first_line=1, mode=Mode.EACH)
    assert (each.committed, len(each)) == (1, 2)
    assert cast("Any", ledger.metrics.committed)._value.get() == 1 + 3
    assert ledger.room.used == 0
