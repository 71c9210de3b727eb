"""The stream of entries: lengths, bundles, segments, the commit rule and recovery (docs/FORMAT.md, section 3).

Seals are forged here with nothing but hashlib, so that what the twin accepts is checked against code of another hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ledgerfsd.clock import format_time, parse_time
from ledgerfsd.core.pure import journal
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.errors import DamageError
from ledgerfsd.types import Mode

NOW = parse_time("2026-03-02T09:00:00Z")


def compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def forge(before: Sequence[bytes], batch: Sequence[bytes], **changed: Any) -> list[bytes]:
    """The batch with a seal that fits after ``before``, but for the members that are ``changed``."""
    seals = [entry for entry in before if json.loads(entry)["t"] == "seal/1"]
    every = [*before, *batch]
    members = {
        "count": len(batch),
        "first": len(before),
        "height": len(seals) + 1,
        "index": len(every),
        "log_root": root([leaf(entry) for entry in every]).hex(),
        "policy": leaf(every[0]).hex(),
        "prev": leaf(seals[-1]).hex() if seals else "00" * 32,
        "t": "seal/1",
        "time": format_time(NOW + len(every)),
        "tx_root": root([leaf(entry) for entry in batch]).hex(),
    }
    return [*batch, compact({**members, **changed})]


def plain(index: int, **members: Any) -> bytes:
    """An entry of no known kind: the commit rule does not ask what entries say."""
    return compact({"t": "test/1", "index": index, "time": format_time(NOW + index), **members})


def small_ledger() -> list[bytes]:
    """Four batches of a real ledger: genesis, two accounts, a transfer and a refusal, a hold."""
    ledger = Ledger.create("ledger.example/journal", NOW)
    batches = [
        b'{"type":"open_account","account":"a","class":"customer_liability","currency":"EUR","initial_balance":"9.00"}\n'
        b'{"type":"open_account","account":"b","class":"customer_liability","currency":"EUR"}',
        b'{"debit":"a","credit":"b","amount":"1.00","reference":"\xc3\xa9"}\n{"debit":"a","credit":"b","amount":"99.00"}',
        b'{"type":"hold","debit":"a","credit":"b","amount":"1.00"}',
    ]
    for number, batch in enumerate(batches):
        name = b"batch-%d" % number
        ledger.submit(batch, source=name, first_line=1, mode=Mode.EACH, dry_run=False, now_ns=NOW + number)
        ledger.seal(NOW + number)
    return ledger.entries


ENTRIES = small_ledger()
STREAM = journal.stream(ENTRIES)
SEALS = [index for index, entry in enumerate(ENTRIES) if b'"t":"seal/1"' in entry]
ENDS = [len(journal.stream(ENTRIES[: seal + 1])) for seal in SEALS]  # stream offset after each seal


# -- frames, bundles, segments


def test_a_frame_is_a_length_and_the_bytes() -> None:
    assert journal.frame(b"{}") == b"\x00\x02{}"
    assert journal.frame(b"x" * 65535)[:3] == b"\xff\xffx"
    assert b"".join(len(entry).to_bytes(2, "big") + entry for entry in ENTRIES) == STREAM


@pytest.mark.parametrize("size", [0, 1, 65536])
def test_what_cannot_be_an_entry(size: int) -> None:
    with pytest.raises(ValueError, match="2 to 65535"):
        journal.frame(b"x" * size)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_the_stream_is_its_bundles(count: int) -> None:
    entries = [plain(index) for index in range(count)]
    bundles = [journal.bundle(entries, number) for number in range((count + 255) // 256)]
    assert b"".join(bundles) == journal.stream(entries)
    assert journal.bundle(entries, 0) == journal.stream(entries[:256])


def test_segments_begin_on_bundles_and_end_at_their_target() -> None:
    entries = [plain(index) for index in range(1000, 3000)]  # of equal size
    size = len(journal.stream(entries[:256]))
    names = {}
    for target in (1, size, size + 1, 3 * size, 10**9):
        segments = list(journal.segments(entries, target))
        assert b"".join(content for _, content in segments) == journal.stream(entries)
        assert all(len(content) >= target for _, content in segments[:-1])
        names[target] = [int(name.removesuffix(".seg")) for name, _ in segments]
        assert all(len(name) == 24 for name, _ in segments)
    assert names[1] == names[size] == [0, 256, 512, 768, 1024, 1280, 1536, 1792]
    assert names[size + 1] == [0, 512, 1024, 1536]
    assert names[10**9] == [0]


# -- what counts


def test_a_sound_stream_counts_whole() -> None:
    assert journal.recover(STREAM) == journal.Recovered(ENTRIES, len(STREAM), 0)
    assert journal.recover(STREAM + bytes(5000)) == journal.Recovered(ENTRIES, len(STREAM), 0)
    assert journal.recover(b"") == journal.Recovered([], 0, 0)
    assert journal.recover(bytes(4096)) == journal.Recovered([], 0, 0)


def test_a_forged_batch_counts_when_everything_fits() -> None:
    batch = forge(ENTRIES, [plain(len(ENTRIES)), plain(len(ENTRIES) + 1, text="é\n", deep=[[]])])
    assert journal.recover(journal.stream([*ENTRIES, *batch])).entries == [*ENTRIES, *batch]


@pytest.mark.parametrize("cut", range(0, len(STREAM) + 1, 41))
def test_a_stream_cut_anywhere_ends_with_the_last_whole_batch(cut: int) -> None:
    kept = sum(1 for end in ENDS if end <= cut)
    length = ENDS[kept - 1] if kept else 0
    recovered = journal.recover(STREAM[:cut] + bytes(100))
    assert recovered.entries == (ENTRIES[: SEALS[kept - 1] + 1] if kept else [])
    assert recovered.length == length
    assert recovered.cut_bytes == len(STREAM[length:cut].rstrip(b"\x00"))


def value_of(member: str, batch: int) -> range:
    """Where the value of a member stands in the seal of a batch."""
    begin = STREAM.index(f'"{member}":"'.encode(), ENDS[batch] - len(ENTRIES[SEALS[batch]])) + len(member) + 4
    return range(begin, STREAM.index(b'"', begin))


# What the seal of the last batch alone says: nothing before it, and as yet no seal after it, speaks for these bytes.
UNPROVEN = {at for batch in range(len(ENDS)) for at in value_of("time", batch)}


def flip(at: int) -> bytes:
    return STREAM[:at] + bytes([STREAM[at] ^ 1]) + STREAM[at + 1 :]


@pytest.mark.parametrize("at", sorted({*range(ENDS[-2], ENDS[-1], 17)} - UNPROVEN))
def test_a_changed_byte_in_the_last_batch_takes_it_away(at: int) -> None:
    recovered = journal.recover(flip(at))
    assert (recovered.entries, recovered.length) == (ENTRIES[: SEALS[-2] + 1], ENDS[-2])


@pytest.mark.parametrize("at", sorted({*range(0, ENDS[-2], 37)} - UNPROVEN))
def test_a_changed_byte_before_the_last_batch_is_damage(at: int) -> None:
    batch = next(number for number, end in enumerate(ENDS) if at < end)
    first = SEALS[batch - 1] + 1 if batch else 0
    with pytest.raises(DamageError, match=f"^entry {first}: "):
        journal.recover(flip(at))


@pytest.mark.parametrize("batch", [1, -2])
@pytest.mark.parametrize("change", [1, 1000])
def test_the_time_of_a_seal_is_proven_by_the_next(batch: int, change: int) -> None:
    """Also that of the last but one, when only one batch follows: it is whole, so it is not torn."""
    place = value_of("time", batch)
    time = parse_time(STREAM[place.start : place.stop].decode()) + change
    hurt = STREAM[: place.start] + format_time(time).encode() + STREAM[place.stop :]
    assert len(hurt) == len(STREAM)
    with pytest.raises(DamageError, match=f"^entry {SEALS[batch]}: .* another history"):
        journal.recover(hurt)


def test_what_stands_behind_a_spoiled_batch_proves_that_it_was_whole() -> None:
    spoiled = bytearray(STREAM)
    spoiled[ENDS[-2] + 10] ^= 1
    assert journal.recover(bytes(spoiled) + bytes(100)).length == ENDS[-2]
    with pytest.raises(DamageError, match=f"^entry {SEALS[-2] + 1}: .* later batches follow"):
        journal.recover(bytes(spoiled) + b"\x01" + bytes(100))


def test_zeros_in_the_middle_of_the_last_batch() -> None:
    middle = (ENDS[-2] + ENDS[-1]) // 2
    torn = STREAM[: ENDS[-2]] + bytes(middle - ENDS[-2]) + STREAM[middle:]
    recovered = journal.recover(torn)
    assert recovered.length == ENDS[-2]
    assert recovered.cut_bytes == ENDS[-1] - ENDS[-2]


def test_a_length_of_zero_cannot_hide_acknowledged_batches() -> None:
    hurt = bytearray(STREAM)
    hurt[ENDS[1] : ENDS[1] + 2] = b"\x00\x00"
    with pytest.raises(DamageError, match=f"entry {SEALS[1] + 1}: .* later batches follow"):
        journal.recover(bytes(hurt))


def test_a_seal_that_is_only_quoted_is_no_seal() -> None:
    seal = ENTRIES[SEALS[-1]].decode()
    quoting = [plain(len(ENTRIES) + number, text=seal, metadata=json.loads(seal)) for number in range(3)]
    recovered = journal.recover(journal.stream([*ENTRIES, *quoting]))
    assert recovered.entries == ENTRIES
    assert recovered.cut_bytes == len(journal.stream(quoting))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("count", 2),
        ("first", len(ENTRIES) - 1),
        ("height", 4),
        ("height", 6),
        ("index", len(ENTRIES)),
        ("log_root", "00" * 32),
        ("prev", "00" * 32),
        ("tx_root", leaf(b"{}").hex()),
        ("time", format_time(NOW + len(ENTRIES))),
        ("time", "2026-03-02T09:00:01Z"),
        ("t", "seal/2"),
        ("count", "1"),
    ],
)
def test_a_seal_that_does_not_fit(member: str, value: object) -> None:
    batch = forge(ENTRIES, [plain(len(ENTRIES))], **{member: value})
    assert journal.recover(journal.stream([*ENTRIES, *batch])).entries == ENTRIES


def test_a_seal_of_nothing_does_not_count() -> None:
    assert journal.recover(journal.stream([*ENTRIES, *forge(ENTRIES, [])])).entries == ENTRIES


def test_a_seal_names_the_newest_policy() -> None:
    policy = compact({"t": "policy/1", "index": len(ENTRIES), "time": format_time(NOW + len(ENTRIES))})
    batch = [policy, plain(len(ENTRIES) + 1)]
    sealed = forge(ENTRIES, batch, policy=leaf(policy).hex())
    assert journal.recover(journal.stream([*ENTRIES, *sealed])).entries == [*ENTRIES, *sealed]
    assert journal.recover(journal.stream([*ENTRIES, *forge(ENTRIES, batch)])).entries == ENTRIES


BAD_ENTRIES: dict[str, Callable[[int], bytes]] = {
    "another index": lambda index: plain(index + 1),
    "no index": lambda index: plain(index).replace(b'"index"', b'"indey"'),
    "a time that does not rise": lambda index: plain(index, time=format_time(NOW + index - 1)),
    "a time of six decimals": lambda index: plain(index, time="2026-03-02T09:10:00.123456Z"),
    "a time that is none": lambda index: plain(index, time=5),
    "white space": lambda index: plain(index).replace(b":", b": ", 1),
    "members out of order": lambda index: plain(index)[:-1] + b',"a":1}',
    "a name twice": lambda index: plain(index)[:-1] + b',"time":"x"}',
    "an escape that need not be": lambda index: plain(index, x="A").replace(b'"A"', b'"\\u0041"'),
    "a fraction": lambda index: plain(index, x=1.5),
    "a large number": lambda index: plain(index, x=2**53),
    "an unpaired surrogate": lambda index: plain(index, x="A").replace(b'"A"', b'"\\ud800"'),
    "bytes that are not UTF-8": lambda index: plain(index, x="A").replace(b'"A"', b'"\xff"'),
    "seventeen levels": lambda index: plain(index, x=json.loads("[" * 16 + "]" * 16)),
    "an array": lambda _: b"[1]",
    "no JSON": lambda _: b"{index:1}",
}


@pytest.mark.parametrize("fault", BAD_ENTRIES)
def test_an_entry_that_may_not_be_in_a_batch(fault: str) -> None:
    index = len(ENTRIES)
    batch = forge(ENTRIES, [plain(index), BAD_ENTRIES[fault](index + 1)])
    assert journal.recover(journal.stream([*ENTRIES, *batch])).entries == ENTRIES


def test_a_whole_batch_that_begins_too_early_is_damage() -> None:
    batch = forge(ENTRIES, [plain(len(ENTRIES), time=json.loads(ENTRIES[-1])["time"])])
    with pytest.raises(DamageError, match="another history"):
        journal.recover(journal.stream([*ENTRIES, *batch]))


def test_the_deepest_intent_can_be_rejected() -> None:
    # The intent has sixteen levels, and stands one level further down in the rejection.
    intent = b'{"type":"freeze","account":"x","metadata":' + b'{"a":' * 15 + b"1" + b"}" * 15 + b"}"
    ledger = Ledger.create("ledger.example/journal", NOW)
    ledger.submit(intent, source=b"f", first_line=1, mode=Mode.EACH, dry_run=False, now_ns=NOW)
    ledger.seal(NOW)
    assert b'"t":"rejected/1"' in ledger.entries[2]
    assert journal.recover(journal.stream(ledger.entries)).entries == ledger.entries


def test_roots_of_a_longer_log() -> None:
    ledger = Ledger.create("ledger.example/journal", NOW)
    line = b'{"type":"freeze","account":"nobody"}\n'
    for size in (1, 2, 3, 7, 8, 13):
        name = b"%d" % size
        ledger.submit(line * size, source=name, first_line=1, mode=Mode.EACH, dry_run=False, now_ns=NOW)
        before = len(ledger.entries)
        seal = json.loads(ledger.seal(NOW))
        leaves = [leaf(entry) for entry in ledger.entries[:before]]
        assert (seal["count"], seal["first"]) == (size, before - size)
        assert seal["log_root"] == root(leaves).hex()
        assert seal["tx_root"] == root(leaves[-size:]).hex()
    assert journal.recover(journal.stream(ledger.entries)).entries == ledger.entries
