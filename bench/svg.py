"""Plots as SVG text: bars with their spread, percentiles as dots, and series over a common axis. The same numbers give the same bytes.

There is no library behind it, because what libraries draw changes with their versions (docs/adr/0039).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 960
ROW: Final = 22
TOP: Final = 52
LABEL_PIXELS: Final = 6.4  # of a letter, about
COLOURS: Final = ("#2c6fbb", "#c8553d", "#4a8c4a", "#8a5fa8", "#a17a2a", "#5a7d8c")
DASH: Final = "#d8dce0"
SHADES: Final = ("#9cc3e6", "#5f9bd1", "#2c6fbb", "#123f73")


class Bar(NamedTuple):
    """A figure: its median, and the least and the most of all runs."""

    label: str
    median: float
    least: float
    most: float
    colour: int = 0


class Line(NamedTuple):
    """A series of its own scale."""

    label: str
    values: Sequence[float]


def short(value: float) -> str:
    """For an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def ticks(most: float) -> list[float]:
    """Five or so round numbers from 0 to above ``most``."""
    most = most or 1.0
    step = 10 ** math.floor(math.log10(most))
    step = next((step * part for part in (0.2, 0.5, 1, 2) if most / (step * part) <= 6), step * 2)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def decades(least: float, most: float) -> list[float]:
    """Powers of ten around two positive numbers."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def bars(title: str, unit: str, rows: Sequence[Bar], *, log: bool = False, mark: float | None = None) -> str:
    """Lying bars; a line from the least to the most run; ``mark`` is a standing line at a value of interest."""
    left = _left([row.label for row in rows])
    values = [value for row in rows for value in (row.most, row.least)] + ([mark] if mark else [])
    scale = _Scale(left, _marks(values, log), log)
    body = scale.grid(len(rows))
    for number, row in enumerate(rows):
        y = TOP + ROW * number
        end = scale.at(row.median)
        body.append(_text(left - 8, y + 15, row.label, "end"))
        body.append(f'<rect x="{left}" y="{y + 4}" width="{end - left:.1f}" height="14" fill="{COLOURS[row.colour]}"/>')
        if row.most > row.least:
            body.append(_line(scale.at(row.least), y + 11, scale.at(row.most), y + 11, "#1b1f24"))
        body.append(_text(max(end, scale.at(row.most)) + 6, y + 15, short(row.median), "start"))
    if mark is not None:
        body.append(_line(scale.at(mark), TOP, scale.at(mark), TOP + ROW * len(rows), "#1b1f24", dashed=True))
    return _page(title, unit, TOP + ROW * len(rows) + 14, body)


def dots(title: str, unit: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """For each row some named values (percentiles, rising) on one logarithmic axis."""
    left = _left([label for label, _ in rows])
    scale = _Scale(left, _marks([value for _, values in rows for _, value in values], True), True)
    body = scale.grid(len(rows))
    for number, (label, values) in enumerate(rows):
        y = TOP + ROW * number + 11
        places = [scale.at(value) for _, value in values]
        body.append(_text(left - 8, y + 4, label, "end"))
        body.append(_line(places[0], y, places[-1], y, "#8a9299"))
        for (name, value), x, shade in zip(values, places, SHADES, strict=False):
            hover = f"<title>{escape(name)} {value:.4g} {escape(unit)}</title>"
            body.append(f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{shade}">{hover}</circle>')
    names = ", ".join(name for name, _ in rows[0][1])
    return _page(title, f"{unit}; from the left: {names}", TOP + ROW * len(rows) + 14, body)


def lines(title: str, along: str, places: Sequence[float], series: Sequence[Line]) -> str:
    """A panel for each series, one below the other, over the same ``places``."""
    left, height = 70, 110
    across = _Scale(left, ticks(max(places)), False)
    body: list[str] = []
    for number, each in enumerate(series):
        top = TOP + (height + 34) * number
        marks = ticks(max(*each.values, 1e-9))

        def y(value: float, top: int = top, most: float = marks[-1]) -> float:
            return top + height - height * value / most

        for mark in marks:
            body.append(_line(left, y(mark), WIDTH - 60, y(mark), DASH))
            body.append(_text(left - 6, y(mark) + 4, short(mark), "end"))
        points = " ".join(f"{across.at(x):.1f},{y(value):.1f}" for x, value in zip(places, each.values, strict=True))
        colour = COLOURS[number % len(COLOURS)]
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        body.append(_text(left, top - 8, each.label, "start"))
    bottom = TOP + (height + 34) * len(series) - 20
    body += [_text(across.at(mark), bottom, short(mark), "middle") for mark in across.marks]
    return _page(title, along, bottom + 14, body)


class _Scale:
    """Values to pixels from the left."""

    def __init__(self, left: float, marks: list[float], log: bool) -> None:
        self.left, self.marks, self._log = left, marks, log

    def at(self, value: float) -> float:
        first, last = self.marks[0], self.marks[-1]
        share = math.log(max(value, first) / first, last / first) if self._log else value / last
        return self.left + share * (WIDTH - 60 - self.left)

    def grid(self, rows: int) -> list[str]:
        found = []
        for mark in self.marks:
            found.append(_line(self.at(mark), TOP, self.at(mark), TOP + ROW * rows, DASH))
            found.append(_text(self.at(mark), TOP - 6, short(mark), "middle"))
        return found


def _marks(values: Sequence[float], log: bool) -> list[float]:
    positive = [value for value in values if value > 0] or [1.0]
    return decades(min(positive), max(positive)) if log else ticks(max(positive))


def _left(labels: Sequence[str]) -> int:
    return min(560, 24 + int(LABEL_PIXELS * max(len(label) for label in labels)))


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'


def _page(title: str, unit: str, height: float, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" '
        'font-family="sans-serif" font-size="12" fill="#1b1f24">'
    )
    heading = f'<text x="12" y="20" font-size="15" font-weight="bold">{escape(title)}</text>'
    sheet = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, sheet, heading, _text(WIDTH - 12, 20, unit, "end"), *body, "</svg>"]) + "\n"
