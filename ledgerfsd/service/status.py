"""The files of ``.ledgerfs/`` and ``README.txt``: health, status, metrics, limits, result codes, version."""

from __future__ import annotations

import os
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from ledgerfsd import __version__, limits
from ledgerfsd.clock import NS_PER_SECOND, format_time
from ledgerfsd.errors import TABLE_TEXT
from ledgerfsd.service import consumers, inbox, inbox_lines

if TYPE_CHECKING:
    from ledgerfsd.service.inbox import Inbox
    from ledgerfsd.service.ledger import Ledger


class Status:
    """What a ledger says of itself."""

    def __init__(self, ledger: Ledger, inbox: Inbox) -> None:
        self._ledger = ledger
        self._inbox = inbox
        self._origin = ledger.origin

    def health(self) -> bytes:
        """``ok``, or one line for everything that is wrong."""
        lines = []
        if self._ledger.engine.failure:
            lines.append(f"read-only: {self._ledger.engine.failure}")
        if self._inbox.receipts.failure:
            lines.append(f"receipts are not written: {self._inbox.receipts.failure}")
        lines += [trouble for ask in self._ledger.troubles if (trouble := ask())]
        return ("\n".join(lines or ["ok"]) + "\n").encode()

    def status(self) -> bytes:
        """``status.json``."""
        ledger, engine = self._ledger, self._ledger.engine
        counts, recovery = engine.counts(), engine.recovery
        now = ledger.clock.now_ns()
        text: dict[str, Any] = {
            "ledger": self._origin,
            "version": __version__,
            "pid": os.getpid(),
            "health": "read-only" if engine.failure else "ok",
            "failure": engine.failure or None,
            "started": format_time(ledger.started_ns),
            "uptime_seconds": (now - ledger.started_ns) // NS_PER_SECOND,
            "entries": counts.entries,
            "transactions": counts.transactions,
            "blocks": counts.blocks,
            "accounts": counts.accounts,
            "incarnation": counts.incarnation,
            "stream_bytes": counts.stream_bytes,
            "last_seal": format_time(counts.time_ns),
            "inflight_bytes": engine.inflight_bytes,
            "inbox": {
                "open_files": self._inbox.open_handles,
                "staged_bytes": self._inbox.staged,
                "receipts": len(self._inbox.receipts),
            },
            "recovery": {
                "entries": recovery.entries,
                "replayed": recovery.replayed,
                "cut_bytes": recovery.cut_bytes,
                "milliseconds": round(recovery.seconds * 1000),
            },
        }
        for facts in ledger.facts:
            text |= facts()
        return msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n"

    def metrics(self) -> bytes:
        """``metrics.prom``."""
        engine = self._ledger.engine
        counts = engine.counts()
        others = {name: gauge for each in self._ledger.gauges for name, gauge in each().items()}
        return self._ledger.metrics.text(
            others
            | {
                "state_root_seconds": (
                    "Time that commits spent on state roots since the start",
                    engine.state_ns / NS_PER_SECOND,
                ),
                "state_tree_seconds": ("Time that the state tree worked beside them", engine.tree_ns / NS_PER_SECOND),
                "entries": ("Entries in the log", counts.entries),
                "transactions": ("Transactions", counts.transactions),
                "blocks": ("Blocks", counts.blocks),
                "accounts": ("Accounts", counts.accounts),
                "stream_bytes": ("Bytes of the entry stream", counts.stream_bytes),
                "last_seal_time_seconds": ("Time of the newest block", counts.time_ns / NS_PER_SECOND),
                "inflight_bytes": ("Bytes of intents submitted and not answered yet", engine.inflight_bytes),
                "staged_bytes": ("Bytes of unfinished inbox files in memory", self._inbox.staged),
                "open_inbox_files": ("Inbox files open for writing", self._inbox.open_handles),
                "read_only": ("1 when the ledger accepts nothing any more", float(bool(engine.failure))),
            }
        )

    def readme(self) -> bytes:
        """``README.txt``."""
        text = resources.files("ledgerfsd").joinpath("data/README.txt.in").read_text(encoding="utf-8")
        return text.replace("@VERSION@", __version__).replace("@LEDGER@", self._origin).encode()


def errors_file() -> bytes:
    """``errors.tsv``: every result code with its errno, its meaning and what to do."""
    return TABLE_TEXT.encode()


def limits_file() -> bytes:
    """``limits.json``: the bounds of limits.py and those of the inbox."""

    bounds = {name.lower(): value for name, value in vars(limits).items() if name.isupper()}
    # Units of size are not limits, and 128-bit numbers are no JSON numbers for most readers.
    bounds = {name: str(value) if value >= 2**53 else value for name, value in bounds.items() if len(name) > 3}
    bounds["inbox_files_shown_max"] = inbox.FILES_SHOWN_MAX
    bounds["inbox_handles_max"] = inbox.HANDLES_MAX
    bounds["scratch_bytes_max"] = inbox.SCRATCH_BYTES_MAX
    bounds["staged_bytes_max"] = inbox.STAGED_BYTES_MAX
    bounds["consumers_max"] = consumers.CONSUMERS_MAX
    bounds["pipeline_bytes_max"] = inbox_lines.PIPELINE_BYTES_MAX
    return msgspec.json.format(msgspec.json.encode(bounds), indent=2) + b"\n"


def version_file() -> bytes:
    """``version``."""
    return f"ledgerfs {__version__}\n".encode()
