"""The page: a section a run, with its command, table, verdicts, crossings and plots; then the published figures, and
what to doubt. Every number comes from the runs, but for the published ones, which stand here."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from chart import Chart, Point, Series, svg
from kept import Kept
from measured import Mean, at, axis_of, batch_seen, floor_of, gpu_busy, mean_of, number, predicted, primary, ratio_text
from published import published

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.comparing.comparison import ComparedCell
from loadgen.metrics import Measure
from loadgen.reports import about, rows
from loadgen.reports.markdown import bullets, safe, tabled
from loadgen.shown import DASH

HEAD = """\
# Dense against MoE

At which concurrency does a mixture of experts serve faster than a dense model, by how much, and why? The question comes
from a published table whose caption says that the MoE wins at large batches while its numbers show it 28 and 35 %
slower. Here it is measured with repeats, in ABBA order with a server started for each, beside what the sizes of the two
models predict.

This page is rendered from the runs in `docs/data` by `scripts/render-moe-vs-dense`; nothing in it is typed by hand but
the published figures and the prose. A value is the geometric mean over the repeats with its 95 % t interval in
brackets. A ratio is MoE / dense over pairs of repeats. *Batch* is what the server says it ran. *Roofline* is what the
sizes of the model and the GPU allow at that batch, prefill and decoding one after the other; an engine that mixes the
two may pass it ([roofline.md](roofline.md)). *Bandwidth* is the share of the memory's bandwidth that decoding reached
by its mean TPOT, *GPU busy* the share of the window in which the GPU ran a kernel at all: without CUDA graphs (eager) a
small batch waits for the host to start its kernels, the many small ones of a mixture above all, and hosts differ. A
*predicted* ratio is that of both rooflines.
"""

COLUMNS = ("requests/s", "TTFT p50 ms", "TPOT p50 ms", "batch", "roofline", "of it", "bandwidth", "GPU busy", "state")


@dataclass(frozen=True)
class Page:
    """The Markdown, and the plots that it shows by file name."""

    text: str
    plots: dict[str, str]


def render(runs: Sequence[Kept]) -> Page:
    """The whole page."""
    plots: dict[str, str] = {}
    parts = [
        HEAD,
        "## In short",
        "",
        "MoE / dense:",
        "",
        *tabled(_answers(runs)),
        *bullets(list(_short_crossings(runs))),
    ]
    for run in runs:
        drawn = [(f"moe-vs-dense-{run.name}-{kind}.svg", chart) for kind, chart in _charts(run)]
        plots |= {name: plot for name, chart in drawn if (plot := svg(chart))}
        parts += _section(run, [(name, chart.title) for name, chart in drawn if name in plots])
    parts += published([run.report for run in runs])
    return Page("\n".join(parts).rstrip() + "\n", plots)


def _answers(runs: Sequence[Kept]) -> list[list[str]]:
    """The ratio and the verdict of every cell of every run: a column a run, a row a place on its axis."""
    found = {
        (place, number): f"{ratio_text(cell.primary.ratio)} {cell.primary.verdict}"
        for number, run in enumerate(runs)
        for comparison in run.report.comparisons
        for cell in comparison.cells
        if isinstance(place := cell.axes.get(axis_of(run.report)), int | float)
    }
    axes = " or ".join(dict.fromkeys(axis_of(run.report) for run in runs))
    head = [axes, *(f"{run.name}: {_load(run.report)}, {primary(run.report).label}" for run in runs)]
    places = sorted({place for place, _ in found})
    return [head, *([str(place), *(found.get((place, n), DASH) for n in range(len(runs)))] for place in places)]


def _short_crossings(runs: Sequence[Kept]) -> Iterator[str]:
    """Of each run where along its axis the better side changes, by its primary measure."""
    for run in runs:
        for comparison in run.report.comparisons:
            for one in [one for one in comparison.crossings if one.measure == comparison.primary][:1]:
                yield f"**{run.name}**: {one.sentence}"


def _section(run: Kept, plots: Sequence[tuple[str, str]]) -> list[str]:
    """``plots`` are file names with what they show."""
    report = run.report
    return [
        f"## {safe(run.name)}: {safe(_load(report))}",
        "",
        *bullets(list(_facts(run))),
        *_command(report),
        *tabled(list(_table(report))),
        *bullets(_verdicts(report), "### Verdicts"),
        *_ratios(report),
        *bullets(list(_crossings(report)), "### Crossings"),
        *[line for name, title in plots for line in (f"![{title}](img/{name})", "")],
        *bullets(rows.routing_lines(report), "### Do the experts mind what is asked?"),
        *bullets(rows.failure_lines(report), "### Failed"),
        *bullets(list(_doubts(run)), "### What to doubt"),
    ]


def _load(report: RunReport) -> str:
    workload = report.run["scenario"]["workload"]
    lengths = [f"{workload['input_tokens']} tokens in"] if isinstance(workload.get("input_tokens"), int) else []
    output = workload["output"]
    lengths.append(f"{output['exact']} out" if output.get("exact") else f"at most {output.get('max')} out")
    return ", ".join(lengths)


def _facts(run: Kept) -> Iterator[str]:
    report = run.report
    described, machine = report.run, report.run["machine"]
    every = [f"{gpu['name']} ({gpu['memory_gb']:.0f} GB, driver {gpu['driver']})" for gpu in machine["gpus"]]
    gpus = [f"{count} x {gpu}" if count > 1 else gpu for gpu, count in Counter(every).items()]
    yield f"run `{described['run']}`, {described['started']} to {described['ended']}, {described['status']}"
    yield f"{', '.join(gpus) or 'no GPU'}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    yield "client: " + ", ".join(
        f"{name} {described['versions'][name]}" for name in ("loadgen", "python") if name in described["versions"]
    )
    for name, server in _servers(report).items():
        facts = {key: value for key, value in (server.get("facts") or {}).items() if value is not None}
        told = "".join(f", {key} {value}" for key, value in facts.items())
        startup = server.get("startup_s")
        ready = f", ready after {startup:.0f} s" if startup is not None else ""
        yield f"{name}: {PurePath(server['model']).name} on {server['engine']}{told}{ready}"
    if scope := about.scope_line(report):
        yield scope


def _servers(report: RunReport) -> dict[str, Any]:
    """The first server of each target."""
    found: dict[str, Any] = {}
    for server in report.run.get("servers", {}).values():
        found.setdefault(server["target"], server)
    return found


def _command(report: RunReport) -> list[str]:
    described = report.run
    path = PurePath(described["scenario_path"])
    told = f"scenarios/{path.name}" if described["scenario"]["name"] == path.stem else path.name
    profile = described.get("profile")
    lines = [f"loadgen run {told}" + (f" --profile {profile}" if profile else "")]
    for server in _servers(report).values():
        words = [PurePath(word).name if word.startswith("/") else word for word in server["argv"]]
        words = ["PORT" if word == str(server["port"]) else word for word in words]
        lines += [f"# {server['target']}:", shlex.join(words)]
    return ["```sh", *lines, "```", ""]


def _table(report: RunReport) -> Iterator[list[str]]:
    what, axis = primary(report), axis_of(report)
    yield [axis, "target", what.label, *COLUMNS]
    for cell in report.cells:
        for target in cell.targets:
            found = mean_of(target, what)
            against = floor_of(report, cell.id, target.target)
            floor = predicted(what, against)
            yield [
                str(cell.axes.get(axis, cell.id)),
                target.target,
                _text(found),
                _text(mean_of(target, Measure("request_rps")), 3),
                _text(mean_of(target, Measure("ttft_s", "p50")), 4, 1e3),
                _text(mean_of(target, Measure("tpot_s", "p50")), 4, 1e3),
                DASH if (seen := batch_seen(target)) is None else number(seen.value, 3),
                DASH if floor is None else number(floor),
                DASH if floor is None or found is None else f"{found.value / floor * 100:.0f} %",
                DASH if against.decode is None else f"{against.decode.bandwidth_share * 100:.0f} %",
                DASH if (busy := gpu_busy(target)) is None else f"{busy.value * 100:.0f} %",
                target.state if target.state == "ok" else target.state.upper(),
            ]


def _batch(cell: ReportCell, target: TargetCell) -> float | None:
    """What the server ran; the concurrency where it does not say."""
    seen = batch_seen(target)
    return at(cell, "concurrency") if seen is None else max(seen.value, 1.0)


def _text(mean: Mean | None, digits: int = 4, scale: float = 1.0) -> str:
    if mean is None:
        return DASH
    low_high = None if mean.interval is None else (mean.interval[0] * scale, mean.interval[1] * scale)
    return Mean(mean.value * scale, low_high).text(digits)


def _verdicts(report: RunReport) -> list[str]:
    return [cell.primary.sentence for one in report.comparisons for cell in one.cells if cell.primary.sentence]


def _ratios(report: RunReport) -> list[str]:
    """Measured against predicted, cell by cell: the ratio of the primary measure and that of TPOT."""
    if not any(comparison.cells for comparison in report.comparisons):
        return []
    table = [[axis_of(report), "MoE / dense", "predicted", "TPOT, MoE / dense", "verdict"]]
    for comparison in report.comparisons:
        for cell in comparison.cells:
            tpot = cell.secondary.get("p50 tpot_s")
            table.append(
                [
                    str(cell.axes.get(table[0][0], cell.cell)),
                    ratio_text(cell.primary.ratio),
                    DASH if (told := _ratio_predicted(report, cell)) is None else f"{told:.2f}",
                    ratio_text(tpot.ratio if tpot else None),
                    str(cell.primary.verdict.value) if cell.primary.verdict else DASH,
                ]
            )
    return tabled(table)


def _ratio_predicted(report: RunReport, compared: ComparedCell) -> float | None:
    """The ratio of the rooflines at the batches that both servers ran."""
    what, sides = primary(report), (compared.baseline, compared.candidate)
    before, after = (predicted(what, floor_of(report, compared.cell, name)) for name in sides)
    return after / before if before and after else None


def _crossings(report: RunReport) -> Iterator[str]:
    for comparison in report.comparisons:
        yield from (one.sentence for one in comparison.crossings if one.measure in (comparison.primary, "p50 tpot_s"))
    yield from (one.sentence for one in report.floors.predicted)


def _doubts(run: Kept) -> Iterator[str]:
    if len(run.hosts) > 1:
        yield f"The repeats were sent from {len(run.hosts)} hosts, each pair from one."
    yield from rows.warning_lines(run.report)
    yield from rows.notes(run.report)


def _charts(run: Kept) -> Iterator[tuple[str, Chart]]:
    yield "rate", _rate_chart(run)
    yield "ratio", _ratio_chart(run)


def _rate_chart(run: Kept) -> Chart:
    """The primary measure of both targets over the batch that each server ran, with the floors."""
    report, what = run.report, primary(run.report)
    series = []
    names = list(dict.fromkeys(target.target for cell in report.cells for target in cell.targets))
    for name, colour in zip(names, "ab", strict=False):
        measured, floors = [], []
        for cell in report.cells:
            target = next(target for target in cell.targets if target.target == name)
            found, batch = mean_of(target, what), _batch(cell, target)
            if target.state != "ok" or found is None or batch is None:
                continue
            measured.append(Point(batch, found.value, *(found.interval or (None, None))))
            floor = predicted(what, floor_of(report, cell.id, name))
            floors += [] if floor is None else [Point(batch, floor)]
        series += [Series(name, measured, colour), Series(f"{name}, roofline", floors, colour, predicted=True)]
    return Chart(f"{run.name}: {what.label} by the batch that the server ran", "batch", what.label, series)


def _ratio_chart(run: Kept) -> Chart:
    """Candidate / baseline along the axis, with the ratio of the floors."""
    report, axis = run.report, axis_of(run.report)
    measured, floors = [], []
    for comparison in report.comparisons:
        for cell in comparison.cells:
            place, ratio = cell.axes.get(axis), cell.primary.ratio
            if not isinstance(place, int | float) or ratio is None:
                continue
            measured.append(Point(float(place), ratio.value, ratio.low, ratio.high))
            told = _ratio_predicted(report, cell)
            floors += [] if told is None else [Point(float(place), told)]
    series = [Series("measured", measured, "a"), Series("predicted", floors, "b", predicted=True)]
    title, ticks = f"{run.name}: {primary(report).label}, MoE / dense", [point.x for point in measured]
    return Chart(title, axis, "ratio", series, level=1.0, ticks=ticks)
