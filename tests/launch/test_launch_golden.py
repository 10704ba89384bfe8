"""Commands of the recipes: the expected lines stand in ``golden/``, as a person would type them.

``golden/published.yaml`` has those of the published guides, ``golden/<engine>.yaml`` ours, one with many options for
every recipe. Each says which target of a scenario gives it. No line there was printed by the renderer.
"""

from __future__ import annotations

import json
import shlex
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from loadgen.launch import Command, load_recipe, recipes, render
from loadgen.scenario import Target
from loadgen.targets import spec_of

GOLDEN = Path(__file__).parent / "golden"


def content(name: str) -> dict[str, Any]:
    """The cases of one file; none where there is no file, which the last test here says."""
    path = GOLDEN / f"{name}.yaml"
    return dict(YAML(typ="safe").load(path)) if path.exists() else {}


def command(target: dict[str, Any]) -> Command:
    """The target ``t`` of a run named run-1, on port 8123."""
    spec = spec_of(Path("/scenario"), "t", Target.model_validate(target), None)
    recipe = load_recipe(spec.engine, Path())
    return render(recipe, spec, port=8123, run_id="run-1", launchers=Path("/opt/launchers"), folder=Path("/srv/s"))


def without(words: list[str], part: list[str]) -> list[str]:
    """``words`` without ``part``, which must stand in them exactly once, in one piece."""
    places = [at for at in range(len(words)) if words[at : at + len(part)] == part]
    assert len(places) == 1, f"{shlex.join(part)} stands {len(places)} times in {shlex.join(words)}"
    return words[: places[0]] + words[places[0] + len(part) :]


PUBLISHED = content("published")
OURS = {f"{engine}: {name}": case for engine in recipes() for name, case in content(engine).items()}


@pytest.mark.parametrize("name", PUBLISHED["cases"])
def test_a_scenario_gives_the_command_of_the_published_guide(name: str) -> None:
    case = PUBLISHED["cases"][name]
    line: str = case["published"]
    for dead, living in PUBLISHED["living"].items():
        if line.startswith(f"{dead} "):
            line = f"{living} {line.removeprefix(dead).lstrip()}"
    made = command(case["target"])
    words = list(made.argv)
    for ours in case.get("ours", ()):
        words = without(words, shlex.split(ours))
    assert words == shlex.split(line)
    assert case.get("env", {}).items() <= made.env.items()


def test_the_published_lines_are_ten_and_no_other_word_is_taken_out_of_ours() -> None:
    assert len(PUBLISHED["cases"]) == 10  # nine guides, one of them in two forms
    taken = shlex.split(" ".join(chain.from_iterable(case.get("ours", ()) for case in PUBLISHED["cases"].values())))
    flags = {word for word in taken if word.startswith("-")}
    assert flags == {"--rm", "--init", "--name", "--label", "-e"}


@pytest.mark.parametrize("name", OURS)
def test_a_recipe_makes_the_command_that_a_person_would_type(name: str) -> None:
    case = OURS[name]
    made = command(case["target"])
    assert list(made.argv) == shlex.split(case["line"])
    if "env" in case:
        assert dict(made.env) == case["env"]
    assert {file: json.loads(text) for file, text in made.files.items()} == case.get("files", {})


def test_every_recipe_has_a_line_of_ours_with_most_of_its_options() -> None:
    few = {}
    for engine in recipes():
        recipe = load_recipe(engine, Path())
        used = {word for case in content(engine).values() for word in case["target"].get("options", {})}
        if len(used) < 0.5 * len(recipe.options):
            few[engine] = sorted(set(recipe.options) - used)
    assert few == {}
