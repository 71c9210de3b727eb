"""The entry stream: lengths, segments, the commit rule, recovery (docs/FORMAT.md, section 3). Pure functions on bytes.

``recover`` finds the last batch that counts. It judges bytes, hashes and the chain of seals; whether the
entries also follow from each other as a ledger is judged by ``replay.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

from ...clock import format_time, parse_time
from ...errors import DamageError
from ...limits import BUNDLE_ENTRIES, ENTRY_BYTES_MAX, JSON_DEPTH_MAX, SEGMENT_BYTES
from .book import ZERO_HASH
from .canonical import dump
from .entries import POLICY, REJECTED, SEAL, Json
from .hashing import Frontier, leaf_hashes, mth

_LENGTH_BYTES: Final = 2
_ENTRY_BYTES_MIN: Final = 2
_SEAL_BYTES_MAX: Final = 1023
_INTEGER_LIMIT: Final = 2**53
_SEAL_BEGIN: Final = b'{"count":'  # what every seal/1 begins with: the first of its members
_SEAL_MEMBERS: Final = frozenset(
    ["count", "first", "height", "index", "log_root", "policy", "prev", "t", "time", "tx_root"]
)
_HASH: Final = re.compile("[0-9a-f]{64}")
_SEAL_MORE: Final = frozenset(["state_root"])  # whether it is right is judged by replay.py


class Recovered(NamedTuple):
    """What counts of a stream."""

    entries: list[bytes]
    length: int  # bytes of the stream that count
    cut_bytes: int  # bytes after them, up to the last that is not zero: an unfinished batch


def frame(entry: bytes) -> bytes:
    """An entry as it stands in the stream: its length, then its bytes. Raises ValueError when it cannot be an entry."""
    if not _ENTRY_BYTES_MIN <= len(entry) <= ENTRY_BYTES_MAX:
        raise ValueError(f"an entry has 2 to {ENTRY_BYTES_MAX} bytes, not {len(entry)}")
    return len(entry).to_bytes(_LENGTH_BYTES, "big") + entry


def stream(entries: Iterable[bytes]) -> bytes:
    """The stream of these entries."""
    return b"".join(map(frame, entries))


def bundle(entries: Sequence[bytes], number: int) -> bytes:
    """Entry bundle ``number`` of the C2SP tlog-tiles log, as far as it exists."""
    return stream(entries[number * BUNDLE_ENTRIES : (number + 1) * BUNDLE_ENTRIES])


def segments(entries: Sequence[bytes], target_bytes: int = SEGMENT_BYTES) -> Iterator[tuple[str, bytes]]:
    """The segment files of these entries: (name, content), the last without the zeros that may follow it."""
    first, content = 0, b""
    for index in range(0, len(entries), BUNDLE_ENTRIES):
        if len(content) >= target_bytes:
            yield f"{first:020}.seg", content
            first, content = index, b""
        content += bundle(entries, index // BUNDLE_ENTRIES)
    yield f"{first:020}.seg", content


def recover(data: bytes) -> Recovered:
    """Find the last batch that counts.

    Raises DamageError when the seal of a later block than the next one follows it, or anything behind the seal of the
    next one: that was durable then, so this is no torn write, and what follows may have been acknowledged.
    """
    chain = _Chain()
    batch: list[bytes] = []
    entries: list[bytes] = []
    length = 0
    for end, entry in _frames(data):
        batch.append(entry)
        if not _is_seal(entry):
            continue
        if not chain.accept(batch):
            break
        entries += batch
        length = end
        batch = []
    rest = data[length:].rstrip(b"\x00")
    if any(_is_later(seal, chain) or (_is_next(seal, chain) and end < len(rest)) for end, seal in _seals_within(rest)):
        what = f"the batch that begins here (byte {length} of the stream) is not what was sealed"
        _damaged(len(entries), f"{what}, and later batches follow")
    return Recovered(entries, length, len(rest))


def _damaged(index: int, what: str) -> NoReturn:
    raise DamageError(f"entry {index}: {what}", hint="restore the journal from a copy; nothing was changed")


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(end, entry) of every whole frame up to the first that is not: no length, length 0, or too few bytes."""
    at = 0
    while True:
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        end = at + _LENGTH_BYTES + size
        if size == 0 or end > len(data):
            return
        yield end, data[at + _LENGTH_BYTES : end]
        at = end


def _is_seal(entry: bytes) -> bool:
    if not entry.startswith(_SEAL_BEGIN):
        return False
    value = _object(entry)
    return value is not None and value.get("t") == SEAL and value.keys() | _SEAL_MORE == _SEAL_MEMBERS | _SEAL_MORE


