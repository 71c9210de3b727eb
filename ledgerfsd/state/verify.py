"""``ledgerfs verify``: everything that a store says, worked out again from the bytes of its journal, by the C core.

The journal is replayed from its first byte into a scratch folder: canonical form, leaf hashes, chain of seals, batch and
log roots, every balance and its chain, holds, ids, transaction numbers, and the state root of every seal that carries
one. What comes of it is compared with the projections byte for byte, and with checkpoints that were kept elsewhere: the
only thing that shows a history rewritten by somebody who holds the keys. Nothing of the store is changed.

Start at ``verify``. ``fsck`` checks much the same with code that shares nothing with the core, a hundred times slower.
"""

from __future__ import annotations

import re
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb
import msgspec

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.hashing import Frontier
from ledgerfsd.errors import DamageError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.fsck import Finding
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state import check
from ledgerfsd.state.store import IndexStore, Saved
from ledgerfsd.state.tip import Mark, Tip

PIECE_BYTES: Final = 4 << 20
LEAVES_AT_ONCE: Final = 65_536
_HASH_BYTES: Final = 32
# File name → bytes an item; how many items there are follows from the mark.
_RUNS: Final = {"offsets": 8, "ids": 4, "transactions": 8, "blocks": 8}
_DAMAGE: Final = re.compile(r"(journal/[0-9]{20}\.seg), entry ([0-9]+): (.*?)(; nothing was changed; .*)?", re.DOTALL)


class Anchor(NamedTuple):
    """A checkpoint that was kept elsewhere and whose signatures were verified."""

    name: str
    size: int
    root: bytes
    entry: int = -1  # the `anchor/1` that says so, -1: it came from elsewhere
    stamps: tuple[str, ...] = ()  # what time stamps say of it; nothing is judged by them here


@dataclass
class Verified:
    """What was found to be there."""

    entries: int = 0
    transactions: int = 0
    blocks: int = 0
    accounts: int = 0
    stream_bytes: int = 0
    log_root: str = ""
    anchors: int = 0  # that agree
    incarnation: int = 1
    keys: list[dict[str, Any]] = field(default_factory=list)  # what the log says of keys (`key/1`), oldest first
    restores: list[dict[str, Any]] = field(default_factory=list)  # `restore/1`
    recorded_anchors: int = 0  # `anchor/1` entries, whose roots are right
    seconds: float = 0


def verify(
    layout: Layout,
    *,
    anchors: list[Anchor],
    scratch: Path | None = None,
    journal_only: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Finding], Verified]:
    """Verify a store. The caller holds the lock. ``scratch``: room for a fifth of the journal."""
    found = Verified()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ledgerfs-verify-", dir=scratch) as folder:
        try:
            engine = Engine(Path(folder), verify=layout.root, progress=progress)
        except DamageError as error:
            findings = [_damage(error)]
        else:
            findings = list(_journal(layout, engine, anchors, found))
            if not journal_only:
                findings += _derived(layout, engine, Path(folder))
    found.seconds = time.monotonic() - began
    return findings, found


def _damage(error: DamageError) -> Finding:
    match = _DAMAGE.fullmatch(str(error))
    return (
        Finding("damage", match[1], int(match[2]), match[3]) if match else Finding("damage", "journal", -1, str(error))
    )


def _journal(layout: Layout, engine: Engine, anchors: list[Anchor], found: Verified) -> Iterator[Finding]:
    counts = engine.counts()
    found.entries, found.transactions, found.blocks = counts.entries, counts.transactions, counts.blocks
    found.accounts, found.stream_bytes = counts.accounts, counts.stream_bytes
    if engine.recovery.cut_bytes:
        last = str(layout.segments()[-1].relative_to(layout.root))
        what = f"an unfinished batch ({engine.recovery.cut_bytes} bytes); the next start zeroes it"
        yield Finding("note", last, counts.entries, what)
    found.incarnation = counts.incarnation
    own = [msgspec.json.decode(engine.entry(index)) for index in engine.system_entries()]
    found.keys = [_statement(entry) for entry in own if entry["t"] == "key/1"]
    found.restores = [_statement(entry) for entry in own if entry["t"] == "restore/1"]
    recorded = [
        Anchor("journal", entry["size"], bytes.fromhex(entry["root"]), entry["index"])
        for entry in own
        if entry["t"] == "anchor/1"
    ]
    yield from _anchored(engine, recorded + anchors, found)


def _statement(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("t", "id", "intent")}


