"""The keys that sign checkpoints: their files, and ``trusted_root.json``, which tells readers whom to believe.

Start at ``Keys``. In its directory (mode 0700) are

* ``trusted_root.json``  the public keys, each with the sizes of the log for which it may speak, and its status
* ``<id>.key``           a private key (mode 0600), as signed notes write them; only the signer reads it
* ``last-signed``        the checkpoint that was signed last, written by the signer
* ``last-signed.lost-…`` what was signed last before a restore: evidence
* ``keys.lock``          held while keys are changed; the signer holds a lock on the directory itself

A key is ``active`` (one), ``retiring`` (signs too, so that readers who know only the old one go on), or ``revoked``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from ledgerfsd.errors import StoreError
from ledgerfsd.journal.layout import sync_directory, write_durably
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.note import NoteError, Signer, Verifier
from ledgerfsd.service import last_signed

Status = Literal["active", "retiring", "revoked"]
KIND: Final = "trusted-root/1"
SIGNING_MAX: Final = 8  # keys that sign at once; C2SP readers accept at least 16 signatures, and witnesses add theirs
LAST_SIGNED: Final = "last-signed"
TRUSTED_ROOT: Final = "trusted_root.json"


def usual_directory(store: Path) -> Path:
    """Where the keys are unless said otherwise."""
    return store / "keys"


class Key(msgspec.Struct, frozen=True):
    """A public key, and for which checkpoints it is to be believed: of these sizes, both included."""

    vkey: str
    name: str
    valid_from_size: int
    valid_to_size: int | None  # None: no end
    status: Status

    @property
    def verifier(self) -> Verifier:
        """The key itself. Raises NoteError."""
        return note.parse_verifier(self.vkey)

    @property
    def key_id(self) -> str:
        """Its id in hex, which is also the name of its file."""
        return f"{self.verifier.key_id:08x}"

    @property
    def signs(self) -> bool:
        """Whether it signs new checkpoints."""
        return self.status != "revoked"

    def speaks_for(self, size: int) -> bool:
        """Whether its signature counts for a checkpoint of this size."""
        return self.valid_from_size <= size and (self.valid_to_size is None or size <= self.valid_to_size)


class TrustedRoot(msgspec.Struct, frozen=True):
    """All keys that a ledger ever had."""

    t: str
    ledger: str
    keys: list[Key]

    def encode(self) -> bytes:
        """The file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def verify(self, data: bytes) -> Checkpoint:
        """The checkpoint in a signed note, if a key that may speak for its size has signed it. Raises NoteError."""
        found, signed = checkpoint.verify(data, self.ledger, [key.verifier for key in self.keys])
        valid = {key.verifier for key in self.keys if key.speaks_for(found.size)}
        if not valid & set(signed):
            raise NoteError(f"no key that signed the checkpoint may speak for size {found.size}")
        return found


def parse_trusted_root(data: bytes, where: str) -> TrustedRoot:
    """Read ``trusted_root.json``; ``where`` is for the message. Raises NoteError."""
    try:
        root = msgspec.json.decode(data, type=TrustedRoot)
    except msgspec.DecodeError as error:
        raise NoteError(f"{where} is not a trusted root: {error}") from None
    if root.t != KIND:
        raise NoteError(f"{where} is of kind {root.t!r}, not {KIND!r}")
    for key in root.keys:
        if key.verifier.name != key.name or key.name != root.ledger:
            raise NoteError(f"{where}: the key {key.vkey[:100]!r} is not one of {root.ledger!r}")
    if len({key.vkey for key in root.keys}) != len(root.keys):
        raise NoteError(f"{where}: a key is listed twice")
    return root


