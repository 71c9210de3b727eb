"""The strict JSON of the C core (``csrc/json/lfs_json.h``), typed. docs/FORMAT.md, section 2, is the rule.

Start at ``check``.
"""

from __future__ import annotations

from ledgerfsd import errors
from ledgerfsd.core._core import ffi, lib
from ledgerfsd.core.pure.canonical import Verdict


def check(text: bytes) -> Verdict:
    """Judge a text: one JSON value of any kind with white space around it (never not_an_object, never too_large)."""
    bounds, error = ffi.new("size_t[2]"), ffi.new("lfs_json_error *")
    if lib.lfs_json_check(ffi.from_buffer("uint8_t[]", text), len(text), bounds, bounds + 1, error):
        return Verdict(error.code, error.offset, 0, 0)
    return Verdict(0, 0, bounds[0], bounds[1])


def canonical(text: bytes) -> bytes:
    """The canonical form of a text. Raises ValueError when ``check`` refuses it."""
    verdict = check(text)
    if verdict.code:
        raise ValueError(f"{errors.CODES[verdict.code].name} at byte {verdict.offset}")
    value = text[verdict.begin : verdict.end]
    size = len(value)  # the form is never longer
    out = bytearray(size)
    length = lib.lfs_json_canonical(ffi.from_buffer("uint8_t[]", value), size, ffi.from_buffer("uint8_t[]", out), size)
    return bytes(out[:length])


def is_canonical(text: bytes, *, wrapped: bool = False) -> bool:
    """Is the text one value in canonical form, with nothing before or after it? ``wrapped``: it may be a level deeper."""
    return bool(lib.lfs_json_is_canonical(text, len(text), wrapped))


def newlines(text: bytes) -> int:
    """How many bytes are line feeds: ``text.count``, in a tenth of the time."""
    return int(lib.lfs_newlines(ffi.from_buffer(text), len(text)))


def quote(text: str) -> bytes:
    """A canonical JSON string."""
    data = text.encode()
    out = bytearray(6 * len(data) + 2)
    start = ffi.from_buffer("uint8_t[]", out)
    end = lib.lfs_json_put_string(start, ffi.from_buffer("uint8_t[]", data), len(data))
    return bytes(out[: end - ffi.cast("uint8_t *", start)])


def unquote(token: bytes) -> str:
    """What a string token (its quotes included) stands for. Raises ValueError when ``check`` refuses it."""
    verdict = check(token)
    if verdict != (0, 0, 0, len(token)) or token[:1] != b'"':
        raise ValueError("not a JSON string")
    out = bytearray(len(token))
    start = ffi.from_buffer("uint8_t[]", token)
    length = lib.lfs_json_unescape(start, start + len(token), ffi.from_buffer("uint8_t[]", out))
    return out[:length].decode()


def name_order(a: str, b: str) -> int:
    """Negative, 0 or positive: the order of two member names by UTF-16 code units."""
    left, right = a.encode(), b.encode()
    return int(lib.lfs_json_name_order(left, len(left), right, len(right)))


class Scanner:
    """Finds where the first top-level object or array of a stream ends, without judging it."""

    def __init__(self) -> None:
        self._scan = ffi.new("lfs_json_scan *")

    @property
    def done(self) -> bool:
        """Whether the closing bracket was seen."""
        return bool(self._scan.done)

    def feed(self, data: bytes) -> int:
        """How many bytes belong to it: all, or up to and including its closing bracket (then ``done``).

        Raises ValueError when it begins with neither bracket."""
        used = int(lib.lfs_json_scan_feed(self._scan, ffi.from_buffer("uint8_t[]", data), len(data)))
        if used < 0:
            raise ValueError("neither an object nor an array")
        return used
