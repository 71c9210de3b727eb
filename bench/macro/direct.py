"""Hands files of intents to the engine and prints how long it took. Run by ``ndjson.py`` as a process of its own.

usage: python -m bench.macro.direct DIRECTORY ACCOUNTS FILE...
"""

from __future__ import annotations

import json
import select
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from bench import workload
from ledgerfsd.core.engine import Engine
from ledgerfsd.journal import layout
from ledgerfsd.types import Mode

INFLIGHT: Final = 32 * 2**20  # enough that the engine never waits for us
STAGES: Final = {"T1": "lfs-apply", "T2": "lfs-write", "T6": "lfs-runs"}  # whose processor time is told


def thread_ns(process: int | str = "self") -> Counter[str]:
    """Processor time of a process's threads by name: the engine's are called ``lfs-…``."""
    found: Counter[str] = Counter()
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            name, spent = (task / "comm").read_text().strip(), int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        found[name] += spent
    return found


def main(directory: Path, accounts: int, files: list[Path]) -> None:
    """Open a new store with the accounts, submit the files, wait until all is durable."""
    shutil.rmtree(directory, ignore_errors=True)
    engine = Engine(layout.create(directory, "ledger.example/bench").root)
    engine.start()
    for number, piece in enumerate(workload.open_accounts(accounts)):
        engine.submit(piece, source=b"accounts.ndjson", first_line=1 + 1_000_000 * number, mode=Mode.EACH)
    engine.drain()
    before, spent, beside = engine.counts().transactions, engine.state_ns, engine.tree_ns
    bodies = [(path.name.encode(), path.read_bytes()) for path in files]
    finished = select.poll()
    finished.register(engine.wakeup_fd, select.POLLIN)
    threads = thread_ns()
    began, used = time.perf_counter(), time.process_time()
    for name, body in bodies:
        engine.submit(body, source=name, first_line=1, mode=Mode.EACH)
        while engine.inflight_bytes > INFLIGHT:
            finished.poll()
            engine.completions()
    engine.drain()
    seconds, used = time.perf_counter() - began, time.process_time() - used
    threads = thread_ns() - threads
    refused = sum(len(completion) - completion.committed for completion in engine.completions())
    transactions = engine.counts().transactions - before
    spent, beside = engine.state_ns - spent, engine.tree_ns - beside
    engine.close()
    shutil.rmtree(directory)
    found = {"seconds": seconds, "cpu": used, "transactions": transactions, "refused": refused}
    found |= {"state": spent, "beside": beside, "threads": threads}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
