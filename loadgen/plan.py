"""A scenario becomes an ordered list of repeats, before anything is started.

In: a `Scenario` and its cells. Out: a `Plan`: who is measured when, on which server, with which seed, what has to be
started and how long it will take. ``loadgen plan`` prints it, ``plan.json`` keeps it, the run follows it.

**Order.** Targets alternate as A B, B A, A B ... (ABBA): under a linear drift of the machine the two orders cancel,
where A A A B B B would book the drift as a difference. With ``scope: instance`` all servers of a cell stand and every
cell is alternated by itself. With ``scope: restart`` a target's server is started anew for every repeat and runs all
cells that it can (a ladder), since a restart costs minutes; the ladders alternate. Where nothing is compared no two
servers run at once: each is started, runs everything that it can, and is stopped.

With ``comparison.until`` the plan holds the most repeats, and the run leaves out what `loadgen.until` spares.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadgen.drive.schedule import digest
from loadgen.errors import UsageError
from loadgen.expected import expected
from loadgen.offered import shape_of
from loadgen.scenario import Cell, Scenario, Target, own_words, public_dict
from loadgen.scenario.model import Load
from loadgen.scenario.search_rules import goal_of, searched_load
from loadgen.search.path import Goal
from loadgen.search.sweep import Course
from loadgen.statistics import UNTIL_MOST

VERSION = 1

_FOR_REPORTS = ("config", "gpu", "gpus", "bandwidth_gb_s", "price_per_hour", "row")
"""Words of a target that only the report reads."""

START_S = 20.0
"""What the start of a server is taken to cost in the estimate when nothing better is known."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat of one target in one cell. ``server`` names the server instance, None for an endpoint that exists.

    ``block`` counts pairs of pairs (an ABBA is one block). ``seed`` is the same for all targets of a cell's repeat, so
    that they are asked the same.
    """

    cell: str
    target: str
    rep: int
    block: int
    seed: int
    server: str | None


class PlannedCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell and its matrix values; ``digest`` is that of the whole schedule of its first repeat. ``routing`` is the
    kind of prompts of a cell that the routing check added; no comparison counts it. ``least`` is the number of its
    repeats, the fewest where the plan has `Plan.until`; then cells of one ``ladder`` go on for as long as one of them
    has to. ``words`` is what the cell says in place of the scenario's own words (None: it leaves them out). ``seconds``
    is how long a repeat takes, which rests on what is ``assumed``; '' where the scenario says it."""

    id: str
    axes: dict[str, Any]
    digest: str
    seconds: float
    assumed: str = ""
    routing: str | None = None
    least: int = 0
    ladder: str = ""
    words: dict[str, Any] = {}


