"""``ledgerfs verify``: good stores, spoiled ones, and histories that were rewritten with everything in them made to fit."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ledgerfsd.cli import main as cli
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.hashing import Frontier, leaf_hashes, mth
from ledgerfsd.core.pure.canonical import dump
from ledgerfsd.core.pure.journal import recover
from ledgerfsd.core.verifier import Applied, Verifier
from ledgerfsd.errors import DamageError, StoreError
from ledgerfsd.journal.fsck import Check
from ledgerfsd.journal.layout import Layout, create
from ledgerfsd.merkle import note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.state.opening import open_store
from ledgerfsd.state.verify import Anchor, Part, verify
from ledgerfsd.types import Mode

ORIGIN = "ledger.example/verify"
NOW = 1_790_000_000_000_000_000
SEGMENT_BYTES = 64 * 1024
MUTATIONS = 150

Entries = list[dict[str, Any]]


def intents(victim: str = "1.00") -> list[list[dict[str, Any]]]:
    """Submissions; the amount of one early payment is ``victim``."""
    opening = [
        {"type": "open_account", "account": "bank", "class": "safeguarding_asset", "currency": "EUR", "limit": "none"},
        *(
            {"type": "open_account", "account": f"c{number}", "class": "customer_liability", "currency": "EUR"}
            for number in range(5)
        ),
        {"type": "register_currency", "currency": "PTS", "decimals": 0},
    ]
    first = {"debit": "bank", "credit": "c0", "amount": victim, "id": "victim"}
    rest: list[list[dict[str, Any]]] = []
    for block in range(25):
        pays = [
            {"debit": "bank", "credit": f"c{number % 5}", "amount": "2.00", "id": f"p{block}-{number}"}
            for number in range(45)
        ]
        hold = {"type": "hold", "debit": "c1", "credit": "c2", "amount": "0.50", "id": f"h{block}"}
        end = (
            {"type": "post", "hold": f"h{block}", "amount": "0.25"}
            if block % 2
            else {"type": "void", "hold": f"h{block}"}
        )
        back = {"type": "reverse", "of": f"tx_{block + 2:04}"}
        rest.append([*pays, hold, end, back, {"debit": "c4", "credit": "c3", "amount": "999999.00"}])
    return [opening, [first], *rest, [{"type": "freeze", "account": "c4"}]]


def make(root: Path, victim: str = "1.00") -> Layout:
    """A store with projections, of more than a thousand transactions."""
    layout = create(root, ORIGIN, segment_bytes=SEGMENT_BYTES)
    store = open_store(layout, segment_bytes=SEGMENT_BYTES)
    store.engine.start()
    for number, each in enumerate(intents(victim)):
        data = b"".join(json.dumps(intent).encode() + b"\n" for intent in each)
        store.engine.submit(data, source=b"f%d" % number, first_line=1, mode=Mode.EACH, now_ns=NOW)
        store.engine.drain()
    assert store.engine.counts().transactions > 1000
    store.projector.save_now()
    store.close()
    return layout


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make(tmp_path_factory.mktemp("verify") / "good")


def entries_of(layout: Layout) -> Entries:
    data = b"".join(path.read_bytes() for path in layout.segments())
    return [json.loads(entry) for entry in recover(data).entries]


def signed(layout: Layout, size: int, signer: note.Signer) -> bytes:
    """What an auditor took home when the log had this size."""
    log = Frontier()
    log.append(leaf_hashes([dump(entry) for entry in entries_of(layout)[:size]]))
    return note.sign(Checkpoint(ORIGIN, size, log.root()).body(), [signer])


def problems(layout: Layout, *anchors: Anchor) -> list[str]:
    findings, _ = verify(layout, anchors=list(anchors))
    return [
        f"{found.severity} {found.file} {found.entry}: {found.what}" for found in findings if found.severity != "note"
    ]


def test_a_good_store(good: Layout) -> None:
    findings, found = verify(good, anchors=[])
    assert findings == []
    entries = entries_of(good)
    assert (found.entries, found.blocks) == (len(entries), sum(entry["t"] == "seal/1" for entry in entries))
    assert any("state_root" in entry for entry in entries)
    assert found.log_root == root_of(entries)


def root_of(entries: Entries) -> str:
    log = Frontier()
    log.append(leaf_hashes([dump(entry) for entry in entries]))
    return log.root().hex()


def test_one_bad_bit_anywhere_in_the_journal(good: Layout) -> None:
    """Each is found; the file is named, and an entry of the batch or of its neighbours."""
    chance = random.Random(7)
    segments = good.segments()
    seals = [entry["index"] for entry in entries_of(good) if entry["t"] == "seal/1"]
    for _ in range(MUTATIONS):
        path = chance.choice(segments)
        before = path.read_bytes()
        place = chance.randrange(len(before.rstrip(b"\0")))
        path.write_bytes(before[:place] + bytes([before[place] ^ 1 << chance.randrange(8)]) + before[place + 1 :])
        found = [each for each in verify(good, anchors=[])[0] if each.severity == "damage"]
        path.write_bytes(before)
        assert found, (path.name, place)
        assert found[0].file.startswith("journal/")
        assert found[0].entry <= seals[-1] + 1
    assert problems(good) == []


@pytest.mark.parametrize("name", ["hashes/0", "hashes/1", "runs/offsets", "runs/transactions", "runs/blocks"])
def test_one_bad_bit_in_a_projection(good: Layout, name: str) -> None:
    chance = random.Random(name)
    path = good.root / name
    before = path.read_bytes()
    for _ in range(10):
        place = chance.randrange(len(before.rstrip(b"\0")))
        path.write_bytes(before[:place] + bytes([before[place] ^ 1 << chance.randrange(8)]) + before[place + 1 :])
        (found,) = problems(good)
        assert found.startswith(f"projection {name} -1: item {place // (32 if 'hashes' in name else 8)} ")
    path.write_bytes(before[:64])
    assert "ends before item" in problems(good)[0]
    path.write_bytes(before)


def test_one_bad_bit_in_the_index_or_in_genesis(good: Layout) -> None:
    """Of index.lmdb in what it says: the account pages and tables."""
    chance = random.Random(11)
    data = good.index / "data.mdb"
    before = data.read_bytes()
    begin = before.index(b"bank")  # in the record of the first account
    for _ in range(20):
        place = chance.randrange(begin, begin + 800)
        data.write_bytes(before[:place] + bytes([before[place] ^ 1 << chance.randrange(8)]) + before[place + 1 :])
        (found,) = problems(good)
        assert found.startswith("projection index.lmdb"), place
    data.write_bytes(before)
    genesis = good.genesis.read_bytes()
    good.genesis.write_bytes(genesis.replace(b"ledger.", b"Ledger."))
    assert problems(good) == ["projection genesis.json 0: is not the bytes of entry 0 and a newline"]
    good.genesis.write_bytes(genesis)
    assert problems(good) == []


def test_an_insider_with_the_key(good: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One old amount, and everything after it made anew. Only what was kept elsewhere shows it."""
    signer = note.generate(ORIGIN)
    forged = make(tmp_path / "forged", victim="1000.00")
    assert problems(forged) == []
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(signed(good, 200, signer))
    arguments = ["verify", "--anchor", str(checkpoint), "--vkey", signer.verifier().encode(), "--store"]
    assert cli.main([*arguments, str(good.root)]) == 0
    assert "1 anchors agree" in capsys.readouterr().out
    assert cli.main([*arguments, str(forged.root)]) == 4
    assert "the history was rewritten" in capsys.readouterr().err
    # A key of somebody else, and a log that is shorter than what was signed.
    other = [*arguments[:4], note.generate(ORIGIN).verifier().encode(), "--store", str(good.root)]
    assert cli.main(other) != 0
    found = problems(good, Anchor("kept", 10**6, bytes(32)))
    assert found == [
        f"damage kept {len(entries_of(good))}: a log of 1000000 entries was signed, but this one has {len(entries_of(good))}"
    ]
    capsys.readouterr()
    assert cli.main(["verify", "--anchor", str(checkpoint), "--store", str(good.root)]) == 1
    assert "give --trusted-root FILE or --vkey KEY" in capsys.readouterr().err


