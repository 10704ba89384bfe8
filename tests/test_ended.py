"""How a run ends: its exit code, which cron and CI read, and its status; where several hold, the gravest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import made_run, scenario_of, summary, write

from loadgen.assemble import assemble
from loadgen.cells import MISSING
from loadgen.cli.resuming import hints
from loadgen.ended import status_of
from loadgen.plan import Plan, make_plan
from loadgen.scenario import expand
from loadgen.store import Run
from loadgen.summary import Summary

OBJECTIVE = "objectives: ['output_tok_s > 500']\n"
GOOD, SLOW, INVALID = summary(1000.0), summary(100.0), summary(100.0, state="invalid")
DEAD = msgspec.structs.replace(summary(0.0, state="failed"), ok=0, output_tok_s=None)
LOST = {"lost": ("worker 1 was killed by signal 9",)}


def run_of(folder: Path, *repeats: tuple[Summary, dict[str, Any]] | None, **described: Any) -> tuple[Run, Plan]:
    """A run of two repeats of one target: what they came to with further fields of their results, None for none."""
    scenario = scenario_of(folder, ["a"], f"repeats: 2\n{OBJECTIVE}")
    run = made_run(folder / "store", scenario, {}, described)
    for rep, one in enumerate(repeats, 1):
        if one is not None:
            write(run, ("all", "a", rep), one[0], **one[1])
    return run, make_plan(scenario, expand(scenario))


CASES: dict[str, tuple[list[Any], dict[str, Any], int, str]] = {
    # repeats, fields of run.json, exit code, status
    "good": ([(GOOD, {}), (GOOD, {})], {}, 0, "complete"),
    "missed": ([(SLOW, {}), (SLOW, {})], {}, 3, "complete"),
    "invalid": ([(GOOD, {}), (INVALID, {})], {}, 5, "complete"),
    "a worker lost": ([(GOOD, {}), (GOOD, LOST)], {}, 5, "degraded"),
    "a worker lost, and missed": ([(SLOW, LOST), (SLOW, {})], {}, 5, "degraded"),
    "failed": ([(DEAD, {}), (DEAD, {})], {}, 6, "complete"),
    "failed and invalid": ([(DEAD, {}), (INVALID, LOST)], {}, 6, "degraded"),
    "a failure beside": ([(SLOW, {}), (INVALID, {})], {"failures": ["a died"]}, 6, "degraded"),
    "a repeat missing": ([(GOOD, {}), None], {}, 5, "degraded"),
    "a repeat missing, and missed": ([(SLOW, {}), None], {}, 5, "degraded"),
    "a repeat missing, and failed": ([(DEAD, {}), None], {}, 6, "degraded"),
    "a repeat missing because its server died": (
        [(GOOD, {}), None],
        {"failures": ["all, a, repeat 2: a died"]},
        6,
        "degraded",
    ),
    "a repeat missing because the time was up": ([(GOOD, {}), None], {"out_of_time": True}, 5, "degraded"),
    "nothing measured": ([None, None], {}, 6, "failed"),
}


@pytest.mark.parametrize(("repeats", "described", "code", "status"), CASES.values(), ids=CASES)
def test_the_gravest_of_what_happened_is_the_exit_code_and_what_is_missing_the_status(
    tmp_path: Path, repeats: list[Any], described: dict[str, Any], code: int, status: str
) -> None:
    run, plan = run_of(tmp_path, *repeats, **described)
    assert assemble(run).exit_code == code
    assert status_of(run, plan, (), described.get("failures", ()), signalled=False) == status
    for signal in (130, 143):
        assert assemble(run, interrupted=signal).exit_code == signal
    assert status_of(run, plan, (), (), signalled=True) == "aborted"


def test_a_repeat_that_was_not_measured_degrades_its_run_unless_nobody_needs_it(tmp_path: Path) -> None:
    run, plan = run_of(tmp_path, (GOOD, {}), None)
    (missing,) = [number for number, step in enumerate(plan.steps) if step.rep == 2]
    assert status_of(run, plan, (), (), signalled=False) == "degraded"
    assert status_of(run, plan, {missing}, (), signalled=False) == "complete"


def test_what_is_missing_is_said_once_with_its_place_unless_a_failure_says_it(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, (GOOD, {}), None)
    (said,) = [one for one in assemble(run).warnings if one.code == MISSING]
    assert (said.where, said.invalid) == (("all, a, repeat 2",), False)
    for words in ("", "shard 1: "):  # as a run says it, and one that was merged
        described = {**run.read("run.json"), "failures": [f"{words}all, a, repeat 2: a died"]}
        run.write("run.json", described)
        assert [one for one in assemble(run).warnings if one.code == MISSING] == []


def test_a_run_of_which_a_target_of_a_cell_was_never_measured_is_degraded_and_not_failed(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ["a", "b"])
    run = made_run(tmp_path / "store", scenario, {"a": [1000.0] * 6})
    report = assemble(run)
    assert [target.state for target in report.cells[0].targets] == ["ok", "skipped"]
    assert report.exit_code == 5


def test_a_run_that_goes_on_lacks_nothing_yet(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, (GOOD, {}), None, status="running")
    report = assemble(run)
    assert report.exit_code == 0
    assert [one for one in report.warnings if one.code == MISSING] == []


def test_repeats_that_until_had_no_need_of_are_not_missing(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ["a", "b"], "comparison: {baseline: a, until: 50%}\n")
    values = [1000.0, 1010.0, 1005.0, 1000.0, 995.0, 1004.0]
    run = made_run(tmp_path / "store", scenario, {"a": values, "b": values})
    assert assemble(run).exit_code == 0
    (gone,) = run.folder.glob("cells/*/b/rep-002/attempt-1/summary.json")
    gone.unlink()
    assert assemble(run).exit_code == 5


def test_which_repeats_are_missing_and_how_to_get_them_is_said_to_who_wants_no_progress_too(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, (GOOD, {}), None)
    said = (
        f"loadgen: planned repeats are missing: all, a, repeat 2. `loadgen run s.yaml --resume {run.id}`, with the "
        "same flags, measures them."
    )
    assert list(hints(assemble(run), Path("s.yaml"), quiet=True)) == [said]
    write(run, ("all", "a", 2), INVALID)
    assert list(hints(assemble(run), Path("s.yaml"), quiet=True)) == []
    (again,) = hints(assemble(run), Path("s.yaml"), quiet=False)
    assert again.endswith("--retry-invalid`, with the same flags, measures what is invalid or failed again.")


def test_of_a_run_that_measured_nothing_no_repeat_is_named(tmp_path: Path) -> None:
    run, _ = run_of(tmp_path, None, None)
    assert list(hints(assemble(run), Path("s.yaml"), quiet=False)) == []
