"""Every way in which the last write may be torn is cut away exactly; damage further back is refused and left as it is.

The store is spoiled byte by byte and opened by the engine as at any start, without saved state.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.errors import DamageError
from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.stream import Stream
from tests.crash import stores
from tests.crash.intents import ACCOUNTS, payment
from tests.crash.stores import SMALL_SEGMENT, Batch

PAGE = 4096
SECTOR = 512


@dataclass
class Torn:
    """A good store, kept in memory, whose last batch is to be torn."""

    layout: Layout
    files: dict[str, bytes]  # the segments, without what follows the last entry
    batches: list[Batch]

    @classmethod
    def of(cls, layout: Layout) -> Torn:
        batches = stores.batches(layout)
        files, base = {}, 0
        for path in layout.segments():
            data = path.read_bytes()
            files[path.name] = data[: batches[-1].end - base]
            base += len(data)
        return cls(layout, {name: data for name, data in files.items() if data}, batches)

    @property
    def last(self) -> Batch:
        return self.batches[-1]

    @property
    def stream(self) -> bytes:
        return b"".join(self.files.values())

    def put(self, files: dict[str, bytes]) -> None:
        """Make journal/ hold these files and no others."""
        for path in self.layout.journal.iterdir():
            if path.name not in files:
                path.unlink()
        for name, data in files.items():
            path = self.layout.journal / name
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)

    def put_stream(self, stream: bytes, *, zeros: int = 0) -> None:
        """Lay a changed stream (of the same length or shorter) over the segments; ``zeros`` follow the last byte."""
        files, at = {}, 0
        for name, data in self.files.items():
            piece = stream[at : at + len(data)]
            if piece or at == 0:
                files[name] = piece
            at += len(data)
        files[max(files)] += bytes(zeros)
        self.put(files)

    def open(self) -> Engine:
        return Engine(self.layout.root, segment_bytes=SMALL_SEGMENT)

    def assert_cut(self, torn: bytes, *, what: str) -> None:
        """Opening the torn stream, as it was put, leaves exactly the batches before the last."""
        engine = self.open()
        counts = engine.counts()
        assert (counts.entries, counts.blocks) == (self.last.first, len(self.batches) - 1), what
        assert engine.recovery.cut_bytes == len(torn[self.last.begin :].rstrip(b"\0")), what
        on_disk = b"".join(path.read_bytes() for path in self.layout.segments())
        assert on_disk.rstrip(b"\0") == self.stream[: self.last.begin], what

    def assert_goes_on(self) -> None:
        """The store takes the lost batch again, and a restart finds it."""
        engine = self.open()
        assert engine.recovery.cut_bytes == 0
        before = engine.counts()
        engine.start()
        names = [f"again-{number}" for number in range(self.last.seal - self.last.first)]
        found = stores.submit(engine, [payment(name) for name in names])
        assert [result.code for result in found] == [0] * len(names)
        engine.close()
        again = self.open()
        counts = again.counts()
        assert (counts.entries, counts.blocks) == (before.entries + len(names) + 1, before.blocks + 1)
        assert again.recovery.cut_bytes == 0
        seen = stores.Seen(self.layout)
        seen.look()
        seen.assert_once(names)
        assert seen.entries == counts.entries


@pytest.fixture(scope="module")
def small(room: Path) -> Torn:
    """Two payments in the last batch: few enough bytes to try each of them."""
    return Torn.of(stores.make(room / "small", [3, 2, 2]))


@pytest.fixture(scope="module")
def wide(room: Path) -> Torn:
    """A last batch of several pages."""
    return Torn.of(stores.make(room / "wide", [3, 2, 60]))


def crossing(root: Path, before: int, after: int) -> Torn:
    """A last batch of which so many entries stand in one segment and so many (the seal among them) in the next."""
    bundle = 256
    opened = 2 + len(ACCOUNTS) + 2 + 1  # genesis, the opening transaction with its account, the seals
    torn = Torn.of(stores.make(root, [bundle - before - opened - 1, before + after - 1]))
    assert (torn.last.first, torn.last.seal) == (bundle - before, bundle + after - 1)
    return torn


@pytest.fixture(scope="module")
def crossed(room: Path) -> Torn:
    """Two entries of the last batch in one segment, one and the seal in the next."""
    return crossing(room / "crossed", 2, 2)


@pytest.fixture(scope="module")
def many(room: Path) -> Torn:
    """Four segments and thirty batches."""
    return Torn.of(stores.make(room / "many", [27] * 30))


# -- the last batch


@pytest.mark.parametrize("zeros", [0, 3 * PAGE], ids=["file ends", "zeros follow"])
def test_every_length_of_the_last_batch(small: Torn, zeros: int) -> None:
    stream = small.stream
    for length in range(small.last.end - small.last.begin):
        torn = stream[: small.last.begin + length]
        small.put_stream(torn, zeros=zeros)
        small.assert_cut(torn, what=f"{length} bytes of the last batch")
    small.put_stream(stream, zeros=zeros)
    engine = small.open()
    assert engine.counts().entries == small.last.seal + 1
    assert engine.recovery.cut_bytes == 0


def test_commits_go_on_after_every_kind_of_cut(small: Torn) -> None:
    length = small.last.end - small.last.begin
    for kept in [*range(0, length, 41), length - 1]:
        torn = small.stream[: small.last.begin + kept]
        small.put_stream(torn, zeros=PAGE)
        small.assert_cut(torn, what=f"{kept} bytes")
        small.assert_goes_on()


@pytest.mark.parametrize("unit", [PAGE, SECTOR])
def test_every_zeroed_page_of_the_last_batch(wide: Torn, unit: int) -> None:
    stream, last = wide.stream, wide.last
    first_page = last.begin // unit
    for page in range(first_page, (last.end - 1) // unit + 1):
        begin, end = max(page * unit, last.begin), min((page + 1) * unit, last.end)
        torn = stream[:begin] + bytes(end - begin) + stream[end:]
        wide.put_stream(torn, zeros=PAGE)
        wide.assert_cut(torn, what=f"page {page - first_page}")
        if page % 8 == 0:
            wide.assert_goes_on()


def test_pages_in_any_order(wide: Torn) -> None:
    """Pages reach the disk in any order: any of them may be missing."""
    chance = random.Random(1)
    last = wide.last
    pages = range(last.begin // PAGE, (last.end - 1) // PAGE + 1)
    for _ in range(100):
        torn = bytearray(wide.stream)
        for page in chance.sample(pages, chance.randint(1, len(pages))):
            begin, end = max(page * PAGE, last.begin), min((page + 1) * PAGE, last.end)
            torn[begin:end] = bytes(end - begin)
        wide.put_stream(bytes(torn), zeros=PAGE)
        wide.assert_cut(bytes(torn), what="some pages")


def flip_every_byte(torn: Torn, chance: random.Random) -> None:
    """Each byte of the last batch, one bad bit at a time."""
    stream = torn.stream
    time = stream.index(b'"time":"', torn.last.seal_begin) + len(b'"time":"')
    root = stream.index(b'"state_root":"', torn.last.seal_begin) + len(b'"state_root":"')
    for place in range(torn.last.begin, torn.last.end):
        bit = chance.randrange(8)
        flipped = bytearray(stream)
        flipped[place] ^= 1 << bit
        torn.put_stream(bytes(flipped), zeros=PAGE)
        if time <= place < time + 30 and torn.open().counts().entries == torn.last.seal + 1:
            continue  # nothing follows that would contradict another time of the last seal
        if root <= place < root + 64 and (engine := torn.open()).counts().entries == torn.last.seal + 1:
            engine.start()
            engine.drain()
            while not engine.failure:  # the accounts contradict another state root, and nothing goes on upon it
                sleep(0.001)
            assert "state root" in engine.failure
            engine.close()
            continue
        torn.put_stream(bytes(flipped), zeros=PAGE)
        torn.assert_cut(bytes(flipped), what=f"bit {bit} of byte {place - torn.last.begin}")


def test_flipped_bits_in_every_byte_of_the_last_batch(small: Torn) -> None:
    flip_every_byte(small, random.Random(5))


# -- the last batch, begun in one segment and ended in the next


def states(torn: Torn) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every state that a crash can leave: the order of the writes is that of write.c."""
    *whole, (old, before), (new, after) = torn.files.items()
    files = dict(whole)
    kept = len(before) - (torn.last.end - torn.last.begin - len(after))
    for length in range(kept, len(before) + 1):
        yield f"{length - kept} bytes before the boundary", files | {old: before[:length] + bytes(PAGE)}
    yield "a segment made ahead", files | {old: before + bytes(PAGE), new: bytes(SMALL_SEGMENT)}
    yield "the old one closed", files | {old: before, new: bytes(SMALL_SEGMENT)}
    for length in range(len(after)):
        content = after[:length] + bytes(SMALL_SEGMENT - length)
        yield f"{length} bytes after the boundary", files | {old: before, new: content}
    yield "an empty new file", files | {old: before, new: b""}


