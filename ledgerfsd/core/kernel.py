"""What the kernel holds of the ``balance.json`` of accounts (``kernel.c``), and their text (``balance.c``), behind a typed face.

``vfs.kernel`` keeps the same of all other files, and says what the rules are. Of these it is kept in the core, because
the core's front answers requests about them by itself. All methods may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ledgerfsd.core import _core
from ledgerfsd.core.engine import Engine

ffi: Any = _core.ffi
lib: Any = _core.lib

_NOW: Final = 2**64 - 1


class HeldBalances:
    """Look-ups, opens and what is to be told; by the ordinal of the account."""

    def __init__(self, engine: Engine) -> None:
        self._owner = engine
        self._engine = engine.handle

    def __len__(self) -> int:
        return int(lib.lfs_kernel_count(self._engine))

    def hold(self, ordinal: int) -> None:
        """The kernel gets an answer to a LOOKUP, with attributes that are valid for no time."""
        lib.lfs_kernel_hold(self._engine, ordinal)

    def forget(self, ordinal: int, count: int) -> None:
        """It gives look-ups back."""
        lib.lfs_kernel_forget(self._engine, ordinal, count)

    def asking(self, ordinal: int) -> int:
        """It is going to get attributes that are valid for long: from here on the account is watched. The result is for ``lasting``."""
        return int(lib.lfs_kernel_asking(self._engine, ordinal))

    def lasting(self, ordinal: int, asked: int) -> bool:
        """Whether it was told of no commit since ``asking``."""
        return bool(lib.lfs_kernel_lasting(self._engine, ordinal, asked))

    def coming(self, ordinal: int) -> bool:
        """Whether the kernel is about to make the inode, with attributes that are valid for long: an answer to LOOKUP is on its way."""
        return bool(lib.lfs_kernel_coming(self._engine, ordinal))

    def opened(self, ordinal: int) -> bool:
        """OPEN. Whether the pages have to be dropped first."""
        return bool(lib.lfs_kernel_opened(self._engine, ordinal))

    def released(self, ordinal: int) -> None:
        """RELEASE."""
        lib.lfs_kernel_released(self._engine, ordinal)

    def committed(self, ordinals: Iterable[int]) -> tuple[list[int], list[int]]:
        """These accounts were touched: of whose files attributes are to be dropped, and of whose the pages too, for they are open."""
        touched = list(ordinals)
        told = ffi.new("uint8_t[]", len(touched))
        lib.lfs_kernel_committed(self._engine, touched, len(touched), told)
        told = bytes(ffi.buffer(told))
        found = {
            what: [ordinal for ordinal, each in zip(touched, told, strict=True) if each == what] for what in set(told)
        }
        return found.get(lib.LFS_TELL_ATTRIBUTES, []), found.get(lib.LFS_TELL_PAGES, [])

    def renewed(self, ordinal: int) -> None:
        """The pages are dropped."""
        lib.lfs_kernel_renewed(self._engine, ordinal)


def balance(engine: Engine, ordinal: int, size: int | None = None) -> tuple[bytes, int]:
    """``balance.json`` as the core writes it, and its mtime in ns: now, or as the first ``size`` entries left the account.

    Raises IndexError when there is no such account, or was not yet. The twin is ``service.render.balance``.
    """
    out = ffi.new("uint8_t[]", lib.LFS_BALANCE_BYTES)
    ns = ffi.new("uint64_t *")
    if lib.lfs_read_balance(engine.handle, ordinal, _NOW if size is None else size, out, ns) != 1:
        raise IndexError(ordinal)
    return bytes(ffi.buffer(out)), int(ns[0])
