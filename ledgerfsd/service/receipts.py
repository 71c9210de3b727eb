"""The answers to inbox files: ``receipts/<UTC date>.ndjson`` in the store (FORMAT, section 10) and an index by name.

Start at ``Receipts.answer``, which writes one record. Records are evidence for people, not part of the ledger: they are
written before the writer gets its reply, but not synced, and one that cannot be written is kept in memory and counted;
it never fails a commit. Those of simple files the core writes (``recorded``). The newest answer for a name is the one
that ``receipts/<name>`` shows; older ones stay in the files.

A file that is answered in several steps (a stream of lines) has several records; from the second on they carry
``part``.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from ledgerfsd import limits
from ledgerfsd.clock import format_date, format_time, parse_time
from ledgerfsd.core.front import ReceiptFile
from ledgerfsd.service.receipt_text import Outcome, ReceiptText

if TYPE_CHECKING:
    from pathlib import Path

    from ledgerfsd.clock import Clock
    from ledgerfsd.service.metrics import Metrics

log = structlog.get_logger()

UNFINISHED: Final = ("incomplete", "empty")  # more bytes may still mend it
PARTS_MAX: Final = 4_096  # records that one answer remembers; the oldest of a longer one are only in the store's files
PARTS_BYTES_MAX: Final = 4 * limits.MIB  # the same by size: about 40,000 results, whose text is made in half a second
TEXTS_MAX: Final = 256  # texts kept ready
DAY_NS: Final = 86_400 * 10**9
RECORD_BYTES_MAX: Final = 256 * limits.MIB  # a longer line in receipts/ was not written by us

Document = tuple[str, int, list[Outcome]]  # name, size and results
Part = tuple[str, int, int] | bytes  # where a record is: file name, offset, length; or the record itself


class Answer:
    """What became of one inbox file, so far."""

    __slots__ = ("dry_run", "last_line", "mtime_ns", "name", "number", "parts", "parts_bytes")

    def __init__(self, name: str, *, dry_run: bool, number: int | None = None) -> None:
        self.name = name
        self.dry_run = dry_run
        self.number = number_of(name, dry_run=dry_run) if number is None else number
        self.parts: list[Part] = []
        self.parts_bytes = 0
        self.last_line = 0
        self.mtime_ns = 0

    def add(self, part: Part) -> None:
        """Remember a further record; of too many the oldest are forgotten, but never the newest."""
        self.parts.append(part)
        self.parts_bytes += _size(part)
        while len(self.parts) > PARTS_MAX or (self.parts_bytes > PARTS_BYTES_MAX and len(self.parts) > 1):
            self.parts_bytes -= _size(self.parts.pop(0))


def _size(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part[2]


class _Record(msgspec.Struct):
    """What rebuilding the index needs of a record."""

    file: str
    time: str
    results: list[dict[str, Any]]
    dry_run: bool = False
    part: int = 1


def number_of(name: str, *, dry_run: bool) -> int:
    """The 48-bit number of a receipt: it depends on the name alone, so inode numbers survive a restart."""
    digest = hashlib.blake2b(name.encode(), digest_size=6, person=b"dry-run" if dry_run else b"receipt")
    return int.from_bytes(digest.digest(), "big")


class Receipts:
    """The receipts of one store. Not for use by several threads."""

    def __init__(self, directory: Path, clock: Clock, metrics: Metrics) -> None:
        self.failure = ""  # why the last receipt could not be written; "" when it could
        self.on_change: list[Callable[[Answer], None]] = []
        self.replaced: Callable[[int], None] = lambda _: None  # what the core recorded for this number counts no more
        self._directory = directory
        self._clock = clock
        self._metrics = metrics
        self._answers: OrderedDict[int, Answer] = OrderedDict()
        self._texts: OrderedDict[int, ReceiptText] = OrderedDict()
        self._last_day = (-1, "")
        self._newest_ns = 0
        self.file: Final = ReceiptFile(directory)
        self._load()

    def close(self) -> None:
        """Close the file of the day."""
        self.file.close()

    def answer(self, answer: Answer, results: Iterable[Outcome], *, mode: str, size: int) -> None:
        """Add results to an answer and make it the one that its name shows. ``size``: bytes of the file so far."""
        results = list(results)
        now = max(self._clock.now_ns(), answer.mtime_ns + 1)  # a rising time is how the kernel sees new content
        record = msgspec.json.encode(_record(answer, results, format_time(now), mode, size)) + b"\n"
        answer.add(self._write(format_date(now) + ".ndjson", [record])[0])
        answer.last_line = max([answer.last_line, *(result.last for result in results)])
        answer.mtime_ns = now
        self._remember(answer)
        self.replaced(answer.number)
        self.changed(answer)

    def answer_documents(self, documents: Iterable[Document]) -> list[Answer]:
        """As ``answer``, for documents of inbox/ that were judged together: one write for all."""
        now = self._clock.now_ns()
        time = format_time(now)
        answers: list[Answer] = []
        records: list[bytes] = []
        for name, size, results in documents:
            answer = Answer(name, dry_run=False)
            answer.mtime_ns = now
            records.append(msgspec.json.encode(_record(answer, results, time, "document", size)) + b"\n")
            answer.last_line = max([0, *(result.last for result in results)])
            answers.append(answer)
        for answer, part in zip(answers, self._write(format_date(now) + ".ndjson", records), strict=True):
            answer.add(part)
            self._remember(answer)
            self.replaced(answer.number)
        self.changed(answers[-1])
        return answers

    def recorded(self, name: str, number: int, time_ns: int, offset: int, length: int) -> Answer:
        """Know of a record that the core wrote. ``on_change`` is to be told of the last of several: see ``changed``.

        ``number``: of the receipt, as ``number_of`` has it.
        """
        answer = Answer(name, dry_run=False, number=number)
        answer.mtime_ns = time_ns
        answer.last_line = 1
        answer.parts.append((self._day(time_ns), offset, length))
        answer.parts_bytes = length
        self._remember(answer)
        return answer

    def changed(self, answer: Answer) -> None:
        """Tell whoever wants to know of new receipts."""
        for tell in self.on_change:
            tell(answer)

    def _day(self, time_ns: int) -> str:
        """Name of the file of that day."""
        day = time_ns // DAY_NS
        if day != self._last_day[0]:
            self._last_day = (day, format_date(time_ns) + ".ndjson")
        return self._last_day[1]

    def find(self, name: str, *, dry_run: bool = False) -> Answer | None:
        """The newest answer for a name."""
        answer = self._answers.get(number_of(name, dry_run=dry_run))
        return answer if answer is not None and answer.name == name else None

    def get(self, number: int) -> Answer | None:
        """The answer with this number."""
        return self._answers.get(number)

    def answers(self, *, dry_run: bool = False) -> list[Answer]:
        """The answers that are listed, oldest first."""
        return [answer for answer in self._answers.values() if answer.dry_run == dry_run]

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def mtime_ns(self) -> int:
        """Time of the newest answer, 0 when there is none. It never goes back: what the core recorded may be known late."""
        return self._newest_ns

    def text(self, answer: Answer) -> ReceiptText:
        """What ``receipts/<name>`` contains. A part that can no longer be read is left out."""
        text = self._texts.get(answer.number)
        if text is None or text.mtime_ns != answer.mtime_ns:
            text = ReceiptText(self._results(answer), answer.mtime_ns)
            self._texts[answer.number] = text
            while len(self._texts) > TEXTS_MAX:
                self._texts.popitem(last=False)
        return text

    # -- writing

    def _write(self, file_name: str, records: Sequence[bytes]) -> Sequence[Part]:
        try:
            offset = self.file.append(file_name, b"".join(records))
        except OSError as error:
            if not self.failure:
                log.warning("receipts cannot be written; commits go on", file=file_name, error=str(error))
            self.failure = f"receipts/{file_name}: {error.strerror or error}"
            self._metrics.receipts_failed.inc(len(records))
            return records
        self.failure = ""
        parts: list[Part] = []
        for record in records:
            parts.append((file_name, offset, len(record)))
            offset += len(record)
        return parts

    def _remember(self, answer: Answer) -> None:
        self._answers[answer.number] = answer
        self._answers.move_to_end(answer.number)
        if answer.mtime_ns > self._newest_ns:
            self._newest_ns = answer.mtime_ns
        while len(self._answers) > limits.RECEIPTS_LISTED_MAX:
            self.replaced(self._answers.popitem(last=False)[0])

    # -- reading

    def _results(self, answer: Answer) -> Iterator[Outcome]:
        """All results in order. An ``incomplete`` that a later part takes up again was how things stood then."""
        unfinished: Outcome | None = None
        for results in map(self._part, answer.parts):
            if unfinished is not None and (not results or results[0].first > unfinished.first):
                yield unfinished
            unfinished = results.pop() if results and results[-1].code in UNFINISHED else None
            yield from results
        if unfinished is not None:
            yield unfinished

    def _part(self, part: Part) -> list[Outcome]:
        try:
            record = part if isinstance(part, bytes) else _read(self._directory / part[0], part[1], part[2])
            return [_outcome(stored) for stored in msgspec.json.decode(record, type=_Record).results]
        except (OSError, msgspec.DecodeError) as error:
            log.warning("a receipt cannot be read", part=part[:2], error=str(error))
            return []

    def _load(self) -> None:
        """Rebuild the index from the newest files: as many as it takes to fill it."""
        wanted: list[Path] = []
        found = 0
        for path in sorted(self._directory.glob("*.ndjson"), reverse=True):
            wanted.append(path)
            with path.open("rb") as file:
                found += sum(1 for _ in file)
            if found >= limits.RECEIPTS_LISTED_MAX:
                break
        for path in reversed(wanted):
            self._load_file(path)

    def _load_file(self, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            while line := file.readline(RECORD_BYTES_MAX):
                try:
                    self._load_record(msgspec.json.decode(line, type=_Record), (path.name, offset, len(line)))
                except (msgspec.DecodeError, ValueError, KeyError, TypeError):
                    log.warning("passed over a line that is no receipt", file=path.name, offset=offset)
                offset += len(line)

    def _load_record(self, record: _Record, part: Part) -> None:
        known = self.find(record.file, dry_run=record.dry_run)
        answer = known if known is not None and record.part > 1 else Answer(record.file, dry_run=record.dry_run)
        answer.add(part)
        answer.last_line = max([answer.last_line, *(int(result["lines"][1]) for result in record.results)])
        answer.mtime_ns = parse_time(record.time)
        self._remember(answer)


def _record(answer: Answer, results: list[Outcome], time: str, mode: str, size: int) -> dict[str, Any]:
    record: dict[str, Any] = {"file": answer.name, "time": time, "mode": mode, "bytes": size}
    if answer.dry_run:
        record["dry_run"] = True
    if answer.parts:
        record["part"] = len(answer.parts) + 1
    record["results"] = [_stored(result) for result in results]
    return record


def _stored(result: Outcome) -> dict[str, Any]:
    """One result as FORMAT, section 10 writes it; members without a value are left out."""
    stored: dict[str, Any] = {"lines": [result.first, result.last], "status": result.status, "code": result.code}
    if result.index >= 0:
        stored["index"] = result.index
    if result.tx:
        stored["tx"] = result.tx
    if result.block:
        stored["block"] = result.block
    if result.offset >= 0:
        stored["offset"] = result.offset
    if result.field:
        stored["field"] = result.field
    if result.note:
        stored["note"] = result.note
    return stored


def _outcome(stored: dict[str, Any]) -> Outcome:
    first, last = stored["lines"]
    return Outcome(
        first,
        last,
        stored["status"],
        stored["code"],
        stored.get("index", -1),
        stored.get("tx", 0),
        stored.get("block", 0),
        stored.get("offset", -1),
        stored.get("field", ""),
        stored.get("note", ""),
    )


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)
