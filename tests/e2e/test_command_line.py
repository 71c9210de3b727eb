"""The two programs as a user runs them, on a real mount."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledgerfsd import mounts
from tests.conftest import READY_SECONDS, REPOSITORY, Daemon

Ran = subprocess.CompletedProcess[str]
EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """``ledgerfs`` in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEDGERFS_")}
    environment["PYTHONPATH"] = str(REPOSITORY)

    def call(*arguments: object, code: int | None = 0, data: str = "", **more: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "ledgerfsd.cli.main", *map(str, arguments)],
            cwd=tmp_path, env=environment | more, input=data, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        if code is not None:
            assert done.returncode == code, done.stderr + done.stdout
        return done

    return call


@pytest.fixture
def place(fuse: None, tmp_path: Path) -> Iterator[Path]:
    """Where the tests of ``mount`` mount; it is freed whatever happens."""
    path = tmp_path / "with space"
    yield path
    if mounts.at(path):
        mounts.unmount(path, lazy=True)


@pytest.fixture
def ledger(mounted: Daemon, run: Callable[..., Ran]) -> Path:
    """A mounted ledger with the accounts of the demo."""
    run("submit", "--mount", mounted.path, "--quiet", EXAMPLES / "demo" / "accounts.ndjson")
    return mounted.path


# -- mount, umount, status


def test_mount_status_umount_and_again(run: Callable[..., Ran], store: Path, place: Path) -> None:
    for _ in range(3):
        done = run("mount", "--store", store, "--mount", place)
        assert f"mounted at {place} (process " in done.stdout
        status = json.loads(run("status", "--mount", place, "--json").stdout)
        assert status["healthy"] is True
        assert status["entries"] == 4  # genesis and, since the first mount, the key
        assert "health          ok" in run("status", "--mount", place).stdout
        assert run("umount", place).stdout == f"unmounted {place}\n"
        assert mounts.at(place) is None
        # It has finished: the store is free at once.
        assert run("fsck", "--store", store, "--quick").stdout.startswith("quickly checked")
    assert "Traceback" not in (store / "daemon.log").read_text()


def test_mount_reports_what_the_daemon_died_of(run: Callable[..., Ran], store: Path, place: Path) -> None:
    place.mkdir()
    (place / "mine.txt").touch()
    done = run("mount", "--store", store, "--mount", place, code=1)
    assert done.stderr == f"ledgerfs: {place} is not empty; choose an empty directory to mount on\n"
    segment = next((store / "journal").glob("*.seg"))
    segment.write_bytes(b"\0\x05hello" + bytes(100))
    done = run("mount", "--store", store, "--mount", place / "inside", code=None)
    assert done.returncode in (3, 4)
    assert segment.name in done.stderr


def test_store_and_mount_point_are_used_once(run: Callable[..., Ran], mounted: Daemon, place: Path) -> None:
    assert mounted.process is not None
    done = run("mount", "--store", mounted.store, "--mount", place, code=3)
    assert f"in use by process {mounted.process.pid}" in done.stderr


def test_mount_point_in_use(run: Callable[..., Ran], mounted: Daemon, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run("init", "--store", other, "--ledger", "other.example", "--segment-bytes", 2**20)
    done = run("mount", "--store", other, "--mount", mounted.path, code=1)
    assert "mounted" in done.stderr
    assert "already" in done.stderr


def test_dead_daemon_is_noticed_and_cleared_away(run: Callable[..., Ran], mounted: Daemon) -> None:
    assert mounted.process is not None
    mounted.process.kill()
    mounted.process.wait()
    done = run("status", "--mount", mounted.path, code=3)
    assert "is dead" in done.stderr
    assert run("umount", mounted.path).stdout == f"unmounted {mounted.path} (its daemon was dead already)\n"
    assert mounts.at(mounted.path) is None


def test_mount_over_a_dead_mount(run: Callable[..., Ran], mounted: Daemon) -> None:
    assert mounted.process is not None
    mounted.process.kill()
    mounted.process.wait()
    run("mount", "--store", mounted.store, "--mount", mounted.path)
    run("umount", mounted.path)


def test_busy_mount_names_who_uses_it(run: Callable[..., Ran], mounted: Daemon) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=mounted.path) as user:
        try:
            done = run("umount", mounted.path, code=1)
            assert f"is in use by sleep ({user.pid})" in done.stderr
            assert mounts.answers(mounted.path)
        finally:
            user.kill()
    run("umount", mounted.path)
    assert mounted.process is not None
    assert mounted.process.wait(READY_SECONDS) == 0


