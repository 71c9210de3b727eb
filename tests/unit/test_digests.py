"""Digests in the store (FORMAT, section 15): many files, torn lines, another life."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import trio

from ledgerfsd.errors import StoreError
from ledgerfsd.journal import checked
from ledgerfsd.service.anchors.digests import FILE_DIGESTS, Digests, Issued, Named, Outcome, Restore, name_of

TIME = "2026-11-26T12:00:00.000000000Z"


def issued(size: int) -> Issued:
    return Issued(size, TIME, "ab" * 32, f"checkpoint of {size}\n", [Named("folder", "f"), Named("rfc3161", "t")])


def outcome(size: int, what: str = "anchored", name: str = "f", **more: str) -> Outcome:
    return Outcome(size, TIME, "folder", name, what, "/mnt/f", **more)  # type: ignore[arg-type]


def sizes_of(digests: Digests, skip: int = 0) -> list[int]:
    return [digest.size for digest in digests.all(skip)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of sizes 3, 6, 9, …: two full files and a bit."""
    directory = tmp_path_factory.mktemp("digests") / "digests"
    directory.mkdir()
    sizes = range(3, 3 * (2 * FILE_DIGESTS + 8), 3)
    for first in range(0, len(sizes), FILE_DIGESTS):
        part = sizes[first : first + FILE_DIGESTS]
        lines = b"".join(msgspec.json.encode(issued(size)) + b"\n" for size in part)
        (directory / f"{part[0]:020}.ndjson").write_bytes(lines)
    return directory


def test_listing_and_finding_over_files(many: Path) -> None:
    digests = Digests(many)
    everything = sizes_of(digests)
    assert everything == list(range(3, 3 * (2 * FILE_DIGESTS + 8), 3))
    for skip in (0, 1, FILE_DIGESTS - 1, FILE_DIGESTS, 2 * FILE_DIGESTS + 3, len(everything), len(everything) + 9):
        assert sizes_of(digests, skip) == everything[skip:]
    for size in (3, 3 * FILE_DIGESTS, 3 * FILE_DIGESTS + 3, everything[-1]):
        found = digests.get(size)
        assert found is not None
        assert found.checkpoint == b"checkpoint of %d\n" % size
    for size in (0, 1, 2, 4, everything[-1] + 3):
        assert digests.get(size) is None
    assert next(digests.backwards()).size == everything[-1]


def test_sizes_are_listed_from_anywhere(many: Path) -> None:
    """As ``snapshots/`` lists them: of this log only, and of an account those since it was opened."""
    everything = sizes_of(Digests(many))
    ends = (10**9, everything[-1], everything[FILE_DIGESTS + 5] + 1, everything[FILE_DIGESTS - 1], 2)
    for end in ends:
        digests = Digests(many, [Restore(2, end)])
        for above in (
            0,
            3,
            4,
            everything[FILE_DIGESTS - 1],
            everything[FILE_DIGESTS],
            everything[-2],
            everything[-1] + 5,
        ):
            wanted = [size for size in everything if above < size <= end]
            for skip in (0, 1, FILE_DIGESTS - 1, FILE_DIGESTS, FILE_DIGESTS + 1, 2 * FILE_DIGESTS + 3, len(wanted) + 1):
                assert list(digests.sizes(skip, above)) == wanted[skip:]


