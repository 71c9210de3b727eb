"""What is kept of a run: one JSON file of a machine and a state of the code, in which each measurement replaces its older self.

It is written after every measurement, so that a run that was interrupted keeps what it had. ``report.py`` makes
docs/BENCHMARKS.md of such files.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from bench.measure import REPOSITORY, Report
from ledgerfsd.core import hashing
from ledgerfsd.errors import LedgerError

SCHEMA: Final = "ledgerfs-bench-1"
# What each measurement has, besides its figures.
FACTS: Final = {
    "title",
    "began",
    "command",
    "seed",
    "settings",
    "quick",
    "unsafe",
    "seconds",
    "rows",
    "series",
    "notes",
}
FLAGS: Final = ("sha_ni", "avx2", "avx512f", "hypervisor")


class Record:
    """The file at ``path``. Raises LedgerError when it is of another machine or another code, unless it is to be replaced then."""

    def __init__(self, path: Path, machine: dict[str, str], code: dict[str, str], *, replace: bool = False) -> None:
        self._path = path
        self._data: dict[str, Any] = {"schema": SCHEMA, "machine": machine, "code": code, "measurements": {}}
        if path.exists():
            found = load(path)
            if replace and not all(_same(found[what], self._data[what]) for what in ("machine", "code")):
                return
            for what, here in (("machine", machine), ("code", code)):
                if not _same(found[what], here):
                    raise LedgerError(
                        f"{path} has results of another {what}: {found[what]}",
                        hint="give another file with --json, or --replace",
                    )
            self._data["measurements"] = found["measurements"]

    def check(self) -> None:
        """Whoever has measured for an hour wants to keep it. Raises LedgerError when the file cannot be written."""
        try:
            self._draft().unlink()
        except OSError as error:
            raise LedgerError(f"{self._path}: {error.strerror}", hint="give another file with --json") from None

    def keep(self, name: str, report: Report, facts: dict[str, Any], *, failed: str = "") -> None:
        """Put a measurement in and write the file: whole, or as it was."""
        measured = {"failed": failed} if failed else {}
        self._data["measurements"][name] = facts | measured | report.data()
        self._draft().replace(self._path)

    def _draft(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        draft.write_text(text(self._data))
        return draft


def _same(there: dict[str, str], here: dict[str, str]) -> bool:
    """A commit that changes nothing of what is measured is the same state."""
    return there | {"commit": ""} == here | {"commit": ""}


def load(path: Path) -> dict[str, Any]:
    """A file of results. Raises LedgerError when it is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path}: {error}") from None
    known = isinstance(found, dict) and found.get("schema") == SCHEMA
    if not known or any(not FACTS <= set(each) for each in found["measurements"].values()):
        raise LedgerError(f"{path} is no file of results ({SCHEMA})", hint="make one with `make bench`")
    return found


def text(data: dict[str, Any]) -> str:
    """A line for each row, so that a difference can be read."""

    def lines(value: Any, depth: int) -> str:
        if isinstance(value, dict) and depth < 3:
            pad = " " * (depth + 1)
            inner = [f"{pad}{json.dumps(key)}: {lines(each, depth + 1)}" for key, each in value.items()]
            return "{\n" + ",\n".join(inner) + "\n" + " " * depth + "}" if inner else "{}"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n" + ",\n".join("    " + json.dumps(each) for each in value) + "\n   ]"
        return json.dumps(value)

    return lines(data, 0) + "\n"


def now() -> str:
    """The time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def machine(directory: Path) -> dict[str, str]:
    """What the figures are taken on."""
    return {
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "file system": _output("df", "--output=fstype", str(directory)).split("\n")[-1],
        "python": platform.python_version(),
        "sha-256": hashing.backend(),
    }


def code() -> dict[str, str]:
    """What is measured: ``tree`` names the content of ledgerfsd/, whatever else the commit has."""
    changed = " and changes" if _output("git", "status", "--porcelain", "ledgerfsd") else ""
    return {
        "commit": _output("git", "rev-parse", "--short", "HEAD") or "unknown",
        "tree": (_output("git", "rev-parse", "--short", "HEAD:ledgerfsd") or "unknown") + changed,
    }


def _processor() -> str:
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    found = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    flags = [name for name in FLAGS if name in found.get("flags", "").split()]
    return f"{len(os.sched_getaffinity(0))} x {found.get('model name', platform.machine())} ({' '.join(flags)})"


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()
