"""Decisions that the ledger would never have made, in a log where all else fits: found by `ledgerfs verify` and by the stand-alone
verifier, which share no code, and at the same entry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.core.verifier import Applied, Verifier, form_of
from tests.verify.forging import Entry, forge
from tests.verify.support import canonical, entries_of, make, verify, write_store

Change = Callable[[list[Entry]], Entry]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """By the engine: over 1,000 transactions, every kind of entry."""
    return entries_of(make(tmp_path_factory.mktemp("judged") / "store"))


def by_core(store: Path, **options: Any) -> tuple[int, str] | None:
    """The entry at fault and the reason; None when all is well."""
    verifier = Verifier(store, applied=Applied(), **options)
    verifier.wait()
    found = verifier.damage
    return (found.entry, found.what) if found else None


def by_tool(store: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str] | None:
    code = verify.main(["store", str(store), "--json", "--quiet"])
    found = json.loads(capsys.readouterr().out)
    return None if code == 0 else (found["entry"], found["reason"])


def of(values: list[Entry], kind: str, number: int = 0, **members: Any) -> Entry:
    """The entry of a kind with these members; the first, or a later one."""
    found = [each for each in values if each["t"] == kind and members.items() <= each.items()]
    return found[number]


def after(values: list[Entry], entry: Entry, account: str) -> Entry:
    """The next entry with a posting of the account."""
    behind = values[values.index(entry) + 1 :]
    return next(each for each in behind if any(leg["account"] == account for leg in each.get("postings", [])))


def amount(entry: Entry, text: str) -> Entry:
    for leg in entry["postings"]:
        leg["amount"] = text
    return entry


def below_no_overdraft(values: list[Entry]) -> Entry:
    return amount(of(values, "txn/1", 100, type="transfer"), "9999999.00")


def a_limit_that_was_not_there(values: list[Entry]) -> Entry:
    account = of(values, "account/1", account="yen-bank")
    account["limit"] = "overdraft:3"
    return after(values, account, "yen-bank")


def a_hold_without_funds(values: list[Entry]) -> Entry:
    return amount(of(values, "hold/1", 4), "9999999.00")


def paid_while_frozen(values: list[Entry]) -> Entry:
    frozen = of(values, "account.update/1", account="cost", action="unfreeze")
    next_one = after(values, frozen, "cost")
    values.remove(frozen)
    return next_one


def frozen_twice(values: list[Entry]) -> Entry:
    thawed = of(values, "account.update/1", account="cost", action="unfreeze")
    thawed |= {"action": "freeze", "status": "frozen"}
    return thawed


def closed_though_not_empty(values: list[Entry]) -> Entry:
    frozen = of(values, "account.update/1", account="cost", action="freeze")
    frozen |= {"action": "close", "status": "closed"}
    return frozen


def booked_into_a_closed_period(values: list[Entry]) -> Entry:
    closing, paid = of(values, "policy/1", policy="close_period"), of(values, "txn/1", 300, type="transfer")
    values.remove(closing)
    place = values.index(paid) - 5
    values.insert(place, closing)
    times = sorted({value["time"] for value in values})
    assert len(times) == len(values)
    for value, time in zip(values, times, strict=True):
        value["time"] = time
    paid["effective"] = "2026-01-31"
    return paid


def closed_twice(values: list[Entry]) -> Entry:
    closing = of(values, "policy/1", policy="close_period")
    closing["through"] = closing["time"][:10]
    return closing


def posted_more_than_held(values: list[Entry]) -> Entry:
    return amount(of(values, "post/1", 3), "5.01")


def posted_twice(values: list[Entry]) -> Entry:
    second = of(values, "post/1", 5)
    second["hold"] = of(values, "post/1", 4)["hold"]
    return second


def released_less(values: list[Entry]) -> Entry:
    return amount(of(values, "void/1", 2), "2.99")


def never_expired(values: list[Entry]) -> Entry:
    void = of(values, "void/1", reason="expired")
    place = values.index(void)
    values.remove(void)
    return values[place]


def expired_too_early(values: list[Entry]) -> Entry:
    of(values, "hold/1", id="short")["expires"] = "2026-12-21T14:13:25.500000000Z"
    return of(values, "void/1", reason="expired")


def expired_before_it_began(values: list[Entry]) -> Entry:
    hold = of(values, "hold/1", id="short")
    hold["expires"] = hold["time"]
    return hold


def reversed_twice(values: list[Entry]) -> Entry:
    first, second = of(values, "txn/1", 3, type="reversal"), of(values, "txn/1", 4, type="reversal")
    second |= {"reverses": first["reverses"], "postings": [dict(leg) for leg in first["postings"]]}
    return second


def reversed_something_else(values: list[Entry]) -> Entry:
    back = of(values, "txn/1", 3, type="reversal")
    back["reverses"] -= 1
    return back


def to_itself(values: list[Entry]) -> Entry:
    paid = of(values, "txn/1", 90, type="transfer")
    paid["postings"][1]["account"] = paid["postings"][0]["account"]
    return paid


def one_id_twice(values: list[Entry]) -> Entry:
    second = of(values, "txn/1", 200, type="transfer")
    second["id"] = of(values, "txn/1", 90, type="transfer")["id"]
    return second


def a_currency_twice(values: list[Entry]) -> Entry:
    closing = of(values, "policy/1", policy="close_period")
    del closing["through"]
    closing |= {"policy": "currency", "currency": "PTS", "decimals": 4}
    return closing


def a_currency_of_iso(values: list[Entry]) -> Entry:
    closing = of(values, "policy/1", policy="close_period")
    del closing["through"]
    closing |= {"policy": "currency", "currency": "GBP", "decimals": 2}
    return closing


def an_account_twice(values: list[Entry]) -> Entry:
    second = of(values, "account/1", account="yen-bank")
    second["account"] = "yen"
    values[:] = [
        each
        for each in values
        if each is second or not any(leg["account"] == "yen-bank" for leg in each.get("postings", []))
    ]
    return second


def another_request(values: list[Entry]) -> Entry:
    refused = of(values, "rejected/1", 4)
    refused["request"]["amount"] = "2.0000"
    return refused


BOTH: list[Change] = [
    below_no_overdraft, a_limit_that_was_not_there, a_hold_without_funds, paid_while_frozen, frozen_twice, closed_though_not_empty,
    booked_into_a_closed_period, closed_twice, posted_more_than_held, posted_twice, released_less, never_expired, expired_too_early,
    expired_before_it_began, reversed_twice, reversed_something_else, to_itself, one_id_twice, a_currency_twice,
    an_account_twice, another_request,
]  # fmt: skip


def test_a_log_that_is_only_made_anew_is_good(
    entries: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So what the others find is what they changed."""
    again, _ = forge(entries, lambda values: values[0])
    store = write_store(tmp_path / "store", again)
    assert by_core(store) is None
    assert by_tool(store, capsys) is None


