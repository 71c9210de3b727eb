"""A process that writes files into the inbox of a mount and looks at once whether it can read what it has written.

Run as ``python -m tests.model.client MOUNT WORK``: a request (``Task`` as JSON) a line on stdin, an answer (``Done``) a line on
stdout. In the same process: ``work``.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledgerfsd.core.pure.intent import Intent, judge
from tests.conftest import REPOSITORY
from tests.model.reference import Submission, receipt_lines
from tests.model.ways import WAYS


@dataclass
class Done:
    """What a client was told and what it saw."""

    errno: int
    told: list[dict[str, Any]]
    times: tuple[int, int]
    wrong: list[str]


def work(mount: Path, directory: Path, submission: Submission, way: str) -> Done:
    """Write one file, read its receipt, and check read-your-writes."""
    begin = time.time_ns()
    told = WAYS[way](mount / "inbox" / submission.area / submission.name, submission.data, directory)
    end = time.time_ns()
    receipt = mount / "receipts" / ("dry-run" if submission.dry_run else "") / submission.name
    lines = receipt_lines(receipt.read_text())
    wrong = [] if submission.dry_run else list(_unread(mount, submission, lines))
    return Done(told, lines, (begin, end), wrong)


def _unread(mount: Path, submission: Submission, lines: list[dict[str, Any]]) -> Iterator[str]:
    """What was committed, says the receipt, and cannot be read though close() has returned."""
    for line in lines:
        if line["status"] not in ("committed", "duplicate"):
            continue
        names = set(_accounts(submission, line["line"]))
        if "tx" in line:
            path = mount / "transactions" / f"{line['tx']}.json"
            text = path.read_bytes()
            entry = json.loads(text)
            names |= {posting["account"] for posting in entry["postings"]}
            if path.stat().st_size != len(text) or (entry["index"] != line["index"] and entry.get("type") != "opening"):
                yield f"{line}: {path} holds {entry}"
        for name in names:
            yield from _unread_account(mount / "accounts" / name, line)


def _accounts(submission: Submission, number: int) -> Iterator[str]:
    """The accounts that a line names."""
    for text, line, _ in submission.units():
        intent = judge(text)
        if line == number and isinstance(intent, Intent):
            named = (intent.account, intent.debit, intent.credit, *(posting.account for posting in intent.postings))
            yield from (name for name in named if name)


def _unread_account(directory: Path, line: dict[str, Any]) -> Iterator[str]:
    index = line["index"]
    balance = json.loads((directory / "balance.json").read_text())
    if balance["as_of"]["index"] < index:
        yield f"{line}: {directory}/balance.json is older: {balance}"
    size = (directory / "tx.log").stat().st_size
    log = (directory / "tx.log").read_bytes()
    entries = [json.loads(entry) for entry in log.splitlines()]
    if size > len(log) or not any(entry["index"] == index for entry in entries):
        yield f"{line}: {directory}/tx.log of {size} bytes, of which {len(log)} were read, lacks it"


class Process:
    """A client in a process of its own."""

    def __init__(self, mount: Path, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.client", str(mount), str(directory)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, tasks: list[tuple[Submission, str]]) -> None:
        """Have it write these files, one after the other."""
        assert self._process.stdin is not None
        packed = [[item.name, base64.b64encode(item.data).decode(), item.area, way] for item, way in tasks]
        self._process.stdin.write(json.dumps(packed) + "\n")
        self._process.stdin.flush()

    def end(self) -> list[Done]:
        """What came of them."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the client process ended"
        return [Done(told, lines, (begin, end), wrong) for told, lines, (begin, end), wrong in json.loads(line)]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Serve requests until stdin ends."""
    mount, directory = map(Path, sys.argv[1:])
    for request in sys.stdin:
        answers = []
        for name, data, area, way in json.loads(request):
            done = work(mount, directory, Submission(name, base64.b64decode(data), area), way)
            answers.append([done.errno, done.told, done.times, done.wrong])
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
