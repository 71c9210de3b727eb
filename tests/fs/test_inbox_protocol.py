"""One open inbox file: any way of cutting what is written into pieces gives the same verdict and the same receipt."""

from __future__ import annotations

import errno
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerfsd import limits
from ledgerfsd.errors import Refused
from ledgerfsd.service import inbox as inboxes
from ledgerfsd.service import inbox_lines
from ledgerfsd.service.inbox import Area
from tests.fs.conftest import Drops, lines, packed, pay

pytestmark = pytest.mark.trio
_numbers = itertools.count()


async def feed(drops: Drops, name: str, pieces: list[bytes], area: Area = Area.INBOX, flush: bool = True) -> list[str]:
    """Write a file piece by piece as a program that goes on after errors would; the codes that it was told."""
    handle = drops.open(name, area)
    told = []
    position = 0
    for piece in pieces:
        try:
            await handle.write(position, piece)
            position += len(piece)
        except Refused as error:
            told.append(error.code.name)
    if flush:
        try:
            await handle.flush()
        except Refused as error:
            told.append(error.code.name)
    await handle.release()
    return told


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` in pieces."""
    bounds = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(bounds) if end > begin]


LINES = [
    pay("1.00", "b", "a"),
    pay("999.00", "b", "a"),  # beyond the balance of b
    pay("2.00"),
    "not JSON",
    pay("3.00", metadata={"quoted": 'bracket } and " in a string', "nested": [{}, [], "{"]}),
]


async def test_any_cut_of_lines_is_the_same(drops: Drops) -> None:
    """Each line for itself, however it arrives. SEMANTICS 4.1"""
    await feed(drops, "fund.json", [packed(pay("50.00"))])

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, 2000), max_size=12), st.lists(st.sampled_from(range(5)), max_size=8), st.booleans())
    def property_holds(places: list[int], chosen: list[int], newline: bool) -> None:
        texts = [text if isinstance(text, str) else json.dumps(text) for text in (LINES[which] for which in chosen)]
        data = "\n".join(texts).encode() + (b"\n" if newline else b"")
        cases.append((data, cut(data, places), [_code(which) for which in chosen]))

    cases: list[tuple[bytes, list[bytes], list[str]]] = []
    property_holds()
    for data, pieces, codes in cases:
        name = f"cut-{next(_numbers)}.ndjson"
        before = drops.transactions
        told = await feed(drops, name, pieces)
        if not data.strip():
            assert drops.codes(name) == ["empty"]
            continue
        assert drops.transactions - before == codes.count("ok")
        assert drops.codes(name) == codes, data
        assert [line["line"] for line in drops.receipt(name)] == list(range(1, len(codes) + 1))
        assert bool(told) == any(code != "ok" for code in codes)


def _code(which: int) -> str:
    return {1: "insufficient_funds", 3: "bad_json"}.get(which, "ok")


async def test_any_cut_of_a_document_is_the_same(drops: Drops) -> None:
    """Complete with its last bracket, neither before nor after. SEMANTICS 3.1"""
    cases: list[list[int]] = []

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, 400), max_size=10))
    def collect(places: list[int]) -> None:
        cases.append(places)

    collect()
    for places in cases:
        data = b" \n" + packed([pay("1.00"), LINES[4]]) + b" \n"
        name = f"document-{next(_numbers)}.json"
        before = drops.transactions
        handle = drops.open(name)
        position = 0
        for piece in cut(data, places):
            complete = position + len(piece) >= len(data) - 2
            await handle.write(position, piece)
            position += len(piece)
            assert drops.transactions - before == (2 if complete else 0)
            if not complete:
                with pytest.raises(Refused) as refused:
                    await handle.flush()
                assert refused.value.code.name in ("incomplete", "empty")
        await handle.flush()
        await handle.release()
        assert drops.codes(name) == ["ok", "ok"]


async def test_release_never_commits(drops: Drops) -> None:
    """What no flush has seen is not committed by the last close. SEMANTICS 3.4"""
    before = drops.transactions
    await feed(drops, "half.json", [packed(pay())[:-1]], flush=False)
    await feed(drops, "line.ndjson", [packed(pay())], flush=False)
    assert drops.transactions == before
    assert drops.codes("half.json") == drops.codes("line.ndjson") == ["incomplete"]


async def test_limits_of_documents_and_lines(drops: Drops) -> None:
    """The write that passes a limit fails. SEMANTICS 3.7"""
    long = b'{"metadata":"' + b"x" * limits.INTENT_BYTES_MAX
    assert await feed(drops, "long.json", [long]) == ["too_large"] * 2
    assert await feed(drops, "long.ndjson", [b"[" + long, b"rest\n", *[lines(pay())]]) == ["too_large"] * 2
    assert drops.codes("long.ndjson") == ["too_large", "ok"]
    huge = [b"[" + b" " * limits.MIB] * (limits.DOCUMENT_BYTES_MAX // limits.MIB + 1)
    handle = drops.open("huge.json")
    with pytest.raises(Refused) as refused:
        for number, piece in enumerate(huge):
            await handle.write(number * len(piece), piece)
    assert refused.value.code.name == "too_large"
    await handle.release()
    assert drops.inbox.staged == 0


async def test_staged_bytes_are_bounded(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch files: a limit for each, one for all, and old ones make room. SEMANTICS 6.5"""
    monkeypatch.setattr(inboxes, "SCRATCH_BYTES_MAX", 1000)
    monkeypatch.setattr(inboxes, "STAGED_BYTES_MAX", 2000)
    first = drops.open("one.tmp")
    with pytest.raises(OSError, match="large") as error:
        await first.write(0, b"x" * 1001)
    assert error.value.errno == errno.EFBIG
    assert drops.codes("one.tmp") == ["too_large"]
    await first.write(0, b"x" * 1000)
    await first.release()
    second = drops.open("two.tmp")
    await second.write(0, b"x" * 1000)
    third = drops.open("three.tmp")
    with pytest.raises(OSError, match="space") as error:
        await third.write(0, b"x")
    assert error.value.errno == errno.ENOSPC
    assert drops.codes("three.tmp") == ["busy"]
    monkeypatch.setattr(inboxes, "SCRATCH_IDLE_SECONDS", -1)
    await third.write(0, b"x")
    assert drops.inbox.find(Area.INBOX, b"one.tmp") is None
    assert drops.inbox.find(Area.INBOX, b"two.tmp") is not None, "somebody has it open"
    assert drops.inbox.staged == 1001


async def test_handles_are_bounded(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEMANTICS 7.6"""
    monkeypatch.setattr(inboxes, "HANDLES_MAX", 2)
    handles = [drops.open("1.json"), drops.open("2.json")]
    with pytest.raises(OSError, match="open files") as error:
        drops.open("3.json")
    assert error.value.errno == errno.ENFILE
    await handles[0].release()
    drops.open("3.json")


async def test_answered_files_are_bounded(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest answered files go, open and scratch files stay. SEMANTICS 7.2"""
    monkeypatch.setattr(inboxes, "FILES_SHOWN_MAX", 4)
    kept = drops.open("open.json")
    await feed(drops, "kept.tmp", [b"draft"])
    for number in range(5):
        await feed(drops, f"{number}.json", [packed(pay())])
    assert [file.name for file in drops.inbox.files(Area.INBOX)] == [b"open.json", b"kept.tmp", b"3.json", b"4.json"]
    assert drops.codes("0.json") == ["ok"]
    await kept.release()


async def test_pipelined_lines(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large write returns before its lines are durable; a later call reports what was refused. SEMANTICS 4.2"""
    monkeypatch.setattr(inbox_lines, "SMALL_WRITE", 1)
    handle = drops.open("stream.ndjson")
    bad, good = lines(pay("1.00", "b", "nobody")), lines(*[pay()] * 50)
    await handle.write(0, bad)
    await handle.write(len(bad), good)
    with pytest.raises(Refused) as refused:
        await handle.fsync()
    assert refused.value.code.name == "unknown_account"
    await handle.fsync()  # told once
    with pytest.raises(Refused):
        await handle.flush()  # close tells it always (SEMANTICS 4.3)
    assert drops.codes("stream.ndjson") == ["unknown_account"] + ["ok"] * 50
    await handle.release()


async def test_outstanding_lines_are_bounded(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEMANTICS 4.2"""
    monkeypatch.setattr(inbox_lines, "SMALL_WRITE", 1)
    monkeypatch.setattr(inbox_lines, "PIPELINE_BYTES_MAX", 10_000)
    handle = drops.open("stream.ndjson")
    piece = lines(*[pay()] * 20)
    for number in range(50):
        await handle.write(number * len(piece), piece)
        assert handle._outstanding <= 10_000
    await handle.flush()
    await handle.release()
    assert drops.codes("stream.ndjson") == ["ok"] * 1000


async def test_lines_that_append_are_counted_on(drops: Drops) -> None:
    """Two writers that append share the count, and it goes on in a new file of the same name. SEMANTICS 4.6"""
    one, two = drops.open("a.ndjson", append=True), drops.open("a.ndjson", append=True)
    before = drops.transactions
    for handle in (one, two, one, two):
        await handle.write(0, lines(pay()))
    assert drops.transactions - before == 4
    drops.inbox.unlink(Area.INBOX, b"a.ndjson")
    for handle in (one, two):
        await handle.release()
    later = drops.open("a.ndjson", append=True)
    await later.write(0, lines(pay()))
    assert drops.transactions - before == 5
    assert [line["line"] for line in drops.receipt("a.ndjson")] == [5]
    await later.release()
    assert await feed(drops, "a.ndjson", [lines(pay())]) == []  # from the beginning: line 1, which is known
    assert drops.transactions - before == 5
    assert drops.receipt("a.ndjson")[0]["status"] == "duplicate"


@pytest.mark.parametrize("append", [False, True])
async def test_a_failed_write_comes_again(drops: Drops, append: bool) -> None:
    """Twice, with more behind it, and once more, while another writer appends. SEMANTICS 4.8"""
    good, bad, half = lines(pay("1.00")), lines(pay("1.00", "nobody")), packed(pay("7.00"))
    before = drops.transactions
    handle, other = drops.open("again.ndjson", append=append), drops.open("again.ndjson", append=True)
    first = good + bad + half[:9]
    second = good + bad + half + b"\n" + bad + good
    for data in (first, first, second, second):
        with pytest.raises(Refused):
            await handle.write(0, data)
        await other.write(0, lines(pay("9.00")))
    await handle.write(0, second + good)  # what it brings anew is good, and the rest was told
    position = len(second + good)
    await handle.write(position, good)
    assert drops.transactions - before == 5 + 4
    with pytest.raises(Refused):
        await handle.flush()
    for one in (handle, other):
        await one.release()


async def test_a_refusal_of_lines_before_fails_a_good_write(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own lines are booked, and not again when it comes again. SEMANTICS 4.2, SEMANTICS 4.8"""
    monkeypatch.setattr(inbox_lines, "SMALL_WRITE", 1)
    bad, good = lines(pay("1.00", "nobody")), lines(pay("1.00"), pay("2.00"))
    monkeypatch.setattr(inbox_lines, "PIPELINE_BYTES_MAX", len(good))
    before = drops.transactions
    handle = drops.open("late.ndjson")
    await handle.write(0, bad)
    with pytest.raises(Refused):
        await handle.write(len(bad), good)
    assert drops.codes("late.ndjson") == ["unknown_account", "ok", "ok"]
    for offset in (len(bad), len(bad + good)):
        await handle.write(offset, good)
    await handle.fsync()
    assert drops.transactions == before + 4
    await handle.release()
    assert drops.codes("late.ndjson") == ["unknown_account"] + ["ok"] * 4


async def test_a_line_that_close_committed_is_over(drops: Drops) -> None:
    """SEMANTICS 4.4"""
    handle = drops.open("tail.ndjson")
    before = drops.transactions
    text = packed(pay())
    await handle.write(0, text)
    assert drops.transactions == before
    await handle.flush()
    assert drops.transactions == before + 1
    await handle.write(len(text), b" \n" + lines(pay("2.00")) + packed(pay("3.00")))
    await handle.fsync()
    position = len(text) + 2 + len(lines(pay("2.00"))) + len(packed(pay("3.00")))
    with pytest.raises(Refused) as refused:
        await handle.write(position, b'{"more":1}\n' + lines(pay("4.00")))
    assert refused.value.code.name == "already_committed"
    await handle.release()
    assert drops.codes("tail.ndjson") == ["ok", "ok", "ok", "already_committed", "ok"]
    assert [line["line"] for line in drops.receipt("tail.ndjson")] == [1, 2, 3, 3, 4]


async def test_batches(drops: Drops) -> None:
    """A count, met exactly. SEMANTICS 5.1, SEMANTICS 5.2"""
    before = drops.transactions
    header = b'{"count":2}\n'
    body = lines(pay("1.00"), pay("2.00"))
    handle = drops.open("good.ndjson", Area.ATOMIC)
    whole = header + b"\n" + body
    await handle.write(0, whole[:-30])
    assert drops.transactions == before
    await handle.write(len(whole) - 30, whole[-30:-1])  # the bracket is there, the newline is not
    assert drops.transactions == before + 2
    await handle.write(len(whole) - 1, b"\n\n")
    await handle.flush()
    with pytest.raises(Refused) as refused:
        await handle.write(len(whole) + 1, lines(pay()))
    assert refused.value.code.name == "already_committed"
    await handle.release()
    assert drops.codes("good.ndjson") == ["ok", "ok", "already_committed"]
    assert [line["line"] for line in drops.receipt("good.ndjson")] == [3, 4, 5]

    assert await feed(drops, "more.ndjson", [header + body + body], Area.ATOMIC) == ["too_many_intents"] * 2
    assert await feed(drops, "less.ndjson", [header + lines(pay())], Area.ATOMIC) == ["incomplete"]
    assert await feed(drops, "none.ndjson", [b'{"count":0}\n'], Area.ATOMIC) == ["empty_batch"] * 2
    assert await feed(drops, "plain.ndjson", [body], Area.ATOMIC) == ["incomplete"]
    assert "rename" in drops.receipt("plain.ndjson")[0]["note"]
    assert await feed(drops, "one-bad.ndjson", [header + lines(pay(), pay("900.00", "c", "b", currency="USD"))],
                      Area.ATOMIC) == ["currency_mismatch"] * 2  # fmt: skip
    assert drops.codes("one-bad.ndjson") == ["batch_aborted", "currency_mismatch"]
    many = b'{"count":9000}\n'
    assert await feed(drops, "many.ndjson", [many], Area.ATOMIC) == ["too_many_intents"] * 2
    assert drops.transactions == before + 2


async def test_renames_commit(drops: Drops) -> None:
    """SEMANTICS 6.2, SEMANTICS 5.1"""
    before = drops.transactions
    body = lines(pay("1.00"), pay("2.00"))
    for area, name, content in (
        (Area.INBOX, b"r.json", packed(pay())),
        (Area.INBOX, b"r.ndjson", body),
        (Area.ATOMIC, b"ra.ndjson", body),
        (Area.ATOMIC, b"rh.ndjson", b'{"count":2}\n' + body),
        (Area.DRY_RUN, b"rd.ndjson", body),
    ):
        await feed(drops, ".draft", [content])
        await drops.inbox.rename(Area.INBOX, b".draft", area, name, replace=True)
        assert drops.inbox.find(Area.INBOX, b".draft") is None
        assert set(drops.codes(name.decode(), dry_run=area is Area.DRY_RUN)) == {"ok"}
    assert drops.transactions == before + 1 + 2 + 2 + 2
    assert drops.inbox.staged == 0


async def test_a_renamed_file_of_equal_lines(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that looks like the one before, which was refused in part, is another one all the same. SEMANTICS 6.2"""
    line = lines(pay("1.00", "b", "a"))
    monkeypatch.setattr(inboxes, "RENAME_PIECE", 2 * len(line))
    await feed(drops, "fund.json", [packed(pay("3.00"))])
    await feed(drops, "equal.tmp", [line * 8])
    with pytest.raises(Refused) as refused:
        await drops.inbox.rename(Area.INBOX, b"equal.tmp", Area.INBOX, b"equal.ndjson", replace=True)
    assert refused.value.code.name == "insufficient_funds"
    assert drops.codes("equal.ndjson") == ["ok"] * 3 + ["insufficient_funds"] * 5
    assert [found["line"] for found in drops.receipt("equal.ndjson")] == list(range(1, 9))


async def test_refused_renames_leave_the_file(drops: Drops) -> None:
    """SEMANTICS 6.2"""
    before = drops.transactions
    for content, name, code in (
        (packed(pay("1.00", "nobody")), "r.json", "unknown_account"),
        (packed(pay())[:-1], "h.json", "incomplete"),
        (b"", "e.json", "empty"),
        (b"\n", "e.ndjson", "empty"),
        (b'{"count":3}\n' + lines(pay()), "short.ndjson", "incomplete"),
    ):
        await feed(drops, "draft.tmp", [content] if content else [])
        area = Area.ATOMIC if name == "short.ndjson" else Area.INBOX
        if name == "e.ndjson":
            await drops.inbox.rename(Area.INBOX, b"draft.tmp", area, name.encode(), replace=True)
        else:
            with pytest.raises(Refused) as refused:
                await drops.inbox.rename(Area.INBOX, b"draft.tmp", area, name.encode(), replace=True)
            assert refused.value.code.name == code
            assert drops.inbox.find(Area.INBOX, b"draft.tmp") is not None
            drops.inbox.unlink(Area.INBOX, b"draft.tmp")
        assert drops.codes(name) == [code]
    assert drops.transactions == before
    mixed = lines(pay("1.00"), pay("1.00", "nobody"), pay("2.00"))
    await feed(drops, "draft.tmp", [mixed])
    for _ in range(2):  # the second time everything is known already
        with pytest.raises(Refused):
            await drops.inbox.rename(Area.INBOX, b"draft.tmp", Area.INBOX, b"mixed.ndjson", replace=True)
        assert drops.transactions == before + 2
    assert [line["status"] for line in drops.receipt("mixed.ndjson")] == ["duplicate", "refused", "duplicate"]


async def test_answered_files_do_not_commit_again(drops: Drops) -> None:
    """SEMANTICS 6.4"""
    await feed(drops, "a.json", [packed(pay())])
    before = drops.transactions
    for area, name in ((Area.INBOX, b"b.json"), (Area.ATOMIC, b"a.json"), (Area.ATOMIC, b"a.json~")):
        with pytest.raises(OSError, match="renamed") as error:
            await drops.inbox.rename(Area.INBOX, b"a.json", area, name, replace=True)
        assert error.value.errno == errno.EPERM
    await drops.inbox.rename(Area.INBOX, b"a.json", Area.INBOX, b"a.json~", replace=True)
    with pytest.raises(OSError, match="answer"):
        drops.open("a.json~")
    with pytest.raises(OSError, match="renamed"):
        await drops.inbox.rename(Area.INBOX, b"a.json~", Area.INBOX, b"c.json", replace=True)
    await drops.inbox.rename(Area.INBOX, b"a.json~", Area.INBOX, b"a.json", replace=True)
    assert drops.transactions == before


async def test_a_scratch_file_renamed_while_open(drops: Drops) -> None:
    """What comes after the rename is too late. SEMANTICS 6.2"""
    handle = drops.open("x.tmp")
    await handle.write(0, packed(pay()))
    before = drops.transactions
    await drops.inbox.rename(Area.INBOX, b"x.tmp", Area.INBOX, b"x.json", replace=True)
    assert drops.transactions == before + 1
    await handle.write(100, b"\n")
    with pytest.raises(Refused) as refused:
        await handle.write(101, packed(pay()))
    assert refused.value.code.name == "already_committed"
    await handle.release()
    assert drops.transactions == before + 1


async def test_incomplete_is_superseded(drops: Drops) -> None:
    """A receipt that said "incomplete" says what became of it later. SEMANTICS 8.3"""
    handle = drops.open("slow.ndjson")
    text = lines(pay("1.00")) + packed(pay("2.00"))
    await handle.write(0, text[:-5])
    with pytest.raises(Refused):
        await handle.flush()
    assert drops.codes("slow.ndjson") == ["ok", "incomplete"]
    await handle.write(len(text) - 5, text[-5:])
    await handle.flush()
    await handle.release()
    assert drops.codes("slow.ndjson") == ["ok", "ok"]
