"""Checkpoints in folders kept elsewhere (service/anchors/), written by a real daemon on a real file system."""

from __future__ import annotations

import fcntl
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.errors import LedgerError
from ledgerfsd.journal.layout import create
from ledgerfsd.merkle import note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.service.anchors.folder import write
from ledgerfsd.service.anchors.kinds import AnchorError, Head, Unreachable
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import ACCOUNTS, lines, pay, until

GET_FLAGS, SET_FLAGS, IMMUTABLE = 0x80086601, 0x40086602, 0x10


def flags(path: Path) -> int:
    with path.open("rb") as file:
        return int(struct.unpack("l", fcntl.ioctl(file, GET_FLAGS, bytes(8)))[0])


def thaw(folder: Path) -> None:
    """Take the immutable attribute away again, so that the folder can be removed."""
    for path in folder.glob("*.checkpoint"):
        try:
            now = flags(path)
        except OSError:  # a file system without such attributes
            return
        with path.open("rb") as file:
            fcntl.ioctl(file, SET_FLAGS, struct.pack("l", now & ~IMMUTABLE))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "anchors"
    made.mkdir()
    yield made
    thaw(made)


@pytest.fixture
def daemon(fuse: None, tmp_path: Path, folder: Path) -> Iterator[Daemon]:
    """A ledger that anchors every second."""
    settings = tmp_path / "ledger.toml"
    settings.write_text(f'anchors = ["{folder}"]\nanchor_seconds = 1\nanchor_limit_seconds = 2\n')
    store = create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
    made = Daemon(store, tmp_path / "mount", ["--config", str(settings)]).start()
    yield made
    made.kill()


def drop(daemon: Daemon, name: str, text: str) -> None:
    (daemon.path / "inbox" / name).write_text(text)


def entries(daemon: Daemon) -> int:
    return int(json.loads((daemon.path / ".ledgerfs/status.json").read_text())["entries"])


def gauges(daemon: Daemon) -> dict[str, float]:
    text = (daemon.path / ".ledgerfs/metrics.prom").read_text()
    return {
        line.split()[0]: float(line.split()[1]) for line in text.splitlines() if "unanchored" in line and line[0] != "#"
    }


def health(daemon: Daemon) -> str:
    return (daemon.path / ".ledgerfs/health").read_text()


def ledgerfs(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ledgerfsd.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_checkpoints_are_anchored_and_a_rewritten_history_is_found(
    daemon: Daemon, folder: Path, tmp_path: Path
) -> None:
    drop(daemon, "open.ndjson", lines(ACCOUNTS))
    until(lambda: (folder / f"{entries(daemon):020}.checkpoint").exists())
    drop(daemon, "victim.json", json.dumps(pay("1.00", id="victim")))
    until(lambda: (folder / f"{entries(daemon):020}.checkpoint").exists())
    kept = sorted(folder.iterdir())
    assert len(kept) >= 2
    for path in kept:
        assert path.stat().st_mode & 0o222 == 0
    root = tmp_path / "trusted_root.json"
    shutil.copy(daemon.path / ".ledgerfs/trusted_root.json", root)
    assert daemon.stop() == 0
    done = ledgerfs("verify", "--store", daemon.store, "--anchor", folder, "--trusted-root", root)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} anchors agree" in done.stdout
    # An insider with the key makes a history with another amount, and signs it.
    forged = Daemon(create(tmp_path / "forged", LEDGER, segment_bytes=SEGMENT_BYTES).root, tmp_path / "mount2")
    shutil.copytree(daemon.store / "keys", forged.store / "keys")
    (forged.store / "keys/last-signed").unlink()
    forged.start()
    try:
        drop(forged, "open.ndjson", lines(ACCOUNTS))
        drop(forged, "victim.json", json.dumps(pay("99999.00", id="victim")))
        assert (forged.path / "log/checkpoint").read_bytes()
        assert forged.stop() == 0
    finally:
        forged.kill()
    assert ledgerfs("verify", "--store", forged.store).returncode == 0, "inside, all looks right"
    done = ledgerfs("verify", "--store", forged.store, "--anchor", folder, "--trusted-root", root)
    assert (done.returncode, "the history was rewritten" in done.stderr) == (4, True)


def test_a_folder_that_fails_is_tried_again_and_holds_nothing_up(daemon: Daemon, folder: Path) -> None:
    aside = folder.with_name("aside")
    folder.rename(aside)
    drop(daemon, "open.ndjson", lines(ACCOUNTS))
    until(lambda: "newest anchor" in health(daemon))
    for number in range(5):
        drop(daemon, f"{number}.json", json.dumps(pay()))
    behind = gauges(daemon)
    assert behind["ledgerfs_unanchored_entries"] >= 10
    assert behind["ledgerfs_unanchored_seconds"] > 0
    aside.rename(folder)
    until(lambda: (folder / f"{entries(daemon):020}.checkpoint").exists())
    until(lambda: health(daemon) == "ok\n")
    until(lambda: gauges(daemon)["ledgerfs_unanchored_entries"] == 0)
    assert gauges(daemon)["ledgerfs_unanchored_seconds"] == 0


def signed(size: int, root: bytes, signer: note.Signer) -> Head:
    return Head(size, root, note.sign(Checkpoint(LEDGER, size, root).body(), [signer]))


def test_what_is_there_is_never_touched(folder: Path) -> None:
    signer = note.generate(LEDGER)
    first = signed(7, bytes(32), signer)
    path = write(folder, first)
    assert write(folder, first) == path
    assert write(folder, signed(7, bytes(32), note.generate(LEDGER))) == path, "the same tree, signed by another key"
    with pytest.raises(AnchorError, match="two histories"):
        write(folder, signed(7, b"\1" * 32, signer))
    assert path.read_bytes() == first.data
    thaw(folder)
    path.chmod(0o644)
    path.write_bytes(first.data[:20])
    with pytest.raises(Unreachable, match="is no checkpoint"):
        write(folder, first)
    with pytest.raises((OSError, LedgerError)):
        write(folder / "absent", first)


def test_where_it_can_be_a_file_is_immutable(folder: Path) -> None:
    """On ext4, xfs and btrfs, as root; elsewhere the mode has to do."""
    path = write(folder, signed(7, bytes(32), note.generate(LEDGER)))
    try:
        immutable = bool(flags(path) & IMMUTABLE)
    except OSError:
        immutable = False
    if immutable:
        with pytest.raises(PermissionError):
            path.unlink()
    assert path.stat().st_mode & 0o777 == 0o444
