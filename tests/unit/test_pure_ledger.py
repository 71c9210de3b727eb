"""The twin of the C core on its own: what must hold after any sequence of submissions.

The rules one by one are in ``tables/`` (test_ledger_tables.py); here sequences are made up by Hypothesis.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerfsd.clock import format_time, parse_time
from ledgerfsd.core.pure import journal
from ledgerfsd.core.pure.canonical import canonical
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.core.pure.rules import available
from ledgerfsd.errors import BY_NAME, DamageError
from ledgerfsd.types import Mode, Result

NOW = parse_time("2026-03-02T09:00:00Z")
ORIGIN = "ledger.example/pure"
SECOND = 10**9

SETUP = b"""\
{"type":"open_account","account":"a","class":"customer_liability","currency":"EUR","initial_balance":"100.00"}
{"type":"open_account","account":"b","class":"customer_liability","currency":"EUR","limit":"overdraft:20.00"}
{"type":"open_account","account":"c","class":"safeguarding_asset","currency":"EUR","limit":"no_overdraft"}
{"type":"open_account","account":"d","class":"clearing","currency":"EUR"}
{"type":"open_account","account":"u","class":"customer_liability","currency":"USD","initial_balance":"50.00"}
{"type":"open_account","account":"v","class":"clearing","currency":"USD"}
"""


def begin() -> Ledger:
    ledger = Ledger.create(ORIGIN, NOW)
    results = submit(ledger, SETUP, b"setup.ndjson")
    assert [result.code for result in results] == [0] * 6
    ledger.seal(NOW)
    return ledger


def submit(
    ledger: Ledger, data: bytes, source: bytes, mode: Mode = Mode.EACH, now_ns: int = NOW, *, dry_run: bool = False
) -> list[Result]:
    return ledger.submit(data, source=source, first_line=1, mode=mode, dry_run=dry_run, now_ns=now_ns)


# -- intents: mostly sensible, from a pool so small that ids, holds and transactions meet each other

names = st.sampled_from(["a", "b", "c", "d", "u", "v", "new", "nobody", "equity:opening:EUR", "equity:opening:GBP"])
amounts = st.sampled_from(["0.01", "1.00", "7.50", "20.00", "60.00", "100.00", "1", "0.00", "9" * 37 + ".00"])
ids = st.sampled_from(["i1", "i2", "i3", "i4", "h1", "h2"])
dates = st.sampled_from(["2026-01-15", "2026-02-15", "2026-03-01", "2026-04-01"])
times = st.sampled_from(
    ["2026-03-02T09:00:05Z", "2026-03-02T09:00:20.5Z", "2026-03-03T00:00:00Z", "2026-03-01T00:00:00Z"]
)
postings = st.lists(
    st.fixed_dictionaries({"account": names, "amount": amounts, "side": st.sampled_from(["debit", "credit"])}),
    min_size=2,
    max_size=5,
)


def intent_of(kind: str, required: dict[str, Any], optional: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    extra = {"id": ids, "reference": st.text(max_size=3), "metadata": st.just({"z": [1, None], "a": "\u00e9"})}
    return st.fixed_dictionaries({"type": st.just(kind), **required}, optional={**extra, **(optional or {})})


def pair(debit: str, credit: str, amount: str) -> list[dict[str, str]]:
    return [
        {"account": debit, "amount": amount, "side": "debit"},
        {"account": credit, "amount": amount, "side": "credit"},
    ]


balanced = st.builds(
    lambda first, second: first + second,
    st.builds(pair, st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from(["1.00", "20.00"])),
    st.one_of(st.just([]), st.builds(pair, st.sampled_from("uv"), st.sampled_from("uv"), st.just("3.00"))),
)
sides = {"debit": names, "credit": names, "amount": amounts}
intents = st.one_of(
    intent_of("transfer", sides, {"currency": st.sampled_from(["EUR", "USD", "ZZZ"]), "effective": dates}),
    intent_of("transaction", {"postings": st.one_of(balanced, postings)}, {"effective": dates}),
    intent_of("hold", sides, {"expires": times}),
    intent_of("post", {"hold": ids}, {"amount": amounts, "effective": dates}),
    intent_of("void", {"hold": ids}),
    intent_of("reverse", {"of": st.sampled_from([f"tx_{number:04}" for number in range(1, 8)])}, {"effective": dates}),
    intent_of("freeze", {"account": names}),
    intent_of("unfreeze", {"account": names}),
    intent_of("close_account", {"account": names}),
    intent_of("register_currency", {"currency": st.sampled_from(["EUR", "ZZZ"]), "decimals": st.integers(0, 19)}),
    intent_of("close_period", {"through": dates}),
    intent_of(
        "open_account",
        {
            "account": names,
            "class": st.sampled_from(["equity", "expense"]),
            "currency": st.sampled_from(["EUR", "GBP"]),
        },
        {"initial_balance": amounts, "limit": st.sampled_from(["none", "overdraft:1.00", "no_overdraft"])},
    ),
)
lines = st.lists(st.one_of(intents.map(json.dumps), st.sampled_from(["", "{", "[]", '{"debit":"a"}'])), max_size=5)
submissions = st.lists(
    st.tuples(
        st.sampled_from(list(Mode)),
        st.booleans(),  # a dry run
        st.booleans(),  # seal afterwards
        st.sampled_from([0, 0, 1, 3 * SECOND, 20 * SECOND, -5 * SECOND]),  # how the clock moves before it
        lines,
    ),
    min_size=1,
    max_size=8,
)


def data_of(mode: Mode, texts: list[str]) -> bytes:
    return ("[" + ",".join(texts) + "]" if mode is Mode.DOCUMENT else "\n".join(texts)).encode()


def check_books(ledger: Ledger) -> None:
    for debits, credits_ in ledger.totals().values():
        assert debits == credits_
    held = [(account.currency, account.held_debits, account.held_credits) for account in ledger.accounts]
    for currency in {each[0] for each in held}:
        assert len({sum(each[side] for each in held if each[0] == currency) for side in (1, 2)}) == 1
    for account in ledger.accounts:
        assert min(account.debits, account.credits, account.held_debits, account.held_credits) >= 0
        assert account.overdraft is None or available(account) >= -account.overdraft


def check_entries(ledger: Ledger) -> None:
    times = [parse_time(json.loads(entry)["time"]) for entry in ledger.entries]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    for index, entry in enumerate(ledger.entries):
        assert canonical(entry) == entry
        assert json.loads(entry)["index"] == index


def check_chains(ledger: Ledger) -> None:
    """Every account's chain leads back to its account/1, and says how long it is."""
    for account in ledger.accounts:
        at, count, size = account.last_index, 0, 0
        while True:
            entry = json.loads(ledger.entries[at])
            count += 1
            size += len(ledger.entries[at]) + 1
            if entry["t"] == "account/1":
                break
            places = entry.get("postings", [entry])
            prevs = {place["prev"] for place in places if place["account"] == account.name}
            assert len(prevs) == 1
            at = prevs.pop()
        assert (at, count, size) == (account.open_index, account.entries, account.log_bytes)


