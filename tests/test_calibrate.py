"""A target against itself: what is run, and the noise floor that its report has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import A, B, made_run, scenario_of

from loadgen.assemble import assemble
from loadgen.calibrate import against_itself, chosen, floor_of, unsteady
from loadgen.errors import ScenarioError, UsageError
from loadgen.noise import (
    half_width,
    load_key,
    pair_cv,
    pooled_cv,
)
from loadgen.repeat import Result
from loadgen.reports import calibrate as report
from loadgen.scenario import Loaded, Scenario, expand, load, public_dict

SAME = {"a": A, "b": (1001.0, 1010.0, 996.0, 1002.0, 993.0, 1009.0)}


# A target against itself ----------------------------------------------------------------------------------------------


def loaded(folder: Path, text: str) -> Loaded:
    path = folder / "s.yaml"
    path.write_text("schema: loadgen/v1\n" + text)
    return load(path, env={"SECRET": "sesame"})


LAUNCHED = (
    "targets:\n  dense: {engine: hf, model: x/y, options: {dtype: float32}, env: {KEY: '${env:SECRET}'}}\n"
    "  moe: {engine: hf, model: x/z, options: {quantization: bnb-8bit}}\n"
    "workload: {prompts: natural, output: {exact: 8}}\nload: {window_s: 30}\nobjectives: [p99 ttft < 1 s]\n"
)
MATRIX = "matrix: {load.concurrency: [1, 4], dtype: [float32, bfloat16], quantization: [bnb-8bit, bnb-4bit]}\n"


def test_both_sides_are_the_target_and_nothing_is_meant_to_differ(tmp_path: Path) -> None:
    before = loaded(tmp_path, LAUNCHED + "matrix: {load.concurrency: [1]}\ncomparison: {until: 1%, scope: instance}\n")
    scenario = against_itself(before, "dense", 8).scenario
    assert list(scenario.targets) == ["a", "b"]
    assert scenario.targets["a"] == scenario.targets["b"] == before.scenario.targets["dense"]
    assert scenario.comparison is not None
    assert (scenario.comparison.baseline, scenario.comparison.candidates) == ("a", ("b",))
    assert (scenario.comparison.factor, scenario.comparison.until, scenario.repeats) == ((), None, 8)
    assert scenario.comparison.scope == "instance"
    assert scenario.objectives == ()


def test_a_secret_of_the_environment_stays_a_reference_on_both_sides(tmp_path: Path) -> None:
    before = loaded(tmp_path, LAUNCHED + "matrix: {load.concurrency: [1]}\n")
    public = public_dict(against_itself(before, "dense", 6).scenario)
    assert [public["targets"][side]["env"] for side in ("a", "b")] == [{"KEY": "${env:SECRET}"}] * 2
    assert "sesame" not in str(public)


def test_an_axis_of_the_target_is_one_of_both_sides_and_that_of_another_target_is_none(tmp_path: Path) -> None:
    cells = expand(against_itself(loaded(tmp_path, LAUNCHED + MATRIX), "dense", 6).scenario)
    assert [cell.axes for cell in cells] == [
        {"concurrency": n, "dtype": dtype} for n in (1, 4) for dtype in ("float32", "bfloat16")
    ]
    for cell in cells:
        assert {target.options["dtype"] for target in cell.scenario.targets.values()} == {cell.axes["dtype"]}


def test_what_is_excluded_by_another_target_is_calibrated_all_the_same(tmp_path: Path) -> None:
    text = MATRIX.replace("}\n", ", exclude: [{dtype: float32, load.concurrency: 4}, {quantization: bnb-4bit}]}\n")
    cells = expand(against_itself(loaded(tmp_path, LAUNCHED + text), "dense", 6).scenario)
    assert [tuple(cell.axes.values()) for cell in cells] == [(1, "float32"), (1, "bfloat16"), (4, "bfloat16")]


def test_servers_are_restarted_where_no_comparison_says_otherwise_and_an_endpoint_is_an_instance(
    tmp_path: Path,
) -> None:
    launched = against_itself(loaded(tmp_path, LAUNCHED + "matrix: {load.concurrency: [1]}\n"), "moe", 6).scenario
    there = LAUNCHED.replace(
        "engine: hf, model: x/z, options: {quantization: bnb-8bit}", "endpoint: http://h:1, model: m"
    )
    endpoint = against_itself(loaded(tmp_path, there + "matrix: {load.concurrency: [1]}\n"), "moe", 6).scenario
    assert [one.comparison and one.comparison.scope for one in (launched, endpoint)] == ["restart", "instance"]


def test_two_servers_that_cannot_stand_on_the_same_gpu_are_a_sentence(tmp_path: Path) -> None:
    text = LAUNCHED.replace("model: x/y,", "model: x/y, devices: [0],").replace(
        "model: x/z,", "model: x/z, devices: [1],"
    )
    text += "matrix: {load.concurrency: [1]}\ncomparison: {scope: instance}\n"
    with pytest.raises(ScenarioError, match=r"with dense on both sides, a and b: .*take comparison\.scope: restart"):
        against_itself(loaded(tmp_path, text), "dense", 6)


def test_the_target_is_the_one_asked_for_or_the_baseline_or_the_first(tmp_path: Path) -> None:
    scenario = loaded(tmp_path, LAUNCHED + "matrix: {load.concurrency: [1]}\ncomparison: {baseline: moe}\n").scenario
    assert (chosen(scenario, None), chosen(scenario, "dense")) == ("moe", "dense")
    assert chosen(scenario.model_copy(update={"comparison": None}), None) == "dense"
    with pytest.raises(UsageError, match=r"--target desne: .* did you mean 'dense'"):
        chosen(scenario, "desne")


# Of the run's report --------------------------------------------------------------------------------------------------


def twice(folder: Path, repeats: int = 6) -> Scenario:
    more = f"repeats: {repeats}\ncomparison: {{baseline: a, scope: instance, factor: []}}\n"
    return scenario_of(folder, ("a", "b"), more=more)


def test_the_floor_of_a_run_has_every_measure_that_all_good_repeats_have(tmp_path: Path) -> None:
    done = assemble(made_run(tmp_path / "store", twice(tmp_path), SAME))
    found = floor_of(done, "s", "dense")
    (cell,) = found.cells
    assert cell.n == 12
    assert cell.cv["output_tok_s"] == pytest.approx(pooled_cv(list(SAME.values())))
    assert cell.pair_cv["output_tok_s"] == pytest.approx(pair_cv(*SAME.values()))
    assert cell.cv["p50 ttft_s"] == 0
    assert "p99 ttft_s" not in cell.cv
    assert "in_tok" not in {name.split()[-1] for name in cell.cv}
    assert cell.load == load_key(twice(tmp_path))


@pytest.mark.parametrize("values", [{"a": A[:2], "b": A[:2]}, {"a": A, "b": (*A[:2], None, None, None, None)}])
def test_a_cell_with_too_few_repeats_has_no_floor(tmp_path: Path, values: Any) -> None:
    assert floor_of(assemble(made_run(tmp_path / "store", twice(tmp_path), values)), "s", "dense").cells == ()


def test_a_cell_with_one_repeat_that_is_not_to_be_trusted_has_no_floor(tmp_path: Path) -> None:
    run = made_run(tmp_path / "store", twice(tmp_path), SAME)
    (path,) = run.folder.glob("cells/all/b/rep-004/*/summary.json")
    stored = msgspec.json.decode(path.read_bytes(), type=Result)
    bad = msgspec.structs.replace(stored, summary=msgspec.structs.replace(stored.summary, state="invalid"))
    path.write_bytes(msgspec.json.encode(bad))
    assert floor_of(assemble(run), "s", "dense").cells == ()


def test_a_target_that_differs_from_itself_is_named(tmp_path: Path) -> None:
    steady = assemble(made_run(tmp_path / "store", twice(tmp_path), SAME))
    assert unsteady(steady) == []
    (sentence,) = unsteady(assemble(made_run(tmp_path / "store", twice(tmp_path), {"a": A, "b": B})))
    assert "faster, of a target and itself" in sentence


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_text_says_what_varies_and_what_repeats_resolve(tmp_path: Path, width: int) -> None:
    done = assemble(made_run(tmp_path / "store", twice(tmp_path), SAME))
    found = report.render(floor_of(done, "s", "dense"), done, "noise/x.json", width)
    assert "dense of s against itself, 6 repeats a side" in found
    row = next(line for line in found.splitlines() if line.startswith("all"))
    cv = pair_cv(*SAME.values()) or 0
    assert row.split()[-6:] == [f"{math.expm1(half_width(cv, n)) * 100:.2f}" if n else "%" for n in (3, 0, 6, 0, 10, 0)]
    assert "equivalent" in found
    assert max(len(line) for line in found.splitlines() if not line.startswith(("report:", "noise floor:"))) <= max(
        width, 75
    )


def test_where_no_floor_came_of_it_the_text_says_so(tmp_path: Path) -> None:
    done = assemble(made_run(tmp_path / "store", twice(tmp_path), {"a": A[:2], "b": A[:2]}))
    found = floor_of(done, "s", "dense")
    assert "against itself, 6 repeats a side" in report.render(found, done, "", 80)
    assert "No noise floor for all: it takes three pairs" in report.render(found, done, "", 80)
    assert report.values(found, done, "")["path"] is None
