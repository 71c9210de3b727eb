"""The stages of the commit path in C, each by itself: parse, hash, apply, render, leaf hashes, roots, state tree, hash chain.

Processor time, as C sees it.
"""

from __future__ import annotations

from typing import Any, Final

from bench import workload
from bench.measure import Report, timed
from bench.micro import build

RENDERED: Final = 98_000  # leaves nearly a whole batch in hand
ROUNDS: Final = 10  # of what takes a batch at a time
LOG_ENTRIES: Final = 50_000_000 - 1  # before the batch: as many subtrees in hand as there may be, about
ROOTS: Final = 10


class Stages:
    """The C side, with ``accounts`` opened. ``with Stages(...) as stages``."""

    def __init__(self, accounts: int) -> None:
        module: Any = build.module()
        self._ffi, self._lib = module.ffi, module.lib
        self._stages = self._lib.lfs_stages_new(2 * accounts + 1_000)
        for piece in workload.open_accounts(accounts):
            self.feed(piece)

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.lfs_stages_free(self._stages)

    def feed(self, lines: bytes) -> Any:
        """The times of these lines; what stands behind the last newline is not looked at. Raises RuntimeError when one is refused."""
        times = self._ffi.new("lfs_stage_times *")
        self._lib.lfs_stages_feed(self._stages, self._ffi.from_buffer("uint8_t[]", lines), len(lines), times)
        if times.refused or times.intents != lines.count(b"\n"):
            raise RuntimeError(f"{times.refused} of {times.intents} intents were refused")
        return times

    def render(self, lines: bytes, rounds: int) -> int:
        """Nanoseconds for the first line, a transfer, rendered again and again."""
        spent = self._lib.lfs_stages_render(self._stages, self._ffi.from_buffer("uint8_t[]", lines), len(lines), rounds)
        if not spent:
            raise RuntimeError("the line is no transfer between accounts that are open")
        return int(spent)

    @property
    def entries(self) -> int:
        """In hand: what the hashes are taken of."""
        return int(self._lib.lfs_stages_entries(self._stages))

    def leaves(self) -> int:
        """Nanoseconds for the leaf hashes of all entries in hand."""
        return int(self._lib.lfs_stages_leaves(self._stages))

    def batch_root(self) -> int:
        """Nanoseconds for the root over those."""
        return int(self._lib.lfs_stages_batch_root(self._stages))

    def log_root(self, before: int) -> int:
        """Nanoseconds to append them to a log of so many entries, and for its root."""
        return int(self._lib.lfs_stages_log_root(self._stages, before))

    def chain(self) -> tuple[int, bytes]:
        """Nanoseconds for a chain of SHA-256 over the entries in hand, and its head."""
        head = self._ffi.new("uint8_t[32]")
        spent = int(self._lib.lfs_stages_chain(self._stages, head))
        return spent, bytes(self._ffi.buffer(head))

    def verify_chain(self, head: bytes) -> tuple[int, bool]:
        """Nanoseconds, and whether it is the head."""
        spent = self._ffi.new("uint64_t *")
        same = self._lib.lfs_stages_chain_verify(self._stages, head, spent)
        return int(spent[0]), bool(same)

    def state_root(self, touched: int, seed: int) -> int:
        """Nanoseconds for the state root after so many accounts have changed."""
        return int(self._lib.lfs_stages_state_root(self._stages, touched, seed))


def run(report: Report, *, seed: int, transactions: int, accounts: tuple[int, ...]) -> None:
    """All stages over each number of accounts, ``report.repeats`` times."""
    for turn in range(report.repeats):
        for count in accounts:
            with Stages(count) as stages:
                lines = workload.Payments(seed + turn, count, random_ids=True).lines(transactions)
                _commit(report, stages, lines, f"{count:,} accounts")
                _state(report, stages, count, seed + turn)
                if count == accounts[0]:
                    _hashes(report, stages)


def _commit(report: Report, stages: Stages, lines: bytes, where: str) -> None:
    with timed() as section:
        times = stages.feed(lines)
    report.spent(f"stages, {where}", section)
    report.add(f"parse and judge an intent, {where}", "ns", times.parse_ns / times.intents)
    report.add(f"hash an intent, 64 together, {where}", "ns", times.hash_ns / times.intents)
    report.add(f"apply, rendering included, {where}", "ns", times.apply_ns / times.intents)
    report.add(f"render an entry, {where}", "ns", stages.render(lines, RENDERED) / RENDERED)


def _hashes(report: Report, stages: Stages) -> None:
    entries = stages.entries
    with timed() as section:
        for name, stage in (
            ("leaf hash of an entry", stages.leaves),
            ("batch root, an entry", stages.batch_root),
            ("log root, an entry, 50 million before", lambda: stages.log_root(LOG_ENTRIES)),
        ):
            report.add(name, "ns", sum(stage() for _ in range(ROUNDS)) / ROUNDS / entries)
        made, head = stages.chain()
        verified, same = stages.verify_chain(head)
    if not same:
        raise RuntimeError("the hash chain does not have the head that it had")
    report.spent("hashes", section)
    report.add("hash chain made, an entry", "ns", made / entries)
    report.add("hash chain verified, an entry", "ns", verified / entries)
    report.note(f"hashes: of batches of {entries:,} entries")


def _state(report: Report, stages: Stages, accounts: int, seed: int) -> None:
    stages.state_root(0, seed)  # makes the tree
    for touched in sorted({min(accounts, 10_000), accounts}):
        with timed() as section:
            spent = sum(stages.state_root(touched, seed + number) for number in range(ROOTS)) / ROOTS
        name = f"state root, {touched:,} of {accounts:,} accounts changed"
        report.spent(name, section)
        report.add(f"{name}, an account", "ns", spent / touched)
