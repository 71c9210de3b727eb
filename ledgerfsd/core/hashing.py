"""SHA-256 and RFC 6962 trees of the C core (``csrc/hash/lfs_hash.h``), typed.

Lists of hashes are concatenated 32-byte strings, as the files of ``hashes/`` hold them.
Start at ``leaf_hashes`` and ``mth``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledgerfsd.core._core import ffi, lib

HASH_BYTES = 32


def _count(hashes: bytes) -> int:
    count, rest = divmod(len(hashes), HASH_BYTES)
    if rest:
        raise ValueError(f"a list of hashes cannot have {len(hashes)} bytes")
    return count


def backend() -> str:
    """The implementation of SHA-256 in use, such as ``sha-ni``."""
    return _text(lib.lfs_hash_backend())


def backends() -> list[str]:
    """All implementations that were built, whether or not this processor can run them."""
    names: list[str] = []
    while (name := lib.lfs_hash_name(len(names))) != ffi.NULL:
        names.append(_text(name))
    return names


def select(name: str) -> bool:
    """Use another implementation, for tests only (no other thread may be hashing). False: not on this processor."""
    return bool(lib.lfs_hash_select(name.encode()) == 0)


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    out = bytearray(HASH_BYTES)
    lib.lfs_sha256(ffi.from_buffer("uint8_t[]", data), len(data), ffi.from_buffer("uint8_t[]", out))
    return bytes(out)


def leaf_hashes(entries: Sequence[bytes]) -> bytes:
    """The leaf hash of each entry, concatenated."""
    pointers = [ffi.from_buffer("uint8_t[]", entry) for entry in entries]
    out = bytearray(HASH_BYTES * len(pointers))
    lib.lfs_leaf_hashes(pointers, [len(entry) for entry in entries], len(pointers), ffi.from_buffer("uint8_t[]", out))
    return bytes(out)


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node. Raises ValueError for what is not a hash."""
    if len(left) != HASH_BYTES or len(right) != HASH_BYTES:
        raise ValueError("a hash has 32 bytes")
    out = bytearray(HASH_BYTES)
    lib.lfs_node_hash(left, right, ffi.from_buffer("uint8_t[]", out))
    return bytes(out)


def mth(hashes: bytes) -> bytes:
    """The RFC 6962 root over leaf hashes (or over the roots of neighbouring perfect subtrees of one size)."""
    count = _count(hashes)
    out, scratch = bytearray(HASH_BYTES), bytearray(HASH_BYTES * ((count + 1) // 2))
    arguments = (ffi.from_buffer("uint8_t[]", hashes), count, ffi.from_buffer("uint8_t[]", scratch))
    lib.lfs_mth(*arguments, ffi.from_buffer("uint8_t[]", out))
    return bytes(out)


class Frontier:
    """The perfect subtrees of a growing tree: all that is needed to append and to compute the root."""

    def __init__(self) -> None:
        self._frontier = ffi.new("lfs_frontier *")

    @property
    def size(self) -> int:
        """Leaves so far."""
        return int(self._frontier.size)

    def append(self, hashes: bytes) -> None:
        """Append leaf hashes."""
        count = _count(hashes)
        lib.lfs_frontier_append(self._frontier, ffi.from_buffer("uint8_t[]", hashes), count)

    def append_batch(self, hashes: bytes) -> tuple[bytes, bytes]:
        """Append leaf hashes. Returns the root over these alone, and the hashes of the subtrees of 256 leaves that they complete."""
        count = _count(hashes)
        root, scratch, tiles = (
            bytearray(HASH_BYTES),
            bytearray(HASH_BYTES * (count + 1)),
            bytearray(HASH_BYTES * (count // 256 + 1)),
        )
        rooms = [ffi.from_buffer("uint8_t[]", room) for room in (scratch, tiles, root)]
        found = lib.lfs_frontier_append_batch(self._frontier, ffi.from_buffer("uint8_t[]", hashes), count, *rooms)
        return bytes(root), bytes(tiles[: HASH_BYTES * found])

    def append_subtree(self, height: int, node: bytes) -> None:
        """Append one perfect subtree of 2**height leaves. Raises ValueError when size is not a multiple of that."""
        if len(node) != HASH_BYTES:
            raise ValueError("a hash has 32 bytes")
        if not 0 <= height <= 63 or lib.lfs_frontier_append_subtree(self._frontier, height, node):
            raise ValueError(f"a subtree of height {height} cannot follow {self.size} leaves")

    def root(self) -> bytes:
        """The root of the tree so far."""
        out = bytearray(HASH_BYTES)
        lib.lfs_frontier_root(self._frontier, ffi.from_buffer("uint8_t[]", out))
        return bytes(out)


def _text(name: object) -> str:
    return bytes(ffi.string(name)).decode()
