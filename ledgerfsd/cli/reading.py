"""``balance`` and ``history``: the files of accounts, made readable."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerfsd import money
from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json, table
from ledgerfsd.errors import LedgerError

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?Z?")

AMOUNT: Final = re.compile(r"[0-9]{1,39}(\.[0-9]{1,18})?")
COLUMNS: Final = ("time", "entry", "what", "debit", "credit", "held", "balance", "reference")

BALANCE_TEXT: Final = """\
Print balances: posted, available (posted less what is held) and held, as of the newest durable entry.

example:
  ledgerfs balance acc_001 acc_002
"""
HISTORY_TEXT: Final = """\
Print what happened to an account, oldest first: transactions, holds and changes of status, with the balance after each.
--from and --to take a date or a time (UTC) and include it: --to 2026-11-30 means to the end of that day. Only the months
between them are read, so a week of a long history is quick. What several options ask for must hold at once.

examples:
  ledgerfs history acc_001 --limit 20
  ledgerfs history acc_001 --from 2026-11-01 --to 2026-11-30 --json      one JSON object a line
  ledgerfs history acc_001 --type transfer --min 1000 --reference "invoice 42"
  ledgerfs history acc_001 --follow --limit 5                            the newest five, then what comes, until Ctrl-C
"""
TYPES: Final = (
    *("transfer", "transaction", "reversal", "opening", "post", "hold", "void"),
    *("account", "freeze", "unfreeze", "close"),
)
PIECE_BYTES: Final = 1 << 18
FOLLOW_SECONDS: Final = 0.2  # between two looks at the end of tx.log


def register(commands: Commands) -> None:
    """Add the commands to the parser."""
    balance = commands.add_parser("balance", help="print balances", description=BALANCE_TEXT)
    balance.add_argument("account", metavar="ACCOUNT", nargs="+", help="names of accounts")
    balance.set_defaults(run=run_balance)
    history = commands.add_parser("history", help="print what happened to an account", description=HISTORY_TEXT)
    history.add_argument("account", metavar="ACCOUNT", help="name of the account")
    history.add_argument("--from", metavar="TIME", dest="since", type=_time, help="first day or time")
    history.add_argument("--to", metavar="TIME", dest="until", type=_time, help="last day or time")
    history.add_argument(
        "--type",
        metavar="TYPE",
        action="append",
        choices=TYPES,
        help=f"only these (may be repeated): {', '.join(TYPES)}",
    )
    history.add_argument(
        "--min",
        metavar="AMOUNT",
        dest="least",
        type=_amount,
        help="only amounts of at least this, such as 1000 or 12.50",
    )
    history.add_argument("--reference", metavar="TEXT", help="only this reference, exactly")
    history.add_argument("--limit", metavar="N", type=_positive, help="only the newest N of them")
    history.add_argument("--follow", action="store_true", help="go on with what is committed from now on, until Ctrl-C")
    history.set_defaults(run=run_history)
    for command in (balance, history):
        command.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")


def _time(text: str) -> str:
    if not TIME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no date or time such as 2026-11-30 or 2026-11-30T08:00:00")
    return text.removesuffix("Z")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _amount(text: str) -> Decimal:
    if not AMOUNT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount such as 1000 or 12.50")
    return Decimal(text)


def run_balance(options: argparse.Namespace) -> int:
    """Print balances."""
    mount = places.mounted(options.mount)
    found = [json.loads(_file(mount, account, "balance.json").read_bytes()) for account in options.account]
    if options.json:
        print_json(found)
        return 0
    columns = ("account", "currency", "balance", "available", "held")
    table([name.upper() for name in columns], [[str(row[name]) for name in columns] for row in found], right=(2, 3, 4))
    return 0


def run_history(options: argparse.Namespace) -> int:
    """Print an account's entries."""
    mount = places.mounted(options.mount)
    if options.follow and options.until:
        raise LedgerError("--follow and --to contradict each other", hint="leave one of them out")
    normal = json.loads(_file(mount, options.account, "account.json").read_bytes())["normal"]
    log = _file(mount, options.account, "tx.log")
    size = log.stat().st_size
    narrowed = (
        options.since or options.until or options.type or options.least is not None or options.reference is not None
    )
    # Each line gives a row at least, so with nothing left out the newest rows are in as many of the last lines.
    start = _start_of_last(log, size, options.limit) if options.limit and not narrowed else 0
    found = _rows_of(_lines(log, start, size, options.since, options.until), options, normal)
    rows: Iterable[dict[str, Any]] = deque(found, maxlen=options.limit) if options.limit else found
    if not options.follow:
        _print(rows, as_json=options.json)
        return 0
    # A table needs to know all its rows for the width of its columns; a stream goes line by line.
    for row in itertools.chain(rows, _rows_of(_follow(log, size), options, normal)):
        _print_line(row, as_json=options.json)
    return 0


