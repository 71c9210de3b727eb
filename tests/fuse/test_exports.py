"""exports/: what hledger, ledger and beancount say of it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.clock import NS_PER_DAY, format_time, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal.layout import create
from ledgerfsd.types import Mode
from tests.conftest import LEDGER, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, pay
from tests.model.intents import AMOUNTS, OPENINGS, Source

BEGIN = "2026-01-29T00:00:00Z"
DAYS = 70
BEAN_CHECK = Path(sys.executable).with_name("bean-check")
TIMEOUT = 60


class Smaller(Source):
    """Amounts of at most 28 digits: beancount computes with no more."""

    def _amount(self) -> str:
        return self.random.choice(AMOUNTS[:5])


def history(store: Path, seed: int) -> None:
    """Some hundred random files over two and a half months, with every feature."""
    source = Smaller("x")
    source.random.seed(seed)
    now = parse_time(BEGIN)
    engine = Engine(store, segment_bytes=SEGMENT_BYTES, accounts_max=4096)
    engine.start()
    names = [(json.dumps(intent).encode(), b"accounts", Mode.DOCUMENT) for intent in OPENINGS]
    for _ in range(400):
        sent = source.submission()
        names += [(text, sent.name.encode(), mode) for text, _, mode in sent.units() if not sent.dry_run]
    for content, name, mode in names:
        now += source.random.randrange(2 * DAYS * NS_PER_DAY // len(names))
        engine.submit(content, source=name, first_line=1, mode=mode, now_ns=now)
    engine.drain()
    assert engine.counts().transactions > 150
    assert format_time(engine.counts().time_ns)[:7] > "2026-02"
    engine.close()


@pytest.fixture(scope="module", params=(1, 2))
def past(fuse: None, request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A ledger whose entries lie in several months, mounted."""
    place = tmp_path_factory.mktemp("exports")
    root = create(place / "store", LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=parse_time(BEGIN)).root
    history(root, request.param)
    daemon = Daemon(root, place / "mount").start()
    (place / "work").mkdir()
    try:
        yield Mounted(daemon.path, place / "work", daemon)
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def hledger(path: Path) -> subprocess.CompletedProcess[str]:
    return run("hledger", "check", "--strict", "-f", path)


def ledger_cli(path: Path) -> subprocess.CompletedProcess[str]:
    return run("ledger", "--strict", "--init-file", "/dev/null", "-f", path, "balance", "--flat")


def bean_check(path: Path) -> subprocess.CompletedProcess[str]:
    return run(BEAN_CHECK, "--no-cache", path)


def accepted(path: Path) -> None:
    """By every program that reads it, without a word of complaint."""
    for check in (bean_check,) if path.suffix == ".beancount" else (hledger, ledger_cli):
        done = check(path)
        assert (done.returncode, done.stderr) == (0, ""), f"{path}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def balances(mounted: Mounted) -> dict[str, str]:
    """Debits less credits of each account, as balance.json has it."""
    found = {}
    for path in (mounted / "accounts").iterdir():
        shown = json.loads((path / "balance.json").read_text())
        less = int(shown["debits"].replace(".", "")) - int(shown["credits"].replace(".", ""))
        found[path.name] = f"{less} {shown['currency']}"
    return found


def digits(amount: str) -> int:
    return int(amount.replace(".", "").replace(",", ""))


def test_each_program_accepts_the_whole_and_every_month(past: Mounted) -> None:
    """SEMANTICS 15.1, 15.2"""
    names = sorted(path.name for path in (past / "exports").iterdir())
    assert {"ledger.journal", "ledger.beancount", "2026-01.journal", "2026-02.beancount", "2026-03.journal"} <= set(
        names
    )
    assert len(names) % 2 == 0
    for name in names:
        accepted(past / "exports" / name)


def test_each_program_gets_the_balances_of_the_mount(past: Mounted) -> None:
    """SEMANTICS 15.1"""
    expected = balances(past)
    assert len(expected) > 8
    shown = run("hledger", "balance", "--flat", "-E", "-N", "-O", "csv", "-f", past / "exports/ledger.journal").stdout
    rows = [line.split(",", 1) for line in shown.splitlines()[1:]]
    found = {name.strip('"').split(":", 2)[2]: amount.strip('"') for name, amount in rows}
    assert {
        name: f"{digits(amount.split()[-1])} {amount.split()[0]}" for name, amount in found.items() if amount != "0"
    } == {name: amount for name, amount in expected.items() if not amount.startswith("0 ")}
    shown = run(
        *(
            "ledger",
            "--init-file",
            "/dev/null",
            "-f",
            past / "exports/ledger.journal",
            "balance",
            "--flat",
            "--no-total",
        ),
        *("--empty", "--balance-format", "%(account)\t%(total)\n"),
    ).stdout
    found = dict(line.split("\t") for line in shown.splitlines() if "\t" in line)
    assert {
        name.split(":", 2)[2]: f"{digits(amount.split()[1])} {amount.split()[0]}"
        for name, amount in found.items()
        if amount not in ("", "0")
    } == {name: amount for name, amount in expected.items() if not amount.startswith("0 ")}


