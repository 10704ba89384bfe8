"""The chart that a user asks for by name. In: a `RunReport`, the name, a cell, a target. Out: a chart, or a sentence on
why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from loadgen.assemble import ReportCell, RunReport
from loadgen.errors import UsageError
from loadgen.nights.history import read_history
from loadgen.nights.series import points_of
from loadgen.plots import cells as of_cells
from loadgen.plots import requests as of_requests
from loadgen.plots.chart import Bars, Chart, Heat, Lines
from loadgen.plots.choice import by_weight, cells_that_matter
from loadgen.plots.groups import laid
from loadgen.plots.nights import nights
from loadgen.plots.search import search
from loadgen.plots.trace import traces
from loadgen.scenario import parse_objective

MOST_PANELS = 6
"""Cells of a chart that has a panel for each."""

OF_RUNS: Mapping[str, tuple[Callable[[RunReport], Lines | None], str]] = MappingProxyType(
    {
        "pareto": (of_cells.pareto, "no valid repeat has a rate and a speed (replies that are streamed)"),
        "ratio": (of_cells.ratio, "nothing was compared, or no pair of repeats is valid"),
        "roofline": (of_cells.roofline, "no cell has a floor; it needs the model's config and a GPU that is known"),
        "latency": (of_cells.latency, "no valid repeat has enough requests for a median"),
    }
)
"""Of a whole run: how each is made, and what it needs."""

OF_CELLS = ("ttft", "percentiles", "gaps", "timeline", "gantt")
"""Of the inside of a cell, made from its request lines."""

KINDS = (*OF_RUNS, "search", *OF_CELLS, "history")


def chart(report: RunReport, kind: str, cell: str | None = None, target: str | None = None) -> Chart:
    """The chart of a run. ``cell`` and ``target`` are names; without them the cells that matter most come first.

    Raises UsageError for a name that is not there, and where the run has nothing for the chart.
    """
    if kind in OF_RUNS:
        make, needs = OF_RUNS[kind]
        found: Chart | None = make(report)
        if found is None:
            raise UsageError(f"--kind {kind}: {needs}.")
        return found
    if kind == "search":
        return _search(report, cell, target)
    if kind not in OF_CELLS:
        raise UsageError(f"--kind {kind}: there are {', '.join(KINDS)}.")
    candidates = _cells(report, cell)
    _check_target(report, target)
    made = _ttft(report, candidates, target) if kind == "ttft" else _inside(report, kind, candidates, target)
    if made is None:
        where = f" in {cell}" if cell else ""
        raise UsageError(f"--kind {kind}: there are no request lines{where} that it can be made of (or too few).")
    return made


def _search(report: RunReport, cell: str | None, target: str | None) -> Lines:
    """That of the first search in this cell, of this target; a search's cell is called as before it was searched in."""
    own = [one for one in report.searches if cell in (None, one.cell) and target in (None, one.target)]
    made = next((chart for one in own if (chart := search(one)) is not None), None)
    if made is not None:
        return made
    there = "; ".join(f"--cell {one.cell} --target {one.target}" for one in report.searches[:MOST_PANELS])
    raise UsageError(f"--kind search: {f'this run has {there}' if there else 'this run searched for nothing'}.")


def history(report: RunReport, words: str | None = None) -> Lines:
    """The nights of a series of this run in its store; ``words`` name it, without them it is the run's first.

    Raises UsageError where the store has no such series.
    """
    folder = Path(report.path).absolute()
    if folder.parents[1].name != "runs":  # else an index would be made wherever the copy of a run lies
        raise UsageError(f"--kind history: {folder} is in no store; name a run of one.")
    store = folder.parents[2]
    known = read_history(store)
    own = [point.series.key for point in points_of(report)]
    keys = known.find(words) if words else [key for key in own if key in known.entries]
    found = nights(known.entries[keys[0]]) if keys else None
    if found is None:
        raise UsageError(f"--kind history: no night of a series of {report.run['run']} has a value in {store}.")
    return found


def _cells(report: RunReport, name: str | None) -> list[ReportCell]:
    """The cell of this name; without one every cell, those that matter most first."""
    every = {cell.id: cell for cell in (*report.cells, *report.routing_cells)}
    if name is None:
        return [report.cells[position] for position in by_weight(report)]
    if name not in every:
        some = ", ".join(list(every)[:8]) + (" ..." if len(every) > 8 else "")
        raise UsageError(f"--cell {name}: this run has {some}.")
    return [every[name]]


def _check_target(report: RunReport, name: str | None) -> None:
    names = list(laid(report).colours)
    if name is not None and name not in names:
        raise UsageError(f"--target {name}: this run has {', '.join(names)}.")


def _ttft(report: RunReport, candidates: Sequence[ReportCell], target: str | None) -> Lines | None:
    """Of every cell of a small run, else of those that matter most; always in the run's order."""
    shown = candidates if len(candidates) == 1 else cells_that_matter(report, MOST_PANELS)
    held = [trace for cell in shown for trace in traces(report, cell, True, target)]
    return of_requests.ttft(held, laid(report).colours, ttft_limits(report))


def _inside(report: RunReport, kind: str, candidates: Sequence[ReportCell], target: str | None) -> Chart | None:
    """Of the first cell that has it."""
    colours = laid(report).colours
    made: Iterator[Lines | Heat | Bars | None]
    for cell in candidates:
        if kind == "percentiles":
            made = iter([of_requests.percentiles(list(traces(report, cell, True, target)), colours)])
        elif kind == "timeline":
            made = iter([of_requests.timeline(list(traces(report, cell, False, target)), colours)])
        else:
            one = of_requests.gaps if kind == "gaps" else of_requests.gantt
            made = map(one, traces(report, cell, False, target))
        found = next((chart for chart in made if chart is not None), None)
        if found is not None:
            return found
    return None


def ttft_limits(report: RunReport) -> dict[str, float]:
    """The objectives on TTFT, by their text, in s."""
    objectives = [parse_objective(text) for text in report.run["scenario"].get("objectives", ())]
    return {one.text: one.value for one in objectives if one.metric == "ttft_s"}