def test_foreground_is_the_daemon_itself(store: Path, place: Path) -> None:
    command = [sys.executable, "-m", "ledgerfsd.cli.main", "mount", "--foreground", "--store", store, "--mount", place]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "mounted" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 0
    assert "stopped" in rest
    assert mounts.at(place) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_cleanly_and_save(daemons: Callable[..., Daemon], store: Path, number: signal.Signals) -> None:
    daemon = daemons(store, "--log-format", "json").start()
    assert daemon.process is not None
    (daemon.path / "inbox" / "a.json").write_text(
        '{"type":"open_account","account":"a","currency":"EUR","class":"equity"}'
    )
    daemon.process.send_signal(number)
    assert daemon.process.wait(60) == 0
    daemon.start()
    assert daemon.stop() == 0
    recovered = [json.loads(line) for line in daemon.log.read_text().splitlines() if '"recovered"' in line]
    assert [(found["entries"], found["replayed"]) for found in recovered] == [(2, 2), (6, 0)]


def test_configuration_file(
    daemons: Callable[..., Daemon], run: Callable[..., Ran], store: Path, tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('log_format = "json"\nlog_level = "debug"\nsegment_bytes = 1048576\n')
    daemon = daemons(store, "--config", str(config)).start()
    assert daemon.stop() == 0
    assert all(json.loads(line)["event"] for line in daemon.log.read_text().splitlines())
    config.write_text("mountpont = 'x'")
    done = run("mount", "--store", store, "--mount", tmp_path / "m", "--config", config, code=2)
    assert "unknown setting 'mountpont'; did you mean 'mountpoint'?" in done.stderr


# -- submit


def test_submit_and_read_back(run: Callable[..., Ran], ledger: Path) -> None:
    usual = {"LEDGERFS_MOUNT": str(ledger)}
    assert run("submit", EXAMPLES / "deposit.json", **usual).stdout == "deposit.json: 1 committed (tx_0003)\n"
    assert run("submit", EXAMPLES / "deposit.json", **usual).stdout == "deposit.json: 1 duplicate (tx_0003)\n"
    done = run("submit", EXAMPLES / "too-much.json", code=1, **usual)
    assert "line 1: insufficient_funds: the available balance does not cover the amount" in done.stdout
    lines = run("balance", "acc_001", "acc_002", **usual).stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["acc_001", "EUR", "350.00", "350.00", "0.00"],
        ["acc_002", "EUR", "0.00", "0.00", "0.00"],
    ]
    (found,) = json.loads(run("balance", "acc_001", "--json", **usual).stdout)
    assert found["balance"] == "350.00"
    history = run("history", "acc_001", **usual).stdout.splitlines()
    assert [line.split()[2:] for line in history[1:]] == [
        ["account"],
        ["tx_0001", "opening", "100.00", "100.00"],
        ["tx_0003", "250.00", "350.00", "bank", "deposit"],
    ]
    last = json.loads(run("history", "acc_001", "--limit", 1, "--json", **usual).stdout)
    assert (last["what"], last["credit"], last["balance"]) == ("tx_0003", "250.00", "350.00")
    assert run("history", "acc_001", "--to", "2020-01-01", "--json", **usual).stdout == ""


def test_submit_of_standard_input(run: Callable[..., Ran], ledger: Path) -> None:
    intent = '{"debit":"safeguarding_eur","credit":"acc_001","amount":"1.00"}'
    done = run("submit", "-", "--mount", ledger, data=intent, code=1)
    assert "standard input has no name" in done.stderr
    run("submit", "-", "--name", "x.json", "--mount", ledger, data=intent)
    assert "nothing to submit" in run("submit", "-", "--name", "y.json", "--mount", ledger, code=1).stderr
    assert "ends in .json" in run("submit", "-", "--name", "y.txt", "--mount", ledger, data=intent, code=1).stderr


def test_submit_goes_on_after_a_refused_line(run: Callable[..., Ran], ledger: Path) -> None:
    good = '{"debit":"safeguarding_eur","credit":"acc_001","amount":"0.01"}\n'
    bad = '{"debit":"acc_002","credit":"acc_001","amount":"5.00"}\n'
    data = good * 40_000 + bad * 12 + good * 40_000
    done = run("submit", "-", "--name", "many.ndjson", "--mount", ledger, "--json", data=data, code=1)
    found = json.loads(done.stdout)
    assert (found["committed"], found["refused"], len(found["refusals"])) == (80_000, 12, 10)
    assert found["refusals"][0]["line"] == 40_001
    again = json.loads(
        run("submit", "-", "--name", "many.ndjson", "--mount", ledger, "--json", data=data, code=1).stdout
    )
    assert (again["duplicate"], again["refused"]) == (80_000, 12)
    assert json.loads(run("balance", "acc_001", "--mount", ledger, "--json").stdout)[0]["balance"] == "900.00"


