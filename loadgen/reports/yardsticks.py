"""Floors and normalised rates as rows: measured against the roofline, output tok/s by what it took, what was asked.

In: a `RunReport`. Out: headers and rows of text and sentences, for the terminal (what is known and tells targets apart)
and for Markdown (everything).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from loadgen.assemble import ReportCell, RunReport
from loadgen.limits.floor import AgainstFloor
from loadgen.limits.normalise import Normalised
from loadgen.reports.rows import axis_names, labels
from loadgen.shown import DASH, number

UNIFORM = (
    "Floors take the experts of a mixture as chosen uniformly and independently; docs/roofline.md says what follows."
)
LEGEND = (
    "bandwidth, compute: what a decode step must move and do, over the TPOT. prefill: the floor of one prompt over the "
    "TTFT, at concurrency 1. limit: the output tok/s that no schedule can pass."
)
RATE = "output_tok_s"
SILENT = "A star marks the concurrency, or what was in flight: the server does not say which batches it ran."


class Column(NamedTuple):
    """A column of either table, as in ``rows.Column``."""

    head: str
    text: Callable[[Any], str]
    yields: int = 0


def _share(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value * 100:.1g} %" if 0 < value < 0.01 else f"{value * 100:.0f} %"


def _batch(one: AgainstFloor) -> str:
    return number(one.batch) + ("*" if one.batch_source in ("concurrency", "in flight") else "")


def _decode(what: Callable[[Any], str]) -> Callable[[AgainstFloor], str]:
    return lambda one: DASH if one.decode is None else what(one.decode)


def _prefill(what: Callable[[Any], str]) -> Callable[[AgainstFloor], str]:
    return lambda one: DASH if one.prefill is None else what(one.prefill)


FLOORS = (
    Column("batch", _batch),
    Column("TPOT ms", _decode(lambda held: number(held.measured_s, 1e3))),
    Column("floor ms", _decode(lambda held: number(held.floor_s, 1e3))),
    Column("bandwidth", _decode(lambda held: _share(held.bandwidth_share))),
    Column("compute", _decode(lambda held: _share(held.compute_share)), 1),
    Column("prefill", _prefill(lambda held: _share(held.compute_share and held.floor_s / held.measured_s)), 3),
    Column("limit tok/s", lambda one: number(one.limit_tok_s), 4),
    Column("of limit", lambda one: _share(one.limit_share), 2),
)

MORE_FLOORS = (
    Column("GPU", lambda one: DASH if one.gpu is None else f"{one.gpus or 1} x {one.gpu}"),
    Column("weights", lambda one: one.precision or DASH),
    Column("input tok", lambda one: number(one.input_tokens)),
    Column("output tok", lambda one: number(one.output_tokens)),
    *FLOORS[:5],
    Column("bound by", _decode(lambda held: held.bound)),
    Column("TTFT ms", _prefill(lambda held: number(held.measured_s, 1e3))),
    Column("prefill floor", _prefill(lambda held: number(held.floor_s, 1e3))),
    Column("prefill bandwidth", _prefill(lambda held: _share(held.bandwidth_share))),
    Column("prefill compute", _prefill(lambda held: _share(held.compute_share))),
    Column("output tok/s", lambda one: number(one.output_tok_s)),
    Column("predicted tok/s", lambda one: number(one.predicted_tok_s)),
    *FLOORS[6:],
)

NORMALISED = (
    Column("per GPU", lambda one: number(one.tok_s_per_gpu)),
    Column("per B active params", lambda one: number(one.tok_s_per_active_b)),
    Column("per B params", lambda one: number(one.tok_s_per_b)),
    Column("per GB of weights", lambda one: number(one.tok_s_per_weight_gb), 1),
    Column("price per M tok", lambda one: number(one.cost_per_mtok)),
    Column("tok per J", lambda one: number(one.tok_per_j)),
)

MORE_NORMALISED = (
    Column("output tok/s", lambda one: number(one.output_tok_s)),
    Column("GPUs", lambda one: DASH if one.gpus is None else str(one.gpus)),
    Column("B active", lambda one: number(one.active_parameters, 1e-9)),
    Column("B", lambda one: number(one.parameters, 1e-9)),
    Column("GB of weights", lambda one: number(one.weight_bytes, 1e-9)),
    Column("price per hour", lambda one: number(one.price_per_hour)),
    Column("J", lambda one: number(one.energy_j)),
    *NORMALISED[:4],
    Column("tok per price", lambda one: number(one.tok_per_price)),
    *NORMALISED[4:],
)


def floor_columns(report: RunReport) -> list[Column]:
    """Those of the terminal's table that have a value in any cell."""
    return _known(FLOORS, _with_floor(report))


