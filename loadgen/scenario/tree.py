"""YAML as a tree that remembers where every key and value stands, so that every error can say so.

In: the bytes of a file, or the text behind ``--set x=``. Out: a `Node`, or the problems that keep it from being one.
ruamel composes the document; the values are made here, because its constructors know no positions, accept tags that a
scenario has no use for, and expand nested anchors without bound. YAML 1.2, so ``yes`` is text and ``010`` is ten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

Path = tuple[str | int, ...]

MAX_BYTES = 256 * 1024
MAX_NODES = 50_000
MAX_DEPTH = 40
"""Limits on a file, and on what its anchors expand to ("a billion laughs" is a few hundred bytes)."""


class Problem(NamedTuple):
    """Something wrong in a scenario: where (``file:line:column``, or the flag that brought it), which key, and why."""

    where: str
    path: Path
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, dotted(self.path), self.reason) if part)


class Node(msgspec.Struct, frozen=True):
    """A value with its place.

    ``value`` is a scalar, a list of nodes or a mapping of names to nodes. ``where`` is the place of the value and
    ``key_where`` that of its key (the same for a value without a key). ``written`` is the text before environment
    references were replaced, None where there were none.
    """

    value: Any
    where: str
    key_where: str
    written: str | None = None

    def plain(self) -> Any:
        """The value as plain data, without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def get(self, *path: str | int) -> Node | None:
        """The node at a path below this one, None where there is none."""
        node, rest = self.find(path)
        return None if rest else node

    def find(self, path: Path) -> tuple[Node, Path]:
        """The deepest node on a path, and what of the path is left below it."""
        node = self
        for depth, step in enumerate(path):
            below = node.value
            if isinstance(below, dict) and step in below:
                node = below[str(step)]
            elif isinstance(below, list) and isinstance(step, int) and step < len(below):
                node = below[step]
            else:
                return node, path[depth:]
        return node, ()

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Every node below and including this one, with its path."""
        yield path, self
        if isinstance(self.value, dict | list):
            items = self.value.items() if isinstance(self.value, dict) else enumerate(self.value)
            for step, node in items:
                yield from node.walk((*path, step))


def dotted(path: Path) -> str:
    """A path as it is written: ``targets.dense.devices[0]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def node_of(data: Any, where: str) -> Node:
    """The tree of plain data, with the same place everywhere."""
    if isinstance(data, Mapping):
        return Node({str(key): node_of(item, where) for key, item in data.items()}, where, where)
    if isinstance(data, list | tuple):
        return Node([node_of(item, where) for item in data], where, where)
    return Node(data, where, where)


