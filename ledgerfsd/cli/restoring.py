"""``restore``: go on from an older copy of a store, and say so in its log."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerfsd.cli import places
from ledgerfsd.cli.keys import of_store
from ledgerfsd.cli.output import Progress, print_json
from ledgerfsd.errors import CODES, DamageError, LedgerError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.service import last_signed, memory
from ledgerfsd.types import Mode

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands
    from ledgerfsd.service.keyring import Keyring
    from ledgerfsd.state.verify import Verified

RESTORE_TEXT: Final = """\
Let a ledger live again from an older copy of its journal, when the newer one is lost for good. A store that lacks what was signed,
or what its index.lmdb had applied, is not mounted: everybody who holds a newer checkpoint could prove that history was rewritten.
This command verifies the journal, and then writes into the log itself what happened: an entry restore/1 with a new incarnation,
how many entries were left, what is known to be lost (the checkpoint signed last), and the reason. The signer goes on only when it
is shown that entry, and keeps the record of what is lost. Nothing hides the loss: verifiers with newer checkpoints report it.

First look for a newer copy of journal/: every segment that can be found. Run this as the user of the daemon, on a store that is not
mounted. It asks before it does anything, unless --yes is given.

example:
  ledgerfs restore --store /var/lib/ledgerfs/main --reason disk-failure-of-24-November
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    restore = commands.add_parser("restore", help="go on from an older copy", description=RESTORE_TEXT)
    restore.add_argument("--store", metavar="DIR", help="the store (else $LEDGERFS_STORE)")
    restore.add_argument("--reason", metavar="TEXT", required=True, help="why, for all who read the log (256 bytes)")
    restore.add_argument("--keys", metavar="DIR", help="directory of the keys (default: keys in the store)")
    restore.add_argument(
        "--last-signed",
        metavar="DIR",
        help="directory of what was signed last, apart from the store (see ledgerfsd(8))",
    )
    restore.add_argument("--yes", action="store_true", help="do not ask")
    restore.add_argument("--progress", action="store_true", help="progress as plain lines when stderr is no terminal")
    restore.set_defaults(run=run_restore)


def run_restore(options: argparse.Namespace) -> int:
    """Restore a store."""
    from ledgerfsd.state.rebuild import rebuild  # LMDB: not needed by the commands that only use a mount

    layout = places.store(options.store)
    keys = of_store(layout, options.keys)
    with layouts.lock(layout):
        last = _last_signed(keys, last_signed.place(layout, options.last_signed or ""))
        found, lost = _verified(layout, last, plain=options.progress)
        _confirm(options, keys.origin, found, last if lost else None)
        with Progress("rebuild", plain=options.progress) as progress:
            rebuild(layout, progress=progress)
        done = _record(layout, options.reason, found, last if lost else None)
    if options.json:
        print_json(done)
    else:
        print(
            f"incarnation {done['incarnation']} of {keys.origin} begins with entry {done['index']}: {done['size']:,} entries"
        )
        if lost:
            print(f"lost is what came after, up to the signed checkpoint of {done['signed_size']:,} entries")
        print("mount it, and give the new log/checkpoint to all who hold an older one")
    return 0


def _last_signed(keys: Keyring, apart: Path) -> Checkpoint | None:
    last = memory.Memory(keys, apart).last
    return last if last.size else None


def _verified(layout: layouts.Layout, last: Checkpoint | None, *, plain: bool) -> tuple[Verified, bool]:
    """What the journal holds, and whether it lacks what was signed last. Raises DamageError: it is not whole itself."""
    from ledgerfsd.state.verify import Anchor, Part, verify

    name = "what was signed last"
    anchors = [Anchor(name, last.size, last.root)] if last else []
    with Progress("verify", plain=plain) as progress:
        findings, found = verify(layout, anchors=anchors, part=Part(projections=False), progress=progress)
    for finding in findings:
        if finding.severity == "damage" and finding.file != name:
            what = f"{finding.file}, entry {finding.entry}: {finding.what}"
            raise DamageError(what, hint="find a journal that is whole; nothing was changed")
    return found, last is not None and found.anchors == 0


def _confirm(options: argparse.Namespace, origin: str, found: Verified, lost: Checkpoint | None) -> None:
    if options.yes:
        return
    if options.json or not sys.stdin.isatty():
        raise LedgerError("this gives up history and has to be confirmed", hint="add --yes, or run it on a terminal")
    print(f"{origin}: the journal is whole and has {found.entries:,} entries, {found.transactions:,} transactions.")
    if lost:
        print(
            f"A checkpoint of {lost.size:,} entries was signed that does not go with it: what it spoke of is given up."
        )
    else:
        print("Nothing that was signed is missing in it, as far as is known here.")
    print("The log will say for ever that it was restored. Type the name of the ledger to go on: ", end="", flush=True)
    if sys.stdin.readline().strip() != origin:
        raise LedgerError("not confirmed; nothing was changed")


def _record(layout: layouts.Layout, reason: str, found: Verified, lost: Checkpoint | None) -> dict[str, Any]:
    """Write the restore/1. Raises LedgerError."""
    from ledgerfsd.state.opening import open_store

    said: dict[str, Any] = {
        "type": "restore",
        "incarnation": found.incarnation + 1,
        "reason": reason,
        "size": found.entries,
    }
    said["id"] = f"~restore:{said['incarnation']}"
    if lost is not None:
        said |= {"signed_size": lost.size, "signed_root": lost.root.hex()}
    store = open_store(layout)
    try:
        store.engine.start()
        store.engine.submit(
            json.dumps(said, ensure_ascii=False).encode(), source=b"", first_line=1, mode=Mode.DOCUMENT, system=True
        )
        store.engine.drain()
        (completion,) = store.engine.completions()
        result = completion[0]
    finally:
        store.close()
    if result.code:
        raise LedgerError(
            f"the restore was refused: {CODES[result.code].meaning}", hint=f"see --reason ({result.field})"
        )
    return {name: said[name] for name in said if name not in ("type", "id")} | {"index": result.index}
