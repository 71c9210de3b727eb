"""service/keyring.py and service/signer.py: key files, and a signer that never signs two histories."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledgerfsd.core.hashing import leaf_hashes, mth
from ledgerfsd.errors import StoreError
from ledgerfsd.merkle import note, proof
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.note import NoteError
from ledgerfsd.merkle.proof import ProofError
from ledgerfsd.service import keyring, last_signed
from ledgerfsd.service.keyring import SIGNING_MAX, Keyring
from ledgerfsd.service.keys import parse_trusted_root
from ledgerfsd.service.last_signed import FILE_BYTES, SLOT_BYTES, LastSigned
from ledgerfsd.service.memory import Memory
from ledgerfsd.service.signer_lines import Shown
from tests.conftest import LEDGER, REPOSITORY


def sealed(name: str, count: int = 20) -> list[bytes]:
    """A log of nothing but seals: whatever size it has, the last leaf goes with it."""
    entries: list[bytes] = []
    for index in range(count):
        said = {"t": "seal/1", "index": index, "first": index, "count": 0, "policy": name}
        entries.append(json.dumps(said | {"log_root": mth(leaf_hashes(entries)).hex()}).encode())
    return entries


ENTRIES, OTHER_ENTRIES = sealed("this"), sealed("other")
LEAVES, OTHERS = leaf_hashes(ENTRIES), leaf_hashes(OTHER_ENTRIES)


def reader(leaves: bytes) -> proof.Reader:
    def read(level: int, first: int, count: int) -> bytes:
        assert level == 0
        return leaves[32 * first : 32 * (first + count)]

    return read


read = reader(LEAVES)


def shown(index: int, size: int, entries: list[bytes] = ENTRIES) -> Shown:
    """An entry, and that it is in the log."""
    path = proof.inclusion(reader(leaf_hashes(entries)), index, size)
    return Shown(index, entries[index].decode(), [hash_.hex() for hash_ in path])


def seal(size: int, entries: list[bytes] = ENTRIES) -> Shown:
    """The last leaf of a log of this size."""
    return shown(size - 1, size, entries)


def root(size: int, leaves: bytes = LEAVES) -> bytes:
    return mth(leaves[: 32 * size])


@pytest.fixture
def keys(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "keys", LEDGER)
    made.create()
    return made


# ---- key files


def test_keys_are_read_again_whenever_a_file_is_another(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "SETTLED_NS", 0)
    (first,) = held = keys.signers()
    assert keys.signers() is held
    (path,) = keys.directory.glob("*.key")
    path.chmod(0o400)
    assert keys.signers() is not held
    path.rename(keys.directory / "hidden")
    with pytest.raises(StoreError, match="No such file"):
        keys.signers()
    (keys.directory / "hidden").rename(path)
    assert keys.signers() == [first]
    other = Keyring(keys.directory, LEDGER)  # as `ledgerfs key` does
    other.rotate()
    assert [signer.verifier().key_id for signer in keys.signers()][1:] == [first.verifier().key_id]
    other.revoke(f"{first.key_id:08x}")
    (second,) = keys.signers()
    assert second != first


def test_keys_that_were_changed_just_now_are_not_relied_on(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system's clock goes in steps: a change within the same step shows the same time."""
    monkeypatch.setattr(keyring, "SETTLED_NS", 3600 * 10**9)
    assert keys.signers() is not keys.signers()


# ---- the rule


def test_it_signs_forward_only(keys: Keyring) -> None:
    memory = Memory(keys)
    first = memory.sign(7, root(7), [], seal(7))
    assert keys.trusted_root().verify(first).size == 7
    assert memory.sign(7, root(7), [], seal(7)) == first
    path = proof.consistency(read, 7, 12)
    wrong: list[tuple[int, bytes, list[bytes], Shown]] = [
        (6, root(6), [], seal(6)),
        (0, root(0), [], seal(1)),
        (-1, root(1), [], seal(1)),
        (7, root(7, OTHERS), [], seal(7, OTHER_ENTRIES)),
        (12, root(12), [], seal(12)),
        (12, root(12), path[:-1], seal(12)),
        (12, root(12, OTHERS), path, seal(12, OTHER_ENTRIES)),
        (12, root(12)[:31], path, seal(12)),
        (12, root(12), path, seal(12, OTHER_ENTRIES)),
        (13, root(12), path, seal(12)),
    ]
    for forgetful in (memory, Memory(keys)):  # the same process, and one started anew
        for size, head, hashes, last_leaf in wrong:
            with pytest.raises(ProofError):
                forgetful.sign(size, head, hashes, last_leaf)
    assert keys.trusted_root().verify(Memory(keys).sign(12, root(12), path, seal(12))).root == root(12)
    last = keys.last_signed()
    assert last is not None
    assert (last.size, last.root) == (12, root(12))
    with pytest.raises(ProofError, match="size 12 is signed"):
        Memory(keys).sign(7, root(7), [], seal(7))