class PlannedSearch(msgspec.Struct, frozen=True, kw_only=True):
    """A search of one target in one cell of the matrix; ``seconds`` is how long a probe takes, as `PlannedCell` has
    it."""

    cell: str
    axes: dict[str, Any]
    target: str
    server: str | None
    seconds: float
    assumed: str = ""
    goal: Goal | Course


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run. ``servers`` maps each server instance to its target; ``estimate_s`` leaves downloads out.

    ``until`` is the half-width that repeats are added for, None where their number is fixed. With it the steps are
    those of the most repeats, and so is ``estimate_s``; ``least_s`` is for the fewest. A plan of ``searches`` has no
    cells and steps of its own: those of the probes lie in ``probes.json`` (`loadgen.searched`).
    """

    v: int = VERSION
    scope: Literal["restart", "instance"]
    cells: tuple[PlannedCell, ...]
    steps: tuple[Step, ...]
    servers: dict[str, str]
    estimate_s: float
    until: float | None = None
    least_s: float | None = None
    searches: tuple[PlannedSearch, ...] = ()

    def restarts(self, *targets: str) -> bool:
        """Whether every repeat of these targets has a server that is started for it; an endpoint stands."""
        return self.scope == "restart" and {*targets} <= {*self.servers.values()}


def make_plan(scenario: Scenario, cells: Sequence[Cell], folder: str | Path = ".") -> Plan:
    """The plan of a scenario's cells; ``folder`` is the scenario's, for the files that it names.

    Raises UsageError where a load cannot be made of what the scenario says.
    """
    if any(cell.scenario.search is not None for cell in cells):
        return _search_plan(cells, folder)
    scope = scenario.comparison.scope if scenario.comparison else "instance"
    until = scenario.comparison.until if scenario.comparison else None
    steps: list[Step] = []
    servers: dict[str, str] = {}
    groups = _groups(cells)
    if scenario.comparison is None:
        for cell, name, server in _one_by_one(cells, servers):
            steps += [_step(cell, name, rep, server) for rep in range(1, cell.scenario.repeats + 1)]
    elif scope == "restart":
        for group in groups:
            steps += _restarted(group, servers)
    else:
        steps += _standing(groups, servers)
    ladders = {cell.id: group[0].id for group in groups for cell in group} if scope == "restart" else {}
    pattern = public_dict(scenario)
    planned = tuple(planned_cell(cell, ladders.get(cell.id, cell.id), pattern, folder) for cell in cells)
    least = {cell.id: cell.least for cell in planned}
    return Plan(
        scope=scope,
        cells=planned,
        steps=tuple(steps),
        servers=servers,
        estimate_s=estimate(planned, steps),
        until=until,
        least_s=None if until is None else estimate(planned, [s for s in steps if s.rep <= least[s.cell]]),
    )


def part_of(plan: Plan, steps: Sequence[Step]) -> Plan:
    """The same plan with these of its steps alone."""
    least = {cell.id: cell.least for cell in plan.cells}
    fewest = [step for step in steps if step.rep <= least[step.cell]]
    used = {step.server for step in steps}
    return msgspec.structs.replace(
        plan,
        steps=tuple(steps),
        servers={server: target for server, target in plan.servers.items() if server in used},
        estimate_s=estimate(plan.cells, steps),
        least_s=None if plan.until is None else estimate(plan.cells, fewest),
    )


def estimate(cells: Iterable[PlannedCell], steps: Sequence[Step]) -> float:
    """Seconds that these steps take, with the starts of their servers."""
    seconds = {cell.id: cell.seconds for cell in cells}
    servers = {step.server for step in steps if step.server is not None}
    return sum(seconds[step.cell] for step in steps) + START_S * len(servers)


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that can share their servers, together, in the order in which they first appear."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        key = tuple(launch_key(name, target) for name, target in cell.scenario.targets.items())
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def launch_key(name: str, target: Target) -> str:
    """Equal for two cells if one server can serve both: all that makes a command line, nothing that a request says."""
    words = target.model_dump(mode="json", exclude={"headers", "request", "exact", "backend", "only", *_FOR_REPORTS})
    return f"{name}:{hashlib.sha256(msgspec.json.encode(words, order='deterministic')).hexdigest()[:12]}"


def _search_plan(cells: Sequence[Cell], folder: str | Path) -> Plan:
    """Each target in each cell is searched by itself, a server at a time."""
    servers: dict[str, str] = {}
    found = []
    for cell, name, instance in _one_by_one(cells, servers):
        goal, load = goal_of(cell.scenario), searched_load(cell.scenario)
        if goal is None:
            raise UsageError(f"cell {cell.id} has no search, and others have one: write one for every cell, or none.")
        shape = shape_of(load, cell.scenario.workload, folder)
        seconds, assumed = expected(load, shape, cell.scenario.workload, seed_of(cell, 1), Path(folder))
        words: dict[str, Any] = {"cell": cell.id, "axes": cell.axes, "target": name, "server": instance}
        found.append(PlannedSearch(**words, seconds=seconds, assumed=assumed, goal=goal))
    most = sum(search.goal.probes * search.seconds for search in found) + START_S * len(servers)
    plan = Plan(scope="instance", cells=(), steps=(), servers=servers, estimate_s=most)
    return msgspec.structs.replace(plan, searches=tuple(found))


def _one_by_one(cells: Sequence[Cell], servers: dict[str, str]) -> Iterator[tuple[Cell, str, str | None]]:
    """Every cell, target and server: a server at a time, which runs every cell of its configuration."""
    for name in dict.fromkeys(name for cell in cells for name in cell.scenario.targets):
        served: dict[str, list[Cell]] = {}
        for cell in (cell for cell in cells if name in cell.scenario.targets):
            served.setdefault(launch_key(name, cell.scenario.targets[name]), []).append(cell)
        for group in served.values():
            instance = _instance(group[0], name, servers)
            for cell in group:
                yield cell, name, instance


def _standing(groups: Sequence[Sequence[Cell]], servers: dict[str, str]) -> Iterator[Step]:
    """All servers of a group are up; each cell alternates by itself. One that the next group needs as well stays up."""
    up: dict[str, str | None] = {}
    for group in groups:
        keys = {name: launch_key(name, target) for name, target in group[0].scenario.targets.items()}
        up = {key: up[key] if key in up else _instance(group[0], name, servers) for name, key in keys.items()}
        for cell in group:
            for rep in range(1, _most(cell) + 1):
                for name in _turn(list(keys), rep):
                    yield _step(cell, name, rep, up[keys[name]])


def _restarted(group: Sequence[Cell], servers: dict[str, str]) -> Iterator[Step]:
    """A server is started for each repeat of a target, and runs every cell of the group."""
    names = list(group[0].scenario.targets)
    for rep in range(1, max(_most(cell) for cell in group) + 1):
        for name in _turn(names, rep):
            instance = _instance(group[0], name, servers)
            for cell in group:
                if rep <= _most(cell):
                    yield _step(cell, name, rep, instance)


def _most(cell: Cell) -> int:
    """How many repeats a cell may get. Those of the routing check are in no comparison, and wait for no interval."""
    comparison = cell.scenario.comparison
    added = comparison is not None and comparison.until is not None and cell.routing is None
    return UNTIL_MOST if added else cell.scenario.repeats


def _turn(names: list[str], rep: int) -> list[str]:
    return names if rep % 2 else names[::-1]


def _instance(cell: Cell, name: str, servers: dict[str, str]) -> str | None:
    if not cell.scenario.targets[name].launched:
        return None
    instance = f"{name}-{1 + sum(target == name for target in servers.values())}"
    servers[instance] = name
    return instance


def _step(cell: Cell, target: str, rep: int, server: str | None) -> Step:
    block = (rep + 1) // 2
    return Step(cell=cell.id, target=target, rep=rep, block=block, seed=seed_of(cell, rep), server=server)


def seed_of(cell: Cell, rep: int) -> int:
    """The seed of a repeat: of the scenario's seed, the cell and the repeat, and so the same for every target."""
    text = f"{cell.scenario.seed}:{cell.id}:{rep}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")


