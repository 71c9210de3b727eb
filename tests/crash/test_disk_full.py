"""Check 6 of the first issue: a real small disk that fills up, and an fsync that fails, under the daemon and through its mount."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ledgerfsd.errors import StoreError
from ledgerfsd.journal.layout import create
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, lines, pay, with_accounts

DISK_BYTES = 48 * 2**20
LEFT_BYTES = 6 * 2**20  # what the ballast leaves
AS_ROOT = ["sudo", "-n"] if os.getuid() else []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own: on a loop device, or in memory where there are no loop devices (in a container)."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    owner, group = os.getuid(), os.getgid()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", f"root_owner={owner}:{group}", image], check=True)
    in_memory = f"size={DISK_BYTES},uid={owner},gid={group}"
    ways = (["-o", "loop", image], ["-t", "tmpfs", "-o", in_memory, "tmpfs"])
    refused = []
    for way in ways:
        found = subprocess.run([*AS_ROOT, "mount", *way, place], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            break
        refused.append(found.stderr.strip())
    else:
        pytest.fail(f"this test needs the right to mount a small disk: {'; '.join(refused)}")
    try:
        yield place
    finally:
        subprocess.run([*AS_ROOT, "umount", "-l", place], check=True)


def fill(disk: Path) -> Path:
    """Leave little room on the disk."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - LEFT_BYTES)
    return ballast


def commit_until_refused(ledger: Mounted) -> tuple[int, int]:
    """Files of 200 payments of 0.01, until one fails; how many files were acknowledged, and the errno."""
    for number in range(10_000):
        intents = [pay("0.01", id=f"full-{number}-{item}", reference="x" * 200) for item in range(200)]
        try:
            ledger.drop(f"full-{number}.ndjson", lines(intents))
        except OSError as error:
            return number, error.errno or 0
    pytest.fail("the disk never filled up")


def fsck(store: Path) -> None:
    """The store is what was sealed."""
    command = [sys.executable, "-m", "ledgerfsd.cli.main", "fsck", "--store", store]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def balance_of(ledger: Mounted) -> str:
    return str(ledger.balance("acc_002")["balance"])


def test_a_full_disk_turns_the_ledger_read_only(disk: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """Reads go on, nothing acknowledged is lost, and when there is room again a restart goes on."""
    store = create(disk / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
    daemon = daemons(store, "--segment-bytes", str(SEGMENT_BYTES)).start()
    ledger = with_accounts(daemon, tmp_path / "work")
    ballast = fill(disk)
    acknowledged, refused_with = commit_until_refused(ledger)
    assert acknowledged > 0
    assert refused_with in (errno.EROFS, errno.EIO)
    expected = f"{2 * acknowledged}.00"

    with pytest.raises(OSError, match="Read-only file system"):
        ledger.drop("later.json", pay(id="later"))
    assert ledger.shell("echo '{}' > $I/echo.json").returncode != 0
    assert balance_of(ledger) == expected
    assert ledger.transactions() == 1 + 200 * acknowledged
    last = (ledger / f"transactions/tx_{ledger.transactions():04}.json").read_bytes()
    assert json.loads(last)["id"] == f"full-{acknowledged - 1}-199"
    assert (ledger / ".ledgerfs/health").read_text().startswith("read-only: ")
    assert ledger.receipt("later.json")[0]["code"] == "read_only"

    daemon.stop()
    ballast.unlink()
    again = Mounted(daemon.start().path, ledger.work, daemon)
    assert (again / ".ledgerfs/health").read_text() == "ok\n"
    assert balance_of(again) == expected
    # What was refused was not booked; sent again it is, once.
    again.drop("later.json", pay(id="later"))
    for number in range(acknowledged + 1):
        intents = [pay("0.01", id=f"full-{number}-{item}", reference="x" * 200) for item in range(200)]
        again.drop(f"full-{number}.ndjson", lines(intents))
    assert balance_of(again) == f"{2 * acknowledged + 3}.00"
    assert daemon.stop() == 0
    fsck(store)


def test_a_store_that_does_not_fit_is_refused(disk: Path) -> None:
    """Creation fails with a reason; when there is room it is simply repeated."""
    with pytest.raises(StoreError, match="No space left on device"):
        create(disk / "store", LEDGER, segment_bytes=2 * DISK_BYTES)
    layout = create(disk / "store", LEDGER, segment_bytes=SEGMENT_BYTES)
    fsck(layout.root)


def test_a_restart_on_a_full_disk_still_reads(disk: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """Whoever restarts before making room can read, and loses nothing."""
    store = create(disk / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
    daemon = daemons(store, "--segment-bytes", str(SEGMENT_BYTES)).start()
    ledger = with_accounts(daemon, tmp_path / "work")
    ballast = fill(disk)
    acknowledged, _ = commit_until_refused(ledger)
    daemon.kill()
    with suppress(OSError), (disk / "rest").open("wb") as file:
        while file.write(bytes(65_536)):
            file.flush()
    again = Mounted(daemon.start().path, ledger.work, daemon)
    assert balance_of(again) == f"{2 * acknowledged}.00"
    assert (again / "transactions/tx_0001.json").read_bytes()
    daemon.stop()
    ballast.unlink()
    again = Mounted(daemon.start().path, ledger.work, daemon)
    again.drop("after.json", pay())
    assert daemon.stop() == 0
    fsck(store)


def test_a_failed_sync_turns_the_ledger_read_only(store: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """The first refusal says that the disk failed, the next ones that the ledger is read-only."""
    daemon = daemons(store).start()
    ledger = with_accounts(daemon, tmp_path / "work")
    ledger.drop("before.json", pay("5.00"))
    process = daemon.process
    assert process is not None
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-p", str(process.pid), "-o", str(trace), "-e", "trace=fdatasync"]
    tracer = subprocess.Popen([*command, "-e", "inject=fdatasync:error=EIO"], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    assert b"attached" in tracer.stderr.readline()
    time.sleep(0.2)
    with pytest.raises(OSError, match="Input/output error"):
        ledger.drop("during.json", pay("7.00"))
    with pytest.raises(OSError, match="Read-only file system"):
        ledger.drop("after.json", pay("9.00"))
    tracer.terminate()
    tracer.wait(30)
    tracer.stderr.close()
    assert "INJECTED" in trace.read_text()
    assert (ledger / ".ledgerfs/health").read_text().startswith("read-only: journal/")
    assert balance_of(ledger) == "5.00"
    assert ledger.receipt("during.json")[0]["code"] == "storage_error"
    with pytest.raises(OSError, match="Read-only file system"):  # a sync is never tried again
        ledger.drop("still.json", pay("9.00"))
    daemon.stop()
    again = Mounted(daemon.start().path, ledger.work, daemon)
    assert balance_of(again) == "5.00"
    again.drop("during.json", pay("7.00"))
    again.drop("after.json", pay("9.00"))
    assert balance_of(again) == "21.00"
    assert daemon.stop() == 0
    fsck(store)
