"""The noise floor: what it is made of, where it is kept, for whom it holds, and what it says against a claim."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_runs import MACHINE, A, B, made_run, scenario_of, summary

from loadgen.assemble import assemble
from loadgen.comparing.compare import compare
from loadgen.comparing.comparison import CellPairs, Comparison
from loadgen.errors import StoreError
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
    pair_cv,
    pooled_cv,
    write_floor,
)
from loadgen.scenario import load
from loadgen.statistics import Verdict, ratio_paired

SAME = {"a": A, "b": (1001.0, 1010.0, 996.0, 1002.0, 993.0, 1009.0)}
GPU = {"name": "NVIDIA H200", "uuid": "GPU-0", "memory_gb": 141.0, "driver": "570"}


def test_noise_is_the_spread_within_a_side_whatever_lies_between_the_sides() -> None:
    spread = 0.02
    low, high = [math.exp(x) for x in (-spread, 0, spread)], [5 * math.exp(x) for x in (-spread, 0, spread)]
    assert pooled_cv([low, high]) == pytest.approx(spread)
    assert pooled_cv([low]) == pytest.approx(spread)
    assert pooled_cv([[1.0], [2.0]]) is None


def test_a_mood_of_the_machine_that_lasts_for_a_pair_is_no_noise_in_it() -> None:
    mood, noise = (0.3, -0.2, 0.1, 0.0), (0.01, -0.01, 0.02, 0.0)
    a = [math.exp(m) for m in mood]
    b = [math.exp(m + n) for m, n in zip(mood, noise, strict=True)]
    assert pair_cv(a, b) == pytest.approx(statistics.stdev(noise) / math.sqrt(2))
    assert pair_cv(a, b) == pytest.approx(pair_cv(b, a))
    assert (pooled_cv([a, b]) or 0) > 0.2
    assert pair_cv([1.0], [1.0]) is None


def test_without_moods_both_are_the_same_noise() -> None:
    a, b = np.exp(np.random.default_rng(2).normal(0, 0.05, (2, 4000))).tolist()
    assert pair_cv(a, b) == pytest.approx(0.05, rel=0.05)
    assert pooled_cv([a, b]) == pytest.approx(0.05, rel=0.05)


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


def compared(a: Any, b: Any, paired: bool = True) -> Comparison:
    sides = [[summary(value) for value in side] for side in (a, b)]
    pairs = CellPairs(
        cell="all", axes={}, baseline="dense", candidate="moe", paired=paired,
        baseline_repeats=sides[0], candidate_repeats=sides[1],
    )  # fmt: skip
    return compare([pairs])


def noise(cv: float) -> dict[str, Noise]:
    return {"all": Noise(cv=1.0, pair_cv=cv, n=12, target="dense", run="r", at="2026-11-20T00:00:00Z")}


def codes(comparison: Comparison) -> list[str]:
    return [doubt.code for doubt in comparison.cells[0].doubts]


def test_a_difference_is_doubted_where_the_noise_alone_may_make_it() -> None:
    found = compared(A, B)
    assert found.cells[0].primary.verdict is Verdict.FASTER
    edge = math.log(1.4292) / half_width(1, 6)  # the noise at which six repeats just tell 1.4292 from 1
    assert codes(doubted(found, noise(0.99 * edge))) == []
    assert codes(doubted(found, noise(1.01 * edge))) == ["noise_floor"]


def test_sides_that_were_not_interleaved_are_held_against_the_noise_between_repeats() -> None:
    paired, apart = compared(A, B), compared(A, B, paired=False)
    quiet_pairs = {"all": msgspec.structs.replace(noise(0.001)["all"], cv=0.5)}
    assert codes(doubted(paired, quiet_pairs)) == []
    assert codes(doubted(apart, quiet_pairs)) == ["not_interleaved", "noise_floor"]


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
    cell = FloorCell(cell="all", axes={}, load=load, n=12, cv={"output_tok_s": cv}, pair_cv={"output_tok_s": cv})
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


def test_a_run_knows_the_floor_that_was_there_when_it_began_and_no_later_one(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ("dense", "moe"), more="comparison: {scope: instance}\n")
    store = tmp_path / "store"
    before = made_run(store, scenario, {"dense": A, "moe": B})
    write_floor(store, floor(0.4, scope="instance", load=load_key(scenario)))
    after = made_run(store, scenario, {"dense": A, "moe": B})
    told = [codes(assemble(run).comparisons[0]) for run in (before, after)]
    assert ["noise_floor" in one for one in told] == [False, True]
    assert [UNKNOWN in assemble(run).comparisons[0].notes for run in (before, after)] == [True, False]
