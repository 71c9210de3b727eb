"""Log lines that cannot fail.

A log that lies on a full disk, or in a pipe that nobody reads, raises. Where a log line stands between a commit and its
answer, or in the last guard around a request, that must not decide anything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any


def quietly(tell: Callable[..., Any], event: str, **more: Any) -> None:
    """Call a method of a logger; if that fails, there is nobody to tell."""
    with suppress(Exception):
        tell(event, **more)
