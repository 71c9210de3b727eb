"""What daemon and signer say to each other: lines of JSON. Neither side of it knows the other's code."""

from __future__ import annotations

from typing import Final

import msgspec

LINE_BYTES_MAX: Final = 1 << 20


class Shown(msgspec.Struct, frozen=True):
    """An entry of the log that is to be signed: its bytes, and the inclusion proof (hex)."""

    index: int
    entry: str
    path: list[str]


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sign the checkpoint of this size and root (hex); ``proof`` (hex) leads from what was signed last to it, ``seal`` is its last leaf.

    ``earlier`` leads there from the memory's other record, if that lags behind; ``restored``, a ``restore/1``, stands instead of
    both proofs: see ``Memory.sign``.
    """

    size: int
    root: str
    proof: list[str]
    seal: Shown
    earlier: list[str] = []
    restored: Shown | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The signed note, or why there is none; and what was signed last (size 0: nothing yet)."""

    size: int
    root: str
    note: str = ""
    error: str = ""
    hint: str = ""
    created: str = ""  # in the first line: the id of the key that was made because there was none
    earlier_size: int = 0  # of the memory's other record, if that lags behind
    earlier_root: str = ""
