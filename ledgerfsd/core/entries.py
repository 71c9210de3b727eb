"""One entry read as replay reads it (``csrc/ledger/entry_quick.c``): for tests, which hold the quick way against the strict one."""

from __future__ import annotations

from typing import Any

from ledgerfsd.core import _core

lib: Any = _core.lib


def read_quickly(entry: bytes) -> int:
    """1 when replay reads the entry the quick way and both ways agree; 0: it is read the other way only; -1: they differ."""
    return int(lib.lfs_quick_agrees(entry, len(entry)))
