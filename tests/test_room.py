"""Whether there is room for a load is said before it begins: files, ports, what a firewall follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import loadgen, write_scenario
from made_runs import scenario_of

from loadgen.errors import UsageError
from loadgen.room import Room, refuse, room, shortages
from loadgen.scenario import Cell, expand

LITTLE = Room(files=10_000, ports=28_232, tracked=None)


def cells(folder: Path, load: str) -> list[Cell]:
    return expand(scenario_of(folder, ["a"], load_words=load))


@pytest.mark.parametrize(
    ("load", "said", "certain"),
    [
        ("concurrency: 12000, workers: 1", "12064 open files in each of 1 worker", True),
        ("concurrency: 12000, workers: 1", "set load.workers: 2", True),
        ("concurrency: 40000, workers: 5", "more than the 28232 ports", True),
        ("concurrency: 15000, workers: 4", "more than half of the 28232 ports", False),
        ("rate_rps: 9, max_in_flight: 12000, workers: 1", "load.max_in_flight = 12000 takes 12064 open files", False),
    ],
)
def test_a_load_that_is_too_large_for_the_machine_is_named_with_what_to_do(
    tmp_path: Path, load: str, said: str, certain: bool
) -> None:
    found = shortages(cells(tmp_path, load), LITTLE)
    assert [one.certain for one in found] == [certain]
    assert said in found[0].text


@pytest.mark.parametrize("load", ["concurrency: 14000, workers: 2", "concurrency: 64", "rate_rps: 100"])
def test_a_load_that_fits_or_has_no_limit_is_let_pass(tmp_path: Path, load: str) -> None:
    assert shortages(cells(tmp_path, load), LITTLE) == []
    assert shortages(cells(tmp_path, load), Room()) == []


def test_a_shard_needs_room_for_its_share_alone_and_a_cluster_is_not_this_machine(tmp_path: Path) -> None:
    load = "concurrency: 40000, workers: 1"
    assert [one.certain for one in shortages(cells(tmp_path, load), LITTLE, machines=4)] == [True], "files: 10064"
    assert shortages(cells(tmp_path, load), LITTLE, machines=5) == []
    assert shortages(cells(tmp_path, load + ", fleet: ray"), LITTLE) == []


def test_what_a_firewall_follows_is_a_warning(tmp_path: Path) -> None:
    (one,) = shortages(cells(tmp_path, "concurrency: 5000, workers: 2"), Room(tracked=4096))
    assert not one.certain
    assert "nf_conntrack_max" in one.text


def test_this_machine_says_what_it_allows() -> None:
    allowed = room()
    assert allowed.files is None or allowed.files > 100
    assert allowed.ports is None or allowed.ports > 1000


def test_a_run_without_room_is_refused_before_anything_is_started_and_a_plan_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"open files|ports"):
        refuse(cells(tmp_path, "concurrency: 100000, workers: 1"), print)
    text = (
        "targets: {a: {endpoint: 'http://127.0.0.1:9', model: m}}\n"
        "workload: {prompts: natural, output: {exact: 2}}\n"
        "load: {concurrency: 100000, workers: 1, warmup_s: 0, window_s: 1}\nrepeats: 1\n"
    )
    scenario = write_scenario(tmp_path, text)
    planned = loadgen(tmp_path, "plan", str(scenario))
    assert planned.code == 0
    assert "not enough room here" in planned.err
    done = loadgen(tmp_path, "run", str(scenario), "--quiet")
    assert done.code == 2
    assert "load.concurrency = 100000 takes" in done.err
    assert not (tmp_path / "store").exists()
