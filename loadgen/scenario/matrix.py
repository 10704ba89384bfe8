"""The cells of a scenario: every combination of its axes, less the excluded, plus the included.

In: a scenario. Out: its cells, each with a scenario of its own in which the axes' values are set. The rules are those
of GitHub's workflows: ``exclude`` removes the combinations that have all of its values; then each ``include`` is added
to the combinations in which it overwrites no value of an axis, or becomes a cell of its own where there are none.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from pydantic import ValidationError

from loadgen.errors import ScenarioError
from loadgen.scenario.axes import axis_path, overlap, put_plain, short_names
from loadgen.scenario.kinds import Scalar
from loadgen.scenario.label import cell_id
from loadgen.scenario.model import Matrix, Scenario
from loadgen.scenario.only import elsewhere, wrong
from loadgen.scenario.problems import problems_of
from loadgen.scenario.routing_cells import routing_cells
from loadgen.scenario.rules import broken_rules
from loadgen.scenario.tree import Path, dotted, node_of

MAX_CELLS = 1000


class CellProblem(NamedTuple):
    """Something wrong with the cells: the path in the scenario file that is to be changed, and why."""

    path: Path
    reason: str


class Cell(msgspec.Struct, frozen=True):
    """One point of the matrix.

    ``id`` names it in folders and reports and says its values (``concurrency=4``; ``all`` without a matrix).
    ``axes`` holds those values by the axes' short names. ``scenario`` is complete, and has no matrix. ``routing`` is
    the kind of prompts of a cell that ``workload.routing_check`` added, which no comparison counts; None for others.
    """

    id: str
    axes: dict[str, Scalar]
    scenario: Scenario
    routing: str | None = None


class Combination(msgspec.Struct):
    """A cell in the making: ``values`` of the axes, and what an include ``added``. ``source`` says by path where in
    the matrix a value is written. ``new`` is True for one that an include made."""

    values: dict[Path, Any]
    source: dict[Path, Path]
    added: dict[Path, Any] = msgspec.field(default_factory=dict)
    new: bool = False


def expand(scenario: Scenario) -> list[Cell]:
    """The cells of a scenario, in the order of its axes (the last changes fastest), then included ones, then those of
    the routing check.

    Raises ScenarioError with all that is wrong with the matrix and its cells, one problem a line; also for a matrix
    of no cell or of more than 1,000.
    """
    cells, problems = resolve(scenario)
    if problems:
        raise ScenarioError("\n".join(f"{dotted(path)}: {reason}" for path, reason in problems))
    return cells + routing_cells(cells)


def resolve(scenario: Scenario) -> tuple[list[Cell], list[CellProblem]]:
    """The cells of a scenario's matrix, and what is wrong with them."""
    data = scenario.model_dump(by_alias=True, exclude_unset=True, exclude={"matrix"})
    found, problems = combinations(scenario.matrix, data)
    problems += [CellProblem(path, reason) for path, reason in wrong(data)]
    if problems:
        return [], problems
    names = short_names(path for combination in found for path in (*combination.values, *combination.added))
    labels = _labels(found, names, [axis_path(axis, data) for axis in scenario.matrix.axes])
    ids = [cell_id(axes) for axes in labels]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        return [], [CellProblem(("matrix",), f"makes the cell {twice} twice; remove one of the two")]
    return _build(scenario, data, found, list(zip(ids, labels, strict=True)))


def combinations(matrix: Matrix, data: Mapping[str, Any]) -> tuple[list[Combination], list[CellProblem]]:
    """The combinations of a matrix over a scenario's plain data, and what is wrong with it."""
    problems: list[CellProblem] = []
    axes = _paths({(axis,): axis for axis in matrix.axes}, data, problems)
    values = {path: matrix.axes[str(axis)] for (axis,), path in axes.items()}
    source: dict[Path, Path] = {path: ("matrix", *key) for key, path in axes.items()}
    for path, listed in values.items():
        if len(set(map(repr, listed))) < len(listed):
            problems.append(CellProblem(source[path], "has a value twice"))
    excluded = [_entry("exclude", i, entry, data, problems) for i, entry in enumerate(matrix.exclude)]
    included = [_entry("include", i, entry, data, problems) for i, entry in enumerate(matrix.include)]
    for combination in excluded:
        for path in combination.values:
            if path not in values:
                problems.append(
                    CellProblem(combination.source[path], "is no axis of this matrix, so it excludes nothing")
                )
    size = math.prod(map(len, values.values()))
    if problems:
        return [], problems
    if size > 100 * MAX_CELLS:
        return [], [CellProblem(("matrix",), _too_many(size))]
    cells = [
        Combination(dict(zip(values, point, strict=True)), source)
        for point in itertools.product(*values.values())
        if values or not included
    ]
    cells = [cell for cell in cells if not any(_holds(cell, combination) for combination in excluded)]
    cells += _included(cells, included)
    if not cells:
        reason = "leaves no cell: an axis is empty, or everything is excluded"
        return [], [CellProblem(("matrix",), reason)]
    return cells, [CellProblem(("matrix",), _too_many(len(cells)))] if len(cells) > MAX_CELLS else []


def _too_many(count: int) -> str:
    return f"makes {count:,} cells, and a run has at most {MAX_CELLS:,}; shorten an axis or split the scenario"


