"""The entries with a reference, and the accounts with a tag, as lines: what ``references/`` and ``tags/`` contain.

Start at ``Words.text``. Which entries they are, the engine finds in its indexes (FORMAT, section 16). A text only grows at its end, so
what was once put together stays right; it is added to in a worker thread, because a reference may be that of a million entries.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from ledgerfsd.service import render
from ledgerfsd.service.spool import Spool

if TYPE_CHECKING:
    from array import array
    from pathlib import Path

    from ledgerfsd.core.engine import Engine

REFERENCE: Final = "reference"
TAG: Final = "tag"
TEXTS_MAX: Final = 64  # kept, each with 256 KiB in memory or in a nameless file
FOUND_AT_ONCE: Final = 1024
THREADS: Final = 2


class Word(NamedTuple):
    """A reference or a tag."""

    kind: str
    text: str


class Words:
    """Of one engine."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self._threads = trio.CapacityLimiter(THREADS)
        self._kept: OrderedDict[Word, WordText] = OrderedDict()

    def first(self, word: Word) -> int:
        """Index of the first entry with it; -1: there is none."""
        found = self.find(word, 0, 1)
        return found[0] if found else -1

    def find(self, word: Word, first: int, count: int) -> array[int]:
        """Indexes of the entries with it, from ``first`` on, at most ``count``."""
        find = self._engine.with_reference if word.kind == REFERENCE else self._engine.with_tag
        return find(word.text, first, count)

    def reference_of(self, index: int) -> Word:
        """The reference of an entry that has one."""
        return Word(REFERENCE, json.loads(bytes(self._engine.entry(index)))["reference"])

    def tags_of(self, index: int) -> list[Word]:
        """The tags of an ``account/1`` entry."""
        return [Word(TAG, tag) for tag in json.loads(bytes(self._engine.entry(index))).get("tags", [])]

    async def text(self, word: Word) -> WordText:
        """All entries with it, up to date. Raises OSError when there is no room for a long one."""
        text = self._kept.get(word)
        if text is None:
            while len(self._kept) >= TEXTS_MAX:
                self._kept.popitem(last=False)
            text = self._kept[word] = WordText(self, self._engine, word, self._directory)
        self._kept.move_to_end(word)
        try:
            await text.follow(self._threads)
        except OSError:
            self._kept.pop(word, None)
            raise
        return text


class WordText:
    """The exact bytes of each entry with a word and a newline, oldest first."""

    def __init__(self, words: Words, engine: Engine, word: Word, directory: Path) -> None:
        self.size = 0  # of what can be read
        self.newest = -1  # index of the last entry in it
        self._words = words
        self._engine = engine
        self._word = word
        self._next = 0  # entries that were looked at
        self._spool = Spool(directory, 0)
        self._turn = trio.Lock()

    @property
    def mtime_ns(self) -> int:
        """Booking time of the last entry in it."""
        return render.time_of(bytes(self._engine.entry(self.newest)))

    async def follow(self, threads: trio.CapacityLimiter) -> None:
        """Add what came since."""
        async with self._turn:
            entries = self._engine.counts().entries
            if entries > self._next:
                await trio.to_thread.run_sync(self._extend, entries, limiter=threads)

    def _extend(self, entries: int) -> None:
        while self._next < entries:
            found = [index for index in self._words.find(self._word, self._next, FOUND_AT_ONCE) if index < entries]
            for index in found:
                self._spool.put(bytes(self._engine.entry(index)) + b"\n")
            self._spool.finish()
            self.size = self._spool.size
            self.newest = found[-1] if found else self.newest
            self._next = found[-1] + 1 if len(found) == FOUND_AT_ONCE else entries

    async def read(self, offset: int, size: int) -> bytes:
        """A piece of it."""
        async with self._turn:
            return self._spool.read(offset, max(0, min(size, self.size - offset)))
