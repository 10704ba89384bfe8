"""Stored runs against each other: who is compared with whom, by which statistics, and what stands against a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import MACHINE, A, B, made_run, scenario_of

from loadgen.across import Across, across
from loadgen.assemble import assemble
from loadgen.errors import UsageError
from loadgen.matching import Asked
from loadgen.noise import Noise
from loadgen.reports import across as report
from loadgen.statistics import Verdict
from loadgen.store import Run

TWO = ("dense", "moe")
COMPARED = "comparison: {baseline: dense, scope: instance, factor: [model]}\n"


def compared(*runs: Run, **asked: Any) -> Across:
    return across([assemble(run) for run in runs], Asked(**asked))


def run_of(folder: Path, values: Any, described: dict[str, Any] | None = None, **words: Any) -> Run:
    """A run of one target, "dense", unless ``values`` names others."""
    named = values if isinstance(values, dict) else {"dense": values}
    good = {name: words.pop(name) for name in ("window_s", "state", "ttft_s") if name in words}
    return made_run(folder / "store", scenario_of(folder, list(named), **words), named, described, **good)


def test_two_runs_are_compared_as_runs_that_were_not_interleaved(tmp_path: Path) -> None:
    found = compared(run_of(tmp_path, A), run_of(tmp_path, B))
    ratio = found.comparisons[0].cells[0].primary.ratio
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.4292, 1.4120, 1.4466), abs=5e-5)
    assert "not_interleaved" in {doubt.code for doubt in found.comparisons[0].cells[0].doubts}
    assert found.comparisons[0].cells[0].primary.verdict is Verdict.FASTER
    assert found.exit_code == 0


def test_the_targets_of_one_run_are_compared_by_their_pairs(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"dense": A, "moe": B}, more=COMPARED)
    ratio = compared(run).comparisons[0].cells[0].primary.ratio
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.4292, 1.4217, 1.4367), abs=5e-5)
    turned = compared(run, baseline="moe", candidates=("dense",)).comparisons[0].cells[0].primary.ratio
    assert turned is not None
    assert turned.value == pytest.approx(1 / ratio.value)


def test_a_run_says_of_its_own_targets_what_compare_says_of_them(tmp_path: Path) -> None:
    run = assemble(run_of(tmp_path, {"dense": A, "moe": B}, more=COMPARED))
    mine, theirs = run.comparisons[0].cells[0].primary, across([run], Asked()).comparisons[0].cells[0].primary
    assert (mine.ratio, mine.verdict, mine.sentence) == (theirs.ratio, theirs.verdict, theirs.sentence)


def test_targets_of_several_belong_together_by_name_and_are_told_apart_by_their_runs(tmp_path: Path) -> None:
    one, two = (run_of(tmp_path, {"dense": A, "moe": B}) for _ in range(2))
    found = compared(one, two)
    ends = [run.id.rpartition("-")[2] for run in (one, two)]
    names = [(one.cells[0].baseline, one.cells[0].candidate) for one in found.comparisons]
    assert names == [(f"{target} ({ends[0]})", f"{target} ({ends[1]})") for target in TWO]
    assert len(found.cells[0].targets) == 4


def test_targets_can_be_named_and_need_no_common_name(tmp_path: Path) -> None:
    one, two = run_of(tmp_path, {"dense": A, "moe": B}), run_of(tmp_path, {"dense": A, "moe": B})
    named = compared(one, two, baseline="dense", candidates=("moe",)).comparisons
    assert [(c.cells[0].baseline, c.cells[0].candidate) for c in named] == [("dense", "moe")]
    only = compared(run_of(tmp_path, {"x": A}), run_of(tmp_path, {"y": B})).comparisons
    assert [(c.cells[0].baseline, c.cells[0].candidate) for c in only] == [("x", "y")]


def test_every_later_run_is_a_candidate_of_the_first(tmp_path: Path) -> None:
    found = compared(*(run_of(tmp_path, values) for values in (A, B, A)))
    ratios = [comparison.cells[0].primary.ratio for comparison in found.comparisons]
    assert [round(ratio.value, 4) for ratio in ratios if ratio] == [1.4292, 1.0]
    assert len(found.cells[0].targets) == len(found.sides) == 3


@pytest.mark.parametrize(
    ("values", "asked", "sentence"),
    [
        ([{"dense": A}], {}, "has one target, dense; name a second run"),
        ([{"dense": A, "moe": B}], {"baseline": "mo"}, "has no such target; did you mean 'moe'"),
        ([{"dense": A, "moe": B}], {"candidates": ("dense",)}, "nothing is compared with itself"),
        ([{"dense": A, "moe": B}, {"x": A, "y": B}], {}, "has dense, moe, .* has x, y; say which with --baseline"),
        ([{"dense": A}, {"dense": B}], {"factor": ("modle",)}, "--factor modle: .* did you mean 'model'"),
        ([{"dense": A}, {"dense": B}], {"metric": "ttfd"}, "did you mean 'ttft_s'"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(
    tmp_path: Path, values: list[Any], asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        compared(*(run_of(tmp_path, one) for one in values), **asked)


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    run = run_of(tmp_path, A)
    with pytest.raises(UsageError, match=f"{run.id} is named twice"):
        compared(run, run)


AXIS = "matrix: {{concurrency: [{}]}}\n"


def test_cells_belong_together_by_their_axes_and_the_others_are_named(tmp_path: Path) -> None:
    one = run_of(tmp_path, A, more=AXIS.format("1, 4, 16"), load_words="")
    two = run_of(tmp_path, B, more=AXIS.format("4, 16, 64"), load_words="")
    found = compared(one, two)
    assert [cell.id for cell in found.cells] == ["concurrency=4", "concurrency=16"]
    assert f"In {one.id} alone: concurrency=1." in found.notes
    assert f"In {two.id} alone: concurrency=64." in found.notes


def test_runs_without_a_common_cell_are_both_listed(tmp_path: Path) -> None:
    one = run_of(tmp_path, A, more=AXIS.format("1, 4"), load_words="")
    two = run_of(tmp_path, B, more=AXIS.format("8, 16"), load_words="")
    with pytest.raises(UsageError, match=r"has concurrency=1, concurrency=4; .* has concurrency=8, concurrency=16"):
        compared(one, two)


def test_two_runs_of_one_cell_each_are_compared_whatever_its_name(tmp_path: Path) -> None:
    one = run_of(tmp_path, A, more=AXIS.format("4"), load_words="")
    (cell,) = compared(one, run_of(tmp_path, B)).comparisons[0].cells
    assert cell.primary.verdict is Verdict.FASTER
    (other,) = compared(one, run_of(tmp_path, B, load_words="concurrency: 8")).comparisons[0].cells
    assert other.primary.verdict is Verdict.NOT_COMPARABLE
    assert "8 in flight" in str(other.primary.why)


def test_what_differs_between_the_runs_forbids_a_verdict_until_it_is_declared(tmp_path: Path) -> None:
    one, two = run_of(tmp_path, A), run_of(tmp_path, B, {"versions": {"loadgen": "2"}})
    found = compared(one, two)
    assert found.comparisons[0].cells[0].primary.verdict is Verdict.NOT_COMPARABLE
    assert any(note.endswith("say so: --factor loadgen") for note in found.notes)
    declared = compared(one, two, factor=("loadgen",))
    assert declared.comparisons[0].cells[0].primary.verdict is Verdict.FASTER
    assert not any("--factor" in note for note in declared.notes)


def test_an_invalid_side_is_exit_5(tmp_path: Path) -> None:
    found = compared(run_of(tmp_path, A), run_of(tmp_path, B, state="invalid"))
    assert found.comparisons[0].cells[0].primary.verdict is Verdict.INVALID
    assert found.exit_code == 5


def test_a_missing_repeat_of_one_run_leaves_nothing_of_the_other_out(tmp_path: Path) -> None:
    found = compared(run_of(tmp_path, A), run_of(tmp_path, (None, *B[1:])))
    primary = found.comparisons[0].cells[0].primary
    assert len(primary.baseline_values) == 6
    assert len(primary.candidate_values) == 5
    (doubt,) = (doubt for doubt in found.comparisons[0].doubts if doubt.code == "missing")
    assert doubt.text.startswith("1 of 6 repeats of dense (")


def test_runs_that_are_not_complete_and_windows_of_other_lengths_are_doubts(tmp_path: Path) -> None:
    one = run_of(tmp_path, A)
    found = compared(one, run_of(tmp_path, B, {"status": "aborted"}, window_s=10))
    codes = {doubt.code for doubt in found.comparisons[0].doubts}
    assert {"not_complete", "window_differs"} <= codes
    assert not {"not_complete", "window_differs"} & {
        doubt.code for doubt in compared(one, run_of(tmp_path, B)).comparisons[0].doubts
    }


def test_metric_and_margin_decide_the_verdict(tmp_path: Path) -> None:
    one, two = run_of(tmp_path, A, ttft_s=0.050), run_of(tmp_path, B, ttft_s=0.052)
    assert compared(one, two, metric="p50 ttft_s").comparisons[0].cells[0].primary.verdict is Verdict.SLOWER
    wide = compared(one, two, metric="p50 ttft_s", margin=0.1).comparisons[0].cells[0].primary
    assert wide.verdict is Verdict.EQUIVALENT
    assert wide.margin == 0.1


def test_a_claim_below_the_noise_floor_of_the_machine_is_doubted(tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def noise(machine: Any, scope: Any, load: str, measure: str) -> Noise:
        asked.append((machine["host"], scope, measure))
        return Noise(cv=0.5, pair_cv=0.0, n=12, target="dense", run="r", at="2026-11-20T00:00:00Z")

    reports = [
        assemble(run) for run in (run_of(tmp_path, A), run_of(tmp_path, B, {"machine": MACHINE | {"host": "h2"}}))
    ]
    (cell,) = across(reports, Asked(), noise).comparisons[0].cells
    assert cell.primary.verdict is Verdict.FASTER
    assert "noise_floor" in {doubt.code for doubt in cell.doubts}
    assert set(asked) == {("h1", "instance", "output_tok_s"), ("h2", "instance", "output_tok_s")}


HOSTILE = "<img src=x>\u001b[31m|"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_text_names_both_runs_and_fits_the_terminal(tmp_path: Path, width: int) -> None:
    one, two = run_of(tmp_path, A), run_of(tmp_path, B, {"machine": MACHINE | {"cpu": HOSTILE}})
    found = report.render(compared(one, two, factor=("machine",)), width, unicode=False)
    assert found.isascii()
    assert "\u001b" not in found
    assert one.id in found
    assert two.id in found
    assert max(map(len, found.splitlines())) <= max(width, 80)


def test_markdown_has_every_measure_and_nothing_that_others_wrote_as_markup(tmp_path: Path) -> None:
    page = report.render_markdown(compared(run_of(tmp_path, A), run_of(tmp_path, B, {"status": HOSTILE})))
    assert "<img" not in page
    assert "\u001b" not in page
    assert "| all | p50 TTFT ms |" in page


def test_json_is_versioned_and_leaves_the_repeats_to_the_runs(tmp_path: Path) -> None:
    found = json.loads(report.render_json(compared(run_of(tmp_path, A), run_of(tmp_path, B))))
    assert found["schema"] == 1
    assert "cells" not in found
    assert found["comparisons"][0]["cells"][0]["primary"]["baseline_values"] == list(A)
    assert [side["target"] for side in found["sides"]] == ["dense", "dense"]
