"""Adding up the raw log: where it ends, and what it finds when an entry does not follow from those before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.cli import main as cli
from ledgerfsd.core.pure.canonical import dump
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.errors import DamageError, LedgerError
from ledgerfsd.journal.layout import Layout
from ledgerfsd.journal.replay import Replay, Until
from tests.fuse import past_history
from tests.unit.test_pure_ledger import NOW, begin, submit

Json = dict[str, Any]

HISTORY = b"""\
{"debit":"a","credit":"b","amount":"7.50"}
{"type":"hold","id":"h1","debit":"a","credit":"b","amount":"5.00"}
{"type":"post","hold":"h1","amount":"2.00"}
{"type":"hold","id":"h2","debit":"a","credit":"b","amount":"1.00"}
{"type":"void","hold":"h2"}
{"type":"freeze","account":"d"}
{"type":"register_currency","currency":"PTS","decimals":3}
{"type":"open_account","account":"p","class":"suspense","currency":"PTS","initial_balance":"1.000"}
"""


@pytest.fixture(scope="module")
def entries() -> list[bytes]:
    ledger = begin()
    results = submit(ledger, HISTORY, b"history.ndjson")
    assert {result.code for result in results} == {0}
    ledger.seal(NOW)
    return ledger.entries


def replayed(entries: list[bytes], until: Until = Until("end")) -> Replay:  # noqa: B008
    found = Replay()
    found.run(entries, until)
    return found


def test_points() -> None:
    assert Until.parse("block-12") == Until("block", 12)
    assert Until.parse("2026-02-28") == Until.parse("2026-02") == Until("time", time="2026-02-28T23:59:59.999999999Z")
    assert Until.parse("2026-02-28T01:00:00+02:00") == Until("time", time="2026-02-27T23:00:00.000000000Z")
    for text in ("block-0", "tx-", "2026-13", "2026-02-30", "x", "", "1969-12-31"):
        assert Until.parse(text) is None, text


def test_every_prefix_is_what_the_twin_says(entries: list[bytes]) -> None:
    for size in range(2, len(entries) + 1):
        found = replayed(entries, Until("size", size))
        assert found.size == size
        for account in Ledger.replay(entries[:size]).accounts:
            mine = found.accounts[account.name]
            assert (mine.debits, mine.credits, mine.status) == (account.debits, account.credits, account.status)
            assert (mine.held_debits, mine.held_credits) == (account.held_debits, account.held_credits)
            assert (mine.index, mine.decimals) == (account.last_index, account.decimals)


def test_a_batch_counts_with_its_seal(entries: list[bytes]) -> None:
    whole = replayed(entries[: entries.index(entries[-1])])
    assert whole.size == whole.sealed < len(entries) - 1
    with pytest.raises(LedgerError, match="there is no size"):
        replayed(entries[:-1], Until("size", len(entries) - 1))
    with pytest.raises(LedgerError, match="there is no tx 99"):
        replayed(entries, Until("tx", 99))


def changed(entries: list[bytes], kind: str, change: Json, *, posting: int | None = None) -> tuple[list[bytes], int]:
    """The log with one entry of this kind changed, and its index."""
    values = [json.loads(entry) for entry in entries]
    index = next(index for index in range(len(values) - 1, 0, -1) if values[index]["t"] == kind)
    (values[index] if posting is None else values[index]["postings"][posting]).update(change)
    return [*entries[:index], dump(values[index]), *entries[index + 1 :]], index


@pytest.mark.parametrize(
    ("kind", "change", "posting"),
    [
        ("txn/1", {"amount": "1.001"}, 0),
        ("txn/1", {"amount": "10.00"}, 0),
        ("txn/1", {"debits": "9.000"}, 0),
        ("txn/1", {"tx": 77}, None),
        ("post/1", {"amount": "2.01"}, 1),
        ("post/1", {"held_debits": "1.00"}, 0),
        ("post/1", {"hold": "h9"}, None),
        ("hold/1", {"amount": "0.01"}, 1),
        ("void/1", {"hold": "h1"}, None),
        ("account/1", {"account": "a"}, None),
        ("account/1", {"currency": "XXL"}, None),
        ("account.update/1", {"account": "nobody"}, None),
        ("seal/1", {"count": 3}, None),
        ("seal/1", {"height": 9}, None),
        ("hold/1", {"index": 3}, None),
        ("txn/1", {"postings": "none"}, None),
    ],
)
def test_what_does_not_follow_is_named(entries: list[bytes], kind: str, change: Json, posting: int | None) -> None:
    wrong, index = changed(entries, kind, change, posting=posting)
    with pytest.raises(DamageError, match=f"entry {index}: "):
        replayed(wrong)


def test_a_store_that_is_not_mounted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn end is no damage; a hole before other blocks is."""
    layout = past_history.make(tmp_path / "store", 4, 40)
    entries = past_history.entries_of(layout)
    assert cli.main(["replay", "--store", str(layout.root), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["account"] for row in rows] == list(past_history.twin_at(entries, len(entries)))
    segment = layout.segments()[-1]
    data = bytearray(segment.read_bytes())
    end = sum(2 + len(entry) for entry in entries)
    torn = data.copy()
    torn[end : end + 40] = b"\x00\x60" + b"{" * 38
    segment.write_bytes(torn)
    assert cli.main(["replay", "--store", str(layout.root), "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    hole = sum(2 + len(entry) for entry in entries[:30])
    data[hole : hole + 2] = b"\0\0"
    segment.write_bytes(data)
    assert cli.main(["replay", "--store", str(layout.root)]) == 4
    assert "entry 30" in capsys.readouterr().err


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout: Layout = past_history.make(tmp_path / "store", 4, 9)
    for arguments, text in (
        (["--until", "soon"], "there is no point 'soon'"),
        (["--mount", "x"], "give one of them"),
        (["nobody"], "no account 'nobody'"),
        (["--until", "tx-999"], "there is no tx 999"),
    ):
        assert cli.main(["replay", "--store", str(layout.root), *arguments]) == 1
        assert text in capsys.readouterr().err
