"""The table of aims (remarks/aims.toml) against what was measured: reached, or short by how much, and why."""

from __future__ import annotations

import re
import statistics
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ledgerfsd.errors import LedgerError

FILE: Final = Path(__file__).parent / "remarks" / "aims.toml"
_GOAL: Final = re.compile(r"(>=|<=) ([0-9.]+)")


class Aim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row. Goals are like ``>= 500000``, in the unit of the figure; empty: there is none, and the figure is only stated."""

    measure: str  # in words
    measurement: str  # the name for --only
    row: str  # the figure
    options: str = ""  # of `make bench`, without which that measurement has no such figure
    must: str = ""
    aim: str = ""
    reason: str = ""  # why it falls short, as measured
    change: str = ""  # what would change it


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An aim and what came of it."""

    aim: Aim
    unit: str = ""
    values: tuple[float, ...] = ()
    command: str = ""
    machine: str = ""
    busy: bool = (
        False  # other things ran on the machine before most of what was timed, or the host withheld it meanwhile
    )
    absent: str = ""  # why there is no figure

    @property
    def median(self) -> float:
        """Of all runs."""
        return statistics.median(self.values)

    def share(self, goal: str) -> float:
        """How much of a goal was reached: 1 and more is all of it."""
        sign, number = parse_goal(goal)
        return self.median / number if sign == ">=" else number / max(self.median, 1e-12)

    @property
    def reached(self) -> float | None:
        """How much of the aim, or, where there is none, of what it must reach; None: it is only stated."""
        goal = self.aim.aim or self.aim.must
        return self.share(goal) if goal and not self.absent else None

    @property
    def missed(self) -> bool:
        """It does not reach what it must."""
        return bool(self.aim.must) and not self.absent and self.share(self.aim.must) < 1

    @property
    def short(self) -> bool:
        """It misses the aim, or what it must reach."""
        return not self.absent and any(self.share(goal) < 1 for goal in (self.aim.must, self.aim.aim) if goal)


def parse_goal(goal: str) -> tuple[str, float]:
    """Sign and number. Raises LedgerError."""
    found = _GOAL.fullmatch(goal)
    if found is None:
        raise LedgerError(f"{FILE.name}: {goal!r} is no goal", hint="write it like '>= 500000' or '<= 10'")
    return found[1], float(found[2])


def load(path: Path = FILE) -> list[Aim]:
    """The rows of the table. Raises LedgerError when it cannot be read."""
    try:
        aims = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8"))["aim"], list[Aim])
    except (OSError, KeyError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise LedgerError(f"{path}: {error}") from None
    for aim in aims:
        for goal in filter(None, (aim.must, aim.aim)):
            parse_goal(goal)
    return aims


def judge(aim: Aim, results: Sequence[tuple[str, dict[str, Any]]]) -> Judged:
    """By the newest of these results (name and data of each file, in any order) that measured it in full, safely, and with the
    options that it needs; and while the host withheld no processor, if there are such: else the figures are the neighbours'."""
    usable = [
        (not measured.get("sections", {}).get("withheld"), measured["began"], name, measured)
        for name, data in results
        for key, measured in data["measurements"].items()
        if key == aim.measurement and not measured["unsafe"] and not measured.get("quick")
        if aim.options in measured["command"]
    ]
    if not usable:
        words = f"--only {aim.measurement} {aim.options}".rstrip()
        return Judged(aim=aim, absent="not measured yet", command=f"make bench BENCH_ARGS='{words}'")
    *_, name, measured = max(usable, key=lambda each: each[:3])
    for row in measured["rows"]:
        if row["name"] == aim.row and row["values"]:
            sections = measured.get("sections", {"all": 0, "busy": 0})
            return Judged(
                aim=aim,
                unit=row["unit"],
                values=tuple(row["values"]),
                command=measured["command"],
                machine=name,
                busy=2 * sections["busy"] > sections["all"] or sections.get("withheld", 0) > 0,
            )
    failed = measured.get("failed", "")
    absent = f"failed: {failed}" if failed else f"the measurement has no figure {aim.row!r}"
    return Judged(aim=aim, absent=absent, command=measured["command"], machine=name)
