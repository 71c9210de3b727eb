"""`ledgerfs signer` as a user of its own: checkpoints come out, and the daemon's user cannot read the key (SEMANTICS 10.9)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledgerfsd.journal.layout import create
from ledgerfsd.service.keys import parse_trusted_root
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon

SIGNER_USER = 65_533  # of nothing else
DAEMON_USER = 65_534  # nobody: fusermount3 wants a user with a name
WAIT_SECONDS = 60
# Everything is imported before the user is changed: checkout and interpreter may be where only root can enter.
AS_USER = """\
import os, sys, encodings.ascii, encodings.idna, encodings.latin_1
import ledgerfsd.daemon, ledgerfsd.cli.main, ledgerfsd.service.signer_socket, ledgerfsd.state.verify
user, program, *arguments = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
os.chdir("/")
sys.exit((ledgerfsd.daemon.main if program == "ledgerfsd" else ledgerfsd.cli.main.main)(arguments))
"""


def command(user: int, *arguments: object) -> list[str]:
    return [sys.executable, "-c", AS_USER, str(user), *map(str, arguments)]


def until(holds: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def as_user(user: int, *words: object) -> subprocess.CompletedProcess[bytes]:
    """A program of the system, as that user."""
    return subprocess.run(
        [str(word) for word in words],
        user=user,
        group=user,
        extra_groups=[],
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that all users can enter: pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="ledgerfs-signer-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def signer(place: Path, user: int) -> Iterator[Path]:
    """A signer of its own user, for ``user``; its socket."""
    home, log = place / "signer", place / "signer.log"
    if not home.exists():
        home.mkdir()
        os.chown(home, SIGNER_USER, SIGNER_USER)
    path = home / "socket"
    words = command(SIGNER_USER, "ledgerfs", "signer", "--keys", home / "keys", "--listen", path, "--user", user)
    with log.open("ab") as file:
        process = subprocess.Popen([*words, "--ledger", LEDGER], cwd=REPOSITORY, stdout=file, stderr=file)
    try:
        until(lambda: "signing" in log.read_text() and path.exists(), log)
        yield path
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0, log.read_text()
        assert not path.exists()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def first_line(path: Path, user: int) -> dict[str, object]:
    """What the signer says to whoever connects as that user."""
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.makefile().readline())"
    )
    done = as_user(user, "/usr/bin/python3", "-c", script, path)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_mount_asks_the_signer_of_another_user(daemons: Callable[..., Daemon], place: Path, store: Path) -> None:
    """SEMANTICS 10.9"""
    with signer(place, 0) as path:
        keys = place / "signer" / "keys"
        daemon = daemons(store, "--keys", str(keys), "--signer", str(path)).start()
        assert not (store / "keys").exists()
        (private,) = keys.glob("*.key")
        assert (private.stat().st_uid, private.stat().st_mode & 0o777) == (SIGNER_USER, 0o600)
        root = parse_trusted_root((daemon.path / ".ledgerfs/trusted_root.json").read_bytes(), "the mount")
        first = root.verify((daemon.path / "log/checkpoint").read_bytes())
        # Root rotates for the signer's user, who must be able to use the new key.
        words = [sys.executable, "-m", "ledgerfsd.cli.main", "key", "rotate", "--store", store, "--keys", keys]
        assert subprocess.run(words, cwd=REPOSITORY, check=False, capture_output=True).returncode == 0
        assert {each.stat().st_uid for each in keys.glob("*")} == {SIGNER_USER}
        root = parse_trusted_root((daemon.path / ".ledgerfs/trusted_root.json").read_bytes(), "the mount")
        assert [key.status for key in root.keys] == ["retiring", "active"]
        assert root.verify((daemon.path / "log/checkpoint").read_bytes()).size > first.size
        # Nobody else is answered, and no second daemon either.
        assert "signs for user 0, not for user 65534" in str(first_line(path, DAEMON_USER)["error"])
        assert "for another daemon already" in str(first_line(path, 0)["error"])
    # It has gone: commits go on, checkpoints wait; and with the signer they come back.
    (daemon.path / "inbox/a.json").write_text('{"type":"open_account","account":"a","currency":"EUR","class":"equity"}')
    with pytest.raises(OSError, match="Input/output error"):
        (daemon.path / "log/checkpoint").read_bytes()
    assert "no checkpoints can be signed" in (daemon.path / ".ledgerfs/health").read_text()
    with signer(place, 0):
        until(lambda: (daemon.path / ".ledgerfs/health").read_text() == "ok\n", daemon.log)
        assert root.verify((daemon.path / "log/checkpoint").read_bytes()).size > first.size
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text()


IN_A_ROOM_OF_ITS_OWN = """\
import subprocess, sys
words = sys.argv[1:]
place, user = words[0], int(words[1])
# The device is root's alone on some machines: here, and only here, every user may mount.
for command in (["mount", "-t", "tmpfs", "-o", "mode=755", "none", place + "/room"], ["mknod", place + "/room/fuse", "c", "10", "229"],
                ["chmod", "666", place + "/room/fuse"], ["mount", "--bind", place + "/room/fuse", "/dev/fuse"]):
    subprocess.run(command, check=True)
