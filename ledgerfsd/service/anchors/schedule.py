"""When digests are issued, and how each anchor gets them.

Start at ``Anchoring.run``. A digest is issued at each interval when the log has grown. Each anchor has a task of its own
that always takes the newest digest: one that hangs or fails delays neither the others nor a commit, and what it passed
over is spoken for by the next one that it takes, since the log of that one begins with the logs of all before.

Entries by which the ledger records anchors (anchor/1) do not count as growth: a time stamp would else call for the next.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
import trio

from ledgerfsd.clock import NS_PER_SECOND, format_time, parse_time
from ledgerfsd.errors import DamageError, LedgerError, Refused
from ledgerfsd.merkle import checkpoint, note, proof
from ledgerfsd.service.anchors.digests import Issued, Named, Outcome, What
from ledgerfsd.service.anchors.kinds import Anchor, AnchorError, Evidence, Head

if TYPE_CHECKING:
    from ledgerfsd.config import AnyAnchor
    from ledgerfsd.service.anchors.digests import Digest, Digests
    from ledgerfsd.service.ledger import Ledger
    from ledgerfsd.service.proofs import Proofs
    from ledgerfsd.service.query import Query

log = structlog.get_logger()

BACK_OFF_MOST: Final = 64  # times the interval
WHY_MAX: Final = 500  # characters; what a server says may be a page
UNCOUNTED: Final = frozenset(("anchor/1", "seal/1"))  # entries that are no reason for a digest


class Standing:
    """How it stands with one anchor."""

    def __init__(self, anchor: Anchor, settings: AnyAnchor, limit: float) -> None:
        self.anchor = anchor
        self.limit = float(settings.limit_seconds or limit)
        self.seconds = float(settings.seconds)
        self.timeout = float(settings.timeout_seconds)
        self.size = 0  # of the newest digest that it has
        self.when = ""
        self.failure = ""
        self.retries = 0  # failures in a row
        self.contradicted = False
        self.unrecorded: Outcome | None = None  # its anchor/1 is still to be written

    def done(self, outcome: Outcome) -> None:
        """It has given evidence, and the evidence is in the store."""
        self.size, self.when = outcome.size, outcome.time
        self.failure, self.retries = "", 0
        self.unrecorded = outcome if self.anchor.records else None

    def failed(self, why: str, *, contradicted: bool = False) -> None:
        """It has not."""
        if not self.failure or contradicted:
            log.warning("a digest could not be anchored; commits go on", anchor=self.anchor.name, reason=why)
        self.failure, self.contradicted = why, contradicted
        self.retries += 1


class Anchoring:
    """Issues the digests of a ledger and brings them to its anchors."""

    def __init__(
        self,
        ledger: Ledger,
        query: Query,
        proofs: Proofs,
        digests: Digests,
        anchors: Sequence[tuple[Anchor, AnyAnchor]],
        *,
        interval: float,
        limit: float,
    ) -> None:
        """``interval``: seconds between digests; ``limit``: seconds after which ``health`` complains."""
        self.standings = [Standing(anchor, settings, limit) for anchor, settings in anchors]
        self._ledger = ledger
        self._engine = ledger.engine
        self._query = query
        self._proofs = proofs
        self._digests = digests
        self._interval = interval
        self._limit = limit
        self._issued = trio.Event()
        self._began_ns = ledger.clock.now_ns()

    def compare(self) -> None:
        """The journal goes on from the newest digest, or says itself that this was lost. Raises DamageError.

        Digests were signed, so the signer knows as much; but not when its memory was rolled back too.
        """
        digest, entries = self._digests.newest, self._engine.counts().entries
        if digest is None:
            return
        if digest.size > entries:
            what = f"the store was rolled back: it has a digest of {digest.size} entries, the journal has {entries}"
            hint = "restore the newest journal/ from a backup; only if it is lost for good: `ledgerfs restore`"
            raise DamageError(what, hint=hint)
        if proof.root(self._engine.hashes, digest.size).hex() != digest.issued.root:
            what = f"the digest of {digest.size} entries in {self._digests.directory} is not of this journal"
            raise DamageError(
                what, hint="one of them was exchanged; if it was the digests, move them away and keep them"
            )

    # -- what is told

    def trouble(self) -> str:
        """What is wrong, for ``health``; ``""`` if nothing."""
        found = [self._digests.trouble] if self._digests.trouble else []
        for standing in self.standings:
            # After a start there is as much time as at any other moment, however long the ledger was not mounted.
            up = (self._ledger.clock.now_ns() - self._began_ns) / NS_PER_SECOND
            late = min(self._seconds_behind(standing.size), up)
            if standing.contradicted or late > standing.limit:
                why = standing.failure or "it is being written"
                what = (
                    f"{standing.anchor.name} ({standing.anchor.where}): the newest anchor is of {standing.size} entries"
                )
                found.append(f"{what}, {late:.0f} s behind: {why}")
        return "; ".join(found)

    def gauges(self) -> dict[str, tuple[str, float | Mapping[str, float]]]:
        """The window that is open to somebody with root and the signing key: over all anchors, and of each."""
        newest = max((standing.size for standing in self.standings), default=0)
        found: dict[str, tuple[str, float | Mapping[str, float]]] = {
            "unanchored_entries": ("Entries that no anchor speaks of", float(self._entries_behind(newest)))
        }
        digest = self._digests.newest
        if digest is not None:
            meaning = "When the newest digest was issued"
            found["digest_time_seconds"] = (meaning, parse_time(digest.issued.time) / NS_PER_SECOND)
        if self.standings:
            meaning = "Seconds since the oldest entry that no anchor speaks of, 0 when there is none"
            found["unanchored_seconds"] = (meaning, self._seconds_behind(newest))
            by_name = {standing.anchor.name: standing for standing in self.standings}
            found |= {
                "anchor_unanchored_seconds": (
                    "Seconds since the oldest entry that this anchor does not speak of, 0 when there is none",
                    {name: self._seconds_behind(standing.size) for name, standing in by_name.items()},
                ),
                "anchor_unanchored_entries": (
                    "Entries that this anchor does not speak of",
                    {name: float(self._entries_behind(standing.size)) for name, standing in by_name.items()},
                ),
                "anchor_failures_in_a_row": (
                    "Failed attempts since the last that succeeded",
                    {name: float(standing.retries) for name, standing in by_name.items()},
                ),
            }
        return found

    def facts(self) -> dict[str, Any]:
        """For ``status.json``."""
        digest = self._digests.newest
        anchors = [
            {
                "kind": standing.anchor.kind,
                "name": standing.anchor.name,
                "where": standing.anchor.where,
                "size": standing.size,
                "when": standing.when or None,
                "retries": standing.retries,
                "failure": standing.failure or None,
                "contradicted": standing.contradicted,
                "unanchored_entries": self._entries_behind(standing.size),
                "unanchored_milliseconds": round(self._seconds_behind(standing.size) * 1000),
            }
            for standing in self.standings
        ]
        newest = {"size": digest.size, "time": digest.issued.time} if digest else None
        return {"digest": newest, "anchors": anchors}

    def _first_behind(self, size: int) -> int:
        """Index of the first entry that counts and that a log of this size does not hold; -1: there is none."""
        for index in range(size, self._engine.counts().entries):
            # Anchors are recorded one at a time, each after a digest that something else called for: this ends soon.
            if msgspec.json.decode(self._engine.entry(index)).get("t") not in UNCOUNTED:
                return index
        return -1

    def _entries_behind(self, size: int) -> int:
        return self._engine.counts().entries - size if self._first_behind(size) >= 0 else 0

    def _seconds_behind(self, size: int) -> float:
        index = self._first_behind(size)
        if index < 0:
            return 0.0
        return max(0, self._ledger.clock.now_ns() - self._query.mtime_of(index)) / NS_PER_SECOND

    # -- what is done

    async def run(self) -> None:
        """Issue and anchor until cancelled."""
        self._remember()
        async with trio.open_nursery() as nursery:
            for standing in self.standings:
                nursery.start_soon(self._keep, standing)
            while True:
                try:
                    await self.issue()
                except OSError as error:
                    log.warning("no digest was issued", reason=str(error))
                await trio.sleep(self._interval)

    def _remember(self) -> None:
        """Take up where the last run ended. What an anchor has of a life that was lost says nothing of this log."""
        missing = {standing.anchor.name: standing for standing in self.standings}
        for digest in self._digests.backwards():
            for name, outcome in digest.outcomes.items():
                if outcome is not None and outcome.outcome == "anchored" and name in missing:
                    # Its anchor/1 may be missing; writing it again is a duplicate and writes nothing.
                    missing.pop(name).done(outcome)
            if not missing:
                return

    async def issue(self) -> Digest | None:
        """Issue a digest if the log has grown; after a restore at once, since ``restore/1`` is new.

        Raises OSError: nothing can be signed, or the store cannot be written.
        """
        before = self._digests.newest
        if self._first_behind(before.size if before else 0) < 0:
            return None
        data = (await self._proofs.newest()).data
        head = checkpoint.parse(note.parse(data).text)
        if before is not None and head.size <= before.size:
            return None
        named = [Named(standing.anchor.kind, standing.anchor.name) for standing in self.standings]
        await self._digests.add(Issued(head.size, self._now(), head.root.hex(), data.decode(), named))
        self._issued.set()
        self._issued = trio.Event()
        return self._digests.newest

    async def _keep(self, standing: Standing) -> None:
        """Bring digests to one anchor."""
        while not standing.contradicted:
            if not await self._record(standing):
                await trio.sleep(self._interval)
                continue
            digest = self._digests.newest
            if digest is None or digest.size <= standing.size:
                await self._issued.wait()
                continue
            await self._attempt(standing, digest)
            await trio.sleep(self._pause(standing))

    def _pause(self, standing: Standing) -> float:
        if not standing.failure:
            return standing.seconds
        return self._interval * min(1 << min(standing.retries - 1, 16), BACK_OFF_MOST)

    async def _attempt(self, standing: Standing, digest: Digest) -> None:
        anchor, outcome = standing.anchor, None
        try:
            with trio.fail_after(standing.timeout):
                evidence = await anchor.put(
                    Head(
                        digest.size,
                        bytes.fromhex(digest.issued.root),
                        digest.checkpoint,
                        self._engine.counts().incarnation,
                    )
                )
            outcome = self._outcome(standing, digest, "anchored", evidence=evidence)
        except AnchorError as error:
            standing.failed(str(error), contradicted=True)
        except trio.TooSlowError:
            standing.failed(f"no answer within {standing.timeout:.0f} s")
        except (LedgerError, OSError) as error:
            standing.failed(str(error)[:WHY_MAX])
        except Exception as error:
            # Libraries that speak to strangers raise what they like. One anchor must not end the daemon.
            log.exception("an anchor failed for a reason of our own", anchor=anchor.name)
            standing.failed(f"{type(error).__name__}: {error}"[:WHY_MAX])
        what: What = "contradicted" if standing.contradicted else "failed"
        try:
            await self._digests.add(outcome or self._outcome(standing, digest, what, why=standing.failure))
        except OSError as error:
            standing.failed(f"its evidence could not be kept: {error.strerror}")
        else:
            if outcome is not None:
                standing.done(outcome)

    def _outcome(
        self, standing: Standing, digest: Digest, what: What, *, evidence: Evidence | None = None, why: str = ""
    ) -> Outcome:
        anchor = standing.anchor
        made = Outcome(digest.size, self._now(), anchor.kind, anchor.name, what, anchor.where, standing.retries, why)
        if evidence is None:
            return made
        return msgspec.structs.replace(
            made,
            hash=evidence.hash,
            detail=evidence.detail,
            file=anchor.name + evidence.ending if evidence.ending else "",
            evidence=base64.b64encode(evidence.data).decode(),
        )

    async def _record(self, standing: Standing) -> bool:
        """Write anchor/1 for evidence that is to be bound into the log. False: the ledger takes nothing now."""
        outcome = standing.unrecorded
        digest = self._digests.get(outcome.size) if outcome is not None else None
        if outcome is None or digest is None:
            return True
        root = bytes.fromhex(digest.issued.root)
        try:
            await self._ledger.record_anchor(
                kind=standing.anchor.kind, name=outcome.name, size=outcome.size, root=root, evidence=outcome.data
            )
        except Refused as error:
            log.warning("an anchor could not be recorded in the log", anchor=outcome.name, reason=str(error))
            return False
        standing.unrecorded = None
        return True

    def _now(self) -> str:
        return format_time(self._ledger.clock.now_ns())