@pytest.mark.parametrize("change", BOTH, ids=lambda change: change.__name__)
def test_what_the_ledger_would_never_have_decided(
    change: Change, entries: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged, fault = forge(entries, change)
    store = write_store(tmp_path / "store", forged)
    core, tool = by_core(store), by_tool(store, capsys)
    assert core is not None
    assert tool is not None
    assert (core[0], tool[0]) == (fault, fault), (core, tool)


def rehashed(refused: Entry) -> Entry:
    refused["intent_hash"] = hashlib.sha256(canonical(refused["request"])).hexdigest()
    return refused


def a_request_that_is_none(values: list[Entry]) -> Entry:
    refused = of(values, "rejected/1", 4)
    refused["request"]["colour"] = "red"
    return rehashed(refused)


def a_code_that_is_never_in_the_log(values: list[Entry]) -> Entry:
    refused = of(values, "rejected/1", 4)
    refused["code"] = "batch_aborted"
    return refused


def an_id_of_the_ledgers_own(values: list[Entry]) -> Entry:
    paid = of(values, "txn/1", 120, type="transfer")
    paid["id"] = "~auto:short"
    return paid


def another_opening(values: list[Entry]) -> Entry:
    opening = of(values, "txn/1", 2, type="opening")
    opening["intent"] = "ab" * 32
    return opening


@pytest.mark.parametrize(
    "change",
    [
        a_currency_of_iso,
        a_request_that_is_none,
        a_code_that_is_never_in_the_log,
        an_id_of_the_ledgers_own,
        another_opening,
    ],
    ids=lambda change: change.__name__,
)
def test_what_only_the_core_judges(change: Change, entries: list[bytes], tmp_path: Path) -> None:
    forged, fault = forge(entries, change)
    found = by_core(write_store(tmp_path / "store", forged))
    assert found is not None
    assert found[0] == fault, found


def test_the_answer_does_not_depend_on_threads(entries: list[bytes], tmp_path: Path) -> None:
    """Two faults: the first by position is named, with the same reason, however many threads look for it."""

    def change(values: list[Entry]) -> Entry:
        released_less(values)
        return below_no_overdraft(values)

    forged, _ = forge(entries, change)
    store = write_store(tmp_path / "store", forged)
    assert len({by_core(store, jobs=jobs) for jobs in (1, 2, 3, 8) for _ in range(5)}) == 1


def spoiled(entry: bytes) -> Iterator[bytes]:
    """Every byte changed, left out or doubled, one at a time."""
    for at in range(len(entry)):
        yield entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :]
        yield entry[:at] + entry[at + 1 :]
        yield entry[: at + 1] + entry[at:]


def test_the_form_of_entries(entries: list[bytes]) -> None:
    """The core's reader takes all that the engine writes; and of what is spoiled only what is canonical, with the members of its kind."""
    samples: dict[tuple[str, ...], bytes] = {}
    for entry in entries:
        assert form_of(entry) == "", entry
        samples.setdefault(tuple(json.loads(entry)), entry)
    assert len(samples) > 12
    taken = 0
    for sample in samples.values():
        for text in spoiled(sample):
            if form_of(text) == "":
                taken += 1
                value = verify.parse_json(text)
                if value["t"] != "seal/1":
                    needed, optional, _ = (set(names.split()) for names in verify.KINDS[value["t"]])
                    assert needed <= value.keys() <= needed | optional, text
    assert taken > 1000, "only texts, amounts, hashes and the like can be others"