def test_a_full_file_is_followed_by_another_and_outcomes_go_to_their_digest(many: Path, tmp_path: Path) -> None:
    directory = tmp_path / "digests"
    directory.mkdir()
    first = sorted(many.iterdir())[0]
    (directory / first.name).write_bytes(first.read_bytes())

    async def add() -> None:
        digests = Digests(directory)
        await digests.add(issued(10_000))
        await digests.add(outcome(6, "failed", why="no"))
        await digests.add(outcome(6, hash="cd" * 32, file="f.tsr", evidence="AQI="))
        await digests.add(outcome(6, "failed", why="too late"))
        await digests.add(outcome(10_000, name="new"))

    trio.run(add)
    digests = Digests(directory)
    assert [path.name for path in sorted(directory.iterdir())] == [first.name, f"{10_000:020}.ndjson"]
    six = digests.get(6)
    assert six is not None
    assert {name: each and each.data for name, each in six.outcomes.items()} == {"f": b"\1\2", "t": None}
    text = json.loads(six.text("ledger.example/x"))
    assert [(each["name"], each["outcome"]) for each in text["anchors"]] == [("f", "anchored"), ("t", "none")]
    assert list(digests.newest.outcomes) == ["f", "t", "new"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "tail", [b"{", b'{"t":"digest/1","size":7', b"nonsense\n", b'{"t":"outcome/1"}\n', b"\xff\xfe\n", b"{}\n"]
)
def test_torn_and_wrong_lines_hide_nothing(tmp_path: Path, tail: bytes) -> None:
    directory = tmp_path / "digests"

    async def add(size: int) -> None:
        await Digests(directory).add(issued(size))

    trio.run(add, 3)
    (path,) = directory.iterdir()
    with path.open("ab") as file:
        file.write(tail)
    trio.run(add, 6)
    assert sizes_of(Digests(directory)) == [3, 6]
    assert path.read_bytes().endswith(checked.seal(msgspec.json.encode(issued(6))))


def test_digests_of_a_life_that_was_lost_stay_under_their_names(many: Path, tmp_path: Path) -> None:
    directory = tmp_path / "digests"
    directory.mkdir()
    for path in many.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    left = 3 * FILE_DIGESTS + 7  # entries of the journal that was restored: two digests into the second file
    restores = [Restore(2, left)]
    digests = Digests(directory, restores)
    assert digests.newest is not None
    assert digests.newest.size == left - 1
    assert digests.get(left - 1) is not None
    assert digests.get(left + 2) is None, "it was lost"
    lost = digests.of(1, left + 2)
    assert lost is not None
    assert (lost.name, digests.lost(lost)) == (str(left + 2), True)

    async def live() -> None:
        await digests.add(issued(left + 2))  # of the size of one that was lost
        await digests.add(outcome(left + 2, hash="cd" * 32))
        await digests.add(outcome(3, name="t"))

    trio.run(live)
    changed = f"{3:020}.ndjson"  # an outcome of a digest that is still of this log goes to its file
    assert {name: (directory / name).read_bytes() for name in before if name != changed} == {
        name: data for name, data in before.items() if name != changed
    }
    names = sorted({path.name for path in directory.iterdir()} - before.keys())
    assert names == [f"{left + 2:020}-2.ndjson"]
    for again in (digests, Digests(directory, restores)):
        found = again.get(left + 2)
        assert found is not None
        assert (found.name, found.incarnation, again.lost(found)) == (f"{left + 2}-2", 2, False)
        assert found.outcomes["f"] is not None
        assert [each.name for each in again.all()][-2:] == [str(3 * (2 * FILE_DIGESTS + 7)), f"{left + 2}-2"]
        assert [each.name for each in again.all(2 * FILE_DIGESTS + 7)] == [f"{left + 2}-2"]
        assert [each.name for each in again.backwards()][:3] == [f"{left + 2}-2", str(left - 1), str(left - 4)]
    # A third life, which begins before the second: that is lost too, and more of the first.
    third = Digests(directory, [*restores, Restore(3, 8)])
    assert [each.size for each in third.backwards()] == [6, 3]
    assert third.get(left + 2) is None
    assert third.of(2, left + 2) is not None


def test_names_of_digests() -> None:
    assert [name_of(text) for text in ("7", "7-2", "70-10")] == [(1, 7), (2, 7), (10, 70)]
    for text in ("", "0", "07", "7-", "7-0", "7-1", "7-02", "-2", "7-2-3", "latest", "7 ", "\u0667", "9" * 20):
        assert name_of(text) is None, text


def test_a_directory_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / f"{3:020}.ndjson").mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        Digests(tmp_path)
    assert Digests(tmp_path / "absent").newest is None
