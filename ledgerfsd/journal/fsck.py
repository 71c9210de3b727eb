"""Independent verification of a store, in plain Python: nothing of the commit path is used to check the commit path.

Start at ``Check.run``: it walks the journal, yielding what it finds. Per entry: length, canonical bytes, index, time.
Per batch: the seal's height, prev, first, count, tx_root, log_root (docs/FORMAT.md, section 3). The full check compares
the files of ``hashes/`` and ``runs/`` byte for byte with what the journal says and replays every entry, so that every
balance, chain and id is derived anew. The index in LMDB is compared by state/check.py, with what the replay gave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.errors import DamageError
from ledgerfsd.journal import tree
from ledgerfsd.journal.layout import Layout, first_entry
from ledgerfsd.journal.projections import Projections
from ledgerfsd.journal.stream import BrokenError, Entry, Stream

TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")  # of fixed width, so text order is time order
INDEX_MEMBER: Final = re.compile(rb'"index":(\d+)')
INTEGER_LIMIT: Final = 2**53
PROGRESS_ENTRIES: Final = 4096
SEAL_PREFIX: Final = b'{"count":'  # of all kinds of entry only a seal begins so

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    ``damage``: the ledger is not what was sealed; ``projection``: only a derived file is wrong (`ledgerfs rebuild`
    makes it anew); ``note``: normal after a crash, the next start tidies it; ``lost``: what was signed is gone, and the log
    itself says so since it was restored; ``evidence``: what is kept beside the journal and cannot be derived from it is not
    what was written, or does not go with the journal.
    """

    severity: Literal["damage", "projection", "note", "lost", "evidence"]
    file: str
    entry: int  # index, -1 when it concerns no entry
    what: str


@dataclass
class Summary:
    """What the journal holds, as far as it is good."""

    entries: int = 0
    blocks: int = 0
    transactions: int = 0  # counted in the full check only
    stream_bytes: int = 0
    log_root: str = ""  # hex; the tree of all entries that count
    full: bool = False


@dataclass
class _Batch:
    """The entries since the last seal."""

    first: int
    entries: list[Entry] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    values: list[dict[str, Any] | None] = field(default_factory=list)  # None in the quick check, but for seals

    def add(self, entry: Entry, leaf: bytes, value: dict[str, Any] | None) -> None:
        self.entries.append(entry)
        self.leaves.append(leaf)
        self.values.append(value)


@dataclass
class _Seal:
    """The last seal that counted, and where the stream stands after it."""

    height: int = 0
    leaf: str = "0" * 64
    time: str = ""
    next_index: int = 0
    end: int = 0  # stream offset
    policy: str = ""  # leaf hash of the newest policy entry, or of genesis


