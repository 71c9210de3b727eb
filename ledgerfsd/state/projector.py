"""Saves the projection from time to time, in a thread of its own, so that the next start has little to replay.

Start at ``Projector``. Nothing depends on a save: when the disk refuses one it is logged, shown as ``trouble`` and
tried again later.
"""

from __future__ import annotations

import threading
import time
from typing import Final

import lmdb
import structlog

from ledgerfsd.core.engine import Engine
from ledgerfsd.errors import LedgerError
from ledgerfsd.state.store import IndexStore
from ledgerfsd.state.tip import Mark, Tip

SHORTEST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 10.0
ENTRIES_SOON: Final = 500_000  # half a second of replay or so. Fewer would make small runs
ENTRIES_MOST: Final = (
    1_000_000  # when a save takes much processor time: of a million accounts it writes nearly all pages
)
SPENT_AN_ENTRY: Final = 250e-9  # seconds of processor time for saving, an entry, that are not much
COST_FACTOR: Final = 10  # a save that took t seconds is followed by 10 t without one: at most a tenth of one core

log = structlog.get_logger()


class Projector:
    """The saving thread of one engine and one index."""

    def __init__(self, engine: Engine, index: IndexStore, *, saved_entries: int = 0) -> None:
        """``saved_entries``: how many entries the index holds already."""
        self._engine = engine
        self._index = index
        self._saved_entries = saved_entries
        self._wait_seconds = SHORTEST_SECONDS
        self._next_entries = saved_entries + ENTRIES_SOON  # with so many in the journal, it saves at once
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="projector", daemon=True)
        self.trouble = ""  # why the last save failed; "" when it did not

    def start(self) -> None:
        """Begin saving."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._stop.set()
        self._engine.stop_waiting()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def lag_entries(self) -> int:
        """Entries that a start after a crash would replay."""
        return self._engine.counts().entries - self._saved_entries

    def _run(self) -> None:
        while not self._stop.is_set():
            self._engine.wait_entries(self._next_entries, self._wait_seconds)
            if not self._stop.is_set():
                self.attempt()

    def attempt(self, *, last: bool = False) -> None:
        """Save if there is anything to save; trouble is kept in ``trouble``. ``last``: nothing is saved after this."""
        # Indexes that are not what was written are to be made anew by the next start: that is told by a save without them.
        if self.lag_entries == 0 and not (last and self._engine.indexes().trouble):
            return
        self._next_entries = self._engine.counts().entries + ENTRIES_SOON  # unless it succeeds: not again at once
        if self._engine.failure:
            return  # read-only: what reached the disk is uncertain, and the next start decides it from the journal
        began, spent = time.monotonic(), time.thread_time()
        try:
            self.save_now()
        except (OSError, lmdb.Error, LedgerError) as error:
            if not self.trouble:
                log.error("the index cannot be saved; trying again", error=str(error))
            self.trouble = f"the projections are not saved (the next start replays more): {error}"
            self._wait_seconds = LONGEST_SECONDS
            return
        if self.trouble:
            log.info("the index is saved again")
        self.trouble = ""
        cost = time.monotonic() - began
        self._wait_seconds = min(max(cost * COST_FACTOR, SHORTEST_SECONDS), LONGEST_SECONDS)
        enough = round((time.thread_time() - spent) / SPENT_AN_ENTRY)
        self._next_entries = self._saved_entries + min(max(enough, ENTRIES_SOON), ENTRIES_MOST)

    def save_now(self) -> None:
        """Save in the calling thread. Raises OSError, lmdb.Error or StoreError. One thread at a time."""
        state = self._engine.save()
        mark = Mark.of(state.mark)
        done = False
        try:
            self._index.save(state, Tip.of(self._engine, mark).pack())
            done = True
        finally:
            self._engine.saved(done)  # if not, its pages are part of the next save
        self._saved_entries = mark.entries
