"""The C core and its pure-Python twin give the same answers and the same bytes, on accepted and on refused input."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.types import Mode, Result

ORIGIN = "ledger.example/twin"
BEGIN_NS = 1_795_000_000_000_000_000  # in November 2026
SECOND_NS = 1_000_000_000
SEGMENT_BYTES = 1 << 20

ACCOUNTS = ["a", "b", "c", "d.1", "equity:opening:EUR", "equity:opening:JPY"]
names = st.sampled_from([*ACCOUNTS, *ACCOUNTS[:4], "nobody", "_x", "x" * 65])
currencies = st.sampled_from(["EUR", "EUR", "EUR", "JPY", "BHD", "PTS", "XXXX", "eur"])
amounts = st.sampled_from(
    ["1.00", "10.00", "0.01", "5", "100", "1.000", "0.00", "-1.00", "01.00", "1.0", "1.", "", "1e3"]
    + [str(2**126), str(2**127), str(2**128 - 1), str(2**128), f"{2**126}.00", f"{2**125 // 100}.00"]
)
ids = st.sampled_from(["i1", "i2", "i3", "h1", "h2", "h3", "~x", "", "x" * 128, "x" * 129, 'q"', "~auto:0"])
dates = st.sampled_from(["2026-11-20", "2026-01-31", "2026-02-29", "2028-02-29", "2030-01-01", "x", "0000-01-01"])
times = st.sampled_from(
    [
        "2026-11-18T12:00:00Z",
        "2026-11-18T11:06:45.5Z",
        "2026-11-18T11:07:00Z",
        "2020-01-01T00:00:00Z",
        "2200-01-01T00:00:00Z",
    ]
    + ["2026-11-18T11:06:41.000000001Z", "2026-11-18T24:00:00Z", "now"]
)
texts = st.sampled_from(["ok", "", "ü" * 128, "ü" * 129, 'say "x"\\', "a\nb", "\u007f", "𝄞"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**54), 2**54), st.text(max_size=5), st.just(1.5))
metadata = st.one_of(
    st.dictionaries(
        st.text(max_size=4), st.recursive(scalars, lambda x: st.lists(x, max_size=3), max_leaves=6), max_size=4
    ),
    st.just({"ﬀ": 1, "𝄞": 2, "a": {"z": [], "y": {}}}),
    st.just({"x": "y" * 16_380}),
    st.just({"account": "a", "prev": 1, "t": "seal/1", "id": "i1"}),
)
transactions = st.sampled_from(["tx_0001", "tx_0002", "tx_0003", "tx_0009", "tx_1", "tx_00001", "tx_12345", "0001"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "account": names,
    "amount": amounts,
    "class": st.sampled_from(["customer_liability", "safeguarding_asset", "equity", "suspense", "x"]),
    "credit": names,
    "currency": currencies,
    "debit": names,
    "decimals": st.sampled_from([0, 2, 18, 19, -1, 100, "2", 2**53 - 1]),
    "effective": dates,
    "expires": times,
    "hold": ids,
    "id": ids,
    "initial_balance": amounts,
    "limit": st.sampled_from(
        ["none", "no_overdraft", "overdraft:5.00", "overdraft:0.00", "overdraft:x", "overdraft:5", "all"]
    ),
    "metadata": metadata,
    "normal": st.sampled_from(["debit", "credit", "up"]),
    "of": transactions,
    "owner": texts,
    "reference": texts,
    "tags": st.lists(st.sampled_from(["a", "pool:uk-1", "", "x" * 65, "é"]), max_size=3),
    "through": dates,
}
posting = st.fixed_dictionaries(
    {"account": names, "amount": amounts, "side": st.sampled_from(["debit", "credit", "debit", "credit", "x"])},
    optional={"currency": currencies, "odd": st.just(1)},
)
VALUES["postings"] = st.one_of(
    st.lists(posting, max_size=4),
    st.builds(
        lambda a, b, amount: [
            {"account": a, "amount": amount, "side": "debit"},
            {"account": b, "amount": amount, "side": "credit"},
        ],
        names,
        names,
        amounts,
    ),
)
# Values that mostly fit together, so that whole histories come about and not only refusals.
FITTING: dict[str, st.SearchStrategy[Any]] = VALUES | {
    "account": st.sampled_from(["a", "b", "c", "e", "f"]),
    "amount": st.sampled_from(["1.00", "10.00", "0.01", "60.00"]),
    "class": st.sampled_from(["customer_liability", "safeguarding_asset", "equity"]),
    "credit": st.sampled_from(["b", "c", "e"]),
    "currency": st.just("EUR"),
    "debit": st.sampled_from(["a", "c", "f"]),
    "decimals": st.just(2),
    "effective": st.sampled_from(["2026-11-20", "2026-10-31"]),
    "expires": st.sampled_from(["2026-11-18T11:06:45Z", "2026-11-18T12:00:00Z"]),
    "hold": st.sampled_from(["h1", "h2", "h3"]),
    "id": st.sampled_from(["i1", "i2", "i3", "h1", "h2", "h3", "h1", "h2"]),
    "initial_balance": st.sampled_from(["100.00", "0.00"]),
    "limit": st.sampled_from(["none", "no_overdraft", "overdraft:5.00"]),
    "metadata": st.sampled_from([{}, {"b": [1, "x"], "a": None}]),
    "normal": st.sampled_from(["debit", "credit"]),
    "of": st.sampled_from(["tx_0001", "tx_0002", "tx_0003"]),
    "owner": st.just("cust"),
    "postings": st.sampled_from(
        [
            [
                {"account": "a", "amount": "3.00", "side": "debit"},
                {"account": "b", "amount": "2.00", "side": "credit", "currency": "EUR"},
                {"account": "c", "amount": "1.00", "side": "credit"},
            ],
            [
                {"account": "a", "amount": "1.00", "side": "debit"},
                {"account": "a", "amount": "2.00", "side": "debit"},
                {"account": "a", "amount": "3.00", "side": "credit"},
            ],
        ]
    ),
    "reference": st.just("ok"),
    "tags": st.just(["x", "y"]),
    "through": st.sampled_from(["2026-10-31", "2026-11-01"]),
}
SHAPES: dict[str, tuple[list[str], list[str]]] = {
    "open_account": (["account", "class", "currency"], ["initial_balance", "limit", "normal", "owner", "tags"]),
    "transfer": (["amount", "credit", "debit"], ["currency", "effective"]),
    "transaction": (["postings"], ["effective"]),
    "hold": (["amount", "credit", "debit"], ["currency", "expires"]),
    "post": (["hold"], ["amount", "effective"]),
    "void": (["hold"], []),
    "reverse": (["of"], ["effective"]),
    "freeze": (["account"], []),
    "unfreeze": (["account"], []),
    "close_account": (["account"], []),
    "register_currency": (["currency", "decimals"], []),
    "close_period": (["through"], []),
}


@st.composite
def shaped(draw: st.DrawFn) -> dict[str, Any]:
    """An intent that mostly has the right shape."""
    kind = draw(st.sampled_from(["transfer", "transfer", "open_account", "open_account", "hold", "post", *SHAPES]))
    required, optional = SHAPES[kind]
    intent: dict[str, Any] = {"type": kind} if kind != "transfer" or draw(st.booleans()) else {}
    fitting = draw(st.integers(0, 2)) > 0
    values = FITTING if fitting else VALUES
    for name in required:
        intent[name] = draw(values[name])
    for name in [*optional, "id", "reference", "metadata"]:
        if draw(st.integers(0, 3)) == 0 or (name == "id" and draw(st.booleans())):
            intent[name] = draw(values[name])
    if fitting:
        return intent
    if draw(st.integers(0, 15)) == 0:
        intent[draw(st.sampled_from(["side", "of", "unknown", "Über", "through"]))] = draw(scalars)
    if draw(st.integers(0, 15)) == 0 and intent:
        del intent[draw(st.sampled_from(sorted(intent)))]
    if draw(st.integers(0, 15)) == 0 and intent:
        intent[draw(st.sampled_from(sorted(intent)))] = draw(scalars)
    return intent


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """The text of an intent, in one of the ways programs write, now and then damaged."""
    intent = draw(shaped())
    text = json.dumps(
        intent,
        ensure_ascii=draw(st.booleans()),
        sort_keys=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")])),
    ).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 11)) == 0 and text:
        place = draw(st.integers(0, len(text) - 1))
        piece = draw(st.sampled_from([b"", b'"', b"\\", b"\xff", b"{", b"}", b",", b"0", b"\\ud800", b"\x01", b"\\n"]))
        text = text[:place] + piece + text[place + draw(st.integers(0, 2)) :]
    return text.replace(b"\n", b" ")


SYSTEM_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "hash": st.sampled_from(["ab" * 32, "AB" * 32, "ab" * 31, ""]),
    "id": st.sampled_from(
        ["~key:1", "~key:2", "~anchor:x", "~restore:2", "~restore:3", "~key:", "~auto:1", "i1", "~key:" + "x" * 124]
    ),
    "incarnation": st.sampled_from([2, 3, 2, 1, -1]),
    "kind": st.sampled_from(["folder", "s3", "rfc3161", "witness", "paper"]),
    "name": texts,
    "reason": texts,
    "root": st.sampled_from(["cd" * 32, "x"]),
    "signed_root": st.sampled_from(["ef" * 32, "ef"]),
    "signed_size": st.sampled_from([9, 0, -1]),
    "size": st.sampled_from([2, 5, 10**6, -1]),
    "status": st.sampled_from(["active", "retiring", "revoked", "x"]),
    "valid_from_size": st.sampled_from([0, 7, -7, 2**53 - 1]),
    "valid_to_size": st.sampled_from([0, 7, -7]),
    "vkey": st.sampled_from(["l.example/x+01234567+AQAB", "", "x" * 400, "x" * 401, 'q"', "a b"]),
}
SYSTEM_FITTING: dict[str, st.SearchStrategy[Any]] = SYSTEM_VALUES | {
    "hash": st.sampled_from(["ab" * 32, "ba" * 32]),
    "incarnation": st.sampled_from([2, 3, 4]),
    "kind": st.just("rfc3161"),
    "name": st.sampled_from(["tsa.example", 'say "x"\\']),
    "reason": st.just("the disk failed"),
    "root": st.just("cd" * 32),
    "signed_root": st.just("ef" * 32),
    "signed_size": st.just(9),
    "size": st.sampled_from([2, 5]),
    "status": st.sampled_from(["active", "revoked"]),
    "valid_from_size": st.just(0),
    "valid_to_size": st.just(7),
    "vkey": st.just("l.example/x+01234567+AQAB"),
}
SYSTEM_SHAPES = {
    "key": (["status", "valid_from_size", "vkey"], ["valid_to_size"]),
    "anchor": (["hash", "kind", "name", "root", "size"], []),
    "restore": (["incarnation", "reason", "size"], ["signed_root", "signed_size"]),
}


@st.composite
def system_intents(draw: st.DrawFn) -> bytes:
    """One intent of the ledger's own, mostly of the right shape."""
    kind = draw(st.sampled_from([*SYSTEM_SHAPES, *SYSTEM_SHAPES, "transfer"]))
    required, optional = SYSTEM_SHAPES.get(kind, ([], []))
    names_ = required + (optional if draw(st.booleans()) else [])
    intent: dict[str, Any] = {"type": kind} | {name: draw(SYSTEM_FITTING[name]) for name in names_}
    intent["id"] = f"~{kind}:{draw(st.sampled_from('123'))}"
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):  # what is wrong with it
        name = draw(st.sampled_from([*intent, "more", "account"]))
        way = draw(st.integers(0, 5))
        if way == 0:
            intent.pop(name, None)
        else:
            intent[name] = draw(scalars if way == 1 or name not in SYSTEM_VALUES else SYSTEM_VALUES[name])
    text = json.dumps(intent, ensure_ascii=draw(st.booleans()), sort_keys=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    return draw(st.sampled_from([b"", b" ", b"\t\n"])) + text + draw(st.sampled_from([b"", b"\n"]))


@st.composite
def submissions(draw: st.DrawFn) -> tuple[Mode, bytes, bool, int, bool]:
    """Mode, data, dry run, nanoseconds since the one before, whether it is of the ledger's own."""
    system = draw(st.integers(0, 3)) == 0
    mode = draw(st.sampled_from([Mode.EACH, Mode.EACH, Mode.DOCUMENT, Mode.ATOMIC]))
    texts = draw(st.lists(written(), min_size=1, max_size=5))
    if system and draw(st.integers(0, 7)) != 7:
        data = draw(system_intents())
    elif mode is Mode.DOCUMENT:
        data = texts[0] if draw(st.booleans()) else b"[" + b",".join(texts) + b"]"
        data = draw(st.sampled_from([b"", b" \n", b"\t"])) + data + draw(st.sampled_from([b"", b"\n", b" x"][:2]))
    else:
        data = b"\n".join(texts) + draw(st.sampled_from([b"", b"\n", b"\n\n \n"]))
    step = draw(st.sampled_from([0, 1, SECOND_NS, 5 * SECOND_NS, 3600 * SECOND_NS]))
    return mode, data, draw(st.integers(0, 5)) == 0, step, system


OPENING = (
    b'{"type":"open_account","account":"a","class":"customer_liability","currency":"EUR","initial_balance":"100.00"}\n'
    b'{"type":"open_account","account":"b","class":"customer_liability","currency":"EUR","limit":"overdraft:5.00"}\n'
    b'{"type":"open_account","account":"c","class":"safeguarding_asset","currency":"EUR"}\n'
    b'{"type":"open_account","account":"d.1","class":"customer_liability","currency":"JPY","initial_balance":"1000"}\n'
)


class Pair:
    """Both implementations, given the same."""

    def __init__(self, store: Path) -> None:
        (store / "journal").mkdir()
        Engine.create(store, ORIGIN, segment_bytes=SEGMENT_BYTES, now_ns=BEGIN_NS)
        self.store = store
        self.engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=4096, ids_recent=5)
        self.engine.start()
        self.twin = Ledger.create(ORIGIN, BEGIN_NS, accounts_max=4096)
        self.now_ns = BEGIN_NS

    def submit(
        self, mode: Mode, data: bytes, dry_run: bool, step_ns: int, system: bool = False
    ) -> tuple[list[Result], list[Result]]:
        self.now_ns += step_ns
        more: dict[str, Any] = {"mode": mode, "dry_run": dry_run, "now_ns": self.now_ns, "system": system}
        self.engine.submit(data, source=b"f", first_line=1, **more)
        self.engine.drain()
        (completion,) = self.engine.completions()
        ours = [completion[i] for i in range(len(completion))]
        theirs = self.twin.submit(data, source=b"f", first_line=1, **more)
        if self.twin.book.batch_first < len(self.twin.entries):
            self.twin.seal(self.now_ns, state=True)  # few accounts change, so every seal carries the root
        return ours, theirs

    def entries(self, engine: Engine) -> list[bytes]:
        return [bytes(engine.entry(index)) for index in range(engine.counts().entries)]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(submissions(), min_size=1, max_size=8))
