"""``ledgerfs verify``: everything that a store says, worked out again from the bytes of its journal, by the C core.

Canonical form, leaf hashes, chain of seals, batch and log roots; every balance and its chain, limits, freezes, closed
periods, holds, ids, transaction numbers; the state root of every seal that carries one (``core/verifier.py``). What comes
of it is compared with the projections, and with checkpoints that were kept elsewhere: the only thing that shows a
history rewritten by somebody who holds the keys. Nothing of the store is changed.

Start at ``verify``. ``fsck`` checks much the same with code that shares nothing with the core, a hundred times slower.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, NamedTuple

import lmdb

from ledgerfsd.core.verifier import NO_LIMIT, Applied, Damage, Verifier
from ledgerfsd.errors import DamageError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.fsck import Finding
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state import check
from ledgerfsd.state.store import IndexStore, Saved
from ledgerfsd.state.tip import Mark, Tip

TABLES: Final = ("holds", "policy", "reversed")


class Anchor(NamedTuple):
    """A checkpoint that was kept elsewhere and whose signatures were verified."""

    name: str
    size: int
    root: bytes
    entry: int = -1  # the `anchor/1` that says so, -1: it came from elsewhere
    stamps: tuple[str, ...] = ()  # what time stamps say of it; nothing is judged by them here
    own: bool = False  # it lies in the store itself, so that it agrees proves nothing


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
    trusted: int = 0  # entries whose hashes were taken on trust
    seconds: float = 0


class Part(NamedTuple):
    """How much of the log is verified."""

    limit: int | None = None  # so many entries, all of which must be there and count; None: as many as count
    trusted: int = 0  # the hashes of so many are taken on trust
    projections: bool = True  # compare what only repeats the journal


WHOLE: Final = Part()


def verify(
    layout: Layout,
    *,
    anchors: list[Anchor],
    part: Part = WHOLE,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Finding], Verified]:
    """Verify a store. The caller holds the lock, unless ``part`` has a limit: up to there all is durable and stays.

    Raises StoreError when the files cannot be read, or no seal ends what is to be trusted.
    """
    found = Verified(trusted=part.trusted)
    began = time.monotonic()
    saved, mark, unreadable = (None, None, "") if part.limit is not None or not part.projections else _saved(layout)
    verifier = Verifier(
        layout.root,
        applied=_applied(part, saved, mark),
        limit=part.limit,
        trusted=part.trusted,
        roots=[anchor.size for anchor in anchors],
        jobs=jobs,
    )
    verifier.wait(progress)
    if damage := verifier.damage:
        findings = [Finding("damage", damage.file, damage.entry, damage.what)]
    else:
        findings = list(_journal(layout, verifier, found))
        findings += _anchored(verifier, [*_recorded(verifier, found), *anchors], found)
        if part.projections:
            findings += _genesis_file(layout)
            findings += [] if part.limit is not None else _index(layout, verifier, saved, mark, unreadable)
            findings += [_difference(*each) for each in verifier.differences()]
    found.seconds = time.monotonic() - began
    return findings, found


def _recorded(verifier: Verifier, found: Verified) -> list[Anchor]:
    """What the ledger says of keys, restores and anchors: the anchors, to be compared with the log."""
    own = [json.loads(verifier.entry(index)) for index in verifier.system_entries()]
    found.incarnation = verifier.counts().incarnation
    found.keys = [_statement(entry) for entry in own if entry["t"] == "key/1"]
    found.restores = [_statement(entry) for entry in own if entry["t"] == "restore/1"]
    return [
        Anchor("journal", entry["size"], bytes.fromhex(entry["root"]), entry["index"])
        for entry in own
        if entry["t"] == "anchor/1"
    ]


def _statement(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("t", "id", "intent")}


def _saved(layout: Layout) -> tuple[Saved | None, Mark | None, str]:
    """What index.lmdb holds, without the pages of accounts, or why it cannot be read."""
    try:
        saved = IndexStore.peek(layout.index, pages=False)
        return saved, Mark.of(saved.state.mark) if saved else None, ""
    except (lmdb.Error, struct.error) as error:
        return None, None, f"cannot be read: {error}"


def _applied(part: Part, saved: Saved | None, mark: Mark | None) -> Applied:
    """What is behind the mark is written again at the next start; of a running store all that is durable is there."""
    if not part.projections:
        return Applied()
    if part.limit is not None:
        return Applied(part.limit, NO_LIMIT, NO_LIMIT)
    if saved is None or mark is None:
        return Applied()
    return Applied(mark.entries, mark.transactions, mark.blocks, saved.state.tables.get("indexes", b""))


def _journal(layout: Layout, verifier: Verifier, found: Verified) -> Iterator[Finding]:
    counts = verifier.counts()
    found.entries, found.transactions, found.blocks = counts.entries, counts.transactions, counts.blocks
    found.accounts, found.stream_bytes = counts.accounts, counts.stream_bytes
    root = verifier.root(counts.entries)
    found.log_root = root.hex() if root else ""
    table = resources.files("ledgerfsd").joinpath("data/currencies.tsv").read_bytes()
    if json.loads(layouts.first_entry(layout))["currencies"] != hashlib.sha256(table).hexdigest():
        name = str(layout.segments()[0].relative_to(layout.root))
        yield Finding("damage", name, 0, "the ledger was made with another table of currencies")
    if torn := verifier.unfinished:
        what = f"an unfinished batch ({verifier.cut_bytes} bytes: {torn.what}); the next start zeroes it"
        yield Finding("note", torn.file, torn.entry, what)


def _anchored(verifier: Verifier, anchors: list[Anchor], found: Verified) -> Iterator[Finding]:
    """The log has every signed tree as its beginning."""
    for anchor in anchors:
        if verifier.root(anchor.size) == anchor.root:
            found.anchors += anchor.entry < 0 and not anchor.own
            found.recorded_anchors += anchor.entry >= 0
        elif lost := _lost(anchor, found.restores):
            yield Finding("lost", anchor.name, lost["index"], _words(anchor, lost))
        elif anchor.size > found.entries:
            what = f"a log of {anchor.size} entries was signed, but this one has {found.entries}"
            yield Finding("damage", anchor.name, anchor.entry if anchor.entry >= 0 else found.entries, what)
        elif anchor.size < found.trusted:
            what = f"its {anchor.size} entries lie before the {found.trusted} whose hashes are trusted: not compared"
            yield Finding("note", anchor.name, -1, what)
        else:
            what = f"the first {anchor.size} entries are not those that were signed: the history was rewritten"
            yield Finding("damage", anchor.name, anchor.entry, what)


def _lost(anchor: Anchor, restores: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The restore that gave up what the anchor speaks of. Where it says what had been signed last, nothing later was signed."""
    for restore in restores if anchor.entry < 0 else ():
        last = restore.get("signed_size", anchor.size)
        if restore["size"] < anchor.size < last or (
            anchor.size == last > restore["size"] and restore.get("signed_root", anchor.root.hex()) == anchor.root.hex()
        ):
            return restore
    return None


