"""The reference: the ledger in plain Python, driven by what the mounted one says it has done.

Start at ``Reference.follow``. The order of entries, their times and the ends of batches are read from ``log/tile/entries`` of
the mount; everything else (which entries follow from an intent, their bytes, every code) is worked out by ``core.pure`` from
what the clients wrote. The two must agree byte for byte, and every receipt must say what the reference answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledgerfsd.clock import parse_time
from ledgerfsd.core.pure.intent import Intent, auto_id, judge
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.core.pure.system import KINDS, intent_of
from ledgerfsd.errors import CODES
from ledgerfsd.types import Mode, Result

BUNDLE = 256
SPACE = b" \t\r"
LAST_SYNTAX_CODE = 29  # up to here a refusal has an offset, above it a member


@dataclass(frozen=True)
class Submission:
    """A file that a client writes into the inbox."""

    name: str
    data: bytes
    area: str = ""  # "", "atomic" or "dry-run"

    @property
    def dry_run(self) -> bool:
        return self.area == "dry-run"

    def units(self) -> list[tuple[bytes, int, Mode]]:
        """What is judged together: text, number of its first line, mode."""
        if self.name.endswith(".json"):
            return [(self.data, 1, Mode.DOCUMENT)]
        if self.dry_run:
            return [
                (self.data, 1, Mode.EACH)
            ]  # each line is judged as if those before it in the same write had counted
        lines = self.data.removesuffix(b"\n").split(b"\n")
        if self.area == "atomic":
            header = lines[0].startswith(b'{"count"')
            return [(b"\n".join(lines[header:]), 1 + header, Mode.ATOMIC)]
        return [(line, number, Mode.EACH) for number, line in enumerate(lines, 1) if line.strip(SPACE)]


@dataclass
class Unit:
    """Something judged as a whole, and what its client was told of it."""

    text: bytes
    line: int
    mode: Mode
    source: bytes
    dry_run: bool
    told: list[dict[str, Any]]  # the lines of the receipt
    times: tuple[int, int]  # before and after it was written, ns
    place: int = -1  # how many units with entries were committed before it, -1: it has none

    def answer(self, ledger: Ledger, now_ns: int) -> list[dict[str, Any]]:
        """What the reference says in the words of a receipt; ``ledger`` goes on from there."""
        results = ledger.submit(
            self.text, source=self.source, first_line=self.line, mode=self.mode, dry_run=self.dry_run, now_ns=now_ns
        )
        return [_told(result, dry_run=self.dry_run) for result in results]

    def claims(self, entry: dict[str, Any]) -> bool:
        """Whether the receipt says that this entry came of this unit (a refusal may be told to several)."""
        known = [line for line in self.told if line.get("index") == entry["index"] and line["status"] != "duplicate"]
        return bool(known) and not self.dry_run


def _told(result: Result, *, dry_run: bool) -> dict[str, Any]:
    code = CODES[result.code]
    passed = "duplicate" if result.duplicate else "accepted" if dry_run else "committed"
    line: dict[str, Any] = {"line": result.line, "status": "refused" if code.number else passed, "code": code.name}
    if result.index >= 0:
        line["index"] = result.index
    if result.tx:
        line["tx"] = f"tx_{result.tx:04}"
    if result.block:
        line["block"] = result.block
    if 0 < code.number <= LAST_SYNTAX_CODE:
        line["offset"] = result.offset
    if result.field:
        line["field"] = result.field
    return line


def receipt_lines(text: str) -> list[dict[str, Any]]:
    """A receipt without the words for people."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line.pop("meaning", None)
        line.pop("what_to_do", None)
    return lines


def verdict(told: Sequence[dict[str, Any]]) -> int:
    """The errno that the program must be told: that of the first refusal that is not another intent's fault; 0 if none."""
    by_name = {code.name: code for code in CODES.values()}
    refused = [line["code"] for line in told if line["status"] == "refused"]
    own = [code for code in refused if code != "batch_aborted"] or refused
    return by_name[own[0]].errno if own else 0


