"""The file ``last-signed``: what the signer signed last (docs/FORMAT.md, section 13). Start at ``LastSigned.write``.

It has two slots of a page each, and the newer one is in force. Writing goes into the other, in place, with one synchronous
write: no new file, no rename, no sync of a directory, so a signature waits for the disk once and not three times. A crash
can spoil only the slot that is being written, and what was to stand there was not signed yet: the other one is then in force,
as it was before. A slot carries its hash, so that one that is torn is not taken for one that is whole.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from ledgerfsd.errors import StoreError
from ledgerfsd.journal.layout import Layout, first_entry, write_durably
from ledgerfsd.merkle import checkpoint
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.note import NoteError

SLOT_BYTES: Final = 4096  # a page: no write touches two slots
SLOTS: Final = 2
FILE_BYTES: Final = SLOT_BYTES * SLOTS
VARIABLE: Final = "LEDGERFS_LAST_SIGNED"
OF_ROOT: Final = Path("/var/lib/ledgerfs/last-signed")


def directory(setting: str = "") -> Path:
    """Where last-signed records are kept apart from stores: the setting, the environment, or the usual place of this user."""
    if named := setting or os.environ.get(VARIABLE, ""):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return OF_ROOT
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "ledgerfs" / "last-signed"


def place(layout: Layout, setting: str = "") -> Path:
    """The record of this store: named by the hash of its genesis. Raises StoreError."""
    return directory(setting) / hashlib.sha256(first_entry(layout)).hexdigest()


def slot(head: Checkpoint) -> bytes:
    """The bytes of a slot: the checkpoint's body, a line with its SHA-256 in hex, zeros. Raises StoreError."""
    body = head.body().encode()
    if len(body) + 65 > SLOT_BYTES:
        raise StoreError(f"the name of the ledger is too long for a slot of {SLOT_BYTES} bytes")
    return (body + hashlib.sha256(body).hexdigest().encode() + b"\n").ljust(SLOT_BYTES, b"\0")


def _body(data: bytes) -> bytes | None:
    """What a slot holds; None when it is empty or torn."""
    body, _, digest = data.rstrip(b"\0").removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    return body if digest == hashlib.sha256(body).hexdigest().encode() else None


def _read(path: Path, origin: str) -> tuple[Checkpoint | None, int]:
    """The checkpoint in force, and the slot that it is in; -1 when the file is to be made anew."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, -1
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    return _in_force(path, data, origin)


def examine(path: Path, origin: str) -> tuple[Checkpoint | None, bool]:
    """The checkpoint in force, and whether the other slot is torn. Raises StoreError, PermissionError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, False
    slots = [data[at : at + SLOT_BYTES] for at in range(0, len(data), SLOT_BYTES)] if len(data) == FILE_BYTES else []
    return _in_force(path, data, origin)[0], any(_body(each) is None for each in slots if each.strip(b"\0"))


def _in_force(path: Path, data: bytes, origin: str) -> tuple[Checkpoint, int]:
    whole = {0: data}  # the body alone: as it was written before there were slots
    if len(data) == FILE_BYTES:
        pieces = ((number, _body(data[number * SLOT_BYTES :][:SLOT_BYTES])) for number in range(SLOTS))
        whole = {number: body for number, body in pieces if body is not None}
    try:
        found = {number: checkpoint.parse(body.decode()) for number, body in whole.items()}
    except (NoteError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: {error}", hint="restore the keys from a backup") from None
    if not found:
        raise StoreError(f"{path}: neither of its slots is whole", hint="restore the keys from a backup")
    newest = max(found, key=lambda number: found[number].size)
    last = found[newest]
    if last.origin != origin:
        raise StoreError(f"{path} is of the ledger {last.origin!r}, not of {origin!r}")
    return last, newest if len(data) == FILE_BYTES else -1


def read(path: Path, origin: str) -> Checkpoint | None:
    """The checkpoint signed last, None before the first. Raises StoreError."""
    return _read(path, origin)[0]


class LastSigned:
    """The file, as the signer writes it. Raises StoreError when it cannot be read."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self.head, self._slot = _read(path, origin)

    def write(self, head: Checkpoint, *, anew: bool = False) -> None:
        """Remember, durably. Raises StoreError: then nothing is known to be remembered, and nothing may be signed.

        ``anew``: nothing that stands there counts any more, however large it is (after a restore).
        """
        try:
            if self._slot < 0 or anew:
                write_durably(self._path, slot(head).ljust(FILE_BYTES, b"\0"))
                self._slot = 0
            else:
                self._overwrite(1 - self._slot, slot(head))
                self._slot = 1 - self._slot
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from None
        self.head = head

    def _overwrite(self, number: int, data: bytes) -> None:
        # Opened each time: the folder may have been moved, or put back from a copy. No O_CREAT: a file that has gone is not made good.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC)
        try:
            if os.pwrite(descriptor, data, number * SLOT_BYTES) != len(data):
                raise OSError(0, "a write was cut short")
        finally:
            os.close(descriptor)
