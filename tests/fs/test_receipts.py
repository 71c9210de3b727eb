"""Receipts: their text at any offset, their files, and what survives a restart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerfsd import limits
from ledgerfsd.clock import NS_PER_DAY, ManualClock, format_date
from ledgerfsd.service.metrics import Metrics
from ledgerfsd.service.receipt_text import Outcome, ReceiptText, merged, refusal
from ledgerfsd.service.receipts import Answer, Receipts, number_of

NOW = 1_795_424_766_008_169_088


def outcome(first: int, count: int, index: int, tx: int) -> Outcome:
    """A run of committed lines."""
    return Outcome(first, first + count - 1, "committed", "ok", index, tx, 7)


@st.composite
def runs(draw: st.DrawFn) -> list[Outcome]:
    """Results of a file whose numbers pass powers of ten."""
    found: list[Outcome] = []
    line = draw(st.sampled_from([1, 8, 98, 9_990, 99_999]))
    for _ in range(draw(st.integers(1, 6))):
        count = draw(st.integers(1, 40))
        if draw(st.booleans()):
            index = draw(st.sampled_from([1, 7, 95, 985, 9_999, 999_980]))
            found.append(outcome(line, count, index, draw(st.sampled_from([0, 1, 9_970, 99_990]))))
        else:
            count = 1
            found.append(Outcome(line, line, "refused", "bad_json", offset=draw(st.integers(0, 99)), note='say "é"'))
        line += count
    return found


def plainly(results: list[Outcome]) -> str:
    """The text, line by line and without arithmetic."""
    made = ""
    for run in results:
        for skip in range(run.last - run.first + 1):
            one = msgspec.structs.replace(
                run,
                first=run.first + skip,
                last=run.first + skip,
                index=run.index + skip if run.index >= 0 else -1,
                tx=run.tx + skip if run.tx else 0,
            )
            made += ReceiptText([one], 0).read(0, 10_000).decode()
    return made


@given(runs(), st.integers(0, 12_000), st.integers(0, 2_000))
def test_text_at_any_offset(results: list[Outcome], offset: int, size: int) -> None:
    """Size and every piece are those of the text written out. SEMANTICS 1.3"""
    whole = plainly(results).encode()
    text = ReceiptText(results, 0)
    assert text.size == len(whole)
    assert text.read(0, len(whole) + 1) == whole
    assert text.read(offset, size) == whole[offset : offset + size]


def test_a_large_receipt_is_not_written_out() -> None:
    """A hundred million lines: the size is arithmetic, and a piece of the end takes no longer than one of the beginning."""
    text = ReceiptText([outcome(1, 10**8, 2, 1)], 0)
    assert text.size > 7 * 10**9
    tail = text.read(text.size - 200, 200).decode().splitlines()
    assert json.loads(tail[-1]) == {
        "line": 10**8,
        "status": "committed",
        "code": "ok",
        "index": 10**8 + 1,
        "tx": f"tx_{10**8}",
        "block": 7,
    }


@given(runs())
def test_neighbours_join(results: list[Outcome]) -> None:
    single = []
    for run in results:
        for skip in range(run.last - run.first + 1):
            single.append(
                msgspec.structs.replace(
                    run,
                    first=run.first + skip,
                    last=run.first + skip,
                    index=run.index + skip if run.index >= 0 else -1,
                    tx=run.tx + skip if run.tx else 0,
                )
            )
    joined: list[Outcome] = []
    merged(joined, single)
    assert len(joined) <= len(results)
    assert plainly(joined) == plainly(results)


def open_receipts(directory: Path, clock: ManualClock | None = None) -> Receipts:
    """A fresh look at a directory of receipts."""
    directory.mkdir(exist_ok=True)
    return Receipts(directory, clock or ManualClock(NOW), Metrics())


def shown(receipts: Receipts, name: str, *, dry_run: bool = False) -> list[str]:
    """The codes that a receipt shows."""
    answer = receipts.find(name, dry_run=dry_run)
    assert answer is not None
    text = receipts.text(answer)
    return [json.loads(line)["code"] for line in text.read(0, text.size).splitlines()]


def test_records_are_as_the_format_says(tmp_path: Path) -> None:
    """FORMAT, section 10."""
    receipts = open_receipts(tmp_path / "r")
    receipts.answer(Answer("x.ndjson", dry_run=False), [outcome(1, 3, 5, 1)], mode="each", size=99)
    receipts.close()
    record = (tmp_path / "r" / f"{format_date(NOW)}.ndjson").read_text()
    assert record == (
        '{"file":"x.ndjson","time":"2026-11-23T09:06:06.008169088Z","mode":"each","bytes":99,'
        '"results":[{"lines":[1,3],"status":"committed","code":"ok","index":5,"tx":1,"block":7}]}\n'
    )


def test_documents_that_were_judged_together_have_the_same_records(tmp_path: Path) -> None:
    """FORMAT, section 10: whether one by one or all in one write; and their answers point at them.

    (Those that the core writes are compared with these in tests/fuse/test_front.py.)
    """
    names = ("x.json", 'ü "quoted".json')
    refused = [refusal(1, "bad_json")]
    one, all_ = open_receipts(tmp_path / "one"), open_receipts(tmp_path / "all")
    for name in names:
        one.answer(Answer(name, dry_run=False), [outcome(1, 1, 5, 3)], mode="document", size=99)
        one.answer(Answer("no" + name, dry_run=False), refused, mode="document", size=9)
    committed = [outcome(1, 1, 5, 3)]
    documents = [each for name in names for each in ((name, 99, committed), ("no" + name, 9, refused))]
    all_.answer_documents(documents)
    files = [tmp_path / place / f"{format_date(NOW)}.ndjson" for place in ("one", "all")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for name, code in zip(names, ("ok", "ok"), strict=True):
        assert shown(all_, name) == [code]
        assert shown(all_, "no" + name) == ["bad_json"]


def test_receipts_survive_a_restart(tmp_path: Path) -> None:
    """Over midnight, with parts, a cut-off record and one of a dry run. SEMANTICS 8.4, SEMANTICS 8.3, SEMANTICS 1.6"""
    clock = ManualClock(NOW)
    receipts = open_receipts(tmp_path / "r", clock)
    long = Answer("long.ndjson", dry_run=False)
    receipts.answer(long, [outcome(1, 2, 5, 1)], mode="each", size=9)
    receipts.answer(Answer("x.json", dry_run=False), [refusal(1, "bad_json")], mode="document", size=9)
    clock.advance(NS_PER_DAY)
    receipts.answer(long, [refusal(3, "zero_amount")], mode="each", size=9)
    receipts.answer(Answer("x.json", dry_run=False), [outcome(1, 1, 9, 3)], mode="document", size=9)
    receipts.answer(Answer("x.json", dry_run=True), [refusal(1, "bad_date")], mode="document", size=9)
    receipts.close()
    newest = sorted((tmp_path / "r").iterdir())[-1]
    with newest.open("ab") as file:
        file.write(b'{"file":"cut.json","time":"20')
    again = open_receipts(tmp_path / "r", clock)
    assert shown(again, "long.ndjson") == ["ok", "ok", "zero_amount"]
    assert shown(again, "x.json") == ["ok"]
    assert shown(again, "x.json", dry_run=True) == ["bad_date"]
    assert again.find("cut.json") is None
    assert [answer.name for answer in again.answers()] == ["long.ndjson", "x.json"]
    found, before = again.find("long.ndjson"), receipts.find("long.ndjson")
    assert found is not None
    assert before is not None
    assert (found.number, found.mtime_ns, found.last_line) == (before.number, before.mtime_ns, 3)
    again.answer(Answer("after.json", dry_run=False), [outcome(1, 1, 9, 3)], mode="document", size=9)
    assert shown(open_receipts(tmp_path / "r", clock), "after.json") == ["ok"], (
        "not glued to the record that was cut off"
    )


def test_only_the_newest_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are kept in the store. SEMANTICS 8.3"""
    monkeypatch.setattr(limits, "RECEIPTS_LISTED_MAX", 3)
    clock = ManualClock(NOW)
    receipts = open_receipts(tmp_path / "r", clock)
    for number in range(5):
        clock.advance(NS_PER_DAY)
        receipts.answer(Answer(f"{number}.json", dry_run=False), [outcome(1, 1, 9, 3)], mode="document", size=9)
    for found in (receipts, open_receipts(tmp_path / "r", clock)):
        assert [answer.name for answer in found.answers()] == ["2.json", "3.json", "4.json"]
    assert len(list((tmp_path / "r").iterdir())) == 5


