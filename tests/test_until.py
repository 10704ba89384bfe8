"""Repeats that are added until the interval is narrow: which steps of a plan are spared, by results that were made up,
and what the report says of repeats that nobody needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_runner import write_scenario
from test_summarise import reply

from loadgen.assemble import RunReport, assemble
from loadgen.comparing.comparison import ComparedCell
from loadgen.needless import rest_of, spared, what_is_left, whole
from loadgen.plan import Plan, Step, make_plan
from loadgen.repeat import Result
from loadgen.reports import rows
from loadgen.scenario import expand, load, public_dict
from loadgen.statistics import UNTIL_MOST
from loadgen.store import Run, create_run, write_json
from loadgen.summarise import summarise
from loadgen.summary import Doubt, Window

OK = summarise([reply() for _ in range(400)], Window(10, 40))

STEADY = (1.0, 1.002, 0.999, 1.001, 0.998, 1.003, 1.0, 1.001)
RESTLESS = (1.0, 1.05, 0.96, 1.03, 0.95, 1.04, 0.97, 1.02)


class Session:
    """A run folder whose results are made up: B is 1.2 times as fast as A, times a factor for each repeat."""

    def __init__(self, folder: Path, scope: str = "instance", until: str = "1%", asked: str = "") -> None:
        text = (
            "targets: {a: {engine: hf, model: x/a}, b: {engine: hf, model: x/b}}\n"
            f"workload: {{prompts: natural, output: {{exact: 8}}{asked}}}\nload: {{window_s: 10, warmup_s: 2}}\n"
            f"matrix: {{concurrency: [1, 4]}}\ncomparison: {{scope: {scope}, until: {until}}}\n"
        )
        scenario = load(write_scenario(folder, text)).scenario
        self.run: Run = create_run(folder / "store", "made_up")
        self.plan: Plan = make_plan(scenario, expand(scenario))
        self.said: list[str] = []
        write_json(self.run.folder / "plan.json", self.plan)
        described: dict[str, Any] = {
            "run": self.run.id, "status": "complete", "started": "a", "ended": "b", "scenario": public_dict(scenario),
            "seed": 1, "versions": {"loadgen": "0"}, "profile": None, "profile_reason": "", "failures": [],
            "machine": {"cpu": "a processor", "cores": 2, "memory_gb": 1, "gpus": []},
        }  # fmt: skip
        self.run.write("run.json", described)

    def repeat(self, cell: str, target: str, rep: int, tok_s: float, **fields: Any) -> None:
        _, folder = self.run.repeat(cell, target, rep).new_attempt()
        summary = msgspec.structs.replace(OK, output_tok_s=tok_s, **fields)
        result = Result(
            cell=cell, target=target, rep=rep, attempt=1, block=(rep + 1) // 2, seed=1, server=None,
            started="2026-11-21T00:00:00Z", summary=summary, workers=(),
        )  # fmt: skip
        write_json(folder / "summary.json", result)

    def pairs(self, concurrency: int, factors: tuple[float, ...], first: int = 1) -> Session:
        for rep, factor in enumerate(factors, first):
            self.repeat(f"concurrency={concurrency}", "a", rep, 100.0)
            self.repeat(f"concurrency={concurrency}", "b", rep, 120.0 * factor)
        return self

    def step(self, concurrency: int, rep: int) -> Step:
        """The step that ends this repeat of a cell."""
        return [s for s in self.plan.steps if (s.cell, s.rep) == (f"concurrency={concurrency}", rep)][-1]

    def spared(self, after: Step | None = None) -> dict[str, set[int]]:
        """By cell: the repeats that are spared after a block (or when a run begins)."""
        over = 0 if after is None else self.plan.steps.index(after) + 1
        pending = set(range(over, len(self.plan.steps))) - whole(self.run, self.plan, paired=True)
        numbers = spared(self.run, self.plan, pending, after, self.said.append)
        found = [self.plan.steps[number] for number in numbers]
        return {step.cell: {one.rep for one in found if one.cell == step.cell} for step in found}

    def report(self) -> RunReport:
        return assemble(self.run)


def doubts(cell: ComparedCell, code: str) -> list[str]:
    return [doubt.text for doubt in cell.doubts if doubt.code == code]


def from_to(first: int, last: int = UNTIL_MOST) -> set[int]:
    return set(range(first, last + 1))


def test_a_standing_cell_that_is_narrow_after_six_pairs_gets_no_more_and_the_other_is_not_touched(
    tmp_path: Path,
) -> None:
    session = Session(tmp_path).pairs(1, STEADY[:6])
    assert session.spared(session.step(1, 6)) == {"concurrency=1": from_to(7)}
    assert session.said == ["concurrency=1: the interval is ±0.2 % after 6 pairs, 1 % is asked for: enough"]


@pytest.mark.parametrize("count", [2, 4])
def test_nothing_is_spared_before_six_pairs_however_narrow(tmp_path: Path, count: int) -> None:
    session = Session(tmp_path).pairs(1, (1.0,) * count)
    assert session.spared(session.step(1, count)) == {}
    assert session.said == []


def test_a_wide_interval_asks_for_another_block_until_it_is_narrow(tmp_path: Path) -> None:
    session = Session(tmp_path, until="3%").pairs(1, RESTLESS[:6])
    assert session.spared(session.step(1, 6)) == {}
    session.pairs(1, (1.0, 1.0), first=7)
    assert session.spared(session.step(1, 8)) == {}
    session.pairs(1, (1.0, 1.0), first=9)
    assert session.spared(session.step(1, 10)) == {"concurrency=1": from_to(11)}
    assert [line.endswith("enough") for line in session.said] == [False, False, True]


def test_a_ladder_goes_on_for_as_long_as_one_of_its_cells_has_to(tmp_path: Path) -> None:
    session = Session(tmp_path, scope="restart").pairs(1, STEADY[:6]).pairs(4, RESTLESS[:6])
    last = session.step(4, 6)
    assert session.spared(last) == {}
    assert "concurrency=4: the interval is ±4" in session.said[0]
    settled = Session(tmp_path, scope="restart").pairs(1, STEADY[:6]).pairs(4, STEADY[:6])
    assert settled.spared(last) == {"concurrency=1": from_to(7), "concurrency=4": from_to(7)}


def test_an_interval_that_is_wide_beyond_use_is_said_in_whole_percent(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, (1.0, 9.0, 0.2, 4.0, 0.1, 7.0))
    session.spared(session.step(1, 6))
    assert session.said == ["concurrency=1: the interval is ±632 % after 6 pairs, 1 % is asked for"]


def test_an_invalid_cell_is_not_waited_for(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, RESTLESS[:5])
    session.repeat("concurrency=1", "a", 6, 100.0, state="invalid", invalid=(Doubt("late", "It was late."),))
    session.repeat("concurrency=1", "b", 6, 120.0)
    assert session.spared(session.step(1, 6)) == {"concurrency=1": from_to(7)}
    assert session.said == ["concurrency=1: no interval (invalid), and more repeats would bring none"]


def test_a_pair_that_failed_is_made_up_for_by_another_block(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, STEADY[:5])
    session.repeat("concurrency=1", "a", 6, 100.0)  # b's server died
    assert session.spared(session.step(1, 6)) == {}
    session.pairs(1, STEADY[:2], first=7)
    assert session.spared(session.step(1, 8)) == {"concurrency=1": from_to(9)}


@pytest.mark.parametrize("stored", ["a", ""])
def test_a_block_that_brought_no_pair_is_the_last(tmp_path: Path, stored: str) -> None:
    session = Session(tmp_path).pairs(1, RESTLESS[:6])
    for rep in (7, 8):  # b never starts any more; and, in the other case, neither does a
        for target in stored:
            session.repeat("concurrency=1", target, rep, 100.0)
    assert session.spared(session.step(1, 8)) == {"concurrency=1": from_to(9)}


def test_where_no_pair_was_ever_measured_nothing_is_added_to_the_fewest(tmp_path: Path) -> None:
    session = Session(tmp_path)
    assert session.spared(session.step(1, 6)) == {"concurrency=1": from_to(7)}


def test_after_thirty_pairs_nothing_is_left_to_spare_and_the_report_says_how_wide_it_stayed(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, RESTLESS * 3 + RESTLESS[:6])
    assert session.spared(session.step(1, 30)) == {}
    (doubt,) = doubts(session.report().comparisons[0].cells[0], "too_wide")
    assert doubt.startswith("The interval at concurrency 1 is ±1.4 % after 30 pairs, wider than the 1 % of ")
    assert doubt.endswith("and no more than 30 are made.")
    assert doubt in rows.warning_lines(session.report())


@pytest.mark.parametrize("scope", ["instance", "restart"])
def test_the_cells_of_a_routing_check_get_the_fewest_repeats_and_hold_nobody_up(tmp_path: Path, scope: str) -> None:
    session = Session(tmp_path, scope, asked=", routing_check: true").pairs(1, STEADY[:6]).pairs(4, STEADY[:6])
    extra = {cell.id for cell in session.plan.cells if cell.routing is not None}
    assert len(extra) == 3
    assert {step.rep for step in session.plan.steps if step.cell in extra} == from_to(1, 6)
    steps = [step for step in session.plan.steps if step.rep == 6]
    assert set().union(*(session.spared(step) for step in steps)) == {"concurrency=1", "concurrency=4"}
    assert {line.partition(":")[0] for line in session.said} <= {"concurrency=1", "concurrency=4"}


# A run that begins again ----------------------------------------------------------------------------------------------


def test_a_resumed_run_finds_the_rule_where_it_left_it(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, STEADY[:6]).pairs(4, RESTLESS[:6])
    assert session.spared() == {"concurrency=1": from_to(7)}
    assert len(whole(session.run, session.plan, paired=True)) == 2 * 2 * 6
    assert session.said == []  # that was said when it was measured


def test_a_resumed_run_ends_the_block_that_it_was_in_before_it_is_judged(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, (*RESTLESS[:6], 1.0))
    assert session.spared() == {}
    session.pairs(1, (0.9,), first=8)
    assert session.spared(session.step(1, 8)) == {}  # it is as wide as ever, and another block is wanted


def test_a_repeat_that_was_begun_and_not_ended_is_never_spared(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, STEADY[:8])
    (session.run.repeat("concurrency=1", "a", 3).whole() / "summary.json").unlink()
    assert session.spared() == {}
    assert session.step(1, 3) not in [session.plan.steps[n] for n in whole(session.run, session.plan, paired=True)]


# What the report says -------------------------------------------------------------------------------------------------


def test_repeats_that_were_spared_are_not_missing(tmp_path: Path) -> None:
    report = Session(tmp_path).pairs(1, STEADY[:6]).pairs(4, STEADY[:8]).report()
    assert [len(target.results) for cell in report.cells for target in cell.targets] == [6, 6, 8, 8]
    assert report.exit_code == 0
    (comparison,) = report.comparisons
    assert [doubts(cell, "missing") + doubts(cell, "too_wide") for cell in comparison.cells] == [[], []]
    assert any(note.startswith("Sequential: ") for note in comparison.notes)
    assert all(math.isclose(cell.primary.ratio.value, 1.2, rel_tol=0.01) for cell in comparison.cells)


def test_repeats_that_were_wanted_and_are_not_there_are_missing(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, STEADY[:4]).pairs(4, STEADY[:6])
    session.repeat("concurrency=4", "a", 7, 100.0)
    found = {cell.cell: doubts(cell, "missing") for cell in session.report().comparisons[0].cells}
    assert [text.split()[0] for text in found["concurrency=1"]] == ["4"]
    assert [text.split()[0] for text in found["concurrency=4"]] == ["1"]


def test_repeats_of_a_block_that_was_begun_are_among_the_fewest_of_what_is_left(tmp_path: Path) -> None:
    session = Session(tmp_path).pairs(1, RESTLESS[:7])

    def least(plan: Plan) -> dict[str, int]:
        left = what_is_left(session.run, plan, paired=True, retry=False)
        return {cell.id: cell.least for cell in rest_of(session.run, plan, left).cells}

    assert least(session.plan) == {"concurrency=1": 8, "concurrency=4": 6}
    assert set(least(msgspec.structs.replace(session.plan, until=None)).values()) == {6}
