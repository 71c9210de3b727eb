"""``balance`` and ``history``: the files of accounts, made readable."""

from __future__ import annotations

import argparse
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerfsd import money
from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json, table
from ledgerfsd.errors import LedgerError

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?Z?")

BALANCE_TEXT: Final = """\
Print balances: posted, available (posted less what is held) and held, as of the newest durable entry.

example:
  ledgerfs balance acc_001 acc_002
"""
HISTORY_TEXT: Final = """\
Print what happened to an account, oldest first: transactions, holds and changes of status, with the balance after each.
--from and --to take a date or a time (UTC) and include it: --to 2026-11-30 means to the end of that day.

examples:
  ledgerfs history acc_001 --limit 20
  ledgerfs history acc_001 --from 2026-11-01 --to 2026-11-30 --json      one JSON object a line
"""


def register(commands: Commands) -> None:
    """Add the commands to the parser."""
    balance = commands.add_parser("balance", help="print balances", description=BALANCE_TEXT)
    balance.add_argument("account", metavar="ACCOUNT", nargs="+", help="names of accounts")
    balance.set_defaults(run=run_balance)
    history = commands.add_parser("history", help="print what happened to an account", description=HISTORY_TEXT)
    history.add_argument("account", metavar="ACCOUNT", help="name of the account")
    history.add_argument("--from", metavar="TIME", dest="since", type=_time, help="first day or time")
    history.add_argument("--to", metavar="TIME", dest="until", type=_time, help="last day or time")
    history.add_argument("--limit", metavar="N", type=_positive, help="only the newest N")
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
    account = json.loads(_file(mount, options.account, "account.json").read_bytes())
    entries = _entries(_file(mount, options.account, "tx.log"), options.since, options.until)
    found = (row for entry in entries for row in _rows(entry, options.account, account["normal"]))
    rows: Iterable[dict[str, Any]] = deque(found, maxlen=options.limit) if options.limit else found
    if options.json:
        for row in rows:
            print_json({name: value for name, value in row.items() if value != ""})
        return 0
    columns = ("time", "entry", "what", "debit", "credit", "held", "balance", "reference")
    cells = [[row[name][:19] if name == "time" else str(row[name]) for name in columns] for row in rows]
    table([name.upper() for name in columns], cells, right=(1, 3, 4, 5, 6))
    return 0


def _file(mount: Path, account: str, name: str) -> Path:
    path = mount / "accounts" / account / name
    if "/" in account or not path.exists():
        raise LedgerError(f"there is no account {account!r}", hint=f"ls {mount}/accounts")
    return path


def _entries(log: Path, since: str | None, until: str | None) -> Iterator[dict[str, Any]]:
    with log.open("rb") as lines:
        for line in lines:
            entry = json.loads(line)
            # Compared to the precision given, so that a day includes all of it. The texts are of fixed width.
            if since and entry["time"][: len(since)] < since:
                continue
            if until and entry["time"][: len(until)] > until:
                return
            yield entry


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
