"""Making every projection anew from the segments alone."""

from __future__ import annotations

import shutil
import struct

import lmdb

from ledgerfsd import limits
from ledgerfsd.core.values import Recovery
from ledgerfsd.errors import StoreError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state.opening import Progress, open_store
from ledgerfsd.state.store import IndexStore
from ledgerfsd.state.tip import Tip


def rebuild(layout: Layout, *, segment_bytes: int = limits.SEGMENT_BYTES, progress: Progress | None = None) -> Recovery:
    """Delete hashes/, runs/ and index.lmdb, replay the journal, save. The caller holds the lock.

    If we stop half-way, index.lmdb is absent or empty, and the next start (or rebuild) begins from nothing again.
    Raises StoreError or DamageError. The journal is not touched, but for the rest of an unfinished batch (zeroed).
    """
    layouts.check(layout)
    try:
        return _rebuild(layout, segment_bytes, progress)
    except (OSError, lmdb.Error) as error:
        hint = "see to the disk, then rebuild again; journal/ is as it was"
        raise StoreError(f"{layout.root}: the projections cannot be written: {error}", hint=hint) from None


def check_newest(layout: Layout) -> None:
    """Raise DamageError when index.lmdb has applied what the journal does not hold: only a restore may give that up."""
    try:
        saved = IndexStore.peek(layout.index)
        tip = Tip.unpack(saved.tip) if saved else None
    except (lmdb.Error, struct.error):
        return  # spoiled: it says nothing, and is what is to be made anew
    if tip is not None:
        tip.check(layout)


def _rebuild(layout: Layout, segment_bytes: int, progress: Progress | None) -> Recovery:
    # The index first: without its mark nobody trusts what may be left of the other two.
    for directory in (layout.index, layout.hashes, layout.runs, layout.exports):
        shutil.rmtree(directory, ignore_errors=True)
        if directory in (layout.hashes, layout.runs):
            directory.mkdir(mode=0o750, exist_ok=True)
    layouts.sync_directory(layout.root)
    store = open_store(layout, segment_bytes=segment_bytes, progress=progress)
    try:
        layouts.write_durably(layout.genesis, layouts.first_entry(layout) + b"\n")
        store.projector.save_now()
    finally:
        store.close()
    return store.engine.recovery
