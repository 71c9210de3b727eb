"""``init``, ``rebuild`` and ``fsck``: work on a store that is not mounted."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from ledgerfsd import limits
from ledgerfsd.cli import places
from ledgerfsd.cli.keys import of_store
from ledgerfsd.cli.output import Progress, print_json
from ledgerfsd.errors import DamageError
from ledgerfsd.journal import layout as layouts

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands
    from ledgerfsd.journal.fsck import Finding

FINDINGS_SHOWN: Final = 100

INIT_TEXT: Final = """\
Make a new, empty store, and the key that signs its checkpoints. The origin names the ledger for ever (it is in every
proof): a URL without its scheme.

example:
  ledgerfs init --store /var/lib/ledgerfs/main --ledger ledger.example/main
"""
REBUILD_TEXT: Final = """\
Delete every projection (hashes/, runs/, index.lmdb) and make it anew from the segments in journal/ alone.
Needed after fsck reported a projection, and after journal/ was copied into an empty store. Every seal is checked. A journal that
lacks what index.lmdb has applied is refused: see `ledgerfs restore`.

example:
  ledgerfs rebuild --store /var/lib/ledgerfs/main
"""
FSCK_TEXT: Final = """\
Verify a store without using the code that wrote it: every length, entry, index and time; every seal and root; every
balance, by replaying the entries; every projection, byte for byte. Nothing is changed. Ends with 0 when the ledger is
whole (an unfinished batch after a crash is no fault), 1 when a projection is wrong, 4 when there is damage.

example:
  ledgerfs fsck --store /var/lib/ledgerfs/main --quick
"""


def register(commands: Commands) -> None:
    """Add the commands to the parser."""
    init = commands.add_parser("init", help="make a new store", description=INIT_TEXT)
    init.add_argument(
        "--ledger", metavar="ORIGIN", required=True, help="name of the ledger, such as ledger.example/main"
    )
    init.add_argument(
        "--segment-bytes", metavar="N", type=_segment_bytes, help="target size of a segment (default 64 MiB)"
    )
    init.add_argument("--keys", metavar="DIR", help="directory of the signing keys (default: keys in the store)")
    init.set_defaults(run=run_init)
    rebuild = commands.add_parser("rebuild", help="make all projections anew", description=REBUILD_TEXT)
    rebuild.set_defaults(run=run_rebuild)
    fsck = commands.add_parser("fsck", help="verify a store", description=FSCK_TEXT)
    fsck.add_argument("--quick", action="store_true", help="only lengths, indexes, times, seals and roots")
    fsck.set_defaults(run=run_fsck)
    for command in (init, rebuild, fsck):
        command.add_argument("--store", metavar="DIR", help="the store (else $LEDGERFS_STORE)")
    for command in (rebuild, fsck):
        command.add_argument(
            "--progress", action="store_true", help="progress as plain lines when stderr is no terminal"
        )


def _segment_bytes(text: str) -> int:
    if not text.isdecimal() or int(text) < limits.SEGMENT_BYTES_MIN:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {limits.SEGMENT_BYTES_MIN}")
    return int(text)


def run_init(options: argparse.Namespace) -> int:
    """Make a store."""
    layout = places.store(options.store)
    layouts.create(layout.root, options.ledger, segment_bytes=options.segment_bytes or limits.SEGMENT_BYTES)
    keys = of_store(layout, options.keys)
    keys.create_if_absent()  # keys that are there already are of this ledger, or the next line says that they are not
    vkeys = [key.vkey for key in keys.trusted_root().keys if key.signs]
    if options.json:
        print_json({"store": str(layout.root), "ledger": options.ledger, "vkeys": vkeys})
    else:
        print(f"made the store {layout.root} for {options.ledger}")
        print("its checkpoints are signed by", *vkeys)
    return 0


def run_rebuild(options: argparse.Namespace) -> int:
    """Rebuild the projections."""
    from ledgerfsd.state.rebuild import check_newest, rebuild  # LMDB: not needed by the commands that only use a mount

    layout = places.store(options.store)
    layouts.check(layout)
    with layouts.lock(layout), Progress("rebuild", plain=options.progress) as progress:
        check_newest(layout)
        found = rebuild(layout, progress=progress)
    if options.json:
        print_json({"entries": found.entries, "cut_bytes": found.cut_bytes, "seconds": round(found.seconds, 3)})
    else:
        print(f"rebuilt from {found.entries:,} entries in {found.seconds:.1f} s")
        if found.cut_bytes:
            print(f"an unfinished batch of {found.cut_bytes:,} bytes at the end was zeroed")
    return 0


def run_fsck(options: argparse.Namespace) -> int:
    """Verify a store."""
    from ledgerfsd.state import check  # LMDB, as above

    layout = places.store(options.store)
    layouts.check(layout)
    with layouts.lock(layout), Progress("fsck", plain=options.progress) as progress:
        findings, summary = check.everything(layout, quick=options.quick, progress=progress)
    damaged = any(finding.severity == "damage" for finding in findings)
    wrong = any(finding.severity == "projection" for finding in findings)
    code = DamageError.exit_code if damaged else 1 if wrong else 0
    if options.json:
        print_json(
            {"ok": code == 0, **asdict(summary), "findings": [asdict(finding) for finding in findings]},
        )
        return code
    for finding in findings[:FINDINGS_SHOWN]:
        print(_line(finding), file=sys.stdout if finding.severity == "note" else sys.stderr)
    held = f"{summary.entries:,} entries in {summary.blocks:,} blocks, root {summary.log_root[:16]}"
    if damaged:
        print(f"DAMAGED; good are {held}; restore journal/ from a backup", file=sys.stderr)
    elif wrong:
        print(f"the journal is whole: {held}; `ledgerfs rebuild` mends the projections", file=sys.stderr)
    else:
        print(f"{'quickly checked' if options.quick else 'verified'}: {held}")
    return code


def _line(finding: Finding) -> str:
    where = f"{finding.file}, entry {finding.entry}" if finding.entry >= 0 else finding.file
    return f"{finding.severity}: {where}: {finding.what}"
