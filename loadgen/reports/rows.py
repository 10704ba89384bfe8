"""What a table of results shows, before it is drawn: one row a target and cell, in words that fit a column.

In: a `RunReport`. Out: a header and rows of text, shared by the terminal's table and Markdown's. A value is the mean
over the repeats of each repeat's own value; an invalid or failed repeat is never averaged in, and a value that no
repeat has (too few samples) is a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.cells import Warned, again_lines, value_of
from loadgen.fair.facts import scenario_of
from loadgen.metrics import METRICS, Measure, measure
from loadgen.progress import counted
from loadgen.published.presets import preset_of
from loadgen.reports import about
from loadgen.scenario.label import value_text
from loadgen.search.verdict import Trial, Verdict
from loadgen.shown import DASH, number


class Column(NamedTuple):
    """A column: its heading, how its text is found, how soon it gives way in a narrow window (0 never), and the words
    of its measure ('' for what is none)."""

    head: str
    text: Callable[[TargetCell], str]
    yields: int = 0
    measure: str = ""


def mean(target: TargetCell, metric: str, statistic: str | None = None) -> float | None:
    """Mean over the valid repeats of a measure; None if no repeat has it."""
    values = [value_of(summary, Measure(metric, statistic)) for summary in target.valid]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _ms(metric: str, statistic: str) -> Callable[[TargetCell], str]:
    return lambda target: number(mean(target, metric, statistic), 1e3)


def _plain(metric: str) -> Callable[[TargetCell], str]:
    return lambda target: number(mean(target, metric))


def _batch(target: TargetCell) -> str:
    seen = [result.seen.batch_seen for result in target.good]
    known = [value for value in seen if value is not None]
    return number(sum(known) / len(known)) if known else DASH


def _failed(target: TargetCell) -> str:
    failed = sum(summary.failed for summary in target.summaries)
    total = sum(summary.requests for summary in target.summaries)
    return f"{failed:,}/{total:,}"


def _repeats(target: TargetCell) -> str:
    valid, planned = len(target.valid), len(target.results)
    return str(valid) if valid == planned else f"{valid}/{planned}"


COLUMNS = (
    Column("output tok/s", _plain("output_tok_s"), 0, "output_tok_s"),
    Column("req/s", _plain("request_rps"), 1, "request_rps"),
    Column("TTFT p50 ms", _ms("ttft_s", "p50"), 0, "p50 ttft_s"),
    Column("p95", _ms("ttft_s", "p95"), 3, "p95 ttft_s"),
    Column("p99", _ms("ttft_s", "p99"), 4, "p99 ttft_s"),
    Column("TPOT p50 ms", _ms("tpot_s", "p50"), 0, "p50 tpot_s"),
    Column("p95", _ms("tpot_s", "p95"), 5, "p95 tpot_s"),
    Column("e2e p50 ms", _ms("e2e_s", "p50"), 6, "p50 e2e_s"),
    Column("batch seen", _batch, 2),
    Column("failed", _failed, 7),
    Column("repeats", _repeats, 8),
    Column("state", lambda target: target.stands),
)

GOODPUT = (
    Column("goodput %", lambda target: number(mean(target, "goodput"), 100), 6, "goodput"),
    Column("goodput req/s", _plain("goodput_rps"), 7, "goodput_rps"),
)


def plain(text: str) -> str:
    """Text without control characters: names and errors come from outside, and a terminal obeys escapes."""
    return "".join(c if c.isprintable() else " " for c in text)


def axis_names(report: RunReport) -> list[str]:
    """The axes of the matrix, in their order."""
    names: dict[str, None] = {}
    for cell in report.cells:
        names.update(dict.fromkeys(cell.axes))
    return list(names)


def columns_of(report: RunReport) -> Sequence[Column]:
    """The columns of a run's table: under a preset its definition of speed comes first; goodput where there are limits
    for requests; what is compared in always."""
    scenario = report.run["scenario"]
    limited = any(mean(target, "goodput") is not None for cell in report.cells for target in cell.targets)
    every = (*COLUMNS[:2], *GOODPUT, *COLUMNS[2:]) if limited else COLUMNS
    columns = _with_compared(every, report) if not report.searches else (*every[:-1], _found(report))
    preset = preset_of(scenario.get("preset"), scenario.get("published"))
    if preset is None:
        return columns
    load = scenario_of(report.run, report.plan, report.cells[0].id if report.cells else "").get("load") or {}
    what = preset.measure(load.get("burst") is not None)
    if what is None:
        return columns
    speed = Column(f"{METRICS[what.metric].label} ({preset.name})", _speed(what))
    return (speed, columns[0]._replace(yields=1), *columns[1:])


def _with_compared(columns: tuple[Column, ...], report: RunReport) -> tuple[Column, ...]:
    """The measure of a comparison does not give way, and has a column where it had none."""
    if not report.comparisons:
        return columns
    what = measure(report.comparisons[0].primary)
    if any(column.measure == str(what) for column in columns):
        return tuple(one._replace(yields=0) if one.measure == str(what) else one for one in columns)
    scale = METRICS[what.metric].read_in[1]
    value = Column(what.head, lambda target: number(mean(target, what.metric, what.statistic), scale), 0, str(what))
    return (columns[0], value, *columns[1:])


def _found(report: RunReport) -> Column:
    """What a search says of each of its loads, in place of the state of its windows."""
    last = {(probe.cell, search.target): probe for search in report.searches for probe in search.probes}

    def text(target: TargetCell) -> str:
        cells = [result.cell for result in target.results if result is not None]
        probe = last.get((cells[0], target.target)) if cells else None
        return target.stands if probe is None or probe.trial is None else verdict(probe.trial)

    sought = any(probe.trial for probe in last.values())
    return Column("objectives" if sought else "state", text)


def verdict(trial: Trial) -> str:
    """What is said of a load, and which way an undecided one is taken."""
    if trial.verdict is Verdict.INVALID:
        return "INVALID"
    lean = {True: " (as met)", False: " (as missed)", None: ""}[trial.leans]
    return f"{trial.verdict}{lean}" if trial.verdict is Verdict.UNDECIDED else str(trial.verdict)


def _speed(what: Measure) -> Callable[[TargetCell], str]:
    return lambda target: number(mean(target, what.metric, what.statistic))


def rows(report: RunReport, columns: Sequence[Column] | None = None) -> list[list[str]]:
    """A header and one row for each target of each cell, in `columns_of` it or in others."""
    axes, shown = axis_names(report), columns_of(report) if columns is None else columns
    found = [[*(axes or ["cell"]), "target", *(column.head for column in shown)]]
    for cell in report.cells:
        found += [[*labels(report, cell), t.target, *(column.text(t) for column in shown)] for t in cell.targets]
    return found


def labels(report: RunReport, cell: ReportCell) -> list[str]:
    """What names a cell in a table: its values of the axes, else its id."""
    return [_axis(cell, axis) for axis in axis_names(report)] or [cell.id]


def _axis(cell: ReportCell, axis: str) -> str:
    return value_text(cell.axes[axis]) if axis in cell.axes else DASH


def comparison_lines(report: RunReport) -> list[str]:
    """One sentence for each compared cell, then the crossings and what holds for all of them."""
    lines = []
    for comparison in report.comparisons:
        lines += [cell.primary.sentence for cell in comparison.cells if cell.primary.sentence]
        lines += [crossing.sentence for crossing in comparison.crossings if crossing.measure == comparison.primary]
    return lines


def routing_lines(report: RunReport) -> list[str]:
    """What the routing check came to: each target on each kind of prompts, then what the comparisons make of it."""
    if report.routing is None:
        return []
    spreads = [spread.sentence for spread in report.routing.spreads]
    return spreads + [excess.sentence for excess in report.routing.excesses]


def routing_heading(report: RunReport) -> str:
    """Which cell the routing check repeated."""
    return f"Routing check of {report.routing.cell}" if report.routing else ""


def notes(report: RunReport) -> list[str]:
    """Which runs it is made of, what was measured again, what holds for every comparison, and what the engines'
    recipes say of their words, once."""
    found = about.part_lines(report)
    found += [line for cell in (*report.cells, *report.routing_cells) for line in again_lines(cell.id, cell.again)]
    found += [note for comparison in report.comparisons for note in comparison.notes]
    for server in report.run.get("servers", {}).values():
        found += [f"{server['engine']}: {note}" for note in server.get("notes", ())]
    return list(dict.fromkeys(found))


def failure_lines(report: RunReport) -> list[str]:
    """What failed, each message once (its first line), with how often and where first."""
    found: dict[str, list[str]] = {}
    for failure in report.failures:
        where, _, message = failure.partition(": ")
        found.setdefault(message.strip() or where, []).append(where)
    lines = []
    for message, places in found.items():
        more = f"{len(places)} times, first {places[0]}" if len(places) > 1 else places[0]
        head, _, rest = message.partition("\n")
        said = rest.strip().splitlines()[0].strip() if head.endswith(":") and rest.strip() else ""
        lines.append(f"{head} {said}".strip() + f" ({more})")
    return lines


def warning_lines(report: RunReport) -> list[str]:
    """The doubts, most serious first, each with how often and where it was found; of searches before all others."""
    lines = [f"{search.target}: {doubt.text}" for search in report.searches for doubt in search.doubts]
    lines += [f"{'INVALID: ' if one.invalid else ''}{one.text} ({_where(one)})" for one in report.warnings]
    for comparison in report.comparisons:
        of_cells: dict[tuple[str, int], list[str]] = {}
        for cell in comparison.cells:
            codes = [doubt.code for doubt in cell.doubts]
            for i, doubt in enumerate(cell.doubts):  # a cell may have a code twice, of each of its targets
                of_cells.setdefault((doubt.code, codes[:i].count(doubt.code)), []).append(doubt.text)
        for texts in of_cells.values():
            lines.append(texts[0] + _of_others(texts))
        lines += [doubt.text for doubt in comparison.doubts]
    return list(dict.fromkeys(lines))


def _where(warning: Warned) -> str:
    return how_often(warning.where, "repeat" if ", repeat " in warning.where[0] else "cell", warning.varies)


def how_often(where: Sequence[str], of: str, varies: bool) -> str:
    """How often a doubt was found, and where first. Where it ``varies``, the others have numbers of their own, and are
    but like the first."""
    others = len(where) - 1
    if varies:
        return f"{where[0]}; the like in {counted(others, f'other {of}')}"
    return f"{others + 1} {of}s, first {where[0]}" if others else where[0]


def _of_others(texts: Sequence[str]) -> str:
    """In how many cells a doubt was found that is said in the words of the first of them."""
    if len(set(texts)) > 1:
        return f" (the like in {counted(len(texts) - 1, 'other cell')})"
    return f" ({len(texts)} cells)" if len(texts) > 1 else ""
