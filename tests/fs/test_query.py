"""The files of accounts, now and in the past, against what the entries say."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from ledgerfsd.clock import format_time, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal.layout import Layout
from ledgerfsd.service import statements
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.query import Query
from ledgerfsd.types import Mode
from tests.fs.conftest import Mounted, lines, packed, pay

pytestmark = pytest.mark.trio
HOLD = {"type": "hold", "debit": "b", "credit": "a", "amount": "5.00"}


async def book(ledger: Ledger, *intents: dict[str, Any]) -> None:
    """Commit; refusals are welcome too."""
    book.calls = getattr(book, "calls", 0) + 1  # type: ignore[attr-defined]
    source = f"book-{book.calls}".encode()  # type: ignore[attr-defined]
    await ledger.submit(lines(*intents), source=source, first_line=1, mode=Mode.EACH)


async def history(ledger: Ledger, steps: int) -> list[dict[str, Any]]:
    """Random movements of three accounts, with holds, one block each; ``b``'s balance.json after every block."""
    query = Query(ledger)
    chance = random.Random(7)
    holds: list[str] = []
    states = []
    for step in range(steps):
        kind = chance.choice(["pay", "pay", "back", "hold", "post", "void", "freeze", "multi"])
        if kind == "hold" or not holds:
            holds.append(f"h{step}")
            await book(ledger, pay("20.00"), HOLD | {"id": holds[-1]})
        elif kind == "post":
            await book(ledger, {"type": "post", "hold": holds.pop(0), "amount": "3.00"})
        elif kind == "void":
            await book(ledger, {"type": "void", "hold": holds.pop()})
        elif kind == "freeze":
            await book(ledger, {"type": "freeze", "account": "b"}, {"type": "unfreeze", "account": "b"})
        elif kind == "multi":
            await book(ledger, {"type": "transaction", "reference": 'a "quoted", text', "effective": "2026-01-02",
            "postings": [
                {"account": "b", "side": "credit", "amount": "2.00"}, {"account": "b", "side": "debit", "amount":
                "0.50"}, {"account": "c", "side": "debit", "amount": "1.50"}]})  # fmt: skip
        else:
            await book(ledger, pay("1.25", "b", "a") if kind == "back" else pay("3.75"))
        states.append(json.loads(query.balance(1).data) | {"_entries": ledger.engine.counts().entries})
    return states


async def test_every_past_state_is_found_again(ledger: Ledger) -> None:
    """By block, size, transaction and time. SEMANTICS 2.5"""
    states = await history(ledger, 60)
    query = Query(ledger)
    for state in states:
        entries = state.pop("_entries")
        wanted = state["as_of"]
        names = [f"size-{entries}", f"block-{wanted['seal']}", wanted["time"]]
        if wanted["tx"]:
            names.append("tx-" + str(int(wanted["tx"][3:])))
        for name in names:
            point = query.points.point(name)
            assert point is not None, name
            index = query.newest_before(1, point)
            snapshot = query.snapshot(1, index)
            assert json.loads(snapshot.data) == state, name
            assert snapshot.mtime_ns == parse_time(wanted["time"])


async def test_points_that_are_none(ledger: Ledger) -> None:
    """Not yet, not ever. SEMANTICS 2.5"""
    query = Query(ledger)
    counts = ledger.engine.counts()
    for name in ("block-0", "block-01", f"block-{counts.blocks + 1}", f"size-{counts.entries + 1}", "tx-1", "size-", "x",
                 "2026-11-22", "2199-01-01T00:00:00Z", "block-" + "9" * 30):  # fmt: skip
        assert query.points.point(name) is None, name
    now = query.points.point(format_time(ledger.clock.now_ns()))
    assert now is not None
    assert (now.size, now.final) == (counts.entries, False), "an entry may be on its way that belongs to this time"
    newest = query.points.point(format_time(counts.time_ns))
    assert newest is not None
    assert (newest.size, newest.final) == (counts.entries, True)
    before = query.points.point("size-2")
    assert before is not None
    assert query.newest_before(1, before) == -1


@pytest.mark.parametrize("inline", [statements.INLINE_MAX, 3])
async def test_log_and_statement(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, inline: int, tmp_path: Path) -> None:
    """Exact entries; one row a posting; sizes before the bytes; the beginning stays. SEMANTICS 2.3, SEMANTICS 2.4, SEMANTICS 1.9"""
    monkeypatch.setattr(statements, "INLINE_MAX", inline)
    monkeypatch.setattr(statements, "STATEMENT_MEMORY", 3000)
    query = Query(ledger)
    engine = ledger.engine
    earlier_log = earlier_rows = b""
    for _ in range(4):
        await history(ledger, 15)
        log = b"".join(bytes(engine.entry(index)) + b"\n" for index in engine.history(1))
        size, mtime = query.log_size(1)
        assert size == len(log)
        assert query.log_read(1, 0, size + 1) == log
        for begin in range(0, size, 1013):
            assert query.log_read(1, begin, 1013) == log[begin : begin + 1013]
        assert query.log_read(1, size, 10) == b""
        statement, when = await query.statement(1)
        rows = statement.read(0, statement.size + 1)
        assert len(rows) == statement.size
        assert when == mtime
        for begin in range(0, len(rows), 997):
            assert statement.read(begin, 997) == rows[begin : begin + 997]
        assert log.startswith(earlier_log)
        assert rows.startswith(earlier_rows)
        earlier_log, earlier_rows = log, rows
    _check_rows(rows, log)
    assert json.loads(query.balance(1).data)["balance"] == rows.decode().splitlines()[-1].rsplit(",", 2)[1]


