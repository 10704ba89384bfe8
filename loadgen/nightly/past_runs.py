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


LONGEST_S = 86400.0
"""No night takes longer: the next one is due."""


def unfinished(store: Path, scenario: Scenario, nights: Collection[str], part: str) -> Run | None:
    """The run of this very scenario's last night, if it was never judged (``nights`` are the runs that were) and began
    not long ago. It is known by its run.json, whatever its folder is called by now; one that began far ahead of the
    clock, which was set since, is passed over."""
    public = msgspec.to_builtins(public_dict(scenario))
    now = time.time()
    found = [
        (_seconds(described.get("started")), run, described)
        for run, described in _runs(store)
        if _mapping(described, "scenario").get("name") == scenario.name
        and _mapping(described, "night").get("part") == part
    ]
    late = [one for one in found if abs(now - one[0]) <= NIGHT_S]
    if not late:
        return None
    _, run, described = max(late, key=lambda one: (one[0], one[1].id == one[2].get("run")))  # a copy counts less
    return run if described.get("run") not in nights and described["scenario"] == public else None


def confirming(store: Path, night: str) -> Run | None:
    """The run that was begun to measure the candidates of a night again."""
    return next((run for run, described in _runs(store) if _mapping(described, "night").get("confirms") == night), None)


def before_last(store: Path) -> float | None:
    """When the last run but one of a store began (seconds since 1970), None where there are not two."""
    began = sorted(_seconds(described.get("started")) for _, described in _runs(store))
    return began[-2] if len(began) > 1 else None


def planned_cells(run: Run) -> list[str]:
    """The cells that a run was planned for, by id. Raises StoreError."""
    return [str(cell["id"]) for cell in run.read("plan.json")["cells"]]


def paces(store: Path, nights: Sequence[str]) -> list[tuple[float, float]]:
    """Of nights: the seconds that they took, and those that their plans said; of one that its budget cut, for the part
    that it came to, so that the next one plans for what there is time for. One that was gone on with says nothing: it
    may have stood still for hours; nor does one that took longer than a day by a clock that was set meanwhile."""
    found = []
    for night in nights:
        for path in store.glob(f"runs/*/{night}"):
            try:
                run = Run(path)
                described, plan = run.read("run.json"), msgspec.convert(run.read("plan.json"), Plan)
            except (StoreError, msgspec.ValidationError):
                continue
            took = _seconds(described.get("ended")) - _seconds(described.get("started"))
            if described.get("resumed") or took > LONGEST_S:
                continue
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


def _runs(store: Path) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Every run of a store that can be read, with its run.json."""
    for path in sorted(store.glob("runs/*/*/run.json")):
        run = Run(path.parent)
        try:
            yield run, run.read("run.json")
        except StoreError:
            continue


def _mapping(described: dict[str, Any], word: str) -> dict[str, Any]:
    found = described.get(word)
    return found if isinstance(found, dict) else {}


def _seconds(at: Any) -> float:
    """Seconds since 1970 of a time as runs keep it; 0 for one that is none."""
    try:
        return float(calendar.timegm(time.strptime(str(at), "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0
