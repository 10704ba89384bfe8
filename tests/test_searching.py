"""The story of a search over a store, with a simulated server in the place of the driver: what is written, gone on
with, reported, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from made_runs import MACHINE
from queue_simulation import Queue

from loadgen.assemble import RunReport, assemble
from loadgen.calibrate import against_itself
from loadgen.errors import UsageError
from loadgen.fleet import Elsewhere, Shard
from loadgen.judge import asked, limits
from loadgen.nightly.story import Asked, nightly
from loadgen.plan import make_plan
from loadgen.progress import Progress
from loadgen.repeat import Result
from loadgen.reports import csv, html, junit, markdown, text
from loadgen.reports import json as json_report
from loadgen.reports import plan as plan_report
from loadgen.run import Request, execute
from loadgen.scenario import Cell, Loaded, expand, load, parse_objective, public_dict
from loadgen.searched import Probe, read_plan, read_probes
from loadgen.searching import Search, probe_after_probe
from loadgen.store import Run, create_run, write_json
from loadgen.summary import Context, Doubt, Summary

SCENARIO = """\
schema: loadgen/v1
name: sought
targets: {{a: {{endpoint: 'http://127.0.0.1:9000', model: m}}, b: {{endpoint: 'http://127.0.0.1:9001', model: m}}}}
workload: {{prompts: natural, output: {{exact: 8}}}}
load: {{warmup_s: 3, window_s: 5}}
search: {search}
objectives: [p95 ttft < 0.5 s, error_rate < 2 %, goodput > 90 %]
"""

MAX_RATE = "{find: max_rate, start: 20, probes: 12}"


class Simulated:
    """A run whose targets are simulated: ``a`` answers 80 requests a second, ``b`` 40."""

    def __init__(self, folder: Path, search: str = MAX_RATE) -> None:
        path = folder / "sought.yaml"
        path.write_text(SCENARIO.format(search=search))
        self.loaded: Loaded = load(path)
        self.cells = {cell.id: cell for cell in expand(self.loaded.scenario)}
        self.plan = make_plan(self.loaded.scenario, list(self.cells.values()), folder)
        self.run: Run = create_run(folder / "store", "sought")
        self.driven: list[Probe] = []
        self.late_from: float | None = None
        write_json(self.run.folder / "plan.json", self.plan)
        known = {
            "run": self.run.id, "status": "complete", "started": "2026-11-20T01:00:00Z", "ended": None,
            "scenario": public_dict(self.loaded.scenario), "seed": 1, "versions": {}, "machine": MACHINE,
            "servers": {}, "profile": None, "profile_reason": "", "failures": [],
        }  # fmt: skip
        self.run.write("run.json", known)

    def follow(self, most: int = 100) -> list[str]:
        """All searches, until so many probes were driven; what was said."""
        said = []
        for number, planned in enumerate(self.plan.searches):
            search = Search(self.run, self.plan, number, self.cells[planned.cell], self.loaded)
            said += list(probe_after_probe(search, self._drive, lambda: len(self.driven) >= most))
        return said

    def report(self) -> RunReport:
        return assemble(self.run)

    def _drive(self, probe: Probe, cell: Cell) -> None:
        self.driven.append(probe)
        step = probe.step
        attempt, folder = self.run.repeat(step.cell, step.target, step.rep).new_attempt()
        result = Result(
            cell=cell.id, target=step.target, rep=step.rep, attempt=attempt, block=1, seed=step.seed, server=None,
            started="2026-11-20T01:00:00Z", summary=self._measured(probe, cell), workers=(),
        )  # fmt: skip
        write_json(folder / "summary.json", result)

    def _measured(self, probe: Probe, cell: Cell) -> Summary:
        queue = Queue(slots=8 if probe.step.target == "a" else 4, tokens=10, window_s=5)
        objectives = [parse_objective(one) for one in cell.scenario.objectives]
        context = Context(
            limits=limits(objectives), asked=asked(objectives), concurrency=cell.scenario.load.concurrency
        )
        closed = cell.scenario.load.concurrency
        seed = probe.step.seed % 10**9
        one = (
            queue.at_rate(probe.load, seed, context) if closed is None else queue.at_concurrency(closed, seed, context)
        )
        if self.late_from is not None and probe.load >= self.late_from:
            return msgspec.structs.replace(one, state="invalid", invalid=(Doubt("late", "The client sent late."),))
        return one


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
