"""The files of a mount against the reference ledger. Start at ``Checker.compare``."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from ledgerfsd.core.pure.book import Book
from ledgerfsd.types import Account
from tests.model.reference import Reference


def decimal(minor: int, decimals: int) -> str:
    """An amount, signed, as the files show it."""
    digits = f"{abs(minor):0{decimals + 1}}"
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    return ("-" if minor < 0 else "") + whole + ("." + fraction if decimals else "")


def minor(amount: str) -> int:
    """Minor units of what a file shows."""
    return int(amount.replace(".", ""))


def balance_file(account: Account, book: Book) -> dict[str, Any]:
    """What ``balance.json`` must say."""
    up = account.normal == "credit"
    balance = account.credits - account.debits if up else account.debits - account.credits
    held = account.held_debits if up else account.held_credits
    newest = json.loads(book.entries[account.last_index])
    shown = {"balance": balance, "available": balance - held, "held": held}
    shown |= {"debits": account.debits, "credits": account.credits}
    as_of = {"index": account.last_index, "tx": f"tx_{newest['tx']:04}" if "tx" in newest else None}
    as_of |= {"seal": book.block_of(account.last_index), "time": newest["time"]}
    texts = {name: decimal(value, account.decimals) for name, value in shown.items()}
    return {"account": account.name, "currency": account.currency, **texts, "as_of": as_of}


def chain(account: Account, book: Book) -> list[bytes]:
    """The entries of an account, oldest first, by following ``prev`` from its newest."""
    found = []
    index = account.last_index
    while True:
        found.append(book.entries[index])
        entry = json.loads(book.entries[index])
        if entry["t"] == "account/1":
            return found[::-1]
        postings = [posting for posting in entry.get("postings", ()) if posting["account"] == account.name]
        index = postings[0]["prev"] if postings else entry["prev"]


class Checker:
    """Compares a mount with a reference, again and again; ``tx.log`` is read whole only where it has grown."""

    def __init__(self, mount: Path, reference: Reference) -> None:
        self.mount = mount
        self.reference = reference
        self._checked: dict[str, int] = {}  # account → length of the chain last compared

    def compare(self) -> None:
        """Every account, every count, and the sum of it all."""
        while True:
            self.reference.follow()
            try:
                self._compare()
            except AssertionError:
                # The ledger ends expired holds by itself: if it did so just now, we look again.
                if not self.reference.log.grown():
                    raise
            else:
                return

    def _compare(self) -> None:
        book = self.reference.book.book
        accounts = self.reference.book.accounts
        assert os.listdir(self.mount / "accounts") == [account.name for account in accounts]
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for account in accounts:
            shown = json.loads((self.mount / "accounts" / account.name / "balance.json").read_text())
            assert shown == balance_file(account, book)
            totals[shown["currency"]][0] += minor(shown["debits"])
            totals[shown["currency"]][1] += minor(shown["credits"])
            self._account(account, book)
        assert all(debits == credits_ for debits, credits_ in totals.values()), totals
        assert len(os.listdir(self.mount / "transactions")) == len(book.transactions)
        assert len(os.listdir(self.mount / "blocks")) == len(book.seals)

    def _account(self, account: Account, book: Book) -> None:
        directory = self.mount / "accounts" / account.name
        opened = json.loads((directory / "account.json").read_text())
        assert (opened["account"], opened["status"]) == (account.name, account.status)
        assert opened["as_of"]["index"] == account.last_index
        assert (directory / "tx.log").stat().st_size == account.log_bytes
        if self._checked.get(account.name) == account.entries:
            return
        self._checked[account.name] = account.entries
        entries = chain(account, book)
        lines = (directory / "tx.log").read_bytes().split(b"\n")
        assert lines == [*entries, b""]
        assert len(entries) == account.entries
        last = json.loads(lines[-2])
        if "tx" in last:
            assert (self.mount / f"transactions/tx_{last['tx']:04}.json").read_bytes() == lines[-2]
        assert (self.mount / f"blocks/{book.block_of(account.last_index):08}.json").exists()
