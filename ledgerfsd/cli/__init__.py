"""``ledgerfs``: the command line. Start at ``main`` (parser, dispatch, errors).

One module a group of commands: ``stores`` (init, rebuild, fsck: offline, on a store), ``mounting`` (mount, umount,
status), ``submitting`` (submit), ``reading`` (balance, history: through the mount), ``proving`` (prove),
``keys`` (key), ``signing`` (signer), ``restoring`` (restore), ``events`` (events, consumer), ``publishing`` (publish). ``output``
prints, ``places`` finds the mount. Commands that work on a mount only read and write its
files: what they can do, ``cat`` and ``cp`` can do too.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[
        argparse.ArgumentParser
    ]  # what add_subparsers gives; argparse has no name for it