class Keys:
    """The keys of one ledger in their directory. Every method raises StoreError when a file cannot be used."""

    def __init__(self, directory: Path, origin: str) -> None:
        self.directory = directory
        self.origin = origin

    @property
    def trusted_root_path(self) -> Path:
        """``trusted_root.json``."""
        return self.directory / TRUSTED_ROOT

    @property
    def last_signed_path(self) -> Path:
        """``last-signed``."""
        return self.directory / LAST_SIGNED

    # -- reading

    def exists(self) -> bool:
        """Whether there are keys."""
        return self.trusted_root_path.exists()

    def trusted_root(self) -> TrustedRoot:
        """The public keys."""
        path = self.trusted_root_path
        try:
            root = parse_trusted_root(path.read_bytes(), str(path))
        except FileNotFoundError:
            hint = "`ledgerfs key create` makes the first key"
            raise StoreError(f"there are no keys in {self.directory}", hint=hint) from None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
        except NoteError as error:
            raise StoreError(str(error), hint="restore the keys from a backup") from None
        if root.ledger != self.origin:
            raise StoreError(f"{path} is of the ledger {root.ledger!r}, not of {self.origin!r}")
        return root

    def last_signed(self) -> Checkpoint | None:
        """The checkpoint signed last, None before the first."""
        return last_signed.read(self.last_signed_path, self.origin)

    def signers(self) -> list[Signer]:
        """The private keys that sign, the active one first. For the signer only."""
        keys = sorted((key for key in self.trusted_root().keys if key.signs), key=lambda key: key.status)
        found = []
        for key in keys:
            path = self._private_path(key.key_id)
            try:
                signer = note.parse_signer(path.read_text(encoding="ascii").strip())
            except OSError as error:
                hint = "restore it from a backup, or revoke the key"
                raise StoreError(f"{path}: {error.strerror}", hint=hint) from None
            except (NoteError, UnicodeDecodeError) as error:
                raise StoreError(f"{path}: {error}", hint="restore it from a backup, or revoke the key") from None
            if signer.verifier() != key.verifier:
                raise StoreError(f"{path} is not the private half of {key.vkey}")
            found.append(signer)
        if not found:
            raise StoreError(f"no key in {self.directory} signs", hint="`ledgerfs key rotate` makes a new one")
        return found

    # -- changing

    def create(self) -> Key:
        """The first key. Raises StoreError when there are keys already."""
        with self._changing():
            if self.exists() or any(self.directory.glob("*.key")) or self.last_signed_path.exists():
                hint = "`ledgerfs key rotate` makes a further key"
                raise StoreError(f"there are keys in {self.directory} already", hint=hint)
            key = self._make(valid_from_size=0)
            self._save([key])
            return key

    def create_if_absent(self) -> Key | None:
        """The first key, if the directory is absent or empty; a directory with half its files is not made good."""
        if self.directory.exists() and any(path.suffix != ".lock" for path in self.directory.iterdir()):
            return None
        return self.create()

    def rotate(self) -> Key:
        """A new active key; what was active becomes retiring and signs on, until it is revoked."""
        with self._changing():
            keys = self.trusted_root().keys
            if sum(key.signs for key in keys) >= SIGNING_MAX:
                raise StoreError(f"{SIGNING_MAX} keys sign already", hint="revoke the oldest first")
            last = self.last_signed()
            new = self._make(valid_from_size=last.size if last else 0)
            retired = [
                msgspec.structs.replace(key, status="retiring") if key.status == "active" else key for key in keys
            ]
            self._save([*retired, new])
            return new

    def revoke(self, key_id: str, valid_to_size: int | None = None) -> Key:
        """End a key: it signs no more, is believed up to this size (None: what was signed last), and its file is deleted."""
        with self._changing():
            keys = self.trusted_root().keys
            key = next((key for key in keys if key.key_id == key_id), None)
            if key is None:
                raise StoreError(f"there is no key {key_id!r}", hint="`ledgerfs key list` names them")
            if key.status == "active":
                hint = "`ledgerfs key rotate` makes a new one first"
                raise StoreError(f"{key_id} is the active key", hint=hint)
            last = self.last_signed()
            size = valid_to_size if valid_to_size is not None else last.size if last else 0
            if key.status == "revoked" and key.valid_to_size is not None and size > key.valid_to_size:
                raise StoreError(f"{key_id} is revoked from size {key.valid_to_size} on; it cannot be believed again")
            revoked = msgspec.structs.replace(key, status="revoked", valid_to_size=size)
            self._save([revoked if each is key else each for each in keys])
            self._private_path(key_id).unlink(missing_ok=True)
            sync_directory(self.directory)
            return revoked

    # -- inside

    def _private_path(self, key_id: str) -> Path:
        return self.directory / f"{key_id}.key"

    def _make(self, *, valid_from_size: int) -> Key:
        signer = note.generate(self.origin)
        # First the private half: a key that readers are told of must be able to sign.
        with open(
            os.open(self._private_path(f"{signer.key_id:08x}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as file:
            file.write(signer.encode() + "\n")
            file.flush()
            os.fsync(file.fileno())
            self._give(file.fileno())
        sync_directory(self.directory)
        return Key(signer.verifier().encode(), self.origin, valid_from_size, None, "active")

    def _save(self, keys: list[Key]) -> None:
        write_durably(self.trusted_root_path, TrustedRoot(KIND, self.origin, keys).encode())
        descriptor = os.open(self.trusted_root_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o644)
            self._give(descriptor)
        finally:
            os.close(descriptor)

    def _give(self, descriptor: int) -> None:
        """What root makes in the directory of another user belongs to that user: the signer must be able to read it."""
        if os.geteuid() == 0:
            there = self.directory.stat()
            os.fchown(descriptor, there.st_uid, there.st_gid)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.directory / "keys.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._give(descriptor)
        except OSError as error:
            raise StoreError(f"{error.filename}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise StoreError(f"{error.filename or self.directory}: {error.strerror}") from None
        finally:
            os.close(descriptor)
