"""What the command line changes in a scenario: ``--set a.b=c``, ``--endpoint URL``, ``--model NAME``, ``--target A``.

In: a tree and the texts of the flags. Out: a tree in which the changed values name the flag as their place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from msgspec.structs import replace

from loadgen.scenario.merge import put
from loadgen.scenario.secrets import may_be_secret
from loadgen.scenario.tree import Node, Path, Problem, dotted, parse

SEVERAL = ("endpoints", "balance")
"""Words of a target that has several endpoints."""

LAUNCH_WORDS = ("options", "args", "env", "python", "image", "devices", "cpus")
"""Settings of a target that mean something only where an engine is launched."""

BEFORE_SET = ("extends", "profiles", "schema")


def split(text: str, data: Any) -> Path:
    """The steps of a dotted path. Where a key of ``data`` (plain) itself holds dots, the longest such key is taken.

    ``a.b[0].c`` is ("a", "b", 0, "c"); in a matrix all that is left is one key, because axes are dotted paths.
    """
    steps: list[str | int] = []
    rest = text
    while rest:
        if index := re.match(r"\[(\d+)\]\.?", rest):
            steps.append(int(index[1]))
            rest = rest[index.end() :]
        else:
            key = _key(rest, data, in_matrix=steps == ["matrix"])
            steps.append(key)
            rest = rest[len(key) :].removeprefix(".")
        data = _below(data, steps[-1])
    return tuple(steps)


def _key(rest: str, data: Any, in_matrix: bool) -> str:
    keys = sorted(data, key=len, reverse=True) if isinstance(data, dict) else []
    for key in keys:
        if rest == key or rest.startswith((f"{key}.", f"{key}[")):
            return str(key)
    end = r"\[" if in_matrix and not rest.startswith(("include", "exclude")) else r"[.\[]"
    return re.split(end, rest, maxsplit=1)[0] or rest


def _below(data: Any, step: str | int) -> Any:
    if step == "*" and isinstance(data, dict):
        return next(iter(data.values()), None)
    if isinstance(data, dict):
        return data.get(step)
    return data[step] if isinstance(data, list) and isinstance(step, int) and step < len(data) else None


def with_sets(tree: Node, sets: Iterable[str]) -> tuple[Node, list[Problem]]:
    """The tree with every ``a.b=c`` done, in order, and what is wrong with them."""
    problems: list[Problem] = []
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            problems.append(Problem(f"--set {text}", (), "is no setting; write --set load.concurrency=8"))
            continue
        tree, found = _with_set(tree, name.strip(), value)
        problems += found
    return tree, problems


def _with_set(tree: Node, name: str, text: str) -> tuple[Node, list[Problem]]:
    node, problems = parse(text, f"--set {name}")
    inside = [str(path[-1]) for path, _ in node.walk() if path] if node is not None else []
    where = f"--set {name}={'***' if any(map(may_be_secret, [*name.split('.'), *inside])) else text}"
    path = split(_axis_as_written(name, tree), tree.plain())
    if path[0] in BEFORE_SET:
        reason = f"is read before --set; set what it changes instead (the path without {path[0]!r})"
        return tree, [Problem(where, path, reason)]
    if problems:
        return tree, [Problem(where, path, problem.reason) for problem in problems]
    targets = tree.get("targets")
    names = list(targets.value) if targets is not None and isinstance(targets.value, dict) else []
    if path[0] == "targets" and len(path) > 2 and path[1] not in ("*", *names):
        return tree, [Problem(where, path, f"there is no target {path[1]!r}{did_you_mean(str(path[1]), names)}")]
    if taken := _varied(tree, path):
        reason = f"the matrix varies it, so this would change nothing; write --set 'matrix.{taken}=[...]'"
        return tree, [Problem(where, path, reason)]
    new = at(node, where) if node is not None else Node(None, where, where)
    try:
        return put(tree, path, new), []
    except KeyError as error:
        return tree, [Problem(where, path, f"nothing can be set at {error.args[0]!r}: what holds it has no such part")]


def _axis_as_written(name: str, tree: Node) -> str:
    """A path into the matrix with the axis as the file writes it, so that ``matrix.concurrency`` finds
    ``matrix.load.concurrency`` and does not become a second axis."""
    matrix = tree.get("matrix")
    if not name.startswith("matrix.") or matrix is None or not isinstance(matrix.value, dict):
        return name
    axis, bracket, index = name.removeprefix("matrix.").partition("[")
    for key in matrix.value:
        if f".{key}".endswith(f".{axis}") or f".{axis}".endswith(f".{key}"):
            return f"matrix.{key}{bracket}{index}"
    return name


def _varied(tree: Node, path: Path) -> str | None:
    """The axis of the matrix that decides the value at a path, as it is written; None where none does."""
    matrix = tree.get("matrix")
    if matrix is None or not isinstance(matrix.value, dict) or path[0] == "matrix":
        return None
    text = dotted(path)
    for axis in matrix.value:
        if axis not in ("include", "exclude") and f".{text}".endswith(f".{axis}"):
            return str(axis)
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'? There are: ...``, or an empty text where nothing is known."""
    known = list(known)
    if not known:
        return ""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
    return f"; did you mean {near[0]!r}? There are: {', '.join(known)}"


