"""The rooms of the C core: which header may be included where (docs/ARCHITECTURE.md, "The C core")."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledgerfsd.core.build import SOURCES

# From below to above; a room includes its own headers and those of the rooms that it names.
ROOMS: dict[str, set[str]] = {
    "hash": set(),
    "json": set(),
    "intent": {"hash", "json"},
    "ledger": {"hash", "json", "intent"},
    "runs": {"ledger", "intent", "hash"},
    "engine": {"runs", "ledger", "intent", "json", "hash"},
    "index": {"engine", "runs", "hash"},
    "view": {"engine", "hash"},
    "front": {"engine", "json", "hash"},
    "verify": {"runs", "ledger", "intent", "json", "hash"},
}
EVERYBODYS = {"lfs_core.h", "lfs_codes.h", "lfs_currencies.h"}
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
FILES = sorted(path for path in SOURCES.rglob("*.[ch]") if path.name not in EVERYBODYS)


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCES))


def test_each_file_has_a_room_and_a_name_of_its_own() -> None:
    assert {path.parent.name for path in FILES} == set(ROOMS)
    assert len({path.name for path in FILES}) == len(FILES)  # headers are included by name, objects are kept by name


def test_rooms_name_only_what_is_below_them() -> None:
    seen = set[str]()
    for room, below in ROOMS.items():
        assert below <= seen, room
        seen.add(room)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_includes_go_one_way(path: Path) -> None:
    rooms = {header.name: header.parent.name for header in SOURCES.rglob("*.h")}
    for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
        if name not in EVERYBODYS:
            assert rooms[name] in ROOMS[path.parent.name] | {path.parent.name}, name
