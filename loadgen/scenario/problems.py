"""pydantic's errors as sentences with a place: ``file:line:column: path: reason; did you mean ...?``.

In: a ValidationError and the tree that was validated. Out: problems. Types are called what YAML calls them, and a value
that came from the environment is shown as its reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from loadgen.scenario.kinds import Words
from loadgen.scenario.model import (
    NAME,
    Comparison,
    Load,
    Matrix,
    Nightly,
    Scenario,
    When,
    Workload,
)
from loadgen.scenario.output import Output
from loadgen.scenario.search import Search
from loadgen.scenario.target import MadeModel, Target
from loadgen.scenario.telemetry import Telemetry
from loadgen.scenario.tree import Node, Path, Problem, dotted

MAPPINGS: Mapping[tuple[str, ...], type[Words]] = MappingProxyType(
    {
        (): Scenario,
        ("targets", "*"): Target,
        ("targets", "*", "model"): MadeModel,
        ("workload",): Workload,
        ("workload", "output"): Output,
        ("load",): Load,
        ("matrix",): Matrix,
        ("comparison",): Comparison,
        ("nightly",): Nightly,
        ("telemetry",): Telemetry,
        ("search",): Search,
        ("profiles", "*", "when"): When,
    }
)
"""Where each model stands in a scenario; ``*`` is any name."""

READ_BEFORE = ("extends", "profiles")
"""Keys of a file that are used up before the models are made."""

ENGINE_WORDS = ("dtype", "quantization", "tensor_parallel", "max_batch_size", "max_model_len", "hub", "hub_endpoint")
"""Options of engines that people look for one step further up, beside the model."""

_WANTED = MappingProxyType(
    {
        "string_type": "text",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "tuple_type": "a list",
        "none_required": "null",
    }
)

_LIMITS = MappingProxyType(
    {
        "greater_than": ("gt", "must be more than"),
        "greater_than_equal": ("ge", "must be at least"),
        "less_than": ("lt", "must be less than"),
        "less_than_equal": ("le", "must be at most"),
    }
)


def problems_of(error: ValidationError, tree: Node, root: Path = ()) -> list[Problem]:
    """One problem for each thing that is wrong; the errors of a union's parts become one. ``root`` is where the tree
    stands in the scenario."""
    together: dict[Path, list[Any]] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and item["input"]:
            continue  # it has items, which are all wrong and have problems of their own
        together.setdefault(_path(item, tree), []).append(item)
    return [_problem(path, items, tree, root) for path, items in together.items()]


def keys_of(path: Path) -> list[str]:
    """The keys that a mapping of a scenario knows, by the path of the mapping; empty for mappings with free keys."""
    model = MAPPINGS.get(_pattern(path))
    if model is None:
        return []
    keys = [field.alias or name for name, field in model.model_fields.items()]
    return [*keys, *READ_BEFORE] if model is Scenario else keys


def nearest(word: str, known: list[str]) -> str:
    """The end of a sentence that proposes the known word nearest to one that is not; empty if none is near."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.55)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(node: Node | None) -> str:
    """A value as it is written, shortened, for a message."""
    if node is None:
        return "nothing"
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    if isinstance(node.value, str):
        text = node.written or node.value
        return f"the text {text if len(text) <= 60 else text[:57] + '...'!r}"
    return json.dumps(node.value)


def _pattern(path: Path) -> tuple[str, ...]:
    return tuple("*" if i == 1 and path[0] in ("targets", "profiles") else str(step) for i, step in enumerate(path))


def _path(item: Any, tree: Node) -> Path:
    """Where an error stands in the tree. Behind a scalar pydantic names the parts of a union, which are no keys."""
    loc: Path = tuple(step for step in item["loc"] if not str(step).startswith("("))
    _, rest = tree.find(loc)
    if rest and (rest[0] == "[key]" or item["type"] != "missing"):
        return loc[: len(loc) - len(rest)]
    return loc


def _problem(path: Path, items: list[Any], tree: Node, root: Path) -> Problem:
    found, rest = tree.find(path)
    kinds = {item["type"] for item in items}
    keyed = "extra_forbidden" in kinds or items[0]["loc"][-1] == "[key]"
    place = found.key_where if keyed or rest else found.where
    return Problem(place, (*root, *path), _reason((*root, *path), items, found))


def _reason(path: Path, items: list[Any], node: Node) -> str:
    item, kind = items[0], items[0]["type"]
    if item["loc"][-1] == "[key]":
        return _bad_name(path, item)
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return "is missing"
    if all(other["type"] in _WANTED or other["type"] == "literal_error" for other in items):
        return _wrong_type(items, node)
    return _wrong_value(next(other for other in items if other["type"] not in _WANTED), node)


def _wrong_type(items: list[Any], node: Node) -> str:
    words = [_WANTED[item["type"]] for item in items if item["type"] in _WANTED]
    for item in items:
        if item["type"] == "literal_error":
            words += item["ctx"]["expected"].replace(" or ", ", ").split(", ")
    wanted = list(dict.fromkeys(words))
    choices = [word.strip("'") for word in wanted if word.startswith("'")]
    near = nearest(node.value, choices) if isinstance(node.value, str) else ""
    hint = " (what comes from the environment is text)" if node.written and not choices else ""
    if wanted == ["a list"] and isinstance(node.value, str | int) and len(shown(node)) <= 60:
        near = f"; write [{node.written or node.value}]"  # not what it holds, which may be secret
    listed = wanted[0] if len(wanted) == 1 else f"{', '.join(wanted[:-1])} or {wanted[-1]}"
    return f"must be {listed}, not {shown(node)}{hint}{near}"


def _wrong_value(item: Any, node: Node) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{words} {context[name]:.12g}, not {shown(node)}"
    if kind == "value_error":
        return str(context["error"]).replace("{}", shown(node))
    if kind in ("string_too_short", "too_short"):
        return "is empty; it needs at least one"
    if kind == "string_pattern_mismatch":
        if context["pattern"] == NAME:
            return "has 1 to 64 letters, digits, '.', '_' or '-', and starts with a letter, digit or '_'"
        return f"must match {context['pattern']}, not {shown(node)}"
    return str(item["msg"][:1].lower() + item["msg"][1:])


def _bad_name(path: Path, item: Any) -> str:
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if path[:1] == ("targets",) and len(path) == 2:
        return "a target's name has 1 to 40 letters, digits, '.', '_' or '-', and starts with a letter, digit or '_'"
    return "a variable's name has letters, digits and '_', and starts with no digit"


def _unknown_key(path: Path) -> str:
    word, known = str(path[-1]), keys_of(path[:-1])
    if _pattern(path[:-1]) == ("targets", "*") and word in ENGINE_WORDS:
        return f"unknown key here: it is a word of the engine; write options: {{{word}: ...}}"
    if near := nearest(word, known):
        return f"unknown key{near}"
    for place in MAPPINGS:
        if place and word in keys_of(place):
            return f"unknown key here; did you mean {dotted((*place, word))}?"
    return f"unknown key; known here: {', '.join(known)}"
