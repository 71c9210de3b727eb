"""``verify``: everything that a store says, worked out again, and compared with checkpoints kept elsewhere."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ledgerfsd.cli import evidence, places
from ledgerfsd.cli.output import Progress, print_json
from ledgerfsd.errors import DamageError, LedgerError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.service.keys import TrustedRoot, parse_trusted_root
from ledgerfsd.service.system import disagreements, key_of

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands
    from ledgerfsd.journal.fsck import Finding
    from ledgerfsd.state.verify import Anchor, Part, Verified

FINDINGS_SHOWN: Final = 100
VERIFY_TEXT: Final = """\
Work everything out again from the bytes of the journal: the form of every entry, leaf hashes, the chain of seals, batch
and log roots; whether each entry follows from those before it: balances, limits, freezes, closed periods, holds and their
expiry, reversals, ids, transaction numbers; the state roots. Then compare hashes/, runs/ and index.lmdb with that, and the
log with checkpoints that were kept elsewhere, and what the store keeps beside the journal (digests/, snapshots.ndjson, the public
keys, what was signed last) with the log and with itself. Nothing of the store is changed. What is named as bad is the first bad
entry, in the order of the journal.

Whoever has the signing key can rewrite history so that all inside the store fits. Only what was kept outside shows it:
give every checkpoint that you have with --anchor (copies of log/checkpoint, a folder of the setting anchors, a bucket,
digests with their time stamps and cosignatures), and say with --trusted-root or --vkey whose signatures count, from a source
that is not this machine. With --trusted-root the log must say the same of every key (its entries key/1 alone make no key
trusted).

With --policy each of them must also be cosigned by the quorum of a witness policy; one that names logs says whose
signatures count, too.

A running ledger is verified up to its newest signed checkpoint, without stopping it: give its mount with --mount as well.
The checkpoint is read there; all that it covers is durable. index.lmdb is left out then. Without --trusted-root or --vkey
the mount's own word is taken for whose signatures count.

--from saves the hashing, about half of the work, of what stands before a checkpoint that you trust: its entries are
replayed, because balances need them, and their totals must add up, but whether their bytes are those that were sealed is
not verified; the hashes of so many entries are taken from hashes/, and must lead to the checkpoint.

Ends with 0 when all fits (an unfinished batch after a crash is no fault), 1 when only a projection is wrong
(`ledgerfs rebuild` mends it), what lies beside the journal is not what was written ("evidence"), or an anchor is of what a
restore gave up ("lost in the restore at entry N"), 4 when there
is damage or the history is not the one that was signed.

