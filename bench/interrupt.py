"""Ctrl-C in the middle of a run: servers and mounts are taken down, and what was measured is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
        raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in signals:
            signal.signal(each, before[each])
