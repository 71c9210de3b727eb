"""merkle/checkpoint.py: tlog-checkpoints, against published vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.merkle.checkpoint import SIZE_MAX, Checkpoint
from ledgerfsd.merkle.note import NoteError

PARSING = Path(__file__).parent.parent / "vectors" / "tlog-checkpoint-and-proof-parsing" / "cases.json"
CASES = json.loads(PARSING.read_text())["checkpoint_body"]
ORIGIN = "ledger.example/x"
ROOT = bytes(range(32))
HEAD = Checkpoint(ORIGIN, 7, ROOT)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_published_bodies(case: dict[str, Any]) -> None:
    assert len(CASES) == 12
    with pytest.raises(NoteError) as error:
        checkpoint.parse(case["text"])
    if not case["expect"].startswith("ok"):
        assert "bytes, not 32" not in str(error.value)
        return
    # Stricter than the vectors: a root has 32 bytes, which is all that is wrong with most of them.
    origin, size, _, *rest = case["text"].split("\n")
    text = "\n".join([origin, size, note.encode_base64(ROOT), *rest])
    if case["name"] == "valid with trailing newlines":  # C2SP: extension lines are not empty
        assert "strict parser may reject" in case["expect"]
        with pytest.raises(NoteError, match="empty lines"):
            checkpoint.parse(text)
        return
    assert "bytes, not 32" in str(error.value)
    found = checkpoint.parse(text)
    assert found == Checkpoint(origin, int(size), ROOT, tuple(rest[:-1]))
    assert found.body() == text


@pytest.mark.parametrize(
    "size", ["", "07", "+7", "-7", " 7", "7 ", "7.0", "0x7", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 19]
)
def test_sizes_have_one_spelling(size: str) -> None:
    with pytest.raises(NoteError):
        checkpoint.parse(HEAD.body().replace("\n7\n", f"\n{size}\n"))
    assert checkpoint.parse_size("0") == 0
    assert checkpoint.parse_size(str(SIZE_MAX)) == SIZE_MAX


@pytest.mark.parametrize("root", [b"", bytes(31), bytes(33)])
def test_roots_have_32_bytes(root: bytes) -> None:
    with pytest.raises(NoteError):
        checkpoint.parse(Checkpoint(ORIGIN, 7, root).body())


def test_a_checkpoint_is_of_the_log_and_signed_by_its_keys() -> None:
    signer, other, stranger = note.generate(ORIGIN), note.generate(ORIGIN), note.generate("witness.example")
    data = note.sign(HEAD.body(), [signer, stranger])
    assert checkpoint.verify(data, ORIGIN, [signer.verifier(), other.verifier()]) == (HEAD, [signer.verifier()])
    # a key of another name is no key of this log, however much it is trusted
    for verifiers in ([stranger.verifier()], [other.verifier()], []):
        with pytest.raises(NoteError, match="trusted key"):
            checkpoint.verify(data, ORIGIN, verifiers)
    elsewhere = note.sign(HEAD._replace(origin="ledger.example/y").body(), [signer])
    with pytest.raises(NoteError, match="is of 'ledger.example/y'"):
        checkpoint.verify(elsewhere, ORIGIN, [signer.verifier()])
    with pytest.raises(NoteError, match="three lines"):
        checkpoint.verify(note.sign("nothing\n", [signer]), ORIGIN, [signer.verifier()])
