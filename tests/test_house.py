"""The rules of the house that a program can check: who may import whom, and what the start of the command costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "loadgen"

LEVELS = (
    ("errors", "arrays", "nvml", "shown"),
    ("record", "redact", "columns", "correlation"),
    ("arrival", "lengths", "metrics", "shapes", "statistics", "traces"),
    ("summary",),
    ("comparing", "sample", "histogram", "routing", "published", "search"),
    ("scenario",),
    ("workloads", "backends"),
    ("launch", "drive"),
    ("collect", "audit"),
    ("fleet", "summarise", "judge"),
    ("store", "telemetry", "warmup", "host", "offered", "parts", "prefixes", "targets"),
    ("selftest", "null_server", "noise", "ownership", "locks", "written", "long"),
    ("ask", "retention", "expected"),
    ("plan", "engines", "doctor"),
    ("jobs", "judging"),
    ("repeat", "standing", "interrupt", "until", "preview", "room", "alone"),
    ("probe", "fair", "limits", "cells", "searched"),
    ("sites", "ended"),
    ("assemble",),
    ("progress", "needless", "calibrate", "matching", "nights", "described", "searching", "joined"),
    ("across", "plots"),
    ("reports",),
    ("run", "importing", "merging", "joining", "rejudging"),
    ("nightly",),
    ("cli",),
    ("__main__",),
)
"""Rooms from the ground up. A file imports from rooms below its own, or from its own folder."""

HEAVY = ("torch", "vllm", "transformers", "ray", "scipy", "matplotlib", "openai", "text_generation", "tokenizers")


def level_of(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def imports_of(path: Path) -> set[str]:
    """Rooms of loadgen that a file imports, at its top or inside a function; those for types only are left out."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("loadgen"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("loadgen.")}
    return found - {"__version__"}


def test_every_room_has_its_level() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__pycache__"} == {room for rooms in LEVELS for room in rooms}


def test_imports_go_from_higher_levels_to_lower_ones() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        room = parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        wrong += [
            f"{path.relative_to(PACKAGE)} imports {other}"
            for other in imports_of(path)
            if other != room and level_of(other) >= level_of(room)
        ]
    assert wrong == []


def test_every_package_is_installed() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    folders = {path.parent for path in PACKAGE.rglob("__init__.py")}
    names = {".".join(folder.relative_to(PACKAGE.parent).parts) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == names | {"loadgen.launchers"}


def test_programs_in_launchers_import_nothing_of_loadgen() -> None:
    for path in (PACKAGE.parent / "launchers").glob("*.py"):
        assert imports_of(path) == set(), path.name


def loaded_by(code: str) -> set[str]:
    """Top-level names (and scipy's parts) of the modules that a fresh interpreter has loaded after ``code``."""
    code += "; import sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_command_line_loads_nothing_heavy() -> None:
    modules = loaded_by("import loadgen.cli")
    assert {name for name in HEAVY if name in modules} == set()


def test_a_worker_process_loads_neither_pydantic_nor_numpy_nor_yaml() -> None:
    modules = loaded_by("import loadgen.drive.worker")
    assert {"pydantic", "numpy", "ruamel.yaml", "httpx", "typer", "rich", "jinja2"} & modules == set()


def test_help_answers_without_loading_the_scenario_language() -> None:
    modules = loaded_by("import loadgen.cli")
    assert "pydantic" not in modules
    assert "loadgen.scenario" not in modules
