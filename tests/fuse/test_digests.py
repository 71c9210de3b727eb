"""``digests/`` in the mount, on a real daemon that issues one every second."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.journal.layout import create
from ledgerfsd.merkle import checkpoint, note
from ledgerfsd.service.keys import parse_trusted_root
from tests.conftest import LEDGER, SEGMENT_BYTES, Daemon
from tests.fuse.anchor_servers import status
from tests.fuse.conftest import ACCOUNTS, lines, pay, until
from tests.fuse.test_anchoring import drop, health, ledgerfs, thaw


@pytest.fixture
def make(fuse: None, tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """``make(settings)`` starts a daemon with these settings."""
    made: list[Daemon] = []

    def start(settings: str) -> Daemon:
        path = tmp_path / "ledger.toml"
        path.write_text("anchor_seconds = 1\nanchor_limit_seconds = 2\n" + settings)
        store = create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
        made.append(Daemon(store, tmp_path / "mount", ["--config", str(path)]).start())
        return made[-1]

    yield start
    for daemon in made:
        daemon.kill()
        assert "Traceback" not in daemon.log.read_text()


def latest(daemon: Daemon) -> Path:
    """The directory of the newest digest."""
    return daemon.path / "digests" / os.readlink(daemon.path / "digests/latest")


def digest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "digest.json").read_text())
    return found


def wait_for(daemon: Daemon, text: str) -> Path:
    """Commit, and wait until a digest speaks of the whole log."""
    drop(daemon, f"{time.monotonic_ns()}.ndjson", text)
    until((daemon.path / "digests/latest").exists)
    until(lambda: latest(daemon).name == str(status(daemon.path)["entries"]))
    return latest(daemon)


@pytest.mark.slow
def test_a_digest_is_issued_when_the_log_has_grown_and_not_else(make: Callable[[str], Daemon]) -> None:
    """SEMANTICS 11.1, SEMANTICS 11.2, SEMANTICS 11.4"""
    daemon = make("")
    until((daemon.path / "digests/latest").exists)
    path = wait_for(daemon, lines(ACCOUNTS))
    trusted = parse_trusted_root((daemon.path / ".ledgerfs/trusted_root.json").read_bytes(), "root")
    head = trusted.verify((path / "checkpoint").read_bytes())
    assert str(head.size) == path.name
    found = digest(path)
    assert (found["ledger"], found["size"], found["root"], found["anchors"]) == (LEDGER, head.size, head.root.hex(), [])
    assert sorted(each.name for each in path.iterdir()) == ["checkpoint", "digest.json"]
    before = sorted(each.name for each in (daemon.path / "digests").iterdir())
    issued = status(daemon.path)["digest"]["time"]
    time.sleep(2.5)  # two intervals without an entry
    assert sorted(each.name for each in (daemon.path / "digests").iterdir()) == before
    assert status(daemon.path)["digest"]["time"] == issued
    newer = wait_for(daemon, lines([pay()]))
    assert int(newer.name) > int(path.name)
    assert trusted.verify((path / "checkpoint").read_bytes()) == head, "the older one stays"
    for name in ("0", "1", f"0{newer.name}", "99999999", "x"):
        assert not (daemon.path / "digests" / name).exists()
    for attempt in (
        lambda: (newer / "checkpoint").write_text("x"),
        (newer / "new").mkdir,
        (newer / "checkpoint").unlink,
    ):
        with pytest.raises(OSError, match="Read-only"):
            attempt()


def test_programs_that_copy(make: Callable[[str], Daemon], tmp_path: Path) -> None:
    """`latest` is a link, for cat, rsync and tar. SEMANTICS 11.3"""
    daemon = make("")
    path = wait_for(daemon, lines(ACCOUNTS))
    link = daemon.path / "digests/latest"
    assert stat.S_ISLNK(os.lstat(link).st_mode)
    assert os.lstat(link).st_size == len(path.name)
    assert {each.name: each.is_symlink() for each in os.scandir(daemon.path / "digests")}["latest"]
    shown = subprocess.run(["cat", link / "checkpoint"], check=True, capture_output=True).stdout
    assert shown == (path / "checkpoint").read_bytes()
    for name, command in {
        "rsync": ["rsync", "-a", f"{daemon.path}/digests/", tmp_path / "rsync"],
        "cp": ["cp", "-a", daemon.path / "digests", tmp_path / "cp"],
        "tar": ["bash", "-c", f"mkdir {tmp_path}/tar && tar -C {daemon.path}/digests -c . | tar -C {tmp_path}/tar -x"],
    }.items():
        subprocess.run(command, check=True, capture_output=True)
        copy = tmp_path / name / "latest"
        assert copy.is_symlink(), name
        assert (copy / "checkpoint").read_bytes() == shown, name
    again = wait_for(daemon, lines([pay()]))
    assert again != path
    assert (link / "checkpoint").read_bytes() == (again / "checkpoint").read_bytes()
    with pytest.raises(OSError, match="Read-only"):
        (daemon.path / "digests/other").symlink_to("latest")


@pytest.mark.slow
def test_digests_survive_a_restart(make: Callable[[str], Daemon], tmp_path: Path) -> None:
    """Also what anchors gave, and how it stands with them. SEMANTICS 11.4"""
    folder = tmp_path / "kept"
    folder.mkdir()
    daemon = make(f'[[anchors]]\nkind = "folder"\nname = "kept"\npath = "{folder}"\n')
    try:
        path = wait_for(daemon, lines(ACCOUNTS))
        until(lambda: digest(path)["anchors"][0]["outcome"] == "anchored")

        def state() -> dict[str, tuple[int, int, bytes]]:
            files = [each for each in (daemon.path / "digests").rglob("*") if each.is_file()]
            return {str(each): (each.stat().st_ino, each.stat().st_mtime_ns, each.read_bytes()) for each in files}

        before = state()
        (shown,) = digest(path)["anchors"]
        assert (shown["kind"], shown["name"], shown["where"]) == ("folder", "kept", str(folder))
        assert (shown["retries"], shown["size"], len(shown["hash"])) == (0, int(path.name), 64)
        assert daemon.stop() == 0
        store = (daemon.store / "digests").glob("*.ndjson")
        with next(iter(store)).open("ab") as file:
            file.write(b'{"t":"digest/1","size":')  # a crash while a line was being written
        daemon.start()
        assert state() == before
        (standing,) = status(daemon.path)["anchors"]
        assert (standing["size"], standing["failure"]) == (int(path.name), None)
        newer = wait_for(daemon, lines([pay()]))
        until(lambda: digest(newer)["anchors"][0]["outcome"] == "anchored")
        assert len(list(folder.iterdir())) == len(before) // 2 + 1
        listed = ledgerfs("digest", "list", "--mount", daemon.path, "--json")
        assert [each["size"] for each in json.loads(listed.stdout)] == sorted(
            int(each.name) for each in (daemon.path / "digests").iterdir() if each.name != "latest"
        )
        shown = json.loads(ledgerfs("digest", "show", "--mount", daemon.path, "--json").stdout)
        assert shown == digest(newer)
        assert daemon.stop() == 0
        stored = ledgerfs("digest", "show", path.name, "--store", daemon.store)
        assert f"{path.name} entries" in stored.stdout
        assert "kept" in stored.stdout
        assert ledgerfs("digest", "show", "7777777", "--store", daemon.store).returncode == 1
        daemon.start()
    finally:
        thaw(folder)


def test_what_cannot_be_kept_is_said(make: Callable[[str], Daemon]) -> None:
    """A store in which no digest can be written; commits go on. SEMANTICS 11.5"""
    daemon = make("")
    wait_for(daemon, lines(ACCOUNTS))
    (file,) = (daemon.store / "digests").iterdir()
    aside = file.read_bytes()
    file.unlink()
    file.mkdir()
    drop(daemon, "x.json", json.dumps(pay()))
    until(lambda: "digests are not written" in health(daemon))
    file.rmdir()
    file.write_bytes(aside)
    until(lambda: health(daemon) == "ok\n")
    head = checkpoint.parse(note.parse((latest(daemon) / "checkpoint").read_bytes()).text)
    assert head.size == status(daemon.path)["entries"]


def test_every_digest_is_a_snapshot(make: Callable[[str], Daemon]) -> None:
    """Listed in ``snapshots/`` and of every account since it was opened; oldest first, behind the other names.
    SEMANTICS 12.2, SEMANTICS 2.5"""
    daemon = make("")
    wait_for(daemon, lines(ACCOUNTS))
    (daemon.path / "snapshots/named").mkdir()
    for number in range(3):
        wait_for(daemon, lines([pay("1.00")]))
        if number == 1:
            late = {"type": "open_account", "account": "late", "currency": "EUR", "class": "clearing"}
            drop(daemon, "late.ndjson", lines([late]))
    sizes = sorted(int(name) for name in os.listdir(daemon.path / "digests") if name != "latest")
    assert len(sizes) >= 4
    opened = int(json.loads((daemon.path / "accounts/late/account.json").read_bytes())["opened_index"])
    copied = False
    for _ in range(2):
        listed = os.listdir(daemon.path / "snapshots")
        assert listed == ["effective", "named", *(f"digest-{size}" for size in sizes)]
        late_ones = [name for name in os.listdir(daemon.path / "accounts/late/snapshots") if name.startswith("digest-")]
        assert late_ones == [f"digest-{size}.json" for size in sizes if size > opened]
        for size in sizes:
            directory = daemon.path / f"snapshots/digest-{size}"
            assert json.loads((directory / "point.json").read_bytes())["size"] == size
            for name in os.listdir(directory / "accounts"):
                alone = daemon.path / f"accounts/{name}/snapshots/digest-{size}.json"
                assert alone.read_bytes() == (directory / f"accounts/{name}/balance.json").read_bytes()
        copy = ["rsync", "-a", "--itemize-changes", f"{daemon.path}/snapshots/", f"{daemon.store}.copy/"]
        first, second = (
            subprocess.run(copy, capture_output=True, text=True, check=True, timeout=60).stdout for _ in "12"
        )
        assert ("digest-" in first) == (not copied)
        assert "digest-" not in second
        copied = True
        assert daemon.stop() == 0
        daemon.start()
