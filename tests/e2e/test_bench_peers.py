"""PostgreSQL as the benchmarks use it: a real server, durable, and every form books what it was given."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import workload
from bench.peers.postgres import Cluster, rows

pytestmark = pytest.mark.slow
ACCOUNTS = 200
BATCH = 500


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # the server runs as a user of its own
        with Cluster(Path(place) / "postgres", ACCOUNTS, {"shared_buffers": "64MB", "min_wal_size": "80MB"}) as made:
            yield made


def test_every_form_books_what_it_was_given(cluster: Cluster) -> None:
    payments = workload.Payments(1, ACCOUNTS)
    batches = [rows(payments, BATCH) for _ in range(8)]
    assert cluster.batched(batches, 2) > 0  # two that touch the same accounts, without a deadlock
    assert cluster.transfers() == 8 * BATCH  # and balances say the same
    before = _head(cluster)
    batch = rows(payments, BATCH)
    cluster.batched([batch], 1, chained=True)
    for line in batch.decode().splitlines():
        before = hashlib.sha256(before + line.replace("\t", "|").encode()).digest()
    assert _head(cluster) == before
    for chained in (False, True):
        booked = cluster.transfers()
        rate, taken = cluster.one_by_one(2, 1, chained=chained)
        assert rate > 0
        assert all(seconds > 0 for seconds in taken)
        assert cluster.transfers() > booked
    rate, taken = cluster.mixed(2, 1)
    assert rate > 0
    assert taken
    with cluster.connect() as connection:
        row = connection.execute("SELECT count(*) FROM links").fetchone()
    assert row is not None
    assert cluster.transfers() > row[0] > BATCH  # some of each kind


def _head(cluster: Cluster) -> bytes:
    with cluster.connect() as connection:
        row = connection.execute("SELECT head FROM chain").fetchone()
    assert row is not None
    assert isinstance(row[0], bytes)
    return row[0]
