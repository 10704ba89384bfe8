"""The plan: order, servers, seeds, shapes; and what `loadgen plan` says of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from cli_runner import loadgen, write_scenario

from loadgen.drive.schedule import digest
from loadgen.errors import ScenarioError, UsageError
from loadgen.offered import shape_of
from loadgen.plan import Plan, make_plan, part_of, seed_of, workers_of
from loadgen.progress import extent
from loadgen.scenario import Scenario, expand, load
from loadgen.scenario.model import Load

TWO = (
    "targets:\n  a: {engine: hf, model: x/a}\n  b: {engine: hf, model: x/b}\n"
    "workload: {prompts: natural, output: {exact: 8}}\nload: {window_s: 10, warmup_s: 2}\n"
)


def scenario(folder: Path, text: str) -> Scenario:
    return load(write_scenario(folder, text)).scenario


def plan(folder: Path, text: str) -> Plan:
    found = scenario(folder, text)
    return make_plan(found, expand(found))


def test_standing_servers_alternate_abba_in_every_cell(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO + "matrix: {concurrency: [1, 2]}\nrepeats: 4\ncomparison: {scope: instance}\n")
    for cell in ("concurrency=1", "concurrency=2"):
        assert "".join(step.target for step in made.steps if step.cell == cell) == "abbaabba"
    assert made.servers == {"a-1": "a", "b-1": "b"}


def test_restarted_servers_alternate_by_whole_ladders(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO + "matrix: {concurrency: [1, 2]}\nrepeats: 3\ncomparison: {scope: restart}\n")
    assert "".join(step.target for step in made.steps) == "aabb" + "bbaa" + "aabb"
    assert list(made.servers) == ["a-1", "b-1", "b-2", "a-2", "a-3", "b-3"]
    changes = sum(before.server != after.server for before, after in pairwise(made.steps))
    assert changes == len(made.servers) - 1  # a server is never gone back to


def test_cells_that_need_other_servers_are_grouped(tmp_path: Path) -> None:
    matrix = "matrix: {targets.*.options.max_batch_size: [1, 8], concurrency: [1, 2]}\nrepeats: 1\n"
    made = plan(tmp_path, TWO + matrix + "comparison: {scope: instance}\n")
    assert len(made.servers) == 4
    order = [step.server for step in made.steps]
    for server in made.servers:
        first, last = order.index(server), len(order) - 1 - order[::-1].index(server)
        assert last - first + 1 <= 4  # its steps stand together, so it can be stopped after them


def test_a_standing_server_that_the_next_cells_need_as_well_is_started_once(tmp_path: Path) -> None:
    matrix = "matrix: {targets.a.options.max_batch_size: [1, 8], concurrency: [1, 2]}\nrepeats: 2\n"
    made = plan(tmp_path, TWO + matrix + "comparison: {scope: instance}\n")
    assert made.servers == {"a-1": "a", "b-1": "b", "a-2": "a"}


def test_where_nothing_is_compared_a_server_stands_at_a_time_and_once_for_its_configuration(tmp_path: Path) -> None:
    matrix = "matrix: {targets.a.options.max_batch_size: [1, 8], concurrency: [1, 2]}\nrepeats: 3\n"
    made = plan(tmp_path, TWO + matrix)
    assert list(made.servers) == ["a-1", "a-2", "b-1"]
    changes = sum(before.server != after.server for before, after in pairwise(made.steps))
    assert changes == 2
    assert len(made.steps) == 2 * 4 * 3
    assert len({(step.cell, step.target, step.rep) for step in made.steps}) == len(made.steps)


def test_both_targets_of_a_pair_have_one_seed_and_pairs_differ(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO.replace("warmup_s: 2", "warmup_s: 2, concurrency: 2") + "repeats: 3\ncomparison: {}\n")
    seeds = {rep: {step.seed for step in made.steps if step.rep == rep} for rep in (1, 2, 3)}
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 3


def test_an_endpoint_needs_no_server(tmp_path: Path) -> None:
    text = TWO.replace("{engine: hf, model: x/a}", "{endpoint: 'http://h:1', model: a}").replace(
        "warmup_s: 2", "concurrency: 1"
    )
    made = plan(tmp_path, text + "repeats: 2\n")
    assert {step.server for step in made.steps if step.target == "a"} == {None}
    assert list(made.servers) == ["b-1"]


def test_the_estimate_counts_windows_and_starts(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO.replace("warmup_s: 2", "warmup_s: 2, concurrency: 2") + "repeats: 5\n")
    assert 2 * 5 * 12 < made.estimate_s < 2 * 5 * 12 + 100


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ({"rate_rps": 5.0, "window_s": 1.0}, "poisson"),
        ({"rate_rps": 5.0, "window_s": 1.0, "arrival": "constant"}, "constant"),
        ({"rate_rps": 5.0, "window_s": 1.0, "arrival": "gamma", "burstiness": 2.0}, "gamma"),
        ({"burst": 7}, "burst"),
        ({"rates": [[0, 5], [10, 20]], "window_s": 20.0}, "piecewise"),
    ],
)
def test_every_open_loop_has_its_arrival(words: dict[str, object], kind: str) -> None:
    shape = shape_of(Load.model_validate(words))
    assert shape.arrival is not None
    assert shape.arrival.kind == kind


def test_a_burst_has_no_warm_up_and_waits_for_the_last_reply() -> None:
    shape = shape_of(Load.model_validate({"burst": 3, "timeout_s": 77.0}))
    assert (shape.warmup_s, shape.drain_s) == (0.0, 77.0)


def test_timestamps_are_read_from_a_file_and_bad_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text("0\n\n1.5\n")
    shape = shape_of(Load.model_validate({"timestamps": str(path)}))
    assert shape.arrival is not None
    assert shape.arrival.timestamps == (0.0, 1.5)
    path.write_text("0\nsoon\n")
    with pytest.raises(UsageError, match=r"offsets\.txt:2: 'soon' is no offset"):
        shape_of(Load.model_validate({"timestamps": str(path)}))
    path.write_text("\n")
    with pytest.raises(UsageError, match="holds no offsets"):
        shape_of(Load.model_validate({"timestamps": str(path)}))


def test_workers_follow_the_load_unless_they_are_set() -> None:
    assert workers_of(Load.model_validate({"concurrency": 16, "window_s": 1.0})) == 1
    assert workers_of(Load.model_validate({"concurrency": 16, "window_s": 1.0, "workers": 3})) == 3


@pytest.mark.parametrize(
    ("words", "cores", "workers"),
    [
        ({"concurrency": 512}, 32, 1),
        ({"concurrency": 513}, 32, 2),
        ({"rate_rps": 1500.0}, 32, 1),
        ({"rate_rps": 1501.0}, 32, 2),
        ({"rates": [[0, 10], [1, 4501]]}, 32, 4),
        ({"concurrency": 100_000}, 32, 16),  # half of the cores are everybody else's
        ({"concurrency": 100_000}, 3, 1),
        ({"concurrency": 100_000}, 1, 1),
        ({"concurrency": 100_000}, None, 1),
        ({"concurrency": 2000, "fleet": "ray"}, 1, 4),
    ],
)
def test_workers_are_as_many_as_the_load_needs_and_the_cores_allow(
    monkeypatch: pytest.MonkeyPatch, words: dict[str, object], cores: int | None, workers: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert workers_of(Load.model_validate({"window_s": 2.0, **words})) == workers


def test_the_plan_is_shown_and_nothing_is_started(tmp_path: Path) -> None:
    text = TWO + "matrix: {concurrency: [1, 2]}\nrepeats: 2\ncomparison: {scope: restart}\n"
    done = loadgen(tmp_path, "plan", str(write_scenario(tmp_path, text)))
    assert done.code == 0
    assert "2 cells x 2 targets, 8 repeats, 4 server starts" in done.out
    assert "each server start counts as 20 s in it" in done.out
    assert "repeat 2: b-2: concurrency=1, concurrency=2" in done.out
    assert not done.store.exists()


UNTIL = "matrix: {concurrency: [1, 2]}\ncomparison: {scope: SCOPE, until: 1%}\n"


@pytest.mark.parametrize(("scope", "servers"), [("restart", (12, 60)), ("instance", (2, 2))])
def test_until_plans_the_most_repeats_and_says_the_fewest(tmp_path: Path, scope: str, servers: tuple[int, int]) -> None:
    text = TWO + UNTIL.replace("SCOPE", scope)
    made = plan(tmp_path, text)
    assert len(made.steps) == 2 * 2 * 30
    assert len(made.servers) == servers[1]
    assert made.until == 0.01
    fewest, most = 24 * 12.5 + 20 * servers[0], 120 * 12.5 + 20 * servers[1]
    assert (made.least_s, made.estimate_s) == (fewest, most)
    assert extent(made).startswith(f"24 to 120 repeats, {servers[0] if scope == 'instance' else '12 to 60'} server")
    shown = loadgen(tmp_path, "plan", str(write_scenario(tmp_path, text))).out
    assert "until: 6 to 30 repeats, two at a time (ABBA), until every interval is within 1 %" in shown
    assert "repeat 6: " in shown
    assert "repeat 7: " not in shown
    assert "so on for as long as it takes, up to repeat 30" in shown


def test_a_part_of_a_plan_has_the_servers_and_takes_the_time_of_its_steps(tmp_path: Path) -> None:
    whole = plan(tmp_path, TWO + UNTIL.replace("SCOPE", "restart"))
    steps = [step for step in whole.steps if step.rep >= 6]
    part = part_of(whole, steps)
    assert list(part.servers) == list(dict.fromkeys(step.server for step in steps))
    assert (part.estimate_s, part.least_s) == (100 * 12.5 + 20 * 50, 4 * 12.5 + 20 * 2)
    fixed = plan(tmp_path, TWO.replace("warmup_s: 2", "warmup_s: 2, concurrency: 2") + "repeats: 2\n")
    assert part_of(fixed, fixed.steps) == fixed


def test_the_digest_of_a_cell_is_that_of_its_first_repeats_whole_schedule(tmp_path: Path) -> None:
    found = scenario(tmp_path, TWO.replace("warmup_s: 2", "warmup_s: 2, rate_rps: 9") + "repeats: 2\n")
    (cell,), (planned,) = expand(found), make_plan(found, expand(found)).cells
    assert planned.digest == f"{digest(shape_of(found.load), seed_of(cell, 1), 0, 1):016x}"


@pytest.mark.parametrize(("scope", "ladders"), [("restart", 1), ("instance", 2)])
def test_restarted_cells_go_on_together_and_standing_ones_by_themselves(
    tmp_path: Path, scope: str, ladders: int
) -> None:
    made = plan(tmp_path, TWO + UNTIL.replace("SCOPE", scope))
    assert len({cell.ladder for cell in made.cells}) == ladders


def test_a_fixed_number_of_repeats_is_planned_as_it_was(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO + "matrix: {concurrency: [1, 2]}\nrepeats: 4\ncomparison: {scope: instance}\n")
    assert (made.until, made.least_s) == (None, None)
    assert {cell.least for cell in made.cells} == {4}
    assert extent(made) == "16 repeats, 2 server starts, about 4 min 0 s"


@pytest.mark.parametrize("repeats", [3, 7, 4, 32])
def test_repeats_beside_until_are_the_fewest_and_whole_blocks(tmp_path: Path, repeats: int) -> None:
    text = TWO + UNTIL.replace("SCOPE", "restart") + f"repeats: {repeats}\n"
    with pytest.raises(ScenarioError, match=rf"repeats: is {repeats}, and with comparison.until it is the fewest"):
        plan(tmp_path, text)


def test_a_plan_of_what_is_not_compared_has_a_line_for_each_server_and_names_what_is_measured(tmp_path: Path) -> None:
    text = TWO.replace("b: {engine: hf,", "b: {engine: hf, only: {load.concurrency: [2]},")
    path = str(write_scenario(tmp_path, text + "matrix: {concurrency: [1, 2]}\nrepeats: 3\n"))
    done = loadgen(tmp_path, "plan", path)
    assert "2 cells x 2 targets, 9 repeats, 2 server starts" in done.out
    assert done.out.splitlines()[-2:] == ["  a-1: concurrency=1 x 3, concurrency=2 x 3", "  b-1: concurrency=2 x 3"]
    one = loadgen(tmp_path, "plan", path, "--cell", "concurrency=1").out
    assert "1 cell x 1 target, 3 repeats, 1 server start" in one
    assert "x/b" not in one


def test_only_the_cells_that_are_asked_for_are_planned(tmp_path: Path) -> None:
    path = str(write_scenario(tmp_path, TWO + "matrix: {concurrency: [1, 2, 16]}\nrepeats: 1\n"))
    done = loadgen(tmp_path, "plan", path, "--cell", "concurrency=1*")
    assert done.code == 0, done.err
    assert "2 cells" in done.out
    assert "concurrency=2" not in done.out
    wrong = loadgen(tmp_path, "plan", path, "--cell", "concurrency=3")
    assert wrong.code == 2
    assert "--cell concurrency=3: there is no such cell; did you mean 'concurrency=" in wrong.err


def test_a_plan_says_what_telemetry_is_required_and_whether_it_is_here(tmp_path: Path) -> None:
    two = TWO.replace("\nload: {", "\nload: {concurrency: 1, ")
    text = two.replace("b: {engine: hf,", "b: {engine: ollama,") + "telemetry: {require: [engine]}\n"
    done = loadgen(tmp_path, "plan", str(write_scenario(tmp_path, text)))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    first = lines.index("required of telemetry (a run without it is refused before anything starts):")
    assert lines[first + 1].startswith("  engine of a: its server says it at /")
    assert lines[first + 2].startswith("  engine of b: not here: ")
    assert lines[first + 2].endswith("launchers/ollama.yaml names no page of metrics")
    assert lines[first + 3] == ""
    assert "`loadgen run` would refuse this here: telemetry.require: engine of target b" in done.err
    assert "required of telemetry" not in loadgen(tmp_path, "plan", str(write_scenario(tmp_path, two))).out
