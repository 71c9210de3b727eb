"""What is read, with the kernel's cache warm, is never older than what was acknowledged, never torn, and costs the daemon
nothing the second time. How often the daemon was asked is read in ``/proc/<pid>/io``: each request is one read of /dev/fuse.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledgerfsd.journal.layout import create
from ledgerfsd.service.render import BALANCE_BYTES, AsOf, balance
from ledgerfsd.types import Account
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.model.board import Board
from tests.model.coherent import ACKNOWLEDGED, COUNTS, READERS, STOP, WRITERS, Report

LOOKS = 50  # of each reader, at least
PAID = 250  # payments of each writer, at least
SECONDS = 120
OPEN = '{"type":"open_account","account":"%s","class":"suspense","currency":"EUR","limit":"none"}\n'
ACCOUNTS = (
    '{"type":"open_account","account":"float","class":"safeguarding_asset","currency":"EUR"}\n'
    '{"type":"open_account","account":"w0","class":"customer_liability","currency":"EUR"}\n'
    '{"type":"open_account","account":"w1","class":"customer_liability","currency":"EUR"}\n'
    '{"type":"open_account","account":"still","class":"customer_liability","currency":"EUR"}\n'
)
PAYMENTS = 600  # so that there are whole tiles and bundles, and a tx.log of many pages
READS = 3  # of the daemon for one request: of the device, once more in vain, and of what wakes pyfuse3 (ADR 36)
TICKS = 3  # wake-ups of the daemon's own that may fall into a measurement
ROUNDS = 10  # of a measurement: the daemon does other things now and then, so the quietest counts
NEVER_SECONDS = 86_400


@pytest.fixture(scope="module")
def filled(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount with a history."""
    place = tmp_path_factory.mktemp("coherence")
    (place / "settings.toml").write_text(f"anchor_seconds = {NEVER_SECONDS}\n")  # a digest is work of the daemon's own
    store = create(place / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
    daemon = Daemon(store, place / "mount", ["--config", str(place / "settings.toml")]).start()
    try:
        (daemon.path / "inbox/open.ndjson").write_text(ACCOUNTS)
        (daemon.path / "inbox/pay.ndjson").write_text('{"debit":"float","credit":"w0","amount":"1.00"}\n' * PAYMENTS)
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()


def pay(mount: Path, name: str, credit: str = "w0", amount: str = "1.00") -> None:
    text = json.dumps({"debit": "float", "credit": credit, "amount": amount})
    (mount / "inbox" / f"{name}.json").write_text(text)


def requests(daemon: Daemon, action: Callable[[], object]) -> int:
    """How many reads the daemon makes while something is done: of requests of the kernel, of which each is one to READS."""

    def taken() -> int:
        assert daemon.process is not None
        lines = Path(f"/proc/{daemon.process.pid}/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("syscr:")))

    before = taken()
    action()
    return taken() - before


def least_requests(daemon: Daemon, action: Callable[[], object]) -> int:
    """Of what costs the same each time: the quietest of some rounds."""
    return min(requests(daemon, action) for _ in range(ROUNDS))


@dataclass
class Look:
    """What came of writers and readers that ran together."""

    paid: list[int]  # payments of each writer
    reads: list[int]  # looks of each reader
    reports: dict[tuple[str, int, str], Report]

    def assert_nothing_missed(self) -> None:
        """No look was behind what had been acknowledged, torn, or short."""
        for role, report in self.reports.items():
            assert not report.behind, (role, len(report.behind), report.behind[:3])
            assert not report.wrong, (role, report.wrong)


def run(mount: Path, board_path: Path, readers: list[tuple[str, int, str]]) -> Look:
    """Let two writers pay while readers (way, writer, account) look, until there is enough of both or time is up."""
    accounts = [f"w{writer}.{role}" for writer in range(WRITERS) for role in READERS]
    (mount / "inbox/accounts.ndjson").write_text("".join(OPEN % account for account in ("float", *accounts)))
    board = Board(board_path)
    roles = [("documents", 0, "-"), ("lines", 1, "-"), *readers]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.model.coherent", role, mount, board_path, str(writer), str(slot), account],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for slot, (role, writer, account) in enumerate(roles, COUNTS)
    ]
    deadline = time.monotonic() + SECONDS
    reads, paid = [0], [0]
    try:
        while time.monotonic() < deadline and (min(reads) < LOOKS or min(paid) < PAID):
            time.sleep(0.1)
            reads = [board[slot] for slot in range(COUNTS + WRITERS, COUNTS + len(roles))]
            paid = [board[ACKNOWLEDGED + writer] for writer in range(WRITERS)]
            if any(each.poll() is not None for each in processes):
                break
    finally:
        board[STOP] = 1
        said = [each.communicate(timeout=60)[0] for each in processes]
    print(f"{paid} payments, {reads} reads")
    look = Look(paid, reads, {role: Report(**json.loads(text)) for role, text in zip(roles, said, strict=True)})
    look.assert_nothing_missed()  # who found something has ended before its time
    assert min(look.paid) >= PAID  # else we would have seen nothing change
    assert min(look.reads) >= LOOKS
    return look


def test_a_reader_of_its_own_file(mounted: Daemon, tmp_path: Path) -> None:
    """Nothing is behind or short, whether it opens the file anew, keeps it open or has it mapped. SEMANTICS 1.2"""
    readers = [(role, writer, f"w{writer}.{role}") for writer in range(WRITERS) for role in READERS]
    look = run(mounted.path, tmp_path / "board", readers)
    look.assert_nothing_missed()


def test_a_reader_never_sees_less_than_was_acknowledged(filled: Daemon) -> None:
    """One commit at a time, looked at by a process that opens the file anew, one that keeps it open and one that has it mapped."""
    path = filled.path / "accounts/still/balance.json"
    with path.open("rb") as kept, path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for number in range(1, 301):
            pay(filled.path, f"seen-{number}", credit="still")
            expected = f"{number}.00"
            assert json.loads(path.read_bytes())["balance"] == expected
            assert json.loads(os.pread(kept.fileno(), 4096, 0))["balance"] == expected
            os.fstat(file.fileno())
            assert json.loads(mapped[:])["balance"] == expected


def test_many_readers_of_one_file(mounted: Daemon, tmp_path: Path) -> None:
    """The same when one process asks for new attributes while another reads. SEMANTICS 1.2"""
    readers = [(role, writer, f"w{writer}.reopened") for writer in range(WRITERS) for role in ("reopened", *READERS)]
    look = run(mounted.path, tmp_path / "board", readers)
    look.assert_nothing_missed()


FILES = (
    "README.txt",
    "accounts/w0/balance.json",
    "accounts/w0/account.json",
    "accounts/w0/tx.log",
    "accounts/w0/statement.csv",
    "accounts/w0/snapshots/tx-5.json",
    "transactions/tx_0007.json",
    "blocks/00000002.json",
    "log/tile/0/000",
    "log/tile/0/001.p/7",
    "log/tile/1/000.p/1",
    "log/tile/entries/001",
    "log/tile/entries/000.p/9",
    ".ledgerfs/errors.tsv",
)


@pytest.mark.parametrize("name", FILES)
def test_a_page_read_twice_costs_the_daemon_nothing(filled: Daemon, name: str) -> None:
    path = filled.path / name
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        text = os.pread(fd, size, 0)
        assert len(text) == size
        assert least_requests(filled, lambda: [os.pread(fd, size, 0) for _ in range(200)]) <= TICKS
        assert least_requests(filled, lambda: [os.stat(path) for _ in range(200)]) <= TICKS
        assert least_requests(filled, lambda: [os.fstat(fd) for _ in range(200)]) <= TICKS
    finally:
        os.close(fd)


def test_a_commit_costs_only_the_files_that_it_changed(filled: Daemon) -> None:
    names = ("accounts/w0/balance.json", "accounts/still/balance.json", "transactions/tx_0001.json", "log/tile/0/000")
    files = [os.open(filled.path / name, os.O_RDONLY) for name in names]
    for fd in files:
        os.pread(fd, 4096, 0)
    changed, others = [], []
    for number in range(ROUNDS):
        pay(filled.path, f"costs-{number}")
        first, *rest = [requests(filled, lambda fd=fd: [os.pread(fd, 4096, 0) for _ in range(200)]) for fd in files]
        changed.append(first)
        others.append(max(rest))
    for fd in files:
        os.close(fd)
    assert 2 <= min(changed) <= 2 * READS + TICKS  # GETATTR and READ, once
    assert min(others) <= TICKS


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
@pytest.mark.parametrize("name", FILES)
def test_files_can_be_mapped(filled: Daemon, name: str, flags: int) -> None:
    path = filled.path / name
    with path.open("rb") as file:
        size = path.stat().st_size
        with mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as mapped:
            assert len(mapped) == size
            assert mapped[:] == file.read() == path.read_bytes()
            assert least_requests(filled, lambda: [mapped[:] for _ in range(200)]) <= TICKS


@pytest.mark.parametrize("name", ["receipts/pay.ndjson", ".ledgerfs/metrics.prom"])
def test_live_files_can_be_mapped_privately(filled: Daemon, name: str) -> None:
    """They are made for each open, so their pages are not shared. SEMANTICS 1.7"""
    path = filled.path / name
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapped:
        assert mapped[:100] == path.read_bytes()[:100]
        with pytest.raises(OSError, match="No such device"):
            mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)


