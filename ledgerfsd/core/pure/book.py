"""The books: the state of a ledger, and the writing of entries, which is the only thing that changes it.

``Book`` knows how each kind of entry follows from the state before it (docs/FORMAT.md, section 7), not whether
it may be written: that is ``rules.py``. Accepting an intent and replaying a journal both write through these
methods, so both come to the same state. Each method renders first and changes afterwards: when it raises,
nothing has changed.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from ...clock import format_time
from ...errors import BY_NAME
from ...limits import ENTRY_BYTES_MAX
from ...money import ISO, TABLE_BYTES
from ...types import Account
from . import entries, system
from .entries import Json, given
from .hashing import Frontier, leaf_hashes, mth, sha256
from .intent import CLASSES, Intent, parse_limit
from .state_tree import StateTree

ZERO_HASH: Final = "00" * 32
STATUS: Final = {"freeze": "frozen", "unfreeze": "open", "close": "closed"}  # action of account.update/1 → status

Common = Mapping[str, Json]  # those of "id", "intent", "reference", "metadata" that an entry has


class EntryTooLargeError(Exception):
    """An entry would exceed 65,535 bytes; it was not written."""


class Leg(NamedTuple):
    """What one posting does to one account: minor units booked, and minor units by which the pending total changes."""

    account: str
    side: str  # "debit" | "credit"
    booked: int
    held: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold, open or ended. It is never forgotten: its id stays used."""

    index: int
    debit: str
    credit: str
    amount: int
    expires_ns: int | None
    status: str  # "open" | "posted" | "voided" | "expired"

    def legs(self, booked: int, held: int) -> list[Leg]:
        """Both of its sides, debit first."""
        return [Leg(self.debit, "debit", booked, held), Leg(self.credit, "credit", booked, held)]


