"""C2SP signed notes with Ed25519 (c2sp.org/signed-note), and the text encodings of their keys. Pure: no I/O.

Start at ``verify`` and ``sign``. What is read here comes from strangers, so it is judged strictly: sizes are bounded,
base64 has one spelling, and a signature of a known key that does not hold spoils the whole note. Nothing of a note is
to be believed before ``verify`` has returned.

Ed25519 is what OpenSSL does (``tests/unit/test_note.py`` pins it with vectors): the equation without the cofactor, a
non-canonical R refused, a non-canonical or low-order public key accepted. That is harmless here, because the keys are
the reader's own choice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledgerfsd.merkle.proof import ProofError

NOTE_BYTES_MAX: Final = 1_000_000
SIGNATURES_MAX: Final = 100  # C2SP asks for at least 16
ED25519: Final = 1  # the signature type
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
PRIVATE: Final = "PRIVATE+KEY+"

_ID_BYTES: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")  # all but newlines
_DASH: Final = "\N{EM DASH} "


class NoteError(ProofError):
    """A note, or a key, is malformed, or not signed as it should be."""


class Signature(NamedTuple):
    """One signature line. ``data`` is what follows the key's id."""

    name: str
    key_id: int
    data: bytes

    def line(self) -> str:
        """The line, with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id.to_bytes(_ID_BYTES, 'big') + self.data)}\n"


class Note(NamedTuple):
    """A note as parsed; ``text`` includes its final newline. It may say anything: see ``verify``."""

    text: str
    signatures: tuple[Signature, ...]


class PublicKey(NamedTuple):
    """A public key with its name, of whatever signature type.

    Log keys and witness keys are classes of their own, lest one pass for the other.
    """

    name: str
    key_id: int
    public: bytes

    @property
    def kind(self) -> int:
        """The signature type; 0 is none."""
        return 0

    @property
    def short(self) -> str:
        """As messages name it."""
        return f"{self.name}+{self.key_id:08x}"

    def encode(self) -> str:
        """The text form, ``name+id+base64``."""
        return f"{self.short}+{encode_base64(bytes([self.kind]) + self.public)}"


class PrivateKey(NamedTuple):
    """A private key with its name, of whatever signature type."""

    name: str
    key_id: int
    seed: bytes

    @property
    def kind(self) -> int:
        """The signature type; 0 is none."""
        return 0

    def encode(self) -> str:
        """The text form, ``PRIVATE+KEY+name+id+base64``."""
        return f"{PRIVATE}{self.name}+{self.key_id:08x}+{encode_base64(bytes([self.kind]) + self.seed)}"

    def __repr__(self) -> str:
        # A key must not get into a log with a traceback.
        return f"{type(self).__name__}({self.name}+{self.key_id:08x})"


class Verifier(PublicKey):
    """The public key of a log."""

    __slots__ = ()

    @property
    def kind(self) -> int:
        """The signature type."""
        return ED25519


class Signer(PrivateKey):
    """The private key of a log."""

    __slots__ = ()

    @property
    def kind(self) -> int:
        """The signature type."""
        return ED25519

    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self.key_id, public_of(self.seed))


# -- base64


def encode_base64(data: bytes) -> str:
    """Standard base64 (RFC 4648, section 4)."""
    return base64.b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """The bytes of standard base64 in its one canonical spelling. Raises NoteError."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise NoteError(f"{text[:100]!r} is not base64") from None
    if encode_base64(data) != text:  # bits behind the end: several texts for the same bytes
        raise NoteError(f"{text[:100]!r} is not canonical base64")
    return data


# -- keys


def key_id(name: str, public: bytes, kind: int = ED25519) -> int:
    """The id of an Ed25519 key of this signature type: it tells keys of one name apart and protects nothing."""
    return int.from_bytes(hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:_ID_BYTES], "big")


def check_name(name: str) -> None:
    """Raise NoteError unless this may be the name of a key."""
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise NoteError(f"{name[:100]!r} cannot be the name of a key")


def generate(name: str) -> Signer:
    """A new key. Raises NoteError for a bad name."""
    return Signer(*new_key(name, ED25519))


def parse_verifier(text: str) -> Verifier:
    """A public key from its text form. Raises NoteError."""
    return Verifier(*parse_public(text, ED25519))


def parse_signer(text: str) -> Signer:
    """A private key from its text form. Raises NoteError, which never quotes it."""
    return Signer(*parse_private(text, ED25519))


# What is behind these, for keys of any signature type: name, id and 32 bytes.


def new_key(name: str, kind: int) -> tuple[str, int, bytes]:
    """A new private key. Raises NoteError for a bad name."""
    check_name(name)
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    return name, key_id(name, public_of(seed), kind), seed


