"""Lines of JSON that carry their own checksum: of files that cannot be derived from the journal (docs/FORMAT.md, section 19).

Start at ``seal`` and ``unseal``. Nobody else could tell that a bit of such a line has changed. It is no signature: whoever changes a line
on purpose makes the checksum anew; against that stand signatures, hashes in the log, and copies elsewhere.
"""

from __future__ import annotations

from typing import Final

import xxhash

_HEAD: Final = b'{"check":"'
_DIGITS: Final = 16
_BEHIND: Final = len(_HEAD) + _DIGITS + 2  # a quotation mark and a comma


def seal(value: bytes) -> bytes:
    """The line, with its newline, of a JSON object that has members and no ``check`` among them."""
    return b'%s%016x",%s\n' % (_HEAD, xxhash.xxh3_64_intdigest(value), value[1:])


def unseal(line: bytes) -> bytes:
    """The JSON object of a line (without its newline). Raises ValueError: it is not what was written.

    One without a checksum is given back as it is: earlier versions wrote such lines. Readers refuse members that they do not know, so
    that a spoiled ``check`` is not taken for a line of that time.
    """
    if not line.startswith(_HEAD):
        return line
    value = b"{" + line[_BEHIND:]
    if seal(value) != line + b"\n":
        raise ValueError("it is not what was written: its check differs")
    return value
