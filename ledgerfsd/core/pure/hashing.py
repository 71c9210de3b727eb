"""SHA-256 and RFC 6962 trees in plain Python: the twin of ``core/csrc/hash/sha256*.c`` and ``merkle.c``.

Same names as ``ledgerfsd.core.hashing``. Lists of hashes are concatenated 32-byte strings, as the files of ``hashes/``
hold them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def leaf_hashes(entries: Sequence[bytes]) -> bytes:
    """The leaf hash of each entry, concatenated."""
    return b"".join(sha256(b"\0" + entry) for entry in entries)


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\1" + left + right)


def mth(hashes: bytes) -> bytes:
    """The RFC 6962 root over leaf hashes, by the definition of section 2.1."""
    count = len(hashes) // 32
    if count == 0:
        return sha256(b"")
    if count == 1:
        return hashes
    split = 1 << ((count - 1).bit_length() - 1)  # the largest power of two below count
    return node_hash(mth(hashes[: 32 * split]), mth(hashes[32 * split :]))


class Frontier:
    """The perfect subtrees of a growing tree: all that is needed to append and to compute the root."""

    def __init__(self) -> None:
        self.size = 0
        self._nodes: dict[int, bytes] = {}  # by height; the heights are the bits of size

    def append(self, hashes: bytes) -> None:
        """Append leaf hashes."""
        for start in range(0, len(hashes), 32):
            self.append_subtree(0, hashes[start : start + 32])

    def append_subtree(self, height: int, node: bytes) -> None:
        """Append one perfect subtree of 2**height leaves. Raises ValueError when size is not a multiple of that."""
        if not 0 <= height <= 63 or self.size % (1 << height):
            raise ValueError(f"a subtree of height {height} cannot follow {self.size} leaves")
        self.size += 1 << height
        while height in self._nodes:
            node = node_hash(self._nodes.pop(height), node)
            height += 1
        self._nodes[height] = node

    def root(self) -> bytes:
        """The root of the tree so far."""
        nodes = [self._nodes[height] for height in sorted(self._nodes)]
        if not nodes:
            return sha256(b"")
        root = nodes[0]
        for node in nodes[1:]:
            root = node_hash(node, root)
        return root