def reseal(layout: Layout, entries: Entries, *, roots: Mapping[int, str] = MappingProxyType({})) -> None:
    """Write these entries with every seal worked out anew, and with these state roots (by index of the seal)."""
    stream, leaves, prev, first, log = b"", list[bytes](), "00" * 32, 0, Frontier()
    policy = b""
    for index, entry in enumerate(entries):
        assert entry["index"] == index
        if entry["t"] == "seal/1":
            entry.pop("state_root", None)
            if index in roots:
                entry["state_root"] = roots[index]
            batch = b"".join(leaves[first:])
            log.append(batch)
            entry |= {"prev": prev, "tx_root": mth(batch).hex(), "log_root": log.root().hex(), "policy": policy.hex()}
        data = dump(entry)
        leaves.append(leaf_hashes([data]))
        if entry["t"] in ("genesis/1", "policy/1"):
            policy = leaves[-1]
        if entry["t"] == "seal/1":
            log.append(leaves[-1])
            prev, first = leaves[-1].hex(), index + 1
        stream += struct.pack(">H", len(data)) + data
    for path in layout.segments():
        path.unlink()
    (layout.journal / f"{0:020}.seg").write_bytes(stream)


def unbalanced(entries: Entries) -> int:
    entry = next(entry for entry in entries if entry.get("id") == "victim")
    debit = next(posting for posting in entry["postings"] if posting["side"] == "debit")
    debit["amount"] = debit["debits"] = "0.99"
    return int(entry["index"])


