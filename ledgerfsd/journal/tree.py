"""RFC 6962 trees, the plain way: what ``fsck`` compares the core's roots and hash files with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(entry: bytes) -> bytes:
    """The leaf hash of an entry."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: at most one complete subtree of each height."""

    def __init__(self) -> None:
        self.size = 0
        self.completed: list[tuple[int, bytes]] = []  # (height, hash) of subtrees completed since the last ``fork``
        self._edge: list[bytes] = []  # highest first; its heights are the one bits of ``size``

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        height, node, size = 0, leaf, self.size
        self.completed.append((0, leaf))
        while size & 1:
            node = node_hash(self._edge.pop(), node)
            height += 1
            size >>= 1
            self.completed.append((height, node))
        self._edge.append(node)
        self.size += 1

    def fork(self) -> Frontier:
        """A copy to go on with, whose list of completed subtrees is empty."""
        copy = Frontier()
        copy.size, copy._edge = self.size, self._edge.copy()
        return copy

    def root(self) -> bytes:
        """The root of the tree so far."""
        if not self._edge:
            return EMPTY_ROOT
        node = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            node = node_hash(left, node)
        return node


def root(leaves: Iterable[bytes]) -> bytes:
    """The root of the tree over these leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()
