"""One submission to a witness (c2sp.org/tlog-witness, add-checkpoint): what it says, and what is answered.

Start at ``read`` and ``judge``. The statuses are those of the specification: 400 malformed, 403 not signed by a trusted key, 404
unknown log, 409 another old size (the answer is the right one), 422 not the same history, 200 cosigned.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import structlog

from ledgerfsd.core.hashing import mth
from ledgerfsd.merkle import checkpoint as checkpoints
from ledgerfsd.merkle import cosignature, note, tlog_proof
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.note import NoteError
from ledgerfsd.merkle.proof import ProofError, verify_consistency
from ledgerfsd.witness.memory import Log, Memory

log = structlog.get_logger()

HASHES_MAX: Final = 63
TEXT: Final = "text/plain; charset=utf-8"
SIZE: Final = "text/x.tlog.size"


class Answer(NamedTuple):
    """An answer of HTTP."""

    status: int
    body: bytes
    kind: str = TEXT


class Refusal(Exception):
    """The submission is answered with this."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.answer = Answer(status, f"{reason}\n".encode())


class Submission(NamedTuple):
    """A submission that is signed by a log that we trust. ``signed``: the note with the signatures that were verified only."""

    head: Checkpoint
    old: int
    hashes: list[bytes]
    body: str
    signed: str


def read(memory: Memory, data: bytes) -> Submission:
    """Take a submission apart and verify its signature. Raises Refusal 400, 403, 404."""
    question, blank, checkpoint = data.partition(b"\n\n")
    first, _, hashes = question.partition(b"\n")
    try:
        if not blank or not first.startswith(b"old "):
            raise NoteError("a submission is a line `old SIZE`, hashes, an empty line and a checkpoint")
        old = checkpoints.parse_size(first[4:].decode("ascii"))
        proof = tlog_proof.parse_hashes(hashes + b"\n" if hashes else b"")
        found = note.parse(checkpoint)
        head = checkpoints.parse(found.text)
        if len(proof) > HASHES_MAX:
            raise NoteError(f"more than {HASHES_MAX} hashes")
    except (NoteError, UnicodeDecodeError) as error:
        raise Refusal(400, f"malformed: {error}") from None
    trusted = memory.log(head.origin)
    if trusted is None:
        raise Refusal(404, "this log is not known here")
    try:
        _, signers = checkpoints.verify(checkpoint, head.origin, trusted.verifiers)
    except NoteError as error:
        raise Refusal(403, str(error)) from None
    if old > head.size:
        raise Refusal(400, f"the old size {old} is larger than that of the checkpoint, {head.size}")
    keys = {(signer.name, signer.key_id) for signer in signers}
    lines = "".join(each.line() for each in found.signatures if (each.name, each.key_id) in keys)
    return Submission(head, old, proof, found.text, f"{found.text}\n{lines}")


def judge(memory: Memory, submission: Submission, now: int) -> Answer:
    """Cosign it, if it continues what was cosigned last. ``now``: seconds since 1970. Raises Refusal 409, 422; StoreError.

    Nobody else may judge the same log meanwhile: between reading what was cosigned last and writing what is cosigned now,
    another submission could be cosigned, and be forgotten again.
    """
    if memory.failure:
        return Answer(503, f"nothing is cosigned: {memory.failure}\n".encode())
    head = submission.head
    trusted = memory.log(head.origin)
    if trusted is None:
        raise Refusal(404, "this log is not known here")
    last = trusted.last.size if trusted.last else 0
    if submission.old != last:
        return Answer(409, f"{last}\n".encode(), SIZE)
    try:
        _compare(trusted, submission)
    except ProofError as error:
        if trusted.last is not None and (head.size, head.root) != (last, trusted.last.root):
            memory.refuse(trusted, head, submission.signed.encode())
            log.error("REFUSED: not the history that was cosigned", origin=head.origin, cosigned=last, size=head.size)
        raise Refusal(422, str(error)) from None
    key = memory.key()
    line = cosignature.cosign(submission.body, now, key)
    memory.record(trusted, (submission.signed + line).encode())
    log.info("cosigned", origin=head.origin, size=head.size)
    return Answer(200, line.encode())


def _compare(trusted: Log, submission: Submission) -> None:
    """Raise ProofError unless the submitted tree begins with the one that was cosigned."""
    head, last = submission.head, trusted.last
    if head.size == 0 and head.root != mth(b""):
        raise ProofError("a log without entries has the root of the empty tree")
    if last is None or last.size == 0:
        if submission.hashes:
            raise ProofError("from the empty tree there is nothing to prove: no hashes are wanted")
    else:
        verify_consistency(last.size, head.size, last.root, head.root, submission.hashes)
