"""Which engines there are, which of them are here, and how to get the others.

In: the recipes, and the pythons of those that live in environments of their own. Out: a `Found` for each. An engine is
looked for as it would be started: its program in the PATH, or its module in the named python (loadgen's own where the
recipe's command itself begins with one), without importing it. Images are asked of the container engine, if it answers.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from loadgen.ask import Answer, ask
from loadgen.launch import Recipe, launchers_folder, load_recipe
from loadgen.launch.environment import inherited

VERSION_S = 45.0
"""Some import all of torch before they print their version."""
IMAGE_S = 10.0

MODULE_VERSION = """
import importlib.metadata as metadata, importlib.util, sys
module = sys.argv[1]
if importlib.util.find_spec(module) is None:
    sys.exit(f"{sys.executable} has no module {module}")
print(*(metadata.version(name) for name in metadata.packages_distributions().get(module, [])[:1]))
"""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One engine. ``here`` is None where only a start can tell; ``version`` is None where it is not here or does not
    say. ``why`` is why it is not here. ``image`` is the recipe's own, "" where a target must name one, None where the
    recipe knows no container; ``image_here`` is None where nobody could be asked."""

    engine: str
    about: str
    backends: tuple[str, ...]
    program: str
    here: bool | None
    version: str | None
    why: str | None
    install: str
    image: str | None
    image_here: bool | None


def survey(recipes: Sequence[Recipe], pythons: Mapping[str, str]) -> list[Found]:
    """Looks for each engine, all at once; ``pythons`` maps names of engines to interpreters."""
    if not recipes:
        return []
    with ThreadPoolExecutor(len(recipes)) as pool:
        return list(pool.map(lambda recipe: _found(recipe, pythons.get(recipe.name)), recipes))


def _found(recipe: Recipe, python: str | None) -> Found:
    program, here, version, why = _looked_for(recipe, python)
    image = recipe.docker.image if recipe.docker else None
    return Found(
        engine=recipe.name,
        about=recipe.about,
        backends=tuple(recipe.wires),
        program=program,
        here=here,
        version=version,
        why=why,
        install=recipe.install,
        image=image,
        image_here=_image_here(recipe) if image else None,
    )


def _looked_for(recipe: Recipe, python: str | None) -> tuple[str, bool | None, str | None, str | None]:
    """(program, here, version, why it is not here)"""
    words = recipe.python_command if python and recipe.python_command else recipe.command
    if not words:
        return "", False, None, "it runs in a container only"
    environ = {**inherited(os.environ), "PYTHONSAFEPATH": "1"}  # a folder ./vllm here is no package
    if words[0] != "{python}":
        if shutil.which(words[0]) is None:
            return words[0], False, None, f"there is no program {words[0]!r} in the PATH"
        if not recipe.version:
            return words[0], True, None, None
        return words[0], *_judged(ask(_filled(recipe.version, ""), VERSION_S, environ))
    interpreter = python or sys.executable
    if "-m" in words:
        module = words[words.index("-m") + 1].partition(".")[0]
        return interpreter, *_judged(ask([interpreter, "-c", MODULE_VERSION, module], VERSION_S, environ))
    if not recipe.version:
        return interpreter, None, None, None
    return interpreter, *_judged(ask(_filled(recipe.version, interpreter), VERSION_S, environ))


def _judged(answer: Answer) -> tuple[bool, str | None, str | None]:
    if answer.problem is not None:
        return False, None, answer.reason
    return True, version_in(answer.line or ""), None


def version_in(line: str) -> str | None:
    """The version in what an engine prints of itself (``llama-server version: 4589 (a1b2)``: 4589); None without."""
    found = re.search(r"\d+(?:\.\d+)+[\w.+-]*", line) or re.search(r"(?<![\w.])[bv]?\d+", line)
    return found[0] if found else None


def _filled(words: Sequence[str], python: str) -> list[str]:
    return [word.replace("{python}", python).replace("{launchers}", str(launchers_folder())) for word in words]


def _image_here(recipe: Recipe) -> bool | None:
    assert recipe.docker is not None
    program, image = recipe.docker.run[0], recipe.docker.image
    if ask([program, "image", "inspect", "--format", "{{.Id}}", image], IMAGE_S).problem is None:
        return True
    return False if ask([program, "version"], IMAGE_S).problem is None else None


def shipped() -> list[Recipe]:
    """The recipes that come with loadgen, by name."""
    from loadgen.launch import recipes

    return [load_recipe(name, Path()) for name in recipes()]