def parse(text: str, where: str) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML document, None if it cannot be read, and what is wrong with it.

    ``where`` is the file's name, or what stands for it.
    """
    # Imported here: it costs 25 ms, and ``loadgen --help`` reads no scenario.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # YAML allows an anchor to be used again
    builder = _Builder(where)
    try:
        root = yaml.compose(text)
        return (builder.node(root, (), None) if root is not None else None), builder.problems
    except MarkedYAMLError as error:
        return None, [_syntax(error, text, where)]
    except (YAMLError, ValueError) as error:
        return None, [Problem(where, (), f"is not YAML: {' '.join(str(error).split())}")]
    except RecursionError:
        return None, [Problem(where, (), "is nested too deeply to be a scenario")]
    except _TooMuchError as error:
        return None, [*builder.problems, Problem(where, (), str(error))]


def _syntax(error: Any, text: str, where: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    here = lines[line] if line < len(lines) else ""
    reason = f"is not YAML: {error.problem or error.context}"
    if "\t" in here[: column + 1]:
        reason = "is not YAML: a tab; YAML indents with spaces"
    elif "another document" in reason:
        reason = "holds a second document; a scenario is one document, so remove the line '---' and what follows"
    elif re.search(r"[{,\[].*\$\{env:", here):
        reason += " (inside { } and [ ] a reference stands in quotes: '${env:NAME}')"
    return Problem(f"{where}:{line + 1}:{column + 1}", (), reason)


class _TooMuchError(Exception):
    pass


class _Builder(msgspec.Struct):
    """Makes Nodes of ruamel's nodes. ``open`` holds the containers around the current one, to find endless anchors."""

    where: str
    problems: list[Problem] = msgspec.field(default_factory=list)
    count: int = 0
    open: set[int] = msgspec.field(default_factory=set)

    def node(self, raw: Any, path: Path, key: Any) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            raise _TooMuchError(f"holds more than {MAX_NODES:,} values once its anchors are expanded; no scenario does")
        if len(path) > MAX_DEPTH:
            raise RecursionError
        place = self.place(raw)
        key_place = self.place(key) if key is not None else place
        if raw.id == "scalar":
            return Node(self.scalar(raw, path), place, key_place)
        if id(raw) in self.open:
            raise _TooMuchError(f"has an anchor that holds itself, at {dotted(path)}")
        self.open.add(id(raw))
        self.check_tag(raw, path, ("map", "seq"))
        value = self.mapping(raw, path) if raw.id == "mapping" else self.sequence(raw, path)
        self.open.discard(id(raw))
        return Node(value, place, key_place)

    def sequence(self, raw: Any, path: Path) -> list[Node]:
        return [self.node(item, (*path, i), None) for i, item in enumerate(raw.value)]

    def mapping(self, raw: Any, path: Path) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, item in raw.value:
            if key.id == "scalar" and key.tag.endswith(":merge"):
                merged = {**self.merge(item, path), **merged}
                continue
            name = str(key.value) if key.id == "scalar" else ""
            if not name:
                self.problem(key, path, "a key must be text")
                continue
            below = (*path, name)
            if name in own:
                line = own[name].key_where.removeprefix(f"{self.where}:").split(":")[0]
                self.problem(key, below, f"is written twice, first in line {line}; remove one of the two")
            else:
                own[name] = self.node(item, below, key)
        return {**merged, **own}

    def merge(self, raw: Any, path: Path) -> dict[str, Node]:
        """The mappings behind ``<<``; of several the first wins, as YAML's merge key says."""
        found: dict[str, Node] = {}
        for item in raw.value if raw.id == "sequence" else [raw]:
            if item.id != "mapping":
                self.problem(item, (*path, "<<"), "must be a mapping, or a list of mappings")
            else:
                found = {**self.node(item, path, None).value, **found}
        return found

    def scalar(self, raw: Any, path: Path) -> Any:
        kind = self.check_tag(raw, path, ("str", "int", "float", "bool", "null", "timestamp", "value", "merge"))
        text = str(raw.value)
        try:
            match kind:
                case "int":
                    return _integer(text.replace("_", ""))
                case "float":
                    return _number(text.replace("_", ""))
                case "bool":
                    return text.lower() in ("true", "yes", "on", "y")
                case "null":
                    return None
        except ValueError as error:
            self.problem(raw, path, f"{text[:40]!r} {error}")
            return None
        return text  # dates stay text: nothing in a scenario is a date

    def check_tag(self, raw: Any, path: Path, known: tuple[str, ...]) -> str:
        kind = str(raw.tag).removeprefix("tag:yaml.org,2002:")
        if kind not in known:
            self.problem(
                raw, path, f"the tag {kind!r} has no meaning here; a scenario is text, numbers, lists, mappings"
            )
        return kind

    def place(self, raw: Any) -> str:
        mark = raw.start_mark
        return f"{self.where}:{mark.line + 1}:{mark.column + 1}"

    def problem(self, raw: Any, path: Path, reason: str) -> None:
        self.problems.append(Problem(self.place(raw), path, reason))


def _integer(text: str) -> int:
    if len(text) > 30:
        raise ValueError("is too long for a number")
    if re.match(r"[-+]?0[xob]", text):
        return int(text, 0)
    return int(text, 10)


def _number(text: str) -> float:
    value = float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text, flags=re.IGNORECASE))
    if not math.isfinite(value):
        raise ValueError("is no number that can be measured with; write a finite one")
    return value
