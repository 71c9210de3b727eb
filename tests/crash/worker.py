"""A process to be killed: ``python -m tests.crash.worker FD`` forks one for every job that comes through that socket.

A fork of a process that has everything imported is ready in a moment, and the tracer is attached to nothing but the work.
The child tells through its own socket, step by step, what it has sent and what was answered. It uses ``send`` for that: no
system call that a fault is injected into.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ledgerfsd.core.values import Completion
from ledgerfsd.errors import LedgerError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.layout import Layout, lock
from ledgerfsd.state.opening import OpenStore, open_store
from ledgerfsd.state.rebuild import rebuild
from ledgerfsd.types import Mode
from tests.crash import stores
from tests.crash.intents import lines, payment

PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)


class Job:
    """One job and the way back to whoever gave it."""

    def __init__(self, channel: socket.socket, order: dict[str, Any]) -> None:
        self.channel = channel
        self.order = order
        self.layout = Layout(Path(order["store"]))
        self.segment_bytes = int(order.get("segment_bytes", stores.SMALL_SEGMENT))

    def tell(self, **event: Any) -> None:
        """Say what happened."""
        self.channel.send(json.dumps(event).encode() + b"\n")

    def wait(self) -> None:
        """Until the other side says go."""
        self.channel.recv(1)


def create(job: Job) -> None:
    """Make a store."""
    layouts.create(job.layout.root, stores.LEDGER, segment_bytes=job.segment_bytes)


def recover(job: Job) -> None:
    """Open and close."""
    with lock(job.layout):
        store = open_store(job.layout, segment_bytes=job.segment_bytes)
        job.tell(entries=store.engine.counts().entries, cut=store.engine.recovery.cut_bytes)
        store.close()


def make_anew(job: Job) -> None:
    """Rebuild the projections."""
    with lock(job.layout):
        rebuild(job.layout, segment_bytes=job.segment_bytes)


def commit(job: Job) -> None:
    """Commit batch after batch; save the projection after each; read when it has failed."""
    with lock(job.layout):
        store = open_store(job.layout, segment_bytes=job.segment_bytes)
        store.engine.start()
        for names in job.order["batches"]:
            job.tell(sent=names)
            found = stores.submit(store.engine, [payment(name) for name in names])
            job.tell(answers=answers(names, [result.code for result in found]))
            store.projector.attempt()
        engine = store.engine
        if engine.failure:
            rich = engine.account(engine.ordinal(b"rich"))
            counts = engine.counts()
            last = json.loads(bytes(engine.entry(counts.entries - 1)))
            job.tell(failure=engine.failure, debits=rich.debits, last=last["t"], leaf=engine.leaf(0).hex())
        store.close()


def burst(job: Job) -> None:
    """Hand over all batches at once, when whoever waits for it has been told the threads; tell what came of them."""
    with lock(job.layout):
        store = open_store(job.layout, segment_bytes=job.segment_bytes)
        engine = store.engine
        engine.start()
        tasks = Path("/proc/self/task").iterdir()
        job.tell(threads={(task / "comm").read_text().strip(): int(task.name) for task in tasks})
        job.wait()
        each = range(job.order["intents"])
        batches = [[f"{batch}-{number}" for number in each] for batch in range(job.order["batches"])]
        bodies = [lines(map(payment, names)) for names in batches]
        names_of = {}
        for names, body in zip(batches, bodies, strict=True):
            job.tell(sent=names)
            names_of[engine.submit(body, source=b"burst.ndjson", first_line=1, mode=Mode.EACH)] = names
        engine.drain()
        for completion in engine.completions():
            codes = [result.code for result in stores.results(completion)]
            job.tell(answers=answers(names_of[completion.ticket], codes))
        store.close()


def answers(names: list[str], codes: list[int]) -> list[tuple[str, int]]:
    """Who got which code; a ledger that is read-only gives one answer for all."""
    return list(zip(names, codes * len(names) if len(codes) == 1 else codes, strict=True))


def load(job: Job) -> None:
    """Commit without end, several submissions at a time, and save now and then, until killed."""
    chance = random.Random(job.order["seed"])
    with lock(job.layout):
        store = open_store(job.layout, segment_bytes=job.segment_bytes)
        store.engine.start()
        job.tell(opened=store.engine.counts().entries)
        threading.Thread(target=save_without_end, args=(store,), daemon=True).start()
        names_of: dict[int, list[str]] = {}
        pending = [job.order["again"]] if job.order["again"] else []
        number = 0
        while True:
            while len(names_of) < 4:
                if pending:
                    names = pending.pop()
                else:
                    names = [f"{job.order['prefix']}{number + each}" for each in range(chance.choice((1, 1, 1, 6)))]
                    number += len(names)
                    names = [f"no-{name}" if chance.random() < 0.1 else name for name in names]
                job.tell(sent=names)
                data = lines(map(payment, names))
                ticket = store.engine.submit(data, source=b"load.ndjson", first_line=1, mode=Mode.EACH)
                names_of[ticket] = names
            time.sleep(chance.uniform(0.0, 0.006))  # what is committed here is verified by slow programs
            for completion in wait(store):
                names = names_of.pop(completion.ticket)
                codes = [result.code for result in stores.results(completion)]
                job.tell(answers=answers(names, codes))


def wait(store: OpenStore) -> list[Completion]:
    """The next completions; an eventfd that is not ready is asked again by select."""
    import select

    select.select([store.engine.wakeup_fd], [], [])
    return store.engine.completions()


def save_without_end(store: OpenStore) -> None:
    """What the projector does once a second, almost without a pause."""
    while True:
        store.projector.attempt()
        time.sleep(0.005)


SCENARIOS: dict[str, Callable[[Job], None]] = {
    "create": create,
    "recover": recover,
    "rebuild": make_anew,
    "commit": commit,
    "burst": burst,
    "load": load,
}


def child(channel: socket.socket, order: dict[str, Any]) -> None:
    """Do one job; never returns."""
    # Lets a tracer that is not our parent attach where the kernel restricts that; elsewhere it does nothing.
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)
    job = Job(channel, order)
    job.tell(pid=os.getpid())
    job.wait()
    try:
        SCENARIOS[order["scenario"]](job)
        job.tell(done=True)
    except LedgerError as error:
        job.tell(refused=f"{type(error).__name__}: {error}")
    except Exception as error:
        job.tell(broken=f"{type(error).__name__}: {error}")
    os._exit(0)


def main() -> None:
    """Take jobs until the other side is gone."""
    server = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, 1 << 20, 1)
        if not message:
            return
        order = json.loads(message)
        if os.fork() == 0:
            server.close()
            child(socket.socket(fileno=descriptors[0]), order)
        os.close(descriptors[0])
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
