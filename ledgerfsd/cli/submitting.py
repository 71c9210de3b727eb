"""``submit``: write a file of intents into the inbox and say what became of them.

It does what ``cp FILE mount/inbox/`` does, with progress and with the receipt read back. The name under which a file is
submitted counts: intents without an id get one from the name and their place in the file (docs/FORMAT.md, section 6),
so the same file again is answered with its first results.
"""

from __future__ import annotations

import argparse
import errno
import os
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from ledgerfsd import limits
from ledgerfsd.cli import places, socket_client
from ledgerfsd.cli.output import Progress, print_json
from ledgerfsd.errors import LedgerError

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

CHUNK_BYTES: Final = limits.MIB
REFUSALS_SHOWN: Final = 10
ENDINGS: Final = (".json", ".ndjson")
# After these nothing of the chunk was taken; anything else is the verdict on intents, and a stream of lines goes on.
FATAL: Final = (errno.EBUSY, errno.EROFS, errno.EIO, errno.ESPIPE, errno.ENOTCONN, errno.ENOSPC)

TEXT: Final = """\
Submit intents: a .json document (one intent, or an array that is committed whole or not at all) or an .ndjson file (one
intent a line, each for itself). FILE - is standard input. It returns when everything is on disk or refused; the same
file again is answered with its first results and pays nothing twice.

examples:
  ledgerfs submit payments.ndjson
  echo '{"debit":"acc_001","credit":"acc_002","amount":"1.00"}' | ledgerfs submit - --name coffee.json
  ledgerfs submit --dry-run payments.ndjson     what would happen
  ledgerfs submit --atomic payments.ndjson      all lines or none
  ledgerfs submit --socket /run/ledgerfs/socket payments.ndjson     without a file: each line has an id
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    submit = commands.add_parser("submit", help="submit a file of intents", description=TEXT)
    submit.add_argument("file", metavar="FILE", help="a .json or .ndjson file, or - for standard input")
    submit.add_argument("--name", help="name under which it is submitted (default: that of the file; needed for -)")
    submit.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    kind = submit.add_mutually_exclusive_group()
    kind.add_argument("--atomic", action="store_true", help="an .ndjson file whose lines are committed all or none")
    kind.add_argument("--dry-run", action="store_true", help="say what would happen; commit nothing")
    kind.add_argument("--socket", metavar="PATH", type=Path, help="over the daemon's socket, not the mount (.ndjson)")
    submit.add_argument("--quiet", action="store_true", help="print nothing when everything is committed")
    submit.add_argument("--progress", action="store_true", help="progress as plain lines when stderr is no terminal")
    submit.set_defaults(run=run_submit)


@dataclass
class Outcome:
    """What a receipt says."""

    counts: Counter[str] = field(default_factory=Counter)  # by status
    refused: list[dict[str, Any]] = field(default_factory=list)  # the first of them
    transactions: list[str] = field(default_factory=list)  # first and last

    def add(self, result: dict[str, Any]) -> None:
        """Count one result."""
        self.counts[result["status"]] += 1
        if result["status"] == "refused" and len(self.refused) < REFUSALS_SHOWN:
            self.refused.append(result)
        if "tx" in result:
            self.transactions = [self.transactions[0] if self.transactions else result["tx"], result["tx"]]


def run_submit(options: argparse.Namespace) -> int:
    """Submit one file."""
    if options.socket:
        return _over_the_socket(options)
    mount = places.mounted(options.mount)
    name = _name(options)
    area = mount / "inbox" / ("atomic" if options.atomic else "dry-run" if options.dry_run else ".")
    with _source(options.file) as source, Progress("submit", plain=options.progress) as progress:
        total = os.fstat(source.fileno()).st_size if options.file != "-" else 0
        chunks = _chunks(source)
        if options.atomic:
            error = _rename_in(chunks, area / name)
        else:
            error = _write(chunks, area / name, total, progress, lines=name.endswith(".ndjson"))
    receipt = mount / "receipts" / ("dry-run" if options.dry_run else ".") / name
    outcome = _read(receipt)
    if error is not None and error.errno in FATAL:
        raise LedgerError(
            f"{name}: {os.strerror(error.errno or 0)}",
            hint="what the receipt lists is done; submit the same file again later: nothing is paid twice",
        )
    if options.json:
        print_json({"name": name, "receipt": str(receipt), **outcome.counts, "refusals": outcome.refused})
    elif error is not None or outcome.refused or not options.quiet:
        _print(name, outcome, receipt)
    return 1 if error is not None or outcome.refused else 0


def _over_the_socket(options: argparse.Namespace) -> int:
    if options.file != "-" and not options.file.endswith(".ndjson"):
        raise LedgerError("--socket is for .ndjson", hint="write the intent on one line")
    outcome = Outcome()
    with _source(options.file) as source, Progress("submit", plain=options.progress) as progress:
        total = os.fstat(source.fileno()).st_size if options.file != "-" else 0
        for answer in socket_client.exchange(options.socket, _chunks(source), total, progress):
            outcome.add(answer)
    if options.json:
        print_json({"socket": str(options.socket), **outcome.counts, "refusals": outcome.refused})
    elif outcome.refused or not options.quiet:
        _print(options.file, outcome, None)
    return 1 if outcome.refused else 0


def _name(options: argparse.Namespace) -> str:
    if options.name is None and options.file == "-":
        raise LedgerError("standard input has no name", hint="give --name NAME.json or --name NAME.ndjson")
    name = str(options.name or Path(options.file).name)
    if not name.endswith(ENDINGS) or "/" in name:
        raise LedgerError(
            f"{name!r} is no name of the inbox", hint="it ends in .json (one document) or .ndjson (lines)"
        )
    if options.atomic and not name.endswith(".ndjson"):
        raise LedgerError("--atomic is for .ndjson", hint="a .json document is always committed whole or not at all")
    return name


def _source(file: str) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}") from None


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    """The content; never empty, because an empty file gets no answer of its own."""
    first = source.read(CHUNK_BYTES)
    if not first:
        raise LedgerError("there is nothing to submit", hint="the file is empty")
    return chain([first], iter(lambda: source.read(CHUNK_BYTES), b""))


def _write(chunks: Iterator[bytes], target: Path, total: int, progress: Progress, *, lines: bool) -> OSError | None:
    """Write to the final name; the first error, if there was one. Lines after a refused one are still submitted."""
    first: OSError | None = None
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    done = 0
    try:
        for chunk in chunks:
            try:
                os.write(descriptor, chunk)
            except OSError as error:
                first = first or error
                if not lines or error.errno in FATAL:
                    return error
            done += len(chunk)
            progress(done, total)
    finally:
        try:
            os.close(descriptor)
        except OSError as error:
            first = first or error
    return first


def _rename_in(chunks: Iterator[bytes], target: Path) -> OSError | None:
    """Write under a scratch name and rename: so the inbox knows where an atomic file ends."""
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with scratch.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(scratch, target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        return error
    return None


def _results(receipt: Path) -> Iterator[dict[str, Any]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode  # a receipt may have as many lines as the file
    with receipt.open("rb", buffering=CHUNK_BYTES) as lines:
        for line in lines:
            yield decode(line)


def _read(receipt: Path) -> Outcome:
    outcome = Outcome()
    try:
        for result in _results(receipt):
            outcome.add(result)
    except OSError as error:
        raise LedgerError(f"{receipt}: {error.strerror}", hint="ask again later; nothing is paid twice") from None
    return outcome


def _print(name: str, outcome: Outcome, receipt: Path | None) -> None:
    parts = [f"{count:,} {status}" for status, count in sorted(outcome.counts.items())]
    named = f" ({' to '.join(dict.fromkeys(outcome.transactions))})" if outcome.transactions else ""
    print(f"{name}: {', '.join(parts) or 'nothing in it'}{named}")
    for result in outcome.refused:
        where = (
            f", member {result['field']!r}"
            if "field" in result
            else f", byte {result['offset']}"
            if "offset" in result
            else ""
        )
        note = f" ({result['note']})" if "note" in result else ""
        print(f"  line {result['line']}{where}: {result['code']}: {result['meaning']}{note}; {result['what_to_do']}")
    left = outcome.counts["refused"] - len(outcome.refused)
    if left > 0:
        print(f"  and {left:,} more" + (f", in {receipt}" if receipt else ""))