def test_every_length_of_a_batch_that_begins_a_segment(crossed: Torn) -> None:
    for number, (what, files) in enumerate(states(crossed)):
        crossed.put(files)
        boundary = len(b"".join(list(crossed.files.values())[:-1]))
        content = b"".join(files.values())[: boundary + SMALL_SEGMENT + PAGE]
        engine = crossed.open()
        counts = engine.counts()
        assert (counts.entries, counts.blocks) == (crossed.last.first, len(crossed.batches) - 1), what
        nonzero = sum(len(data.rstrip(b"\0")) for data in files.values())
        assert engine.recovery.cut_bytes == nonzero - crossed.last.begin, what
        assert len(crossed.layout.segments()) == len(crossed.files) - 1, what
        assert content.startswith(crossed.stream[: crossed.last.begin])
        if number % 37 == 0:
            crossed.assert_goes_on()


def test_whole_batch_that_begins_a_segment(crossed: Torn) -> None:
    crossed.put(crossed.files)
    engine = crossed.open()
    assert engine.counts().entries == crossed.last.seal + 1
    assert engine.recovery.cut_bytes == 0


def test_segment_that_was_not_cut_to_its_length_is_cut_by_recovery(crossed: Torn) -> None:
    *whole, (old, before), (new, after) = crossed.files.items()
    crossed.put(dict(whole) | {old: before + bytes(5 * PAGE), new: after + bytes(PAGE)})
    engine = crossed.open()
    assert engine.counts().entries == crossed.last.seal + 1
    assert engine.recovery.cut_bytes == 0
    assert (crossed.layout.journal / old).read_bytes() == before


