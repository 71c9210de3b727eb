"""The public halves of the keys that sign checkpoints: ``trusted_root.json``, which tells readers whom to believe.

Start at ``Keys``. What can read the private halves, or change any, is in ``keyring.py``, which the daemon does not import. In the
directory of the keys (mode 0700) are

* ``trusted_root.json``  the public keys, each with the sizes of the log for which it may speak, and its status
* ``<id>.key``           a private key (mode 0600), as signed notes write them; only the signer reads it
* ``last-signed``        the checkpoint that was signed last, written by the signer
* ``last-signed.lost-…`` what was signed last before a restore: evidence
* ``keys.lock``          held while keys are changed; the signer holds a lock on the directory itself

A key is ``active`` (one), ``retiring`` (signs too, so that readers who know only the old one go on), or ``revoked``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec

from ledgerfsd.errors import StoreError
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.note import NoteError, Verifier
from ledgerfsd.service import last_signed

Status = Literal["active", "retiring", "revoked"]
KIND: Final = "trusted-root/1"
LAST_SIGNED: Final = "last-signed"
TRUSTED_ROOT: Final = "trusted_root.json"
KEYS_KEPT: Final = 64  # parsed; a ledger hardly ever has more


def usual_directory(store: Path) -> Path:
    """Where the keys are unless said otherwise."""
    return store / "keys"


@lru_cache(KEYS_KEPT)
def _verifier(vkey: str) -> Verifier:
    # Looked at for every checkpoint: twice for every key.
    return note.parse_verifier(vkey)


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
        return _verifier(self.vkey)

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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the latter for names of members
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
    """The keys of one ledger in their directory, as readers see them. Methods raise StoreError when a file cannot be used."""

    def __init__(self, directory: Path, origin: str) -> None:
        self.directory = directory
        self.origin = origin
        self.trusted_root_path: Final = directory / TRUSTED_ROOT

    @property
    def last_signed_path(self) -> Path:
        """``last-signed``."""
        return self.directory / LAST_SIGNED

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
