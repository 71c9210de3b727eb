"""What all tests share: Hypothesis profiles, stores in temporary places, and real daemons behind real mounts.

A machine that cannot mount FUSE fails these tests; it never skips them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
LEDGER = "ledger.example/test"
READY_SECONDS = 90  # of a daemon that starts or stops
PATIENCE_SECONDS = 60  # for whatever comes soon: a machine may be busy with other things
SEGMENT_BYTES = 2**20  # the least: a segment is zeroed before it is used, and tests make many stores

# No deadline: the machine is shared, and a slow example is no fault. The same examples each time, so that a change is not stopped by
# what was wrong before; `HYPOTHESIS_PROFILE=nightly` looks for that, and prints how to repeat a failure.
usual = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", derandomize=True, **usual)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=200)
settings.register_profile("nightly", max_examples=20_000, **usual)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@dataclass
class Daemon:
    """A ledgerfsd process of our own, and its mount."""

    store: Path
    path: Path  # the mount
    options: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Everything it said on stderr."""
        return self.store.with_name(self.store.name + ".log")

    @property
    def last_signed(self) -> Path:
        """The directory, apart from the store, where its signer remembers what it signed last."""
        return self.store.with_name(self.store.name + ".last-signed")

    def start(self) -> Daemon:
        """Start it and wait until the mount answers. One that was unmounted from outside is waited for first."""
        if self.process is not None:
            self.process.wait(READY_SECONDS)
        command = [sys.executable, "-m", "ledgerfsd", "--store", self.store, "--mount", self.path, *self.options]
        # A copy of a store is another store here, with a memory of its own of what was signed, as if on another machine.
        environment = os.environ | {"LEDGERFS_LAST_SIGNED": str(self.last_signed)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_SECONDS
        while not (self.path / ".ledgerfs" / "version").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"ledgerfsd did not become ready:\n{self.log.read_text()}")
            time.sleep(0.02)
        return self

    def stop(self) -> int:
        """End it cleanly (SIGTERM); its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_SECONDS)

    def kill(self) -> None:
        """kill -9, and remove the dead mount."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(READY_SECONDS)
        self.detach()

    def detach(self) -> None:
        """Remove what is mounted, whatever its state."""
        subprocess.run(["fusermount3", "-u", "-q", "-z", self.path], check=False, capture_output=True)


@pytest.fixture(autouse=True)
def last_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees what was signed for another: the usual directory would be the same for all."""
    directory = tmp_path / "last-signed"
    monkeypatch.setenv("LEDGERFS_LAST_SIGNED", str(directory))
    return directory


@pytest.fixture(scope="session")
def fuse() -> None:
    """This machine can mount FUSE file systems."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.fail("/dev/fuse is missing or not accessible: the mount cannot be tested here")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A new store."""
    from ledgerfsd.journal.layout import create

    return create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root


@pytest.fixture
def daemons(fuse: None, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """``daemons(store, *options)`` gives a Daemon that is not started yet; whatever it leaves behind is removed."""
    made: list[Daemon] = []

    def make(store: Path, *options: str) -> Daemon:
        made.append(Daemon(store, tmp_path / f"mount-{len(made)}", list(options)))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.process.wait(READY_SECONDS)
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(READY_SECONDS)
        daemon.detach()


@pytest.fixture
def mounted(store: Path, daemons: Callable[..., Daemon]) -> Daemon:
    """A mounted new store."""
    return daemons(store).start()
