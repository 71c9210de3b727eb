"""journal/layout.py: creation, the lock, what counts as a store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ledgerfsd.errors import LedgerError, StoreError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.journal.layout import Layout, check, create, lock

LEDGER = "ledger.example/layout"
SIZE = 2**20


def make(root: Path) -> Layout:
    return create(root, LEDGER, segment_bytes=SIZE)


def test_created_store_is_a_store(tmp_path: Path) -> None:
    layout = make(tmp_path / "deep" / "store")
    check(layout)
    assert layout.format.read_text() == "ledgerfs-store 1\n"
    assert layout.genesis.read_bytes() == layouts.first_entry(layout) + b"\n"
    assert b'"ledger":"ledger.example/layout"' in layout.genesis.read_bytes()
    assert [path.name for path in layout.segments()] == ["00000000000000000000.seg"]
    assert {path.name for path in layout.root.iterdir()} == {
        "format", "genesis.json", "hashes", "indexes", "journal", "lock", "receipts", "runs",
    }  # fmt: skip


def test_empty_directory_may_be_used(tmp_path: Path) -> None:
    check(make(tmp_path))


def test_store_is_not_made_twice(tmp_path: Path) -> None:
    layout = make(tmp_path)
    before = layouts.first_entry(layout)
    with pytest.raises(StoreError, match="holds a store already"):
        make(tmp_path)
    assert layouts.first_entry(layout) == before


def test_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is not empty"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("removed", ["format", "genesis.json"])
def test_interrupted_creation_is_begun_anew(tmp_path: Path, removed: str) -> None:
    layout = make(tmp_path)
    (tmp_path / "creating").touch()
    layout.format.unlink()
    (tmp_path / removed).unlink(missing_ok=True)
    (layout.journal / ".spare").write_bytes(b"x")
    with pytest.raises(StoreError, match="is not a LedgerFS store"):
        check(layout)
    check(make(tmp_path))
    assert not (layout.journal / ".spare").exists()


@pytest.mark.parametrize(
    "name", ["", "https://x.example/a", "Ledger.Example", "a b", "a/", "/a", "a//b", "a" * 256, "ü.de"]
)
def test_origin_must_be_a_schemaless_url(tmp_path: Path, name: str) -> None:
    with pytest.raises(LedgerError, match="is not a ledger origin"):
        create(tmp_path / "store", name)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["a", "ledger.example", "ledger.example/a/B_c~1.2", "a" * 255])
def test_origins_that_may_be_used(tmp_path: Path, name: str) -> None:
    check(create(tmp_path, name, segment_bytes=SIZE))


# -- what counts as a store


def test_no_store_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a LedgerFS store") as caught:
        check(Layout(tmp_path))
    assert "ledgerfs init" in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["ledgerfs-store 2\n", "ledgerfs-store 1", "", "\xff\xfe", "x" * 10_000])
def test_other_format_is_refused(tmp_path: Path, text: str) -> None:
    layout = make(tmp_path)
    layout.format.write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match="this version reads 'ledgerfs-store 1'"):
        check(layout)


def test_store_without_segments_is_refused(tmp_path: Path) -> None:
    layout = make(tmp_path)
    layout.segments()[0].unlink()
    with pytest.raises(StoreError, match="holds no segment"):
        check(layout)


# -- the lock

HOLD = """
import sys
from pathlib import Path
from ledgerfsd.journal.layout import Layout, lock
with lock(Layout(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(layout: Layout) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(layout.root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_names_its_holder_and_falls_with_it(tmp_path: Path) -> None:
    layout = make(tmp_path)
    with hold(layout) as process:
        assert layout.lock.read_text() == f"{process.pid}\n"
        with pytest.raises(StoreError, match=f"in use by process {process.pid}"), lock(layout):
            pass
        process.kill()
        process.wait()
        with lock(layout):
            assert layout.lock.read_text() == f"{os.getpid()}\n"
    assert layout.lock.read_text() == ""


def test_lock_waits_when_it_is_asked_to(tmp_path: Path) -> None:
    layout = make(tmp_path)
    with hold(layout) as process:
        assert process.stdin is not None
        threading.Timer(0.1, process.stdin.close).start()
        with lock(layout, patience_seconds=20):
            assert process.wait(20) == 0


def test_lock_is_refused_in_the_same_process(tmp_path: Path) -> None:
    layout = make(tmp_path)
    with lock(layout):
        with pytest.raises(StoreError, match="in use"), lock(layout):
            pass
        assert layout.lock.read_text() == f"{os.getpid()}\n"
