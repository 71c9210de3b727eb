"""The benchmarks' own parts: what they feed, how they count, what they refuse, and what they keep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import daemon, measure, record, run, safety, workload
from bench.crew import crew
from bench.interrupt import interruptible, undisturbed
from bench.measure import Report, percentile
from bench.peers import tigerbeetle
from ledgerfsd.core.engine import Engine
from ledgerfsd.errors import LedgerError
from ledgerfsd.journal import layout
from ledgerfsd.types import Mode
from tests.conftest import REPOSITORY

MACHINE = {"processor": "2 x Something", "memory": "24 GiB"}
CODE = {"commit": "aaaaaaa", "tree": "1234567"}


# -- workloads


@pytest.mark.parametrize("random_ids", [False, True])
@pytest.mark.parametrize("pattern", workload.PATTERNS)
def test_one_seed_gives_the_same_bytes(pattern: str, random_ids: bool) -> None:
    def made(seed: int) -> bytes:
        return workload.Payments(seed, 50, pattern=pattern, random_ids=random_ids).lines(500)

    assert made(1) == made(1)
    assert made(1) != made(2)
    payments = [json.loads(line) for line in made(1).splitlines()]
    assert len({payment["id"] for payment in payments}) == 500
    assert all(payment["debit"] != payment["credit"] for payment in payments)


def test_rows_for_postgresql_are_the_same_payments() -> None:
    rows = [workload.Payments(3, 20).row().decode().rstrip("\n").split("\t")]
    intent = json.loads(workload.Payments(3, 20).one())
    assert rows[0][:3] == [intent["id"], intent["debit"], intent["credit"]]
    assert int(rows[0][3]) == int(intent["amount"].replace(".", ""))


def test_zipf_draws_the_busy_more_often() -> None:
    import random

    draw, count = workload.zipf(random.Random(7), 1_000), 200_000
    often = [number for _, number in Counter(draw() for _ in range(count)).most_common()]
    whole = sum(1 / rank for rank in range(1, 1_001))
    assert often[0] / count == pytest.approx(1 / whole, rel=0.05)
    assert often[0] / often[9] == pytest.approx(10, rel=0.15)
    assert often[0] / often[99] == pytest.approx(100, rel=0.3)


def test_zipf_gives_every_account_a_rank_of_its_own() -> None:
    for count in (7, 1_000, 10_000):
        assert len({rank * workload._SPREAD % count for rank in range(count)}) == count


def test_hot_pays_one_account() -> None:
    payments = [json.loads(line) for line in workload.Payments(1, 30, pattern="hot").lines(300).splitlines()]
    assert {payment["credit"] for payment in payments} == {workload.account(0)}
    assert workload.account(0) not in {payment["debit"] for payment in payments}


@pytest.mark.parametrize("random_ids", [False, True])
def test_stamped_files_are_new_payments_each_time(tmp_path: Path, random_ids: bool) -> None:
    """Two of them are drawn and five given out: the engine takes every line of every file, and none as a duplicate."""
    stamped = workload.Stamped(1, 40, drawn=2, lines=200, random_ids=random_ids)
    assert stamped.file(3) == workload.Stamped(1, 40, drawn=2, lines=200, random_ids=random_ids).file(3)
    engine = Engine(layout.create(tmp_path / "store", "ledger.example/bench").root)
    try:
        engine.start()
        for number, piece in enumerate([*workload.open_accounts(40), *map(stamped.file, range(5))]):
            engine.submit(piece, source=b"%d.ndjson" % number, first_line=1, mode=Mode.EACH)
        engine.drain()
        completions = engine.completions()
        assert sum(completion.committed for completion in completions) == 40 + 5 * 200
        assert engine.counts().transactions == 40 + 5 * 200  # openings with a balance are transactions too
    finally:
        engine.close()


# -- figures


def test_percentiles_are_by_nearest_rank() -> None:
    thousand = [float(value) for value in range(1000, 0, -1)]
    assert [percentile(thousand, percent) for percent in measure.PERCENTS] == [500, 950, 990, 999]
    assert percentile([3.0], 99.9) == 3
    assert percentile([1.0, 2.0], 50) == 1
    with pytest.raises(IndexError):
        percentile([], 50)


def test_ratios_are_taken_run_by_run() -> None:
    report = Report(3)
    for ours, theirs in ((100, 50), (30, 10), (80, 80)):
        report.add("ours", "tx/s", ours)
        report.add("theirs", "tx/s", theirs)
    report.ratio("ours / theirs", "ours", "theirs")
    report.ratio("ours / nobody", "ours", "nobody")
    assert report.rows["ours / theirs"].values == [2, 3, 1]
    assert report.rows["ours / theirs"].median == 2
    assert "ours / nobody" not in report.rows


def test_latencies_have_four_percentiles_and_their_aims() -> None:
    report = Report(1)
    report.latencies("close", [0.001] * 999 + [0.5], aims={99: "must < 2"})
    assert {name: row.values for name, row in report.rows.items()} == {
        "close, p50": [1.0],
        "close, p95": [1.0],
        "close, p99": [1.0],
        "close, p99.9": [1.0],
    }
    assert [row.aim for row in report.rows.values()] == ["", "", "must < 2", ""]
    report.latencies("seldom", [0.001] * 99)
    assert [name for name in report.rows if name.startswith("seldom")] == ["seldom, p50", "seldom, p95"]


TIGERBEETLE = """\
123 batches in 4.10 s
transfer batch size = 8189 txs
transfer batch delay = 0ns
load accepted = 244118 tx/s
batch latency p1   = 15 ms
batch latency p50  = 30 ms
batch latency p99  = 64 ms
batch latency p100 = 71 ms

