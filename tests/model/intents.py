"""Intents for the model tests, drawn from a small world so that they meet each other. Start at ``Source.submission``.

Everything is drawn from one ``random.Random``: a seeded one, or Hypothesis' own, which shrinks.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

from ledgerfsd.clock import NS_PER_SECOND, format_time
from tests.model.reference import Submission

Json = dict[str, Any]

EUROS = ("a", "b", "c", "float", "e")
OTHERS = ("yen", "pts", "nobody", "equity:opening:EUR")
OPENINGS: list[Json] = [
    {"type": "open_account", "account": "float", "class": "safeguarding_asset", "currency": "EUR"},
    {
        "type": "open_account",
        "account": "a",
        "class": "customer_liability",
        "currency": "EUR",
        "initial_balance": "100.00",
    },
    {
        "type": "open_account",
        "account": "b",
        "class": "customer_liability",
        "currency": "EUR",
        "limit": "overdraft:5.00",
    },
    {
        "type": "open_account",
        "account": "c",
        "class": "customer_liability",
        "currency": "EUR",
        "initial_balance": "90.00",
    },
    {"type": "open_account", "account": "e", "class": "customer_liability", "currency": "EUR"},
    {"type": "open_account", "account": "yen", "class": "income", "currency": "JPY", "initial_balance": "1000"},
]
AMOUNTS = ("1.00", "0.01", "10.00", "60.00", "5.00", "100000.00", "1.0", "0.00", "7", f"{2**126}.00")
DATES = ("2026-01-31", "2026-02-29", "2025-12-31", "2024-06-30")
TIMES = ("2199-01-01T00:00:00Z", "2198-12-31T23:59:59.5Z", "2020-01-01T00:00:00Z", "soon")
MALFORMED = (
    b"{", b" \n", b"[]", b"nonsense", b'{"debit":"a","credit":"b","amount":1.00}', b'{"a":1,"a":2}', b'{"id":"\xff"}',
    b'{"debit":"a","credit":"b","amount":"1.00"} x', b'"text"', b'{"type":"steal"}', b'{"debit":"a"}', b"{}", b"[[1]]",
    b'{"debit":"a","credit":"b","amount":"1.00","tags":[]}', b'{"metadata":' + b"[" * 17 + b"]" * 17 + b"}", b"[{},]",
    b'{"debit":"a","credit":"a","amount":"1.00"}', b'{"debit":"a","credit":"b","amount":"-1.00"}', b'{"id":"\\ud800"}',
    b'{"debit":"a","credit":"b","amount":"1.00","id":"~mine"}', b'[{"debit":"a","credit":"b","amount":"1.00"}, 7]',
)  # fmt: skip


class Source:
    """Draws intents and files. ``prefix`` keeps the file names of several clients apart; ids are meant to collide."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.count = 0
        self.random = random.Random(0)
        self.sent: list[Submission] = []

    # -- intents

    def _account(self) -> str:
        return self.random.choice(OTHERS if self.random.random() < 0.1 else EUROS)

    def _amount(self) -> str:
        return self.random.choice(AMOUNTS if self.random.random() < 0.2 else AMOUNTS[:5])

    def _pair(self, intent: Json) -> Json:
        """Two accounts that differ, mostly, and the amount."""
        first = self._account()
        others = [name for name in EUROS if name != first]
        return intent | {"debit": first, "credit": self.random.choice(others), "amount": self._amount()}

    def transfer(self) -> Json:
        intent = self._pair({"type": "transfer"} if self.random.random() < 0.5 else {})
        if self.random.random() < 0.1:
            intent["effective"] = self.random.choice(DATES)
        if self.random.random() < 0.1:
            intent["currency"] = self.random.choice(("EUR", "EUR", "JPY", "XXXX"))
        return intent

    def transaction(self) -> Json:
        amount = self._amount()
        postings = [
            {"account": self._account(), "side": "debit", "amount": amount},
            {"account": self._account(), "side": "credit", "amount": amount},
        ]
        if self.random.random() < 0.5:
            account = self._account()
            postings += [{"account": account, "side": side, "amount": "0.50"} for side in ("debit", "credit")]
        if self.random.random() < 0.1:
            postings.append({"account": "a", "side": "debit", "amount": "0.01"})
        return {"type": "transaction", "postings": postings}

    def hold(self) -> Json:
        intent = self._pair({"type": "hold"})
        if self.random.random() < 0.5:
            intent["expires"] = self.random.choice(TIMES)
        if self.random.random() < 0.9:
            intent["id"] = self._hold()
        return intent

    def _hold(self) -> str:
        """The id of a hold that somebody has just made, or is about to make."""
        return f"h{self.count // 4 + self.random.randrange(5)}"

    def post(self) -> Json:
        intent: Json = {"type": "post", "hold": self._hold()}
        if self.random.random() < 0.5:
            intent["amount"] = self._amount()
        return intent

    def void(self) -> Json:
        return {"type": "void", "hold": self._hold()}

    def reverse(self) -> Json:
        return {"type": "reverse", "of": f"tx_{self.random.randrange(1, self.count + 5):04}"}

    def change(self) -> Json:
        """Freeze, unfreeze (more often: else everything ends frozen) or close (what payments can do without)."""
        kind = self.random.choice(("freeze", "unfreeze", "unfreeze", "unfreeze", "close_account"))
        names = {
            "freeze": ("c", "e", "nobody"),
            "unfreeze": ("c", "e", "c", "e", "a"),
            "close_account": ("n.1", "n.2", "pts", "b"),
        }
        return {"type": kind, "account": self.random.choice(names[kind])}

    def account(self) -> Json:
        intent: Json = {
            "type": "open_account",
            "account": self.random.choice(("e", "d", "pts", "n.1", "n.2", "_x", "a")),
        }
        intent |= {"class": self.random.choice(("customer_liability", "suspense", "expense")), "currency": "EUR"}
        if intent["account"] == "pts" or self.random.random() < 0.1:
            intent["currency"] = "PTS"
        if self.random.random() < 0.5:
            intent["initial_balance"] = self._amount()
        if self.random.random() < 0.3:
            intent |= {"owner": "cust ü", "tags": ["x", "pool:1"], "limit": "overdraft:1.00", "normal": "credit"}
        return intent

    def policy(self) -> Json:
        if self.random.random() < 0.5:
            return {"type": "register_currency", "currency": "PTS", "decimals": 0}
        return {"type": "close_period", "through": self.random.choice(DATES)}

    def soon(self) -> Json:
        """A hold that expires while the test goes on."""
        now = format_time(time.time_ns() + self.random.randrange(1, 4) * NS_PER_SECOND // 4)
        return {"type": "hold", "debit": "float", "credit": "a", "amount": "1.00", "expires": now}

    def intent(self) -> Json:
        """Any, mostly payments; sometimes with an id that another may have, a reference or metadata."""
        kinds: list[Callable[[], Json]] = [self.transfer] * 6 + [self.transaction, self.hold, self.hold, self.post]
        kinds += [self.post, self.void, self.reverse, self.change, self.account, self.policy, self.soon]
        return self.dressed(self.random.choice(kinds)())

    def _mostly(self) -> Json:
        """For batches, which one refusal undoes."""
        if self.random.random() < 0.15:
            return self.intent()
        return {"debit": "float", "credit": self.random.choice(("a", "b")), "amount": self.random.choice(AMOUNTS[:4])}

    def dressed(self, intent: Json) -> Json:
        """With some of the members that any intent may have."""
        if self.random.random() < 0.2:
            intent.setdefault("id", f"i{self.count // 4 + self.random.randrange(10)}")
        if self.random.random() < 0.1:
            intent["reference"] = self.random.choice(("rent, May", 'say "x"\\', "𝄞 ü"))
        if self.random.random() < 0.1:
            intent["metadata"] = {"ﬀ": [1, None], "a": {"z": "1", "y": True}}
        return intent

    # -- files

    def _name(self, ending: str) -> str:
        self.count += 1
        return f"{self.prefix}{self.count}.{ending}"

    def _text(self, intent: Json) -> bytes:
        return json.dumps(intent, ensure_ascii=self.random.random() < 0.5).encode()

    def document(self, intent: Json, area: str = "") -> Submission:
        """One intent."""
        return self._keep(Submission(self._name("json"), self._text(intent) + b"\n", area))

    def array(self, area: str = "") -> Submission:
        """A few, all or none."""
        texts = [self._text(self._mostly()) for _ in range(self.random.randrange(1, 5))]
        return self._keep(Submission(self._name("json"), b"[" + b",\n ".join(texts) + b"]", area))

    def lines(self, area: str = "") -> Submission:
        """A few, each for itself (in inbox/atomic/ all or none), with empty and, rarely, malformed lines."""
        make = self._mostly if area == "atomic" else self.intent
        texts = [self._text(make()) for _ in range(self.random.randrange(1, 8))]
        if self.random.random() < 0.3:
            texts.insert(self.random.randrange(len(texts)), b"")
        if self.random.random() < 0.2:
            texts.insert(self.random.randrange(len(texts)), self.random.choice(MALFORMED).replace(b"\n", b""))
        if area == "atomic" and self.random.random() < 0.5:
            texts.insert(0, b'{"count":%d}' % sum(bool(text.strip()) for text in texts))
        end = b"" if self.random.random() < 0.2 and not area else b"\n"
        return self._keep(Submission(self._name("ndjson"), b"\n".join(texts) + end, area))

    def malformed(self, area: str = "") -> Submission:
        """A document that is none."""
        return self._keep(Submission(self._name("json"), self.random.choice(MALFORMED), area))

    def again(self) -> Submission:
        """A file sent before, under the same name: it must not count twice."""
        return self.random.choice(self.sent) if self.sent else self.lines()

    def _keep(self, submission: Submission) -> Submission:
        self.sent.append(submission)
        return submission

    def submission(self) -> Submission:
        """Any file."""
        kind = self.random.randrange(20)
        if kind < 9:
            return self.document(self.intent())
        if kind < 12:
            return self.lines()
        if kind < 14:
            return self.array()
        if kind < 15:
            return self.lines("atomic")
        if kind < 16:
            return self.malformed()
        if kind < 18:
            return self.again()
        return self.random.choice((self.array, self.lines))("dry-run")
