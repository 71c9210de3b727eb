"""The files in which positions of consumers are kept (docs/FORMAT.md, section 17)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ledgerfsd.service.position_file import FILE_BYTES, SLOT_BYTES, PositionFile

TIME = "2026-11-26T10:00:00.000000000Z"


def kept(path: Path) -> tuple[int, int]:
    """Position and serial."""
    found = PositionFile(path).read()
    return found.position, found.serial


def test_the_newest_counts_whatever_its_position(tmp_path: Path) -> None:
    """Forwards and backwards, by the same object and by one that has read the file."""
    path = tmp_path / "consumers/billing"
    file = PositionFile(path)
    for serial, position in enumerate((0, 7, 3, 3, 10**9, 0), 1):
        file.write(position, TIME)
        assert kept(path) == (position, serial)
        assert path.stat().st_size == FILE_BYTES
        if serial % 2:
            file = PositionFile(path)
            file.read()
    assert [each.name for each in path.parent.iterdir()] == ["billing"]


def test_a_torn_write_leaves_the_position_before(tmp_path: Path) -> None:
    """Any prefix of the new slot over the old one."""
    path, chance = tmp_path / "c", random.Random(2)
    file = PositionFile(path)
    for position in (4, 5, 6):
        file.write(position, TIME)
    before = path.read_bytes()
    file.write(7, TIME)
    after = path.read_bytes()
    slot = next(at for at in (0, SLOT_BYTES) if before[at : at + SLOT_BYTES] != after[at : at + SLOT_BYTES])
    for _ in range(50):
        cut = slot + chance.randrange(250)
        path.write_bytes(after[:cut] + before[cut:])
        assert kept(path)[0] in ((6,) if after[:cut] + before[cut:] != after else (7,))
        again = PositionFile(path)
        again.read()
        again.write(8, TIME)
        assert kept(path)[0] == 8


def test_what_is_not_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "c"
    PositionFile(path).write(4, TIME)
    whole = path.read_bytes()
    (tmp_path / "other").write_bytes(whole)
    for name, data in (("c", b"{"), ("c", b""), ("c", b"\0" * FILE_BYTES), ("c", whole[1:] + b"\0"), ("other", whole)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError):
            PositionFile(tmp_path / name).read()


def test_a_file_from_before_there_were_slots(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text(f'{{"consumer":"c","position":4,"time":"{TIME}"}}\n')
    file = PositionFile(path)
    assert file.read().position == 4
    file.write(5, TIME)
    assert kept(path) == (5, 1)


def test_one_that_has_gone_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "c"
    file = PositionFile(path)
    file.write(4, TIME)
    path.unlink()
    file.write(5, TIME)
    assert kept(path) == (5, 2)


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c"
    file = PositionFile(path)
    file.write(4, TIME)
    moved = path.rename(tmp_path / "aside")
    path.mkdir()
    with pytest.raises(OSError):
        file.write(5, TIME)
    path.rmdir()
    moved.rename(path)
    file.write(6, TIME)
    assert kept(path) == (6, 2)
