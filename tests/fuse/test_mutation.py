"""One bit of anything: every file that a store may hold and every proof file is changed, and somebody says so.

Who says so for a file of the store stands in a table of docs/FORMAT.md, section 19, which is read here: a file that it does not
name fails. Proof files go through all three verifiers.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.cli import main as cli
from ledgerfsd.core.pure.canonical import dump
from ledgerfsd.core.pure.journal import recover
from ledgerfsd.errors import StoreError
from ledgerfsd.merkle import balance_proof, tlog_proof, witness_policy
from ledgerfsd.merkle.proof import ProofError, verify_consistency
from ledgerfsd.service.anchors import rfc3161
from ledgerfsd.service.anchors.kinds import Unreachable
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.state.verify import verify as verify_store
from tests.browser.chromium import Chromium
from tests.browser.test_verify_page import PAGE, ask
from tests.conftest import LEDGER, REPOSITORY
from tests.fuse.everything import Everything
from tests.fuse.test_anchoring import thaw
from tests.unit.test_verify import written
from tests.verify.support import verify as tool

Finding = dict[str, Any]
Verified = Callable[..., tuple[int, list[Finding]]]
Judge = Callable[[bytes], object]

pytestmark = pytest.mark.slow

FLIPS = 4
DASH = "\u2014 ".encode()  # begins a signature line
OPTIONAL = {"creating", "journal/.spare", "journal/.next", "daemon.log"}  # there now and then


@pytest.fixture(scope="module")
def full(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    place = tmp_path_factory.mktemp("everything")
    yield Everything(place).make()
    thaw(place / "folder")


@pytest.fixture
def verified(full: Everything, capsys: pytest.CaptureFixture[str]) -> Verified:
    """Runs ``ledgerfs verify`` on it; gives the exit code and what it found but notes."""

    def run() -> tuple[int, list[Finding]]:
        code = cli.main(["--json", "verify", "--store", str(full.store)])
        found = json.loads(capsys.readouterr().out)
        said = found.get("findings", [{"severity": "refused", "file": found.get("error", "")}])
        return code, [each for each in said if each["severity"] != "note"]

    return run


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


# ---- the store


def table() -> list[tuple[list[str], str, str]]:
    """Section 19: patterns, who finds a changed bit, which bytes have no meaning."""
    text = (REPOSITORY / "docs/FORMAT.md").read_text(encoding="utf-8").partition("\n## 19.")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [(re.findall("`([^`]+)`", row[0]), row[1], row[2] if len(row) > 2 else "") for row in rows]


def row_of(name: str) -> tuple[str, str]:
    """The most particular pattern that names a file, and who finds a changed bit of it."""
    found = [(pattern, who) for patterns, who, _ in table() for pattern in patterns if fnmatch(name, pattern)]
    assert found, f"docs/FORMAT.md, section 19, does not name {name}"
    return max(found, key=lambda each: len(each[0]))


def files(full: Everything) -> list[str]:
    return sorted(str(path.relative_to(full.store)) for path in full.store.rglob("*") if path.is_file())


def test_the_table_names_every_file_and_nothing_else(full: Everything, verified: Verified) -> None:
    assert verified() == (0, [])
    used = {row_of(name)[0] for name in files(full)}
    everything = {pattern for patterns, _, _ in table() for pattern in patterns}
    assert everything - used - OPTIONAL == set(), (
        "rows without a file: the store lacks a feature, or they are of the past"
    )
    kinds = {entry["t"] for entry in map(json.loads, entries(full))}
    made = "genesis account txn hold post void account.update policy rejected key anchor restore seal"
    assert {f"{kind}/1" for kind in made.split()} == kinds
    assert len(list(full.store.glob("digests/*-2.ndjson"))) == 1


def entries(full: Everything) -> list[bytes]:
    data = b"".join(path.read_bytes() for path in full.layout.segments())
    return list(recover(data).entries)


def spans(value: Any, at: int, path: str = "") -> Iterator[tuple[str, int, int]]:
    """Every member's name and every value in canonical JSON: what it is, and where it begins and ends."""
    if isinstance(value, dict):
        at += 1
        for name in sorted(value, key=lambda each: each.encode("utf-16-be")):
            yield f"{path}.{name} (name)", at + 1, at + 1 + len(name.encode())
            at += len(name.encode()) + 3
            yield from spans(value[name], at, f"{path}.{name}")
            at += len(_canonical(value[name])) + 1
    elif isinstance(value, list):
        at += 1
        for number, each in enumerate(value):
            yield from spans(each, at, f"{path}[{number}]")
            at += len(_canonical(each)) + 1
    else:
        yield path, at, at + len(_canonical(value))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def shapes(full: Everything) -> dict[tuple[str, ...], int]:
    """An entry of every kind, with every set of members; and the last of all seals."""
    found: dict[tuple[str, ...], int] = {}
    for index, entry in enumerate(entries(full)):
        value = json.loads(entry)
        found[(value["t"], value.get("type", ""), value.get("reason", ""), *value)] = index
        if value["t"] == "seal/1":
            found[("last",)] = index
    return found


