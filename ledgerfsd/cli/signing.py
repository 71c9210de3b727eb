"""``signer``: the process that signs checkpoints, as a service of a user of its own."""

from __future__ import annotations

import argparse
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledgerfsd.errors import LedgerError
from ledgerfsd.obs import logging as obs_logging
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.keys import TRUSTED_ROOT, parse_trusted_root

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands

SIGNER_TEXT: Final = """\
Sign checkpoints for a daemon that runs as another user and cannot read the keys. By itself the daemon starts a signer, as its
own user: then whoever takes over the daemon can take the key away. Run this command as a user of its own instead (there is a
unit for systemd), and give the daemon the socket (`signer`) and the directory (`keys`, for the public keys in it).

The directory is made if it is absent, with a first key (then --ledger names the ledger). It can be entered by everybody; private
keys in it have mode 0600. The signer remembers what it signed last in it, so it must not be copied back with a store. It asks the
kernel who connects (SO_PEERCRED), and answers nobody but --user. It stays in the foreground and ends with SIGTERM.

examples:
  ledgerfs signer --keys /var/lib/ledgerfs-signer/main --listen /run/ledgerfs-signer/main.sock --user ledgerfs
  ledgerfsd --config /etc/ledgerfs/main.toml --keys /var/lib/ledgerfs-signer/main --signer /run/ledgerfs-signer/main.sock
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    signer = commands.add_parser("signer", help="sign checkpoints as a user of its own", description=SIGNER_TEXT)
    signer.add_argument("--keys", metavar="DIR", required=True, help="directory of the keys")
    signer.add_argument("--listen", metavar="SOCKET", required=True, help="path of the Unix socket to make")
    signer.add_argument("--user", metavar="NAME", help="user (name or number) of the daemon; default: this user")
    signer.add_argument("--ledger", metavar="ORIGIN", help="name of the ledger, when the first key is to be made")
    signer.set_defaults(run=run_signer)


def run_signer(options: argparse.Namespace) -> int:
    """Sign until told to stop."""
    from ledgerfsd.service.signer_socket import listen  # threads and signals: of no use to the other commands

    directory = Path(options.keys).resolve()
    obs_logging.configure("info", "json" if options.json else "console")
    listen(
        Keyring(directory, options.ledger or _origin(directory)), Path(options.listen).absolute(), _user(options.user)
    )
    return 0


def _origin(directory: Path) -> str:
    path = directory / TRUSTED_ROOT
    try:
        return parse_trusted_root(path.read_bytes(), str(path)).ledger
    except FileNotFoundError:
        hint = "give --ledger ORIGIN to make the first key"
        raise LedgerError(f"there are no keys in {directory}", hint=hint) from None


def _user(name: str | None) -> int:
    if name is None:
        return os.geteuid()
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise LedgerError(f"there is no user {name!r}") from None