def test_a_mapping_shows_what_was_committed_once_it_is_looked_at(filled: Daemon) -> None:
    """A mapped page is only dropped when some process asks for the file: stat before looking, as for any shared file."""
    path = filled.path / "accounts/w1/balance.json"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for number in range(20):
            pay(filled.path, f"mapped-{number}", credit="w1", amount=f"{10**number}.00")
            os.fstat(file.fileno())
            assert mapped[:] == path.read_bytes()
            assert json.loads(mapped[:])["credits"] == f"{(10 ** (number + 1) - 1) // 9}.00"


def test_files_that_change_in_place_keep_their_size(filled: Daemon) -> None:
    """Else a program that reads until the end gets the old text and the last bytes of a longer new one."""
    directory = filled.path / "accounts/still"
    names = ("balance.json", "account.json")
    sizes = [(directory / name).stat().st_size for name in names]
    intents = [
        {"debit": "float", "credit": "still", "amount": "0.01"},
        {"debit": "float", "credit": "still", "amount": "1234567890123456789.00"},
        {"type": "hold", "debit": "still", "credit": "float", "amount": "1000000.00"},
        {"type": "freeze", "account": "still"},
    ]
    for number, intent in enumerate(intents):
        (filled.path / f"inbox/size-{number}.json").write_text(json.dumps(intent))
        for name, size in zip(names, sizes, strict=True):
            text = (directory / name).read_bytes()
            assert len(text) == (directory / name).stat().st_size == size
            assert text.endswith(b"\n") and text.count(b"\n") == 1
            assert (
                json.loads(text)["as_of"]["index"]
                == json.loads((directory / "balance.json").read_text())["as_of"]["index"]
            )
    assert sizes[0] == BALANCE_BYTES


@pytest.mark.parametrize("decimals", [0, 2, 18])
@pytest.mark.parametrize("normal", ["debit", "credit"])
def test_the_longest_balance_has_the_size_of_the_shortest(decimals: int, normal: str) -> None:
    most = 2**127 - 1
    numbers = dict.fromkeys(("open_index", "last_index", "last_tx", "entries", "log_bytes"), 2**32 - 2)
    account = Account(
        ordinal=0, name="n" * 64, currency="C" * 12, decimals=decimals, account_class="suspense", normal=normal, status="open",
        debits=0, credits=most, held_debits=most, held_credits=most, overdraft=None, **numbers,
    )  # fmt: skip
    as_of = AsOf(2**32 - 2, 2**32 - 2, 2**32 - 2, "2026-11-23T08:08:53.123456789Z")
    for each in (account, account._replace(debits=most, credits=0)):
        assert len(balance(each, as_of)) == BALANCE_BYTES