def _print(rows: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            _print_line(row, as_json=True)
        return
    cells = [[row[name][:19] if name == "time" else str(row[name]) for name in COLUMNS] for row in rows]
    table([name.upper() for name in COLUMNS], cells, right=(1, 3, 4, 5, 6))


def _print_line(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({name: value for name, value in row.items() if value != ""})
    else:
        shown = {"time": f"{row['time'][:19]}", "entry": f"{row['entry']:>8}", "what": f"{row['what']:<22}"}
        shown |= {name: f"{row[name]:>14}" for name in ("debit", "credit", "held", "balance")}
        print("  ".join([*shown.values(), row["reference"]]).rstrip())
    sys.stdout.flush()


def _file(mount: Path, account: str, name: str) -> Path:
    path = mount / "accounts" / account / name
    if "/" in account or not path.exists():
        raise LedgerError(f"there is no account {account!r}", hint=f"ls {mount}/accounts")
    return path


def _start_of_last(log: Path, size: int, lines: int) -> int:
    """Where the last ``lines`` lines of the first ``size`` bytes begin."""
    with log.open("rb") as file:
        start, wanted = size, lines + 1  # the last byte is a newline
        while start:
            step = min(PIECE_BYTES, start)
            file.seek(start - step)
            piece = file.read(step)
            newlines = piece.count(b"\n")
            if newlines >= wanted:
                for _ in range(wanted):
                    step = piece.rfind(b"\n", 0, step)
                return start - len(piece) + step + 1
            wanted -= newlines
            start -= len(piece)
    return 0


def _lines(log: Path, start: int, size: int, since: str | None, until: str | None) -> Iterator[bytes]:
    """The lines of ``tx.log`` from ``start`` to ``size``, or those of the months that are asked for."""
    if not since and not until:
        with log.open("rb") as file:
            file.seek(start)
            while file.tell() < size:
                yield file.readline()
        return
    for path in sorted((log.parent / "history").iterdir()):
        month = path.name[:7]
        if (since and month < since[:7]) or (until and month > until[:7]):
            continue
        with path.open("rb") as file:
            for line in file:
                # Compared to the precision given, so that a day includes all of it. The texts are of fixed width.
                time_text = json.loads(line)["time"]
                if since and time_text[: len(since)] < since:
                    continue
                if until and time_text[: len(until)] > until:
                    return
                yield line


def _follow(log: Path, size: int) -> Iterator[bytes]:
    """The lines that come after ``size``, as they come."""
    with log.open("rb") as file:
        file.seek(size)
        while True:
            if line := file.readline():
                yield line
            else:
                time.sleep(FOLLOW_SECONDS)


def _rows_of(lines: Iterable[bytes], options: argparse.Namespace, normal: str) -> Iterator[dict[str, Any]]:
    """The rows that are asked for."""
    for line in lines:
        if options.reference is not None and b'"reference":' not in line:
            continue
        entry = json.loads(line)
        if options.since and entry["time"][: len(options.since)] < options.since:
            continue
        if options.reference is not None and entry.get("reference") != options.reference:
            continue
        if options.type and _type_of(entry) not in options.type:
            continue
        for row in _rows(entry, options.account, normal):
            amount = row["debit"] or row["credit"] or row["held"].removeprefix("-")
            if options.least is None or (amount and Decimal(amount) >= options.least):
                yield row


def _type_of(entry: dict[str, Any]) -> str:
    return str(entry.get("type") or entry.get("action") or entry["t"].partition("/")[0])


def _rows(entry: dict[str, Any], account: str, normal: str) -> Iterator[dict[str, Any]]:
    """One row a posting of this account; one for an entry without postings."""
    kind = entry["t"].partition("/")[0]
    what = f"tx_{entry['tx']:04}" if "tx" in entry else kind
    if kind == "txn" and entry["type"] != "transfer":
        what += f" {entry['type']}"
    if kind == "account.update":
        what = entry["action"]
    row = {"time": entry["time"], "entry": entry["index"], "what": what, "debit": "", "credit": "", "held": ""}
    row |= {"balance": "", "reference": entry.get("reference", ""), "id": entry.get("id", "")}
    postings = [posting for posting in entry.get("postings", []) if posting["account"] == account]
    if not postings:
        yield row
    for posting in postings:
        yield row | _amounts(posting, kind, normal)


def _amounts(posting: dict[str, Any], kind: str, normal: str) -> dict[str, str]:
    amounts = {}
    if kind in ("hold", "void"):
        amounts["held"] = posting["amount"] if kind == "hold" else f"-{posting['amount']}"
    else:
        amounts[posting["side"]] = posting["amount"]
    if "debits" in posting:
        decimals = len(posting["amount"].partition(".")[2])
        debits, credits = money.parse(posting["debits"], decimals), money.parse(posting["credits"], decimals)
        balance = debits - credits if normal == "debit" else credits - debits
        amounts["balance"] = money.format_signed(balance, decimals)
    return amounts
