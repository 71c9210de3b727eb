"""The rules of the ledger as plain-text tables: ``tables/*.txt``, one case after another.

A line is a directive and what it says; ``#`` begins a comment line. What stands before the first case of a file is done
before each of its cases.

    == A over B             begins a case; the title is free, but one of this form says that where the codes A and B
                            both apply A is answered: its first two expectations must be A and, after what led to A
                            was corrected, B
    places N                the ledger has room for N accounts (first line of a case)
    clock TIME              it is TIME from now on (before: 2026-03-02T09:00:00Z)
    ok JSON                 set-up: an intent that must be committed
    intent TEXT             submit one line
    system TEXT             submit an intent of the ledger's own, as only the daemon does
    each [dry-run] [from LINE] [as NAME]   submit the indented lines that follow, as a file of that name;
                            also ``atomic`` and ``document``
    again                   submit the same once more, from a file of the same name
    expect [LINES] CODE     its answer, for each result in turn: LINES is N or N-M (default 1); may be followed by
                            ``field NAME``, ``offset N``, ``duplicate``, ``index N``, ``tx N``
    expect nothing          no results at all
    writes KIND…            the kinds of the entries that the last submission wrote, seals left out; ``writes nothing``
    entry N JSON            what the N-th of them says, from 1; members that are not named may be anything, those that
                            are null are absent
    balance ACCOUNT CUR AMOUNT held AMOUNT [available AMOUNT] [STATUS]

Within what is submitted ``<<TEXT*N>>`` is TEXT N times, and ``<<hex FF 00>>`` these bytes.
An implementation of the ledger takes part by a ``Subject`` in ``IMPLEMENTATIONS``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from ledgerfsd.clock import ManualClock, parse_time
from ledgerfsd.core.engine import Engine
from ledgerfsd.core.pure.ledger import Ledger
from ledgerfsd.core.pure.rules import available, balance, held
from ledgerfsd.errors import BY_NAME, CODES
from ledgerfsd.limits import ACCOUNTS_MAX, SEGMENT_BYTES_MIN
from ledgerfsd.money import format_signed
from ledgerfsd.types import Account, Mode, Result

START = "2026-03-02T09:00:00Z"
ORIGIN = "ledger.example/tables"


class Subject(Protocol):
    """What a case needs of a ledger: every submission is sealed before it is answered."""

    def submit(
        self,
        data: bytes,
        *,
        source: bytes,
        first_line: int,
        mode: Mode,
        dry_run: bool,
        now_ns: int,
        system: bool = False,
    ) -> list[Result]: ...

    def account(self, name: str) -> Account:
        """Raises KeyError when there is none."""

    def entries(self) -> Sequence[bytes]: ...

    def close(self) -> None: ...


class PureSubject:
    """The twin in plain Python."""

    def __init__(self, accounts_max: int) -> None:
        self.ledger = Ledger.create(ORIGIN, parse_time(START), accounts_max=accounts_max)

    def submit(
        self,
        data: bytes,
        *,
        source: bytes,
        first_line: int,
        mode: Mode,
        dry_run: bool,
        now_ns: int,
        system: bool = False,
    ) -> list[Result]:
        results = self.ledger.submit(
            data, source=source, first_line=first_line, mode=mode, dry_run=dry_run, now_ns=now_ns, system=system
        )
        self.ledger.seal(now_ns)
        return results

    def account(self, name: str) -> Account:
        return self.ledger.account(name)

    def entries(self) -> Sequence[bytes]:
        return self.ledger.entries

    def close(self) -> None:
        """Nothing to close."""


class CoreSubject:
    """The C core, on a store of its own."""

    def __init__(self, accounts_max: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        store = Path(self.folder.name)
        (store / "journal").mkdir()
        Engine.create(store, ORIGIN, segment_bytes=SEGMENT_BYTES_MIN, now_ns=parse_time(START) or 0)
        self.engine = Engine(store, segment_bytes=SEGMENT_BYTES_MIN, accounts_max=accounts_max)
        self.engine.start()

    def submit(
        self,
        data: bytes,
        *,
        source: bytes,
        first_line: int,
        mode: Mode,
        dry_run: bool,
        now_ns: int,
        system: bool = False,
    ) -> list[Result]:
        self.engine.submit(
            data, source=source, first_line=first_line, mode=mode, dry_run=dry_run, now_ns=now_ns, system=system
        )
        self.engine.drain()
        (completion,) = self.engine.completions()
        return [completion[position] for position in range(len(completion))]

    def account(self, name: str) -> Account:
        ordinal = self.engine.ordinal(name.encode())
        if ordinal < 0:
            raise KeyError(name)
        return self.engine.account(ordinal)

    def entries(self) -> Sequence[bytes]:
        return [bytes(self.engine.entry(index)) for index in range(self.engine.counts().entries)]

    def close(self) -> None:
        self.engine.close()
        self.folder.cleanup()


IMPLEMENTATIONS: dict[str, Callable[[int], Subject]] = {"pure": PureSubject, "core": CoreSubject}


# -- reading the tables


class Step(NamedTuple):
    """One directive."""

    where: str  # file:line
    verb: str
    text: str
    block: list[str]


class Case(NamedTuple):
    """One case, with the set-up of its file before it."""

    name: str
    title: str
    steps: list[Step]


def read_table(path: Path) -> list[Case]:
    before: list[Step] = []
    cases: list[Case] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        steps = cases[-1].steps if cases else before
        if line.startswith("== "):
            title = line[3:].strip()
            cases.append(Case(f"{path.stem}:{title}", title, list(before)))
        elif line.startswith("    "):
            steps[-1].block.append(line[4:])
        elif line.strip() and not line.startswith("#"):
            verb, _, text = line.partition(" ")
            steps.append(Step(f"{path.name}:{number}", verb, text, []))
    return cases


TABLES = sorted((Path(__file__).parent / "tables").glob("*.txt"))
CASES = [case for path in TABLES for case in read_table(path)]


def expand(text: str) -> bytes:
    """Replaces what stands between << and >>, from the innermost outwards."""

    def replace(match: re.Match[bytes]) -> bytes:
        if match[1].startswith(b"hex "):
            return bytes.fromhex(match[1][4:].decode())
        what, _, times = match[1].rpartition(b"*")
        return what * int(times)

    data, count = text.encode("utf-8"), 1
    while count:
        data, count = re.subn(rb"<<((?:(?!<<|>>).)*)>>", replace, data, flags=re.DOTALL)
    return data


def compare(found: object, wanted: object, path: str) -> None:
    """Whether ``found`` says all that ``wanted`` does."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            if value is None:
                assert name not in found, f"{path}.{name}"
            else:
                compare(found.get(name), value, f"{path}.{name}")
    elif isinstance(wanted, list) and isinstance(found, list):
        assert len(found) == len(wanted), path
        for number, (each, value) in enumerate(zip(found, wanted, strict=True)):
            compare(each, value, f"{path}[{number}]")
    else:
        assert found == wanted, path


