"""Inclusion and consistency proofs of RFC 6962 (verified as RFC 9162, section 2.1, says).

Proofs are made from the hashes of the tile levels: a ``Reader`` gives ``count`` neighbouring hashes of a level,
concatenated, as ``Engine.hashes`` does. Verifiers return nothing; a proof that does not hold raises ``ProofError``.
They are stricter than the RFC where published test vectors show the need: a hash has 32 bytes, and a consistency proof
from the empty tree proves nothing and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ledgerfsd.core.hashing import HASH_BYTES, mth, node_hash
from ledgerfsd.errors import LedgerError

Reader = Callable[[int, int, int], bytes]  # level, first, count → count * 32 bytes


class ProofError(LedgerError):
    """A proof does not prove what it is given for."""

    exit_code = 4


def _subtree(read: Reader, height: int, position: int) -> bytes:
    """The perfect subtree of 2**height leaves: at most 128 hashes of the tile level below it."""
    level, steps = divmod(height, 8)
    return mth(read(level, position << steps, 1 << steps))


def _range(read: Reader, begin: int, end: int) -> bytes:
    """MTH of the leaves begin..end-1, which must be a node of the tree: its perfect subtrees, joined from the right."""
    nodes: list[bytes] = []
    while begin < end:
        height = (end - begin).bit_length() - 1
        nodes.append(_subtree(read, height, begin >> height))
        begin += 1 << height
    root = nodes.pop()
    while nodes:
        root = node_hash(nodes.pop(), root)
    return root


def _split(count: int) -> int:
    """The largest power of two below count (RFC 6962's k)."""
    return 1 << ((count - 1).bit_length() - 1)


def root(read: Reader, size: int) -> bytes:
    """The root of the tree of the first ``size`` leaves."""
    return _range(read, 0, size) if size else mth(b"")


def inclusion(read: Reader, index: int, size: int) -> list[bytes]:
    """The audit path of a leaf in the tree of the first ``size`` leaves. Raises ValueError when it is not in it."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range(read, middle, end))
            end = middle
        else:
            path.append(_range(read, begin, middle))
            begin = middle
    path.reverse()
    return path


def consistency(read: Reader, old: int, new: int) -> list[bytes]:
    """The proof that the tree of ``old`` leaves is the beginning of the tree of ``new`` leaves.

    Raises ValueError unless 0 < old <= new.
    """
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof leads from {old} to {new} leaves")
    path: list[bytes] = []
    begin, end = 0, new
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(_range(read, middle, end))
            end = middle
        else:
            path.append(_range(read, begin, middle))
            begin = middle
    if begin > 0:  # else the old root is known to whoever verifies
        path.append(_range(read, begin, end))
    path.reverse()
    return path


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise ProofError("a hash in the proof does not have 32 bytes")


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ProofError unless the leaf hash is that of leaf ``index`` in the tree of ``size`` leaves with this root."""
    _check_hashes([leaf, root, *proof])
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if found != root:
        raise ProofError(f"the inclusion proof of leaf {index} does not lead to the root of {size}")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise ProofError unless the tree of ``old`` leaves (with its root) is the beginning of that of ``new`` leaves."""
    _check_hashes([old_root, new_root, *proof])
    if not 0 < old <= new:
        raise ProofError(f"no consistency proof leads from {old} to {new} leaves")
    if old == new:
        if proof or old_root != new_root:
            raise ProofError(f"two different trees of {old} leaves")
        return
    path = list(proof)
    if old & (old - 1) == 0:  # a perfect subtree of the new tree: its root begins the path
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is too short")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            old_found, new_found = node_hash(sibling, old_found), node_hash(sibling, new_found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    if old_found != old_root or new_found != new_root:
        raise ProofError(f"the trees of {old} and {new} leaves are not one history")
