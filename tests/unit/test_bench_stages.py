"""The stages of the core by themselves, as `make bench BENCH_ARGS='--only micro'` times them: they do what the core does, or say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import measure, workload
from bench.measure import Report
from bench.micro import stages
from bench.micro.stages import Stages

pytestmark = pytest.mark.slow  # a C module is built


def test_every_stage_does_its_work() -> None:
    with Stages(50) as found:
        lines = workload.Payments(1, 50, random_ids=True).lines(3_000)
        times = found.feed(lines)
        assert (times.intents, times.refused) == (3_000, 0)
        assert min(times.parse_ns, times.hash_ns, times.apply_ns) > 0
        assert found.render(lines, 1_000) > 0
        assert found.entries >= 1_000
        assert min(found.leaves(), found.batch_root(), found.log_root(12_345), found.state_root(10, seed=1)) > 0


def test_a_chain_has_one_head() -> None:
    with Stages(50) as found:
        found.feed(workload.Payments(1, 50).lines(500))
        _, head = found.chain()
        assert found.chain()[1] == head
        assert found.verify_chain(head)[1]
        assert not found.verify_chain(bytes(32))[1]
        found.feed(workload.Payments(2, 50, prefix="more").lines(1))
        assert not found.verify_chain(head)[1]


def test_an_intent_that_is_refused_gives_no_figure() -> None:
    with Stages(5) as found, pytest.raises(RuntimeError, match="refused"):
        found.feed(workload.Payments(1, 50).lines(100))  # of accounts that are not there


def test_the_report_has_a_row_for_each_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "patience", 0.0)
    monkeypatch.setattr(measure, "LOCK", tmp_path / "lock")  # whoever benchmarks meanwhile is no business of ours
    report = Report(2)
    stages.run(report, seed=1, transactions=2_000, accounts=(100, 200))
    for name in (
        "parse and judge an intent",
        "hash an intent, 64 together",
        "apply, rendering included",
        "render an entry",
    ):
        assert len(report.rows[f"{name}, 100 accounts"].values) == len(report.rows[f"{name}, 200 accounts"].values) == 2
    for name in (
        "leaf hash of an entry",
        "batch root, an entry",
        "hash chain made, an entry",
        "hash chain verified, an entry",
    ):
        assert len(report.rows[name].values) == 2
    assert all(value > 0 for row in report.rows.values() for value in row.values)