# -- running them


class Runner:
    """Carries one case out, step by step."""

    def __init__(self, make: Callable[[int], Subject], case: Case) -> None:
        places = [int(step.text) for step in case.steps if step.verb == "places"]
        self.subject = make(places[0] if places else ACCOUNTS_MAX)
        self.clock = ManualClock(parse_time(START))
        self.files = 0
        self.again: tuple[bytes, bytes, int, Mode, bool, bool] | None = None
        self.results: list[Result] = []
        self.written: list[bytes] = []

    def run(self, step: Step) -> None:
        if step.verb != "places":
            getattr(self, f"do_{step.verb}")(step)

    def submit(
        self, data: bytes, source: bytes, first_line: int, mode: Mode, dry_run: bool, system: bool = False
    ) -> None:
        assert not self.results, "the last submission has answers that no expectation names"
        before = len(self.subject.entries())
        self.again = (data, source, first_line, mode, dry_run, system)
        self.results = self.subject.submit(
            data,
            source=source,
            first_line=first_line,
            mode=mode,
            dry_run=dry_run,
            now_ns=self.clock.now_ns(),
            system=system,
        )
        new = [bytes(entry) for entry in self.subject.entries()[before:]]
        self.written = [entry for entry in new if json.loads(entry)["t"] != "seal/1"]

    def new_file(self) -> bytes:
        self.files += 1
        return b"file-%d.json" % self.files

    def do_clock(self, step: Step) -> None:
        self.clock.set(parse_time(step.text))

    def do_ok(self, step: Step) -> None:
        self.do_intent(step)
        assert [CODES[result.code].name for result in self.results] == ["ok"]
        self.results = []

    def do_intent(self, step: Step) -> None:
        self.submit(expand(step.text), self.new_file(), 1, Mode.EACH, False)

    def do_system(self, step: Step) -> None:
        self.submit(expand(step.text), self.new_file(), 1, Mode.DOCUMENT, False, True)

    def do_again(self, _step: Step) -> None:
        assert self.again is not None
        self.submit(*self.again)

    def _file(self, step: Step, mode: Mode) -> None:
        named = re.search(r"as (\S+)", step.text)
        first = re.search(r"from (\d+)", step.text)
        source = named[1].encode() if named else self.new_file()
        data = expand("\n".join(step.block))
        self.submit(data, source, int(first[1]) if first else 1, mode, "dry-run" in step.text)

    def do_each(self, step: Step) -> None:
        self._file(step, Mode.EACH)

    def do_atomic(self, step: Step) -> None:
        self._file(step, Mode.ATOMIC)

    def do_document(self, step: Step) -> None:
        self._file(step, Mode.DOCUMENT)

    def do_expect(self, step: Step) -> None:
        if step.text == "nothing":
            assert self.results == []
            return
        match = re.fullmatch(r"(?:(\d+)(?:-(\d+))? )?(\w+)((?: \w+ \S+| duplicate)*)", step.text)
        assert match, "not an expectation"
        first = int(match[1] or 1)
        wanted = dict(re.findall(r"(field|offset|index|tx) (\S+)", match[4]))
        for line in range(first, int(match[2] or first) + 1):
            assert self.results, f"no answer for line {line}"
            result = self.results.pop(0)
            assert (result.line, CODES[result.code].name) == (line, match[3])
            assert result.duplicate == ("duplicate" in match[4])
            assert {name: str(getattr(result, name)) for name in wanted} == wanted
            self.check_result(result)

    def check_result(self, result: Result) -> None:
        """What holds for every answer, said or not."""
        assert (result.block == 0) == (result.index == -1)
        assert result.field == "" or 30 <= result.code < 100
        assert result.offset == 0 or 10 <= result.code <= 18
        if result.index >= 0:
            entry = json.loads(bytes(self.subject.entries()[result.index]))
            assert entry["index"] == result.index
            assert entry.get("tx", 0) == result.tx
            assert entry.get("code", "ok") == CODES[result.code].name
            seals = (json.loads(bytes(each)) for each in self.subject.entries()[result.index :])
            assert next(each["height"] for each in seals if each["t"] == "seal/1") == result.block

    def do_writes(self, step: Step) -> None:
        kinds = [json.loads(entry)["t"] for entry in self.written]
        assert kinds == ([] if step.text == "nothing" else step.text.split())

    def do_entry(self, step: Step) -> None:
        number, _, text = step.text.partition(" ")
        compare(json.loads(self.written[int(number) - 1]), json.loads(text), "entry")

    def do_balance(self, step: Step) -> None:
        match = re.fullmatch(r"(\S+) (\S+) (\S+) held (\S+)(?: available (\S+))?(?: (open|frozen|closed))?", step.text)
        assert match, "not a balance"
        account = self.subject.account(match[1])
        assert account.currency == match[2]
        assert format_signed(balance(account), account.decimals) == match[3]
        assert format_signed(held(account), account.decimals) == match[4]
        if match[5]:
            assert format_signed(available(account), account.decimals) == match[5]
        if match[6]:
            assert account.status == match[6]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(implementation: str, case: Case) -> None:
    runner = Runner(IMPLEMENTATIONS[implementation], case)
    with contextlib.closing(runner.subject):
        carry_out(runner, case)


