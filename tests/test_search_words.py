"""The words of ``search``: what goes with what, and the cell that a probe is."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario_text import complaints, scenario

from loadgen.scenario import expand, from_public, public_dict
from loadgen.scenario.search_rules import goal_of, probe_cell, searched_load
from loadgen.search.path import Goal
from loadgen.search.sweep import Course

WORDS = """\
schema: loadgen/v1
targets: {a: {endpoint: 'http://127.0.0.1:9', model: m}}
workload: {prompts: natural, output: {exact: 8}}
load: {window_s: 5}
"""

SOUGHT = f"{WORDS}objectives: [p99 ttft < 0.5 s]\n"


def test_one_word_is_short_for_a_mapping(tmp_path: Path) -> None:
    short = scenario(tmp_path, f"{SOUGHT}search: max_rate\n")
    assert short == scenario(tmp_path, f"{SOUGHT}search: {{find: max_rate}}\n")
    assert goal_of(short) == Goal(find="max_rate", start=1, least=0.4, most=None, within=0.05, probes=16)
    whole = scenario(tmp_path, f"{SOUGHT}search: {{find: max_concurrency, start: 8, most: 64, within: 10%}}\n")
    assert goal_of(whole) == Goal(find="max_concurrency", start=8, least=1, most=64, within=0.1, probes=16)


def test_a_sweep_looks_for_the_knee_of_what_a_reply_has(tmp_path: Path) -> None:
    streamed = goal_of(scenario(tmp_path, f"{WORDS}search: sweep\n"))
    assert streamed == Course(steps=10, most=None, latency="p50 ttft_s", seed=1)
    text = f"{WORDS}search: sweep\n".replace("output: {exact: 8}", "output: {exact: 8}, stream: false")
    whole = goal_of(scenario(tmp_path, text))
    assert isinstance(whole, Course)
    assert whole.latency == "p50 e2e_s"


def test_without_a_search_nothing_changes(tmp_path: Path) -> None:
    plain = scenario(tmp_path, WORDS.replace("window_s: 5", "window_s: 5, concurrency: 2"))
    assert goal_of(plain) is None
    assert searched_load(plain) is plain.load


def test_a_probe_is_a_cell_with_its_load_and_no_search(tmp_path: Path) -> None:
    (pattern,) = expand(scenario(tmp_path, f"{SOUGHT}search: max_rate\n"))
    cell = probe_cell(pattern, "rate_rps", 12.5)
    assert (cell.id, cell.axes) == ("rate_rps=12.5", {"rate_rps": 12.5})
    assert (cell.scenario.load.rate_rps, cell.scenario.search, cell.scenario.repeats) == (12.5, None, 1)
    assert cell.scenario.objectives == ("p99 ttft < 0.5 s",)


def test_the_steps_of_a_sweep_leave_out_the_words_of_the_other_loop(tmp_path: Path) -> None:
    words = "window_s: 5, ramp_s: 1, arrival: gamma, burstiness: 2, max_in_flight: 500"
    (pattern,) = expand(scenario(tmp_path, f"{WORDS}search: sweep\n".replace("window_s: 5", words)))
    closed = probe_cell(pattern, "concurrency", 4.0).scenario.load
    assert (closed.concurrency, closed.ramp_s, closed.arrival, closed.max_in_flight) == (4, 1, None, None)
    offered = probe_cell(pattern, "rate_rps", 4.5).scenario.load
    assert (offered.rate_rps, offered.ramp_s, offered.arrival, offered.burstiness) == (4.5, 0, "gamma", 2)


def test_searches_of_a_matrix_are_cells_of_their_own(tmp_path: Path) -> None:
    cells = expand(scenario(tmp_path, f"{SOUGHT}search: max_rate\nmatrix: {{workload.output.exact: [8, 64]}}\n"))
    assert [cell.id for cell in cells] == ["output.exact=8", "output.exact=64"]
    assert probe_cell(cells[1], "rate_rps", 3.0).id == "output.exact=64-rate_rps=3"


@pytest.mark.parametrize(
    ("words", "where", "why"),
    [
        ("search: fast", "search", "must be 'max_rate', 'max_concurrency' or 'sweep', not the text 'fast'"),
        ("search: {find: max_rate, witin: 1%}", "search.witin", "unknown key; did you mean 'within'?"),
        ("search: {find: max_rate, within: 0.5%}", "search.within", "must be at least 1 %"),
        ("search: {find: max_rate, start: 3, most: 2}", "search.start", "is more than search.most (2)"),
        ("search: {find: max_concurrency, start: 2.5}", "search.start", "2.5 is not whole"),
        ("search: {find: max_rate, steps: 5}", "search.steps", "does not go with max_rate"),
        ("search: {find: sweep, probes: 5}", "search.probes", "does not go with sweep"),
        ("search: {find: sweep, latency: p50 in_tok}", "search.latency", "is a percentile of a time"),
        ("search: max_rate\nrepeats: 3", "repeats", "does not go with search"),
        ("search: max_rate\ncomparison: {}", "search", "does not go with comparison"),
    ],
)
def test_what_does_not_go_with_a_search_is_a_sentence_with_its_place(
    tmp_path: Path, words: str, where: str, why: str
) -> None:
    found = complaints(tmp_path, f"{SOUGHT}{words}\n")
    assert any(f": {where}: " in line and why in line for line in found), found
    assert not any(": load: " in line for line in found), found


@pytest.mark.parametrize("load", ["concurrency: 4", "rate_rps: 4", "burst: 4"])
def test_the_load_that_is_searched_for_stands_nowhere_else(tmp_path: Path, load: str) -> None:
    text = f"{SOUGHT}search: max_rate\n".replace("window_s: 5", f"window_s: 5, {load}")
    (line,) = complaints(tmp_path, text)
    assert "does not go with search, which sets the load itself" in line


@pytest.mark.parametrize(
    ("objective", "why"),
    [
        ("p99 chunk_gap < 20 ms", "take tpot, or stall"),
        ("mean e2e < 2 s", "take a percentile, such as p50, not mean"),
        ("output_tok_s > 100", "does not get worse under load"),
        ("goodput_rps > 5", "does not get worse under load"),
        ("p50 e2e > 1 s", "a limit that a higher load breaks"),
        ("goodput < 50 %", "on the wrong side"),
    ],
)
def test_an_objective_whose_misses_cannot_be_counted_is_refused(tmp_path: Path, objective: str, why: str) -> None:
    (line,) = complaints(tmp_path, f"{WORDS}objectives: ['{objective}']\nsearch: max_rate\n")
    assert why in line


def test_a_search_under_no_objective_is_refused(tmp_path: Path) -> None:
    (line,) = complaints(tmp_path, f"{WORDS}search: max_rate\n")
    assert "max_rate needs objectives" in line


def test_a_search_from_a_cluster_says_from_how_many_nodes(tmp_path: Path) -> None:
    text = f"{SOUGHT}search: max_rate\n".replace("window_s: 5", "window_s: 5, fleet: ray")
    (line,) = complaints(tmp_path, text)
    assert "load.workers: is auto, and nobody knows beforehand" in line
    assert goal_of(scenario(tmp_path, text.replace("fleet: ray", "fleet: ray, workers: 4"))) is not None


@pytest.mark.parametrize("find", ["max_rate", "sweep"])
def test_a_search_is_read_back_from_what_a_run_keeps_of_it(tmp_path: Path, find: str) -> None:
    kept = scenario(tmp_path, f"{SOUGHT}search: {find}\n")
    assert goal_of(from_public(public_dict(kept))) == goal_of(kept)
