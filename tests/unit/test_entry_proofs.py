"""Proofs that the core makes (``csrc/engine/prove.c``) are those of ``merkle.proof``, and hold; when the next ones are signed ahead."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.hashing import leaf_hashes
from ledgerfsd.core.proofs import EntryProofs
from ledgerfsd.merkle import proof
from ledgerfsd.types import Mode
from tests.conftest import SEGMENT_BYTES
from tests.fs.conftest import ACCOUNTS, lines, pay

ENTRIES = 70_000  # more than 256 * 256: three tile levels


@pytest.fixture
def engine(store: Path) -> Iterator[Engine]:
    """A running engine with three accounts."""
    engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
    engine.start()
    submit(engine, lines(*ACCOUNTS), b"accounts")
    yield engine
    engine.close()


def submit(engine: Engine, data: bytes, source: bytes) -> None:
    """Commit."""
    engine.submit(data, source=source, first_line=1, mode=Mode.EACH)
    engine.drain()
    engine.completions()


def test_all_proofs_of_a_small_log(engine: Engine) -> None:
    """Every entry in every size, and every two sizes."""
    submit(engine, lines(*(pay("0.01", "b", "a", reference=str(number)) for number in range(40))), b"few")
    submit(engine, lines(*(pay("0.01", "a", "b", reference=str(number)) for number in range(40))), b"more")
    proofs, hashes = EntryProofs(engine), engine.hashes
    for size in range(1, engine.counts().entries + 1):
        root = proofs.root(size)
        assert root == proof.root(hashes, size)
        for index in range(size):
            path = proofs.inclusion(index, size)
            assert path == proof.inclusion(hashes, index, size)
            proof.verify_inclusion(index, size, leaf_hashes([bytes(engine.entry(index))]), path, root)
        for old in range(1, size + 1):
            assert proofs.consistency(old, size) == proof.consistency(hashes, old, size)


def test_proofs_of_a_log_of_three_levels(engine: Engine) -> None:
    """Around the ends of tiles, and anywhere."""
    line = lines(pay("0.01", "a", "b"))[:-2]
    for begin in range(0, ENTRIES, 10_000):
        numbered = range(begin, begin + 10_000)
        submit(engine, b"".join(line + b',"reference":"%d"}\n' % number for number in numbered), b"many-%d" % begin)
    proofs, hashes, chance = EntryProofs(engine), engine.hashes, random.Random(51)
    most = engine.counts().entries
    assert most > 1 << 16
    ends = [each + by for each in (256, 512, 1 << 15, 1 << 16, most - 2) for by in (-1, 0, 1)]
    for size in (*ends, *(chance.randrange(1, most + 1) for _ in range(50))):
        assert proofs.root(size) == proof.root(hashes, size)
        for index in (0, size - 1, size // 2, chance.randrange(size)):
            assert proofs.inclusion(index, size) == proof.inclusion(hashes, index, size)
            assert proofs.consistency(index + 1, size) == proof.consistency(hashes, index + 1, size)


def test_what_is_not_there_has_no_proof(engine: Engine) -> None:
    """IndexError, and nothing is read beyond the end."""
    proofs, most = EntryProofs(engine), engine.counts().entries
    for index, size in ((-1, most), (most, most), (0, 0), (0, most + 1), (0, 1 << 62)):
        with pytest.raises(IndexError):
            proofs.inclusion(index, size)
        with pytest.raises(IndexError):
            proofs.consistency(index + 1, size)
    for size in (0, -1, most + 1):
        with pytest.raises(IndexError):
            proofs.root(size)


def test_a_proof_beyond_all_others_has_the_next_signed_ahead(engine: Engine) -> None:
    """Once. SEMANTICS 2.12"""
    proofs = EntryProofs(engine)
    assert not proofs.expected()
    proofs.read(3, 5)
    assert proofs.expected()
    assert not proofs.expected()
    for index in range(5):
        proofs.read(index, 9)
    assert not proofs.expected(), "they were covered"
    proofs.read(5, 6)
    proofs.read(5, 9)
    assert proofs.expected()
