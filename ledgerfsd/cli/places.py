"""Which mount, which store, which witness policy: from the option, the environment, or the usual place."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from ledgerfsd import mounts
from ledgerfsd.errors import LedgerError, StoreError
from ledgerfsd.journal.layout import Layout
from ledgerfsd.merkle import witness_policy
from ledgerfsd.merkle.note import NoteError
from ledgerfsd.merkle.witness_policy import WitnessPolicy

MOUNT_VARIABLE: Final = "LEDGERFS_MOUNT"
STORE_VARIABLE: Final = "LEDGERFS_STORE"
USUAL_MOUNT: Final = "./ledgerfs"


def mountpoint(option: str | None) -> Path:
    """Where the mount is meant to be: --mount, $LEDGERFS_MOUNT or ./ledgerfs."""
    return mounts.absolute(Path(option or os.environ.get(MOUNT_VARIABLE) or USUAL_MOUNT))


def mounted(option: str | None) -> Path:
    """The same, and a daemon answers there. Raises StoreError."""
    path = mountpoint(option)
    try:
        os.statvfs(path / ".ledgerfs" / "version")  # unlike stat, never answered from the kernel's cache
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            hint = f"mount it again: `ledgerfs mount --store DIR --mount {path}`"
            raise StoreError(f"the daemon behind {path} is dead", hint=hint) from None
        hint = f"give --mount DIR or set {MOUNT_VARIABLE}; `ledgerfs mount` mounts one"
        raise StoreError(f"no LedgerFS is mounted at {path}", hint=hint) from None
    return path


def policy(path: Path) -> WitnessPolicy:
    """The witness policy in a file. Raises LedgerError."""
    try:
        return witness_policy.parse(path.read_bytes())
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror}") from None
    except NoteError as error:
        raise LedgerError(f"{path}: {error}") from None


def store(option: str | None) -> Layout:
    """The store: --store or $LEDGERFS_STORE. There is no usual place: offline work must not hit a store by accident."""
    place = option or os.environ.get(STORE_VARIABLE)
    if not place:
        raise LedgerError("which store?", hint=f"give --store DIR or set {STORE_VARIABLE}")
    return Layout(Path(place).resolve())