def twice(entries: Entries) -> int:
    entry = next(entry for entry in entries if entry.get("id") == "p3-7")
    entry["id"] = "p3-6"
    return int(entry["index"])


def reversed_twice(entries: Entries) -> int:
    first, second = [entry for entry in entries if "reverses" in entry][:2]
    second["reverses"] = first["reverses"]
    return int(second["index"])


def posted_twice(entries: Entries) -> int:
    posts = [entry for entry in entries if entry["t"] in ("post/1", "void/1")]
    posts[1]["hold"] = posts[0]["hold"]
    return int(posts[1]["index"])


def another_total(entries: Entries) -> int:
    entry = next(entry for entry in entries if entry.get("id") == "p3-7")
    entry["postings"][0]["debits"] = "123456.00"
    return int(entry["index"])


def another_number(entries: Entries) -> int:
    entry = next(entry for entry in entries if entry.get("id") == "p3-7")
    entry["tx"] += 1
    return int(entry["index"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (unbalanced, "its debits and credits differ"),
        (twice, "its id belongs to an entry before"),
        (reversed_twice, "has been reversed already"),
        (posted_twice, "the hold has ended already"),
        (another_total, "do not follow from those before"),
        (another_number, "the transaction number does not follow"),
    ],
)
def test_what_does_not_follow_though_every_seal_fits(
    tmp_path: Path, change: Callable[[Entries], int], what: str
) -> None:
    layout = make(tmp_path / "store")
    entries = entries_of(layout)
    reseal(layout, entries)
    assert not [found for found in problems(layout) if found.startswith("damage journal")], (
        "resealing alone is not noticed"
    )
    index = change(entries)
    reseal(layout, entries)
    (found,) = problems(layout)
    assert found.startswith(f"damage journal/{0:020}.seg {index}: ")
    assert what in found


def test_another_state_root_though_every_seal_fits(tmp_path: Path) -> None:
    layout = make(tmp_path / "store")
    entries = entries_of(layout)
    place = next(entry["index"] for entry in entries if "state_root" in entry)
    reseal(layout, entries, roots={place: "ab" * 32})
    (found,) = problems(layout)
    assert found == f"damage journal/{0:020}.seg {place}: its state_root is not that of the accounts"


def limited(layout: Layout, kibibytes: int) -> subprocess.CompletedProcess[str]:
    """``ledgerfs verify`` in a process that may have so much address space."""
    command = [sys.executable, "-m", "ledgerfsd.cli.main", "verify", "--store", str(layout.root), "--jobs", "2"]
    shell = ["bash", "-c", f'ulimit -v {kibibytes}; exec "$@"', "verify", *command]
    return subprocess.run(shell, capture_output=True, text=True, timeout=120, check=False)


def test_address_space_that_is_limited(good: Layout) -> None:
    """It takes some for as many accounts as there may ever be, but none for each state root; without it there is an error, and no crash."""
    enough = limited(good, 5_000_000)
    assert (enough.returncode, enough.stderr) == (0, "")
    assert enough.stdout.startswith("verified ")
    little = limited(good, 3_000_000)
    assert little.returncode == StoreError.exit_code
    assert little.stderr.startswith("ledgerfs: verifying takes ")
    assert "ulimit -v" in little.stderr
    assert little.stderr.count("\n") == 1


