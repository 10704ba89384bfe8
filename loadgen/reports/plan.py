"""The plan of a run as text: cells, order, server starts, time. In: a `Plan`. Out: text."""

from __future__ import annotations

from itertools import groupby

from loadgen.plan import Plan
from loadgen.progress import counted, duration
from loadgen.reports.text import aligned
from loadgen.scenario import Loaded


def render(plan: Plan, loaded: Loaded) -> str:
    """What ``loadgen plan`` prints."""
    scenario = loaded.scenario
    lines = [scenario.name + (f": {scenario.description.strip()}" if scenario.description else "")]
    if loaded.profile:
        lines.append(loaded.profile_reason)
    starts = len(plan.servers)
    lines += [
        f"{counted(len(plan.cells), 'cell')} x {counted(len(scenario.targets), 'target')}, "
        f"{counted(len(plan.steps), 'repeat')}, {counted(starts, 'server start')}, about {duration(plan.estimate_s)}",
        *_routing(plan),
        "",
        *_targets(loaded),
        "",
        *_order(plan),
    ]
    return "\n".join(lines) + "\n"


def _routing(plan: Plan) -> list[str]:
    """The cells that the routing check adds, and what they cost."""
    extra = [cell for cell in plan.cells if cell.routing is not None]
    if not extra:
        return []
    seconds = sum(cell.seconds for cell in extra for step in plan.steps if step.cell == cell.id)
    kinds = ", ".join(str(cell.routing) for cell in extra)
    return [f"routing check: {len(extra)} of the cells ({kinds} prompts), {duration(seconds)} of it"]


def _targets(loaded: Loaded) -> list[str]:
    table = [["target", "served by", "model"]]
    for name, target in loaded.scenario.targets.items():
        where = target.endpoint or target.engine or ""
        model = target.model if isinstance(target.model, str) else f"made from {target.model.config}, random weights"
        table.append([name, where, model])
    return aligned(table, left=3)


def _order(plan: Plan) -> list[str]:
    """One line for each stretch of repeats on one server (restarts), or of one cell (standing servers)."""
    if plan.scope == "restart":
        lines = ["order (a server is started for each repeat and runs all cells):"]
        for (server, target, rep), steps in groupby(plan.steps, key=lambda step: (step.server, step.target, step.rep)):
            lines.append(f"  repeat {rep}: {server or target}: {', '.join(step.cell for step in steps)}")
        return lines
    lines = ["order (servers stand, each cell alternates):"]
    for (cell, rep), steps in groupby(plan.steps, key=lambda step: (step.cell, step.rep)):
        lines.append(f"  {cell} repeat {rep}: {', '.join(step.server or step.target for step in steps)}")
    return lines
