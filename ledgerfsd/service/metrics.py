"""What Prometheus may read, in ``.ledgerfs/metrics.prom``. One registry a ledger, so that tests can have several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from ledgerfsd.core.engine import Completion

# 50 microseconds to 25 seconds: from less than one sync of a fast disk to nearly limits.WAIT_SECONDS_MAX.
BUCKETS: Final = tuple(scale * step for scale in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0) for step in (1, 2.5, 5))[
    2:-1
]


class Metrics:
    """Counters of one ledger."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each counter, which says nothing that status.json does not
        self._registry = CollectorRegistry()
        self.committed = Counter(
            "ledgerfs_intents_committed",
            "Intents answered with a commit (duplicates included)",
            registry=self._registry,
        )
        self.refused = Counter("ledgerfs_intents_refused", "Intents refused", registry=self._registry)
        self.commit_seconds = Histogram(
            "ledgerfs_submission_seconds",
            "From the submission of intents to their durable answer",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self.receipts_failed = Counter(
            "ledgerfs_receipts_failed", "Receipts that could not be written to the store", registry=self._registry
        )
        self.signatures = Counter("ledgerfs_checkpoints_signed", "Signatures of checkpoints", registry=self._registry)
        self.signer_starts = Counter(
            "ledgerfs_signer_starts_again", "How often the signer had to be started anew", registry=self._registry
        )
        self.faults = Counter(
            "ledgerfs_faults",
            "Requests of the mount that failed for a reason of our own (EIO)",
            registry=self._registry,
        )
        self._gauges: dict[str, Gauge] = {}

    def completed(self, completion: Completion, seconds: float) -> None:
        """Count a finished submission."""
        committed = completion.committed
        self.committed.inc(committed)
        self.refused.inc(len(completion) - committed)
        self.commit_seconds.observe(seconds)

    def answered(self, committed: int, refused: int, waits_ns: Iterable[int]) -> None:
        """The same of submissions of the front: intents of all together, and how long each had to wait."""
        if committed:
            self.committed.inc(committed)
        if refused:
            self.refused.inc(refused)
        for waited_ns in waits_ns:
            self.commit_seconds.observe(waited_ns / 1e9)

    def text(self, gauges: Mapping[str, tuple[str, float | Mapping[str, float]]]) -> bytes:
        """The exposition format; ``gauges``: name without prefix → (help, value now, or values by name of anchor)."""
        for name, (meaning, value) in gauges.items():
            by_anchor = value if isinstance(value, Mapping) else None
            if name not in self._gauges:
                labels = ["anchor"] if by_anchor is not None else []
                self._gauges[name] = Gauge(f"ledgerfs_{name}", meaning, labels, registry=self._registry)
            if by_anchor is None:
                self._gauges[name].set(value)  # type: ignore[arg-type]
            for anchor, each in (by_anchor or {}).items():
                self._gauges[name].labels(anchor).set(each)
        return generate_latest(self._registry)
