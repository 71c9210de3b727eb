"""The daemon's side of the signer: starts the process, asks it, and starts it anew when it ends.

Start at ``Signing``. Nothing here sees a private key. Commits never wait for it: only readers of checkpoints and proofs do.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

import ledgerfsd
from ledgerfsd.core.proofs import EntryProofs
from ledgerfsd.errors import DamageError, LedgerError, StoreError
from ledgerfsd.service.keys import Keys, TrustedRoot
from ledgerfsd.service.signer_lines import LINE_BYTES_MAX, Answer, Request, Shown
from ledgerfsd.service.system import logged

if TYPE_CHECKING:
    from ledgerfsd.service.ledger import Ledger

log = structlog.get_logger()

PACKAGE_PARENT: Final = str(Path(ledgerfsd.__file__).parent.parent)
ANSWER_SECONDS: Final = 5.0  # a signature waits for one sync of the disk
AGAIN_SECONDS: Final = (0.0, 0.2, 1.0, 5.0)  # how long to wait before it is started anew, the last for ever
CALM_SECONDS: Final = 10.0  # one that ran so long did not die of its start


class SignerError(LedgerError):
    """There is no signature to be had."""


class Signing:
    """The signer process of one ledger."""

    def __init__(self, ledger: Ledger, keys: Keys, *, apart: Path | None = None, service: Path | None = None) -> None:
        """``apart``: the record of what was signed last that is kept apart from the keys. ``service``: the socket of a signer that
        runs by itself; else one is started."""
        self.keys = keys
        self._apart = apart
        self._service = service
        self._restore: int | None = None  # entry in which the log owns up to have lost what was signed last
        self.pid = 0
        self._engine = ledger.engine
        self._proofs = EntryProofs(ledger.engine)
        self._metrics = ledger.metrics
        self._last: Answer | None = None
        self._stream: trio.SocketStream | None = None
        self._process: trio.Process | None = None
        self._buffer = bytearray()
        self._turn = trio.Lock()
        self._up = trio.Event()
        self._gone = trio.Event()
        self._down = "it has not been started"
        self._refused = ""
        self._root: tuple[tuple[int, int, int], TrustedRoot] | None = None

    def trouble(self) -> str:
        """What is wrong, for ``health``; ``""`` if nothing."""
        if self._down:
            return f"no checkpoints can be signed: {self._down}"
        return f"no checkpoint was signed: {self._refused}" if self._refused else ""

    # -- the process

    async def start(self) -> None:
        """Start the process and compare what it signed last with the journal.

        Raises StoreError when there are no usable keys, DamageError when the journal is older than, or another than, what
        was signed: a store that was rolled back.
        """
        self._gone = trio.Event()
        if self._service is None:
            await self._spawn()
        else:
            await self._connect(self._service)
        self._buffer.clear()
        self.pid = self._process.pid if self._process else 0
        try:
            greeting = await self._receive()
            if greeting.error:
                raise StoreError(greeting.error, hint=greeting.hint)
            self._compare(greeting)
        except BaseException as error:
            self._down = str(error) or "it was stopped"
            await self.stop()
            raise
        if greeting.created:
            log.warning("made a key: there was none", key=greeting.created, directory=str(self.keys.directory))
        self._last, self._down, self._refused = greeting, "", ""
        self._up.set()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: no module of the current directory gets near the keys. The package is the one that we are of.
            command = [sys.executable, "-P", "-m", "ledgerfsd.service.signer"]
            command += ["--keys", str(self.keys.directory), "--origin", self.keys.origin]
            if self._apart:
                command += ["--last-signed", str(self._apart)]
            path = os.pathsep.join(filter(None, (PACKAGE_PARENT, os.environ.get("PYTHONPATH"))))
            self._process = await trio.lowlevel.open_process(
                command, stdin=theirs.fileno(), start_new_session=True, env=os.environ | {"PYTHONPATH": path}
            )
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    async def _connect(self, path: Path) -> None:
        """To a signer that runs by itself, as another user."""
        try:
            self._stream = await trio.open_unix_socket(path)
        except OSError as error:
            self._down = f"{path}: {error.strerror or error}"
            raise StoreError(self._down, hint="is the signer running? see `ledgerfs signer --help`") from None

    def _compare(self, last: Answer) -> None:
        """The journal goes on from what was signed, or says itself that this was lost. Raises DamageError."""
        self._restore = None
        if not (wrong := self._other(last.size, last.root) or self._other(last.earlier_size, last.earlier_root)):
            return
        for index, entry in reversed(logged(self._engine, "restore/1")):
            if (entry.get("signed_size"), entry.get("signed_root")) == (last.size, last.root):
                self._restore = index
                return
        hint = "restore the newest journal/ from a backup; only if it is lost for good: `ledgerfs restore`"
        raise DamageError(wrong, hint=hint)

    def _other(self, size: int, root: str) -> str:
        """Why the journal does not begin with the tree that was signed; "" if it does."""
        entries = self._engine.counts().entries
        if entries < size:
            return f"the store was rolled back: a checkpoint of {size} entries is signed, the journal has {entries}"
        if size and self._proofs.root(size).hex() != root:
            return f"the store is not the one that was signed: the journal has another root at {size} entries"
        return ""

    async def run(self) -> None:
        """Start the process anew whenever it ends, until cancelled."""
        tries = 0
        try:
            while True:
                started = trio.current_time()
                if not self._down:
                    await self._end()
                    tries = 0 if trio.current_time() - started > CALM_SECONDS else tries
                await trio.sleep(AGAIN_SECONDS[min(tries, len(AGAIN_SECONDS) - 1)])
                tries += 1
                self._metrics.signer_starts.inc()
                try:
                    await self.start()
                    log.info("the signer is running again", pid=self.pid)
                except (LedgerError, OSError) as error:
                    self._down = str(error)
                    log.error("the signer cannot be started", reason=str(error))
        finally:
            with trio.CancelScope(shield=True):
                await self.stop()

    async def _end(self) -> None:
        """Until there is no signer any more."""
        if self._process is None:
            await self._gone.wait()
            log.error("the connection to the signer ended", reason=self._down)
            await self.stop()
            return
        code = await self._process.wait()
        self._lost(f"the signer ended with code {code}, and is being started anew")
        log.error("the signer ended", code=code)

    def _lost(self, why: str) -> None:
        self._gone.set()
        self._down = why
        self._last = None
        self._up = trio.Event()

    async def stop(self) -> None:
        """End the process: it ends with its socket."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()
        if self._process is not None and self._process.returncode is None:
            with trio.move_on_after(1):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        self.pid = 0

    # -- asking

    async def sign(self, size: int) -> bytes:
        """The signed checkpoint of the first ``size`` entries. Raises SignerError when there is none to be had in time."""
        with trio.move_on_after(ANSWER_SECONDS):
            async with self._turn:
                while True:
                    await self._up.wait()
                    # Not to be interrupted by whoever asks: the next answer would be taken for another's.
                    with trio.CancelScope(shield=True):
                        data = await self._sign(size)
                    if data:
                        return data
        raise SignerError(self.trouble() or "the signer does not answer", hint="see .ledgerfs/health")

    async def _sign(self, size: int) -> bytes:
        """The note; empty when the process has gone meanwhile."""
        last = self._last
        if last is None:
            return b""
        request = self._request(last, size)
        try:
            assert self._stream is not None
            await self._stream.send_all(msgspec.json.encode(request) + b"\n")
            answer = await self._receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError, StoreError) as error:
            self._lost(str(error) or "the signer has gone")
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            return b""
        self._last = answer
        self._refused = answer.error
        if answer.error:
            log.error("the signer refuses", reason=answer.error, size=size)
            raise SignerError(answer.error, hint=answer.hint)
        self._restore = None
        self._metrics.signatures.inc()
        return answer.note.encode()

    def _request(self, last: Answer, size: int) -> Request:
        root, seal = self._proofs.root(size).hex(), self._show(size - 1, size)
        if self._restore is not None:
            return Request(size, root, [], seal, restored=self._show(self._restore, size))
        paths = [
            [hash_.hex() for hash_ in self._proofs.consistency(known, size)] if 0 < known < size else []
            for known in (last.size, last.earlier_size)
        ]
        return Request(size, root, paths[0], seal, paths[1])

    def _show(self, index: int, size: int) -> Shown:
        path = [hash_.hex() for hash_ in self._proofs.inclusion(index, size)]
        return Shown(index, bytes(self._engine.entry(index)).decode(), path)

    async def _receive(self) -> Answer:
        """One line. Raises StoreError when there is none."""
        assert self._stream is not None
        with trio.move_on_after(ANSWER_SECONDS):
            while b"\n" not in self._buffer:
                piece = await self._stream.receive_some(65536)
                if not piece or len(self._buffer) > LINE_BYTES_MAX:
                    raise StoreError("the signer has gone")
                self._buffer += piece
            line, _, rest = bytes(self._buffer).partition(b"\n")
            self._buffer[:] = rest
            try:
                return msgspec.json.decode(line, type=Answer)
            except msgspec.DecodeError:
                raise StoreError("the signer talks nonsense") from None
        raise StoreError("the signer does not answer")

    # -- the public keys

    def version(self) -> tuple[int, int, int]:
        """Changes whenever the keys do. Raises OSError."""
        there = os.stat(self.keys.trusted_root_path)
        return there.st_ino, there.st_mtime_ns, there.st_size

    def trusted_root(self) -> TrustedRoot:
        """The public keys as they are now. Raises StoreError, OSError."""
        version = self.version()
        if self._root is None or self._root[0] != version:
            self._root = version, self.keys.trusted_root()
        return self._root[1]
