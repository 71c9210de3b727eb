"""The ledger in plain Python: the twin of the C core, and the reference that tests hold against it.

``Ledger.submit`` is the whole of docs/FORMAT.md, section 6: shape (``intent.py``), idempotency, expiry of
holds, judgement (``rules.py``), and the entries that follow (``book.py``). Exactness counts here, speed does
not. Nothing is ever written to disk; ``journal.py`` makes the byte stream of ``entries``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from ...errors import BY_NAME
from ...limits import ACCOUNTS_MAX, BATCH_INTENTS_MAX
from ...types import Account, Counts, Mode, Result
from . import rules
from . import system as systems
from .book import Answer, Book, EntryTooLargeError, Hold
from .documents import Item, split_document, split_lines
from .entries import Json, given, opening_equity, opening_equity_id, opening_id
from .intent import Intent, Refusal, auto_id, judge
from .replay import replay as replay_entries

_ACTIONS: Final = {"freeze": "freeze", "unfreeze": "unfreeze", "close_account": "close"}  # type → action of the entry


class Known(NamedTuple):
    """An id, and the answer that it has had."""

    answer: Answer
    duplicate: bool


class _Source(NamedTuple):
    """What the intents of one submission have in common."""

    name: bytes
    now_ns: int
    dry_run: bool

    def id_of(self, intent: Intent, line: int) -> str:
        """The id it has, or the one made for it."""
        return intent.id or auto_id(self.name, line, intent.content)


class Ledger:
    """A ledger in memory. ``Ledger.create`` begins one, ``Ledger.replay`` rebuilds one from its entries."""

    def __init__(self, book: Book, accounts_max: int = ACCOUNTS_MAX) -> None:
        self.book = book
        self.accounts_max = accounts_max

    @classmethod
    def create(cls, origin: str, time_ns: int, *, accounts_max: int = ACCOUNTS_MAX) -> Ledger:
        """A new ledger: genesis and its seal. ``origin`` is its schema-less URL."""
        book = Book()
        book.genesis(origin, book.next_time(time_ns))
        book.seal(book.next_time(time_ns))
        return cls(book, accounts_max)

    @classmethod
    def replay(cls, entries: Iterable[bytes], *, accounts_max: int = ACCOUNTS_MAX) -> Ledger:
        """The state from entries alone. Raises errors.DamageError naming the first one that does not follow."""
        return cls(replay_entries(entries), accounts_max)

    # -- reading

    @property
    def entries(self) -> list[bytes]:
        """Every entry so far, seals included; those after the last seal are the open batch."""
        return self.book.entries

    @property
    def accounts(self) -> list[Account]:
        """All accounts, in the order of their opening."""
        return list(self.book.accounts.values())

    def account(self, name: str) -> Account:
        """An account, the open batch included. Raises KeyError."""
        return self.book.accounts[name]

    @property
    def holds(self) -> Mapping[str, Hold]:
        """Every hold there ever was, by its id."""
        return self.book.holds

    def totals(self) -> dict[str, tuple[int, int]]:
        """Currency → sums of all debits and of all credits, in minor units. They are equal, always."""
        sums: dict[str, tuple[int, int]] = {}
        for account in self.book.accounts.values():
            debits, credits_ = sums.get(account.currency, (0, 0))
            sums[account.currency] = (debits + account.debits, credits_ + account.credits)
        return sums

    def counts(self) -> Counts:
        """The state in numbers, the open batch included; the time is that of the last seal."""
        book = self.book
        size = sum(2 + len(data) for data in book.entries)
        return Counts(
            len(book.entries),
            len(book.transactions),
            len(book.seals),
            len(book.accounts),
            size,
            book.seal_time_ns,
            book.incarnation,
        )

    # -- writing

    def seal(self, now_ns: int, *, state: bool = False) -> bytes:
        """End the open batch. Returns the seal, or b"" when there is nothing to seal and the state is not asked for."""
        if self.book.batch_first == len(self.book.entries) and not state:
            return b""
        return self.book.seal(self.book.next_time(now_ns), state=state)

    def expire(self, now_ns: int) -> int:
        """Void the holds that have expired, in order of (expires, index). Returns how many."""
        count = 0
        # Each void takes a nanosecond, so the time is looked at anew: a further hold may have expired by then.
        while self.book.expiring and self.book.expiring[0][0] <= self.book.next_time(now_ns):
            self.book.void(self.book.next_time(now_ns), None, self.book.expiring[0][2])
            count += 1
        return count

    def submit(
        self,
        data: bytes,
        *,
        source: bytes,
        first_line: int,
        mode: Mode,
        dry_run: bool,
        now_ns: int,
        system: bool = False,
    ) -> list[Result]:
        """Judge and apply whole lines, or one whole document; entries go to the open batch.

        ``source`` is the name of the file, ``first_line`` the number of the first line of ``data`` in it. The
        results stand in the order of the lines; lines of nothing but white space have none. ``system``: the data is one
        intent of the ledger's own.
        """
        origin = _Source(source, now_ns, dry_run)
        saved = self.book.copy() if dry_run else self.book
        if system:
            results = [self._one(Item(first_line, data), origin, systems.judge)]
        elif mode is Mode.EACH:
            results = [self._one(item, origin) for item in split_lines(data, first_line)]
        else:
            items = split_document(data, first_line) if mode is Mode.DOCUMENT else split_lines(data, first_line)
            results = self._whole(items, first_line, origin)
        if dry_run:
            self.book = saved
            results = [result._replace(index=-1, tx=0, block=0) for result in results]
        return results

    def _one(self, item: Item, source: _Source, judged: Callable[[bytes], Intent | Refusal] = judge) -> Result:
        """One line, for itself."""
        intent = judged(item.text)
        if isinstance(intent, Refusal):
            return _refused(item.line, intent)
        outcome = self._apply(intent, item.line, source)
        if isinstance(outcome, str):
            outcome = self._reject(intent, item.line, outcome, source)
        return self._answered(item.line, outcome)

    def _whole(self, items: list[Item] | Refusal, first_line: int, source: _Source) -> list[Result]:
        """All or none."""
        if not items:
            items = Refusal(BY_NAME["empty_batch"].number)
        elif not isinstance(items, Refusal) and len(items) > BATCH_INTENTS_MAX:
            items = Refusal(BY_NAME["too_many_intents"].number)
        if isinstance(items, Refusal):
            return [_refused(first_line, items)]
        judged = [(item, judge(item.text)) for item in items]
        if any(isinstance(intent, Refusal) for _, intent in judged):
            return [
                _refused(item.line, intent) if isinstance(intent, Refusal) else _aborted(item.line)
                for item, intent in judged
            ]
        saved = self.book.copy()
        results: list[Result] = []
        for item, intent in judged:
            assert not isinstance(intent, Refusal)
            outcome = self._apply(intent, item.line, source)
            if isinstance(outcome, str):
                self.book = saved
                outcome = self._reject(intent, item.line, outcome, source)
            elif outcome.answer.code != 0:
                self.book = saved
            results.append(self._answered(item.line, outcome))
            if results[-1].code != 0:
                return [results[-1] if other is item else _aborted(other.line) for other in items]
        return results

    # -- one well-formed intent

    def _apply(self, intent: Intent, line: int, source: _Source) -> Known | str:
        """Judge against the state and write. Returns the answer, or the code of a refusal that is still to be written.

        Holds that have expired are ended first, whatever becomes of the intent.
        """
        self.expire(source.now_ns)
        entry_id = source.id_of(intent, line)
        known = self.book.answers.get(entry_id)
        if known is not None:
            return Known(known, duplicate=True) if known.intent == intent.digest else "id_reused"
        code = rules.refusal(self.book, intent, self.book.next_time(source.now_ns), self.accounts_max)
        if code is not None:
            return code
        try:
            self._write(intent, entry_id, lambda: self.book.next_time(source.now_ns))
        except EntryTooLargeError:
            return "entry_too_large"
        return Known(self.book.answers[entry_id], duplicate=False)

    def _reject(self, intent: Intent, line: int, code: str, source: _Source) -> Known:
        """Write the rejected/1. After a batch was taken back, the holds that had expired before it end once more."""
        answer = Answer(len(self.book.entries), intent.digest, BY_NAME[code].number, tx=0)
        if not source.dry_run:
            self.expire(source.now_ns)
            answer = replace(answer, index=len(self.book.entries))
            entry_id = source.id_of(intent, line)
            self.book.reject(self.book.next_time(source.now_ns), entry_id, intent.digest, code, intent.value)
        return Known(answer, duplicate=False)

    def _write(self, intent: Intent, entry_id: str, time: Callable[[], int]) -> None:
        """The entries of an intent that may be committed. ``time`` gives the time of the next entry."""
        book = self.book
        common = {
            "id": entry_id,
            "intent": intent.digest,
            **given(reference=intent.reference, metadata=intent.metadata),
        }
        if intent.kind == "open_account":
            self._open_account(intent, common, time)
        elif intent.kind == "transfer":
            legs = rules.transfer_legs(intent)
            book.transact(time(), common, "transfer", legs, effective=intent.effective)
        elif intent.kind == "transaction":
            legs = rules.transaction_legs(intent)
            book.transact(time(), common, "transaction", legs, effective=intent.effective)
        elif intent.kind == "reverse":
            number = rules.transaction_number(intent.of)
            legs = rules.reversal_legs(book.transactions[number - 1])
            book.transact(time(), common, "reversal", legs, effective=intent.effective, reverses=number)
        elif intent.kind == "hold":
            assert intent.amount is not None
            book.hold(time(), common, intent.debit, intent.credit, intent.amount.minor, intent.expires_ns)
        elif intent.kind == "post":
            amount = book.holds[intent.hold].amount if intent.amount is None else intent.amount.minor
            book.post(time(), common, intent.hold, amount, effective=intent.effective)
        elif intent.kind == "void":
            book.void(time(), common, intent.hold)
        elif intent.kind in _ACTIONS:
            book.update(time(), common, intent.account, _ACTIONS[intent.kind])
        elif intent.kind == "register_currency":
            assert intent.currency is not None
            book.register_currency(time(), common, intent.currency, intent.decimals)
        elif intent.kind in systems.KINDS:
            book.record(time(), intent)
        else:
            book.close_period(time(), common, intent.through)

    def _open_account(self, intent: Intent, common: dict[str, Json], time: Callable[[], int]) -> None:
        assert intent.currency is not None
        book = self.book
        opening = intent.amount is not None and intent.amount.minor > 0
        equity = opening_equity(intent.currency)
        if opening and equity not in book.accounts:
            own = {"id": opening_equity_id(intent.currency), "intent": intent.digest}
            book.open_account(time(), own, equity, "equity", intent.currency, limit="none", normal="credit")
        book.open_account(
            time(),
            common,
            intent.account,
            intent.account_class,
            intent.currency,
            limit=None if intent.limit is None else intent.limit.text,
            normal=intent.normal,
            owner=intent.owner,
            tags=intent.tags,
        )
        if opening:
            own = {"id": opening_id(intent.account), "intent": intent.digest}
            book.transact(time(), own, "opening", rules.opening_legs(intent))

    def _answered(self, line: int, known: Known) -> Result:
        answer = known.answer
        block = self.book.block_of(answer.index)
        return Result(answer.code, known.duplicate, line, 0, "", answer.index, answer.tx, block)


def _refused(line: int, refusal: Refusal) -> Result:
    return Result(refusal.code, False, line, refusal.offset, refusal.field, -1, 0, 0)


def _aborted(line: int) -> Result:
    return _refused(line, Refusal(BY_NAME["batch_aborted"].number))
