"""What lies in a store beside the journal and cannot be derived from it, as `ledgerfs verify` looks at it (docs/FORMAT.md, section 19).

Start at ``examine``. It finds what is no longer what was written, and gives what the rest says of the log: that this is true, the
verifier of the journal must find. None of it is evidence against somebody who can write the store: for that it must have left the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ledgerfsd.errors import LedgerError, StoreError
from ledgerfsd.journal.fsck import Finding
from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.recorded import recorded
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.service import last_signed, named
from ledgerfsd.service.anchors import digests, kinds
from ledgerfsd.service.anchors.digests import Digest, Issued, Outcome
from ledgerfsd.service.keys import LAST_SIGNED, TRUSTED_ROOT, parse_trusted_root, usual_directory
from ledgerfsd.service.system import key_of, newest

COMPARED: Final = (
    1024  # of the newest digests the roots are compared with the log; of all of them what they say of themselves
)
HASH_BYTES: Final = 32


def examine(layout: Layout, ledger: str) -> tuple[list[Finding], list[tuple[str, Checkpoint]]]:
    """(What is wrong, signed trees that the log must begin with, by name.) Raises StoreError when a file cannot be read."""
    restores = list(recorded(layout, "restore/1"))
    findings: list[Finding] = []
    signed: list[tuple[str, Checkpoint]] = []
    try:
        for path in sorted(layout.digests.glob("*")):
            for digest in _file(path, ledger, findings):
                name = f"{_name(path)}, digest {digest.name}"
                signed.append((name, Checkpoint(ledger, digest.size, bytes.fromhex(digest.issued.root))))
        signed = signed[-COMPARED:]
        findings += _names(layout)
        signed += _last_signed(usual_directory(layout.root) / LAST_SIGNED, ledger, findings)
    except OSError as error:
        raise StoreError(f"{error.filename or layout.root}: {error.strerror}") from None
    return findings, [each for each in signed if not _given_up(each[1], restores)]


def keys(layout: Layout, ledger: str, stated: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """``trusted_root.json`` in the store against what the log says of keys: the same of each, after any mount."""
    path = usual_directory(layout.root) / TRUSTED_ROOT
    try:
        root = parse_trusted_root(path.read_bytes(), _name(path))
    except FileNotFoundError:
        return []
    except PermissionError:
        return [Finding("note", _name(path), -1, "cannot be read by this user: not compared")]
    except (LedgerError, UnicodeDecodeError) as error:
        return [Finding("evidence", _name(path), -1, str(error))]
    said = newest(key_of(entry, ledger) for entry in stated)
    wrong = [key.key_id for key in root.keys if said.get(key.vkey) != key] if said else []
    what = f"does not say of key {', '.join(wrong)} what the log says; if keys were changed since, the next mount records it"
    findings = [Finding("evidence", _name(path), -1, what)] if wrong else []
    if root.ledger != ledger:
        findings.append(Finding("evidence", _name(path), -1, f"is of the ledger {root.ledger!r}"))
    return findings


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _given_up(head: Checkpoint, restores: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a restore says that so much of the log was not left."""
    return any(restore["size"] < head.size <= restore.get("signed_size", head.size) for restore in restores)


def _file(path: Path, ledger: str, findings: list[Finding]) -> Iterator[Digest]:
    """The digests of a file, in order."""
    place = digests.place_of(path.name)
    if place is None:
        findings.append(Finding("evidence", _name(path), -1, "is no file of digests"))
        return
    issued: dict[int, Digest] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            record = digests.decode(line)
            _sound(record, ledger, issued, place.first)
        except (ValueError, LedgerError) as error:
            findings.append(Finding("evidence", _name(path), -1, f"line {number}: {error}"))
            continue
        if isinstance(record, Issued):
            issued[record.size] = Digest(record, place.incarnation)
    yield from issued.values()


def _sound(record: Issued | Outcome, ledger: str, issued: Mapping[int, Digest], first: int) -> None:
    """Raise ValueError, NoteError: a line that does not go with itself, or with those before it."""
    if isinstance(record, Outcome):
        if record.size not in issued:
            raise ValueError(f"there is no digest of {record.size} entries before it")
        held = record.data or (issued[record.size].checkpoint if record.kind in ("folder", "s3") else b"")
        if held and record.outcome == "anchored" and kinds.sha256(held) != record.hash:
            raise ValueError("the evidence does not have the hash that is stated")
        return
    if record.size <= max(issued, default=0) or (not issued and record.size != first):
        raise ValueError(f"a digest of {record.size} entries cannot stand here")
    head = checkpoint.parse(note.parse(record.checkpoint.encode()).text)
    if (head.origin, head.size, head.root.hex()) != (ledger, record.size, record.root):
        raise ValueError("its checkpoint is not of the size, root or ledger that it states")


def _names(layout: Layout) -> Iterator[Finding]:
    """Of ``snapshots.ndjson``. The hashes of leaves are compared with the journal by the verifier."""
    path, seen = layout.root / "snapshots.ndjson", set[str]()
    if not path.exists():
        return
    leaves = layout.hashes / "0"
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            said = named.read(line)
            if said.name in seen:
                raise ValueError("a repeated name")
            seen.add(said.name)
            if leaves.exists() and _leaf(leaves, said.size - 1) != said.leaf:
                raise ValueError(f"{said.name} is of another history")
        except ValueError as error:
            yield Finding("evidence", path.name, -1, f"line {number}: {error}")


def _leaf(path: Path, index: int) -> str:
    with path.open("rb") as file:
        file.seek(HASH_BYTES * index)
        return file.read(HASH_BYTES).hex()


def _last_signed(path: Path, ledger: str, findings: list[Finding]) -> Iterator[tuple[str, Checkpoint]]:
    try:
        head, torn = last_signed.examine(path, ledger)
    except PermissionError:
        findings.append(Finding("note", _name(path), -1, "cannot be read by this user: not compared"))
        return
    except StoreError as error:
        findings.append(Finding("evidence", _name(path), -1, str(error)))
        return
    if torn:
        what = (
            "one of its slots is torn, as a crash leaves it: it does not count, and the next signature writes it anew"
        )
        findings.append(Finding("note", _name(path), -1, what))
    if head is not None:
        yield _name(path), head
