"""C2SP tlog-proofs (c2sp.org/tlog-proof): one text that proves an entry to be in a signed log. Pure: no I/O.

Start at ``verify``: it needs the entry, the log's origin, its keys, and nothing else. ``parse_hashes`` and
``encode_hashes`` are also the form of our consistency proofs (docs/FORMAT.md, section 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ledgerfsd.core.hashing import leaf_hashes
from ledgerfsd.merkle import checkpoint as checkpoints
from ledgerfsd.merkle import note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.note import NoteError, Verifier
from ledgerfsd.merkle.proof import verify_inclusion

HEADER: Final = "c2sp.org/tlog-proof@v1"
HASHES_MAX: Final = 64  # a path is no longer than the tree is high; a consistency proof has one hash more than that
PROOF_BYTES_MAX: Final = 2 * note.NOTE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A proof as parsed. ``checkpoint`` is the signed note; ``extra`` is covered by nothing and proves nothing."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """The text."""
        extra = f"extra {note.encode_base64(self.extra)}\n" if self.extra is not None else ""
        head = f"{HEADER}\n{extra}index {self.index}\n".encode()
        return head + encode_hashes(self.hashes) + b"\n" + self.checkpoint


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """Hashes in base64, a line each."""
    return "".join(f"{note.encode_base64(hash_)}\n" for hash_ in hashes).encode()


def parse_hashes(data: bytes) -> list[bytes]:
    """What ``encode_hashes`` wrote. Raises NoteError."""
    if not data:
        return []
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise NoteError("a list of hashes is ASCII") from None
    if not text.endswith("\n"):
        raise NoteError("a list of hashes ends with a newline")
    lines = text[:-1].split("\n")
    if len(lines) > HASHES_MAX:
        raise NoteError(f"a proof of more than {HASHES_MAX} hashes")
    return [checkpoints.parse_hash(line) for line in lines]


def parse(data: bytes) -> TlogProof:
    """Take a proof apart. Nothing is verified. Raises NoteError when it is malformed."""
    if len(data) > PROOF_BYTES_MAX:
        raise NoteError(f"a proof of more than {PROOF_BYTES_MAX} bytes")
    head, empty, checkpoint = data.partition(b"\n\n")
    if not empty or not checkpoint:
        raise NoteError("the proof has no checkpoint behind an empty line")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise NoteError("the head of a proof is ASCII") from None
    if first != HEADER:
        raise NoteError(f"a proof begins with {HEADER}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = note.decode_base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise NoteError("the proof names no index")
    index = checkpoints.parse_size(lines.pop(0).removeprefix("index "))
    hashes = parse_hashes("".join(f"{line}\n" for line in lines).encode())
    return TlogProof(index, tuple(hashes), checkpoint, extra)


def verify(data: bytes, entry: bytes, origin: str, verifiers: Iterable[Verifier]) -> tuple[TlogProof, Checkpoint]:
    """The proof and the checkpoint in which it proves ``entry`` to be.

    Size and root are the signed checkpoint's and nobody else's. Raises NoteError or ProofError.
    """
    found = parse(data)
    checkpoint, _ = checkpoints.verify(found.checkpoint, origin, verifiers)
    verify_inclusion(found.index, checkpoint.size, leaf_hashes([entry]), found.hashes, checkpoint.root)
    return found, checkpoint