def test_nothing_of_the_store_is_changed(good: Layout) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(good.root.rglob("*"))
            if path.is_file() and "lock" not in path.name
        }

    before = state()
    assert problems(good) == []
    torn = good.segments()[-1]
    data = torn.read_bytes()
    torn.write_bytes(data.rstrip(b"\0") + b'\x00\x09{"count":' + bytes(100))
    spoiled = state()
    findings, _ = verify(good, anchors=[], part=Part(projections=False))
    assert [found.severity for found in findings] == ["note"]
    assert state() == spoiled
    torn.write_bytes(data)
    assert {name: content for name, (_, content) in state().items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_what_verifies_gives_the_same_as_what_runs(good: Layout, copied: Layout) -> None:
    """Two pieces of code that share nothing but the tables: counts and every account."""
    usual = Engine(copied.root, segment_bytes=SEGMENT_BYTES)
    for jobs in (1, 2, 5):
        verified = Verifier(good.root, applied=Applied(), jobs=jobs)
        verified.wait()
        assert verified.damage is None
        assert verified.counts() == usual.counts()
        for ordinal in range(usual.counts().accounts):
            assert verified.account(ordinal) == usual.account(ordinal)


def written(layout: Layout, entries: list[bytes]) -> None:
    """The journal holds these entries, in one segment."""
    for path in layout.segments():
        path.unlink()
    stream = b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)
    (layout.journal / f"{0:020}.seg").write_bytes(stream)


