"""``digest``: the digests of a ledger, from its mount or its store."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json, table
from ledgerfsd.errors import LedgerError
from ledgerfsd.journal import layout as layouts

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

DIGEST_TEXT: Final = """\
A digest is a checkpoint that the ledger issued by itself, with the evidence that its anchors gave for it: copies kept
elsewhere, time stamps, cosignatures of witnesses. They are directories of digests/ in the mount; with --store they are read
from a store, mounted or not.

examples:
  ledgerfs digest list --mount /srv/ledger
  ledgerfs digest show                         the newest: what came of each anchor
  ledgerfs digest show 4711 --store /var/lib/ledgerfs/main --json
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    digest = commands.add_parser("digest", help="list and show digests and their anchors", description=DIGEST_TEXT)
    digest.add_argument("action", choices=["list", "show"], help="list all, or show one")
    digest.add_argument("size", metavar="SIZE", nargs="?", help="which to show (default: the newest)")
    digest.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    digest.add_argument("--store", metavar="DIR", help="read them from this store instead")
    digest.set_defaults(run=run_digest)


def run_digest(options: argparse.Namespace) -> int:
    """List or show."""
    if options.action == "list":
        if options.size:
            raise LedgerError("list takes no size", hint="ledgerfs digest show SIZE")
        return _list(_all(options), as_json=options.json)
    return _show(_one(options, options.size), as_json=options.json)


def _list(found: Iterator[dict[str, Any]], *, as_json: bool) -> int:
    digests = list(found)
    if as_json:
        print_json(digests)
        return 0
    rows = [[str(digest["size"]), digest["time"], digest["root"][:16], _summary(digest)] for digest in digests]
    table(["size", "issued", "root", "anchors"], rows, right=[0])
    return 0


def _summary(digest: dict[str, Any]) -> str:
    return ", ".join(f"{anchor['name']}: {anchor['outcome']}" for anchor in digest["anchors"]) or "none configured"


def _show(digest: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(digest)
        return 0
    print(f"{digest['ledger']}, {digest['size']} entries, issued {digest['time']}")
    print(f"root {digest['root']}")
    for anchor in digest["anchors"]:
        print(f"\n{anchor['name']} ({anchor['kind']}): {anchor['outcome']}")
        shown = {name: anchor[name] for name in ("where", "when", "retries", "hash", "file", "why") if anchor.get(name)}
        for name, value in (shown | anchor.get("detail", {})).items():
            print(f"  {name.replace('_', ' '):<12} {value}")
    return 0


def _all(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.store:
        origin, digests = _stored(options.store)
        for size in digests.sizes():
            yield json.loads(digests.get(size).text(origin))
        return
    top = places.mounted(options.mount) / "digests"
    for size in sorted(int(path.name) for path in top.iterdir() if path.name.isdecimal()):
        yield json.loads((top / str(size) / "digest.json").read_bytes())


def _one(options: argparse.Namespace, size: str | None) -> dict[str, Any]:
    if size is not None and not (size.isdecimal() and size.isascii()):
        raise LedgerError(f"{size!r} is no size", hint="`ledgerfs digest list` names them")
    found: dict[str, Any]
    if options.store:
        origin, digests = _stored(options.store)
        digest = digests.get(int(size)) if size else digests.newest
        if digest is not None:
            found = json.loads(digest.text(origin))
            return found
    else:
        path = places.mounted(options.mount) / "digests" / (str(int(size)) if size else "latest")
        if path.exists():
            found = json.loads((path / "digest.json").read_bytes())
            return found
    what = f"there is no digest of {size} entries" if size else "no digest was issued yet"
    raise LedgerError(what, hint="`ledgerfs digest list` names them" if size else "")


def _stored(store: str) -> tuple[str, Any]:
    from ledgerfsd.service.anchors.digests import Digests

    layout = places.store(store)
    layouts.check(layout)
    return str(msgspec.json.decode(layouts.first_entry(layout))["ledger"]), Digests(layout.digests)
