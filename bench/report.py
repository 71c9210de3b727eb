"""docs/BENCHMARKS.md and its plots, made of files of results and of what people wrote in bench/remarks/.

usage: python -m bench.report [RESULTS...] [--write docs/BENCHMARKS.md]

Without files it takes all of bench/results/. The same files give the same bytes; a test compares them with what is committed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench import aims, record, svg
from bench.aims import Judged
from bench.measure import REPOSITORY
from ledgerfsd.errors import LedgerError

RESULTS: Final = REPOSITORY / "bench" / "results"
REMARKS: Final = REPOSITORY / "bench" / "remarks"
TARGET: Final = REPOSITORY / "docs" / "BENCHMARKS.md"
PLOTS: Final = "plots"
RATES: Final = ("tx/s", "/s", "1/s", "entries/s", "events/s")
SERIES: Final = {  # of sustained and flat: what stands over each panel
    "rate": "transactions a second",
    "own_mib": "own memory of the daemon, MiB",
    "mapped_mib": "mapped files (the kernel takes them back when it needs memory), MiB",
    "disk_mib": "store on the disk, MiB",
    "close_p99_ms": "a file, due to close(), p99, ms",
    "read_p99_ms": "balance.json read beside, p99, ms",
}
ALONG: Final = {"millions": "millions of transactions", "seconds": "seconds"}
HEAD: Final = """# Benchmarks