@settings(max_examples=100, deadline=None)
@given(submissions)
def test_any_sequence_keeps_the_books(steps: list[tuple[Mode, bool, bool, int, list[str]]]) -> None:
    ledger = begin()
    now_ns = NOW
    for number, (mode, dry_run, sealed, moved, texts) in enumerate(steps):
        now_ns += moved
        before = ledger.book.copy()
        results = submit(ledger, data_of(mode, texts), b"file-%d" % number, mode, now_ns, dry_run=dry_run)
        check_books(ledger)
        if dry_run:
            assert ledger.book == before
            assert all((result.index, result.tx, result.block) == (-1, 0, 0) for result in results)
        elif mode is not Mode.EACH and any(result.code for result in results):
            new = [json.loads(entry)["t"] for entry in ledger.entries[len(before.entries) :]]
            assert [kind for kind in new if kind != "void/1"] in ([], ["rejected/1"])
        if sealed:
            ledger.seal(now_ns)
    check_entries(ledger)
    check_chains(ledger)
    assert Ledger.replay(ledger.entries).book == ledger.book
    sealed_entries = ledger.entries[: ledger.book.batch_first]
    assert journal.recover(journal.stream(ledger.entries)).entries == sealed_entries


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(Mode)), lines, lines)
def test_a_file_submitted_twice_adds_nothing(mode: Mode, earlier: list[str], texts: list[str]) -> None:
    ledger = begin()
    submit(ledger, data_of(Mode.EACH, earlier), b"earlier")
    first = submit(ledger, data_of(mode, texts), b"file", mode)
    ledger.seal(NOW)
    before = ledger.book.copy()
    second = submit(ledger, data_of(mode, texts), b"file", mode)
    assert len(first) == len(second)
    reused = BY_NAME["id_reused"].number
    for one, two in zip(first, second, strict=True):
        if one.index >= 0 and one.code != reused:
            assert two == one._replace(duplicate=True)
        else:
            assert two._replace(index=-1, block=0) == one._replace(index=-1, block=0)
    # Only who takes an id that belongs to another is told so, and noted, every time.
    added = [json.loads(entry) for entry in ledger.entries[len(before.entries) :]]
    assert all(entry["t"] == "rejected/1" and entry["code"] == "id_reused" for entry in added)
    assert ledger.accounts == list(before.accounts.values())
    assert len(ledger.book.transactions) == len(before.transactions)


