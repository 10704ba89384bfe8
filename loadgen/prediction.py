"""What the floors say of a comparison: at which batch size one model overtakes the other, if each ran at its floor.

In: the rooflines of every cell. Out: a `Predicted` for each group of cells that differ in concurrency alone, to stand
beside the crossing that was measured. An engine reaches another share of each floor, so that the two seldom agree; how
far they lie apart says how much of the result is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from loadgen.roofline import Roofline, crossings, gain
from loadgen.served import Serving

WHOLE = "whole request"
"""The measure of ``roofline.MEASURES`` whose inverse is the output tok/s of a closed loop."""

Rooflines = Mapping[tuple[str, str], Roofline]
"""By cell and target."""


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """Where the floors of two models cross between batch sizes ``first`` and ``last``, by whole requests of these mean
    lengths. ``group`` holds the other axes' values; ``at_first`` and ``at_last`` are how many times as fast the
    candidate is at the ends; ``crossings`` pairs of a batch size and the candidate's direction there."""

    baseline: str
    candidate: str
    group: dict[str, Any]
    input_tokens: float
    output_tokens: float
    first: int
    last: int
    at_first: float
    at_last: float
    crossings: tuple[tuple[float, Literal["overtakes", "falls behind"]], ...]
    sentence: str


def predictions(
    serving: Serving, cells: Mapping[str, Mapping[str, Any]], pair: tuple[str, str], rooflines: Rooflines
) -> Iterator[Predicted]:
    """One for each group of cells that differ in concurrency alone, at the lengths of the first of those that have both
    rooflines. None for a single concurrency, and where lengths or places differ between the cells."""
    groups: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for name, axes in cells.items():
        others = tuple((axis, value) for axis, value in axes.items() if axis.rpartition(".")[2] != "concurrency")
        groups.setdefault(others, []).append(name)
    for others, group in groups.items():
        names = [name for name in group if all((name, target) in rooflines for target in pair)]
        sizes = [size for name in names if (size := serving.cells[name].concurrency) is not None]
        sides = [[rooflines[name, target] for name in names] for target in pair]
        alike = all(_alike(one, side[0]) for side in sides for one in side)
        if len(sizes) == len(names) and len(set(sizes)) > 1 and alike:
            yield _predicted(pair, dict(others), (sides[0][0], sides[1][0]), (min(sizes), max(sizes)))


def _alike(one: Roofline, first: Roofline) -> bool:
    """Whether two cells differ in nothing that moves a crossing: lengths within 2 %, the same model and place."""
    near = math.isclose(one.input_tokens, first.input_tokens, rel_tol=0.02) and math.isclose(
        one.output_tokens, first.output_tokens, rel_tol=0.02
    )
    return near and (one.shape, one.gpu, one.gpus) == (first.shape, first.gpu, first.gpus)


def _predicted(
    pair: tuple[str, str], group: dict[str, Any], sides: tuple[Roofline, Roofline], span: tuple[int, int]
) -> Predicted:
    found = [one for one in crossings(*sides, span) if one.measure == WHOLE]
    at_first, at_last = (gain(*sides, WHOLE, size) for size in span)
    where = "".join(f", {axis.rpartition('.')[2]} {value}" for axis, value in group.items())
    course = ", ".join(f"{one.direction} at {one.at:.3g}" for one in found) or f"no crossing in {span[0]}..{span[1]}"
    return Predicted(
        baseline=pair[0],
        candidate=pair[1],
        group=group,
        input_tokens=sides[0].input_tokens,
        output_tokens=sides[0].output_tokens,
        first=span[0],
        last=span[1],
        at_first=at_first,
        at_last=at_last,
        crossings=tuple((one.at, one.direction) for one in found),
        sentence=(
            f"by the floors{where} {pair[1]} would serve requests {at_first:.2f} times as fast as {pair[0]} at batch "
            f"size {span[0]} and {at_last:.2f} times at {span[1]}: {course}"
        ),
    )