def _entry(
    kind: str, index: int, entry: Mapping[str, Any], data: Mapping[str, Any], problems: list[CellProblem]
) -> Combination:
    keys = _paths({(kind, index, key): key for key in entry}, data, problems)
    if not entry:
        problems.append(CellProblem(("matrix", kind, index), "is empty"))
    return Combination(
        {path: entry[str(key[-1])] for key, path in keys.items()},
        {path: ("matrix", *key) for key, path in keys.items()},
        new=True,
    )


def _paths(keys: Mapping[Path, str], data: Mapping[str, Any], problems: list[CellProblem]) -> dict[Path, Path]:
    """The path in the scenario of each key of the matrix; the ones that have none become problems."""
    paths: dict[Path, Path] = {}
    for key, text in keys.items():
        try:
            path = axis_path(text, data)
        except ValueError as error:
            problems.append(CellProblem(("matrix", *key), str(error)))
            continue
        same = next((other for other, known in paths.items() if overlap(known, path)), None)
        if same is not None:
            problems.append(CellProblem(("matrix", *key), f"is the same value as {same[-1]}; remove one of the two"))
        paths[key] = path
    return paths


def _holds(cell: Combination, asked: Combination) -> bool:
    return all(_same(cell.values[path], value) for path, value in asked.values.items())


def _same(one: Any, other: Any) -> bool:
    """Equal as YAML sees it: true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _included(cells: list[Combination], entries: list[Combination]) -> list[Combination]:
    """Adds each entry to the cells that it fits, and gives those that fit none."""
    made = []
    for entry in entries:
        fitting = [cell for cell in cells if _fits(cell, entry)]
        for cell in fitting:
            cell.added |= {path: value for path, value in entry.values.items() if path not in cell.values}
            cell.source = {**entry.source, **cell.source}
        if not fitting:
            made.append(entry)
    return made


def _fits(cell: Combination, entry: Combination) -> bool:
    return all(
        _same(mine, theirs)
        for path, mine in cell.values.items()
        for other, theirs in entry.values.items()
        if overlap(path, other)
    )


def _labels(found: list[Combination], names: Mapping[Path, str], axes: list[Path]) -> list[dict[str, Scalar]]:
    """The axes' values of each cell. One that an include made is called by its values of the axes, and by all its
    values where that does not tell it from the others."""

    def label(cell: Combination, every: bool) -> dict[str, Scalar]:
        return {names[path]: _scalar(value) for path, value in cell.values.items() if every or path in axes}

    labels = [label(cell, every=not any(path in axes for path in cell.values)) for cell in found]
    ids = [cell_id(values) for values in labels]
    return [
        label(cell, every=True) if cell.new and ids.count(name) > 1 else values
        for cell, values, name in zip(found, labels, ids, strict=True)
    ]


def _scalar(value: Any) -> Scalar:
    """A value that a table can show: lists and mappings as their JSON."""
    return value if isinstance(value, Scalar) else json.dumps(value)


def _build(
    scenario: Scenario, data: dict[str, Any], found: list[Combination], labels: list[tuple[str, dict[str, Scalar]]]
) -> tuple[list[Cell], list[CellProblem]]:
    cells: list[Cell] = []
    broken: dict[CellProblem, list[str]] = {}
    for combination, (name, axes) in zip(found, labels, strict=True):
        settings = {**combination.values, **combination.added}
        built, problems = _built(scenario, data, settings)
        for path, reason in problems:
            place = next((combination.source[key] for key in settings if _touches(key, path)), path)
            broken.setdefault(CellProblem(place, reason), []).append(name)
        if built is not None:
            cells.append(Cell(name, axes, built))
    if not cells and not broken:
        broken[CellProblem(("matrix",), "leaves no cell: every target is measured only elsewhere (`only`)")] = []
    return cells, [CellProblem(p.path, p.reason + _which(names, len(found))) for p, names in broken.items()]


def _which(names: list[str], count: int) -> str:
    if len(names) in (0, count):
        return ""
    return f" (in cell {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"


def _touches(setting: Path, path: Path) -> bool:
    length = min(len(setting), len(path))
    return length > 1 and overlap(setting[:length], path[:length])


def _built(
    scenario: Scenario, data: dict[str, Any], settings: Mapping[Path, Any]
) -> tuple[Scenario | None, list[CellProblem]]:
    mine = copy.deepcopy(data)
    problems = []
    for path, value in settings.items():
        try:
            put_plain(mine, path, value)
        except ValueError as error:
            problems.append(CellProblem(path, str(error)))
    if problems:
        return None, problems
    absent = elsewhere(mine)
    mine["targets"] = {name: target for name, target in mine["targets"].items() if name not in absent}
    if not mine["targets"]:
        return None, []
    settings = {**settings, **{("targets", name): None for name in absent}}
    kept = {path: text for path, text in scenario.references.items() if not any(_touches(s, path) for s in settings)}
    try:
        cell = Scenario.build(mine, kept)
    except ValidationError as error:
        return None, list(_invalid(error, mine))
    return cell, [CellProblem(path, reason) for path, reason in broken_rules(cell)]


def _invalid(error: ValidationError, data: dict[str, Any]) -> Iterator[CellProblem]:
    for problem in problems_of(error, node_of(data, "")):
        yield CellProblem(problem.path, problem.reason)
