"""What a start after a crash takes for each entry that no save has: one store, left under load, copied and opened again and again.

usage: python -m bench.micro.replay DIRECTORY [ACCOUNTS [ENTRIES [TIMES]]]

Prints processor time, which is that of ``open_store`` as a whole (what was saved is loaded too), an entry.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Final

from bench import workload
from ledgerfsd.journal import layout
from ledgerfsd.journal.layout import Layout
from ledgerfsd.state.opening import open_store
from ledgerfsd.types import Mode

SAVED: Final = 1_000_000  # transactions before the save
INFLIGHT: Final = 32 * 2**20

_fork = multiprocessing.get_context("fork")


def main(directory: Path, accounts: int = 10_000, entries: int = 600_000, times: int = 7) -> None:
    """Make the store, measure, delete it."""
    filling = _fork.Process(target=_fill, args=(directory, accounts, entries))
    filling.start()
    filling.join()
    found, replayed = list[float](), 0
    for _ in range(times):
        copied = directory.with_name(f"{directory.name}.copy")
        shutil.copytree(directory, copied)
        os.sync()
        before = _spent()
        store = open_store(Layout(copied))
        replayed = store.engine.recovery.replayed
        found.append((_spent() - before) / replayed * 1e9)
        store.engine.close()
        store.index.close()
        shutil.rmtree(copied)
    shutil.rmtree(directory)
    print(f"{replayed:,} entries replayed, {accounts:,} accounts, {times} times:", end=" ")
    print(f"{statistics.median(found):,.0f} ns an entry (the least {min(found):,.0f}, the most {max(found):,.0f})")


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _fill(directory: Path, accounts: int, entries: int) -> None:
    """End as after kill -9: with so many entries that were not saved."""
    store = open_store(layout.create(directory, "ledger.example/bench"))
    engine = store.engine
    engine.start()
    for number, piece in enumerate(workload.open_accounts(accounts)):
        engine.submit(piece, source=b"accounts.ndjson", first_line=1 + 1_000_000 * number, mode=Mode.EACH)
    stamped, saved = workload.Stamped(7, accounts), SAVED // workload.FILE_INTENTS
    for number in range(saved + entries // workload.FILE_INTENTS):
        if number == saved:
            engine.drain()
            store.projector.save_now()
        engine.submit(stamped.file(number), source=b"%d.ndjson" % number, first_line=1, mode=Mode.EACH)
        while engine.inflight_bytes > INFLIGHT:
            time.sleep(0.0005)
            engine.completions()
    engine.drain()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:]))
