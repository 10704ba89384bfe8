"""Charts of a whole run, one point a cell: Pareto, ratio, against the floor, latency over rate.

In: a `RunReport`; no record is read. Out: `Lines`, or None where the run has nothing for the chart. A value is the mean
over the valid repeats of each repeat's own value, as in the tables; an error bar is a 95 % t interval over the repeats
(of the logarithm), from three on. Cells that differ in the axis alone are one series, joined in its order; of many such
groups those with the cells that matter most are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.comparing.comparison import Comparison
from loadgen.limits.floor import AgainstFloor
from loadgen.metrics import METRICS
from loadgen.plots.chart import Axis, Band, Level, Lines, Panel, Point, Series
from loadgen.plots.groups import Laid, laid, mean, measured, point_of, values
from loadgen.repeat import Result
from loadgen.scenario import parse_objective

INTERVALS = "Error bars are 95 % t intervals over the repeats; without three valid repeats there are none."


def pareto(report: RunReport) -> Lines | None:
    """Throughput per GPU against the speed that a user sees, a point for each load."""
    on, per_gpu = laid(report), all(target.gpus for cell in report.cells for target in cell.targets)
    per = "GPU" if per_gpu else "server"

    def point(cell: ReportCell, target: TargetCell) -> Point | None:
        user = mean(values(target, measured("decode_tok_s", "p50")))
        share = 1 / (target.gpus or 1) if per_gpu else 1.0
        rates = values(target, measured("output_tok_s"))
        return None if user is None else point_of(user, rates, on.label(cell), share)

    series = on.series(point)
    if not series:
        return None
    return Lines(
        title=f"Throughput per {per} against speed per user",
        reading=(
            "Up is more output from the same machine, right is a faster reply for each user: the curve farther up and "
            "right is better at every load. Labels are the load. Read across at equal speed, not at equal labels: two "
            f"servers at one concurrency do not serve their users alike. {INTERVALS}{on.left_out}"
        ),
        x=Axis(name="p50 decode tok/s of a request (a user)", zero=True),
        panels=(Panel(y=Axis(name=f"output tok/s per {per}", zero=True), series=series),),
    )


def ratio(report: RunReport) -> Lines | None:
    """Candidate over baseline in the measure that was compared, with intervals and the places where they cross."""
    on = laid(report)
    comparisons = [one for one in report.comparisons if one.cells]
    series = [one for number, comparison in enumerate(comparisons) for one in _ratios(on, comparison, number)]
    if not series:
        return None
    label = comparisons[0].cells[0].primary.label
    bands = tuple(band for comparison in comparisons for band in _bands(on, comparison))
    y = Axis(name=f"ratio of {label}", scale="log")
    return Lines(
        title=f"Ratio of {label}, cell by cell",
        reading=(
            "Above 1 the candidate has more of it (better for throughput, worse for a latency). Bars are 95 % "
            "intervals each, not jointly: one that includes 1 decides nothing. The lines between points are only a "
            "guide; a grey band is where the two cross, as far as the measured cells can say."
            f"{on.left_out}"
        ),
        x=on.x,
        panels=(Panel(y=y, series=tuple(series), levels=(Level(name="equal", y=1.0),), bands=bands),),
    )


def _ratios(on: Laid, comparison: Comparison, number: int) -> Iterator[Series]:
    found = {cell.cell: cell.primary.ratio for cell in comparison.cells}
    name = f"{comparison.cells[0].candidate} / {comparison.cells[0].baseline}"
    for place, group in enumerate(on.groups):
        held = [(on.places[cell.id], found.get(cell.id)) for cell in group.cells]
        points = tuple((x, one.value, one.low, one.high, None) for x, one in held if one is not None)
        words = ", ".join(filter(None, (name, group.words)))
        if points:
            colour = number * len(on.groups) + place
            yield Series(name=words, points=points, colour=colour, joined=on.axis is not None)


def _bands(on: Laid, comparison: Comparison) -> Iterator[Band]:
    """Where the sides cross along the axis. Of several groups none: their bands would lie on each other."""
    for found in comparison.crossings:
        if on.of == 1 and found.measure == comparison.primary and found.axis == on.axis:
            for one in found.crossings:
                name = one.direction if one.decided else f"{one.direction}, undecided"
                yield Band(name=name, low=one.low, high=one.high)


def roofline(report: RunReport) -> Lines | None:
    """Time per output token as it was measured, and as the GPU's bandwidth and operations would allow."""
    on = laid(report)
    shown = {cell.id for group in on.groups for cell in group.cells}
    held = [one for one in report.floors.cells if one.batch and one.decode and one.cell in shown]
    if not held:
        return None
    cells = {(cell.id, target.target): target for cell in report.cells for target in cell.targets}
    series: list[Series] = []
    for name, colour in on.colours.items():
        own = sorted((one for one in held if one.target == name), key=lambda one: one.batch or 0.0)
        series += _against_floor(name, colour, own, cells)
    return Lines(
        title="Measured against the roofline",
        reading=(
            "Dashed is the floor of a decode step at this batch: what must be moved and computed, at the GPU's peak. "
            "The gap between a point and its floor is the engine's; that both rise together is the model's. Floors "
            "take the experts of a mixture as chosen uniformly, and prefill that shares the GPU with decoding lifts "
            f"the points. {INTERVALS}{on.left_out}"
        ),
        x=Axis(name="batch (by the server, else the concurrency)", scale="log2"),
        panels=(Panel(y=Axis(name="mean TPOT ms", scale="log"), series=tuple(series)),),
    )


