"""Balance proofs: made here from FORMAT 12 and 13, and each of their parts spoiled."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.verify.support import Signer, balance_proof, verify

SIGNER = Signer()
KEYS = [verify.parse_key(SIGNER.vkey)]
CLASSES = [("customer_liability", "credit"), ("safeguarding_asset", "debit"), ("income", "credit")]


def accounts(count: int = 11) -> list[dict[str, Any]]:
    """So many customers and what stands against them, in two currencies."""
    made: list[dict[str, Any]] = []
    for currency, decimals in (("EUR", 2), ("JPY", 0)):
        for number in range(count):
            made.append(
                one(len(made), f"{currency}-{number}", currency, decimals, 0, credits=100 + number, debits=number)
            )
        made.append(
            one(len(made), f"{currency}-bank", currency, decimals, 1, debits=sum(100 + n for n in range(count)) - 7)
        )
        made.append(one(len(made), f"{currency}-fees", currency, decimals, 2, debits=7, credits=sum(range(count))))
    return made


def one(
    ordinal: int, name: str, currency: str, decimals: int, kind: int, debits: int = 0, credits: int = 0
) -> dict[str, Any]:
    names, numbers = ("debits", "credits", "held_debits", "held_credits"), (debits, credits, 3, 4)
    made = {
        "account": name,
        "ordinal": ordinal,
        "currency": currency,
        "decimals": decimals,
        "status": "open",
        "entries": 3,
        "last": 4,
    }
    return made | {"class": CLASSES[kind][0], "normal": CLASSES[kind][1]} | dict(zip(names, numbers, strict=True))


def judge(proof: Any) -> Any:
    return verify.verify_balance(json.dumps(proof, ensure_ascii=False).encode(), KEYS)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11])
def test_good_proofs(count: int) -> None:
    everybody = accounts(count)
    for account in everybody:
        found = judge(balance_proof(SIGNER, everybody, account["account"]))
        assert (found["account"], found["size"], found["origin"]) == (account["account"], 7, SIGNER.name)
    assert judge(balance_proof(SIGNER, everybody, "EUR-0"))["balance"] == "1.00"
    assert judge(balance_proof(SIGNER, everybody, "JPY-fees"))["balance"] == str(sum(range(count)) - 7)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*at, name))


def put(value: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    made = copy.deepcopy(value)
    inner = made
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = change(inner[at[-1]])
    return made


def changes(old: Any) -> list[Any]:
    """Other values than this one."""
    if isinstance(old, bool | int):
        return [old + 1, old - 1, -1, 2**64, str(old), float(old), True, None]
    if isinstance(old, str):
        found: list[Any] = [
            None,
            1,
            "",
            old + "0",
            "0" + old,
            "-" + old,
            "+" + old,
            " " + old,
            old + "\n",
            old[:-1],
            old[::-1] + "x",
        ]
        found += [old[:at] + chr(ord(old[at]) ^ 1) + old[at + 1 :] for at in range(0, len(old), 1 + len(old) // 60)]
        return found + (
            [str(2**192), str(2**127), str(int(old) + 1), "0x1", old + ".0"] if old.isdecimal() else [old.upper() + "X"]
        )
    if isinstance(old, list):
        return [[], old + old[-1:], old[:-1], old[1:], old[::-1], None, {}]
    return [None, [], {}, {**old, "more": 1}]


def test_every_change_is_refused() -> None:
    good = balance_proof(SIGNER, accounts(), "EUR-6")
    judge(good)
    count = 0
    for at in places(good):
        if not at:
            continue
        inner = good
        for name in at:
            inner = inner[name]
        for other in changes(inner):
            if other == inner and type(other) is type(inner):
                continue
            with pytest.raises(verify.Fault):
                judge(put(good, at, lambda _, other=other: other))
                pytest.fail(f"{at}: {inner!r} became {other!r}")
            count += 1
    assert count > 1500


def test_missing_and_further_members_are_refused() -> None:
    good = balance_proof(SIGNER, accounts(), "EUR-6")
    for at in places(good):
        inner: Any = good
        for name in at:
            inner = inner[name]
        if not isinstance(inner, dict):
            continue
        for name in inner:
            less = {key: value for key, value in inner.items() if key != name}
            with pytest.raises(verify.Fault):
                judge(put(good, at, lambda _, less=less: less) if at else less)
        with pytest.raises(verify.Fault):
            judge(put(good, at, lambda old: {**old, "more": 1}) if at else {**inner, "more": 1})


def test_doubled_members_are_refused() -> None:
    text = json.dumps(balance_proof(SIGNER, accounts(), "EUR-6"))
    verify.verify_balance(text.encode(), KEYS)
    with pytest.raises(verify.Fault):
        verify.verify_balance(text.replace('"position": 6', '"position": 5, "position": 6').encode(), KEYS)


# ---- an operator who makes everything anew, with the key, and hides what is owed


def sibling_with(**sums: int) -> Callable[[Any], None]:
    """Changes the sums of the uppermost sibling."""

    def spoil(path: Any) -> None:
        names = ("debits", "credits", "liability")
        node, old, height = path[-1]
        path[-1] = (node, tuple(sums.get(name, number) for name, number in zip(names, old, strict=True)), height)

    return spoil


def test_a_lowered_liability_of_a_sibling_is_refused() -> None:
    """Hashed and signed consistently: but no accounts can have so many credits and so little liability."""
    with pytest.raises(verify.Fault) as refused:
        judge(balance_proof(SIGNER, accounts(), "EUR-6", sibling_with(liability=0)))
    assert "liability is hidden" in refused.value.reason


def test_lowered_credits_of_a_sibling_unbalance_the_trial_balance() -> None:
    with pytest.raises(verify.Fault) as refused:
        judge(balance_proof(SIGNER, accounts(), "EUR-6", sibling_with(credits=0, liability=0, debits=0)))
    assert "differ" in refused.value.reason


def test_negative_and_overflowing_sums_are_refused() -> None:
    good = balance_proof(SIGNER, accounts(), "EUR-6")
    for text in ("-1", str(2**192), str(2**200), "1e3", "", "00", "01"):
        for name in ("debits", "credits", "liability"):
            for at in (("path", 0, name), ("trees", 0, name)):
                with pytest.raises(verify.Fault):
                    judge(put(good, at, lambda _, text=text: text))


def test_sums_that_overflow_together_are_refused() -> None:
    most = 2**192 - 1
    with pytest.raises((verify.Fault, OverflowError)) as refused:
        judge(balance_proof(SIGNER, accounts(), "EUR-6", sibling_with(credits=most, liability=most, debits=0)))
    assert refused.type is OverflowError or "2^192" in refused.value.reason  # the generator itself cannot write it


def test_an_account_with_too_large_a_total_is_refused() -> None:
    everybody = accounts()
    everybody[0]["credits"] += 2**127
    everybody[-3 - 11]["debits"] += 0
    next(each for each in everybody if each["account"] == "EUR-bank")["debits"] += 2**127
    with pytest.raises(verify.Fault) as refused:
        judge(balance_proof(SIGNER, everybody, "EUR-0"))
    assert "2^127" in refused.value.reason


def test_trees_that_do_not_balance_are_refused() -> None:
    everybody = accounts()
    everybody[1]["credits"] += 1
    with pytest.raises(verify.Fault) as refused:
        judge(balance_proof(SIGNER, everybody, "EUR-0"))
    assert "differ" in refused.value.reason


def test_a_seal_that_is_not_the_last_leaf_is_refused() -> None:
    from tests.verify.support import canonical, sha

    good = balance_proof(SIGNER, accounts(), "EUR-6")
    leaves = [sha(b"\0", canonical({"t": "note", "index": index})) for index in range(6)] + [
        sha(b"\0", good["seal"].encode())
    ]
    for more in (1, 2):
        with pytest.raises(verify.Fault) as refused:
            judge(good | {"proof": SIGNER.proof([*leaves, *leaves[:more]], 6)})
        assert "last leaf" in refused.value.reason
    with pytest.raises(verify.Fault):
        judge(good | {"proof": Signer(seed=3).proof(leaves, 6)})
