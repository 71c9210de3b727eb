"""``ledgerfs verify`` on a running ledger under load, and on a store that a daemon made, every file of which has a rule."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.cli import main as cli
from ledgerfsd.core.pure import runs
from ledgerfsd.state.store import IndexStore
from tests.conftest import Daemon
from tests.fuse.conftest import ACCOUNTS, lines, pay

FLIPS = 12

Verified = Callable[..., tuple[int, dict[str, Any]]]

# Every file that a store may hold (FORMAT 1), and what a flipped bit in it comes to.
RULES = {
    "journal/*.seg": "damage",
    "format": "refused",
    "genesis.json": "projection",
    "hashes/[0-9]": "projection",
    "runs/offsets": "projection",
    "runs/transactions": "projection",
    "runs/blocks": "projection",
    "indexes/*": "projection",
    "index.lmdb/data.mdb": "projection or nothing",  # LMDB has free pages, and pages of the transaction before
    "index.lmdb/lock.mdb": "nothing",
    "journal/.spare": "nothing",
    "journal/.next": "nothing",
    "lock": "nothing",
    "daemon.log": "nothing",
    "receipts/*.ndjson": "nothing",
    "digests/*.ndjson": "evidence",
    "keys/trusted_root.json": "evidence",
    "keys/last-signed": "note or nothing",  # one slot of two: the other counts then
    "keys/*.key": "nothing",  # no private key is read: the signer refuses to start
    "keys/keys.lock": "nothing",
}


@pytest.fixture
def verified(capsys: pytest.CaptureFixture[str]) -> Verified:
    """Runs ``ledgerfs verify``; gives the exit code and its JSON."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = cli.main(["--json", "verify", *map(str, arguments)])
        captured = capsys.readouterr()
        found: dict[str, Any] = json.loads(captured.out)
        return code, found

    return run


def feed(daemon: Daemon, first: int, files: int, stop: threading.Event | None = None) -> None:
    for number in range(first, first + files):
        if stop is not None and stop.is_set():
            return
        payments = [pay("0.01", id=f"p{number}-{each}", reference=f"r {each}") for each in range(60)]
        held = {"type": "hold", "id": f"h{number}", "debit": "acc_001", "credit": "acc_002", "amount": "0.01"}
        ended = {"type": "post", "hold": f"h{number}"} if number % 2 else {"type": "void", "hold": f"h{number}"}
        (daemon.path / "inbox" / f"{number}.ndjson").write_text(lines([*payments, held, ended]))
        with pytest.raises(OSError, match="quota"):  # more than there is: a rejection in the log
            (daemon.path / "inbox" / f"no{number}.json").write_text(json.dumps(pay(amount="9999999.00")))


