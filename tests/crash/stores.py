"""What the crash tests share: stores to spoil, and what a journal says happened.

The journal is read here by ``journal/stream.py`` (plain Python), never by the core that wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.values import Completion
from ledgerfsd.journal.layout import Layout, lock
from ledgerfsd.journal.stream import Stream
from ledgerfsd.state import check
from ledgerfsd.state.opening import OpenStore, open_store
from ledgerfsd.types import Mode, Result
from tests.crash.intents import ACCOUNTS, lines, payment

SMALL_SEGMENT = 64 * 1024  # the core takes any size: so a segment is closed every 256 entries of the usual kind
LEDGER = "ledger.example/crash"


def submit(engine: Engine, intents: Sequence[dict[str, Any]], *, mode: Mode = Mode.EACH) -> list[Result]:
    """Commit intents as one submission and wait for it."""
    engine.submit(lines(intents), source=b"crash.ndjson", first_line=1, mode=mode)
    engine.drain()
    return [result for completion in engine.completions() for result in results(completion)]


def results(completion: Completion) -> list[Result]:
    """All results of a completion."""
    return [completion[position] for position in range(len(completion))]


def make(root: Path, batches: Sequence[int], *, segment_bytes: int = SMALL_SEGMENT) -> Layout:
    """A store without saved state: the accounts, then a batch of that many payments for every number."""
    root.mkdir()
    Engine.create(root, LEDGER, segment_bytes=segment_bytes)
    engine = Engine(root, segment_bytes=segment_bytes)
    engine.start()
    assert {result.code for result in submit(engine, ACCOUNTS)} == {0}
    for number, count in enumerate(batches):
        found = submit(engine, [payment(f"{number}-{each}") for each in range(count)])
        assert [result.code for result in found] == [0] * count
    engine.close()
    return Layout(root)


@dataclass(frozen=True)
class Batch:
    """One batch in the stream."""

    first: int  # index of its first entry
    seal: int  # index of its seal
    begin: int  # stream offset of its first byte
    end: int  # stream offset behind its last byte
    seal_begin: int  # stream offset of the seal's length field


def batches(layout: Layout) -> list[Batch]:
    """All batches of a good store."""
    found, first, begin = [], 0, 0
    with Stream(layout) as stream:
        for entry in stream.entries():
            end = entry.offset + 2 + len(entry.data)
            if entry.data.startswith(b'{"count":'):
                found.append(Batch(first, entry.index, begin, end, entry.offset))
                first, begin = entry.index + 1, end
    return found


@dataclass
class Seen:
    """What the journal holds, read further each time; entries never go away again."""

    layout: Layout
    committed: dict[str, int] = field(default_factory=dict)  # id → how often it is there
    rejected: dict[str, int] = field(default_factory=dict)
    entries: int = 0
    _last: tuple[int, bytes] = (0, b"")  # the last seal of the look before

    def look(self) -> None:
        """Read on. Raises AssertionError when what was there is not there any more."""
        index, known = self._last
        with Stream(self.layout) as stream:
            # Not looked into before their seal is whole: until then, a write may have stopped anywhere in them and in it.
            pending: list[bytes] = []
            for entry in stream.entries():
                if entry.index < self.entries:
                    assert entry.index != index or entry.data == known, f"entry {index} is another one now"
                    continue
                pending.append(entry.data)
                if entry.data.startswith(b'{"count":') and entry.data.endswith(b"}"):
                    for data in pending:
                        self._count(json.loads(data))
                    pending = []
                    self._last = (entry.index, entry.data)
        assert self._last[0] + 1 >= self.entries, "batches that were there are gone"
        self.entries = self._last[0] + 1

    def _count(self, value: dict[str, Any]) -> None:
        if value["t"] != "seal/1" and "id" in value and not value["id"].startswith("~"):
            table = self.rejected if value["t"] == "rejected/1" else self.committed
            table[value["id"]] = table.get(value["id"], 0) + 1

    def assert_once(self, names: Iterable[str]) -> None:
        """Each was acknowledged, so it is there, once."""
        wrong = {name: count for name in names if (count := self.committed.get(name, 0)) != 1}
        assert not wrong, f"acknowledged, and there so many times: {wrong}"

    def assert_absent(self, names: Iterable[str]) -> None:
        """Each was refused, so it is not there."""
        wrong = [name for name in names if name in self.committed]
        assert not wrong, f"refused, and committed nevertheless: {wrong}"

    def assert_no_doubles(self) -> None:
        """An id is used up by one entry, whatever became of it."""
        names = self.committed.keys() | self.rejected.keys()
        wrong = [name for name in names if self.committed.get(name, 0) + self.rejected.get(name, 0) > 1]
        assert not wrong, f"more than one entry: {wrong}"


@contextmanager
def opened(layout: Layout, *, segment_bytes: int = SMALL_SEGMENT) -> Iterator[OpenStore]:
    """The store, locked and recovered, with its commit threads running; closed at the end."""
    with lock(layout):
        store = open_store(layout, segment_bytes=segment_bytes)
        try:
            store.engine.start()
            yield store
        finally:
            store.close()


def fsck(layout: Layout, *, quick: bool = False) -> None:
    """Verify the store; notes (an unfinished batch) are no fault."""
    with lock(layout):
        findings, _ = check.everything(layout, quick=quick)
    wrong = [finding for finding in findings if finding.severity != "note"]
    assert not wrong, wrong


def journal_digest(layout: Layout) -> dict[str, tuple[int, int, str]]:
    """Everything in the store but the two projections that opening begins anew: size, mtime and hash by name."""
    return {
        str(path.relative_to(layout.root)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in walk(layout.root)
        if path.is_file() and path.relative_to(layout.root).parts[0] not in ("hashes", "runs")
    }


def walk(root: Path) -> Iterator[Path]:
    """All files below a directory."""
    return (path for path in sorted(root.rglob("*")) if path.is_file())
