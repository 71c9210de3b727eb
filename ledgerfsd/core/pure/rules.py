"""Judging an intent against the books: the codes from 110 on (docs/FORMAT.md, section 6.1).

One generator for each type of intent yields the name of every code that applies, the lowest number first. Only
the first is ever taken, and nothing after it is run: so each step may rely on what the steps before it have
found in order, and the order of the lines is the order of the table. ``refusal`` is the way in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from ...clock import format_date
from ...limits import TOTAL_LIMIT
from ...money import Decimal
from ...types import Account
from .book import Book, Leg, Transaction
from .entries import opening_equity
from .intent import CLASSES, Intent


def refusal(book: Book, intent: Intent, time_ns: int, accounts_max: int) -> str | None:
    """The code that answers an intent judged at ``time_ns``; None when it may be committed.

    ``entry_too_large`` is found by who renders the entry; no code above it applies together with it.
    """
    if intent.kind == "open_account":
        return next(_open_account(book, intent, accounts_max), None)
    return next(_RULES[intent.kind](book, intent, time_ns), None)


# -- the parts


def _currencies(book: Book, *codes: str | None) -> Iterator[str]:
    if any(code is not None and code not in book.currencies for code in codes):
        yield "unknown_currency"


def _known(book: Book, names: Iterable[str]) -> Iterator[str]:
    if any(name not in book.accounts for name in names):
        yield "unknown_account"


def _closed(accounts: Iterable[Account]) -> Iterator[str]:
    if any(account.status == "closed" for account in accounts):
        yield "account_closed"


def _usable(accounts: Sequence[Account]) -> Iterator[str]:
    yield from _closed(accounts)
    if any(account.status == "frozen" for account in accounts):
        yield "account_frozen"


def _decimals(amount: Decimal | None, decimals: int) -> Iterator[str]:
    if amount is not None and amount.decimals != decimals:
        yield "wrong_decimals"


def _period(book: Book, effective: str | None, time_ns: int) -> Iterator[str]:
    if (effective or format_date(time_ns)) <= book.closed_through:
        yield "period_closed"


def _totals(steps: Sequence[Account], legs: Sequence[Leg]) -> Iterator[str]:
    """What the accounts would come to. ``steps``: the account of each leg as that leg leaves it."""
    for account in steps:
        if max(account.debits, account.credits, account.held_debits, account.held_credits) >= TOTAL_LIMIT:
            yield "balance_overflow"
    final = {account.name: account for account in steps}
    for leg in legs:
        account = final[leg.account]
        if leg.side != account.normal and account.overdraft is not None and available(account) < -account.overdraft:
            yield "insufficient_funds"


def balance(account: Account) -> int:
    """The totals of its normal side minus those of the other: minor units, signed."""
    booked = account.credits - account.debits
    return booked if account.normal == "credit" else -booked


def held(account: Account) -> int:
    """The pending total of the side that lowers the balance."""
    return account.held_debits if account.normal == "credit" else account.held_credits


def available(account: Account) -> int:
    """Balance without what is held."""
    return balance(account) - held(account)


# -- the types


def opening_legs(intent: Intent) -> list[Leg]:
    """The postings that bring in an initial balance: the account's own first, on its normal side."""
    assert intent.amount is not None and intent.currency is not None
    normal = intent.normal or CLASSES[intent.account_class]
    other = "credit" if normal == "debit" else "debit"
    minor = intent.amount.minor
    return [Leg(intent.account, normal, minor, 0), Leg(opening_equity(intent.currency), other, minor, 0)]


def _open_account(book: Book, intent: Intent, accounts_max: int) -> Iterator[str]:
    assert intent.currency is not None
    yield from _currencies(book, intent.currency)
    opening = intent.amount is not None and intent.amount.minor > 0
    if intent.account in book.accounts:
        yield "account_exists"
    equity = book.accounts.get(opening_equity(intent.currency)) if opening else None
    if equity is not None and equity.currency != intent.currency:
        yield "currency_mismatch"
    decimals = book.currencies[intent.currency]
    yield from _decimals(intent.amount, decimals)
    if intent.limit is not None:
        yield from _decimals(intent.limit.amount, decimals)
    if equity is not None:
        yield from _usable([equity])
    amounts = (intent.amount, intent.limit.amount if intent.limit is not None else None)
    if any(amount is not None and amount.minor >= TOTAL_LIMIT for amount in amounts):
        yield "balance_overflow"
    if equity is not None:
        legs = opening_legs(intent)[1:]
        yield from _totals(book.moved(legs), legs)
    # Whether this intent needs one account or two is not asked: the last place may stay empty.
    if len(book.accounts) + 2 > accounts_max:
        yield "too_many_accounts"


def _pair(book: Book, intent: Intent) -> Iterator[str]:
    """What transfer and hold have in common, up to the status of the accounts."""
    names = (intent.debit, intent.credit)
    yield from _currencies(book, intent.currency)
    yield from _known(book, names)
    accounts = [book.accounts[name] for name in names]
    units = {account.currency for account in accounts} | ({intent.currency} if intent.currency is not None else set())
    if len(units) > 1:
        yield "currency_mismatch"
    yield from _decimals(intent.amount, accounts[0].decimals)
    yield from _usable(accounts)


def transfer_legs(intent: Intent) -> list[Leg]:
    """The postings of a transfer."""
    assert intent.amount is not None
    return [Leg(intent.debit, "debit", intent.amount.minor, 0), Leg(intent.credit, "credit", intent.amount.minor, 0)]


def _transfer(book: Book, intent: Intent, time_ns: int) -> Iterator[str]:
    yield from _pair(book, intent)
    yield from _period(book, intent.effective, time_ns)
    legs = transfer_legs(intent)
    yield from _totals(book.moved(legs), legs)


