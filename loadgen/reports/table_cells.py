"""The cells of a run as rows of a published table: which row each is of, and what it puts beside the figures.

In: a `RunReport` and a `Table`. Out: `Found`s for `published.join`. Keys come from the words of the cell and of its
target (``row``), never from what was measured; figures come from the repeats, one value for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from loadgen.assemble import ReportCell, RunReport, TargetCell
from loadgen.fair.facts import scenario_of
from loadgen.metrics import METRICS, Measure
from loadgen.published.join import Found
from loadgen.published.tables import Measured, Origin, Table
from loadgen.repeat import Result
from loadgen.reports.rows import plain
from loadgen.summary import Doubt

GIB = 2.0**30


def found_in(report: RunReport, table: Table) -> Iterator[Found]:
    """Every target of every cell that was measured; of `gpu_memory`, the GPUs of the run's machine. A target that names
    no row is called by its own name, so that it stands below the table's rows."""
    if "gpu_name" in table.keys.values():
        yield from _gpus(report, table)
        return
    for cell in report.cells:
        scenario = scenario_of(report.run, report.plan, cell.id)
        for target in cell.targets:
            words = (scenario.get("targets") or {}).get(target.target) or {}
            if target.summaries:
                row = words.get("row") or {table.said[0]: target.target}
                yield _found(report, table, cell, target, keys_of(table, scenario, row, target.gpus))


def keys_of(table: Table, scenario: Mapping[str, Any], row: Mapping[str, Any], gpus: int | None) -> dict[str, str]:
    """By column (and by what the table is across): the value that tells a cell's row from the others, as text.

    ``scenario`` has the words of the cell, ``row`` those of its target; ``gpus`` is the number of its GPUs, if known.
    """
    said = {name: _text(row[name]) for name in row}
    keys = {name: _key(origin, name, said, scenario, gpus) for name, origin in table.keys.items()}
    if table.across is not None:
        keys[table.across.origin] = _key(table.across.origin, table.across.origin, said, scenario, gpus)
    return keys


def _key(origin: Origin, name: str, said: Mapping[str, str], scenario: Mapping[str, Any], gpus: int | None) -> str:
    workload, load = scenario.get("workload") or {}, scenario.get("load") or {}
    output = workload.get("output") or {}
    match origin:
        case "input_tokens":
            return _text(workload.get("input_tokens"))
        case "asked_output_tokens":
            return _text(output.get("exact") or output.get("max"))
        case "prompts":
            return _text(load.get("burst"))
        case "batch":
            return _text(load.get("concurrency") or load.get("burst"))
        case "gpus":
            return _text(gpus)
        case _:
            return said.get(name, "")


def _text(value: Any) -> str:
    """A value as a table writes it, on one line; empty for what is not stated."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else " ".join(plain(str(value)).split())


def _found(report: RunReport, table: Table, cell: ReportCell, target: TargetCell, keys: dict[str, str]) -> Found:
    return Found(
        keys=keys,
        figures={one: tuple(_figure(one, result, target) for result in target.results) for one in table.measures},
        state=target.state,
        target=target.target,
        run=str(report.run["run"]),
        where=f"{cell.id}, {target.target}",
        doubts=(*_doubts(target), *_lengths(table, target)),
        states=tuple(result.summary.state if result is not None else "missing" for result in target.results),
    )


def _figure(measure: Measured, result: Result | None, target: TargetCell) -> float | None:
    """What one repeat has of a measure; None where it has none, or is not to be trusted."""
    if result is None or result.summary.state != "ok":
        return None
    if measure == "torch_gib":
        peak = result.telemetry.torch_peak_bytes
        return None if peak is None else peak / GIB
    if measure == "gpus":
        return target.gpus
    metric = METRICS.get(measure)
    if metric is None:
        return None
    return result.summary.get(Measure(measure, None if metric.per == "window" else "mean"))


def _doubts(target: TargetCell) -> Iterator[Doubt]:
    """Each code once: what forbids trusting the cell, then what weakens it."""
    summaries = target.summaries
    found = [*(doubt for one in summaries for doubt in one.invalid), *target.doubts]
    found += [doubt for one in summaries for doubt in one.doubts]
    if len(summaries) < len(target.results):
        missing = len(target.results) - len(summaries)
        found.append(Doubt("missing_repeats", f"{missing} of {len(target.results)} repeats are missing."))
    yield from {doubt.code: doubt for doubt in reversed(found)}.values()


def _lengths(table: Table, target: TargetCell) -> Iterator[Doubt]:
    """Whether prompts and replies were as long as the table's, where all of its rows have one length."""
    for name, wanted, measure in (
        ("Prompts", table.input_tokens, Measure("in_tok", "mean")),
        ("Replies", table.output_tokens, Measure("out_tok", "mean")),
    ):
        found = {value for one in target.valid if (value := one.get(measure)) is not None}
        if wanted is not None and any(abs(value - wanted) > 0.5 for value in found):
            lengths = " to ".join(f"{value:g}" for value in sorted({min(found), max(found)}))
            yield Doubt(f"other_{name.lower()}", f"{name} had {lengths} tokens; the table's had {wanted}.")


def _gpus(report: RunReport, table: Table) -> Iterator[Found]:
    """Each kind of GPU of the machine once, under the row that has its name and is nearest to its memory."""
    for gpu in {one["name"]: one for one in (report.run.get("machine") or {}).get("gpus") or ()}.values():
        gb, words = float(gpu["memory_gb"]), _squeezed(gpu["name"])
        like = [row for row in table.rows if any(_squeezed(name) in words for name in row["gpu"].split(","))]
        row = min(like, key=lambda row: abs(float(row["memory_gb"]) - gb), default=None)
        yield Found(
            keys={"gpu": row["gpu"] if row else gpu["name"]},
            figures={"gpu_gb": (gb,)},
            state="ok",
            target=gpu["name"],
            run=str(report.run["run"]),
            where="the machine",
        )


def _squeezed(name: str) -> str:
    return re.sub(r"\W+", "", name).upper()
