"""RFC 6962 proofs and C2SP tile names, against published vectors and by exhaustion on small trees."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerfsd.core.hashing import leaf_hashes, mth, node_hash
from ledgerfsd.merkle import proof, tile
from ledgerfsd.merkle.tile import ENTRIES, Tile

VECTORS = Path(__file__).parent.parent / "vectors"
RFC6962 = VECTORS / "rfc6962-merkle-proofs"
CONSTANTS = json.loads((RFC6962 / "constants.json").read_text())
TILES = json.loads((VECTORS / "tlog-tiles-paths" / "cases.json").read_text())


def vectors(kind: str) -> list[Path]:
    found = sorted((RFC6962 / "testdata" / kind).rglob("*.json"))
    assert len(found) == 98
    return found


def name(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


class Log:
    """The tile levels of a small log, as ``hashes/`` holds them."""

    def __init__(self, size: int) -> None:
        self.leaves = leaf_hashes([b"entry %d" % number for number in range(size)])
        self.size = size

    def read(self, level: int, first: int, count: int) -> bytes:
        width = 256**level
        assert first >= 0
        assert (first + count) * width <= self.size
        subtrees = (self.leaves[32 * at * width : 32 * (at + 1) * width] for at in range(first, first + count))
        return b"".join(mth(subtree) for subtree in subtrees)

    def leaf(self, index: int) -> bytes:
        return self.leaves[32 * index : 32 * index + 32]

    def root(self, size: int) -> bytes:
        return mth(self.leaves[: 32 * size])


# ---- proofs


def test_roots_and_nodes_of_the_published_tree() -> None:
    inputs = [bytes.fromhex(text) for text in CONSTANTS["leaf_inputs_hex"]]
    leaves = leaf_hashes(inputs)
    for size, root in enumerate(CONSTANTS["root_hash_by_tree_size_hex"]):
        assert mth(leaves[: 32 * size]).hex() == root
        assert proof.root(lambda _, first, count: leaves[32 * first : 32 * (first + count)], size).hex() == root
    for height, nodes in enumerate(CONSTANTS["node_hashes_by_level_hex"]):
        for position, node in enumerate(nodes):
            assert mth(leaves[32 * position << height : 32 * (position + 1) << height]).hex() == node


@pytest.mark.parametrize("path", vectors("inclusion"), ids=name)
def test_published_inclusion_proofs(path: Path) -> None:
    case = json.loads(path.read_text())
    hashes = [b64decode(text) for text in case["proof"] or []]
    leaf, root = b64decode(case["leafHash"] or ""), b64decode(case["root"] or "")
    if case["wantErr"]:
        with pytest.raises(proof.ProofError):
            proof.verify_inclusion(case["leafIdx"], case["treeSize"], leaf, hashes, root)
    else:
        proof.verify_inclusion(case["leafIdx"], case["treeSize"], leaf, hashes, root)


@pytest.mark.parametrize("path", vectors("consistency"), ids=name)
def test_published_consistency_proofs(path: Path) -> None:
    case = json.loads(path.read_text())
    hashes = [b64decode(text) for text in case["proof"] or []]
    roots = b64decode(case["root1"] or ""), b64decode(case["root2"] or "")
    # stricter than the vectors: from the empty tree nothing is proved, and a root has 32 bytes
    if case["wantErr"] or case["size1"] == 0 or roots == (b"don't care 2", b"don't care 2"):
        with pytest.raises(proof.ProofError):
            proof.verify_consistency(case["size1"], case["size2"], *roots, hashes)
    else:
        proof.verify_consistency(case["size1"], case["size2"], *roots, hashes)


def test_all_inclusion_proofs_up_to_64_leaves() -> None:
    log = Log(64)
    for size in range(1, 65):
        root = log.root(size)
        assert proof.root(log.read, size) == root
        for index in range(size):
            path = proof.inclusion(log.read, index, size)
            proof.verify_inclusion(index, size, log.leaf(index), path, root)


def test_all_consistency_proofs_up_to_64_leaves() -> None:
    log = Log(64)
    for new in range(1, 65):
        for old in range(1, new + 1):
            path = proof.consistency(log.read, old, new)
            proof.verify_consistency(old, new, log.root(old), log.root(new), path)


def test_proofs_across_tile_levels() -> None:
    log = Log(66_000)
    for size in (255, 256, 257, 65_535, 65_536, 65_537, 66_000):
        assert proof.root(log.read, size) == log.root(size)
        for index in (0, 1, 255, 256, 32_767, 65_535, size - 1):
            if index < size:
                path = proof.inclusion(log.read, index, size)
                proof.verify_inclusion(index, size, log.leaf(index), path, log.root(size))
    for old in (1, 255, 256, 300, 65_536, 65_999, 66_000):
        path = proof.consistency(log.read, old, 66_000)
        proof.verify_consistency(old, 66_000, log.root(old), log.root(66_000), path)


@pytest.mark.parametrize(("index", "size"), [(0, 7), (6, 7), (3, 8), (10, 13)])
def test_a_changed_inclusion_proof_is_refused(index: int, size: int) -> None:
    log = Log(16)
    path, leaf, root = proof.inclusion(log.read, index, size), log.leaf(index), log.root(size)
    changed = [
        (index, size, node_hash(leaf, leaf), path, root),
        (index, size, leaf, path, log.root(size + 1)),
        (index, size, leaf, path[:-1], root),
        (index, size, leaf, [*path, root], root),
        (index, size, leaf, path[::-1], root),
        (index, size, leaf, [path[0][:31], *path[1:]], root),
        (index ^ 1, size, leaf, path, root),
        (size, size, leaf, path, root),
        (-1, size, leaf, path, root),
        (0, 0, leaf, [], root),
    ]
    for case in changed:
        with pytest.raises(proof.ProofError):
            proof.verify_inclusion(*case)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 7), (4, 7), (6, 8), (7, 13), (8, 13)])
def test_a_changed_consistency_proof_is_refused(old: int, new: int) -> None:
    log = Log(16)
    path, old_root, new_root = proof.consistency(log.read, old, new), log.root(old), log.root(new)
    changed = [
        (old, new, log.root(old + 1), new_root, path),
        (old, new, old_root, log.root(new + 1), path),
        (old, new, old_root, new_root, path[:-1]),
        (old, new, old_root, new_root, []),
        (old, new, old_root, new_root, [*path, new_root]),
        (old, new, old_root, new_root, [bytes(32), *path[1:]]),
        (old, new, old_root, new_root, [*path[:-1], b""]),
        (new, old, new_root, old_root, path),
        (0, new, mth(b""), new_root, []),
        (old, old, old_root, new_root, []),
        (old, old, old_root, old_root, path),
    ]
    for case in changed:
        with pytest.raises(proof.ProofError):
            proof.verify_consistency(*case)


def test_proofs_of_nothing_cannot_be_made() -> None:
    log = Log(3)
    assert proof.root(log.read, 0) == mth(b"")
    for index, size in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(ValueError, match="is not in a tree"):
            proof.inclusion(log.read, index, size)
    for old, new in ((0, 3), (3, 2)):
        with pytest.raises(ValueError, match="no consistency proof"):
            proof.consistency(log.read, old, new)


# ---- tiles


def test_published_index_encoding() -> None:
    for case in TILES["index_encoding"]:
        assert tile.encode_index(case["n"]) == case["path"]
        assert tile.decode_index(case["path"]) == case["n"]


def test_published_tile_widths() -> None:
    for case in TILES["partial_tiles_by_size"]:
        for level in range(3):
            full, partial = tile.widths(level, case["tree_size"])
            assert full == case.get(f"full_L{level}", 0)
            assert partial == case.get(f"partial_L{level}", 0)
            assert tile.width(level, full, case["tree_size"]) == partial
            assert tile.width(level, full + 1, case["tree_size"]) == 0
            assert full == 0 or tile.width(level, full - 1, case["tree_size"]) == 256
        assert tile.widths(ENTRIES, case["tree_size"]) == tile.widths(0, case["tree_size"])
        assert tile.width(63, 0, case["tree_size"]) == 0


def test_published_tile_names() -> None:
    """The seeds are of Go's sumdb, whose names begin with the tile height; ours have none."""
    names = [path.split("/", 2)[2] for path in TILES["go_sumdb_tile_path_seeds"]]
    good = {
        "0/001": Tile(0, 1),
        "0/001.p/5": Tile(0, 1, 5),
        "5/x123/x456/078": Tile(5, 123_456_078),
        "5/x123/x456/078.p/2": Tile(5, 123_456_078, 2),
        "0/x003/x057/500": Tile(0, 3_057_500),
    }
    assert set(good) & set(names) == set(good)
    for path in names:
        if path in good:
            assert tile.decode(f"tile/{path}") == good[path]
        else:
            with pytest.raises(ValueError, match="not the name of a tile"):
                tile.decode(f"tile/{path}")