def test_it_remembers_before_it_signs(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature that was given out is never forgotten: what cannot be remembered is not signed."""
    steps: list[str] = []
    durably, overwrite = last_signed.write_durably, LastSigned._overwrite

    def fail(path: Path, data: bytes) -> None:
        steps.append("memory")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(last_signed, "write_durably", fail)
    memory = Memory(keys)
    with pytest.raises(StoreError, match="No space left"):
        memory.sign(7, root(7), [], seal(7))
    assert (steps, memory.last.size, keys.last_signed()) == (["memory"], 0, None)
    monkeypatch.setattr(last_signed, "write_durably", durably)
    memory.sign(5, root(5), [], seal(5))

    def fail_again(self: LastSigned, number: int, data: bytes) -> None:
        fail(self._path, data)

    monkeypatch.setattr(LastSigned, "_overwrite", fail_again)
    with pytest.raises(StoreError, match="No space left"):
        memory.sign(7, root(7), proof.consistency(read, 5, 7), seal(7))
    assert (len(steps), memory.last.size) == (2, 5)
    monkeypatch.setattr(LastSigned, "_overwrite", overwrite)
    memory.sign(7, root(7), proof.consistency(read, 5, 7), seal(7))


def test_a_torn_slot_leaves_the_other_in_force(keys: Keyring) -> None:
    """Whatever a crash makes of the slot that was being written; and both spoiled is no memory at all."""
    sizes = (3, 5, 7, 9)
    for size in sizes:
        memory = Memory(keys)
        before = memory.last.size
        memory.sign(size, root(size), proof.consistency(read, before, size) if before else [], seal(size))
        whole = keys.last_signed_path.read_bytes()
        assert len(whole) == FILE_BYTES
        at = whole.index(b"\n%d\n" % size) // SLOT_BYTES * SLOT_BYTES
        for torn in (bytes(SLOT_BYTES), whole[at:][:20] + bytes(SLOT_BYTES - 20), b"\xff" * SLOT_BYTES):
            keys.last_signed_path.write_bytes(whole[:at] + torn + whole[at + SLOT_BYTES :])
            if before:
                assert Memory(keys).last.size == before
            else:
                with pytest.raises(StoreError, match="neither of its slots"):
                    Memory(keys)
        keys.last_signed_path.write_bytes(whole)
        assert Memory(keys).last.size == size


def test_a_memory_from_before_there_were_slots(keys: Keyring) -> None:
    keys.last_signed_path.write_text(Checkpoint(LEDGER, 5, root(5)).body())
    memory = Memory(keys)
    assert memory.last.size == 5
    memory.sign(7, root(7), proof.consistency(read, 5, 7), seal(7))
    assert keys.last_signed() == Checkpoint(LEDGER, 7, root(7))
    assert keys.last_signed_path.stat().st_size == FILE_BYTES


def test_it_refuses_memories_it_cannot_read(keys: Keyring) -> None:
    for text, reason in (
        ("", "three lines"),
        ("x\n7\nAAAA\n", "bytes, not 32"),
        (f"ledger.example/other\n7\n{note.encode_base64(bytes(32))}\n", "is of the ledger"),
        ("\udcff", "decode"),
    ):
        keys.last_signed_path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(StoreError, match=reason):
            Memory(keys)


# ---- a daemon that lies about the size


def test_a_consistency_proof_alone_does_not_bind_the_size() -> None:
    """Why the signer wants to see the seal: the proof from 7 to 12 leaves passes as one from 7 to 13 and others."""
    path = proof.consistency(read, 7, 12)
    passing = []
    for size in range(8, 33):
        try:
            proof.verify_consistency(7, size, root(7), root(12), path)
            passing.append(size)
        except ProofError:
            pass
    assert 12 in passing
    assert 13 in passing


def test_a_size_that_the_last_leaf_does_not_say_is_not_signed(keys: Keyring) -> None:
    """Every true tree under every other size, with whatever entry and proof the log has to show."""
    memory = Memory(keys)
    memory.sign(7, root(7), [], seal(7))
    shows = [shown(index, size) for size in range(1, 15) for index in range(size)]
    for real in range(8, 15):
        path = proof.consistency(read, 7, real)
        for size in range(8, 18):
            for each in shows:
                if (each.index, each.path) == (real - 1, seal(real).path) and size == real:
                    continue
                for entry in (each, Shown(size - 1, each.entry, each.path)):
                    if size == real and entry == seal(real):
                        continue
                    with pytest.raises(ProofError):
                        memory.sign(size, root(real), path, entry)
    assert memory.last.size == 7
    memory.sign(12, root(12), proof.consistency(read, 7, 12), seal(12))


@pytest.mark.parametrize(
    "change",
    [
        {"t": "txn/1"},
        {"index": 12},
        {"first": 10},
        {"count": 1},
        {"log_root": root(10).hex()},
        {"log_root": None},
        {"count": "0"},
    ],
    ids=str,
)
def test_the_last_leaf_must_be_the_seal_of_just_this_log(keys: Keyring, change: dict[str, Any]) -> None:
    said = json.loads(ENTRIES[11]) | change
    entries = [*ENTRIES[:11], json.dumps({name: each for name, each in said.items() if each is not None}).encode()]
    memory = Memory(keys)
    with pytest.raises(ProofError):
        memory.sign(12, mth(leaf_hashes(entries)), [], seal(12, entries))
    assert memory.last.size == 0
    memory.sign(12, root(12), [], seal(12))


# ---- two places, and a restore


def test_the_later_memory_counts_and_the_earlier_must_be_its_beginning(keys: Keyring, tmp_path: Path) -> None:
    apart = tmp_path / "apart" / "record"
    first = Memory(keys, apart)
    first.sign(7, root(7), [], seal(7))
    assert last_signed.read(apart, LEDGER) == keys.last_signed()
    old = keys.last_signed_path.read_bytes()
    path = proof.consistency(read, 7, 12)
    first.sign(12, root(12), path, seal(12))
    keys.last_signed_path.write_bytes(old)  # the keys were rolled back with their store
    behind = Memory(keys, apart)
    assert behind.earlier is not None
    assert (behind.last.size, behind.earlier.size) == (12, 7)
    with pytest.raises(ProofError):
        behind.sign(7, root(7), [], seal(7))
    with pytest.raises(ProofError):
        behind.sign(15, root(15), proof.consistency(read, 12, 15), seal(15))
    behind.sign(15, root(15), proof.consistency(read, 12, 15), seal(15), earlier=proof.consistency(read, 7, 15))
    assert last_signed.read(apart, LEDGER) == keys.last_signed()
    # An earlier record of another history refuses every later tree.
    keys.last_signed_path.write_text(f"{LEDGER}\n7\n{note.encode_base64(root(7, OTHERS))}\n")
    strange = Memory(keys, apart)
    for hashes in (proof.consistency(read, 7, 18), []):
        with pytest.raises(ProofError):
            strange.sign(18, root(18), proof.consistency(read, 15, 18), seal(18), earlier=hashes)
    keys.last_signed_path.write_text(f"{LEDGER}\n15\n{note.encode_base64(root(15, OTHERS))}\n")
    with pytest.raises(StoreError, match="two roots for 15 entries"):
        Memory(keys, apart)
    keys.last_signed_path.unlink()
    Memory(keys, apart).sign(15, root(15), [], seal(15))
    assert last_signed.read(apart, LEDGER) == keys.last_signed(), "what is missing is made again"


def test_a_shorter_history_is_signed_only_when_it_owns_up(keys: Keyring, tmp_path: Path) -> None:
    apart = tmp_path / "apart" / "record"
    memory = Memory(keys, apart)
    memory.sign(12, root(12), [], seal(12))
    lost = memory.last

    def log(**more: object) -> list[bytes]:
        said = {"t": "restore/1", "index": 7, "incarnation": 2, "signed_size": 12, "signed_root": root(12).hex()} | more
        entries = [*ENTRIES[:7], json.dumps({name: each for name, each in said.items() if each is not None}).encode()]
        last_one = {"t": "seal/1", "index": 8, "first": 7, "count": 1, "log_root": mth(leaf_hashes(entries)).hex()}
        return [*entries, json.dumps(last_one).encode()]

    def prepared(entries: list[bytes]) -> tuple[bytes, Shown, Shown]:
        return mth(leaf_hashes(entries)), seal(9, entries), shown(7, 9, entries)

    for more in ({"t": "txn/1"}, {"index": 6}, {"signed_size": 11}, {"signed_root": root(11).hex()}):
        head, end, restored = prepared(log(**more))
        with pytest.raises(ProofError):
            memory.sign(9, head, [], end, restored=restored)
    for more in ({"signed_size": None}, {"signed_root": None}, {"incarnation": "2"}):
        head, end, restored = prepared(log(**more))
        with pytest.raises(msgspec.DecodeError):
            memory.sign(9, head, [], end, restored=restored)
    head, end, restored = prepared(log())
    for size, other, wrong in (
        (9, root(9), restored),
        (9, head, Shown(6, restored.entry, restored.path)),
        (9, head, Shown(7, restored.entry + " ", restored.path)),
        (9, head, Shown(7, restored.entry, restored.path[:-1])),
    ):
        with pytest.raises(ProofError):
            memory.sign(size, other, [], end, restored=wrong)
    assert last_signed.read(apart, LEDGER) == lost
    assert keys.trusted_root().verify(memory.sign(9, head, [], end, restored=restored)).root == head
    assert memory.last.size == 9
    for place in (apart, keys.last_signed_path):
        (kept,) = place.parent.glob("*.lost-2-12-*")
        assert kept.read_text() == lost.body()
        assert last_signed.read(place, LEDGER) == memory.last
    with pytest.raises(ProofError, match="not of the checkpoint of size 9"):
        memory.sign(9, head, [], end, restored=restored)


# ---- the process


@contextmanager
def running(
    keys: Keyring,
) -> Iterator[tuple[dict[str, Any], Callable[[object], dict[str, Any]], subprocess.Popen[bytes]]]:
    """A signer: its first line, a way to ask it, and the process."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "ledgerfsd.service.signer", "--keys", keys.directory, "--origin", LEDGER]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=theirs)
    theirs.close()
    with ours, ours.makefile("rwb") as stream:

        def ask(request: object) -> dict[str, Any]:
            stream.write(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")
            stream.flush()
            return json.loads(stream.readline())  # type: ignore[no-any-return]

        yield json.loads(stream.readline()), ask, process
    assert process.wait(20) == 0


def request(size: int, hashes: list[bytes]) -> dict[str, Any]:
    last_leaf = msgspec.to_builtins(seal(size))
    return {"size": size, "root": root(size).hex(), "proof": [hash_.hex() for hash_ in hashes], "seal": last_leaf}


def test_the_process_signs_and_outlives_nonsense(keys: Keyring) -> None:
    with running(keys) as (greeting, ask, process):
        assert greeting == {"size": 0, "root": ""}
        answer = ask(request(7, []))
        assert keys.trusted_root().verify(answer["note"].encode()).size == 7
        for wrong in (b"\n", b"{}\n", b"[]\n", b"\xff\n", b'{"size":9,"root":"xx","proof":[]}\n', request(9, [])):
            refused = ask(wrong)
            assert refused["error"]
            assert "note" not in refused
            assert refused["size"] == 7
        os.kill(process.pid, 15)  # a service manager's signal to the whole group: it goes with its daemon
        assert ask(request(12, proof.consistency(read, 7, 12)))["size"] == 12
        with running(keys) as (second, _, _):
            assert "another signer" in second["error"]
    with running(keys) as (greeting, _, _):
        assert greeting == {"size": 12, "root": root(12).hex()}


def test_the_process_makes_a_first_key_only_where_nothing_is(tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys", LEDGER)
    with running(keys) as (greeting, _, _):
        assert greeting["created"] == keys.trusted_root().keys[0].key_id
    # Half of the files is a fault, and no reason to begin anew.
    keys.trusted_root_path.unlink()
    with running(keys) as (greeting, _, _):
        assert "there are no keys" in greeting["error"]
    with pytest.raises(StoreError, match="already"):
        keys.create()


# ---- keys


def test_keys_rotate_and_end(keys: Keyring) -> None:
    with pytest.raises(StoreError, match="already"):
        keys.create()
    (first,) = keys.trusted_root().keys
    memory = Memory(keys)
    early = memory.sign(5, root(5), [], seal(5))
    second = keys.rotate()
    assert (second.valid_from_size, second.status) == (5, "active")
    assert [signer.key_id for signer in keys.signers()] == [second.verifier.key_id, first.verifier.key_id]
    both = memory.sign(9, root(9), proof.consistency(read, 5, 9), seal(9))
    assert len(note.parse(both).signatures) == 2
    with pytest.raises(StoreError, match="is the active key"):
        keys.revoke(second.key_id)
    with pytest.raises(StoreError, match="no key 'x'"):
        keys.revoke("x")
    revoked = keys.revoke(first.key_id, 6)
    assert (revoked.status, revoked.valid_to_size) == ("revoked", 6)
    assert keys.revoke(first.key_id, 5).valid_to_size == 5
    with pytest.raises(StoreError, match="cannot be believed again"):
        keys.revoke(first.key_id, 7)
    found = keys.trusted_root()
    assert found.verify(early).size == 5
    assert found.verify(both).size == 9
    assert [signer.key_id for signer in keys.signers()] == [second.verifier.key_id]


def test_a_key_speaks_for_its_sizes_only(keys: Keyring) -> None:
    private = keys.signers()[0]
    keys.rotate()
    keys.revoke(f"{private.key_id:08x}", 6)
    found = keys.trusted_root()
    for size, believed in ((1, True), (6, True), (7, False)):
        data = note.sign(f"{LEDGER}\n{size}\n{note.encode_base64(root(size))}\n", [private])
        if believed:
            assert found.verify(data).size == size
        else:
            with pytest.raises(NoteError, match="may speak for size 7"):
                found.verify(data)


def test_not_too_many_keys_sign(keys: Keyring) -> None:
    for _ in range(SIGNING_MAX - 1):
        keys.rotate()
    with pytest.raises(StoreError, match="sign already"):
        keys.rotate()
    assert len(note.parse(Memory(keys).sign(3, root(3), [], seal(3))).signatures) == SIGNING_MAX


def test_files_that_do_not_fit_are_named(keys: Keyring) -> None:
    (path,) = keys.directory.glob("*.key")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.directory.stat().st_mode & 0o777 == 0o700
    good = path.read_text()
    for text in ("", "PRIVATE+KEY+x", note.generate(LEDGER).encode(), good[:-5]):
        path.write_text(text)
        with pytest.raises(StoreError) as error:
            keys.signers()
        assert str(path) in str(error.value)
        assert "AQ" not in str(error.value).replace(keys.trusted_root().keys[0].vkey, "")
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        keys.signers()
    with pytest.raises(StoreError, match="is of the ledger"):
        Keyring(keys.directory, "ledger.example/other").trusted_root()


def test_trusted_roots_are_judged(keys: Keyring) -> None:
    good = json.loads(keys.trusted_root_path.read_bytes())
    key = good["keys"][0]
    stranger = note.generate("witness.example").verifier().encode()
    for wrong in (
        [],
        {},
        good | {"t": "trusted-root/2"},
        good | {"ledger": "ledger.example/other"},
        good | {"keys": [key, key]},
        good | {"keys": [key | {"vkey": "x"}]},
        good | {"keys": [key | {"name": "x"}]},
        good | {"keys": [key | {"vkey": stranger, "name": "witness.example"}]},
        good | {"keys": [key | {"status": "good"}]},
        good | {"keys": [key | {"valid_from_size": "0"}]},
    ):
        with pytest.raises(NoteError):
            parse_trusted_root(msgspec.json.encode(wrong), "here")
    for data in (b"", b"{", b"\xff"):
        with pytest.raises(NoteError):
            parse_trusted_root(data, "here")
    assert parse_trusted_root(msgspec.json.encode(good), "here") == keys.trusted_root()
