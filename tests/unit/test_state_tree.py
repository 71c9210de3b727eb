"""The state tree: its shape and sums, which seals carry its root, and the proofs that the engine gives of it (FORMAT, section 12)."""

from __future__ import annotations

import json
import resource
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerfsd.core import hashing
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.hashing import mth, sha256
from ledgerfsd.core.pure import state_tree
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.core.pure.state_tree import Node, StateTree, Sums, Total
from ledgerfsd.core.values import StateProof
from ledgerfsd.core.verifier import Applied, Verifier
from ledgerfsd.journal.fsck import Check
from ledgerfsd.journal.layout import Layout
from ledgerfsd.types import Account, Mode
from tests.conftest import SEGMENT_BYTES

CLASSES = ("customer_liability", "safeguarding_asset", "suspense")
BURST = 2_000  # accounts: more than are hashed for each seal
OPENINGS = 1_000_000  # accounts: more than a second's work on a quick machine too
PIECE = 100_000
CROWD = 40_000  # accounts: more than are left to the thread that writes


def account(ordinal: int, debits: int = 0, credits: int = 0, **more: Any) -> Account:
    numbers = dict.fromkeys(
        ("held_debits", "held_credits", "open_index", "last_index", "last_tx", "entries", "log_bytes"), 0
    )
    return Account(
        ordinal=ordinal, name=f"a{ordinal}", currency="EUR", decimals=2, account_class="suspense", normal="credit", status="open",
        debits=debits, credits=credits, overdraft=None, **(numbers | more),
    )  # fmt: skip


def tree_of(leaves: list[Node]) -> tuple[Node, int]:
    """The root by the definition, and the height of that node."""
    if len(leaves) == 1:
        return leaves[0], 0
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, height = tree_of(leaves[:split])
    return state_tree.parent(height + 1, left, tree_of(leaves[split:])[0]), height + 1


@given(st.lists(st.tuples(st.integers(0, 2**127 - 1), st.integers(0, 2**127 - 1)), min_size=1, max_size=40), st.data())
def test_shape_sums_and_paths(totals: list[tuple[int, int]], data: st.DataObject) -> None:
    """As the definition says, in whatever order accounts change; and every path leads to the root."""
    accounts = [account(ordinal, *each) for ordinal, each in enumerate(totals)]
    tree = StateTree()
    tree.update(each._replace(debits=1, credits=2) for each in accounts)
    tree.update(data.draw(st.permutations(accounts)))
    leaves = [state_tree.leaf(each) for each in accounts]
    (total,) = tree.totals()
    root = tree_of(leaves)[0]
    assert (total.root, total.sums) == (root.hash, root.sums)
    assert total.sums == Sums(
        sum(debits for debits, _ in totals),
        sum(credits for _, credits in totals),
        sum(max(0, credits - debits) for debits, credits in totals),
    )
    for ordinal, leaf in enumerate(leaves):
        position, siblings = tree.path(ordinal)
        assert state_tree.follow(leaf, position, len(leaves), siblings) == root
        for wrong in (siblings[:-1], [*siblings, leaf]):
            if wrong != siblings:
                with pytest.raises(ValueError, match="the path is too"):
                    state_tree.follow(leaf, position, len(leaves), wrong)
    with pytest.raises(ValueError, match="is not in a tree of"):
        state_tree.follow(leaves[0], len(leaves), len(leaves), [])


def test_the_bytes_of_a_leaf() -> None:
    """Written out, so that a change of the format cannot pass unnoticed."""
    leaf = state_tree.leaf(account(258, 3, 5, held_debits=1, last_index=7, entries=2))
    expected = (
        "10" + "0000000000000102" + "0004" + b"a258".hex() + "0003" + b"EUR".hex() + "02" + "0008" + b"suspense".hex() + "0100"
        + "0000000000000002" + "0000000000000007" + f"{3:032x}{5:032x}{1:032x}{0:032x}"
    )  # fmt: skip
    assert leaf == Node(sha256(bytes.fromhex(expected)), Sums(3, 5, 2))


