"""Which targets a cell has: one that says ``only`` is measured in the cells that have these values, and in no other.

In: the plain data of a cell, in which the matrix's values are set. Out: the names of those that it does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loadgen.scenario.axes import axis_path
from loadgen.scenario.tree import Path


def elsewhere(cell: Mapping[str, Any]) -> set[str]:
    """The targets that are not measured in a cell."""
    return {
        name for name in cell["targets"] if not all(_has(cell, path, values) for path, values in _asked(cell, name))
    }


def wrong(data: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What is wrong with every ``only`` of a scenario's plain data: its path, and a sentence."""
    asked_of = [target.get("only") or {} for target in data["targets"].values()]
    for name, target in data["targets"].items():
        asked = target.get("only") or {}
        if asked and data.get("comparison") is not None and any(asked != other for other in asked_of):
            yield ("targets", name, "only"), "differs from another's, and a comparison measures all in the same cells"
        for key in asked:
            try:
                axis_path(key, data)
            except ValueError as error:
                yield ("targets", name, "only", key), str(error)


def _asked(cell: Mapping[str, Any], name: str) -> Iterator[tuple[Path, tuple[Any, ...]]]:
    """The values that a target asks for, by path; ``targets.*`` is the target itself."""
    for key, values in (cell["targets"][name].get("only") or {}).items():
        yield tuple(name if step == "*" else step for step in axis_path(key, cell)), values


def _has(cell: Any, path: Path, values: tuple[Any, ...]) -> bool:
    for step in path:
        cell = cell.get(step) if isinstance(cell, Mapping) else None
    return any(cell == value and isinstance(cell, bool) == isinstance(value, bool) for value in values)
