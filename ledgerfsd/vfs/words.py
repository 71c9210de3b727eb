"""``references/`` and ``tags/``: entries by what people wrote into them (SEMANTICS, 13.6 and 13.7).

A file is known by its first entry, which never changes: so its inode number is the same after a restart, without a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ledgerfsd.service.word_names import text_of
from ledgerfsd.service.words import REFERENCE, TAG, Word, Words
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Branch, Place, Stat
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledgerfsd.core.engine import Engine

_TAG_BITS: Final = 8  # an account has at most 16 tags
_REFERENCES: Final = nodes.inode(Kind.WORD_DIRECTORY, 0)
_TAGS: Final = nodes.inode(Kind.WORD_DIRECTORY, 1)


class WordBranch(Branch):
    """Both directories. Nothing in them is listed."""

    kinds = frozenset((Kind.WORD_DIRECTORY, Kind.REFERENCE_FILE, Kind.TAG_FILE))
    places = (Place(Fixed.ROOT, b"references", _REFERENCES), Place(Fixed.ROOT, b"tags", _TAGS))

    def __init__(self, engine: Engine, words: Words) -> None:
        self._engine = engine
        self._words = words

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:
        """The file of a word that some entry has."""
        text = text_of(name)
        if not text:
            return 0, False
        word = Word(REFERENCE if parent == _REFERENCES else TAG, text)
        first = self._words.first(word)
        if first < 0:
            return 0, False
        if word.kind == REFERENCE:
            return nodes.inode(Kind.REFERENCE_FILE, first), True
        return nodes.inode(Kind.TAG_FILE, first << _TAG_BITS | self._words.tags_of(first).index(word)), True

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:  # noqa: ARG002
        """None: there may be as many as there are entries."""
        return iter(())

    async def stat(self, inode: int) -> Stat:
        """Exact. The first look at a word of very many entries takes its time."""
        if nodes.is_directory(inode):
            return Stat(0, self._engine.counts().time_ns)
        text = await self._words.text(self._word(inode))
        return Stat(text.size, text.mtime_ns)

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        """A piece, of what there is now: it only grows."""
        return await (await self._words.text(self._word(inode))).read(offset, size)

    def _word(self, inode: int) -> Word:
        number = nodes.number_of(inode)
        if nodes.kind_of(inode) is Kind.REFERENCE_FILE:
            return self._words.reference_of(number)
        return self._words.tags_of(number >> _TAG_BITS)[number & (1 << _TAG_BITS) - 1]
