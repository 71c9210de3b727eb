"""Each system call that matters fails, or the process is killed there, one after the other; then the store must be whole.

strace counts the calls of each thread for itself: ``when=N`` is the Nth of every thread. The worker is described in
``worker.py``; what it was told is compared with the journal that it left behind.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.errors import BY_NAME, DamageError, StoreError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state.rebuild import rebuild
from ledgerfsd.state.store import IndexStore
from tests.crash import stores
from tests.crash.conftest import Story, Tracer, Workers
from tests.crash.intents import ACCOUNTS, payment
from tests.crash.stores import SMALL_SEGMENT, Seen

CALLS = {
    "write": "write",
    "pwrite": "pwrite64,pwritev",
    "fsync": "fsync",
    "fdatasync": "fdatasync",
    "rename": "rename,renameat,renameat2",
    "ftruncate": "ftruncate",
    "fallocate": "fallocate",
    "openat": "openat",
    "unlink": "unlink,unlinkat",
    "mkdir": "mkdir,mkdirat",
}
FAULTS = {"EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "killed": "signal=SIGKILL"}
BATCHES = [[f"{batch}-{each}" for each in range(3)] for batch in range(4)]
PAGE = 4096
LEFT = 6  # entries before a segment of the good store is full: the worker's second batch goes over the end
READ_ONLY, STORAGE_ERROR = BY_NAME["read_only"].number, BY_NAME["storage_error"].number

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def good(room: Path) -> Layout:
    """A store with saved state, shortly before a segment ends."""
    layout = layouts.create(room / "good", stores.LEDGER, segment_bytes=SMALL_SEGMENT)
    with stores.opened(layout) as store:
        stores.submit(store.engine, ACCOUNTS)
        count = 256 - LEFT - store.engine.counts().entries - 1
        stores.submit(store.engine, [payment(f"good-{number}") for number in range(count)])
        assert store.engine.counts().entries == 256 - LEFT
    return layout


class Bench:
    """A place where a store is spoiled again and again."""

    def __init__(self, workers: Workers, good: Layout, room: Path) -> None:
        self._workers = workers
        self._good = good
        self.layout = Layout(room / "store")
        self.log = room / "trace"
        self.injected = 0
        self.batches = BATCHES
        self.segment_bytes = SMALL_SEGMENT

    def clear(self) -> None:
        """No store at all."""
        shutil.rmtree(self.layout.root, ignore_errors=True)

    def copy(self) -> None:
        """A copy of the good store."""
        self.clear()
        shutil.copytree(self._good.root, self.layout.root)

    def each(self, scenario: str, call: str, fault: str, prepare: Callable[[], None]) -> Iterator[tuple[str, Story]]:
        """Run the scenario once for every time that it makes the call."""
        prepare()
        names = CALLS[call]
        order: dict[str, Any] = {"segment_bytes": self.segment_bytes, "batches": self.batches}
        story = self._workers.trace(scenario, self.layout.root, self.log, names, **order)
        assert story.done, story.events
        last = max((count for (_, name), count in story.calls.items() if name in names.split(",")), default=0)
        if "+" in fault:  # from the Nth on; a few will do
            fault, steps, more = fault.rstrip("+"), range(1, last + 1, max(1, last // 6)), "+"
        else:
            steps, more = range(1, last + 1), ""
        for when in steps:
            prepare()
            inject = f"{names}:{FAULTS[fault]}:when={when}{more}"
            story = self._workers.trace(scenario, self.layout.root, self.log, names, inject=inject, **order)
            assert story.get("broken") is None, f"{scenario}, {inject}: {story.events}"
            self.injected += story.injected + (not story.done)
            yield f"{scenario}, {inject}", story


@pytest.fixture
def bench(workers: Workers, good: Layout, room: Path) -> Iterator[Bench]:
    made = Bench(workers, good, room)
    yield made
    assert made.injected, "nothing was tampered with: the test has shown nothing"


def assert_whole(layout: Layout, story: Story, *, what: str, index_spoiled: bool = False) -> None:
    """What was acknowledged is there once, what was refused is not, and all the rest can be sent again."""
    with stores.opened(layout) as store:
        seen = Seen(layout)
        seen.look()
        seen.assert_once(story.acknowledged)
        seen.assert_absent(story.refused)
        seen.assert_no_doubles()
        assert seen.entries >= 256 - LEFT or not story.sent, what
        again = [*story.refused, *story.open, "one-more"]
        accounts = stores.submit(store.engine, ACCOUNTS)
        found = stores.submit(store.engine, [payment(name) for name in again])
        assert [result.code for result in accounts + found] == [0] * len(accounts + found), what
    if not index_spoiled:
        assert store.projector.trouble == "", what
    seen.look()
    seen.assert_once(story.acknowledged + again)
    seen.assert_no_doubles()
    stores.fsck(layout)


def assert_says_why(good: Layout, story: Story) -> None:
    """A failed step turns the ledger read-only: it says which step, refuses from then on, and is read as before."""
    codes = list(story.answers.values())
    first = next((number for number, code in enumerate(codes) if code), len(codes))
    assert {*codes[first:]} <= {READ_ONLY, STORAGE_ERROR}, story.answers
    assert set(codes[first + 3 :]) <= {READ_ONLY}, story.answers  # only the batch that failed has another code
    failure = story.get("failure")
    if first < len(codes):
        assert failure, story.events
    if failure:
        assert re.search(r"(journal|runs|hashes|indexes)/.*: (Input/output error|No space left on device)$", failure), (
            failure
        )
        assert story.get("last") == "seal/1"
        paid = [*(f"good-{number}" for number in range(good_payments(good))), *story.acknowledged]
        assert story.get("debits") == sum(int(payment(name)["amount"].replace(".", "")) for name in paid)


def good_payments(good: Layout) -> int:
    seen = Seen(good)
    seen.look()
    return sum(name.startswith("good-") for name in seen.committed)


COMMITTING = [
    *((call, fault) for call in CALLS if call not in ("rename", "unlink", "mkdir") for fault in ("EIO", "killed")),
    *((call, "EIO") for call in ("rename",)),
    *((call, "killed") for call in ("rename",)),
    *((call, "ENOSPC") for call in ("pwrite", "fallocate", "openat", "ftruncate")),
    *((call, fault) for call in ("pwrite", "fdatasync", "fsync") for fault in ("EIO+", "ENOSPC+")),
]


@pytest.mark.parametrize(("call", "fault"), COMMITTING)
def test_committing(bench: Bench, good: Layout, call: str, fault: str) -> None:
    for what, story in bench.each("commit", call, fault, bench.copy):
        if story.done:
            assert_says_why(good, story)
        assert_whole(bench.layout, story, what=what)


@pytest.mark.parametrize("fault", ["EIO", "killed"])
def test_committing_a_batch_in_pieces(bench: Bench, fault: str) -> None:
    """So large that its first piece is written before it has a seal."""
    bench.batches, bench.segment_bytes = [[f"{number}" for number in range(2100)]], 2 * 2**20
    for what, story in bench.each("commit", "pwrite", fault, bench.copy):
        assert_whole(bench.layout, story, what=what)


@pytest.mark.parametrize("fault", ["EIO", "killed"])
def test_a_sync_beside_which_the_next_group_is_hashed(
    workers: Workers, bench: Bench, fault: str, tmp_path: Path
) -> None:
    """It fails in another thread. Neither its group nor the one that was hashed meanwhile counts (ADR 52)."""
    bench.copy()
    worker = workers.begin("burst", bench.layout.root, segment_bytes=8 * 2**20, batches=5, intents=4096)
    worker.go()
    told = worker.next()
    assert told is not None, worker.story.events
    threads = told["threads"]
    # T2 is slow, so that T1 is ahead of it and the sync is another thread's.
    slow, calls = "fdatasync,sync_file_range", "fdatasync"
    with (
        Tracer(threads["lfs-write"], tmp_path / "slow", slow, inject=f"{slow}:delay_enter=50000", alone=True),
        Tracer(threads["lfs-sync"], bench.log, calls, inject=f"{calls}:{FAULTS[fault]}:when=1", alone=True),
    ):
        worker.go()
        story = worker.finish()
    synced = [line for line in bench.log.read_text().splitlines() if line.startswith("fdatasync")]
    assert len(synced) == 1, (tmp_path / "slow").read_text()
    bench.injected = 1
    if fault != "killed":
        assert story.done, story.events
        assert "(INJECTED)" in synced[0]
        codes = list(story.answers.values())
        assert codes == sorted(codes, key=bool), "something was committed behind what was refused"
        assert {*codes} <= {0, READ_ONLY, STORAGE_ERROR}
        assert set(codes[-4096:]) == {READ_ONLY}
    assert_whole(bench.layout, story, what=fault)


CREATING = [
    *((call, fault) for call in CALLS if call not in ("ftruncate", "fallocate") for fault in ("EIO", "killed")),
    *((call, "ENOSPC") for call in ("write", "pwrite", "openat", "mkdir")),
]


@pytest.mark.parametrize(("call", "fault"), CREATING)
def test_creating(bench: Bench, call: str, fault: str) -> None:
    for what, story in bench.each("create", call, fault, bench.clear):
        if not story.done:
            try:
                layouts.create(bench.layout.root, stores.LEDGER, segment_bytes=SMALL_SEGMENT)
            except StoreError as error:
                assert "holds a store already" in str(error), what
        assert_whole(bench.layout, story, what=what)


def torn_without_saved_state(bench: Bench) -> None:
    """A torn batch, and everything to be replayed."""
    bench.copy()
    shutil.rmtree(bench.layout.index)
    tear(bench.layout)


def torn_behind_saved_state(bench: Bench) -> None:
    """A batch that was committed after the last save, over the end of a segment; and a torn one."""
    bench.copy()
    saved = IndexStore.peek(bench.layout.index)
    assert saved is not None
    engine = Engine(bench.layout.root, segment_bytes=SMALL_SEGMENT, saved=saved.state)
    engine.start()
    for number in range(2):
        stores.submit(engine, [payment(f"late-{number}-{each}") for each in range(LEFT)])
    engine.close()
    tear(bench.layout)


def tear(layout: Layout) -> None:
    path = next(path for path in reversed(layout.segments()) if any(path.read_bytes()))
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data[:-30] + bytes(4096))


@pytest.mark.parametrize("prepare", [torn_without_saved_state, torn_behind_saved_state])
@pytest.mark.parametrize("fault", ["EIO", "killed"])
@pytest.mark.parametrize("call", ["pwrite", "fsync", "fdatasync", "ftruncate", "openat"])
def test_recovering(bench: Bench, call: str, fault: str, prepare: Callable[[Bench], None]) -> None:
    for what, story in bench.each("recover", call, fault, lambda: prepare(bench)):
        if not story.done and fault != "killed":
            assert story.get("refused") is not None, f"{what}: {story.events}"
        assert_whole(bench.layout, story, what=what)


def test_recovery_syncs_what_it_takes_over(workers: Workers, bench: Bench) -> None:
    """The last batch may never have been synced. It counts from now on, so it must not be in the page cache alone."""
    bench.copy()
    bench.injected = 1  # nothing is tampered with here
    story = workers.trace("recover", bench.layout.root, bench.log, "fdatasync", segment_bytes=SMALL_SEGMENT)
    assert story.done
    assert re.search(rf"fdatasync\(\d+<{bench.layout.segments()[-1]}>\) += 0", bench.log.read_text())


# -- the index


def flipped(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def zeroed(data: bytearray, chance: random.Random) -> None:
    page = chance.randrange(len(data) // PAGE) * PAGE
    data[page : page + PAGE] = bytes(PAGE)


def scrambled(data: bytearray, chance: random.Random) -> None:
    page = chance.randrange(len(data) // PAGE) * PAGE
    data[page : page + PAGE] = chance.randbytes(PAGE)


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


@pytest.mark.parametrize("spoil", [flipped, zeroed, scrambled, cut])
def test_damaged_index(
    workers: Workers, bench: Bench, good: Layout, spoil: Callable[[bytearray, random.Random], None]
) -> None:
    """index.lmdb is made anew when it is not what was saved; nothing wrong ever comes out of it."""
    chance = random.Random(spoil.__name__)
    content = (good.index / "data.mdb").read_bytes()
    bench.injected = 1  # the file is tampered with, not the calls
    for number in range(40):
        data = bytearray(content)
        spoil(data, chance)
        bench.copy()
        (bench.layout.index / "data.mdb").write_bytes(data)
        # In another process, for a bad page might kill it.
        story = workers.run("commit", bench.layout.root, segment_bytes=SMALL_SEGMENT, batches=BATCHES)
        assert story.done, story.events
        assert {*story.answers.values()} == {0}
        assert_whole(bench.layout, story, what=f"{spoil.__name__} {number}", index_spoiled=True)


@pytest.mark.parametrize(
    "name", ["hashes/0", "hashes/1", "runs/offsets", "indexes/ids", "runs/transactions", "runs/blocks"]
)
def test_bad_bit_in_a_projection(workers: Workers, bench: Bench, name: str) -> None:
    """No intent is committed a second time because its id was hidden, and no wrong root is sealed."""
    chance = random.Random(name)
    layout, more = bench.layout, [["more-1", "more-2"], ["more-3"]]
    order = {"segment_bytes": SMALL_SEGMENT}
    bench.injected = 1  # a file is tampered with, not the calls
    for _ in range(12):
        bench.copy()
        assert workers.run("commit", layout.root, batches=BATCHES, **order).done
        path = next(layout.root.glob(f"{name}*"))
        content = bytearray(path.read_bytes())
        flipped(content, chance)
        path.write_bytes(content)
        again = [f"good-{number}" for number in range(200)]
        story = workers.run("commit", layout.root, batches=[again, *BATCHES, *more], **order)
        assert story.done, story.events
        if name == "indexes/ids" and 202 in story.answers.values():
            # In a block: what it may know is refused, and the next start makes it anew.
            assert {*story.answers.values()} <= {0, 202}
            story = workers.run("commit", layout.root, batches=[again, *BATCHES, *more], **order)
        assert {*story.answers.values()} == {0}
        rebuild(layout, segment_bytes=SMALL_SEGMENT)
        assert_whole(layout, story, what=name)


def test_damage_behind_the_saved_state_leaves_the_evidence(bench: Bench) -> None:
    """The journal is refused; index.lmdb, which says what it held, is not thrown away for that."""
    torn_behind_saved_state(bench)
    layout = bench.layout
    bench.injected = 1
    path = layout.segments()[0]
    data = bytearray(path.read_bytes())
    data[data.index(b'"id":"late-0-2"') + 8] ^= 1
    path.write_bytes(data)
    before = stores.journal_digest(layout)
    for _ in range(2):
        with (
            pytest.raises(DamageError, match="later batches follow"),
            stores.opened(layout, segment_bytes=SMALL_SEGMENT),
        ):
            pass
        after = stores.journal_digest(layout)
        for name in ("lock", "index.lmdb/lock.mdb"):
            assert before.pop(name, None) is None or after[name]
            after.pop(name)
        assert after == before


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "killed"])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "openat", "unlink", "mkdir"])
def test_rebuilding(bench: Bench, call: str, fault: str) -> None:
    for what, story in bench.each("rebuild", call, fault, bench.copy):
        if not story.done and fault != "killed":
            assert story.get("refused") is not None, f"{what}: {story.events}"
        assert_whole(bench.layout, story, what=what)
