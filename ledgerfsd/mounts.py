"""What is mounted where, and getting rid of a mount: for the daemon and the command line alike.

Nothing here touches a mount point itself unless it says so: a call into the mount of a daemon that hangs would hang.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledgerfsd.errors import LedgerError

FILESYSTEM: Final = "fuse.ledgerfs"
MOUNTINFO: Final = Path("/proc/self/mountinfo")
ESCAPE: Final = re.compile(r"\\([0-7]{3})")  # the kernel writes space, tab, newline and backslash so


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: Path
    filesystem: str
    source: str

    @property
    def is_ledgerfs(self) -> bool:
        """Whether it is one of ours."""
        return self.filesystem == FILESYSTEM


def absolute(path: Path) -> Path:
    """The path without symbolic links, its last part left alone: resolving that one would call into the mount."""
    path = Path(os.path.abspath(path))
    return path.parent.resolve() / path.name if path.name else path


def mounts() -> list[Mount]:
    """Every mount this process sees, oldest first."""
    found = []
    for line in MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        filesystem, source = after.split(" ")[:2]
        found.append(Mount(Path(_plain(before.split(" ")[4])), filesystem, _plain(source)))
    return found


def at(path: Path) -> Mount | None:
    """The topmost mount at exactly this path."""
    path = absolute(path)
    return next((mount for mount in reversed(mounts()) if mount.point == path), None)


def answers(path: Path) -> bool:
    """Whether a daemon stands behind the mount at ``path``. Calls into the mount."""
    try:
        os.statvfs(path)  # unlike stat, never answered from the kernel's cache
    except OSError as error:
        return error.errno not in (errno.ENOTCONN, errno.ECONNABORTED)
    return True


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Unmount; ``lazy`` also when it is in use or its daemon is dead. Raises LedgerError with what fusermount3 said."""
    options = ["-u", "-q"] if not lazy else ["-u", "-q", "-z"]
    try:
        done = subprocess.run(["fusermount3", *options, "--", path], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LedgerError("fusermount3 is missing", hint="apt-get install fuse3") from None
    if done.returncode == 0:
        return
    if at(path) is None:  # somebody else was quicker
        return
    holders = users(path) if not lazy else []
    if holders:
        raise LedgerError(
            f"{path} is in use by " + ", ".join(holders[:5]),
            hint="close those files (or leave the directory), or use --lazy",
        )
    reason = done.stderr.strip() or f"fusermount3 ended with {done.returncode}"
    raise LedgerError(
        f"{path} cannot be unmounted: {reason}", hint="use --lazy, or unmount it as the user who mounted it"
    )


def users(path: Path) -> list[str]:
    """Processes with a working directory or an open file in the mount, as "name (pid)", as far as we may see them."""
    prefix = str(absolute(path))
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        links = [process / "cwd"]
        with contextlib.suppress(OSError):
            links += list((process / "fd").iterdir())
        for link in links:
            with contextlib.suppress(OSError):
                target = os.readlink(link)
                if target == prefix or target.startswith(prefix + "/"):
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    found.append(f"{name} ({process.name})")
                    break
    return found


def prepare(path: Path) -> Path:
    """Make a place to mount on: an empty directory, made if absent, freed of the mount of a daemon that died.

    Raises LedgerError when something else is in the way.
    """
    path = absolute(path)
    mount = at(path)
    if mount is not None and mount.is_ledgerfs:
        if answers(path):
            raise LedgerError(
                f"a LedgerFS is mounted at {path} already", hint="ledgerfs umount, or another mount point"
            )
        unmount(path, lazy=True)
    try:
        path.mkdir(parents=True, exist_ok=True)
        empty = not any(path.iterdir())
    except OSError as error:
        raise LedgerError(f"{path} cannot be mounted on: {error.strerror}", hint="choose an empty directory") from None
    if not empty:
        raise LedgerError(f"{path} is not empty", hint="choose an empty directory to mount on")
    return path


def _plain(text: str) -> str:
    return ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