def _check_rows(rows: bytes, log: bytes) -> None:
    assert rows.count(b"\r\n") == rows.count(b"\n")
    header, *table = csv.reader(io.StringIO(rows.decode(), newline=""))
    assert header == "date,effective,tx,type,reference,debit,credit,balance,index".split(",")
    wanted = []
    for entry in map(json.loads, log.splitlines()):
        for posting in entry.get("postings", []) if "tx" in entry else []:
            if posting["account"] == "b":
                side = [posting["amount"], ""] if posting["side"] == "debit" else ["", posting["amount"]]
                kind = entry.get("type", "post")
                wanted.append([entry["time"][:10], entry.get("effective", ""), f"tx_{entry['tx']:04}", kind,
                               entry.get("reference", ""), *side, str(entry["index"])])  # fmt: skip
    assert [row[:7] + row[8:] for row in table] == wanted


async def test_an_account_that_grows_while_it_is_read(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker threads and the loop extend one history; nothing is lost or doubled. SEMANTICS 1.9"""
    monkeypatch.setattr(statements, "INLINE_MAX", 8)
    query = Query(ledger)
    running = True

    async def writer() -> None:
        nonlocal running
        for _ in range(60):
            await book(ledger, *[pay("0.01")] * 20)
        running = False

    async def reader() -> None:
        while running:
            statement, _ = await query.statement(1)
            size = statement.size
            rows = statement.read(0, size)
            assert len(rows) == size
            assert rows.endswith(b"\r\n")
            log_size, _ = query.log_size(1)
            assert len(query.log_read(1, 0, log_size)) == log_size
            await trio.sleep(0)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(reader)
            nursery.start_soon(writer)
    statement, _ = await query.statement(1)
    indexes = [int(row.rsplit(",", 1)[1]) for row in statement.read(0, statement.size).decode().splitlines()[1:]]
    assert indexes == sorted(set(indexes))
    assert len(indexes) == 1200


async def test_account_file(mounted_here: Mounted) -> None:
    """What the account was opened with, and its status now. SEMANTICS 2.2"""
    opened = json.loads(await mounted_here.read("accounts/c/account.json"))
    assert (opened["account"], opened["status"], opened["owner"], opened["limit"]) == ("c", "open", "cust_9", "none")
    await mounted_here.write("inbox/f.json", packed({"type": "freeze", "account": "c"}))
    frozen = json.loads(await mounted_here.read("accounts/c/account.json"))
    assert frozen["status"] == "frozen"
    assert frozen["as_of"]["index"] > opened["as_of"]["index"] == opened["opened_index"]
    assert {name: value for name, value in opened.items() if name not in ("status", "as_of")} == {
        name: value for name, value in frozen.items() if name not in ("status", "as_of")
    }


async def test_balance_file(mounted_here: Mounted) -> None:
    """Exactly these members; held money is not available; the sides. SEMANTICS 2.2"""
    await mounted_here.write("inbox/1.json", packed(pay("20.00")))
    await mounted_here.write("inbox/2.json", packed(HOLD))
    balance = json.loads(await mounted_here.read("accounts/b/balance.json"))
    as_of = balance.pop("as_of")
    assert balance == {"account": "b", "currency": "EUR", "balance": "20.00", "available": "15.00", "held": "5.00",
                       "debits": "0.00", "credits": "20.00"}  # fmt: skip
    assert list(as_of) == ["index", "tx", "seal", "time"]
    assert as_of["tx"] is None, "a hold is no transaction"
    other = json.loads(await mounted_here.read("accounts/a/balance.json"))
    assert (other["balance"], other["available"], other["held"]) == ("-20.00", "-20.00", "0.00")


async def test_many_accounts_share_the_room(engine: Engine, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was dropped from memory is worked out again."""
    ledger = Ledger(engine, Layout(store))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        names = [f"m{number}" for number in range(6)]
        await book(
            ledger, *[{"type": "open_account", "account": name, "currency": "EUR", "class": "equity"} for name in names]
        )
        await book(ledger, *[pay("1.00", one, two) for one in names for two in names if one != two])
        query = Query(ledger)
        monkeypatch.setattr(query, "_statements", statements.Cache(2))
        for _ in range(2):
            for ordinal in range(6):
                size, _ = query.log_size(ordinal)
                assert len(query.log_read(ordinal, 0, size)) == size
                statement, _ = await query.statement(ordinal)
                assert statement.read(0, statement.size).count(b"\r\n") == 11
        nursery.cancel_scope.cancel()