def test_submit_dry_run_and_atomic(run: Callable[..., Ran], ledger: Path) -> None:
    good = '{"debit":"acc_001","credit":"acc_002","amount":"1.00"}\n'
    bad = '{"debit":"acc_001","credit":"acc_002","amount":"1.0"}\n'
    done = run("submit", "-", "--name", "a.ndjson", "--dry-run", "--mount", ledger, data=good + bad, code=1)
    assert done.stdout.startswith("a.ndjson: 1 accepted, 1 refused\n")
    done = run("submit", "-", "--name", "b.ndjson", "--atomic", "--mount", ledger, data=good + bad, code=1)
    assert done.stdout.startswith("b.ndjson: 2 refused\n")
    assert "line 2: wrong_decimals" in done.stdout
    done = run("submit", "-", "--name", "c.ndjson", "--atomic", "--mount", ledger, data=good + good)
    assert done.stdout == "c.ndjson: 2 committed (tx_0003 to tx_0004)\n"
    assert "--atomic is for .ndjson" in run("submit", "--atomic", "x.json", "--mount", ledger, code=1).stderr


def test_pipe_that_closes_early_is_no_error(run: Callable[..., Ran], ledger: Path) -> None:
    good = '{"debit":"safeguarding_eur","credit":"acc_001","amount":"0.01"}\n'
    run("submit", "-", "--name", "many.ndjson", "--mount", ledger, "--quiet", data=good * 5000)
    command = f"{sys.executable} -m ledgerfsd.cli.main history acc_001 --json --mount {ledger} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""


def test_unknown_account(run: Callable[..., Ran], ledger: Path) -> None:
    for command in ("balance", "history"):
        assert "there is no account 'nobody'" in run(command, "nobody", "--mount", ledger, code=1).stderr
        assert "there is no account '../README.txt'" in run(command, "../README.txt", "--mount", ledger, code=1).stderr


# -- restore and rebuild


def test_rebuild_makes_the_same_projections(run: Callable[..., Ran], ledger: Path, mounted: Daemon) -> None:
    good = '{"debit":"safeguarding_eur","credit":"acc_001","amount":"0.01"}\n'
    run("submit", "-", "--name", "many.ndjson", "--mount", ledger, "--quiet", data=good * 3000)
    run("umount", ledger)
    before = projections(mounted.store)
    assert re.search(r"rebuilt from \d,\d+ entries", run("rebuild", "--store", mounted.store).stdout)
    assert projections(mounted.store) == before
    assert run("fsck", "--store", mounted.store).stdout.startswith("verified: 3,0")


def projections(store: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for name in ("hashes", "runs") for path in sorted((store / name).iterdir())}


def test_older_journal_is_refused_until_it_is_restored(run: Callable[..., Ran], ledger: Path, mounted: Daemon) -> None:
    store = mounted.store
    backup = {path: path.read_bytes() for path in (store / "journal").glob("*.seg")}
    run("submit", "--mount", ledger, EXAMPLES / "deposit.json")
    run("umount", ledger)
    for path, data in backup.items():
        path.write_bytes(data)
    done = run("mount", "--store", store, "--mount", ledger, code=4)
    assert "was committed here, but the journal does not hold it" in done.stderr
    assert run("fsck", "--store", store, code=4).stderr.startswith("damage: ")
    assert "was committed here" in run("rebuild", "--store", store, code=4).stderr
    done = run("restore", "--store", store, "--reason", "a backup of yesterday", "--yes")
    assert done.stdout.startswith("incarnation 2 of ledger.example/test begins with entry ")
    run("fsck", "--store", store)
    run("mount", "--store", store, "--mount", ledger)
    assert json.loads(run("balance", "acc_001", "--mount", ledger, "--json").stdout)[0]["balance"] == "100.00"
    run("umount", ledger)


def test_deleted_projections_are_made_anew_at_the_next_start(
    run: Callable[..., Ran], ledger: Path, mounted: Daemon
) -> None:
    run("submit", "--mount", ledger, EXAMPLES / "deposit.json")
    run("umount", ledger)
    before = projections(mounted.store)
    for path in before:
        os.unlink(path)
    mounted.start()
    assert mounted.stop() == 0
    assert projections(mounted.store) == before
    assert "made anew" in mounted.log.read_text()


def test_projection_is_saved_while_it_runs(ledger: Path, mounted: Daemon) -> None:
    """After kill -9 a second later only little is replayed."""
    deadline = time.monotonic() + 30
    index = mounted.store / "index.lmdb" / "data.mdb"
    while b"~opening" not in index.read_bytes() and b"acc_001" not in index.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    mounted.kill()
    mounted.options = ["--log-format", "json"]
    mounted.start()
    recovered = [
        json.loads(line)
        for line in mounted.log.read_text().splitlines()
        if line.startswith('{"') and "recovered" in line
    ]
    assert recovered[-1]["replayed"] < recovered[-1]["entries"]
    assert mounted.stop() == 0
