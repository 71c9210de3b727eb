"""``find``: entries by reference, accounts by tag."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Final

from ledgerfsd.cli import events, places
from ledgerfsd.errors import LedgerError
from ledgerfsd.service.word_names import file_name

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

TEXT: Final = """\
Print every entry with a reference, or every account that was opened with a tag, oldest first, however long the log is. It reads
references/ or tags/ in the mount. --json prints the entries themselves, one a line.

examples:
  ledgerfs find --reference "invoice 42"
  ledgerfs find --tag pool:uk-1 --json
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    find = commands.add_parser("find", help="find entries by reference, accounts by tag", description=TEXT)
    word = find.add_mutually_exclusive_group(required=True)
    word.add_argument("--reference", metavar="TEXT", help="entries with this reference, exactly")
    word.add_argument("--tag", metavar="TAG", help="accounts that were opened with this tag")
    find.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    find.set_defaults(run=run_find)


def run_find(options: argparse.Namespace) -> int:
    """Print entries."""
    directory, text = ("references", options.reference) if options.tag is None else ("tags", options.tag)
    path = places.mounted(options.mount) / directory / file_name(text).decode()
    try:
        found = path.open("rb") if text else None
    except FileNotFoundError:
        found = None
    if found is None:
        raise LedgerError(f"no entry has the {directory[:-1]} {text!r}", hint="it must be the whole of it, exactly")
    with found:
        if not options.json:
            print(events.HEADER)
        for line in found:
            entry = json.loads(line)
            print(line.decode().rstrip("\n") if options.json else events.row(entry))
    return 0
