"""The scenario language: a YAML file becomes a validated, frozen `Scenario` and its cells.

In: a path, the flags of the command line, what the machine has. Out: `Loaded` and, by `expand`, one `Cell` for each
point of the matrix; or a `ScenarioError` with every problem of the file, each with its line. Read ``loading.py`` for
the order of things and ``model.py`` for the words. The parts are imported when they are first asked for, because
pydantic and its models take longer than ``loadgen --help`` may.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadgen.scenario.loading import Loaded, from_public, load, own_words, public_dict
    from loadgen.scenario.matrix import Cell, expand
    from loadgen.scenario.model import Comparison, Load, Matrix, Scenario, Workload
    from loadgen.scenario.objective import Objective, parse_objective
    from loadgen.scenario.output import Output
    from loadgen.scenario.profile import Machine
    from loadgen.scenario.schema import json_schema
    from loadgen.scenario.sides import contrasts
    from loadgen.scenario.target import MadeModel, Target

__all__ = [
    "Cell",
    "Comparison",
    "Load",
    "Loaded",
    "Machine",
    "MadeModel",
    "Matrix",
    "Objective",
    "Output",
    "Scenario",
    "Target",
    "Workload",
    "contrasts",
    "expand",
    "from_public",
    "json_schema",
    "load",
    "own_words",
    "parse_objective",
    "public_dict",
]

_HOMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "loading": ("Loaded", "from_public", "load", "own_words", "public_dict"),
        "matrix": ("Cell", "expand"),
        "model": ("Comparison", "Load", "Matrix", "Scenario", "Workload"),
        "objective": ("Objective", "parse_objective"),
        "output": ("Output",),
        "profile": ("Machine",),
        "schema": ("json_schema",),
        "sides": ("contrasts",),
        "target": ("MadeModel", "Target"),
    }
)


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"loadgen.scenario.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
