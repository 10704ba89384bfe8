"""Runs of different cells of one scenario become one run: ``loadgen merge RUN RUN...``.

In: run folders, each measured with ``--cell`` or before the scenario said otherwise of its other cells. Out: a run of
all cells, each whole from the newest run that measured it as the newest of these scenarios says it. Repeats of two runs
are never pooled: a pair keeps its GPU and its hour, and what compares cells (a crossing) rests on more than one run,
which ``parts`` of run.json and the report say. The folders that were joined stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.assemble import RunReport, assemble
from loadgen.errors import UsageError
from loadgen.joined import PLACES, Part, write_joined
from loadgen.plan import Plan, PlannedCell
from loadgen.reports.stored import write_reports
from loadgen.scenario import expand, own_words, public_dict
from loadgen.scenario.loading import from_public
from loadgen.store import Run, create_run


def join(runs: Sequence[Run], root: Path) -> RunReport:
    """One run, in the store ``root``, of the cells that these runs measured.

    Raises UsageError where they are not of one scenario, engine and kind of GPU, or one of them has nothing to give.
    """
    found = sorted((_part(run) for run in runs), key=lambda part: str(part.described["started"]))
    newest = found[-1]
    for part in found[:-1]:
        _check(part, newest)
    parts = _dealt(found)
    run = create_run(root, newest.described["scenario"]["name"])
    try:
        write_joined(run, parts)
        report = assemble(run)
        write_reports(report)
    except BaseException:
        shutil.rmtree(run.folder, ignore_errors=True)  # nothing of it was measured here
        raise
    return report


def _part(run: Run) -> Part:
    described = run.described()
    if described.get("shard"):
        raise UsageError(f"{run.id} is a shard, and others are none: merge the shards first, then the runs.")
    if described.get("origin") or not (run.folder / "plan.json").exists():
        raise UsageError(f"{run.id} was read from a file of another program: compare it with `loadgen compare`.")
    if described["status"] == "running":
        raise UsageError(f"{run.id} is not over; wait for it, or end it with Ctrl-C, and merge then.")
    plan = msgspec.convert(run.read("plan.json"), Plan)
    if plan.searches:
        raise UsageError(f"{run.id} is a search, whose probes are no cells: it stands by itself.")
    return Part(run=run, described=described, plan=plan)


def _check(part: Part, newest: Part) -> None:
    """What must be alike for the cells of two runs to stand in one table."""
    one, two = part.run.id, newest.run.id
    a, b = (_placeless(public_dict(from_public(one.described["scenario"]))) for one in (part, newest))
    for word in ("name", "seed", "targets", "workload", "load", "comparison", "objectives"):
        if a.get(word) != b.get(word):
            raise UsageError(f"{one} and {two} are not of one scenario: their `{word}` differ. `loadgen compare` them.")
    if (part.plan.scope, part.plan.until) != (newest.plan.scope, newest.plan.until):
        raise UsageError(f"{one} and {two} were planned by other rules (scope, until); run one of them again.")
    for what, mine, theirs in (
        ("version of loadgen", part.described["versions"].get("loadgen"), newest.described["versions"].get("loadgen")),
        ("GPUs", _gpus(part), _gpus(newest)),
        ("versions of engines", _engines(part), _engines(newest)),
    ):
        if mine != theirs:
            raise UsageError(f"{one} and {two} have other {what}: {mine} and {theirs}. `loadgen compare` them instead.")


def _placeless(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """A scenario, or what a cell says in place of it, without where its targets ran."""
    targets = {
        name: {word: value for word, value in words.items() if word not in PLACES}
        for name, words in (scenario.get("targets") or {}).items()
    }
    return {**scenario, "targets": {name: words for name, words in targets.items() if words}}


def _gpus(part: Part) -> str:
    return ", ".join(sorted({gpu["name"] for gpu in part.described["machine"].get("gpus") or ()})) or "none"


def _engines(part: Part) -> str:
    servers = part.described["servers"].values()
    found = {f"{one['target']} {one['engine']} {(one.get('facts') or {}).get('version')}" for one in servers}
    return ", ".join(sorted(found)) or "none"


# Which run gives which cell -------------------------------------------------------------------------------------------


def _dealt(parts: Sequence[Part]) -> list[Part]:
    """The parts with the cells that each gives, their servers numbered on. The oldest part comes first."""
    scenario = from_public(parts[-1].described["scenario"])
    pattern = public_dict(scenario)
    givers: dict[str, Part] = {}
    for cell in expand(scenario):
        words = _placeless(own_words(cell.scenario, pattern))
        able = [part for part in parts if (has := _cell(part, cell.id)) and _placeless(has.words) == words]
        if able:
            givers[cell.id] = max(able, key=lambda part: (_whole(part, cell.id), part.described["started"]))
    found: list[Part] = []
    taken: dict[str, int] = {}
    for part in parts:
        cells = tuple(cell for cell in part.plan.cells if givers.get(cell.id) is part)
        if not cells:
            raise UsageError(
                f"{part.run.id} gives no cell: what it measured says the newest scenario otherwise, or a newer run of "
                "these measured it too. Leave it out."
            )
        found.append(msgspec.structs.replace(part, cells=cells, servers=_numbered(part.plan, cells, taken)))
    return found


def _cell(part: Part, cell: str) -> PlannedCell | None:
    return next((one for one in part.plan.cells if one.id == cell), None)


def _whole(part: Part, cell: str) -> bool:
    steps = [step for step in part.plan.steps if step.cell == cell]
    return all(part.run.repeat(step.cell, step.target, step.rep).whole() is not None for step in steps)


def _numbered(plan: Plan, cells: Sequence[PlannedCell], taken: dict[str, int]) -> dict[str, str]:
    """New names for the servers that these cells had, after those that are ``taken``, which it counts on."""
    ids = {cell.id for cell in cells}
    used = [step.server for step in plan.steps if step.cell in ids and step.server is not None]
    names = {}
    for server in dict.fromkeys(used):
        target = plan.servers[server]
        taken[target] = taken.get(target, 0) + 1
        names[server] = f"{target}-{taken[target]}"
    return names
