"""Whole stores and mounts: good ones verify, and whatever is changed in one shows, with its file and its entry."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.verify.support import (
    ORIGIN,
    Signer,
    canonical,
    entries_of,
    make,
    seal_again,
    sha,
    tile_name,
    verify,
    write_mount,
    write_store,
)

SIGNER = Signer()
Report = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the engine."""
    return make(tmp_path_factory.mktemp("verify") / "store")


@pytest.fixture(scope="module")
def entries(made: Path) -> list[bytes]:
    """With state roots made here."""
    return seal_again(entries_of(made), states=True)


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Runs a command; gives its JSON and the exit code."""

    def run(*command: object) -> dict[str, Any]:
        code = verify.main([*map(str, command), "--json", "--quiet"])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        found: dict[str, Any] = json.loads(captured.out)
        return found | {"code": code}

    return run


def test_a_good_store_verifies(made: Path, report: Report) -> None:
    found = report("store", made)
    kinds = Counter(json.loads(entry)["t"] for entry in entries_of(made))
    assert found["code"] == 0
    assert found["transactions"] > 1000
    assert found["entries"] == kinds.total()
    assert found["blocks"] == kinds["seal/1"]
    assert len(kinds) == 10, "not all kinds of entry are there"
    assert any(json.loads(entry).get("reason") == "expired" for entry in entries_of(made))


def test_state_roots_made_from_the_specification_verify(entries: list[bytes], tmp_path: Path, report: Report) -> None:
    for found in (
        report("store", write_store(tmp_path / "store", entries)),
        report("mount", write_mount(tmp_path / "mount", entries)),
    ):
        assert (found["code"], found["state_roots"]) == (0, found["blocks"])


def test_flipped_bits_of_the_journal_show(made: Path, tmp_path: Path, report: Report) -> None:
    """At random positions, and in the zeros behind the end, which recovery would refuse too (FORMAT 3)."""
    store, chance, total = tmp_path / "store", random.Random(1), len(entries_of(made))
    shutil.copytree(made, store)
    for path in sorted((store / "journal").glob("*.seg")):
        data = path.read_bytes()
        used = len(data.rstrip(b"\0"))
        spots = [chance.randrange(used) for _ in range(24)] + ([used + 5, len(data) - 1] if used < len(data) else [])
        for at in spots:
            spoiled = bytearray(data)
            spoiled[at] ^= 1 << chance.randrange(8)
            path.write_bytes(spoiled)
            found = report("store", store)
            assert found["code"] == 1, at
            assert found["file"].startswith("journal/"), found
            index = sum(each["end"] <= at for each in frames(data)) + int(path.stem)
            assert 0 <= found["entry"] <= total
            assert found["entry"] == index or at >= used, (found, index)
        path.write_bytes(data)


def frames(data: bytes) -> list[dict[str, int]]:
    found, at = [], 0
    while at + 2 <= len(data) and (length := int.from_bytes(data[at : at + 2], "big")):
        at += 2 + length
        found.append({"end": at})
    return found


def test_flipped_bits_of_stored_hashes_show(made: Path, tmp_path: Path, report: Report) -> None:
    store, chance = tmp_path / "store", random.Random(2)
    shutil.copytree(made, store)
    for level in ("0", "1"):
        path = store / "hashes" / level
        data = path.read_bytes()
        for at in [0, len(data) - 1, *(chance.randrange(len(data)) for _ in range(12))]:
            spoiled = bytearray(data)
            spoiled[at] ^= 1 << chance.randrange(8)
            path.write_bytes(spoiled)
            found = report("store", store)
            entry = at // 32 if level == "0" else 256 * (at // 32 + 1) - 1
            assert (found["code"], found["file"], found["entry"]) == (1, f"hashes/{level}", entry)
        for other in (data[:-1], data[:-32], data + b"\0", data + data[:32], b"", data[32:] + data[:32]):
            path.write_bytes(other)
            assert report("store", store)["file"] == f"hashes/{level}"
        path.write_bytes(data)
    (store / "hashes" / "5").write_bytes(bytes(32))
    assert report("store", store)["file"] == "hashes/5"


def test_flipped_bits_of_a_mount_show(entries: list[bytes], tmp_path: Path, report: Report) -> None:
    mount, chance = write_mount(tmp_path / "mount", entries), random.Random(3)
    for path in sorted(each for each in (mount / "log").rglob("*") if each.is_file()):
        data = path.read_bytes()
        for at in [0, len(data) - 1, chance.randrange(len(data))]:
            spoiled = bytearray(data)
            spoiled[at] ^= 1 << chance.randrange(8)
            path.write_bytes(spoiled)
            found = report("mount", mount)
            assert (found["code"], found["file"]) == (1, str(path.relative_to(mount)))
        for other in (data[:-1], data + data):
            path.write_bytes(other)
            assert report("mount", mount)["code"] == 1
        path.write_bytes(data)
    (mount / "log" / "tile" / "0" / tile_name(0)).unlink()
    assert report("mount", mount)["code"] == 3


def test_moved_entries_show(entries: list[bytes], tmp_path: Path, report: Report) -> None:
    chance = random.Random(4)
    for number in range(12):
        at = chance.randrange(1, len(entries) - 2)
        swapped = [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]]
        doubled = [*entries[:at], entries[at], *entries[at:]]
        for kind, changed in (("swap", swapped), ("double", doubled), ("drop", [*entries[:at], *entries[at + 1 :]])):
            found = report("store", write_store(tmp_path / f"{kind}{number}", changed))
            assert (found["code"], found["entry"]) == (1, at + (kind == "double")), found
            assert found["file"] == f"journal/{(found['entry'] // 512) * 512:020}.seg"


def test_cut_and_reordered_segments_show(made: Path, tmp_path: Path, report: Report) -> None:
    def spoiled(name: str, change: Callable[[list[Path]], object]) -> dict[str, Any]:
        shutil.copytree(made, tmp_path / name)
        change(sorted((tmp_path / name / "journal").glob("*.seg")))
        return report("store", tmp_path / name)

    def exchange(paths: list[Path]) -> None:
        first, second = paths[0].read_bytes(), paths[1].read_bytes()
        paths[0].write_bytes(second)
        paths[1].write_bytes(first)

    cases: dict[str, Callable[[list[Path]], object]] = {
        "no first": lambda paths: paths[0].unlink(),
        "no last": lambda paths: paths[-1].unlink(),
        "renamed": lambda paths: paths[-1].rename(paths[-1].with_suffix(".old")),
        "exchanged": exchange,
        "short": lambda paths: paths[0].write_bytes(paths[0].read_bytes()[:-1]),
        "zeros": lambda paths: paths[0].write_bytes(paths[0].read_bytes() + bytes(9)),
        "cut": lambda paths: paths[-1].write_bytes(paths[-1].read_bytes().rstrip(b"\0")[:-1]),
        "tail": lambda paths: paths[-1].write_bytes(paths[-1].read_bytes().rstrip(b"\0") + b"\0\2{}"),
    }
    for name, change in cases.items():
        assert spoiled(name, change)["code"] == 1, name


def test_every_field_of_a_seal_is_checked(entries: list[bytes], tmp_path: Path, report: Report) -> None:
    """One bit of a value, in the middle and in the last seal, with everything after it as it was."""
    seals = [index for index, entry in enumerate(entries) if entry.startswith(b'{"count"')]
    signed = ["--checkpoint", tmp_path / "signed", "--key", SIGNER.vkey]  # nothing else knows the time of the last seal
    (tmp_path / "signed").write_text(SIGNER.checkpoint([sha(b"\0", entry) for entry in entries]))
    for index in (seals[0], seals[len(seals) // 2], seals[-1]):
        for name, old in json.loads(entries[index]).items():
            value = json.loads(entries[index])
            value[name] = old + 1 if isinstance(old, int) else old[:-2] + chr(ord(old[-2]) ^ 1) + old[-1]
            changed = [*entries[:index], canonical(value), *entries[index + 1 :]]
            found = report("store", write_store(tmp_path / f"{index}{name}", changed), *signed)
            shutil.rmtree(tmp_path / f"{index}{name}")
            assert found["code"] == 1, (index, name)
            assert found["entry"] in (index, index + 1) or name == "time", (index, name, found)


def spoil(
    kind: str, change: Callable[[dict[str, Any]], None], number: int = 3
) -> Callable[[int, dict[str, Any]], None]:
    """Changes one entry of this kind."""
    left = [number]

    def apply(_: int, value: dict[str, Any]) -> None:
        if value["t"] == kind:
            left[0] -= 1
            if left[0] == 0:
                change(value)

    return apply


def posting(number: int = 0, **members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["postings"][number].update(members)


REWRITTEN: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    *((kind, posting(amount="4.99")) for kind in ("txn/1", "hold/1", "post/1", "void/1")),
    *((kind, posting(prev=1)) for kind in ("txn/1", "hold/1", "post/1", "void/1")),
    *((kind, posting(account="nobody")) for kind in ("txn/1", "hold/1")),
    *(("txn/1", posting(**{name: "1.00"})) for name in ("debits", "credits")),
    *(("post/1", posting(**{name: "1.00"})) for name in ("debits", "credits", "held_debits", "held_credits")),
    *(("hold/1", posting(**{name: "123456.00"})) for name in ("held_debits", "held_credits")),
    *((kind, posting(currency="JPY")) for kind in ("txn/1", "hold/1")),
    ("txn/1", posting(amount="010000.00")),
    ("txn/1", posting(amount="-1.00")),
    ("txn/1", posting(amount="1.0")),
    ("txn/1", posting(side="both")),
    ("txn/1", lambda value: value["postings"].pop()),
    ("txn/1", lambda value: value.update(tx=2)),
    ("txn/1", lambda value: value.update(id="o-bank")),
    ("txn/1", lambda value: value.update(more=1)),
    ("txn/1", lambda value: value.update(intent="00")),
    ("txn/1", lambda value: value.update(t="txn/2")),
    ("post/1", lambda value: value.update(hold="nothing")),
    ("account/1", lambda value: value.update(account="bank")),
    ("account/1", lambda value: value.update({"class": "customers"})),
    ("account.update/1", lambda value: value.update(prev=0)),
    ("rejected/1", lambda value: value["request"].update(reference="x")),
    ("rejected/1", lambda value: value.update(id="other")),
    ("genesis/1", lambda value: value.update(currencies="0" * 64)),
]


def test_false_entries_under_good_hashes_show(entries: list[bytes], tmp_path: Path, report: Report) -> None:
    """All hashes and seals are made anew over the change: only replay can tell."""
    for number, (kind, change) in enumerate(REWRITTEN):
        changed = seal_again(entries, states=False, change=spoil(kind, change, 1 if kind == "genesis/1" else 3))
        found = report("store", write_store(tmp_path / str(number), changed))
        assert found["code"] == 1, (number, kind)
        assert json.loads(changed[found["entry"]])["t"].split("/")[0] == kind.split("/")[0], (number, found)


def test_a_false_state_root_shows(entries: list[bytes], tmp_path: Path, report: Report) -> None:
    def change(_: int, value: dict[str, Any]) -> None:
        if value["t"] == "seal/1" and value["height"] == 9:
            value["state_root"] = "ab" * 32

    found = report("store", write_store(tmp_path / "store", seal_again(entries, states=False, change=change)))
    assert (found["code"], "state_root" in found["reason"]) == (1, True)


def test_a_rewritten_history_shows_in_an_anchor_only(entries: list[bytes], tmp_path: Path, report: Report) -> None:
    """An insider with everything: a reference is changed, all is sealed anew and signed. An old checkpoint tells."""

    def change(index: int, value: dict[str, Any]) -> None:
        if value["t"] == "txn/1" and value["tx"] == 400:
            value["reference"] = "never mind"

    leaves = [sha(b"\0", entry) for entry in entries]
    seals = [index for index, entry in enumerate(entries) if entry.startswith(b'{"count"')]
    forged = seal_again(entries, states=True, change=change)
    stores = [write_store(tmp_path / "good", entries), write_store(tmp_path / "forged", forged)]
    key = ["--key", SIGNER.vkey]
    (tmp_path / "early").write_text(SIGNER.checkpoint(leaves[: seals[2] + 1]))
    (tmp_path / "late").write_text(SIGNER.checkpoint(leaves[: seals[-2] + 1]))
    (tmp_path / "forger's").write_text(SIGNER.checkpoint([sha(b"\0", entry) for entry in forged]))
    good, bad = (str(tmp_path / "late"), str(tmp_path / "forger's"))
    assert report("store", stores[0], "--checkpoint", good, "--anchor", tmp_path / "early", *key)["signed_trees"] == 2
    assert report("store", stores[1])["code"] == 0, "inside all looks right"
    assert report("store", stores[1], "--checkpoint", bad, "--anchor", tmp_path / "early", *key)["code"] == 0
    found = report("store", stores[1], "--checkpoint", bad, "--anchor", good, *key)
    assert (found["code"], found["file"], found["entry"]) == (1, good, seals[-2])
    assert report("mount", write_mount(tmp_path / "m", forged), "--anchor", good, *key)["code"] == 1


def test_a_log_cut_off_behind_a_block_shows_in_a_checkpoint(
    entries: list[bytes], tmp_path: Path, report: Report
) -> None:
    leaves = [sha(b"\0", entry) for entry in entries]
    seals = [index for index, entry in enumerate(entries) if entry.startswith(b'{"count"')]
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_text(SIGNER.checkpoint(leaves))
    store = write_store(tmp_path / "short", entries[: seals[-2] + 1])
    assert report("store", store)["code"] == 0
    found = report("store", store, "--checkpoint", checkpoint, "--key", SIGNER.vkey)
    assert (found["code"], found["file"]) == (1, str(checkpoint))
    checkpoint.write_text(SIGNER.checkpoint(leaves[:-1]))  # not at a seal
    assert (
        report("store", write_store(tmp_path / "s", entries), "--checkpoint", checkpoint, "--key", SIGNER.vkey)["code"]
        == 1
    )
    other = Signer("ledger.example/other")
    checkpoint.write_text(other.checkpoint(leaves, other.name))
    assert report("store", tmp_path / "s", "--checkpoint", checkpoint, "--key", other.vkey)["code"] == 1
    assert ORIGIN != other.name
