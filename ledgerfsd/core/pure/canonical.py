"""Strict JSON and its canonical form in plain Python: the twin of ``core/csrc/json*.c``.

docs/FORMAT.md, section 2, is the rule; ``lfs_json.h`` says which byte an offence is reported at. The two must give the
same code and the same offset for every text. Start at ``check``.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from ledgerfsd import errors, limits

Value = dict[str, "Value"] | list["Value"] | str | int | bool | None

SPACE: Final = b" \t\r\n"
LITERALS: Final[dict[bytes, Value]] = {b"true": True, b"false": False, b"null": None}
ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
# RFC 3629, section 4: lead byte from, to; second byte from, to; bytes after the lead. (Python's incremental decoder
# will not do: it waits for the third byte of a surrogate before it refuses.)
UTF8: Final = (
    (0xC2, 0xDF, 0x80, 0xBF, 1),
    (0xE0, 0xE0, 0xA0, 0xBF, 2),
    (0xE1, 0xEC, 0x80, 0xBF, 2),
    (0xED, 0xED, 0x80, 0x9F, 2),
    (0xEE, 0xEF, 0x80, 0xBF, 2),
    (0xF0, 0xF0, 0x90, 0xBF, 3),
    (0xF1, 0xF3, 0x80, 0xBF, 3),
    (0xF4, 0xF4, 0x80, 0x8F, 3),
)


class Verdict(NamedTuple):
    """What ``check`` found: a code and the offset of the offence, or code 0 and the bounds of the value."""

    code: int
    offset: int
    begin: int
    end: int


class _Offence(Exception):
    def __init__(self, code: str, offset: int) -> None:
        super().__init__(code, offset)
        self.code = errors.BY_NAME[code].number
        self.offset = offset


class _Parser:
    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def skip_space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in SPACE:
            self.at += 1

    def peek(self) -> str:
        """The byte at hand; a text that ends here is incomplete."""
        if self.at >= len(self.text):
            raise _Offence("incomplete", len(self.text))
        return chr(self.text[self.at])

    def token(self) -> str:
        self.skip_space()
        return self.peek()

    def expect(self, wanted: str) -> str:
        """Take one of the bytes wanted."""
        found = self.peek()
        if found not in wanted:
            raise _Offence("bad_json", self.at)
        self.at += 1
        return found

    def value(self, depth: int) -> Value:
        first = self.peek()
        if first in "{[":
            if depth > limits.JSON_DEPTH_MAX:
                raise _Offence("too_deep", self.at)
            return self.object(depth) if first == "{" else self.array(depth)
        if first == '"':
            return self.string()
        if first in "-0123456789":
            return self.number(depth)
        return self.literal()

    def object(self, depth: int) -> Value:
        members: dict[str, Value] = {}
        self.expect("{")
        closing = self.token() == "}"
        while not closing:
            name = self.string()
            if name in members:
                raise _Offence("duplicate_key", self.at)
            self.token()
            self.expect(":")
            self.token()
            members[name] = self.value(depth + 1)
            self.token()
            closing = self.expect(",}") == "}"
            if closing:
                return members
            self.token()
        self.at += 1
        return members

    def array(self, depth: int) -> Value:
        items: list[Value] = []
        self.expect("[")
        if self.token() == "]":
            self.at += 1
            return items
        while True:
            self.token()
            items.append(self.value(depth + 1))
            self.token()
            if self.expect(",]") == "]":
                return items

    def literal(self) -> Value:
        for word, value in LITERALS.items():
            if self.text[self.at] == word[0]:
                for letter in word:
                    self.expect(chr(letter))
                return value
        raise _Offence("bad_json", self.at)

    def digits(self) -> None:
        self.expect("0123456789")
        while self.at < len(self.text) and self.text[self.at] in b"0123456789":
            self.at += 1

    def takes(self, bytes_: bytes) -> bool:
        """Take one of the bytes if it stands here; the end of the text is not an offence."""
        if self.at < len(self.text) and self.text[self.at] in bytes_:
            self.at += 1
            return True
        return False

    def number(self, depth: int) -> int:
        begin = self.at
        integer = True
        self.takes(b"-")
        if not self.takes(b"0"):
            self.digits()
        if self.takes(b"."):
            integer = False
            self.digits()
        if self.takes(b"eE"):
            integer = False
            self.takes(b"+-")
            self.digits()
        if depth > 1:
            self.peek()  # inside a bracket a number has not ended where the text ends
        written = self.text[begin : self.at]
        # a long number is not converted: Python refuses beyond 4,300 digits
        if not integer or len(written) > 17 or written == b"-0" or abs(int(written)) >= 2**53:
            raise _Offence("bad_number", self.at)
        return int(written)

    def string(self) -> str:
        self.expect('"')
        parts: list[str] = []
        while (found := self.peek()) != '"':
            if found == "\\":
                parts.append(self.escape())
            elif found < " ":
                raise _Offence("bad_json", self.at)
            else:
                parts.append(self.character())
        self.at += 1
        return "".join(parts)

    def character(self) -> str:
        begin = self.at
        lead = ord(self.peek())
        self.at += 1
        if lead < 0x80:
            return chr(lead)
        low, high, more = next((row[2:] for row in UTF8 if row[0] <= lead <= row[1]), (0, 0, 0))
        if not more:
            raise _Offence("bad_utf8", begin)
        for _ in range(more):
            if not low <= ord(self.peek()) <= high:
                raise _Offence("bad_utf8", begin)
            self.at += 1
            low, high = 0x80, 0xBF
        return self.text[begin : self.at].decode()

    def escape(self) -> str:
        begin = self.at
        self.expect("\\")
        letter = self.expect('"\\/bfnrtu')
        if letter != "u":
            return ESCAPES[letter]
        unit = self.hex4()
        if not 0xD800 <= unit <= 0xDFFF:
            return chr(unit)
        if unit >= 0xDC00:
            raise _Offence("bad_utf8", begin)
        for wanted in "\\u":
            if self.peek() != wanted:
                raise _Offence("bad_utf8", begin)
            self.at += 1
        low = self.hex4()
        if not 0xDC00 <= low <= 0xDFFF:
            raise _Offence("bad_utf8", begin)
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))

    def hex4(self) -> int:
        return int("".join(self.expect("0123456789abcdefABCDEF") for _ in range(4)), 16)


def _parse(text: bytes) -> tuple[Value, int, int]:
    parser = _Parser(text)
    parser.skip_space()
    begin = parser.at
    if begin == len(text):
        raise _Offence("empty", begin)
    value = parser.value(1)
    end = parser.at
    parser.skip_space()
    if parser.at < len(text):
        raise _Offence("bad_json", parser.at)
    return value, begin, end


def check(text: bytes) -> Verdict:
    """Judge a text: one JSON value of any kind with white space around it (never not_an_object, never too_large)."""
    try:
        _, begin, end = _parse(text)
    except _Offence as offence:
        return Verdict(offence.code, offence.offset, 0, 0)
    return Verdict(0, 0, begin, end)


def quote(text: str) -> bytes:
    """A canonical JSON string."""
    return json.dumps(text, ensure_ascii=False).encode()


def name_key(name: str) -> bytes:
    """Names are sorted by their UTF-16 code units."""
    return name.encode("utf-16-be")


def dump(value: Value) -> bytes:
    """The canonical form of a value."""
    if isinstance(value, dict):
        members = (quote(name) + b":" + dump(value[name]) for name in sorted(value, key=name_key))
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(dump(item) for item in value) + b"]"
    if isinstance(value, str):
        return quote(value)
    return json.dumps(value).encode()


def canonical(text: bytes) -> bytes:
    """The canonical form of a text. Raises ValueError when ``check`` refuses it."""
    try:
        value, _, _ = _parse(text)
    except _Offence as offence:
        raise ValueError(f"{errors.CODES[offence.code].name} at byte {offence.offset}") from None
    return dump(value)


class Scanner:
    """Finds where the first top-level object or array of a stream ends, without judging it."""

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._string = self._escaped = False

    def feed(self, data: bytes) -> int:
        """How many bytes belong to it: all, or up to and including its closing bracket (then ``done``).

        Raises ValueError when it begins with neither bracket."""
        for position, byte in enumerate(data):
            if self.done:
                return position
            self._take(chr(byte))
        return len(data)

    def _take(self, found: str) -> None:
        if self._string:
            closes = found == '"' and not self._escaped
            self._escaped = found == "\\" and not self._escaped
            self._string = not closes
        elif found in "{[":
            self._depth += 1
        elif self._depth == 0:
            if found not in " \t\r\n":
                raise ValueError("neither an object nor an array")
        elif found in "}]":
            self._depth -= 1
            self.done = self._depth == 0
        else:
            self._string = found == '"'