def test_flipped_bits_in_every_byte_of_a_batch_that_begins_a_segment(crossed: Torn) -> None:
    flip_every_byte(crossed, random.Random(2))


def test_batch_that_begins_exactly_with_a_segment(room: Path) -> None:
    torn = crossing(room / "exact", 0, 3)
    (old, before), (new, after) = torn.files.items()
    for length in [*range(0, len(after), 7), len(after) - 1]:
        torn.put({old: before, new: after[:length] + bytes(SMALL_SEGMENT - length)})
        engine = torn.open()
        assert engine.counts().entries == 256, length
        assert engine.recovery.cut_bytes == len(after[:length].rstrip(b"\0"))
    torn.assert_goes_on()


# -- damage further back


def assert_refused(torn: Torn, damaged: Batch, *, what: str) -> None:
    """Opening raises DamageError, names file and entry, and changes nothing."""
    before = stores.journal_digest(torn.layout)
    with pytest.raises(DamageError) as caught:
        torn.open()
    assert stores.journal_digest(torn.layout) == before, what
    message = str(caught.value)
    named = re.search(r"journal/(\d{20}\.seg), entry (\d+): ", message)
    assert named, message
    # A seal whose kind or time is spoiled shows in the batch that follows.
    following = torn.batches[torn.batches.index(damaged) + 1]
    assert damaged.first <= int(named[2]) <= following.seal, f"{what}: {message}"
    firsts = [int(name[:20]) for name in torn.files]
    assert int(named[1][:20]) <= int(named[2]), message
    assert int(named[1][:20]) in firsts
    assert "nothing was changed" in message


def flip(torn: Torn, place: int, bit: int) -> None:
    stream = bytearray(torn.stream)
    stream[place] ^= 1 << bit
    torn.put_stream(bytes(stream), zeros=PAGE)


def test_flipped_bits_anywhere_but_in_the_last_batch(many: Torn) -> None:
    chance = random.Random(3)
    for _ in range(150):
        damaged = chance.choice(many.batches[:-1])
        place, bit = chance.randrange(damaged.begin, damaged.end), chance.randrange(8)
        flip(many, place, bit)
        assert_refused(many, damaged, what=f"bit {bit} of byte {place}")


def test_flipped_bits_in_the_last_but_one_batch(small: Torn) -> None:
    """Only one seal follows when it is this batch's own seal that is spoiled: yet the batch was durable."""
    chance = random.Random(4)
    damaged = small.batches[-2]
    for place in range(damaged.begin, damaged.end):
        bit = chance.randrange(8)
        flip(small, place, bit)
        assert_refused(small, damaged, what=f"bit {bit} of byte {place - damaged.begin} ({damaged})")


