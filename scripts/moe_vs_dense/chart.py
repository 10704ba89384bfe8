"""A line chart with error bars as SVG: both axes logarithmic, dark and light, a few kB, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 74
STYLE = (
    "text{font:12px sans-serif;fill:#333}.f{stroke:#999;fill:none}.g{stroke:#ddd}.a{stroke:#1769aa;fill:#1769aa}"
    ".b{stroke:#c2410c;fill:#c2410c}.one{stroke:#555;stroke-dasharray:2 3}.l{fill:none;stroke-width:2}"
    ".d{stroke-dasharray:6 4;stroke-width:1.5}@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}"
    ".a{stroke:#6cb6ff;fill:#6cb6ff}.b{stroke:#fb923c;fill:#fb923c}.one{stroke:#bbb}.l{fill:none}}"
)


@dataclass(frozen=True)
class Point:
    """One point, all values above zero; ``low`` and ``high`` are None without an interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """A line through measured points, or a ``predicted`` one (dashed, without marks). ``colour`` is a or b."""

    name: str
    points: Sequence[Point]
    colour: str
    predicted: bool = False


@dataclass(frozen=True)
class Chart:
    """``level`` draws a horizontal line. ``ticks`` are places on the x axis, round numbers if there are none. Series
    without points are left out."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    level: float | None = None
    ticks: Sequence[float] = ()


def svg(chart: Chart) -> str:
    """The chart as a file; '' without two points to draw."""
    series = [one for one in chart.series if one.points]
    points = [point for one in series for point in one.points]
    if len(points) < 2:
        return ""
    across = _Scale([point.x for point in points], LEFT, WIDTH - RIGHT)
    heights = [value for p in points for value in (p.y, p.low, p.high) if value] + (
        [chart.level] if chart.level else []
    )
    up = _Scale(heights, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(chart.title)}</title><style>{STYLE}</style>",
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(chart.title)}</text>',
        *_grid(across, up, chart.ticks),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 40}" text-anchor="middle">{escape(chart.x_label)}</text>',
        f'<text x="14" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2})">{escape(chart.y_label)}</text>',
    ]
    if chart.level:
        y = up.at(chart.level)
        parts.append(f'<line class="one" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    for number, one in enumerate(series):
        parts += [*_line(one, across, up), *_legend(one, number)]
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """From a value to a place, by its logarithm; a little room is left at both ends."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = math.log(min(values)), math.log(max(values))
        room = 0.05 * (high - low) or 0.1
        self._low, self._high, self._start, self._end = low - room, high + room, start, end

    def at(self, value: float) -> float:
        share = (math.log(value) - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        """Round numbers inside: powers of ten times 1, 2 and 5; finer ones where those are fewer than three."""
        span = range(math.floor(self._low / math.log(10)), math.ceil(self._high / math.log(10)) + 1)
        for steps in ((1, 2, 5), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), [1 + i / 20 for i in range(180)]):
            found = [step * 10**power for power in span for step in steps]
            inside = [value for value in found if self._low <= math.log(value) <= self._high]
            if len(inside) >= 3:
                break
        return inside[:: max(1, len(inside) // 9)]


def _grid(across: _Scale, up: _Scale, ticks: Sequence[float]) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks or across.ticks():
        x = across.at(value)
        parts.append(f'<line class="g" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<line class="g" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    return [*parts, f'<rect class="f" x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"/>']


def _line(one: Series, across: _Scale, up: _Scale) -> list[str]:
    places = [(across.at(point.x), up.at(point.y), point) for point in one.points]
    path = " ".join(f"{x},{y}" for x, y, _ in places)
    if one.predicted:
        return [f'<polyline class="{one.colour} l d" points="{path}"/>']
    parts = [f'<polyline class="{one.colour} l" points="{path}"/>']
    for x, y, point in places:
        parts.append(f'<circle class="{one.colour}" cx="{x}" cy="{y}" r="3.5"/>')
        if point.low and point.high:
            low, high = up.at(point.low), up.at(point.high)
            parts.append(f'<line class="{one.colour}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
            parts += [
                f'<line class="{one.colour}" x1="{x - 4}" x2="{x + 4}" y1="{y0}" y2="{y0}"/>' for y0 in (low, high)
            ]
    return parts


def _legend(one: Series, number: int) -> list[str]:
    x, y = LEFT + 280 * (number % 2), HEIGHT - 22 + 15 * (number // 2)
    dashed = " d" if one.predicted else ""
    return [
        f'<line class="{one.colour} l{dashed}" x1="{x}" x2="{x + 26}" y1="{y - 4}" y2="{y - 4}"/>',
        f'<text x="{x + 32}" y="{y}">{escape(one.name)}</text>',
    ]
