"""Checkpoints and proofs as texts: ``log/checkpoint``, ``proofs/``, ``.ledgerfs/trusted_root.json``.

Start at ``Proofs.transaction``. A checkpoint is signed when somebody reads it, and kept. Proofs go by the *checkpoint in
force*: the one signed last, unless it is older than a second or too small, so that a listing with sizes, or a crowd of
readers, costs one signature a second however fast the ledger grows. Whoever reads the proof of something newer than anybody
did before has the next transactions signed ahead, once: he is likely to want theirs too (``sign_ahead``).
"""

from __future__ import annotations

import errno
import os
import re
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
import trio

from ledgerfsd.core.proofs import EntryProofs
from ledgerfsd.errors import LedgerError
from ledgerfsd.merkle import balance_proof
from ledgerfsd.merkle.tlog_proof import TlogProof, encode_hashes
from ledgerfsd.service.query import Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledgerfsd.service.ledger import Change, Ledger
    from ledgerfsd.service.query import Query
    from ledgerfsd.service.signing import Signing

log = structlog.get_logger()

IN_FORCE_SECONDS: Final = 1.0
HELD_SECONDS: Final = 0.5  # readers wait in the front for what is signed ahead
WAIT_SECONDS: Final = 4.5  # then here for a turn; what the signer has is waited for in any case, ANSWER_SECONDS at most
KEPT: Final = 256  # proofs: those that were asked for by stat are opened next

_SIZE: Final = re.compile(rb"[1-9][0-9]{0,18}")


class Signed(NamedTuple):
    """A signed checkpoint."""

    size: int
    data: bytes
    made: float  # trio's clock
    keys: tuple[int, int, int]  # Signing.version


