"""Asking a witness for its cosignature (c2sp.org/tlog-witness). Used by the anchors and by ``ledgerfs witness cosign``.

    cosigned = await cosign(url, witness, checkpoint, prove, old_size=0)

* ``url``         the submission prefix of the witness, ``http://…`` or ``https://…``
* ``witness``     its public key, ``cosignature.parse_witness(vkey)``: an answer of another key is no answer
* ``checkpoint``  the signed note, as ``log/checkpoint`` has it (cosignatures that are there already do no harm)
* ``prove``       ``prove(old, new)`` gives the consistency proof (a list of 32-byte hashes) from ``old`` to ``new`` entries
                  (0 < old < new); for an engine ``functools.partial(proof.consistency, engine.hashes)``
* ``old_size``    the size that this witness is thought to have cosigned last; when it is another, the witness says so and is
                  asked again, so 0 always works and costs one more question

``Cosigned.lines`` are signature lines that were verified: append them to the checkpoint. Keep ``Cosigned.size`` for next time.

Raises ``WitnessUnreachable`` (network, time-out, TLS, a status of 429 or 5xx, an answer that is none: try again later),
``WitnessAhead`` (it has cosigned a larger tree: ask with a newer checkpoint; if there is none, the log was rolled back),
``WitnessRefused`` (it will not cosign this: unknown log, wrong signature, or **a history that does not continue the one it
has cosigned**, ``status`` 422; asking again does not help, somebody has to look). All three are LedgerErrors. There is no
back-off and no retry here but the one question after a conflict: that is the caller's.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import h11
import trio

from ledgerfsd import __version__
from ledgerfsd.errors import LedgerError
from ledgerfsd.merkle import checkpoint as checkpoints
from ledgerfsd.merkle import cosignature, note
from ledgerfsd.merkle.cosignature import Witness
from ledgerfsd.merkle.note import NoteError
from ledgerfsd.merkle.tlog_proof import encode_hashes

SECONDS: Final = 10.0  # for one question and its answer
ANSWER_BYTES_MAX: Final = 64 * 1024
SIZE_TYPE: Final = "text/x.tlog.size"

Prove = Callable[[int, int], Sequence[bytes]]


class Cosigned(NamedTuple):
    """What a witness gave: signature lines, the size of the tree, and its time (seconds since 1970)."""

    lines: bytes
    size: int
    time: int


class WitnessUnreachable(LedgerError):
    """There was no answer, or none that means anything. Try again later."""


class WitnessRefused(LedgerError):
    """The witness will not cosign this checkpoint. ``status`` is that of its answer."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class WitnessAhead(WitnessRefused):
    """The witness has cosigned a larger tree; ``size`` is its size."""

    def __init__(self, message: str, *, size: int) -> None:
        hint = "ask with a newer checkpoint; if the log has none, it was rolled back"
        super().__init__(message, status=409, hint=hint)
        self.size = size


async def cosign(
    url: str, witness: Witness, checkpoint: bytes, prove: Prove, *, old_size: int = 0, seconds: float = SECONDS
) -> Cosigned:
    """Ask for a cosignature; see the top of this module. Raises WitnessUnreachable, WitnessRefused, WitnessAhead, NoteError."""
    head = checkpoints.parse(note.parse(checkpoint).text)
    old = old_size if old_size <= head.size else 0
    status, kind, body = await _ask(url, old, head.size, checkpoint, prove, seconds)
    if status == 409:
        old = _known_size(url, kind, body)
        if old > head.size:
            what = f"the witness {witness.name} has cosigned {old} entries; this checkpoint has {head.size}"
            raise WitnessAhead(what, size=old)
        status, kind, body = await _ask(url, old, head.size, checkpoint, prove, seconds)
    said = body[:200].decode("utf-8", "replace").strip()
    if status == 200:
        return _take(url, witness, checkpoint, head.size, body)
    if status in (408, 409, 425, 429) or status >= 500:  # 409 again: somebody else was quicker
        raise WitnessUnreachable(f"the witness at {url} answers {status}: {said}", hint="try again later")
    reasons = {
        400: "finds the question malformed",
        403: "trusts no key that signed it",
        404: "does not know the log",
        422: f"says that it does not continue the {old} entries that it has cosigned: there are two histories",
    }
    reason = reasons.get(status, f"answers {status}")
    hint = "verify the store with what is kept elsewhere: ledgerfs verify --anchor" if status == 422 else ""
    what = f"the witness {witness.name} refuses the checkpoint of {head.size} entries: it {reason} ({said})"
    raise WitnessRefused(what, status=status, hint=hint)