rss = 3179982848 bytes
"""


def test_what_tigerbeetle_says_is_understood() -> None:
    assert tigerbeetle.figures(TIGERBEETLE) == (244_118, (30, 64))
    with pytest.raises(RuntimeError, match="no such thing"):
        tigerbeetle.figures("no such thing")
    with pytest.raises(RuntimeError, match="gave no figures"):
        tigerbeetle.figures("load accepted = 244118 tx/s")


def test_a_failure_of_tigerbeetle_is_told_without_its_ordinary_log() -> None:
    log = "2026-11-26 18:19:31.269Z info(main): release=0.17.0\n2026-11-26 18:19:43Z warning(trace): 0: too slow\n"
    assert tigerbeetle.told(log + "error: unexpected argument: '--clients=4'\n") == (
        "error: unexpected argument: '--clients=4'"
    )
    assert tigerbeetle.told(log) == "nothing"


def test_a_run_of_tigerbeetle_that_fails_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with [12]: .*unrecognized option.*"):
        tigerbeetle.run(Path("/bin/ls"), tmp_path, tigerbeetle.FOUR, seed=1, accounts=2, transfers=2)
    assert list(tmp_path.iterdir()) == []


# -- what is refused


def refused(*options: str, **environment: str) -> str:
    """What a run with these options says before it measures anything."""
    done = subprocess.run(
        [sys.executable, "bench/run.py", "--quick", "--only", "ndjson", *options],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_store_in_memory_is_refused(tmp_path: Path) -> None:
    assert "--unsafe-memory" in refused("--dir", "/dev/shm/ledgerfs-bench-test", "--json", str(tmp_path / "x.json"))
    os.rmdir("/dev/shm/ledgerfs-bench-test")


def test_postgresql_without_fsync_is_refused(tmp_path: Path) -> None:
    text = refused("--postgres", "fsync=off", "--dir", str(tmp_path), "--json", str(tmp_path / "x.json"))
    assert "fsync=off" in text
    assert "--unsafe-postgres" in text


@pytest.mark.parametrize("path", ["/bin/true", "/etc/passwd", "/nowhere/tigerbeetle", "/bin"])
def test_what_is_no_tigerbeetle_is_refused(path: str, tmp_path: Path) -> None:
    text = refused("--tigerbeetle", path, "--dir", str(tmp_path), "--json", str(tmp_path / "x.json"))
    assert os.path.realpath(path) in text
    assert "--tigerbeetle takes the path" in text


def test_preloaded_libraries_are_refused(tmp_path: Path) -> None:
    import ctypes.util

    library = ctypes.util.find_library("m")
    assert library is not None
    text = refused("--dir", str(tmp_path), "--json", str(tmp_path / "x.json"), LD_PRELOAD=library)
    assert "--unsafe-preload" in text


def test_checks_switched_off_are_refused(tmp_path: Path) -> None:
    text = refused("--dir", str(tmp_path), "--json", str(tmp_path / "x.json"), PYTHONOPTIMIZE="1")
    assert "--unsafe-asserts" in text


def test_what_cannot_be_kept_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--json" in refused("--dir", str(tmp_path), "--json", str(tmp_path / "file" / "x.json"))
    assert "--dir" in refused("--dir", str(tmp_path / "file" / "stores"), "--json", str(tmp_path / "x.json"))


@pytest.mark.parametrize(
    "options", [("--repeats", "0"), ("--transactions", "5"), ("--sustained-rate", "-1"), ("--only", "nothing")]
)
def test_options_that_make_no_sense_are_refused(options: tuple[str, str]) -> None:
    assert f"argument {options[0]}: " in refused(*options)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (("ext4", "/dev/zram0", ["rw"]), "memory"),
        (("overlay", "overlay", ["rw", "volatile"]), "barriers"),
        (("ext4", "/dev/sda", ["rw", "nobarrier"]), "barriers"),
    ],
)
def test_places_that_keep_nothing_are_found(
    place: tuple[str, str, list[str]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safety, "mounted", lambda _: place)
    assert [each.name for each in safety.look(REPOSITORY, {})] == [name]


def test_what_is_preloaded_for_all_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preloaded = tmp_path / "ld.so.preload"
    monkeypatch.setattr(safety, "_PRELOADED", preloaded)
    assert safety.look(REPOSITORY, {}) == []
    preloaded.write_text("/lib/libeatmydata.so\n")
    assert [each.name for each in safety.look(REPOSITORY, {})] == ["preload"]


def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.fio import jobs
    from bench.peers import postgres

    monkeypatch.setattr(postgres, "INSTALLED", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LedgerError, match="initdb is not installed"):
        postgres._program("initdb")
    with pytest.raises(LedgerError, match="fio is not installed"):
        jobs.run(Report(1), tmp_path, seed=1, transactions=1, files=1)


def test_unsafe_is_allowed_by_name_only() -> None:
    found = [safety.Found("postgres", "here"), safety.Found("memory", "there")]
    with pytest.raises(LedgerError, match="there"):
        safety.refuse(found, {"postgres"})
    safety.refuse(found, {"postgres", "memory"})
    safety.refuse([], set())


def test_durable_settings_of_postgresql_are_no_fault(tmp_path: Path) -> None:
    assert safety.look(REPOSITORY, {"fsync": "on", "shared_buffers": "1GB"}) == []
    weak = safety.look(REPOSITORY, {"synchronous_commit": "off"})
    assert [each.name for each in weak] == ["postgres"]


def test_a_run_that_the_disk_has_no_room_for_is_refused(tmp_path: Path) -> None:
    daemon.need_room(tmp_path, 1)
    with pytest.raises(LedgerError, match="are free"):
        daemon.need_room(tmp_path, 1e15)


# -- what is kept


FACTS: dict[str, Any] = dict.fromkeys(record.FACTS - {"rows", "series", "notes"})


def kept(path: Path) -> dict[str, Any]:
    measurements: dict[str, Any] = record.load(path)["measurements"]
    return measurements


def test_results_of_one_machine_and_code_come_together(tmp_path: Path) -> None:
    path, report = tmp_path / "results.json", Report(1)
    report.add("rate", "tx/s", 1234.56789)
    report.sample(seconds=1, rate=2)
    record.Record(path, MACHINE, CODE).keep("first", report, FACTS)
    again = record.Record(path, MACHINE, CODE | {"commit": "bbbbbbb"})  # nothing of what is measured was changed
    again.keep("second", Report(1), FACTS, failed="OSError: no")
    assert list(kept(path)) == ["first", "second"]
    assert kept(path)["first"]["rows"] == [{"name": "rate", "unit": "tx/s", "values": [1234.57], "aim": ""}]
    assert kept(path)["first"]["series"] == {"seconds": [1], "rate": [2]}
    assert kept(path)["second"]["failed"] == "OSError: no"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("machine", "code"), [(MACHINE | {"memory": "8 GiB"}, CODE), (MACHINE, CODE | {"tree": "7"})])
def test_results_of_others_are_not_mixed(tmp_path: Path, machine: dict[str, str], code: dict[str, str]) -> None:
    path = tmp_path / "results.json"
    record.Record(path, MACHINE, CODE).keep("first", Report(1), FACTS)
    with pytest.raises(LedgerError, match="results of another"):
        record.Record(path, machine, code)
    record.Record(path, machine, code, replace=True).keep("second", Report(1), FACTS)
    assert list(kept(path)) == ["second"]


def test_what_is_no_file_of_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text("{")
    lacking = {"schema": record.SCHEMA, "machine": MACHINE, "code": CODE, "measurements": {"single": {"rows": []}}}
    (tmp_path / "d.json").write_text(json.dumps(lacking))
    for name in ("a.json", "b.json", "c.json", "d.json"):
        with pytest.raises(LedgerError, match=name):
            record.load(tmp_path / name)


def test_a_measurement_that_fails_is_kept_as_failed_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bad(report: Report, _: Path, __: Any) -> None:
        """Fails half-way."""
        report.add("before the end", "tx/s", 1)
        raise RuntimeError("the disk is gone")

    def good(report: Report, _: Path, __: Any) -> None:
        """Works."""
        report.add("rate", "tx/s", 2)

    for name, measurement in (("ndjson", bad), ("single", good)):
        monkeypatch.setitem(run.MEASUREMENTS, name, measurement)
    path = tmp_path / "results.json"
    options = ["--quick", "--only", "ndjson", "--only", "single", "--dir", str(tmp_path), "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["bench.run", *options])
    assert run.main() == 1
    assert "FAILED: ndjson" in capsys.readouterr().out
    found = kept(path)
    assert found["ndjson"]["failed"] == "RuntimeError: the disk is gone"
    assert [row["values"] for row in found["ndjson"]["rows"]] == [[1]]
    assert "failed" not in found["single"]
    assert found["single"]["commit"] == record.code()["commit"]
    assert found["single"]["command"] == "make bench BENCH_ARGS='--only single --quick'"
    assert list(tmp_path.iterdir()) == [path]  # the stores are gone


def test_what_the_user_can_change_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        """Needs more."""
        raise LedgerError("the disk is full", hint="give another place")

    monkeypatch.setitem(run.MEASUREMENTS, "ndjson", full)
    path = tmp_path / "results.json"
    monkeypatch.setattr(
        sys, "argv", ["bench.run", "--quick", "--only", "ndjson", "--dir", str(tmp_path), "--json", str(path)]
    )
    assert run.main() == 1
    said = capsys.readouterr()
    assert "FAILED: the disk is full; give another place" in said.out
    assert "Traceback" not in said.err
    assert kept(path)["ndjson"]["failed"] == "the disk is full; give another place"


def test_a_command_has_what_its_measurement_needs() -> None:
    options = run.parser().parse_args(["--aims", "--repeats", "1", "--tigerbeetle", "some/tigerbeetle"])
    options.postgres = {}
    assert run.command("reading", options) == "make bench BENCH_ARGS='--only reading --aims --repeats 1'"
    assert run.command("peers", options).endswith("--repeats 1 --tigerbeetle PATH'")
    options.accounts = 500
    assert "--accounts 500" in run.command("flat", options)


def test_clients_that_wait_for_their_beginning_end_when_there_is_none() -> None:
    import multiprocessing

    with pytest.raises(RuntimeError, match="no beginning"), crew(lambda barrier, _: barrier.wait(), [(), ()]):
        raise RuntimeError("no beginning")
    assert multiprocessing.active_children() == []


def test_an_interrupt_waits_until_a_server_is_taken_down() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the server is down")
        done.append("the next is measured")
    assert done == ["the server is down"]


def test_what_was_measured_before_an_interrupt_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(report: Report, _: Path, __: Any) -> None:
        """Is interrupted half-way."""
        report.add("before", "tx/s", 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setitem(run.MEASUREMENTS, "ndjson", slow)
    path = tmp_path / "results.json"
    options = ["--quick", "--only", "ndjson", "--only", "single", "--dir", str(tmp_path), "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["bench.run", *options])
    before = signal.getsignal(signal.SIGTERM)
    assert run.main() == 130
    assert signal.getsignal(signal.SIGTERM) is before
    found = kept(path)
    assert list(found) == ["ndjson"]
    assert found["ndjson"]["failed"] == "interrupted"
    assert [row["values"] for row in found["ndjson"]["rows"]] == [[1]]
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_table_of_aims_needs_is_there() -> None:
    from bench import aims

    rows = aims.load()
    assert {row.measurement for row in rows} == {*run.AIMS, *run.APART}
    assert len({(row.measurement, row.row) for row in rows}) == len(rows)
