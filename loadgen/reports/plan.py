"""The plan of a run as text: cells, order, server starts, time. In: a `Plan`. Out: text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from loadgen.limits.planned_memory import Need
from loadgen.plan import START_S, Plan, PlannedSearch, Step
from loadgen.progress import counted, duration, extent
from loadgen.reports import memory
from loadgen.reports.text import aligned, wrapped
from loadgen.scenario import Loaded, Scenario, Target
from loadgen.search.sweep import Course
from loadgen.statistics import UNTIL_MOST
from loadgen.telemetry.required import Required


def render(
    plan: Plan, loaded: Loaded, needs: Sequence[Need] = (), width: int = 160, required: Sequence[Required] = ()
) -> str:
    """What ``loadgen plan`` prints. ``needs``: the memory of its targets, where that is known; ``required``: what they
    must have of telemetry."""
    scenario = loaded.scenario
    about = [scenario.name + (f": {scenario.description.strip()}" if scenario.description else "")]
    if loaded.profile:
        about.append(loaded.profile_reason)
    about.append(f"{_cells(plan, scenario)}{extent(plan)}")
    lines = [
        *_wrapped(about, width),
        *_assumed(plan, width),
        *_wrapped([*_until(plan), *_routing(plan)], width),
        "",
        *_targets(_measured(plan, scenario), width),
        "",
        *memory.planned(needs, width),
        *_required(required, width),
        *_wrapped(_order(plan, compared=scenario.comparison is not None), width),
    ]
    return "\n".join(lines) + "\n"


def rest(plan: Plan, loaded: Loaded, said: Sequence[str], width: int = 160) -> str:
    """What ``loadgen plan --resume`` prints: ``said`` of the run, then the order of what is left."""
    lines = [line for text in said for line in wrapped(text, width)]
    lines += [*_assumed(plan, width), ""] if plan.steps or plan.searches else []
    order = _order(plan, compared=loaded.scenario.comparison is not None) if plan.steps or plan.searches else []
    return "\n".join([*lines, *_wrapped(order, width)]) + "\n"


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Each line in as many as it takes, further in where it is."""
    return [part for line in lines for part in wrapped(line.strip(), width, line[: len(line) - len(line.lstrip())])]


def _assumed(plan: Plan, width: int) -> list[str]:
    """What the time rests on that the scenario does not say."""
    said = [*(cell.assumed for cell in plan.cells), *(search.assumed for search in plan.searches)]
    found = list(dict.fromkeys(filter(None, said)))
    more = f", and the like for {counted(len(found) - 1, 'other length')}" if len(found) > 1 else ""
    lines = [f"the time is a guess: {found[0]}{more}; what they take is up to the server"] if found else []
    if plan.servers:
        lines.append(f"each server start counts as {START_S:.0f} s in it; that of a large model takes minutes")
    return [part for line in lines for part in wrapped(line, width)]


def _cells(plan: Plan, scenario: Scenario) -> str:
    """A search has none before it begins."""
    if plan.searches:
        return ""
    return f"{counted(len(plan.cells), 'cell')} x {counted(len(_measured(plan, scenario)), 'target')}, "


def _until(plan: Plan) -> list[str]:
    """How repeats are added, where their number is not fixed."""
    if plan.until is None:
        return []
    goal = f"until every interval is within {plan.until * 100:.3g} %"
    return [f"until: {plan.cells[0].least} to {UNTIL_MOST} repeats, two at a time (ABBA), {goal}"]


def _routing(plan: Plan) -> list[str]:
    """The cells that the routing check adds, and what they cost."""
    extra = [cell for cell in plan.cells if cell.routing is not None]
    if not extra:
        return []
    seconds = sum(cell.seconds for cell in extra for step in plan.steps if step.cell == cell.id)
    kinds = ", ".join(str(cell.routing) for cell in extra)
    return [f"routing check: {len(extra)} of the cells ({kinds} prompts), {duration(seconds)} of it"]


def _measured(plan: Plan, scenario: Scenario) -> dict[str, Target]:
    """The targets that a cell of the plan measures; a search's steps are not known yet."""
    known = {step.target for step in plan.steps}
    return {name: target for name, target in scenario.targets.items() if plan.searches or name in known}


def _targets(targets: Mapping[str, Target], width: int) -> list[str]:
    """A table, or a line for each where that is too wide."""
    table = [["target", "served by", "model"]]
    for name, target in targets.items():
        where = ", ".join(target.urls) or target.engine or ""
        model = target.model if isinstance(target.model, str) else f"made from {target.model.config}, random weights"
        table.append([name, where, model])
    lines = aligned(table, left=3)
    if max(map(len, lines)) <= width:
        return lines
    said = [f"{name}: {model}; served by {where}" for name, where, model in table[1:]]
    return ["targets:", *(part for line in said for part in wrapped(line, width, "  "))]


def _required(required: Sequence[Required], width: int) -> list[str]:
    """A line for each word of ``telemetry.require`` and each target, and an empty one after them."""
    said = [
        f"  {one.word} of {one.target}: {one.where if one.missing is None else f'not here: {one.missing}'}"
        for one in required
    ]
    head = "required of telemetry (a run without it is refused before anything starts):"
    return [*_wrapped([head, *said], width), ""] if said else []


def _search(search: PlannedSearch) -> str:
    """What a search looks for, where, and how far it goes."""
    where = f"  {search.cell}: {search.server or search.target}: "
    goal = search.goal
    if isinstance(goal, Course):
        return f"{where}sweep in {goal.steps} even steps to the maximum and beyond, for the knee of {goal.latency}"
    most = "" if goal.most is None else f", never above {goal.most:g}"
    return f"{where}{goal.find} from {goal.start:g}{most}, to within {goal.within * 100:.3g} %, in {goal.probes} probes"


def _order(plan: Plan, compared: bool) -> list[str]:
    """One line for each server (nothing is compared), stretch of repeats on one (restarts), or cell (standing ones)."""
    least = {cell.id: cell.least for cell in plan.cells}
    planned = [step for step in plan.steps if plan.until is None or step.rep <= least[step.cell]]
    if plan.searches:
        return ["searches, one after the other (each probe follows from those before):", *map(_search, plan.searches)]
    if not compared:
        return ["order (a server at a time, which runs all of its cells):", *_one_by_one(planned)]
    if plan.scope == "restart":
        started = "a server is started for each repeat and runs all cells" if plan.servers else "endpoints take turns"
        lines = [f"order ({started}):"]
        for (server, target, rep), steps in groupby(planned, key=lambda step: (step.server, step.target, step.rep)):
            lines.append(f"  repeat {rep}: {server or target}: {', '.join(step.cell for step in steps)}")
    else:
        lines = ["order (servers stand, each cell alternates):"]
        for (cell, rep), steps in groupby(planned, key=lambda step: (step.cell, step.rep)):
            lines.append(f"  {cell} repeat {rep}: {', '.join(step.server or step.target for step in steps)}")
    if plan.until is not None:
        what = "" if plan.scope == "restart" else "each cell "
        lines.append(f"  ... and {what}so on for as long as it takes, up to repeat {UNTIL_MOST}")
    return lines


def _one_by_one(steps: Sequence[Step]) -> Iterator[str]:
    """A line for each server, with its cells and how often each is repeated."""
    for server, of in groupby(steps, key=lambda step: step.server or step.target):
        repeats = Counter(step.cell for step in of)
        yield f"  {server}: {', '.join(f'{cell} x {count}' for cell, count in repeats.items())}"
