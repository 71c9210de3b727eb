"""The core's numbers of receipts (``csrc/front/blake2b.c``) are those of ``service.receipts``, on which inode numbers rest."""

from __future__ import annotations

import random

from ledgerfsd.core.front import lib
from ledgerfsd.service.receipts import number_of


def test_every_length_and_all_characters() -> None:
    """Across the end of a block of the hash (128 bytes), up to the longest name. SEMANTICS 1.6"""
    chance = random.Random(51)
    for length in range(256):
        name = "".join(chr(chance.randrange(0x20, 0x7F)) for _ in range(length))
        assert lib.lfs_receipt_number(name.encode(), length) == number_of(name, dry_run=False)
    for name in ("a.json", "b\u00e4nk.json", "\x00"):
        assert lib.lfs_receipt_number(name.encode(), len(name.encode())) == number_of(name, dry_run=False)
        assert lib.lfs_receipt_number(name.encode(), len(name.encode())) != number_of(name, dry_run=True)
