"""Cosignatures and witness policies (FORMAT 14): the library and the stand-alone verifier judge alike. The page: tests/browser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerfsd.merkle import balance_proof as library_balance
from ledgerfsd.merkle import cosignature, witness_policy
from ledgerfsd.merkle.note import NoteError, parse_verifier
from ledgerfsd.merkle.proof import ProofError
from tests.conftest import REPOSITORY
from tests.verify.cosigning import BODY, DEFINED, LOG, TIME, TWO_OF_THREE, Case, W, cases, liability_proofs, note
from tests.verify.support import ORIGIN, VECTORS, balance_proof, verify
from tests.verify.test_balance import accounts

KEYS = [verify.parse_key(LOG.vkey)]


def library_accepts(policy: bytes, text: str) -> bool:
    try:
        witness_policy.parse(policy).verify(text.encode())
    except NoteError:
        return False
    return True


def stand_alone_accepts(policy: bytes, text: str) -> bool:
    try:
        judge = verify.Policy(policy)
        verify.verify_checkpoint(text, judge.logs or KEYS, judge)
    except verify.Fault:
        return False
    return True


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_both_judge_as_the_specification_says(case: Case) -> None:
    assert library_accepts(case.policy, case.note) is case.good
    assert stand_alone_accepts(case.policy, case.note) is case.good


LINES = [
    *DEFINED.splitlines(),
    f"log {LOG.vkey}",
    *(
        f"group {name} {k} {members}"
        for name in "gh"
        for k in ("1", "2", "all")
        for members in ("a", "a b", "c d", "g e")
    ),
    *(f"quorum {name}" for name in ("none", "a", "g", "h", "z")),
    "#",
]


@given(
    st.lists(st.sampled_from(LINES), max_size=12),
    st.lists(st.sampled_from([each.line() for each in W]), max_size=6),
    st.booleans(),
)
def test_both_agree_on_any_policy(lines: list[str], cosigned: list[str], defined: bool) -> None:
    text = DEFINED * defined + "".join(f"{line}\n" for line in lines)
    made = note(*cosigned)
    assert library_accepts(text.encode(), made) == stand_alone_accepts(text.encode(), made)


@given(st.binary(max_size=60), st.integers(0, len(TWO_OF_THREE)), st.integers(0, 80))
def test_no_bytes_make_either_fail_otherwise(noise: bytes, at: int, cut: int) -> None:
    data = TWO_OF_THREE.encode()
    spoiled = data[:at] + noise + data[at + cut :]
    good = note(W[0].line(), W[1].line())
    assert library_accepts(spoiled, good) == stand_alone_accepts(spoiled, good)


def test_the_library_signs_what_the_specification_says() -> None:
    """Byte for byte what ``Cosigner`` makes from the text of C2SP tlog-cosignature alone."""
    for number, each in enumerate(W):
        witness = cosignature.parse_witness(each.vkey)
        key = cosignature.WitnessKey(each.name, witness.key_id, bytes([10 + number]) * 32)
        assert key.witness() == witness
        assert witness.encode() == each.vkey
        assert cosignature.cosign(BODY, TIME, key) == each.line()
        _, found = cosignature.verify(note(each.line(), each.line(time=TIME - 1)).encode(), [witness])
        assert found == [(witness, TIME)], "once, with the latest time"


def test_published_cosignatures() -> None:
    """Made by the Go code of transparency-dev (tests/vectors/tlog-cosignature/SOURCE.txt): verified here, and made anew byte for byte."""
    vectors = json.loads((VECTORS / "tlog-cosignature" / "cases.json").read_text())
    assert len(vectors["cosignatures"]) == 3
    for case in vectors["cosignatures"]:
        witness = cosignature.parse_witness(case["vkey"])
        _, found = cosignature.verify(case["note"].encode(), [witness])
        assert [each.witness for each in found] == [witness]
        key = cosignature.WitnessKey(witness.name, witness.key_id, bytes.fromhex(case["seed"]))
        assert key.witness() == witness
        body, _, line = case["note"].rpartition("\n\n")
        assert cosignature.cosign(body + "\n", found[0].time, key) == line
        _, signers = verify.open_note(case["note"], [verify.parse_key(case["vkey"], 4)], cosigned=True)
        assert list(signers) == [f"{witness.name} (time {found[0].time})"]
    for vkey in vectors["vkeys"]:
        assert cosignature.parse_witness(vkey).encode() == vkey
        assert verify.parse_key(vkey, 4)[0] == vkey.partition("+")[0]


def test_keys_in_text_form() -> None:
    key = cosignature.generate("witness.example/w")
    assert cosignature.parse_key(key.encode()) == key
    assert cosignature.parse_witness(key.witness().encode()) == key.witness()
    assert key.encode().split("+", 4)[4] not in repr(key), "base64 may hold a plus of its own, even at its end"
    for text in (key.witness().encode(), key.encode()[:-4], key.encode().replace("w+", "x+"), "", LOG.vkey):
        with pytest.raises(NoteError) as error:
            cosignature.parse_key(text)
        assert key.encode()[-20:] not in str(error.value), "a private key is never quoted"
    for time in (0, -1, 2**63):
        with pytest.raises(NoteError):
            cosignature.cosign(BODY, time, key)


def test_liabilities_cannot_be_hidden_behind_cosignatures() -> None:
    """Sums that are negative, overflow or lie, hashed and signed to fit, and cosigned: refused all the same. The page: tests/browser."""
    policy = verify.Policy(TWO_OF_THREE.encode())
    verifiers = [parse_verifier(LOG.vkey)]
    for name, text, good in liability_proofs():
        signed = json.loads(text)["proof"].partition("\n\n")[2]
        assert library_accepts(TWO_OF_THREE.encode(), signed), "a witness does not look into the log"
        found = []
        for call in (
            lambda text=text: library_balance.verify(text.encode(), ORIGIN, verifiers),
            lambda text=text: verify.verify_balance(text.encode(), policy.logs, policy),
        ):
            try:
                call()
                found.append(True)
            except (ProofError, verify.Fault):
                found.append(False)
        assert found == [good, good], name


# ---- the command lines


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A balance proof that two of three have cosigned, and its policy."""
    proof = balance_proof(LOG, accounts(), "EUR-6")
    body = proof["proof"].partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
    proof["proof"] += W[0].line(body, TIME)
    texts = {"one": json.dumps(proof), "policy": TWO_OF_THREE, "note": proof["proof"].partition("\n\n")[2]}
    proof["proof"] += W[2].line(body, TIME)
    texts |= {"two": json.dumps(proof), "nologs": TWO_OF_THREE.split("\n", 1)[1]}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in texts}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def test_prove_and_the_stand_alone_verifier_on_files(files: dict[str, Path]) -> None:
    prove = ("-m", "ledgerfsd.cli.main", "prove", "sum", "EUR", "--check")
    tool = "tools/ledgerfs_verify.py"
    for key in ((), ("--vkey", LOG.vkey)):
        done = run(*prove, files["two"], "--policy", files["policy"], *key)
        assert done.returncode == 0, done.stderr
        assert f"it is cosigned by {W[2].name} at 2026-09-21T14:13:20" in done.stdout
        done = run(*prove, files["one"], "--policy", files["policy"], *key)
        assert (done.returncode, "not the quorum" in done.stderr) == (4, True)
    assert run(*prove, files["one"], "--vkey", LOG.vkey).returncode == 0
    done = run(*prove, files["two"], "--policy", files["nologs"])
    assert (done.returncode, "whom to believe" in done.stderr) == (1, True)
    for key in ((), ("--key", LOG.vkey)):
        assert run(tool, "balance", files["two"], "--policy", files["policy"], *key).returncode == 0
        done = run(tool, "balance", files["one"], "--policy", files["policy"], *key)
        assert (done.returncode, "quorum" in done.stderr) == (1, True)
    assert run(tool, "balance", files["two"], "--policy", files["nologs"]).returncode == 1
    done = run(tool, "checkpoint", files["note"], "--policy", files["nologs"], "--key", LOG.vkey)
    assert (done.returncode, f"only: {W[0].name}" in done.stderr) == (1, True)
    done = run(tool, "store", files["note"].parent, "--policy", files["policy"])
    assert (done.returncode, "--policy is about signed trees" in done.stderr) == (2, True)
    files["policy"].write_text(TWO_OF_THREE.replace("quorum g", "quorum h"))
    done = run(*prove, files["two"], "--policy", files["policy"])
    assert (done.returncode, "line 8" in done.stderr) == (1, True), done.stderr
