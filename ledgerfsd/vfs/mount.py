"""Mounting, serving and unmounting. Start at ``serve``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pyfuse3
import trio
from pyfuse3 import InodeT

from ledgerfsd import limits
from ledgerfsd.errors import LedgerError
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.proofs import Proofs
from ledgerfsd.vfs.branch import Branch
from ledgerfsd.vfs.front import Fronting
from ledgerfsd.vfs.operations import LedgerOperations

# pyfuse3 stops reading requests when so many wait, and a close() that waits for the disk is one: 99, its default, would
# let 99 writers stop every reader.
TASKS_MAX: Final = 100_000
# A worker thread that reads a long history must let the loop in: at each request it would else wait 5 ms, Python's default.
SWITCH_SECONDS: Final = 0.0005
STOP_SECONDS: Final = limits.WAIT_SECONDS_MAX + 5  # a commit on its way gets its reply; then the mount goes anyway


async def serve(
    ledger: Ledger,
    proofs: Proofs,
    mountpoint: Path,
    branches: Sequence[Branch] = (),
    *,
    allow_other: bool = False,
    front: bool = True,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve the ledger at ``mountpoint`` until it is unmounted or this is cancelled; ``ledger.run`` must be running, and
    ``Signing.run`` of the signer that ``proofs`` asks.

    ``front``: let the core answer what it can (ADR 36). ``ready`` is called when the mount is there. When cancelled,
    requests that have begun are answered first. Raises LedgerError when it cannot be mounted.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    operations = LedgerOperations(ledger, proofs, FuseNotify(), branches)
    ahead = Fronting(operations) if front else None
    try:
        pyfuse3.init(operations, str(mountpoint), _options(allow_other=allow_other))
    except RuntimeError as error:
        hint = "is /dev/fuse there, is fuse3 installed, and may this user mount?"
        raise LedgerError(f"cannot mount at {mountpoint}: {error}", hint=hint) from None
    try:
        if ahead is not None:
            ahead.start()
        ready()
        await _serve(operations, ahead)
    finally:
        if ahead is not None:
            await ahead.end(STOP_SECONDS)
        pyfuse3.close(unmount=True)
        ledger.on_change.remove(operations.kernel.committed)
        operations.receipts.close()


async def _serve(operations: LedgerOperations, ahead: Fronting | None) -> None:
    shield = trio.CancelScope(shield=True)
    ended = trio.Event()

    async def answer_requests() -> None:
        with shield:
            await pyfuse3.main(1, TASKS_MAX)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_requests)
        try:
            await ended.wait()
        except trio.Cancelled:
            shield.deadline = trio.current_time() + STOP_SECONDS
            operations.kernel.stop()
            operations.branches.stop()
            if ahead is not None:
                ahead.stop()
            pyfuse3.terminate()
            raise


def _options(*, allow_other: bool) -> set[str]:
    options = {"fsname=ledgerfs", "subtype=ledgerfs", "nosuid", "nodev"}
    if allow_other:
        options |= {"allow_other", "default_permissions"}  # the kernel then checks the mode bits of cached files too
    return options


class FuseNotify:
    """``kernel.Notify`` of this process's mount."""

    def drop_attributes(self, inode: int) -> None:
        """FUSE_NOTIFY_INVAL_INODE without a range."""
        pyfuse3.invalidate_inode(InodeT(inode), attr_only=True)

    def drop_pages(self, inode: int) -> None:
        """FUSE_NOTIFY_INVAL_INODE of the whole file."""
        pyfuse3.invalidate_inode(InodeT(inode))

    def grow(self, inode: int, size: int) -> None:
        """FUSE_NOTIFY_STORE of the last byte."""
        pyfuse3.notify_store(InodeT(inode), size - 1, b"\n")
