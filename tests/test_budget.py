"""What a night has time for, and what it says: pure functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import scenario_of

from loadgen.errors import UsageError
from loadgen.nightly.budget import in_time, ordered, pace, seconds_of, within
from loadgen.scenario import Scenario, expand

FIVE = "matrix: {load.concurrency: [1, 2, 4, 8, 16]}\nrepeats: 1\n"


def scenario(folder: Path, more: str = "") -> Scenario:
    return scenario_of(folder, ["a"], FIVE + more, "drain_s: 1")


def names(found: list[str]) -> list[int]:
    return [int(name.removeprefix("concurrency=")) for name in found]


def test_a_budget_takes_cells_from_the_front_and_leaves_time_for_a_second_measurement(tmp_path: Path) -> None:
    one = scenario(tmp_path)
    cells = expand(one)
    each = seconds_of(one, cells[:1], 1.0)
    kept, left_out = within(4.01 * each, one, cells, 1.0)
    assert [cell.id for cell in kept] == ["concurrency=1", "concurrency=2", "concurrency=4"]
    assert names(left_out) == [8, 16]
    assert within(6 * each, one, cells, 1.0) == (cells, [])


def test_cells_with_a_priority_go_first_and_are_run_in_their_own_order(tmp_path: Path) -> None:
    one = scenario(tmp_path, "nightly: {priority: ['concurrency=8', 'concurrency=2']}\n")
    cells = expand(one)
    assert names([cell.id for cell in ordered(cells, one.nightly.priority)]) == [8, 2, 1, 4, 16]
    kept, left_out = within(3.01 * seconds_of(one, cells[:1], 1.0), one, cells, 1.0)
    assert names([cell.id for cell in kept]) == [2, 8]
    assert names(left_out) == [1, 4, 16]


def test_a_priority_of_no_cell_and_a_budget_of_no_time_are_sentences(tmp_path: Path) -> None:
    one = scenario(tmp_path, "nightly: {priority: ['concurrency=9']}\n")
    with pytest.raises(UsageError, match=r"^nightly.priority: there is no cell 'concurrency=9'; did you mean"):
        within(1e6, one, expand(one), 1.0)
    one = scenario(tmp_path)
    with pytest.raises(
        UsageError, match=r"^--budget: concurrency=1, the first cell, takes about 63 s \(measured twice"
    ):
        within(10, one, expand(one), 1.0)


def test_nights_that_took_twice_as_long_as_planned_are_planned_for_twice_as_long(tmp_path: Path) -> None:
    assert pace([]) == 1
    assert pace([(20, 10), (30, 10), (200, 10)]) == 3
    assert pace([(100, 10)] * 4 + [(10, 10)] * 5) == 1  # the last five count
    assert pace([(0, 10), (10, 0), (20, 10)]) == 2
    one = scenario(tmp_path)
    cells = expand(one)
    each = seconds_of(one, cells[:1], 1.0)
    assert names(within(4.01 * each, one, cells, 2.0)[1]) == [2, 4, 8, 16]


def test_what_is_measured_again_goes_by_its_urgency_and_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    one = scenario(tmp_path)
    cells = expand(one)[::-1]
    each = seconds_of(one, cells[:1], 1.0)
    kept, late = in_time(2.01 * each, one, cells, 1.0)
    assert names(kept) == [16, 8]
    assert names(late) == [4, 2, 1]
    assert in_time(float("inf"), one, cells, 1.0) == ([cell.id for cell in cells], [])
    assert in_time(-1.0, one, cells, 1.0) == ([], [cell.id for cell in cells])
