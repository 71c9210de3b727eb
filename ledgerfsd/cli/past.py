"""``snapshot``, ``diff`` and ``replay``: the ledger as it was."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerfsd.cli import places
from ledgerfsd.cli.output import Progress, print_json, table
from ledgerfsd.errors import DamageError, LedgerError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal import replay
from ledgerfsd.journal.replay import minor
from ledgerfsd.journal.stream import BrokenError, Stream
from ledgerfsd.limits import BUNDLE_ENTRIES
from ledgerfsd.merkle import tile
from ledgerfsd.money import format_signed

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

State = dict[str, Any]  # members of balance.json, and the status

FILES_BYTES: Final = 1000  # of the two files that tell an account's state, about
TABLE_SHARE: Final = 300  # reading the files of an account takes as long as so many rows of a trial balance

POINTS: Final = """\
A point is an RFC 3339 time (2026-11-22T10:00:00Z: everything booked at or before it), a day or a month (2026-11-22,
2026-11: to its end, UTC), block-N, size-N (the first N entries), tx-N (up to that transaction), or a name given with
`ledgerfs snapshot create`.
"""
SNAPSHOT_TEXT: Final = f"""\
Give a name to the state of the ledger as it is now, or list the states that are listed in snapshots/. A name is given for
ever; it is a directory of the mount, so `mkdir snapshots/NAME` is the same. Names: letters, digits, dot, dash and
underscore, at most 64, and not one that is a point by itself.

{POINTS}
examples:
  ledgerfs snapshot create audit-2026
  ledgerfs snapshot list
"""
DIFF_TEXT: Final = f"""\
Print which accounts changed between two points, and by what. Only what was booked between them is read.

{POINTS}
examples:
  ledgerfs diff 2026-10 2026-11
  ledgerfs diff audit-2026 block-120 --json      one JSON object an account
"""
REPLAY_TEXT: Final = f"""\
Work out balances from the raw log alone, by adding up the amounts of all entries up to a point; nothing else of the store
or mount is believed. The log is read from a mount (log/tile/entries), or with --store from the segments of a store that
is not mounted. What comes out must be what snapshots/POINT/accounts/ shows. Ends with 4 when an entry does not follow
from those before it. Hashes are not looked at: `ledgerfs fsck` and `ledgerfs verify` do that.

{POINTS}
examples:
  ledgerfs replay --until 2026-11-22T10:00:00Z acc_001 acc_002
  ledgerfs replay --until tx-1000 --store /var/lib/ledgerfs/main --json      one JSON object an account
