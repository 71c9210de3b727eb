"""One line of intents read by itself (``csrc/intent/shape_face.c``): by the shape of a line before, or otherwise.

The engine reads each line of a file knowing the lines before it; what it makes of a line must not depend on them.
"""

from __future__ import annotations

from typing import Any, Final

from ledgerfsd.core import _core

ffi: Any = _core.ffi
lib: Any = _core.lib

ROOM: Final = 65536


def read_after(before: bytes, text: bytes, *, quickly: bool) -> tuple[int, bytes]:
    """Whether ``text`` was read by the shape of ``before`` (1, 0; -1: this processor cannot), and all that was made of it, in words."""
    room = ffi.new("uint8_t[]", ROOM + 16 * len(text))
    length = ffi.new("size_t *")
    taken = lib.lfs_shape_trial(before, len(before), text, len(text), quickly, room, length)
    return taken, bytes(ffi.buffer(room, length[0]))
