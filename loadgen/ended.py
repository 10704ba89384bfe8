"""How a run came to its end: its status (complete, degraded, aborted or failed) and its exit code.

In: what is stored of it, its plan, and what ended it. Out: the ``status`` of run.json; what cron and CI read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from loadgen.cells import ReportCell
from loadgen.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OBJECTIVE_MISSED, EXIT_OK
from loadgen.plan import Plan
from loadgen.searched import Searched
from loadgen.store import Run, read_json


def status_of(run: Run, plan: Plan, needless: Collection[int], failures: Sequence[str], signalled: bool) -> str:
    """A run that a signal ended is aborted, one without a single repeat failed. It is degraded if something failed, if
    a worker was lost, or if steps were not measured which are not ``needless`` (by number)."""
    if signalled:
        return "aborted"
    if not any(run.repeats()):
        return "failed"
    steps = [step for number, step in enumerate(plan.steps) if number not in needless]
    missing = any(run.repeat(step.cell, step.target, step.rep).whole() is None for step in steps)
    return "degraded" if failures or missing or _lost_any(run) else "complete"


def _lost_any(run: Run) -> bool:
    """True if a worker was lost in a repeat that counts."""
    whole = [attempt for repeat in run.repeats() if (attempt := repeat.whole()) is not None]
    return any(read_json(attempt / "summary.json").get("lost") for attempt in whole)


def exit_code_of(
    cells: Sequence[ReportCell], failures: Sequence[str], searches: Sequence[Searched], lacking: bool
) -> int:
    """The contract's exit code: failed before invalid or degraded, before a missed objective. A probe that fails or
    misses is what a search looks for. A run that is ``lacking`` repeats which its plan asked for is degraded if it
    measured anything, and failed if it did not."""
    if searches and not failures:
        codes = [search.exit_code for search in searches]
        return next((code for code in (EXIT_FAILED, EXIT_INVALID, EXIT_OBJECTIVE_MISSED) if code in codes), EXIT_OK)
    targets = [target for cell in cells for target in cell.targets]
    states = {target.state for target in targets}
    if failures or "failed" in states or states == {"skipped"}:
        return EXIT_FAILED
    results = [result for target in targets for result in target.results if result is not None]
    if lacking or "invalid" in states or any(result.lost for result in results):
        return EXIT_INVALID
    if any(judgement.met is False for target in targets for judgement in target.judgements):
        return EXIT_OBJECTIVE_MISSED
    return EXIT_OK