def _words(anchor: Anchor, restore: dict[str, Any]) -> str:
    return (
        f"lost in the restore at entry {restore['index']}: {anchor.size} entries were signed, and the ledger lives again "
        f"from {restore['size']} (incarnation {restore['incarnation']}): {restore['reason']}"
    )


def _genesis_file(layout: Layout) -> list[Finding]:
    if layout.genesis.exists() and layout.genesis.read_bytes() == layouts.first_entry(layout) + b"\n":
        return []
    return [Finding("projection", layout.genesis.name, 0, "is not the bytes of entry 0 and a newline")]


def _difference(file: str, item: int, ended: bool) -> Finding:
    what = f"ends before item {item}" if ended else f"item {item} differs from the journal"
    return Finding("projection", file, -1, what)


def _index(
    layout: Layout, verifier: Verifier, saved: Saved | None, mark: Mark | None, unreadable: str
) -> Iterator[Finding]:
    name, counts = layout.index.name, verifier.counts()
    if unreadable:
        yield Finding("projection", name, -1, unreadable)
        return
    if saved is None or mark is None:
        yield Finding("note", name, -1, "nothing is saved; the next start replays the journal")
        return
    if mark.entries > counts.entries:
        end = Damage(counts.entries, str(layout.segments()[-1].relative_to(layout.root)), "the journal ends here")
        torn = verifier.unfinished or end
        what = f"{torn.what}, but index.lmdb has applied {mark.entries} entries"
        yield Finding("damage", torn.file, torn.entry, what)
        return
    try:
        Tip.unpack(saved.tip).check(layout)
    except DamageError as error:
        yield Finding("damage", name, mark.entries - 1, str(error))
    except struct.error:
        yield Finding("projection", name, -1, "its tip has another form")
    whole = mark.entries == counts.entries
    try:
        accounts = list(_accounts(layout, verifier, min(mark.accounts, counts.accounts), whole))
    except (lmdb.Error, struct.error) as error:
        yield Finding("projection", name, -1, f"cannot be read: {error}")
        return
    if whole and mark.accounts != counts.accounts:
        yield Finding("projection", name, -1, f"holds {mark.accounts} accounts, the journal {counts.accounts}")
    yield from accounts
    if not saved.state.tables.get("indexes"):
        yield Finding(
            "note", layout.indexes.name, -1, "no file of it is listed; the next start makes all projections anew"
        )
    elif wrong := verifier.index_fault():
        yield Finding("projection", wrong.file, wrong.entry, wrong.what)
    for table in TABLES if whole else ():
        if not verifier.table_is(table, saved.state.tables.get(table, b"")):
            yield Finding("projection", name, -1, f"its table {table} is not what the journal gives")


def _accounts(layout: Layout, verifier: Verifier, count: int, whole: bool) -> Iterator[Finding]:
    """Raises lmdb.Error when a page cannot be read."""
    page, pages = 0, -(-count // check.PAGE_ACCOUNTS)
    for number, content in IndexStore.each_page(layout.index):
        for missing in range(page, min(number, pages)):
            yield from _page(layout, verifier, missing, b"", count, whole)
        if number < pages and not verifier.page_is(number, content):
            yield from _page(layout, verifier, number, bytes(content), count, whole)
        page = number + 1
    for missing in range(page, pages):
        yield from _page(layout, verifier, missing, b"", count, whole)


def _page(layout: Layout, verifier: Verifier, page: int, content: bytes, count: int, whole: bool) -> Iterator[Finding]:
    """A page that is missing, or not what it should be: the accounts in it that differ."""
    for ordinal in range(page * check.PAGE_ACCOUNTS, min((page + 1) * check.PAGE_ACCOUNTS, count)):
        account = verifier.account(ordinal)
        if wrong := check.account_differs({page: content} if content else {}, ordinal, account, whole=whole):
            yield Finding("projection", layout.index.name, account.last_index, f"account {account.name}: {wrong}")
