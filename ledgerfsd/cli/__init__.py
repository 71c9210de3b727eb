"""``ledgerfs``: the command line. Start at ``main`` (parser, dispatch, errors).

One module a group of commands: ``stores`` (init, rebuild, fsck: offline, on a store), ``mounting`` (mount, umount,
status), ``submitting`` (submit), ``reading`` (balance, history: through the mount), ``past`` (snapshot, diff, replay),
``events`` (events, consumer), ``publishing`` (publish), ``proving`` (prove), ``verifying`` (verify), ``digests`` (digest),
``keys`` (key), ``restoring`` (restore), ``signing`` (signer), ``witness`` (both serve).
``output`` prints, ``places`` finds the mount. Commands that work on a
mount only read and write its files: what they can do, ``cat`` and ``cp`` can do too.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[
        argparse.ArgumentParser
    ]  # what add_subparsers gives; argparse has no name for it
