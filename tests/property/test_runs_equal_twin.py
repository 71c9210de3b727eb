"""Runs of the C core and of its twin: the same bytes, the same answers, and the same bytes again when pieces are merged."""

from __future__ import annotations

import random
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerfsd.core import runs
from ledgerfsd.core.pure.runs import IDS, POSTINGS, WORDS, Past, Record, Run, filter_of, write
from ledgerfsd.errors import DamageError

ENTRIES = 2**32 - 2


@st.composite
def logs(draw: st.DrawFn) -> tuple[int, int, int, list[Record]]:
    """Kind, range, and the records of a piece of a log in its order: few accounts or many, hot ones among them."""
    seed = draw(st.integers(0, 2**32))
    kind = draw(st.sampled_from([POSTINGS, WORDS, IDS]))
    keys = draw(st.sampled_from([1, 2, 5, 300, (2**24, 2**48, 2**64)[kind]]))
    count = draw(st.sampled_from([0, 1, 2, 127, 128, 129, 300, 1000]))
    step = draw(st.sampled_from([1, 3, 100_000]))
    chance = random.Random(seed)
    first = draw(st.integers(0, ENTRIES - count * step - 1))
    records, index = [], first
    for _ in range(count):
        key = chance.choice((0, chance.randrange(keys)))
        length = chance.choice((2, 500, chance.randrange(65_536))) if kind == POSTINGS else 0
        states = chance.randrange(4) if kind == POSTINGS else 0
        records.append(Record(key, index, length, states))
        index += chance.randint(1, step)
    return kind, first, index, records


def past(records: list[Record], key: int, bound: int) -> Past:
    """Counted by hand."""
    found = Past()
    for record in records:
        if record.key == key and record.entry < bound:
            found.add(record)
    return found


@settings(max_examples=150, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_core_and_twin(log: tuple[int, int, int, list[Record]], chance: random.Random) -> None:
    kind, first, end, records = log
    with tempfile.TemporaryDirectory() as folder:
        path = runs.make(Path(folder), kind, first, end, records)
        data = path.read_bytes()
        assert data == write(kind, first, end, records)
        run = Run(data)
        assert list(run) == sorted(records, key=lambda record: (record.key, record.entry))
        assert run.filter == (filter_of([record.key for record in records]) if kind == IDS else b"")
        assert kind != IDS or all(run.may_have(record.key) for record in records)
        for _ in range(20):
            key = min(chance.choice(records).key + chance.choice((0, 0, 1)), 2**64 - 1) if records else 0
            bound = chance.choice((first, end, chance.randint(first, end)))
            expected = past(records, key, bound)
            assert run.before(key, bound) == expected
            assert runs.past(path, key, bound) == expected


@settings(max_examples=60, deadline=None)
@given(logs(), st.one_of(st.integers(2, 6), st.just(64)), st.randoms(use_true_random=False))
def test_merged_is_as_made_at_once(log: tuple[int, int, int, list[Record]], pieces: int, chance: random.Random) -> None:
    kind, first, end, records = log
    cuts = sorted({chance.randint(first, end) for _ in range(pieces - 1)} - {first, end})  # no run is of no entry
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for begin, stop in zip([first, *cuts], [*cuts, end], strict=True):
            piece = [record for record in records if begin <= record.entry < stop]
            names.append(runs.make(Path(folder), kind, begin, stop, piece).name)
        if cuts:
            runs.join(Path(folder), kind, names)
        (path,) = Path(folder).iterdir()
        assert path.name == runs.name(kind, first, end)
        assert path.read_bytes() == write(kind, first, end, records)


@pytest.mark.parametrize("kind", [POSTINGS, WORDS, IDS])
@pytest.mark.parametrize("keys", ["one", "few", "many of each", "spread", "rising", "falling", "two ends"])
def test_longer_than_the_rooms_of_a_merge(tmp_path: Path, kind: int, keys: str) -> None:
    """Runs of thousands of records, of unlike lengths: what is merged four parts at a time comes out as when sorted at once."""
    chance, count = random.Random(7), 12_000
    key_of = {
        "one": [5] * count,
        "few": [chance.randrange(9) for _ in range(count)],
        "many of each": [chance.randrange(200) for _ in range(count)],
        "spread": [chance.randrange(2**24) for _ in range(count)],
        "rising": [at // 3 for at in range(count)],
        "falling": [(count - at) // 2 for at in range(count)],
        "two ends": [chance.choice((0, 1, 2**24 - 2, 2**24 - 1, at)) for at in range(count)],
    }
    length, states = (480, 4) if kind == POSTINGS else (0, 1)
    records = [Record(key, at, length, at % states) for at, key in enumerate(key_of[keys])]
    whole = runs.make(tmp_path, kind, 0, count, records).read_bytes()
    cuts, names = [0, 1, 129, 4_000, 4_513, 9_000, 9_020, count], []
    for begin, end in pairwise(cuts):
        names.append(runs.make(tmp_path, kind, begin, end, records[begin:end]).name)
    runs.join(tmp_path, kind, names)
    assert (tmp_path / runs.name(kind, 0, count)).read_bytes() == whole


def test_more_than_64_are_not_merged(tmp_path: Path) -> None:
    names = [runs.make(tmp_path, IDS, index, index + 1, [Record(index, index, 0, 0)]).name for index in range(65)]
    with pytest.raises(OSError, match="Invalid"):
        runs.join(tmp_path, IDS, names)
    assert len(list(tmp_path.iterdir())) == 65
    runs.join(tmp_path, IDS, names[:64])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", [POSTINGS, IDS])
def test_no_bad_bit_is_believed(tmp_path: Path, kind: int) -> None:
    chance = random.Random(5)
    lengths = range(300, 600) if kind == POSTINGS else range(1)
    spread = 1 if kind == POSTINGS else 2**59
    records = [
        Record(chance.randrange(20) * spread, index, chance.choice(lengths), int(kind == POSTINGS))
        for index in range(1000)
    ]
    path = runs.make(tmp_path, kind, 0, 1000, records)
    data = path.read_bytes()
    size = Run(data).size
    padding = range(size, size + -size % 8)  # means nothing
    for _ in range(300):
        place = chance.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
        wrong = 0
        for key in range(20):
            try:
                assert runs.past(path, key * spread, 1000) == past(records, key * spread, 1000)
            except DamageError:
                wrong += 1
        assert wrong or place in padding
    path.write_bytes(data[:-1])
    with pytest.raises(DamageError):
        runs.past(path, 0, 1000)
