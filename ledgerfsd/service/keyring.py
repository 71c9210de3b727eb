"""The private halves of the keys that sign checkpoints: read by the signer, made and ended by ``ledgerfs key``.

Start at ``Keyring``. No room of the daemon imports this (a contract in ``setup.cfg``): what serves strangers holds no code that
could read a private key, let alone a call that hands one out.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ledgerfsd.errors import StoreError
from ledgerfsd.journal.layout import sync_directory, write_durably
from ledgerfsd.merkle import note
from ledgerfsd.merkle.note import NoteError, Signer
from ledgerfsd.service.keys import KIND, Key, Keys, TrustedRoot

SIGNING_MAX: Final = 8  # keys that sign at once; C2SP readers accept at least 16 signatures, and witnesses add theirs
SETTLED_NS: Final = 1_000_000_000  # longer than the step of any clock that file systems take their times from


class _Version(NamedTuple):
    """What a file is known by; all zeros when it is not there. The time of change also tells of modes and owners."""

    device: int
    inode: int
    size: int
    changed_ns: int
    settled: bool  # not changed so lately that the next change may carry the same time


def _version(path: Path) -> _Version:
    try:
        there = path.stat()
    except OSError:
        return _Version(0, 0, 0, 0, False)
    settled = time.time_ns() - there.st_ctime_ns > SETTLED_NS
    return _Version(there.st_dev, there.st_ino, there.st_size, there.st_ctime_ns, settled)


class Keyring(Keys):
    """The keys of one ledger, private halves included. Methods raise StoreError when a file cannot be used."""

    def __init__(self, directory: Path, origin: str) -> None:
        super().__init__(directory, origin)
        self._held: tuple[dict[Path, _Version], list[Signer]] | None = None

    def signers(self) -> list[Signer]:
        """The private keys that sign, the active one first. For the signer only.

        They are read anew unless every file is still the one that was read: a key that was revoked, moved away or shut off signs no more.
        """
        if self._held is not None and all(_version(path) == version for path, version in self._held[0].items()):
            return self._held[1]
        self._held = None
        # Before the files are read: one that is changed meanwhile is another next time.
        versions = {self.trusted_root_path: _version(self.trusted_root_path)}
        keys = sorted((key for key in self.trusted_root().keys if key.signs), key=lambda key: key.status)
        found = []
        for key in keys:
            path = self._private_path(key.key_id)
            versions[path] = _version(path)
            found.append(self._signer(path, key))
        if not found:
            raise StoreError(f"no key in {self.directory} signs", hint="`ledgerfs key rotate` makes a new one")
        if all(version.settled for version in versions.values()):
            self._held = versions, found
        return found

    @staticmethod
    def _signer(path: Path, key: Key) -> Signer:
        try:
            signer = note.parse_signer(path.read_text(encoding="ascii").strip())
        except OSError as error:
            hint = "restore it from a backup, or revoke the key"
            raise StoreError(f"{path}: {error.strerror}", hint=hint) from None
        except (NoteError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: {error}", hint="restore it from a backup, or revoke the key") from None
        if signer.verifier() != key.verifier:
            raise StoreError(f"{path} is not the private half of {key.vkey}")
        return signer

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