examples:
  ledgerfs verify --store /var/lib/ledgerfs/main
  ledgerfs verify --store /var/lib/ledgerfs/main --anchor checkpoint.monday --trusted-root trusted_root.json
  ledgerfs verify --store /var/lib/ledgerfs/main --from checkpoint.monday --trusted-root trusted_root.json
  ledgerfs verify --store /var/lib/ledgerfs/main --mount /ledgerfs
  ledgerfs verify --store restored --anchor s3://audit-bucket/main/ --endpoint-url https://s3.example --trusted-root t.json
  ledgerfs verify --store restored --anchor kept/digests --tsa-cert tsa-root.pem --trusted-root t.json
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    verify = commands.add_parser("verify", help="verify a whole store", description=VERIFY_TEXT)
    verify.add_argument("--store", metavar="DIR", help="the store (else $LEDGERFS_STORE)")
    verify.add_argument("--mount", metavar="DIR", help="where the store is mounted, if it is: verify while it runs")
    evidence.add_arguments(verify)
    verify.add_argument("--trusted-root", metavar="FILE", type=Path, help="trusted_root.json of the ledger")
    verify.add_argument(
        "--vkey", metavar="KEY", action="append", default=[], help="a public key to believe (may be repeated)"
    )
    verify.add_argument(
        "--policy", metavar="FILE", type=Path, help="a witness policy whose quorum must have cosigned every --anchor"
    )
    verify.add_argument(
        "--from",
        dest="since",
        metavar="SIZE|CHECKPOINT",
        help="trust the hashes of what stands before this size, or before a checkpoint in a file",
    )
    verify.add_argument(
        "--journal-only",
        action="store_true",
        help="leave out the projections (hashes/, runs/, index.lmdb) and what lies beside (digests/, keys/, named snapshots)",
    )
    verify.add_argument("--jobs", metavar="N", type=int, help="threads (default: one a processor)")
    verify.add_argument("--progress", action="store_true", help="progress as plain lines when stderr is no terminal")
    verify.set_defaults(run=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    """Verify a store."""
    from ledgerfsd.service import beside  # LMDB, trio: not needed by the commands that only use a mount
    from ledgerfsd.state.verify import Part, verify

    layout = places.store(options.store)
    layouts.check(layout)
    believed = _Believed(options, str(msgspec.json.decode(layouts.first_entry(layout))["ledger"]))
    if options.policy and not (options.anchor or options.mount):
        raise LedgerError("--policy is about checkpoints", hint="give the cosigned ones with --anchor")
    anchors = [believed.anchor(kept) for kept in evidence.kept(options)]
    trusted, limit = _trusted(options, believed, anchors), None
    if options.mount:
        newest = _newest(options, believed)
        limit = newest.size
        anchors.append(newest)
    if options.jobs is not None and options.jobs < 1:
        raise LedgerError(f"--jobs {options.jobs}: at least one thread is needed")
    if trusted and limit is not None and trusted > limit:
        raise LedgerError(f"--from {options.since}: the newest checkpoint of the mount is of {limit} entries")
    part = Part(limit, trusted, not options.journal_only)
    # A batch that is being written looks like damage once the next one follows: so without a limit nobody may write.
    alone = nullcontext() if options.mount else layouts.lock(layout)
    with alone, Progress("verify", plain=options.progress) as progress:
        spoiled, own = ([], []) if options.journal_only else _beside(layout, believed.origin, part)
        findings, found = verify(layout, anchors=[*anchors, *own], part=part, jobs=options.jobs, progress=progress)
    findings += spoiled
    if not options.journal_only:
        findings += beside.keys(layout, believed.origin, found.keys)
    findings += _agreement(believed.root if options.trusted_root else None, found)
    return _report(options, findings, found, anchors)


def _report(options: argparse.Namespace, findings: list[Finding], found: Verified, anchors: list[Anchor]) -> int:
    damaged = any(finding.severity == "damage" for finding in findings)
    wrong = any(finding.severity == "projection" for finding in findings)
    spoiled = any(finding.severity == "evidence" for finding in findings)
    lost = any(finding.severity == "lost" for finding in findings)
    code = DamageError.exit_code if damaged else 1 if wrong or lost or spoiled else 0
    if options.json:
        said = {"ok": code == 0, **asdict(found), "findings": [asdict(finding) for finding in findings]}
        print_json(said | {"time_stamps": [stamp for anchor in anchors for stamp in anchor.stamps]})
        return code
    for stamp in (stamp for anchor in anchors for stamp in anchor.stamps):
        print(f"time stamp: {stamp}")
    for finding in findings[:FINDINGS_SHOWN]:
        print(_line(finding), file=sys.stdout if finding.severity == "note" else sys.stderr)
    if damaged:
        print("DAMAGED, or not the history that was signed", file=sys.stderr)
        return code
    print(_summary(found), file=sys.stderr if code else sys.stdout)
    if lost:
        print(
            "the ledger was restored, and what those anchors speak of is lost: is that what you were told?",
            file=sys.stderr,
        )
    if wrong:
        print("the journal is whole; `ledgerfs rebuild` mends the projections", file=sys.stderr)
    if spoiled:
        print(
            "what is named as evidence cannot be made anew: get it from a backup, or a copy of digests/",
            file=sys.stderr,
        )
    return code


def _summary(found: Verified) -> str:
    speed = found.entries / found.seconds if found.seconds else 0
    text = (
        f"verified {found.entries:,} entries, {found.transactions:,} transactions, {found.accounts:,} accounts in "
        f"{found.blocks:,} blocks; root {found.log_root[:16]}; {found.seconds:.1f} s, {speed:,.0f} entries/s"
    )
    if found.trusted:
        text += f"; the hashes of the first {found.trusted:,} entries were trusted"
    if found.anchors:
        return f"{text}; {found.anchors} anchors agree"
    return text + "; no --anchor was given, so a rewritten history would not show"


def _line(finding: Finding) -> str:
    place = finding.file if finding.entry < 0 else f"{finding.file}, entry {finding.entry}"
    return f"{finding.severity}: {place}: {finding.what}"


def _beside(layout: layouts.Layout, origin: str, part: Part) -> tuple[list[Finding], list[Anchor]]:
    """What is wrong with what lies beside the journal; and what it says of the part of the log that is verified."""
    from ledgerfsd.service import beside
    from ledgerfsd.state.verify import Anchor

    findings, signed = beside.examine(layout, origin)
    heads = [(name, head) for name, head in signed if head.size >= part.trusted]
    if part.limit is not None:  # what was signed since is not verified now
        heads = [(name, head) for name, head in heads if head.size <= part.limit]
    return findings, [Anchor(name, head.size, head.root, own=True) for name, head in heads]


def _agreement(root: TrustedRoot | None, found: Verified) -> list[Finding]:
    """Whether the log says of the keys what the trusted root says. The log alone makes no key trusted."""
    from ledgerfsd.journal.fsck import Finding

    if root is None:
        return []
    wrong, newer = disagreements(root, [key_of(entry, root.ledger) for entry in found.keys])
    return [Finding("damage", "keys", -1, what) for what in wrong] + [
        Finding("note", "keys", -1, what) for what in newer
    ]


class _Believed:
    """Whose signatures count."""

    def __init__(self, options: argparse.Namespace, origin: str) -> None:
        self.origin = origin
        self.root: TrustedRoot | None = None
        if options.trusted_root and options.vkey:
            raise LedgerError("--trusted-root and --vkey both say whose signatures count", hint="give one of them")
        if options.trusted_root:
            self.believe(evidence.read(options.trusted_root), str(options.trusted_root))
        self._policy = places.policy(options.policy) if options.policy else None
        self._verifiers = [note.parse_verifier(text) for text in options.vkey]
        if self._policy is not None and not options.trusted_root:
            self._verifiers = self._verifiers or list(self._policy.logs)
        self.given = bool(options.trusted_root or self._verifiers)

    def believe(self, data: bytes, where: str) -> None:
        """Take a trusted root. Raises LedgerError when it is of another ledger."""
        self.root = parse_trusted_root(data, where)
        if self.root.ledger != self.origin:
            raise LedgerError(f"{where} is of the ledger {self.root.ledger!r}, the store of {self.origin!r}")

    def file(self, path: Path) -> Anchor:
        """The checkpoint in a file. Raises LedgerError as ``anchor`` does."""
        return self.anchor(evidence.Kept(str(path), evidence.read(path)))

    def anchor(self, kept: evidence.Kept) -> Anchor:
        """A checkpoint, its signature, and with --policy its cosignatures, verified. Raises LedgerError."""
        from ledgerfsd.state.verify import Anchor

        if self.root is None and not self._verifiers:
            hint = "give --trusted-root FILE or --vkey KEY, from a source that is not this machine"
            raise LedgerError("an --anchor is worth what its signature is worth", hint=hint)
        data, root = kept.data, self.root
        signed = root.verify(data) if root is not None else checkpoint.verify(data, self.origin, self._verifiers)[0]
        if self._policy is not None:
            self._policy.verify(data)
        return Anchor(kept.name, signed.size, signed.root, stamps=kept.stamps)


def _trusted(options: argparse.Namespace, believed: _Believed, anchors: list[Anchor]) -> int:
    """The size that --from names. A checkpoint is compared too."""
    if not options.since:
        return 0
    if options.since.isascii() and options.since.isdigit() and len(options.since) < 20:
        return int(options.since)
    anchors.append(believed.file(Path(options.since)))
    return anchors[-1].size


def _newest(options: argparse.Namespace, believed: _Believed) -> Anchor:
    """The newest signed checkpoint of the mount: what it covers is durable."""
    mount = places.mounted(options.mount)
    if not believed.given:
        path = mount / ".ledgerfs" / "trusted_root.json"
        believed.believe(evidence.read(path), str(path))
    return believed.file(mount / "log" / "checkpoint")