def _against_floor(
    name: str, colour: int, own: Sequence[AgainstFloor], cells: Mapping[tuple[str, str], TargetCell]
) -> Iterator[Series]:
    points: list[Point] = []
    floors: list[Point] = []
    for one in own:
        if one.batch is None or one.decode is None:
            continue
        point = point_of(one.batch, values(cells[one.cell, name], measured("tpot_s", "mean")), scale=1e3)
        points += [point] if point is not None else []
        floors.append((one.batch, one.decode.floor_s * 1e3, None, None, None))
    if floors:
        yield Series(name=name, points=tuple(points), colour=colour)
        yield Series(name=f"{name}, floor", points=tuple(floors), colour=colour, joined=True, dashed=True)


def latency(report: RunReport) -> Lines | None:
    """TTFT and e2e over the rate of requests, with the limits of the objectives."""
    on = laid(report)
    every = [summary for cell in report.cells for target in cell.targets for summary in target.summaries]
    offered = all(summary.audit.offered_rps is not None for summary in every)
    panels = [_latency_panel(report, on, metric, offered) for metric in ("ttft_s", "e2e_s")]
    kept = tuple(panel for panel in panels if panel.series)
    if not kept:
        return None
    return Lines(
        title="Latency over rate",
        reading=(
            "Where a line turns up, the server is full: what comes faster only waits. In a closed loop (no offered "
            "rate) clients wait for replies before they ask again, so that the curve bends back and hides what an open "
            "stream of users would wait. Solid is p50, dashed p99, missing where too few requests were measured. "
            f"{INTERVALS}{on.left_out}"
        ),
        x=Axis(name="offered requests/s" if offered else "requests/s that were served", zero=True),
        panels=kept,
    )


def _latency_panel(report: RunReport, on: Laid, metric: str, offered: bool) -> Panel:
    rate_of = _offered if offered else measured("request_rps")

    def at(statistic: str) -> Callable[[ReportCell, TargetCell], Point | None]:
        def point(_: ReportCell, target: TargetCell) -> Point | None:
            rate = mean(values(target, rate_of))
            return None if rate is None else point_of(rate, values(target, measured(metric, statistic)), scale=1e3)

        return point

    objectives = [parse_objective(text) for text in report.run["scenario"].get("objectives", ())]
    return Panel(
        y=Axis(name=f"{METRICS[metric].label} ms", scale="log"),
        series=(*on.series(at("p50"), " p50"), *on.series(at("p99"), " p99", dashed=True)),
        levels=tuple(Level(name=one.text, y=one.value * 1e3) for one in objectives if one.metric == metric),
    )


def _offered(one: Result) -> float | None:
    return one.summary.audit.offered_rps
