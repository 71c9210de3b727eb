"""The past of a million transactions: by files, by the raw log added up, and by the running balance of ``tx.log`` (SEMANTICS 12.1)."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledgerfsd.clock import NS_PER_DAY, NS_PER_SECOND, format_time, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal.layout import create
from ledgerfsd.types import Mode
from tests.conftest import LEDGER, REPOSITORY, Daemon
from tests.fuse.conftest import Mounted
from tests.fuse.feeding import memory_kib
from tests.fuse.raw_log import Account, RawLog, State

pytestmark = pytest.mark.slow

TRANSACTIONS = 1_000_000
OTHERS = 5_000  # accounts that nobody asks for
ASKED = 50
PIECE = 500  # intents that are sent at one time
DAYS = 60
BEGIN_NS = parse_time("2026-01-29T00:00:00Z")
UNITS = {"EUR": 2, "JPY": 0, "BHD": 3}
TIMES = 100
PREFIX = "ask_"
HOT = PREFIX + "hot"  # one of the asked accounts has a large part of all postings
HOT_SHARE = 0.3
MEMORY_KIB = 48 * 1024  # what the daemon may take more for all that is listed and read


class Feeder:
    """Intents over months: transfers, and with the asked accounts everything that changes what they have."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.made = 0
        self.holds: list[str] = []
        self.units = [*("EUR",) * (ASKED - 6), *("JPY",) * 3, *("BHD",) * 3]
        self.asked = [f"{PREFIX}{number:02}" for number in range(ASKED)]
        self.euros = [f"acc_{number:04}" for number in range(OTHERS)] + self.asked[: self.units.index("JPY")]

    def openings(self, names: list[str]) -> bytes:
        units = dict(zip(self.asked, self.units, strict=True))
        text = '{"type":"open_account","account":"%s","currency":"%s","class":"clearing"}\n'
        return "".join(text % (name, units.get(name, "EUR")) for name in names).encode()

    def amount(self, unit: str) -> str:
        minor, decimals = self.chance.randrange(1, 10**6), UNITS[unit]
        return f"{minor // 10**decimals}.{minor % 10**decimals:0{decimals}}" if decimals else str(minor)

    def payments(self, count: int) -> list[str]:
        chance, names = self.chance, self.euros
        lines = []
        for _ in range(count):
            one, other = chance.sample(names, 2)
            if chance.random() < HOT_SHARE:
                other = HOT
            cents = chance.randrange(1, 10**6)
            lines.append(f'{{"debit":"{one}","credit":"{other}","amount":"{cents // 100}.{cents % 100:02}"')
        return lines

    def special(self, now_ns: int) -> list[str]:
        """Holds and what becomes of them, freezes, other currencies, several postings."""
        chance, asked = self.chance, self.asked
        lines = []
        for _ in range(6):
            one, other = chance.sample(range(self.units.index("JPY")), 2)
            name = f"h{self.made}-{len(lines)}"
            expires = format_time(now_ns + chance.randrange(DAYS * NS_PER_DAY))
            lines.append(
                f'{{"type":"hold","id":"{name}","debit":"{asked[one]}","credit":"{asked[other]}","amount":"9.00","expires":"{expires}"'
            )
            self.holds.append(name)
        for _ in range(4):
            hold = self.holds.pop(chance.randrange(len(self.holds)))
            part = ("", ',"amount":"4.50"')[chance.randrange(2)]
            what = f'"void","hold":"{hold}"' if chance.random() < 0.5 else f'"post","hold":"{hold}"{part}'
            lines.append(f'{{"type":{what}')
        for unit in ("JPY", "BHD"):
            one, other = chance.sample([name for name, each in zip(asked, self.units, strict=True) if each == unit], 2)
            amount = self.amount(unit)
            lines.append(f'{{"debit":"{one}","credit":"{other}","amount":"{amount}"')
        lines.append(f'{{"type":"{chance.choice(("freeze", "unfreeze"))}","account":"{asked[chance.randrange(3)]}"')
        twice = asked[chance.randrange(3, 30)]
        pairs = [(twice, "debit", "3.00"), (twice, "credit", "1.00"), (self.euros[0], "credit", "2.00")]
        postings = [{"account": name, "side": side, "amount": amount} for name, side, amount in pairs]
        return [*lines, f'{{"type":"transaction","postings":{json.dumps(postings)}']

    def piece(self, now_ns: int) -> bytes:
        special = self.special(now_ns)
        lines = self.payments(PIECE - len(special)) + special
        self.made += 1
        return "".join(
            line + (f',"id":"{self.made}-{at}"}}\n' if '"id"' not in line else "}\n") for at, line in enumerate(lines)
        ).encode()