def test_every_member_of_every_kind_of_entry(full: Everything) -> None:
    """Name and value of each, its brackets, and both bytes of its length: file and entry are named."""
    chance, count = random.Random(19), 0
    offsets = list(itertools.accumulate((2 + len(entry) for entry in entries(full)), initial=0))
    segments = [(int(path.stem), path, path.read_bytes()) for path in full.layout.segments()]
    for kind, index in shapes(full).items():
        entry = entries(full)[index]
        first, path, data = max(each for each in segments if each[0] <= index)
        begin = offsets[index] - offsets[first] + 2
        assert data[begin : begin + len(entry)] == entry
        places = {"length 1": -2, "length 2": -1, "first": 0, "last": len(entry) - 1}
        places |= {
            what: chance.randrange(start, end) for what, start, end in spans(json.loads(entry), 0) if end > start
        }
        for what, at in places.items():
            path.write_bytes(flipped(data, begin + at, chance.randrange(8)))
            findings = [each for each in verify_store(full.layout, anchors=[])[0] if each.severity != "note"]
            assert findings, (kind, what)
            damage = findings[0]  # the newest batch looks torn, which is a note; the tip in index.lmdb knows better
            assert damage.severity == "damage", (kind, what, damage)
            if damage.file != "index.lmdb":  # what nothing behind it binds, of the newest seal: its time
                assert damage.file == f"journal/{path.name}", (kind, what, damage)
            assert damage.entry in (index, index + 1), (kind, what, damage)
            count += 1
        path.write_bytes(data)
    assert count > 300


def test_what_stands_behind_the_last_batch_has_no_meaning(full: Everything, verified: Verified) -> None:
    """Section 19 says so: a bit in the zeros there is an unfinished batch, which the next start zeroes."""
    path = full.layout.segments()[-1]
    data = path.read_bytes()
    used = len(data.rstrip(b"\0"))
    assert used < len(data)
    for at, bit in ((used, 0), (used, 7), (used + 1, 3), (len(data) - 1, 2)):
        path.write_bytes(flipped(data, at, bit))
        assert verified() == (0, [])
        (note,) = verify_store(full.layout, anchors=[])[0]
        assert (note.severity, note.entry) == ("note", len(entries(full)))
        path.write_bytes(data)


def test_entries_swapped_doubled_left_out_and_cut(full: Everything) -> None:
    before = {path: path.read_bytes() for path in full.layout.segments()}
    all_of_them, chance = [dump(json.loads(entry)) for entry in entries(full)], random.Random(20)
    assert all_of_them == entries(full)
    try:
        for at in [2, 255, 256, *(chance.randrange(2, len(all_of_them) - 200) for _ in range(4))]:
            one, two = all_of_them[at : at + 2]
            for changed, first in (
                ([*all_of_them[:at], two, one, *all_of_them[at + 2 :]], at),
                ([*all_of_them[:at], one, *all_of_them[at:]], at + 1),
                ([*all_of_them[:at], *all_of_them[at + 1 :]], at),
                ([*all_of_them[:at], one[:-1], *all_of_them[at + 1 :]], at),
                ([*all_of_them[:at], *all_of_them[at : at + 90][::-1], *all_of_them[at + 90 :]], at),
            ):
                written(full.layout, changed)
                damage = verify_store(full.layout, anchors=[])[0][0]
                assert (damage.severity, damage.entry) == ("damage", first), (at, damage)
    finally:
        for path in full.layout.segments():
            path.unlink()
        for path, data in before.items():
            path.write_bytes(data)


