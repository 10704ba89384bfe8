"""What is written of a run that joins the cells of others: folders, plan, run.json (see ``joining.py``).

In: the parts, each with the cells that it gives. Out: one run folder, whose servers are numbered on from part to part,
so that every summary, fingerprint and step still names the server that it was measured with.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.fair.fingerprint import FILE as FINGERPRINT
from loadgen.ownership import this_owner
from loadgen.plan import Plan, PlannedCell, estimate
from loadgen.scenario import expand
from loadgen.scenario.loading import from_public
from loadgen.store import Run, read_json, write_bytes, write_json

PLACES = ("devices", "cpus")
"""Words of a target that say where it ran, and may differ from run to run."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A run that gives some of its cells. ``servers`` maps its server instances to their names in the joined run."""

    run: Any
    described: dict[str, Any]
    plan: Plan
    cells: tuple[PlannedCell, ...] = ()
    servers: dict[str, str] = {}

    def has(self, server: str) -> bool:
        """Whether a server instance, or a start of one, served a cell that is taken."""
        return self._instance(server) in self.servers

    def renamed(self, server: str) -> str:
        """The new name of a server instance or of one of its starts: ``a-1-2`` is the second start of ``a-1``."""
        base = self._instance(server)
        return self.servers.get(base, base) + server[len(base) :]

    def _instance(self, server: str) -> str:
        return server if server in self.servers else re.sub(r"-\d+$", "", server)


def write_joined(run: Run, parts: Sequence[Part]) -> None:
    """The folder of the joined run; the oldest part comes first, and the newest says what the scenario is."""
    for part in parts:
        for cell in part.cells:
            _copy_cell(part, part.run.folder / "cells" / cell.id, run.folder / "cells" / cell.id)
        _copy_servers(part, run)
    write_bytes(run.folder / "scenario.yaml", (parts[-1].run.folder / "scenario.yaml").read_bytes())
    write_json(run.folder / "plan.json", _plan(parts))
    run.write("run.json", _description(run, parts))


def _copy_cell(part: Part, source: Path, place: Path) -> None:
    shutil.copytree(source, place)
    for pattern in ("*/rep-*/attempt-*/summary.json", "*/rep-*/attempt-*/interrupted.json"):
        for path in place.glob(pattern):
            _rename_server(part, path)


def _copy_servers(part: Part, run: Run) -> None:
    """The servers of the cells that are taken, and what they were asked before timing."""
    for path in sorted(part.run.folder.glob("servers/*")):
        if part.has(path.name):
            shutil.copytree(path, run.folder / "servers" / part.renamed(path.name))
    for path in sorted(part.run.folder.glob(f"probes/*/*/*/{FINGERPRINT}")):
        server = path.parents[1]
        if part.has(server.name) or read_json(path).get("server") is None:
            place = run.folder / "probes" / server.parent.name / part.renamed(server.name) / path.parent.name
            shutil.copytree(path.parent, place, dirs_exist_ok=True)
            _rename_server(part, place / FINGERPRINT)


def _rename_server(part: Part, path: Path) -> None:
    said = read_json(path)
    if said.get("server") is not None:
        write_json(path, {**said, "server": part.renamed(said["server"])})


def _plan(parts: Sequence[Part]) -> Plan:
    """All cells in the order of the newest scenario; steps in the order in which they were measured."""
    newest = parts[-1].described["scenario"]
    cells = {cell.id: _placed(part, cell, newest) for part in parts for cell in part.cells}
    order = [cell.id for cell in expand(from_public(newest)) if cell.id in cells]
    steps = tuple(
        msgspec.structs.replace(step, server=None if step.server is None else part.renamed(step.server))
        for part in parts
        for step in part.plan.steps
        if step.cell in {cell.id for cell in part.cells}
    )
    planned = tuple(cells[name] for name in order)
    return msgspec.structs.replace(
        parts[-1].plan,
        cells=planned,
        steps=steps,
        servers={new: part.plan.servers[old] for part in parts for old, new in part.servers.items()},
        estimate_s=estimate(planned, steps),
        least_s=None,
    )


def _placed(part: Part, cell: PlannedCell, newest: Mapping[str, Any]) -> PlannedCell:
    """The cell with where its targets ran, where that is not what the newest scenario says."""
    words = {name: dict(own) for name, own in (cell.words.get("targets") or {}).items()}
    for name, target in part.described["scenario"]["targets"].items():
        for place in PLACES:
            if target.get(place) != newest["targets"][name].get(place):
                words.setdefault(name, {}).setdefault(place, target.get(place))
    said = {**cell.words, "targets": words} if words else cell.words
    return msgspec.structs.replace(cell, words=said, ladder=f"{part.run.id} {cell.ladder}")


def _description(run: Run, parts: Sequence[Part]) -> dict[str, Any]:
    told = [part.described for part in parts]
    broken = next((one["status"] for one in told if one["status"] != "complete"), "complete")
    return {
        **told[-1],
        **this_owner(),
        "run": run.id,
        "status": broken,
        "started": min(one["started"] for one in told),
        "ended": max((one["ended"] or "" for one in told), default=None) or None,
        "failures": [f"{part.run.id}: {text}" for part in parts for text in part.described["failures"]],
        "servers": {
            part.renamed(name): server
            for part in parts
            for name, server in part.described["servers"].items()
            if part.has(name)
        },
        "served": _served(parts),
        "noise": _noise(parts),
        "parts": list(_said(parts)),
    }


def _served(parts: Sequence[Part]) -> dict[str, Any]:
    """What the targets served: the lists of all runs one after the other, and of each cell its own run's places."""
    cells: dict[str, Any] = {}
    targets: list[dict[str, Any]] = []
    configs: list[Any] = []
    for part in parts:
        served = part.described["served"]
        for cell in part.cells:
            said = served["cells"].get(cell.id)
            if said is not None:
                places = {name: place + len(targets) for name, place in said["targets"].items()}
                cells[cell.id] = {**said, "targets": places}
        for one in served["targets"]:
            config = one.get("config")
            targets.append({**one, "config": None if config is None else config + len(configs)})
        configs += served["configs"]
    return {**parts[-1].described["served"], "cells": cells, "targets": targets, "configs": configs}


def _noise(parts: Sequence[Part]) -> dict[str, Any]:
    """What was known of each machine's noise, for the loads of the cells that are taken."""
    loads: dict[str, Any] = {}
    known: dict[str, Any] = {}
    for part in parts:
        noise, ids = part.described["noise"], {cell.id for cell in part.cells}
        loads |= {cell: load for cell, load in noise["loads"].items() if cell in ids}
        known |= noise["known"]
    return {"loads": loads, "known": known}


def _said(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    for part in parts:
        one = part.described
        yield {
            "run": part.run.id,
            "cells": [cell.id for cell in part.cells],
            "left_out": [cell.id for cell in part.plan.cells if cell not in part.cells],
            "started": one["started"],
            "ended": one["ended"],
            "machine": one["machine"],
        }
