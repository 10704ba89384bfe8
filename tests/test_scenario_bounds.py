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


def test_a_long_time_without_a_unit_is_taken_for_forgotten_milliseconds(tmp_path: Path) -> None:
    assert complaints(tmp_path, SMALLEST + "objectives: [p99 ttft < 500]\n") == [
        "x.yaml:6:14: objectives[0]: ttft_s is in seconds where no unit stands, and 500 s is long; write 500 ms or s"
    ]
    assert scenario(tmp_path, SMALLEST + "objectives: [p99 ttft < 2, p99 e2e < 500 s]\n").objectives


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions/", "/chat/completions"])
def test_an_endpoint_that_is_the_path_of_a_request_is_refused(path: str, tmp_path: Path) -> None:
    text = SMALLEST.replace("engine: hf", f"endpoint: 'http://h:1/base{path}'")
    (line,) = complaints(tmp_path, text)
    assert line.endswith(f"is where requests go; write the root of the server alone, without {path}")


def test_a_name_that_is_none_is_told_what_one_is(tmp_path: Path) -> None:
    assert complaints(tmp_path, SMALLEST + "name: a/b\n") == [
        "x.yaml:6:7: name: has 1 to 64 letters, digits, '.', '_' or '-', and starts with a letter, digit or '_'"
    ]
