"""Proofs of entries, made by the core (``csrc/engine/prove.c``), and whether the next transactions are to be signed ahead.

Start at ``EntryProofs``. Its twin is ``merkle.proof``, which makes the same of the hashes of the tile levels
(``tests/unit/test_entry_proofs.py`` compares).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ledgerfsd.core import _core
from ledgerfsd.core.hashing import HASH_BYTES

if TYPE_CHECKING:
    from ledgerfsd.core.engine import Engine

ffi: Any = _core.ffi
lib: Any = _core.lib


class EntryProofs:
    """Of the entries of one engine. ``size``: of the tree of the first so many; raises IndexError when there are not so many."""

    def __init__(self, engine: Engine) -> None:
        self._owner = engine
        self._engine = engine.handle

    def root(self, size: int) -> bytes:
        """The root of the tree."""
        self._within(0 < size, size)
        out = bytearray(HASH_BYTES)
        lib.lfs_root(self._engine, size, ffi.from_buffer(out))
        return bytes(out)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The audit path of an entry. Raises IndexError when it is not in the tree."""
        self._within(0 <= index < size, size)
        return self._path(lib.lfs_inclusion, index, size)

    def consistency(self, old: int, size: int) -> list[bytes]:
        """The proof that the tree of ``old`` entries is the beginning of the tree. Raises IndexError unless 0 < old <= size."""
        self._within(0 < old <= size, size)
        return self._path(lib.lfs_consistency, old, size)

    def read(self, index: int, size: int) -> None:
        """Somebody reads the proof of an entry.

        When it leads beyond all others, commits are told of before they are answered, until ``expected`` is asked: the next
        transactions are to be signed at once.
        """
        lib.lfs_proof_read(self._engine, index, size)

    def expected(self) -> bool:
        """Whether it is so; from then on not any more."""
        return bool(lib.lfs_proofs_expected(self._engine))

    def _within(self, possible: bool, size: int) -> None:
        if not possible or size > self._owner.counts().entries:
            raise IndexError(f"no such proof in a tree of {size} entries")

    def _path(self, make: Any, what: int, size: int) -> list[bytes]:
        room = bytearray(HASH_BYTES * lib.LFS_PATH_MAX)
        count = make(self._engine, what, size, ffi.from_buffer("uint8_t[]", room))
        return [bytes(room[at : at + HASH_BYTES]) for at in range(0, count * HASH_BYTES, HASH_BYTES)]