def normalised_columns(report: RunReport) -> list[Column]:
    """Those of the terminal's table that are known and tell targets apart: a divisor that is the same for all of them
    gives no more than the output tok/s do."""
    cells, found = report.normalised.cells, []
    actives = {(one.active_parameters, one.parameters) for one in cells if one.parameters}
    apart = {
        "per GPU": any((one.gpus or 1) != 1 for one in cells),
        "per B active params": len(actives) > 1 and any(active != every for active, every in actives),
        "per B params": len(actives) > 1,
        "per GB of weights": len({one.weight_bytes for one in cells if one.weight_bytes}) > 1,
    }
    for column in _known(NORMALISED, cells):
        if apart.get(column.head, True):
            found.append(column)
    return found


def floor_rows(report: RunReport, columns: Sequence[Column]) -> list[list[str]]:
    """A header and a row for each target of each cell that has a floor."""
    return _rows(report, columns, _with_floor(report))


def normalised_rows(report: RunReport, columns: Sequence[Column]) -> list[list[str]]:
    """A header and a row for each target of each cell that has a rate; the header alone where no divisor is known."""
    rated = [one for one in report.normalised.cells if one.output_tok_s is not None]
    return _rows(report, columns, rated if _known(MORE_NORMALISED[1:], rated) else ())


def floor_heading(report: RunReport) -> str:
    """What the floors are of, where it is the same for all."""
    places = {f" ({one.gpus or 1} x {one.gpu}, {one.precision})" for one in _with_floor(report)}
    return f"Against the floor{places.pop() if len(places) == 1 else ''}: mean TPOT, and the share of the GPU reached"


def floor_lines(report: RunReport) -> list[str]:
    """What the table of floors needs said beside it."""
    shown = _with_floor(report)
    lines = [LEGEND] if shown else []
    lines += [SILENT] if any("*" in _batch(one) for one in shown) else []
    return [*lines, *([UNIFORM] if any(one.experts for one in shown) else [])]


def why_lines(report: RunReport) -> list[str]:
    """What has no floor, and the reason, once a target."""
    return list(dict.fromkeys(f"{one.target}: {why}" for one in report.floors.cells for why in one.why))


def predicted_lines(report: RunReport) -> list[str]:
    """Where the floors cross, to stand beside the crossings that were measured."""
    return [one.sentence for one in report.floors.predicted]


def predicted_rows(report: RunReport) -> list[list[str]]:
    """The ratio of the output tok/s at the floors beside the one that was measured, by cell; [] where none is known."""
    rates = {(one.cell, one.target): one.predicted_tok_s for one in report.floors.cells}
    table = []
    for comparison in report.comparisons:
        for cell in comparison.cells:
            before, after = rates.get((cell.cell, cell.baseline)), rates.get((cell.cell, cell.candidate))
            if before and after:
                same = cell.primary if cell.primary.measure == RATE else cell.secondary.get(RATE)
                measured = same.ratio.value if same is not None and same.ratio is not None else None
                names = f"{cell.candidate} / {cell.baseline}"
                table.append([cell.cell, names, number(after / before), number(measured)])
    return [["cell", "targets", "output tok/s at the floors", "measured"], *table] if table else []


def mixture_lines(report: RunReport) -> list[str]:
    """For each mixture of experts what it was asked, and what its weights are."""
    return [one.sentence for one in report.mixtures]


def _with_floor(report: RunReport) -> list[AgainstFloor]:
    return [one for one in report.floors.cells if one.decode or one.prefill or one.limit_tok_s]


def _known(columns: Sequence[Column], ones: Sequence[Any]) -> list[Column]:
    return [column for column in columns if any(column.text(one) != DASH for one in ones)]


def _rows(
    report: RunReport, columns: Sequence[Column], ones: Sequence[AgainstFloor] | Sequence[Normalised]
) -> list[list[str]]:
    """A header, and a row for each of these under the axes of its cell."""
    cells = {cell.id: cell for cell in report.cells}
    heads = [*(axis_names(report) or ["cell"]), "target", *(column.head for column in columns)]
    return [heads, *_labelled(report, cells, columns, ones)]


def _labelled(
    report: RunReport,
    cells: dict[str, ReportCell],
    columns: Sequence[Column],
    ones: Sequence[AgainstFloor] | Sequence[Normalised],
) -> Iterator[list[str]]:
    for one in ones:
        yield [*labels(report, cells[one.cell]), one.target, *(column.text(one) for column in columns)]
