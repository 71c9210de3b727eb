"""The socket: lines in, answers out."""

from __future__ import annotations

import json
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.journal.layout import create
from tests.conftest import REPOSITORY, Daemon
from tests.fuse.conftest import Mounted, lines, pay, with_accounts

PATIENCE = 60
_fork = multiprocessing.get_context("fork")


class Line:
    """A connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self._answers = self.socket.makefile("rb")

    def send(self, *intents: dict[str, Any] | bytes) -> None:
        self.socket.sendall(b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in intents))

    def answer(self) -> dict[str, Any]:
        return json.loads(self._answers.readline())

    def ask(self, intent: dict[str, Any] | bytes) -> dict[str, Any]:
        self.send(intent)
        return self.answer()

    def rest(self) -> list[dict[str, Any]]:
        """End our side and read to the end."""
        self.socket.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in self._answers]

    def close(self) -> None:
        self._answers.close()
        self.socket.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def ledger(store: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> Mounted:
    """A mount with a socket beside it."""
    return with_accounts(daemons(store, "--socket", str(tmp_path / "socket")).start(), tmp_path / "work")


@pytest.fixture
def path(ledger: Mounted, tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def line(path: Path) -> Iterator[Line]:
    with Line(path) as made:
        yield made


def test_answers_come_in_order_and_say_what_became_of_each(ledger: Mounted, line: Line, path: Path) -> None:
    """SEMANTICS 16.1, 16.3"""
    assert path.stat().st_mode & 0o777 == 0o600
    line.send(
        pay("1.00", id="a"), b"\n", pay("1.00", id="a"), pay("2.00", id="a"), pay("1.0", id="b"), pay("9999999.00", id="c"),
        b'{"id":"d","wh\\u0022at":1,"debit":"acc_001","credit":"acc_002","amount":"1.00"}\n', b'{"id":"e",,}\n', pay("3.00", id="f"),
    )  # fmt: skip
    found = [line.answer() for _ in range(8)]
    assert [(each["line"], each["status"], each["code"]) for each in found] == [
        (1, "committed", "ok"), (3, "duplicate", "ok"), (4, "refused", "id_reused"), (5, "refused", "wrong_decimals"),
        (6, "refused", "insufficient_funds"), (7, "refused", "unknown_field"), (8, "refused", "bad_json"), (9, "committed", "ok"),
    ]  # fmt: skip
    first, again = found[:2]
    assert (first["tx"], first["index"], first["block"]) == (again["tx"], again["index"], again["block"])
    assert json.loads((ledger / f"transactions/{first['tx']}.json").read_text())["index"] == first["index"]
    assert found[5]["field"] == 'wh"at'
    assert found[6]["offset"] == 10
    assert line.rest() == []


def test_an_answer_says_that_every_file_shows_it(ledger: Mounted, line: Line) -> None:
    """SEMANTICS 16.2"""
    balance = ledger / "accounts/acc_002/balance.json"
    with balance.open("rb", buffering=0) as held:
        for number in range(1, 200):
            assert line.ask(pay("0.01", id=f"n{number}"))["status"] == "committed"
            assert json.loads(held.read())["credits"] == f"{number // 100}.{number % 100:02}"
            held.seek(0)
    assert not list((ledger / "receipts").glob("socket*"))


def test_directories_show_it_too(ledger: Mounted, line: Line) -> None:
    """The kernel may keep their attributes for long. SEMANTICS 16.2"""
    for number in range(1, 200):
        answer = line.ask(pay("0.01", id=f"n{number}"))
        seal = ledger / f"blocks/{answer['block']:08}.json"
        for directory in ("transactions", "blocks") if number % 3 else ("transactions",):
            assert (ledger / directory).stat().st_mtime_ns == seal.stat().st_mtime_ns


def test_a_file_would_get_the_same_answers(ledger: Mounted, line: Line) -> None:
    """SEMANTICS 16.3"""
    bad = [
        b"[]",
        b"x",
        b'{"id":1}',
        b'{"id":"~x"}',
        b'{"id":"x","type":"steal"}',
        b"{",
        b'{"id":"\xff"}',
        b'"a"',
        b'{"id":"y"}',
    ]
    told = [line.ask(text + b"\n") for text in bad]
    with pytest.raises(OSError, match="Bad message"):
        (ledger / "inbox/same.ndjson").write_bytes(b"".join(text + b"\n" for text in bad))
    for answer, expected in zip(told, ledger.receipt("same.ndjson"), strict=True):
        assert answer == {name: value for name, value in expected.items() if name not in ("meaning", "what_to_do")}


def test_every_line_needs_an_id(ledger: Mounted, line: Line) -> None:
    """SEMANTICS 16.4"""
    before = ledger.transactions()
    for intent in (pay("1.00"), pay("wrong"), pay("1.00", debit="nobody")):
        answer = line.ask(intent)
        assert (answer["code"], answer["field"]) == ("missing_field", "id")
    assert line.ask({"type": "steal"})["code"] == "unknown_type"
    assert ledger.transactions() == before


def test_long_lines_and_a_last_line_without_a_newline(ledger: Mounted, path: Path) -> None:
    """SEMANTICS 16.5"""
    with Line(path) as line:
        line.send(
            pay(id="before"),
            b" " * 200_000,
            b"x" * 300_000 + b"\n",
            pay(id="after"),
            json.dumps(pay(id="last")).encode(),
        )
        assert [(each["line"], each["code"]) for each in line.rest()] == [
            (1, "ok"),
            (2, "too_large"),
            (3, "ok"),
            (4, "ok"),
        ]
    with Line(path) as line:
        line.send(json.dumps(pay(id="cut")).encode()[:-1])
        assert [each["code"] for each in line.rest()] == ["incomplete"]
    with Line(path) as line:
        assert line.rest() == []


def test_who_goes_away_is_booked_and_disturbs_nobody(ledger: Mounted, path: Path, line: Line) -> None:
    """SEMANTICS 16.6"""
    before = ledger.transactions()
    gone = Line(path)
    gone.send(*(pay("0.01", id=f"gone-{number}") for number in range(500)), b'{"id":"half')
    gone.close()
    deadline = time.monotonic() + PATIENCE
    while ledger.transactions() < before + 500 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ledger.transactions() == before + 500
    assert line.ask(pay("0.01", id="gone-499"))["status"] == "duplicate"


def test_who_does_not_read_keeps_nobody_waiting(ledger: Mounted, path: Path, line: Line) -> None:
    """SEMANTICS 16.6"""
    deaf = Line(path)
    deaf.socket.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 2_000_000:
            deaf.send(*(pay("0.01", id=f"deaf-{sent + number}") for number in range(1000)))
            sent += 1000
    for number in range(20):
        assert line.ask(pay("0.01", id=f"quick-{number}"))["status"] == "committed"
    assert deaf.answer()["line"] == 1
    deaf.close()


def _client(path: Path, number: int, count: int, results: Any) -> None:
    with Line(path) as line:
        answers = [line.ask(pay("0.01", id=f"{number}-{each}")) for each in range(count)]
    results.put([(answer["status"], answer["tx"]) for answer in answers])


def test_many_at_once(ledger: Mounted, path: Path) -> None:
    """SEMANTICS 16.1"""
    before, results = ledger.transactions(), _fork.Queue()
    crew = [_fork.Process(target=_client, args=(path, number, 50, results)) for number in range(20)]
    for each in crew:
        each.start()
    found = [answer for _ in crew for answer in results.get(timeout=PATIENCE)]
    for each in crew:
        each.join(PATIENCE)
    assert {status for status, _ in found} == {"committed"}
    assert len({tx for _, tx in found}) == 1000 == ledger.transactions() - before


def test_at_the_end_what_was_taken_is_answered(ledger: Mounted, path: Path) -> None:
    """SEMANTICS 16.7"""
    with Line(path) as line:
        line.ask(pay("0.01", id="first"))
        line.send(*(pay("0.01", id=f"n{number}") for number in range(2000)))
        line.answer()
        assert ledger.daemon.stop() == 0
        answered = 1 + sum(answer["status"] == "committed" for answer in line.rest())
    assert not path.exists()
    ledger.daemon.start()
    assert ledger.transactions() - 2 == answered  # the opening of acc_001, and "first"


def test_after_a_kill_the_next_daemon_takes_the_place(
    ledger: Mounted, path: Path, daemons: Callable[..., Daemon]
) -> None:
    """SEMANTICS 16.7"""
    with Line(path) as line:
        told = [line.ask(pay("0.01", id=f"n{number}"))["tx"] for number in range(20)]
        ledger.daemon.kill()
    assert path.exists()
    ledger.daemon.start()
    with Line(path) as line:
        assert [line.ask(pay("0.01", id=f"n{number}"))["tx"] for number in range(20)] == told


def test_a_place_that_is_taken(ledger: Mounted, path: Path, tmp_path: Path) -> None:
    """SEMANTICS 16.7"""
    store = create(tmp_path / "other", "ledger.example/other", segment_bytes=2**20).root
    file = tmp_path / "file"
    file.write_text("mine")
    for place, why in (
        (path, "another process listens"),
        (file, "no socket"),
        (tmp_path / ("x" * 120), "at most 107 bytes"),
    ):
        command = [
            sys.executable,
            "-m",
            "ledgerfsd",
            "--store",
            store,
            "--mount",
            tmp_path / "other-mount",
            "--socket",
            place,
        ]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done.stderr
        assert why in done.stderr
    assert file.read_text() == "mine"
    with Line(path) as line:
        assert line.ask(pay(id="still"))["status"] == "committed"


def test_the_command_line_is_a_client(ledger: Mounted, path: Path) -> None:
    """SEMANTICS 16.1"""
    file = ledger.work / "payments.ndjson"
    file.write_text(lines([pay("0.01", id=f"n{number}") for number in range(20_000)] + [pay("1.0", id="bad")]))
    command = [sys.executable, "-m", "ledgerfsd.cli.main", "submit", "--socket", str(path), str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "20,000 committed, 1 refused" in done.stdout
    assert "line 20001" in done.stdout
    assert "wrong_decimals" in done.stdout
    done = subprocess.run(
        [*command[:-1], "-", "--json"], cwd=REPOSITORY, input=json.dumps(pay("0.01", id="n1")), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["duplicate"] == 1
    metrics = (ledger / ".ledgerfs/metrics.prom").read_text()
    assert "ledgerfs_socket_intents_committed 20001.0" in metrics
    done = subprocess.run(
        [*command[:-2], str(ledger.work / "none"), str(file)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "No such file" in done.stderr
