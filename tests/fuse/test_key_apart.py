"""The daemon cannot export the key: no code of it reads one, no call of it returns one, and no neighbour looks into the signer.

What is left, that whoever may read the key files has the key, says docs/SECURITY.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Daemon
from tests.fuse.conftest import lines, pay, until, with_accounts
from tests.fuse.test_signer_service import DAEMON_USER

PRIVATE = "ledgerfsd.service.keyring"  # the module that reads private keys

# Two processes of one user, of whom nothing is said (both may be looked into, as after any start): one protects itself or not,
# the other reads its memory. Root may look into everything, so they are nobody.
NEIGHBOURS = """\
import ctypes, os, sys
from ledgerfsd.service.signer import protect
user, protected = int(sys.argv[1]), sys.argv[2] == "protected"
os.setgroups([]); os.setgid(user); os.setuid(user)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 1, 0, 0, 0)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    if protected:
        protect()
    os.write(writing, b"x")
    os.read(reading, 0)
    __import__("signal").pause()
os.read(reading, 1)
try:
    with open(f"/proc/{child}/mem", "rb"), open(f"/proc/{child}/environ", "rb"):
        seen = "memory"
except PermissionError:
    seen = "nothing"
attached = libc.ptrace(16, child, 0, 0) == 0  # PTRACE_ATTACH
status = open(f"/proc/{child}/status").read()
os.kill(child, 9)
print(seen, attached, "NoNewPrivs:\\t1" in status)
"""


@pytest.mark.parametrize(("how", "said"), [("open", "memory True False"), ("protected", "nothing False True")])
def test_nobody_of_the_same_user_looks_into_a_signer(how: str, said: str) -> None:
    """Nor could a core file be made of it. The first case shows that the second can fail."""
    command = [sys.executable, "-c", NEIGHBOURS, str(DAEMON_USER), how]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == said, done.stderr


def test_the_daemon_has_no_code_that_reads_private_keys() -> None:
    """Not even loaded; the contract in setup.cfg says the same of what may be imported."""
    script = f"import sys, ledgerfsd.daemon; print({PRIVATE!r} in sys.modules, 'ledgerfsd.service.keys' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_only_the_signer_opens_a_private_key(store: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """As the kernel sees it, from the first start on: keys are made, used, rotated. SEMANTICS 10.5"""
    daemon, trace = daemons(store), tmp_path / "trace"
    daemon.start()
    assert daemon.process is not None
    tracing = ["strace", "-f", "-qq", "-e", "trace=openat,open", "-o", str(trace), "-p", str(daemon.process.pid)]
    signer = _child(daemon.process.pid)
    with subprocess.Popen([*tracing, "-p", str(signer)], stderr=subprocess.PIPE) as tracer:
        until(lambda: all(_is_traced(pid) for pid in (daemon.process.pid, signer)))
        ledger = with_accounts(daemon, tmp_path / "work")
        ledger.drop("pay.ndjson", lines([pay(), pay()]))
        (ledger / "log/checkpoint").read_bytes()
        (ledger / "proofs/tx_0001.tlog-proof").read_bytes()
        (ledger / "accounts/acc_001/proof.json").read_bytes()
        (ledger / ".ledgerfs/trusted_root.json").read_bytes()
        words = [sys.executable, "-m", "ledgerfsd.cli.main", "key", "rotate", "--store", store]
        subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True)
        ledger.drop("more.json", pay())
        (ledger / "log/checkpoint").read_bytes()
        assert daemon.stop() == 0
        tracer.wait(30)
    opened = [re.match(r"(\d+) +open(?:at)?\((.*)", line) for line in trace.read_text().splitlines()]
    by: dict[str, set[int]] = {"key": set(), "json": set()}
    for each in opened:
        if each is not None and (found := re.search(r"\.(key|json)\"", each[2])):
            by[found[1]].add(int(each[1]))
    assert by["key"] == {signer}
    assert daemon.process.pid in by["json"], "the trace shows what the daemon opens"


def _is_traced(pid: int) -> bool:
    """Each of its threads."""
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


def _child(pid: int) -> int:
    (found,) = [
        child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return int(found)