"""


def register(commands: Commands) -> None:
    """Add the commands to the parser."""
    snapshot = commands.add_parser(
        "snapshot", help="name a state of the ledger, or list them", description=SNAPSHOT_TEXT
    )
    snapshot.add_argument("action", choices=["create", "list"], help="what to do")
    snapshot.add_argument("name", metavar="NAME", nargs="?", help="the name (create)")
    snapshot.set_defaults(run=run_snapshot)
    diff = commands.add_parser("diff", help="print what changed between two points", description=DIFF_TEXT)
    diff.add_argument("old", metavar="A", help="a point")
    diff.add_argument("new", metavar="B", help="another one")
    diff.set_defaults(run=run_diff)
    replayed = commands.add_parser("replay", help="balances from the raw log alone", description=REPLAY_TEXT)
    replayed.add_argument("account", metavar="ACCOUNT", nargs="*", help="names of accounts (default: all)")
    replayed.add_argument("--until", metavar="POINT", help="where to end (default: the newest block)")
    replayed.add_argument("--store", metavar="DIR", help="read the segments of this store instead of a mount")
    replayed.set_defaults(run=run_replay)
    for command in (snapshot, diff, replayed):
        command.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    for command in (diff, replayed):
        command.add_argument(
            "--progress", action="store_true", help="progress as plain lines when stderr is no terminal"
        )


# -- snapshot


def run_snapshot(options: argparse.Namespace) -> int:
    """Name a state, or list the states."""
    if (options.name is None) != (options.action == "list"):
        hint = "ledgerfs snapshot create NAME, or ledgerfs snapshot list"
        raise LedgerError(
            f"snapshot {options.action}: {'no name' if options.name is None else 'a name'} is given", hint=hint
        )
    directory = places.mounted(options.mount) / "snapshots"
    if options.action == "create":
        found = [_create(directory, options.name)]
    else:
        names = [name for name in os.listdir(directory) if name != "effective"]
        found = [{"name": name, **_point(directory, name)} for name in names]
    if options.json:
        print_json(found[0] if options.action == "create" else found)
        return 0
    columns = ("name", "time", "seal", "size", "tx", "accounts")
    table(
        [column.upper() for column in columns],
        [[str(row[column]) for column in columns] for row in found],
        right=(2, 3, 4, 5),
    )
    return 0


def _create(directory: Path, name: str) -> dict[str, Any]:
    try:
        if "/" in name:
            raise PermissionError
        (directory / name).mkdir()
    except FileExistsError:
        raise LedgerError(f"there is a snapshot {name!r} already", hint="a name is given once and for ever") from None
    except PermissionError:
        hint = "letters, digits, dot, dash and underscore, and not the form of a time, block-N, size-N or tx-N"
        raise LedgerError(f"{name!r} cannot be the name of a snapshot", hint=hint) from None
    return {"name": name, **_point(directory, name)}


def _point(directory: Path, name: str) -> dict[str, Any]:
    """What a point's ``point.json`` says."""
    try:
        if "/" in name:
            raise FileNotFoundError
        found: dict[str, Any] = json.loads((directory / name / "point.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        hint = "a time, 2026-11-22, 2026-11, block-N, size-N, tx-N or a name; `ledgerfs snapshot list` lists names"
        raise LedgerError(f"there is no point {name!r}, or it is still to come", hint=hint) from None
    return found


# -- diff


def run_diff(options: argparse.Namespace) -> int:
    """Compare two states."""
    mount = places.mounted(options.mount)
    sizes = [int(_point(mount / "snapshots", name)["size"]) for name in (options.old, options.new)]
    with Progress("diff", plain=options.progress) as progress:
        touched = _touched(mount, min(sizes), max(sizes), progress)
        states = [_states(mount, size, touched, progress) for size in sizes]
    rows = [row for name in touched if (row := _changed(name, states[0].get(name, {}), states[1].get(name, {})))]
    if options.json:
        for row in rows:
            print_json(row)
        return 0
    columns = ("account", "currency", "before", "after", "change", "debits", "credits", "held", "status")
    cells = [[str(row[column] or "") for column in columns] for row in rows]
    table([column.upper() for column in columns], cells, right=(2, 3, 4, 5, 6, 7))
    return 0


def _touched(mount: Path, first: int, end: int, progress: Progress) -> list[str]:
    """Names of the accounts that entries ``first`` to ``end`` - 1 name, in the order of appearance."""
    found: dict[str, None] = {}
    for done, data in enumerate(_mounted_entries(mount, first, end), 1):
        entry = replay.decode(data)
        if entry.t in ("account/1", "account.update/1"):
            found[entry.account] = None
        for posting in entry.postings:
            found[posting.account] = None
        # In bytes, as far as is known: the entries to come are taken to be as long as this one.
        progress(done * len(data), (end - first) * len(data))
    return list(found)


def _changed(name: str, old: State, new: State) -> dict[str, Any] | None:
    """How an account changed from one state to the other, None when it is the same in both."""
    both = {**old, **new}
    decimals = len(both["balance"].partition(".")[2])

    def change(member: str) -> str:
        before, after = (minor(state.get(member, "0")) for state in (old, new))
        return format_signed(after - before, decimals)

    row = {
        "account": name,
        "currency": both["currency"],
        "before": old.get("balance"),
        "after": new.get("balance"),
        "change": change("balance"),
        "debits": change("debits"),
        "credits": change("credits"),
        "held": change("held"),
        "status": _status(old.get("status"), new.get("status")),
    }
    same = old.keys() == new.keys() and row["status"] is None
    zero = format_signed(0, decimals)
    return None if same and all(row[each] == zero for each in ("change", "debits", "credits", "held")) else row


def _status(old: str | None, new: str | None) -> str | None:
    if old == new:
        return None
    return f"{old} to {new}" if old and new else "opened" if new else "not open yet"


def _states(mount: Path, size: int, names: list[str], progress: Progress) -> dict[str, State]:
    """What these accounts had at a size; those that were not open yet are missing."""
    directory = mount / "snapshots" / f"size-{size}"
    accounts = int(json.loads((directory / "point.json").read_bytes())["accounts"])
    if len(names) * TABLE_SHARE > accounts:
        return _states_of_table(directory, frozenset(names), progress)
    found = {}
    for done, name in enumerate(names):
        progress(done * FILES_BYTES, len(names) * FILES_BYTES)
        place = directory / "accounts" / name
        try:
            found[name] = {
                **json.loads((place / "balance.json").read_bytes()),
                "status": json.loads((place / "account.json").read_bytes())["status"],
            }
        except FileNotFoundError:
            continue
    return found


def _states_of_table(directory: Path, names: frozenset[str], progress: Progress) -> dict[str, State]:
    """The same from the trial balance, which is quicker for many."""
    found = {}
    path = directory / "trial-balance.csv"
    total, done = path.stat().st_size, 0
    with path.open(newline="", encoding="utf-8") as lines:
        for line in lines:
            done += len(line)
            progress(done, total)
            # No field can hold a comma: names, classes, currencies and amounts have none.
            kind, name, _, currency, debits, credits, over, under, held, normal, status = line.rstrip().split(",")
            if kind == "account" and name in names:
                amounts = (minor(over) - minor(under)) * (1 if normal == "debit" else -1)
                balance = format_signed(amounts, len(over.partition(".")[2]))
                found[name] = {"currency": currency, "balance": balance, "held": held, "status": status}
                found[name] |= {"debits": debits, "credits": credits}
    return found


# -- replay


def run_replay(options: argparse.Namespace) -> int:
    """Add up the log."""
    if options.store and options.mount:
        raise LedgerError("--store and --mount: give one of them")
    layout = places.store(options.store) if options.store else None
    mount = None if layout else places.mounted(options.mount)
    until = _until(options.until, layout, mount)
    found = replay.Replay()
    with _entries(layout, mount, found) as (entries, total), Progress("replay", plain=options.progress) as progress:
        found.run(entries, until, lambda done: progress(done, total))
    missing = [name for name in options.account if name not in found.accounts]
    if missing:
        raise LedgerError(f"there was no account {missing[0]!r} by then", hint="--until takes a later point")
    rows = (found.text(name) for name in options.account or found.accounts)
    if options.json:
        for row in rows:
            print_json(row)
        return 0
    columns = ("account", "currency", "balance", "available", "held")
    table([name.upper() for name in columns], [[str(row[name]) for name in columns] for row in rows], right=(2, 3, 4))
    return 0


def _until(text: str | None, layout: layouts.Layout | None, mount: Path | None) -> replay.Until:
    if text is None:
        return replay.END
    until = replay.Until.parse(text)
    if until is not None:
        return until
    if mount is not None:
        return replay.Until("size", int(_point(mount / "snapshots", text)["size"]))
    assert layout is not None
    lines = layout.named_snapshots.read_bytes().splitlines() if layout.named_snapshots.exists() else []
    sizes = {named["name"]: named["size"] for named in map(json.loads, lines)}
    if text not in sizes:
        raise LedgerError(
            f"there is no point {text!r}", hint="a time, 2026-11-22, 2026-11, block-N, size-N, tx-N or a name"
        )
    return replay.Until("size", sizes[text])


@contextmanager
def _entries(
    layout: layouts.Layout | None, mount: Path | None, found: replay.Replay
) -> Iterator[tuple[Iterator[bytes], int]]:
    """All entries of a store or mount, and the bytes of the whole stream. ``found`` is where they go."""
    if layout is None:
        assert mount is not None
        status = json.loads((mount / ".ledgerfs" / "status.json").read_bytes())
        yield _mounted_entries(mount, 0, status["entries"]), status["stream_bytes"]
        return
    layouts.check(layout)
    with layouts.lock(layout), Stream(layout) as stream:
        yield _stored_entries(stream, found), stream.total_bytes


def _stored_entries(stream: Stream, found: replay.Replay) -> Iterator[bytes]:
    offset = 0
    try:
        for entry in stream.entries():
            yield entry.data
            offset = entry.offset + 2 + len(entry.data)
    except BrokenError as error:
        # The unfinished batch of a crash is not part of the ledger; what stands before other blocks is.
        if stream.written_after(offset, first=found.sealed, height=found.blocks + 1):
            raise DamageError(
                f"{error.path.name}, entry {error.index}: {error.what}", hint="`ledgerfs fsck` says more"
            ) from None


def _mounted_entries(mount: Path, first: int, end: int) -> Iterator[bytes]:
    """Entries ``first`` to ``end`` - 1 of a mount, from its bundles."""
    for number in range(first // BUNDLE_ENTRIES, -(-end // BUNDLE_ENTRIES)):
        width = tile.width(tile.ENTRIES, number, end)
        path = mount / "log" / tile.encode(tile.Tile(tile.ENTRIES, number, width))
        yield from tile.decode_bundle(path.read_bytes())[max(0, first - number * BUNDLE_ENTRIES) :]