@dataclass(frozen=True, slots=True)
class Transaction:
    """A txn/1 or post/1: where it stands and what it booked."""

    index: int
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer to an id, given by the entry that owns it."""

    index: int
    intent: str  # hex hash of the intent's content; "" in an entry that answers no intent
    code: int
    tx: int


@dataclass
class Book:
    """The state. Records are immutable and replaced, so a copy of the containers is a copy of the state."""

    entries: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    currencies: dict[str, int] = field(default_factory=lambda: {code: unit.decimals for code, unit in ISO.items()})
    holds: dict[str, Hold] = field(default_factory=dict)
    expiring: list[tuple[int, int, str]] = field(default_factory=list)  # open holds: (expires_ns, index, id), sorted
    transactions: list[Transaction] = field(default_factory=list)  # number - 1 → transaction
    reversed: set[int] = field(default_factory=set)  # numbers of reversed transactions
    answers: dict[str, Answer] = field(default_factory=dict)  # id → its first answer
    seals: list[int] = field(default_factory=list)  # height - 1 → entry index
    closed_through: str = ""  # last closed date, "" before the first; dates sort as text
    policy_index: int = 0  # the newest policy/1, or genesis
    incarnation: int = 1
    system: list[int] = field(default_factory=list)  # indexes of key/1 and restore/1
    time_ns: int = -1  # of the newest entry
    seal_time_ns: int = 0
    sealed: Frontier = field(default_factory=Frontier, compare=False)  # tree of all entries up to the last seal
    state: StateTree = field(default_factory=StateTree, compare=False)  # as of the last seal that carries its root
    changed: dict[str, None] = field(default_factory=dict, compare=False)  # names of accounts changed since, in order

    def copy(self) -> Book:
        """The state as it is now, to be put back before the next seal: the trees of what is sealed are shared."""
        return replace(
            self,
            entries=list(self.entries),
            leaves=list(self.leaves),
            accounts=dict(self.accounts),
            currencies=dict(self.currencies),
            holds=dict(self.holds),
            expiring=list(self.expiring),
            transactions=list(self.transactions),
            reversed=set(self.reversed),
            answers=dict(self.answers),
            seals=list(self.seals),
            system=list(self.system),
            changed=dict(self.changed),
        )

    # -- looking

    @property
    def batch_first(self) -> int:
        """Index of the first entry of the open batch."""
        return self.seals[-1] + 1 if self.seals else 0

    def block_of(self, index: int) -> int:
        """Height of the seal that commits, or will commit, entry ``index``."""
        return bisect.bisect_left(self.seals, index) + 1

    def next_time(self, now_ns: int) -> int:
        """The time that the next entry would get."""
        return max(now_ns, self.time_ns + 1)

    def moved(self, legs: Iterable[Leg]) -> list[Account]:
        """The account of each leg as that leg leaves it, one leg after the other. KeyError if there is none."""
        after: dict[str, Account] = {}
        steps = []
        for leg in legs:
            account = after.get(leg.account) or self.accounts[leg.account]
            if leg.side == "debit":
                account = account._replace(
                    debits=account.debits + leg.booked, held_debits=account.held_debits + leg.held
                )
            else:
                account = account._replace(
                    credits=account.credits + leg.booked, held_credits=account.held_credits + leg.held
                )
            after[leg.account] = account
            steps.append(account)
        return steps

    # -- writing

    def _append(self, kind: str, time_ns: int, members: Mapping[str, Json], *, code: int = 0, tx: int = 0) -> bytes:
        """Render and append an entry; its id, when it has one, is owned by it from now on."""
        index = len(self.entries)
        data = entries.entry(kind, index, time_ns, members)
        if len(data) > ENTRY_BYTES_MAX:
            raise EntryTooLargeError
        self.entries.append(data)
        self.leaves.append(leaf_hashes([data]))
        self.time_ns = time_ns
        owner = members.get("id")
        if owner is not None and code != BY_NAME["id_reused"].number:
            self.answers[owner] = Answer(index, members.get("intent") or members.get("intent_hash") or "", code, tx)
        return data

    def _touch(self, accounts: Iterable[Account], data: bytes, *, tx: int = 0) -> None:
        """Store what the newest entry, ``data``, made of these accounts; the last of a name counts."""
        index = len(self.entries) - 1
        for account in {account.name: account for account in accounts}.values():
            self.changed[account.name] = None
            self.accounts[account.name] = account._replace(
                last_index=index,
                last_tx=tx or account.last_tx,
                entries=account.entries + 1,
                log_bytes=account.log_bytes + len(data) + 1,
            )

    def _postings(
        self, steps: Sequence[Account], legs: Sequence[Leg], amounts: Iterable[int], totals: tuple[str, ...]
    ) -> list[Json]:
        return [
            entries.posting(account, leg.side, amount, self.accounts[leg.account].last_index, totals)
            for account, leg, amount in zip(steps, legs, amounts, strict=True)
        ]

    def genesis(self, origin: str, time_ns: int) -> None:
        """Entry 0."""
        self._append(entries.GENESIS, time_ns, {"ledger": origin, "currencies": sha256(TABLE_BYTES).hex()})

    def open_account(
        self, time_ns: int, common: Common, name: str, account_class: str, currency: str, *,
        limit: str | None = None, normal: str | None = None, owner: str | None = None, tags: list[str] | None = None,
    ) -> None:  # fmt: skip
        """account/1. ``limit`` and ``normal`` default to those of the class."""
        limit = limit or ("no_overdraft" if account_class == "customer_liability" else "none")
        normal = normal or CLASSES[account_class]
        allowed = parse_limit(limit).amount
        members = {
            **common,
            "account": name,
            "class": account_class,
            "currency": currency,
            "limit": limit,
            "normal": normal,
            **given(owner=owner, tags=tags),
        }
        index = len(self.entries)
        data = self._append(entries.ACCOUNT, time_ns, members)
        self.changed[name] = None
        self.accounts[name] = Account(
            ordinal=len(self.accounts),
            name=name,
            currency=currency,
            decimals=self.currencies[currency],
            account_class=account_class,
            normal=normal,
            status="open",
            debits=0,
            credits=0,
            held_debits=0,
            held_credits=0,
            overdraft=None if limit == "none" else allowed.minor if allowed else 0,
            open_index=index,
            last_index=index,
            last_tx=0,
            entries=1,
            log_bytes=len(data) + 1,
        )

    def transact(
        self, time_ns: int, common: Common, kind: str, legs: Sequence[Leg], *,
        effective: str | None = None, reverses: int | None = None,
    ) -> int:  # fmt: skip
        """txn/1 of type ``kind``. Returns its number."""
        number = len(self.transactions) + 1
        steps = self.moved(legs)
        members = {
            **common,
            "postings": self._postings(steps, legs, (leg.booked for leg in legs), entries.BOOKED),
            "tx": number,
            "type": kind,
            **given(effective=effective, reverses=reverses),
        }
        data = self._append(entries.TXN, time_ns, members, tx=number)
        self._touch(steps, data, tx=number)
        self.transactions.append(Transaction(len(self.entries) - 1, tuple(legs)))
        if reverses is not None:
            self.reversed.add(reverses)
        return number

    def hold(self, time_ns: int, common: Common, debit: str, credit: str, amount: int, expires_ns: int | None) -> None:
        """hold/1."""
        hold = Hold(len(self.entries), debit, credit, amount, expires_ns, "open")
        legs = hold.legs(booked=0, held=amount)
        steps = self.moved(legs)
        members = {
            **common,
            "postings": self._postings(steps, legs, (amount, amount), entries.HELD),
            **({} if expires_ns is None else {"expires": format_time(expires_ns)}),
        }
        data = self._append(entries.HOLD, time_ns, members)
        self._touch(steps, data)
        self.holds[common["id"]] = hold
        if expires_ns is not None:
            bisect.insort(self.expiring, (expires_ns, hold.index, common["id"]))

    def _end_hold(self, hold_id: str, status: str) -> None:
        hold = self.holds[hold_id]
        self.holds[hold_id] = replace(hold, status=status)
        if hold.expires_ns is not None:
            self.expiring.remove((hold.expires_ns, hold.index, hold_id))

    def post(self, time_ns: int, common: Common, hold_id: str, amount: int, *, effective: str | None = None) -> int:
        """post/1: book ``amount`` of an open hold and release the rest. Returns the transaction number."""
        number = len(self.transactions) + 1
        hold = self.holds[hold_id]
        legs = hold.legs(booked=amount, held=-hold.amount)
        steps = self.moved(legs)
        members = {
            **common,
            "hold": hold_id,
            "postings": self._postings(steps, legs, (amount, amount), entries.BOOKED + entries.HELD),
            "tx": number,
            **given(effective=effective),
        }
        data = self._append(entries.POST, time_ns, members, tx=number)
        self._touch(steps, data, tx=number)
        self.transactions.append(Transaction(len(self.entries) - 1, tuple(legs)))
        self._end_hold(hold_id, "posted")
        return number

    def void(self, time_ns: int, common: Common | None, hold_id: str) -> None:
        """void/1 of an open hold; without ``common`` because it has expired."""
        hold = self.holds[hold_id]
        legs = hold.legs(booked=0, held=-hold.amount)
        steps = self.moved(legs)
        members = {
            **({"id": entries.expiry_id(hold.index)} if common is None else common),
            "hold": hold_id,
            "postings": self._postings(steps, legs, (hold.amount, hold.amount), entries.HELD),
            "reason": "expired" if common is None else "voided",
        }
        data = self._append(entries.VOID, time_ns, members)
        self._touch(steps, data)
        self._end_hold(hold_id, "expired" if common is None else "voided")

    def update(self, time_ns: int, common: Common, name: str, action: str) -> None:
        """account.update/1: ``action`` is freeze, unfreeze or close."""
        account = self.accounts[name]._replace(status=STATUS[action])
        members = {
            **common, "account": name, "action": action, "prev": account.last_index, "status": account.status
        }  # fmt: skip
        data = self._append(entries.UPDATE, time_ns, members)
        self._touch([account], data)

    def register_currency(self, time_ns: int, common: Common, currency: str, decimals: int) -> None:
        """policy/1 that adds a currency."""
        members = {**common, "policy": "currency", "currency": currency, "decimals": decimals}
        self._append(entries.POLICY, time_ns, members)
        self.currencies[currency] = decimals
        self.policy_index = len(self.entries) - 1

    def close_period(self, time_ns: int, common: Common, through: str) -> None:
        """policy/1 that closes everything up to a date."""
        self._append(entries.POLICY, time_ns, {**common, "policy": "close_period", "through": through})
        self.closed_through = through
        self.policy_index = len(self.entries) - 1

    def reject(self, time_ns: int, entry_id: str, digest: str, code: str, request: Json) -> None:
        """rejected/1. ``request`` is the object of the intent; it always fits."""
        members = {"id": entry_id, "intent_hash": digest, "code": code, "request": request}
        self._append(entries.REJECTED, time_ns, members, code=BY_NAME[code].number)

    def record(self, time_ns: int, intent: Intent) -> None:
        """key/1, anchor/1 or restore/1."""
        kind = system.KINDS[intent.kind]
        self._append(kind, time_ns, {**system.members(intent.value), "intent": intent.digest})
        if kind != entries.ANCHOR:
            self.system.append(len(self.entries) - 1)
        if kind == entries.RESTORE:
            self.incarnation = intent.value["incarnation"]

    def seal(self, time_ns: int, *, state: bool = False) -> bytes:
        """End the batch with its seal/1, which carries the state root or not. Returns the seal's bytes."""
        first = self.batch_first
        leaves = b"".join(self.leaves[first:])
        self.sealed.append(leaves)
        members = {
            "count": len(self.leaves) - first,
            "first": first,
            "height": len(self.seals) + 1,
            "log_root": self.sealed.root().hex(),
            "policy": self.leaves[self.policy_index].hex(),
            "prev": self.leaves[self.seals[-1]].hex() if self.seals else ZERO_HASH,
            "tx_root": mth(leaves).hex(),
        }
        if state:
            # New accounts first appear in the order of their opening, which is that of their ordinals.
            self.state.update(self.accounts[name] for name in self.changed)
            self.changed = {}
            members["state_root"] = self.state.root().hex()
        data = self._append(entries.SEAL, time_ns, members)
        self.sealed.append(self.leaves[-1])
        self.seals.append(len(self.entries) - 1)
        self.seal_time_ns = time_ns
        return data
