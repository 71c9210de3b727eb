"""``events`` and ``consumer``: the files of events/, made readable."""

from __future__ import annotations

import argparse
import datetime
import errno
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json, table
from ledgerfsd.core.pure.events import subject
from ledgerfsd.errors import LedgerError

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

HEADER: Final = f"{'INDEX':>10}  {'TIME':19}  {'TYPE':14}  {'SUBJECT':16}  WHAT"
READ_BYTES: Final = 1 << 20
TIME_MEMBER: Final = b'"time":"'
INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}")
TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?Z?")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")

EVENTS_TEXT: Final = """\
Print events: every entry of the log, over all accounts, oldest first. --from and --to take a date or a time (UTC) or the
index of an event, and include it: --to 2026-11-30 means to the end of that day. With --json each event is a line of
CloudEvents JSON, byte for byte as in the mount.

examples:
  ledgerfs events --from 2026-11-26T08:00 --type txn --type rejected
  ledgerfs events --account acc_001 --from 4096 --json      for jq and other programs
  ledgerfs events --follow                       what is committed from now on, until Ctrl-C
  ledgerfs events --follow --from 0              everything, and then what is committed
"""
CONSUMER_TEXT: Final = """\
Consumers are programs that read events and must miss none. The ledger keeps how far each has come: its position is the index of
the first event that it has not acknowledged. In the mount each is a directory, and all of this can be done with cat and echo
as well: events/consumers/NAME/position is read and written, events.ndjson goes on from there and waits at the end.

  create NAME        a new consumer; it begins with --from (an index, a time, or now; default 0: the whole log)
  ack NAME INDEX     it has done event INDEX and all before it. On disk when the command ends. --force goes backwards too
  show NAME          its position, and how many events it is behind
  list               all of them
  remove NAME        forget it

examples:
  ledgerfs consumer create billing --from now
  cat ledgerfs/events/consumers/billing/events.ndjson | while read -r event; do ... ; done
  ledgerfs consumer ack billing 4711
"""


def register(commands: Commands) -> None:
    """Add the commands to the parser."""
    events = commands.add_parser("events", help="print events, of all accounts", description=EVENTS_TEXT)
    events.add_argument("--from", metavar="WHEN", dest="since", type=_when, help="first index, day or time")
    events.add_argument("--to", metavar="WHEN", dest="until", type=_when, help="last index, day or time")
    events.add_argument("--type", metavar="TYPE", action="append", help="only this kind, such as txn (may be repeated)")
    events.add_argument("--account", metavar="ACCOUNT", help="only what this account is named in")
    events.add_argument("--follow", "-f", action="store_true", help="go on with what is committed (default: from now)")
    events.set_defaults(run=run_events)
    consumer = commands.add_parser("consumer", help="how far readers of events have come", description=CONSUMER_TEXT)
    consumer.add_argument("action", choices=["create", "ack", "show", "list", "remove"], help="what to do")
    consumer.add_argument("name", metavar="NAME", nargs="?", help="the consumer")
    consumer.add_argument("index", metavar="INDEX", nargs="?", type=_index, help="ack: the last event it has done")
    consumer.add_argument("--from", metavar="WHEN", dest="since", type=_begin, help="create: an index, a time, or now")
    consumer.add_argument("--force", action="store_true", help="ack: go backwards too")
    consumer.set_defaults(run=run_consumer)
    for command in (events, consumer):
        command.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")


def _when(text: str) -> str:
    if INDEX.fullmatch(text):
        return text
    try:
        datetime.date.fromisoformat(text[:10])
    except ValueError:
        text = ""
    if not TIME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no index, date or time such as 2026-11-30T08:00:00")
    return text.removesuffix("Z")


def _begin(text: str) -> str:
    return text if text == "now" else _when(text)


def _index(text: str) -> int:
    if not INDEX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no index of an event")
    return int(text)


# -- reading


@contextmanager
def opened(path: Path, flags: int = 0) -> Iterator[int]:
    """A descriptor of a file that is read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        yield descriptor
    finally:
        with suppress(OSError):  # of a mount whose daemon has ended; what was read is what counts
            os.close(descriptor)


def lines(path: Path, *, follow: bool) -> Iterator[bytes]:
    """The lines of a stream: those that are there, or, with ``follow``, for ever."""
    with opened(path, 0 if follow else os.O_NONBLOCK) as descriptor:
        rest = b""
        while True:
            try:
                piece = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                return
            if not piece:
                return  # a file of a day ends; a stream never does
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole


def count(mount: Path) -> int:
    """How many events there are."""
    return int(json.loads((mount / ".ledgerfs" / "status.json").read_bytes())["entries"])


def first_at(mount: Path, when: str) -> int:
    """Index of the first event at or after an index, a date or time, or now; the next one's if there is none."""
    if when == "now":
        return count(mount)
    if INDEX.fullmatch(when):
        return int(when)
    for path in sorted((mount / "events").glob("????-??-??.ndjson")):
        if path.stem < when[:10]:
            continue
        for line in lines(path, follow=False):
            # Compared to the precision given: the texts are of fixed width. Nothing before the member has quotes of its own.
            at = line.index(TIME_MEMBER) + len(TIME_MEMBER)
            if line[at : at + len(when)] >= when.encode():
                return int(json.loads(line)["id"])
    return count(mount)


