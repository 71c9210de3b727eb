"""A ledger and witnesses of other organisations: cosigned proofs, and an insider whom they refuse (issue checks 4 and 5)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.cli import main as cli
from ledgerfsd.journal.layout import create
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import ACCOUNTS, Mounted, lines, pay
from tests.verify.support import verify
from tests.witnesses import WitnessProcess

TOOL = "tools/ledgerfs_verify.py"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )


def ledgerfs(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run("-m", "ledgerfsd.cli.main", *arguments)


def vkey_of(ledger: Mounted | Daemon) -> str:
    root = json.loads((ledger.path / ".ledgerfs/trusted_root.json").read_text())
    return str(root["keys"][0]["vkey"])


@pytest.fixture
def witnesses(ledger: Mounted, tmp_path: Path) -> Iterator[list[WitnessProcess]]:
    """Two that know the ledger, and serve."""
    made = [WitnessProcess(tmp_path / f"w{n}", vkey_of(ledger), name=f"witness-{n}.example/w") for n in range(2)]
    for each in made:
        each.start()
    yield made
    for each in made:
        each.kill()
        assert "Traceback" not in each.log


@pytest.fixture
def policy(ledger: Mounted, witnesses: list[WitnessProcess], tmp_path: Path) -> Path:
    """Both witnesses must have cosigned."""
    text = f"log {vkey_of(ledger)}\n"
    text += "".join(f"witness w{n} {each.witness.encode()} {each.url}\n" for n, each in enumerate(witnesses))
    path = tmp_path / "policy.txt"
    path.write_text(f"{text}group both all w0 w1\nquorum both\n")
    return path


def test_a_proof_of_liabilities_in_a_cosigned_checkpoint(
    ledger: Mounted, witnesses: list[WitnessProcess], policy: Path, tmp_path: Path
) -> None:
    """What is owed to customers, what is there to cover it, up to a checkpoint that others have cosigned."""
    fund = [
        {"type": "open_account", "account": "c9", "currency": "EUR", "class": "customer_liability"},
        pay("250.00", debit="float", credit="c9"),
    ]
    ledger.drop("fund.ndjson", lines(fund))
    proof, mount = tmp_path / "sum.json", ("--mount", ledger.path)
    done = ledgerfs("prove", "sum", "EUR", *mount, "-o", proof)
    assert done.returncode == 0, done.stderr
    check = ("prove", "sum", "EUR", "--check", proof, "--policy", policy)
    done = ledgerfs(*check)
    assert (done.returncode, "not the quorum" in done.stderr) == (4, True), "nobody has cosigned it yet"
    assert run(TOOL, "balance", proof, "--policy", policy).returncode == 1
    assert witnesses[1].stop() == 0
    done = ledgerfs("witness", "cosign", proof, "--policy", policy, *mount)
    assert (done.returncode, "not the quorum" in done.stdout) == (1, True), done.stdout
    assert ledgerfs(*check).returncode == 4, "one of two"
    witnesses[1].start()
    policy.write_text(
        policy.read_text().rpartition("http://")[0] + f"{witnesses[1].url}\ngroup both all w0 w1\nquorum both\n"
    )
    done = ledgerfs("witness", "cosign", proof, "--policy", policy, *mount, "--json")
    assert (done.returncode, json.loads(done.stdout)["enough"]) == (0, True), done.stderr
    done = ledgerfs(*check, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["owed"], found["difference"]) == ("100250.00", "-100000.00")
    assert sum("it is cosigned by witness-" in step for step in found["steps"]) == 2
    done = run(TOOL, "balance", proof, "--policy", policy, "--json")
    assert (done.returncode, json.loads(done.stdout)["verified"]) == (0, True), done.stdout
    for name in (
        "debits",
        "credits",
        "liability",
    ):  # a liability is hidden: by a sum, by what would overflow, by a sign
        for bad in ("0", str(2**192), "-1"):
            value = json.loads(proof.read_text())
            if value["trees"][0][name] == bad:
                continue
            value["trees"][0][name] = bad
            spoiled = tmp_path / "spoiled.json"
            spoiled.write_text(json.dumps(value))
            assert cli.main(["prove", "sum", "EUR", "--check", str(spoiled), "--policy", str(policy)]) == 4
            assert verify.main(["balance", str(spoiled), "--policy", str(policy)]) == 1


def test_every_kind_of_file_can_be_cosigned(
    ledger: Mounted, witnesses: list[WitnessProcess], policy: Path, tmp_path: Path
) -> None:
    """As the ledger grows, the consistency proofs come from the mount."""
    asked = ("--policy", policy, "--mount", ledger.path)
    head, proof, entry = (tmp_path / name for name in ("checkpoint", "tx.tlog-proof", "tx.json"))
    for number in range(3):
        ledger.drop(f"{number}.json", pay())
        head.write_bytes((ledger / "log/checkpoint").read_bytes())
        done = ledgerfs("witness", "cosign", head, *asked)
        assert done.returncode == 0, done.stdout + done.stderr
        before = head.read_bytes()
        done = ledgerfs("witness", "cosign", head, *asked)
        assert (done.returncode, head.read_bytes() == before) == (0, True), "nobody is asked twice"
        assert before.count(b"\xe2\x80\x94") == 3
        assert run(TOOL, "checkpoint", head, "--policy", policy).returncode == 0
        assert run(TOOL, "mount", ledger.path, "--checkpoint", head, "--policy", policy).returncode == 0
    name = f"tx_{ledger.transactions():04}"
    proof.write_bytes((ledger / f"proofs/{name}.tlog-proof").read_bytes())
    entry.write_bytes((ledger / f"transactions/{name}.json").read_bytes())
    tx = ("prove", "tx", name, "--check", proof, "--entry", entry, "--policy", policy)
    assert ledgerfs(*tx).returncode == 4
    done = ledgerfs(
        "witness", "cosign", proof, "--url", witnesses[0].url, "--vkey", witnesses[0].witness.encode(), *asked[2:]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ledgerfs(*tx).returncode == 4
    done = ledgerfs("witness", "cosign", proof, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ledgerfs(*tx).returncode == 0
    assert run(TOOL, "tx", proof, entry, "--policy", policy).returncode == 0
    assert ledger.daemon.stop() == 0
    verify = ("verify", "--store", ledger.daemon.store, "--anchor", head, "--policy", policy)
    done = ledgerfs(*verify)
    assert (done.returncode, "1 anchors agree" in done.stdout) == (0, True), done.stderr
    head.write_bytes(before.rpartition(b"\xe2\x80\x94")[0])
    done = ledgerfs(*verify)
    assert (done.returncode, "not the quorum" in done.stderr) == (4, True)
    assert (
        "--policy is about checkpoints" in ledgerfs("verify", "--store", ledger.daemon.store, "--policy", policy).stderr
    )


def test_an_insider_is_refused(ledger: Mounted, witnesses: list[WitnessProcess], policy: Path, tmp_path: Path) -> None:
    """With root and the key he rewrites an old amount; inside all fits. The witness, who saw the true history, refuses."""
    ledger.drop("victim.json", pay("1.00", id="victim"))
    head = tmp_path / "true.checkpoint"
    head.write_bytes((ledger / "log/checkpoint").read_bytes())
    done = ledgerfs("witness", "cosign", head, "--policy", policy, "--mount", ledger.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ledger.daemon.stop() == 0
    forged = Daemon(create(tmp_path / "forged", LEDGER, segment_bytes=SEGMENT_BYTES).root, tmp_path / "mount2")
    shutil.copytree(ledger.daemon.store / "keys", forged.store / "keys", dirs_exist_ok=True)
    (forged.store / "keys/last-signed").unlink()
    forged.start()
    try:
        false = tmp_path / "false.checkpoint"
        for name, text in (("open.ndjson", lines(ACCOUNTS)), ("victim.json", json.dumps(pay("9000.00", id="victim")))):
            (forged.path / "inbox" / name).write_text(text)
        false.write_bytes((forged.path / "log/checkpoint").read_bytes())
        size = false.read_bytes().split(b"\n")[1]
        assert size == head.read_bytes().split(b"\n")[1], "of the same size, and signed by the same key"
        assert run(TOOL, "checkpoint", false, "--key", vkey_of(forged)).returncode == 0
        for number in range(2):  # of that size, and of a larger one
            done = ledgerfs("witness", "cosign", false, "--policy", policy, "--mount", forged.path)
            assert (done.returncode, "two histories" in done.stdout) == (4, True), done.stdout + done.stderr
            assert run(TOOL, "checkpoint", false, "--policy", policy).returncode == 1
            (forged.path / f"inbox/{number}.json").write_text(json.dumps(pay(id=f"later-{number}")))
            false.write_bytes((forged.path / "log/checkpoint").read_bytes())
        done = ledgerfs("prove", "balance", "acc_002", "--mount", forged.path, "--policy", policy)
        assert (done.returncode, "not the quorum" in done.stderr) == (4, True), "nobody is shown the forged balance"
        assert forged.stop() == 0
    finally:
        forged.kill()
    for each in witnesses:
        assert "REFUSED" in each.log
        done = ledgerfs("witness", "list", "--dir", each.directory)
        assert (done.returncode, len(each.memory.refused(LEDGER))) == (1, 2), "and the refusal is seen"
    assert ledgerfs("verify", "--store", forged.store).returncode == 0, "inside, all looks right"
    done = ledgerfs("verify", "--store", forged.store, "--anchor", head, "--policy", policy)
    assert (done.returncode, "the history was rewritten" in done.stderr) == (4, True)
    assert ledgerfs("verify", "--store", ledger.daemon.store, "--anchor", head, "--policy", policy).returncode == 0
