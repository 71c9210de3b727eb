"""Witness policies (c2sp.org/tlog-policy): which logs are known, which witnesses, and how many of them must have cosigned.

Pure: no I/O. Start at ``parse`` and ``verify``. The text has a line for each thing::

    log ledger.example/main+1a2b3c4d+AX…                      http://…   (the URL is optional)
    witness auditor auditor.example/w1+5e6f7a8b+BC…           http://…
    group outside 2 auditor regulator university                         (2 of the three; also: any, all)
    quorum outside                                                       (or: none)

As in the specification, names are octets and a line refers only to names above it. Stricter than it: the last line ends
with a newline too (a file that was cut short is refused), and only keys that we can verify may be listed: Ed25519.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ledgerfsd.merkle import checkpoint as checkpoints
from ledgerfsd.merkle import cosignature, note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.cosignature import Cosignature, Witness
from ledgerfsd.merkle.note import NoteError, Verifier

POLICY_BYTES_MAX: Final = 1_000_000
NONE: Final = b"none"
_ALLOWED: Final = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")
_THRESHOLD: Final = re.compile(rb"[1-9][0-9]{0,8}")


class Group(NamedTuple):
    """Has witnessed what at least ``needed`` of its members (witnesses or groups) have witnessed."""

    name: bytes
    needed: int
    members: tuple[bytes, ...]


@dataclass
class WitnessPolicy:
    """A policy as parsed. ``urls``: of witnesses that have one, by name. Names are octets."""

    logs: list[Verifier] = field(default_factory=list)
    witnesses: dict[bytes, Witness] = field(default_factory=dict)
    urls: dict[bytes, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    quorum: bytes = b""

    def met_by(self, witnesses: Sequence[Witness]) -> bool:
        """Whether these witnesses together are the quorum. One that stands there twice counts once."""
        held = {name for name, witness in self.witnesses.items() if witness in witnesses} | {NONE}
        for group in self.groups:
            if sum(member in held for member in group.members) >= group.needed:
                held.add(group.name)
        return self.quorum in held

    def check_quorum(self, data: bytes) -> tuple[Checkpoint, list[Cosignature]]:
        """The checkpoint in a note and its cosignatures, which are the quorum. Does not ask which log has signed it.

        Raises NoteError: malformed, a cosignature of a known witness that does not hold, or no quorum.
        """
        found, cosigned = cosignature.verify(data, self.witnesses.values())
        head = checkpoints.parse(found.text)
        if not self.met_by([each.witness for each in cosigned]):
            names = ", ".join(each.witness.name for each in cosigned) or "nobody"
            quorum = self.quorum.decode("utf-8", "replace")
            raise NoteError(
                f"the checkpoint of {head.origin[:100]} at {head.size} entries is cosigned by {names}: "
                f"that is not the quorum {quorum!r} of the witness policy"
            )
        return head, cosigned

    def verify(self, data: bytes) -> tuple[Checkpoint, list[Cosignature]]:
        """The same, and where the policy names logs, the one of the checkpoint's origin has signed it. Raises NoteError."""
        head, cosigned = self.check_quorum(data)
        if self.logs:
            checkpoints.verify(data, head.origin, self.logs)
        return head, cosigned


def parse(data: bytes) -> WitnessPolicy:
    """Read the text of a policy. Raises NoteError, which names the line."""
    if len(data) > POLICY_BYTES_MAX:
        raise NoteError(f"a witness policy of more than {POLICY_BYTES_MAX} bytes")
    *lines, rest = data.split(b"\n")
    if rest:
        raise NoteError("the witness policy does not end with a newline: was it cut short?")
    policy, members = WitnessPolicy(), set[bytes]()
    for number, line in enumerate(lines, 1):
        try:
            if not _ALLOWED.fullmatch(line):
                raise NoteError("a control character (a policy has newlines without carriage returns)")
            words = line.replace(b"\t", b" ").split(b" ")
            _read([word for word in words if word], policy, members)
        except NoteError as error:
            raise NoteError(f"line {number} of the witness policy: {error}") from None
    if not policy.quorum:
        raise NoteError("the witness policy has no quorum line")
    return policy


def _read(words: list[bytes], policy: WitnessPolicy, members: set[bytes]) -> None:
    if not words or words[0].startswith(b"#"):
        return
    kinds: dict[bytes, Callable[[], None]] = {
        b"log": lambda: _log(words, policy),
        b"witness": lambda: _witness(words, policy),
        b"group": lambda: _group(words, policy, members),
        b"quorum": lambda: _quorum(words, policy),
    }
    kind = kinds.get(words[0])
    if kind is None:
        raise NoteError(f"{_shown(words[0])} is not log, witness, group or quorum")
    kind()


def _log(words: list[bytes], policy: WitnessPolicy) -> None:
    if len(words) not in (2, 3):
        raise NoteError("a log is: log <vkey> [<url>]")
    log = note.parse_verifier(_utf8(words[1]))
    if any(log.public == other.public for other in policy.logs):
        raise NoteError("another log has the same public key")
    policy.logs.append(log)


def _witness(words: list[bytes], policy: WitnessPolicy) -> None:
    if len(words) not in (3, 4):
        raise NoteError("a witness is: witness <name> <vkey> [<url>]")
    _new_name(words[1], policy)
    witness = cosignature.parse_witness(_utf8(words[2]))
    if any(witness.public == other.public for other in policy.witnesses.values()):
        raise NoteError("another witness has the same public key")
    policy.witnesses[words[1]] = witness
    if len(words) == 4:
        policy.urls[words[1]] = _utf8(words[3])


def _group(words: list[bytes], policy: WitnessPolicy, members: set[bytes]) -> None:
    if len(words) < 4:
        raise NoteError("a group is: group <name> <k, any or all> <name>...")
    _, name, threshold, *named = words
    _new_name(name, policy)
    needed = {b"any": 1, b"all": len(named)}.get(threshold, 0)
    if _THRESHOLD.fullmatch(threshold):
        needed = int(threshold)
    if not 1 <= needed <= len(named):
        raise NoteError(f"{_shown(threshold)} of {len(named)}: no such number of members")
    for member in named:
        if not _is_known(member, policy):
            raise NoteError(f"no witness or group {_shown(member)} is defined above")
        if member in members:
            raise NoteError(f"{_shown(member)} is a member already, here or of another group")
        members.add(member)
    policy.groups.append(Group(name, needed, tuple(named)))


def _quorum(words: list[bytes], policy: WitnessPolicy) -> None:
    if len(words) != 2 or policy.quorum:
        raise NoteError("there is one quorum, with one name: quorum <name>")
    if words[1] != NONE and not _is_known(words[1], policy):
        raise NoteError(f"no witness or group {_shown(words[1])} is defined above")
    policy.quorum = words[1]


def _is_known(name: bytes, policy: WitnessPolicy) -> bool:
    return name in policy.witnesses or any(group.name == name for group in policy.groups)


def _new_name(name: bytes, policy: WitnessPolicy) -> None:
    if name == NONE or _is_known(name, policy):
        raise NoteError(f"the name {_shown(name)} is taken")


def _utf8(word: bytes) -> str:
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError(f"{_shown(word)} is not UTF-8") from None


def _shown(word: bytes) -> str:
    return repr(word[:100].decode("utf-8", "replace"))
