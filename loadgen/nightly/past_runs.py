"""The runs of a store that a night has to do with: one that was not finished, the one that measures again, their times.

In: run.json and plan.json of runs. Out: runs, and numbers. A run that cannot be read is passed over.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import StoreError
from loadgen.plan import Plan, estimate
from loadgen.scenario import Scenario, public_dict
from loadgen.store import Run

NIGHT_S = 20 * 3600.0
"""A night that began longer ago is not gone on with: the next one is due."""


def unfinished(store: Path, scenario: Scenario, nights: Collection[str], part: str) -> Run | None:
    """The run of this very scenario's last night, if it was never judged (``nights`` are the runs that were) and began
    not long ago."""
    public = msgspec.to_builtins(public_dict(scenario))
    for run, described in _newest_first(store):
        if time.time() - _created(run) > NIGHT_S:
            break
        words = described.get("scenario") or {}
        if words.get("name") == scenario.name and _note(described).get("part") == part:
            return run if run.id not in nights and words == public else None
    return None


def confirming(store: Path, night: str) -> Run | None:
    """The run that was begun to measure the candidates of a night again."""
    return next((run for run, described in _newest_first(store) if _note(described).get("confirms") == night), None)


def planned_cells(run: Run) -> list[str]:
    """The cells that a run was planned for, by id. Raises StoreError."""
    return [str(cell["id"]) for cell in run.read("plan.json")["cells"]]


def paces(store: Path, nights: Sequence[str]) -> list[tuple[float, float]]:
    """Of nights: the seconds that they took, and those that their plans said; of one that its budget cut, for the part
    that it came to, so that the next one plans for what there is time for. One that was gone on with says nothing: it
    may have stood still for hours."""
    found = []
    for night in nights:
        for path in store.glob(f"runs/*/{night}"):
            try:
                run = Run(path)
                described, plan = run.read("run.json"), msgspec.convert(run.read("plan.json"), Plan)
            except (StoreError, msgspec.ValidationError):
                continue
            if described.get("resumed"):
                continue
            took = _seconds(described.get("ended")) - _seconds(described.get("started"))
            if described.get("status") == "complete":
                found.append((took, plan.estimate_s))
            elif described.get("out_of_time") and not described.get("failures"):
                done = [step for step in plan.steps if run.repeat(step.cell, step.target, step.rep).whole()]
                found.append((took, estimate(plan.cells, done)))
    return found


def last_profile(store: Path, nights: Sequence[str]) -> str | None:
    """The profile of the last of these nights; None where it had none, or cannot be read."""
    try:
        found = [path for night in nights[-1:] for path in store.glob(f"runs/*/{night}")]
        return Run(found[0]).read("run.json").get("profile") if found else None
    except StoreError:
        return None


def _newest_first(store: Path) -> Iterator[tuple[Run, dict[str, Any]]]:
    for path in sorted(store.glob("runs/*/*/run.json"), key=lambda path: path.parent.name, reverse=True):
        run = Run(path.parent)
        try:
            yield run, run.read("run.json")
        except StoreError:
            continue


def _created(run: Run) -> float:
    """Seconds since 1970 of the beginning of a run, which its id starts with; an imported one was measured before."""
    try:
        return float(calendar.timegm(time.strptime(run.id[:16], "%Y%m%dT%H%M%SZ")))
    except ValueError:
        return 0.0


def _note(described: dict[str, Any]) -> dict[str, Any]:
    return described.get("night") or {}


def _seconds(at: Any) -> float:
    """Seconds since 1970 of a time as runs keep it; 0 for one that is none."""
    try:
        return float(calendar.timegm(time.strptime(str(at), "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0