def at(node: Node, where: str) -> Node:
    """The same values with another place."""
    value = node.value
    if isinstance(value, dict):
        value = {key: at(item, where) for key, item in value.items()}
    elif isinstance(value, list):
        value = [at(item, where) for item in value]
    return replace(node, value=value, where=where, key_where=where)


def at_endpoint(tree: Node, url: str | None, model: str | None) -> tuple[Node, list[Problem]]:
    """The tree with one target, a server that exists: the scenario's only target with its name and its way of
    talking, or else a new one called ``endpoint``. Nothing is compared then. Without a URL, ``model`` is refused."""
    if url is None:
        if model is None:
            return tree, []
        return tree, [Problem(f"--model {model}", (), "needs --endpoint URL; a launched model is set by its target")]
    flag = f"--endpoint {re.sub('//[^@/]*@', '//***@', url)}"
    targets = tree.get("targets")
    present = targets.value if targets is not None and isinstance(targets.value, dict) else {}
    name, words = "endpoint", {}
    if len(present) == 1 and isinstance(next(iter(present.values())).value, dict):
        ((name, only),) = present.items()
        words = {key: node for key, node in only.value.items() if key not in (*LAUNCH_WORDS, *SEVERAL)}
    words["endpoint"] = Node(url, flag, flag)
    if model is not None:
        words["model"] = Node(model, f"--model {model}", f"--model {model}")
    elif "model" not in words or isinstance(words["model"].value, dict):
        reason = "needs --model NAME beside it: the scenario names no single model that a server could be asked for"
        return tree, [Problem(flag, (), reason)]
    only_target = Node({name: Node(words, flag, flag)}, flag, flag)
    kept = {key: node for key, node in tree.value.items() if key != "comparison"}
    return replace(tree, value={**kept, "targets": only_target}), []


def with_targets(tree: Node, patterns: Sequence[str]) -> tuple[Node, list[Problem]]:
    """The tree with the targets that a pattern fits (``*`` and ``?`` as in a shell), all for no pattern, and what is
    wrong with the patterns. Nothing is compared where one target is left."""
    targets = tree.get("targets")
    if not patterns or targets is None or not isinstance(targets.value, dict):
        return tree, []
    names = list(targets.value)
    missing = [one for one in patterns if not any(fnmatchcase(name, one) for name in names)]
    if missing:
        reason = f"there is no target {missing[0]!r}{did_you_mean(missing[0], names)}"
        return tree, [Problem(f"--target {missing[0]}", (), reason)]
    kept = {name: node for name, node in targets.value.items() if any(fnmatchcase(name, one) for one in patterns)}
    words = {**tree.value, "targets": replace(targets, value=kept)}
    if len(kept) < 2:
        words.pop("comparison", None)
    return replace(tree, value=words), []