@settings(max_examples=50, deadline=None)
@given(lines)
def test_single_lines_come_to_the_same_as_one_file(texts: list[str]) -> None:
    whole, parts = begin(), begin()
    results = submit(whole, data_of(Mode.EACH, texts), b"file")
    pieces = [
        parts.submit(
            text.encode(), source=b"file", first_line=number, mode=Mode.EACH, dry_run=False, now_ns=NOW
        )
        for number, text in enumerate(texts, 1)
    ]  # fmt: skip
    assert [result for piece in pieces for result in piece] == results
    assert whole.book == parts.book


# -- replay


def session() -> Ledger:
    """A ledger with every kind of entry in it."""
    ledger = begin()
    file = b"""\
{"id":"t1","debit":"a","credit":"b","amount":"10.00","reference":"r","metadata":{"m":[1,{"n":null}]}}
{"type":"hold","id":"h1","debit":"a","credit":"b","amount":"5.00","expires":"2026-03-02T09:00:05Z"}
{"type":"hold","id":"h2","debit":"a","credit":"b","amount":"6.00"}
{"type":"hold","id":"h3","debit":"a","credit":"b","amount":"7.00"}
{"type":"post","hold":"h2","amount":"4.00","effective":"2026-02-01"}
{"type":"void","hold":"h3"}
{"type":"reverse","of":"tx_0003"}
{"type":"transaction","postings":[{"account":"a","amount":"1.00","side":"debit"},{"account":"b","amount":"1.00","side":"credit"}]}
{"debit":"a","credit":"b","amount":"1000.00"}
{"id":"t1","debit":"a","credit":"b","amount":"1.00"}
{"type":"register_currency","currency":"PTS","decimals":3}
{"type":"close_period","through":"2026-01-31"}
{"type":"freeze","account":"v"}
{"type":"unfreeze","account":"v"}
{"type":"close_account","account":"v"}
"""
    codes = [result.code for result in submit(ledger, file, b"file")]
    assert codes == [0] * 8 + [BY_NAME["insufficient_funds"].number, BY_NAME["id_reused"].number] + [0] * 5
    ledger.seal(NOW)
    assert ledger.expire(NOW + 5 * SECOND) == 1
    ledger.seal(NOW + 5 * SECOND)
    return ledger


SESSION = session()


def test_the_session_has_every_kind() -> None:
    kinds = {json.loads(entry)["t"] for entry in SESSION.entries}
    assert len(kinds) == 10
    assert Ledger.replay(SESSION.entries).book == SESSION.book
    check_chains(SESSION)