def planned_cell(cell: Cell, ladder: str, pattern: dict[str, Any], folder: str | Path) -> PlannedCell:
    """A cell as it stands in a plan. ``pattern`` is the scenario that it is a cell of, ``folder`` that of its file."""
    load = cell.scenario.load
    shape = shape_of(load, cell.scenario.workload, folder)
    whole = digest(shape, seed_of(cell, 1), 0, 1)
    seconds, assumed = expected(load, shape, cell.scenario.workload, seed_of(cell, 1), Path(folder))
    return PlannedCell(
        id=cell.id,
        axes=cell.axes,
        digest=f"{whole:016x}",
        seconds=seconds,
        assumed=assumed,
        routing=cell.routing,
        least=cell.scenario.repeats,
        ladder=ladder,
        words=own_words(cell.scenario, pattern),
    )


def workers_of(load: Load) -> int:
    """The number of worker processes: the scenario's, else by load, leaving half of the cores to everybody else.

    One worker holds some 500 streams or starts some 1,500 requests a second before it is late. Nodes of a cluster have
    cores of their own.
    """
    if load.workers != "auto":
        return load.workers
    rates = [load.rate_rps or 0.0, *(rate for _, rate in load.rates or ())]
    need = max((load.concurrency or 0) / 512, max(rates) / 1500)
    most = (os.cpu_count() or 2) // 2 if load.fleet == "local" else int(need) + 1
    return max(1, min(int(-(-need // 1)), most))
