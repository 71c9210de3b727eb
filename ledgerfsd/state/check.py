"""The whole of ``ledgerfs fsck``: the journal and its files (journal/fsck.py), then LMDB against the replay.

Reads only. The caller holds the lock.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from mmap import ACCESS_READ, mmap
from typing import Final

import lmdb

from ledgerfsd import limits
from ledgerfsd.core.pure import runs
from ledgerfsd.core.values import CLASSES, SIDES, STATUSES
from ledgerfsd.errors import DamageError
from ledgerfsd.journal.fsck import Check, Finding, Summary
from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.projections import SUM_MASK, id_record
from ledgerfsd.state.opening import incomplete
from ledgerfsd.state.store import IndexStore, Saved
from ledgerfsd.state.tip import Mark, Tip
from ledgerfsd.types import Account

PAGE_ACCOUNTS: Final = 64
# An account record as core/csrc/ledger/ledger.h lays it out: lfs_info (overdraft … pad), then lfs_state (debits … pad).
RECORD: Final = struct.Struct("<QQ Q 64s H BBBB 2x QQ QQ QQ QQ QQQQ Q 8x")


def everything(
    layout: Layout, *, quick: bool, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Finding], Summary]:
    """Check a store. ``quick`` leaves out the replay and the projections."""
    name = layout.index.name
    saved, mark, findings = None, None, []
    try:
        saved = IndexStore.peek(layout.index)
        mark = Mark.of(saved.state.mark) if saved else None
    except (lmdb.Error, struct.error) as error:
        findings.append(Finding("projection", name, -1, f"cannot be read: {error}"))
    check = Check(layout, quick=quick, applied=mark.entries if mark else None, progress=progress)
    findings += check.run()
    if saved is not None and mark is not None:
        findings += _index(layout, saved, mark, check, damaged=any(found.severity == "damage" for found in findings))
    elif not findings:
        findings.append(Finding("note", name, -1, "nothing is saved; the next start replays the journal"))
    return findings, check.summary


def _index(layout: Layout, saved: Saved, mark: Mark, check: Check, *, damaged: bool) -> Iterator[Finding]:
    name = layout.index.name
    try:
        Tip.unpack(saved.tip).check(layout)
    except DamageError as error:
        if not damaged:
            yield Finding("damage", name, mark.entries - 1, str(error))
    except struct.error:
        yield Finding("projection", name, -1, "its tip has another form")
    if short := incomplete(layout, mark):
        yield Finding("projection", short.split(" ")[0], -1, short)
    if check.ids is not None and mark.entries <= check.summary.entries:
        yield from _ids(layout, saved, check.ids)
    if check.ledger is not None and mark.entries <= check.summary.entries:
        accounts = check.ledger.accounts
        if mark.entries == check.summary.entries and mark.accounts != len(accounts):
            yield Finding("projection", name, -1, f"holds {mark.accounts} accounts, the journal {len(accounts)}")
        for ordinal, account in enumerate(accounts[: mark.accounts]):
            if wrong := account_differs(
                saved.state.pages, ordinal, account, whole=mark.entries == check.summary.entries
            ):
                yield Finding("projection", name, account.last_index, f"account {account.name}: {wrong}")


def _ids(layout: Layout, saved: Saved, expected: int) -> Iterator[Finding]:
    """The runs of ids: each as it was written, its filter that of its records, and all together the records that the journal gives."""
    found, whole = 0, True
    table = saved.state.tables.get("indexes", b"")
    if not table:
        return  # the next start makes them
    try:
        names = runs.listed(table, runs.IDS)
    except ValueError as error:
        yield Finding("projection", layout.index.name, -1, f"its table indexes: {error}")
        return
    for name in names:
        try:
            with (layout.indexes / name).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                found += _records_of(data)
        except (OSError, ValueError, StopIteration) as error:
            whole = False
            yield Finding("projection", f"{layout.indexes.name}/{name}", -1, f"is not what was written: {error}")
    if whole and found & SUM_MASK != expected:
        yield Finding("projection", layout.indexes.name, -1, "the records of ids are not those of the journal")


def _records_of(data: mmap) -> int:
    run, found, before, keys = runs.Run(data), 0, (-1, -1), []
    for record in run:
        if record[:2] <= before or not run.first <= record.entry < run.end:
            raise ValueError("its records are out of order, or of another part of the log")
        before = record[:2]
        found += id_record(record.key, record.entry)
        keys.append(record.key)
    if run.kind != runs.IDS or runs.filter_of(keys) != run.filter:
        raise ValueError("its filter is not that of its records")
    return found


def account_differs(pages: Mapping[int, bytes], ordinal: int, account: Account, *, whole: bool) -> str:
    """What is wrong with a saved account; "" when nothing is.

    Pages may be newer than the mark and older than the journal's end. So unless the mark is at the end (``whole``) only
    a record that says it is as new as the journal can be compared.
    """
    page, place = pages.get(ordinal // PAGE_ACCOUNTS, b""), ordinal % PAGE_ACCOUNTS
    if len(page) != PAGE_ACCOUNTS * RECORD.size:
        return "its page is missing or has the wrong size"
    found = RECORD.unpack_from(page, place * RECORD.size)
    last_index = found[17]
    if not whole and last_index != account.last_index:
        return ""
    expected = _record(account)
    names = ("overdraft", "open_index", "name", "class", "normal", "limit", "debits", "credits", "held_debits",
             "held_credits", "last_index", "entries", "log_bytes", "last_tx", "status")  # fmt: skip
    values = _values(found)
    return ", ".join(
        f"{name} is {have}, the journal says {want}"
        for name, have, want in zip(names, values, expected, strict=True)
        if have != want
    )


def _values(found: Sequence[int | bytes]) -> list[object]:
    numbers = [value if isinstance(value, int) else 0 for value in found]
    name = found[3]
    assert isinstance(name, bytes)
    halves = [numbers[at] | numbers[at + 1] << 64 for at in (9, 11, 13, 15)]
    return [
        numbers[0] | numbers[1] << 64,
        numbers[2],
        name[: numbers[8]].decode("ascii", "replace"),
        *(numbers[5:7]),
        min(numbers[7], 1),  # no_overdraft and overdraft:0.00 are the same rule
        *halves,
        *numbers[17:22],
    ]


def _record(account: Account) -> list[object]:
    return [
        account.overdraft or 0,
        account.open_index,
        account.name,
        CLASSES.index(account.account_class),
        SIDES.index(account.normal),
        int(account.overdraft is not None),
        account.debits,
        account.credits,
        account.held_debits,
        account.held_credits,
        account.last_index,
        account.entries,
        account.log_bytes,
        account.last_tx,
        STATUSES.index(account.status),
    ]


assert RECORD.size == 208  # see the C structures
assert limits.NAME_BYTES_MAX == 64
