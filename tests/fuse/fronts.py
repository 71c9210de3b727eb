"""Two mounts of the same history, with the core's front and without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.journal.layout import create
from tests.conftest import LEDGER, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, with_accounts


def answered(mounted: Mounted) -> int:
    """How many requests the front has answered."""
    text = (mounted / ".ledgerfs/metrics.prom").read_text()
    found = [line.split()[1] for line in text.splitlines() if line.startswith("ledgerfs_front_requests ")]
    return int(float(found[0])) if found else -1


def started(place: Path, name: str) -> Mounted:
    """A new mount."""
    store = create(place / name, LEDGER, segment_bytes=SEGMENT_BYTES).root
    return with_accounts(Daemon(store, place / f"{name}-mount").start(), place / f"{name}-work")


@pytest.fixture(scope="module")
def both(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mounted, Mounted]]:
    """Two ledgers of the same history, with the front and without."""
    place = tmp_path_factory.mktemp("both")
    made: list[Mounted] = []
    try:
        made.append(started(place, "with"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LEDGERFS_FRONT", "off")
            made.append(started(place, "without"))
        yield made[0], made[1]
        for each in made:
            assert each.daemon.stop() == 0
            assert "Traceback" not in each.daemon.log.read_text()
    finally:
        for each in made:
            each.daemon.kill()


def booked(mounted: Mounted) -> list[tuple[Any, ...]]:
    """The ledger, without times."""
    found = []
    for path in sorted((mounted / "transactions").iterdir()):
        entry = json.loads(path.read_bytes())
        found.append((entry["id"], entry["intent"], [posting["amount"] for posting in entry["postings"]]))
    return found


def recorded(mounted: Mounted) -> list[dict[str, Any]]:
    """The records of the receipts, without times."""
    lines = [
        line
        for path in sorted((mounted.daemon.store / "receipts").iterdir())
        for line in path.read_bytes().splitlines()
    ]
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]
