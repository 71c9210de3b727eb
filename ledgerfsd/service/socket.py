"""The socket on which programs submit intents without a file (docs/SEMANTICS.md, section 16).

Here it is only made and removed: a thread of the core serves it. Lines go in, lines come out, in the same order.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledgerfsd.errors import LedgerError

if TYPE_CHECKING:
    from ledgerfsd.core.engine import Engine

BACKLOG: Final = 256
PATH_BYTES_MAX: Final = 107  # struct sockaddr_un
MODE: Final = 0o600


@contextmanager
def listening(engine: Engine, path: Path | None) -> Iterator[None]:
    """Serve the socket at ``path`` (None: none); afterwards its name is gone. The engine ends its connections when it is closed.

    Raises LedgerError: the path is too long, another process listens there, or something that is no socket is there.
    """
    if path is None:
        yield
        return
    made = _bind(path)
    try:
        engine.listen(made.fileno())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        # The descriptor is the thread's to wait on until the engine is closed: it goes with the process.
        made.detach()


def gauges(engine: Engine) -> dict[str, tuple[str, float]]:
    """For ``metrics.prom``."""
    connections, committed, refused = engine.socket_counts()
    return {
        "socket_connections": ("Connections of the socket", float(connections)),
        "socket_intents_committed": (
            "Intents of the socket answered with a commit, duplicates included",
            float(committed),
        ),
        "socket_intents_refused": ("Intents of the socket that were refused", float(refused)),
    }


def _bind(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise LedgerError(
            f"{path}: the path of a socket has at most {PATH_BYTES_MAX} bytes", hint="choose a shorter one"
        )
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        made.bind(os.fspath(path))
        path.chmod(MODE)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise LedgerError(f"{path}: {error.strerror}", hint="see the setting 'socket'") from None
    except LedgerError:
        made.close()
        raise
    return made


def _clear(path: Path) -> None:
    """Remove what a daemon that was killed left behind."""
    if not path.exists():
        return
    if not path.is_socket():
        raise LedgerError(f"{path} is there, and no socket", hint="move it away, or choose another path")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise LedgerError(f"{path}: another process listens there", hint="stop it, or choose another path")
