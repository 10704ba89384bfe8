"""The names of a matrix's axes: which value of a scenario each one stands for.

An axis is a dotted path into targets, workload or load; ``targets.*.x`` is x of every target. The last component is
enough where only one value is called so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loadgen.scenario.model import Load, Workload
from loadgen.scenario.output import Output
from loadgen.scenario.override import did_you_mean, split
from loadgen.scenario.problems import keys_of, nearest
from loadgen.scenario.target import Target
from loadgen.scenario.tree import Path, dotted

ROOTS = ("targets", "workload", "load")
"""What may differ between the cells of one run; the rest of a scenario is about the run as a whole."""

SHORT_WORDS = ("exact", "max")
"""Last components that say too little alone; a cell is called ``output.max=256``."""


def axis_path(text: str, data: Mapping[str, Any]) -> Path:
    """The path that an axis means in a scenario's plain data. Raises ValueError with a sentence if it means none."""
    if "." not in text:
        return _short(text, data)
    path = split(text, data)
    if path[0] not in ROOTS:
        raise ValueError(f"cannot differ between cells; an axis is in {', '.join(ROOTS)}")
    names = list(data["targets"])
    if path[0] == "targets" and path[1] not in ("*", *names):
        raise ValueError(f"there is no target {path[1]!r}{did_you_mean(str(path[1]), names)}")
    known = keys_of(path[:-1])
    if known and path[:-1] != ("workload",) and path[-1] not in known:
        paths = [dotted((*path[:-1], key)) for key in known]
        raise ValueError(f"there is no {text}{nearest(text, paths)}")
    return path


def _short(text: str, data: Mapping[str, Any]) -> Path:
    paths = list(_values(data))
    found = [path for path in paths if path[-1] == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"may mean {' or '.join(map(dotted, found))}; write the path that is meant")
    words = [str(path[-1]) for path in paths]
    reason = "names no value of a scenario" + nearest(text, words)
    raise ValueError(f"{reason} (an axis is a path such as load.concurrency, or its last component)")


def _values(data: Mapping[str, Any]) -> Iterator[Path]:
    """Every value that a short name may mean: the language's own, and the free keys that the scenario uses."""
    for root, model in ((("load",), Load), (("workload",), Workload), (("workload", "output"), Output)):
        yield from ((*root, name) for name in model.model_fields)
    yield from (("targets", "*", name) for name in Target.model_fields)
    workload = data["workload"]
    yield from (("workload", key) for key in workload if key not in Workload.model_fields)
    yield from (("workload", "sampling", key) for key in workload.get("sampling", {}))
    for name, target in data["targets"].items():
        yield from (("targets", name, "options", key) for key in target.get("options", {}))


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """A short name for each path: as much of its end as no other path has."""
    paths = list(dict.fromkeys(paths))
    names: dict[Path, str] = {}
    for path in paths:
        length = 2 if path[-1] in SHORT_WORDS else 1
        while length < len(path) and any(other != path and other[-length:] == path[-length:] for other in paths):
            length += 1
        names[path] = dotted(path[-length:])
    return names


def overlap(one: Path, other: Path) -> bool:
    """True if two paths may be the same value; ``*`` is every target."""
    return len(one) == len(other) and all(a == b or "*" in (a, b) for a, b in zip(one, other, strict=True))


def put_plain(data: Any, path: Path, value: Any) -> None:
    """Set a value in plain data; mappings that are missing on the way are made.

    Raises ValueError with a sentence if something on the way is no mapping and no list that is long enough.
    """
    for depth, step in enumerate(path[:-1]):
        if step == "*":
            for key in data:
                put_plain(data, (key, *path[depth + 1 :]), value)
            return
        data = _into(data, step, path)
    _into(data, path[-1], path)
    data[path[-1]] = value


def _into(data: Any, step: str | int, path: Path) -> Any:
    """The container at a step, made if it is missing."""
    if isinstance(data, dict) and isinstance(step, str):
        if data.get(step) is None:
            data[step] = {}
        return data[step]
    if isinstance(data, list) and isinstance(step, int) and step < len(data):
        return data[step]
    raise ValueError(f"cannot be set: what stands before {step!r} in {dotted(path)} has no such part")