NOT_TILES = """
    tile tile/0 tile/0/ tile/0/1 tile/0/0001 tile/00/001 tile/64/000 tile/-1/000 tile/data/001 /tile/0/001 tile/0/001/
    tile/0/x000/001 tile/0/001/002 tile/0/x001 tile/0/x001/x002 tile/0/X001/002 tile/0/x001//002
    tile/0/001.p/0 tile/0/001.p/256 tile/0/001.p/05 tile/0/001.p/ tile/0/001.p tile/0/001.p/1.p/1
    tile/entries/1 tile/entries/001.p/300 tile/entries/x072/x057/x594/x037/x927/936
    tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999
"""


@pytest.mark.parametrize("path", [*NOT_TILES.split(), "", "tile/0/001\n", "tile/0/\N{ARABIC-INDIC DIGIT ONE}01"])
def test_other_names_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="tile"):
        tile.decode(path)


@given(st.integers(ENTRIES, 63), st.integers(0, 2**56 - 1), st.integers(1, 256))
def test_tile_names_lead_back(level: int, index: int, width: int) -> None:
    found = Tile(level, index, width)
    path = tile.encode(found)
    assert tile.decode(path) == found
    assert path.startswith("tile/entries/" if level == ENTRIES else f"tile/{level}/")
    assert path.endswith(f".p/{found.width}") == (found.width < 256)


