"""Submitting intents and learning what became of them.

``Ledger.run`` waits on the engine's eventfd. For each wake-up it first tells ``on_change`` what the commit touched (the
mount drops what the kernel caches) and only then lets the writers go on: that order is read-your-writes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import structlog
import trio

from ledgerfsd import limits
from ledgerfsd.clock import Clock, SystemClock
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.values import Completion, StateProof
from ledgerfsd.errors import BY_NAME, Refused
from ledgerfsd.journal.layout import Layout
from ledgerfsd.service import system
from ledgerfsd.service.metrics import Metrics
from ledgerfsd.service.named import NamedSnapshots
from ledgerfsd.service.points import Points
from ledgerfsd.types import Mode, Result

log = structlog.get_logger()

TICK_SECONDS: Final = 1  # FORMAT, section 7: expired holds are closed within a second


class Change(NamedTuple):
    """What became durable since the last one."""

    touched: list[int]  # ordinals of watched accounts
    accounts: bool  # accounts/ has new names
    transactions: bool  # transactions/ has
    blocks: bool  # blocks/ and log/ have


class Ticket:
    """A submission on its way."""

    __slots__ = ("_completion", "_done", "own", "size", "started")

    def __init__(self, size: int, *, own: bool = False) -> None:
        self.size = size
        self.own = own  # an intent of the ledger itself
        self.started = time.monotonic()
        self._done = trio.Event()
        self._completion: Completion | None = None

    def finish(self, completion: Completion) -> None:
        """Hand over the results and wake whoever waits."""
        self._completion = completion
        self._done.set()

    @property
    def done(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self._completion is not None

    async def wait(self) -> Completion:
        """The results, once they are durable (or refused)."""
        if self._completion is None:
            await self._done.wait()
        assert self._completion is not None
        return self._completion


class Asked:
    """A balance proof that somebody waits for."""

    __slots__ = ("done", "proof")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.proof: StateProof | None = None


class Room:
    """A bounded number of bytes, given out first come, first served."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._turn = trio.Lock()
        self._freed = trio.Event()

    async def take(self, size: int, seconds: float) -> None:
        """Reserve ``size`` bytes. Raises Refused(busy) when there is no room within ``seconds``.

        Something larger than the whole room gets it when it is empty: it must be possible at all.
        """
        if not self._turn.locked() and self._fits(size):
            self.used += size
            return
        with trio.move_on_after(seconds):
            async with self._turn:
                while not self._fits(size):
                    self._freed = trio.Event()
                    await self._freed.wait()
                self.used += size
                return
        raise Refused(BY_NAME["busy"])

    def give(self, size: int) -> None:
        """Return ``size`` bytes."""
        self.used -= size
        self._freed.set()

    def _fits(self, size: int) -> bool:
        return self.used == 0 or self.used + size <= self.limit


