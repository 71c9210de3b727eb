"""merkle/note.py: signed notes and Ed25519, against published vectors."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledgerfsd.merkle import note
from ledgerfsd.merkle.note import NoteError

VECTORS = Path(__file__).parent.parent / "vectors"
CASES = json.loads((VECTORS / "signed-note" / "cases.json").read_text(encoding="utf-8"))
CCTV = json.loads((VECTORS / "ed25519-cctv" / "ed25519vectors.json").read_text())
WYCHEPROOF = json.loads((VECTORS / "wycheproof" / "ed25519_test.json").read_text())
SIGNER = note.parse_signer(CASES["signing"]["signer_key"])

# Each for its own reason, not for another that happens to be there.
REASONS = {
    "no known key": "trusted key",
    "ambiguous duplicate verifier used": "two keys",
    "101 signatures": "more than 100",
    "corrupt known signature": "does not hold",
    "no signature block": "no signatures",
    "blank line but no signature": "no signatures",
    "missing final newline": "no signatures",
    "control character in text": "control characters",
    "invalid utf-8 in text": "UTF-8",
    "space in key name, no final newline": "no signatures",
    "unexpected line after signatures": "not a signature line",
}


def test_published_signature_is_made() -> None:
    assert note.sign(CASES["signing"]["text"], [SIGNER]).decode() == CASES["signing"]["signed_note"]
    assert SIGNER.encode() == CASES["signing"]["signer_key"]
    assert SIGNER.verifier().encode() == CASES["open"][0]["verifiers"][0]


@pytest.mark.parametrize("text", CASES["bad_vkeys"])
def test_published_bad_keys_are_refused(text: str) -> None:
    with pytest.raises(NoteError):
        note.parse_verifier(text)


@pytest.mark.parametrize("case", CASES["open"], ids=lambda case: case["name"])
def test_published_notes(case: dict[str, Any]) -> None:
    assert len(CASES["open"]) == 16
    verifiers = [note.parse_verifier(text) for text in case["verifiers"]]
    data = case["note"].encode() if "note" in case else b64decode(case["note_base64"])
    if case["expect"] != "ok":
        with pytest.raises(NoteError, match=REASONS[case["name"]]):
            note.verify(data, verifiers)
        return
    found, signed = note.verify(data, verifiers)
    assert found.text == case["note"].rpartition("\n\n")[0] + "\n"
    assert [verifier.name for verifier in signed] == case["verified"]
    others = {signature.name for signature in found.signatures} - set(case["verified"])
    assert others == set(case.get("unverified", others))


def test_notes_as_they_must_not_be() -> None:
    good = CASES["signing"]["signed_note"]
    text, line = good.split("\n\n")
    verifier = [SIGNER.verifier()]
    note.verify(good.encode(), verifier)
    name, encoded = line.strip().removeprefix("\N{EM DASH} ").split(" ")
    wrong = [
        good.replace("\N{EM DASH} ", "- "),
        good.replace("\N{EM DASH} ", "\N{EM DASH}"),
        good + "\n",
        good + "no signature\n",
        good + "\N{EM DASH} Name x08g\n",  # four bytes are an id without a signature
        good + "\N{EM DASH} Name\n",
        good + "\N{EM DASH}  x08go/ZJ\n",
        good + "\N{EM DASH} a+b x08go/ZJ\n",
        good + "\N{EM DASH} a\N{NO-BREAK SPACE}b x08go/ZJ\n",
        good.replace(encoded, encoded[:-1]),
        good.replace(encoded, encoded + " "),
        good.replace(encoded, encoded[:20] + "\N{CYRILLIC SMALL LETTER A}" + encoded[21:]),
        good.replace(encoded, encoded[:-2] + chr(ord(encoded[-2]) + 1) + "="),  # bits behind the end
        good.replace("problem,", "problem;"),
        good.replace(name, "PeterNeuman"),
        good.replace("is.\n", "is.\r\n"),
        text + "\n" + line,
        "",
        "\n\n" + line,
        "x" * note.NOTE_BYTES_MAX + good,
    ]
    for each in wrong:
        assert each != good
        with pytest.raises(NoteError):
            note.verify(each.encode(), verifier)
    with pytest.raises(NoteError, match="UTF-8"):
        note.verify(good.encode().replace(b"answer", b"answ\xffer"), verifier)
    with pytest.raises(NoteError, match="trusted key"):
        note.verify(good.encode(), [])


def test_every_bit_of_a_note_counts() -> None:
    good = CASES["signing"]["signed_note"].encode()
    for position in range(8 * len(good)):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(NoteError):
            note.verify(bytes(changed), [SIGNER.verifier()])


def test_several_keys_sign() -> None:
    signers = [note.generate("ledger.example/x") for _ in range(16)]
    signed = note.sign("a\n\nb\n", signers)
    found, by = note.verify(signed, [signers[3].verifier(), signers[15].verifier()])
    assert found.text == "a\n\nb\n"
    assert by == [signers[3].verifier(), signers[15].verifier()]
    for text in ("a", "", "a\tb\n"):
        with pytest.raises(NoteError):
            note.sign(text, signers)
    with pytest.raises(NoteError, match="at least one key"):
        note.sign("a\n", [])


def test_keys_lead_back_and_are_judged() -> None:
    signer = note.generate("ledger.example/x")
    assert note.parse_signer(signer.encode()) == signer
    verifier = signer.verifier()
    assert note.parse_verifier(verifier.encode()) == verifier
    text = verifier.encode()
    name, number, encoded = text.split("+", 2)
    wrong = ["", name, f"{name}+{number}", f"{name}+{number.upper()}G+{encoded}", f"{name}+{number[1:]}+{encoded}"]
    wrong += [f"+{number}+{encoded}", f"a b+{number}+{encoded}", f"{name}x+{number}+{encoded}", text + "\n", text[:-2]]
    wrong += [f"{name}+{0:08x}+{encoded}", f"{name}+{number}+{note.encode_base64(bytes(33))}"]
    for each in wrong:
        with pytest.raises(NoteError):
            note.parse_verifier(each)
        with pytest.raises(NoteError) as error:
            note.parse_signer(note.PRIVATE + each)
        assert encoded not in str(error.value)
    with pytest.raises(NoteError, match="not a private key"):
        note.parse_signer(text)
    for bad in ("", "a b", "a+b", "a\n"):
        with pytest.raises(NoteError, match="cannot be the name"):
            note.generate(bad)


def test_a_private_key_is_not_shown_by_accident() -> None:
    signer = note.generate("ledger.example/x")
    assert signer.seed.hex() not in repr(signer)
    assert note.encode_base64(signer.seed) not in f"{signer}"
    assert repr(signer.seed) not in f"{[signer]!r}"


# ---- Ed25519: what the library does, pinned


def holds(key: str, signature: str, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_ed25519_edge_cases_go_by_their_flags() -> None:
    """OpenSSL: no cofactor (a low-order residue fails), a non-canonical R is refused, every kind of A is accepted."""
    assert len(CCTV) == 914
    accepted = 0
    for case in CCTV:
        flags = set(case["flags"] or [])
        expected = not flags & {"non_canonical_R", "low_order_residue"}
        assert holds(case["key"], case["sig"], case["msg"].encode()) == expected, case
        accepted += expected
    assert accepted == 208


def test_ed25519_of_wycheproof() -> None:
    seen = 0
    for group in WYCHEPROOF["testGroups"]:
        for case in group["tests"]:
            assert case["result"] in ("valid", "invalid")
            found = holds(group["publicKey"]["pk"], case["sig"], bytes.fromhex(case["msg"]))
            assert found == (case["result"] == "valid"), case
            seen += 1
    assert seen == WYCHEPROOF["numberOfTests"] == 151
