"""Settings that would buy figures with durability or with a check: found before a run, which refuses unless it is told each by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ledgerfsd.errors import LedgerError

# The names of --unsafe-NAME, and what is given up.
UNSAFE: Final = {
    "memory": "stores on a file system of memory: fdatasync does nothing",
    "barriers": "a file system that does not flush the disk when it syncs",
    "preload": "libraries loaded before ours: one may make fsync do nothing",
    "asserts": "Python without asserts (-O): checks of the benchmarks are off",
    "postgres": "PostgreSQL that acknowledges before it is durable",
}
DURABLE: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}  # of PostgreSQL
_MEMORY: Final = ("tmpfs", "ramfs")
_MEMORY_DEVICES: Final = ("/dev/ram", "/dev/zram")
_NO_BARRIER: Final = {"nobarrier", "barrier=0", "volatile"}  # volatile: of overlayfs, which then leaves syncs out
_PRELOADED: Final = Path("/etc/ld.so.preload")
# What no setting of ours turns off; printed with each run.
ALWAYS: Final = (
    "fdatasync before every acknowledgement; every entry hashed, sealed and chained; "
    "state roots, proofs, indexes and digests on"
)


class Found(NamedTuple):
    """Something unsafe: its name in UNSAFE, and where it was found."""

    name: str
    where: str


def look(directory: Path, postgres: Mapping[str, str]) -> list[Found]:
    """Whatever is unsafe here, for stores in ``directory`` and with these settings of PostgreSQL."""
    kind, source, options = mounted(directory)
    found = []
    if kind in _MEMORY or source.startswith(_MEMORY_DEVICES):
        found.append(Found("memory", f"{directory} is on {kind if kind in _MEMORY else source}"))
    if off := sorted(_NO_BARRIER & set(options)):
        found.append(Found("barriers", f"{directory} is mounted with {', '.join(off)}"))
    if os.environ.get("LD_PRELOAD"):
        found.append(Found("preload", f"LD_PRELOAD is {os.environ['LD_PRELOAD']}"))
    if _PRELOADED.exists() and (text := _PRELOADED.read_text().strip()):
        found.append(Found("preload", f"{_PRELOADED} has {text}"))
    if sys.flags.optimize:
        found.append(Found("asserts", "python -O or PYTHONOPTIMIZE"))
    weak = [f"{name}={value}" for name, value in postgres.items() if value != DURABLE.get(name, value)]
    if weak:
        found.append(Found("postgres", f"--postgres {' '.join(weak)}"))
    return found


def refuse(found: Collection[Found], allowed: Collection[str]) -> None:
    """Raise LedgerError unless all that was found was asked for by name."""
    for each in found:
        if each.name not in allowed:
            raise LedgerError(
                f"{each.where}: {UNSAFE[each.name]}",
                hint=f"change that, or give --unsafe-{each.name}; the figures then say so",
            )


def mounted(directory: Path) -> tuple[str, str, list[str]]:
    """The type, the source (a device, mostly) and the options of the file system that a directory is on."""
    found = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE,SOURCE,OPTIONS", "--target", directory],
        capture_output=True,
        text=True,
        check=True,
    )
    kind, source, options = found.stdout.split(maxsplit=2)
    return kind, source, options.strip().split(",")