class Ledger:
    """An open ledger: the engine and what stands between it and its clients."""

    def __init__(self, engine: Engine, layout: Layout, *, clock: Clock | None = None) -> None:
        self.engine = engine
        self.layout = layout
        self.origin = str(msgspec.json.decode(engine.entry(0))["ledger"])
        self.clock: Clock = clock or SystemClock()
        self.metrics = Metrics()
        self.points = Points(engine, self.clock, NamedSnapshots(layout.named_snapshots, engine, self.clock))
        self.started_ns = self.clock.now_ns()
        self.room = Room(limits.INFLIGHT_BYTES_MAX)
        self.on_change: list[Callable[[Change], Awaitable[None]]] = []
        self.answers: list[Callable[[], None]] = []  # called after those, before the writers go on
        self.troubles: list[Callable[[], str]] = [
            self.points.named.trouble
        ]  # each says what is wrong elsewhere, "" if nothing; for health
        # Of others: name → (help, value now, or values by name of anchor), for metrics; and members of status.json.
        self.gauges: list[Callable[[], Mapping[str, tuple[str, float | Mapping[str, float]]]]] = []
        self.facts: list[Callable[[], dict[str, Any]]] = []
        self.recorder = system.Recorder(self)
        self._tickets: dict[int, Ticket] = {}
        self._asked: dict[int, Asked] = {}
        self._known = engine.counts()
        self._turn = trio.Lock()

    async def start(self, data: bytes, *, source: bytes, first_line: int, mode: Mode, dry_run: bool = False) -> Ticket:
        """Queue intents and return at once, or wait for room first. Raises Refused(busy): then nothing was queued."""
        await self.room.take(len(data), limits.WAIT_SECONDS_MAX)
        ticket = Ticket(len(data))
        number = self.engine.submit(data, source=source, first_line=first_line, mode=mode, dry_run=dry_run)
        # Completions are taken by the task that runs us, so the number is known before its completion can be.
        self._tickets[number] = ticket
        return ticket

    def adopt(self, number: int, size: int, started: float) -> Ticket:
        """A submission that the core's front has made (``core.front``); called before its completion can be collected.

        ``started``: when, by ``time.monotonic``. The front has asked for its room itself.
        """
        ticket = self._tickets[number] = Ticket(size)
        ticket.started = started
        self.room.used += size
        return ticket

    async def submit(
        self, data: bytes, *, source: bytes, first_line: int, mode: Mode, dry_run: bool = False
    ) -> Completion:
        """Commit intents and wait until they are durable. Raises Refused(busy): then nothing was queued.

        ``data`` is whole lines or one document (see Mode), ``source`` the file's name (FORMAT, section 6: ids of intents
        without one are made from it), ``first_line`` the number of its first line.
        """
        ticket = await self.start(data, source=source, first_line=first_line, mode=mode, dry_run=dry_run)
        return await ticket.wait()

    async def submit_own(self, data: bytes) -> Completion:
        """Commit one intent of the ledger's own (FORMAT, section 6.2) and wait until it is durable. For ``system.Recorder``."""
        await self.room.take(len(data), limits.WAIT_SECONDS_MAX)
        ticket = Ticket(len(data), own=True)
        number = self.engine.submit(data, source=b"", first_line=1, mode=Mode.DOCUMENT, system=True)
        self._tickets[number] = ticket
        return await ticket.wait()

    async def record_anchor(
        self, *, kind: system.AnchorKind, name: str, size: int, root: bytes, evidence: bytes
    ) -> Result:
        """Record in the log that somebody outside gave evidence of a checkpoint: see ``system.Recorder.anchor``."""
        return await self.recorder.anchor(kind=kind, name=name, size=size, root=root, evidence=evidence)

    async def prove(self, ordinal: int) -> StateProof | None:
        """The proof of an account as of the newest state, which is sealed for it if need be.

        None: there is no such account, or the ledger is read-only and its newest state was not sealed.
        """
        asked = Asked()
        self._asked[self.engine.prove(ordinal)] = asked
        await asked.done.wait()
        return asked.proof

    async def run(self) -> None:
        """Collect finished submissions until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            while True:
                await trio.lowlevel.wait_readable(self.engine.wakeup_fd)
                await self._collect()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            self.engine.tick()
            await self._collect()

    async def _collect(self) -> None:
        # Not `async with`, which passes through the scheduler even when it is free: that is a sixth of what a commit costs here.
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            completions = self.engine.completions()
            await self._announce()
            for answer in self.answers:
                answer()
            self.engine.deliver()
            for completion in completions:
                ticket = self._tickets.pop(completion.ticket)
                self.room.give(ticket.size)
                if not ticket.own:
                    self.metrics.completed(completion, time.monotonic() - ticket.started)
                ticket.finish(completion)
            for number, proof in self.engine.proofs():
                asked = self._asked.pop(number)
                asked.proof = proof
                asked.done.set()
        finally:
            self._turn.release()

    async def _announce(self) -> None:
        counts = self.engine.counts()
        if counts.entries == self._known.entries:
            return
        change = Change(
            self.engine.touched(),
            counts.accounts != self._known.accounts,
            counts.transactions != self._known.transactions,
            counts.blocks != self._known.blocks,
        )
        self._known = counts
        for tell in self.on_change:
            try:
                await tell(change)
            except Exception:
                log.exception("a reader could not be told of a commit")
