"""The state tree in plain Python (docs/FORMAT.md, section 12): the twin of ``core/csrc/ledger/state_tree.c``.

A tree for each currency and class, over what every account has; nodes carry sums. Start at ``StateTree``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from ...types import Account

LEAF: Final = b"\x10"
NODE: Final = b"\x11"
STATE: Final = b"\x12"
_STATUS: Final = ("open", "frozen", "closed")
_SUM_BYTES: Final = 24
_TOTAL_BYTES: Final = 16


class Sums(NamedTuple):
    """Minor units; never negative."""

    debits: int
    credits: int
    liability: int


class Node(NamedTuple):
    """A node of a tree, or a leaf."""

    hash: bytes
    sums: Sums


class Total(NamedTuple):
    """A whole tree."""

    currency: str
    account_class: str
    accounts: int
    sums: Sums
    root: bytes


class Path(NamedTuple):
    """What leads from an account's leaf to the root of its tree."""

    position: int
    siblings: list[Node]  # from the leaf upwards


def leaf(account: Account) -> Node:
    """The leaf of an account."""
    parts = (
        LEAF,
        account.ordinal.to_bytes(8, "big"),
        _prefixed(account.name),
        _prefixed(account.currency),
        bytes([account.decimals]),
        _prefixed(account.account_class),
        bytes([account.normal == "credit", _STATUS.index(account.status)]),
        account.entries.to_bytes(8, "big"),
        account.last_index.to_bytes(8, "big"),
        *(
            total.to_bytes(_TOTAL_BYTES, "big")
            for total in (account.debits, account.credits, account.held_debits, account.held_credits)
        ),
    )
    sums = Sums(account.debits, account.credits, max(0, account.credits - account.debits))
    return Node(hashlib.sha256(b"".join(parts)).digest(), sums)


def parent(height: int, left: Node, right: Node) -> Node:
    """The node above two others; ``height`` is one more than the left one's."""
    data = NODE + bytes([height]) + left.hash + _sums(left.sums) + right.hash + _sums(right.sums)
    sums = Sums(*(first + second for first, second in zip(left.sums, right.sums, strict=True)))
    return Node(hashlib.sha256(data).digest(), sums)


def state_root(totals: Iterable[Total]) -> bytes:
    """The root over all trees, which come in order."""
    trees = list(totals)
    parts = [STATE, sum(tree.accounts for tree in trees).to_bytes(8, "big"), len(trees).to_bytes(4, "big")]
    for tree in trees:
        parts += (_prefixed(tree.currency), _prefixed(tree.account_class), tree.accounts.to_bytes(8, "big"))
        parts += (_sums(tree.sums), tree.root)
    return hashlib.sha256(b"".join(parts)).digest()


class StateTree:
    """The trees of a ledger, brought up to date account by account."""

    def __init__(self) -> None:
        # Level 0 are the leaves; a node without a right neighbour rises as it is, which gives RFC 6962's shape.
        self._trees: dict[tuple[bytes, bytes], list[list[Node]]] = {}
        self._places: dict[int, tuple[tuple[bytes, bytes], int]] = {}  # by ordinal

    def update(self, accounts: Iterable[Account]) -> None:
        """These accounts have changed; new ones come in the order of their ordinals."""
        for account in accounts:
            if account.ordinal not in self._places:
                key = (account.currency.encode(), account.account_class.encode())
                levels = self._trees.setdefault(key, [[]])
                self._places[account.ordinal] = (key, len(levels[0]))
            key, position = self._places[account.ordinal]
            self._set(self._trees[key], position, leaf(account))

    @staticmethod
    def _set(levels: list[list[Node]], position: int, node: Node) -> None:
        height = 0
        while True:
            if position == len(levels[height]):
                levels[height].append(node)
            else:
                levels[height][position] = node
            if len(levels[height]) == 1:
                return
            if height + 1 == len(levels):
                levels.append([])
            left = position & ~1
            pair = levels[height][left : left + 2]
            height += 1
            node = parent(height, *pair) if len(pair) == 2 else pair[0]
            position >>= 1

    def totals(self) -> list[Total]:
        """Every tree, in order."""
        found = []
        for (currency, account_class), levels in sorted(self._trees.items()):
            node = levels[-1][0]
            found.append(Total(currency.decode(), account_class.decode(), len(levels[0]), node.sums, node.hash))
        return found

    def root(self) -> bytes:
        """The state root."""
        return state_root(self.totals())

    def path(self, ordinal: int) -> Path:
        """The path of an account. Raises KeyError when it has none."""
        key, position = self._places[ordinal]
        siblings, at = [], position
        for level in self._trees[key][:-1]:
            if at ^ 1 < len(level):
                siblings.append(level[at ^ 1])
            at >>= 1
        return Path(position, siblings)


def follow(node: Node, position: int, count: int, siblings: Iterable[Node]) -> Node:
    """The root to which a path leads from a leaf, in a tree of ``count`` leaves. Raises ValueError when it cannot."""
    if not 0 <= position < count:
        raise ValueError(f"position {position} is not in a tree of {count} accounts")
    rest = iter(siblings)
    last, height = count - 1, 0
    while last:
        height += 1
        if position & 1 or position < last:
            other = next(rest, None)
            if other is None:
                raise ValueError("the path is too short")
            node = parent(height, other, node) if position & 1 else parent(height, node, other)
        position >>= 1
        last >>= 1
    if next(rest, None) is not None:
        raise ValueError("the path is too long")
    return node


def _prefixed(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _sums(sums: Sums) -> bytes:
    return b"".join(value.to_bytes(_SUM_BYTES, "big") for value in sums)
