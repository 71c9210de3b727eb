"""The text of a receipt: one JSON object a line for each intent, made on demand.

A receipt is stored as runs (``Outcome``: neighbouring lines of equal outcome). An NDJSON file of ten million lines
has a receipt of a gigabyte, and the mount must know its exact size before the first byte is read. Within a run a
line's length changes only where a number gets another digit, so ``ReceiptText`` cuts runs into pieces of equal line
length: size and random access are arithmetic, and only the lines asked for are ever written out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from ledgerfsd.errors import BY_NAME, CODES, Code
from ledgerfsd.types import Run

COMMITTED: Final = "committed"
DUPLICATE: Final = "duplicate"
REFUSED: Final = "refused"
ABORTED: Final = "batch_aborted"
ACCEPTED: Final = "accepted"  # inbox/dry-run/: it would be committed

_TX_DIGITS: Final = 4  # FORMAT, section 5: transaction names have at least four
_LAST_SYNTAX_CODE: Final = 29  # up to here an offence has an offset, above it a member


class Outcome(msgspec.Struct, frozen=True):
    """Neighbouring lines of equal outcome; ``index`` and ``tx`` are the first line's, the following ones rise by one."""

    first: int  # line, from 1
    last: int
    status: str
    code: str  # name of the result code
    index: int = -1  # entry, -1: none
    tx: int = 0  # transaction number, 0: none
    block: int = 0  # height of the seal, 0: none
    offset: int = -1  # byte offset of the offence in the line, -1: not known
    field: str = ""  # member at fault, "": not known
    note: str = ""  # what the code alone does not say


def outcomes(runs: Iterable[Run], *, dry_run: bool) -> list[Outcome]:
    """The runs of a completion in the words of a receipt."""
    found = []
    for first, count in runs:
        code = CODES[first.code]
        status = REFUSED if first.code else DUPLICATE if first.duplicate else ACCEPTED if dry_run else COMMITTED
        offset = first.offset if 0 < first.code <= _LAST_SYNTAX_CODE else -1
        found.append(
            Outcome(
                first.line,
                first.line + count - 1,
                status,
                code.name,
                first.index,
                first.tx,
                first.block,
                offset,
                first.field,
            )
        )
    return found


def merged(earlier: list[Outcome], later: Iterable[Outcome]) -> None:
    """Append ``later`` to ``earlier``, joining runs that continue each other."""
    for outcome in later:
        last = earlier[-1] if earlier else None
        if last is not None and _continues(last, outcome):
            earlier[-1] = msgspec.structs.replace(last, last=outcome.last)
        else:
            earlier.append(outcome)


def _continues(last: Outcome, outcome: Outcome) -> bool:
    count = last.last - last.first + 1
    return outcome == msgspec.structs.replace(
        last,
        first=last.last + 1,
        last=outcome.last,
        index=last.index + count if last.index >= 0 else -1,
        tx=last.tx + count if last.tx else 0,
    )


def cause(results: Iterable[Outcome]) -> Code | None:
    """The code that a program is told: the first refusal, but not one that another intent of the batch brought about."""
    found = None
    for result in results:
        if result.status == REFUSED:
            found = found or result.code
            if result.code != ABORTED:
                return BY_NAME[result.code]
    return BY_NAME[found] if found is not None else None


def refusal(line: int, code: str, note: str = "") -> Outcome:
    """A refusal that did not come from the engine."""
    return Outcome(line, line, REFUSED, code, note=note)


class _Piece(NamedTuple):
    """Lines of one run whose texts have the same length."""

    outcome: Outcome
    skip: int  # lines of the run before this piece
    lines: int
    width: int  # bytes a line, newline included


class ReceiptText:
    """The text of one receipt, readable at any offset."""

    def __init__(self, results: Iterable[Outcome], mtime_ns: int) -> None:
        self.mtime_ns = mtime_ns
        self._pieces: list[_Piece] = []
        self._starts: list[int] = []
        self.size = 0
        for outcome in results:
            for piece in _pieces(outcome):
                self._pieces.append(piece)
                self._starts.append(self.size)
                self.size += piece.lines * piece.width

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only at the end."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        parts: list[str] = []
        position = bisect_right(self._starts, offset) - 1
        base = -1
        while position < len(self._pieces) and self._starts[position] < end:
            start, piece = self._starts[position], self._pieces[position]
            first = max(0, offset - start) // piece.width
            last = min(piece.lines, -(-(end - start) // piece.width))
            if base < 0:
                base = start + first * piece.width
            parts.extend(_line(piece.outcome, piece.skip + number) for number in range(first, last))
            position += 1
        return "".join(parts).encode()[offset - base : end - base]

    @property
    def verdict(self) -> tuple[str, str]:
        """Status and code of the whole: those of the refusal that counts, else of the first result."""
        code = cause(piece.outcome for piece in self._pieces)
        if code is not None:
            return REFUSED, code.name
        return (self._pieces[0].outcome.status, self._pieces[0].outcome.code) if self._pieces else (REFUSED, "empty")


def _pieces(outcome: Outcome) -> Iterator[_Piece]:
    count = outcome.last - outcome.first + 1
    cuts = {0}
    for value, least in ((outcome.first, 1), (outcome.index, 1), (outcome.tx, _TX_DIGITS)):
        limit = 10 ** max(least, len(str(value)))
        while value > 0 and limit < value + count:
            cuts.add(limit - value)
            limit *= 10
    starts = [*sorted(cuts), count]
    for skip, following in pairwise(starts):
        yield _Piece(outcome, skip, following - skip, len(_line(outcome, skip).encode()))


def _line(outcome: Outcome, skip: int) -> str:
    text = f'{{"line":{outcome.first + skip},"status":"{outcome.status}","code":"{outcome.code}"'
    if outcome.index >= 0:
        text += f',"index":{outcome.index + skip}'
    if outcome.tx:
        text += f',"tx":"tx_{outcome.tx + skip:0{_TX_DIGITS}}"'
    if outcome.block:
        text += f',"block":{outcome.block}'
    if outcome.offset >= 0:
        text += f',"offset":{outcome.offset}'
    if outcome.field:
        text += f',"field":{_quoted(outcome.field)}'
    if outcome.note:
        text += f',"note":{_quoted(outcome.note)}'
    if outcome.status == REFUSED:
        code = BY_NAME[outcome.code]
        text += f',"meaning":{_quoted(code.meaning)},"what_to_do":{_quoted(code.what_to_do)}'
    return text + "}\n"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
