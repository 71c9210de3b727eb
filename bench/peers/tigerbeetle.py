"""TigerBeetle in its best form: a durable replica of its own, and the load that its own ``benchmark`` command makes.

The command formats a data file in the directory that it is run in, starts one replica on it as a process of its own, opens the
accounts, and then times the transfers alone, in the largest batches that a message holds (8,189). A batch is answered when its
prepare is in the write-ahead log, which is opened with ``O_DIRECT`` and ``O_DSYNC``: as durable as we are. There is no hash chain,
seal or proof in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from ledgerfsd.errors import LedgerError

BATCH: Final = 8_189  # the most that a message holds; what the command takes when it is not told
SECONDS_MAX: Final = 1_800  # a client waits for a replica that has died for ever
PERCENTS: Final = (50, 99)
_ACCEPTED: Final = re.compile(r"load accepted = ([0-9,.]+) tx/s")
_NOISE: Final = ("info", "warning")  # lines of its log that no failure is told by


class Form(NamedTuple):
    """A way to use it: what its figures are called, and the options of ``tigerbeetle benchmark``."""

    name: str
    options: tuple[str, ...]


# Without the history of balances, which it keeps beside transfers where it is asked to. Sequential ids are its best case, as counted
# ones are ours; no clients can hand them out together, so time-based and random ids are measured too. Which is the fastest depends on
# the machine, so all are run, and the aim is against the fastest.
_PLAIN: Final = "--no-history"
ONE: Final = Form("sequential ids, 1 client", (_PLAIN, "--id-order=sequential", "--clients=1"))
FOUR: Final = Form("sequential ids, 4 clients", (_PLAIN, "--id-order=sequential", "--clients=4"))
TIMED: Final = Form("time-based ids, 4 clients", (_PLAIN, "--id-order=tbid", "--clients=4"))
RANDOM: Final = Form("random ids, 4 clients", (_PLAIN, "--id-order=random", "--clients=4"))
HISTORY: Final = Form("sequential ids, 4 clients, past balances kept", ("--id-order=sequential", "--clients=4"))
FORMS: Final = (ONE, FOUR, TIMED, RANDOM, HISTORY)


class Figures(NamedTuple):
    """Of one run: transfers a second, and milliseconds from a batch's request to its reply at PERCENTS (whole ones: its clock)."""

    rate: float
    latencies: tuple[float, ...]


def named(accounts: int, form: Form | None = None) -> str:
    """What the figures are called; without a form: those of the one that was the fastest in that run."""
    return f"TigerBeetle, {accounts:,} accounts, batches of {BATCH:,}, {form.name if form else 'fastest form'}"


def version(binary: Path) -> str:
    """What the binary says of itself. Raises LedgerError when it is none, or one that figures would be unfair to."""
    said = _output(binary, "version", "--verbose")
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    first = next((line for line in said.splitlines() if line.startswith("TigerBeetle version")), "")
    if not first:
        raise LedgerError(f"{binary} is no tigerbeetle", hint="--tigerbeetle takes the path of its binary")
    mode = found.get("build.mode", "").rpartition(".")[2]
    if mode not in ("ReleaseSafe", "ReleaseFast") or found.get("process.verify") == "true":
        raise LedgerError(f"{binary} is a build for debugging ({mode})", hint="build it with `zig build -Drelease`")
    if found.get("process.direct_io") != "true":
        raise LedgerError(f"{binary} was built without direct I/O: it would not be durable as it is in use")
    return f"{first}, {mode}, direct I/O"


def run(binary: Path, directory: Path, form: Form, *, seed: int, accounts: int, transfers: int) -> Figures:
    """One run, in a new directory of its own, which is removed. Raises RuntimeError with what the command said."""
    place = directory / "tigerbeetle"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    counts = [f"--account-count={accounts}", f"--transfer-count={transfers}", "--query-count=0", f"--seed={seed}"]
    try:
        done = subprocess.run(
            [binary, "benchmark", *counts, *form.options],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"tigerbeetle benchmark did not end in {SECONDS_MAX} seconds ({form.name})") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if done.returncode:
        raise RuntimeError(f"tigerbeetle benchmark ended with {done.returncode}: {told(done.stderr + done.stdout)}")
    return figures(done.stdout)


def figures(text: str) -> Figures:
    """What ``tigerbeetle benchmark`` printed. Raises RuntimeError when the rate or a latency of batches is not in it."""
    rate = _ACCEPTED.search(text)
    latencies = [re.search(rf"batch latency p{percent} *= ([0-9]+) ms", text) for percent in PERCENTS]
    if rate is None or None in latencies:
        raise RuntimeError(f"tigerbeetle benchmark gave no figures: {told(text)}")
    return Figures(float(rate[1].replace(",", "")), tuple(float(found[1]) for found in latencies if found))


def told(text: str) -> str:
    """The last lines of what it said that are not its ordinary log."""
    lines = [line for line in text.splitlines() if line and not any(f" {kind}(" in line for kind in _NOISE)]
    return " | ".join(lines[-4:]) or "nothing"


def _output(binary: Path, *words: str) -> str:
    if not os.access(binary, os.X_OK) or binary.is_dir():
        raise LedgerError(f"{binary} is no program that can be run", hint="--tigerbeetle takes the path of its binary")
    try:
        done = subprocess.run(
            [binary, *words], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LedgerError(f"{binary}: {error}", hint="--tigerbeetle takes the path of its binary") from None
    return done.stdout
