"""What a record of an index adds to its sum while a store is verified: the twin of ``lfs_record_hash`` (csrc/verify/verify_sums.h).

SipHash-2-4 with 128 bits of result, of 16 bytes: key, then kind, states, length and entry in one word.
"""

from __future__ import annotations

import struct
from typing import Final

from ledgerfsd.core.pure.runs import Record

MASK: Final = 2**64 - 1
CONSTANTS: Final = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)

Words = tuple[int, int, int, int]


def record_hash(key: bytes, kind: int, record: Record) -> bytes:
    """16 bytes, under a key of 16."""
    low, high = struct.unpack("<QQ", key)
    v = (low ^ CONSTANTS[0], high ^ CONSTANTS[1] ^ 0xEE, low ^ CONSTANTS[2], high ^ CONSTANTS[3])
    rest = record.entry << 32 | record.length << 16 | kind << 8 | record.states
    for word in (record.key, rest, 16 << 56):
        v = _rounds((v[0], v[1], v[2], v[3] ^ word), 2)
        v = (v[0] ^ word, v[1], v[2], v[3])
    v = _rounds((v[0], v[1], v[2] ^ 0xEE, v[3]), 4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v = _rounds((v[0], v[1] ^ 0xDD, v[2], v[3]), 4)
    return struct.pack("<QQ", first, v[0] ^ v[1] ^ v[2] ^ v[3])


def _turned(x: int, n: int) -> int:
    return (x << n | x >> (64 - n)) & MASK


def _rounds(v: Words, count: int) -> Words:
    a, b, c, d = v
    for _ in range(count):
        a = a + b & MASK
        b = _turned(b, 13) ^ a
        a = _turned(a, 32)
        c = c + d & MASK
        d = _turned(d, 16) ^ c
        a = a + d & MASK
        d = _turned(d, 21) ^ a
        c = c + b & MASK
        b = _turned(b, 17) ^ c
        c = _turned(c, 32)
    return a, b, c, d
