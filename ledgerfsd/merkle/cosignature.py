"""C2SP cosignatures (c2sp.org/tlog-cosignature): what a witness says of a checkpoint, with the time. Pure: no I/O.

A cosignature is one more signature line of the checkpoint's note: 8 bytes of time, then Ed25519 over ``message``. It says:
at this time, this was the largest tree of this log that I knew, and it continues every smaller one that I have cosigned.
Start at ``verify`` and ``cosign``. Only Ed25519 (type 0x04) is known here; ML-DSA (0x06) is refused as a key and passed over
as a signature, like that of any unknown key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledgerfsd.merkle import note
from ledgerfsd.merkle.note import Note, NoteError, PrivateKey, PublicKey, Signature

COSIGNATURE: Final = 4  # the signature type
HEADER: Final = "cosignature/v1"
TIME_MAX: Final = 2**63 - 1
_TIME_BYTES: Final = 8


class Witness(PublicKey):
    """The public key of a witness, with its name."""

    __slots__ = ()

    @property
    def kind(self) -> int:
        """The signature type."""
        return COSIGNATURE


class WitnessKey(PrivateKey):
    """The private key of a witness, with its name."""

    __slots__ = ()

    @property
    def kind(self) -> int:
        """The signature type."""
        return COSIGNATURE

    def witness(self) -> Witness:
        """The public half."""
        return Witness(self.name, self.key_id, note.public_of(self.seed))


class Cosignature(NamedTuple):
    """A cosignature that holds. ``time``: seconds since 1970, by the clock of the witness."""

    witness: Witness
    time: int


# -- keys


def generate(name: str) -> WitnessKey:
    """A new key. Raises NoteError for a bad name."""
    return WitnessKey(*note.new_key(name, COSIGNATURE))


def parse_witness(text: str) -> Witness:
    """A public key from its text form. Raises NoteError."""
    return Witness(*note.parse_public(text, COSIGNATURE))


def parse_key(text: str) -> WitnessKey:
    """A private key from its text form. Raises NoteError, which never quotes it."""
    return WitnessKey(*note.parse_private(text, COSIGNATURE))


# -- cosignatures


def message(body: str, time: int) -> bytes:
    """What is signed: two lines, then the text of the checkpoint with its final newline."""
    return f"{HEADER}\ntime {time}\n{body}".encode()


def cosign(body: str, time: int, key: WitnessKey) -> str:
    """The signature line, with its newline, over the text of a checkpoint. Raises NoteError for an impossible time."""
    if not 0 < time <= TIME_MAX:
        raise NoteError(f"{time} cannot be the time of a cosignature")
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(message(body, time))
    return Signature(key.name, key.key_id, time.to_bytes(_TIME_BYTES, "big") + signature).line()


def verify(data: bytes, witnesses: Iterable[Witness]) -> tuple[Note, list[Cosignature]]:
    """The note, and what those of the witnesses that have cosigned it say; perhaps none. Each counts once, with its latest time.

    Signatures of others are passed over. Raises NoteError: the note is malformed, a cosignature of one of the witnesses does
    not hold, its time is 0 or beyond 2^63-1, or two of the witnesses go by the same name and id.
    """
    found = note.parse(data)
    known: dict[tuple[str, int], Witness] = {}
    for witness in witnesses:
        if known.setdefault((witness.name, witness.key_id), witness) != witness:
            raise NoteError(f"two witnesses go by {witness.short}")
    times: dict[Witness, int] = {}
    for signature in found.signatures:
        signer = known.get((signature.name, signature.key_id))
        if signer is not None:
            times[signer] = max(times.get(signer, 0), _time_of(signer, signature.data, found.text))
    return found, [Cosignature(witness, time) for witness, time in times.items()]


def _time_of(witness: Witness, data: bytes, body: str) -> int:
    if len(data) != _TIME_BYTES + note.SIGNATURE_BYTES:
        raise NoteError(f"the cosignature of {witness.short} has {len(data)} bytes")
    time = int.from_bytes(data[:_TIME_BYTES], "big")
    if not 0 < time <= TIME_MAX:
        raise NoteError(f"the cosignature of {witness.short} has no possible time")
    note.check_signature(witness, data[_TIME_BYTES:], message(body, time))
    return time


def lines_of(data: bytes, witness: Witness) -> bytes:
    """The signature lines in a note that go by the name and id of this witness. Raises NoteError; verifies nothing."""
    lines = [each for each in note.parse(data).signatures if (each.name, each.key_id) == (witness.name, witness.key_id)]
    return "".join(each.line() for each in lines).encode()