@pytest.fixture
def engine(store: Path) -> Iterator[Engine]:
    engine = Engine(store, segment_bytes=SEGMENT_BYTES)
    engine.start()
    yield engine
    engine.close()


def submit(engine: Engine, intents: list[dict[str, Any]]) -> None:
    data = b"".join(json.dumps(intent).encode() + b"\n" for intent in intents)
    engine.submit(data, source=b"f", first_line=1, mode=Mode.EACH)
    engine.drain()
    assert not [code for completion in engine.completions() for code in [completion.refused] if code]


def opening(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"type": "open_account", "account": f"a{number}", "class": CLASSES[number % 3], "currency": ("EUR", "JPY")[number % 2],
         "limit": "none"}
        for number in range(first, first + count)
    ]  # fmt: skip


def prove(engine: Engine, ordinal: int) -> StateProof | None:
    ticket = engine.prove(ordinal)
    while True:
        select.select([engine.wakeup_fd], [], [], 10)
        engine.completions()
        for number, proof in engine.proofs():
            assert number == ticket
            return proof


def seals(engine: Engine) -> list[dict[str, Any]]:
    return [json.loads(bytes(engine.entry(engine.block(height)))) for height in range(1, engine.counts().blocks + 1)]


def assert_leads(engine: Engine, proof: StateProof | None) -> None:
    """From the account to the seal's root; that this is the root of what was committed, others say."""
    assert proof is not None
    assert sha256(proof.trees).hex() == json.loads(bytes(engine.entry(engine.block(proof.block))))["state_root"]
    nodes = [Node(node.hash, Sums(*node.sums)) for node in proof.path]
    members = sum(n % 6 == proof.account.ordinal % 6 for n in range(engine.counts().accounts))
    root = state_tree.follow(state_tree.leaf(proof.account), proof.position, members, nodes)
    assert root.hash in proof.trees


def assert_holds(engine: Engine, proof: StateProof | None) -> None:
    """By the twin alone."""
    assert proof is not None
    assert sha256(proof.trees).hex() == seals(engine)[proof.block - 1]["state_root"]
    twin = Ledger.replay(bytes(engine.entry(index)) for index in range(engine.block(proof.block) + 1))
    tree = twin.book.state
    assert proof.account == twin.account(proof.account.name)
    assert (proof.position, proof.path) == tree.path(proof.account.ordinal)
    own = next(
        total
        for total in tree.totals()
        if (total.currency, total.account_class) == (proof.account.currency, proof.account.account_class)
    )
    nodes = [Node(node.hash, Sums(*node.sums)) for node in proof.path]
    root = state_tree.follow(state_tree.leaf(proof.account), proof.position, own.accounts, nodes)
    assert (root.hash, root.sums) == (own.root, own.sums)


def test_every_seal_carries_the_root_while_few_accounts_change(engine: Engine) -> None:
    submit(engine, opening(7))
    submit(engine, [{"debit": "a0", "credit": "a2", "amount": "1.00"}])
    submit(engine, [{"type": "freeze", "account": "a5"}])
    assert [("state_root" in seal) for seal in seals(engine)] == [False, True, True, True]
    blocks = engine.counts().blocks
    for ordinal in range(7):
        assert_holds(engine, prove(engine, ordinal))
    assert engine.counts().blocks == blocks, "no seal of its own was needed"


def test_after_a_burst_a_seal_is_made_for_who_asks(engine: Engine) -> None:
    submit(engine, opening(BURST))
    submit(engine, [{"debit": "a0", "credit": f"a{number}", "amount": "1.00"} for number in range(2, BURST, 2)])
    carried = ["state_root" in seal for seal in seals(engine)]
    assert not carried[-1]
    proof = prove(engine, 1234)
    assert_holds(engine, proof)
    last = seals(engine)[-1]
    assert (last["count"], "state_root" in last) == (0, True)
    assert proof is not None
    assert proof.block == engine.counts().blocks == len(carried) + 1
    prove(engine, 0)
    assert engine.counts().blocks == len(carried) + 1


