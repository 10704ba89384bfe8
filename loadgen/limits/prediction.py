"""What the floors say of a comparison: at which batch size one model overtakes the other, if each ran at its floor.

In: the rooflines of every cell. Out: a `Predicted` for each group of cells that differ in concurrency alone, to stand
beside the crossing that was measured. An engine reaches another share of each floor, so that the two seldom agree; how
far they lie apart says how much of the result is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from loadgen.limits.served import Serving
from loadgen.shapes.roofline import Roofline, crossings, gain

WHOLE = "whole request"
"""The measure of ``roofline.MEASURES`` whose inverse is the output tok/s of a closed loop."""

ALIKE = 0.2
"""Mean lengths of cells that are taken together: at most this much from their mean. Natural prompts vary that much."""

Rooflines = Mapping[tuple[str, str], Roofline]
"""By cell and target."""


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """Where the floors of two models cross between batch sizes ``first`` and ``last``, by whole requests of these mean
    lengths. ``group`` holds the other axes' values; ``at_first`` and ``at_last`` are how many times as fast the
    candidate is at the ends; ``crossings`` pairs of a batch size and the candidate's direction there."""

    baseline: str
    candidate: str
    group: dict[str, Any]
    input_tokens: int
    output_tokens: int
    first: int
    last: int
    at_first: float
    at_last: float
    crossings: tuple[tuple[float, Literal["overtakes", "falls behind"]], ...]
    sentence: str


def predictions(
    serving: Serving, cells: Mapping[str, Mapping[str, Any]], pair: tuple[str, str], rooflines: Rooflines
) -> Iterator[Predicted]:
    """One for each group of cells that differ in concurrency alone, at the mean lengths of those that have both
    rooflines. None for a single concurrency, and where lengths, models or places differ between the cells."""
    groups: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for name, axes in cells.items():
        others = tuple((axis, value) for axis, value in axes.items() if axis.rpartition(".")[2] != "concurrency")
        groups.setdefault(others, []).append(name)
    for others, group in groups.items():
        names = [name for name in group if all((name, target) in rooflines for target in pair)]
        sizes = [size for name in names if (size := serving.cells[name].concurrency) is not None]
        if len(sizes) == len(names) and len(set(sizes)) > 1:
            sides = _sides([[rooflines[name, target] for name in names] for target in pair])
            if sides is not None:
                yield _predicted(pair, dict(others), sides, (min(sizes), max(sizes)))


def _sides(sides: Sequence[Sequence[Roofline]]) -> tuple[Roofline, Roofline] | None:
    """Baseline and candidate at the same, mean lengths; None where the cells are not alike."""
    every = [one for side in sides for one in side]
    lengths = [math.fsum(one.input_tokens for one in every) / len(every)]
    lengths += [math.fsum(one.output_tokens for one in every) / len(every)]
    if not all(_near(one.input_tokens, lengths[0]) and _near(one.output_tokens, lengths[1]) for one in every):
        return None
    if any(
        (one.shape, one.gpu, one.gpus) != (side[0].shape, side[0].gpu, side[0].gpus) for side in sides for one in side
    ):
        return None
    baseline, candidate = (
        msgspec.structs.replace(side[0], input_tokens=round(lengths[0]), output_tokens=round(lengths[1]))
        for side in sides
    )
    return baseline, candidate


def _near(length: float, mean: float) -> bool:
    return abs(length - mean) <= ALIKE * mean


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
            f"by their floors ({sides[0].input_tokens} tokens in, {sides[0].output_tokens} out{where}) {pair[1]} would "
            f"be {at_first:.2f} times as fast as {pair[0]} at batch size {span[0]} and {at_last:.2f} times at "
            f"{span[1]}: {course}"
        ),
    )
