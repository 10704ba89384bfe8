"""The report for other programs: CSV, JUnit, JSON by its schema; several runs side by side; what a browser is given."""

from __future__ import annotations

import csv as csv_module
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from cli_runner import command, environment, loadgen
from jsonschema import Draft202012Validator
from test_reports import HOSTILE, SCENARIO, made, made_known

from loadgen.assemble import RunReport
from loadgen.errors import UsageError
from loadgen.judge import Judgement
from loadgen.reports import beside, csv, formats, junit
from loadgen.reports import json as json_report
from loadgen.statistics import Verdict
from loadgen.summary import Doubt

SCHEMA = Path(__file__).parents[1] / "schemas" / "report-v1.json"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    return made(tmp_path_factory.mktemp("formats"))


def changed(report: RunReport, state: str, text: str) -> RunReport:
    """The same, its first repeat in another state for this reason."""
    cell, *cells = report.cells
    target, *targets = cell.targets
    first, *others = target.results
    assert first is not None
    summary = msgspec.structs.replace(first.summary, state=state, invalid=(Doubt("why", text),))
    results = (msgspec.structs.replace(first, summary=summary), *others)
    target = msgspec.structs.replace(target, results=results)
    return msgspec.structs.replace(report, cells=(msgspec.structs.replace(cell, targets=(target, *targets)), *cells))


# -- CSV --------------------------------------------------------------------------------------------------------------


def table_of(*reports: RunReport) -> list[dict[str, str]]:
    return list(csv_module.DictReader(io.StringIO(csv.render(reports))))


def test_csv_has_a_row_a_repeat_with_all_digits_in_base_units(report: RunReport) -> None:
    rows = table_of(report)
    assert len(rows) == 12
    first = rows[0]
    assert (first["concurrency"], first["target"], first["repeat"], first["state"]) == ("1", "dense", "1", "ok")
    result = report.cells[0].targets[0].results[0]
    assert result is not None
    assert float(first["p50_ttft_s"]) == result.summary.ttft_s.p50
    assert float(first["output_tok_s"]) == result.summary.output_tok_s
    assert first["p99_ttft_s"] == ""  # below its floor: not known, and not 0


def test_csv_says_which_repeat_is_not_to_be_averaged_and_which_is_missing(report: RunReport) -> None:
    rows = table_of(changed(report, "invalid", "The client sent late."))
    assert (rows[0]["state"], rows[0]["why"]) == ("invalid", "The client sent late.")
    cell = report.cells[0]
    target = msgspec.structs.replace(cell.targets[0], results=(None, *cell.targets[0].results[1:]))
    gone = msgspec.structs.replace(report, cells=(msgspec.structs.replace(cell, targets=(target,)),))
    missing = table_of(gone)[0]
    assert (missing["repeat"], missing["state"], missing["p50_ttft_s"]) == ("1", "skipped", None)


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "-2", "a\nb", HOSTILE])
def test_nothing_in_csv_is_a_formula_or_breaks_its_row(report: RunReport, text: str) -> None:
    rows = table_of(changed(report, "invalid", text))
    assert len(rows) == 12
    assert rows[0]["why"][0] not in "=+-@"
    assert "\u001b" not in rows[0]["why"]


# -- JUnit ------------------------------------------------------------------------------------------------------------


def cases_of(report: RunReport) -> dict[tuple[str, str], Any]:
    suites = ElementTree.fromstring(junit.render([report]))
    assert suites.tag == "testsuites"
    return {(case.get("classname"), case.get("name")): case for case in suites.iter("testcase")}


def outcome(case: Any) -> str:
    return next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")


