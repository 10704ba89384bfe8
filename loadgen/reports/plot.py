"""A small plot for a terminal, both axes logarithmic. In: named lines of points. Out: lines of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from loadgen.shown import brief

HEIGHT = 12
MOST = 76
"""Columns of the widest plot: wider shows nothing more."""

Line = Sequence[tuple[float, float]]


def plot(lines: Mapping[str, Line], width: int, unicode: bool, level: float | None = None) -> list[str]:
    """At most two lines of at least two points each, all above zero, in ascending x.

    ``level`` draws a horizontal line at this height. Points are joined by straight lines between the logarithms; where
    two lines share a place, it has a mark of its own.
    """
    marks, both, rule, corner, side = ("●○", "◉", "┄", "└", "│") if unicode else ("ox", "*", "-", "+", "|")
    heights = [y for line in lines.values() for _, y in line] + ([level] if level else [])
    bottom, top = _span(heights)
    labels = [_label(top), _label(level) if level else "", _label(bottom)]
    margin = max(map(len, labels)) + 1
    columns = max(20, min(width, MOST) - margin - 1)
    canvas = [[" "] * columns for _ in range(HEIGHT)]
    if level:
        canvas[_row(level, bottom, top)] = [rule] * columns
    xs = [x for x, _ in next(iter(lines.values()))]
    for mark, line in zip(marks, lines.values(), strict=False):
        for column in range(columns):
            row = _row(_at(line, xs[0] * (xs[-1] / xs[0]) ** (column / (columns - 1))), bottom, top)
            canvas[row][column] = mark if canvas[row][column] in (" ", rule) else both
    named = {HEIGHT - 1: labels[2], 0: labels[0]}
    if level:
        named.setdefault(_row(level, bottom, top), labels[1])
    drawn = [f"{named.get(row, ''):>{margin - 1}} {side}{''.join(cells)}".rstrip() for row, cells in enumerate(canvas)]
    drawn.append(" " * margin + corner + _ticks(xs, columns))
    return [*drawn, *(f"{' ' * margin} {mark} {name}" for mark, name in zip(marks, lines, strict=False))]


def _span(heights: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest; a little apart where they are one."""
    bottom, top = min(heights), max(heights)
    return (bottom, top) if top > bottom * 1.001 else (bottom / 1.1, top * 1.1)


def _row(y: float, bottom: float, top: float) -> int:
    """The row of a height, 0 at the top."""
    share = math.log(y / bottom) / math.log(top / bottom)
    return min(HEIGHT - 1, max(0, round((1 - share) * (HEIGHT - 1))))


def _at(line: Line, x: float) -> float:
    """The height of a line at x; that of its nearer end outside of it."""
    for (x0, y0), (x1, y1) in pairwise(line):
        if x <= x1:
            share = max(0.0, math.log(x / x0) / math.log(x1 / x0))
            return y0 * math.pow(y1 / y0, share)
    return line[-1][1]


def _label(value: float) -> str:
    return brief(value, 3)


def _ticks(xs: Sequence[float], columns: int) -> str:
    """The x values below their places; one that would touch its neighbour is left out."""
    text, free = [" "] * columns, 0
    for x in xs:
        label = f"{x:g}"
        place = round(math.log(x / xs[0]) / math.log(xs[-1] / xs[0]) * (columns - 1))
        start = min(place, columns - len(label))
        if start >= free:
            text[start : start + len(label)] = label
            free = start + len(label) + 1
    return "".join(text).rstrip()