def parse_public(text: str, kind: int) -> tuple[str, int, bytes]:
    """A public key from its text form. Raises NoteError."""
    name, number, public = _parse_key(text, kind)
    if key_id(name, public, kind) != number:
        raise NoteError(f"the key {text[:200]!r} does not have the id {number:08x}")
    return name, number, public


def parse_private(text: str, kind: int) -> tuple[str, int, bytes]:
    """A private key from its text form. Raises NoteError, which never quotes it."""
    if not text.startswith(PRIVATE):
        raise NoteError("this is not a private key for signed notes")
    try:
        name, number, seed = _parse_key(text.removeprefix(PRIVATE), kind)
    except NoteError:
        raise NoteError("the private key is malformed") from None
    if key_id(name, public_of(seed), kind) != number:
        raise NoteError(f"the private key does not have the id {number:08x}")
    return name, number, seed


def _parse_key(text: str, kind: int) -> tuple[str, int, bytes]:
    name, first, rest = text.partition("+")
    number, second, encoded = rest.partition("+")
    if not first or not second or len(number) != 8 or set(number) - set("0123456789abcdef"):
        raise NoteError(f"{text[:200]!r} is not a key of the form name+id+base64")
    check_name(name)
    data = decode_base64(encoded)
    if data[:1] != bytes([kind]) or len(data) != 1 + KEY_BYTES:
        raise NoteError(f"the key {text[:200]!r} is not an Ed25519 key of type 0x{kind:02x}")
    return name, int(number, 16), data[1:]


def public_of(seed: bytes) -> bytes:
    """The public half of 32 secret bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


# -- notes


def sign(text: str, signers: Sequence[Signer]) -> bytes:
    """The note: the text with one signature line for each key. Raises NoteError for a text that cannot be signed."""
    if not text.endswith("\n") or not signers:
        raise NoteError("a note is a text that ends with a newline, and at least one key")
    data = text.encode()
    _check_characters(text)
    lines = []
    for signer in signers:
        signature = Ed25519PrivateKey.from_private_bytes(signer.seed).sign(data)
        lines.append(Signature(signer.name, signer.key_id, signature).line())
    return (text + "\n" + "".join(lines)).encode()


def parse(data: bytes) -> Note:
    """Take a note apart. Nothing is verified. Raises NoteError when it is malformed."""
    if len(data) > NOTE_BYTES_MAX:
        raise NoteError(f"a note of more than {NOTE_BYTES_MAX} bytes")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError("the note is not UTF-8") from None
    _check_characters(whole)
    text, separator, block = whole.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NoteError("the note has no signatures behind an empty line")
    lines = block[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteError(f"a note of more than {SIGNATURES_MAX} signatures")
    return Note(text + "\n", tuple(_parse_signature(line) for line in lines))


def _check_characters(text: str) -> None:
    if _CONTROL.search(text):
        raise NoteError("the note has control characters in it")


def _parse_signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise NoteError(f"{line[:100]!r} is not a signature line")
    check_name(name)
    data = decode_base64(encoded)
    if len(data) <= _ID_BYTES:
        raise NoteError(f"the signature of {name[:100]!r} is empty")
    return Signature(name, int.from_bytes(data[:_ID_BYTES], "big"), data[_ID_BYTES:])


def verify(data: bytes, verifiers: Iterable[Verifier]) -> tuple[Note, list[Verifier]]:
    """The note and those of the keys that have signed it, at least one.

    Signatures of unknown keys are passed over. Raises NoteError: malformed, a signature of a known key that does not
    hold, none of a known key, or two keys that go by the same name and id.
    """
    note = parse(data)
    known: dict[tuple[str, int], list[Verifier]] = {}
    for verifier in verifiers:
        known.setdefault((verifier.name, verifier.key_id), []).append(verifier)
    signed: list[Verifier] = []
    text = note.text.encode()
    for signature in note.signatures:
        candidates = known.get((signature.name, signature.key_id), [])
        if len(candidates) > 1:
            raise NoteError(f"two keys go by {signature.name}+{signature.key_id:08x}")
        for candidate in candidates:  # a key that signs twice must be right twice, and counts once
            check_signature(candidate, signature.data, text)
            if candidate not in signed:
                signed.append(candidate)
    if not signed:
        raise NoteError("the note is not signed by a trusted key")
    return note, signed


def check_signature(verifier: PublicKey, signature: bytes, message: bytes) -> None:
    """Raise NoteError unless the key has signed this message."""
    try:
        Ed25519PublicKey.from_public_bytes(verifier.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise NoteError(f"the signature of {verifier.short} does not hold") from None
