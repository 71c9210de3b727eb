"""Random histories over months, made before the ledger is mounted, and what other code says of their past."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

from ledgerfsd.clock import NS_PER_DAY, NS_PER_SECOND, format_time, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.journal.layout import Layout, create
from ledgerfsd.journal.stream import Stream
from ledgerfsd.types import Account, Mode
from tests.conftest import LEDGER, SEGMENT_BYTES
from tests.model.intents import OPENINGS, Source

BEGIN_NS = parse_time("2026-01-29T00:00:00Z")
DAYS = 70
MORE = [
    {"type": "open_account", "account": "cad", "class": "customer_liability", "currency": "CAD", "initial_balance": "500.00"},
    {"type": "open_account", "account": "usd", "class": "clearing", "currency": "USD"},
    {"type": "open_account", "account": "eur", "class": "clearing", "currency": "EUR"},
]  # fmt: skip


class Past(Source):
    """With holds that expire, dates around the booking, and transactions of two currencies."""

    now = BEGIN_NS

    def soon(self) -> dict[str, Any]:
        expires = format_time(self.now + self.random.randrange(1, 3 * NS_PER_DAY))
        return {"type": "hold", "debit": "float", "credit": "a", "amount": "1.00", "expires": expires}

    def transfer(self) -> dict[str, Any]:
        intent = super().transfer()
        if self.random.random() < 0.3:
            intent["effective"] = format_time(self.now + self.random.randrange(-20, 20) * NS_PER_DAY)[:10]
        return intent

    def transaction(self) -> dict[str, Any]:
        if self.random.random() < 0.7:
            return super().transaction()
        sides = (("cad", "debit", "1.50"), ("usd", "credit", "1.10"), ("eur", "debit", "1.00"))
        more = (("usd", "debit", "1.10"), ("cad", "credit", "1.50"), ("a", "credit", "1.00"))
        postings = [{"account": name, "side": side, "amount": amount} for name, side, amount in sides + more]
        return {"type": "transaction", "postings": postings}


def make(store: Path, seed: int, files: int) -> Layout:
    """A store with some hundred random files, and nothing in its last two days."""
    layout = create(store, LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=BEGIN_NS)
    source = Past("p")
    source.random.seed(seed)
    engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
    engine.start()
    todo = [(json.dumps(intent).encode(), b"accounts", Mode.DOCUMENT) for intent in [*OPENINGS, *MORE]]
    for _ in range(files):
        source.now += source.random.randrange(2 * DAYS * NS_PER_DAY // files)
        sent = source.submission()
        todo += [(text, sent.name.encode(), mode) for text, _, mode in sent.units() if not sent.dry_run]
        for content, name, mode in todo:
            source.now += NS_PER_SECOND
            engine.submit(content, source=name, first_line=1, mode=mode, now_ns=source.now)
            engine.drain()
        todo = []
    assert engine.counts().transactions > files // 3
    engine.close()
    return layout


def entries_of(layout: Layout) -> list[bytes]:
    """The whole log, as it lies on disk."""
    with Stream(layout) as stream:
        return [entry.data for entry in stream.entries()]


def twin_at(entries: list[bytes], size: int) -> dict[str, Account]:
    """The accounts after the first ``size`` entries, by the twin of the core."""
    return {account.name: account for account in Ledger.replay(entries[:size]).accounts}


def times_of(entries: list[bytes]) -> array[int]:
    """Their booking times in ns."""
    return array("Q", (parse_time(json.loads(entry)["time"]) for entry in entries))
