"""The signer as a service of a user of its own: so that whoever takes over the daemon cannot take the key away.

Start at ``listen``. It answers one daemon at a time on a Unix socket, and asks the kernel (SO_PEERCRED) whether that runs as
the user for whom it signs. The directory of the keys can be entered by everybody: the public keys and what was signed last
are to be read, the private keys (mode 0600) are this user's alone.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
import structlog

from ledgerfsd.errors import StoreError
from ledgerfsd.obs.sdnotify import notify
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.signer import Signer, open_signer, protect, talk
from ledgerfsd.service.signer_lines import Answer

log = structlog.get_logger()

BACKLOG: Final = 8
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid; unix(7)


def listen(keys: Keyring, path: Path, user: int) -> None:
    """Sign for the daemon that runs as ``user``, until SIGTERM or SIGINT. Raises StoreError: no keys, or no socket."""
    protect()
    signer, created = open_signer(keys)
    try:
        os.chmod(keys.directory, 0o755)  # noqa: S103  # what is secret in it has mode 0600
        if created is not None:
            log.warning("made a key: there was none", key=created.key_id, directory=str(keys.directory))
        with _bound(path) as listener:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _end)
            log.info("signing", socket=str(path), user=user, last_signed=signer.memory.last.size)
            notify(READY=1, STATUS=f"signing for user {user} at {path}")
            with suppress(_EndedError):
                _accept(listener, signer, user)
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from None
    log.info("stopped")


class _EndedError(Exception):
    """A signal came."""


def _end(number: int, _frame: FrameType | None) -> None:
    raise _EndedError(number)


def _bound(path: Path) -> socket.socket:
    """A socket that everybody may connect to: who does is asked for below. One that a dead signer left is removed."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StoreError(f"{path} is there already and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise StoreError(f"another signer listens at {path}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    os.chmod(path, 0o666)  # noqa: S103
    listener.listen(BACKLOG)
    return listener


def _accept(listener: socket.socket, signer: Signer, user: int) -> None:
    turn = threading.Lock()
    while True:
        connection, _ = listener.accept()
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid != user:
            log.warning("refused a stranger", pid=pid, user=uid)
            _refuse(connection, f"this signer signs for user {user}, not for user {uid}")
        elif not turn.acquire(blocking=False):
            _refuse(connection, "this signer signs for another daemon already")
        else:
            log.info("a daemon came", pid=pid)
            threading.Thread(target=_serve, args=(connection, signer, turn), daemon=True).start()


def _serve(connection: socket.socket, signer: Signer, turn: threading.Lock) -> None:
    try:
        with connection, suppress(BrokenPipeError, ConnectionResetError), connection.makefile("rwb") as stream:
            talk(signer, stream)  # type: ignore[arg-type]
    finally:
        turn.release()


def _refuse(connection: socket.socket, why: str) -> None:
    with connection, suppress(OSError):
        connection.sendall(msgspec.json.encode(Answer(0, "", error=why)) + b"\n")
