"""Inode numbers. They are computed from what a file is (kind and number), so they survive a restart without a table.

An inode number is ``kind << 56 | number``; kind 0 are the fixed files and directories, of which the root is number 1.
"""

from __future__ import annotations

import enum
import stat
from math import isqrt
from typing import Final

ROOT: Final = 1
_SHIFT: Final = 56
_MASK: Final = (1 << _SHIFT) - 1
_PAIRS: Final = 48 << _SHIFT  # from here on (Kind.CONSISTENCY), up to the first handle, 2^60 numbers
_PAST_ACCOUNTS: Final = 64 << _SHIFT  # the same; directories are never the handles of themselves
_WIDE_MASK: Final = (1 << 60) - 1

ENTRIES: Final = 8  # the "level" of entry bundles in numbers of tiles; hash levels are 0 to 7


@enum.unique
class Kind(enum.IntEnum):
    """What a file is; in brackets what its number is."""

    FIXED = 0  # (Fixed)
    ACCOUNT = 1  # accounts/<id> (ordinal; also of the following five)
    BALANCE = 2
    ACCOUNT_FILE = 3
    TX_LOG = 4
    STATEMENT = 5
    SNAPSHOTS = 6
    SNAPSHOT = (
        7  # (ordinal, index of the account's newest entry: the same state is the same file, whatever it is called)
    )
    TRANSACTION = 8  # (transaction number)
    BLOCK = 9  # (height)
    TILE_LEVEL = 10  # log/tile/<L> (level)
    TILE_GROUP = 11  # x001 and x001/x234 (level, depth, value)
    TILE = 12  # (level, number, width)
    PARTIAL = 13  # <N>.p (level, number)
    RECEIPT = 14  # (hash of the name)
    DRY_RECEIPT = 15  # (hash of the name)
    INBOX_FILE = 16  # (running number; not kept over a restart, as the files are not)
    PROOF = 17  # proofs/tx_… (transaction number)
    ACCOUNT_PROOF = 18  # accounts/<id>/proof.json and proofs/<id>.json (ordinal)
    # Of branches (see ``branch``), which say what their numbers are.
    DIGEST_DIRECTORY = 19
    DIGEST_FILE = 20  # and the link ``latest``, number 0
    PAST_DIRECTORY = 21
    PAST_FILE = 22
    EFFECTIVE_BALANCE = 23  # (ordinal, day)
    PAST_BALANCE = 24  # (ordinal, size; also of the next)
    PAST_ACCOUNT_FILE = 33
    EVENT_DIRECTORY = 25
    EVENT_FILE = 26
    EXPORT_DIRECTORY = 27
    EXPORT_FILE = 28
    HISTORY_DIRECTORY = 29
    HISTORY_FILE = 30
    STATEMENTS_DIRECTORY = 31
    STATEMENTS_FILE = 32
    WORD_DIRECTORY = 34
    REFERENCE_FILE = 35  # (index of the first entry with it)
    TAG_FILE = 36  # (the same, and which of its tags)
    CONSISTENCY = 48  # (two heights: see ``consistency``; with all kinds up to 63)
    PAST_ACCOUNT = 64  # a directory (label, key, ordinal; with all kinds up to 79)


class Fixed(enum.IntEnum):
    """The files and directories that are always there."""

    ROOT = 1
    INBOX = 2
    ATOMIC = 3
    DRY_RUN = 4
    RECEIPTS = 5
    DRY_RECEIPTS = 6
    ACCOUNTS = 7
    TRANSACTIONS = 8
    BLOCKS = 9
    LOG = 10
    TILES = 11
    CONTROL = 12  # .ledgerfs
    PROOFS = 13
    CONSISTENCY = 14
    README = 20
    HEALTH = 21
    STATUS = 22
    METRICS = 23
    ERRORS = 24
    LIMITS = 25
    VERSION = 26
    CHECKPOINT = 27
    TRUSTED_ROOT = 28
    CURRENCIES = 29
    VERIFY_PAGE = 30


_DIRECTORIES: Final = frozenset(
    int(kind)
    for kind in (
        *(Kind.ACCOUNT, Kind.SNAPSHOTS, Kind.TILE_LEVEL, Kind.TILE_GROUP, Kind.PARTIAL),
        *(Kind.DIGEST_DIRECTORY, Kind.PAST_DIRECTORY, *range(Kind.PAST_ACCOUNT, Kind.PAST_ACCOUNT + 16)),
        *(Kind.EVENT_DIRECTORY, Kind.EXPORT_DIRECTORY, Kind.HISTORY_DIRECTORY),
        *(Kind.STATEMENTS_DIRECTORY, Kind.WORD_DIRECTORY),
    )
)
_LAST_FIXED_DIRECTORY: Final = int(Fixed.CONSISTENCY)


