"""Names of the files in ``references/`` and ``tags/`` (SEMANTICS, 13.6), for the mount and for the command line."""

from __future__ import annotations

import re
from typing import Final

SUFFIX: Final = b".ndjson"
_ESCAPE: Final = re.compile(r"[/%\x00-\x1f\x7f]")
_ESCAPED: Final = re.compile(r"%([0-9A-F]{2})")


def file_name(text: str) -> bytes:
    """The name of a word's file: ``/``, ``%`` and control characters stand as in a URL."""
    return _ESCAPE.sub(lambda found: f"%{ord(found[0]):02X}", text).encode() + SUFFIX


def text_of(name: bytes) -> str:
    """The word of a file's name; "" for a name that no word has."""
    try:
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name.removesuffix(SUFFIX).decode())
    except UnicodeDecodeError:
        return ""
    return text if file_name(text) == name else ""
