"""Foreign results are written as a run of the store.

In: files and folders of other tools. Out: a run folder with run.json (``origin`` says who measured), plan.json, and for
each repeat its summary and, where the tool kept them, its request lines. Results whose load is the same are repeats of
one cell, in the order in which they were named.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen import __version__
from loadgen.assemble import RunReport, assemble
from loadgen.errors import UsageError
from loadgen.importing import read
from loadgen.importing.measured import Measured, from_records
from loadgen.plan import Plan, PlannedCell, Step
from loadgen.record import Record, read_records, to_line
from loadgen.repeat import Result
from loadgen.reports.stored import write_reports
from loadgen.scenario.label import cell_id
from loadgen.scenario.model import NAME, TARGET
from loadgen.store import Run, create_run, request_files, requests_path, write_json
from loadgen.summary import Summary

SCHEMA = 1


def import_files(paths: Sequence[Path], root: Path, name: str | None, target: str | None) -> RunReport:
    """A run made of foreign results. ``name`` is the run's, ``target`` that of what was measured; by default both
    come from the results.

    Raises UsageError for files that cannot be imported, or not together, and StoreError.
    """
    found = [measured for path in paths for measured in read(path)]
    _check_together(found, paths)
    name = _checked(name, NAME, "--name") or _plain(found[0].origin.tool, 64)
    target = _checked(target, TARGET, "--target") or _plain(_model(found), 40)
    run = create_run(root, name)
    try:
        return _keep(run, paths, found, (name, target))
    except BaseException:
        shutil.rmtree(run.folder, ignore_errors=True)  # half a run is none, and nothing of it was measured here
        raise


def _keep(run: Run, paths: Sequence[Path], found: Sequence[Measured], names: tuple[str, str]) -> RunReport:
    steps = _steps(found, names[1])
    for step, measured in zip(steps, found, strict=True):
        _repeat(run, step, measured)
    write_json(run.folder / "plan.json", _plan(steps, found))
    run.write("run.json", _description(run, paths, found, names))
    report = assemble(run)
    write_reports(report)
    return report


def _check_together(found: Sequence[Measured], paths: Sequence[Path]) -> None:
    """Raises UsageError for results of two tools or models, and for one that is there twice: a copy is no repeat."""
    tools = list(dict.fromkeys(measured.origin.tool for measured in found))
    models = list(dict.fromkeys(str(measured.target["model"]) for measured in found))
    for what, names in (("", tools), ("models ", models)):
        if len(names) > 1:
            listed = " and ".join(names)
            raise UsageError(f"results of {what}{listed} do not make one run; import them one by one, and compare.")
    seen: dict[str, Path] = {}
    for path in paths:
        digest = _file(path)["sha256"] or str(path.resolve())
        if digest in seen:
            raise UsageError(f"{path} holds the same as {seen[digest]}: a copy is no repeat.")
        seen[digest] = path


def _checked(given: str | None, pattern: str, flag: str) -> str | None:
    if given is not None and not re.match(pattern, given):
        longest = 40 if flag == "--target" else 64
        raise UsageError(f"{flag} {given!r}: letters, digits, dots, dashes and underscores, {longest} at most.")
    return given


def _plain(text: str, longest: int) -> str:
    """Text of others as a name that a folder may have: the last part of a path, without what is not plain."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.")
    return kept[:longest] or "imported"


def _model(found: Sequence[Measured]) -> str:
    return next((str(one.target["model"]) for one in found if one.target.get("model")), "imported")


def _steps(found: Sequence[Measured], target: str) -> list[Step]:
    """One step a result; those of equal axes count up."""
    steps: list[Step] = []
    for one in found:
        cell = cell_id(one.axes)
        rep = 1 + sum(step.cell == cell for step in steps)
        steps.append(Step(cell=cell, target=target, rep=rep, block=(rep + 1) // 2, seed=0, server=None))
    return steps


def _plan(steps: Sequence[Step], found: Sequence[Measured]) -> Plan:
    cells: dict[str, PlannedCell] = {}
    for step, one in zip(steps, found, strict=True):
        seconds = one.window.w1
        words = {"load": {key: value for key, value in one.load.items() if value is not None}}
        planned = PlannedCell(id=step.cell, axes=one.axes, digest="", seconds=seconds, words=words)
        cells.setdefault(step.cell, planned)
    total = sum(one.window.w1 for one in found)
    return Plan(scope="instance", cells=tuple(cells.values()), steps=tuple(steps), servers={}, estimate_s=total)


def _repeat(run: Run, step: Step, measured: Measured) -> None:
    """Writes one repeat: request lines first, then the summary that is made of them."""
    number, folder = run.repeat(step.cell, step.target, step.rep).new_attempt()
    if measured.records is not None:
        with os.fdopen(os.open(requests_path(folder, 0), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            for record in measured.records:
                file.write(to_line(_labelled(record, run, step, number)))
        summary: Summary = from_records(read_records(request_files(folder)), measured)
    else:
        assert measured.summary is not None
        summary = measured.summary
    result = Result(
        cell=step.cell,
        target=step.target,
        rep=step.rep,
        attempt=number,
        block=step.block,
        seed=0,
        server=None,
        started=measured.started,
        summary=summary,
        workers=(),
    )
    write_json(folder / "summary.json", result)


def _labelled(record: Record, run: Run, step: Step, attempt: int) -> Record:
    record.run, record.cell, record.target, record.rep, record.attempt = (
        run.id,
        step.cell,
        step.target,
        step.rep,
        attempt,
    )
    return record


def _description(run: Run, paths: Sequence[Path], found: Sequence[Measured], names: tuple[str, str]) -> dict[str, Any]:
    first, (name, target) = found[0], names
    started = [one.started for one in found if one.started]
    return {
        "schema": SCHEMA,
        "run": run.id,
        "status": "complete",
        "started": min(started, default=""),
        "ended": None,
        "scenario": {
            "name": name,
            "targets": {target: {key: value for key, value in first.target.items() if value is not None}},
            "load": {
                **{key: value for key, value in first.load.items() if value is not None},
                "driver": first.origin.tool,
            },
            "workload": {"stream": first.context.stream},
            "repeats": max(sum(one.axes == other.axes for other in found) for one in found),
            "objectives": [],
            "comparison": None,
        },
        "profile": None,
        "profile_reason": None,
        "seed": None,
        "versions": {first.origin.tool: first.origin.version or "unknown"},
        "machine": {},
        "servers": {},
        "failures": [],
        "origin": {
            **msgspec.to_builtins(first.origin),
            "files": [_file(path) for path in paths],
            "imported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "imported_by": f"loadgen {__version__}",
        },
    }


def _file(path: Path) -> dict[str, Any]:
    """Name and hash of what was imported; of a folder the name alone."""
    if path.is_dir():
        return {"name": path.name, "sha256": None}
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
