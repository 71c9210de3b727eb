"""Cosignatures of C2SP witnesses: somebody else's machine cosigns what continues the history that it knows, and nothing else.

The cosignature is kept as ``digests/<size>/<name>.cosig``, and ``log/checkpoint`` carries it while the log has that size.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

from ledgerfsd.clock import NS_PER_SECOND, format_time
from ledgerfsd.merkle import cosignature, proof
from ledgerfsd.service.anchors import kinds
from ledgerfsd.service.anchors.kinds import AnchorError, Evidence, Head
from ledgerfsd.service.witnessing import WitnessRefused, cosign

if TYPE_CHECKING:
    from ledgerfsd.config import WitnessAnchor
    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.system import AnchorKind

ENDING: Final = ".cosig"
ANOTHER_HISTORY: Final = 422  # C2SP tlog-witness: the consistency proof does not hold


class Cosigner:
    """A witness."""

    kind: ClassVar[AnchorKind] = "witness"
    records: ClassVar[bool] = False

    def __init__(self, settings: WitnessAnchor, engine: Engine) -> None:
        """Raises NoteError: this is no key of a witness."""
        self.name = settings.name
        self._url = settings.url
        self._witness = cosignature.parse_witness(settings.vkey)
        self._seconds = float(settings.timeout_seconds)
        self._prove = partial(proof.consistency, engine.hashes)
        self._size = 0  # what it is thought to have cosigned last; it says so when that is wrong

    @property
    def where(self) -> str:
        """Its address, without what follows a question mark."""
        return urlsplit(self._url)._replace(query="", fragment="").geturl()

    async def put(self, head: Head) -> Evidence:
        """Ask for a cosignature; ``cosign`` verifies it. A witness that knows another history is an AnchorError."""
        try:
            cosigned = await cosign(
                self._url, self._witness, head.data, self._prove, old_size=self._size, seconds=self._seconds
            )
        except WitnessRefused as error:
            if error.status == ANOTHER_HISTORY:
                raise AnchorError(str(error), hint=error.hint) from None
            raise
        self._size = cosigned.size
        detail = {"witness": self._witness.name, "time": format_time(cosigned.time * NS_PER_SECOND)}
        return Evidence(kinds.sha256(cosigned.lines), detail, ENDING, cosigned.lines)
