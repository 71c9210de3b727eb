"""What Prometheus may read, in ``.ledgerfs/metrics.prom``. One registry a ledger, so that tests can have several."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from ledgerfsd.core.values import Completion

# 50 microseconds to 25 seconds: from less than one sync of a fast disk to nearly limits.WAIT_SECONDS_MAX.
BUCKETS: Final = tuple(scale * step for scale in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0) for step in (1, 2.5, 5))[
    2:-1
]


class Waits(Collector):
    """How long submissions took: a histogram that counts many at once. The library's own takes several times as long."""

    def __init__(self, name: str, meaning: str) -> None:
        self._name, self._meaning = name, meaning
        self._edges_ns: Final = [round(bucket * 1e9) for bucket in BUCKETS]
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum_ns = 0

    def observe(self, waits_ns: Iterable[int]) -> None:
        """Count each of these."""
        for waited_ns in waits_ns:
            self._counts[bisect_left(self._edges_ns, waited_ns)] += 1
            self._sum_ns += waited_ns

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What prometheus_client asks for: how many were not longer than each edge, and the seconds of all."""
        upto = accumulate(self._counts)
        buckets = [(floatToGoString(edge), float(n)) for edge, n in zip((*BUCKETS, inf), upto, strict=True)]  # type: ignore[no-untyped-call]
        yield HistogramMetricFamily(self._name, self._meaning, buckets=buckets, sum_value=self._sum_ns / 1e9)


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
        self._waits = Waits("ledgerfs_submission_seconds", "From the submission of intents to their durable answer")
        self._registry.register(self._waits)
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
        self._waits.observe([round(seconds * 1e9)])

    def answered(self, committed: int, refused: int, waits_ns: Iterable[int]) -> None:
        """The same of submissions of the front: intents of all together, and how long each had to wait."""
        if committed:
            self.committed.inc(committed)
        if refused:
            self.refused.inc(refused)
        self._waits.observe(waits_ns)

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
