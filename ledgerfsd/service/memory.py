"""What was signed last: the memory of the signer, and the rule that goes by it. Start at ``Memory``.

It is kept twice, beside the keys and in a place apart from the store, so that a copy of an older store is noticed even when
the keys in it were rolled back with it. The later of the two counts; the earlier one must be a beginning of the same log.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import msgspec

from ledgerfsd.core.hashing import leaf_hashes, mth, node_hash
from ledgerfsd.errors import StoreError
from ledgerfsd.journal.layout import write_durably
from ledgerfsd.merkle import note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.proof import ProofError, verify_consistency, verify_inclusion
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.last_signed import VARIABLE, LastSigned
from ledgerfsd.service.signer_lines import Shown


class _Restore(msgspec.Struct, frozen=True):
    t: str
    index: int
    incarnation: int
    signed_size: int
    signed_root: str


class _Seal(msgspec.Struct, frozen=True):
    t: str
    index: int
    first: int
    count: int
    log_root: str


class Memory:
    """What was signed last, in both places. Raises StoreError: it cannot be read, or the places contradict each other."""

    def __init__(self, keys: Keyring, apart: Path | None = None) -> None:
        self._keys = keys
        self._places = [keys.last_signed_path, *([apart] if apart else [])]
        self._files = [LastSigned(path, keys.origin) for path in self._places]
        known = [file.head for file in self._files if file.head is not None]
        known.sort(key=lambda each: each.size)
        self.last = known[-1] if known else Checkpoint(keys.origin, 0, b"")
        self.earlier = known[0] if known and known[0] != self.last else None  # the other place's, when it lags behind
        if self.earlier and self.earlier.size == self.last.size:
            what = f"{self._places[0]} and {self._places[1]} have two roots for {self.last.size} entries"
            raise StoreError(
                what, hint="two histories were signed, or a file was changed: find out before anything else"
            )
        self._complete = len(known) == len(self._places)
        self._beside = ThreadPoolExecutor(1)  # kept: a thread for each signature costs as much as its sync

    def sign(
        self,
        size: int,
        root: bytes,
        proof: Sequence[bytes],
        seal: Shown,
        *,
        earlier: Sequence[bytes] = (),
        restored: Shown | None = None,
    ) -> bytes:
        """The signed checkpoint. Raises ProofError: it would be a second history, or of another size. StoreError: keys or memory fail.

        ``proof`` leads from ``last`` to it, ``earlier`` from ``earlier``; ``seal`` is the last leaf, which says of itself how large the
        log is. Instead of both proofs, ``restored`` shows that the log owns up to having lost just what was signed last.
        """
        last = self.last
        _ends_with(seal, size, root)
        if restored is not None:
            life = self._owns_up(restored, size, root)
        else:
            life = 0
            if size < max(1, last.size):
                raise ProofError(f"the checkpoint of size {last.size} is signed; {size} is smaller")
            for known, path in ((last, proof), (self.earlier, earlier)):
                if known is not None and known.size:
                    verify_consistency(known.size, size, known.root, root, path if size > known.size else [])
        head = Checkpoint(self._keys.origin, size, root)
        # The keys come first: they may have gone, and nothing is to be remembered that was not signed.
        data = note.sign(head.body(), self._keys.signers())
        if life:
            for where in self._places:
                self._keep(where.with_name(f"{where.name}.lost-{life}-{last.size}-{last.root.hex()[:8]}"), last)
        if head != last or self.earlier is not None or not self._complete:
            for where in self._places:
                self._prepare(where)
            self._remember(head, anew=life > 0)
            self.last, self.earlier, self._complete = head, None, True
        return data

    def _remember(self, head: Checkpoint, *, anew: bool) -> None:
        # Side by side: a signature waits for one sync of the disk, not for two after each other. Both have ended before anything is
        # said of either: the next request must not find one under way.
        first, *others = self._files
        beside = [self._beside.submit(file.write, head, anew=anew) for file in others]
        try:
            first.write(head, anew=anew)
        finally:
            wait(beside)
        for written in beside:
            written.result()

    def _owns_up(self, restored: Shown, size: int, root: bytes) -> int:
        """The incarnation that the restore began. Raises ProofError: it is none, or of something else."""
        _is_there(restored, size, root)
        said = msgspec.json.decode(restored.entry, type=_Restore)
        if said.t != "restore/1" or said.index != restored.index:
            raise ProofError(f"entry {restored.index} is no restore")
        if (said.signed_size, said.signed_root) != (self.last.size, self.last.root.hex()):
            raise ProofError(f"the restore at entry {restored.index} is not of the checkpoint of size {self.last.size}")
        return said.incarnation

    def _keep(self, path: Path, head: Checkpoint) -> None:
        self._prepare(path)
        try:
            write_durably(path, head.body().encode())
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None

    @staticmethod
    def _prepare(path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            hint = f"the setting last_signed, or {VARIABLE}, names another directory"
            raise StoreError(f"{path.parent}: {error.strerror}", hint=hint) from None


def _is_there(shown: Shown, size: int, root: bytes) -> list[bytes]:
    """The way from an entry up to the root. Raises ProofError: it is not in the log."""
    path = [bytes.fromhex(each) for each in shown.path]
    verify_inclusion(shown.index, size, leaf_hashes([shown.entry.encode()]), path, root)
    return path


def _ends_with(seal: Shown, size: int, root: bytes) -> None:
    """Raise ProofError unless the last leaf is a seal that goes with this size.

    A consistency proof of RFC 6962 does not bind the new size: one from 7 to 12 leaves also passes as one from 7 to 13. The
    seal does, because it says its own index; and the siblings on its way up, which are all to its left, are the tree of what
    stands before it, which it names too.
    """
    if seal.index != size - 1:
        raise ProofError(f"entry {seal.index} is not the last of {size}")
    path = _is_there(seal, size, root)
    try:
        said = msgspec.json.decode(seal.entry, type=_Seal)
    except msgspec.DecodeError as error:
        raise ProofError(f"entry {seal.index} is no seal: {error}") from None
    if (said.t, said.index, said.first + said.count) != ("seal/1", seal.index, seal.index):
        raise ProofError(f"entry {seal.index} is no seal of a log of {size} entries")
    before = path[0] if path else mth(b"")
    for sibling in path[1:]:
        before = node_hash(sibling, before)
    if before.hex() != said.log_root:
        raise ProofError(f"the seal of {size} entries is of another log")