def test_junit_has_cells_objectives_and_verdicts_as_cases(report: RunReport) -> None:
    cases = cases_of(report)
    assert outcome(cases["concurrency=1.dense", "measured"]) == "passed"
    missed = cases["concurrency=4.moe", "error_rate < 1 %"]
    assert outcome(missed) == "failure"
    assert missed[0].get("message") == "error_rate < 1 %: concurrency=4, moe: 0.010 (mean of 3 repeats)"
    verdict = cases["concurrency=4", "moe against dense: output tok/s"]
    assert outcome(verdict) == "failure"
    assert "not comparable" in verdict[0].get("message")
    assert outcome(cases["concurrency=1", "moe against dense: output tok/s"]) == "passed"


def test_the_counts_of_a_junit_suite_are_those_of_its_cases(report: RunReport) -> None:
    suite = ElementTree.fromstring(junit.render([report]))[0]
    found = [outcome(case) for case in suite.iter("testcase")]
    assert int(suite.get("tests", "")) == len(found)
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(name, "")) == found.count(tag)


@pytest.mark.parametrize(("state", "tag"), [("invalid", "failure"), ("failed", "error")])
def test_a_cell_that_is_not_to_be_trusted_fails_with_its_sentence(report: RunReport, state: str, tag: str) -> None:
    case = cases_of(changed(report, state, "The client sent late."))["concurrency=1.dense", "measured"]
    assert outcome(case) == tag
    assert case[0].get("message") == "The client sent late."


@pytest.mark.parametrize(
    ("verdict", "tag"),
    [
        (Verdict.SLOWER, "failure"),
        (Verdict.INVALID, "failure"),
        (Verdict.FASTER, "passed"),
        (Verdict.SMALL_DIFFERENCE, "passed"),
        (Verdict.INCONCLUSIVE, "skipped"),
        (None, "skipped"),
    ],
)
def test_a_verdict_fails_where_the_candidate_is_worse(report: RunReport, verdict: Verdict | None, tag: str) -> None:
    (comparison,) = report.comparisons
    cell = comparison.cells[0]
    cell = msgspec.structs.replace(cell, primary=msgspec.structs.replace(cell.primary, verdict=verdict))
    comparison = msgspec.structs.replace(comparison, cells=(cell,))
    cases = cases_of(msgspec.structs.replace(report, comparisons=(comparison,)))
    assert outcome(cases["concurrency=1", "moe against dense: output tok/s"]) == tag


def test_an_objective_that_nobody_can_judge_is_skipped(report: RunReport) -> None:
    unknown = Judgement(text="p99 ttft < 1 s", value=None, limit=1.0, met=None, why="too few samples")
    cell = report.cells[0]
    target = msgspec.structs.replace(cell.targets[0], judgements=(unknown,))
    found = msgspec.structs.replace(report, cells=(msgspec.structs.replace(cell, targets=(target,)),))
    assert outcome(cases_of(found)["concurrency=1.dense", "p99 ttft < 1 s"]) == "skipped"


def test_hostile_text_is_text_in_junit(report: RunReport) -> None:
    cases = cases_of(msgspec.structs.replace(report, failures=(f"all: {HOSTILE}\ufffe\x00",)))
    (error,) = [case for case in cases.values() if outcome(case) == "error"]
    assert "<img src=x onerror=alert(1)>" in error[0].text
    assert "\u001b" not in error[0].text


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_the_schema_that_is_shipped_is_current_and_valid() -> None:
    assert SCHEMA.read_text() == json_report.schema(), "run: loadgen schema --report > schemas/report-v1.json"
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


def test_reports_keep_their_schema(report: RunReport, tmp_path: Path) -> None:
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    more = SCENARIO.replace("scope: instance}", "scope: instance, until: 5%}").replace("repeats: 3", "repeats: 6")
    (tmp_path / "until").mkdir()
    for one in (report, made_known(tmp_path), made(tmp_path / "until", more)):
        written = json.loads(json_report.render(one))
        assert [error.message for error in validator.iter_errors(written)] == []
    del written["cells"]
    assert [error.message for error in validator.iter_errors(written)] == ["'cells' is a required property"]