def test_within_a_second_the_state_is_sealed_anyway(engine: Engine) -> None:
    submit(engine, opening(BURST))
    submit(engine, [{"debit": "a0", "credit": f"a{number}", "amount": "1.00"} for number in range(2, BURST, 2)])
    blocks = engine.counts().blocks
    for _ in range(2):
        engine.tick()
        while engine.counts().blocks == blocks:
            select.select([engine.wakeup_fd], [], [], 10)
            engine.completions()
    assert engine.counts().blocks == blocks + 1, "once"
    assert "state_root" in seals(engine)[-1]


def test_a_crowd_is_hashed_beside_the_commits(engine: Engine, store: Path) -> None:
    """By the tree's own thread, while more is committed, and proofs are asked for; every root in every seal is right."""
    submit(engine, opening(CROWD))
    assert_leads(engine, prove(engine, CROWD - 1))
    assert engine.tree_ns > 0
    asked: set[int] = set()
    for step in range(7, 47):
        pay = [{"debit": f"a{n}", "credit": f"a{(n + 6 * step) % CROWD}", "amount": "1"} for n in range(1, CROWD, 24)]
        data = b"".join(json.dumps(intent).encode() + b"\n" for intent in pay)
        engine.submit(data, source=b"p%d" % step, first_line=1, mode=Mode.EACH)
        if step % 10 == 0:
            asked.add(engine.prove(step))
    engine.drain()
    while asked:
        select.select([engine.wakeup_fd], [], [], 10)
        engine.completions()
        for number, proof in engine.proofs():
            assert_leads(engine, proof)
            asked.remove(number)
    engine.close()
    assert len([seal for seal in seals(engine) if "state_root" in seal]) > 1
    found = Verifier(store, applied=Applied())
    found.wait()
    assert found.damage is None
    assert found.counts() == engine.counts()


def test_every_implementation_of_sha256_gives_the_same_tree(tmp_path: Path) -> None:
    best = hashing.backend()
    roots = set()
    try:
        for name in filter(hashing.select, hashing.backends()):
            place = tmp_path / name
            for directory in ("journal", "hashes", "runs"):
                (place / directory).mkdir(parents=True)
            Engine.create(place, "ledger.example/x", now_ns=1)
            engine = Engine(place, segment_bytes=SEGMENT_BYTES)
            engine.start()
            data = b"".join(json.dumps(intent).encode() + b"\n" for intent in opening(300))
            engine.submit(data, source=b"f", first_line=1, mode=Mode.EACH, now_ns=5)
            engine.drain()
            engine.completions()
            proof = prove(engine, 77)
            assert_holds(engine, proof)
            assert proof is not None
            roots.add(sha256(proof.trees))
            engine.close()
    finally:
        assert hashing.select(best)
    assert len(roots) == 1


def test_a_restart_goes_on_with_the_same_tree(engine: Engine, store: Path) -> None:
    submit(engine, opening(9))
    engine.close()
    again = Engine(store, segment_bytes=SEGMENT_BYTES)
    again.start()
    blocks = again.counts().blocks
    assert_holds(again, prove(again, 3))
    assert again.counts().blocks == blocks
    submit(again, [*opening(4, first=9), {"debit": "a0", "credit": "a12", "amount": "5.00"}])
    assert_holds(again, prove(again, 12))
    assert prove(again, 13) is None, "no such account"
    again.close()
    assert [finding for finding in Check(Layout(store)).run() if finding.severity == "damage"] == []


def test_a_state_that_the_newest_seal_denies_is_not_gone_on_with(engine: Engine, store: Path) -> None:
    """The seal as somebody would rewrite it: all else in it fits."""
    submit(engine, opening(3))
    engine.close()
    path = Layout(store).segments()[-1]
    data = path.read_bytes()
    root = seals(engine)[-1]["state_root"].encode()
    path.write_bytes(data.replace(root, sha256(root).hex().encode()))
    again = Engine(store, segment_bytes=SEGMENT_BYTES)
    again.start()
    assert prove(again, 0) is None
    assert "state root" in again.failure
    again.close()
    (finding,) = [finding for finding in Check(Layout(store)).run() if finding.severity == "damage"]
    assert "state_root" in finding.what


