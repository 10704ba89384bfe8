"""A scenario file, checked: from a path and the flags of the command line to a `Loaded`, or to all that is wrong.

The order is: read, extend, choose the profile, refuse literal secrets, apply ``--set`` and ``--endpoint``, replace
references to the environment, validate, expand the matrix (only to check it). Profiles that are not chosen are checked
as well, so that a scenario does not break on the next machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as File
from typing import Any

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from loadgen.errors import ScenarioError
from loadgen.scenario.axes import put_plain
from loadgen.scenario.matrix import resolve
from loadgen.scenario.merge import extended, laid_over, put, read, resolved
from loadgen.scenario.model import Scenario
from loadgen.scenario.override import at_endpoint, with_sets, with_targets
from loadgen.scenario.problems import problems_of
from loadgen.scenario.profile import Machine, choose
from loadgen.scenario.secrets import literal_secrets
from loadgen.scenario.tree import Node, Path, Problem, node_of


class Loaded(msgspec.Struct, frozen=True):
    """A scenario and where it came from.

    ``source`` is the file's bytes as they are. ``path`` is the file; relative paths in the scenario start from its
    folder. ``profile`` is the one that was used, None where none was; ``profile_reason`` says why in a sentence, and is
    empty for a scenario without profiles.
    """

    scenario: Scenario
    source: bytes
    path: File
    profile: str | None
    profile_reason: str


def load(  # noqa: PLR0913 - one keyword for each flag of the command line
    path: File,
    *,
    sets: Sequence[str] = (),
    profile: str | None = None,
    machine: Machine | None = None,
    env: Mapping[str, str] | None = None,
    endpoint: str | None = None,
    model: str | None = None,
    targets: Sequence[str] = (),
) -> Loaded:
    """Read a scenario file.

    ``sets`` are texts like ``load.concurrency=8``. ``profile`` is a name, else the profile is chosen by ``machine``
    (None: no GPU). ``env`` is where ``${env:NAME}`` looks, by default the process's environment. ``endpoint`` (and
    ``model``, the name to ask it for) replaces the targets by one server that exists. ``targets`` are names or
    patterns of the only ones that are kept.

    Raises ScenarioError with every problem that was found, one a line.
    """
    variables = os.environ if env is None else env
    source, tree, profiles, problems = _file(path)
    choice, wrong = choose(profiles, profile, machine or Machine(0, 0.0, None))
    others, main = _variants(tree, profiles, choice.name)
    main, flagged = with_sets(main, sets)
    main, replaced = at_endpoint(main, endpoint, model)
    main, unmet = with_targets(main, targets)
    _raise_if(literal_secrets(main))
    scenario, found = _checked(main, variables, problems)
    problems = [*problems, *wrong, *flagged, *replaced, *unmet, *found]
    for other in others:
        problems += _elsewhere(other, variables)
    if problems or scenario is None:
        raise _error(problems)
    return Loaded(scenario, source, path, choice.name, choice.reason)


def _file(path: File) -> tuple[bytes, Node, Node | None, list[Problem]]:
    """A file's bytes, its tree with a name and all that it extends, its profiles, and what is wrong with these."""
    source, tree, problems = read(path)
    if tree is None:
        raise _error(problems)
    tree, more = extended(tree, path)
    # Without the file that it extends, nearly all of a scenario is missing; that is not worth a sentence each.
    _raise_if([*problems, *more] if any(problem.path == ("extends",) for problem in more) else [])
    # A literal secret is reported alone, so that no other message quotes it.
    _raise_if(literal_secrets(tree))
    if tree.get("schema") is None:
        more.append(Problem(str(path), ("schema",), "is missing; write schema: loadgen/v1 at the top"))
    return source, _named(_without(tree, "profiles"), path), tree.get("profiles"), [*problems, *more]


def public_dict(scenario: Scenario) -> dict[str, Any]:
    """The scenario as plain JSON data with all its defaults, fit to be stored: whatever came from the environment is
    there as its reference, ``${env:NAME}``. `from_public` reads it back."""
    data = scenario.model_dump(mode="json", by_alias=True)
    for path, text in scenario.references.items():
        put_plain(data, path, text)
    return data


def own_words(cell: Scenario, pattern: Mapping[str, Any]) -> dict[str, Any]:
    """What a cell's targets, workload and load say in place of the scenario that it is a cell of (``pattern``, by
    `public_dict`): nested, None where the cell leaves something out."""
    said = public_dict(cell)
    roots = {root: _own(said[root], pattern[root]) for root in ("targets", "workload", "load")}
    return {root: words for root, words in roots.items() if words}


