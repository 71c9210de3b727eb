"""The benchmarks through a real mount: a quick run, what is kept of it, and the document made of that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import record, report
from tests.conftest import REPOSITORY
from tests.fuse.conftest import until


@pytest.mark.slow
def test_a_quick_run_and_its_document(tmp_path: Path) -> None:
    place = tmp_path / "results.json"
    command = [
        sys.executable,
        "bench/run.py",
        "--quick",
        "--patience",
        "0",
        "--dir",
        str(tmp_path),
        "--json",
        str(place),
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # whoever benchmarks meanwhile is no business of ours
    for name in ("reading", "audit"):
        done = subprocess.run(
            [*command, "--only", name],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "fdatasync before every acknowledgement" in done.stdout
    found = record.load(place)
    assert list(found["measurements"]) == ["reading", "audit"]
    for measured in found["measurements"].values():
        assert measured["rows"]
        assert all(value > 0 for row in measured["rows"] for value in row["values"]), json.dumps(measured)
    document = report.make([place])[""]
    assert "### reading: Opening, reading and closing" in document
    assert "A quick run" in document
    assert list(tmp_path.glob("ledgerfs-bench-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_mounted(number: signal.Signals, tmp_path: Path) -> None:
    """Twice, as impatient people do, in the midst of it: writers, daemon and mount are gone, and no traceback tells of it."""
    place = tmp_path / "results.json"
    command = [
        sys.executable,
        "bench/run.py",
        "--only",
        "single",
        "--patience",
        "0",
        "--dir",
        tmp_path,
        "--json",
        place,
    ]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: list(tmp_path.glob("ledgerfs-bench-*/ledger/mount/inbox/1-0-*")))  # the one writer is at work
    os.killpg(process.pid, number)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; what was measured is in" in said
    assert "Traceback" not in said
    assert list(tmp_path.glob("ledgerfs-bench-*")) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert record.load(place)["measurements"]["single"]["failed"] == "interrupted"