def test_a_replayed_ledger_goes_on_as_the_first_would_have() -> None:
    again = Ledger.replay(SESSION.entries)
    for ledger in (session(), again):
        results = submit(ledger, b'{"id":"t1","debit":"a","credit":"b","amount":"1.00"}', b"x", now_ns=NOW + 9 * SECOND)
        assert [result.code for result in results] == [BY_NAME["id_reused"].number]
        submit(ledger, b'{"debit":"a","credit":"b","amount":"1.00"}', b"y", now_ns=NOW + 9 * SECOND)
        ledger.seal(NOW + 9 * SECOND)
        if ledger is not again:
            assert ledger.entries[: len(SESSION.entries)] == SESSION.entries
            expected = ledger.entries
    assert again.entries == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SESSION.entries) - 1), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_replay_finds_any_changed_byte(index: int, where: float, mask: int) -> None:
    entry = bytearray(SESSION.entries[index])
    entry[int(where * len(entry))] ^= mask
    changed = [*SESSION.entries[:index], bytes(entry), *SESSION.entries[index + 1 :]]
    with pytest.raises(DamageError, match=r"^entry \d+: "):
        Ledger.replay(changed)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_replay_finds_any_changed_member(data: st.DataObject) -> None:
    """Values swapped for others that are well-formed, in an entry that is still canonical."""
    index = data.draw(st.integers(0, len(SESSION.entries) - 1))
    entry = json.loads(SESSION.entries[index])
    place = data.draw(st.sampled_from([entry, *(entry.get("postings") or [])]))
    name = data.draw(st.sampled_from(sorted(place)))
    other = data.draw(
        st.one_of(
            st.none(),
            st.integers(-1, 40),
            st.sampled_from(["a", "b", "x", "EUR", "USD", "1.00", "debit", "credit", "txn/1", "void/1", "h1", "h2"]),
            st.sampled_from([[], {}, [1], ["a"], {"a": 1}]),
        ).filter(lambda value: value != place[name])
    )
    if data.draw(st.booleans()):
        place[name] = other
    else:
        del place[name]
    changed = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(DamageError, match=r"^entry \d+: "):
        Ledger.replay([*SESSION.entries[:index], changed, *SESSION.entries[index + 1 :]])


@pytest.mark.parametrize("index", range(len(SESSION.entries)))
def test_replay_finds_a_missing_and_a_doubled_entry(index: int) -> None:
    entries = SESSION.entries
    with pytest.raises(DamageError, match=r"^entry \d+: "):
        Ledger.replay([*entries[: index + 1], *entries[index:]])
    if index < len(entries) - 1:
        with pytest.raises(DamageError, match=r"^entry \d+: "):
            Ledger.replay([*entries[:index], *entries[index + 1 :]])


def test_replay_says_what_is_wrong() -> None:
    index = next(at for at, entry in enumerate(SESSION.entries) if b'"id":"t1"' in entry)
    changed = SESSION.entries[index].replace(b'"debits":"10.00"', b'"debits":"11.00"')
    with pytest.raises(DamageError, match=f"entry {index}: its postings does not follow") as caught:
        Ledger.replay([*SESSION.entries[:index], changed])
    assert '"debits":"10.00"' in str(caught.value)
    with pytest.raises(DamageError, match="the seal of genesis is missing"):
        Ledger.replay(SESSION.entries[:1])


# -- small things


def test_a_seal_of_nothing_is_none() -> None:
    ledger = Ledger.create(ORIGIN, NOW)
    assert ledger.seal(NOW) == b""
    assert len(ledger.entries) == 2


def test_a_clock_that_goes_back_does_not_take_entries_with_it() -> None:
    ledger = begin()
    last = json.loads(ledger.entries[-1])["time"]
    submit(ledger, b'{"type":"freeze","account":"a"}', b"x", now_ns=NOW - 3600 * SECOND)
    assert parse_time(json.loads(ledger.entries[-1])["time"]) == parse_time(last) + 1


def test_counts() -> None:
    counts = SESSION.counts()
    assert counts.entries == len(SESSION.entries)
    assert counts.stream_bytes == len(journal.stream(SESSION.entries))
    assert counts.blocks == sum(1 for entry in SESSION.entries if b'"t":"seal/1"' in entry)
    assert counts.time_ns == parse_time(json.loads(SESSION.entries[-1])["time"])
    assert counts.transactions == 6
    assert counts.accounts == 8


def test_each_void_of_an_expired_hold_takes_time_in_which_others_may_expire() -> None:
    ledger = begin()
    base = parse_time(json.loads(ledger.entries[-1])["time"])
    for number, expires in enumerate([10, 11, 12, 15]):
        intent = {"type": "hold", "id": f"h{number}", "debit": "a", "credit": "b", "amount": "1.00"}
        line = json.dumps({**intent, "expires": format_time(base + expires)})
        assert submit(ledger, line.encode(), b"x")[0].code == 0
    assert ledger.expire(base + 10) == 3
    assert ledger.account("a").held_debits == 100
