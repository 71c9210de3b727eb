"""A ledger in this process, with a real engine and store, and the file system's handlers called directly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio

from ledgerfsd.core.engine import Engine
from ledgerfsd.journal.layout import Layout
from ledgerfsd.service.inbox import Area, Inbox, InboxFile
from ledgerfsd.service.keys import Keys, usual_directory
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.proofs import Proofs
from ledgerfsd.service.query import Query
from ledgerfsd.service.receipts import Receipts
from ledgerfsd.service.signing import Signing
from ledgerfsd.types import Mode
from ledgerfsd.vfs.operations import LedgerOperations
from tests.conftest import SEGMENT_BYTES

ACCOUNTS_MAX = 4096
ACCOUNTS = [
    {"type": "open_account", "account": "a", "currency": "EUR", "class": "customer_liability", "limit": "none"},
    {"type": "open_account", "account": "b", "currency": "EUR", "class": "customer_liability"},
    {"type": "open_account", "account": "c", "currency": "EUR", "class": "safeguarding_asset", "owner": "cust_9"},
]


def pay(amount: str = "1.00", debit: str = "a", credit: str = "b", **more: Any) -> dict[str, Any]:
    """A transfer."""
    return {"debit": debit, "credit": credit, "amount": amount, **more}


def packed(intents: Any) -> bytes:
    """A document."""
    return json.dumps(intents).encode()


def lines(*intents: dict[str, Any]) -> bytes:
    """NDJSON."""
    return b"".join(packed(intent) + b"\n" for intent in intents)


@pytest.fixture
def engine(store: Path) -> Iterator[Engine]:
    """A running engine on a new store."""
    engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=ACCOUNTS_MAX)
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
async def ledger(engine: Engine, store: Path) -> AsyncIterator[Ledger]:
    """A ledger that collects what its engine finishes, with three accounts."""
    ledger = Ledger(engine, Layout(store))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        await ledger.submit(lines(*ACCOUNTS), source=b"accounts", first_line=1, mode=Mode.EACH)
        yield ledger
        nursery.cancel_scope.cancel()


class Drops:
    """Inbox files written by hand."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.receipts = Receipts(ledger.layout.receipts, ledger.clock, ledger.metrics)
        self.inbox = Inbox(ledger, self.receipts)

    def create(self, name: str, area: Area = Area.INBOX) -> InboxFile:
        """A new file."""
        return self.inbox.create(area, name.encode(), uid=0, gid=0)

    def open(self, name: str, area: Area = Area.INBOX, *, append: bool = False) -> Any:
        """A handle of a new file, or of one that is there."""
        file = self.inbox.find(area, name.encode()) or self.create(name, area)
        return self.inbox.open(file, append=append, truncate=False)

    def receipt(self, name: str, *, dry_run: bool = False) -> list[dict[str, Any]]:
        """Its lines."""
        answer = self.receipts.find(name, dry_run=dry_run)
        assert answer is not None, name
        text = self.receipts.text(answer)
        return [json.loads(line) for line in text.read(0, text.size).splitlines()]

    def codes(self, name: str, *, dry_run: bool = False) -> list[str]:
        """The codes of its receipt."""
        return [line["code"] for line in self.receipt(name, dry_run=dry_run)]

    @property
    def transactions(self) -> int:
        """How many there are."""
        return self.ledger.engine.counts().transactions


@pytest.fixture
def drops(ledger: Ledger) -> Iterator[Drops]:
    """The inbox."""
    drops = Drops(ledger)
    yield drops
    drops.receipts.close()


class Told:
    """What the kernel was told (``vfs.kernel.Notify``), in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int, int]] = []

    def drop_attributes(self, inode: int) -> None:
        self.all.append(("attributes", inode, 0))

    def drop_pages(self, inode: int) -> None:
        self.all.append(("pages", inode, 0))

    def grow(self, inode: int, size: int) -> None:
        self.all.append(("grow", inode, size))

    def of(self, inode: int) -> list[str]:
        """What it was told of a file since the last time this was asked."""
        found = [what for what, which, _ in self.all if which == inode]
        self.all = [each for each in self.all if each[1] != inode]
        return found


class Mounted:
    """The handlers, and what they would tell the kernel."""

    def __init__(self, ledger: Ledger, *, names_only: bool | None = None) -> None:
        self.told = Told()
        self.signing = Signing(ledger, Keys(usual_directory(ledger.layout.root), ledger.origin))
        self.operations = LedgerOperations(
            ledger, Proofs(ledger, Query(ledger), self.signing), self.told, names_only=names_only
        )
        self.ctx = pyfuse3.RequestContext()

    async def find(self, path: str) -> int:
        """The inode number of a path, looked up part by part."""
        inode = 1
        for part in path.split("/"):
            inode = (
                await self.operations.lookup(pyfuse3.InodeT(inode), pyfuse3.FileNameT(part.encode()), self.ctx)
            ).st_ino
        return inode

    async def read(self, path: str) -> bytes:
        """A whole file, by its handlers."""
        inode = pyfuse3.InodeT(await self.find(path))
        size = (await self.operations.getattr(inode, self.ctx)).st_size
        opened = await self.operations.open(inode, pyfuse3.FlagT(0), self.ctx)
        data = bytes(await self.operations.read(opened.fh, 0, size + 1))
        await self.operations.flush(opened.fh)
        await self.operations.release(opened.fh)
        assert len(data) == size
        return data

    async def write(self, path: str, data: bytes) -> None:
        """A whole inbox file."""
        directory, _, name = path.rpartition("/")
        parent = pyfuse3.InodeT(await self.find(directory))
        flags = pyfuse3.FlagT(0o1 | 0o1000)
        opened, _ = await self.operations.create(
            parent, pyfuse3.FileNameT(name.encode()), pyfuse3.ModeT(0o644), flags, self.ctx
        )
        try:
            await self.operations.write(opened.fh, 0, data)
            await self.operations.flush(opened.fh)
        finally:
            await self.operations.release(opened.fh)


@pytest.fixture
def mounted_here(ledger: Ledger) -> Iterator[Mounted]:
    """The file system without a mount."""
    mounted = Mounted(ledger)
    yield mounted
    mounted.operations.receipts.close()
