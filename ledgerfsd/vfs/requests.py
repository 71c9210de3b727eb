"""What pyfuse3 does not pass on of a request: that it is interrupted, and the flags that its file has now.

A READ that waits must end when the reader gets a signal (Ctrl-C, SIGTERM, SIGKILL): otherwise nothing can end the reader.
The kernel says so in a request of its own, FUSE_INTERRUPT, which libfuse takes in and pyfuse3 never shows. So a few lines
of C look at each request on its way from libfuse to pyfuse3 (``csrc/requests.c``).

They must have been loaded, for all the process to see, before pyfuse3 binds the name of the function that they stand in
for; so ``ledgerfsd.vfs`` imports this module first of all. Should a later pyfuse3 go another way, nothing is seen here:
then a READ that waits is answered with EINTR once a second, whereupon programs ask again, and signals are late by up to
that second, and the log says so (ADR 27).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from ledgerfsd.vfs import _requests

if TYPE_CHECKING:
    from ledgerfsd.core.front import Addresses

WITHOUT_SECONDS: Final = 1.0

_ffi: Any = _requests.ffi
_lib: Any = _requests.lib


class Request(NamedTuple):
    """The request that the running handler was just called for."""

    number: int  # 0: requests are not seen
    nonblocking: bool  # of a READ: the file is O_NONBLOCK now


def _load() -> None:
    ctypes.CDLL(_requests.__file__, mode=os.RTLD_GLOBAL | os.RTLD_NOLOAD | os.RTLD_NOW)
    import pyfuse3

    assert pyfuse3.__file__ is not None
    if _lib.lfs_requests_bind(os.fsencode(pyfuse3.__file__)):
        raise ImportError("libfuse has no fuse_session_process_buf: this is not libfuse 3")


_load()
_adopt: list[Callable[[], None]] = []  # one, while requests are diverted
_waiting: dict[int, Callable[[], None]] = {}
_out: Any = _ffi.new("uint64_t[3]")


@_ffi.def_extern()  # type: ignore[untyped-decorator]
def lfs_interrupted(request: int) -> None:
    """FUSE_INTERRUPT, in the thread that serves the mount. Of a request that was answered meanwhile: nothing."""
    wake = _waiting.get(request)
    if wake is not None:
        wake()


@_ffi.def_extern()  # type: ignore[untyped-decorator]
def lfs_handed() -> None:
    """The front has handed files over, in the thread that serves the mount."""
    for adopt in _adopt:
        adopt()


def calls(name: bytes) -> bool:
    """Whether pyfuse3 calls this function by this name, so that ours is found in its place."""
    import pyfuse3

    assert pyfuse3.__file__ is not None
    return b"\0" + name + b"\0" in Path(pyfuse3.__file__).read_bytes()


def divert(front: Addresses | None, adopt: Callable[[], None] | None) -> None:
    """Let the next session get its requests from the core's front; None: from the kernel.

    ``adopt`` is called before a request that concerns a file which the front has handed over.
    """
    _adopt[:] = [adopt] if adopt is not None else []
    _lib.lfs_requests_divert(*(front if front is not None else (0, 0, 0)))


def current() -> Request:
    """The request of the handler that calls this before it waits for anything."""
    _lib.lfs_request(_out)
    return Request(int(_out[1]) if _out[0] else 0, bool(_out[2]))


@contextmanager
def interruptible(request: Request) -> Iterator[None]:
    """What is awaited inside ends with OSError EINTR when the kernel interrupts the request."""
    with trio.CancelScope() as scope:
        if request.number:
            _waiting[request.number] = scope.cancel
        else:
            scope.deadline = trio.current_time() + WITHOUT_SECONDS
        try:
            yield
        finally:
            _waiting.pop(request.number, None)
    # Not only when it was caught: what was waited for may have come at the same moment, and be nothing. The kernel says it once.
    if scope.cancel_called:
        raise OSError(errno.EINTR, os.strerror(errno.EINTR))
