"""``mount``, ``umount`` and ``status``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerfsd import mounts
from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json
from ledgerfsd.errors import LedgerError, StoreError
from ledgerfsd.journal import layout as layouts

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands
    from ledgerfsd.journal.layout import Layout

LOG_NAME: Final = "daemon.log"
POLL_SECONDS: Final = 0.2
STOP_SECONDS: Final = 60.0

MOUNT_TEXT: Final = """\
Mount a store: start ledgerfsd in the background and return when the ledger can be used. Its log is daemon.log in the
store. With --foreground it takes over this terminal instead, which is what a service manager wants.

example:
  ledgerfs mount --store /var/lib/ledgerfs/main --mount /srv/ledger
"""
UMOUNT_TEXT: Final = """\
Unmount a ledger and wait until its daemon has finished. Works when the daemon is dead, too. Anything that is not a
LedgerFS mount is left alone.

example:
  ledgerfs umount /srv/ledger
"""
STATUS_TEXT: Final = """\
Say how a mounted ledger is: healthy or read-only, how many transactions, accounts and blocks. Ends with 1 when it is
not healthy.

example:
  ledgerfs status --mount /srv/ledger --json
"""


def register(commands: Commands) -> None:
    """Add the commands to the parser."""
    mount = commands.add_parser("mount", help="mount a store", description=MOUNT_TEXT)
    mount.add_argument("--store", metavar="DIR", help="the store (else $LEDGERFS_STORE)")
    mount.add_argument("--mount", metavar="DIR", help="where to mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    mount.add_argument(
        "--last-signed",
        metavar="DIR",
        help="directory of what was signed last, apart from the store (see ledgerfsd(8))",
    )
    mount.add_argument(
        "--signer", metavar="PATH", help="socket of a signer that runs by itself (see `ledgerfs signer`)"
    )
    mount.add_argument("--keys", metavar="DIR", help="directory of the signing keys (default: keys in the store)")
    mount.add_argument("--config", metavar="FILE", help="settings of the daemon (TOML)")
    mount.add_argument("--allow-other", action="store_true", help="let other users in")
    mount.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="how much to log")
    mount.add_argument("--foreground", action="store_true", help="run the daemon in this terminal")
    mount.set_defaults(run=run_mount)
    umount = commands.add_parser("umount", help="unmount a ledger", description=UMOUNT_TEXT)
    umount.add_argument("path", metavar="DIR", nargs="?", help="the mount (else --mount, $LEDGERFS_MOUNT, ./ledgerfs)")
    umount.add_argument("--mount", metavar="DIR", help="the same")
    umount.add_argument("--lazy", action="store_true", help="detach it even when it is in use")
    umount.add_argument("--if-mounted", action="store_true", help="it is no error when nothing is mounted")
    umount.set_defaults(run=run_umount)
    status = commands.add_parser("status", help="say how a mounted ledger is", description=STATUS_TEXT)
    status.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    status.set_defaults(run=run_status)


def run_mount(options: argparse.Namespace) -> int:
    """Start the daemon."""
    command = [sys.executable, "-m", "ledgerfsd"]
    layout = None
    if options.config:
        command += ["--config", options.config]
    if options.store or not options.config:
        layout = places.store(options.store)
        layouts.check(layout)
        command += ["--store", str(layout.root)]
    path = places.mountpoint(options.mount)
    if options.mount or not options.config:
        command += ["--mount", str(path)]
    if options.keys:
        command += ["--keys", options.keys]
    if options.signer:
        command += ["--signer", options.signer]
    if options.last_signed:
        command += ["--last-signed", options.last_signed]
    if options.allow_other:
        command += ["--allow-other"]
    if options.log_level:
        command += ["--log-level", options.log_level]
    if options.foreground:
        os.execv(command[0], command)
    pid, said = _background(command, layout)
    if options.json:
        print_json({"pid": pid, "status": said})
    else:
        print(f"{said} (process {pid})")
    return 0


def _background(command: list[str], layout: Layout | None) -> tuple[int, str]:
    """Start the daemon detached; returns its pid and what it said when it was ready. Raises what it died of."""
    # The daemon speaks systemd's notification protocol; here the listener is us.
    name = f"ledgerfs-{secrets.token_hex(8)}"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as listener,
        contextlib.ExitStack() as files,
    ):
        listener.bind("\0" + name)
        listener.settimeout(POLL_SECONDS)
        log: Any = subprocess.DEVNULL
        if layout is not None:
            with contextlib.suppress(OSError):  # a full or read-only disk: mounted without a log it can still be read
                log = files.enter_context((layout.root / LOG_NAME).open("ab"))
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"NOTIFY_SOCKET": "@" + name},
        )
        try:
            return daemon.pid, _await_ready(daemon, listener, layout)
        finally:
            daemon.returncode = daemon.returncode or 0  # it outlives us on purpose; Popen would warn about that


def _await_ready(daemon: subprocess.Popen[bytes], listener: socket.socket, layout: Layout | None) -> str:
    status, shown, exit_code = "", False, 0
    terminal = sys.stderr.isatty()
    while True:
        ended = daemon.poll() is not None  # asked first: what it said before it ended is still to be read
        try:
            state = dict(line.partition("=")[::2] for line in listener.recv(65536).decode().splitlines())
        except TimeoutError:
            if not ended:
                continue
            log = f"see {layout.root / LOG_NAME}" if layout else "see its log"
            failed = status.removeprefix("failed: ") if status.startswith("failed: ") else ""
            error = LedgerError(failed or f"the daemon ended with code {daemon.returncode}", hint="" if failed else log)
            error.exit_code = exit_code or 1
            raise error from None
        status = state.get("STATUS", status)
        exit_code = int(state.get("EXIT_STATUS", exit_code))
        if terminal and status.startswith("recovering"):
            print(f"\r\033[K{status}", end="", file=sys.stderr, flush=True)
            shown = True
        if state.get("READY") == "1":
            if shown:
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            return status


def run_umount(options: argparse.Namespace) -> int:
    """Unmount."""
    path = places.mountpoint(options.path or options.mount)
    mount = mounts.at(path)
    if mount is None:
        if options.if_mounted:
            print(f"nothing is mounted at {path}")
            return 0
        raise LedgerError(f"nothing is mounted at {path}", hint="`findmnt -t fuse.ledgerfs` lists what is")
    if not mount.is_ledgerfs:
        raise LedgerError(f"{path} is no LedgerFS but {mount.filesystem}; it is left alone")
    alive = mounts.answers(path)
    pid = _daemon_pid(path) if alive else 0
    mounts.unmount(path, lazy=options.lazy or not alive)
    if pid and not _ended(pid):
        raise LedgerError(
            f"unmounted, but its daemon (process {pid}) still runs",
            hint="it ends when the last program lets go of the mount" if options.lazy else "see its log",
        )
    if options.json:
        print_json({"unmounted": str(path), "daemon": "finished" if pid else "was dead" if not alive else "unknown"})
    else:
        print(f"unmounted {path}" + ("" if alive else " (its daemon was dead already)"))
    return 0


def _daemon_pid(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return int(json.loads((path / ".ledgerfs" / "status.json").read_bytes())["pid"])
    return 0


def _ended(pid: int) -> bool:
    """Wait until the process is gone: its last save, too, is part of unmounting."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # ended; whoever started it has not asked yet
        except (ProcessLookupError, FileNotFoundError):
            return True
        except PermissionError:
            return True  # another user's: we cannot know
        time.sleep(0.02)
    return False


def run_status(options: argparse.Namespace) -> int:
    """Print status and health."""
    path = places.mounted(options.mount)
    try:
        status = json.loads((path / ".ledgerfs" / "status.json").read_bytes())
        health = (path / ".ledgerfs" / "health").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}", hint="see the daemon's log") from None
    healthy = health.split("\n")[0] == "ok"
    if options.json:
        print_json({"mount": str(path), "healthy": healthy, "health": health, **status})
    else:
        shown = {"mount": path, "health": health} | {
            name: value
            for name, value in status.items()
            if name not in ("health", "failure") and not isinstance(value, dict | list)
        }
        for name, value in shown.items():
            print(f"{name.replace('_', ' '):<16}{value}")
    return 0 if healthy else 1
