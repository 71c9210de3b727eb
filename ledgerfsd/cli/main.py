"""``ledgerfs``: parser, dispatch, and the one place where errors become text and exit codes.

Start at ``main``. No command prints a traceback: what a user can do something about is a LedgerError, an interruption
ends with 130, a closed pipe quietly, and anything else is our fault and says so (LEDGERFS_DEBUG=1 shows where).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from ledgerfsd import __version__
from ledgerfsd.cli import (
    digests,
    events,
    finding,
    keys,
    mounting,
    output,
    past,
    proving,
    publishing,
    reading,
    restoring,
    signing,
    stores,
    submitting,
    verifying,
    witness,
)
from ledgerfsd.errors import LedgerError

EPILOG: Final = """\
a first session:
  ledgerfs init --store demo-store --ledger ledger.example/demo
  ledgerfs mount --store demo-store --mount ./ledgerfs
  ledgerfs submit examples/demo/accounts.ndjson
  ledgerfs balance acc_001
  ledgerfs umount

The mount is found by --mount, $LEDGERFS_MOUNT or ./ledgerfs; a store by --store or $LEDGERFS_STORE.
Everything that works on a mount works with cp, cat and ls too; see README.txt in the mount.

exit codes: 0 ok, 1 refused or failed, 2 usage, 3 the store or mount cannot be used, 4 damage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line; help, man pages and tests are made from it."""
    made = argparse.ArgumentParser(
        prog="ledgerfs",
        description="A ledger you can mount: work with stores and mounts from the shell.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"ledgerfs {__version__}", help="print the version")
    made.add_argument("--json", action="store_true", help="print JSON instead of text (before or after the command)")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    groups = (
        stores,
        mounting,
        submitting,
        reading,
        finding,
        past,
        proving,
        verifying,
        digests,
        keys,
        events,
        publishing,
        restoring,
        signing,
        witness,
    )
    for group in groups:
        group.register(commands)
    for command in commands.choices.values():
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        # SUPPRESS: when it is absent here, the value given before the command stays.
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of text"
        )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except LedgerError as error:
        return _report(error, as_json=options.json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough (`| head`). Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _report(LedgerError(f"{where}{error.strerror or error}"), as_json=options.json)
    except Exception as error:
        if os.environ.get("LEDGERFS_DEBUG"):
            raise
        hint = "this is a fault of LedgerFS; LEDGERFS_DEBUG=1 shows where"
        return _report(LedgerError(f"{type(error).__name__}: {error}", hint=hint), as_json=options.json)


def _report(error: LedgerError, *, as_json: bool) -> int:
    if as_json:
        output.print_json({"error": str(error), "hint": error.hint, "exit_code": error.exit_code})
    print(f"ledgerfs: {error}" + (f"; {error.hint}" if error.hint else ""), file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
