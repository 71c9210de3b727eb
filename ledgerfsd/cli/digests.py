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
    from ledgerfsd.service.anchors.digests import Digests

DIGEST_TEXT: Final = """\
A digest is a checkpoint that the ledger issued by itself, with the evidence that its anchors gave for it: copies kept
elsewhere, time stamps, cosignatures of witnesses. They are directories of digests/ in the mount; with --store they are read
from a store, mounted or not.

examples:
  ledgerfs digest list --mount /srv/ledger
  ledgerfs digest show                         the newest: what came of each anchor
  ledgerfs digest show 4711 --store /var/lib/ledgerfs/main --json

After `ledgerfs restore` digests are named SIZE-INCARNATION; those of an earlier life keep their names, and speak of what was lost.
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    digest = commands.add_parser("digest", help="list and show digests and their anchors", description=DIGEST_TEXT)
    digest.add_argument("action", choices=["list", "show"], help="list all, or show one")
    digest.add_argument("name", metavar="SIZE", nargs="?", help="which to show (default: the newest)")
    digest.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    digest.add_argument("--store", metavar="DIR", help="read them from this store instead")
    digest.set_defaults(run=run_digest)


def run_digest(options: argparse.Namespace) -> int:
    """List or show."""
    if options.action == "list":
        if options.name:
            raise LedgerError("list takes no size", hint="ledgerfs digest show SIZE")
        return _list(_all(options), as_json=options.json)
    return _show(_one(options, options.name), as_json=options.json)


def _list(found: Iterator[dict[str, Any]], *, as_json: bool) -> int:
    digests = list(found)
    if as_json:
        print_json(digests)
        return 0
    rows = [[_name(digest), digest["time"], digest["root"][:16], _summary(digest)] for digest in digests]
    table(["digest", "issued", "root", "anchors"], rows, right=[0])
    return 0


def _name(digest: dict[str, Any]) -> str:
    life = digest["incarnation"]
    return f"{digest['size']}-{life}" if life > 1 else str(digest["size"])


def _summary(digest: dict[str, Any]) -> str:
    return ", ".join(f"{anchor['name']}: {anchor['outcome']}" for anchor in digest["anchors"]) or "none configured"


def _show(digest: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(digest)
        return 0
    life = f", incarnation {digest['incarnation']}" if digest["incarnation"] > 1 else ""
    print(f"{digest['ledger']}, {digest['size']} entries{life}, issued {digest['time']}")
    print(f"root {digest['root']}")
    for anchor in digest["anchors"]:
        print(f"\n{anchor['name']} ({anchor['kind']}): {anchor['outcome']}")
        shown = {name: anchor[name] for name in ("where", "when", "retries", "hash", "file", "why") if anchor.get(name)}
        for name, value in (shown | anchor.get("detail", {})).items():
            print(f"  {name.replace('_', ' '):<12} {value}")
    return 0


def _all(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from ledgerfsd.service.anchors.digests import name_of

    if options.store:
        origin, digests = _stored(options.store)
        yield from (json.loads(digest.text(origin)) for digest in digests.all())
        return
    top = places.mounted(options.mount) / "digests"
    for path in sorted(
        (path for path in top.iterdir() if name_of(path.name)), key=lambda path: name_of(path.name) or ()
    ):
        yield json.loads((path / "digest.json").read_bytes())


def _one(options: argparse.Namespace, name: str | None) -> dict[str, Any]:
    from ledgerfsd.service.anchors.digests import name_of

    found: dict[str, Any]
    place = name_of(name) if name else None
    if name is not None and place is None:
        raise LedgerError(f"{name!r} is no digest", hint="`ledgerfs digest list` names them")
    if options.store:
        origin, digests = _stored(options.store)
        digest = digests.of(*place) if place else digests.newest
        if digest is not None:
            found = json.loads(digest.text(origin))
            return found
    else:
        path = places.mounted(options.mount) / "digests" / (name or "latest")
        if path.exists():
            found = json.loads((path / "digest.json").read_bytes())
            return found
    what = f"there is no digest {name}" if name else "no digest was issued yet"
    raise LedgerError(what, hint="`ledgerfs digest list` names them" if name else "")


def _stored(store: str) -> tuple[str, Digests]:
    """The name of the ledger, and its digests. Which of them were lost in a restore the journal says."""
    from ledgerfsd.journal.recorded import recorded
    from ledgerfsd.service.anchors.digests import Digests, Restore

    layout = places.store(store)
    layouts.check(layout)
    restores = [Restore(entry["incarnation"], entry["size"]) for entry in recorded(layout, "restore/1")]
    return str(msgspec.json.decode(layouts.first_entry(layout))["ledger"]), Digests(layout.digests, restores)
