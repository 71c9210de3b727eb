"""The units for systemd, as systemd itself reads them: they are complete, nothing in them is unknown, and they shut what they can.

systemd cannot run here as the first process, so nobody starts them in a test; what they start is what other tests start.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

UNITS = REPOSITORY / "packaging" / "systemd"
NAMES = {"ledgerfsd@.service": "ledgerfsd@main.service", "ledgerfs-signer@.service": "ledgerfs-signer@main.service"}
PROGRAMS = Path(sys.executable).parent
# Exposure as `systemd-analyze security` reckons it, 0.0 to 10.0. The ledger's own unit has to show its mount to others.
EXPOSED_MOST = {"ledgerfs-witness.service": 2.0, "ledgerfs-signer@.service": 2.0}

SIGNING = """\
import ledgerfsd.cli.main
from ledgerfsd.merkle import note
from ledgerfsd.service import signer, signer_socket
signer.protect()
print(note.sign("text\\n", [note.generate("ledger.example/x")]).decode()[:4])
"""


def units() -> list[Path]:
    return sorted(UNITS.glob("*.service"))


def installed(unit: Path, place: Path) -> Path:
    """The unit under the name of an instance, with programs that are there."""
    text = unit.read_text().replace("=/usr/bin/ledgerfs", f"={PROGRAMS}/ledgerfs")
    path = place / NAMES.get(unit.name, unit.name)
    path.write_text(text)
    return path


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )


def test_there_are_units() -> None:
    assert [unit.name for unit in units()] == [
        "ledgerfs-signer@.service",
        "ledgerfs-witness.service",
        "ledgerfsd@.service",
    ]


def test_systemd_knows_every_line(tmp_path: Path) -> None:
    paths = [installed(unit, tmp_path) for unit in units()]
    done = analyze("verify", "--man=no", *paths)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    spoiled = paths[0].read_text().replace("Restart=on-failure", "Restart=sometimes").replace("NoNewPriv", "NoSuchPriv")
    paths[0].write_text(spoiled)
    said = analyze("verify", "--man=no", paths[0]).stderr
    assert "sometimes" in said
    assert "NoSuchPriv" in said


@pytest.mark.parametrize("name", sorted(EXPOSED_MOST))
def test_they_shut_what_they_can(name: str, tmp_path: Path) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", installed(UNITS / name, tmp_path))
    (level,) = re.findall(r"Overall exposure level for .*: ([0-9.]+) ", done.stdout)
    assert float(level) <= EXPOSED_MOST[name], done.stdout


@pytest.mark.parametrize("unit", units(), ids=lambda unit: unit.name)
def test_man_pages_and_users_and_options_are_there(unit: Path) -> None:
    text = unit.read_text()
    for name, section in re.findall(r"man:(\w+)\((\d)\)", text):
        assert (REPOSITORY / f"docs/man/{name}.{section}").exists()
    users = re.findall(r"^u (\S+)", (UNITS / "ledgerfs.sysusers").read_text(), re.MULTILINE)
    assert set(re.findall(r"^User=(.*)$", text, re.MULTILINE)) <= set(users)
    assert "MemoryDenyWriteExecute=yes" in text or unit.name != "ledgerfs-signer@.service"
    for command in re.findall(r"^ExecStart=/usr/bin/(ledgerfs.*)$", text, re.MULTILINE):
        program, *words = command.split()
        options = {word for word in words if word.startswith("--")}
        places = [words[: words.index(word)] for word in words if word.startswith("-")]
        commands = [word for word in places[0] if program == "ledgerfs"] if places else []
        commands = commands or [word for word in words if word in ("signer", "witness", "serve")]
        done = subprocess.run(
            [PROGRAMS / program, *commands, "--help"], capture_output=True, text=True, check=True, cwd=REPOSITORY
        )
        for option in options - {"--json"}:
            assert option in done.stdout, option


def test_users_and_directories_are_made(tmp_path: Path) -> None:
    """By systemd's own programs, under another root."""
    for folder in ("etc", "usr", "var/lib", "srv"):
        (tmp_path / folder).mkdir(parents=True)
    for program, words in (
        ("systemd-sysusers", [f"--root={tmp_path}", UNITS / "ledgerfs.sysusers"]),
        ("systemd-tmpfiles", ["--create", f"--root={tmp_path}", UNITS / "ledgerfs.tmpfiles"]),
    ):
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    passwd = (tmp_path / "etc/passwd").read_text()
    numbers = {line.split(":")[0]: int(line.split(":")[2]) for line in passwd.splitlines()}
    assert set(numbers) == {"ledgerfs", "ledgerfs-signer", "ledgerfs-witness"}
    for folder, mode in (("srv/ledger", 0o755), ("var/lib/ledgerfs", 0o750)):
        there = (tmp_path / folder).stat()
        assert (there.st_uid, there.st_mode & 0o777) == (numbers["ledgerfs"], mode)


def test_the_signer_makes_no_code_at_run_time(tmp_path: Path) -> None:
    """Its unit refuses memory that is written and executed (MemoryDenyWriteExecute=): what does not ask for any works there."""
    trace = tmp_path / "trace"
    tracing = ["strace", "-f", "-qq", "-e", "trace=mmap,mprotect,pkey_mprotect", "-o", str(trace)]
    done = subprocess.run(
        [*tracing, sys.executable, "-c", SIGNING],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "text\n", done.stderr
    calls = trace.read_text().splitlines()
    assert any("PROT_EXEC" in call for call in calls), "libraries are mapped so"
    assert [call for call in calls if "PROT_EXEC" in call and ("PROT_WRITE" in call or "mprotect" in call)] == []
