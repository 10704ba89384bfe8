"""What the page says in words: the verdicts, sorted by what they mean for the candidate, and the facts of the run.

In: a `RunReport`. Out: text, escaped by the template and nowhere before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from loadgen.assemble import RunReport
from loadgen.comparing.comparison import Compared, ComparedCell, Comparison
from loadgen.comparing.sentence import BATCH, INTERACTIVITY
from loadgen.metrics import METRICS
from loadgen.reports import about
from loadgen.scenario.sides import urls_of
from loadgen.statistics import Verdict

FIRST = 8
"""Sentences of a comparison on the first screen; the others are behind a fold."""

FIRST_CROSSINGS = 3
"""Sentences on crossings there, those that tell of one first."""

Kind = Literal["better", "worse", "unsure", "even"]


class Verdicted(msgspec.Struct, frozen=True):
    """The sentence of a cell, and what it says of the candidate."""

    text: str
    kind: Kind


class Compare(msgspec.Struct, frozen=True):
    """A comparison on the first screen: where the two cross along the axis of the matrix, the cells that say most, the
    others, and how the two compare at an equal batch and at equal speed a user."""

    heading: str
    crossings: Sequence[str]
    first: Sequence[Verdicted]
    rest: Sequence[Verdicted]
    equal: Sequence[str]


def compare(comparison: Comparison) -> Compare:
    """With more than `FIRST` cells, those with the greatest differences come first, decided ones before others."""
    told = [cell for cell in comparison.cells if cell.primary.sentence]
    ordered = sorted(told, key=_weight) if len(told) > FIRST else told
    one = comparison.cells[0] if comparison.cells else None
    crossed = [found for found in comparison.crossings if found.measure == comparison.primary]
    along = sorted(
        (found for found in crossed if found.axis not in (BATCH, INTERACTIVITY)), key=lambda found: not found.crossings
    )
    return Compare(
        heading=f"{one.candidate} against {one.baseline}: {one.primary.label}" if one else comparison.primary,
        crossings=[found.sentence for found in along[:FIRST_CROSSINGS]],
        first=[_verdicted(cell) for cell in ordered[:FIRST]],
        rest=[
            *(Verdicted(found.sentence, "even") for found in along[FIRST_CROSSINGS:]),
            *map(_verdicted, ordered[FIRST:]),
        ],
        equal=[found.sentence for found in crossed if found.axis in (BATCH, INTERACTIVITY)],
    )


def _weight(cell: ComparedCell) -> tuple[int, float]:
    ratio = cell.primary.ratio
    decided = cell.primary.verdict in (Verdict.FASTER, Verdict.SLOWER)
    return (0 if decided else 1, -max(ratio.value, 1 / ratio.value) if ratio and ratio.value > 0 else 0.0)


def _verdicted(cell: ComparedCell) -> Verdicted:
    return Verdicted(cell.primary.sentence, _kind(cell.primary))


def _kind(compared: Compared) -> Kind:
    if compared.verdict in (Verdict.FASTER, Verdict.SLOWER):
        return "better" if compared.verdict is Verdict.FASTER else "worse"
    return "even" if compared.verdict in (Verdict.EQUIVALENT, Verdict.SMALL_DIFFERENCE) else "unsure"


def subtitle(report: RunReport) -> str:
    """When and where, in a line."""
    run = report.run
    if run.get("origin"):
        return f"{about.imported(report)}, measured {run['started'] or 'at an unknown time'}"
    parts = [run.get("started") or "", run["status"], _gpus(run["machine"]), run.get("profile_reason") or ""]
    return ", ".join(part for part in parts if part)


def facts(report: RunReport) -> list[tuple[str, str]]:
    """What the run was, by name."""
    run, machine = report.run, report.run["machine"]
    found: list[tuple[str, Any]] = [("run", run["run"]), ("started", run["started"]), ("ended", run["ended"])]
    if origin := run.get("origin"):
        found.append(("files", ", ".join(file["name"] for file in origin["files"])))
        return [(name, str(value)) for name, value in found if value]
    found += [
        ("status", run["status"]),
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {_gpus(machine)}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("seed", run["seed"]),
        ("profile", run.get("profile_reason")),
        ("repeats", about.scope_line(report)),
        ("targets", ", ".join(_target(name, said) for name, said in run["scenario"]["targets"].items())),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "")]


def definitions(report: RunReport) -> list[tuple[str, str]]:
    """What each metric means: ours, or those of the tool that measured."""
    theirs = (report.run.get("origin") or {}).get("definitions")
    if theirs is None:
        return [(metric.label, metric.definition) for metric in METRICS.values()]
    return [(METRICS[name].label, str(said)) for name, said in theirs.items()]


def _gpus(machine: dict[str, Any]) -> str:
    return ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"


def _target(name: str, said: dict[str, Any]) -> str:
    model = said.get("model")
    model = (model.get("config") or model.get("path") or "") if isinstance(model, dict) else model
    return (
        f"{name} ({', '.join(str(word) for word in (said.get('engine') or ', '.join(urls_of(said)), model) if word)})"
    )
