"""Logs on stderr through structlog: for people on a console, or one JSON object a line for a collector.

Every other module says ``structlog.get_logger()`` and nothing more; this is the only place that configures.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Stderr(io.TextIOBase):
    """stderr, but a line that cannot be written (its disk is full, its reader is gone) is lost and nothing more."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def configure(level: str, log_format: str) -> None:
    """Set structlog up for the process. ``level`` as in config.LogLevel, ``log_format`` console or json."""
    last: list[structlog.typing.Processor]
    if log_format == "json":
        # Tracebacks belong into the log of a daemon, never onto a user's terminal; in JSON as one string.
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=True)]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=False,  # tests configure more than once
    )
