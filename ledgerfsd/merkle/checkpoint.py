"""C2SP tlog-checkpoints (c2sp.org/tlog-checkpoint): the head of a log's tree as the text of a signed note. Pure: no I/O.

Start at ``verify``. Stricter than C2SP in two points: a root has 32 bytes, and the key's name is the origin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from ledgerfsd.core.hashing import HASH_BYTES
from ledgerfsd.merkle import note
from ledgerfsd.merkle.note import NoteError, Verifier

SIZE_MAX: Final = 2**63 - 1  # what readers in other languages hold in a signed number
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Checkpoint(NamedTuple):
    """The tree of the first ``size`` entries of the log named ``origin``."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def body(self) -> str:
        """The text that is signed."""
        lines = (self.origin, str(self.size), note.encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def parse_size(text: str) -> int:
    """A number of entries in decimal, spelled in the one way. Raises NoteError."""
    if not _SIZE.fullmatch(text) or int(text) > SIZE_MAX:
        raise NoteError(f"{text[:100]!r} is not the size of a log")
    return int(text)


def parse_hash(text: str) -> bytes:
    """A hash in base64. Raises NoteError."""
    data = note.decode_base64(text)
    if len(data) != HASH_BYTES:
        raise NoteError(f"{text[:100]!r} is a hash of {len(data)} bytes, not {HASH_BYTES}")
    return data


def parse(body: str) -> Checkpoint:
    """Take the text of a checkpoint apart. Raises NoteError."""
    lines = body.split("\n")
    if len(lines) < 4 or lines.pop():
        raise NoteError("a checkpoint has three lines: origin, size, root")
    if not all(lines):
        raise NoteError("a checkpoint has no empty lines")
    origin, size, root, *extensions = lines
    return Checkpoint(origin, parse_size(size), parse_hash(root), tuple(extensions))


def verify(data: bytes, origin: str, verifiers: Iterable[Verifier]) -> tuple[Checkpoint, list[Verifier]]:
    """The checkpoint in a signed note, and the keys that signed it, at least one.

    Only keys named ``origin`` count. Raises NoteError: malformed, of another log, or not signed as ``note.verify`` says.
    """
    found, signed = note.verify(data, [verifier for verifier in verifiers if verifier.name == origin])
    checkpoint = parse(found.text)
    if checkpoint.origin != origin:
        raise NoteError(f"the checkpoint is of {checkpoint.origin[:100]!r}, not of {origin!r}")
    return checkpoint, signed
