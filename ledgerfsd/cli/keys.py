"""``key``: the keys that sign checkpoints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json, table
from ledgerfsd.errors import LedgerError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.recorded import recorded
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.keys import Key, usual_directory
from ledgerfsd.service.system import key_of, newest

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

KEY_TEXT: Final = """\
Checkpoints of the log are signed with Ed25519. The keys are in keys/ of the store, unless --keys says otherwise: on
another disk they survive it, and a store that was rolled back is noticed. The daemon may be running; readers see the
public keys in .ledgerfs/trusted_root.json of the mount, each with the sizes of the log for which it may speak.

  create   the first key (`ledgerfs init` and the daemon make it by themselves)
  rotate   a new active key; the old one is retiring: both sign, until readers know the new one
  revoke   end the retiring key ID: it signs no more, its private half is deleted, and it is believed up to --size
           (else: up to what was signed last)
  list     all keys, and whether the log says the same of them: a ledger that is mounted records every change before the
           next checkpoint. A key that stands only in the log is shown too; it is not believed for that

To move from one key to the next: rotate, tell your readers (who verify with either), revoke the old one.

examples:
  ledgerfs key list --store /var/lib/ledgerfs/main
  ledgerfs key rotate --store /var/lib/ledgerfs/main
  ledgerfs key revoke 3f2a90c1 --store /var/lib/ledgerfs/main --size 4096
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    key = commands.add_parser("key", help="the keys that sign checkpoints", description=KEY_TEXT)
    key.add_argument("action", choices=["create", "rotate", "revoke", "list"], help="what to do")
    key.add_argument("key", metavar="ID", nargs="?", help="the key to revoke: its id, as `ledgerfs key list` shows it")
    key.add_argument("--size", metavar="N", type=_size, help="revoke: the last size of the log it is believed for")
    key.add_argument("--store", metavar="DIR", help="the store (else $LEDGERFS_STORE)")
    key.add_argument("--keys", metavar="DIR", help="directory of the keys (default: keys in the store)")
    key.set_defaults(run=run_key)


def _size(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a log")
    return int(text)


def of_store(layout: layouts.Layout, option: str | None) -> Keyring:
    """The keys of a store. Raises StoreError when it is none."""
    layouts.check(layout)
    origin = str(json.loads(layouts.first_entry(layout))["ledger"])
    return Keyring(Path(option).resolve() if option else usual_directory(layout.root), origin)


def run_key(options: argparse.Namespace) -> int:
    """Make, change or list keys."""
    layout = places.store(options.store)
    keys = of_store(layout, options.keys)
    if (options.action == "revoke") != (options.key is not None):
        raise LedgerError("revoke takes the id of a key, and only revoke does", hint="see `ledgerfs key list`")
    if options.size is not None and options.action != "revoke":
        raise LedgerError("--size goes with revoke only")
    if options.action == "list":
        return _list(keys, layout, as_json=options.json)
    if options.action == "create":
        key, said = keys.create(), "made the key"
    elif options.action == "rotate":
        key, said = keys.rotate(), "made the new active key"
    else:
        key, said = keys.revoke(options.key, options.size), "revoked"
    if options.json:
        print_json(_plain(key))
    elif options.action == "revoke":
        print(f"revoked {key.key_id}: believed up to size {key.valid_to_size}")
    else:
        print(f"{said} {key.key_id}\n{key.vkey}")
    return 0


def _plain(key: Key) -> dict[str, object]:
    return {"id": key.key_id, **msgspec.to_builtins(key)}


def _list(keys: Keyring, layout: layouts.Layout, *, as_json: bool) -> int:
    root, last = keys.trusted_root(), keys.last_signed()
    statements = [key_of(entry, root.ledger) for entry in recorded(layout, "key/1")]
    said = newest(statements)
    if as_json:
        logged = [_plain(key) for key in said.values()]
        print_json(
            {"last_signed_size": last.size if last else 0, "keys": [_plain(key) for key in root.keys], "log": logged}
        )
        return 0
    rows = [
        [
            key.key_id,
            key.status,
            str(key.valid_from_size),
            "" if key.valid_to_size is None else str(key.valid_to_size),
            "yes" if said.get(key.vkey) == key else "not yet",
            key.vkey,
        ]
        for key in root.keys
    ]
    rows += [
        [key.key_id, f"({key.status})", str(key.valid_from_size), str(key.valid_to_size or ""), "only", key.vkey]
        for key in said.values()
        if key.vkey not in {each.vkey for each in root.keys}
    ]
    table(["ID", "STATUS", "FROM", "TO", "IN THE LOG", "PUBLIC KEY"], rows, right=(2, 3))
    return 0