def _own(said: Mapping[str, Any], pattern: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {key: None for key in pattern if key not in said}
    for key, mine in said.items():
        theirs = pattern.get(key)
        if key not in pattern or mine != theirs:
            own[key] = _own(mine, theirs) if isinstance(mine, Mapping) and isinstance(theirs, Mapping) else mine
    return own


def from_public(data: Mapping[str, Any], *, env: Mapping[str, str] | None = None, where: str = "run.json") -> Scenario:
    """The scenario that `public_dict` stored; ``where`` names its file in messages. Raises ScenarioError."""
    scenario, problems = _checked(node_of(data, where), os.environ if env is None else env)
    if problems or scenario is None:
        raise _error(problems)
    return scenario


def _named(tree: Node, path: File) -> Node:
    if tree.get("name") is not None:
        return tree
    stem = re.sub(r"[^A-Za-z0-9._-]+|^[.-]+", "_", path.stem)[:64]
    return put(tree, ("name",), Node(stem, str(path), str(path)))


def _without(tree: Node, key: str) -> Node:
    return replace(tree, value={name: node for name, node in tree.value.items() if name != key})


def _variants(base: Node, profiles: Node | None, chosen: str | None) -> tuple[list[Node], Node]:
    """The scenario under each profile that is not chosen, and under the one that is (as it stands for None)."""
    others: list[Node] = []
    main = base
    names = profiles.value.items() if profiles is not None and isinstance(profiles.value, dict) else ()
    for name, profile in names:
        if isinstance(profile.value, dict):
            variant = laid_over(base, _without(profile, "when"))
            if name == chosen:
                main = variant
            else:
                others.append(variant)
    return others, main


def _checked(
    tree: Node, env: Mapping[str, str], known: Sequence[Problem] = ()
) -> tuple[Scenario | None, list[Problem]]:
    """The scenario of a complete tree, and everything that is wrong with it and its cells; what follows from what is
    ``known`` to be wrong is not told."""
    tree, missing = resolved(tree, env)
    scenario, problems = _validated(tree)
    unknown = {problem.path for problem in missing}
    problems = [problem for problem in problems if problem.path not in unknown]
    checked = scenario or _mended(tree, [*problems, *missing])
    if checked is not None:
        wrong = [*problems, *missing, *known]
        for path, reason in resolve(checked)[1]:
            if not any(_related(path, problem.path) for problem in wrong):
                problems.append(Problem(_place(tree, path), path, reason))
    return scenario, [*missing, *problems]


def _validated(tree: Node) -> tuple[Scenario | None, list[Problem]]:
    references = {path: node.written for path, node in tree.walk() if node.written is not None}
    try:
        return Scenario.build(tree.plain(), references), []
    except ValidationError as error:
        return None, problems_of(error, tree)


def _mended(tree: Node, problems: Iterable[Problem]) -> Scenario | None:
    """The scenario without the values that are wrong, so that the rest can be checked; None if that is none."""
    for problem in problems:
        place = next((i for i, step in enumerate(problem.path) if isinstance(step, int)), len(problem.path))
        if not problem.path or tree.get(*problem.path[:place]) is None:
            return None
        tree = put(tree, problem.path[:place], Node(None, "", ""))
    return _validated(tree)[0]


def _related(path: Path, wrong: Path) -> bool:
    """True if what is wrong at one path may be the reason for a broken rule at another."""
    if wrong[:1] == ("matrix",) or (wrong[:1] == ("targets",) and path[:1] == ("comparison",)):
        return True
    if wrong[:1] == ("search",) and path[:1] == ("load",):
        return True
    size = 2 if path[:1] == ("targets",) else 1
    return path[:size] == wrong[:size] or path[:1] == ("matrix",)


def _place(tree: Node, path: Path) -> str:
    found, rest = tree.find(path)
    at_key = rest or isinstance(found.value, dict) or path[:1] == ("matrix",)
    return found.key_where if at_key else found.where


def _elsewhere(tree: Node, env: Mapping[str, str]) -> list[Problem]:
    """What is wrong with a variant that is not used now; variables that only it refers to may be missing."""
    _, missing = resolved(tree, env)
    return [] if missing else _checked(tree, env)[1]


def _raise_if(problems: Iterable[Problem]) -> None:
    if found := list(problems):
        raise _error(found)


def _error(problems: Iterable[Problem]) -> ScenarioError:
    """All problems, one a line, in the order of the file."""

    def order(problem: Problem) -> tuple[str, int, int]:
        match = re.fullmatch(r"(.*?):(\d+):(\d+)", problem.where)
        return (match[1], int(match[2]), int(match[3])) if match else (problem.where, 0, 0)

    return ScenarioError("\n".join(dict.fromkeys(map(str, sorted(problems, key=order)))))