def test_length_of_an_older_batch_becomes_zero(many: Torn) -> None:
    """Length 0 means "end": but not when sealed batches follow."""
    for damaged in many.batches[1:-1]:
        stream = bytearray(many.stream)
        stream[damaged.begin : damaged.begin + 2] = b"\0\0"
        many.put_stream(bytes(stream), zeros=PAGE)
        assert_refused(many, damaged, what=f"block at {damaged.begin}")


def test_zeroed_pages_further_back(many: Torn) -> None:
    stream = many.stream
    for page in range(0, many.batches[-2].begin // PAGE, 3):
        torn = stream[: page * PAGE] + bytes(PAGE) + stream[(page + 1) * PAGE :]
        many.put_stream(torn, zeros=PAGE)
        before = stores.journal_digest(many.layout)
        with pytest.raises(DamageError if page else Exception, match=r"journal/\d{20}.seg, entry \d+"):
            many.open()
        assert stores.journal_digest(many.layout) == before


def change_missing(name: str, files: dict[str, bytes]) -> None:
    del files[name]


def change_emptied(name: str, files: dict[str, bytes]) -> None:
    files[name] = b""


def change_shortened(name: str, files: dict[str, bytes]) -> None:
    files[name] = files[name][:-1]


def change_zeroed(name: str, files: dict[str, bytes]) -> None:
    files[name] = bytes(len(files[name]))


@pytest.mark.parametrize("change", [change_missing, change_emptied, change_shortened, change_zeroed])
@pytest.mark.parametrize("position", [1, 2])
def test_segment_lost(many: Torn, position: int, change: Callable[[str, dict[str, bytes]], None]) -> None:
    """A segment that is gone from the middle takes nothing else with it."""
    assert len(many.files) > 3
    files = dict(many.files)
    name = list(files)[position]
    change(name, files)
    many.put(files)
    before = stores.journal_digest(many.layout)
    with pytest.raises(DamageError, match=r"journal/\d{20}.seg, entry \d+: .*nothing was changed"):
        many.open()
    assert stores.journal_digest(many.layout) == before


@pytest.mark.parametrize("back", [2, 3, 20])
def test_torn_tail_behind_damage_is_not_cut(many: Torn, back: int) -> None:
    """Neither is the batch before the torn one: what was begun behind its seal proves that it was durable."""
    damaged = many.batches[-back]
    for length in (1, 700, many.last.end - many.last.begin - 1):
        stream = bytearray(many.stream[: many.last.begin + length])
        stream[damaged.begin + 10] ^= 1
        many.put_stream(bytes(stream) + b"\x01", zeros=PAGE)
        assert_refused(many, damaged, what=f"damage, and {length} bytes of another batch")


def test_damage_before_a_segment_that_was_begun(crossed: Torn) -> None:
    """The same when what was begun stands in the next segment."""
    *whole, (old, before), (new, after) = crossed.files.items()
    damaged = crossed.batches[-2]
    content = bytearray(before)
    content[-(crossed.last.end - crossed.last.begin) + len(after) - 40] ^= 1
    crossed.put(dict(whole) | {old: bytes(content), new: after[:9]})
    before_digest = stores.journal_digest(crossed.layout)
    with pytest.raises(DamageError):
        crossed.open()
    assert stores.journal_digest(crossed.layout) == before_digest
    assert damaged.seal < 256


def test_user_text_cannot_pass_for_a_seal(room: Path) -> None:
    """A torn batch whose intents contain what looks like seals is cut like any other."""
    root = room / "forged"
    layout = stores.make(root, [2])
    with Stream(layout) as stream:
        *_, seal = (entry.data for entry in stream.entries())
    later = seal.decode().replace('"height":3', '"height":9').replace('"first":', '"first":9')
    engine = Engine(root, segment_bytes=SMALL_SEGMENT)
    engine.start()
    forged = [payment(f"forged-{n}") | {"metadata": {"x": later, "y": [later] * 9}} for n in range(3)]
    assert {result.code for result in stores.submit(engine, forged)} == {0}
    engine.close()
    torn = Torn.of(layout)
    content = torn.stream[:-5]
    torn.put_stream(content, zeros=PAGE)
    torn.assert_cut(content, what="forged seals")
