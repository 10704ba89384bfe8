"""The plot of a series: nights from left to right, the band that was expected of each, and where epochs begin.

In: the entries of a series. Out: a `Plot`, which is places on a sheet of `WIDTH` x `HEIGHT`; the template draws it as
SVG, so that names are escaped where everything else is. Pure functions.

Nights stand side by side whatever lies between them: a baseline counts nights, not days. A state has a shape of its
own besides its colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec

from loadgen.nights.baseline import Entry
from loadgen.shown import brief

WIDTH, HEIGHT = 720.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 12.0, 14.0, 26.0
TICKS = 4
"""About so many lines across."""


class Mark(msgspec.Struct, frozen=True):
    """A night: where it stands, its state, and what is shown when it is pointed at."""

    x: float
    y: float
    state: str
    run: str
    text: str


class Plot(msgspec.Struct, frozen=True):
    """``bands`` are outlines of closed shapes and ``normals`` lines, as SVG writes paths; ``epochs`` are the x at which
    one begins; ``ticks`` are (y, label); ``dates`` are (x, label, SVG's text-anchor)."""

    marks: Sequence[Mark]
    bands: Sequence[str]
    normals: Sequence[str]
    epochs: Sequence[float]
    ticks: Sequence[tuple[float, str]]
    dates: Sequence[tuple[float, str, str]]


def drawn(entries: Sequence[Entry]) -> Plot | None:
    """The plot of these nights; None where not one has a value."""
    heights = [value for entry in entries for value in _heights(entry)]
    if not heights:
        return None
    low, high = _span(heights)
    step = (WIDTH - LEFT - RIGHT) / len(entries)

    def x(i: float) -> float:
        return round(LEFT + step * i, 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    return Plot(
        marks=[_mark(entry, x(i + 0.5), y) for i, entry in enumerate(entries)],
        bands=[_outline(entries, part, x, y) for part in _parts(entries)],
        normals=[_middle(entries, part, x, y) for part in _parts(entries)],
        epochs=[x(i) for i in range(1, len(entries)) if entries[i].epoch != entries[i - 1].epoch],
        ticks=[(y(value), brief(value)) for value in _ticks(low, high)],
        dates=list(_dates(entries, x)),
    )


def _heights(entry: Entry) -> Iterator[float]:
    if entry.point.value is not None:
        yield entry.point.value
    if entry.verdict is not None and entry.verdict.expected is not None:
        yield from entry.verdict.expected


def _span(heights: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest with some room; a little apart where they are one."""
    low, high = min(heights), max(heights)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _mark(entry: Entry, x: float, y: Callable[[float], float]) -> Mark:
    """A night without a value stands at the foot."""
    value = entry.point.value
    said = "no good repeat" if value is None else brief(value)
    text = f"{entry.point.at[:16].replace('T', ' ')}: {said}, {entry.state.value}"
    return Mark(x, HEIGHT - BOTTOM - 6 if value is None else y(value), entry.state.value, entry.point.run, text)


def _parts(entries: Sequence[Entry]) -> list[list[int]]:
    """Nights side by side of which something was expected, of one epoch each."""
    parts: list[list[int]] = []
    for i, entry in enumerate(entries):
        if entry.verdict is None or entry.verdict.expected is None:
            continue
        if parts and parts[-1][-1] == i - 1 and entries[i - 1].epoch == entry.epoch:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts


def _steps(part: Sequence[int], heights: Sequence[float], x: Callable[[float], float]) -> list[str]:
    """The corners of a line that holds each night's height over the night's whole width."""
    return [f"{x(i + side)} {height}" for i, height in zip(part, heights, strict=True) for side in (0, 1)]


def _outline(
    entries: Sequence[Entry], part: Sequence[int], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    bands = [_expected(entries[i]) for i in part]
    above = _steps(part, [y(high) for _, high in bands], x)
    below = _steps(part, [y(low) for low, _ in bands], x)
    return f"M{' L'.join([*above, *reversed(below)])} Z"


def _middle(
    entries: Sequence[Entry], part: Sequence[int], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    """What is normal: the band is the same on either side of it by ratio."""
    middles = [y(math.sqrt(low * high)) for low, high in (_expected(entries[i]) for i in part)]
    return f"M{' L'.join(_steps(part, middles, x))}"


def _expected(entry: Entry) -> tuple[float, float]:
    """Of a night in a part (see `_parts`), which has one."""
    return (entry.verdict.expected if entry.verdict is not None else None) or (math.nan, math.nan)


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _dates(entries: Sequence[Entry], x: Callable[[float], float]) -> Iterator[tuple[float, str, str]]:
    """The days of the first and the last night, and of one between them where there is room."""
    n = len(entries)
    yield x(0), entries[0].point.at[:10], "start"
    if n >= 9:
        yield x(n // 2 + 0.5), entries[n // 2].point.at[:10], "middle"
    if n > 1:
        yield x(n), entries[-1].point.at[:10], "end"
