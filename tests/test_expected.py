"""How long a repeat is taken for before it is measured: what the scenario says, and what has to be guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_runner import loadgen, write_scenario

from loadgen.expected import AROUND_S, FIRST_S, TOK_S, expected
from loadgen.offered import shape_of
from loadgen.scenario.model import Load, Workload

REPLY_S = FIRST_S + 100 / TOK_S
"""A reply of 100 tokens."""


def taken(load: dict[str, Any], folder: Path, **workload: Any) -> tuple[float, str]:
    words = {"prompts": "natural", "output": {"exact": 100}} | workload
    one, asked = Load.model_validate({"warmup_s": 0.0, **load}), Workload.model_validate(words)
    seconds, assumed = expected(one, shape_of(one, asked, folder), asked, 7, folder)
    return seconds - AROUND_S, assumed


@pytest.mark.parametrize(
    ("load", "seconds"),
    [
        ({"concurrency": 4, "requests": 1}, REPLY_S),
        ({"concurrency": 4, "requests": 8}, 2 * REPLY_S),
        ({"concurrency": 4, "requests": 9}, 3 * REPLY_S),
        ({"concurrency": 4, "requests": 9, "warmup_s": 5.0}, 5 + 3 * REPLY_S),
        ({"concurrency": 100, "requests": 200, "max_rps": 2.0}, 100),
        ({"rate_rps": 10.0, "requests": 50, "warmup_s": 3.0}, 3 + 5 + REPLY_S),
        ({"rate_rps": 10.0, "arrival": "constant", "requests": 50}, 5 + REPLY_S),
        ({"burst": 1000}, REPLY_S),
    ],
)
def test_a_load_that_ends_by_a_count_takes_as_long_as_its_requests(
    tmp_path: Path, load: dict[str, Any], seconds: float
) -> None:
    found, assumed = taken(load, tmp_path)
    assert found == pytest.approx(seconds)
    assert assumed == f"replies of 100 tokens at {TOK_S:g} a second, the first after {FIRST_S:g} s"


@pytest.mark.parametrize(
    ("load", "seconds"), [({"concurrency": 4, "window_s": 30.0}, 30), ({"rate_rps": 1.0, "window_s": 9.0}, 9)]
)
def test_a_load_with_a_window_takes_that_and_nothing_is_assumed(
    tmp_path: Path, load: dict[str, Any], seconds: float
) -> None:
    assert taken(load, tmp_path) == (pytest.approx(seconds), "")


def test_a_warm_up_that_ends_by_itself_is_assumed(tmp_path: Path) -> None:
    assert taken({"concurrency": 4, "window_s": 30.0, "warmup_s": "auto"}, tmp_path) == (50, "a warm-up of 20 s")


def test_a_count_of_changing_rates_ends_when_they_have_brought_so_many(tmp_path: Path) -> None:
    load = {"rates": [[0, 1], [10, 100]], "requests": 1000}
    assert 15 < taken(load, tmp_path)[0] - REPLY_S < 25  # some 10 in the first 10 s, then 100 a second


def test_replies_of_many_lengths_are_taken_for_their_mean(tmp_path: Path) -> None:
    found, assumed = taken(
        {"concurrency": 1, "requests": 10}, tmp_path, output={"max": {"uniform": {"min": 50, "max": 150}}}
    )
    assert found == pytest.approx(10 * REPLY_S, rel=0.1)
    assert assumed.startswith("replies of ")


def test_replies_as_a_trace_has_them_are_taken_for_their_mean(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at,in,out\n0,10,50\n1,10,150\n2,10,100\n")
    columns = {"time": "at", "input": "in", "output": "out"}
    words = {"prompts": "trace", "path": "t.csv", "format": "csv", "columns": columns, "output": {"exact": "trace"}}
    assert taken({"concurrency": 1, "requests": 3}, tmp_path, **words)[0] == pytest.approx(3 * REPLY_S)
    assert taken({"arrival": "trace"}, tmp_path, **words) == (2, "")  # its times say when it ends
    assert taken({"arrival": "trace", "requests": 2}, tmp_path, **words) == (1, "")
    assert taken({"arrival": "trace", "window_s": 1.5}, tmp_path, **words) == (1.5, "")


def test_a_plan_states_what_it_has_guessed_and_a_repeat_of_one_short_request_is_no_minute(tmp_path: Path) -> None:
    text = (
        "targets: {a: {endpoint: 'http://127.0.0.1:9', model: m}}\nworkload: {prompts: natural, output: {exact: 16}}\n"
        "load: {concurrency: 1, warmup_s: 0, requests: 1}\nrepeats: 3\n"
    )
    path = str(write_scenario(tmp_path, text))
    said = " ".join(loadgen(tmp_path, "plan", path).out.split())
    assert "1 cell x 1 target, 3 repeats, about 3 s" in said
    assert "server start" not in said
    assert "the time is a guess: replies of 16 tokens at 50 a second, the first after 0.2 s; what they take" in said
    assert "guess" not in loadgen(tmp_path, "plan", path, "--set", "load.requests=null", "--set", "load.window_s=5").out