def test_every_other_kind_of_file(full: Everything, verified: Verified) -> None:
    """Flipped, cut, lines swapped, doubled and left out, by what section 19 promises."""
    chance, tried = random.Random(21), set()
    for name in files(full):
        pattern, who = row_of(name)
        nobody = "`verify`" not in who and not who.startswith("the signer")
        if nobody or pattern == "journal/*.seg" or (pattern in tried and "ndjson" not in name):
            continue
        tried.add(pattern)
        path = full.store / name
        before = path.read_bytes()
        for spoiled in _spoiled(name, before, chance):
            path.write_bytes(spoiled)
            try:
                _judge(name, who, *verified())
            finally:
                path.write_bytes(before)
    assert verified() == (0, [])
    assert len(tried) >= 10


def _spoiled(name: str, data: bytes, chance: random.Random) -> Iterator[bytes]:
    if name == "index.lmdb/data.mdb":
        begin = data.index(b"acc_001")  # in the record of an account: LMDB has free pages
        for _ in range(FLIPS):
            yield flipped(data, chance.randrange(begin, begin + 200), chance.randrange(8))
        return
    used = len(data.rstrip(b"\0")) - name.endswith(
        (".ndjson", ".key")
    )  # without its last newline a line was never there
    for at in [0, used - 1, *(chance.randrange(used) for _ in range(FLIPS))]:
        yield flipped(data, at, chance.randrange(8))
    if name.startswith(("hashes/", "runs/", "indexes/", "keys/trusted")) or name in ("format", "genesis.json"):
        yield data[: used // 2]
    if name.endswith(".ndjson"):
        lines = data.splitlines(keepends=True)
        at = chance.randrange(max(1, len(lines) - 1))
        after = lines[at + 1] if at + 1 < len(lines) else b""
        if b'"digest/1"' in lines[at] + after or name.startswith("snapshots"):
            yield (
                b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]]) if b"outcome/1" not in lines[at] else data[1:]
            )
        first = next(number for number, line in enumerate(lines) if b"digest/1" in line or name.startswith("snap"))
        yield b"".join([*lines[:first], lines[first][: len(lines[first]) // 2] + b"\n", *lines[first + 1 :]])
        if not name.startswith("snapshots") and len(lines) > 1:
            yield b"".join(lines[::-1])
            yield b"".join(lines[1:])


def _judge(name: str, who: str, code: int, found: list[Finding]) -> None:
    if who.startswith("the signer"):
        assert (code, found) == (0, []), "verify reads no private key"
    elif "refuse the store" in who:
        assert code == 3
    elif name.startswith("keys/last-signed"):
        assert code in (0, 1), found
    else:
        assert code, name
        wanted = re.findall("projection|evidence|damage", who)
        assert found[0]["severity"] in wanted, (name, found)
        assert found[0]["file"] in (name, name.split("/")[0]), (name, found)


def test_the_signer_does_not_start_with_a_changed_key(full: Everything) -> None:
    paths, chance = sorted((full.store / "keys").glob("*.key")), random.Random(22)
    assert len(paths) == 2
    for path in paths:
        before = path.read_bytes()
        for at in range(len(before) - 1):
            path.write_bytes(flipped(before, at, chance.randrange(8)))
            with pytest.raises(StoreError, match=re.escape(str(path))):
                Keyring(full.store / "keys", LEDGER).signers()
        path.write_bytes(before)
        Keyring(full.store / "keys", LEDGER).signers()


# ---- proof files


def library(full: Everything) -> dict[str, Judge]:
    """What judges each file of ``full.files``, the others being as they are."""
    assert full.root is not None
    root, verifiers = full.root, [key.verifier for key in full.root.keys]
    policy = witness_policy.parse(full.policy)

    def consistency(path: bytes, old: bytes, new: bytes) -> None:
        first, second = root.verify(old), root.verify(new)
        verify_consistency(first.size, second.size, first.root, second.root, tlog_proof.parse_hashes(path))

    read = full.read
    return {
        "checkpoint": root.verify,
        "cosigned": policy.verify,
        "tx.tlog-proof": lambda data: tlog_proof.verify(data, read("tx.json"), LEDGER, verifiers),
        "tx.json": lambda data: tlog_proof.verify(read("tx.tlog-proof"), data, LEDGER, verifiers),
        "seal.tlog-proof": lambda data: tlog_proof.verify(data, read("seal.json"), LEDGER, verifiers),
        "seal.json": lambda data: tlog_proof.verify(read("seal.tlog-proof"), data, LEDGER, verifiers),
        "balance.json": lambda data: balance_proof.verify(data, LEDGER, verifiers),
        "consistency": lambda data: consistency(data, read("old"), read("checkpoint")),
        "old": lambda data: consistency(read("consistency"), data, read("checkpoint")),
    }


def stand_alone(full: Everything) -> dict[str, Judge]:
    """The same by tools/ledgerfs_verify.py."""
    keys, policy = list(tool.read_keys(full.read("trusted_root.json").decode())), tool.Policy(full.policy)

    def text(data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise tool.Fault("not UTF-8") from None

    def consistency(path: bytes, old: bytes) -> None:
        heads = [tool.verify_checkpoint(text(note), keys) for note in (old, full.read("checkpoint"))]
        *hashes, end = text(path).split("\n")
        tool.check(end == "", "no newline at its end")
        path_of = [tool.unbase64(line, 32) for line in hashes]
        tool.verify_consistency(heads[0][1], heads[1][1], heads[0][2], heads[1][2], path_of)

    read = full.read
    return {
        "checkpoint": lambda data: tool.verify_checkpoint(text(data), keys),
        "cosigned": lambda data: tool.verify_checkpoint(text(data), policy.logs, policy),
        "tx.tlog-proof": lambda data: tool.verify_entry(text(data), read("tx.json"), keys),
        "tx.json": lambda data: tool.verify_entry(text(read("tx.tlog-proof")), data, keys),
        "seal.tlog-proof": lambda data: tool.verify_entry(text(data), read("seal.json"), keys),
        "seal.json": lambda data: tool.verify_entry(text(read("seal.tlog-proof")), data, keys),
        "balance.json": lambda data: tool.verify_balance(data, keys),
        "consistency": lambda data: consistency(data, read("old")),
        "old": lambda data: consistency(read("consistency"), data),
    }


def in_browser(full: Everything) -> dict[str, tuple[str, Callable[[bytes], tuple[Any, ...]]]]:
    """The same by verify.html: the function, and what it is called with."""
    trust, read, policy = full.read("trusted_root.json"), full.read, full.policy
    return {
        "checkpoint": ("verifyCheckpoint", lambda data: (data, trust)),
        "cosigned": ("verifyCheckpoint", lambda data: (data, "", policy)),
        "tx.tlog-proof": ("verifyTransaction", lambda data: (data, read("tx.json"), trust)),
        "tx.json": ("verifyTransaction", lambda data: (read("tx.tlog-proof"), data, trust)),
        "seal.tlog-proof": ("verifyTransaction", lambda data: (data, read("seal.json"), trust)),
        "seal.json": ("verifyTransaction", lambda data: (read("seal.tlog-proof"), data, trust)),
        "balance.json": ("verifyBalance", lambda data: (data, trust)),
        "consistency": ("verifyConsistency", lambda data: (data, read("old"), read("checkpoint"), trust)),
        "old": ("verifyConsistency", lambda data: (read("consistency"), data, read("checkpoint"), trust)),
    }


def changes(full: Everything, name: str, step: int) -> list[tuple[str, bytes]]:
    """One bit of every ``step``-th byte and of each value; lines and list elements left out, doubled, swapped; cut short."""
    data, chance = full.read(name), random.Random(name)
    places = set(range(0, len(data), step))
    found = [(f"bit at {at}", flipped(data, at, chance.randrange(8))) for at in sorted(places)]
    if name == "balance.json":
        found += _of_lists(json.loads(data))
        ends = [(what.start(1), what.end(1)) for what in re.finditer(rb'": ?("[^"]+"|[0-9]+)', data)]
        found += [(f"value at {a}", flipped(data, chance.randrange(a, b), chance.randrange(8))) for a, b in ends]
    lines = data.splitlines(keepends=True)
    for at, line in enumerate(lines if len(lines) > 2 and name != "balance.json" else []):
        found.append((f"without line {at}", b"".join([*lines[:at], *lines[at + 1 :]])))
        if not line.startswith(DASH):  # a key that signs twice must be right twice, and counts once
            found.append((f"line {at} doubled", b"".join([*lines[: at + 1], *lines[at:]])))
        ordered = not (line.startswith(DASH) and lines[at - 1].startswith(DASH))  # signatures stand in any order
        if at and lines[at - 1] != line and ordered:
            found.append((f"line {at} swapped", b"".join([*lines[: at - 1], line, lines[at - 1], *lines[at + 1 :]])))
        found.append((f"cut at line {at}", b"".join(lines[:at])))
    return [(what, changed) for what, changed in found if changed != data]


def _of_lists(value: dict[str, Any]) -> list[tuple[str, bytes]]:
    found = []
    for member in ("path", "trees"):
        items = value[member]
        assert len(items) > 1
        for at, item in enumerate(items):
            swapped = [*items[: at - 1], item, items[at - 1], *items[at + 1 :]] if at else items[::-1]
            for what in ([*items[:at], *items[at + 1 :]], [*items[: at + 1], *items[at:]], swapped):
                found.append((f"{member}[{at}]", json.dumps(value | {member: what}).encode()))
    return found


def test_there_are_proof_files_of_every_kind(full: Everything) -> None:
    for judges in (library(full), stand_alone(full)):
        for name, judge in judges.items():
            judge(full.read(name))
    assert len(json.loads(full.read("balance.json"))["account"]) == 13


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint",
        "cosigned",
        "tx.tlog-proof",
        "tx.json",
        "seal.tlog-proof",
        "seal.json",
        "balance.json",
        "consistency",
        "old",
    ],
)
def test_no_change_of_a_proof_file_passes_library_or_stand_alone_verifier(full: Everything, name: str) -> None:
    for judges, refusal, step in (
        (library(full), ProofError, 1),
        (stand_alone(full), tool.Fault, 1 if name != "balance.json" else 7),
    ):
        judge = judges[name]
        for what, changed in changes(full, name, step):
            with pytest.raises(refusal):
                judge(changed)
                pytest.fail(f"{name}, {what}: accepted by {judge}")


def test_no_change_of_a_proof_file_passes_the_page(full: Everything, tmp_path: Path) -> None:
    browser = Chromium(tmp_path / "profile")
    try:
        browser.open(PAGE.as_uri())
        for name, (function, call) in in_browser(full).items():
            (good,) = ask(browser, function, [call(full.read(name))])
            assert good["ok"], (name, good)
            changed = changes(full, name, 3 if name != "balance.json" else 11)
            found = ask(browser, function, [call(data) for _, data in changed])
            assert [what for (what, _), each in zip(changed, found, strict=True) if each["ok"]] == [], name
    finally:
        browser.close()


def test_of_two_keys_either_does(full: Everything) -> None:
    """While keys are rotated a line whose name or id was changed is one of a key that nobody knows; the rest of it is not free."""
    assert full.root is not None
    note, trusted = full.read("two-keys"), (full.store / "keys/trusted_root.json").read_text()
    begins = [found.start() for found in re.finditer("\u2014 ".encode(), note)]
    assert len(begins) == 2
    keys = list(tool.read_keys(trusted))
    tool.verify_checkpoint(note.decode(), keys)
    for at in range(len(note)):
        with suppress(UnicodeDecodeError, tool.Fault):
            tool.verify_checkpoint(flipped(note, at, 0).decode(), keys)
            begin = max(each for each in begins if each <= at)
            name = 4 + len(LEDGER)
            assert at - begin < name + 7, "only of the name, or in the base64 of the id"


def test_no_change_of_a_time_stamp_passes(full: Everything, tmp_path: Path) -> None:
    """Every byte by the library; some by openssl, which says the same."""
    token, data, roots = full.read("digest/tsa.tsr"), full.read("digest/checkpoint"), rfc3161.load_roots(full.tsa_roots)
    rfc3161.verify(token, data, roots)
    passed = []
    for at in range(len(token)):
        with suppress(Unreachable):
            rfc3161.verify(flipped(token, at, at % 8), data, roots)
            passed.append(at)
    # RFC 5652 signs neither version numbers nor the name of the signature's algorithm: section 19 says so.
    algorithm = token.rindex(bytes.fromhex("06092a864886f70d0101010500"))
    for at in passed:
        assert token[at - 2 : at] == b"\x02\x01" or 0 <= at - algorithm < 13, at
    assert len(passed) < 16
    for at in (None, 5, len(token) // 2, len(token) - 9):
        (tmp_path / "t.tsr").write_bytes(token if at is None else flipped(token, at, 0))
        command = ["openssl", "ts", "-verify", "-data", full.files / "digest/checkpoint", "-in", tmp_path / "t.tsr"]
        done = subprocess.run([*command, "-CAfile", full.tsa_roots], capture_output=True, check=False)
        assert (done.returncode == 0) is (at is None), at


def test_a_digest_directory_for_who_has_none_of_our_code(full: Everything, tmp_path: Path) -> None:
    """The stand-alone verifier takes cosignatures beside the checkpoint; for time stamps its --help gives openssl's command."""
    folder, policy = shutil.copytree(full.files / "digest", tmp_path / "digests/7"), tmp_path / "policy"
    policy.write_bytes(full.policy)
    script = REPOSITORY / "tools/ledgerfs_verify.py"
    asked = [sys.executable, script, "checkpoint", folder / "checkpoint", "--policy", policy]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, "cosigned: ['witness.example/w1" in done.stdout) == (0, True), done
    cosigned = (folder / "w1.cosig").read_bytes()
    for spoiled in (flipped(cosigned, len(cosigned) - 9, 0), b"", b"x\n"):
        (folder / "w1.cosig").write_bytes(spoiled)
        assert subprocess.run(asked, capture_output=True, check=False).returncode == 1
    (folder / "w1.cosig").unlink()
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, "quorum" in done.stderr) == (1, True)
    told = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    (command,) = re.findall("^  (openssl ts .*)$", told, re.MULTILINE)
    command = command.replace("SIZE", "7").replace("NAME", "tsa").replace("ROOTS.pem", str(full.tsa_roots))
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "Verification: OK" in done.stdout + done.stderr) == (0, True), done
    (folder / "checkpoint").write_bytes((folder / "checkpoint").read_bytes() + b"x")
    assert subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False).returncode


def test_the_bytes_of_the_account_leaf_are_all_proven(full: Everything) -> None:
    """Each field of the leaf (FORMAT 12), one bit of it, in both verifiers of Python: the path does not lead to the root any more."""
    proof = json.loads(full.read("balance.json"))
    for name, value in proof["account"].items():
        for bit in range(4):
            other = value ^ 1 << bit if isinstance(value, int) else value[:-1] + chr(ord(value[-1]) ^ 1 << bit)
            changed = json.dumps(proof | {"account": proof["account"] | {name: other}}).encode()
            for judges, refusal in ((library(full), ProofError), (stand_alone(full), tool.Fault)):
                with pytest.raises(refusal):
                    judges["balance.json"](changed)
                    pytest.fail(f"{name}: {value!r} became {other!r}")
