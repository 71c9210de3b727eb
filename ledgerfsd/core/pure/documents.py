"""From a submission's bytes to single intents: lines of NDJSON, elements of an array, or the one document.

docs/FORMAT.md, section 6. The codes of a document that is not one valid JSON text are found here.
"""

from __future__ import annotations

import itertools
import re
from typing import Final, NamedTuple

from .canonical import SPACE, check
from .intent import Refusal

# What decides where an element ends: strings whole, brackets, commas. The text is known to be valid JSON.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


class Item(NamedTuple):
    """The bytes of one intent, and where they stand."""

    line: int  # line, or number of the element, as it is answered
    text: bytes


def split_lines(data: bytes, first_line: int) -> list[Item]:
    """The lines that hold more than white space. Empty ones are passed over but counted."""
    lines = enumerate(data.split(b"\n"), first_line)
    return [Item(number, line) for number, line in lines if line.strip(SPACE)]


def split_document(data: bytes, first_line: int) -> list[Item] | Refusal:
    """The elements of an array, or the document itself, which ``intent.judge`` will judge whole."""
    if not data.lstrip(SPACE).startswith(b"["):
        return [Item(first_line, data)]
    verdict = check(data)
    if verdict.code:
        return Refusal(verdict.code, verdict.offset)
    inside = data[verdict.begin + 1 : verdict.end - 1]
    return [Item(number, text) for number, text in enumerate(_elements(inside), first_line)]


def _elements(inside: bytes) -> list[bytes]:
    """The elements of a valid array, without white space around them. ``inside``: what stands between its brackets."""
    if not inside.strip(SPACE):
        return []
    cuts = [-1]
    depth = 0
    for token in _TOKEN.finditer(inside):
        byte = token[0]
        if byte in (b"[", b"{"):
            depth += 1
        elif byte in (b"]", b"}"):
            depth -= 1
        elif byte == b"," and depth == 0:
            cuts.append(token.start())
    cuts.append(len(inside))
    return [inside[cut + 1 : following].strip(SPACE) for cut, following in itertools.pairwise(cuts)]
