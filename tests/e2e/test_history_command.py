"""``ledgerfs history`` on a real mount: what is left out, what is followed, what is said in JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.clock import format_time
from tests.conftest import REPOSITORY, Daemon
from tests.fuse.conftest import Mounted, lines, pay, with_accounts

COMMAND = [sys.executable, "-m", "ledgerfsd.cli.main", "history", "acc_001"]


@pytest.fixture
def booked(mounted: Daemon, tmp_path: Path) -> Mounted:
    """Payments of 1.00 to 40.00, every fourth with a reference, and a hold that is posted."""
    ledger = with_accounts(mounted, tmp_path / "work")
    pays = [
        pay(f"{number}.00", id=f"p{number}", **({"reference": f"ref {number}"} if number % 4 == 0 else {}))
        for number in range(1, 41)
    ]
    hold = {"type": "hold", "debit": "acc_001", "credit": "acc_002", "amount": "7.00", "id": "h"}
    ledger.drop("many.ndjson", lines([*pays, hold, {"type": "post", "hold": "h", "amount": "6.00"}]))
    return ledger


def history(ledger: Mounted, *options: str) -> list[dict[str, Any]]:
    command = [*COMMAND, "--mount", str(ledger.path), "--json", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_left_out(booked: Mounted) -> None:
    everything = history(booked)
    log = [json.loads(line) for line in (booked / "accounts/acc_001/tx.log").read_bytes().splitlines()]
    assert [row["entry"] for row in everything] == [entry["index"] for entry in log]
    assert [row["reference"] for row in history(booked, "--reference", "ref 12")] == ["ref 12"]
    assert history(booked, "--reference", "ref 1") == []
    least = history(booked, "--min", "38.5", "--type", "transfer")
    assert [row["debit"] for row in least] == ["39.00", "40.00"]
    assert [row["what"] for row in history(booked, "--type", "hold", "--type", "post")] == [
        "hold",
        everything[-1]["what"],
    ]
    assert history(booked, "--type", "opening")[0]["credit"] == "100000.00"
    for count in (1, 5, 43, 1000):
        assert history(booked, "--limit", str(count)) == everything[-count:]
    assert history(booked, "--limit", "2", "--min", "38", "--type", "transfer") == [
        row for row in everything if row.get("debit") in ("39.00", "40.00")
    ]
    today = format_time(time.time_ns())[:10]
    assert history(booked, "--from", today) == everything
    assert history(booked, "--to", "2026-01-01") == []
    exact = everything[10]["time"]
    assert history(booked, "--from", exact, "--to", exact) == [everything[10]]


def test_what_cannot_be_asked(booked: Mounted) -> None:
    for options, said in (
        (["--type", "payment"], "invalid choice"),
        (["--min", "-1"], "is no amount such as"),
        (["--min", "1e3"], "is no amount such as"),
        (["--follow", "--to", "2026-01-01"], "--follow and --to contradict each other"),
    ):
        command = [*COMMAND, "--mount", str(booked.path), *options]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_followed(booked: Mounted, as_json: bool) -> None:
    command = [*COMMAND, "--mount", str(booked.path), "--follow", "--limit", "2", "--reference", "ref 40"]
    command += ["--json"] if as_json else []
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert "ref 40" in process.stdout.readline()
        booked.drop("more.ndjson", lines([pay("2.00"), pay("3.00", reference="ref 40"), pay("4.00")]))
        line = process.stdout.readline()
        assert "3.00" in line
        assert "ref 40" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
