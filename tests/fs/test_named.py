"""Names of snapshots on a disk that fails. SEMANTICS 12.7"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from ledgerfsd.service import named
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.named import NamedSnapshots

pytestmark = pytest.mark.trio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshots.ndjson"


async def test_a_full_disk_gives_no_name(ledger: Ledger, path: Path) -> None:
    """What was written of a line is overwritten by the next. (A limit on the size of files stands for the full disk.)"""
    names = NamedSnapshots(path, ledger.engine, ledger.clock)
    await names.create("first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            await names.create("second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert names.find("second") is None
    assert names.trouble() == ""
    assert [each.name for each in NamedSnapshots(path, ledger.engine, ledger.clock).all()] == ["first"]
    await names.create("third")
    read = NamedSnapshots(path, ledger.engine, ledger.clock)
    assert [each.name for each in read.all()] == [each.name for each in names.all()] == ["first", "third"]
    assert read.trouble() == ""


async def test_after_a_failed_sync_no_name_is_given_any_more(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = NamedSnapshots(path, ledger.engine, ledger.clock)
    await names.create("first")

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError) as caught:
        await names.create("second")
    assert caught.value.errno == errno.EIO
    monkeypatch.undo()
    with pytest.raises(OSError) as caught:
        await names.create("third")
    assert caught.value.errno == errno.EROFS
    assert "no longer be named" in names.trouble()
    assert names.find("second") is None
    assert names.find("first") is not None


async def test_there_are_only_so_many(ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "NAMES_MAX", 2)
    names = NamedSnapshots(path, ledger.engine, ledger.clock)
    for name in ("a", "b"):
        await names.create(name)
    for name, number in (("c", errno.EMLINK), ("a", errno.EEXIST)):
        with pytest.raises(OSError) as caught:
            await names.create(name)
        assert caught.value.errno == number
