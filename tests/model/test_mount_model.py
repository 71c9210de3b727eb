"""Random operations through a real mount agree, step by step, with the ledger in memory.

``MountMachine`` is one client and Hypothesis: after each step everything is compared. ``test_processes`` lets several client
processes write at the same time, round by round; the order in which they came is read back from the log. ``LEDGERFS_TEST_SEED``
chooses another run of both.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from ledgerfsd.core.pure.intent import Refusal, judge
from ledgerfsd.journal.layout import create
from ledgerfsd.types import Mode
from tests.conftest import LEDGER, SEGMENT_BYTES, Daemon
from tests.model.checks import Checker
from tests.model.client import Done, Process, work
from tests.model.intents import MALFORMED, OPENINGS, Source
from tests.model.reference import LAST_SYNTAX_CODE, Client, Reference, Submission, verdict
from tests.model.ways import AT_ONCE, CALLS, RENAMING, SHELLS

SEED = int(os.environ.get("LEDGERFS_TEST_SEED", "20261123"))
STEPS = 40
PROCESSES = 4
ROUNDS = 30
FILES_A_ROUND = 3
SHELL_SHARE = 0.15  # of the files, because a shell takes as long as ten of the others

randoms = st.randoms(use_true_random=False)


def way_for(submission: Submission, draw: random.Random) -> str:
    """A way of writing that leaves no doubt about what is judged together."""
    if submission.area == "atomic" and not submission.data.startswith(b'{"count"'):
        return draw.choice(RENAMING)
    texts = [text for text, _, mode in submission.units() if mode is not Mode.ATOMIC]
    whole = (
        submission.dry_run
        or submission.data in MALFORMED
        or any(
            isinstance(found, Refusal) and found.code <= LAST_SYNTAX_CODE and not _is_array(submission)
            for found in map(judge, texts)
        )
    )
    ways = sorted(SHELLS if draw.random() < SHELL_SHARE else CALLS)
    return draw.choice([way for way in ways if way in AT_ONCE or not whole])


def _is_array(submission: Submission) -> bool:
    return submission.name.endswith(".json") and submission.data.startswith(b"[")


class MountMachine(RuleBasedStateMachine):
    """One client of one mount."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="ledgerfs-model-"))
        self.store = create(self.place / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
        self.daemon = Daemon(self.store, self.place / "mount").start()
        self.mount = self.daemon.path
        self.reference = Reference(self.mount)
        self.checker = Checker(self.mount, self.reference)
        self.source = Source("f")
        self.restarted = False

    @initialize()
    def open_accounts(self) -> None:
        text = "".join(json.dumps(opening) + "\n" for opening in OPENINGS)
        self.step(Submission("open.ndjson", text.encode()), "whole")

    def draw(self, draw: random.Random, make: Callable[[], Submission]) -> None:
        self.source.random = draw
        submission = make()
        self.step(submission, way_for(submission, draw))

    def step(self, submission: Submission, way: str) -> None:
        """Write it, and compare everything."""
        note(f"{way}: {submission.area}/{submission.name}: {submission.data.decode(errors='backslashreplace')}")
        done = work(self.mount, self.place, submission, way)
        note(f"  errno {done.errno}: {done.told}")
        assert not done.wrong
        assert done.errno == verdict(done.told)
        client = Client()
        client.add(submission, done.told, done.times)
        self.reference.follow([client])
        self.checker.compare()

    def intent(self, draw: random.Random, make: Callable[[], dict[str, Any]]) -> None:
        self.source.random = draw
        submission = self.source.document(self.source.dressed(make()))
        self.step(submission, way_for(submission, draw))

    @rule(draw=randoms)
    def transfer(self, draw: random.Random) -> None:
        self.intent(draw, self.source.transfer)

    @rule(draw=randoms)
    def another_transfer(self, draw: random.Random) -> None:
        self.intent(draw, self.source.transfer)

    @rule(draw=randoms)
    def transaction(self, draw: random.Random) -> None:
        self.intent(draw, self.source.transaction)

    @rule(draw=randoms)
    def hold(self, draw: random.Random) -> None:
        self.intent(draw, self.source.hold)

    @rule(draw=randoms)
    def post(self, draw: random.Random) -> None:
        self.intent(draw, self.source.post)

    @rule(draw=randoms)
    def void(self, draw: random.Random) -> None:
        self.intent(draw, self.source.void)

    @rule(draw=randoms)
    def reverse(self, draw: random.Random) -> None:
        self.intent(draw, self.source.reverse)

    @rule(draw=randoms)
    def freeze_unfreeze_or_close(self, draw: random.Random) -> None:
        self.intent(draw, self.source.change)

    @rule(draw=randoms)
    def open_account(self, draw: random.Random) -> None:
        self.intent(draw, self.source.account)

    @rule(draw=randoms)
    def policy(self, draw: random.Random) -> None:
        self.intent(draw, self.source.policy)

    @rule(draw=randoms)
    def hold_that_expires_soon(self, draw: random.Random) -> None:
        self.intent(draw, self.source.soon)

    @rule(draw=randoms)
    def array(self, draw: random.Random) -> None:
        self.draw(draw, self.source.array)

    @rule(draw=randoms)
    def lines(self, draw: random.Random) -> None:
        self.draw(draw, self.source.lines)

    @rule(draw=randoms)
    def atomic_lines(self, draw: random.Random) -> None:
        self.draw(draw, lambda: self.source.lines("atomic"))

    @rule(draw=randoms)
    def malformed(self, draw: random.Random) -> None:
        self.draw(draw, self.source.malformed)

    @rule(draw=randoms)
    def dry_run(self, draw: random.Random) -> None:
        make = draw.choice((self.source.array, self.source.lines, self.source.malformed))
        self.draw(draw, lambda: make("dry-run"))

    @rule(draw=randoms)
    def the_same_file_again(self, draw: random.Random) -> None:
        self.draw(draw, self.source.again)

    @precondition(lambda self: not self.restarted and len(self.source.sent) > 8)
    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        self.restarted = True
        if kill:
            self.daemon.kill()
        else:
            assert self.daemon.stop() == 0
        self.daemon.start()
        self.reference.follow()
        self.checker.compare()

    def teardown(self) -> None:
        try:
            assert self.daemon.stop() == 0
            assert "Traceback" not in self.daemon.log.read_text()
        finally:
            self.daemon.kill()
            shutil.rmtree(self.place)


def test_one_client(fuse: None) -> None:
    """Step by step, with Hypothesis."""
    print(f"LEDGERFS_TEST_SEED={SEED}")
    examples = max(settings().max_examples // 10, 1)  # each is a daemon of its own and some forty steps
    # No shrinking: every try would be another daemon, and the notes of the failing example say what was written and answered.
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(SEED)(MountMachine), settings=chosen)


def _round(clients: list[Process], sources: list[Source], draw: random.Random) -> list[list[tuple[Submission, str]]]:
    """Hand every client its files, all at the same time."""
    tasks = []
    for source in sources:
        source.random = draw
        files = [source.submission() for _ in range(FILES_A_ROUND)]
        tasks.append([(submission, way_for(submission, draw)) for submission in files])
    for client, files_of_client in zip(clients, tasks, strict=True):
        client.begin(files_of_client)
    return tasks


def _check_round(answers: list[list[Done]], tasks: list[list[tuple[Submission, str]]], reference: Reference) -> None:
    clients = []
    for files, done_of_client in zip(tasks, answers, strict=True):
        client = Client()
        for (submission, way), done in zip(files, done_of_client, strict=True):
            assert not done.wrong, (way, submission)
            assert done.errno == verdict(done.told), (way, submission, done)
            client.add(submission, done.told, done.times)
        clients.append(client)
    reference.follow(clients)


@pytest.mark.parametrize("number", range(3))
def test_processes(mounted: Daemon, tmp_path: Path, number: int) -> None:
    """Several processes at once; the log says in which order, the reference says what must have come of it."""
    print(f"LEDGERFS_TEST_SEED={SEED}")
    draw = random.Random(f"{SEED}-{number}")
    reference = Reference(mounted.path)
    checker = Checker(mounted.path, reference)
    sources = [Source(f"p{which}-") for which in range(PROCESSES)]
    processes = [Process(mounted.path, tmp_path / f"client-{which}") for which in range(PROCESSES)]
    opening = Submission("open.ndjson", "".join(json.dumps(each) + "\n" for each in OPENINGS).encode())
    try:
        processes[0].begin([(opening, "whole")])
        _check_round([processes[0].end()], [[(opening, "whole")]], reference)
        for _ in range(ROUNDS):
            tasks = _round(processes, sources, draw)
            answers = [process.end() for process in processes]
            _check_round(answers, tasks, reference)
            checker.compare()
    finally:
        for process in processes:
            process.close()
    committed = len(reference.book.book.transactions)
    print(f"{committed} transactions, {len(reference.book.entries)} entries")
    assert committed > ROUNDS  # the intents mostly fit together; else this would be a test of refusals