class MountLog:
    """The entries of a mounted ledger, read as an outsider would: bundle by bundle."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self.entries: list[bytes] = []

    def read(self) -> list[bytes]:
        """The entries that came since the last call."""
        size = self.size()
        fresh = []
        while len(self.entries) < size:
            number, place = divmod(len(self.entries), BUNDLE)
            bundle = list(_split(self._bundle(number, min(BUNDLE, size - number * BUNDLE))))
            fresh += bundle[place:]
            self.entries += bundle[place:]
        assert len(self.entries) == size
        return fresh

    def size(self) -> int:
        """How many entries the mount has now."""
        size: int = json.loads((self.mount / ".ledgerfs/status.json").read_text())["entries"]
        return size

    def grown(self) -> bool:
        """Whether there are entries that have not been read."""
        return self.size() > len(self.entries)

    def _bundle(self, number: int, width: int) -> bytes:
        assert number < 1000
        path = self.mount / "log/tile/entries" / f"{number:03}"
        return (path if width == BUNDLE else path.with_suffix(".p") / str(width)).read_bytes()


def _split(bundle: bytes) -> Iterator[bytes]:
    while bundle:
        end = 2 + int.from_bytes(bundle[:2], "big")
        yield bundle[2:end]
        bundle = bundle[end:]


@dataclass
class Client:
    """What one client did in a round, in its order."""

    units: list[Unit] = field(default_factory=list)

    def add(self, submission: Submission, told: Sequence[dict[str, Any]], times: tuple[int, int]) -> None:
        """A file it wrote and the receipt it got. Every line of the receipt must belong to a unit, and be in order."""
        rest = list(told)
        for text, line, mode in submission.units():
            count = 1 if mode is Mode.EACH and not submission.dry_run else len(rest)
            mine, rest = rest[:count], rest[count:]
            source = submission.name.encode()
            self.units.append(Unit(text, line, mode, source, submission.dry_run, mine, times))
        assert not rest, (submission, rest)


class Reference:
    """The ledger in memory that follows a mount."""

    def __init__(self, mount: Path) -> None:
        self.log = MountLog(mount)
        self.ledger: Ledger | None = None

    @property
    def book(self) -> Ledger:
        """The reference ledger as of the last ``follow``."""
        assert self.ledger is not None
        return self.ledger

    def follow(self, clients: Sequence[Client] = ()) -> None:
        """Replay what came into the log since the last call; the clients' receipts must be those of the reference."""
        fresh = self.log.read()
        if self.ledger is None:
            begin = parse_time(json.loads(fresh[0])["time"])
            self.ledger = Ledger.create(json.loads(fresh[0])["ledger"], begin)
            self._same(0, 1)
        states = [self._copy()]  # after so many units
        while len(self.book.entries) < len(self.log.entries):
            if not self._by_itself():
                self._commit(clients, len(states))
                states.append(self._copy())
        for client in clients:
            self._without_entries(client, states)

    def _copy(self) -> Ledger:
        return Ledger(self.book.book.copy())

    def _next(self) -> tuple[dict[str, Any], int]:
        entry = json.loads(self.log.entries[len(self.book.entries)])
        return entry, parse_time(entry["time"])

    def _same(self, first: int, last: int) -> None:
        for index in range(first, last + 1):
            assert self.book.entries[index] == self.log.entries[index], index

    def _by_itself(self) -> bool:
        """Take up an entry that answers no intent of a client: a seal, the end of an expired hold, what is recorded of keys."""
        entry, time_ns = self._next()
        first = len(self.book.entries)
        if entry["t"] == "seal/1":
            self.book.seal(time_ns, state="state_root" in entry)
        elif entry["t"] == "void/1" and entry["reason"] == "expired":
            assert self.book.expire(time_ns)
        elif entry["t"] in KINDS.values():
            own = intent_of(entry).content
            self.book.submit(
                own, source=b"", first_line=1, mode=Mode.DOCUMENT, dry_run=False, now_ns=time_ns, system=True
            )
        else:
            return False
        self._same(first, len(self.book.entries) - 1)
        return True

    def _commit(self, clients: Sequence[Client], place: int) -> None:
        """Take up the entries of the unit that comes next."""
        _, time_ns = self._next()
        first = len(self.book.entries)
        ahead = first
        while (entry := json.loads(self.log.entries[ahead])).get("id", "").startswith(("~open", "~expire")):
            ahead += 1  # what the ledger does on behalf of the intent comes before the entry that answers it
        candidates = [unit for client in clients for unit in client.units if unit.place < 0 and unit.claims(entry)]
        committed = [unit for unit in candidates if any(line["status"] == "committed" for line in unit.told)]
        assert len(committed) <= 1, f"entry {entry['index']} was said to be committed to several"
        assert candidates, f"nobody was told of entry {entry['index']}: {entry}"
        for unit in committed or candidates:
            kept = self._copy()
            told = unit.answer(self.book, time_ns)
            written = self.book.entries[first:]
            if (told, written) == (unit.told, self.log.entries[first : len(self.book.entries)]) and written:
                unit.place = place
                return
            self.ledger = kept
        unit = (committed or candidates)[0]
        told = unit.answer(self.book, time_ns)
        assert told == unit.told
        self._same(first, len(self.book.entries) - 1)
        raise AssertionError(f"entry {entry['index']} does not follow from {unit}")

    def _without_entries(self, client: Client, states: list[Ledger]) -> None:
        """What left no entry must have been answered as the reference answers between its client's neighbours."""
        low = 0
        for number, unit in enumerate(client.units):
            if unit.place >= 0:
                assert unit.place > low, "a client's entries are not in its order"
                low = unit.place
                continue
            later = [other.place for other in client.units[number:] if other.place >= 0]
            high = min(later) - 1 if later else len(states) - 1
            answers = [self._quietly(unit, state) for state in states[low : high + 1]]
            assert any(unit.told in answer for answer in answers), (unit, answers)

    def _quietly(self, unit: Unit, state: Ledger) -> list[list[dict[str, Any]]]:
        """The answers in one state, as of before and after the file was written; [] if the reference would write."""
        answers = []
        for now_ns in unit.times:
            ledger = Ledger(state.book.copy())
            ledger.expire(now_ns)  # a hold that expires at this moment; if so, the mount's log has it, too
            size = len(ledger.entries)
            told = unit.answer(ledger, now_ns)
            if len(ledger.entries) == size:
                answers.append(told)
        return answers


def intents_of(submission: Submission) -> list[tuple[Intent, str]]:
    """The well-formed intents of a file of lines or of one document that is no array, with their ids."""
    found = []
    for text, line, _ in submission.units():
        intent = judge(text)
        if isinstance(intent, Intent):
            found.append((intent, intent.id or auto_id(submission.name.encode(), line, intent.content)))
    return found
