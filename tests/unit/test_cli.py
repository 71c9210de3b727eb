"""cli/: what needs no mount. With a mount: tests/e2e/test_command_line.py."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from ledgerfsd import daemon
from ledgerfsd.cli import main as cli
from ledgerfsd.cli import output, reading
from ledgerfsd.errors import DamageError, LedgerError, StoreError
from ledgerfsd.journal.layout import Layout, lock

Ran = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run ``ledgerfs`` in this process: exit code, stdout, stderr."""
    for name in ("LEDGERFS_MOUNT", "LEDGERFS_STORE", "LEDGERFS_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Ran:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices)


def test_all_commands_are_there() -> None:
    assert set(commands()) == {
        "init", "mount", "umount", "status", "submit", "balance", "history", "find", "rebuild", "fsck",
        "prove", "key", "verify", "snapshot", "diff", "replay", "events", "consumer", "publish",
        "restore", "signer", "digest", "witness",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_help_teaches_with_an_example_that_parses(run: Callable[..., Ran], name: str) -> None:
    code, text, _ = run(name, "--help")
    assert code == 0
    examples = re.findall(rf"^  (?:echo .* \| )?(ledgerfs {name} .*?)(?:   .*| \| .*)?$", text, re.MULTILINE)
    assert examples, text
    for example in examples:
        cli.parser().parse_args(shlex.split(example)[1:])


def test_main_help_and_daemon_help_name_the_exit_codes(run: Callable[..., Ran]) -> None:
    assert "3 the store or mount cannot be used, 4 damage" in run("--help")[1]
    assert "4 the journal is damaged" in daemon.parser().format_help()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["balance"],
        ["init"],
        ["history", "a", "--from", "yesterday"],
        ["history", "a", "--from", "2026-1-1"],
        ["history", "a", "--limit", "0"],
        ["history", "a", "--limit", "x"],
        ["submit", "x.json", "--atomic", "--dry-run"],
        ["init", "--ledger", "x", "--segment-bytes", "1048575"],
    ],
)
def test_usage_errors_end_with_2(run: Callable[..., Ran], arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: ledgerfs" in err


# -- stores


def test_init_fsck_rebuild(run: Callable[..., Ran], tmp_path: Path) -> None:
    store = tmp_path / "store"
    code, out, err = run("init", "--store", store, "--ledger", "ledger.example/cli", "--segment-bytes", 2**20)
    assert (code, err) == (0, "")
    assert str(store) in out
    code, out, err = run("fsck", "--store", store)
    assert (code, err) == (0, "")
    assert "verified: 2 entries in 1 blocks" in out
    assert "note: index.lmdb" in out
    code, out, err = run("rebuild", "--store", store)
    assert (code, err) == (0, "")
    assert "rebuilt from 2 entries" in out
    assert run("fsck", "--store", store, "--quick")[1].startswith("quickly checked: 2 entries in 1 blocks")
    code, out, _ = run("fsck", "--store", store, "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["entries"], found["findings"]) == (0, True, 2, [])


@pytest.mark.parametrize("where", [["--json", "init"], ["init", "--json"]])
def test_json_before_and_after_the_command(run: Callable[..., Ran], tmp_path: Path, where: list[str]) -> None:
    code, out, _ = run(*where, "--store", tmp_path / "s", "--ledger", "l.example", "--segment-bytes", 2**20)
    assert (code, json.loads(out)["ledger"]) == (0, "l.example")


def test_store_from_the_environment(
    run: Callable[..., Ran], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGERFS_STORE", str(store))
    assert run("fsck")[0] == 0
    assert run("fsck", "--store", tmp_path)[0] == 3


def test_no_store_named(run: Callable[..., Ran]) -> None:
    code, out, err = run("fsck")
    assert (code, out) == (1, "")
    assert err == "ledgerfs: which store?; give --store DIR or set LEDGERFS_STORE\n"


@pytest.mark.parametrize("command", ["fsck", "rebuild", "mount"])
def test_directory_that_is_no_store(run: Callable[..., Ran], tmp_path: Path, command: str) -> None:
    code, out, err = run(command, "--store", tmp_path)
    assert (code, out) == (3, "")
    assert "is not a LedgerFS store" in err


@pytest.mark.parametrize("command", ["fsck", "rebuild"])
def test_store_in_use(run: Callable[..., Ran], store: Path, command: str) -> None:
    with lock(Layout(store)):
        code, _, err = run(command, "--store", store)
    assert code == 3
    assert "in use by process" in err


def test_fsck_tells_damage_from_a_wrong_projection(run: Callable[..., Ran], store: Path) -> None:
    assert run("rebuild", "--store", store)[0] == 0
    hashes = store / "hashes" / "0"
    good = hashes.read_bytes()
    hashes.write_bytes(b"x" + good[1:])
    code, out, err = run("fsck", "--store", store)
    assert (code, out) == (1, "")
    assert "projection: hashes/0: item 0 differs" in err
    assert "ledgerfs rebuild" in err
    assert run("rebuild", "--store", store)[0] == 0
    assert hashes.read_bytes() == good
    segment = next((store / "journal").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[40] ^= 1
    segment.write_bytes(data)
    code, out, err = run("fsck", "--store", store)
    assert (code, out) == (4, "")
    assert f"damage: journal/{segment.name}, entry 0: " in err
    code, out, _ = run("fsck", "--store", store, "--json")
    assert (code, json.loads(out)["ok"]) == (4, False)


def test_init_where_something_is(run: Callable[..., Ran], store: Path) -> None:
    code, _, err = run("init", "--store", store, "--ledger", "l.example")
    assert code == 3
    assert "holds a store already" in err


# -- no mount


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["balance", "a"], ["history", "a"], ["submit", "x.json"], ["submit", "-", "--name", "x.json"]],
)
def test_commands_without_a_mount_say_so(run: Callable[..., Ran], tmp_path: Path, arguments: list[str]) -> None:
    code, out, err = run(*arguments, "--mount", tmp_path)
    assert (code, out) == (3, "")
    assert err == (
        f"ledgerfs: no LedgerFS is mounted at {tmp_path}; give --mount DIR or set LEDGERFS_MOUNT; "
        "`ledgerfs mount` mounts one\n"
    )


def test_umount_leaves_other_things_alone(run: Callable[..., Ran], tmp_path: Path) -> None:
    assert run("umount", "/proc")[0] == 1
    assert "no LedgerFS but proc" in run("umount", "/proc")[2]
    assert "nothing is mounted" in run("umount", tmp_path)[2]
    assert run("umount", tmp_path, "--if-mounted")[0] == 0


# -- errors


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (LedgerError("no", hint="do this"), 1, "ledgerfs: no; do this\n"),
        (LedgerError("no"), 1, "ledgerfs: no\n"),
        (StoreError("gone"), 3, "ledgerfs: gone\n"),
        (DamageError("bad"), 4, "ledgerfs: bad\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            FileNotFoundError(2, "No such file or directory", "x.json"),
            1,
            "ledgerfs: x.json: No such file or directory\n",
        ),
    ],
)
def test_errors_become_text_and_a_code(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("ledgerfsd.cli.mounting.run_status", fail)
    assert run("status") == (code, "", text)


def test_our_own_faults_are_no_tracebacks(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledgerfsd.cli.mounting.run_status", lambda _: 1 // 0)
    code, _, err = run("status")
    assert code == 1
    assert err.startswith("ledgerfs: ZeroDivisionError")
    assert "Traceback" not in err


def test_errors_as_json(run: Callable[..., Ran]) -> None:
    code, out, err = run("--json", "fsck")
    assert json.loads(out) == {
        "error": "which store?",
        "hint": "give --store DIR or set LEDGERFS_STORE",
        "exit_code": 1,
    }
    assert (code, err.count("\n")) == (1, 1)


# -- pieces


def test_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "AMOUNT"), [("x", "1.00"), ("longer", "-1000.00")], right=(1,))
    assert capsys.readouterr().out == "A         AMOUNT\nx           1.00\nlonger  -1000.00\n"


