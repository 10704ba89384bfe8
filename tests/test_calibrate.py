"""The noise floor: what repeats differ by, where it is kept, for whom it holds, and what it says against a claim."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_runs import MACHINE, A, B, made_run, scenario_of

from loadgen.assemble import assemble
from loadgen.calibrate import against_itself, chosen, floor_of, unsteady
from loadgen.compare import compare
from loadgen.comparison import CellPairs, Comparison
from loadgen.errors import ScenarioError, StoreError, UsageError
from loadgen.noise import (
    UNKNOWN,
    Floor,
    FloorCell,
    Noise,
    doubted,
    half_width,
    load_key,
    machine_key,
    noise_of,
    pooled_cv,
    write_floor,
)
from loadgen.reports import calibrate as report
from loadgen.scenario import Loaded, Scenario, expand, load, public_dict
from loadgen.statistics import Verdict, ratio_paired

SAME = {"a": A, "b": (1001.0, 1010.0, 996.0, 1002.0, 993.0, 1009.0)}
GPU = {"name": "NVIDIA H200", "uuid": "GPU-0", "memory_gb": 141.0, "driver": "570"}


def test_noise_is_the_spread_within_a_side_whatever_lies_between_the_sides() -> None:
    spread = 0.02
    low, high = [math.exp(x) for x in (-spread, 0, spread)], [5 * math.exp(x) for x in (-spread, 0, spread)]
    assert pooled_cv([low, high]) == pytest.approx(spread)
    assert pooled_cv([low]) == pytest.approx(spread)
    assert pooled_cv([[1.0], [2.0]]) is None


@pytest.mark.parametrize(("repeats", "percent"), [(3, 3.5), (5, 1.8), (7, 1.3), (10, 1.0)])
def test_repeats_resolve_what_the_specification_says_at_one_percent_of_noise(repeats: int, percent: float) -> None:
    assert half_width(0.01, repeats) * 100 == pytest.approx(percent, abs=0.05)
    assert half_width(0.02, repeats) == pytest.approx(2 * half_width(0.01, repeats))


def test_where_nothing_differs_few_pairs_of_repeats_are_apart_by_more_than_the_floor_carries() -> None:
    """With the true noise known, the limit is wider than that of a normal variable: under 5 % of six pairs pass it."""
    logs = np.random.default_rng(1).normal(0, 0.03, (4000, 2, 6))
    ratios = [ratio_paired(a, b).value for a, b in np.exp(logs).tolist()]
    passed = np.mean([abs(math.log(ratio)) > half_width(0.03, 6) for ratio in ratios])
    assert 0.005 < passed < 0.05


# What a floor says against a claim ------------------------------------------------------------------------------------


def compared(a: Any, b: Any) -> Comparison:
    from made_runs import summary

    sides = [[summary(value) for value in side] for side in (a, b)]
    pairs = CellPairs(
        cell="all", axes={}, baseline="dense", candidate="moe", baseline_repeats=sides[0], candidate_repeats=sides[1]
    )
    return compare([pairs])


def noise(cv: float) -> dict[str, Noise]:
    return {"all": Noise(cv=cv, n=12, target="dense", run="r", at="2026-11-20T00:00:00Z")}


def codes(comparison: Comparison) -> list[str]:
    return [doubt.code for doubt in comparison.cells[0].doubts]


def test_a_difference_is_doubted_where_the_noise_alone_may_make_it() -> None:
    found = compared(A, B)
    assert found.cells[0].primary.verdict is Verdict.FASTER
    edge = math.log(1.4292) / half_width(1, 6)  # the noise at which six repeats just tell 1.4292 from 1
    assert codes(doubted(found, noise(0.99 * edge))) == []
    assert codes(doubted(found, noise(1.01 * edge))) == ["noise_floor"]


def test_the_doubt_gives_the_claim_the_noise_and_what_the_repeats_resolve() -> None:
    (doubt,) = doubted(compared(A, B), noise(0.4)).cells[0].doubts
    for word in ("43 %", "40 %", "6 repeats resolve 81 %", "dense, 2026-11-20"):
        assert word in doubt.text


def test_who_claims_no_difference_is_not_doubted() -> None:
    found = compared(*SAME.values())
    assert found.cells[0].primary.verdict is Verdict.EQUIVALENT
    assert codes(doubted(found, noise(0.4))) == []


def test_a_floor_that_nobody_measured_is_one_note() -> None:
    assert UNKNOWN in doubted(compared(A, B), {}).notes
    assert UNKNOWN not in doubted(compared(A, B), noise(0.01)).notes
    assert UNKNOWN not in doubted(compared(A[:2], B[:2]), {}).notes  # two repeats claim nothing


# Where it is kept, and for whom it holds ------------------------------------------------------------------------------


def floor(cv: float, target: str = "dense", scope: Any = "restart", load: str = "l") -> Floor:
    cell = FloorCell(cell="all", axes={}, load=load, n=12, cv={"output_tok_s": cv})
    return Floor(
        key=machine_key(MACHINE), machine=MACHINE, scope=scope, scenario="s", target=target, run="r", at="t",
        cells=(cell,),
    )  # fmt: skip


def test_the_noisiest_target_under_the_same_load_counts(tmp_path: Path) -> None:
    for one in (floor(0.01), floor(0.03, target="moe"), floor(0.5, load="other"), floor(0.6, scope="instance")):
        write_floor(tmp_path, one)
    found = noise_of(tmp_path, MACHINE, "restart", "l", "output_tok_s")
    assert found is not None
    assert (found.cv, found.target) == (0.03, "moe")
    assert noise_of(tmp_path, MACHINE | {"cores": 4}, "restart", "l", "output_tok_s") is None
    assert noise_of(tmp_path, {}, "restart", "l", "output_tok_s") is None
    assert noise_of(tmp_path, MACHINE, "restart", "l", "p50 ttft_s") is None


def test_a_new_calibration_replaces_the_one_before(tmp_path: Path) -> None:
    assert write_floor(tmp_path, floor(0.05)) == write_floor(tmp_path, floor(0.01))
    found = noise_of(tmp_path, MACHINE, "restart", "l", "output_tok_s")
    assert found is not None
    assert found.cv == 0.01


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'])
def test_a_broken_floor_is_a_sentence_with_its_path(tmp_path: Path, text: str) -> None:
    path = write_floor(tmp_path, floor(0.05))
    path.write_text(text)
    with pytest.raises(StoreError, match=r"dense.*\.json is no noise floor.*calibrate again"):
        noise_of(tmp_path, MACHINE, "restart", "l", "output_tok_s")


def test_a_machine_is_known_by_what_it_is_and_not_by_its_name() -> None:
    assert machine_key(MACHINE | {"host": "other", "kernel": "7"}) == machine_key(MACHINE)
    assert machine_key(MACHINE | {"gpus": [GPU]}) != machine_key(MACHINE)
    assert machine_key(MACHINE | {"gpus": [GPU, GPU]}) != machine_key(MACHINE | {"gpus": [GPU]})
    assert machine_key({}) == ""


def changed(folder: Path, *sets: str) -> str:
    scenario_of(folder, ("a",))
    return load_key(load(folder / "made.yaml", sets=sets).scenario)


@pytest.mark.parametrize("same", ["seed=7", "load.drain_s=1", "targets.a.model=other", "workload.save_text=true"])
def test_a_load_is_the_same_for_every_target_seed_and_patience(tmp_path: Path, same: str) -> None:
    assert changed(tmp_path, same) == changed(tmp_path)


@pytest.mark.parametrize("other", ["load.window_s=10", "load.concurrency=5", "workload.output.exact=9"])
def test_a_load_is_another_where_something_else_is_asked_or_for_longer(tmp_path: Path, other: str) -> None:
    assert changed(tmp_path, other) != changed(tmp_path)


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
    assert cell.cv["p50 ttft_s"] == 0
    assert "p99 ttft_s" not in cell.cv
    assert "in_tok" not in {name.split()[-1] for name in cell.cv}
    assert cell.load == load_key(twice(tmp_path))


@pytest.mark.parametrize("values", [{"a": A[:2], "b": A[:2]}, {"a": A, "b": (*A[:2], None, None, None, None)}])
def test_a_cell_with_too_few_repeats_has_no_floor(tmp_path: Path, values: Any) -> None:
    assert floor_of(assemble(made_run(tmp_path / "store", twice(tmp_path), values)), "s", "dense").cells == ()


def test_invalid_repeats_are_no_noise(tmp_path: Path) -> None:
    run = made_run(tmp_path / "store", twice(tmp_path), SAME, state="invalid")
    assert floor_of(assemble(run), "s", "dense").cells == ()


def test_a_target_that_differs_from_itself_is_named(tmp_path: Path) -> None:
    steady = assemble(made_run(tmp_path / "store", twice(tmp_path), SAME))
    assert unsteady(steady) == []
    (sentence,) = unsteady(assemble(made_run(tmp_path / "store", twice(tmp_path), {"a": A, "b": B})))
    assert "faster, of a target and itself" in sentence


def test_a_run_knows_the_floor_that_was_there_when_it_began_and_no_later_one(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ("dense", "moe"), more="comparison: {scope: instance}\n")
    store = tmp_path / "store"
    before = made_run(store, scenario, {"dense": A, "moe": B})
    write_floor(store, msgspec.structs.replace(floor(0.4, scope="instance"), cells=(
        FloorCell(cell="all", axes={}, load=load_key(scenario), n=12, cv={"output_tok_s": 0.4}),
    )))  # fmt: skip
    after = made_run(store, scenario, {"dense": A, "moe": B})
    told = [codes(assemble(run).comparisons[0]) for run in (before, after)]
    assert told == [[], ["noise_floor"]]
    assert [UNKNOWN in assemble(run).comparisons[0].notes for run in (before, after)] == [True, False]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_text_says_what_varies_and_what_repeats_resolve(tmp_path: Path, width: int) -> None:
    done = assemble(made_run(tmp_path / "store", twice(tmp_path), SAME))
    found = report.render(floor_of(done, "s", "dense"), done, "noise/x.json", width)
    assert "dense of s against itself, 6 repeats a side" in found
    row = next(line for line in found.splitlines() if line.startswith("all"))
    cv = pooled_cv(list(SAME.values())) or 0
    assert row.split()[-6:] == [f"{math.expm1(half_width(cv, n)) * 100:.2f}" if n else "%" for n in (3, 0, 6, 0, 10, 0)]
    assert "equivalent" in found
    assert max(len(line) for line in found.splitlines() if not line.startswith(("report:", "noise floor:"))) <= max(
        width, 75
    )


def test_where_no_floor_came_of_it_the_text_says_so(tmp_path: Path) -> None:
    done = assemble(made_run(tmp_path / "store", twice(tmp_path), {"a": A[:2], "b": A[:2]}))
    found = floor_of(done, "s", "dense")
    assert "No noise floor was kept" in report.render(found, done, "", 80)
    assert report.values(found, done, "")["path"] is None