def test_tiles_without_a_name_are_refused() -> None:
    for wrong in (Tile(64, 0), Tile(-2, 0), Tile(0, -1), Tile(0, 0, 0), Tile(0, 0, 257), Tile(0, 2**56)):
        with pytest.raises(ValueError, match="no tile"):
            tile.encode(wrong)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_bundles_lead_back(entries: list[bytes]) -> None:
    data = tile.encode_bundle(entries)
    assert tile.decode_bundle(data) == tile.decode_bundle(memoryview(data)) == entries
    ends = [len(tile.encode_bundle(entries[:count])) for count in range(len(entries))]
    for length in set(range(len(data))) - set(ends):
        with pytest.raises(ValueError, match="ends inside entry"):
            tile.decode_bundle(data[:length])


def test_bundles_have_bounds() -> None:
    longest = bytes(65_535)
    assert tile.decode_bundle(tile.encode_bundle([longest, b"", longest])) == [longest, b"", longest]
    assert len(tile.decode_bundle(tile.encode_bundle([b"x"] * 256))) == 256
    with pytest.raises(ValueError, match="257 entries"):
        tile.decode_bundle(tile.encode_bundle([b"x"] * 257))
    with pytest.raises(ValueError, match="65536 bytes"):
        tile.encode_bundle([bytes(65_536)])
