"""Section 10 of docs/SEMANTICS.md, and who may do what: daemons that are stopped, killed, and run out of disk."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledgerfsd.merkle import balance_proof
from ledgerfsd.service.keys import parse_trusted_root
from tests.conftest import READY_SECONDS, REPOSITORY, Daemon
from tests.fuse.conftest import Mounted, lines, pay, until, with_accounts

GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT, errno.EIO)


def drop_until_it_fails(ledger: Mounted, writer: int, acknowledged: list[str], failed: list[tuple[str, int]]) -> None:
    """Single intents, one after the other."""
    for number in range(100_000):
        name = f"stop-{writer}-{number}.json"
        try:
            ledger.drop(name, pay("0.01", reference=name))
        except OSError as error:
            failed.append((name, error.errno or 0))
            return
        acknowledged.append(name)


def references(ledger: Mounted) -> list[str]:
    """What was booked on acc_002."""
    text = (ledger / "accounts/acc_002/tx.log").read_text()
    return [json.loads(line).get("reference", "") for line in text.splitlines()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_there(ledger: Mounted, daemons: Callable[..., Daemon], how: signal.Signals) -> None:
    """Stopped or killed under load; and the same files again are booked once. SEMANTICS 10.4"""
    acknowledged: list[str] = []
    failed: list[tuple[str, int]] = []
    writers = [
        threading.Thread(target=drop_until_it_fails, args=(ledger, number, acknowledged, failed)) for number in range(8)
    ]
    for writer in writers:
        writer.start()
    until(lambda: len(acknowledged) >= 200)
    process = ledger.daemon.process
    assert process is not None
    process.send_signal(how)
    assert process.wait(READY_SECONDS) == (0 if how is signal.SIGTERM else -how)
    if how is signal.SIGKILL:
        ledger.daemon.detach()
    for writer in writers:
        writer.join(READY_SECONDS)
        assert not writer.is_alive()
    assert len(failed) == 8
    assert {number for _, number in failed} <= set(GONE)
    again = Mounted(daemons(ledger.daemon.store).start().path, ledger.work, ledger.daemon)
    booked = references(again)
    assert sorted(set(acknowledged) - set(booked)) == []
    names = [*acknowledged, *(name for name, _ in failed)]
    for name in names:
        again.drop(name, pay("0.01", reference=name))
    booked = references(again)
    assert sorted(name for name in booked if name) == sorted(names)


def test_requests_begun_are_answered(ledger: Mounted) -> None:
    """A writer whose lines are on their way when SIGTERM comes. SEMANTICS 10.4"""
    many = lines([pay("0.01")] * 5_000).encode()
    fd = os.open(ledger / "inbox/last.ndjson", os.O_WRONLY | os.O_CREAT)
    answers: list[int] = []

    def write() -> None:
        try:
            answers.append(os.write(fd, many))
        except OSError as error:
            answers.append(-(error.errno or 0))

    thread = threading.Thread(target=write)
    thread.start()
    process = ledger.daemon.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    thread.join(READY_SECONDS)
    assert process.wait(READY_SECONDS) == 0
    with pytest.raises(OSError, match="not connected|abort"):
        os.close(fd)
    # Either it came in time and was taken, or too late and the kernel said so.
    assert answers[0] == len(many) or -answers[0] in GONE


def test_a_disk_that_fails(ledger: Mounted) -> None:
    """What commits fails, reading goes on, and nothing acknowledged is lost. SEMANTICS 10.3"""
    ledger.drop("before.ndjson", lines([pay("0.01")] * 400 + [pay(reference="before")]))
    before = ledger.balance("acc_001")
    process = ledger.daemon.process
    assert process is not None
    # From here on the kernel refuses every write of the daemon behind the first 64 KiB of a file (EFBIG).
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match="Input/output|Read-only") as error:
        ledger.drop("during.json", pay())
    assert error.value.errno in (errno.EIO, errno.EROFS)
    for name in ("after.json", "after.ndjson"):
        with pytest.raises(OSError, match="Read-only"):
            ledger.drop(name, pay())
    assert (ledger / ".ledgerfs/health").read_text().startswith("read-only: ")
    assert ledger.receipt("after.json")[0]["code"] == "read_only"
    assert ledger.status()["health"] == "read-only"
    assert ledger.balance("acc_001") == before
    # The newest sealed state can be proved. SEMANTICS 2.15
    root = parse_trusted_root((ledger / ".ledgerfs/trusted_root.json").read_bytes(), "the mount")
    proof = (ledger / "accounts/acc_001/proof.json").read_bytes()
    assert balance_proof.verify(proof, root.ledger, [key.verifier for key in root.keys]).account.name == "acc_001"
    assert b'"before"' in (ledger / "accounts/acc_001/tx.log").read_bytes()


def test_who_may_enter(ledger: Mounted, daemons: Callable[..., Daemon], store: Path) -> None:
    """SEMANTICS 9.4"""
    for name, mode in (("README.txt", 0o444), ("accounts", 0o555), ("accounts/acc_001/tx.log", 0o444), ("inbox", 0o775),
                       ("inbox/atomic", 0o775), ("inbox/accounts.ndjson", 0o644)):  # fmt: skip
        found = (ledger / name).stat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    if os.getuid():
        return  # only root can become somebody else
    nobody, group = 65534, 4711
    for directory in [ledger.path, *ledger.path.parents][: len(ledger.path.parts) - 2]:
        if directory != ledger.path:
            directory.chmod(0o755)
    assert _as(nobody, nobody, f"ls {ledger.path}") != 0
    assert ledger.daemon.stop() == 0
    os.setregid(group, group)
    try:
        daemon = daemons(store, "--allow-other").start()
    finally:
        os.setregid(0, 0)
    again = with_accounts(daemon, ledger.work)
    assert _as(nobody, nobody, f"cat {again / 'accounts/acc_001/balance.json'}") == 0
    assert _as(nobody, nobody, f"cp {again / 'README.txt'} {again / 'inbox/x.json'}") != 0
    assert not (again / "inbox/x.json").exists()
    (ledger.work / "p.json").write_text(json.dumps(pay(reference="a member")))
    assert _as(nobody, group, f"cp -p {ledger.work / 'p.json'} {again / 'inbox/m.json'}") == 0
    assert (again / "inbox/m.json").stat().st_uid == nobody
    assert again.receipt("m.json")[0]["code"] == "ok"


def _as(user: int, group: int, command: str) -> int:
    return subprocess.run(
        ["sh", "-c", command], user=user, group=group, extra_groups=[], capture_output=True, check=False
    ).returncode


WITHOUT_NAMES_ONLY = """
import sys
from ledgerfsd.vfs import entries
entries.AVAILABLE = False
from ledgerfsd.daemon import main
sys.exit(main(sys.argv[1:]))
"""


def test_listings_with_another_pyfuse3(store: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """If names alone cannot be listed, they come with their attributes, and are forgotten again. SEMANTICS 2.9"""
    daemon = daemons(store)
    command = [sys.executable, "-c", WITHOUT_NAMES_ONLY, "--store", store, "--mount", daemon.path]
    daemon.process = subprocess.Popen(command, cwd=REPOSITORY)
    while not (daemon.path / ".ledgerfs").exists():
        assert daemon.process.poll() is None
        time.sleep(0.02)
    ledger = with_accounts(daemon, tmp_path / "work")
    ledger.drop("many.ndjson", lines([pay("0.01")] * 3000))
    expected = [f"tx_{number:04}.json" for number in range(1, ledger.transactions() + 1)]
    for _ in range(3):
        assert sorted(os.listdir(ledger / "transactions"), key=lambda name: (len(name), name)) == expected
        for where, directories, names in os.walk(ledger.path):
            for name in directories + names:
                assert os.lstat(os.path.join(where, name)).st_ino
    before = ledger.balance("acc_001")
    ledger.drop("one.json", pay("0.01"))
    assert ledger.balance("acc_001") != before
    assert daemon.stop() == 0
