"""When runs become one: how often a record is written, and how many runs there are to look into, however large a ledger is."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from ledgerfsd.core import runs

MOST = 64 << 20  # records of a run
SMALL = 65_536


def grown(sizes: Iterator[int], records: int) -> tuple[list[int], float]:
    """The runs of a ledger that was given runs of such sizes, and how often a record was written on the average."""
    held, written, made = list[int](), 0, 0
    while made < records:
        size = next(sizes)
        made += size
        written += size
        held.append(size)
        while (found := runs.window(held))[1]:
            first, count = found
            assert 8 <= count <= 64
            assert first + count <= len(held)
            merged = sum(held[first : first + count])
            assert merged <= MOST
            written += merged
            held[first : first + count] = [merged]
    assert sum(held) == made
    return held, written / made


def always(size: int) -> Iterator[int]:
    while True:
        yield size


def by_chance(most: int, seed: int) -> Iterator[int]:
    chance = random.Random(seed)
    while True:
        yield int(most ** chance.random())


@pytest.mark.parametrize("size", [300_000, 524_288, 1 << 20])
def test_under_load_a_record_is_written_twice_however_many_there_are(size: int) -> None:
    for records in (50_000_000, 500_000_000, 2_000_000_000):
        held, written = grown(always(size), records)
        assert 1.5 < written <= 2
        assert len(held) <= 31 + records // (32 * size) + 1


@pytest.mark.parametrize(
    "size", [1, 20, 1000, 20_000, 40_000, SMALL, SMALL + 1, 80_000, 2 << 20, (2 << 20) + 1, 5 << 20]
)
def test_any_size(size: int) -> None:
    held, written = grown(always(size), min(400_000_000, 30_000 * size))
    assert len(held) <= 7 + 31 + 31 + 400_000_000 // (8 << 20)
    assert written * size <= 5 * size + SMALL / 7  # of small ones not more than all are written again with each eighth


@pytest.mark.parametrize("most", [1000, SMALL, 1 << 20, MOST])
def test_sizes_by_chance(most: int) -> None:
    """Small ones that stand between large ones do not stay for ever."""
    for seed in range(5):
        held, _ = grown(by_chance(most, seed), min(400_000_000, 30_000 * most))
        assert len(held) <= 200


def test_few_runs_stay_as_they_are() -> None:
    assert runs.window([])[1] == 0
    assert runs.window([1] * 7)[1] == 0
    assert runs.window([1] * 8) == (0, 8)
    assert runs.window([1 << 20] * 31)[1] == 0
    assert runs.window([1 << 20] * 32) == (0, 32)
    assert runs.window([32 << 20, *[1 << 20] * 31])[1] == 0  # the large one is not written again
    assert runs.window([32 << 20, *[1 << 20] * 32, 5]) == (1, 32)
