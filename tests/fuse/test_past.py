"""Section 12 of docs/SEMANTICS.md: ``snapshots/``, against the twin, ``ledgerfs replay``, and the running balances of statements."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import random
import re
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledgerfsd.cli import main, past
from ledgerfsd.clock import NS_PER_DAY, format_date, format_time
from ledgerfsd.core.hashing import leaf_hashes
from ledgerfsd.journal import checked
from ledgerfsd.merkle import tlog_proof
from ledgerfsd.merkle.proof import verify_inclusion
from ledgerfsd.money import format_signed
from ledgerfsd.service.keys import parse_trusted_root
from ledgerfsd.types import Account
from tests.conftest import READY_SECONDS, REPOSITORY, Daemon
from tests.fuse import past_history
from tests.fuse.conftest import Mounted, pay

FILES = 300


class World(NamedTuple):
    """A mounted history, and its log as it lay on disk before (the daemon adds its key to it)."""

    mounted: Mounted
    entries: list[bytes]
    times: Any

    def __truediv__(self, name: str) -> Path:
        return self.mounted.path / name

    def newest(self) -> tuple[int, int]:
        """Entries and blocks of the mount's log."""
        status = self.mounted.status()
        return status["entries"], status["blocks"]

    def size_at(self, time_ns: int) -> int:
        """How many entries were booked at or before a time."""
        return bisect_right(self.times, time_ns)

    def replay(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """``ledgerfs replay`` on the mount."""
        done = ledgerfs(self.mounted, "replay", "--json", *arguments)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return {row["account"]: row for row in rows}


def ledgerfs(mounted: Mounted, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command, on this mount."""
    command = [sys.executable, "-m", "ledgerfsd.cli.main", *map(str, arguments), "--mount", str(mounted.path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def names_in(directory: Path) -> list[str]:
    """What is listed but for digests, which come as time goes on."""
    return [name for name in os.listdir(directory) if not name.startswith("digest-")]


@pytest.fixture(scope="module", params=(3,))
def world(fuse: None, request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A history of ten weeks, mounted; nothing is booked into it by the tests."""
    place = tmp_path_factory.mktemp("past")
    layout = past_history.make(place / "store", request.param, FILES)
    entries = past_history.entries_of(layout)
    daemon = Daemon(layout.root, place / "mount").start()
    (place / "work").mkdir()
    try:
        yield World(Mounted(daemon.path, place / "work", daemon), entries, past_history.times_of(entries))
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()


def shown(account: Account) -> dict[str, str]:
    """What ``balance.json`` says of an account, but for ``as_of``."""
    debit = account.normal == "debit"
    now = account.debits - account.credits if debit else account.credits - account.debits
    held = account.held_credits if debit else account.held_debits
    amounts = {
        "balance": now,
        "available": now - held,
        "held": held,
        "debits": account.debits,
        "credits": account.credits,
    }
    found = {name: format_signed(amount, account.decimals) for name, amount in amounts.items()}
    return {"account": account.name, "currency": account.currency, **found}


def read(directory: Path) -> dict[str, dict[str, Any]]:
    """Every ``balance.json`` of a snapshot."""
    return {
        name: json.loads((directory / "accounts" / name / "balance.json").read_bytes())
        for name in os.listdir(directory / "accounts")
    }


def test_the_past_is_the_same_by_every_way(world: World) -> None:
    """Files, the raw log added up, the twin of the core, and the running balance of statements. SEMANTICS 12.1, SEMANTICS 12.3"""
    chance = random.Random(5)
    seen = set()
    for _ in range(12):
        time_ns = chance.randrange(world.times[0], world.times[-1] + NS_PER_DAY)
        point = format_time(time_ns)
        size = world.size_at(time_ns)
        files = read(world / "snapshots" / point)
        assert list(files) == list(past_history.twin_at(world.entries, size))
        assert files == world.replay("--until", point)
        for name, account in past_history.twin_at(world.entries, size).items():
            assert shown(account) == {member: value for member, value in files[name].items() if member != "as_of"}
            about = json.loads((world / f"snapshots/{point}/accounts/{name}/account.json").read_bytes())
            assert about["status"] == account.status
            seen.add(account.status)
            assert_running_balance(world, name, size, files[name])
            alone = world / f"accounts/{name}/snapshots/{point}.json"
            assert json.loads(alone.read_bytes()) == files[name]
    assert {"open", "frozen"} <= seen


def assert_running_balance(world: World, name: str, size: int, balance: dict[str, Any]) -> None:
    """The last row of ``statement.csv`` that counts, and the last line of ``tx.log``."""
    table = list(csv.DictReader(io.StringIO((world / f"accounts/{name}/statement.csv").read_text(), newline="")))
    rows = [row for row in table if int(row["index"]) < size]
    zero = format_signed(0, len(balance["balance"].partition(".")[2]))
    assert (rows[-1]["balance"] if rows else zero) == balance["balance"]
    indexes = [json.loads(line)["index"] for line in (world / f"accounts/{name}/tx.log").read_bytes().splitlines()]
    assert max(index for index in indexes if index < size) == balance["as_of"]["index"]


def test_points(world: World) -> None:
    """All kinds of names, of the same state and of others. SEMANTICS 12.1"""
    chance = random.Random(6)
    heights = [index for index, entry in enumerate(world.entries) if json.loads(entry)["t"] == "seal/1"]
    txs = [index for index, entry in enumerate(world.entries) if "tx" in json.loads(entry)]
    for _ in range(20):
        size = chance.randrange(1, len(world.entries) + 1)
        time_ns = world.times[size - 1]
        utc = format_time(time_ns)
        east, west = (format_time(time_ns + hours * 3600 * 10**9)[:-1] for hours in (2, -5))
        names = [f"size-{size}", utc, utc.lower(), f"{east}+02:00", f"{west}-05:00"]
        if size - 1 in txs:
            names.append(f"tx-{txs.index(size - 1) + 1}")
        if size - 1 in heights:
            names.append(f"block-{heights.index(size - 1) + 1}")
        states = [world / "snapshots" / name for name in names]
        points = [json.loads((state / "point.json").read_bytes()) for state in states]
        assert points == [points[0]] * len(names)
        assert (points[0]["size"], points[0]["time"]) == (size, utc)
        assert points[0]["tx"] == sum(index < size for index in txs)
        assert points[0]["accounts"] == len(os.listdir(states[0] / "accounts"))
        assert len({(state / "accounts/float/balance.json").stat().st_ino for state in states if size > 20}) <= 1
    for date in ("2026-02-10", "2026-02-28", "2026-03-31"):
        end = (world / "snapshots" / date / "point.json").read_bytes()
        assert json.loads(end)["size"] == world.size_at(parse_ns(date) + NS_PER_DAY - 1)
        if date.endswith(("28", "31")):
            assert (world / "snapshots" / date[:7] / "point.json").read_bytes() == end
    newest, blocks = world.newest()
    for name in (f"size-{newest + 1}", "size-0", "size-01", f"block-{blocks + 1}", f"tx-{len(txs) + 1}", "2199-01-01T00:00:00Z",
                 "2199-01", "2199-12-31", "2026-13", "2026-02-30", "1969-12", "2026-02-10T10:00:00", "2026-02-10T25:00:00Z", "x", "é",
                 "2025-12-31", "0000-00", "2026-02-10T10:00:00+24:00", "block-" + "9" * 40, "9999-12-31", "accounts"):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            os.stat(world / "snapshots" / name)
        with pytest.raises(FileNotFoundError):
            os.stat(world / f"accounts/float/snapshots/{name}.json")


def parse_ns(date: str) -> int:
    """Midnight."""
    return past_history.parse_time(date + "T00:00:00Z")


def test_days_and_months_are_listed(world: World) -> None:
    """SEMANTICS 12.2, SEMANTICS 2.5"""
    days = sorted({format_date(time_ns) for time_ns in world.times})
    assert len(days) > 40
    months = sorted({day[:7] for day in days})
    assert names_in(world / "snapshots") == ["effective", *months, *days]
    assert os.listdir(world / "snapshots/effective") == days
    for name in ("float", "n.1"):
        account = world / "accounts" / name
        opened = json.loads((account / "account.json").read_bytes())["opened"][:10]
        example = f"block-{json.loads((account / 'balance.json').read_bytes())['as_of']['seal']}.json"
        listed = [point for point in [*months, *days] if point >= opened[: len(point)]]
        assert names_in(account / "snapshots") == [*(f"{point}.json" for point in listed), example]
        for point in listed:
            state = world / f"snapshots/{point}/accounts/{name}/balance.json"
            assert (account / f"snapshots/{point}.json").read_bytes() == state.read_bytes()


def test_what_a_state_holds(world: World) -> None:
    """Its seal, its directories, and that nothing of it can be changed. SEMANTICS 12.3"""
    directory = world / "snapshots/2026-02-28"
    assert sorted(os.listdir(directory)) == ["accounts", "point.json", "seal.json", "trial-balance.csv"]
    point = json.loads((directory / "point.json").read_bytes())
    seal = (directory / "seal.json").read_bytes()
    assert seal == (world / f"blocks/{point['seal']:08}.json").read_bytes()
    assert json.loads(seal)["index"] >= point["size"] - 1 >= json.loads(seal)["first"]
    same = world / "snapshots/2026-02"
    for name in ("", "accounts", "accounts/a"):
        assert (directory / name).stat().st_ino != (same / name).stat().st_ino, "a directory has one place"
    for name in ("point.json", "trial-balance.csv", "accounts/a/balance.json", "accounts/a/account.json"):
        assert (directory / name).stat().st_ino == (same / name).stat().st_ino
    index = json.loads((directory / "accounts/a/balance.json").read_bytes())["as_of"]["index"]
    assert os.getxattr(directory / "accounts/a/balance.json", "user.ledgerfs.index") == str(index).encode()
    for attempt in (
        lambda: (directory / "point.json").write_text("x"),
        lambda: (directory / "x").touch(),
        lambda: (directory / "x").mkdir(),
        lambda: (directory / "point.json").unlink(),
        lambda: (directory / "accounts").rmdir(),
        lambda: (world / "snapshots/x.json").touch(),
        lambda: os.truncate(directory / "trial-balance.csv", 0),
        lambda: (directory / "point.json").chmod(0o600),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            attempt()


def test_a_state_is_proven(world: World) -> None:
    """SEMANTICS 12.4"""
    root = parse_trusted_root((world / ".ledgerfs/trusted_root.json").read_bytes(), "the mount's")
    for name in ("2026-02-28", "tx-9", "block-2"):
        directory = world / "snapshots" / name
        assert "proof" not in os.listdir(directory)
        proof = tlog_proof.parse((directory / "proof").read_bytes())
        head = root.verify(proof.checkpoint)
        seal = (directory / "seal.json").read_bytes()
        verify_inclusion(proof.index, head.size, leaf_hashes([seal]), proof.hashes, head.root)


def by_date(entries: list[bytes], date: str) -> dict[str, list[int]]:
    """Account → debits and credits of all that is effective by a date, added up from the entries."""
    found: dict[str, list[int]] = {}
    for entry in map(json.loads, entries):
        for posting in entry.get("postings", []) if "tx" in entry else []:
            sums = found.setdefault(posting["account"], [0, 0])
            if entry.get("effective", entry["time"][:10]) <= date:
                sums[posting["side"] == "credit"] += int(posting["amount"].replace(".", ""))
    return found


@pytest.mark.parametrize(
    "date", ["2024-07-01", "2026-01-31", "2026-02-15", "2026-03-10", "2026-04-20", "2199-01-01", "0001-01-01"]
)
def test_balances_by_effective_date(world: World, date: str) -> None:
    """SEMANTICS 12.5"""
    directory = world / "snapshots/effective" / date
    assert os.listdir(directory) == ["accounts", "trial-balance.csv"]
    wanted = by_date(world.entries, date)
    names = os.listdir(directory / "accounts")
    assert names == os.listdir(world / "accounts")
    table = trial_balance(directory)
    for name in names:
        path = directory / f"accounts/{name}/balance.json"
        size = path.stat().st_size
        balance = json.loads(path.read_bytes())
        assert len(path.read_bytes()) == size
        amounts = [int(balance[side].replace(".", "")) for side in ("debits", "credits")]
        assert amounts == wanted.get(name, [0, 0])
        assert (balance["effective"], balance["as_of"]["index"]) == (date, world.newest()[0] - 1)
        assert (table["account", name]["debits"], table["account", name]["credits"]) == (
            balance["debits"],
            balance["credits"],
        )
    assert not (directory / "accounts/nobody/balance.json").exists()
    for name in ("2026-02-30", "2026-02", "x"):
        assert not (world / "snapshots/effective" / name).exists()


def trial_balance(directory: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Its rows, by kind and by account, class and currency; totals are those of their rows, and they are equal."""
    data = (directory / "trial-balance.csv").read_bytes()
    assert len(data) == (directory / "trial-balance.csv").stat().st_size
    assert data.count(b"\r\n") == data.count(b"\n")
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    columns = ("debits", "credits", "debit_balance", "credit_balance")

    def sums(kind: str, currency: str, name: str = "") -> list[int]:
        chosen = [
            row for row in rows if row["kind"] == kind and row["currency"] == currency and name in ("", row["class"])
        ]
        return [sum(int(row[column].replace(".", "")) for row in chosen) for column in columns]

    for row in rows:
        debits, credits, debit_balance, credit_balance = (int(row[column].replace(".", "")) for column in columns)
        if row["kind"] == "account":
            assert (debit_balance, credit_balance) == (max(0, debits - credits), max(0, credits - debits))
        elif row["kind"] == "class":
            assert [debits, credits, debit_balance, credit_balance] == sums("account", row["currency"], row["class"])
        else:
            assert [debits, credits, debit_balance, credit_balance] == sums("class", row["currency"])
            assert (debits, debit_balance) == (credits, credit_balance)
    return {(row["kind"], row["account"] or row["class"] + row["currency"]): row for row in rows}


def test_trial_balances(world: World) -> None:
    """SEMANTICS 12.6"""
    for name in ("2026-02-01", "2026-02", "tx-50", f"size-{len(world.entries)}"):
        directory = world / "snapshots" / name
        size = json.loads((directory / "point.json").read_bytes())["size"]
        table = trial_balance(directory)
        accounts = past_history.twin_at(world.entries, size)
        assert [key for kind, key in table if kind == "account"] == list(accounts)
        for account in accounts.values():
            row = table["account", account.name]
            assert (row["class"], row["currency"]) == (account.account_class, account.currency)
            wanted = [format_signed(amount, account.decimals) for amount in (account.debits, account.credits)]
            assert [row["debits"], row["credits"]] == wanted
        assert {key for kind, key in table if kind == "currency"} == {account.currency for account in accounts.values()}


def test_programs_walk_through_the_past(world: World) -> None:
    """ls, find, grep -r, du, cp, tar and rsync; and a second rsync has nothing to do. SEMANTICS 12.3"""
    shell = world.mounted.shell
    steps = (
        'ls -lR "$M/snapshots/2026-02" "$M/accounts/float/snapshots" > listed',
        'find "$M/snapshots" -type f -not -path "*/digest-*" | wc -l > found',
        'grep -rl cad "$M/snapshots/2026-03" | sort > grepped',
        'du -s "$M/snapshots/2026-03" > /dev/null',
        'cp -r "$M/snapshots/2026-02-28" copied',
        'tar cf - -C "$M/snapshots" 2026-02 2026-03 | tar xf -',
        'rsync -a --itemize-changes --exclude "digest-*" "$M/snapshots/" synced/ > first',
        'rsync -a --itemize-changes --exclude "digest-*" "$M/snapshots/" synced/ > second',
        'diff -r "$M/snapshots/2026-02-28" copied && diff -r 2026-02 copied && diff -r synced/2026-02 copied',
    )
    done = shell("set -e; " + "; ".join(steps))
    assert (done.returncode, done.stderr) == (0, "")
    work = world.mounted.work
    assert int((work / "found").read_text()) == len((work / "first").read_text().split(">f+++")) - 1 > 1000
    # What is by effective date may change, so its times do; here only what was not touched by anybody counts.
    second = [
        line for line in (work / "second").read_text().splitlines() if "effective" not in line and "digest-" not in line
    ]
    assert second == []
    expected = re.findall(
        r"snapshots/2026-03/accounts/cad/\w+\.json|snapshots/2026-03/trial-balance.csv", (work / "grepped").read_text()
    )
    assert len(expected) == len((work / "grepped").read_text().splitlines()) == 3


def test_diff(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Both directions; only what changed; sums are those of the trial balances. SEMANTICS 12.1"""
    rows = [
        json.loads(line)
        for line in ledgerfs(world.mounted, "diff", "2026-02-10", "2026-03-05", "--json").stdout.splitlines()
    ]
    sizes = [world.size_at(parse_ns(date) + NS_PER_DAY - 1) for date in ("2026-02-10", "2026-03-05")]
    old, new = (past_history.twin_at(world.entries, size) for size in sizes)
    found = {row["account"]: row for row in rows}
    for name, account in new.items():
        before = old.get(name)
        if before is not None and shown(before) == shown(account) and before.status == account.status:
            assert name not in found
            continue
        row = found.pop(name)
        assert (row["before"], row["after"]) == (
            shown(before)["balance"] if before else None,
            shown(account)["balance"],
        )
        assert row["debits"] == format_signed(account.debits - (before.debits if before else 0), account.decimals)
        assert row["credits"] == format_signed(account.credits - (before.credits if before else 0), account.decimals)
    assert found == {}
    back = [
        json.loads(line)
        for line in ledgerfs(world.mounted, "diff", "2026-03-05", "2026-02-10", "--json").stdout.splitlines()
    ]
    assert [(row["account"], row["after"], row["before"]) for row in back] == [
        (row["account"], row["before"], row["after"]) for row in rows
    ]
    monkeypatch.setattr(past, "TABLE_SHARE", 0)  # account by account, as among many accounts
    assert main.main(["diff", "2026-02-10", "2026-03-05", "--json", "--mount", str(world.mounted.path)]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    assert ledgerfs(world.mounted, "diff", "tx-1", "tx-1", "--json").stdout == ""
    assert "float" in ledgerfs(world.mounted, "diff", "block-1", "tx-60").stdout
    assert "no point 'soon'" in ledgerfs(world.mounted, "diff", "tx-1", "soon", code=1).stderr


def test_naming_a_state(ledger: Mounted) -> None:
    """By mkdir and by the command; for ever; refused names. SEMANTICS 12.7"""
    named = ledger / "snapshots/before"
    named.mkdir()
    trial = (named / "trial-balance.csv").read_bytes()
    ledger.drop("pay.json", pay("3.00"))
    (made,) = [json.loads(ledgerfs(ledger, "snapshot", "create", "after.pay-1_X", "--json").stdout)]
    assert made["size"] == ledger.status()["entries"]
    assert names_in(ledger / "snapshots") == ["effective", "before", "after.pay-1_X"]
    (ledger / "snapshots/again").mkdir()
    refused = dict.fromkeys(("before", "effective", "block-1", "tx-1"), errno.EEXIST)
    refused |= dict.fromkeys(("block-999", "2026-11", "latest", "digest-7", "2027-01-01T00:00:00Z"), errno.EPERM)
    refused |= dict.fromkeys(("a b", ".x", "é", "-x"), errno.EPERM) | dict.fromkeys(
        ("x" * 65, "x" * 256), errno.ENAMETOOLONG
    )
    for name, number in refused.items():
        with pytest.raises(OSError) as caught:
            (ledger / "snapshots" / name).mkdir()
        assert caught.value.errno == number, name
    for attempt in (named.rmdir, lambda: named.rename(ledger / "snapshots/other")):
        with pytest.raises(OSError, match="not permitted|Read-only|Cross-device"):
            attempt()
    assert (ledger / "snapshots").stat().st_mode & 0o777 == 0o775
    listed = ledgerfs(ledger, "snapshot", "list").stdout
    names = [name for name in re.findall(r"^\S+", listed, re.MULTILINE) if not name.startswith("digest-")]
    assert names == ["NAME", "before", "after.pay-1_X", "again"]
    assert "already" in ledgerfs(ledger, "snapshot", "create", "before", code=1).stderr
    assert "cannot be the name" in ledgerfs(ledger, "snapshot", "create", "a/b", code=1).stderr
    assert "no name" in ledgerfs(ledger, "snapshot", "create", code=1).stderr
    inode = named.stat().st_ino
    ledger.daemon.kill()
    ledger.daemon.start()
    assert (named / "trial-balance.csv").read_bytes() == trial
    assert named.stat().st_ino == inode
    assert names_in(ledger / "snapshots") == ["effective", "before", "after.pay-1_X", "again"]
    rows = ledgerfs(ledger, "diff", "before", "again", "--json").stdout.splitlines()
    assert {row["account"]: row["change"] for row in map(json.loads, rows)} == {"acc_001": "-3.00", "acc_002": "3.00"}
    assert json.loads((ledger / "accounts/acc_001/snapshots/before.json").read_bytes())["balance"] == "100000.00"


def test_a_back_dated_transaction_changes_what_is_by_effective_date(ledger: Mounted) -> None:
    """At once, also for who has it open anew; and no more once the period is closed. SEMANTICS 12.5"""
    path = ledger / "snapshots/effective/2026-01-31/accounts/acc_002/balance.json"
    ledger.drop("late.json", pay("2.00", effective="2026-01-31"))
    assert json.loads(path.read_bytes())["balance"] == "2.00"
    with path.open() as held:
        ledger.drop("later.json", pay("0.50", effective="2026-01-01"))
        assert json.loads(path.read_bytes())["balance"] == "2.50"
        assert json.loads(held.read())["balance"] == "2.00"
    ledger.drop("close.json", {"type": "close_period", "through": "2026-01-31"})
    with pytest.raises(OSError):
        ledger.drop("too-late.json", pay("9.00", effective="2026-01-31"))
    ledger.drop("next.json", pay("4.00", effective="2026-02-01"))
    assert json.loads(path.read_bytes())["balance"] == "2.50"
    account = trial_balance(ledger / "snapshots/effective/2026-02-01")["account", "acc_002"]
    assert account["credits"] == "6.50"


def test_names_that_are_not_what_was_written(store: Path, daemons: Callable[..., Daemon]) -> None:
    """A torn line is of a name that was never given; others are reported and left. SEMANTICS 12.7"""
    daemon = daemons(store).start()
    (daemon.path / "snapshots/kept").mkdir()
    subprocess.run(["fusermount3", "-u", daemon.path], check=True)
    assert daemon.process is not None
    assert daemon.process.wait(READY_SECONDS) == 0
    path = store / "snapshots.ndjson"
    whole = path.read_bytes()
    line = json.loads(checked.unseal(whole.rstrip()))
    wrong = [
        line | {"name": "moved", "leaf": "00" * 32},
        line | {"name": "ahead", "size": 10**6},
        line,
        line | {"name": "a b"},
    ]
    damaged = (
        whole + b"".join(checked.seal(json.dumps(each).encode()) for each in wrong) + b"not JSON\n" + b'{"leaf":"torn'
    )
    path.write_bytes(damaged)
    again = daemons(store).start()
    assert names_in(again.path / "snapshots") == ["effective", "kept"]
    health = (again.path / ".ledgerfs/health").read_text()
    for text in ("line 2: moved is of another history", "line 3: ahead", "line 4", "line 5", "line 6"):
        assert text in health
    (again.path / "snapshots/new").mkdir()
    assert path.read_bytes().startswith(damaged.removesuffix(b'{"leaf":"torn'))
    assert b"torn" not in path.read_bytes()
    assert json.loads(path.read_bytes().splitlines()[-1])["name"] == "new"
