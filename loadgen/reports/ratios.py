"""Every ratio of a comparison as rows: the tables that Markdown and the page share.

In: a `Comparison`. Out: a head and rows of text. Values are in the units that people read them in, as its head says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadgen.comparing.comparison import Compared, ComparedCell, Comparison
from loadgen.comparing.sentence import INTERACTIVITY
from loadgen.metrics import METRICS, measure
from loadgen.shown import DASH, number
from loadgen.statistics import Ratio

EVERY = "every measure"


def heading(comparison: Comparison) -> str:
    """``moe / dense``. The comparison has cells."""
    first = comparison.cells[0]
    return f"{first.candidate} / {first.baseline}"


def rows_of(comparison: Comparison) -> list[list[str]]:
    """A row for each measure of each cell; one alone for a cell where nothing has a ratio, all for one reason."""
    head = ["cell", "measure", "baseline", "candidate", "ratio", "95 % interval", "verdict"]
    return [head, *(row for cell in comparison.cells for row in _of_cell(cell))]


def _of_cell(cell: ComparedCell) -> Iterator[list[str]]:
    every = (cell.primary, *cell.secondary.values())
    reasons = {None if one.ratio else one.why for one in every}
    if len(every) > 1 and len(reasons) == 1 and None not in reasons:
        yield [cell.cell, EVERY, DASH, DASH, *_ratio(cell.primary)]
        return
    for one in every:
        what = measure(one.measure)
        scale = METRICS[what.metric].read_in[1]
        values = [number(_mean(side), scale) for side in (one.baseline_values, one.candidate_values)]
        yield [cell.cell, what.head, *values, *_ratio(one)]


def _ratio(one: Compared) -> list[str]:
    found = one.ratio
    said = interval(found) or (found.why if found else one.why) or DASH
    return [f"{found.value:.3f}" if found else DASH, said, one.verdict.value if one.verdict else DASH]


def equal_rows(comparison: Comparison) -> list[list[str]]:
    """Where both servers ran the same batch, and where both gave a user the same tok/s. The head alone: nowhere."""
    lines = [["equal", "other axes", "measured there", "measure", "at", "ratio", "95 % interval"]]
    for found in comparison.crossings:
        if found.measure != comparison.primary and found.axis != INTERACTIVITY:
            continue
        what = measure(found.measure).label + (f" per {found.per}" if found.per else "")
        rest = ", ".join(f"{axis} {value}" for axis, value in found.group.items()) or DASH
        for one in found.equal:
            where = f"{one.target}, {one.cell}" if one.target else DASH
            said = interval(one.ratio) or one.ratio.why or DASH
            lines.append([found.axis, rest, where, what, number(one.x), f"{one.ratio.value:.3f}", said])
    return lines


def interval(ratio: Ratio | None) -> str | None:
    """``0.950 to 1.120``; None where there is none."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return None
    return f"{ratio.low:.3f} to {ratio.high:.3f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
