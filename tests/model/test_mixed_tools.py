"""The tools that people have, on a ledger that two writers change meanwhile."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.journal.layout import create
from tests.conftest import LEDGER, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, lines, pay, until

BUSY = ("busy.1", "busy.2")
QUIET = tuple(f"quiet.{number}" for number in range(8))
PAUSE_SECONDS = 0.01  # of a writer, between two payments
TAIL_SECONDS = 2  # GNU tail looks once a second where no inotify tells it
NEVER_SECONDS = 86_400


class Writers:
    """Two threads that pay from one busy account to the other until the end of the ``with`` block."""

    def __init__(self, ledger: Mounted) -> None:
        self.ledger = ledger
        self.times: list[float] = []  # when each payment had been acknowledged
        self._run = next(_runs)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._pay, args=(pair,)) for pair in (BUSY, BUSY[::-1])]

    def _pay(self, pair: tuple[str, str]) -> None:
        for number in itertools.count():
            self.ledger.drop(f"{pair[0]}-{self._run}-{number}.json", pay("0.01", debit=pair[0], credit=pair[1]))
            self.times.append(time.monotonic())
            if self._stop.wait(PAUSE_SECONDS):
                return

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def go_on(self) -> None:
        """Until more payments have been made."""
        before = len(self.times)
        until(lambda: len(self.times) >= before + 2 * len(self._threads))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


_runs = itertools.count()


@pytest.fixture(scope="module")
def ledger(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount with two busy accounts and some that rest."""
    place = tmp_path_factory.mktemp("tools")
    # Each digest is a new name in every account's snapshots/ (SEMANTICS 12.2); here none falls due, so that accounts rest.
    (place / "settings.toml").write_text(f"anchor_seconds = {NEVER_SECONDS}\n")
    store = create(place / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
    daemon = Daemon(store, place / "mount", ["--config", str(place / "settings.toml")]).start()
    try:
        (place / "work").mkdir()
        ledger = Mounted(daemon.path, place / "work", daemon)
        opening = {
            "type": "open_account",
            "class": "customer_liability",
            "currency": "EUR",
            "initial_balance": "500.00",
        }
        ledger.drop("open.ndjson", lines([opening | {"account": name} for name in (*BUSY, *QUIET)]))
        ledger.drop("pay.ndjson", lines([pay("0.01", debit=a, credit=b) for a in QUIET for b in BUSY] * 20))
        yield ledger
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()


def collect(stream: io.TextIOWrapper, seen: list[tuple[float, str]]) -> None:
    seen.extend((time.monotonic(), line) for line in stream)


def test_tail_follows(ledger: Mounted) -> None:
    """Each line within two seconds, none twice, none lost."""
    log = ledger / "accounts/busy.1/tx.log"
    there = log.read_text().count("\n")
    seen: list[tuple[float, str]] = []
    tail = subprocess.Popen(
        ["tail", "-f", "-n", "+1", log], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert isinstance(tail.stdout, io.TextIOWrapper)
    reader = threading.Thread(target=collect, args=(tail.stdout, seen))
    reader.start()
    try:
        until(lambda: len(seen) >= there)
        with Writers(ledger) as writers:
            time.sleep(5)
        until(lambda: len(seen) >= there + len(writers.times))
        time.sleep(TAIL_SECONDS)  # for lines that come twice
    finally:
        tail.kill()
        tail.wait()
        reader.join()
        tail.stdout.close()
    assert "".join(line for _, line in seen) == log.read_text()
    # The lines stand in the order of commitment, the times in that of the acknowledgements: the n-th of both belong together
    # but for the two threads, which are at most one payment apart.
    late = [shown - told for (shown, _), told in zip(seen[there:], sorted(writers.times), strict=True)]
    assert max(late) < TAIL_SECONDS, max(late)


def test_grep(ledger: Mounted) -> None:
    """Every line of every log, whole."""
    with Writers(ledger):
        for _ in range(3):
            done = ledger.shell('grep -rh --include=tx.log \'"t":"txn/1"\' $M/accounts')
            assert done.returncode == 0, done
            assert done.stderr == ""  # "binary file matches" would be a page of zeros
            entries = [json.loads(line) for line in done.stdout.splitlines()]
            assert {entry["t"] for entry in entries} == {"txn/1"}
            assert len({entry["tx"] for entry in entries}) >= len(QUIET) * len(BUSY) * 20
            found = ledger.shell("grep -rl '\"available\":' $M/accounts | sort").stdout.splitlines()
            assert f"{ledger.path}/accounts/quiet.0/balance.json" in found


def test_tar(ledger: Mounted, tmp_path: Path) -> None:
    """An archive of what changes has complete files; of what never changes, all of them without a complaint."""
    with Writers(ledger):
        done = ledger.shell("tar cf all.tar -C $M accounts transactions")
    # tar says so of what grew while it read it; nothing else may be wrong.
    assert done.returncode in (0, 1), done
    assert all(line.endswith("file changed as we read it") for line in done.stderr.splitlines()), done.stderr
    with tarfile.open(ledger.work / "all.tar") as archive:
        members = {member.name: member for member in archive.getmembers()}
        for name, member in members.items():
            file = archive.extractfile(member)
            if file is None:
                continue
            text = file.read()
            if name.startswith("transactions/"):
                assert text == (ledger / name).read_bytes()
            elif name.endswith("tx.log"):
                assert text.endswith(b"\n") and [json.loads(line) for line in text.splitlines()]
                assert (ledger / name).read_bytes().startswith(text)
            elif name.endswith(".json"):
                json.loads(text)
    assert {f"transactions/{name}" for name in os.listdir(ledger / "transactions")[:300]} <= set(members)


def test_rsync_again_transfers_nothing_that_rests(ledger: Mounted) -> None:
    # By itself rsync compares times in whole seconds, and files that change in place keep their size.
    first = "rsync -a --modify-window=-1 $M/accounts/ copy"
    second = "rsync -a --modify-window=-1 --itemize-changes $M/accounts/ copy"
    with Writers(ledger) as writers:
        assert ledger.shell(first).returncode == 0
        writers.go_on()
        done = ledger.shell(second)
    assert done.returncode == 0, done
    touched = {line.split(maxsplit=1)[1].partition("/")[0] for line in done.stdout.splitlines()}
    assert touched - {"."} == set(BUSY)  # the directory itself has the time of the newest block
    # When nothing happens any more, nothing is left to transfer.
    assert ledger.shell(f"{first} --delete").returncode == 0
    assert ledger.shell(second).stdout == ""
    done = ledger.shell("diff -r $M/accounts copy")
    assert done.returncode == 0, done.stdout


def test_find_newer(ledger: Mounted) -> None:
    """The mtime of an account's files is its last booking."""
    ledger.shell("touch before")
    ledger.drop("newer.json", pay("0.01", debit="quiet.2", credit="quiet.5"))
    done = ledger.shell(
        "cd $M/accounts && find . -newer $OLDPWD/before -type f -name '*.json' -path '*balance*' | sort"
    )
    assert done.stdout.split() == ["./quiet.2/balance.json", "./quiet.5/balance.json"]
    done = ledger.shell("cd $M && find transactions -newer $OLDPWD/before -type f")
    assert done.stdout.split() == [f"transactions/tx_{ledger.transactions():04}.json"]


def test_sizes(ledger: Mounted) -> None:
    """wc -c reads, stat asks: the same number for every file, of what rests even while others write."""
    script = """
        cd $M && find $WHERE -type f ! -path '.ledgerfs/[hms]*' -print0 | sort -z | while IFS= read -r -d '' name; do
            echo "$(wc -c < "$name") $(stat -c %s "$name") $(cat "$name" | wc -c) $name"
        done
    """

    def check(where: str, least: int) -> None:
        done = ledger.shell(script, WHERE=where)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
        assert len(rows) >= least
        assert not [row for row in rows if not row[0] == row[1] == row[2]]

    with Writers(ledger):
        check(" ".join(f"accounts/{name}" for name in QUIET) + " log/tile/0 blocks/00000001.json", 4 * len(QUIET))
    check("accounts README.txt receipts/pay.ndjson log .ledgerfs", 5 * (len(QUIET) + len(BUSY)))


def test_reading_here_and_there(ledger: Mounted) -> None:
    """As pagers do: forwards, backwards, a piece in the middle; by the first and the last byte."""
    with Writers(ledger):
        for name in ("accounts/quiet.1/tx.log", "accounts/quiet.1/statement.csv", "log/tile/entries/000"):
            done = ledger.shell(
                f"f=$M/{name}; cp $f copy.bin; for skip in 0 1 4095 4096 4097 9999; do"
                " cmp <(tail -c +$((skip + 1)) $f | head -c 777) <(tail -c +$((skip + 1)) copy.bin | head -c 777) || exit 1;"
                " cmp <(dd if=$f bs=1 skip=$skip count=50 status=none) <(dd if=copy.bin bs=1 skip=$skip count=50 status=none)"
                " || exit 1; done; cmp <(tac $f | md5sum) <(tac copy.bin | md5sum) && cmp $f copy.bin"
            )
            assert done.returncode == 0, (name, done)


def test_df_and_du(ledger: Mounted) -> None:
    with Writers(ledger):
        mount, store = (
            ledger.shell(f"df --output=size,itotal {path} | tail -1").stdout
            for path in ("$M", str(ledger.daemon.store))
        )
        assert mount.split() == store.split() != []
        assert ledger.shell("df -h $M; df -i $M; stat -f $M").returncode == 0
        done = ledger.shell("du -sb $M/transactions $M/accounts")
    sizes = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert done.stderr == "" and len(sizes) == 2
    paths = list((ledger / "transactions").iterdir())[:100]
    assert sizes[0] > sum(path.stat().st_size for path in paths)


def test_checksums_of_what_never_changes(ledger: Mounted) -> None:
    """Each transaction and block twice, with writers between; the second time from the kernel's cache."""
    with Writers(ledger):
        done = ledger.shell(
            "cd $M && find transactions blocks log/tile/0/000 log/tile/entries/000 -type f | xargs sha256sum > $OLDPWD/sums"
            " && sha256sum --check --quiet $OLDPWD/sums && wc -l < $OLDPWD/sums"
        )
    assert done.returncode == 0 and done.stderr == "", done
    assert int(done.stdout) > len(QUIET) * len(BUSY) * 20