<!-- Made by `make bench-report` of bench/results/*.json and bench/remarks/. Do not write here: words belong into bench/remarks/. -->
"""

Results = list[tuple[str, dict[str, Any]]]  # the name of a file without its ending, and what is in it


def main() -> int:
    """Make them. Returns 2 when a file cannot be used."""
    parser = argparse.ArgumentParser(
        prog="bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="*", metavar="RESULTS", help="files that `make bench` made")
    parser.add_argument("--write", type=Path, default=TARGET, help="the document; plots/ is made beside it")
    options = parser.parse_args()
    try:
        made = make(options.results or sorted(RESULTS.glob("*.json")))
    except LedgerError as error:
        print(f"bench.report: {error}" + (f"; {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2
    write(made, options.write)
    print(f"{options.write} and {len(made) - 1} plots")
    return 0


def make(paths: Sequence[Path]) -> dict[str, str]:
    """Name below the folder of the document ("" for itself) and content. Raises LedgerError."""
    results = [(path.stem, record.load(path)) for path in paths]
    results.sort(key=lambda each: (_newest(each[1]), each[0]), reverse=True)
    judged = [aims.judge(aim, results) for aim in aims.load()]
    files: dict[str, str] = {}
    parts = [HEAD, (REMARKS / "introduction.md").read_text(encoding="utf-8")]
    parts += _aims(judged, files)
    for name, data in results:
        parts += _machine(name, data, files)
    parts.append((REMARKS / "history.md").read_text(encoding="utf-8"))
    return {"": "\n".join(part.strip("\n") + "\n" for part in parts)} | files


def write(made: dict[str, str], target: Path) -> None:
    """Put the document in its place, and its plots beside it; plots of other results go."""
    plots = target.parent / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    for path in plots.glob("*.svg"):
        path.unlink()
    for name, text in made.items():
        (target.parent / name if name else target).write_text(text, encoding="utf-8")


def _newest(data: dict[str, Any]) -> str:
    return max((str(each["began"]) for each in data["measurements"].values()), default="")


def _aims(judged: Sequence[Judged], files: dict[str, str]) -> Iterator[str]:
    yield "## What it is to reach, and what it does\n"
    yield "Median, least and most of all runs. *Of the aim*: 1 and more has reached it (of what it must reach, where there is no aim).\n"
    yield _table(
        ("measure", "must", "aim", "measured", "of the aim", "results", "command"),
        [
            (
                each.aim.measure,
                _goal(each.aim.must, each.unit),
                _goal(each.aim.aim, each.unit),
                each.absent or _spread(each.values, each.unit),
                _of_aim(each),
                each.machine + (" (busy machine)" if each.busy else ""),
                f"`{each.command}`",
            )
            for each in judged
        ],
    )
    known = [each for each in judged if each.reached is not None]
    if known:
        rows = [
            svg.Bar(each.aim.measure[:90], each.reached, each.reached, each.reached, int(each.short))
            for each in known
            if each.reached is not None
        ]
        files[f"{PLOTS}/aims.svg"] = svg.bars("How much of each aim is reached", "1: reached", rows, log=True, mark=1.0)
        yield f"![How much of each aim is reached]({PLOTS}/aims.svg)\n"
    lacking = [each for each in known if each.short]
    if lacking:
        yield "## Where it falls short, and why\n"
        yield "\n".join(
            f"* **{each.aim.measure}**: {show(each.median, each.unit)} ({_goals(each)}). "
            + (f"Why: {each.aim.reason}. " if each.aim.reason else "Why: not looked into yet. ")
            + (f"What would change it: {each.aim.change}." if each.aim.change else "")
            for each in lacking
        )


def _of_aim(each: Judged) -> str:
    if each.reached is None:
        return ""
    return f"{each.reached:.2f}" + (
        " **misses what it must reach**" if each.missed else " **short**" if each.short else ""
    )


def _goals(each: Judged) -> str:
    goals = (("must", each.aim.must), ("aim", each.aim.aim))
    return ", ".join(f"{word} {_goal(goal, each.unit)}" for word, goal in goals if goal)


def _goal(goal: str, unit: str) -> str:
    if not goal:
        return ""
    sign, number = aims.parse_goal(goal)
    return f"{'≥' if sign == '>=' else '≤'} {show(number, unit)}"


def _machine(name: str, data: dict[str, Any], files: dict[str, str]) -> Iterator[str]:
    yield f"## Results: {name}\n"
    yield _table(("what", "is"), list((data["machine"] | data["code"]).items()))
    for key, measured in data["measurements"].items():
        yield f"### {key}: {measured['title'].strip().rstrip('.')}\n"
        commit = f"commit {measured['commit']}, " if "commit" in measured else ""
        when = f"{measured['began']}, {measured['seconds']} s"
        yield f"`{measured['command']}`, {commit}seed {measured['seed']}, {when}, {measured['settings']}.\n"
        if measured["unsafe"]:
            yield f"**UNSAFE: {', '.join(measured['unsafe'])}.** These figures count for nothing else.\n"
        if measured.get("quick"):
            yield "A quick run: it shows that the measurement works, and no more.\n"
        if measured.get("failed"):
            yield f"**FAILED: {measured['failed']}**\n"
        rows = [row for row in measured["rows"] if row["values"]]
        if rows:
            yield _table(
                ("measure", "median", "least", "most", "runs"),
                [
                    (
                        row["name"],
                        show(statistics.median(row["values"]), row["unit"]),
                        show(min(row["values"]), row["unit"]),
                        show(max(row["values"]), row["unit"]),
                        str(len(row["values"])),
                    )
                    for row in rows
                ],
            )
        for title, text in _plots(key, measured, rows):
            place = f"{PLOTS}/{name}-{title.split(',')[0].replace(' ', '-')}.svg"
            files[place] = text
            yield f"![{title}]({place})\n"
        if measured["notes"]:
            yield "\n".join(f"* {note}" for note in measured["notes"]) + "\n"


def _plots(key: str, measured: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Title (its first word or two name the file) and SVG."""
    rates = [row for row in rows if row["unit"] in RATES]
    if len(rates) > 1:
        yield f"{key} rates", svg.bars(f"{key}: rates", "a second", [_bar(row) for row in rates])
    for unit in ("ms", "us"):
        if latencies := _latencies([row for row in rows if row["unit"] == unit]):
            yield f"{key} latencies {unit}", svg.dots(f"{key}: latencies", unit, latencies)
    stages = [row for row in rows if row["unit"] == "ns"]
    if len(stages) > 1:
        yield f"{key} stages", svg.bars(f"{key}: stages", "ns", [_bar(row) for row in stages], log=True)
    series = measured["series"]
    for along, words in ALONG.items():
        if along in series:
            lines = [svg.Line(title, series[name]) for name, title in SERIES.items() if name in series]
            yield f"{key} over {along}", svg.lines(f"{key}: over {words}", words, series[along], lines)
            return


def _bar(row: dict[str, Any]) -> svg.Bar:
    values = row["values"]
    colour = next(
        (number for number, word in enumerate(("PostgreSQL", "TigerBeetle"), 1) if row["name"].startswith(word)), 0
    )
    return svg.Bar(row["name"], statistics.median(values), min(values), max(values), colour)


def _latencies(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, float]]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        name, _, percent = row["name"].rpartition(", p")
        if name and percent.replace(".", "").isdigit():
            found.setdefault(name, []).append((f"p{percent}", statistics.median(row["values"])))
    return [(name, values) for name, values in found.items() if len(values) > 1]


def _spread(values: Sequence[float], unit: str) -> str:
    text = show(statistics.median(values), unit)
    return text if len(values) == 1 else f"{text} ({show(min(values), '')} to {show(max(values), '')})"


def show(value: float, unit: str) -> str:
    """A number for people, with its unit."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit.replace('us', 'µs')}".strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
