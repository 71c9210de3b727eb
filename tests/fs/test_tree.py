"""Names: what is listed can be looked up and is the same file; what is not canonical is not found."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledgerfsd.merkle import tile as c2sp
from ledgerfsd.service.inbox import Area
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Branches
from ledgerfsd.vfs.nodes import ENTRIES, Fixed, Kind
from ledgerfsd.vfs.tree import Tree
from tests.fs.conftest import Mounted, packed, pay

ENTRY_COUNTS = (0, 1, 255, 256, 257, 256 * 999, 256 * 1000, 256 * 1000 + 1, 256 * 2001, 256 * 1_000_000 + 3, 2**32 - 3)


def tiles_of(entries: int) -> Tree:
    """A tree over a log of so many entries. Only sizes are asked for, and no test could write four thousand million entries."""
    engine = SimpleNamespace(level_size=lambda level: entries >> 8 * level)
    nothing: Any = None
    return Tree(cast("Any", engine), nothing, nothing, nothing, nothing, Branches(()))


@pytest.mark.trio
@pytest.mark.parametrize("entries", ENTRY_COUNTS)
async def test_tiles_are_where_c2sp_puts_them(entries: int) -> None:
    """Every tile resolves under its C2SP path, also its partial forms, and nothing behind the end. SEMANTICS 2.7"""
    tree = tiles_of(entries)
    for level in (0, 1, 2, c2sp.ENTRIES):
        full, width = c2sp.widths(level, entries)
        for number in {0, 1, 999, 1000, 1001, 2000, 999_999, 1_000_000, 1_000_001, full - 1, full, full + 1}:
            if number < 0:
                continue
            there = c2sp.width(level, number, entries)
            for wanted in (1, 2, 255, 256, width or 3):
                path = c2sp.encode(c2sp.Tile(level, number, wanted))
                node = await _find(tree, path)
                code = ENTRIES if level == c2sp.ENTRIES else level
                assert node == (nodes.tile(code, number, wanted) if wanted <= there else 0), path


async def _find(tree: Tree, path: str) -> int:
    node = int(Fixed.LOG)
    for part in path.split("/"):
        node, _ = await tree.lookup(node, part.encode()) if node else (0, True)
    return node


@pytest.mark.trio
@pytest.mark.parametrize("entries", [0, 1, 257, 256 * 1000, 256 * 2001 + 9, 256 * 1_000_000 + 3])
async def test_tiles_are_listed_as_they_are_found(entries: int) -> None:
    """Listing and look-up agree, and a listing can be taken up anywhere. SEMANTICS 2.7, SEMANTICS 2.9, SEMANTICS 2.10"""
    tree = tiles_of(entries)
    levels = [name for name, _, _ in tree.entries(Fixed.TILES, 2, None)]
    assert levels == [b"entries", *(b"%d" % level for level in range(8) if entries >> 8 * level)]
    directories = [nodes.inode(Kind.TILE_LEVEL, ENTRIES), nodes.inode(Kind.TILE_LEVEL, 0)][: 1 + bool(entries)]
    seen = 0
    while directories:
        directory = directories.pop()
        whole = list(tree.entries(directory, 0, None))
        assert [name for name, _, _ in whole[:2]] == [b".", b".."]
        assert [inode for _, inode, _ in whole[:2]] == [directory, tree.parent(directory)]
        for before, (name, inode, place) in itertools.pairwise(whole):
            if before[2] > 1:
                assert next(tree.entries(directory, before[2], None)) == (name, inode, place)
                assert await tree.lookup(directory, name) == (inode, True)
            if nodes.is_directory(inode) and name not in (b".", b".."):
                assert tree.parent(inode) == directory
                directories.append(inode)
        seen += sum(nodes.kind_of(inode) is Kind.TILE for _, inode, _ in whole)
        if len(directories) > 20:
            directories = directories[:3] + directories[-3:]  # the first and the last ones; there are thousands
    assert (seen > 0) == (entries > 0)


@given(st.sampled_from(Kind), st.integers(0, 2**48 - 1))
@example(Kind.INBOX_FILE, 2**48 - 1)
def test_inode_numbers_are_reversible(kind: Kind, number: int) -> None:
    inode = nodes.inode(kind, number)
    assert (nodes.kind_of(inode), nodes.number_of(inode)) == (kind, number)
    assert inode < 1 << 62 or nodes.is_directory(inode), "handle numbers begin there"


@given(
    st.integers(0, 8),
    st.integers(0, 2**24 - 1),
    st.integers(0, 256),
    st.integers(0, 2**24 - 1),
    st.integers(0, 2**32 - 1),
)
def test_packed_numbers_are_reversible(level: int, number: int, width: int, ordinal: int, index: int) -> None:
    assert nodes.tile_parts(nodes.number_of(nodes.tile(level, number, width))) == (level, number, width)
    assert nodes.group_parts(nodes.number_of(nodes.group(level, 2, number))) == (level, 2, number)
    old, new = sorted((number + 1, index % 2**30 + 1))
    pair = nodes.consistency(old, new)
    assert nodes.kind_of(pair) is Kind.CONSISTENCY
    assert nodes.consistency_parts(nodes.number_of(pair)) == (old, new)
    assert nodes.snapshot_parts(nodes.number_of(nodes.snapshot(ordinal, index))) == (ordinal, index)
    past = nodes.past_account(level, index, ordinal)
    assert nodes.kind_of(past) is Kind.PAST_ACCOUNT
    assert nodes.is_directory(past)
    assert nodes.past_account_parts(nodes.number_of(past)) == (level, index, ordinal)
    assert nodes.past_parts(nodes.number_of(nodes.past_directory(3, level, index))) == (3, level, index)


def test_pairs_of_blocks_are_counted_up_to_the_first_handle() -> None:
    numbers = [nodes.consistency(old, new) for new in range(1, 50) for old in range(1, new + 1)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    largest = 1_518_500_249  # about 1.4 * 2^30
    last = nodes.consistency(largest, largest)
    assert nodes.consistency_parts(nodes.number_of(last)) == (largest, largest)
    assert nodes.kind_of(last) is Kind.CONSISTENCY
    assert last < 1 << 62, "handle numbers begin there"
    assert nodes.consistency(largest + 1, largest + 1) == 0


@pytest.mark.trio
async def test_only_listed_spellings_are_found(mounted_here: Mounted) -> None:
    """SEMANTICS 2.6"""
    await mounted_here.write("inbox/x.json", packed(pay()))
    tree = mounted_here.operations.tree
    for directory, good, bad in (
        (
            Fixed.TRANSACTIONS,
            b"tx_0001.json",
            (b"tx_1.json", b"tx_00001.json", b"tx_0000.json", b"tx_0002.json", b"tx_0001"),
        ),
        (Fixed.BLOCKS, b"00000001.json", (b"1.json", b"000000001.json", b"00000000.json", b"00000099.json")),
        (Fixed.ACCOUNTS, b"a", (b"A", b"a.json", b"..x")),
        (Fixed.TILES, b"0", (b"00", b"8", b"9", b"-1", b"1")),
        (Fixed.ROOT, b"inbox", (b"log.json", b"proof", b"snapshots")),
    ):
        node, lasting = await tree.lookup(directory, good)
        assert node, good
        assert lasting
        for name in bad:
            assert await tree.lookup(directory, name) == (0, True), name


@pytest.mark.trio
async def test_every_file_is_listed_and_found(mounted_here: Mounted) -> None:
    """Walk the whole tree: each listed name resolves to the listed inode number. SEMANTICS 2.10"""
    await mounted_here.write("inbox/x.json", packed(pay()))
    await mounted_here.write("inbox/dry-run/y.json", packed(pay()))
    await mounted_here.signing.start()
    try:
        await walk_everything(mounted_here)
    finally:
        await mounted_here.signing.stop()


async def walk_everything(mounted_here: Mounted) -> None:
    """Look up, stat and read all there is."""
    tree = mounted_here.operations.tree
    paths = {}
    todo = [("", 1)]
    while todo:
        path, directory = todo.pop()
        for name, inode, _ in tree.entries(directory, 2, tree.snapshot_of(directory)):
            found, _ = await tree.lookup(directory, name)
            assert found == inode, name
            paths[f"{path}/{name.decode()}"] = inode
            attributes = await mounted_here.operations.getattr(cast("Any", inode), mounted_here.ctx)
            assert attributes.st_ino == inode
            if nodes.is_directory(inode):
                assert tree.parent(inode) == directory
                todo.append((f"{path}/{name.decode()}", inode))
            else:
                assert (
                    len(await mounted_here.read(f"{path}/{name.decode()}"[1:])) == attributes.st_size
                    or ".ledgerfs" in path
                )
    assert len(set(paths.values())) == len(paths)
    expected = {"/README.txt", "/inbox/x.json", "/receipts/x.json", "/receipts/dry-run/y.json", "/.ledgerfs/health",
                "/accounts/a/balance.json", "/transactions/tx_0001.json", "/blocks/00000001.json",
                "/log/tile/entries/000.p"}  # fmt: skip
    assert expected <= set(paths)
    assert tree._inbox.files(Area.ATOMIC) == []
