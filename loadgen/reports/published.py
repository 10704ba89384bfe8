"""Measured beside published, in the published table's own columns and order: ``loadgen report --layout published``.

In: `RunReport`s of one table. Out: text, Markdown or CSV. Every row of the table is there, measured or not; what was
measured of no row of it comes last. A ratio is measured by published, of good cells alone: an INVALID one says so in
place of its number. Doubts stand beside the number as letters, and below it in words.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import msgspec

from loadgen.assemble import RunReport
from loadgen.errors import UsageError
from loadgen.fair.facts import facts_of
from loadgen.host import machine_words
from loadgen.metrics import METRICS
from loadgen.published.join import ONLY, Found, Laid, Line, lay
from loadgen.published.tables import Measured, Table, table
from loadgen.reports import beside, markdown, text
from loadgen.reports.csv import one_line
from loadgen.reports.table_cells import found_in
from loadgen.reports.table_columns import (
    NO_RATIO,
    Drawn,
    Letters,
    drawn,
    places,
    ratio,
    several,
    stacked,
)
from loadgen.reports.table_repeats import named_in, repeats
from loadgen.reports.table_text import in_window

FORMS = ("text", "markdown", "csv")
_FACTS = ("engine", "engine_version", "model", "weights", "dtype", "quantization", "prompt_logits", "gpu")


def render(form: str, reports: Sequence[RunReport], width: int = 100, unicode: bool = True) -> str:
    """The table of these runs, as one of `FORMS`. Raises UsageError for runs of no table, or of several."""
    laid = of_runs(reports)
    match form:
        case "text":
            whole = "\n".join(_text(laid, reports, width)) + "\n"
            return whole if unicode else text.ascii_only(whole)
        case "markdown":
            return "\n".join(_markdown(laid, reports)) + "\n"
        case _:
            return _csv(laid)


def of_runs(reports: Sequence[RunReport]) -> Laid:
    """What these runs have measured, beside the table that they all name; of two runs on one kind of machine the later
    one counts. Targets of runs on different machines are told apart: ``a [2]`` ran on the second of `_machines`."""
    named = {str(report.run.get("run")): report.run["scenario"].get("published") for report in reports}
    for run, name in named.items():
        if name is None:
            raise UsageError(f"--layout published: {run} measured no published table: its scenario has no `published`.")
    if len(set(named.values())) > 1:
        each = ", ".join(f"{run} {name}" for run, name in named.items())
        raise UsageError(f"--layout published: one table at a time, and these are of several: {each}.")
    chosen = table(str(next(iter(named.values()))))
    ordered = sorted(reports, key=lambda report: str(report.run.get("started") or ""))
    machines = list(_machines(reports))

    def found() -> Iterator[Found]:
        for report in ordered:
            mark = f" [{machines.index(_machine(report)) + 1}]" if len(machines) > 1 else ""
            for one in found_in(report, chosen):
                yield msgspec.structs.replace(one, target=one.target + mark)

    return lay(chosen, found())


def _machine(report: RunReport) -> str:
    return machine_words(report.run.get("machine") or {})


def _machines(reports: Sequence[RunReport]) -> dict[str, list[str]]:
    """The runs on each kind of machine, by their short names where there are several."""
    names = beside.short_names(reports) if len(reports) > 1 else [str(reports[0].run.get("run"))]
    on: dict[str, list[str]] = {}
    for report, name in zip(reports, names, strict=True):
        on.setdefault(_machine(report), []).append(name)
    return on


# Text -----------------------------------------------------------------------------------------------------------------


def _text(laid: Laid, reports: Sequence[RunReport], width: int) -> Iterator[str]:
    letters = Letters()
    yield from text.wrapped(laid.table.title, width)
    for line in _hardware(laid.table, reports):
        yield from text.wrapped(line, width, "  ")
    yield ""
    for heading, one, lines in _tables(laid, letters):
        yield from [*text.wrapped(heading, width), ""] if heading else []
        ways = () if not lines else (True,) if several(lines) else (True, False)
        narrow = [stacked(laid, lines, letters, named) for named in ways]
        yield from [*in_window(one, narrow, width), ""]
    yield from text.section("Doubts", letters.lines(), width)
    yield from text.section("Notes", list(_notes(laid, reports)), width)


def _tables(laid: Laid, letters: Letters) -> Iterator[tuple[str, Drawn, list[Line]]]:
    """The table's own lines, those that are in none of its rows, and the repeats behind them (no lines)."""
    own = [line for line in laid.lines if line.published]
    others = [line for line in laid.lines if not line.published]
    if own or not others:
        yield "", drawn(laid, own, letters), own
    if others:
        heading = "Measured, and in no row of the published table" if own else ""
        yield heading, drawn(laid, others, letters), others
    if (each := repeats(laid)) is not None:
        yield "Each repeat, and their mean", each, []


