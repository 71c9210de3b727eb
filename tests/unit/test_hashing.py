"""SHA-256 and RFC 6962 trees: every implementation that this processor can run equals hashlib and the Python twin."""

from __future__ import annotations

import ctypes
import mmap
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerfsd.core import hashing
from ledgerfsd.core._core import ffi, lib
from ledgerfsd.core.pure import hashing as twin

NIST = Path(__file__).parent.parent / "vectors" / "sha256-nist"
BEST = hashing.backend()


def can_run(name: str) -> bool:
    try:
        return hashing.select(name)
    finally:
        assert hashing.select(BEST)


@pytest.fixture(params=[name for name in hashing.backends() if can_run(name)])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each implementation in turn."""
    assert hashing.select(request.param)
    yield hashing.backend()
    assert hashing.select(BEST)


def noise(seed: int, *lengths: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(length) for length in lengths]


def fields(path: Path, name: str) -> list[str]:
    """The values of one field of a NIST response file."""
    lines = (line.partition(" = ") for line in path.read_text().splitlines())
    return [value for key, _, value in lines if key == name]


def test_the_best_implementation_is_in_use() -> None:
    usable = [name for name in hashing.backends() if name != "avx2x16+openssl" and can_run(name)]
    assert hashing.backend() == usable[0]
    assert usable[-1] == "openssl"


def test_unknown_implementation_changes_nothing() -> None:
    assert not hashing.select("md5")
    assert hashing.backend() == BEST


@pytest.mark.parametrize("name", ["SHA256ShortMsg.rsp", "SHA256LongMsg.rsp"])
def test_nist_messages(backend: str, name: str) -> None:
    lengths, messages, digests = (fields(NIST / name, field) for field in ("Len", "Msg", "MD"))
    assert len(lengths) == len(messages) == len(digests) > 60
    for bits, message, digest in zip(lengths, messages, digests, strict=True):
        assert hashing.sha256(bytes.fromhex(message)[: int(bits) // 8]).hex() == digest


def test_nist_monte_carlo(backend: str) -> None:
    (seed,) = fields(NIST / "SHA256Monte.rsp", "Seed")
    digest = bytes.fromhex(seed)
    for expected in fields(NIST / "SHA256Monte.rsp", "MD")[:3]:
        last = [digest] * 3
        for _ in range(1000):
            last = [*last[1:], hashing.sha256(b"".join(last))]
        digest = last[-1]
        assert digest.hex() == expected


def test_every_length(backend: str) -> None:
    messages = noise(1, *range(301))
    for message in messages:
        assert hashing.sha256(message) == twin.sha256(message)
    assert hashing.leaf_hashes(messages) == twin.leaf_hashes(messages)
    for message in messages[::7]:
        assert hashing.leaf_hashes([message] * 33) == twin.leaf_hashes([message]) * 33


def test_every_number_of_leaves(backend: str) -> None:
    for count in range(70):
        entries = noise(count, *[500] * count)
        assert hashing.leaf_hashes(entries) == twin.leaf_hashes(entries)


def test_long_and_short_leaves_together(backend: str) -> None:
    for seed in range(20):
        source = random.Random(seed)
        longest = source.choice([60, 130, 1000, 65535])
        entries = noise(seed, *[source.randrange(longest) for _ in range(source.randrange(1, 90))])
        assert hashing.leaf_hashes(entries) == twin.leaf_hashes(entries)


def test_nothing_is_read_but_the_message(backend: str) -> None:
    """Sixteen messages, each between two pages that nobody may touch: what stands around a message may not be there."""
    page, count = mmap.PAGESIZE, 16
    pages = mmap.mmap(-1, page * (2 * count + 1))
    first = ctypes.c_char.from_buffer(pages)
    where = ctypes.addressof(first)
    for number in range(0, 2 * count + 1, 2):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(where + page * number), page, 0) == 0
    out = bytearray(32 * count)
    for length in (1, 54, 55, 56, 63, 64, 119, 120, 500, 1000, 1024):
        (message,) = noise(length, length)
        for gap in (0, page - length):
            places = [page * number + gap for number in range(1, 2 * count, 2)]
            for place in places:
                pages[place : place + length] = message
            texts = ffi.new("uint8_t *[]", [ffi.cast("uint8_t *", where + place) for place in places])
            lib.lfs_leaf_hashes(texts, [length] * count, count, ffi.from_buffer("uint8_t[]", out))
            assert bytes(out) == twin.leaf_hashes([message]) * count
            if length == 64 * count:
                lib.lfs_node_hashes(texts[0], count, ffi.from_buffer("uint8_t[]", out))
                assert bytes(out) == b"".join(
                    twin.node_hash(message[at : at + 32], message[at + 32 : at + 64]) for at in range(0, length, 64)
                )
    del first
    pages.close()


def test_nodes_and_roots_up_to_300_leaves(backend: str) -> None:
    leaves = b"".join(noise(3, *[32] * 300))
    assert hashing.node_hash(leaves[:32], leaves[32:64]) == twin.node_hash(leaves[:32], leaves[32:64])
    for count in range(301):
        assert hashing.mth(leaves[: 32 * count]) == twin.mth(leaves[: 32 * count])


def test_frontier_leaf_by_leaf_up_to_300(backend: str) -> None:
    leaves = b"".join(noise(4, *[32] * 300))
    frontier, other = hashing.Frontier(), twin.Frontier()
    for count in range(300):
        assert frontier.root() == other.root() == hashing.mth(leaves[: 32 * count])
        assert frontier.size == other.size == count
        for each in (frontier, other):
            each.append(leaves[32 * count : 32 * count + 32])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 40), st.integers(1000, 1100), st.just(2048)), max_size=5))
def test_frontier_in_parts(parts: list[int]) -> None:
    leaves = b"".join(noise(5, *[32] * sum(parts)))
    frontier, at = hashing.Frontier(), 0
    for part in parts:
        frontier.append(leaves[32 * at : 32 * (at + part)])
        at += part
        assert frontier.root() == hashing.mth(leaves[: 32 * at])
    assert frontier.root() == twin.mth(leaves)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 40), st.sampled_from([63, 64, 192, 255, 256, 257, 1023, 1024, 2300])), max_size=6)
)
def test_frontier_by_batches(parts: list[int]) -> None:
    leaves = b"".join(noise(6, *[32] * sum(parts)))
    frontier, at, tiles = hashing.Frontier(), 0, b""
    for part in parts:
        batch = leaves[32 * at : 32 * (at + part)]
        at += part
        root, completed = frontier.append_batch(batch)
        tiles += completed
        assert root == hashing.mth(batch)
        assert frontier.size == at
        assert frontier.root() == hashing.mth(leaves[: 32 * at])
    assert frontier.root() == twin.mth(leaves)
    assert tiles == b"".join(
        hashing.mth(leaves[32 * tile : 32 * (tile + 256)]) for tile in range(0, at // 256 * 256, 256)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=12))
def test_frontier_of_subtrees(heights: list[int]) -> None:
    frontier, other, leaves = hashing.Frontier(), twin.Frontier(), b""
    for number, height in enumerate(heights):
        subtree = b"".join(noise(number, *[32] * (1 << height)))
        if other.size % (1 << height):
            for each in (frontier, other):
                with pytest.raises(ValueError, match="cannot follow"):
                    each.append_subtree(height, twin.mth(subtree))
            continue
        leaves += subtree
        for each in (frontier, other):
            each.append_subtree(height, twin.mth(subtree))
        assert frontier.root() == other.root() == twin.mth(leaves)


def test_frontier_of_great_height() -> None:
    frontier, other = hashing.Frontier(), twin.Frontier()
    for each in (frontier, other):
        for height in (63, 62, 8, 8):
            each.append_subtree(height, bytes([height]) * 32)
        with pytest.raises(ValueError, match="height 64"):
            each.append_subtree(64, bytes(32))
        each.append(bytes(32))
    assert frontier.size == other.size == 2**63 + 2**62 + 2**9 + 1
    assert frontier.root() == other.root()


def test_what_is_not_a_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="33 bytes"):
        hashing.mth(bytes(33))
    with pytest.raises(ValueError, match="32 bytes"):
        hashing.node_hash(bytes(31), bytes(32))
    with pytest.raises(ValueError, match="31 bytes"):
        hashing.Frontier().append(bytes(31))
    with pytest.raises(ValueError, match="32 bytes"):
        hashing.Frontier().append_subtree(0, b"")
