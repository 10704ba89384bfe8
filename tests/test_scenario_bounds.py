"""Numbers that no machine can take: they are refused in a sentence, before anything is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario_text import SMALLEST, complaints, scenario

LOAD = "load: {concurrency: 2, window_s: 1}"


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ("{concurrency: 1000001, window_s: 1}", "concurrency: must be at most 1000000, not 1000001"),
        ("{burst: 1000000000000000000000000}", "burst: must be at most 1000000, not 1000000000000000000000000"),
        ("{concurrency: 1, window_s: 1, workers: 100000}", "workers: must be at most 1000, not 100000"),
        ("{concurrency: 1, window_s: 1e300}", "window_s: must be at most 100000000, not 1e+300"),
        ("{concurrency: 1, window_s: 1, drain_s: 1e9}", "drain_s: must be at most 100000000, not 1000000000.0"),
    ],
)
def test_a_load_beyond_all_machines_is_refused(load: str, said: str, tmp_path: Path) -> None:
    (line,) = complaints(tmp_path, SMALLEST.replace(LOAD, f"load: {load}"))
    assert line.partition(" load.")[2] == said


def test_more_repeats_than_a_plan_can_hold_are_refused(tmp_path: Path) -> None:
    assert complaints(tmp_path, SMALLEST + "repeats: 1000000000\n") == [
        "x.yaml:6:10: repeats: must be at most 10000, not 1000000000"
    ]


def test_the_largest_loads_are_taken(tmp_path: Path) -> None:
    largest = "load: {concurrency: 1000000, window_s: 1e8, workers: 1000}"
    assert scenario(tmp_path, SMALLEST.replace(LOAD, largest)).load.concurrency == 1_000_000


@pytest.mark.parametrize("number", [".nan", "-.inf", "1e400"])
def test_what_follows_from_a_number_that_is_none_is_not_told_beside_it(number: str, tmp_path: Path) -> None:
    assert complaints(tmp_path, SMALLEST.replace("window_s: 1", f"window_s: {number}")) == [
        f"x.yaml:5:34: load.window_s: '{number}' is no number that can be measured with; write a finite one"
    ]
