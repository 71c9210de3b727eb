"""The core's front before pyfuse3: switched on, its files adopted, switched off (ADR 36).

Start at ``Fronting``. The front reads the kernel's requests, answers the simplest ones and passes the others on. pyfuse3 does not know
of it: two functions of libfuse that it calls are ours (``requests``). Should a later pyfuse3 go another way, all is answered in Python,
as if there were no front: slower, and the log says so.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import structlog
import trio

from ledgerfsd.core.front import Front, Numbers
from ledgerfsd.errors import CODES, LedgerError
from ledgerfsd.service.inbox_front import FrontFiles
from ledgerfsd.vfs import nodes, requests
from ledgerfsd.vfs.kernel import LONG
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from pathlib import Path

    from ledgerfsd.service.proofs import Signed
    from ledgerfsd.vfs.operations import LedgerOperations

log = structlog.get_logger()

FUNCTIONS: Final = (b"fuse_session_fd", b"fuse_session_receive_buf")
NUMBERS: Final = Numbers(
    accounts=Fixed.ACCOUNTS,
    transactions=Fixed.TRANSACTIONS,
    account=nodes.inode(Kind.ACCOUNT, 0),
    balance=nodes.inode(Kind.BALANCE, 0),
    transaction=nodes.inode(Kind.TRANSACTION, 0),
    past_directory=nodes.past_directory(0, 0, 0),
    past_account=nodes.past_account(0, 0, 0),
    past_balance=nodes.inode(Kind.PAST_BALANCE, 0),
    receipts=Fixed.RECEIPTS,
    proofs=Fixed.PROOFS,
    receipt=nodes.inode(Kind.RECEIPT, 0),
    proof=nodes.inode(Kind.PROOF, 0),
)
LOOK_SECONDS: Final = 0.002  # at the end: whether a writer still waits


class Fronting:
    """The front of one mount. To be made before the mount is."""

    def __init__(self, operations: LedgerOperations) -> None:
        self._operations = operations
        self._front: Front | None = None
        if not all(map(requests.calls, FUNCTIONS)):
            self._say_so()
            return
        self._front = Front(
            operations.ledger.engine,
            inbox=Fixed.INBOX,
            kind=nodes.inode(Kind.INBOX_FILE, 0),
            errnos=((code.number, code.errno) for code in CODES.values()),
        )
        self._front.read(NUMBERS, uid=os.getuid(), gid=os.getgid(), seconds=LONG)
        self._files = FrontFiles(self._front, operations.inbox)
        operations.kernel.learn = self._files.learn
        operations.proofs.published = self._published
        operations.proofs.signing = self._front.signing
        operations.ledger.gauges.append(self._gauges)
        requests.divert(self._front.addresses, self._adopt)

    def start(self) -> None:
        """Begin to take requests. Raises LedgerError when it cannot: pyfuse3 waits for them already."""
        if self._front is None:
            return
        try:
            begun = self._front.start()
        except OSError as error:
            hint = "LEDGERFS_FRONT=off mounts without what failed"
            raise LedgerError(f"requests of the mount cannot be read: {error.strerror}", hint=hint) from None
        if not begun:
            self._say_so()
            self._close()

    def stop(self) -> None:
        """Take no more."""
        if self._front is not None:
            self._front.stop()

    async def end(self, seconds: float) -> None:
        """Take no more, and wait until everybody who waits for a commit has the answer, or until ``seconds`` are over."""
        if self._front is None:
            return
        self._front.stop()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
            while self._front.waiting:
                await trio.sleep(LOOK_SECONDS)
        self._close()

    def _close(self) -> None:
        requests.divert(None, None)
        self._files.close()
        self._operations.kernel.learn = lambda: None
        self._operations.proofs.published = lambda _, __: None
        self._operations.proofs.signing = lambda _: None
        self._operations.ledger.gauges.remove(self._gauges)
        self._front = None

    @staticmethod
    def _say_so() -> None:
        log.warning("requests of the mount are answered in Python only: this pyfuse3 is not known", see="ADR 36")

    def _published(self, root: Path, signed: Signed) -> None:
        if self._front is not None:
            self._front.checkpoint(root, signed.keys, signed.size, signed.data)

    def _gauges(self) -> dict[str, tuple[str, float]]:
        answered = self._front.answered if self._front is not None else 0
        return {"front_requests": ("Requests of the mount that the core answered by itself", float(answered))}

    def _adopt(self) -> None:
        try:
            for number, handle in self._files.adopt():
                self._operations.handles.put(number, handle)
        except Exception:
            log.exception("open inbox files are lost")
            self._operations.ledger.metrics.faults.inc()
