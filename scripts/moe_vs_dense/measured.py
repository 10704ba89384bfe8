"""The figures of the page: means with intervals by target and cell, and the roofline of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.limits.floor import AgainstFloor
from loadgen.metrics import Measure, measure
from loadgen.shown import DASH
from loadgen.statistics import Ratio, mean_interval


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
    return f"{value:,.{places}f}"


def ratio_text(ratio: Ratio | None) -> str:
    """``0.972 [0.960, 0.984]``."""
    if ratio is None:
        return DASH
    return f"{ratio.value:.3f}" + ("" if ratio.low is None else f" [{ratio.low:.3f}, {ratio.high:.3f}]")


def mean_of(target: TargetCell, what: Measure) -> Mean | None:
    """Over the valid repeats; None where none has a value above zero."""
    values = [value for summary in target.valid if (value := summary.get(what))]
    return _mean(values)


def batch_seen(target: TargetCell) -> Mean | None:
    """The mean size of the batches that the server says it ran."""
    return _mean([result.seen.batch_seen for result in target.good if result.seen.batch_seen])


def gpu_busy(target: TargetCell) -> Mean | None:
    """The share of the window (0 to 1) in which the server's GPUs ran a kernel at all, as NVML counts it."""
    gpus = [gpu for result in target.good for gpu in result.telemetry.gpus if gpu.ours]
    return _mean([gpu.utilisation for gpu in gpus if gpu.utilisation])


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


def axis_of(report: RunReport) -> str:
    """What the cells are told apart by: the concurrency, else the first axis, else nothing but their names."""
    names = {name: None for cell in report.cells for name in cell.axes}
    return "concurrency" if "concurrency" in names else next(iter(names), "cell")


def at(cell: ReportCell, axis: str) -> float | None:
    """Where a cell stands on the axis."""
    value = cell.axes.get(axis)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def floor_of(report: RunReport, cell: str, target: str) -> AgainstFloor:
    """A target in a cell against its roofline; its fields are None where the roofline is not known."""
    found = (one for one in report.floors.cells if (one.cell, one.target) == (cell, target))
    return next(found, AgainstFloor(cell=cell, target=target))


def predicted(what: Measure, floor: AgainstFloor) -> float | None:
    """A rate at the roofline, prefill and decoding one after the other; None for what is no rate of tokens."""
    if floor.predicted_tok_s is None or not floor.output_tokens:
        return None
    tokens = {"output_tok_s": floor.output_tokens, "total_tok_s": floor.output_tokens + (floor.input_tokens or 0)}
    found = tokens.get(what.metric)
    return None if found is None else floor.predicted_tok_s * found / floor.output_tokens