def transaction_legs(intent: Intent) -> list[Leg]:
    """The postings of a transaction."""
    return [Leg(each.account, each.side, each.amount.minor, 0) for each in intent.postings]


def unbalanced(book: Book, legs: Iterable[Leg]) -> bool:
    """Whether debits and credits of a currency differ."""
    sums: dict[str, int] = {}
    for leg in legs:
        currency = book.accounts[leg.account].currency
        sums[currency] = sums.get(currency, 0) + (leg.booked if leg.side == "debit" else -leg.booked)
    return any(sums.values())


def _transaction(book: Book, intent: Intent, time_ns: int) -> Iterator[str]:
    postings = intent.postings
    yield from _currencies(book, *(each.currency for each in postings))
    yield from _known(book, (each.account for each in postings))
    accounts = [book.accounts[each.account] for each in postings]
    pairs = list(zip(postings, accounts, strict=True))
    if any(each.currency not in (None, account.currency) for each, account in pairs):
        yield "currency_mismatch"
    for each, account in pairs:
        yield from _decimals(each.amount, account.decimals)
    legs = transaction_legs(intent)
    if unbalanced(book, legs):
        yield "unbalanced"
    yield from _usable(accounts)
    yield from _period(book, intent.effective, time_ns)
    yield from _totals(book.moved(legs), legs)


def _hold(book: Book, intent: Intent, time_ns: int) -> Iterator[str]:
    yield from _pair(book, intent)
    if intent.expires_ns is not None and intent.expires_ns <= time_ns:
        yield "expires_in_past"
    assert intent.amount is not None
    minor = intent.amount.minor
    legs = [Leg(intent.debit, "debit", 0, minor), Leg(intent.credit, "credit", 0, minor)]
    yield from _totals(book.moved(legs), legs)


def _open_hold(book: Book, hold_id: str) -> Iterator[str]:
    status = book.holds[hold_id].status
    if status != "open":
        yield f"hold_{status}"


def _post(book: Book, intent: Intent, time_ns: int) -> Iterator[str]:
    if intent.hold not in book.holds:
        yield "unknown_hold"
    hold = book.holds[intent.hold]
    accounts = [book.accounts[hold.debit], book.accounts[hold.credit]]
    yield from _decimals(intent.amount, accounts[0].decimals)
    yield from _usable(accounts)
    yield from _open_hold(book, intent.hold)
    booked = hold.amount if intent.amount is None else intent.amount.minor
    if booked > hold.amount:
        yield "hold_exceeded"
    yield from _period(book, intent.effective, time_ns)
    legs = hold.legs(booked=booked, held=-hold.amount)
    yield from _totals(book.moved(legs), legs)


def _void(book: Book, intent: Intent, _time_ns: int) -> Iterator[str]:
    if intent.hold not in book.holds:
        yield "unknown_hold"
    yield from _open_hold(book, intent.hold)


def transaction_number(name: str) -> int:
    """The number in a well-formed transaction name."""
    return int(name.removeprefix("tx_"))


def reversal_legs(transaction: Transaction) -> list[Leg]:
    """The postings that undo a transaction: its own, in their order, with the sides exchanged."""
    return [Leg(leg.account, "credit" if leg.side == "debit" else "debit", leg.booked, 0) for leg in transaction.legs]


def _reverse(book: Book, intent: Intent, time_ns: int) -> Iterator[str]:
    number = transaction_number(intent.of)
    if not 1 <= number <= len(book.transactions):
        yield "unknown_transaction"
    legs = reversal_legs(book.transactions[number - 1])
    yield from _usable([book.accounts[leg.account] for leg in legs])
    if number in book.reversed:
        yield "already_reversed"
    yield from _period(book, intent.effective, time_ns)
    yield from _totals(book.moved(legs), legs)


def _freeze(book: Book, intent: Intent, _time_ns: int) -> Iterator[str]:
    yield from _known(book, [intent.account])
    yield from _usable([book.accounts[intent.account]])


def _unfreeze(book: Book, intent: Intent, _time_ns: int) -> Iterator[str]:
    yield from _known(book, [intent.account])
    account = book.accounts[intent.account]
    yield from _closed([account])
    if account.status != "frozen":
        yield "account_not_frozen"


def _close_account(book: Book, intent: Intent, time_ns: int) -> Iterator[str]:
    yield from _freeze(book, intent, time_ns)
    account = book.accounts[intent.account]
    if balance(account) or account.held_debits or account.held_credits:
        yield "account_not_empty"


def _register_currency(book: Book, intent: Intent, _time_ns: int) -> Iterator[str]:
    if intent.currency in book.currencies:
        yield "currency_exists"


def _close_period(book: Book, intent: Intent, time_ns: int) -> Iterator[str]:
    if not book.closed_through < intent.through < format_date(time_ns):
        yield "bad_period"


def _recorded(_book: Book, _intent: Intent, _time_ns: int) -> Iterator[str]:
    """What is said of keys and anchors is not judged."""
    yield from ()


def _restore(book: Book, intent: Intent, _time_ns: int) -> Iterator[str]:
    if intent.value["incarnation"] != book.incarnation + 1 or intent.value["size"] > len(book.entries):
        yield "bad_restore"


_RULES: Final[Mapping[str, Callable[[Book, Intent, int], Iterator[str]]]] = {
    "transfer": _transfer,
    "transaction": _transaction,
    "hold": _hold,
    "post": _post,
    "void": _void,
    "reverse": _reverse,
    "freeze": _freeze,
    "unfreeze": _unfreeze,
    "close_account": _close_account,
    "register_currency": _register_currency,
    "close_period": _close_period,
    "key": _recorded,
    "anchor": _recorded,
    "restore": _restore,
}
