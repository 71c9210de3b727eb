"""``digests/``: every digest as a directory with its checkpoint, what came of it, and the evidence of its anchors.

``latest`` is a symbolic link: `cat digests/latest/checkpoint` reads the newest, a program that has resolved it reads one
digest however many follow, and rsync and tar copy a name and not a second set of files.

A digest is named by its size; from the second life of a ledger on, by size and incarnation (``4711-2``), so that the new life's
stand beside those of the one that was lost.

Numbers of ``DIGEST_FILE``: 0 is ``latest``; else incarnation and size, and in the lower 16 bits 0 for the checkpoint, 1 for
``digest.json``, and from 2 on the evidence of the anchors in the order in which the digest knows them.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar, Final

from ledgerfsd.clock import parse_time
from ledgerfsd.service.anchors.digests import name_of
from ledgerfsd.service.query import Text
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.branch import Branch, Keep, Place, Stat, fault
from ledgerfsd.vfs.nodes import Fixed, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledgerfsd.service.anchors.digests import Digest, Digests

TOP: Final = nodes.inode(Kind.DIGEST_DIRECTORY, 0)
LATEST: Final = b"latest"
CHECKPOINT, DIGEST_JSON, EVIDENCE = 0, 1, 2
_BITS: Final = 16  # of the place of a file
_SIZE_BITS: Final = 32  # ENTRIES_MAX is below 2^32
_LIVES: Final = 256  # as many as inode numbers have room for: digests of later ones are in the store only


def _directory(digest: Digest) -> int:
    """Its inode number; 0: there is no number for it."""
    if digest.incarnation > _LIVES:
        return 0
    return nodes.inode(Kind.DIGEST_DIRECTORY, digest.incarnation - 1 << _SIZE_BITS | digest.size)


class DigestBranch(Branch):
    """The directory ``digests``."""

    kinds = frozenset((Kind.DIGEST_DIRECTORY, Kind.DIGEST_FILE))
    places: ClassVar[tuple[Place, ...]] = (Place(Fixed.ROOT, b"digests", TOP),)

    def __init__(self, ledger: str, digests: Digests, born_ns: int) -> None:
        """``ledger``: the origin; ``born_ns``: the mtime of the directory while it is empty."""
        self._ledger = ledger
        self._digests = digests
        self._born_ns = born_ns

    # -- names

    async def lookup(self, parent: int, name: bytes) -> tuple[int, bool]:
        """A size, ``latest``, or a file of a digest."""
        if nodes.kind_of(parent) is not Kind.DIGEST_DIRECTORY:
            raise fault(errno.ENOTDIR)
        if parent == TOP:
            if name == LATEST:
                return (nodes.LATEST_DIGEST if self._digests.newest else 0), False
            named = name_of(name.decode("ascii", "replace"))
            digest = self._digests.of(*named) if named else None
            return (_directory(digest) if digest else 0), True
        return dict(self._files(self._digest(nodes.number_of(parent)))).get(name, 0), True

    def parent(self, directory: int) -> int:  # noqa: ARG002
        """Of the directory of a digest."""
        return TOP

    def entries(self, directory: int, skip: int) -> Iterator[tuple[bytes, int]]:
        """All digests, oldest first, after ``latest``; or the files of one."""
        if directory != TOP:
            yield from self._files(self._digest(nodes.number_of(directory)))[skip:]
            return
        if self._digests.newest is None:
            return
        if skip == 0:
            yield LATEST, nodes.LATEST_DIGEST
        for digest in self._digests.all(max(0, skip - 1)):
            if digest.incarnation <= _LIVES:
                yield digest.name.encode(), _directory(digest)

    def _files(self, digest: Digest) -> list[tuple[bytes, int]]:
        first = nodes.number_of(_directory(digest)) << _BITS
        found = [(b"checkpoint", first | CHECKPOINT), (b"digest.json", first | DIGEST_JSON)]
        for place, outcome in enumerate(digest.outcomes.values(), EVIDENCE):
            if outcome is not None and outcome.file:
                found.append((outcome.file.encode(), first | place))
        return [(name, nodes.inode(Kind.DIGEST_FILE, number)) for name, number in found]

    # -- what a file is

    def keep(self, inode: int) -> Keep:
        """Checkpoints and evidence never change; what came of a digest does, and so do the directories."""
        lasting = nodes.kind_of(inode) is Kind.DIGEST_FILE and inode != nodes.LATEST_DIGEST
        return Keep.FOREVER if lasting and nodes.number_of(inode) & 0xFFFF != DIGEST_JSON else Keep.NOTHING

    def mode(self, inode: int) -> int:
        """Links have all bits."""
        return 0o777 if inode == nodes.LATEST_DIGEST else super().mode(inode)

    async def stat(self, inode: int) -> Stat:
        """The mtime of a checkpoint is when it was issued, that of evidence when it came."""
        if inode == nodes.LATEST_DIGEST:
            return Stat(len(await self.readlink(inode)), self._changed())
        if nodes.kind_of(inode) is Kind.DIGEST_FILE:
            text = self._text(inode)
            return Stat(text.size, text.mtime_ns)
        number = nodes.number_of(inode)
        return Stat(0, parse_time(self._digest(number).changed) if number else self._changed())

    def _changed(self) -> int:
        newest = self._digests.newest
        return parse_time(newest.issued.time) if newest else self._born_ns

    # -- reading

    async def readlink(self, inode: int) -> bytes:
        """The newest digest of this life, or what is left of the one before."""
        newest = self._digests.newest
        if inode != nodes.LATEST_DIGEST or newest is None:
            raise fault(errno.ENOENT)
        return newest.name.encode()

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        """A piece of a file."""
        return self._text(inode).read(offset, size)

    def _digest(self, number: int) -> Digest:
        digest = self._digests.of((number >> _SIZE_BITS) + 1, number & (1 << _SIZE_BITS) - 1)
        if digest is None:  # its file has gone from the store
            raise fault(errno.ENOENT)
        return digest

    def _text(self, inode: int) -> Text:
        number = nodes.number_of(inode)
        digest, place = self._digest(number >> _BITS), number & 0xFFFF
        if place == CHECKPOINT:
            return Text(digest.checkpoint, parse_time(digest.issued.time))
        if place == DIGEST_JSON:
            return Text(digest.text(self._ledger), parse_time(digest.changed))
        outcome = list(digest.outcomes.values())[place - EVIDENCE]
        if outcome is None:
            raise fault(errno.ENOENT)
        return Text(outcome.data, parse_time(outcome.time))