def test_a_read_only_ledger_proves_its_newest_sealed_state(engine: Engine) -> None:
    """Though more was committed since, without a root, of every kind; and though a batch failed. SEMANTICS 2.15"""
    pair = {"debit": "a0", "credit": "a2"}
    submit(engine, opening(13))
    submit(engine, [{"type": "hold", "id": name, **pair, "amount": "1.00"} for name in ("h1", "h2", "h3")])
    submit(
        engine,
        [
            {**pair, "amount": "7.00"},
            {"type": "post", "hold": "h3", "amount": "0.40"},
            {"type": "freeze", "account": "a4"},
        ],
    )
    first = 13
    while "state_root" in seals(engine)[-1]:  # once a second any seal carries it
        later: list[dict[str, Any]] = [
            {**pair, "amount": "5.00"}, {"type": "post", "hold": "h1", "amount": "0.50"}, {"type": "void", "hold": "h2"},
            {"type": "hold", "debit": "a2", "credit": "a0", "amount": "3.00"}, {"type": "unfreeze", "account": "a4"},
            {"type": "freeze", "account": "a6"}, {"debit": "a6", "credit": "a8", "amount": "1.00"},
            {"debit": "a8", "credit": "a10", "amount": "2.00"},
        ]  # fmt: skip
        engine.submit(
            b"".join(json.dumps(each).encode() + b"\n" for each in (*opening(BURST, first=first), *later)),
            source=b"later%d" % first, first_line=1, mode=Mode.EACH,
        )  # fmt: skip
        engine.drain()
        engine.completions()
        first += BURST
    blocks = engine.counts().blocks
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))  # the disk refuses
    try:
        engine.submit(json.dumps({**pair, "amount": "1.00"}).encode(), source=b"x", first_line=1, mode=Mode.EACH)
        engine.drain()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert engine.failure
    sealed = max(height for height, seal in enumerate(seals(engine), 1) if "state_root" in seal)
    assert sealed < blocks == engine.counts().blocks
    for ordinal in range(13):
        proof = prove(engine, ordinal)
        assert_holds(engine, proof)
        assert proof is not None
        assert proof.block == sealed
    assert prove(engine, engine.counts().accounts - 1) is None, "not open by then"


@pytest.mark.slow
def test_roots_while_accounts_are_opened_faster_than_they_are_hashed(store: Path) -> None:
    """Accounts that are opened during a sweep of the tree's thread are pending at once, and have no place in it yet."""
    engine = Engine(store, accounts_max=OPENINGS)
    engine.start()
    opening = b'{"type":"open_account","account":"o%d","currency":"EUR","class":"customer_liability","initial_balance":"1.00"}\n'
    for first in range(0, OPENINGS - 2, PIECE):
        lines = b"".join(opening % number for number in range(first, min(first + PIECE, OPENINGS - 2)))
        engine.submit(lines, source=b"o", first_line=1 + first, mode=Mode.EACH)
    engine.drain()
    assert sum("state_root" in seal for seal in seals(engine)) > 1
    engine.close()
    verifier = Verifier(store, applied=Applied())
    verifier.wait()
    assert verifier.damage is None


def test_an_empty_batch_without_a_state_root_is_refused(store: Path) -> None:
    with pytest.raises(Exception, match="seals nothing"):
        ledger = Ledger.create("ledger.example/x", 1)
        ledger.book.seal(5)
        Ledger.replay(ledger.entries)


def test_the_order_of_trees_decides_the_state_root() -> None:
    totals = [Total(currency, "suspense", 1, Sums(1, 1, 0), mth(b"")) for currency in ("EUR", "JPY")]
    assert state_tree.state_root(totals) != state_tree.state_root(reversed(totals))
