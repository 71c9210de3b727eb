"""The benchmarks through a real mount: a quick run, what is kept of it, and the document made of that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import record, report
from tests.conftest import REPOSITORY


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
