"""journal/stream.py, projections.py and fsck.py, on journals made by the pure twin: good ones, and ones damaged one by one."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.journal import fsck, tree
from ledgerfsd.journal.fsck import Check, Finding
from ledgerfsd.journal.layout import Layout
from ledgerfsd.types import Mode

NOW = 1_790_000_000_000_000_000
SEGMENT_BYTES = 64 * 1024


def make_ledger(transfers: int = 300) -> Ledger:
    """Accounts, a rejection, a policy, awkward text, and enough transfers for two bundles and several blocks."""
    ledger = Ledger.create("ledger.example/fsck", NOW)
    opening = [
        {"type": "open_account", "account": "a", "currency": "EUR", "class": "equity"},
        {"type": "open_account", "account": "b", "currency": "EUR", "class": "customer_liability"},
        {"type": "register_currency", "currency": "PTS", "decimals": 0},
        {"debit": "b", "credit": "a", "amount": "1.00", "reference": "refused: nothing there"},
        {
            "debit": "a",
            "credit": "b",
            "amount": "1.00",
            "metadata": {"time": "x", "index": 7, "ü": "\U0001f4b6", "\uffff": 1, "\U00010000": 2, "t": "policy/1"},
        },
    ]
    submit(ledger, opening, "opening.ndjson")
    for block in range(0, transfers, 50):
        submit(ledger, [{"debit": "a", "credit": "b", "amount": "0.01"}] * 50, f"{block}.ndjson")
    return ledger


def submit(ledger: Ledger, intents: list[dict[str, object]], name: str) -> None:
    data = b"\n".join(json.dumps(intent).encode() for intent in intents)
    ledger.submit(data, source=name.encode(), first_line=1, mode=Mode.EACH, dry_run=False, now_ns=NOW)
    ledger.seal(NOW)


def write(root: Path, entries: list[bytes]) -> Layout:
    """A store with these entries in segments (closed as FORMAT, section 3 says) and right projections."""
    layout = Layout(root)
    for directory in (layout.journal, layout.hashes, layout.runs):
        directory.mkdir(parents=True)
    parts: dict[int, bytearray] = {0: bytearray()}
    for index, entry in enumerate(entries):
        if index % 256 == 0 and len(parts[max(parts)]) >= SEGMENT_BYTES:
            parts[index] = bytearray()
        parts[max(parts)] += struct.pack(">H", len(entry)) + entry
    for first, data in parts.items():
        (layout.journal / f"{first:020}.seg").write_bytes(data)
    layout.genesis.write_bytes(entries[0] + b"\n")
    project(layout, entries)
    return layout


def project(layout: Layout, entries: list[bytes]) -> None:
    """hashes/ and runs/ in the most literal way."""
    leaves = [hashlib.sha256(b"\0" + entry).digest() for entry in entries]
    (layout.hashes / "0").write_bytes(b"".join(leaves))
    tiles = [tree.root(leaves[at : at + 256]) for at in range(0, len(leaves) - 255, 256)]
    (layout.hashes / "1").write_bytes(b"".join(tiles))
    offset, offsets, transactions, blocks = 0, b"", b"", b""
    for index, entry in enumerate(entries):
        value = json.loads(entry)
        offsets += struct.pack("<Q", offset)
        offset += 2 + len(entry)
        transactions += struct.pack("<Q", index) if "tx" in value else b""
        blocks += struct.pack("<Q", index) if value["t"] == "seal/1" else b""
    for name, data in (("offsets", offsets), ("transactions", transactions), ("blocks", blocks)):
        (layout.runs / name).write_bytes(data)


def check(layout: Layout, *, quick: bool = False, applied: int | None = None) -> tuple[list[Finding], fsck.Summary]:
    run = Check(layout, quick=quick, applied=applied)
    return list(run.run()), run.summary


@pytest.fixture(scope="module")
def entries() -> list[bytes]:
    return list(make_ledger().entries)


@pytest.fixture
def layout(tmp_path: Path, entries: list[bytes]) -> Layout:
    return write(tmp_path, entries)


def segment_of(layout: Layout, index: int) -> tuple[Path, int]:
    """The file of an entry and the place of its length field in it."""
    for path in reversed(layout.segments()):
        if int(path.stem) <= index:
            data, at = path.read_bytes(), 0
            for _ in range(index - int(path.stem)):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
            return path, at
    raise AssertionError(index)


@pytest.mark.parametrize("quick", [False, True])
def test_good_store_has_no_findings(layout: Layout, entries: list[bytes], quick: bool) -> None:
    findings, summary = check(layout, quick=quick, applied=len(entries))
    assert findings == []
    assert len(layout.segments()) > 1
    assert (summary.entries, summary.blocks) == (len(entries), 8)
    assert summary.log_root == tree.root(tree.leaf_hash(entry) for entry in entries).hex()
    assert summary.transactions == (0 if quick else 301)


def test_zeros_and_an_empty_segment_at_the_end_are_no_finding(layout: Layout, entries: list[bytes]) -> None:
    last = layout.segments()[-1]
    last.write_bytes(last.read_bytes() + bytes(5000))
    (layout.journal / f"{10**6:020}.seg").write_bytes(bytes(4096))
    assert check(layout, applied=len(entries))[0] == []


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("index", [0, 1, 3, 57, 58, 200, 256])
@pytest.mark.parametrize("where", [0, 1, 2, 40, -1])
def test_every_changed_byte_is_found_at_its_batch(
    layout: Layout, entries: list[bytes], quick: bool, index: int, where: int
) -> None:
    path, at = segment_of(layout, index)
    data = bytearray(path.read_bytes())
    data[at + where % (2 + len(entries[index]))] ^= 1
    path.write_bytes(data)
    findings, summary = check(layout, quick=quick)
    assert findings[0].severity == "damage"
    assert findings[0].file == f"journal/{path.name}"
    assert summary.entries <= index
    # A byte of an entry is blamed on the entry; one of a length field on where the stream stops making sense.
    assert findings[0].entry == index if where not in (0, 1) else findings[0].entry >= summary.entries


@pytest.mark.parametrize("where", [0, 2, 40, -1])
def test_changed_byte_in_the_last_batch_is_damage_only_if_it_was_applied(
    layout: Layout, entries: list[bytes], where: int
) -> None:
    """Without evidence that it was ever whole it looks like a torn write (FORMAT, section 3)."""
    path, at = segment_of(layout, 300)
    data = bytearray(path.read_bytes())
    data[at + where % (2 + len(entries[300]))] ^= 1
    path.write_bytes(data)
    assert check(layout)[0][0].severity == "note"
    assert check(layout, applied=len(entries))[0][0].severity == "damage"


@pytest.mark.parametrize("change", [b"2025", b"2199"], ids=["earlier", "later"])
def test_changed_time_of_the_last_seal_but_one_is_damage(layout: Layout, entries: list[bytes], change: bytes) -> None:
    """Only one batch follows, but it is whole: no torn write, though no later seal speaks against it."""
    *_, seal, _ = (index for index, entry in enumerate(entries) if entry.startswith(fsck.SEAL_PREFIX))
    path, at = segment_of(layout, seal)
    data = bytearray(path.read_bytes())
    time = data.index(b'"time":"', at) + 8
    data[time : time + 4] = change
    path.write_bytes(data)
    assert check(layout, quick=True)[0][0].severity == "damage"


def test_spoiled_last_seal_but_one_is_damage(layout: Layout, entries: list[bytes]) -> None:
    """The one seal that follows is of a block that was begun when this one was durable."""
    *_, seal, _ = (index for index, entry in enumerate(entries) if entry.startswith(fsck.SEAL_PREFIX))
    path, at = segment_of(layout, seal)
    data = bytearray(path.read_bytes())
    data[at + 20] ^= 1
    path.write_bytes(data)
    assert check(layout, quick=True)[0][0].severity == "damage"


def test_entry_that_is_not_canonical_but_sealed_is_found(tmp_path: Path, entries: list[bytes]) -> None:
    changed = list(entries)
    changed[3] = changed[3].replace(b'"', b' "', 1)
    layout = write(tmp_path, reseal(changed))
    assert check(layout, quick=True)[0] == []
    findings, _ = check(layout)
    assert (findings[0].severity, findings[0].entry) == ("damage", 3)
    assert "canonical" in findings[0].what


def test_wrong_balance_that_is_sealed_is_found(tmp_path: Path, entries: list[bytes]) -> None:
    changed = list(entries)
    changed[100] = changed[100].replace(b'"amount":"0.01"', b'"amount":"9.01"')
    assert changed[100] != entries[100]
    layout = write(tmp_path, reseal(changed))
    assert check(layout, quick=True)[0] == []
    findings, _ = check(layout)
    assert [(found.severity, found.entry) for found in findings] == [("damage", 100)]
    assert "does not follow" in findings[0].what


def reseal(entries: list[bytes]) -> list[bytes]:
    """Seals that are right for changed entries: what an insider with the code would write."""
    made: list[bytes] = []
    log, batch, height, previous, policy = tree.Frontier(), [], 0, "0" * 64, ""
    for entry in entries:
        value = json.loads(entry)
        if value["t"] == "seal/1":
            height += 1
            value |= {
                "prev": previous,
                "policy": policy,
                "log_root": log.root().hex(),
                "tx_root": tree.root(batch).hex(),
            }
            entry = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
            previous, batch = tree.leaf_hash(entry).hex(), []
        else:
            batch.append(tree.leaf_hash(entry))
            if value["t"] in ("genesis/1", "policy/1"):
                policy = batch[-1].hex()
        log.append(tree.leaf_hash(entry))
        made.append(entry)
    return made


# -- ends


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 30])
def test_unsealed_end_is_a_note_and_the_rest_counts(layout: Layout, entries: list[bytes], keep: int) -> None:
    """The last batch cut after ``keep`` of its entries (and a few bytes more)."""
    last_seal = max(index for index, entry in enumerate(entries[:-1]) if fsck.SEAL_PREFIX == entry[:9])
    path, at = segment_of(layout, last_seal + 1 + keep)
    data = path.read_bytes()
    path.write_bytes(data[: at + 5] + bytes(2000))
    findings, summary = check(layout)
    assert [found.severity for found in findings] == ["note"]
    assert "unfinished batch" in findings[0].what
    assert summary.entries == last_seal + 1


def test_unsealed_end_that_was_applied_is_damage(layout: Layout, entries: list[bytes]) -> None:
    path, at = segment_of(layout, len(entries) - 1)
    path.write_bytes(path.read_bytes()[: at + 5])
    findings, _ = check(layout, applied=len(entries))
    assert findings[0].severity == "damage"
    assert f"applied {len(entries)} entries" in findings[0].what


def test_missing_end_that_was_applied_is_damage(layout: Layout, entries: list[bytes]) -> None:
    last_seal = max(index for index, entry in enumerate(entries[:-1]) if fsck.SEAL_PREFIX == entry[:9])
    path, at = segment_of(layout, last_seal + 1)
    path.write_bytes(path.read_bytes()[:at])
    findings, _ = check(layout, applied=len(entries))
    assert [found.severity for found in findings] == ["damage"]


def missing_first(layout: Layout) -> None:
    layout.segments()[0].unlink()


def missing_second(layout: Layout) -> None:
    layout.segments()[1].unlink()


def renamed_second(layout: Layout) -> None:
    path = layout.segments()[1]
    path.rename(path.with_name(f"{int(path.stem) + 1:020}.seg"))


def misnamed(layout: Layout) -> None:
    path = layout.segments()[1]
    path.rename(path.with_name("copy.seg"))


def grown_first(layout: Layout) -> None:
    path = layout.segments()[0]
    path.write_bytes(path.read_bytes() + bytes(10))


def exchanged(layout: Layout) -> None:
    one, two = layout.segments()[:2]
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


@pytest.mark.parametrize("spoil", [missing_first, renamed_second, misnamed, grown_first, exchanged])
def test_segments_out_of_order_are_damage(layout: Layout, spoil: Callable[[Layout], None]) -> None:
    spoil(layout)
    findings, _ = check(layout, quick=True)
    assert findings[0].severity == "damage"
    assert findings[0].file.startswith("journal/")


def test_user_text_is_not_taken_for_a_seal(tmp_path: Path) -> None:
    """A seal quoted in metadata must not turn a torn batch into damage."""
    ledger = make_ledger(50)
    seal = json.loads(ledger.entries[1])
    quoted = {"debit": "a", "credit": "b", "amount": "0.01", "metadata": {"m": seal, "n": seal}}
    submit(ledger, [quoted, quoted], "quoted.ndjson")
    entries = list(ledger.entries)
    layout = write(tmp_path, entries[:-1])
    findings, summary = check(layout)
    assert [found.severity for found in findings] == ["note"]
    assert summary.entries == len(entries) - 3


# -- projections


def files(layout: Layout) -> Iterator[Path]:
    yield from sorted(layout.hashes.iterdir())
    yield from sorted(layout.runs.iterdir())


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("spoil", ["flip", "cut", "grow", "remove"])
def test_every_wrong_projection_is_named(layout: Layout, entries: list[bytes], number: int, spoil: str) -> None:
    path = list(files(layout))[number]
    data = bytearray(path.read_bytes())
    if spoil == "flip":
        data[len(data) // 2] ^= 1
    elif spoil == "cut":
        del data[-1:]
    elif spoil == "grow":
        data += b"x"
    path.write_bytes(data)
    if spoil == "remove":
        path.unlink()
    findings, _ = check(layout, applied=len(entries))
    assert [(found.severity, found.file) for found in findings] == [("projection", str(path.relative_to(layout.root)))]


def test_the_records_of_ids_add_up(layout: Layout, entries: list[bytes]) -> None:
    run = Check(layout, applied=len(entries) - 1)
    assert list(run.run()) == []
    seed = int.from_bytes(hashlib.sha256(b"\0" + entries[0]).digest()[:8], "little")
    said = [(index, json.loads(entry)) for index, entry in enumerate(entries[:-1])]
    tags = [
        (index, xxhash.xxh3_64_intdigest(value["id"].encode(), seed))
        for index, value in said
        if "id" in value and value.get("code") != "id_reused"
    ]
    assert len(tags) > len(entries) // 2
    numbers = (xxhash.xxh3_64_intdigest(struct.pack("<QI", tag, index)) for index, tag in tags)
    assert run.ids == sum(numbers) % 2**64
    assert Check(layout, quick=True, applied=len(entries)).ids is None


def test_what_lies_behind_the_mark_is_not_compared(layout: Layout) -> None:
    for path in files(layout):
        if path.name == "0":
            path.write_bytes(path.read_bytes()[: 32 * 10] + b"junk")
        elif path.name == "offsets":
            path.write_bytes(path.read_bytes()[: 8 * 10] + b"junk")
    findings, _ = check(layout, applied=10)
    assert findings == []


def test_wrong_genesis_copy_is_a_projection(layout: Layout) -> None:
    layout.genesis.write_bytes(b"{}\n")
    assert [(found.severity, found.file) for found in check(layout)[0]] == [("projection", "genesis.json")]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1.0}',
        b'{"a":9007199254740992}',
        b'{"a":NaN}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":"\\u0061"}',
        b'{"a": 1}',
    ],
)
def test_canonical_refuses(text: bytes) -> None:
    layout_entry = fsck.Entry(Path("x"), 5, 0, 0, text)
    with pytest.raises(fsck.BrokenError):
        Check(Layout(Path("/")))._canonical(layout_entry)