def test_a_receipt_that_cannot_be_written_is_kept(tmp_path: Path) -> None:
    """SEMANTICS 8.4"""
    receipts = open_receipts(tmp_path / "r")
    shutil.rmtree(tmp_path / "r")
    receipts.answer(Answer("x.json", dry_run=False), [outcome(1, 1, 9, 3)], mode="document", size=9)
    assert shown(receipts, "x.json") == ["ok"]
    assert "receipts/" in receipts.failure
    (tmp_path / "r").mkdir()
    receipts.answer(Answer("y.json", dry_run=False), [outcome(1, 1, 9, 3)], mode="document", size=9)
    assert receipts.failure == ""
    assert shown(open_receipts(tmp_path / "r"), "y.json") == ["ok"]
    shutil.rmtree(tmp_path / "r")
    assert shown(receipts, "x.json") == ["ok"]
    answer = receipts.find("y.json")
    assert answer is not None
    answer.mtime_ns += 1  # so that it is read again
    assert receipts.text(answer).size == 0


def test_the_time_of_the_newest_never_goes_back(tmp_path: Path) -> None:
    """What the core recorded may be known after what was recorded here, and have been earlier."""
    receipts = Receipts(tmp_path, ManualClock(NOW), Metrics())
    receipts.answer(Answer("here.json", dry_run=False), [outcome(1, 1, 5, 2)], mode="document", size=9)
    receipts.recorded("core.json", number_of("core.json", dry_run=False), NOW - 1_000, 0, 10)
    assert receipts.mtime_ns == NOW
    receipts.recorded("later.json", number_of("later.json", dry_run=False), NOW + 1_000, 10, 10)
    assert receipts.mtime_ns == NOW + 1_000
