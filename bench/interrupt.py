"""Ctrl-C in the middle of a run: servers and mounts are taken down, and what was measured is kept."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Taking:
    """Whether something is taken down just now, and whether it was interrupted meanwhile."""

    down: bool = False
    interrupted: bool = False


_taking = _Taking()


@contextmanager
def interruptible() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run with KeyboardInterrupt; more of them do not keep servers and mounts from being taken
    down. What was forked meanwhile ends without a word."""
    signals = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    before, here = {each: signal.getsignal(each) for each in signals}, os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() != here:
            os._exit(128 + number)
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        for client in multiprocessing.active_children():
            client.terminate()
        if _taking.down:
            _taking.interrupted = True
        else:
            raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in signals:
            signal.signal(each, before[each])


@contextmanager
def undisturbed() -> Iterator[None]:
    """For taking something down: an interrupt comes when it is done."""
    outer, _taking.down = _taking.down, True
    try:
        yield
    finally:
        _taking.down = outer
        if _taking.interrupted and not outer:
            _taking.interrupted = False
            raise KeyboardInterrupt
