"""What an anchor is: a place outside, which is given a checkpoint and gives evidence of it back.

Start at ``Anchor``. Each kind has a file of its own beside this one; ``make`` chooses by the settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

import trio

from ledgerfsd.errors import LedgerError
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.merkle.proof import ProofError

if TYPE_CHECKING:
    from ledgerfsd.merkle.checkpoint import Checkpoint
    from ledgerfsd.service.system import AnchorKind

SUFFIX: Final = ".checkpoint"  # of copies of checkpoints, in folders and buckets
T = TypeVar("T")


class AnchorError(LedgerError):
    """The anchor holds another history. It is not tried again until somebody has looked into it."""


class Unreachable(LedgerError):
    """The anchor gave no evidence, or evidence that does not hold. It is tried again."""


class Head(NamedTuple):
    """What is to be anchored."""

    size: int
    root: bytes
    data: bytes  # the signed note
    incarnation: int = 1

    @property
    def file(self) -> str:
        """The name of its copies. What was signed before a restore, and is lost, may have had the same size."""
        return f"{self.size:020}" + (f"-{self.incarnation}" if self.incarnation > 1 else "") + SUFFIX


class Evidence(NamedTuple):
    """What an anchor gave."""

    hash: str  # hex SHA-256 of the evidence
    detail: dict[str, Any]  # what a reader needs to find or to judge it
    ending: str = ""  # the evidence is kept with the digest as <name><ending>; "": it is kept by the anchor only
    data: bytes = b""


class Anchor(Protocol):
    """A place outside. ``put`` may take as long as it likes: its caller has a timeout, and nobody else waits for it."""

    kind: ClassVar[AnchorKind]
    records: ClassVar[bool]  # the hash of its evidence is to be written into the log (anchor/1)
    name: str

    @property
    def where(self) -> str:
        """The place as people see it in status and digests: never with a secret in it."""

    async def put(self, head: Head) -> Evidence:
        """Anchor a checkpoint, or find that it is anchored. Raises AnchorError, other LedgerErrors, OSError."""


class Threads:
    """Calls that block, one at a time. One that hangs keeps its place: trying again and again piles nothing up."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """The result of ``call``; on a timeout its thread is left behind."""
        return await trio.to_thread.run_sync(call, *arguments, abandon_on_cancel=True, limiter=self._limiter)


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes, where: str) -> Checkpoint:
    """A checkpoint that lies somewhere, its signatures not verified. Raises Unreachable: it is none."""
    try:
        return checkpoint.parse(note.parse(data).text)
    except ProofError as error:
        raise Unreachable(f"{where} is no checkpoint ({error})", hint="move it away") from None


def compare(where: str, data: bytes, ours: bytes) -> None:
    """Raise AnchorError unless two checkpoints of one size are of one tree; Unreachable: what lies there is none."""
    theirs, mine = parse(data, where), parse(ours, "our own checkpoint")
    if theirs[:3] != mine[:3]:
        what = f"{where} has another root than this ledger at {mine.size} entries: there are two histories"
        raise AnchorError(what, hint="verify the store with it: ledgerfs verify --anchor")
