"""A consumer of events as a user would write one: what it did and how far it got agree, whenever it is killed.

Run as ``consuming.py MOUNT DIRECTORY END NAME…``: one thread for each consumer, until each has event END - 1. The effect of an event is a
line in DIRECTORY/NAME; on a start, what was done but not acknowledged is undone first.
"""

from __future__ import annotations

import os
import sys
import threading

READ_BYTES = 1 << 18  # what a stream gives at most


def done_before(path: str, position: int) -> int:
    """Length of the lines below a position."""
    length = 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") or int(line) >= position:
                break
            length += len(line)
    return length


def consume(mount: str, directory: str, end: int, name: str) -> None:
    """Follow the events of one consumer."""
    folder, path = f"{mount}/events/consumers/{name}", f"{directory}/{name}"
    with open(f"{folder}/position", "rb") as file:
        position = int(file.read())
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, done_before(path, position))
    os.lseek(descriptor, 0, os.SEEK_END)
    acknowledge = os.open(f"{folder}/position", os.O_WRONLY)
    stream = os.open(f"{folder}/events.ndjson", os.O_RDONLY)
    while position < end:
        lines = os.read(stream, READ_BYTES).splitlines()
        start = len(b'{"specversion":"1.0","id":"')
        ids = [line[start : line.index(b'"', start)] for line in lines]
        os.write(descriptor, b"".join(number + b"\n" for number in ids))
        position = int(ids[-1]) + 1
        os.write(acknowledge, b"%d\n" % position)


def main() -> None:
    """All the consumers of the command line."""
    mount, directory, end, *names = sys.argv[1:]
    threads = [threading.Thread(target=consume, args=(mount, directory, int(end), name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
