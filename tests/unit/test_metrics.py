"""The histogram of waits counts as prometheus_client's own does, many at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from ledgerfsd.service.metrics import BUCKETS, Waits

NAME, MEANING = "waits_seconds", "How long"
edges = st.sampled_from([round(bucket * 1e9) for bucket in BUCKETS])
waits_ns = edges | edges.map(lambda edge: edge + 1) | edges.map(lambda edge: edge - 1) | st.integers(0, 10**11)


@given(st.lists(st.lists(waits_ns, max_size=20), max_size=5))
def test_it_is_the_librarys_histogram(groups: list[list[int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    waits, library = Waits(NAME, MEANING), Histogram(NAME, MEANING, buckets=BUCKETS, registry=theirs)
    ours.register(waits)
    for group in groups:
        waits.observe(group)
        for waited_ns in group:
            library.observe(waited_ns / 1e9)

    def lines(registry: CollectorRegistry) -> list[str]:
        text = generate_latest(registry).decode().splitlines()
        return [line for line in text if "_sum" not in line and "_created" not in line]

    assert lines(ours) == lines(theirs)
    total = sum(sum(group) for group in groups) / 1e9
    assert f"{NAME}_sum {total}" in generate_latest(ours).decode().splitlines()
