"""How a run came to its end: complete, degraded, aborted or failed.

In: what is stored of it, its plan, and what ended it. Out: the ``status`` of run.json.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from loadgen.plan import Plan
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