def test_same_results_same_entries_same_accounts(steps: list[tuple[Mode, bytes, bool, int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder))
        pair.submit(Mode.EACH, OPENING, False, 1)
        for step in steps:
            ours, theirs = pair.submit(*step)
            assert ours == theirs, step
        engine, twin = pair.engine, pair.twin
        assert pair.entries(engine) == twin.entries
        accounts = [engine.account(ordinal) for ordinal in range(engine.counts().accounts)]
        assert accounts == twin.accounts
        for account in accounts:
            assert len(engine.history(account.ordinal)) == account.entries
        assert engine.system_entries() == twin.book.system
        counts, saved = engine.counts(), engine.save()
        saved = saved._replace(pages=dict(saved.pages))  # while the engine is open
        assert counts.incarnation == twin.book.incarnation
        engine.saved(True)
        engine.close()
        for state in (saved, None):  # in this order: to begin from nothing empties the projections
            again = Engine(pair.store, segment_bytes=SEGMENT_BYTES, accounts_max=4096, saved=state)
            assert again.counts() == counts
            assert [again.account(ordinal) for ordinal in range(counts.accounts)] == accounts
            assert pair.entries(again) == twin.entries
            assert again.system_entries() == twin.book.system
        assert Ledger.replay(twin.entries).accounts == twin.accounts