daemon = subprocess.Popen(words[2:], stdout=sys.stderr)
def read(path):
    return subprocess.run(["cat", path], user=user, group=user, extra_groups=[], capture_output=True)
import time, json, glob
found, deadline = None, time.monotonic() + 60
while not (found and found.returncode == 0) and daemon.poll() is None and time.monotonic() < deadline:
    found = read(place + "/mount/log/checkpoint")
    time.sleep(0.05)
root = read(place + "/mount/.ledgerfs/trusted_root.json")
(key,) = glob.glob(place + "/signer/keys/*.key")
secret = read(key)
status = open(f"/proc/{daemon.pid}/status").read() if daemon.poll() is None else ""
daemon.terminate()
print(json.dumps({"code": daemon.wait(30), "checkpoint": found.stdout.decode(), "root": root.stdout.decode(),
                  "secret": secret.stdout.decode(), "why": secret.stderr.decode(), "status": status}))
"""


def test_the_user_of_the_daemon_cannot_read_the_key(fuse: None, place: Path) -> None:
    """SEMANTICS 10.9"""
    (place / "room").mkdir()
    for name in ("home", "mount"):
        (place / name).mkdir()
        os.chown(place / name, DAEMON_USER, DAEMON_USER)
    store = create(place / "home/store", LEDGER, segment_bytes=SEGMENT_BYTES).root
    for path in (store, *store.rglob("*")):
        os.chown(path, DAEMON_USER, DAEMON_USER)
    with signer(place, DAEMON_USER) as path:
        options = ("--keys", place / "signer/keys", "--signer", path)
        daemon = command(DAEMON_USER, "ledgerfsd", "--store", store, "--mount", place / "mount", *options)
        words = [
            "unshare",
            "--mount",
            sys.executable,
            "-c",
            IN_A_ROOM_OF_ITS_OWN,
            str(place),
            str(DAEMON_USER),
            *daemon,
        ]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["code"] == 0, done.stderr
    assert f"\nUid:\t{DAEMON_USER}\t{DAEMON_USER}\t" in found["status"]
    assert parse_trusted_root(found["root"].encode(), "the mount").verify(found["checkpoint"].encode()).size >= 4
    assert found["secret"] == ""
    assert "Permission denied" in found["why"]


def test_a_signer_says_what_is_wrong(place: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "ledgerfsd.cli.main",
        "signer",
        "--keys",
        tmp_path / "keys",
        "--listen",
        tmp_path / "s",
    ]

    def said(*more: object) -> tuple[int, str]:
        done = subprocess.run(
            [*map(str, words), *map(str, more)], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert "give --ledger ORIGIN" in said()[1]
    assert "no user 'not-there'" in said("--ledger", LEDGER, "--user", "not-there")[1]
    (tmp_path / "s").write_text("x")
    code, text = said("--ledger", LEDGER)
    assert (code, text.splitlines()[-1]) == (3, f"ledgerfs: {tmp_path}/s is there already and is no socket")
    (tmp_path / "s").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        assert "another signer listens" in said()[1]