def inode(kind: Kind, number: int) -> int:
    """The inode number of a file."""
    return kind << _SHIFT | number


LATEST_DIGEST: Final = inode(Kind.DIGEST_FILE, 0)  # digests/latest, the one symbolic link


def kind_of(inode: int) -> Kind:
    """What the file is."""
    if inode >= _PAIRS:
        return Kind.CONSISTENCY if inode < _PAST_ACCOUNTS else Kind.PAST_ACCOUNT
    return Kind(inode >> _SHIFT)


def number_of(inode: int) -> int:
    """Which of its kind."""
    return inode & (_MASK if inode < _PAIRS else _WIDE_MASK)


def is_directory(inode: int) -> bool:
    """Whether it is a directory."""
    return inode <= _LAST_FIXED_DIRECTORY or inode >> _SHIFT in _DIRECTORIES


def format_of(inode: int) -> int:
    """Its type as in ``st_mode``: directory, symbolic link or file."""
    if inode == LATEST_DIGEST:
        return stat.S_IFLNK
    return stat.S_IFDIR if is_directory(inode) else stat.S_IFREG


def snapshot(ordinal: int, index: int) -> int:
    """Inode number of a past state of an account. ENTRIES_MAX is below 2^32, ACCOUNTS_MAX at most 2^24."""
    return inode(Kind.SNAPSHOT, ordinal << 32 | index)


def snapshot_parts(number: int) -> tuple[int, int]:
    """Ordinal and entry index of a snapshot."""
    return number >> 32, number & 0xFFFF_FFFF


def past_directory(part: int, label: int, key: int) -> int:
    """Inode number of a directory of a past state: which part of it, and which state (see ``service.points``)."""
    return inode(Kind.PAST_DIRECTORY, part << 36 | label << 32 | key)


def past_file(part: int, label: int, key: int) -> int:
    """The same of a file."""
    return inode(Kind.PAST_FILE, part << 36 | label << 32 | key)


def past_parts(number: int) -> tuple[int, int, int]:
    """Part, label and key of a directory or file of a past state."""
    return number >> 36, number >> 32 & 0xF, number & 0xFFFF_FFFF


def past_account(label: int, key: int, ordinal: int) -> int:
    """Inode number of the directory of an account in a past state."""
    return _PAST_ACCOUNTS | label << 56 | key << 24 | ordinal


def past_account_parts(number: int) -> tuple[int, int, int]:
    """Label, key and ordinal of it."""
    return number >> 56, number >> 24 & 0xFFFF_FFFF, number & 0xFF_FFFF


def account_at(kind: Kind, ordinal: int, key: int) -> int:
    """Inode number of a file of an account in a past state."""
    return inode(kind, ordinal << 32 | key)


def tile(level: int, number: int, width: int) -> int:
    """Inode number of a tile. There are fewer than 2^24 tiles of a level, and a width has 9 bits."""
    return inode(Kind.TILE, level << 44 | number << 12 | width)


def partial(level: int, number: int) -> int:
    """Inode number of the directory of a tile's partial forms."""
    return inode(Kind.PARTIAL, level << 44 | number << 12)


def tile_parts(number: int) -> tuple[int, int, int]:
    """Level, tile number and width of a tile (width 0: of a partial directory)."""
    return number >> 44, number >> 12 & 0xFFFF_FFFF, number & 0xFFF


def group(level: int, depth: int, value: int) -> int:
    """Inode number of a directory ``x…``: at depth 1 its tiles begin at value * 1000, at depth 2 too."""
    return inode(Kind.TILE_GROUP, level << 44 | depth << 40 | value)


def group_parts(number: int) -> tuple[int, int, int]:
    """Level, depth and value of a group."""
    return number >> 44, number >> 40 & 0xF, number & 0xFF_FFFF_FFFF


def consistency(old: int, new: int) -> int:
    """Inode number of the proof between two blocks, old <= new; 0 when there is no number for it.

    Pairs are counted 1-1, 1-2, 2-2, 1-3, …; the numbers last for 1.4 * 2^30 blocks, of the 2^32 entries a log can have.
    """
    number = new * (new - 1) // 2 + old - 1
    return _PAIRS | number if number <= _WIDE_MASK else 0


def consistency_parts(number: int) -> tuple[int, int]:
    """The heights of the two blocks."""
    new = (isqrt(8 * number + 1) + 1) // 2
    return number - new * (new - 1) // 2 + 1, new