# -- several runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[RunReport]:
    return [made(tmp_path_factory.mktemp("beside")) for _ in range(2)]


def test_runs_stand_side_by_side_cell_by_cell(two: list[RunReport]) -> None:
    names = beside.short_names(two)
    assert len(set(names)) == 2
    rows = beside.table(two)
    assert rows[0][:3] == ["concurrency", "target", "run"]
    assert [row[:3] for row in rows[1:5]] == [["1", target, name] for target in ("dense", "moe") for name in names]
    assert len(rows) == 1 + 8


def test_runs_of_other_axes_have_all_axes_and_a_dash_where_one_is_not_theirs(two: list[RunReport]) -> None:
    other = [msgspec.structs.replace(cell, axes={"input": 512, **cell.axes}) for cell in two[1].cells]
    rows = beside.table([two[0], msgspec.structs.replace(two[1], cells=tuple(other))])
    assert rows[0][:4] == ["concurrency", "input", "target", "run"]
    assert [row[:2] for row in rows[1:]] == [["1", "-"]] * 2 + [["4", "-"]] * 2 + [["1", "512"]] * 2 + [
        ["4", "512"]
    ] * 2


@pytest.mark.parametrize("width", [60, 80, 160])
def test_runs_side_by_side_fit_their_window(two: list[RunReport], width: int) -> None:
    lines = beside.render(two, width, unicode=False).splitlines()
    assert max(len(line) for line in lines if not line.startswith("run: ")) <= width
    assert "\n".join(lines).isascii()


def test_runs_side_by_side_say_each_what_weakens_it_and_how_to_compare(two: list[RunReport]) -> None:
    shown = beside.render(two, 200)
    for name in beside.short_names(two):
        assert f"\nWarnings of {name}\n" in shown
    assert f"loadgen compare {two[0].run['run']} {two[1].run['run']}" in shown
    page = beside.render_markdown(two)
    assert page.count("| moe |") == 4


def test_json_and_csv_and_junit_hold_several_runs(two: list[RunReport]) -> None:
    assert [one["run"]["run"] for one in json.loads(formats.render("json", two))] == [one.run["run"] for one in two]
    assert len(table_of(*two)) == 24
    assert len(ElementTree.fromstring(junit.render(two))) == 2


def test_a_page_of_several_runs_and_a_format_that_is_none_are_sentences() -> None:
    with pytest.raises(UsageError, match="a page shows one run, and 2 are named"):
        formats.check("html", 2)
    with pytest.raises(UsageError, match="--format pdf: there are text, markdown, csv, json, junit and html"):
        formats.check("pdf", 1)


# -- the browser ------------------------------------------------------------------------------------------------------


def opened(folder: Path, browser: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(folder / "store"), "BROWSER": browser, "PATH": str(folder)}
    return subprocess.run(command("report", "last", "--open"), cwd=folder, env=env, capture_output=True, text=True)


def test_open_writes_the_page_and_gives_it_to_the_browser(tmp_path: Path) -> None:
    report = made(tmp_path)
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}\n')
    os.chmod(browser, 0o700)
    done = opened(tmp_path, str(browser))
    page = Path(report.path) / "report.html"
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{page}\n"
    assert asked.read_text() == f"{page.as_uri()}\n"
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_without_a_browser_the_path_of_the_page_is_said(tmp_path: Path) -> None:
    report = made(tmp_path)
    done = opened(tmp_path, str(tmp_path / "nothing"))
    assert done.returncode == 0, done.stderr
    assert "no browser" in done.stderr
    assert done.stdout == f"{Path(report.path) / 'report.html'}\n"


def test_several_runs_are_named_on_the_command_line(tmp_path: Path) -> None:
    runs = [made(tmp_path).run["run"] for _ in range(2)]
    done = loadgen(tmp_path, "report", *(run.rpartition("-")[2] for run in runs))
    assert done.code == 0, done.err
    assert done.out.startswith("Side by side\n")
