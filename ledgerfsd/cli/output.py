"""What the commands print: text or JSON on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final

BAR_WIDTH: Final = 30
BAR_SECONDS: Final = 0.1
LINE_SECONDS: Final = 2.0


def print_json(value: object) -> None:
    """One JSON value, on one line."""
    print(json.dumps(value, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Columns padded to their widest cell; those numbered in ``right`` are aligned to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


class Progress:
    """Progress of long work on stderr: a bar on a terminal, plain lines if asked for with --progress, else nothing."""

    def __init__(self, label: str, *, plain: bool) -> None:
        self._label = label
        self._bar = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._plain = plain and not self._bar
        self._began = self._told = time.monotonic()
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes."""
        now = time.monotonic()
        if now - self._told < (BAR_SECONDS if self._bar else LINE_SECONDS) or not (self._bar or self._plain):
            return
        self._told = now
        share = done / total if total else 1.0
        rate = done / (now - self._began) / 1e6
        text = f"{share * 100:5.1f} %  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB  {rate:,.0f} MB/s"
        if self._bar:
            filled = int(share * BAR_WIDTH)
            print(
                f"\r\033[K{self._label}  [{'#' * filled}{'.' * (BAR_WIDTH - filled)}]  {text}",
                end="",
                file=sys.stderr,
                flush=True,
            )
            self._drawn = True
        else:
            print(f"{self._label}: {text}", file=sys.stderr, flush=True)