def _hardware(of: Table, reports: Sequence[RunReport]) -> Iterator[str]:
    """What the published figures were measured on, and these."""
    yield f"published: {of.hardware}; {of.software}"
    on = _machines(reports)
    for number, (machine, runs) in enumerate(on.items(), 1):
        mark = f" [{number}]" if len(on) > 1 else ""
        yield f"measured{mark}: {machine} ({', '.join(runs)})"
    yield f"how: {of.how}"


def _notes(laid: Laid, reports: Sequence[RunReport]) -> Iterator[str]:
    yield f"source: {laid.table.source}"
    for slip in laid.table.slips:
        yield f"a slip of the table: {', '.join(slip.row.values())}: {slip.column}: {slip.why}"
    yield from _definitions(laid)
    yield from dict.fromkeys(line for report in reports for line in _measured_with(report))
    for report in reports:
        if report.run.get("status") not in ("complete", None):
            yield f"{report.run.get('run')} is {report.run['status']}: what it lacks is not measured"
    for one in laid.aside:
        yield f"set aside for a better or newer one of the same row: {one.where} of {one.run} ({one.state})"


def _definitions(laid: Laid) -> Iterator[str]:
    """What the measured figures are; of memory also who knows it, where nobody does."""
    found = [one for line in laid.lines for one in line.found.values()]
    for measure in dict.fromkeys(laid.table.measures):
        name = named_in(laid, measure)
        if measure in METRICS:
            yield f"measured {name}: {METRICS[measure].label}. {METRICS[measure].definition}"
        elif measure == "torch_gib":
            yield f"measured {name}: torch.cuda.max_memory_allocated, summed over GPUs, in GiB"
            if found and all(value is None for one in found for value in one.figures[measure]):
                yield f"{name}: only our Hugging Face server on GPUs says it; what else is known is in the run's report"


def _measured_with(report: RunReport) -> Iterator[str]:
    """What each target that has a row was: its engine, its weights, how it was told to run."""
    for cell in report.cells:
        for target in cell.targets:
            if not target.summaries:
                continue
            facts = facts_of(report.run, report.plan, cell.id, target.target)
            known = [f"{name} {facts[name]}" for name in _FACTS if facts.get(name)]
            yield f"{target.target}: {', '.join(known)}"


# Markdown and CSV -----------------------------------------------------------------------------------------------------


def _markdown(laid: Laid, reports: Sequence[RunReport]) -> Iterator[str]:
    letters = Letters()
    yield from [f"# {markdown.safe(laid.table.title)}", ""]
    yield from markdown.bullets(list(_hardware(laid.table, reports)))
    for heading, one, _ in _tables(laid, letters):
        yield from [*([f"## {heading}", ""] if heading else []), *markdown.tabled(one.rows())]
    yield from markdown.bullets(letters.lines(), "## Doubts")
    yield from markdown.bullets(list(_notes(laid, reports)), "## Notes")


def _csv(laid: Laid) -> str:
    """A row for each line: the table's columns by their own names, then what was measured beside each of them."""
    out = io.StringIO()
    most = max(
        (len(values) for line in laid.lines for one in line.found.values() for values in one.figures.values()),
        default=0,
    )
    rows = [_csv_row(laid, line, most) for line in laid.lines]
    heads = list(dict.fromkeys(head for row in rows for head in row))
    writer = csv.DictWriter(out, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _csv_row(laid: Laid, line: Line, repeats: int) -> dict[str, object]:
    of = laid.table
    row: dict[str, object] = {name: one_line(line.row.get(name, "")) for name in of.columns}
    figures: dict[str, tuple[str, Measured]] = {
        name: (ONLY, one.measure) for name, one in of.columns.items() if one.measure
    }
    if of.across is not None:
        figures |= {place: (place, of.across.measure) for place in places(laid)}
    row |= {name: line.row.get(name, "") for name in figures}
    for name, (place, measure) in figures.items():
        found = line.found.get(place)
        mean = found.mean(measure) if found else None
        row |= {f"{name}_measured": mean}
        if measure not in NO_RATIO:
            row |= {f"{name}_ratio": ratio(line.row.get(name, ""), mean)}
            values = found.figures.get(measure, ()) if found else ()
            row |= {f"{name}_repeat_{i + 1}": values[i] if i < len(values) else None for i in range(repeats)}
    each = list(line.found.values())
    row |= {"target": one_line(line.target or ""), "state": _csv_state(line)}
    row["doubts"] = " ".join(dict.fromkeys(doubt.code for one in each for doubt in one.doubts))
    row["runs"] = " ".join(dict.fromkeys(one.run for one in each))
    return row


def _csv_state(line: Line) -> str:
    states = {one.state for one in line.found.values()}
    return next((state for state in ("failed", "invalid", "ok") if state in states), "not measured")
