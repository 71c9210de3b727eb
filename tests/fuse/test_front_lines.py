"""Large writes of lines, which the core takes while they go on one behind the other (ADR 57): the mount is the same with it and without."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Daemon
from tests.fuse.conftest import Mounted, pay, until, with_accounts
from tests.fuse.fronts import answered, both

SEQUENCES = 12
LARGE = 128 << 10  # a write that is pipelined
LEAST = 64 << 10
STOP_SECONDS = 60

__all__ = ["both"]  # a fixture


def text_of(draw: random.Random, name: str, size: int) -> bytes:
    """Lines that are all booked, or are duplicates of others in the same file: with ids of their own and without, some empty."""
    made, total = [], 0
    while total < size:
        number = len(made)
        more = {"id": f"{name}-{draw.randrange(number + 1)}"} if draw.random() < 0.3 else {}
        amount = "1.00" if more else f"{1 + number % 50}.00"  # the same id, the same intent
        line = b"\n" if draw.random() < 0.01 else json.dumps(pay(amount, debit="float", **more)).encode() + b"\n"
        made.append(line)
        total += len(line)
    return b"".join(made)


def pieces_of(draw: random.Random, text: bytes) -> list[bytes]:
    """Cut anywhere, mostly into large writes."""
    found, at = [], 0
    while at < len(text):
        size = draw.choice((LARGE, LARGE, LARGE, LEAST, LEAST - 1, 200_000, 1 << 20, 100, 5_000))
        found.append(text[at : at + size])
        at += size
    return found


class Writer:
    """Writes a file piece by piece; between pieces it does what programs do, and notes what it sees."""

    def __init__(self, mounted: Mounted, seed: int) -> None:
        self.inbox = mounted / "inbox"
        self.receipts = mounted / "receipts"
        self.random = random.Random(seed)
        self.path = self.inbox / f"large-{seed}.ndjson"
        self.seen: list[object] = []
        self.opened: list[int] = []

    def run(self) -> None:
        """All of it."""
        text = text_of(self.random, self.path.name, self.random.choice((300_000, 900_000)))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        for piece in pieces_of(self.random, text):
            assert os.write(descriptor, piece) == len(piece)
            if self.random.random() < 0.4:
                self.aside(descriptor)
        os.close(descriptor)
        for other in self.opened:
            os.close(other)
        self.seen.append([self.told(line) for line in (self.receipts / self.path.name).read_text().splitlines()])

    def aside(self, descriptor: int) -> None:
        """Something else that may happen to an open file."""
        what = self.random.choice(
            ("fstat", "fstat", "stat", "list", "dup", "fsync", "append", "read", "xattr", "again")
        )
        if what == "fstat":
            self.seen.append(self.plain(os.fstat(descriptor)))
        elif what == "stat":
            self.seen.append(self.plain(os.stat(self.path)))
        elif what == "list":
            self.seen.append(self.path.name in os.listdir(self.inbox))
        elif what == "fsync":
            self.seen.append(self.failure(lambda: os.fsync(descriptor)))
        elif what == "dup":
            self.seen.append(self.failure(lambda: os.close(os.dup(descriptor))))
        elif what == "append":  # another that writes the same name: its lines are counted behind those that are there
            other = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            self.seen.append(os.write(other, json.dumps(pay("0.07", debit="float")).encode() + b"\n"))
            self.opened.append(other)
        elif what == "again":
            self.seen.append(self.failure(lambda: os.pwrite(descriptor, b"x" * self.random.choice((10, LARGE)), 0)))
        elif what == "read":
            self.path.read_bytes()
        else:
            os.listxattr(self.path)

    @staticmethod
    def failure(call: Callable[[], object]) -> str:
        try:
            call()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "fine"

    @staticmethod
    def plain(stat: os.stat_result) -> tuple[int, ...]:
        return stat.st_mode, stat.st_size, stat.st_nlink, stat.st_uid, stat.st_gid, stat.st_blocks

    @staticmethod
    def told(line: str) -> tuple[object, ...]:
        """What does not depend on how lines fell into batches."""
        result = json.loads(line)
        return result["line"], result["status"], result["code"], result.get("tx")


def booked(mounted: Mounted) -> list[tuple[object, ...]]:
    """The ledger, without times."""
    events = b"".join(path.read_bytes() for path in sorted((mounted / "events").glob("????-??-??.ndjson")))
    entries = (json.loads(line)["data"] for line in events.splitlines())
    return [
        (entry["id"], entry["intent"], entry["tx"], [posting["amount"] for posting in entry["postings"]])
        for entry in entries
        if entry["t"] == "txn/1"
    ]


@pytest.mark.slow
def test_writers_cannot_tell_whether_the_core_takes_their_lines(both: tuple[Mounted, Mounted]) -> None:
    """SEMANTICS 4.1 to 4.4, 1.2, 7.1: the same sizes, errnos, receipts and ledger, whatever happens in between."""
    before = answered(both[0])
    for seed in range(SEQUENCES):
        writers = [Writer(mounted, seed) for mounted in both]
        for writer in writers:
            writer.run()
        for seen, other in zip(writers[0].seen, writers[1].seen, strict=True):
            assert seen == other, f"sequence {seed}"
    assert booked(both[0]) == booked(both[1])
    assert len(booked(both[0])) > 10_000
    assert answered(both[0]) > before + SEQUENCES
    assert answered(both[1]) == -1


def test_a_file_that_goes_on_is_the_cores(mounted: Daemon, tmp_path: Path) -> None:
    """SEMANTICS 4.2: large writes and a look at the size in between need no call into Python, however many there are."""
    ledger = with_accounts(mounted, tmp_path / "work")
    text = text_of(random.Random(1), "long", 12 << 20)  # three times what may be on its way
    before, large = answered(ledger), 0
    with (ledger / "inbox/long.ndjson").open("wb", buffering=0) as file:
        for at in range(0, len(text), LARGE):
            assert file.write(text[at : at + LARGE]) == len(text[at : at + LARGE])
            large += len(text) - at >= LARGE
            assert os.fstat(file.fileno()).st_size == min(at + LARGE, len(text))
    assert answered(ledger) - before > 1.6 * large  # of two requests each
    receipt = ledger.receipt("long.ndjson")
    lines = [number for number, line in enumerate(text.split(b"\n"), 1) if line]
    assert [result["line"] for result in receipt] == lines
    assert {result["status"] for result in receipt} == {"committed", "duplicate"}


@pytest.mark.parametrize(
    "wrong", ["nonsense", '{"debit":"nobody","credit":"acc_002","amount":"1.00"}', "{" + "x" * 60_000]
)
def test_a_refusal_stops_the_writer(mounted: Daemon, tmp_path: Path, wrong: str) -> None:
    """SEMANTICS 4.2, SEMANTICS 4.3: a later call says so, the receipt says where, and all other lines that were taken stand."""
    ledger = with_accounts(mounted, tmp_path / "work")
    good = text_of(random.Random(2), "refused", 300_000)
    text = good + wrong.encode() + b"\n" + text_of(random.Random(3), "behind", 24 << 20)
    at = good.count(b"\n") + 1
    descriptor = os.open(ledger / "inbox/refused.ndjson", os.O_WRONLY | os.O_CREAT)
    told, taken = 0, 0
    try:
        for begin in range(0, len(text), LARGE):
            taken += os.write(descriptor, text[begin : begin + LARGE])
    except OSError as error:
        told = error.errno or 0
    assert told, "of all these writes none failed"
    with pytest.raises(OSError) as closing:
        os.close(descriptor)
    assert closing.value.errno in (told, errno.EBADMSG)  # the line that the last write began has no end
    receipt = ledger.receipt("refused.ndjson")
    refused = [(result["line"], result["code"]) for result in receipt if result["status"] == "refused"]
    assert refused[0][0] == at
    assert {code for _, code in refused[1:]} <= {"incomplete"}
    numbers = [result["line"] for result in receipt]
    assert numbers == sorted(set(numbers))
    whole = text[: taken + LARGE].count(b"\n") + len(refused) - 1
    assert numbers == [number for number, line in enumerate(text.split(b"\n"), 1) if line and number <= whole]


def test_a_refused_write_that_comes_again_is_known(mounted: Daemon, tmp_path: Path) -> None:
    """SEMANTICS 4.8: the program sends the same bytes once more; lines without ids are not booked twice."""
    ledger = with_accounts(mounted, tmp_path / "work")
    line = json.dumps(pay("0.01", debit="float")).encode() + b"\n"
    text = line * 6_000 + b"nonsense\n" + line * 6_000
    descriptor = os.open(ledger / "inbox/again.ndjson", os.O_WRONLY | os.O_CREAT)
    before, at, failures = ledger.transactions(), 0, 0
    while at < len(text):
        try:
            at += os.write(descriptor, text[at : at + LARGE])
        except OSError:
            failures += 1
            if failures == 3:
                break
    with pytest.raises(OSError) as closing:
        os.close(descriptor)
    assert closing.value.errno in (errno.EINVAL, errno.EBADMSG)  # as above
    receipt = ledger.receipt("again.ndjson")
    numbers = [result["line"] for result in receipt]
    assert numbers == sorted(set(numbers))
    assert [result["line"] for result in receipt if result["code"] == "bad_json"] == [6_001]
    assert ledger.transactions() - before == sum(result["status"] == "committed" for result in receipt)


def test_each_refusal_names_what_was_wrong_with_it(mounted: Daemon, tmp_path: Path) -> None:
    """SEMANTICS 4.3: also where several were on their way when the first was found; the core hands them back as one."""
    ledger = with_accounts(mounted, tmp_path / "work")
    line = json.dumps(pay("0.01", debit="float")).encode() + b"\n"
    most = 0
    for number in range(20):
        lines = [line] * 6_000
        wrong = {at: f"surprise_{number}_{at}" for at in range(1_500, 6_000, 700)}
        for at, member in wrong.items():
            lines[at - 1] = json.dumps(pay("0.01", debit="float", **{member: "x"})).encode() + b"\n"
        text = b"".join(lines)
        descriptor = os.open(ledger / f"inbox/names-{number}.ndjson", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            for begin in range(0, len(text), LARGE):
                os.write(descriptor, text[begin : begin + LARGE])
        with suppress(OSError):
            os.close(descriptor)
        receipt = ledger.receipt(f"names-{number}.ndjson")
        refused = [(each["line"], each["field"]) for each in receipt if each["code"] == "unknown_field"]
        assert refused == [(at, wrong[at]) for at in sorted(wrong)[: len(refused)]]
        assert refused
        most = max(most, len(refused))
    assert most > 1, "never were two on their way"


def test_names_that_come_and_go_meanwhile(mounted: Daemon, tmp_path: Path) -> None:
    """SEMANTICS 7.1: a file that is removed while it is written is booked all the same, and its name is free."""
    ledger = with_accounts(mounted, tmp_path / "work")
    line = json.dumps(pay("0.01", debit="float")).encode() + b"\n"
    before = ledger.transactions()
    path = ledger / "inbox/gone.ndjson"
    with path.open("wb", buffering=0) as file:
        file.write(line * 2_000)
        path.unlink()
        assert not path.exists()
        assert os.fstat(file.fileno()).st_nlink == 0
        with path.open("wb", buffering=0) as other:
            other.write(line * 2_000)
            file.write(line * 2_000)
            other.write(line * 2_000)
    assert ledger.transactions() > before
    assert path.exists()


def test_stopping_in_the_middle_loses_nothing_that_was_acknowledged(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """SEMANTICS 1.1: SIGTERM while large files are written; those whose close() succeeded are there as a whole."""
    ledger = with_accounts(daemons(store).start(), tmp_path / "work")
    acknowledged: list[str] = []

    def write(writer: int) -> None:
        for number in range(10_000):
            name = f"stop-{writer}-{number}"
            text = b"".join(
                json.dumps(pay("0.01", debit="float", id=f"{name}-{line}")).encode() + b"\n" for line in range(3_000)
            )
            try:
                with (ledger / "inbox" / f"{name}.ndjson").open("wb", buffering=0) as file:
                    for at in range(0, len(text), LARGE):
                        file.write(text[at : at + LARGE])
            except OSError:
                return
            acknowledged.append(name)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in writers:
        thread.start()
    until(lambda: len(acknowledged) >= 6)
    assert ledger.daemon.stop() == 0
    for thread in writers:
        thread.join(STOP_SECONDS)
    assert not any(thread.is_alive() for thread in writers)
    again = daemons(store).start()
    for name in acknowledged:
        receipt = [json.loads(line) for line in (again.path / f"receipts/{name}.ndjson").read_text().splitlines()]
        assert [result["status"] for result in receipt] == ["committed"] * 3_000
