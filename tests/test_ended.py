"""How a run ends: its exit code, which cron and CI read, and its status; where several hold, the gravest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_runs import made_run, scenario_of, summary, write

from loadgen.assemble import assemble
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
