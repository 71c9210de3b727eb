"""Opening a store: load what was saved, let the core replay the rest of the journal.

Start at ``open_store``. It is one path for a clean start, a start after a crash and a start with nothing saved; they
differ only in how much is replayed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ledgerfsd import limits
from ledgerfsd.core.engine import Engine
from ledgerfsd.errors import DamageError, LedgerError, StoreError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state.projector import Projector
from ledgerfsd.state.store import IndexStore, Saved
from ledgerfsd.state.tip import Mark, Tip

Progress = Callable[[int, int], None]  # bytes of the journal done, bytes in all

log = structlog.get_logger()


@dataclass
class OpenStore:
    """A recovered store. The caller holds the lock, starts engine and projector, and calls ``close``."""

    layout: Layout
    engine: Engine
    index: IndexStore
    projector: Projector

    def close(self) -> None:
        """Finish what is queued, save, and close everything. Idempotent."""
        self.projector.stop()
        self.engine.close()
        self.projector.attempt(last=True)
        self.index.close()


def open_store(
    layout: Layout, *, segment_bytes: int = limits.SEGMENT_BYTES, progress: Progress | None = None
) -> OpenStore:
    """Open and recover. Raises StoreError (not a store, disk refuses) or DamageError (names file and entry)."""
    layouts.check(layout)
    index = IndexStore(layout.index)
    try:
        saved = _usable(layout, index)
        engine = _engine(layout, index, saved, segment_bytes, progress)
    except OSError as error:
        index.close()
        where = error.filename or layout.root
        raise StoreError(f"{where}: {error.strerror or error}", hint="see to the disk, then start again") from None
    except BaseException:
        index.close()
        raise
    saved_entries = engine.recovery.entries - engine.recovery.replayed
    return OpenStore(layout, engine, index, Projector(engine, index, saved_entries=saved_entries))


def _engine(
    layout: Layout, index: IndexStore, saved: Saved | None, segment_bytes: int, progress: Progress | None
) -> Engine:
    if saved is not None:
        try:
            return Engine(layout.root, segment_bytes=segment_bytes, saved=saved.state, progress=progress)
        except (LedgerError, OSError) as error:
            # Saved by another build, or spoiled; or it is the journal that is wrong: then what was saved is evidence.
            if isinstance(error, DamageError) and _damaged(layout):
                raise
            log.warning("the projections are made anew from the journal", reason=str(error))
            index.discard(str(error))
    return Engine(layout.root, segment_bytes=segment_bytes, saved=None, progress=progress)


def _damaged(layout: Layout) -> bool:
    """Whether the journal is damaged, whatever was saved. Slow; asked only when replay on top of it has failed."""
    from ledgerfsd.journal.fsck import Check  # not needed by a start that goes well

    log.warning("the journal does not go on from what was saved; verifying it")
    return any(finding.severity == "damage" for finding in Check(layout, quick=True).run())


def _usable(layout: Layout, index: IndexStore) -> Saved | None:
    """What was saved, if it can be built upon. Raises DamageError when the journal lacks what it has applied."""
    if index.discarded:
        log.warning("index.lmdb is made anew from the journal", reason=index.discarded)
    saved = index.load()
    if saved is None:
        return None
    try:
        mark, tip = Mark.of(saved.state.mark), Tip.unpack(saved.tip)
    except struct.error:
        missing = "its mark has another form"
    else:
        tip.check(layout)
        missing = incomplete(layout, mark)
    if missing:
        log.warning("the projections are made anew from the journal", reason=missing)
        index.discard(missing)
        return None
    return saved


def incomplete(layout: Layout, mark: Mark) -> str:
    """Which file of hashes/ or runs/ is too short for the mark; "" when none is. They may be deleted by anyone."""
    expected = [
        (layout.runs / "offsets", 8 * mark.entries),
        (layout.runs / "transactions", 8 * mark.transactions),
        (layout.runs / "blocks", 8 * mark.blocks),
    ]
    level, count = 0, mark.entries
    while count:
        expected.append((layout.hashes / str(level), 32 * count))
        level, count = level + 1, count // limits.BUNDLE_ENTRIES
    for path, size in expected:
        if size and (not path.exists() or path.stat().st_size < size):
            return f"{path.relative_to(layout.root)} is missing or too short"
    return ""
