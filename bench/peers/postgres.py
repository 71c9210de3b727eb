"""A PostgreSQL server of our own, set up for writing without giving up durability, and the two ways to use it as a ledger.

``Cluster`` is the server: ``fsync``, ``synchronous_commit`` and ``full_page_writes`` stay on (``--unsafe-postgres`` says otherwise),
and a server that shows them off is not measured. ``one_by_one`` is pgbench calling a function, ``batched`` COPY into a
temporary table and one set-based statement a batch, which is the fastest form that we know.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from bench import workload
from bench.interrupt import undisturbed
from bench.safety import DURABLE
from ledgerfsd.errors import LedgerError

INSTALLED: Final = Path("/usr/lib/postgresql")
SCHEMA: Final = Path(__file__).with_name("schema.sql")
SETTINGS: Final = DURABLE | {
    "listen_addresses": "''",
    "shared_buffers": "4GB",
    "max_wal_size": "16GB",
    "min_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "wal_buffers": "64MB",
    "wal_compression": "lz4",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "64",
    "work_mem": "64MB",
    "temp_buffers": "64MB",
    "jit": "off",
    "autovacuum_naptime": "10s",
    "track_activities": "off",
    "track_counts": "on",
}
PGBENCH: Final = """\
\\set debit random(0, :accounts - 1)
\\set other random(1, :accounts - 1)
\\set credit (:debit + :other) % :accounts
\\set amount random(1, 99999)
SELECT {function}('p' || nextval('ids'), 'acc_' || lpad(:debit::text, 7, '0'), 'acc_' || lpad(:credit::text, 7, '0'), :amount, 'invoice');
"""
PGBENCH_READ: Final = """\\
\\set account random(0, :accounts - 1)
SELECT credits - debits FROM accounts WHERE name = 'acc_' || lpad(:account::text, 7, '0');
"""
SAMPLED: Final = 0.1  # of all statements: writing all down would cost PostgreSQL a percent
OPENING: Final = 900_000_000  # minor units: what workload.INITIAL is
_RATE: Final = re.compile(r"tps = ([0-9.]+) \(without")
_FAILED: Final = re.compile(r"number of failed transactions: ([0-9]+)")


class Cluster:
    """A server in ``directory`` with ``accounts`` accounts, on a socket there. ``with Cluster(...) as cluster``.

    ``settings`` are laid over SETTINGS. Raises RuntimeError when the server does not show them.
    """

    def __init__(self, directory: Path, accounts: int, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self._settings = SETTINGS | dict(settings)
        self.accounts = accounts
        self._data = directory / "data"
        self._user = _user()

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:  # a million accounts take long enough for Ctrl-C
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata", self._data)
        text = "".join(f"{name} = {value}\n" for name, value in self._settings.items())
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(text + f"unix_socket_directories = '{self.directory}'\n")
        with undisturbed():  # else it comes up when nobody is there to stop it
            self._run("pg_ctl", "--pgdata", self._data, "--wait", "--log", self.directory / "log", "start")
        with self.connect() as connection:
            shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in DURABLE}
            if any(value != (self._settings[name],) for name, value in shown.items()):
                raise RuntimeError(f"PostgreSQL does not have the durability that was asked for: {shown}")
            connection.execute(SCHEMA.read_text())
            connection.execute("CREATE SEQUENCE ids CACHE 1000")
            self._open_accounts(connection)

    def _stop(self) -> None:
        with undisturbed():
            if (self._data / "postmaster.pid").exists():
                with suppress(RuntimeError):  # it is down already
                    self._run("pg_ctl", "--pgdata", self._data, "--mode=immediate", "stop")
            shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection that commits each statement."""
        return psycopg.connect(host=str(self.directory), user=self._user.pw_name, dbname="postgres", autocommit=True)

    def version(self) -> str:
        """Of the server."""
        return subprocess.run(
            [_program("postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()

    def transfers(self) -> int:
        """How many there are. Raises RuntimeError when the balances say otherwise."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM transfers), (SELECT coalesce(sum(amount), 0) FROM transfers), "
                f"(SELECT sum(debits) FROM accounts), (SELECT sum(credits) - count(*) * {OPENING} FROM accounts)"
            ).fetchone()
        assert row is not None
        count, *sums = row
        if len(set(sums)) != 1:
            raise RuntimeError(f"PostgreSQL's balances do not fit its transfers: {sums}")
        assert isinstance(count, int)
        return count

    def settle(self) -> None:
        """A checkpoint, so that what is measured next does not pay for what was before."""
        with self.connect() as connection:
            connection.execute("CHECKPOINT")

    def one_by_one(self, clients: int, seconds: int, *, chained: bool = False) -> tuple[float, list[float]]:
        """pgbench, prepared: transfers a second, and how many seconds each of a sample took."""
        script = self.directory / "script.sql"
        script.write_text(PGBENCH.format(function="transfer_chained" if chained else "transfer"))
        return self._pgbench(clients, seconds, "--file", str(script))

    def mixed(self, clients: int, seconds: int) -> tuple[float, list[float]]:
        """Nine balances read for each transfer: statements a second, and how many seconds each of a sample took."""
        reads, writes = self.directory / "reads.sql", self.directory / "writes.sql"
        reads.write_text(PGBENCH_READ)
        writes.write_text(PGBENCH.format(function="transfer"))
        return self._pgbench(clients, seconds, "--file", f"{reads}@9", "--file", f"{writes}@1")

    def _pgbench(self, clients: int, seconds: int, *scripts: str) -> tuple[float, list[float]]:
        done = self._run(
            *("pgbench", "--no-vacuum", "--protocol=prepared"),
            *("--client", str(clients), "--jobs", str(min(clients, 2)), "--time", str(seconds)),
            *("--log", "--log-prefix", str(self.directory / "taken"), "--sampling-rate", str(SAMPLED)),
            *("--define", f"accounts={self.accounts}", *scripts, "--host", str(self.directory), "postgres"),
        )
        rate, taken = _RATE.search(done), list[float]()
        for log in self.directory.glob("taken.*"):  # one of each thread; the third field is microseconds
            taken += [int(line.split()[2]) / 1e6 for line in log.read_text().splitlines()]
            log.unlink()
        failed = any(int(count) for count in _FAILED.findall(done))
        if rate is None or not taken or failed:
            raise RuntimeError(done)
        return float(rate[1]), taken

    def batched(self, batches: Sequence[bytes], connections: int, *, chained: bool = False) -> float:
        """Seconds for all batches (``rows``), shared between so many connections; each batch is one commit."""
        queue: Iterator[bytes] = iter(batches)
        turn, faults = threading.Lock(), list[Exception]()
        ready = threading.Barrier(connections + 1)

        def work() -> None:
            try:
                with self.connect() as connection:
                    _stage(connection)
                    ready.wait()
                    while True:
                        with turn:
                            batch = next(queue, None)
                        if batch is None:
                            return
                        _commit(connection, batch, chained=chained)
            except Exception as error:
                faults.append(error)
                ready.abort()

        crew = [threading.Thread(target=work) for _ in range(connections)]
        for each in crew:
            each.start()
        ready.wait()
        began = time.perf_counter()
        for each in crew:
            each.join()
        if faults:
            raise faults[0]
        return time.perf_counter() - began

    def _open_accounts(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with connection.cursor().copy("COPY accounts (name, credits) FROM STDIN") as copy:
            for first in range(0, self.accounts, 10_000):
                names = range(first, min(first + 10_000, self.accounts))
                copy.write("".join(f"{workload.account(number)}\t{OPENING}\n" for number in names))
        connection.execute("VACUUM ANALYZE accounts")

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [_program(program), *arguments],
            cwd=self.directory,
            user=self._user.pw_uid,
            group=self._user.pw_gid,
            extra_groups=[],
            process_group=0,  # Ctrl-C is for us to answer
            check=False,
            stdout=subprocess.PIPE if program == "pgbench" else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,  # the server would keep it open
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")
        return done.stdout or ""


def rows(payments: workload.Payments, count: int) -> bytes:
    """``count`` payments as COPY takes them: the same that NDJSON files have."""
    return b"".join(payments.row() for _ in range(count))


def _stage(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute(
        "CREATE TEMPORARY TABLE staged (id text, debit text, credit text, amount bigint, reference text) ON COMMIT DELETE ROWS"
    )


def _commit(connection: psycopg.Connection[tuple[object, ...]], batch: bytes, *, chained: bool) -> None:
    with connection.transaction():
        with connection.cursor().copy("COPY staged FROM STDIN") as copy:
            copy.write(batch)
        done = connection.execute(f"SELECT transfer_staged{'_chained' if chained else ''}()").fetchone()
        if done is None or done[0] != batch.count(b"\n"):
            raise RuntimeError(f"{done} of a batch were booked")


def _program(name: str) -> str:
    """Debian keeps the server's programs out of PATH. Raises LedgerError when it is nowhere."""
    places = sorted(INSTALLED.glob(f"*/bin/{name}"), reverse=True)
    found = str(places[0]) if places else shutil.which(name)
    if found is None:
        raise LedgerError(f"PostgreSQL's {name} is not installed", hint="`tools/install-system test` installs it")
    return found


def _user() -> pwd.struct_passwd:
    """Whose the server is: it refuses to be root's. Raises LedgerError."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid())
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        raise LedgerError("there is no user postgres", hint="`tools/install-system test` installs PostgreSQL") from None
