"""The figures of the page: means with intervals by target and cell, and what the roofline predicts for the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from loadgen import roofline
from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.errors import UsageError
from loadgen.metrics import Measure, measure
from loadgen.model_config import shape_of
from loadgen.roofline import Roofline
from loadgen.served import stored
from loadgen.statistics import mean_interval


@dataclass(frozen=True)
class Mean:
    """The geometric mean over repeats, with its 95 % t interval on the logarithm; None under three repeats."""

    value: float
    interval: tuple[float, float] | None

    def text(self, digits: int = 4) -> str:
        """``1234 [1200, 1270]``."""
        if self.interval is None:
            return number(self.value, digits)
        return f"{number(self.value, digits)} [{number(self.interval[0], digits)}, {number(self.interval[1], digits)}]"


def number(value: float, digits: int = 4) -> str:
    """So many significant digits, no exponent."""
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{places}f}"


def mean_of(target: TargetCell, what: Measure) -> Mean | None:
    """Over the valid repeats; None where none has a value above zero."""
    values = [value for summary in target.valid if (value := summary.get(what))]
    return _mean(values)


def batch_seen(target: TargetCell) -> Mean | None:
    """The mean size of the batches that the server says it ran."""
    results = [result for result in target.results if result is not None and result.summary.state == "ok"]
    return _mean([result.seen.batch_seen for result in results if result.seen.batch_seen])


def _mean(values: list[float]) -> Mean | None:
    if not values:
        return None
    logs = [math.log(value) for value in values]
    interval = mean_interval(logs)
    middle = math.exp(math.fsum(logs) / len(logs))
    return Mean(middle, None if interval is None else (math.exp(interval[0]), math.exp(interval[1])))


def primary(report: RunReport) -> Measure:
    """The measure that the run's verdicts are about."""
    return measure((report.run["scenario"].get("comparison") or {}).get("metric", "output_tok_s"))


def axis_of(report: RunReport) -> str | None:
    """The one numeric axis of the run: concurrency, or the prompts of a burst."""
    names = {name: None for cell in report.cells for name in cell.axes}
    return next((name for name in ("concurrency", "burst") if name in names), None)


def at(cell: ReportCell, axis: str) -> float | None:
    """Where a cell stands on the axis."""
    value = cell.axes.get(axis)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def floor_of(report: RunReport, cell: ReportCell, target: TargetCell) -> Roofline | None:
    """The roofline of a target at the lengths that were measured; None where model, GPU or lengths are not known."""
    serving, gpus = stored(report.run), report.run["machine"]["gpus"]
    served = serving.of(cell.id, target.target)
    lengths = [mean_of(target, Measure(name, "mean")) for name in ("in_tok", "out_tok")]
    if served is None or served.config is None or not gpus or None in lengths:
        return None
    try:
        gpu = roofline.gpu(gpus[0]["name"].removeprefix("NVIDIA ").split()[0])
        shape = shape_of(serving.configs[served.config], served.name)
    except UsageError:
        return None
    tokens = [round(length.value) for length in lengths if length]
    count = served.gpu_count(gpus) or 1
    return Roofline(shape=shape, gpu=gpu, gpus=count, input_tokens=tokens[0], output_tokens=tokens[1])


def predicted(what: Measure, one: Roofline | None, batch: float | None) -> float | None:
    """The roofline's value of a measure at a batch size, each phase at its floor; None where it has none."""
    if one is None or batch is None:
        return None
    per_request = {"output_tok_s": one.output_tokens, "total_tok_s": one.input_tokens + one.output_tokens}
    tokens = per_request.get(what.metric)
    return None if tokens is None else one.output_tok_s(batch) / one.output_tokens * tokens


def crossings_predicted(report: RunReport) -> Iterator[str]:
    """The roofline's crossings between the smallest and the largest value of the axis, by measure."""
    axis, sides = axis_of(report), _sides(report)
    if axis != "concurrency" or sides is None:
        return
    places = [int(place) for cell in report.cells if (place := at(cell, axis))]
    if len(places) < 2:
        return
    found = list(roofline.crossings(*sides, places))
    for name in roofline.MEASURES:
        told = [f"{one.direction} at {one.at:.0f}" for one in found if one.measure == name]
        yield f"by the least time of a {name}: {', '.join(told) or f'no crossing in {min(places)}..{max(places)}'}"


def _sides(report: RunReport) -> tuple[Roofline, Roofline] | None:
    """Baseline and candidate of the run's comparison, in its last cell."""
    for comparison in report.comparisons:
        cell = report.cells[-1]
        targets = {target.target: target for target in cell.targets}
        one, other = (comparison.cells[-1].baseline, comparison.cells[-1].candidate) if comparison.cells else ("", "")
        floors = [floor_of(report, cell, targets[name]) for name in (one, other) if name in targets]
        if len(floors) == 2 and floors[0] and floors[1]:
            return floors[0], floors[1]
    return None
