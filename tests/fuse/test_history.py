"""accounts/<id>/history/ and statements/: what was booked in a month, and how little it costs to look at it (SEMANTICS, section 13)."""

from __future__ import annotations

import csv
import io
import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd import money
from ledgerfsd.clock import NS_PER_DAY, NS_PER_SECOND, format_time, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal.layout import create
from ledgerfsd.types import Mode
from tests.conftest import LEDGER, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, lines, pay
from tests.model.intents import OPENINGS, Source

BEGIN = "2026-01-29T00:00:00Z"
DAYS = 70
HEADER = "date,effective,tx,type,reference,debit,credit,balance,index"


def fill(store: Path) -> None:
    """Some hundred random files over two and a half months, with every feature."""
    source = Source("h")
    source.random.seed(11)
    now = parse_time(BEGIN)
    engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
    engine.start()
    sent = [(json.dumps(intent).encode(), b"accounts", Mode.DOCUMENT) for intent in OPENINGS]
    for _ in range(400):
        submission = source.submission()
        sent += [
            (text, submission.name.encode(), mode) for text, _, mode in submission.units() if not submission.dry_run
        ]
    for content, name, mode in sent:
        now += source.random.randrange(2 * DAYS * NS_PER_DAY // len(sent))
        engine.submit(content, source=name, first_line=1, mode=mode, now_ns=now)
    engine.drain()
    assert format_time(engine.counts().time_ns)[:7] > "2026-02"
    engine.close()


@pytest.fixture(scope="module")
def past(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A ledger whose entries lie in several months, mounted."""
    place = tmp_path_factory.mktemp("history")
    root = create(place / "store", LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=parse_time(BEGIN)).root
    fill(root)
    expired_ns = time.time_ns() + NS_PER_SECOND  # Source.soon
    daemon = Daemon(root, place / "mount").start()
    (place / "work").mkdir()
    mounted = Mounted(daemon.path, place / "work", daemon)
    time.sleep(max(0.0, (expired_ns - time.time_ns()) / NS_PER_SECOND))
    # Before it is judged the holds that have expired are ended: later they would be by themselves, while we compare.
    mounted.drop("late.json", {"type": "open_account", "account": "late", "class": "clearing", "currency": "EUR"})
    try:
        yield mounted
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()


def entries(account: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (account / "tx.log").read_bytes().splitlines()]


def months(account: Path) -> dict[str, list[bytes]]:
    """The lines of tx.log by month."""
    found = (account / "tx.log").read_bytes().splitlines(keepends=True)
    return {month: list(each) for month, each in itertools.groupby(found, lambda line: json.loads(line)["time"][:7])}


def rows(account: Path, month: str | None = None) -> list[list[str]]:
    """The rows of a statement, worked out from the entries."""
    opened = json.loads((account / "account.json").read_bytes())
    found = []
    for entry in entries(account):
        if "tx" not in entry or (month and not entry["time"].startswith(month)):
            continue
        for posting in entry["postings"]:
            if posting["account"] != account.name:
                continue
            decimals = len(posting["amount"].partition(".")[2])
            debits, credits = (money.parse(posting[side], decimals) for side in ("debits", "credits"))
            after = debits - credits if opened["normal"] == "debit" else credits - debits
            debit = posting["side"] == "debit"
            found.append(
                [entry["time"][:10], entry.get("effective", ""), f"tx_{entry['tx']:04}", entry.get("type", "post"),
                 entry.get("reference", ""), posting["amount"] if debit else "", "" if debit else posting["amount"],
                 money.format_signed(after, decimals), str(entry["index"])]
            )  # fmt: skip
    return found


def accounts(past: Mounted) -> list[Path]:
    return sorted((past / "accounts").iterdir())


def test_months_of_an_account(past: Mounted) -> None:
    """SEMANTICS 13.1"""
    several = 0
    for account in accounts(past):
        expected = months(account)
        several += len(expected) > 1
        assert [path.name for path in (account / "history").iterdir()] == [f"{month}.ndjson" for month in expected]
        for month, each in expected.items():
            path = account / "history" / f"{month}.ndjson"
            assert path.stat().st_size == sum(map(len, each))
            assert path.read_bytes() == b"".join(each)
            assert path.stat().st_mtime_ns == parse_time(json.loads(each[-1])["time"])
        for name in ("2026-13.ndjson", "1999-01.ndjson", "2026-02.csv", "2026-2.ndjson", "x", "9999-01.ndjson"):
            assert not (account / "history" / name).exists()
    assert several > 3


def test_statements_by_month(past: Mounted) -> None:
    """SEMANTICS 13.2"""
    for account in accounts(past):
        balance = "0"
        newest = format_time(time.time_ns())[:7]
        for month in months(account):
            text = (account / "statements" / f"{month}.csv").read_bytes()
            assert (account / "statements" / f"{month}.csv").stat().st_size == len(text)
            assert text.startswith(HEADER.encode() + b"\r\n")
            found = list(csv.reader(io.StringIO(text.decode(), newline="")))[1:]
            opening, expected = found[0], rows(account, month)
            assert opening[:4] == [f"{month}-01", "", "", "opening"]
            assert money.parse(opening[7].lstrip("-"), len(opening[7].partition(".")[2])) == abs(
                int(balance.replace(".", ""))
            )
            assert found[1 : len(expected) + 1] == expected
            rest = found[len(expected) + 1 :]
            balance = expected[-1][7] if expected else opening[7]
            if month == newest:
                assert rest == []
                continue
            (closing,) = rest
            assert closing[3] == "closing"
            assert closing[0] in (f"{month}-28", f"{month}-30", f"{month}-31")
            assert closing[7] == balance
            for column in (5, 6):
                total = sum(int(row[column].replace(".", "") or "0") for row in expected)
                assert int(closing[column].replace(".", "")) == total


def test_statement_of_the_whole(past: Mounted) -> None:
    """SEMANTICS 2.4"""
    for account in accounts(past):
        text = (account / "statement.csv").read_bytes()
        found = list(csv.reader(io.StringIO(text.decode(), newline="")))
        assert found == [HEADER.split(","), *rows(account)]
        assert text.endswith(b"\r\n")


def test_months_that_are_over_are_copied_once(past: Mounted) -> None:
    """SEMANTICS 13.3"""
    account = max(accounts(past), key=lambda path: len(months(path)))
    target = past.work / "copy"
    command = ["rsync", "-a", "--itemize-changes", f"{account}/history", f"{account}/statements", f"{target}/"]
    first = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert first.stdout.count(">f") == 2 * len(months(account))
    # Something is booked today: no file of a month that is over is touched by it.
    name = "late-pay.json"
    currency = json.loads((account / "account.json").read_bytes())["currency"]
    past.drop(
        name, {"type": "open_account", "account": f"z-{account.name[:40]}", "class": "clearing", "currency": currency}
    )
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    going_on = format_time(time.time_ns())[:7]  # holds may expire meanwhile
    assert [line for line in again.stdout.splitlines() if ">f" in line and going_on not in line] == []
    over = [path for path in target.rglob("*.*") if path.stem < going_on]
    assert len(over) >= 4
    for path in over:
        assert path.read_bytes() == (account / path.relative_to(target)).read_bytes()


def test_the_month_that_goes_on(ledger: Mounted) -> None:
    """SEMANTICS 13.4"""
    month = format_time(time.time_ns())[:7]
    account = ledger / "accounts/acc_001"
    history, statement = account / "history" / f"{month}.ndjson", account / "statements" / f"{month}.csv"
    with history.open("rb") as log, statement.open("rb") as table:
        before = [log.read(), table.read()]
        ledger.drop("p.json", pay(reference='a, "b"'))
        after = [before[0] + log.read(), before[1] + table.read()]
        assert after == [history.read_bytes(), statement.read_bytes()]
    assert after[0] == (account / "tx.log").read_bytes()
    assert after[1].splitlines()[-1].split(b",")[-2] == b"99999.00"
    assert b'"a, ""b"""' in after[1].splitlines()[-1]
    assert history.stat().st_size == len(after[0])
    assert ledger.shell('tail -n 1 "$M"/accounts/acc_001/history/*.ndjson | grep -c reference').stdout == "1\n"


@pytest.mark.slow
def test_a_long_history_opens_at_once(tmp_path: Path, daemons: Callable[..., Daemon], fuse: None) -> None:
    """SEMANTICS 13.5"""
    root = create(tmp_path / "store", LEDGER).root
    daemon = daemons(root).start()
    (tmp_path / "work").mkdir()
    ledger = Mounted(daemon.path, tmp_path / "work", daemon)
    ledger.drop(
        "a.ndjson",
        lines([{"type": "open_account", "account": name, "class": "clearing", "currency": "EUR"} for name in "ab"]),
    )
    many = "".join(f'{{"debit":"a","credit":"b","amount":"1.00","id":"i{number}"}}\n' for number in range(200_000))
    ledger.drop("many.ndjson", many)
    log = ledger / "accounts/a/tx.log"
    size = log.stat().st_size
    with log.open("rb") as file:
        for offset in (size - 100, size // 2, 0):
            file.seek(offset)
            assert len(file.read(100)) == 100
    assert ledger.shell('tail -n 3 "$M"/accounts/a/tx.log | wc -l').stdout == "3\n"
    assert ledger.shell('wc -lc < "$M"/accounts/a/tx.log').stdout.split() == ["200001", str(size)]
    assert ledger.shell('grep -c \'"id":"i199999"\' "$M"/accounts/a/tx.log').stdout == "1\n"
    assert ledger.shell('wc -l < "$M"/accounts/a/statement.csv').stdout == "200001\n"
    # Where the postings are: in files, but for the newest.
    assert len(list((root / "indexes").iterdir())) > 1
    assert daemon.stop() == 0
    assert daemons(root).start().stop() == 0