@pytest.fixture(scope="module")
def loaded(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    from ledgerfsd.journal.layout import create

    place = tmp_path_factory.mktemp("verifying")
    create(place / "store", "ledger.example/verifying", segment_bytes=2**20)
    (place / "mount").mkdir()
    daemon = Daemon(place / "store", place / "mount").start()
    try:
        (daemon.path / "inbox" / "accounts.ndjson").write_text(lines(ACCOUNTS))
        feed(daemon, 0, 20)
        yield daemon
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()
        daemon.detach()


def test_a_running_ledger_under_load(loaded: Daemon, verified: Verified) -> None:
    """Up to its newest signed checkpoint: a batch that is being written never looks like damage."""
    stop = threading.Event()
    writer = threading.Thread(target=feed, args=(loaded, 100, 10_000, stop))
    writer.start()
    try:
        sizes = []
        for _ in range(25):
            code, found = verified("--store", loaded.store, "--mount", loaded.path)
            assert (code, found["findings"]) == (0, [])
            assert found["anchors"] == 1
            sizes.append(found["entries"])
        assert sizes == sorted(sizes)
        assert sizes[-1] > sizes[0], "nothing was written meanwhile"
    finally:
        stop.set()
        writer.join()
    code, found = verified("--store", loaded.store, "--mount", loaded.path, "--from", sizes[0])
    assert (code, found["trusted"], found["anchors"]) == (0, sizes[0], 1)
    assert verified("--store", loaded.store)[0] == 3, "without --mount it wants the store for itself"
    code, found = verified("--store", loaded.store, "--mount", loaded.path, "--from", 10**9)
    assert code == 1
    assert "the newest checkpoint of the mount is of" in found["error"]


def test_what_was_signed_must_be_there(loaded: Daemon, verified: Verified) -> None:
    """Of a running store too: one bad bit below the checkpoint is damage."""
    path = sorted((loaded.store / "journal").glob("*.seg"))[0]
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(before.index(b'"reference":"r 7"') + 13)
        file.write(b"s")
    code, found = verified("--store", loaded.store, "--mount", loaded.path)
    with path.open("r+b") as file:
        file.write(before[: 2**20])
    assert code == 4
    (damage,) = found["findings"]
    assert (damage["severity"], damage["file"]) == ("damage", f"journal/{0:020}.seg")
    assert b'"reference":"r 7"' in entries_of(before)[damage["entry"]]
    assert verified("--store", loaded.store, "--mount", loaded.path)[0] == 0


def entries_of(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at + 2 <= len(data) and (length := int.from_bytes(data[at : at + 2], "big")):
        found.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def test_every_file_of_a_store_has_a_rule(loaded: Daemon, verified: Verified) -> None:
    """By construction: a file that no rule names fails here, and each rule is tried with flipped bits."""
    store = loaded.store
    assert loaded.stop() == 0
    code, found = verified("--store", store)
    assert (code, found["findings"]) == (0, [])
    assert found["transactions"] > 1000
    chance = random.Random(21)
    saved, tried = IndexStore.peek(store / "index.lmdb"), set()
    assert saved is not None
    listed = [name for kind in range(len(runs.KINDS)) for name in runs.listed(saved.state.tables["indexes"], kind)]
    for path in sorted(each for each in store.rglob("*") if each.is_file()):
        name = str(path.relative_to(store))
        (pattern,) = [pattern for pattern in RULES if fnmatch(name, pattern)] or [None]
        assert pattern is not None, f"there is no rule for {name}"
        # A run that was merged since the last save, or into which others were, is removed by the next start.
        rule = "nothing" if pattern == "indexes/*" and path.name not in listed else RULES[pattern]
        tried.add(rule)
        flip(verified, path, name, rule, chance)
    assert tried >= {"damage", "refused", "projection", "projection or nothing", "nothing"}
    assert verified("--store", store)[0] == 0


def flip(verified: Verified, path: Path, name: str, rule: str, chance: random.Random) -> None:
    store = next(each for each in path.parents if (each / "journal").is_dir())
    before = path.read_bytes()
    used = len(before.rstrip(b"\0")) if rule in ("damage", "projection") else len(before)
    used -= rule == "evidence"  # without the last newline the last line was never said to be there
    for at in [chance.randrange(used) for _ in range(FLIPS)] if used else []:
        spoiled = before[:at] + bytes([before[at] ^ 1 << chance.randrange(8)]) + before[at + 1 :]
        path.write_bytes(spoiled)
        code, found = verified("--store", store)
        path.write_bytes(before)
        wrong = [each for each in found.get("findings", []) if each["severity"] != "note"]
        if rule == "refused":
            assert code == 3, (name, at)
            assert str(path) in found["error"]
        elif rule.endswith("nothing") and "lmdb" not in name:
            assert (code, wrong) == (0, []), (name, at)
        elif rule == "evidence":
            assert (code, wrong[0]["severity"], wrong[0]["file"]) == (1, "evidence", name), (name, at, wrong)
        elif rule == "damage":
            index = sum(end <= at for end in ends(before)) + int(path.stem)
            assert code == 4, (name, at)
            assert wrong[0]["file"] == name
            assert wrong[0]["entry"] in (index, index + 1), (name, at, wrong)
        elif rule == "projection" or wrong:
            assert code in (1, 4), (name, at)  # the tip that index.lmdb keeps is evidence: without it, damage
            assert wrong[0]["file"] == name.split("/")[0] if "lmdb" in name else name, (name, at, wrong)


def ends(data: bytes) -> list[int]:
    found, at = [], 0
    for entry in entries_of(data):
        at += 2 + len(entry)
        found.append(at)
    return found
