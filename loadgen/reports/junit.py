"""Reports as JUnit XML, which every CI system shows: what was measured, objectives and verdicts as test cases.

In: `RunReport`s. Out: one ``testsuite`` a run. A cell that was measured and may be trusted passes; one that is invalid
fails, one that failed or never ran is an error. An objective that is missed fails, and one that nobody can judge is
skipped, as is a comparison that decides nothing. The probes of a search are no cases; its answer is one.
**A verdict fails where the candidate is worse than the baseline**, or may not be compared with it. Every failure
carries the sentence that the report has for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.comparing.comparison import ComparedCell
from loadgen.reports.rows import failure_lines, plain, warning_lines
from loadgen.search.path import Goal
from loadgen.searched import Searched
from loadgen.shown import number
from loadgen.statistics import Verdict

Outcome = Literal["passed", "failure", "error", "skipped"]

_OUTCOMES: tuple[tuple[Outcome, tuple[Verdict | None, ...]], ...] = (
    ("failure", (Verdict.SLOWER, Verdict.NOT_COMPARABLE, Verdict.INVALID)),
    ("skipped", (Verdict.INCONCLUSIVE, None)),
)


class Case(NamedTuple):
    """A test case: where it belongs, what it is called, how it went, and the sentence. ``kind`` is for programs."""

    group: str
    name: str
    outcome: Outcome
    kind: str = ""
    text: str = ""
    seconds: float = 0.0


def render(reports: Sequence[RunReport], more: Sequence[Case] = ()) -> str:
    """The whole document. ``more`` are cases that hold for no single run: series against earlier nights."""
    suites = ElementTree.Element("testsuites", name="loadgen")
    for report in reports:
        suites.append(_suite(report))
    if more:
        suites.append(_counted("nights", more))
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def cases(report: RunReport) -> Iterator[Case]:
    """Everything that a run can pass or fail."""
    for cell in (*report.cells, *report.routing_cells) if not report.searches else ():
        for target in cell.targets:
            yield _measured(cell, target)
            for one in target.judgements:
                value = "" if one.value is None else f" {number(one.value)}"
                outcome: Outcome = "skipped" if one.met is None else "passed" if one.met else "failure"
                text = f"{one.text}: {cell.id}, {target.target}:{value} ({one.why})"
                yield Case(f"{cell.id}.{target.target}", one.text, outcome, "objective", text)
    yield from map(_searched, report.searches)
    for comparison in report.comparisons:
        yield from map(_compared, comparison.cells)
    for line in failure_lines(report):
        yield Case("run", line, "error", "failed", line)


def _measured(cell: ReportCell, target: TargetCell) -> Case:
    reasons = [doubt.text for summary in target.summaries for doubt in summary.invalid]
    seconds = sum(summary.window.length_s for summary in target.summaries)
    outcomes: dict[str, Outcome] = {"ok": "passed", "invalid": "failure", "running": "skipped", "waiting": "skipped"}
    outcome = outcomes.get(target.state, "error")
    text = " ".join(dict.fromkeys(reasons)) or f"{cell.id}, {target.target} was {target.state}"
    return Case(f"{cell.id}.{target.target}", "measured", outcome, target.state, text, seconds)


def _searched(search: Searched) -> Case:
    """A search fails where no load keeps the objectives, and where the client was the limit."""
    outcome: Outcome = "skipped" if search.stop is None else "failure" if search.exit_code else "passed"
    name = search.goal.find if isinstance(search.goal, Goal) else "sweep"
    return Case(f"{search.cell}.{search.target}", name, outcome, str(search.stop), f"{search.sentence}; {search.why}")


def _compared(cell: ComparedCell) -> Case:
    one = cell.primary
    outcome: Outcome = next((name for name, verdicts in _OUTCOMES if one.verdict in verdicts), "passed")
    name = f"{cell.candidate} against {cell.baseline}: {one.label}"
    text = one.sentence or one.why or f"{one.verdict or 'no verdict'}"
    return Case(cell.cell, name, outcome, str(one.verdict or "no verdict"), text)


def _suite(report: RunReport) -> ElementTree.Element:
    suite = _counted(str(report.run["scenario"]["name"]), list(cases(report)))
    suite.set("timestamp", str(report.run.get("started") or ""))
    if warnings := warning_lines(report):
        ElementTree.SubElement(suite, "system-out").text = "\n".join(map(plain, warnings))
    return suite


def _counted(name: str, found: Sequence[Case]) -> ElementTree.Element:
    counts = {word: str(sum(case.outcome == word for case in found)) for word in ("failure", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        name=plain(name),
        tests=str(len(found)),
        failures=counts["failure"],
        errors=counts["error"],
        skipped=counts["skipped"],
        time=f"{sum(case.seconds for case in found):.3f}",
    )
    suite.extend(map(_case, found))
    return suite


def _case(case: Case) -> ElementTree.Element:
    element = ElementTree.Element(
        "testcase", classname=plain(case.group), name=plain(case.name), time=f"{case.seconds:.3f}"
    )
    text = plain(" ".join(case.text.split()))
    if case.outcome == "skipped":
        ElementTree.SubElement(element, "skipped", message=text)
    elif case.outcome != "passed":
        ElementTree.SubElement(element, case.outcome, message=text, type=case.kind).text = text
    elif case.kind not in ("ok", "objective"):
        ElementTree.SubElement(element, "system-out").text = text
    return element