def test_beancount_gets_the_balances_of_the_mount(past: Mounted) -> None:
    """SEMANTICS 15.1"""
    script = (
        "import sys; from beancount import loader; from beancount.core import realization, data\n"
        "entries, errors, options = loader.load_file(sys.argv[1]); assert not errors, errors\n"
        "names = {e.account: e.meta['name'] for e in entries if isinstance(e, data.Open)}\n"
        "for account in realization.iter_children(realization.realize(entries)):\n"
        "    for position in account.balance:\n"
        "        print(names[account.account], format(position.units.number, 'f'), position.units.currency)\n"
    )
    done = run(sys.executable, "-W", "ignore", "-c", script, past / "exports/ledger.beancount")
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        name, amount, currency = line.split()
        found[name] = f"{digits(amount)} {currency}"
    assert found == {name: amount for name, amount in balances(past).items() if not amount.startswith("0 ")}


@pytest.mark.parametrize("form", ["journal", "beancount"])
def test_a_cent_more_on_both_sides_is_noticed_by_each(past: Mounted, form: str) -> None:
    """SEMANTICS 15.3: the sums are still right, the balances are not."""
    text = (past / f"exports/ledger.{form}").read_text()
    # A transaction of two postings of euros in the middle of the file.
    amount = r"(-?)(\d+)\.(\d\d)"
    two = (
        rf"\n  \w+:\S+  EUR {amount} = .*\n  \w+:\S+  EUR {amount} = .*\n\n"
        if form == "journal"
        else (rf"\n  \w+:\S+  {amount} EUR\n  \w+:\S+  {amount} EUR\n\n")
    )
    places = list(re.finditer(two, text))
    assert len(places) > 20
    for place in (places[0], places[len(places) // 2], places[-1]):
        changed = place[0]
        for sign, units, cents in (place.groups()[:3], place.groups()[3:]):
            minor = int(units + cents) + 1
            was = f"{sign}{units}.{cents}"
            now = f"{sign}{minor // 100}.{minor % 100:02}"
            changed = (
                changed.replace(f"EUR {was} =", f"EUR {now} =", 1)
                if form == "journal"
                else changed.replace(f"  {was} EUR", f"  {now} EUR", 1)
            )
        assert changed != place[0]
        path = past.work / f"changed.{form}"
        path.write_text(text[: place.start()] + changed + text[place.end() :])
        for check in (bean_check,) if form == "beancount" else (hledger, ledger_cli):
            done = check(path)
            assert done.returncode != 0, f"{check.__name__} did not notice {changed!r}"


def test_sizes_are_exact_and_months_that_are_over_do_not_change(past: Mounted) -> None:
    """SEMANTICS 15.4"""
    exports = past / "exports"
    before = {path.name: path.stat() for path in exports.iterdir()}
    for name, stat in before.items():
        assert len((exports / name).read_bytes()) == stat.st_size
    assert (exports / "2026-02.journal").stat().st_mtime_ns < parse_time("2026-03-01T00:00:00Z")
    copied = past.shell('rsync -a "$M/exports/" copy/ && touch -d 2020-01-01 copy && rsync -ai "$M/exports/" copy/')
    assert copied.returncode == 0, copied.stderr
    assert "2026-0" not in copied.stdout


def test_it_goes_on_with_every_commit(ledger: Mounted) -> None:
    """SEMANTICS 15.4"""
    path = ledger / "exports/ledger.journal"
    before = path.read_text()
    with path.open() as opened:
        assert opened.read(len(before)) == before
        ledger.drop("x.json", pay("12.34", reference="a; b | c"))
        assert opened.read() == "", "what was opened is as it was then"
    after = path.read_text()
    assert after.startswith(before)
    assert "(tx_0002) a, b / c" in after[len(before) :]
    leaf = re.search(r"leaf ([0-9a-f]{64})", after[len(before) :])
    assert leaf is not None
    shown = ledger.shell("(printf '\\0'; cat \"$M/transactions/tx_0002.json\") | sha256sum")
    assert shown.stdout.split()[0] == leaf[1]
    accepted(path)
    accepted(ledger / "exports/ledger.beancount")


def test_odd_names_and_units_are_accepted(ledger: Mounted) -> None:
    """SEMANTICS 15.1: what LedgerFS allows in a name or a unit, these programs have to take."""
    ledger.drop("u.json", {"type": "register_currency", "currency": "X1Y", "decimals": 18})
    names = ["0", "a:b", "a", "a::b", "b:", "x-y.z_", "EUR", "a:::", "A" * 64]
    opened = [{"type": "open_account", "account": name, "currency": "X1Y", "class": "clearing"} for name in names]
    ledger.drop("o.json", opened)
    moved = [
        {"debit": one, "credit": other, "amount": "1.000000000000000001", "reference": f'"{one}" [2026-13-01] x:: y \\'}
        for one, other in itertools.pairwise(names)
    ]
    ledger.drop("m.json", moved)
    for form in ("journal", "beancount"):
        accepted(ledger / f"exports/ledger.{form}")
        text = (ledger / f"exports/ledger.{form}").read_text()
        assert text.count("1.000000000000000001") >= 2 * len(moved)


def test_names_that_are_not_there(ledger: Mounted) -> None:
    """SEMANTICS 15.2"""
    for name in ("2020-01.journal", "2026-13.journal", "ledger.csv", "ledger", "2026-1.journal"):
        assert not (ledger / "exports" / name).exists()
    with pytest.raises(OSError, match="Read-only"):
        (ledger / "exports/ledger.journal").write_text("x")


def shown(daemon: Daemon) -> dict[str, bytes]:
    """Every export."""
    return {path.name: path.read_bytes() for path in (daemon.path / "exports").iterdir()}


def kept(root: Path) -> dict[str, int]:
    """The files in the store, by inode number: those made anew have another."""
    return {path.name: path.stat().st_ino for path in (root / "exports").iterdir()}


@pytest.fixture
def long(daemons: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    """Of several months, not started yet."""
    root = create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=parse_time(BEGIN)).root
    history(root, 3)
    return daemons(root)


def test_a_restart_goes_on_from_what_was_written(long: Daemon, tmp_path: Path) -> None:
    """The same text, in the same files, and then what is new; also after kill -9, when the mark is older than the text. SEMANTICS 15.4"""
    first = shown(long.start())
    assert long.stop() == 0
    files = kept(long.store)
    assert sorted(files) == sorted(
        f"{form}.{part}" for form in ("journal", "beancount") for part in ("mark", "body", "openings")
    )
    assert shown(long.start()) == first
    mounted = Mounted(long.path, tmp_path, long)
    mounted.drop(
        "new.ndjson",
        "".join(json.dumps(pay(debit="float", credit="e", id=f"n{number}")) + "\n" for number in range(300)),
    )
    before = shown(long)
    assert before != first
    long.kill()
    assert shown(long.start()) == before
    assert long.stop() == 0
    for name in ("journal.body", "beancount.body", "journal.openings"):
        assert kept(long.store)[name] == files[name], "it was made anew"
    for path in (tmp_path / "store" / "exports").iterdir():
        path.unlink()
    assert shown(long.start()) == before
    for form in ("journal", "beancount"):
        accepted(long.path / f"exports/ledger.{form}")
    assert "written anew" not in long.log.read_text()


@pytest.mark.parametrize("part", ["mark", "body", "openings"])
def test_text_that_was_changed_is_written_anew(long: Daemon, part: str) -> None:
    """One byte, or what is cut off, of any of the files. SEMANTICS 15.4"""
    first = shown(long.start())
    for damage in (
        lambda data: data[:-2],
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: data[:1],
    ):
        assert long.stop() == 0
        path = long.store / f"exports/journal.{part}"
        path.write_bytes(damage(path.read_bytes()))
        long.log.write_text("")
        assert shown(long.start()) == first
        assert long.log.read_text().count("an export is written anew") == 1


def test_text_of_another_history_is_written_anew(long: Daemon, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """That of a store that has gone on differently, or of one that had more. SEMANTICS 15.4"""
    first = shown(long.start())
    assert long.stop() == 0
    other = create(tmp_path / "other", LEDGER, segment_bytes=SEGMENT_BYTES, now_ns=parse_time(BEGIN)).root
    shutil.copytree(long.store / "exports", other / "exports")
    daemon = daemons(other).start()
    assert b"(tx_0001)" not in shown(daemon)["ledger.journal"]
    assert daemon.log.read_text().count("an export is written anew") == 2
    assert b"(tx_0001)" in first["ledger.journal"]
