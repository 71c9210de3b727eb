"""vfs/requests.py: an interrupt is never lost, whatever else happens at the same moment."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from ledgerfsd.vfs import requests
from ledgerfsd.vfs.requests import Request


async def waited(request: Request, event: trio.Event) -> int:
    """The errno of a wait, 0 when it ended by itself."""
    try:
        with requests.interruptible(request):
            await event.wait()
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.trio
@pytest.mark.parametrize("wakes", [(), ("before",), ("behind",)])
async def test_an_interrupt_counts_whatever_else_came(wakes: tuple[str, ...], autojump_clock: object) -> None:
    """SEMANTICS 14.4"""
    found, event = [], trio.Event()

    async def wait() -> None:
        found.append(await waited(Request(7, False), event))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        if "before" in wakes:
            event.set()
        requests.lfs_interrupted(7)
        if "behind" in wakes:
            event.set()
    assert found == [errno.EINTR]
    requests.lfs_interrupted(7)  # it is no longer waited for


@pytest.mark.trio
async def test_one_that_is_not_interrupted_ends_by_itself() -> None:
    event = trio.Event()
    event.set()
    assert await waited(Request(8, False), event) == 0


@pytest.mark.trio
async def test_without_requests_it_is_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """SEMANTICS 14.4"""
    began = trio.current_time()
    assert await waited(Request(0, False), trio.Event()) == errno.EINTR
    assert trio.current_time() - began == requests.WITHOUT_SECONDS
