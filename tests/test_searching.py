"""The story of a search over a store, with a simulated server in the place of the driver: what is written, gone on
with, reported, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simulated_search import Simulated

from loadgen.calibrate import against_itself
from loadgen.errors import UsageError
from loadgen.fleet import Elsewhere, Shard
from loadgen.nightly.story import Asked, nightly
from loadgen.progress import Progress
from loadgen.reports import csv, html, junit, markdown, repeats, rows, text
from loadgen.reports import json as json_report
from loadgen.reports import plan as plan_report
from loadgen.run import Request, execute
from loadgen.scenario import Cell
from loadgen.searched import Probe, read_plan, read_probes
from loadgen.searching import Search, probe_after_probe


@pytest.fixture(scope="module")
def sought(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """Both targets searched for their largest rate."""
    made = Simulated(tmp_path_factory.mktemp("sought"))
    made.follow()
    return made


def test_every_target_is_searched_by_itself_and_the_answers_are_theirs(sought: Simulated) -> None:
    a, b = sought.report().searches
    assert a.answer is not None
    assert b.answer is not None
    assert a.answer.holds == pytest.approx(80, rel=0.1)
    assert b.answer.holds == pytest.approx(40, rel=0.1)
    assert (a.stop, b.stop) == ("narrow", "narrow")
    assert sought.report().exit_code == 0


def test_probes_are_cells_and_repeats_with_prompts_of_their_own(sought: Simulated) -> None:
    probes = read_probes(sought.run)
    assert len({probe.step.seed for probe in probes if probe.search == 0}) == sum(one.search == 0 for one in probes)
    for probe in probes:
        assert probe.cell.id == f"rate_rps={probe.load:g}"
        assert sought.run.repeat(probe.cell.id, probe.step.target, probe.step.rep).whole()
        assert probe.cell.words["load"]["rate_rps"] == probe.load
    plan = read_plan(sought.run)
    assert [cell.axes["rate_rps"] for cell in plan.cells] == sorted({probe.load for probe in probes})
    assert json.loads((sought.run.folder / "plan.json").read_text())["cells"] == []


def test_a_search_that_was_cut_short_goes_on_to_the_same_answer(sought: Simulated, tmp_path: Path) -> None:
    cut = Simulated(tmp_path)
    cut.follow(most=3)
    assert len(read_probes(cut.run)) == 3
    assert cut.report().searches[0].stop is None
    assert "--resume goes on" in cut.report().searches[0].why
    lost = cut.driven[1].step
    (cut.run.repeat(lost.cell, lost.target, lost.rep).attempts()[-1] / "summary.json").unlink()  # as a kill leaves it
    cut.follow()
    assert [probe.load for probe in read_probes(cut.run)] == [probe.load for probe in read_probes(sought.run)]
    assert cut.run.repeat(lost.cell, lost.target, lost.rep).whole() is not None
    assert cut.report().searches == sought.report().searches


def test_what_is_said_while_it_goes_on_names_every_probe_and_then_the_answer(tmp_path: Path) -> None:
    said = Simulated(tmp_path, "{find: max_concurrency, start: 16, probes: 8}").follow()
    assert said[0].startswith("a, probe 1: 16 in flight met (every objective")
    assert any(line.startswith("a: it meets the objectives up to ") for line in said)


def test_a_probe_that_comes_to_nothing_twice_ends_its_search_and_no_other(tmp_path: Path) -> None:
    made = Simulated(tmp_path)
    tried: list[str] = []

    def dies(probe: Probe, _: Cell) -> None:
        tried.append(probe.step.target)

    for number in (0, 1):
        search = Search(made.run, made.plan, number, made.cells["all"], made.loaded)
        list(probe_after_probe(search, dies, lambda: False))
    assert tried == ["a", "a", "b", "b"]
    assert [one.sentence for one in made.report().searches] == ["no load was measured"] * 2


def test_a_client_that_is_the_limit_is_named_and_the_run_is_invalid(tmp_path: Path) -> None:
    made = Simulated(tmp_path)
    made.late_from = 30
    made.follow()
    report = made.report()
    assert report.exit_code == 5
    assert "at 40 the client itself was the limit" in report.searches[0].sentence
    assert "INVALID, 3 windows" in text.render(report, 160)


def test_an_overload_that_was_measured_is_missed_and_not_invalid(tmp_path: Path) -> None:
    made = Simulated(tmp_path)
    made.waves_from = 100
    made.follow()
    report = made.report()
    assert report.exit_code == 0
    (row,) = [row for row in rows.rows(report) if row[:2] == ["160", "a"]]
    head = rows.rows(report)[0]
    assert row[-1] == "missed"
    assert row[head.index("TTFT p50 ms")] != "-", "what was measured is shown"
    assert row[head.index("output tok/s")] == "-", "a rate of one phase is none"
    for shown in (text.render(report, 200), markdown.render(report), html.render(report)):
        assert "INVALID" not in shown
        assert "Requests ran in step." in shown


def test_a_client_that_is_the_limit_is_invalid_in_every_table(tmp_path: Path) -> None:
    made = Simulated(tmp_path)
    made.late_from = 30
    made.follow()
    report = made.report()
    found = rows.rows(report)
    assert {row[-1] for row in found if row[0] == "40"} == {"INVALID"}
    assert {row[-1] for row in repeats.rows_of(report) if row[0] == "rate_rps=40"} == {"INVALID"}
    assert "INVALID: The client sent late." in markdown.render(report)


def test_a_limit_that_no_load_keeps_is_a_missed_objective(tmp_path: Path) -> None:
    made = Simulated(tmp_path, "{find: max_rate, start: 300, probes: 2}")
    made.follow()
    assert made.report().exit_code == 3


def test_the_report_shows_the_answer_the_path_and_goodput(sought: Simulated) -> None:
    report = sought.report()
    for shown in (text.render(report, 200), markdown.render(report), html.render(report)):
        for one in report.searches:
            assert f"{one.target}: {one.sentence}" in shown
            assert one.why in shown
        assert "Search for max_rate: b" in shown
        assert "goodput %" in shown
        assert "20.0" not in shown.split(), "the first load is 20"
    narrow = text.render(report, 80, unicode=False)
    assert max(len(line) for line in narrow.splitlines() if not line.startswith("run: ")) <= 80
    assert "missed, 2 windows" in narrow
    decoded = json.loads(json_report.render(report))["searches"][0]
    assert decoded["answer"]["met"] == report.searches[0].answer.met  # type: ignore[union-attr]
    assert {held["text"] for held in decoded["probes"][0]["trial"]["objectives"]} == {
        "p95 ttft < 0.5 s", "error_rate < 2 %", "goodput > 90 %",
    }  # fmt: skip
    header, *rows = csv.render([report]).splitlines()
    assert {"rate_rps", "goodput", "goodput_rps"} <= set(header.split(","))
    assert len(rows) == len(read_probes(sought.run))
    assert junit.render([report]).count("<testcase") == 2


def test_a_plan_says_what_is_searched_for_and_how_long_that_may_take(sought: Simulated) -> None:
    shown = plan_report.render(sought.plan, sought.loaded)
    assert "2 searches, at most 24 probes" in shown
    assert "a: max_rate from 20, to within 5 %, in 12 probes" in shown


def test_a_sweep_goes_through_the_store_to_its_knee(tmp_path: Path) -> None:
    made = Simulated(tmp_path, "{find: sweep, steps: 4, most: 16}")
    made.follow()
    report = made.report()
    one = report.searches[0]
    assert one.swept is not None
    assert one.swept.maximum == pytest.approx(80, rel=0.05)
    assert one.swept.knee is not None
    shown = text.render(report, 200)
    assert "Sweep: a" in shown
    assert "16 in flight" in shown
    assert "p50 TTFT begins to rise at" in shown
    assert report.exit_code == 0
    assert one.sentence in html.render(report)


def test_what_needs_a_load_of_its_own_refuses_a_search(tmp_path: Path) -> None:
    made = Simulated(tmp_path)
    with pytest.raises(UsageError, match="a search has no load of its own"):
        against_itself(made.loaded, "a", 2)
    with pytest.raises(UsageError, match="whose loads are others every night"):
        nightly(Asked(made.loaded, tmp_path / "nights"), Progress(print, live=True))
    shard = Elsewhere(shard=Shard(index=1, of=2, start_at=0.0))
    with pytest.raises(UsageError, match="search from one place"):
        execute(Request(made.loaded, tmp_path / "shards", elsewhere=shard), Progress(print, live=True))
