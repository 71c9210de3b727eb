"""Balance proofs through a real mount, and every way of changing one (docs/FORMAT.md, section 13)."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.merkle import balance_proof
from ledgerfsd.merkle.balance_proof import Proven
from ledgerfsd.merkle.proof import ProofError
from ledgerfsd.service.keys import parse_trusted_root
from tests.conftest import REPOSITORY
from tests.fuse.conftest import Mounted, lines, pay

BURST = 3_000
MUTATIONS = 400


def verify(ledger: Mounted, data: bytes) -> Proven:
    root = parse_trusted_root((ledger / ".ledgerfs/trusted_root.json").read_bytes(), "the mount")
    return balance_proof.verify(data, root.ledger, [key.verifier for key in root.keys])


def shown(ledger: Mounted, account: str) -> tuple[str, str, int]:
    balance = ledger.balance(account)
    return balance["debits"], balance["credits"], balance["as_of"]["index"]


def test_a_proof_shows_what_the_balance_shows(ledger: Mounted) -> None:
    """As soon as close() has returned; and the checkpoint ends with the seal of that very state. SEMANTICS 2.15"""
    for number in range(20):
        ledger.drop(
            f"{number}.json",
            pay("1.25") if number % 3 else {"type": "freeze", "account": "empty"} if not number else pay("0.01"),
        )
        for account in ("acc_001", "acc_002", "empty"):
            data = (ledger / f"accounts/{account}/proof.json").read_bytes()
            proven = verify(ledger, data)
            fields = json.loads(data)["account"]
            assert (fields["debits"], fields["credits"], fields["last"]) == shown(ledger, account)
            assert proven.account.name == account
            assert proven.checkpoint.size == ledger.status()["entries"]
            assert (ledger / f"proofs/{account}.json").read_bytes() == data
            assert (ledger / f"proofs/{account}.json").stat().st_size == len(data)
    assert not (ledger / "proofs/nobody.json").exists()


def test_the_sums_are_those_of_the_accounts(ledger: Mounted) -> None:
    """The trial balance, and what is owed to customers, from any single proof. SEMANTICS 2.15"""
    ledger.drop("pay.ndjson", lines([pay("3.00"), pay("5.00", debit="float", credit="acc_002")]))
    totals = verify(ledger, (ledger / "accounts/float/proof.json").read_bytes()).totals
    liability = next(each.sums.liability for each in totals if each.account_class == "customer_liability")
    owed = sum(int(ledger.balance(name)["balance"].replace(".", "")) for name in ("acc_001", "acc_002", "empty"))
    assert liability == owed == 100_005_00
    assert sum(each.sums.debits for each in totals) == sum(each.sums.credits for each in totals)


def test_after_a_burst_the_proof_is_of_the_newest_state(ledger: Mounted) -> None:
    """SEMANTICS 2.15"""
    opened = [
        {"type": "open_account", "account": f"many.{number}", "currency": "EUR", "class": "suspense", "limit": "none"}
        for number in range(BURST)
    ]
    ledger.drop("open.ndjson", lines(opened))
    ledger.drop("pay.ndjson", lines([pay("0.01", debit="float", credit=f"many.{number}") for number in range(BURST)]))
    for name in ("many.7", "float"):
        data = (ledger / f"accounts/{name}/proof.json").read_bytes()
        verify(ledger, data)
        fields = json.loads(data)["account"]
        assert (fields["debits"], fields["credits"], fields["last"]) == shown(ledger, name)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place where there is text or a number."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))
    else:
        yield path


def changed(value: Any, chance: random.Random) -> Any:
    if isinstance(value, int):
        return value + chance.choice([-1, 1, 256])
    at = chance.randrange(len(value))
    return value[:at] + chr(ord(value[at]) ^ 1 << chance.randrange(5)) + value[at + 1 :]


@pytest.fixture(scope="module")
def proof(shared: Mounted) -> bytes:
    shared.drop(
        "proven.ndjson",
        lines([pay("0.10"), {"type": "hold", "debit": "acc_001", "credit": "acc_002", "amount": "2.00"}]),
    )
    opened = [
        {"type": "open_account", "account": f"x{n}", "currency": "EUR", "class": "customer_liability"}
        for n in range(11)
    ]
    shared.drop("others.ndjson", lines(opened))
    return (shared / "accounts/acc_002/proof.json").read_bytes()


def refused(ledger: Mounted, value: Any) -> str:
    with pytest.raises(ProofError) as error:
        verify(ledger, json.dumps(value).encode())
    return str(error.value)


def test_no_change_of_any_field_passes(shared: Mounted, proof: bytes) -> None:
    good = json.loads(proof)
    verify(shared, proof)
    chance = random.Random(3)
    everywhere = list(places(good))
    for path in everywhere + chance.choices([("seal",), ("proof",)], k=MUTATIONS):
        value = copy.deepcopy(good)
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        if inner[path[-1]] == "":
            continue
        inner[path[-1]] = changed(inner[path[-1]], chance)
        refused(shared, value)
        del inner[path[-1]]
        refused(shared, value)


def test_no_change_of_its_lists_passes(shared: Mounted, proof: bytes) -> None:
    good = json.loads(proof)
    for name in ("path", "trees"):
        assert len(good[name]) > 1
        for change in (
            lambda items: items.pop(),
            lambda items: items.append(items[0]),
            lambda items: items.reverse(),
            lambda items: items.insert(0, items[-1]),
        ):
            value = copy.deepcopy(good)
            change(value[name])
            refused(shared, value)
    refused(shared, {**good, "note": "x"})
    refused(shared, [good])


def test_a_liability_cannot_be_hidden(shared: Mounted, proof: bytes) -> None:
    """Behind a negative sum, a huge one, or an account that owes more than there can be."""
    good = json.loads(proof)
    own = next(tree for tree in good["trees"] if tree["class"] == "customer_liability")
    for amount in ("-1", str(2**192), "+5", "05", "", "1.0", "1e3", "٣", str(2**192 - 1)):
        value = copy.deepcopy(good)
        value["path"][0]["liability"] = amount
        refused(shared, value)
        value = copy.deepcopy(good)
        value["trees"][good["trees"].index(own)]["liability"] = amount
        refused(shared, value)
    for amount in ("-1.00", "1700000000000000000000000000000000000000.00", f"{2**127 // 100}.28"):
        value = copy.deepcopy(good)
        value["account"]["debits"] = amount
        refused(shared, value)
    assert "2^127" in refused(
        shared, {**good, "account": {**good["account"], "debits": f"{2**127 // 100}.{2**127 % 100:02}"}}
    )
    unbalanced = copy.deepcopy(good)
    unbalanced["trees"][0]["credits"] = str(int(unbalanced["trees"][0]["credits"]) - 1)
    assert "debits and credits of EUR differ" in refused(shared, unbalanced)


def test_an_old_seal_is_not_the_newest_state(shared: Mounted, proof: bytes) -> None:
    """Else yesterday's balance could be shown with today's signature."""
    good = json.loads(proof)
    shared.drop("later.json", pay("0.07"))
    name = json.loads((shared / "receipts/later.json").read_text())["tx"]
    later = (shared / f"proofs/{name}.tlog-proof").read_bytes().partition(b"\n\n")[2]
    index, _, hashes = good["proof"].partition("\n\n")[0].partition("\n")[2].partition("\n")
    head = f"c2sp.org/tlog-proof@v1\n{index}\n{hashes}\n\n"
    assert "not the last entry" in refused(shared, {**good, "proof": head + later.decode()})


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in command], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_prove_balance_and_sum(ledger: Mounted, tmp_path: Path) -> None:
    """What the command fetches, verifies and keeps; and that it can say no."""
    prove = [sys.executable, "-m", "ledgerfsd.cli.main", "prove"]
    mount = ["--mount", ledger.path]
    kept, root = tmp_path / "proof.json", ledger / ".ledgerfs/trusted_root.json"
    ledger.drop("pay.json", pay("12.34"))
    done = run(*prove, "balance", "acc_002", *mount, "--trusted-root", root, "-o", kept)
    assert done.returncode == 0, done.stderr
    assert "has a balance of 12.34 EUR" in done.stdout
    done = run(*prove, "balance", "acc_002", "--check", kept, "--trusted-root", root, "--json")
    assert json.loads(done.stdout)["credits"] == "12.34"
    done = run(*prove, "sum", "EUR", *mount, "--json")
    assert json.loads(done.stdout)["owed"] == "100000.00"
    assert json.loads(done.stdout)["difference"] == "-100000.00", (
        "the deposit came from equity, not from safeguarded money"
    )
    kept.write_bytes(kept.read_bytes().replace(b"12.34", b"12.35"))
    done = run(*prove, "balance", "acc_002", "--check", kept, "--trusted-root", root)
    assert (done.returncode, "does not lead to the root" in done.stderr) == (4, True)
    assert run(*prove, "balance", "acc_001", "--check", kept, "--trusted-root", root).returncode in (1, 4)
    assert "there is no account" in run(*prove, "balance", "nobody", *mount).stderr
    assert run(*prove, "sum", "JPY", *mount).returncode == 1


def test_the_stand_alone_verifier_agrees(ledger: Mounted, tmp_path: Path) -> None:
    """tools/ledgerfs_verify.py, which shares no line with us, on files of a real mount and on its store."""
    tool = [sys.executable, REPOSITORY / "tools" / "ledgerfs_verify.py"]
    key = json.loads((ledger / ".ledgerfs/trusted_root.json").read_text())["keys"][0]["vkey"]
    ledger.drop("pay.ndjson", lines([pay("0.10")] * 300))
    old = tmp_path / "old"
    old.write_bytes((ledger / "log/checkpoint").read_bytes())
    ledger.drop("more.ndjson", lines([pay("0.20")] * 300))
    new = tmp_path / "new"
    new.write_bytes((ledger / "log/checkpoint").read_bytes())
    sizes = [path.read_text().split("\n")[1] for path in (old, new)]
    for arguments in (
        ("balance", ledger / "accounts/acc_002/proof.json"),
        ("tx", ledger / "proofs/tx_0007.tlog-proof", ledger / "transactions/tx_0007.json"),
        ("checkpoint", new),
        ("consistency", old, new, ledger / f"proofs/consistency/{sizes[0]}-{sizes[1]}"),
        ("mount", ledger.path, "--checkpoint", new, "--anchor", old),
    ):
        done = run(*tool, *arguments, "--key", key)
        assert done.returncode == 0, (arguments[0], done.stdout, done.stderr)
    assert (
        run(
            *tool, "consistency", new, old, ledger / f"proofs/consistency/{sizes[0]}-{sizes[1]}", "--key", key
        ).returncode
        == 1
    )
    for option in (
        (),
        ("--journal-only",),
    ):  # what is being written looks like damage to a reader: not while it is mounted
        done = run(sys.executable, "-m", "ledgerfsd.cli.main", "verify", "--store", ledger.daemon.store, *option)
        assert (done.returncode, "DAMAGED" in done.stderr) == (3, False), done.stderr
    assert ledger.daemon.stop() == 0
    done = run(*tool, "store", ledger.daemon.store, "--anchor", old, "--key", key)
    assert done.returncode == 0, done.stderr
    done = run(
        sys.executable,
        "-m",
        "ledgerfsd.cli.main",
        "verify",
        "--store",
        ledger.daemon.store,
        "--anchor",
        old,
        "--vkey",
        key,
    )
    assert done.returncode == 0, done.stderr
    assert "1 anchors agree" in done.stdout
