"""Files that never end: refused early, and the daemon's memory does not grow with them."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from ledgerfsd import limits
from ledgerfsd.errors import BY_NAME
from tests.fuse.conftest import Mounted, until
from tests.fuse.feeding import State, answers, feed, healthy, memory_kib

GIB = 2**30
FILE_BYTES = 10 * GIB
PIECE = limits.MIB
WORK_SECONDS = 1.0  # of the processor: to copy all of it takes several
GOOD = b'{"debit":"acc_001","credit":"acc_002","amount":"0.01"}'


def repeated(begin: bytes, text: bytes, size: int = FILE_BYTES) -> Iterator[bytes]:
    """``begin`` and then ``text`` again and again, in pieces of 1 MiB."""
    yield begin
    piece = text * (PIECE // len(text))
    yield from itertools.repeat(piece, size // len(piece))


class Case(NamedTuple):
    """A file, and how it is refused."""

    name: str
    content: Callable[[], Iterator[bytes]]
    code: str
    most: int  # bytes that are taken before the refusal


CASES = {
    "zeros": Case("zeros.json", lambda: repeated(b"", bytes(PIECE)), "too_large", 0),
    "text": Case("text.json", lambda: repeated(b"", b"All work and no play. "), "too_large", 0),
    "white-space": Case("space.json", lambda: repeated(b"", b" \n"), "too_large", limits.DOCUMENT_BYTES_MAX),
    "string": Case("string.json", lambda: repeated(b'{"reference":"', b"a"), "too_large", 14),
    "array": Case("array.json", lambda: repeated(b"[", GOOD + b","), "too_large", limits.DOCUMENT_BYTES_MAX),
    "brackets": Case("brackets.json", lambda: repeated(b"", b"["), "too_large", limits.DOCUMENT_BYTES_MAX),
    "line": Case("line.ndjson", lambda: repeated(b"", b"a"), "too_large", 0),
    "line-of-space": Case("space.ndjson", lambda: repeated(b"", b"    ", GIB), "", GIB),
    "atomic-lines": Case(
        "atomic/lines.ndjson", lambda: repeated(b"", GOOD + b"\n"), "too_many_intents", limits.DOCUMENT_BYTES_MAX
    ),
    "atomic-line": Case("atomic/line.ndjson", lambda: repeated(b"", b"a"), "too_large", limits.DOCUMENT_BYTES_MAX),
    "scratch": Case(".scratch.json", lambda: repeated(b"[", GOOD + b","), "too_large", limits.DOCUMENT_BYTES_MAX),
}
# What the daemon may hold more than before: the document, once more while it grows or is handed on, and the allocator's share.
GROWTH_KIB = (2 * limits.DOCUMENT_BYTES_MAX + 64 * limits.MIB) // 1024


class Watch:
    """The most memory that the daemon had, looked at all the time."""

    def __init__(self, mounted: Mounted) -> None:
        self._mounted = mounted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.before = self.most = memory_kib(mounted)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, memory_kib(self._mounted))

    @property
    def growth(self) -> int:
        """KiB."""
        return self.most - self.before


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_ten_gigabytes(shared: Mounted, kind: str) -> None:
    """The writer does not look at errors and writes all of it; nothing after the first refusal is kept."""
    before = State.of(shared)
    name, content, code, most = CASES[kind]
    with Watch(shared) as watch:
        fed = feed(shared / f"inbox/{name}", content(), stubborn=True)
    assert watch.growth < GROWTH_KIB
    assert fed.call == ("write" if code else "")
    assert fed.errno == (BY_NAME[code].errno if code else 0)
    assert fed.written <= most + PIECE
    if code:
        answered = os.path.basename(name)
        until((shared / f"receipts/{answered}").exists)
        assert [answer.code for answer in answers(shared.receipt(answered))] == [code]
    if kind == "scratch":
        (shared / f"inbox/{name}").unlink()
    assert State.of(shared) == before
    healthy(shared)


def worked() -> float:
    """Processor time of the programs that have ended: of a copy it grows with what is copied, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("copy", ["cp --sparse=never", "cp --sparse=always", "dd bs=1M status=none"])
def test_copy_of_a_file_of_ten_gigabytes(shared: Mounted, copy: str) -> None:
    """A program that looks at errors stops at the first."""
    with open(shared.work / "ten", "wb") as file:
        file.truncate(FILE_BYTES)
    before = State.of(shared)
    script = "dd if=ten of=$I/ten.json bs=1M status=none" if copy.startswith("dd") else f"{copy} ten $I/ten.json"
    began = worked()
    with Watch(shared) as watch:
        done = shared.shell(script)
    assert done.returncode != 0
    assert "ten.json" in done.stderr
    assert worked() - began < WORK_SECONDS
    assert watch.growth < GROWTH_KIB
    assert State.of(shared) == before
    healthy(shared)


def test_truncate_to_ten_gigabytes(shared: Mounted) -> None:
    """Size without content, under a final name and under a scratch name."""
    before = State.of(shared)
    with Watch(shared) as watch:
        for name in ("sized.json", "sized.ndjson", ".sized.json"):
            done = subprocess.run(
                ["truncate", "-s", str(FILE_BYTES), shared / f"inbox/{name}"], capture_output=True, text=True
            )
            assert done.returncode != 0, name
    (shared / "inbox/.sized.json").unlink()
    assert watch.growth < GROWTH_KIB
    assert State.of(shared) == before
    healthy(shared)


def test_write_far_behind_the_end(shared: Mounted) -> None:
    before = State.of(shared)
    with Watch(shared) as watch:
        for name in ("far.json", "far.ndjson", ".far.json"):
            descriptor = os.open(shared / f"inbox/{name}", os.O_WRONLY | os.O_CREAT)
            with pytest.raises(OSError, match=r"seek|large"):
                os.pwrite(descriptor, GOOD, FILE_BYTES)
            os.close(descriptor)
    (shared / "inbox/.far.json").unlink()
    assert watch.growth < GROWTH_KIB
    assert State.of(shared) == before
    healthy(shared)


@pytest.mark.slow
def test_other_requests_go_on_during_a_flood_of_wrong_lines(shared: Mounted) -> None:
    """Every line has an answer of its own, none like the one before. The mount answers others meanwhile."""
    flood = b'{}\nx\n[]\n{"a":\n' * (3 * PIECE // 14)  # a million refusals
    before, slowest = State.of(shared), 0.0
    with Watch(shared) as watch:
        writer = threading.Thread(
            target=feed,
            args=(shared / "inbox/flood.ndjson", [flood[n : n + PIECE] for n in range(0, len(flood), PIECE)]),
            kwargs={"stubborn": True},
        )
        writer.start()
        while writer.is_alive():
            began = time.monotonic()
            shared.balance("acc_001")
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.001)
        writer.join()
    print(f"slowest {slowest:.3f} s, memory {watch.growth} KiB")
    assert watch.growth < GROWTH_KIB
    assert State.of(shared) == before
    healthy(shared)
