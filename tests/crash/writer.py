"""A program that uses a mounted ledger: ``python -m tests.crash.writer INBOX PREFIX SEED WORK`` drops files until the mount dies.

It says on stdout what it is about to drop, and then what came of it: ``try FILE ID…``, ``ok FILE``, ``refused FILE ERRNO`` or
``died FILE``. Each line is one write, so that what it has said survives its own death.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.crash import intents

# What a program sees when the daemon dies under it, or is dead, or its mount has been removed.
DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT}
BY_TEXT = {os.strerror(number): number for number in errno.errorcode}
BY_TEXT["Directory nonexistent"] = errno.ENOENT  # as dash says it


def say(text: str) -> None:
    """One line, at once."""
    os.write(1, text.encode() + b"\n")


def plainly(path: Path, data: bytes) -> int:
    """open, write, close; the first errno, 0 if all is well."""
    failed = 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        assert os.write(descriptor, data) == len(data)
    except OSError as error:
        failed = error.errno or errno.EIO
    try:
        os.close(descriptor)
    except OSError as error:
        failed = failed or error.errno or errno.EIO
    return failed


def by_command(command: str, path: Path, work: Path) -> int:
    """Let the shell do it; the errno that it tells of, 0 if it ends well."""
    scratch = path.with_name(f".{path.name}.tmp")
    arguments = ["sh", "-c", command, "sh", str(work), str(path), str(scratch)]
    done = subprocess.run(
        arguments,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    if done.returncode == 0:
        return 0
    words = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    return next((BY_TEXT[word] for word in words if word in BY_TEXT), -1)


COMMANDS = {
    "cp": 'cp "$1" "$2"',
    "redirection": 'cat "$1" >"$2"',
    "tee": 'tee "$2" <"$1" >/dev/null',
    "dd": 'dd if="$1" of="$2" bs=1M conv=fsync status=none',
    "rename": 'cat "$1" >"$3" && mv -T "$3" "$2"',
}


def drop(path: Path, data: bytes, way: str, work: Path) -> int:
    """Write a file in one of the ways; 0 or an errno."""
    if way == "plainly":
        return plainly(path, data)
    work.write_bytes(data)
    return by_command(COMMANDS[way], path, work)


def main(inbox: Path, prefix: str, seed: int, work: Path) -> None:
    """Drop one file after the other."""
    chance = random.Random(seed)
    number = 0
    while True:
        many = chance.random() < 0.2
        names = [f"{prefix}{number + each}" for each in range(chance.choice((1, 3, 12)) if many else 1)]
        number += len(names)
        names = [f"no-{name}" if chance.random() < 0.1 else name for name in names]
        path = inbox / (f"{prefix}{number}" + (".ndjson" if many else ".json"))
        say(f"try {path.name} {' '.join(names)}")
        way = "plainly" if chance.random() < 0.5 else chance.choice(list(COMMANDS))
        result = drop(path, intents.content(names, many=many), way, work)
        if result in DEAD:
            say(f"died {path.name}")
            return
        say(f"refused {path.name} {result} {way}" if result else f"ok {path.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
