"""What a report says once and does not say at length: places without an answer, courses without a test, endpoints."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from made_runs import A, B, made_run, scenario_of

from loadgen.assemble import ReportCell, assemble, warnings_of
from loadgen.judge import Judgement
from loadgen.long.intervals import FILE, Interval
from loadgen.plan import make_plan
from loadgen.reports import about, objectives, over_time, repeats, rows, text
from loadgen.reports import plan as plan_report
from loadgen.reports.ratios import EVERY, rows_of
from loadgen.scenario import expand, load
from loadgen.store import Run, append_line
from loadgen.summary import Doubt

COMPARED = "matrix: {concurrency: [1, 2]}\nrepeats: 6\ncomparison: {baseline: a}\n"


def test_endpoints_are_said_to_have_stood_whatever_the_scope(tmp_path: Path) -> None:
    run = made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), COMPARED), {"a": A, "b": B})
    report = assemble(run)
    assert report.plan.scope == "restart"
    assert "a and b stood all the time" in about.scope_line(report)
    assert any("do not hold what a restart changes" in note for note in report.comparisons[0].notes)
    started = msgspec.structs.replace(report.plan, servers={"a-1": "a", "b-1": "b"})
    assert "the result includes the restart" in about.scope_line(msgspec.structs.replace(report, plan=started))


def test_places_that_cannot_be_judged_for_one_reason_are_one_line(tmp_path: Path) -> None:
    words = COMPARED + "objectives: [p50 ttft < 60 ms]\n"
    run = made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), words), {"a": A, "b": B})
    report = assemble(run)
    assert objectives.lines(report, objectives.ASCII) == ["ok p50 ttft < 60 ms: met in all 4 places, value 50.00 ms"]
    unknown = Judgement(text="p50 ttft < 60 ms", value=None, limit=0.06, met=None, why="a repeat is invalid")
    missed = msgspec.structs.replace(unknown, value=0.0712, met=False, why="mean of 6 repeats")
    first, second = (
        msgspec.structs.replace(
            cell, targets=tuple(msgspec.structs.replace(one, judgements=(said,)) for one in cell.targets)
        )
        for cell, said in zip(report.cells, (unknown, missed), strict=True)
    )
    assert objectives.lines(msgspec.structs.replace(report, cells=(first, second)), objectives.ASCII) == [
        "MISSED p50 ttft < 60 ms: concurrency=2, a: 71.20 ms (mean of 6 repeats)",
        "MISSED p50 ttft < 60 ms: concurrency=2, b: 71.20 ms (mean of 6 repeats)",
        "? p50 ttft < 60 ms: a repeat is invalid (2 places, first concurrency=1, a)",
    ]


def test_a_doubt_whose_numbers_differ_from_place_to_place_is_that_of_the_first_alone(tmp_path: Path) -> None:
    run = made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), COMPARED), {"a": A, "b": B})
    report = assemble(run)
    (first, second) = report.cells
    few = doubted(first, Doubt("few", "2 requests are few.")), doubted(second, Doubt("few", "8 requests are few."))
    assert rows.warning_lines(msgspec.structs.replace(report, warnings=tuple(warnings_of(few))))[0] == (
        "2 requests are few. (concurrency=1, a; the like in 3 other cells)"
    )
    same = doubted(first, Doubt("few", "2 requests are few.")), doubted(second, Doubt("few", "2 requests are few."))
    assert rows.warning_lines(msgspec.structs.replace(report, warnings=tuple(warnings_of(same))))[0] == (
        "2 requests are few. (4 cells, first concurrency=1, a)"
    )


def doubted(cell: ReportCell, doubt: Doubt) -> ReportCell:
    targets = [msgspec.structs.replace(one, doubts=(doubt,), results=()) for one in cell.targets]
    return msgspec.structs.replace(cell, targets=tuple(targets))


def test_doubts_of_a_comparison_that_name_their_cell_are_not_counted_as_one(tmp_path: Path) -> None:
    run = made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), COMPARED.replace("6", "3")), {"a": A, "b": B})
    (line,) = [line for line in rows.warning_lines(assemble(run)) if "half an ABBA block" in line]
    assert line.startswith("3 pairs at concurrency 1 leave")
    assert line.endswith(" (the like in 1 other cell)")


def test_an_objective_that_was_judged_by_the_largest_value_anywhere_says_so(tmp_path: Path) -> None:
    words = COMPARED + "objectives: [p50 ttft < 60 ms]\n"
    report = assemble(made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), words), {"a": A, "b": B}))
    first, second = report.cells
    few = "too few samples: n = 3, p50 needs 6; judged by the largest value"
    met = Judgement(text="p50 ttft < 60 ms", value=0.0512, limit=0.06, met=True, why=few)
    late = msgspec.structs.replace(
        second, targets=tuple(msgspec.structs.replace(one, judgements=(met,)) for one in second.targets)
    )
    (line,) = objectives.lines(msgspec.structs.replace(report, cells=(first, late)), objectives.ASCII)
    assert line == f"ok p50 ttft < 60 ms: met in all 4 places, values 50.00 ms to 51.20 ms; in 2 of them {few}"


def test_why_there_is_no_drift_test_is_said_once_for_all_repeats_without_a_table(tmp_path: Path) -> None:
    run = made_run(tmp_path, scenario_of(tmp_path, ("a",), "repeats: 6\n", "concurrency: 1, interval_s: 2"), {"a": A})
    for attempt in run.folder.glob("cells/*/*/*/attempt-1"):
        for start in range(0, 30, 2):
            append_line(attempt / FILE, Interval(start_s=float(start), length_s=2.0, output_tok_s=9.0, ttft_p50_s=0.1))
    report = assemble(run)
    assert over_time.lines(report) == [
        "not tested for drift: 14 intervals are too few, a test needs 40 (2 other repeats, first all, a, repeat 5)"
    ]


def test_a_plan_is_as_wide_as_its_window(tmp_path: Path) -> None:
    scenario_of(tmp_path, ("a", "b"), COMPARED.replace("[1, 2]", "[1, 2, 4, 8, 16]"))
    loaded = load(tmp_path / "made.yaml")
    plan = make_plan(loaded.scenario, expand(loaded.scenario))
    wide, narrow = (plan_report.render(plan, loaded, (), width) for width in (200, 40))
    assert max(map(len, narrow.splitlines())) <= 40
    assert "order (endpoints take turns):" in narrow
    assert narrow.split() == wide.split(), "nothing is lost"


def test_targets_whose_table_is_wider_than_the_window_are_lines(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ("a", "b"), COMPARED)
    long = scenario.model_copy(
        update={
            "targets": {
                name: target.model_copy(update={"model": f"an-organisation/{name * 30}"})
                for name, target in scenario.targets.items()
            }
        }
    )
    loaded = msgspec.structs.replace(load(tmp_path / "made.yaml"), scenario=long)
    said = plan_report.render(make_plan(long, expand(long)), loaded, (), 60)
    assert f"a: an-organisation/{'a' * 30}; served by http" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 60
    assert "target  served by" in plan_report.render(make_plan(long, expand(long)), loaded, (), 160)


def test_a_cell_without_any_ratio_has_one_row_with_the_reason(tmp_path: Path) -> None:
    run = made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), COMPARED), {"a": A, "b": B}, state="invalid")
    (comparison,) = assemble(run).comparisons
    _, *found = rows_of(comparison)
    assert [(row[0], row[1], row[4], row[6]) for row in found] == [
        ("concurrency=1", EVERY, "-", "invalid"),
        ("concurrency=2", EVERY, "-", "invalid"),
    ]
    assert "The client sent late." in found[0][5]
    assert "p50 TTFT ms" in [row[1] for row in rows_of(assemble(good(tmp_path)).comparisons[0])]


def good(folder: Path) -> Run:
    return made_run(folder, scenario_of(folder, ("a", "b"), COMPARED), {"a": A, "b": B})


@pytest.mark.parametrize(("metric", "head"), [("p90 e2e", "p90 e2e ms"), ("output_tok_s", "output tok/s")])
def test_what_is_compared_in_has_a_column_at_every_width(tmp_path: Path, metric: str, head: str) -> None:
    words = COMPARED.replace("baseline: a", f"baseline: a, metric: {metric}")
    report = assemble(made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), words), {"a": A, "b": B}))
    (column,) = [one for one in rows.columns_of(report) if one.head == head]
    assert column.yields == 0
    shown = text.table(report, 70)
    assert head.split()[-1] in " ".join(shown[:2])
    assert "left out at this width" in " ".join(shown)
    assert head not in " ".join(shown).partition("left out")[2]


def test_a_column_in_which_nothing_stands_gives_way_before_any_other(tmp_path: Path) -> None:
    report = assemble(made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), COMPARED), {"a": A, "b": B}))
    dropped = " ".join(text.table(report, 90)).partition("left out at this width: ")[2]
    assert dropped.startswith("e2e p50 ms, TPOT p95, TTFT p99"), (
        "they would stay longer than how many repeats there are"
    )
    assert "repeats" not in dropped


def test_an_invalid_repeat_is_as_loud_in_a_table_of_repeats_as_its_cell_is(tmp_path: Path) -> None:
    report = assemble(made_run(tmp_path, scenario_of(tmp_path, ("a", "b"), COMPARED), {"a": A, "b": B}))
    (first, *others) = report.cells
    (target, *rest) = first.targets
    (result, *later) = target.results
    assert result is not None
    bad = msgspec.structs.replace(result, summary=msgspec.structs.replace(result.summary, state="invalid"))
    target = msgspec.structs.replace(target, results=(bad, *later))
    cell = msgspec.structs.replace(first, targets=(target, *rest))
    lines = repeats.rows_of(msgspec.structs.replace(report, cells=(cell, *others)))
    assert [line[-1] for line in lines[:3]] == ["state", "INVALID", "ok"]
    assert len(lines) == 1 + 2 * 2 * 6
