"""The engine by itself: batches, reading, runs of results, watching, saving, expiry. (Equality with the twin: tests/property.)"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.clock import NS_PER_SECOND, format_time
from ledgerfsd.core import hashing
from ledgerfsd.core.engine import Attending, Completion, Engine, SavedState
from ledgerfsd.core.pure.hashing import leaf_hashes, mth
from ledgerfsd.errors import BY_NAME, StoreError
from ledgerfsd.types import Mode

SEGMENT_BYTES = 1 << 20


def make_store(path: Path) -> Path:
    (path / "journal").mkdir(parents=True)
    Engine.create(path, "ledger.example/engine", segment_bytes=SEGMENT_BYTES)
    return path


def kept(saved: SavedState) -> SavedState:
    """With its pages as they are now."""
    return saved._replace(pages=dict(saved.pages))


def open_engine(store: Path, saved: SavedState | None = None) -> Engine:
    engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=100_000, saved=saved)
    engine.start()
    return engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(make_store(tmp_path / "store"))
    yield engine
    engine.close()


def submit(engine: Engine, *lines: str, mode: Mode = Mode.EACH, dry_run: bool = False) -> Completion:
    engine.submit("\n".join(lines).encode(), source=b"f", first_line=1, mode=mode, dry_run=dry_run)
    engine.drain()
    (completion,) = engine.completions()
    return completion


def opening(name: str, balance: str = "1000.00") -> str:
    return json.dumps(
        {"type": "open_account", "account": name, "class": "equity", "currency": "EUR", "initial_balance": balance}
    )


def transfer(number: int, amount: str = "1.00") -> str:
    return json.dumps({"id": f"t{number}", "debit": "a", "credit": "b", "amount": amount})


def test_tiles_and_bundles_hold_the_entries(engine: Engine) -> None:
    submit(engine, opening("a"), opening("b"))
    for first in range(0, 700, 100):
        submit(engine, *[transfer(number) for number in range(first, first + 100)])
    entries = [bytes(engine.entry(index)) for index in range(engine.counts().entries)]
    leaves = leaf_hashes(entries)
    assert engine.hashes(0, 0, len(entries)) == leaves
    assert engine.level_size(1) == len(entries) // 256 == 2
    assert engine.hashes(1, 0, 2) == mth(leaves[: 256 * 32]) + mth(leaves[256 * 32 : 512 * 32])
    assert engine.hashes(1, 0, 2)[:32] == hashing.mth(leaves[: 256 * 32])
    for number, width in [(0, 256), (1, 256), (0, 1), (2, len(entries) - 512)]:
        begin = 256 * number
        expected = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries[begin : begin + width])
        assert engine.bundle(number, width) == expected
    for refused in [(2, 256), (3, 1), (0, 0), (0, 257), (-1, 1)]:
        with pytest.raises(IndexError):
            engine.bundle(*refused)
    with pytest.raises(IndexError):
        engine.hashes(1, 2, 1)
    for index in (-1, len(entries)):
        with pytest.raises(IndexError):
            engine.entry(index)


def test_numbers_lead_to_entries_and_back(engine: Engine) -> None:
    submit(engine, opening("a"), opening("b"))
    submit(engine, transfer(1), transfer(2))
    counts = engine.counts()
    for number in range(1, counts.transactions + 1):
        assert json.loads(bytes(engine.entry(engine.transaction(number))))["tx"] == number
    for height in range(1, counts.blocks + 1):
        seal = json.loads(bytes(engine.entry(engine.block(height))))
        assert seal["height"] == height
        for index in range(seal["first"], seal["index"] + 1):
            assert engine.block_of(index) == height
    for wrong in (0, -1, counts.transactions + 1):
        with pytest.raises(IndexError):
            engine.transaction(wrong)
    with pytest.raises(IndexError):
        engine.block(counts.blocks + 1)


def test_amounts_are_written_as_they_were_given(engine: Engine) -> None:
    """Around each power of ten, where an amount gets a digit more, and beyond 64 bits."""
    submit(engine, opening("a", "9" * 30 + ".00"), opening("b"))
    whole = [10**power + more for power in range(28) for more in (-1, 0, 1)]
    amounts = [f"{value}.{value % 100:02}" for value in whole if value] + ["0.01", "0.10", "0.99"]
    completion = submit(engine, *[transfer(number, amount) for number, amount in enumerate(amounts)])
    assert completion.committed == len(amounts)
    total = 100_000
    for amount, entry in zip(
        amounts, [json.loads(bytes(engine.entry(each.index))) for each in completion], strict=True
    ):
        total += int(amount.replace(".", ""))
        assert [posting["amount"] for posting in entry["postings"]] == [amount, amount]
        assert entry["postings"][1]["credits"] == f"{total // 100}.{total % 100:02}"


def test_results_of_one_outcome_are_one_run(engine: Engine) -> None:
    submit(engine, opening("a"), opening("b"))
    lines = [transfer(1), transfer(2), "{", "", transfer(2), transfer(3), transfer(4)]
    completion = submit(engine, *lines)
    runs = [(run.first.line, run.count, run.first.code, run.first.duplicate) for run in completion.runs()]
    assert runs == [(1, 2, 0, False), (3, 1, BY_NAME["incomplete"].number, False), (5, 1, 0, True), (6, 2, 0, False)]
    assert (completion.lines, len(completion), completion.committed) == (7, 6, 5)
    refused = completion.refused
    assert refused is not None
    assert (refused.line, refused.offset, refused.index) == (3, 1, -1)


def test_watched_accounts_are_reported_once(engine: Engine) -> None:
    submit(engine, opening("a"), opening("b"))
    a, b = engine.ordinal(b"a"), engine.ordinal(b"b")
    assert engine.ordinal(b"nobody") == engine.ordinal(b"not/a name") == -1
    engine.watch(a, True)
    submit(engine, transfer(1), transfer(2))
    assert engine.touched() == [a]
    assert engine.touched() == []
    engine.watch(a, False)
    engine.watch(b, True)
    submit(engine, transfer(3))
    assert engine.touched() == [b]


def test_save_holds_what_changed_and_opens_again(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    engine = open_engine(store)
    submit(engine, opening("a"), opening("b"), *[opening(f"c{number}") for number in range(200)])
    first = kept(engine.save())
    engine.saved(True)
    submit(engine, transfer(1))
    lost = kept(engine.save())
    engine.saved(False)
    second = kept(engine.save())
    engine.saved(True)
    assert len(first.pages) == 4
    assert set(lost.pages) == set(second.pages) == {0}
    submit(engine, transfer(2), '{"type":"hold","id":"h","debit":"a","credit":"b","amount":"5.00"}')
    accounts = [engine.account(ordinal) for ordinal in range(engine.counts().accounts)]
    counts = engine.counts()
    engine.close()
    merged = second._replace(pages={**first.pages, **second.pages})
    again = open_engine(store, merged)
    assert again.recovery.replayed == 3  # the two intents after the mark, and their seal
    assert again.counts() == counts
    assert [again.account(ordinal) for ordinal in range(counts.accounts)] == accounts
    assert submit(again, transfer(2)).refused is None
    assert submit(again, transfer(2, "2.00")).refused is not None
    assert submit(again, '{"type":"void","hold":"h"}').committed == 1
    again.close()


def test_a_mark_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    engine = open_engine(store)
    submit(engine, opening("a"))
    saved = kept(engine.save())
    engine.saved(True)
    engine.close()
    for place in (0, 8, 16, 32):
        mark = bytearray(saved.mark)
        mark[place] ^= 1
        with pytest.raises(StoreError):
            Engine(store, segment_bytes=SEGMENT_BYTES, saved=saved._replace(mark=bytes(mark)))
    assert Engine(store, segment_bytes=SEGMENT_BYTES).recovery.replayed == engine.counts().entries


def test_holds_expire_by_themselves(engine: Engine) -> None:
    submit(engine, opening("a"), opening("b"))
    soon = format_time(time.time_ns() + 2 * NS_PER_SECOND)
    hold = {"type": "hold", "id": "h", "debit": "a", "credit": "b", "amount": "5.00", "expires": soon}
    assert submit(engine, json.dumps(hold)).refused is None
    before = engine.counts().entries
    assert engine.account(engine.ordinal(b"a")).held_debits == 500
    deadline = time.monotonic() + 60
    while engine.counts().entries == before and time.monotonic() < deadline:
        engine.tick()
        time.sleep(0.05)
    entry = json.loads(bytes(engine.entry(before)))
    assert (entry["t"], entry["reason"], entry["hold"]) == ("void/1", "expired", "h")
    assert engine.account(engine.ordinal(b"a")).held_debits == 0
    refused = submit(engine, '{"type":"post","hold":"h"}').refused
    assert refused is not None
    assert refused.code == BY_NAME["hold_expired"].number


def test_readers_and_a_saver_beside_the_commit_threads(engine: Engine) -> None:
    submit(engine, opening("a", "1000000.00"), opening("b"))
    faults: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                counts = engine.counts()
                seal = json.loads(bytes(engine.entry(counts.entries - 1)))
                assert seal["t"] == "seal/1"
                assert seal["height"] >= counts.blocks
                account = engine.account(engine.ordinal(b"a"))
                posting = json.loads(bytes(engine.entry(account.last_index)))["postings"]
                (own,) = [item for item in posting if item["account"] == "a"]
                assert int(own["debits"].replace(".", "")) == account.debits
                assert len(engine.history(account.ordinal)) >= account.entries
        except BaseException as error:
            faults.append(error)

    def save() -> None:
        try:
            while not stop.is_set():
                engine.save()
                engine.saved(True)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=read), threading.Thread(target=read), threading.Thread(target=save)]
    for thread in threads:
        thread.start()
    for first in range(0, 20_000, 500):
        lines = "\n".join(transfer(number, "0.01") for number in range(first, first + 500)).encode()
        engine.submit(lines, source=b"f", first_line=1, mode=Mode.EACH)
        time.sleep(0.005)
    engine.drain()
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert sum(completion.committed for completion in engine.completions()) == 20_000
    assert engine.account(engine.ordinal(b"b")).credits - 100_000 == 20_000


def readable(descriptor: int | socket.socket, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def test_the_socket_is_answered_without_asking_when_nobody_has_to_be_told(engine: Engine, tmp_path: Path) -> None:
    """SEMANTICS 16.2"""
    submit(engine, opening("a"), opening("b"), opening("c"), opening("d"))
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        listening.setblocking(False)
        engine.listen(listening.fileno())
        client.connect(str(tmp_path / "socket"))
        client.settimeout(20)

        def ask(number: int, debit: str = "a", credit: str = "b") -> None:
            intent = {"id": f"s{number}", "debit": debit, "credit": credit, "amount": "1.00"}
            client.sendall(json.dumps(intent).encode() + b"\n")

        touched: list[int] = []

        def told(number: int) -> None:
            """The wake-up comes first, and the answers wait for it, in the order of the lines."""
            assert readable(engine.wakeup_fd, 20)
            engine.drain()
            assert not readable(client, 0.05)
            engine.completions()
            touched.extend(engine.touched())
            engine.deliver()
            assert [json.loads(line)["line"] for line in client.recv(4096).splitlines()] == [number]

        ask(1)
        assert json.loads(client.recv(4096)) == {
            "line": 1, "status": "committed", "code": "ok", "index": engine.counts().entries - 2, "tx": "tx_0005",
            "block": engine.counts().blocks,
        }  # fmt: skip
        assert not readable(engine.wakeup_fd, 0)
        engine.watch(engine.ordinal(b"a"), True)
        ask(2)
        told(2)
        assert touched == [engine.ordinal(b"a")]
        ask(3, "c", "d")
        assert json.loads(client.recv(4096))["line"] == 3
        ask(4)
        assert readable(engine.wakeup_fd, 20)
        engine.completions()  # held, while the mount is told
        engine.touched()
        ask(5, "c", "d")
        assert readable(engine.wakeup_fd, 20), "behind what is held the rest waits as well, and has to be asked for"
        engine.deliver()
        assert json.loads(client.recv(4096))["line"] == 4
        engine.completions()
        engine.deliver()
        assert json.loads(client.recv(4096))["line"] == 5
        for who in (Attending.KERNEL, Attending.EVENTS):
            engine.attend(who, True)
            assert readable(engine.wakeup_fd, 0), "what was committed just before was announced to nobody"
            engine.completions()
            ask(6 + who, "c", "d")
            told(5 + who)
            engine.attend(who, False)
        engine.attend(Attending.RECEIPTS, True)  # of files only: no line waits for it
        ask(9, "c", "d")
        assert json.loads(client.recv(4096))["line"] == 8
        submit(engine, transfer(1))  # of somebody else, who waits for no answer here
        engine.completions()
        assert engine.touched() == [engine.ordinal(b"a")]
        ask(10, "c", "d")  # what it touches may have been taken just now, and is being told
        told(9)
        ask(11, "c", "d")
        assert json.loads(client.recv(4096))["line"] == 10
    engine.close()


def test_the_memory_of_long_submissions_goes_round(engine: Engine) -> None:
    """Longer and shorter ones in turn, more than are kept: each is judged as it came."""
    submit(engine, opening("a", "1000000.00"), opening("b"))
    number = 0
    for _ in range(2):
        for lines in (700, 1500, 600, 1, 3000, 40_000, 650):
            texts = [transfer(number + line) for line in range(lines)]
            number += lines
            for text in (texts, texts[: lines // 2]):
                engine.submit("\n".join(text).encode(), source=b"f", first_line=1, mode=Mode.EACH)
        engine.drain()
        for completion in engine.completions():
            assert completion.committed == len(completion) == completion.lines
        engine.tick()
        engine.tick()  # given back
    assert engine.counts().transactions == 1 + number + 1