@pytest.mark.parametrize("text", ["2026-11-30", "2026-11-30T08", "2026-11-30T08:00:01.123456789Z", "2026-11-30T08:00Z"])
def test_times_that_history_takes(text: str) -> None:
    assert reading._time(text) == text.removesuffix("Z")


def test_history_compares_to_the_precision_given(tmp_path: Path) -> None:
    log = tmp_path / "tx.log"
    times = ["2026-11-29T23:59:59.999999999Z", "2026-11-30T00:00:00.000000000Z", "2026-11-30T23:59:59.999999999Z"]
    log.write_text("".join(json.dumps({"time": time}) + "\n" for time in times))
    (tmp_path / "history").mkdir()
    (tmp_path / "history/2026-11.ndjson").write_bytes(log.read_bytes())

    def found(since: str | None, until: str | None) -> list[int]:
        lines = reading._lines(log, 0, log.stat().st_size, since, until)
        return [times.index(json.loads(line)["time"]) for line in lines]

    assert found(None, None) == [0, 1, 2]
    assert found("2026-11-30", None) == [1, 2]
    assert found(None, "2026-11-29") == [0]
    assert found("2026-11-30", "2026-11-30") == [1, 2]
    assert found("2026-11-30T00:00:01", None) == [2]
    assert found(None, "2026-11-30T00") == [0, 1]


def test_history_rows_of_every_kind() -> None:
    common = {"index": 9, "time": "t", "id": "i"}
    mine = {"account": "a", "amount": "1.00", "side": "debit", "debits": "3.00", "credits": "1.00"}
    other = {"account": "b", "amount": "1.00", "side": "credit", "debits": "0.00", "credits": "1.00"}

    def rows(**members: object) -> list[dict[str, object]]:
        return list(reading._rows({**common, **members}, "a", "credit"))

    (row,) = rows(t="txn/1", tx=7, type="transfer", postings=[mine, other], reference="r")
    assert (row["what"], row["debit"], row["credit"], row["balance"]) == ("tx_0007", "1.00", "", "-2.00")
    assert row["reference"] == "r"
    (row,) = rows(t="txn/1", tx=12345, type="reversal", postings=[mine])
    assert row["what"] == "tx_12345 reversal"
    (row,) = rows(t="hold/1", postings=[{"account": "a", "amount": "5.00", "side": "debit"}])
    assert (row["what"], row["held"], row["balance"]) == ("hold", "5.00", "")
    (row,) = rows(t="void/1", postings=[{"account": "a", "amount": "5.00", "side": "debit"}])
    assert row["held"] == "-5.00"
    (row,) = rows(t="account.update/1", action="freeze")
    assert row["what"] == "freeze"
    assert len(rows(t="txn/1", tx=1, type="transaction", postings=[mine, mine, other])) == 2


def test_progress_is_plain_lines_or_nothing_off_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LINE_SECONDS", 0.0)
    with output.Progress("work", plain=False) as quiet:
        quiet(1, 2)
    assert capsys.readouterr().err == ""
    with output.Progress("work", plain=True) as plain:
        plain(500_000, 1_000_000)
        plain(0, 0)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("work:  50.0 %  0 of 1 MB")
    assert second.startswith("work: 100.0 %")