class Proofs:
    """The proofs of one ledger. Methods raise OSError EIO when nothing can be signed (``health`` says why)."""

    def __init__(self, ledger: Ledger, query: Query, signing: Signing) -> None:
        self._ledger = ledger
        self._engine = ledger.engine
        self._proofs = EntryProofs(ledger.engine)
        self._query = query
        self._signing = signing
        self._newest: Signed | None = None
        self._recorded: tuple[int, int, int] | None = None  # Signing.version of the keys that the log has
        self._turn = trio.Lock()
        self._sealed = trio.Event()
        self._held = trio.Event()
        self.published: Callable[[Path, Signed], None] = lambda _, __: None  # the front gives out proofs by it
        self.signing: Callable[[bool], None] = lambda _: None  # whether readers may wait there for what is signed ahead
        self.cosignatures: Callable[[int], bytes] = lambda _: b""  # of witnesses, for a size
        self._kept: OrderedDict[tuple[int, bytes], bytes] = OrderedDict()

    # -- checkpoints

    async def checkpoint(self) -> Text:
        """``log/checkpoint``: of the newest sealed size, with the cosignatures that there are for it."""
        signed = await self.newest()
        return self._text(signed._replace(data=signed.data + self.cosignatures(signed.size)))

    async def newest(self) -> Signed:
        """The signed checkpoint of the newest sealed size; of a later one when another reader was quicker."""
        return await self._of_size(self._sealed_size())

    async def transaction(self, number: int) -> Text:
        """``proofs/tx_….tlog-proof``. Raises IndexError when there is no such transaction."""
        return await self.entry(self._engine.transaction(number))

    async def entry(self, index: int) -> Text:
        """The tlog-proof of any entry that is there."""
        signed = await self._in_force(index)
        key = index, signed.data
        data = self._kept.get(key)
        if data is None:
            path = self._proofs.inclusion(index, signed.size)
            data = self._kept[key] = TlogProof(index, tuple(path), signed.data).encode()
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._text(signed)._replace(data=data)

    async def balance(self, ordinal: int) -> Text:
        """``proofs/<account>.json``: the account as of the newest state, in a checkpoint that ends with that state's seal."""
        with self._faults(), trio.fail_after(WAIT_SECONDS):
            while True:
                keys = await self.record_keys()
                # Nobody else signs meanwhile, so no larger log than the one that ends with this seal has been signed.
                async with self._turn:
                    state = await self._ledger.prove(ordinal)
                    if state is None:
                        raise OSError(errno.EIO, "the newest state is not sealed, and the ledger is read-only")
                    seal, signed = self._engine.block(state.block), self._newest
                    if signed is None or signed.size != seal + 1 or signed.keys != keys:
                        signed = await self._sign(seal + 1, keys)
                if signed.keys == self._signing.version():
                    break
        path = self._proofs.inclusion(seal, signed.size)
        tlog = TlogProof(seal, tuple(path), signed.data).encode()
        return self._text(signed)._replace(data=balance_proof.text(state, bytes(self._engine.entry(seal)), tlog))

    async def _in_force(self, index: int) -> Signed:
        """A checkpoint that covers the entry."""
        signed = self._newest
        in_force = False
        if signed is not None and signed.size > index and trio.current_time() - signed.made < IN_FORCE_SECONDS:
            with self._faults():
                in_force = signed.keys == self._signing.version()
        if signed is None or not in_force:
            signed = await self.newest()
        self._proofs.read(index, signed.size)
        return signed

    # -- ahead of readers

    async def committed(self, change: Change) -> None:
        """More became durable (``Ledger.on_change``). Whoever committed it does not wait for a signature."""
        if change.transactions and self._proofs.expected():
            self.signing(True)
            self._sealed.set()
            self._held.set()

    async def sign_ahead(self) -> None:
        """Sign new transactions before their proofs are asked for, until cancelled.

        One signature for each reader's proof that went beyond all others: at most half of all signatures are for nobody, one is under
        way at a time, and there are none while nobody reads proofs of what is new. It is made while receipt and transaction are read.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._let_go)
            await self._sign_sealed()

    async def _let_go(self) -> None:
        # A signer that is slow, or away: SEMANTICS 10.5 says how long a reader waits in all.
        while True:
            await self._held.wait()
            self._held = trio.Event()
            await trio.sleep(HELD_SECONDS)
            self.signing(False)

    async def _sign_sealed(self) -> None:
        while True:
            try:
                await self._sealed.wait()
                self._sealed = trio.Event()
                with suppress(OSError):  # a reader who needs it tries again and is told; ``health`` says why
                    await self.newest()
            finally:
                self.signing(False)

    async def _of_size(self, size: int) -> Signed:
        # With those who wait for their turn: when nothing can be signed, the hundredth reader is told as soon as the first.
        with self._faults(), trio.fail_after(WAIT_SECONDS):
            while True:
                keys = await self.record_keys()
                async with self._turn:
                    signed = self._newest
                    # Whoever had the turn before may have got one that is good enough.
                    if signed is None or signed.size < size or signed.keys != keys:
                        signed = await self._sign(
                            self._sealed_size(), keys
                        )  # as it is now: the signer does not go back
                    elif signed.size == size:
                        signed = self._in_force_now(signed._replace(made=trio.current_time()))
                # Keys that were changed meanwhile may have signed it, and the log has not got them yet.
                if signed.keys == self._signing.version():
                    return signed

    async def _sign(self, size: int, keys: tuple[int, int, int]) -> Signed:
        data = await self._signing.sign(size)
        # What readers could not verify is not given out: the key files may not fit each other.
        self._signing.trusted_root().verify(data)
        return self._in_force_now(Signed(size, data, trio.current_time(), keys))

    def _in_force_now(self, signed: Signed) -> Signed:
        self._newest = signed
        self.published(self._signing.keys.trusted_root_path, signed)
        return signed

    def _sealed_size(self) -> int:
        return self._engine.block(self._engine.counts().blocks) + 1

    def _text(self, signed: Signed) -> Text:
        return Text(signed.data, self._query.mtime_of(signed.size - 1))

    # -- consistency

    def height_of(self, size: bytes) -> int:
        """The block with which the log had this size, 0 if none: a size in between is no size of a checkpoint."""
        number = int(size) if _SIZE.fullmatch(size) else 0
        if not 0 < number <= self._engine.counts().entries:
            return 0
        height = self._engine.block_of(number - 1)
        return height if self._engine.block(height) == number - 1 else 0

    def size_at(self, height: int) -> int:
        """The size of the log with the seal of this block. Raises IndexError."""
        return self._engine.block(height) + 1

    def consistency(self, old_height: int, new_height: int) -> Text:
        """``proofs/consistency/<m>-<n>``. Raises IndexError."""
        old, new = self.size_at(old_height), self.size_at(new_height)
        path = self._proofs.consistency(old, new)
        return Text(encode_hashes(path), self._query.mtime_of(new - 1))

    # -- keys

    async def record_keys(self) -> tuple[int, int, int]:
        """Let the log say what the key files say; the version of the files. Raises LedgerError, OSError.

        Before any checkpoint is signed: so no signature is by a key that the log under it does not name.
        """
        version = self._signing.version()
        if version != self._recorded:
            await self._ledger.recorder.keys(self._signing.trusted_root())
            self._recorded = version
        return version

    async def trusted_root(self) -> Text:
        """``.ledgerfs/trusted_root.json``; also when the log cannot say the same (any more)."""
        path = self._signing.keys.trusted_root_path
        with self._faults():
            with suppress(LedgerError):
                await self.record_keys()
            return Text(path.read_bytes(), path.stat().st_mtime_ns)

    @staticmethod
    def _faults() -> _Faults:
        return _Faults()


class _Faults:
    """Readers of files get an errno; the reason goes to ``health`` (Signing.trouble) and to the log."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: object) -> None:
        if isinstance(value, LedgerError | OSError | trio.TooSlowError):
            log.warning("no checkpoint", reason=str(value) or "the signer does not answer")
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
