"""The ways in which programs put a file into the inbox. Each returns the errno that the program was told, 0 for success.

Programs run by a shell tell it in words; ``SHELLS`` look for the words. What every program does in detail is the subject of
``tests/fuse``; here they are only to vary how bytes arrive.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Way = Callable[[Path, bytes, Path], int]

TIMEOUT_SECONDS = 60
_ERRORS = {os.strerror(number): number for number in errno.errorcode}


def _open(target: Path) -> int:
    return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)


def _told(*calls: Callable[[], object]) -> int:
    """Make every call, as a program does that closes what it has opened; the first errno."""
    first = 0
    for call in calls:
        try:
            call()
        except OSError as error:
            first = first or error.errno or errno.EIO
    return first


def whole(target: Path, data: bytes, work: Path) -> int:
    """One write."""
    fd = _open(target)
    return _told(lambda: os.write(fd, data), lambda: os.close(fd))


def synced(target: Path, data: bytes, work: Path) -> int:
    """With fsync."""
    fd = _open(target)
    return _told(lambda: os.write(fd, data), lambda: os.fsync(fd), lambda: os.close(fd))


def pieces(target: Path, data: bytes, work: Path) -> int:
    """Some bytes at a time, going on after a refusal (the rest of a document that has its verdict is repeated to us)."""
    fd = _open(target)
    size = max(1, len(data) // 7)
    writes = [lambda at=at: os.write(fd, data[at : at + size]) for at in range(0, len(data), size)]
    return _told(*writes, lambda: os.close(fd))


def duplicated(target: Path, data: bytes, work: Path) -> int:
    """A second descriptor is closed when half is written: a FLUSH in the middle of the text."""
    fd = _open(target)
    copy = os.dup(fd)
    half = len(data) // 2
    first = _told(lambda: os.write(fd, data[:half]))
    with suppress(OSError):  # it is told that the text is not complete, which is true
        os.close(copy)
    then = _told(lambda: os.write(fd, data[half:]), lambda: os.close(fd))
    return first or then


def renamed(target: Path, data: bytes, work: Path) -> int:
    """Under a scratch name, then renamed."""
    scratch = target.with_name("." + target.name)
    scratch.write_bytes(data)
    told = _told(lambda: scratch.rename(target))
    if told:
        scratch.unlink()
    return told


def replaced(target: Path, data: bytes, work: Path) -> int:
    """As careful programs do: written aside, synced, put in place of whatever is there."""
    scratch = target.with_name(target.name + ".tmp")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    told = _told(lambda: scratch.replace(target))
    if told:
        scratch.unlink()
    return told


def _shell(script: str) -> Way:
    def way(target: Path, data: bytes, work: Path) -> int:
        source = work / ("source-" + target.name)
        source.write_bytes(data)
        done = subprocess.run(
            ["bash", "-c", script, "bash", source, target],
            env=os.environ | {"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        source.unlink(missing_ok=True)
        if done.returncode == 0:
            return 0
        # The first that it complains of; "No such device" stands in "No such device or address", so the longest.
        words = [
            (-done.stderr.index(text), len(text), number) for text, number in _ERRORS.items() if text in done.stderr
        ]
        assert words, done
        return max(words)[2]

    return way


SHELLS: dict[str, Way] = {
    "redirect": _shell('/bin/cat "$1" > "$2"'),
    "cp": _shell('cp "$1" "$2"'),
    "mv": _shell('mv "$1" "$2"'),
    "rsync": _shell('rsync "$1" "$2"'),
    "tee": _shell('tee "$2" < "$1" > /dev/null'),
    "dd": _shell('dd if="$1" of="$2" bs=1M status=none'),
    "dd fsync": _shell('dd if="$1" of="$2" bs=1M conv=fsync status=none'),
}
CALLS: dict[str, Way] = {
    "whole": whole,
    "synced": synced,
    "pieces": pieces,
    "duplicated": duplicated,
    "renamed": renamed,
    "replaced": replaced,
}
WAYS = CALLS | SHELLS
# The bytes arrive at once, so the verdict is on all of them (text after a complete document would be judged apart).
AT_ONCE = ("whole", "synced", "renamed", "replaced", "redirect", "cp", "mv", "rsync", "tee", "dd")
# For inbox/atomic/: only a rename says that a file without a header is whole.
RENAMING = ("renamed", "replaced", "rsync")
