"""What a witness must never forget: its key, the logs that it trusts, and the newest checkpoint that it cosigned of each.

In its directory (mode 0700; docs/FORMAT.md, section 14) are

* ``witness.key``               the private key (mode 0600)
* ``lock``                      held by the process that serves
* ``logs/<hash>/keys``          the public keys of a log, a line each; <hash> is the SHA-256 of its origin in hex
* ``logs/<hash>/checkpoint``    the newest checkpoint that was cosigned, with the cosignature; absent: none yet
* ``logs/<hash>/refused/``      checkpoints with a good signature of the log that did not continue that one: evidence

Whoever restores an older copy of this directory makes the witness forget, and it may then cosign two histories: a witness
whose memory was lost is retired with its key.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from ledgerfsd.errors import DamageError, LedgerError, StoreError
from ledgerfsd.merkle import checkpoint as checkpoints
from ledgerfsd.merkle import cosignature, note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.cosignature import WitnessKey
from ledgerfsd.merkle.note import NoteError, Verifier

REFUSED_MAX: Final = 1000  # of each log: strangers must not be able to fill the disk


class Log(NamedTuple):
    """A log that is trusted. ``last`` and ``data``: the newest checkpoint that was cosigned, and its note (empty: none yet)."""

    origin: str
    verifiers: tuple[Verifier, ...]
    last: Checkpoint | None
    data: bytes


def origin_hash(origin: str) -> str:
    """The name of a log in paths and URLs."""
    return hashlib.sha256(origin.encode()).hexdigest()


class Memory:
    """The files of one witness. Methods raise StoreError when they cannot be used, DamageError when they are not what was written.

    ``failure``: why nothing may be cosigned any more in this life; ``""`` while all is well.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.failure = ""

    @classmethod
    def create(cls, directory: Path, name: str) -> Memory:
        """A new witness with a new key in an absent or empty directory. Raises NoteError for a bad name."""
        key = cosignature.generate(name)
        made = cls(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise StoreError(
                    f"{directory} is not empty", hint="a witness begins with a new key and nothing to remember"
                )
            (directory / "logs").mkdir(mode=0o700)
            # The key comes last: a directory without it is none, so nothing that was left half-way is ever served.
            _write(made.key_path, key.encode().encode() + b"\n", exclusive=True)
            _sync(directory)
            _sync(directory.parent)
        except OSError as error:
            raise _fault(error, directory) from None
        return made

    @property
    def key_path(self) -> Path:
        """``witness.key``."""
        return self.directory / "witness.key"

    def key(self) -> WitnessKey:
        """The private key."""
        try:
            return cosignature.parse_key(self.key_path.read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            hint = "`ledgerfs witness init --dir DIR --name NAME` makes one"
            raise StoreError(f"there is no witness in {self.directory}", hint=hint) from None
        except OSError as error:
            raise _fault(error, self.key_path) from None
        except (NoteError, UnicodeDecodeError) as error:
            raise DamageError(f"{self.key_path}: {error}") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Serve from here: two processes with one memory would not be one. Raises StoreError."""
        self.key()
        try:
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _fault(error, self.directory) from None
        try:
            self._take_over(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _take_over(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A crash before a rename leaves one behind. It holds a cosignature that nobody was given and nobody may get.
            for path in self.directory.glob("logs/*/checkpoint.new"):
                path.unlink()
        except BlockingIOError:
            raise StoreError(f"another process serves the witness in {self.directory}") from None
        except OSError as error:
            raise _fault(error, self.directory) from None
        for log in self.logs():
            self._check(log)

    # -- logs

    def _folder(self, origin: str) -> Path:
        return self.directory / "logs" / origin_hash(origin)

    def trust(self, verifier: Verifier) -> bool:
        """Believe this key for the log of its name, from now on, also while the witness is serving. False: it was known."""
        self.key()
        folder = self._folder(verifier.name)
        try:
            known = self.log(verifier.name)
            keys = list(known.verifiers) if known else []
            if verifier in keys:
                return False
            folder.mkdir(mode=0o700, exist_ok=True)
            text = "".join(f"{key.encode()}\n" for key in [*keys, verifier])
            self._replace(folder / "keys", text.encode())
            _sync(folder.parent)
        except OSError as error:
            raise _fault(error, folder) from None
        return True

    def log(self, origin: str) -> Log | None:
        """What is known of a log, read anew; None: it is not trusted."""
        return self._log(self._folder(origin))

    def log_of_hash(self, name: str) -> Log | None:
        """The same, by the hash of the origin."""
        return self._log(self.directory / "logs" / name) if len(name) == 64 and name.isalnum() else None

    def logs(self) -> list[Log]:
        """All of them, by origin."""
        try:
            found = [self._log(path) for path in (self.directory / "logs").iterdir()]
        except OSError as error:
            raise _fault(error, self.directory) from None
        return sorted(log for log in found if log is not None)

    def _log(self, folder: Path) -> Log | None:
        try:
            lines = (folder / "keys").read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            verifiers = tuple(note.parse_verifier(line) for line in lines)
            origin = verifiers[0].name
        except (NoteError, IndexError) as error:
            raise DamageError(f"{folder}/keys: {error}") from None
        try:
            data = (folder / "checkpoint").read_bytes()
            # An empty file is not an absent one: what was cosigned is not to be forgotten because a file was cut short.
            return Log(origin, verifiers, checkpoints.parse(note.parse(data).text), data)
        except FileNotFoundError:
            return Log(origin, verifiers, None, b"")
        except NoteError as error:
            raise DamageError(f"{folder}/checkpoint: {error}", hint=RETIRE) from None

    def _check(self, log: Log) -> None:
        """Raise DamageError unless the newest checkpoint is one of this log and has our cosignature."""
        if not log.data:
            return
        witness = self.key().witness()
        try:
            checkpoints.verify(log.data, log.origin, log.verifiers)
            _, cosigned = cosignature.verify(log.data, [witness])
        except NoteError as error:
            raise DamageError(f"{self._folder(log.origin)}/checkpoint: {error}", hint=RETIRE) from None
        if not cosigned:
            raise DamageError(f"{self._folder(log.origin)}/checkpoint is not cosigned by {witness.name}", hint=RETIRE)

    # -- remembering

    def record(self, log: Log, data: bytes) -> None:
        """Replace what is remembered of a log by this cosigned checkpoint, durably, before anybody is given the cosignature.

        The caller has judged it against ``log`` and lets nobody else judge this log meanwhile. Raises StoreError; after that
        nothing is cosigned any more in this life: what the disk holds is in doubt, and the next start reads what it is.
        """
        folder = self._folder(log.origin)
        try:
            self._replace(folder / "checkpoint", data)
        except OSError as error:
            self.failure = f"{folder}: {error.strerror}; restart the witness when the disk is well"
            raise StoreError(self.failure) from None

    def refuse(self, log: Log, head: Checkpoint, data: bytes) -> None:
        """Keep a checkpoint that does not continue what was cosigned. Evidence: when it cannot be kept, the refusal stands."""
        folder = self._folder(log.origin) / "refused"
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            path = folder / f"{head.size:020}-{head.root.hex()[:16]}.checkpoint"
            if not path.exists() and len(os.listdir(folder)) < REFUSED_MAX:
                _write(path, data, exclusive=True)
                _sync(folder)

    def refused(self, origin: str) -> list[Path]:
        """The checkpoints that were refused."""
        return sorted((self._folder(origin) / "refused").glob("*.checkpoint"))

    @staticmethod
    def _replace(path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + ".new")
        # If we stop here or in the write: the old file stands, the new one is removed at the next start. Nothing was given out.
        _write(temporary, data)
        # If we stop here: the same.
        temporary.rename(path)
        # If we stop here: the old or the new file stands. Nothing was given out; a client that asks again is told the size.
        _sync(path.parent)
        # From here on the new file stands whatever happens, and the cosignature in it may be given out.


RETIRE: Final = (
    "a witness that lost its memory must not cosign again: make a new one with a new key (docs/OPERATIONS.md)"
)


def _fault(error: OSError, place: Path) -> LedgerError:
    return StoreError(f"{error.filename or place}: {error.strerror}")


def _write(path: Path, data: bytes, *, exclusive: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if exclusive else os.O_TRUNC)
    descriptor = os.open(path, flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