def _derived(layout: Layout, engine: Engine, scratch: Path) -> Iterator[Finding]:
    """What only repeats the journal."""
    if not layout.genesis.exists() or layout.genesis.read_bytes() != layouts.first_entry(layout) + b"\n":
        yield Finding("projection", layout.genesis.name, 0, "is not the bytes of entry 0 and a newline")
    name = layout.index.name
    try:
        saved = IndexStore.peek(layout.index)
        mark = Mark.of(saved.state.mark) if saved else None
    except (lmdb.Error, struct.error) as error:
        yield Finding("projection", name, -1, f"cannot be read: {error}")
        return
    if saved is None or mark is None:
        yield Finding("note", name, -1, "nothing is saved; the next start replays the journal")
        return
    held = engine.counts().entries
    if mark.entries > held:
        what = f"the journal ends here, but index.lmdb has applied {mark.entries} entries"
        yield Finding("damage", str(layout.segments()[-1].relative_to(layout.root)), held, what)
        return
    yield from _index(layout, engine, saved, mark)
    yield from _projections(layout, scratch, mark)
    if wrong := engine.verify_indexes(layout.root, saved.state.tables.get("indexes", b""), mark.entries):
        yield Finding("projection", wrong[0], -1, wrong[1])


def _anchored(engine: Engine, anchors: list[Anchor], found: Verified) -> Iterator[Finding]:
    """The log has every signed tree as its beginning. One pass over the leaf hashes."""
    frontier = Frontier()
    ends = sorted({anchor.size for anchor in anchors} | {engine.counts().entries})
    roots: dict[int, bytes] = {}
    for end in ends:
        while frontier.size < min(end, engine.counts().entries):
            count = min(LEAVES_AT_ONCE, end - frontier.size)
            frontier.append(engine.hashes(0, frontier.size, min(count, engine.counts().entries - frontier.size)))
        if frontier.size == end:
            roots[end] = frontier.root()
    found.log_root = roots[engine.counts().entries].hex()
    for anchor in anchors:
        if anchor.size not in roots:
            what = f"a log of {anchor.size} entries was signed, but this one has {engine.counts().entries}"
            yield Finding("damage", anchor.name, anchor.entry if anchor.entry >= 0 else engine.counts().entries, what)
        elif roots[anchor.size] != anchor.root:
            what = f"the first {anchor.size} entries are not those that were signed: the history was rewritten"
            yield Finding("damage", anchor.name, anchor.entry, what)
        elif anchor.entry >= 0:
            found.recorded_anchors += 1
        else:
            found.anchors += 1


def _index(layout: Layout, engine: Engine, saved: Saved, mark: Mark) -> Iterator[Finding]:
    name = layout.index.name
    try:
        Tip.unpack(saved.tip).check(layout)
    except DamageError as error:
        yield Finding("damage", name, mark.entries - 1, str(error))
    except struct.error:
        yield Finding("projection", name, -1, "its tip has another form")
    whole = mark.entries == engine.counts().entries
    if whole and mark.accounts != engine.counts().accounts:
        yield Finding("projection", name, -1, f"holds {mark.accounts} accounts, the journal {engine.counts().accounts}")
    accounts = min(mark.accounts, engine.counts().accounts)
    for ordinal in range(accounts):
        page, first = divmod(ordinal, check.PAGE_ACCOUNTS)
        if first == 0:
            same = saved.state.pages.get(page) == engine.page(page)
        if same:
            continue
        account = engine.account(ordinal)
        if wrong := check.account_differs(saved.state.pages, ordinal, account, whole=whole):
            yield Finding("projection", name, account.last_index, f"account {account.name}: {wrong}")


def _projections(layout: Layout, scratch: Path, mark: Mark) -> Iterator[Finding]:
    """The files of hashes/ and runs/, up to the mark: what is behind it is written again at the next start."""
    items = {"offsets": mark.entries, "ids": mark.entries, "transactions": mark.transactions, "blocks": mark.blocks}
    files = [(layout.runs / name, scratch / "runs" / name, size, items[name]) for name, size in _RUNS.items()]
    for path in sorted((scratch / "hashes").iterdir()):
        count = mark.entries >> (8 * int(path.name))
        if count:
            files.append((layout.hashes / path.name, path, _HASH_BYTES, count))
    for path, expected, item_bytes, count in files:
        if what := _difference(path, expected, item_bytes, count):
            yield Finding("projection", str(path.relative_to(layout.root)), -1, what)


def _difference(path: Path, expected: Path, item_bytes: int, count: int) -> str:
    """The first difference in the first ``count`` items; "" when there is none."""
    left, at = item_bytes * count, 0
    try:
        with path.open("rb") as file, expected.open("rb") as right:
            while left:
                ours, theirs = (each.read(min(PIECE_BYTES, left)) for each in (right, file))
                if ours != theirs:
                    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
                    item = (at + same) // item_bytes
                    ended = same == len(theirs)
                    return f"ends before item {item}" if ended else f"item {item} differs from the journal"
                at += len(ours)
                left -= len(ours)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""
