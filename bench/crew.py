"""Many clients at once, each a process of its own: they begin together, and each sends back what it saw."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

_fork = multiprocessing.get_context("fork")


@contextmanager
def crew(client: Callable[..., None], each: Sequence[tuple[Any, ...]]) -> Iterator[Callable[[], list[Any]]]:
    """Processes of ``client(*arguments, barrier, result)``, each of which gets ready, waits for the barrier, works, and sends one object.

    Calling what is given lets them begin, and returns what they sent, in their order. Raises EOFError when one died before.
    """
    barrier = _fork.Barrier(len(each) + 1)
    pipes, workers = list[Connection](), list[Any]()
    for arguments in each:
        here, there = _fork.Pipe(duplex=False)
        worker = _fork.Process(target=client, args=(*arguments, barrier, there), daemon=True)
        worker.start()
        there.close()  # so that its end is noticed
        pipes.append(here)
        workers.append(worker)

    def go() -> list[Any]:
        barrier.wait()
        return [pipe.recv() for pipe in pipes]

    try:
        yield go
    except BaseException:  # they may wait for a beginning that does not come
        for worker in workers:
            worker.terminate()
        raise
    finally:
        for worker, pipe in zip(workers, pipes, strict=True):
            worker.join()
            pipe.close()
