"""merkle/tlog_proof.py: tlog-proofs, against published vectors, and every way to change one."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.core.hashing import leaf_hashes, mth
from ledgerfsd.merkle import note, proof, tlog_proof
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.note import NoteError
from ledgerfsd.merkle.proof import ProofError
from ledgerfsd.merkle.tlog_proof import HASHES_MAX, HEADER, TlogProof

PARSING = Path(__file__).parent.parent / "vectors" / "tlog-checkpoint-and-proof-parsing" / "cases.json"
CASES = json.loads(PARSING.read_text())["tlog_proof"]
RFC6962 = Path(__file__).parent.parent / "vectors" / "rfc6962-merkle-proofs" / "testdata" / "inclusion"
INCLUSION = sorted(RFC6962.rglob("*.json"))
ORIGIN = "ledger.example/x"
SIGNER = note.generate(ORIGIN)
ENTRIES = [b"entry %d" % number for number in range(13)]
LEAVES = leaf_hashes(ENTRIES)


def read(level: int, first: int, count: int) -> bytes:
    assert level == 0
    return LEAVES[32 * first : 32 * (first + count)]


def prove(index: int, size: int) -> bytes:
    head = note.sign(Checkpoint(ORIGIN, size, mth(LEAVES[: 32 * size])).body(), [SIGNER])
    return TlogProof(index, tuple(proof.inclusion(read, index, size)), head).encode()


def verify(data: bytes, index: int) -> Checkpoint:
    return tlog_proof.verify(data, ENTRIES[index], ORIGIN, [SIGNER.verifier()])[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_published_texts(case: dict[str, Any]) -> None:
    assert len(CASES) == 10
    data = case["text"].encode()
    if case["expect"] != "ok":
        with pytest.raises(NoteError):
            tlog_proof.parse(data)
        return
    found = tlog_proof.parse(data)
    assert found.encode() == data
    assert found.checkpoint == data.rpartition(b"\n\n")[2]
    assert found.extra == (b"extra information" if "extra " in case["text"] else None)


@pytest.mark.parametrize("path", INCLUSION, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_inclusion_proofs_as_texts(path: Path) -> None:
    """The same cases as in test_merkle.py, written down and read again; the root is signed."""
    assert len(INCLUSION) == 98
    case = json.loads(path.read_text())
    hashes = tuple(b64decode(text) for text in case["proof"] or [])
    root, leaf = b64decode(case["root"] or ""), b64decode(case["leafHash"] or "")
    head = note.sign(Checkpoint(ORIGIN, case["treeSize"], root).body(), [SIGNER])
    data = TlogProof(case["leafIdx"], hashes, head).encode()

    def read_again() -> None:
        found = tlog_proof.parse(data)
        head, _ = tlog_proof.checkpoints.verify(found.checkpoint, ORIGIN, [SIGNER.verifier()])
        proof.verify_inclusion(found.index, head.size, leaf, found.hashes, head.root)

    if case["wantErr"]:
        with pytest.raises(ProofError):
            read_again()
    else:
        read_again()


def test_all_small_proofs_hold() -> None:
    for size in range(1, len(ENTRIES) + 1):
        for index in range(size):
            assert verify(prove(index, size), index).size == size


def test_every_bit_of_a_proof_counts() -> None:
    good = prove(5, 11)
    verify(good, 5)
    for position in range(8 * len(good)):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProofError):
            verify(bytes(changed), 5)


def test_every_cut_of_a_proof_is_refused() -> None:
    good = prove(5, 11)
    for length in range(len(good)):
        with pytest.raises(ProofError):
            verify(good[:length], 5)


def test_proofs_of_something_else_are_refused() -> None:
    good = prove(5, 11)
    found = tlog_proof.parse(good)
    for changed in (
        replace(found, index=6),
        replace(found, index=11),
        replace(found, hashes=found.hashes[:-1]),
        replace(found, hashes=found.hashes[::-1]),
        replace(found, hashes=(*found.hashes, bytes(32))),
        replace(found, checkpoint=tlog_proof.parse(prove(5, 12)).checkpoint),
        replace(found, checkpoint=b"nothing\n"),
    ):
        with pytest.raises(ProofError):
            verify(changed.encode(), 5)
    with pytest.raises(ProofError, match="does not lead to the root"):
        verify(good, 4)
    with pytest.raises(NoteError, match="trusted key"):
        tlog_proof.verify(good, ENTRIES[5], ORIGIN, [note.generate(ORIGIN).verifier()])
    # What is extra is covered by nothing: it may say anything and changes nothing.
    assert verify(replace(found, extra=b"anything").encode(), 5).size == 11


@pytest.mark.parametrize(
    "head",
    [
        "index 00",
        "index 5 ",
        "index",
        "index 5\nextra AAAA",
        "extra AAAA\nextra AAAA\nindex 5",
        "Index 5",
        " index 5",
        "index 5\nAAAA",
        "index 9223372036854775808",
        "index 5\n\N{LATIN SMALL LETTER E WITH ACUTE}",
    ],
)
def test_heads_have_one_form(head: str) -> None:
    with pytest.raises(NoteError):
        tlog_proof.parse(f"{HEADER}\n{head}\n\ncheckpoint\n".encode())


def test_proofs_have_bounds() -> None:
    line = note.encode_base64(bytes(32)) + "\n"
    assert len(tlog_proof.parse(f"{HEADER}\nindex 0\n{line * HASHES_MAX}\nx\n".encode()).hashes) == HASHES_MAX
    with pytest.raises(NoteError, match="more than 64 hashes"):
        tlog_proof.parse(f"{HEADER}\nindex 0\n{line * (HASHES_MAX + 1)}\nx\n".encode())
    with pytest.raises(NoteError, match="bytes"):
        tlog_proof.parse(f"{HEADER}\nindex 0\n\n".encode() + bytes(tlog_proof.PROOF_BYTES_MAX))


def test_lists_of_hashes_lead_back() -> None:
    hashes = [bytes([number]) * 32 for number in range(5)]
    data = tlog_proof.encode_hashes(hashes)
    assert tlog_proof.parse_hashes(data) == hashes
    assert tlog_proof.parse_hashes(b"") == []
    for wrong in (data[:-1], data + b"\n", b"\n", data.replace(b"\n", b"\r\n"), data + b"AAAA\n", b"\xff\n"):
        with pytest.raises(NoteError):
            tlog_proof.parse_hashes(wrong)
