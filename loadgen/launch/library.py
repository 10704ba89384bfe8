"""The recipes that exist: in goes a name or a path, out comes a checked `Recipe`.

A name in a scenario is a file name in ``launchers/``; a path (``./mine.yaml``) is a file of the user's. Mistakes in a
file are reported all at once, each with ``file:line``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loadgen.errors import UsageError
from loadgen.launch.recipe import NAMES, PLACEHOLDER, SPLICES, Recipe, placed_strings
from loadgen.launch.recipe_file import RecipeFile, read


def launchers_folder() -> Path:
    """The folder of the shipped recipes and their programs, in a wheel, an editable install or a plain checkout."""
    from importlib.resources import files

    try:
        return Path(str(files("loadgen.launchers")))
    except ModuleNotFoundError:  # a checkout that was never installed: the folder stands beside the package
        return Path(__file__).resolve().parents[2] / "launchers"


def recipes() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in launchers_folder().glob("*.yaml"))


def load_recipe(engine: str, folder: Path) -> Recipe:
    """The recipe of this name, or of this file (a path, relative to ``folder``, that ends in .yaml).

    Raises UsageError for a name that does not exist, with those that do, the nearest first, and for a file with
    mistakes, one line each with ``file:line``.
    """
    if engine.endswith((".yaml", ".yml")) or "/" in engine:
        return parse(read(folder / Path(os.path.expanduser(engine))))
    known = recipes()
    if engine not in known:
        near = difflib.get_close_matches(engine, known, n=len(known), cutoff=0.0)
        raise UsageError(
            f"engine {engine!r} does not exist; did you mean {near[0]!r}? There are: {', '.join(near)}; "
            "a recipe of your own is named by its path (./mine.yaml)."
        )
    return parse(read(launchers_folder() / f"{engine}.yaml"))


def parse(file: RecipeFile) -> Recipe:
    """The recipe in a parsed file. Raises UsageError with every mistake on a line of its own."""
    if reserved := {"name", "path"} & set(file.values):
        key = sorted(reserved)[0]
        raise UsageError(f"{file.where([key])}: {key}: a recipe's {key} is its file's; take this line out.")
    try:
        recipe = Recipe(name=file.path.stem, path=file.path, **file.values)
    except ValidationError as error:
        raise UsageError("\n".join(_sentence(file, item) for item in error.errors())) from error
    problems = list(_unknown_placeholders(file, recipe))
    if problems:
        raise UsageError("\n".join(problems))
    return recipe


def _sentence(file: RecipeFile, error: Any) -> str:
    steps = [step for step in error["loc"] if not str(step).startswith("function-")]
    path = ".".join(str(step) for step in steps)
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = sorted(set(Recipe.model_fields) - {"name", "path"}) if len(steps) == 1 else []
        near = difflib.get_close_matches(str(steps[-1]), known, n=1)
        reason = "a recipe has no such key" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{file.where(steps)}: {path + ': ' if path else ''}{reason}."


def _unknown_placeholders(file: RecipeFile, recipe: Recipe) -> Iterator[str]:
    """A sentence for every placeholder that nothing will fill: it would reach the engine with its braces."""
    for steps, string in placed_strings(file.values):
        if steps[0] in ("facts", "about", "install", "notes") or steps[-1] == "note":
            continue
        exact = steps[0] == "exact" or (steps[0] == "backends" and steps[2:3] == ("exact",))
        allowed = {"n"} if exact else NAMES | SPLICES
        if "options" in steps:
            allowed = allowed | {"value"}
        for name in PLACEHOLDER.findall(string):
            if name not in allowed:
                listing = ", ".join("{" + known + "}" for known in sorted(allowed))
                yield f"{file.where(steps)}: {{{name}}} is no placeholder here; there are {listing}."
            elif name in SPLICES and string != f"{{{name}}}":
                yield f"{file.where(steps)}: {{{name}}} stands for several words, and so must be a word of its own."
    if recipe.docker and not any("{image}" in element for element in recipe.docker.run):
        yield f'{file.where(["docker", "run"])}: docker.run must name the image: put "{{image}}" into it.'
