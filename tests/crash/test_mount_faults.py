"""System calls of the daemon that fail, or kill it, while programs write through its mount."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledgerfsd.journal.layout import Layout
from tests.conftest import SEGMENT_BYTES, Daemon
from tests.crash import intents, stores, writer
from tests.crash.conftest import Tracer, read_trace
from tests.crash.stores import Seen

FILES = 8
SAVED_AFTER_SECONDS = 1.3  # the projection is saved once a second, so its calls are among those that are hit
READ_ONLY = {errno.EIO, errno.EROFS}

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(store: Path, daemons: Callable[..., Daemon]) -> Daemon:
    """A mounted ledger with the accounts."""
    with stores.opened(Layout(store), segment_bytes=SEGMENT_BYTES) as opened:
        stores.submit(opened.engine, intents.ACCOUNTS)
    return daemons(store, "--segment-bytes", str(SEGMENT_BYTES)).start()


def drop(daemon: Daemon, name: str) -> int:
    """Drop a file with one payment; 0 or the errno."""
    return writer.plainly(daemon.path / "inbox" / f"{name}.json", intents.content([name], many=False))


def drop_all(daemon: Daemon) -> dict[str, int]:
    """Files before and after a save, and what came of them."""
    answers = {}
    for number in range(FILES):
        if number == FILES // 2:
            time.sleep(SAVED_AFTER_SECONDS)
        answers[f"file-{number}"] = drop(daemon, f"file-{number}")
    return answers


def steps() -> Iterator[tuple[str, str, int]]:
    """Call, fault, and which of a thread's calls is hit."""
    for fault in ("error=EIO", "signal=SIGKILL"):
        yield from (("pwrite64", fault, when) for when in (1, 3, 6, 14))
        yield from (("fdatasync", fault, when) for when in (1, 2, 6))
    yield from (("pwrite64", "error=ENOSPC", when) for when in (1, 4, 7))
    yield "fallocate", "error=ENOSPC", 1
    yield "fsync", "error=EIO", 1


@pytest.mark.parametrize(("call", "fault", "when"), list(steps()))
def test_fault_below_a_mount(daemon: Daemon, tmp_path: Path, call: str, fault: str, when: int) -> None:
    layout, log = Layout(daemon.store), tmp_path / "trace"
    assert daemon.process is not None
    with Tracer(daemon.process.pid, log, call, inject=f"{call}:{fault}:when={when}"):
        answers = drop_all(daemon)
        if daemon.process.poll() is None and os.path.exists(daemon.path / "inbox"):
            assert_says_why(daemon, answers)
    assert read_trace(log)[0] or daemon.process.poll() is not None, "nothing was tampered with"
    daemon.kill()

    acknowledged = [name for name, answer in answers.items() if answer == 0]
    refused = [name for name, answer in answers.items() if answer and answer not in writer.DEAD]
    seen = Seen(layout)
    seen.look()
    seen.assert_once(acknowledged)
    seen.assert_absent(refused)
    seen.assert_no_doubles()
    stores.fsck(layout)

    daemon.start()
    assert {drop(daemon, name) for name in answers} == {0}
    assert (daemon.path / ".ledgerfs/health").read_text() == "ok\n"
    assert_balance(daemon, list(answers))
    assert daemon.stop() == 0
    seen.look()
    seen.assert_once(answers)
    seen.assert_no_doubles()
    stores.fsck(layout)


def assert_says_why(daemon: Daemon, answers: dict[str, int]) -> None:
    """Refused from the failure on, with a reason that names the step; what was acknowledged is read as before."""
    codes = list(answers.values())
    first = next((number for number, code in enumerate(codes) if code), len(codes))
    assert set(codes[first:]) <= READ_ONLY, answers
    assert set(codes[first + 1 :]) <= {errno.EROFS}, answers
    health = (daemon.path / ".ledgerfs/health").read_text()
    if first < len(codes):
        assert re.match(r"read-only: .*(journal|runs|hashes|indexes)/.*(Input/output error|No space left)", health), (
            health
        )
        last = json.loads((daemon.path / f"receipts/{list(answers)[-1]}.json").read_bytes())
        assert last["code"] == "read_only"
    else:
        assert health.startswith(("ok", "receipts are not written", "read-only")), health
    assert_balance(daemon, [name for name, code in answers.items() if code == 0])


def assert_balance(daemon: Daemon, names: list[str]) -> None:
    expected = sum(intents.cents(name) for name in names if intents.payment(name)["credit"] == "a")
    balance = json.loads((daemon.path / "accounts/a/balance.json").read_bytes())["balance"]
    assert int(balance.replace(".", "")) == expected