def _seals_within(data: bytes) -> Iterator[tuple[int, dict[str, Json]]]:
    """(end, seal) of the seals at whatever byte: a damaged length would hide them from a walk from frame to frame.

    A seal need not be sound to be counted, only be there. No entry can contain the frame of one: a seal has 256 to
    1023 bytes, so its length begins with a control character, and those are escaped in JSON.
    """
    at = data.find(_SEAL_BEGIN)
    while at != -1:
        size = int.from_bytes(data[max(at - _LENGTH_BYTES, 0) : at], "big")
        if size <= _SEAL_BYTES_MAX:
            try:
                value = json.loads(data[at : at + size].decode("utf-8"))
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict) and value.get("t") == SEAL:
                yield at + size, value
        at = data.find(_SEAL_BEGIN, at + 1)


def _is_later(seal: dict[str, Json], chain: _Chain) -> bool:
    """Whether a seal is of a block after the next one. Two members say so, that one bad bit alone cannot."""
    height, first = seal.get("height"), seal.get("first")
    return type(height) is int and type(first) is int and height > chain.height + 1 and first > chain.index


def _is_next(seal: dict[str, Json], chain: _Chain) -> bool:
    return bool(seal.get("height") == chain.height + 1 and seal.get("first") == chain.index)


def _object(entry: bytes) -> dict[str, Json] | None:
    """The object that an entry is; None when its bytes are not the canonical ones of an object."""
    try:
        value = json.loads(entry.decode("utf-8"))
        # A rejection has the intent, which may be as deep as any, one level further down.
        levels = JSON_DEPTH_MAX + (isinstance(value, dict) and value.get("t") == REJECTED)
        same = isinstance(value, dict) and _is_plain(value, levels) and dump(value) == entry
    except (ValueError, RecursionError):
        return None
    return value if same else None


def _is_plain(value: Json, levels: int) -> bool:
    """Whether a value holds nothing but what entries may: small integers, and so many levels of nesting."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_plain(each, levels - 1) for each in inside)
    return not isinstance(value, float) and (not isinstance(value, int) or abs(value) < _INTEGER_LIMIT)


@dataclass
class _Chain:
    """The chain of seals as far as it has been accepted."""

    index: int = 0  # entries
    height: int = 0
    prev: str = ZERO_HASH
    policy: str = ""
    time_ns: int = -1
    tree: Frontier = field(default_factory=Frontier)

    def accept(self, batch: Sequence[bytes]) -> bool:
        """Whether the batch counts; if so the chain goes on after it, if not only its position is of further use.

        Raises DamageError when the seal fits the batch, but the batch does not fit what stands before it.
        """
        time_ns, early = -1, False
        leaves, seal_leaf = leaf_hashes(batch[:-1]), leaf_hashes(batch[-1:])
        policy = self.policy or (leaves[:32].hex() if leaves else "")
        for number, entry in enumerate(batch):
            value = _object(entry)
            entry_time = (
                None if value is None or value.get("index") != self.index + number else _time(value.get("time"))
            )
            if value is None or entry_time is None or entry_time <= time_ns:
                return False
            early = early or (number == 0 and entry_time <= self.time_ns)
            time_ns = entry_time
            if value.get("t") == POLICY:
                policy = leaves[32 * number : 32 * (number + 1)].hex()
        self.tree.append(leaves)
        own = {
            "count": len(batch) - 1,
            "first": self.index,
            "height": self.height + 1,
            "tx_root": mth(leaves).hex(),
        }
        before = {"log_root": self.tree.root().hex(), "prev": self.prev}
        seal = _object(batch[-1])
        empty = len(batch) < 2 and (not self.height or seal is None or "state_root" not in seal)
        if (
            empty
            or seal is None
            or not _HASH.fullmatch(str(seal.get("state_root", ZERO_HASH)))
            or any(seal[name] != value for name, value in own.items())
        ):
            return False
        agreed = [name for name, value in before.items() if seal[name] == value]
        if early or not agreed:
            _damaged(max(self.index - 1, 0), "the batch that follows was sealed on another history")
        if len(agreed) != len(before) or seal["policy"] != policy:
            return False
        self.policy = policy
        self.tree.append(seal_leaf)
        self.index += len(batch)
        self.height += 1
        self.prev = seal_leaf.hex()
        self.time_ns = time_ns
        return True


def _time(text: Json) -> int | None:
    """The time of an entry: nine decimals, nothing else."""
    try:
        time_ns = parse_time(text) if isinstance(text, str) else -1
    except ValueError:
        return None
    return time_ns if time_ns >= 0 and format_time(time_ns) == text else None