def _take(url: str, witness: Witness, checkpoint: bytes, size: int, body: bytes) -> Cosigned:
    """The cosignature in an answer: only of the key that is known, and only one that holds."""
    text, blank, _ = checkpoint.rpartition(b"\n\n")
    try:
        _, found = cosignature.verify(text + blank + body, [witness])
        lines = cosignature.lines_of(text + blank + body, witness)
    except NoteError as error:
        raise WitnessUnreachable(f"the answer of the witness at {url} is no cosignature: {error}") from None
    if not found:
        key = f"{witness.name}+{witness.key_id:08x}"
        raise WitnessUnreachable(f"the witness at {url} did not sign with the key {key}", hint="compare the keys")
    return Cosigned(lines, size, found[0].time)


def _known_size(url: str, kind: str, body: bytes) -> int:
    try:
        if kind != SIZE_TYPE or not body.endswith(b"\n"):
            raise NoteError("not a size")
        return checkpoints.parse_size(body[:-1].decode("ascii"))
    except (NoteError, UnicodeDecodeError):
        raise WitnessUnreachable(f"the witness at {url} answers 409 without the size that it knows") from None


# -- HTTP


async def _ask(url: str, old: int, new: int, checkpoint: bytes, prove: Prove, seconds: float) -> tuple[int, str, bytes]:
    """One question: status, content type, body."""
    hashes = encode_hashes(prove(old, new)) if 0 < old < new else b""
    question = f"old {old}\n".encode() + hashes + b"\n" + checkpoint
    target = urlsplit(url)
    if target.scheme not in ("http", "https") or not target.hostname or target.query or target.fragment:
        raise LedgerError(f"{url!r} is not the URL of a witness", hint="such as https://witness.example/")
    try:
        with trio.fail_after(seconds):
            return await _exchange(target, question)
    except trio.TooSlowError:
        raise WitnessUnreachable(f"the witness at {url} did not answer in {seconds:g} s") from None
    except (OSError, trio.BrokenResourceError, ssl.SSLError, h11.RemoteProtocolError) as error:
        reason = getattr(error, "strerror", None) or error.__cause__ or error
        raise WitnessUnreachable(f"the witness at {url} cannot be asked: {reason}") from None


async def _exchange(target: SplitResult, question: bytes) -> tuple[int, str, bytes]:
    host = str(target.hostname)
    secure = target.scheme == "https"
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, target.port or (443 if secure else 80))
    async with stream:
        if secure:
            context = ssl.create_default_context()
            stream = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        connection = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", target.netloc.rpartition("@")[2]),
            ("User-Agent", f"ledgerfs/{__version__}"),
            ("Content-Length", str(len(question))),
            ("Connection", "close"),
        ]
        path = target.path.rstrip("/") + "/add-checkpoint"
        request = h11.Request(method="POST", target=path, headers=headers)
        parts = [connection.send(event) or b"" for event in (request, h11.Data(data=question), h11.EndOfMessage())]
        await stream.send_all(b"".join(parts))
        return await _answer(connection, stream)


async def _answer(connection: h11.Connection, stream: trio.abc.Stream) -> tuple[int, str, bytes]:
    status, kind, body = 0, "", b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            kind = next((value.decode("latin-1") for name, value in event.headers if name == b"content-type"), "")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_BYTES_MAX:
                raise h11.RemoteProtocolError("the answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return status, kind.partition(";")[0].strip().lower(), body
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("the connection was closed before the answer ended")
