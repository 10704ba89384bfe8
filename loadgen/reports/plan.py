"""The plan of a run as text: cells, order, server starts, time. In: a `Plan`. Out: text."""

from __future__ import annotations

from itertools import groupby

from loadgen.plan import Plan, Step
from loadgen.progress import duration
from loadgen.reports.text import aligned
from loadgen.scenario import Loaded


def render(plan: Plan, loaded: Loaded) -> str:
    """What ``loadgen plan`` prints."""
    scenario = loaded.scenario
    lines = [scenario.name + (f": {scenario.description.strip()}" if scenario.description else "")]
    if loaded.profile:
        lines.append(f"profile {loaded.profile}: {loaded.profile_reason}")
    starts = len(plan.servers)
    lines += [
        f"{len(plan.cells)} cells x {len(scenario.targets)} targets, {len(plan.steps)} repeats, "
        f"{starts} server starts, about {duration(plan.estimate_s)}",
        "",
        *_targets(loaded),
        "",
        *_order(plan),
    ]
    return "\n".join(lines) + "\n"


def _targets(loaded: Loaded) -> list[str]:
    table = [["target", "served by", "model"]]
    for name, target in loaded.scenario.targets.items():
        where = target.endpoint or target.engine or ""
        model = target.model if isinstance(target.model, str) else f"made from {target.model.config}, random weights"
        table.append([name, where, model])
    return aligned(table, left=3)


def _order(plan: Plan) -> list[str]:
    """One line for each stretch of repeats on one server, or of one cell."""
    scope = "servers stand, each cell alternates" if plan.scope == "instance" else "a server is started for each repeat"
    lines = [f"order ({scope}):"]
    for (cell, rep), steps in groupby(plan.steps, key=lambda step: (step.cell, step.rep)):
        lines.append(f"  {cell} repeat {rep}: {', then '.join(_who(step) for step in steps)}")
    return lines


def _who(step: Step) -> str:
    return f"{step.target} (on {step.server})" if step.server else step.target
