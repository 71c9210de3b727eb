"""``ledgerfs events`` and ``ledgerfs consumer``, on a real mount."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ledgerfsd.cli import main as cli
from tests.conftest import REPOSITORY, Daemon
from tests.fuse.conftest import Mounted, lines, pay, with_accounts

Run = Callable[..., str]


@pytest.fixture
def ledger(mounted: Daemon, tmp_path: Path) -> Mounted:
    return with_accounts(mounted, tmp_path / "work")


@pytest.fixture
def run(ledger: Mounted, capsys: pytest.CaptureFixture[str]) -> Run:
    """``ledgerfs … --mount`` in this process: stdout, or stderr when it is to fail."""

    def call(*arguments: object, code: int = 0) -> str:
        try:
            ended = cli.main([*map(str, arguments), "--mount", str(ledger.path)])
        except SystemExit as error:
            ended = int(error.code or 0)
        captured = capsys.readouterr()
        assert ended == code, captured.err
        return captured.err if code else captured.out

    return call


def test_events_are_the_lines_of_the_mount(run: Run, ledger: Mounted) -> None:
    ledger.drop("some.ndjson", lines([pay(reference="rent")] * 3))
    text = b"".join(path.read_bytes() for path in sorted((ledger / "events").glob("*.ndjson"))).decode()
    assert run("events", "--json") == text
    every = [json.loads(line) for line in text.splitlines()]
    paid = [event for event in every if event["data"]["t"] == "txn/1"]
    assert run("events", "--json", "--from", paid[-1]["id"], "--to", paid[-1]["id"]).count("\n") == 1
    assert run("events", "--json", "--from", paid[-2]["time"]).splitlines() == text.splitlines()[-3:]
    assert run("events", "--json", "--to", paid[0]["time"][:10]) == text
    assert run("events", "--json", "--from", "2190-01-01") == run("events", "--json", "--to", "2001-01-01") == ""
    kinds = [
        json.loads(line)["data"]["t"]
        for line in run("events", "--json", "--type", "txn", "--type", "seal/1").splitlines()
    ]
    assert set(kinds) == {"txn/1", "seal/1"}
    touched = [json.loads(line)["data"] for line in run("events", "--json", "--account", "empty").splitlines()]
    assert [entry["t"] for entry in touched] == ["account/1"]
    header, *rows = run("events", "--type", "txn").splitlines()
    assert header.split() == ["INDEX", "TIME", "TYPE", "SUBJECT", "WHAT"]
    assert rows[-1].endswith("txn             tx_0004           acc_001 debit 1.00, acc_002 credit 1.00  rent")


def test_events_follow(ledger: Mounted) -> None:
    command = [
        sys.executable,
        "-m",
        "ledgerfsd.cli.main",
        "events",
        "--mount",
        ledger.path,
        "--follow",
        "--type",
        "txn",
    ]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            following.stdout.readline()
            ledger.drop("now-1.json", pay(reference="first"))
            ledger.drop("now-2.json", pay(reference="second"))
            seen = [following.stdout.readline().rstrip().rpartition("  ")[2] for _ in range(2)]
            following.send_signal(signal.SIGINT)
            assert following.wait(60) == -signal.SIGINT  # 130 in a shell: by the signal itself, whenever it comes
        finally:
            following.kill()
    assert seen == ["first", "second"]


def test_consumers(run: Run, ledger: Mounted) -> None:
    ledger.seal()
    entries = ledger.status()["entries"]
    assert json.loads(run("consumer", "create", "all", "--json"))["position"] == 0
    assert json.loads(run("consumer", "create", "new", "--from", "now", "--json"))["behind"] == 0
    run("consumer", "ack", "all", 4)
    assert (ledger / "events/consumers/all/position").read_text() == "5\n"
    assert "acknowledged event 4 already" in run("consumer", "ack", "all", 2, code=1)
    run("consumer", "ack", "all", 2, "--force")
    assert f"the newest is {entries - 1}" in run("consumer", "ack", "all", entries, code=1)
    header, *rows = run("consumer", "list").splitlines()
    assert header.split() == ["CONSUMER", "POSITION", "BEHIND", "MOVED"]
    assert [row.split()[:3] for row in rows] == [["all", "3", str(entries - 3)], ["new", str(entries), "0"]]
    assert json.loads(run("consumer", "show", "all", "--json"))["position"] == 3
    run("consumer", "remove", "all")
    assert "there is no consumer 'all'" in run("consumer", "show", "all", code=1)


def test_mistakes_are_explained(run: Run) -> None:
    run("consumer", "create", "once")
    assert "there is a consumer 'once' already" in run("consumer", "create", "once", code=1)
    assert "is no name of a consumer" in run("consumer", "create", "../x", code=1)
    assert "takes the name" in run("consumer", "create", code=1)
    assert "takes no name" in run("consumer", "list", "once", code=1)
    assert "only ack does" in run("consumer", "ack", "once", code=1)
    assert "--from goes with create" in run("consumer", "show", "once", "--from", 1, code=1)
    assert "is no index, date or time" in run("events", "--from", "2026-13-01", code=2)