def fill(store: Path) -> None:
    """A million transactions, the last two days of which have none."""
    feeder = Feeder(7)
    now = BEGIN_NS + NS_PER_DAY
    engine = Engine(store, accounts_max=2 * OTHERS)
    engine.start()
    late = feeder.asked[-12:-6]
    early = [name for name in [*feeder.euros, *feeder.asked[-6:], HOT] if name not in late]
    engine.submit(feeder.openings(early), source=b"open", first_line=1, mode=Mode.EACH, now_ns=now)
    pieces = TRANSACTIONS * 103 // 100 // PIECE  # some are refused, and holds are no transactions
    for number in range(pieces):
        now += feeder.chance.randrange(2 * (DAYS - 2) * NS_PER_DAY // pieces)
        if number == pieces // 2:
            engine.submit(feeder.openings(late), source=b"late", first_line=1, mode=Mode.EACH, now_ns=now)
        engine.submit(feeder.piece(now), source=b"%d" % number, first_line=1, mode=Mode.EACH, now_ns=now)
        if number % 50 == 0:
            engine.drain()
    engine.drain()
    assert engine.counts().transactions >= TRANSACTIONS
    engine.close()


class World(NamedTuple):
    """The mount, and what its raw log comes to."""

    mounted: Mounted
    log: RawLog
    times: list[str]  # at which is asked


@pytest.fixture(scope="module")
def world(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("million")
    layout = create(place / "store", LEDGER, now_ns=BEGIN_NS)
    fill(layout.root)
    log = RawLog(layout.root / "journal", PREFIX)
    daemon = Daemon(layout.root, place / "mount").start()
    (place / "work").mkdir()
    try:
        yield World(Mounted(daemon.path, place / "work", daemon), log, chosen(log))
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()


def chosen(log: RawLog) -> list[str]:
    """Times at random; those of entries, and a nanosecond beside them; before everything, and after it."""
    chance = random.Random(11)
    first, last = parse_time(log.first), parse_time(log.last)
    booked = [time for account in log.accounts.values() for time in account.times]
    exact = [parse_time(time) for time in chance.sample(booked, TIMES // 4)]
    found = [*exact, *(time - 1 for time in exact[:15]), *(time + 1 for time in exact[-10:])]
    found += [first, last, last + 1, last - 1, last + NS_PER_SECOND, last + NS_PER_DAY]
    found += [chance.randrange(first, last) for _ in range(TIMES - len(found))]
    return [format_time(time_ns) for time_ns in found]


def written(minor: int, unit: str) -> str:
    """An amount as the ledger writes it."""
    digits, decimals = f"{abs(minor):0{UNITS[unit] + 1}}", UNITS[unit]
    text = f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
    return f"-{text}" if minor < 0 else text


def expected(log: RawLog, account: Account, state: State) -> dict[str, Any]:
    """What ``balance.json`` must say."""
    debit = account.normal == "debit"
    balance = state.debits - state.credits if debit else state.credits - state.debits
    held = state.held_credits if debit else state.held_debits
    amounts = {"balance": balance, "available": balance - held, "held": held}
    amounts |= {"debits": state.debits, "credits": state.credits}
    tx = f"tx_{state.tx:04}" if state.tx else None
    as_of = {"index": state.index, "tx": tx, "seal": log.seal_of(state.index), "time": state.time}
    texts = {name: written(minor, account.currency) for name, minor in amounts.items()}
    return {"account": account.name, "currency": account.currency, **texts, "as_of": as_of}


def test_the_log_is_what_it_should_be(world: World) -> None:
    """A million transactions; the asked accounts meet everything that changes a balance. SEMANTICS 12.1"""
    log = world.log
    assert world.mounted.transactions() >= TRANSACTIONS
    assert len(log.accounts) == ASKED + 1
    assert len(log.accounts[HOT].states) > 0.9 * HOT_SHARE * TRANSACTIONS
    assert len(world.times) == len(set(world.times)) == TIMES
    states = [state for account in log.accounts.values() for state in account.states]
    assert len(states) > 200 * ASKED
    assert sum(bool(state.held_debits or state.held_credits) for state in states) > 10 * ASKED
    assert {state.status for state in states} == {"open", "frozen"}
    assert {account.currency for account in log.accounts.values()} == set(UNITS)
    opened = [account.times[0] for account in log.accounts.values()]
    assert sum(time > world.times[0] for time in opened) != len(opened)


def test_the_past_of_a_million_is_the_raw_log_added_up(world: World) -> None:
    """``balance.json`` at every time of every account asked; those not opened yet are not there. SEMANTICS 12.1"""
    log, compared = world.log, 0
    for time in world.times:
        directory = world.mounted / "snapshots" / time
        for account in log.accounts.values():
            path = directory / "accounts" / account.name / "balance.json"
            state = account.at(time)
            if state is None:
                assert not path.exists()
                assert not (world.mounted / f"accounts/{account.name}/snapshots/{time}.json").exists()
                continue
            assert json.loads(path.read_bytes()) == expected(log, account, state), time
            compared += 1
    assert compared > TIMES * ASKED // 2
    before = format_time(parse_time(log.first) - 1)
    for time in (before, "2019-12-31T23:59:59Z", format_time(parse_time(log.last) + 100 * 365 * NS_PER_DAY)):
        assert not (world.mounted / "snapshots" / time).exists()


def test_times_in_other_words_are_the_same(world: World) -> None:
    """Offsets, and the account's own ``snapshots/``. SEMANTICS 12.1, SEMANTICS 2.5"""
    for time in world.times[::10]:
        moment = datetime.fromisoformat(time[:26]).replace(tzinfo=UTC)
        east = moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()[:19] + time[19:29] + "+05:30"
        for account in list(world.log.accounts.values())[::7]:
            state = account.at(time)
            for path in (
                f"snapshots/{east}/accounts/{account.name}/balance.json",
                f"accounts/{account.name}/snapshots/{time}.json",
            ):
                assert (world.mounted / path).exists() == (state is not None)
                if state is not None:
                    assert json.loads((world.mounted / path).read_bytes()) == expected(world.log, account, state)


def running(lines: list[bytes], name: str, decimals: int) -> Iterator[tuple[str, int, list[str]]]:
    """What each line of ``tx.log`` says: its time and index; and the newest totals and holds that it or a line before it states."""
    zero = written(0, next(unit for unit, places in UNITS.items() if places == decimals))
    stated = dict.fromkeys(("debits", "credits", "held_debits", "held_credits"), zero)
    for entry in map(json.loads, lines):
        for posting in entry.get("postings", ()):
            if posting["account"] == name:
                stated |= {member: posting[member] for member in stated if member in posting}
        yield entry["time"], entry["index"], list(stated.values())


def test_running_balances_say_the_same(world: World) -> None:
    """The totals that the newest line of ``tx.log`` and the newest row of ``statement.csv`` state. SEMANTICS 12.1"""
    for account in world.log.accounts.values():
        folder, unit = world.mounted / f"accounts/{account.name}", account.currency
        rows = list(running((folder / "tx.log").read_bytes().splitlines(), account.name, UNITS[unit]))
        times = [time for time, _, _ in rows]
        table = list(csv.DictReader(io.StringIO((folder / "statement.csv").read_text(), newline="")))
        indexes = [int(row["index"]) for row in table]
        for time in world.times:
            state = account.at(time)
            place = bisect_right(times, time)
            assert (state is None) == (place == 0)
            if state is None:
                continue
            amounts = (state.debits, state.credits, state.held_debits, state.held_credits)
            assert rows[place - 1][1:] == (state.index, [written(minor, unit) for minor in amounts])
            booked = bisect_right(indexes, state.index)
            balance = table[booked - 1]["balance"] if booked else written(0, unit)
            assert balance == expected(world.log, account, state)["balance"]


def test_what_is_long_is_listed_and_read_in_bounded_memory(world: World) -> None:
    """A million names, and an account with 300,000 postings, by the programs that people use. SEMANTICS 2.3, SEMANTICS 13.5"""
    mounted = world.mounted
    transactions, postings = mounted.transactions(), len(world.log.accounts[HOT].states)
    chance, before = random.Random(3), memory_kib(mounted)
    names = " ".join(f"$M/transactions/tx_{chance.randrange(1, transactions + 1):04}.json" for _ in range(50))
    hot = f"$M/accounts/{HOT}"
    steps = (
        ("ls -U $M/transactions | head -n 3", "tx_0001.json\ntx_0002.json\ntx_0003.json\n"),
        ("ls -U $M/transactions | wc -l", f"{transactions}\n"),
        ("ls $M/transactions | head -n 1", "tx_0001.json\n"),
        ("find $M/transactions -name '*7.json' | head -n 2 | wc -l", "2\n"),
        (f"cat {names} | wc -l", "0\n"),
        ("ls -U $M/accounts | wc -l", f"{len(os.listdir(mounted / 'accounts'))}\n"),
        (f"wc -l < {hot}/tx.log", f"{postings}\n"),
        (f"tail -n 5 {hot}/tx.log | wc -l", "5\n"),
        (f"tail -c 1 {hot}/tx.log | wc -l", "1\n"),
        (f"grep -c nothing-like-this {hot}/tx.log", "0\n"),
        (f"wc -c < {hot}/tx.log", f"{(mounted / f'accounts/{HOT}/tx.log').stat().st_size}\n"),
        (f"ls {hot}/history | wc -l", "3\n"),
        (f"cat {hot}/history/* | cmp - {hot}/tx.log && echo same", "same\n"),
        (f'grep -rc \'"t":"txn/1"\' {hot}/history | wc -l', "3\n"),
        (f"tar cf - -C {hot} history | tar tf - | wc -l", "4\n"),
        (f"rsync -ai {hot}/history months/ | grep -c '>f'", "3\n"),
        (f"rsync -ai {hot}/history months/ | grep -c '>f'", "0\n"),
    )
    for command, answer in steps:
        assert mounted.shell(command).stdout == answer, command
    grown = memory_kib(mounted) - before
    assert grown < MEMORY_KIB


def test_replay_says_the_same(world: World) -> None:
    """``ledgerfs replay --until`` reads the same log by the mount. SEMANTICS 12.1"""
    names = list(world.log.accounts)[:20]
    for time in (world.times[-1],):
        command = [sys.executable, "-m", "ledgerfsd.cli.main", "replay", "--json", "--until", time]
        done = subprocess.run(
            [*command, "--mount", world.mounted.path, *names],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        rows = {row["account"]: row for row in map(json.loads, done.stdout.splitlines())}
        states = {name: world.log.accounts[name].at(time) for name in names}
        assert rows == {
            name: expected(world.log, world.log.accounts[name], state) for name, state in states.items() if state
        }