class Check:
    """One check of one store; the caller holds the lock. Use ``run`` once, then read ``summary`` and ``ledger``."""

    def __init__(
        self,
        layout: Layout,
        *,
        quick: bool = False,
        applied: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """``quick``: only lengths, indexes, times, seals and roots.

        ``applied``: how many entries the projections claim to hold (the mark in index.lmdb); None: nothing to compare.
        ``progress(done_bytes, total_bytes)`` is called now and then; the full check reads the journal twice.
        """
        self.summary = Summary(full=not quick)
        self.ledger: Ledger | None = None  # the state that the replay gave
        self._layout = layout
        self._quick = quick
        self._applied = applied
        self._tell = progress
        self._projections = None if quick or applied is None else Projections(layout, applied)
        self._seal = _Seal()
        self._batch = _Batch(0)
        self._time = ""
        self._log = tree.Frontier()

    def run(self) -> Iterator[Finding]:
        """Yield what is not as it should be, the first bad place of the journal first."""
        with Stream(self._layout) as stream:
            total = stream.total_bytes * (1 if self._quick else 2)
            try:
                for entry in stream.entries():
                    self._entry(entry)
                    self._progress(entry, entry.offset, total)
                if self._batch.entries:
                    first = self._batch.entries[0]
                    raise BrokenError(first.path, first.index, "the stream ends before the batch is sealed")
            except BrokenError as error:
                yield self._judge(stream, error)
            else:
                yield from self._lost()
            summary = self.summary
            summary.entries, summary.blocks = self._seal.next_index, self._seal.height
            summary.stream_bytes, summary.log_root = self._seal.end, self._log.root().hex()
            yield from self._derived()
            if not self._quick and summary.entries:
                yield from self._replay(stream, total)

    @property
    def ids(self) -> int | None:
        """The sum of the records of ids up to the mark (``projections.id_record``); None: it was not worked out."""
        return self._projections.ids if self._projections else None

    def _progress(self, entry: Entry, done: int, total: int) -> None:
        if self._tell and entry.index % PROGRESS_ENTRIES == 0:
            self._tell(done, total)

    def _replay(self, stream: Stream, total: int) -> Iterator[Finding]:
        last: Entry | None = None

        def entries() -> Iterator[bytes]:
            nonlocal last
            for entry in stream.entries():
                if entry.index == self.summary.entries:
                    return
                last = entry
                self._progress(entry, total // 2 + entry.offset, total)
                yield entry.data

        try:
            self.ledger = Ledger.replay(entries())
        except DamageError as error:
            where = (self._name(last.path), last.index) if last else (self._layout.journal.name, -1)
            yield Finding("damage", *where, f"does not follow from the entries before: {error}")

    def _judge(self, stream: Stream, error: BrokenError) -> Finding:
        """A torn write concerns one batch only, and none makes a whole one that contradicts what stands before it."""
        file, last = self._name(error.path), self._seal
        torn = last.height > 0 and not stream.written_after(last.end, first=last.next_index, height=last.height + 1)
        if not torn or self._contrary(stream):
            return Finding("damage", file, error.index, error.what)
        if self._applied is not None and self._applied > self._seal.next_index:
            lost = f"index.lmdb has applied {self._applied} entries, but only {self._seal.next_index} count"
            return Finding("damage", file, error.index, f"{error.what}; {lost}")
        return Finding("note", file, error.index, f"an unfinished batch ({error.what}); the next start zeroes it")

    def _contrary(self, stream: Stream) -> bool:
        """Whether the batch that does not count is one that its own seal fits, but that was sealed on another history."""
        first, leaves, time = self._seal.next_index, list[bytes](), ""
        try:
            for entry in stream.entries():
                if entry.index < first:
                    continue
                time = time or self._common(entry, after="")
                if not entry.data.startswith(SEAL_PREFIX):
                    leaves.append(tree.leaf_hash(entry.data))
                    continue
                seal = self._canonical(entry)
                own = {"count": len(leaves), "first": first, "height": self._seal.height + 1, "t": "seal/1"}
                if any(seal.get(name) != value for name, value in own.items()):
                    return False
                log = self._log.fork()
                for leaf in leaves:
                    log.append(leaf)
                strange = seal.get("prev") != self._seal.leaf and seal.get("log_root") != log.root().hex()
                return seal.get("tx_root") == tree.root(leaves).hex() and (strange or time <= self._seal.time)
        except BrokenError:
            pass
        return False

    def _lost(self) -> Iterator[Finding]:
        """The journal is well formed, but shorter than it was."""
        held = self._seal.next_index
        if self._applied is not None and self._applied > held:
            what = f"the journal ends here, but index.lmdb has applied {self._applied} entries"
            yield Finding("damage", self._name(self._layout.segments()[-1]), held, what)

    def _derived(self) -> Iterator[Finding]:
        """What only repeats the journal."""
        held = self.summary.entries
        genesis = self._layout.genesis
        if held and (not genesis.exists() or genesis.read_bytes() != first_entry(self._layout) + b"\n"):
            yield Finding("projection", genesis.name, 0, "is not the bytes of entry 0 and a newline")
        if self._projections:
            for file, entry, what in self._projections.finish(held):
                yield Finding("projection", file, entry, what)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._layout.root))

    # -- one entry

    def _entry(self, entry: Entry) -> None:
        time = self._common(entry, after=self._time)
        leaf = tree.leaf_hash(entry.data)
        is_seal = entry.data.startswith(SEAL_PREFIX)
        value = self._canonical(entry) if is_seal or not self._quick else None
        if is_seal:
            assert value is not None
            self._check_seal(entry, leaf, value)
            self._accept(entry, value)
            end = entry.offset + 2 + len(entry.data)
            self._seal = _Seal(value["height"], leaf.hex(), time, entry.index + 1, end, value["policy"])
            self._batch = _Batch(entry.index + 1)
        else:
            self._batch.add(entry, leaf, value)
        self._time = time

    def _common(self, entry: Entry, *, after: str) -> str:
        """Check the index and the time, which must be later than ``after``; returns the time.

        ``"index":`` is found as its first occurrence and ``"time":`` as its last: no member that may hold text of a
        user stands before the one or after the other (docs/FORMAT.md, sections 4 and 7).
        """
        found = INDEX_MEMBER.search(entry.data)
        if not found or int(found[1]) != entry.index:
            raise BrokenError(entry.path, entry.index, "the entry does not carry its index")
        at = entry.data.rfind(b'"time":"')
        time = entry.data[at + 8 : at + 38].decode("ascii", "replace")
        if at < 0 or not TIME.fullmatch(time):
            raise BrokenError(entry.path, entry.index, "the entry carries no time of the right form")
        if time <= after:
            raise BrokenError(entry.path, entry.index, f"its time {time} is not later than that of the entry before")
        return time

    def _canonical(self, entry: Entry) -> dict[str, Any]:
        try:
            value = json.loads(entry.data, parse_float=_refuse, parse_constant=_refuse, parse_int=_integer)
            if isinstance(value, dict) and canonical(value) == entry.data and isinstance(value.get("t"), str):
                return value
        except (ValueError, RecursionError):
            pass
        raise BrokenError(entry.path, entry.index, "the entry is not canonical JSON of a known form")

    # -- one batch

    def _check_seal(self, entry: Entry, leaf: bytes, value: dict[str, Any]) -> None:
        batch = self._batch
        ahead = self._log.fork()  # the batch may not count: the tree moves on only when its seal is right
        for known in batch.leaves:
            ahead.append(known)
        expected = {
            "count": len(batch.entries),
            "first": batch.first,
            "height": self._seal.height + 1,
            "index": entry.index,
            "log_root": ahead.root().hex(),
            "policy": self._policy(batch),
            "prev": self._seal.leaf,
            "t": "seal/1",
            "time": value.get("time"),
            "tx_root": tree.root(batch.leaves).hex(),
        }
        if "state_root" in value:
            expected["state_root"] = value["state_root"]  # worked out anew by the replay
        elif not batch.entries:
            raise BrokenError(entry.path, entry.index, "a seal seals nothing")
        if value != expected:
            wrong = sorted(name for name in expected | value if value.get(name) != expected.get(name))
            raise self._blame(entry, leaf, f"the seal does not fit the bytes before it: {', '.join(wrong)}")
        ahead.append(leaf)
        self._log = ahead

    def _blame(self, seal: Entry, leaf: bytes, what: str) -> BrokenError:
        """A seal only says that its batch is wrong; the hash file, a projection, may know which entry was changed."""
        batch = self._batch
        try:
            with (self._layout.hashes / "0").open("rb") as file:
                file.seek(32 * batch.first)
                known = file.read(32 * (len(batch.leaves) + 1))
        except OSError:
            known = b""
        for place, (entry, found) in enumerate(zip([*batch.entries, seal], [*batch.leaves, leaf], strict=True)):
            expected = known[32 * place : 32 * place + 32]
            if len(expected) == 32 and found != expected:
                return BrokenError(entry.path, entry.index, f"its hash is not the one in hashes/0, and {what}")
        return BrokenError(seal.path, seal.index, what)

    def _policy(self, batch: _Batch) -> str:
        for entry, leaf in zip(reversed(batch.entries), reversed(batch.leaves), strict=True):
            if b'"t":"policy/1"' in entry.data and json.loads(entry.data).get("t") == "policy/1":
                return leaf.hex()
        return self._seal.policy or (batch.leaves[0].hex() if batch.leaves else "")

    def _accept(self, seal: Entry, value: dict[str, Any]) -> None:
        """The batch counts: tell the projections what they must hold."""
        batch = self._batch
        batch.add(seal, b"", value)
        for entry, known in zip(batch.entries, batch.values, strict=True):
            if known is not None:
                self.summary.transactions += "tx" in known
                if self._projections:
                    self._projections.entry(entry, known)
        if self._projections:
            for height, node in self._log.completed:
                self._projections.subtree(height, node)


def canonical(value: object) -> bytes:
    """RFC 8785 for values without fractions (docs/FORMAT.md, section 2)."""
    try:
        # For names of ASCII characters Python's order is that of UTF-16.
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=True)
    except TypeError:
        raise ValueError("not a JSON value") from None
    if text.isascii():
        return text.encode()
    return json.dumps(_sorted(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        # By UTF-16 code units, which differs from Python's order beyond the Basic Multilingual Plane.
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda name: name.encode("utf-16-be"))}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _refuse(text: str) -> None:
    raise ValueError(text)


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= INTEGER_LIMIT:
        raise ValueError(text)
    return value
