"""``verify``: everything that a store says, worked out again, and compared with checkpoints kept elsewhere."""

from __future__ import annotations

import argparse
import sys
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
    from ledgerfsd.state.verify import Anchor, Verified

FINDINGS_SHOWN: Final = 100
VERIFY_TEXT: Final = """\
Work everything out again from the bytes of the journal: the form of every entry, leaf hashes, the chain of seals, batch
and log roots, every balance, hold, id and transaction number, the state roots; then compare hashes/, runs/ and
index.lmdb with that, and the log with checkpoints that were kept elsewhere. Nothing of the store is changed; it must not be mounted.

Whoever has the signing key can rewrite history so that all inside the store fits. Only what was kept outside shows it:
give every checkpoint that you have with --anchor (copies of log/checkpoint, a folder of the setting anchors, a bucket,
digests with their time stamps and cosignatures), and say with --trusted-root or --vkey whose signatures count, from a source
that is not this machine. With --trusted-root the log must say the same of every key (its entries key/1 alone make no key
trusted).

With --policy each of them must also be cosigned by the quorum of a witness policy; one that names logs says whose
signatures count, too.

Ends with 0 when all fits (an unfinished batch after a crash is no fault), 1 when only a projection is wrong
(`ledgerfs rebuild` mends it), 4 when there is damage or the history is not the one that was signed.

examples:
  ledgerfs verify --store /var/lib/ledgerfs/main
  ledgerfs verify --store /var/lib/ledgerfs/main --anchor checkpoint.monday --trusted-root trusted_root.json
  ledgerfs verify --store restored --anchor s3://audit-bucket/main/ --endpoint-url https://s3.example --trusted-root t.json
  ledgerfs verify --store restored --anchor kept/digests --tsa-cert tsa-root.pem --trusted-root t.json
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    verify = commands.add_parser("verify", help="verify a whole store", description=VERIFY_TEXT)
    verify.add_argument("--store", metavar="DIR", help="the store (else $LEDGERFS_STORE)")
    evidence.add_arguments(verify)
    verify.add_argument("--trusted-root", metavar="FILE", type=Path, help="trusted_root.json of the ledger")
    verify.add_argument(
        "--vkey", metavar="KEY", action="append", default=[], help="a public key to believe (may be repeated)"
    )
    verify.add_argument(
        "--policy", metavar="FILE", type=Path, help="a witness policy whose quorum must have cosigned every --anchor"
    )
    verify.add_argument(
        "--journal-only", action="store_true", help="leave the projections (hashes/, runs/, index.lmdb) out"
    )
    verify.add_argument(
        "--scratch", metavar="DIR", type=Path, help="where to work (a fifth of the journal; else the system's)"
    )
    verify.add_argument("--progress", action="store_true", help="progress as plain lines when stderr is no terminal")
    verify.set_defaults(run=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    """Verify a store."""
    from ledgerfsd.state.verify import verify  # LMDB: not needed by the commands that only use a mount

    layout = places.store(options.store)
    layouts.check(layout)
    origin = str(msgspec.json.decode(layouts.first_entry(layout))["ledger"])
    root = _trusted_root(options, origin)
    anchors = _anchors(options, root, origin)
    # Also without the projections: to a reader, a batch that is being written looks like damage once the next one follows.
    with layouts.lock(layout), Progress("verify", plain=options.progress) as progress:
        findings, found = verify(
            layout, anchors=anchors, scratch=options.scratch, journal_only=options.journal_only, progress=progress
        )
    findings += _agreement(root, found)
    damaged = any(finding.severity == "damage" for finding in findings)
    wrong = any(finding.severity == "projection" for finding in findings)
    code = DamageError.exit_code if damaged else 1 if wrong else 0
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
    print(_summary(found), file=sys.stderr if wrong else sys.stdout)
    if wrong:
        print("the journal is whole; `ledgerfs rebuild` mends the projections", file=sys.stderr)
    return code


def _summary(found: Verified) -> str:
    speed = found.entries / found.seconds if found.seconds else 0
    text = (
        f"verified {found.entries:,} entries, {found.transactions:,} transactions, {found.accounts:,} accounts in "
        f"{found.blocks:,} blocks; root {found.log_root[:16]}; {found.seconds:.1f} s, {speed:,.0f} entries/s"
    )
    if found.anchors:
        return f"{text}; {found.anchors} anchors agree"
    return text + "; no --anchor was given, so a rewritten history would not show"


def _line(finding: Finding) -> str:
    place = finding.file if finding.entry < 0 else f"{finding.file}, entry {finding.entry}"
    return f"{finding.severity}: {place}: {finding.what}"


def _trusted_root(options: argparse.Namespace, origin: str) -> TrustedRoot | None:
    if not options.trusted_root:
        return None
    root = parse_trusted_root(evidence.read(options.trusted_root), str(options.trusted_root))
    if root.ledger != origin:
        raise LedgerError(f"{options.trusted_root} is of the ledger {root.ledger!r}, the store of {origin!r}")
    return root


def _agreement(root: TrustedRoot | None, found: Verified) -> list[Finding]:
    """Whether the log says of the keys what the trusted root says. The log alone makes no key trusted."""
    from ledgerfsd.journal.fsck import Finding

    if root is None:
        return []
    wrong, newer = disagreements(root, [key_of(entry, root.ledger) for entry in found.keys])
    return [Finding("damage", "keys", -1, what) for what in wrong] + [
        Finding("note", "keys", -1, what) for what in newer
    ]


def _anchors(options: argparse.Namespace, root: TrustedRoot | None, origin: str) -> list[Anchor]:
    """The checkpoints, their signatures verified. Raises LedgerError."""
    from ledgerfsd.state.verify import Anchor

    if not options.anchor:
        if options.policy:
            raise LedgerError("--policy is about checkpoints", hint="give the cosigned ones with --anchor")
        return []
    policy = places.policy(options.policy) if options.policy else None
    verifiers = [note.parse_verifier(text) for text in options.vkey]
    if policy is not None and not options.trusted_root:
        verifiers = verifiers or policy.logs
    if bool(options.trusted_root) == bool(verifiers):
        hint = "give --trusted-root FILE or --vkey KEY, from a source that is not this machine"
        raise LedgerError("an --anchor is worth what its signature is worth", hint=hint)
    found = []
    for kept in evidence.kept(options):
        data = kept.data
        signed = root.verify(data) if root is not None else checkpoint.verify(data, origin, verifiers)[0]
        if policy is not None:
            policy.verify(data)
        found.append(Anchor(kept.name, signed.size, signed.root, stamps=kept.stamps))
    return found