def carry_out(runner: Runner, case: Case) -> None:
    for step in case.steps:
        try:
            runner.run(step)
        except AssertionError as error:
            raise AssertionError(f"{step.where}: {step.verb} {step.text[:200]}\n{error}") from error
    assert not runner.results, f"{case.name}: the last submission has answers that no expectation names"


# -- what the tables must contain


def expected_codes(case: Case) -> list[str]:
    expectations = (re.sub(r"^[\d-]+ ", "", step.text).split()[0] for step in case.steps if step.verb == "expect")
    return [name for name in expectations if name != "nothing"]


def test_titles_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_code_is_reached() -> None:
    # already_committed is no answer to an intent: it is given to who goes on writing after a document was complete.
    wanted = {code.name for code in CODES.values() if code.number <= 160} - {"already_committed"}
    assert wanted - {name for case in CASES for name in expected_codes(case)} == set()


# The codes that each type of intent can meet, in the order of the table, from 30 on. Where two neighbours can apply to
# one intent, a case shows which of them is answered.
CHAINS = {
    "transfer": "30 31 32 33 34 35 36 37 38 44 45 50 51 100 110 111 120 121 130 131 145 149 150",
    "huge transfer": "50 52 100",
    "transaction": "35 36 37 38 41 44 45 48 51 52 100 110 111 120 121 122 130 131 145 149 150 152",
    "long transaction": "45 49 51",
    "hold": "37 39 44 45 50 100 110 111 120 121 130 131 146 149 150",
    "open_account": "35 36 37 40 41 42 43 44 45 52 100 110 112 120 121 130",
    "open_account, frozen equity": "121 131 149 150",
    "open_account, no place left": "150 153",
    "post": "34 36 38 44 100 113",
    "post again": "131 140 143 145",
    "post a voided hold": "131 141 143",
    "post an expired hold": "131 142 143",
    "reverse": "34 38 44 45 47 100 114",
    "reverse again": "131 144 145",
    "freeze": "34 35 44 45 100 111",
    "unfreeze": "130 132",
    "close_account": "131 133",
    "register_currency": "33 34 37 44 45 46 100 115",
    "close_period": "34 38 44 45 100 147",
}


def test_every_precedence_is_shown() -> None:
    pairs = {
        (CODES[int(low)].name, CODES[int(high)].name)
        for chain in CHAINS.values()
        for low, high in itertools.pairwise(chain.split())
    }
    shown = set()
    for case in CASES:
        match = re.fullmatch(r"(\w+) over (\w+)(?:,.*)?", case.title)
        if match:
            assert expected_codes(case)[:2] == [match[1], match[2]], case.name
            assert BY_NAME[match[1]].number < BY_NAME[match[2]].number, case.name
            shown.add((match[1], match[2]))
    assert sorted(pairs - shown) == []
