"""A ledger of the benchmarks' own: its store, its daemon, its mount."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from bench import workload
from bench.interrupt import undisturbed
from bench.measure import REPOSITORY
from ledgerfsd.errors import LedgerError

READY_SECONDS: Final = 600
STORE_BYTES: Final = 700  # what a payment takes on the disk, with indexes and room for their merging
RESERVE_BYTES: Final = 4 << 30  # of the disk, for others
DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


class Mounted:
    """A store below ``directory`` and the daemon that serves it. ``with Mounted(...) as ledger`` starts and removes it."""

    def __init__(self, directory: Path, accounts: int = 0, *options: str) -> None:
        self.store = directory / "store"
        self.mount = directory / "mount"
        self._directory = directory
        self._accounts = accounts
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Mounted:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        try:
            self.store_command("init", "--ledger", "ledger.example/bench")
            self.start()
            if self._accounts:
                copy(workload.open_accounts(self._accounts), self.mount / "inbox" / "accounts.ndjson")
        except BaseException:  # a million accounts take long enough for Ctrl-C
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGSTOP)  # so that it starts no more of them
                for child in _children(self._process.pid):  # a signer that has only begun would make its folder anew
                    os.kill(child, signal.SIGKILL)
                self._process.kill()
                self._process.wait()
            self._detach()
            shutil.rmtree(self._directory, ignore_errors=True)

    def store_command(self, name: str, *options: str) -> None:
        """Run ``ledgerfs NAME --store …``. Raises CalledProcessError."""
        command = [sys.executable, "-m", "ledgerfsd.cli.main", name, "--store", str(self.store), *options]
        with undisturbed():  # what it starts itself would go on
            subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, process_group=0)

    def start(self) -> float:
        """Start the daemon; seconds until the mount answers."""
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "ledgerfsd",
            "--store",
            self.store,
            "--mount",
            self.mount,
            "--log-level",
            "warning",
            *self._options,
        ]
        began = time.perf_counter()
        environment = os.environ | {"LEDGERFS_LAST_SIGNED": str(self._directory / "last-signed")}
        with undisturbed():  # it is known, so that it can be taken down; Ctrl-C is for us to answer
            self._process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, process_group=0)
        while not (self.mount / ".ledgerfs" / "version").exists():
            if self._process.poll() is not None or time.perf_counter() - began > READY_SECONDS:
                raise RuntimeError(f"ledgerfsd did not become ready (exit code {self._process.poll()})")
            time.sleep(0.001)
        return time.perf_counter() - began

    def stop(self) -> None:
        """A clean stop."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(READY_SECONDS):
            raise RuntimeError("ledgerfsd did not stop cleanly")

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._detach()

    def status(self) -> dict[str, Any]:
        """status.json."""
        found: dict[str, Any] = json.loads((self.mount / ".ledgerfs" / "status.json").read_bytes())
        return found

    def transactions(self) -> int:
        """How many the ledger has."""
        return int(self.status()["transactions"])

    def memory(self) -> tuple[float, float]:
        """MiB of the daemon: its own (anonymous), and of mapped files, which the kernel takes back when it needs them."""
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        sizes = {
            line.split(":")[0]: int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Rss")
        }
        return sizes["RssAnon"], sizes["RssFile"] + sizes["RssShmem"]

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self._process is not None
        return self._process.pid

    def processor_seconds(self) -> float:
        """What the daemon has used so far, of all processors."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def thread_seconds(self) -> dict[str, float]:
        """The same by thread, more exactly."""
        assert self._process is not None
        found: dict[str, float] = {}
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            found[name] = found.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9
        return found

    def _detach(self) -> None:
        subprocess.run(["fusermount3", "-u", "-q", "-z", self.mount], check=False, capture_output=True)


def _children(process: int) -> list[int]:
    """Of all its threads."""
    found = [task.read_text().split() for task in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(child) for each in found for child in each]


def need_room(directory: Path, transactions: float) -> None:
    """Raises LedgerError when the disk has no room for a store of so many."""
    need, free = int(transactions * STORE_BYTES) + RESERVE_BYTES, shutil.disk_usage(directory).free
    if free < need:
        raise LedgerError(
            f"{directory}: {transactions:,.0f} transactions need {need / 1e9:.0f} GB of disk; {free / 1e9:.0f} GB are free",
            hint="give another place with --dir, or fewer with --transactions or --sustained-rate",
        )


def disk_bytes(directory: Path) -> int:
    """What the files below a directory take on the disk."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                pass  # merged away meanwhile
    return total


def copy(pieces: Any, path: Path) -> None:
    """Write pieces of bytes to an inbox file. Raises OSError when one is refused."""
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]


def drop_caches() -> bool:
    """Let the kernel forget files, names and attributes, ours and everybody's. False when we may not."""
    os.sync()
    try:
        DROP_CACHES.write_text("3\n")
    except OSError:
        return False
    return True