def run_events(options: argparse.Namespace) -> int:
    """Print events."""
    mount = places.mounted(options.mount)
    first = first_at(mount, options.since or ("now" if options.follow else "0"))
    kinds = {kind.removeprefix("ledgerfs.").partition(".v")[0].partition("/")[0] for kind in options.type or []}
    if options.follow and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # it is ignored behind & in a script
        # Ctrl-C ends this program itself. Python's own handler would be run after read() at the soonest, if the signal comes just before
        # it: at the next event, that is, which may be tomorrow's.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not options.json:
        print(HEADER, flush=options.follow)
    for line in lines(mount / "events" / "from" / f"{first}.ndjson", follow=options.follow):
        event = json.loads(line)
        if options.until and _behind(event, options.until):
            break
        if kinds and _kind(event) not in kinds:
            continue
        if options.account and not _names(event["data"], options.account):
            continue
        print(line.decode() if options.json else row(event["data"]), flush=options.follow)
    return 0


def _behind(event: dict[str, Any], until: str) -> bool:
    if INDEX.fullmatch(until):
        return int(event["id"]) > int(until)
    return bool(event["time"][: len(until)] > until)


def _kind(event: dict[str, Any]) -> str:
    return str(event["data"]["t"]).partition("/")[0]


def _names(entry: dict[str, Any], account: str) -> bool:
    return entry.get("account") == account or account in (each["account"] for each in entry.get("postings", []))


def row(entry: dict[str, Any]) -> str:
    """An entry in a line."""
    kind = str(entry["t"]).partition("/")[0]
    if "postings" in entry:
        what = ", ".join(f"{each['account']} {each['side']} {each['amount']}" for each in entry["postings"][:4])
        what += f" and {len(entry['postings']) - 4} more" if len(entry["postings"]) > 4 else ""
        what += f"  {entry['reference']}" if "reference" in entry else ""
    else:
        what = str(entry.get("code") or entry.get("action") or entry.get("policy") or entry.get("currency") or "")
        what = f"block {entry['height']}, {entry['count']} entries" if kind == "seal" else what
    return f"{entry['index']:>10}  {entry['time'][:19]}  {kind:14}  {subject(entry) or '':16}  {what}".rstrip()


# -- consumers


def run_consumer(options: argparse.Namespace) -> int:
    """Make, show, move or forget consumers."""
    mount = places.mounted(options.mount)
    if (options.action == "list") != (options.name is None):
        raise LedgerError(f"{options.action} takes {'no name' if options.name else 'the name of a consumer'}")
    if (options.action == "ack") != (options.index is not None):
        raise LedgerError("ack takes the index of an event, and only ack does")
    if (options.since and options.action != "create") or (options.force and options.action != "ack"):
        raise LedgerError("--from goes with create, --force with ack")
    if options.action == "list":
        names = sorted(os.listdir(mount / "events" / "consumers"))
        return _show(mount, names, as_json=options.json)
    if not NAME.fullmatch(options.name):
        hint = "letters, digits and . _ : - after the first character, at most 64"
        raise LedgerError(f"{options.name!r} is no name of a consumer", hint=hint)
    folder = mount / "events" / "consumers" / options.name
    if options.action == "create":
        _create(mount, folder, options.since)
    elif options.action == "remove":
        _existing(folder)
        folder.rmdir()
    elif options.action == "ack":
        _acknowledge(mount, _existing(folder), options.index + 1, force=options.force)
    if options.action != "remove":
        return _show(mount, [options.name], as_json=options.json)
    if options.json:
        print_json({"removed": options.name})
    return 0


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise LedgerError(f"there is no consumer {folder.name!r}", hint="`ledgerfs consumer list` shows all")
    return folder


def _create(mount: Path, folder: Path, since: str | None) -> None:
    first = first_at(mount, since or "0")
    try:
        folder.mkdir()
    except FileExistsError:
        raise LedgerError(f"there is a consumer {folder.name!r} already") from None
    if first:
        _acknowledge(mount, folder, first, force=True)


def _acknowledge(mount: Path, folder: Path, position: int, *, force: bool) -> None:
    try:
        (folder / ("reset" if force else "position")).write_text(f"{position}\n")
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        there = count(mount)
        if position > there:
            raise LedgerError(f"there is no event {position - 1} yet: the newest is {there - 1}") from None
        done = int((folder / "position").read_text()) - 1
        raise LedgerError(
            f"{folder.name} has acknowledged event {done} already", hint="--force goes backwards"
        ) from None


def _show(mount: Path, names: list[str], *, as_json: bool) -> int:
    there = count(mount)
    found: list[dict[str, Any]] = []
    for name in names:
        path = _existing(mount / "events" / "consumers" / name) / "position"
        moved = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        position = int(path.read_text())
        moved_text = moved.isoformat(timespec="seconds").replace("+00:00", "Z")
        found.append({"consumer": name, "position": position, "behind": max(there - position, 0), "moved": moved_text})
    if as_json:
        for row in found:
            print_json(row)
        return 0
    rows = [[str(value) for value in row.values()] for row in found]
    table(["CONSUMER", "POSITION", "BEHIND", "MOVED"], rows, right=(1, 2))
    return 0
