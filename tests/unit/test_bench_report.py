"""docs/BENCHMARKS.md and its plots come from the committed results, and say the truth about aims."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench import aims, record, report, svg
from ledgerfsd.errors import LedgerError
from tests.conftest import REPOSITORY

MACHINE = {"processor": "2 x Something", "memory": "24 GiB"}
SINGLE = "file per intent, 32 writers, rate"


def measured(rows: dict[str, tuple[str, list[float]]], **more: Any) -> dict[str, Any]:
    """A measurement as a file of results has it."""
    facts = {
        "title": "What it is.",
        "began": "2026-11-26T12:00:00Z",
        "command": "make bench BENCH_ARGS='--only single'",
        "seed": 1,
        "settings": "safe",
        "quick": False,
        "unsafe": [],
        "seconds": 3,
        "rows": [{"name": name, "unit": unit, "values": values, "aim": ""} for name, (unit, values) in rows.items()],
        "series": {},
        "sections": {"all": 4, "busy": 0},
        "notes": [],
    }
    return facts | more


def results(path: Path, **measurements: dict[str, Any]) -> Path:
    data = {"schema": record.SCHEMA, "machine": MACHINE, "code": {"commit": "a", "tree": "b"}}
    path.write_text(record.text(data | {"measurements": measurements}))
    return path


def line_of(document: str, measure: str) -> str:
    (found,) = [line for line in document.splitlines() if line.startswith(f"| {measure} |")]
    return found


def aim_of(row: str) -> aims.Aim:
    (found,) = [aim for aim in aims.load() if aim.row == row]
    return found


def test_the_documents_are_those_of_the_results() -> None:
    """As with man pages: whoever changes results or remarks runs `make bench-report`."""
    made = report.make(sorted(report.RESULTS.glob("*.json")))
    target = REPOSITORY / "docs" / "BENCHMARKS.md"
    assert target.read_text(encoding="utf-8") == made[""], "run `make bench-report`"
    plots = {f"plots/{path.name}": path for path in (target.parent / "plots").glob("*.svg")}
    assert set(plots) == set(made) - {""}, "run `make bench-report`"
    for name, path in plots.items():
        assert path.read_text(encoding="utf-8") == made[name], f"{name}: run `make bench-report`"


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    series = {"seconds": [1.0, 2.0, 3.0], "rate": [10.0, 0.0, 30.0], "own_mib": [5.0, 5.0, 6.0]}
    rows = {SINGLE: ("/s", [1.0, 2.0]), "other, rate": ("/s", [3.0]), "x, p50": ("ms", [1.0]), "x, p99": ("ms", [9.0])}
    path = results(tmp_path / "one.json", single=measured(rows, series=series))
    made = report.make([path])
    assert made == report.make([path])
    assert {
        "plots/one-single-rates.svg",
        "plots/one-single-latencies-ms.svg",
        "plots/one-single-over-seconds.svg",
    } < set(made)
    for name, text in made.items():
        if name:
            root = ElementTree.fromstring(text)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert "nan" not in text
    report.write(made, tmp_path / "docs" / "B.md")
    assert {path.name for path in (tmp_path / "docs" / "plots").iterdir()} == {name[6:] for name in made if name}


def test_each_measurement_names_the_commit_that_it_was_made_of(tmp_path: Path) -> None:
    path = results(tmp_path / "one.json", single=measured({SINGLE: ("/s", [1.0])}, commit="1234abc"))
    assert "`make bench BENCH_ARGS='--only single'`, commit 1234abc, seed 1, " in report.make([path])[""]


def test_what_falls_short_is_said_with_its_reason(tmp_path: Path) -> None:
    path = results(tmp_path / "one.json", single=measured({SINGLE: ("/s", [2_000.0, 1_500.0, 2_500.0])}))
    document, aim = report.make([path])[""], aim_of(SINGLE)
    line = line_of(document, aim.measure)
    assert "2,000 /s (1,500 to 2,500)" in line
    assert "0.20 **short**" in line
    assert f"**{aim.measure}**: 2,000 /s (aim ≥ 10,000 /s). Why: {aim.reason}." in document


def test_what_must_be_and_is_not_stands_out(tmp_path: Path) -> None:
    row = "balance.json, open + read + close, cold, p99"
    path = results(tmp_path / "one.json", reading=measured({row: ("us", [15_000.0])}, sections={"all": 4, "busy": 3}))
    line = line_of(report.make([path])[""], aim_of(row).measure)
    assert "0.02 **misses what it must reach**" in line
    assert "| one (busy machine) |" in line


def test_what_is_reached_needs_no_reason(tmp_path: Path) -> None:
    path = results(tmp_path / "one.json", single=measured({SINGLE: ("/s", [12_000.0])}))
    document, aim = report.make([path])[""], aim_of(SINGLE)
    assert "| 1.20 |" in line_of(document, aim.measure)
    assert f"**{aim.measure}**" not in document


def test_a_failure_is_no_figure(tmp_path: Path) -> None:
    old = results(tmp_path / "old.json", single=measured({SINGLE: ("/s", [12_000.0])}, began="2026-11-25T12:00:00Z"))
    new = results(tmp_path / "new.json", single=measured({}, failed="OSError: no"))
    document = report.make([old, new])[""]
    assert "failed: OSError: no" in line_of(document, aim_of(SINGLE).measure)
    assert "**FAILED: OSError: no**" in document


@pytest.mark.parametrize("what", [{"quick": True}, {"unsafe": ["memory"]}])
def test_quick_and_unsafe_runs_stay_out_of_the_table(tmp_path: Path, what: dict[str, Any]) -> None:
    path = results(tmp_path / "one.json", single=measured({SINGLE: ("/s", [99_000.0])}, **what))
    document = report.make([path])[""]
    assert "not measured yet" in line_of(document, aim_of(SINGLE).measure)
    assert ("UNSAFE: memory" in document) == ("unsafe" in what)


def test_the_newest_result_counts(tmp_path: Path) -> None:
    old = results(tmp_path / "b.json", single=measured({SINGLE: ("/s", [1.0])}, began="2026-11-25T12:00:00Z"))
    new = results(tmp_path / "a.json", single=measured({SINGLE: ("/s", [11_000.0])}))
    for order in ([old, new], [new, old]):
        document = report.make(order)[""]
        assert "11,000 /s" in line_of(document, aim_of(SINGLE).measure)
        assert document.index("## Results: a") < document.index("## Results: b")


def test_figures_of_the_neighbours_count_only_where_there_are_no_others(tmp_path: Path) -> None:
    rows = {SINGLE: ("/s", [12_000.0])}
    quiet = results(tmp_path / "quiet.json", single=measured(rows))
    later = {"began": "2026-11-27T12:00:00Z", "sections": {"all": 4, "busy": 0, "withheld": 1}}
    disturbed = results(tmp_path / "disturbed.json", single=measured({SINGLE: ("/s", [9_000.0])}, **later))
    table = report.make([disturbed, quiet])[""].split("\n## Results")[0]
    assert "12,000" in table
    assert "9,000" not in table
    table = report.make([disturbed])[""].split("\n## Results")[0]
    assert "9,000" in table
    assert "disturbed (busy machine)" in table


def test_what_needs_an_option_is_judged_by_runs_that_had_it(tmp_path: Path) -> None:
    """A newer run without TigerBeetle does not take its figures away."""
    row = "LedgerFS / TigerBeetle, 10,000 accounts, batches of 8,189, fastest form"
    without = measured({}, command="make bench BENCH_ARGS='--only peers'", began="2026-11-27T12:00:00Z")
    new = results(tmp_path / "new.json", peers=without)
    line = line_of(report.make([new])[""], aim_of(row).measure)
    assert "not measured yet" in line
    assert "`make bench BENCH_ARGS='--only peers --tigerbeetle PATH'`" in line
    with_it = measured({row: ("x", [2.0])}, command="make bench BENCH_ARGS='--only peers --tigerbeetle PATH'")
    old = results(tmp_path / "old.json", peers=with_it)
    assert "| 2.00 |" in line_of(report.make([old, new])[""], aim_of(row).measure)


def test_aims_for_less_are_judged_the_other_way_round() -> None:
    aim = aims.Aim(measure="m", measurement="single", row="r", must="<= 50", aim="<= 10")
    judged = aims.Judged(aim=aim, unit="ms", values=(20.0, 21.0, 19.0))
    assert judged.reached == 0.5
    assert judged.short
    assert aims.Judged(aim=aim, unit="ms", values=(8.0,)).short is False


def test_a_goal_that_is_none_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "aims.toml"
    place.write_text('[[aim]]\nmeasure = "m"\nmeasurement = "single"\nrow = "r"\naim = "> 5"\n')
    with pytest.raises(LedgerError, match="> 5"):
        aims.load(place)


@pytest.mark.parametrize("most", [0.0, 0.003, 1.0, 7.3, 99.0, 100.0, 123_456.0])
def test_axes_reach_beyond_what_they_show(most: float) -> None:
    marks = svg.ticks(most)
    assert marks[0] == 0
    assert marks[-1] >= most
    assert 2 <= len(marks) <= 8
    assert all(late > early for early, late in itertools.pairwise(marks))


def test_results_have_a_line_for_each_row(tmp_path: Path) -> None:
    path = results(tmp_path / "one.json", single=measured({SINGLE: ("/s", [1.0]), "b": ("/s", [2.0])}))
    text = path.read_text()
    assert json.loads(text)["measurements"]["single"]["rows"][1]["name"] == "b"
    assert sum('"unit"' in line for line in text.splitlines()) == 2