@pytest.fixture
def copied(good: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(good.root, tmp_path / "copy")
    return Layout(tmp_path / "copy")


def other(value: Any) -> Any:
    """A value of the same form that is another."""
    if isinstance(value, int):
        return value ^ 1
    return value[:-2] + chr(ord(value[-2]) ^ 1) + value[-1]


def test_every_field_of_a_seal(copied: Layout) -> None:
    """One bit of each, in an early seal, one in the middle and the last: the seal is named."""
    entries = [dump(entry) for entry in entries_of(copied)]
    seals = [index for index, entry in enumerate(entries) if entry.startswith(b'{"count"')]
    for index in (seals[1], seals[len(seals) // 2], seals[-1]):
        for name, value in json.loads(entries[index]).items():
            changed = json.loads(entries[index]) | {name: other(value)}
            written(copied, [*entries[:index], dump(changed), *entries[index + 1 :]])
            findings, _ = verify(copied, anchors=[])
            damage = next(found for found in findings if found.severity == "damage")
            if damage.file == "index.lmdb":  # the time of the last seal: nothing behind it binds it, but the tip knows
                assert (name, index, damage.entry) == ("time", seals[-1], seals[-1])
            else:
                assert (damage.file, damage.entry) == (f"journal/{0:020}.seg", index), (name, damage)


def test_entries_that_are_moved(copied: Layout) -> None:
    """Swapped, doubled, left out, cut short: the first entry that is not where it belongs is named."""
    entries = [dump(entry) for entry in entries_of(copied)]
    chance = random.Random(5)
    for at in [chance.randrange(2, len(entries) - 200) for _ in range(12)]:
        for changed, first in (
            ([*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]], at),
            ([*entries[:at], entries[at], *entries[at:]], at + 1),
            ([*entries[:at], *entries[at + 1 :]], at),
            ([*entries[:at], entries[at][:-1], *entries[at + 1 :]], at),
        ):
            written(copied, changed)
            findings, _ = verify(copied, anchors=[])
            assert (findings[0].severity, findings[0].entry) == ("damage", first), findings[0]


def test_an_entry_that_was_changed_is_named_also_without_hashes(copied: Layout) -> None:
    """By the files of hashes/ if they are there; else by what no longer follows from the entries before."""
    entries = [dump(entry) for entry in entries_of(copied)]
    at = next(index for index, entry in enumerate(entries) if b'"p3-7"' in entry)
    changed = entries[at].replace(b'"amount":"2.00"', b'"amount":"3.00"', 1)
    written(copied, [*entries[:at], changed, *entries[at + 1 :]])
    for _ in range(2):
        (found,) = problems(copied)
        assert found.startswith(f"damage journal/{0:020}.seg {at}: ")
        for path in copied.hashes.iterdir():
            path.unlink()


def test_from_a_checkpoint(copied: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hashes before it are taken on trust; what is behind it is verified as ever, and its root must be met."""
    signer = note.generate(ORIGIN)
    seals = [entry["index"] for entry in entries_of(copied) if entry["t"] == "seal/1"]
    checkpoint = tmp_path / "checkpoint"
    arguments = ["verify", "--store", str(copied.root), "--vkey", signer.verifier().encode(), "--from"]
    for seal in (seals[0], seals[9], seals[-1]):
        checkpoint.write_bytes(signed(copied, seal + 1, signer))
        assert cli.main([*arguments, str(checkpoint)]) == 0
        out = capsys.readouterr().out
        assert f"the hashes of the first {seal + 1:,} entries were trusted" in out
        assert "1 anchors agree" in out
        assert cli.main([*arguments, str(seal + 1)]) == 0
    assert cli.main([*arguments, str(seals[9])]) == 3
    assert "no seal ends the part that is to be trusted" in capsys.readouterr().err
    checkpoint.write_bytes(signed(copied, seals[9] + 1, signer))
    entries = [dump(entry) for entry in entries_of(copied)]
    before = next(index for index, entry in enumerate(entries) if b'"p3-7"' in entry)
    behind = next(index for index, entry in enumerate(entries) if b'"p20-7"' in entry)
    for at, code in ((before, 0), (behind, 4)):
        changed = entries[at].replace(b'"t":', b'"reference":"x","t":', 1)
        written(copied, [*entries[:at], changed, *entries[at + 1 :]])
        (copied.runs / "offsets").unlink(missing_ok=True)  # the entry is longer: that would show otherwise
        assert cli.main([*arguments, str(checkpoint), "--journal-only"]) == code
        assert (f"entry {at}: " in capsys.readouterr().err) == (code == 4)
    written(copied, entries)
    hashes = bytearray((copied.hashes / "0").read_bytes())
    hashes[32 * seals[9] - 1] ^= 1
    (copied.hashes / "0").write_bytes(hashes)
    assert cli.main([*arguments, str(checkpoint)]) == 4, "what is trusted must lead to the checkpoint"


def test_another_state_root_in_the_newest_seal(copied: Layout) -> None:
    """FORMAT 12: its batch counts, nothing is lost, nothing more is accepted; verify, fsck and the start name it alike."""
    entries = entries_of(copied)
    last = entries[-1]
    assert "state_root" in last
    written(copied, [dump(entry) for entry in entries[:-1]] + [dump(last | {"state_root": "ab" * 32})])
    (copied.index / "data.mdb").unlink()
    (found,) = problems(copied)
    assert found == f"damage journal/{0:020}.seg {last['index']}: its state_root is not that of the accounts"
    damage = next(each for each in Check(copied).run() if each.severity == "damage")
    assert damage.entry == last["index"]
    opened = open_store(copied, segment_bytes=SEGMENT_BYTES)
    opened.engine.start()
    opened.engine.submit(b'{"debit":"bank","credit":"c0","amount":"1.00"}', source=b"f", first_line=1, mode=Mode.EACH)
    opened.engine.drain()
    assert opened.engine.counts().entries == len(entries)
    assert "state root of the newest seal" in opened.engine.failure
    opened.engine.close()
    opened.index.close()


@pytest.mark.parametrize("saved", [True, False])
def test_bytes_behind_a_closed_segment(copied: Layout, saved: bool) -> None:
    """FORMAT 3: zeros are a cut that a crash lost, and the next start makes it good. Anything else was put there: no start touches it."""
    if not saved:
        (copied.index / "data.mdb").unlink()
    first, second = copied.segments()[:2]
    whole = first.read_bytes()
    for behind in (b"\0\0x", bytes(5000) + b"\1"):
        first.write_bytes(whole + behind)
        damage = next(found for found in verify(copied, anchors=[])[0] if found.severity == "damage")
        assert (damage.file, damage.entry) == (f"journal/{first.name}", int(second.stem) - 1)
        assert "bytes that are no entry stand behind it" in damage.what
        assert any(found.severity == "damage" for found in Check(copied).run())
        named = f"journal/{first.name}, entry {damage.entry}: bytes that are no entry"
        with pytest.raises(DamageError, match="entry [0-9]+ was committed here" if saved else named):
            open_store(copied, segment_bytes=SEGMENT_BYTES)
        assert first.read_bytes() == whole + behind
    if saved:
        return  # the cut is synced before anything behind it is, and so before a mark that lies behind it
    first.write_bytes(whole + bytes(5000))
    assert not any(found.severity == "damage" for found in verify(copied, anchors=[])[0])
    opened = open_store(copied, segment_bytes=SEGMENT_BYTES)
    opened.engine.start()
    opened.close()
    assert first.read_bytes() == whole
